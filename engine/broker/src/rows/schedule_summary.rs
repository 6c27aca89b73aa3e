//! What a topic's schedule is, without what is in it: rewritten by every commit that changes the schedule, so that neither
//! a count nor a start reads the schedule itself.
//!
//! ```text
//!  0         1       9       17        25         33
//!  +---------+-------+-------+---------+----------+-----------+
//!  | version | begin | next  | pending | due      | first     |
//!  | u8 = 1  | u64   | u64   | u64     | u64 (ms) | u64       |
//!  +---------+-------+-------+---------+----------+-----------+
//! ```
//!
//! `begin` is the topic's first id, `next` the one that it gives out next, `pending` the number of events that wait; no
//! batch is before (`due`, `first`). Both are all ones if there is none.

use bytes::{BufMut, Bytes, BytesMut};
use levada_protocol::ids::{Timestamp, TopicId};
use levada_store::Family;

use super::{
    Row,
    codec::{Damage, Fields},
    key::{KeyBuilder, KeyFields},
    scheduled::Place,
    tag,
};

const NONE: u64 = u64::MAX;

/// A topic's schedule in a few numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ScheduleSummary {
    /// The first id that was given out in the topic.
    pub(crate) begin: u64,
    /// The id that is given out next.
    pub(crate) next: u64,
    /// Events that wait, cancelled ones left out.
    pub(crate) pending: u64,
    /// No batch is before this place; `None` if there is no batch at all.
    pub(crate) head: Option<Place>,
}

impl Row for ScheduleSummary {
    const NAME: &'static str = "schedule summary";
    const FAMILY: Family = Family::Schedule;
    const VERSION: u8 = 1;
    type Key = TopicId;

    fn key(topic: &TopicId) -> Bytes {
        KeyBuilder::new(5).u8(tag::SCHEDULE_SUMMARY).u32(topic.0).finish()
    }

    fn parse_key(key: &[u8]) -> Option<TopicId> {
        let mut fields = KeyFields::after(&[tag::SCHEDULE_SUMMARY], key)?;
        let topic = TopicId(fields.u32()?);
        fields.finish(topic)
    }

    fn len(&self) -> usize {
        40
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u64_le(self.begin);
        out.put_u64_le(self.next);
        out.put_u64_le(self.pending);
        out.put_u64_le(self.head.map_or(NONE, |head| head.due.0));
        out.put_u64_le(self.head.map_or(NONE, |head| head.first));
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        let (begin, next, pending) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let place = Place { due: Timestamp(fields.u64()?), first: fields.u64()? };
        let head = Some(place).filter(|place| (place.due.0, place.first) != (NONE, NONE));
        Ok(Self { begin, next, pending, head })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rows::check;

    #[test]
    fn the_bytes_are_these() {
        let head = Some(Place { due: Timestamp(4), first: 5 });
        let row = ScheduleSummary { begin: 1, next: 2, pending: 3, head };
        let value = "01 0100000000000000 0200000000000000 0300000000000000 0400000000000000 0500000000000000";
        check::bytes(&TopicId(9), &row, "03 00000009", value);
    }

    proptest! {
        #[test]
        fn it_comes_back(topic: u32, begin: u64, next: u64, pending: u64, head in prop::option::of((0..NONE, any::<u64>()))) {
            let head = head.map(|(due, first)| Place { due: Timestamp(due), first });
            check::comes_back(&TopicId(topic), &ScheduleSummary { begin, next, pending, head });
        }
    }
}
