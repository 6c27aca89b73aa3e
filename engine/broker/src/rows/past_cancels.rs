//! What was cancelled of a delayed batch whose time has come: kept for [`REMEMBERED_DAYS`] days, so that a cancel that is
//! sent again for want of an answer is told that the first one held. The key begins with the day on which the batch was
//! due, so that a day is forgotten as one range.
//!
//! ```text
//!  0         1       5      7
//!  +---------+-------+------+---------+
//!  | version | count | len  | bits    |
//!  | u8 = 1  | u32   | u16  | u8 each |
//!  +---------+-------+------+---------+
//! ```
//!
//! `count` is how many events were scheduled, the bits are those of [`Cancelled`].

use bytes::{BufMut, Bytes, BytesMut};
use levada_protocol::{
    ids::{Timestamp, TopicId},
    limits::{BATCH_EVENTS_MAX, CANCEL_REMEMBERED_MS},
};
use levada_store::Family;

use super::{
    Row,
    cancelled::Cancelled,
    codec::{Damage, Fields},
    key::{KeyBuilder, KeyFields, KeyRange},
    tag,
};

const DAY_MS: u64 = 24 * 3_600_000;
/// How long it is kept after the day on which the batch was due.
const REMEMBERED_DAYS: u32 = (CANCEL_REMEMBERED_MS / DAY_MS) as u32;

/// The cancelled events of a delayed batch that is not there any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PastCancels {
    /// Events that were scheduled, cancelled ones included.
    pub(crate) count: u32,
    pub(crate) cancelled: Cancelled,
}

/// The day of a time, counted from the Unix epoch.
pub(crate) fn day_of(time: Timestamp) -> u32 {
    u32::try_from(time.0 / DAY_MS).unwrap_or(u32::MAX)
}

/// The days whose rows may be asked for now: a clock that was set back a little makes the last one.
pub(crate) fn days(now: Timestamp) -> std::ops::RangeInclusive<u32> {
    let today = day_of(now);
    today.saturating_sub(REMEMBERED_DAYS)..=today.saturating_add(1)
}

/// The rows of a topic.
pub(crate) fn of_topic(topic: TopicId) -> KeyRange {
    KeyBuilder::new(5).u8(tag::SCHEDULE_PAST_CANCELS).u32(topic.0).range()
}

/// The rows of a topic that are old enough to be forgotten.
pub(crate) fn forgotten(topic: TopicId, now: Timestamp) -> KeyRange {
    let key = |day| PastCancels::key(&(topic, day, 0));
    (key(0), key(*days(now).start()))
}

/// The keys of the batches that were due on a day and may hold this id: the last row in there is the one that does, if
/// any does.
pub(crate) fn that_may_hold(topic: TopicId, day: u32, id: u64) -> KeyRange {
    let most = u64::try_from(BATCH_EVENTS_MAX).expect("a small number");
    let key = |id| PastCancels::key(&(topic, day, id));
    (key((id.saturating_add(1)).saturating_sub(most)), key(id.saturating_add(1)))
}

impl Row for PastCancels {
    const NAME: &'static str = "past cancels";
    const FAMILY: Family = Family::Schedule;
    const VERSION: u8 = 1;
    /// Topic, day on which it was due, first id.
    type Key = (TopicId, u32, u64);

    fn key((topic, day, first): &Self::Key) -> Bytes {
        KeyBuilder::new(17).u8(tag::SCHEDULE_PAST_CANCELS).u32(topic.0).u32(*day).u64(*first).finish()
    }

    fn parse_key(key: &[u8]) -> Option<Self::Key> {
        let mut fields = KeyFields::after(&[tag::SCHEDULE_PAST_CANCELS], key)?;
        let key = (TopicId(fields.u32()?), fields.u32()?, fields.u64()?);
        fields.finish(key)
    }

    fn len(&self) -> usize {
        6 + self.cancelled.bits().len()
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u32_le(self.count);
        let bits = self.cancelled.bits();
        out.put_u16_le(u16::try_from(bits.len()).expect("a batch has few events"));
        out.put_slice(bits);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        let (count, len) = (fields.u32()?, fields.u16()?);
        Ok(Self { count, cancelled: Cancelled::of(fields.take(len.into())?) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rows::check;

    #[test]
    fn the_bytes_are_these() {
        let mut cancelled = Cancelled::default();
        assert!(cancelled.add(9) && cancelled.add(0));
        let row = PastCancels { count: 10, cancelled };
        let key = (TopicId(1), 2, 3);
        check::bytes(&key, &row, "06 00000001 00000002 0000000000000003", "01 0a000000 0200 01 02");
    }

    #[test]
    fn a_day_is_kept_until_a_week_has_passed_since_its_end() {
        let due = Timestamp(100 * DAY_MS);
        let row = PastCancels::key(&(TopicId(1), day_of(due), 5));
        let is_forgotten = |now| {
            let (from, to) = forgotten(TopicId(1), Timestamp(now));
            from <= row && row < to
        };
        assert!(!is_forgotten(due.0 + CANCEL_REMEMBERED_MS) && days(due).contains(&day_of(due)));
        assert!(!is_forgotten(108 * DAY_MS - 1) && is_forgotten(108 * DAY_MS));
        assert!(days(Timestamp(due.0 - 1)).contains(&day_of(due)), "a clock that was set back");
    }

    proptest! {
        #[test]
        fn it_comes_back(topic: u32, day in 0..u32::MAX, first in 0..u64::MAX, count: u32, at in 0..10_000_u32) {
            let key = (TopicId(topic), day, first);
            let mut cancelled = Cancelled::default();
            cancelled.add(at);
            check::comes_back(&key, &PastCancels { count, cancelled });
            check::is_within::<PastCancels>(&key, &of_topic(key.0));
            check::is_within::<PastCancels>(&key, &that_may_hold(key.0, day, first));
        }
    }
}
