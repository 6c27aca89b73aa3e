//! That a dead letter was redriven. The key names the dead letter: its topic, partition and offset. The top bit of
//! `to_partition` is set if its event went back to the subscription alone, which version 1 did not know.
//!
//! ```text
//!  0         1       5         13             15          23        24
//!  +---------+-------+---------+--------------+-----------+---------+-------+
//!  | version | times | time    | to_partition | to_offset | to_len  | to    |
//!  | u8 = 2  | u32   | u64 ms  | u16          | u64       | u8      | UTF-8 |
//!  +---------+-------+---------+--------------+-----------+---------+-------+
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use levada_protocol::ids::{Offset, PartitionId, Timestamp, TopicId, TopicName};
use levada_store::Family;

use super::{
    Row,
    codec::{Damage, Fields},
    key::{KeyRange, offset_key, parse_offset_key, topic_keys},
    tag,
};

/// When and where a dead letter was redriven, the last time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Redriven {
    /// How often; at least 1.
    pub(crate) times: u32,
    pub(crate) time: Timestamp,
    /// It went back to the subscription alone, and what follows is where its event was at first.
    pub(crate) alone: bool,
    /// By name, so that it can be told after the topic was deleted.
    pub(crate) to: TopicName,
    pub(crate) to_partition: PartitionId,
    pub(crate) to_offset: Offset,
}

/// Set in `to_partition` of what went back to a subscription alone: a topic has at most 1,024 partitions.
const ALONE: u16 = 1 << 15;

impl Redriven {
    /// Those of a topic.
    pub(crate) fn of_topic(topic: TopicId) -> KeyRange {
        topic_keys(tag::SIDE_REDRIVEN, topic)
    }

    /// Those of dead letters from `from` on, before `until`.
    pub(crate) fn between(topic: TopicId, partition: PartitionId, from: Offset, until: Offset) -> KeyRange {
        let key = |offset| offset_key(tag::SIDE_REDRIVEN, &(topic, partition, offset));
        (key(from), key(until))
    }
}

impl Row for Redriven {
    const NAME: &'static str = "redriven";
    const FAMILY: Family = Family::Side;
    const VERSION: u8 = 2;
    const VERSION_MIN: u8 = 1;
    type Key = (TopicId, PartitionId, Offset);

    fn key(key: &Self::Key) -> Bytes {
        offset_key(tag::SIDE_REDRIVEN, key)
    }

    fn parse_key(key: &[u8]) -> Option<Self::Key> {
        parse_offset_key(tag::SIDE_REDRIVEN, key)
    }

    fn len(&self) -> usize {
        23 + self.to.as_str().len()
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u32_le(self.times);
        out.put_u64_le(self.time.0);
        out.put_u16_le(self.to_partition.0 | if self.alone { ALONE } else { 0 });
        out.put_u64_le(self.to_offset.0);
        out.put_u8(u8::try_from(self.to.as_str().len()).expect("a topic's name has at most 255 bytes"));
        out.put_slice(self.to.as_str().as_bytes());
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        let (times, time) = (fields.u32()?, Timestamp(fields.u64()?));
        let (place, to_offset) = (fields.u16()?, Offset(fields.u64()?));
        let (alone, to_partition) = (place & ALONE != 0, PartitionId(place & !ALONE));
        let len = usize::from(fields.u8()?);
        let name = str::from_utf8(fields.take(len)?).map_err(|_| "the target's name is no text")?;
        let to = TopicName::parse_any(name).map_err(|error| error.to_string())?;
        Ok(Self { times, time, alone, to, to_partition, to_offset })
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::rows::check;

    #[test]
    fn the_bytes_are_these() {
        let row = Redriven {
            times: 2,
            time: Timestamp(0x0304),
            alone: false,
            to: "ab".parse().unwrap(),
            to_partition: PartitionId(5),
            to_offset: Offset(6),
        };
        let value = "02 02000000 0403000000000000 0500 0600000000000000 02 6162";
        let key = (TopicId(1), PartitionId(2), Offset(3));
        check::bytes(&key, &row, "01 00000001 0002 0000000000000003", value);
        let alone = Redriven { alone: true, ..row };
        let value = value.replace("0500", "0580");
        check::bytes(&key, &alone, "01 00000001 0002 0000000000000003", &value);
    }

    #[test]
    fn a_row_that_was_written_before_events_could_go_back_to_a_subscription_alone_opens() {
        let stored = check::from_hex("01 02000000 0403000000000000 0500 0600000000000000 02 6162");
        let row = Redriven::decode(&stored).unwrap();
        assert_eq!((row.times, row.to_partition, row.alone), (2, PartitionId(5), false));
    }

    proptest! {
        #[test]
        fn it_comes_back(ids in any::<(u32, u16)>(), offset in 0..u64::MAX, times: u32, alone: bool, place in (any::<u64>(), 0..1_024u16, any::<u64>()), name in "[a-z0-9][a-z0-9._-]{0,127}") {
            let key = (TopicId(ids.0), PartitionId(ids.1), Offset(offset));
            let to = TopicName::parse_any(&name).unwrap();
            let row = Redriven {
                times, time: Timestamp(place.0), alone, to, to_partition: PartitionId(place.1), to_offset: Offset(place.2),
            };
            check::comes_back(&key, &row);
            check::is_within::<Redriven>(&key, &Redriven::of_topic(key.0));
            check::is_within::<Redriven>(&key, &Redriven::between(key.0, key.1, key.2, Offset(offset + 1)));
        }

        #[test]
        fn garbage_is_refused_or_reads_back_as_it_was(garbage in vec(any::<u8>(), 0..60)) {
            check::garbage::<Redriven>(&garbage);
        }
    }
}
