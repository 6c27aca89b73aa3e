//! How many bytes the batches have that wait in a topic's schedule, rewritten with its summary; no row where none waited
//! since such rows exist: batches from before do not count.
//!
//! ```text
//!  0         1       9
//!  +---------+-------+
//!  | version | bytes |
//!  | u8 = 1  | u64   |
//!  +---------+-------+
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use levada_protocol::ids::TopicId;
use levada_store::Family;

use super::{
    Row,
    codec::{Damage, Fields},
    key::{KeyBuilder, KeyFields},
    tag,
};

/// Bytes of the batches that wait in a topic's schedule; one counts whole until its last event is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ScheduleBytes(pub(crate) u64);

impl Row for ScheduleBytes {
    const NAME: &'static str = "schedule bytes";
    const FAMILY: Family = Family::Schedule;
    const VERSION: u8 = 1;
    type Key = TopicId;

    fn key(topic: &TopicId) -> Bytes {
        KeyBuilder::new(5).u8(tag::SCHEDULE_BYTES).u32(topic.0).finish()
    }

    fn parse_key(key: &[u8]) -> Option<TopicId> {
        let mut fields = KeyFields::after(&[tag::SCHEDULE_BYTES], key)?;
        let topic = TopicId(fields.u32()?);
        fields.finish(topic)
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
        check::bytes(&TopicId(9), &ScheduleBytes(258), "05 00000009", "01 0201000000000000");
    }

    proptest! {
        #[test]
        fn it_comes_back(topic: u32, bytes: u64) {
            check::comes_back(&TopicId(topic), &ScheduleBytes(bytes));
        }
    }
}
