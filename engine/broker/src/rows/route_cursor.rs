//! How far a route has come in one partition of its source.
//!
//! ```text
//!  0         1       9
//!  +---------+-------+
//!  | version | next  |
//!  | u8 = 1  | u64   |
//!  +---------+-------+
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use levada_protocol::ids::{Offset, PartitionId, RouteId};
use levada_store::Family;

use super::{
    Row,
    codec::{Damage, Fields},
    key::{KeyBuilder, KeyFields, KeyRange},
    tag,
};

/// The next offset that the route takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RouteCursor(pub(crate) Offset);

impl RouteCursor {
    /// Those of a route.
    pub(crate) fn of_route(id: RouteId) -> KeyRange {
        KeyBuilder::new(9).u8(tag::CURSOR_ROUTE).u64(id.0).range()
    }
}

impl Row for RouteCursor {
    const NAME: &'static str = "route cursor";
    const FAMILY: Family = Family::Cursors;
    const VERSION: u8 = 1;
    type Key = (RouteId, PartitionId);

    fn key((id, partition): &Self::Key) -> Bytes {
        KeyBuilder::new(11).u8(tag::CURSOR_ROUTE).u64(id.0).u16(partition.0).finish()
    }

    fn parse_key(key: &[u8]) -> Option<Self::Key> {
        let mut fields = KeyFields::after(&[tag::CURSOR_ROUTE], key)?;
        let partition = (RouteId(fields.u64()?), PartitionId(fields.u16()?));
        fields.finish(partition)
    }

    fn len(&self) -> usize {
        8
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u64_le(self.0.0);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        Ok(Self(Offset(fields.u64()?)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rows::check;

    #[test]
    fn the_bytes_are_these() {
        let key = (RouteId(1), PartitionId(2));
        check::bytes(&key, &RouteCursor(Offset(0x0304)), "02 0000000000000001 0002", "01 0403000000000000");
    }

    proptest! {
        #[test]
        fn it_comes_back(id: u64, partition: u16, next: u64) {
            let key = (RouteId(id), PartitionId(partition));
            check::comes_back(&key, &RouteCursor(Offset(next)));
            check::is_within::<RouteCursor>(&key, &RouteCursor::of_route(key.0));
        }
    }
}
