//! An offset of a partition from where on append times are of a clock that was set back; see `crate::setback`. The key
//! holds the offset.
//!
//! ```text
//!  0         1         9          17
//!  +---------+---------+----------+
//!  | version | time    | before   |
//!  | u8 = 1  | u64 ms  | u64 ms   |
//!  +---------+---------+----------+
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

/// The clock was set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Setback {
    /// Append times from the offset on are not before this.
    pub(crate) time: Timestamp,
    /// The newest append time before the offset.
    pub(crate) before: Timestamp,
}

impl Setback {
    /// Those of a topic.
    pub(crate) fn of_topic(topic: TopicId) -> KeyRange {
        topic_keys(tag::META_SETBACK, topic)
    }

    /// Those of a partition, before `below`.
    pub(crate) fn below(topic: TopicId, partition: PartitionId, below: Offset) -> KeyRange {
        offset_keys_below(tag::META_SETBACK, topic, partition, below)
    }
}

impl Row for Setback {
    const NAME: &'static str = "clock set-back";
    const FAMILY: Family = Family::Meta;
    const VERSION: u8 = 1;
    type Key = (TopicId, PartitionId, Offset);

    fn key(key: &Self::Key) -> Bytes {
        offset_key(tag::META_SETBACK, key)
    }

    fn parse_key(key: &[u8]) -> Option<Self::Key> {
        parse_offset_key(tag::META_SETBACK, key)
    }

    fn len(&self) -> usize {
        16
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u64_le(self.time.0);
        out.put_u64_le(self.before.0);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        Ok(Self { time: Timestamp(fields.u64()?), before: Timestamp(fields.u64()?) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rows::check;

    #[test]
    fn the_bytes_are_these() {
        let row = Setback { time: Timestamp(7), before: Timestamp(0x0809) };
        let key = (TopicId(1), PartitionId(2), Offset(3));
        check::bytes(&key, &row, "13 00000001 0002 0000000000000003", "01 0700000000000000 0908000000000000");
    }

    proptest! {
        #[test]
        fn it_comes_back(topic in any::<u32>(), partition in any::<u16>(), from in 0..u64::MAX, time in any::<u64>(), before in any::<u64>()) {
            let key = (TopicId(topic), PartitionId(partition), Offset(from));
            check::comes_back(&key, &Setback { time: Timestamp(time), before: Timestamp(before) });
            check::is_within::<Setback>(&key, &Setback::of_topic(key.0));
            check::is_within::<Setback>(&key, &Setback::below(key.0, key.1, Offset(from + 1)));
        }
    }
}
