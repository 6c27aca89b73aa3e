//! Where a partition's log begins; no row as long as nothing was dropped.
//!
//! ```text
//!  0         1        9               17
//!  +---------+--------+---------------+
//!  | version | offset | dropped_bytes |
//!  | u8 = 1  | u64    | u64           |
//!  +---------+--------+---------------+
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use levada_protocol::ids::{Offset, PartitionId, TopicId};
use levada_store::Family;

use super::{
    Row,
    codec::{Damage, Fields},
    key::{KeyBuilder, KeyFields, KeyRange, topic_keys},
    tag,
};

/// The first offset that is kept, and the bytes of batches before it since the topic was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LogStart {
    pub(crate) offset: Offset,
    pub(crate) dropped_bytes: u64,
}

impl LogStart {
    /// Those of a topic.
    pub(crate) fn of_topic(topic: TopicId) -> KeyRange {
        topic_keys(tag::META_LOG_START, topic)
    }
}

impl Row for LogStart {
    const NAME: &'static str = "log start";
    const FAMILY: Family = Family::Meta;
    const VERSION: u8 = 1;
    type Key = (TopicId, PartitionId);

    fn key((topic, partition): &Self::Key) -> Bytes {
        KeyBuilder::new(7).u8(tag::META_LOG_START).u32(topic.0).u16(partition.0).finish()
    }

    fn parse_key(key: &[u8]) -> Option<Self::Key> {
        let mut fields = KeyFields::after(&[tag::META_LOG_START], key)?;
        let partition = (TopicId(fields.u32()?), PartitionId(fields.u16()?));
        fields.finish(partition)
    }

    fn len(&self) -> usize {
        16
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u64_le(self.offset.0);
        out.put_u64_le(self.dropped_bytes);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        Ok(Self { offset: Offset(fields.u64()?), dropped_bytes: fields.u64()? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rows::check;

    #[test]
    fn the_bytes_are_these() {
        let row = LogStart { offset: Offset(3), dropped_bytes: 0x0405 };
        let key = (TopicId(1), PartitionId(2));
        check::bytes(&key, &row, "10 00000001 0002", "01 0300000000000000 0504000000000000");
    }

    proptest! {
        #[test]
        fn it_comes_back(topic: u32, partition: u16, offset: u64, dropped_bytes: u64) {
            let (key, row) = ((TopicId(topic), PartitionId(partition)), LogStart { offset: Offset(offset), dropped_bytes });
            check::comes_back(&key, &row);
            check::is_within::<LogStart>(&key, &LogStart::of_topic(key.0));
        }
    }
}
