//! Where the delayed batch is whose first event has an id.
//!
//! ```text
//!  0         1          9       13
//!  +---------+----------+--------+
//!  | version | due      | count  |
//!  | u8 = 1  | u64 (ms) | u32    |
//!  +---------+----------+--------+
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use levada_protocol::{
    ids::{Timestamp, TopicId},
    limits::BATCH_EVENTS_MAX,
};
use levada_store::Family;

use super::{
    Row,
    codec::{Damage, Fields},
    key::{KeyBuilder, KeyFields, KeyRange},
    tag,
};

/// When a delayed batch is due, and how many ids it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ScheduleIndex {
    pub(crate) due: Timestamp,
    /// Events that were scheduled, cancelled ones included.
    pub(crate) count: u32,
}

/// The rows of a topic.
pub(crate) fn of_topic(topic: TopicId) -> KeyRange {
    KeyBuilder::new(5).u8(tag::SCHEDULE_INDEX).u32(topic.0).range()
}

/// The keys of the batches that may hold this id: the last row in there is the one that does, if any does.
pub(crate) fn that_may_hold(topic: TopicId, id: u64) -> KeyRange {
    let most = u64::try_from(BATCH_EVENTS_MAX).expect("a small number");
    let key = |id| ScheduleIndex::key(&(topic, id));
    (key((id.saturating_add(1)).saturating_sub(most)), key(id.saturating_add(1)))
}

impl Row for ScheduleIndex {
    const NAME: &'static str = "schedule index";
    const FAMILY: Family = Family::Schedule;
    const VERSION: u8 = 1;
    type Key = (TopicId, u64);

    fn key((topic, first): &Self::Key) -> Bytes {
        KeyBuilder::new(13).u8(tag::SCHEDULE_INDEX).u32(topic.0).u64(*first).finish()
    }

    fn parse_key(key: &[u8]) -> Option<Self::Key> {
        let mut fields = KeyFields::after(&[tag::SCHEDULE_INDEX], key)?;
        let key = (TopicId(fields.u32()?), fields.u64()?);
        fields.finish(key)
    }

    fn len(&self) -> usize {
        12
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u64_le(self.due.0);
        out.put_u32_le(self.count);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        Ok(Self { due: Timestamp(fields.u64()?), count: fields.u32()? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rows::check;

    #[test]
    fn the_bytes_are_these() {
        let row = ScheduleIndex { due: Timestamp(3), count: 4 };
        check::bytes(&(TopicId(1), 2), &row, "02 00000001 0000000000000002", "01 0300000000000000 04000000");
    }

    proptest! {
        #[test]
        fn it_comes_back(topic: u32, first in 0..u64::MAX, due: u64, count: u32) {
            let key = (TopicId(topic), first);
            check::comes_back(&key, &ScheduleIndex { due: Timestamp(due), count });
            check::is_within::<ScheduleIndex>(&key, &of_topic(key.0));
            check::is_within::<ScheduleIndex>(&key, &that_may_hold(key.0, first));
        }
    }
}
