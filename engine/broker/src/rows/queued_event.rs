//! An event that was redriven to one subscription, until it comes to its end there. The key is the subscription, and the
//! event's number in the subscription's queue.
//!
//! ```text
//!  0         1           3        11     19
//!  +---------+-----------+--------+------+-------+
//!  | version | partition | offset | time | batch |
//!  | u8 = 1  | u16       | u64    | u64  |       |
//!  +---------+-----------+--------+------+-------+
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use levada_protocol::ids::{Offset, PartitionId, SubscriptionId, Timestamp};
use levada_store::Family;

use super::{
    Row,
    codec::{Damage, Fields},
    key::{KeyBuilder, KeyFields, KeyRange},
    tag,
};

/// An event in a subscription's queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueuedEvent {
    /// Where it was in the subscription's topic.
    pub(crate) partition: PartitionId,
    pub(crate) offset: Offset,
    /// When it was redriven.
    pub(crate) time: Timestamp,
    /// A batch that holds it alone.
    pub(crate) batch: Bytes,
}

impl QueuedEvent {
    /// Those of a subscription.
    pub(crate) fn of_subscription(id: SubscriptionId) -> KeyRange {
        KeyBuilder::new(9).u8(tag::SIDE_QUEUED).u64(id.0).range()
    }

    /// Those of a subscription from the number `from` on, before `until`.
    pub(crate) fn between(id: SubscriptionId, from: u64, until: u64) -> KeyRange {
        (Self::key(&(id, from)), Self::key(&(id, until)))
    }
}

impl Row for QueuedEvent {
    const NAME: &'static str = "queued event";
    const FAMILY: Family = Family::Side;
    const VERSION: u8 = 1;
    type Key = (SubscriptionId, u64);

    fn key((id, number): &Self::Key) -> Bytes {
        KeyBuilder::new(17).u8(tag::SIDE_QUEUED).u64(id.0).u64(*number).finish()
    }

    fn parse_key(key: &[u8]) -> Option<Self::Key> {
        let mut fields = KeyFields::after(&[tag::SIDE_QUEUED], key)?;
        let key = (SubscriptionId(fields.u64()?), fields.u64()?);
        fields.finish(key)
    }

    fn len(&self) -> usize {
        18 + self.batch.len()
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u16_le(self.partition.0);
        out.put_u64_le(self.offset.0);
        out.put_u64_le(self.time.0);
        out.put_slice(&self.batch);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        let (partition, offset) = (PartitionId(fields.u16()?), Offset(fields.u64()?));
        let time = Timestamp(fields.u64()?);
        Ok(Self { partition, offset, time, batch: Bytes::copy_from_slice(fields.rest()) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::rows::check;

    #[test]
    fn the_bytes_are_these() {
        let row = QueuedEvent {
            partition: PartitionId(5),
            offset: Offset(6),
            time: Timestamp(0x0304),
            batch: Bytes::from_static(&[7, 8]),
        };
        let key = QueuedEvent::key(&(SubscriptionId(1), 2));
        assert_eq!(key[..], check::from_hex("02 0000000000000001 0000000000000002"));
        let value = "01 0500 0600000000000000 0403000000000000 0708";
        assert_eq!(row.encode()[..], check::from_hex(value));
    }

    proptest! {
        #[test]
        fn it_comes_back(id: u64, number in 0..u64::MAX, place in any::<(u16, u64, u64)>(), batch in vec(any::<u8>(), 0..60)) {
            let key = (SubscriptionId(id), number);
            let (partition, offset, time) = (PartitionId(place.0), Offset(place.1), Timestamp(place.2));
            let row = QueuedEvent { partition, offset, time, batch: batch.into() };
            prop_assert_eq!(QueuedEvent::parse_key(&QueuedEvent::key(&key)), Some(key));
            prop_assert_eq!(QueuedEvent::decode(&row.encode()), Ok(row));
            check::is_within::<QueuedEvent>(&key, &QueuedEvent::of_subscription(key.0));
            check::is_within::<QueuedEvent>(&key, &QueuedEvent::between(key.0, number, number + 1));
        }

        #[test]
        fn garbage_is_refused_or_reads_back_as_it_was(garbage in vec(any::<u8>(), 0..60)) {
            check::garbage::<QueuedEvent>(&garbage);
        }
    }
}
