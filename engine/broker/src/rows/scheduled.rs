//! A delayed batch: what is appended when it is due. Beside it, under a key right before its own, are the events of it that
//! were cancelled ([`super::Cancelled`]).
//!
//! ```text
//!  0         1           3
//!  +---------+-----------+-------+
//!  | version | partition | batch |
//!  | u8 = 1  | u16       |       |
//!  +---------+-----------+-------+
//! ```
//!
//! The batch is empty if all of its events were cancelled.

use bytes::{BufMut, Bytes, BytesMut};
use levada_protocol::{
    batch::Batch,
    error::ErrorCode,
    ids::{PartitionId, Timestamp, TopicId},
};
use levada_store::Family;

use super::{
    Row,
    codec::{Damage, Fields},
    key::{KeyBuilder, KeyFields, KeyRange},
    tag,
};
use crate::error::Error;

/// The place of a delayed batch in its topic's order: when it is due, then the order of acceptance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) due: Timestamp,
    /// The schedule id of its first event.
    pub(crate) first: u64,
}

impl Place {
    /// The next possible one.
    pub(crate) fn next(self) -> Self {
        Self { first: self.first.saturating_add(1), ..self }
    }
}

/// A batch that waits for its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scheduled {
    pub(crate) partition: PartitionId,
    pub(crate) batch: Bytes,
}

impl Scheduled {
    /// The batch at this place; `None` if all of its events were cancelled.
    ///
    /// # Errors
    /// `STORAGE_CORRUPT`.
    pub(crate) fn checked(&self, place: Place) -> Result<Option<Batch>, Error> {
        if self.batch.is_empty() {
            return Ok(None);
        }
        Batch::check(self.batch.clone()).map(Some).map_err(|error| Error::Store {
            code: ErrorCode::StorageCorrupt,
            message: format!("the scheduled batch of event {} is damaged: {error}", place.first),
        })
    }
}

/// The last part of a key: first the cancelled events of a batch, then the batch.
pub(super) const KIND_CANCELLED: u8 = 0;
const KIND_BATCH: u8 = 1;

pub(super) fn place_key((topic, place): &(TopicId, Place), kind: u8) -> Bytes {
    let key = KeyBuilder::new(22).u8(tag::SCHEDULE_BATCH).u32(topic.0);
    key.u64(place.due.0).u64(place.first).u8(kind).finish()
}

pub(super) fn parse_place_key(key: &[u8], kind: u8) -> Option<(TopicId, Place)> {
    let mut fields = KeyFields::after(&[tag::SCHEDULE_BATCH], key)?;
    let topic = TopicId(fields.u32()?);
    let place = Place { due: Timestamp(fields.u64()?), first: fields.u64()? };
    let [found] = fields.array()?;
    fields.finish((topic, place)).filter(|_| found == kind)
}

/// All delayed batches of a topic with their cancelled events.
pub(crate) fn of_topic(topic: TopicId) -> KeyRange {
    KeyBuilder::new(5).u8(tag::SCHEDULE_BATCH).u32(topic.0).range()
}

/// The same from a place on, and before a time; without one, to the end.
pub(crate) fn between(topic: TopicId, from: Place, before: Option<Timestamp>) -> KeyRange {
    let key = |place| place_key(&(topic, place), KIND_CANCELLED);
    let to = before.map_or_else(|| of_topic(topic).1, |due| key(Place { due, first: 0 }));
    (key(from), to)
}

impl Row for Scheduled {
    const NAME: &'static str = "scheduled batch";
    const FAMILY: Family = Family::Schedule;
    const VERSION: u8 = 1;
    type Key = (TopicId, Place);

    fn key(key: &Self::Key) -> Bytes {
        place_key(key, KIND_BATCH)
    }

    fn parse_key(key: &[u8]) -> Option<Self::Key> {
        parse_place_key(key, KIND_BATCH)
    }

    fn len(&self) -> usize {
        2 + self.batch.len()
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u16_le(self.partition.0);
        out.put_slice(&self.batch);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        let partition = PartitionId(fields.u16()?);
        Ok(Self { partition, batch: Bytes::copy_from_slice(fields.rest()) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn key(topic: u32, due: u64, first: u64) -> (TopicId, Place) {
        (TopicId(topic), Place { due: Timestamp(due), first })
    }

    #[test]
    fn the_bytes_are_these() {
        let row = Scheduled { partition: PartitionId(2), batch: Bytes::from_static(&[7, 8]) };
        let (key, value) = (key(1, 3, 4), row.encode());
        assert_eq!(value[..], [1, 2, 0, 7, 8]);
        let expected = [1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 1];
        assert_eq!(Scheduled::key(&key)[..], expected);
    }

    proptest! {
        #[test]
        fn it_comes_back(topic: u32, due: u64, first: u64, partition: u16, batch in vec(any::<u8>(), 0..100)) {
            let (key, row) = (key(topic, due, first), Scheduled { partition: PartitionId(partition), batch: batch.into() });
            prop_assert_eq!(Scheduled::parse_key(&Scheduled::key(&key)), Some(key));
            prop_assert_eq!(Scheduled::decode(&row.encode()), Ok(row));
            prop_assert!(Scheduled::decode(&[1, 0]).is_err());
            crate::rows::check::is_within::<Scheduled>(&key, &of_topic(key.0));
        }

        #[test]
        fn keys_sort_by_due_time_then_by_acceptance(a: (u64, u64), b: (u64, u64)) {
            let (one, other) = (key(1, a.0, a.1), key(1, b.0, b.1));
            prop_assert_eq!(one.1.cmp(&other.1), Scheduled::key(&one).cmp(&Scheduled::key(&other)));
            let (from, to) = between(TopicId(1), one.1, Some(Timestamp(b.0)));
            let inside = from <= Scheduled::key(&other) && Scheduled::key(&one) < to;
            prop_assert_eq!(inside, one.1 <= other.1 && a.0 < b.0);
        }
    }
}
