//! The id that the next topic, subscription, plugin version or route gets.
//!
//! ```text
//!  0         1       9
//!  +---------+-------+
//!  | version | next  |
//!  | u8 = 1  | u64   |
//!  +---------+-------+
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use levada_store::Family;

use super::{
    Row,
    codec::{Damage, Fields},
    tag,
};

/// The next id, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NextId(pub(crate) u64);

impl Row for NextId {
    const NAME: &'static str = "next id";
    const FAMILY: Family = Family::Meta;
    const VERSION: u8 = 1;
    type Key = ();

    fn key((): &()) -> Bytes {
        Bytes::from_static(&[tag::META_NEXT_ID])
    }

    fn parse_key(key: &[u8]) -> Option<()> {
        (key == [tag::META_NEXT_ID]).then_some(())
    }

    fn len(&self) -> usize {
        8
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u64_le(self.0);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        Ok(Self(fields.u64()?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rows::check;

    #[test]
    fn the_bytes_are_these() {
        check::bytes(&(), &NextId(0x0102), "01", "01 0201000000000000");
    }

    proptest! {
        #[test]
        fn it_comes_back(next: u64) {
            check::comes_back(&(), &NextId(next));
        }
    }
}
