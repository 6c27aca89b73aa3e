//! What is left of one record.

use bytes::Bytes;
use levada_delivery::compaction::Candidate;
use levada_protocol::{
    batch::{Batch, BatchBuilder, EventRef, Stamp},
    error::ErrorCode,
    ids::{Offset, Timestamp},
};
use levada_store::record::{self, Record};
use xxhash_rust::xxh3::xxh3_128;

use crate::error::Error;

/// A record as it was read, its batches checked.
pub(super) struct Opened {
    pub(super) record: Record,
    batches: Vec<(Offset, Batch)>,
    /// When its events count as appended.
    append_time: Timestamp,
}

impl Opened {
    /// Reads a row; `time` says when its events count as appended, given its offset and what is stored with it.
    ///
    /// # Errors
    /// If it is damaged.
    pub(super) fn new(
        (key, value): (Bytes, Bytes),
        time: impl Fn(Offset, Timestamp) -> Timestamp,
    ) -> Result<Self, Error> {
        let damaged = |message| Error::Store { code: ErrorCode::StorageCorrupt, message };
        let record = record::check(&key, value).map_err(|error| damaged(error.to_string()))?;
        let batches = record.batches().collect::<Result<Vec<_>, _>>();
        let batches = batches.map_err(|error| {
            damaged(format!("a batch of the record at offset {} is damaged: {error}", record.key.base))
        })?;
        let append_time = time(record.key.base, record.append_time);
        Ok(Self { record, batches, append_time })
    }

    /// Its events in order.
    pub(super) fn events(&self) -> impl Iterator<Item = Candidate> {
        let batches = self.batches.iter();
        batches.flat_map(move |(base, batch)| batch.events().map(move |event| self.candidate(*base, &event)))
    }

    fn candidate(&self, base: Offset, event: &EventRef<'_>) -> Candidate {
        Candidate {
            offset: event.offset(base),
            key: event.key().map(xxh3_128),
            is_tombstone: event.payload().is_none(),
            append_time: self.append_time,
        }
    }

    /// The batches without the events for which `keeps` is false: they as they are if it is true for all, else one with
    /// what is left, or none.
    pub(super) fn without(&self, keeps: impl Fn(&Candidate) -> bool) -> Left {
        let whole = || self.batches.iter().map(|(_, batch)| batch.clone()).collect();
        let total = self.record.count;
        let mut builder = BatchBuilder::selection();
        let mut has_tombstones = false;
        for (base, batch) in &self.batches {
            for event in batch.events() {
                let candidate = self.candidate(*base, &event);
                if !keeps(&candidate) {
                    continue;
                }
                has_tombstones |= candidate.is_tombstone && candidate.key.is_some();
                let delta = candidate.offset.0 - self.record.key.base.0;
                let delta = u32::try_from(delta).expect("a record covers 32 bits of offsets");
                if builder.push_ref(delta, &event).is_err() {
                    // Event times that lie far apart do not fit one batch: nothing is taken out then.
                    return Left { batches: whole(), is_whole: true, has_tombstones: true };
                }
            }
        }
        if u64::from(builder.count()) == total {
            return Left { batches: whole(), is_whole: true, has_tombstones };
        }
        let batches = if builder.is_empty() { Vec::new() } else { vec![builder.finish(Stamp::ENGINE)] };
        Left { batches, is_whole: false, has_tombstones }
    }

    /// When its events count as appended.
    pub(super) fn append_time(&self) -> Timestamp {
        self.append_time
    }
}

/// What is left of a record.
pub(super) struct Left {
    /// Back to back.
    pub(super) batches: Vec<Batch>,
    /// Nothing was taken out.
    pub(super) is_whole: bool,
    /// Tombstones with a key are among it.
    pub(super) has_tombstones: bool,
}

impl Left {
    pub(super) fn bytes(&self) -> u64 {
        self.batches.iter().map(|batch| batch.bytes().len() as u64).sum()
    }
}
