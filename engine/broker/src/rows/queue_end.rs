//! Where a subscription's queue ends: rewritten with every redrive to it, so that no number is given twice. No row: nothing
//! was ever redriven to the subscription.
//!
//! ```text
//!  0         1      9
//!  +---------+------+
//!  | version | end  |
//!  | u8 = 1  | u64  |
//!  +---------+------+
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use levada_protocol::ids::SubscriptionId;
use levada_store::Family;

use super::{
    Row,
    codec::{Damage, Fields},
    key::{KeyBuilder, KeyFields, KeyRange},
    tag,
};

/// The number of the next event that is redriven to a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueEnd(pub(crate) u64);

impl QueueEnd {
    /// Those of all subscriptions.
    pub(crate) fn all() -> KeyRange {
        KeyBuilder::new(1).u8(tag::SIDE_QUEUE_END).range()
    }
}

impl Row for QueueEnd {
    const NAME: &'static str = "queue end";
    const FAMILY: Family = Family::Side;
    const VERSION: u8 = 1;
    type Key = SubscriptionId;

    fn key(id: &SubscriptionId) -> Bytes {
        KeyBuilder::new(9).u8(tag::SIDE_QUEUE_END).u64(id.0).finish()
    }

    fn parse_key(key: &[u8]) -> Option<SubscriptionId> {
        let mut fields = KeyFields::after(&[tag::SIDE_QUEUE_END], key)?;
        let id = SubscriptionId(fields.u64()?);
        fields.finish(id)
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
        check::bytes(&SubscriptionId(9), &QueueEnd(258), "03 0000000000000009", "01 0201000000000000");
    }

    proptest! {
        #[test]
        fn it_comes_back(id: u64, end: u64) {
            let key = SubscriptionId(id);
            check::comes_back(&key, &QueueEnd(end));
            check::is_within::<QueueEnd>(&key, &QueueEnd::all());
        }
    }
}
