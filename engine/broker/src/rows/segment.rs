//! Where a segment begins: a stretch of a partition that retention can drop as one. The key holds its first offset.
//!
//! ```text
//!  0         1             9              17
//!  +---------+-------------+--------------+
//!  | version | append_time | bytes_before |
//!  | u8 = 1  | u64 (ms)    | u64          |
//!  +---------+-------------+--------------+
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use levada_protocol::ids::{Offset, PartitionId, Timestamp, TopicId};
use levada_store::Family;

use super::{
    Row,
    codec::{Damage, Fields},
    key::{KeyRange, offset_key, offset_keys_below, parse_offset_key, topic_keys},
    tag,
};

/// A segment's beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    /// When its first event was appended.
    pub(crate) append_time: Timestamp,
    /// Bytes of batches appended to the partition before it.
    pub(crate) bytes_before: u64,
}

impl Segment {
    /// Those of a topic.
    pub(crate) fn of_topic(topic: TopicId) -> KeyRange {
        topic_keys(tag::META_SEGMENT, topic)
    }

    /// Those of a partition that begin behind `after` and before `below`.
    pub(crate) fn between(topic: TopicId, partition: PartitionId, after: Offset, below: Offset) -> KeyRange {
        let (_, to) = Self::below(topic, partition, below);
        (offset_key(tag::META_SEGMENT, &(topic, partition, after.plus(1))), to)
    }

    /// Those of a partition that begin before `below`.
    pub(crate) fn below(topic: TopicId, partition: PartitionId, below: Offset) -> KeyRange {
        offset_keys_below(tag::META_SEGMENT, topic, partition, below)
    }
}

impl Row for Segment {
    const NAME: &'static str = "segment";
    const FAMILY: Family = Family::Meta;
    const VERSION: u8 = 1;
    type Key = (TopicId, PartitionId, Offset);

    fn key(key: &Self::Key) -> Bytes {
        offset_key(tag::META_SEGMENT, key)
    }

    fn parse_key(key: &[u8]) -> Option<Self::Key> {
        parse_offset_key(tag::META_SEGMENT, key)
    }

    fn len(&self) -> usize {
        16
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u64_le(self.append_time.0);
        out.put_u64_le(self.bytes_before);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        Ok(Self { append_time: Timestamp(fields.u64()?), bytes_before: fields.u64()? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rows::check;

    #[test]
    fn the_bytes_are_these() {
        let row = Segment { append_time: Timestamp(7), bytes_before: 0x0809 };
        let key = (TopicId(1), PartitionId(2), Offset(3));
        check::bytes(&key, &row, "11 00000001 0002 0000000000000003", "01 0700000000000000 0908000000000000");
    }

    proptest! {
        #[test]
        fn it_comes_back(topic in any::<u32>(), partition in any::<u16>(), base in 0..u64::MAX, append_time in any::<u64>(), bytes_before in any::<u64>()) {
            let key = (TopicId(topic), PartitionId(partition), Offset(base));
            check::comes_back(&key, &Segment { append_time: Timestamp(append_time), bytes_before });
            check::is_within::<Segment>(&key, &Segment::of_topic(key.0));
            check::is_within::<Segment>(&key, &Segment::below(key.0, key.1, Offset(base + 1)));
            if let Some(before) = base.checked_sub(1) {
                let between = Segment::between(key.0, key.1, Offset(before), Offset(base + 1));
                check::is_within::<Segment>(&key, &between);
            }
        }
    }
}
