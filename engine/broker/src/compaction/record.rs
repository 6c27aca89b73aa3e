//! What is left of one record.

use bytes::Bytes;
use levada_delivery::compaction::Candidate;
use levada_protocol::{
    batch::{Batch, BatchBuilder, BatchFull, EventRef, Stamp},
    error::ErrorCode,
    ids::Offset,
};
use levada_store::record::{self, Record};
use xxhash_rust::xxh3::xxh3_128;

use crate::error::Error;

/// A record as it was read, its batches checked.
pub(super) struct Opened {
    pub(super) record: Record,
    batches: Vec<(Offset, Batch)>,
}

impl Opened {
    /// Reads a row.
    ///
    /// # Errors
    /// If it is damaged.
    pub(super) fn new((key, value): (Bytes, Bytes)) -> Result<Self, Error> {
        let record = record::check(&key, value).map_err(|error| damaged(error.to_string()))?;
        let batches = record.batches().collect::<Result<Vec<_>, _>>();
        let batches = batches.map_err(|error| {
            damaged(format!("a batch of the record at offset {} is damaged: {error}", record.key.base))
        })?;
        Ok(Self { record, batches })
    }

    /// Its events in order.
    pub(super) fn events(&self) -> impl Iterator<Item = Candidate> {
        let batches = self.batches.iter();
        batches.flat_map(|(base, batch)| batch.events().map(|event| candidate(*base, &event)))
    }

    /// The batches without the events for which `keeps` is false: they as they are if it is true for all, else as few
    /// selections as hold what is left, or none.
    ///
    /// # Errors
    /// If an event is larger than any may be.
    pub(super) fn without(&self, keeps: impl Fn(&Candidate) -> bool) -> Result<Left, Error> {
        let mut left = Selections::at(self.record.key.base);
        let mut first_tombstone = None;
        for (base, batch) in &self.batches {
            for event in batch.events() {
                let candidate = candidate(*base, &event);
                if !keeps(&candidate) {
                    continue;
                }
                if candidate.is_tombstone && candidate.key.is_some() {
                    first_tombstone = first_tombstone.or(Some(candidate.offset));
                }
                left.push(candidate.offset, &event)?;
            }
        }
        let is_whole = left.events == self.record.count;
        let batches = if is_whole {
            self.batches.iter().map(|(_, batch)| batch.clone()).collect()
        } else {
            left.finish()
        };
        Ok(Left { batches, is_whole, first_tombstone })
    }
}

fn candidate(base: Offset, event: &EventRef<'_>) -> Candidate {
    Candidate {
        offset: event.offset(base),
        key: event.key().map(xxh3_128),
        is_tombstone: event.payload().is_none(),
    }
}

fn damaged(message: String) -> Error {
    Error::Store { code: ErrorCode::StorageCorrupt, message }
}

/// Selections back to back: each begins where the span of the one before it ends.
struct Selections {
    batches: Vec<Batch>,
    builder: BatchBuilder,
    /// Where the one in the making begins.
    base: Offset,
    events: u64,
}

impl Selections {
    fn at(base: Offset) -> Self {
        Self { batches: Vec::new(), builder: BatchBuilder::selection(), base, events: 0 }
    }

    /// Adds an event; where it does not fit the selection, such as one of a time far from the others, another begins.
    fn push(&mut self, offset: Offset, event: &EventRef<'_>) -> Result<(), Error> {
        let pushed = match self.try_push(offset, event) {
            Err(BatchFull::Full) => {
                self.close();
                self.try_push(offset, event)
            }
            pushed => pushed,
        };
        pushed.map_err(|error| damaged(format!("the event at offset {offset} fits no batch: {error}")))
    }

    fn try_push(&mut self, offset: Offset, event: &EventRef<'_>) -> Result<(), BatchFull> {
        let delta = u32::try_from(offset.0 - self.base.0).expect("a record covers 32 bits of offsets");
        self.builder.push_ref(delta, event)?;
        self.events += 1;
        Ok(())
    }

    fn close(&mut self) {
        if !self.builder.is_empty() {
            let batch = self.builder.finish(Stamp::ENGINE);
            self.base = self.base.plus(u64::from(batch.span()));
            self.batches.push(batch);
        }
    }

    fn finish(mut self) -> Vec<Batch> {
        self.close();
        self.batches
    }
}

/// What is left of a record.
pub(super) struct Left {
    /// Back to back.
    pub(super) batches: Vec<Batch>,
    /// Nothing was taken out.
    pub(super) is_whole: bool,
    /// The first tombstone with a key among it.
    pub(super) first_tombstone: Option<Offset>,
}

impl Left {
    pub(super) fn bytes(&self) -> u64 {
        self.batches.iter().map(|batch| batch.bytes().len() as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use levada_protocol::{
        event::Event,
        ids::{CommitIndex, PartitionId, Timestamp, TopicId},
    };
    use levada_store::record::{LogKey, Prefix};

    use super::*;

    const BASE: Offset = Offset(100);

    fn stored(batches: &[Batch], span: u32) -> (Bytes, Bytes) {
        let key = LogKey { topic: TopicId(1), partition: PartitionId(0), base: BASE };
        let (hops, append_time, commit_index, bytes_before) = (0, Timestamp(9), CommitIndex(1), 0);
        let prefix = Prefix { hops, append_time, commit_index, bytes_before, span };
        let value = record::encode(&key, &prefix, &batches.iter().collect::<Vec<_>>());
        (Bytes::copy_from_slice(&key.encode()), value)
    }

    fn batch(events: impl IntoIterator<Item = Event>) -> Batch {
        let mut builder = BatchBuilder::new();
        events.into_iter().for_each(|event| builder.push(&event).unwrap());
        builder.finish(Stamp::ENGINE)
    }

    /// What is left of a record, stored and read again: how many batches, and offsets and times of their events.
    fn left(batches: &[Batch], keeps: impl Fn(u64) -> bool) -> (usize, Vec<(u64, u64)>) {
        let span = batches.iter().map(Batch::span).sum();
        let opened = Opened::new(stored(batches, span)).unwrap();
        let left = opened.without(|event| keeps(event.offset.0 - BASE.0)).unwrap();
        let again = Opened::new(stored(&left.batches, span)).unwrap();
        let events = again.batches.iter().flat_map(|(base, batch)| {
            batch.events().map(|event| (event.offset(*base).0 - BASE.0, event.time().0)).collect::<Vec<_>>()
        });
        (left.batches.len(), events.collect())
    }

    #[test]
    fn events_of_times_that_fit_no_batch_together_lose_what_is_superseded_all_the_same() {
        let far = 50 * 24 * 3_600_000;
        let at = |time| Event::new("x").with_key("k").at(Timestamp(time));
        let batches = [batch([at(1), at(2), at(3)]), batch([at(far), at(far + 1)]), batch([at(4), at(5)])];
        let (count, events) = left(&batches, |offset| ![0, 3, 5].contains(&offset));
        assert_eq!(events, [(1, 2), (2, 3), (4, far + 1), (6, 5)]);
        assert_eq!(count, 3);
    }

    #[test]
    fn what_is_left_of_a_full_batch_may_need_two() {
        let events = (0..5_016).map(|_| Event::new("x".repeat(196)).with_key("k"));
        let full = batch(events);
        assert!(full.bytes().len() > (1 << 20) - 1_000);
        let (count, events) = left(&[full], |offset| offset != 700);
        assert!(events.iter().map(|(offset, _)| *offset).eq((0..5_016).filter(|offset| *offset != 700)));
        assert_eq!(count, 2);
    }

    #[test]
    fn a_record_of_which_all_stays_is_as_it_was_and_its_first_tombstone_is_known() {
        let tombstone = Event { payload: None, ..Event::default() };
        let keyed = tombstone.clone().with_key("k");
        let batches = [batch([tombstone, Event::new("x").with_key("k")]), batch([keyed.clone(), keyed])];
        let opened = Opened::new(stored(&batches, 4)).unwrap();
        let left = opened.without(|_| true).unwrap();
        assert_eq!((left.is_whole, &left.batches[..]), (true, &batches[..]));
        assert_eq!(left.first_tombstone, Some(BASE.plus(2)));
        let left = opened.without(|event| event.offset != BASE.plus(2)).unwrap();
        assert_eq!((left.is_whole, left.first_tombstone), (false, Some(BASE.plus(3))));
        let left = opened.without(|_| false).unwrap();
        assert_eq!((left.batches.len(), left.bytes(), left.first_tombstone), (0, 0, None));
    }
}
