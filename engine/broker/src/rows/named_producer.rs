//! Who owns a producer's name in a topic. The key names both.
//!
//! ```text
//!  0         1             17      21         29
//!  +---------+-------------+-------+----------+
//!  | version | producer id | epoch | opened   |
//!  | u8 = 1  | u128        | u32   | u64 (ms) |
//!  +---------+-------------+-------+----------+
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use levada_protocol::ids::{Epoch, ProducerId, ProducerName, Timestamp, TopicId};
use levada_store::Family;

use super::{
    Row,
    codec::{Damage, Fields},
    key::{KeyBuilder, KeyFields, KeyRange, topic_keys},
    tag,
};

/// A producer's name was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NamedProducer {
    /// The same for every owner; its low 32 bits are 0.
    pub(crate) id: ProducerId,
    /// The newest owner's.
    pub(crate) epoch: Epoch,
    /// When that took over.
    pub(crate) opened: Timestamp,
}

impl NamedProducer {
    /// Those of a topic.
    pub(crate) fn of_topic(topic: TopicId) -> KeyRange {
        topic_keys(tag::SIDE_NAMED_PRODUCER, topic)
    }

    /// Those of all topics.
    pub(crate) fn all() -> KeyRange {
        KeyBuilder::new(1).u8(tag::SIDE_NAMED_PRODUCER).range()
    }
}

impl Row for NamedProducer {
    const NAME: &'static str = "named producer";
    const FAMILY: Family = Family::Side;
    const VERSION: u8 = 1;
    type Key = (TopicId, ProducerName);

    fn key((topic, name): &Self::Key) -> Bytes {
        let name = name.as_str().as_bytes();
        KeyBuilder::new(5 + name.len()).u8(tag::SIDE_NAMED_PRODUCER).u32(topic.0).bytes(name).finish()
    }

    fn parse_key(key: &[u8]) -> Option<Self::Key> {
        let mut fields = KeyFields::after(&[tag::SIDE_NAMED_PRODUCER], key)?;
        let topic = TopicId(fields.u32()?);
        Some((topic, str::from_utf8(fields.rest()).ok()?.parse().ok()?))
    }

    fn len(&self) -> usize {
        28
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u128_le(self.id.0);
        out.put_u32_le(self.epoch.0);
        out.put_u64_le(self.opened.0);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        let id = ProducerId(u128::from_le_bytes(fields.array()?));
        let (epoch, opened) = (Epoch(fields.u32()?), Timestamp(fields.u64()?));
        if id.base() != id || id.0 == 0 || epoch.0 == 0 {
            return Err(format!("producer {id} of epoch {epoch} was never given").into());
        }
        Ok(Self { id, epoch, opened })
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::rows::check;

    #[test]
    fn the_bytes_are_these() {
        let row = NamedProducer { id: ProducerId(0x0102 << 32), epoch: Epoch(3), opened: Timestamp(0x0405) };
        let value = "01 00000000020100000000000000000000 03000000 0504000000000000";
        check::bytes(&(TopicId(1), "ab".parse().unwrap()), &row, "04 00000001 6162", value);
    }

    #[test]
    fn what_was_never_given_is_damaged() {
        for value in [
            "01 01000000020100000000000000000000 03000000 0504000000000000",
            "01 00000000020100000000000000000000 00000000 0504000000000000",
            "01 00000000000000000000000000000000 03000000 0504000000000000",
        ] {
            assert!(NamedProducer::decode(&check::from_hex(value)).is_err(), "{value}");
        }
    }

    proptest! {
        #[test]
        fn it_comes_back(topic: u32, name in "[a-z0-9][a-z0-9_-]{0,62}", id in 1..1_u128 << 96, epoch in 1..=u32::MAX, opened: u64) {
            let key = (TopicId(topic), name.parse().unwrap());
            let row = NamedProducer { id: ProducerId(id << 32), epoch: Epoch(epoch), opened: Timestamp(opened) };
            check::comes_back(&key, &row);
            check::is_within::<NamedProducer>(&key, &NamedProducer::of_topic(key.0));
            check::is_within::<NamedProducer>(&key, &NamedProducer::all());
        }

        #[test]
        fn garbage_is_refused_or_reads_back_as_it_was(garbage in vec(any::<u8>(), 0..60)) {
            check::garbage::<NamedProducer>(&garbage);
        }
    }
}
