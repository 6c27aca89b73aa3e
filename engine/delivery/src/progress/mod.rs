//! What of one partition a subscription is done with: a floor, and runs of settled offsets above it (decision 16).
//!
//! Owns the settled set, the failures of what is not settled, and which stored rows they have outrun. It must not know
//! consumers, deliveries or a store: rows go out and come back as values, whose encoding is the caller's.

mod rows;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, ops::Range};

use levada_protocol::ids::{Offset, Timestamp};

pub use self::rows::{Chunk, Failures, Head};
use crate::ranges::{RangeSet, RunMap};

/// Offsets in one chunk row.
pub const CHUNK_OFFSETS: u64 = 65_536;
/// How many chunks above the floor new offsets are delivered.
pub const WINDOW_CHUNKS: u64 = 16;
/// How far above the floor new offsets are delivered: 1,048,576.
pub const WINDOW_OFFSETS: u64 = WINDOW_CHUNKS * CHUNK_OFFSETS;
/// Offsets in one row of failures.
pub const FAILURES_OFFSETS: u64 = 1_024;

/// One partition's progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    floor: u64,
    generation: u64,
    /// Settled offsets above the floor; the floor itself is never among them.
    acked: RangeSet,
    failures: RunMap<History>,
    head_dirty: bool,
    /// The stored head may be of a version that kept failures itself: it is written anew with the first row of them, so
    /// that an earlier release is told that it cannot read these.
    head_may_be_old: bool,
    chunks: RowSet,
    failure_rows: RowSet,
}

/// Rows by their index, of which some are to be written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct RowSet {
    dirty: BTreeSet<u64>,
    /// Those that may be in the store.
    stored: BTreeSet<u64>,
}

/// How earlier deliveries of an unsettled offset ended. The default: none ended badly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct History {
    /// Deliveries that failed.
    pub attempts: u16,
    /// Deliveries in a row that ended with their consumer's connection, up to [`RETURNS_MAX`].
    pub returned: u8,
    /// When the first one failed, in milliseconds since the Unix epoch; 0 without attempts.
    pub first_failure_ms: u64,
    /// When the last one failed; 0 without attempts.
    pub last_failure_ms: u64,
    /// Not to be delivered before this time of day; 0 if it may be at once.
    pub not_before_ms: u64,
}

/// Returns in a row after which an offset is delivered alone, and a further one counts as an attempt (decision 18).
pub const RETURNS_MAX: u8 = 3;

/// Histories of runs, in order.
pub(crate) type Histories = Vec<(Range<u64>, History)>;

impl History {
    /// True if nothing else may be in flight at the consumer that gets the offset.
    pub fn is_alone(&self) -> bool {
        self.returned >= RETURNS_MAX
    }

    /// How much longer it waits at this time of day: never longer than it was to wait from its last failure on, so that
    /// a clock that was set back meanwhile does not hold it up.
    pub(crate) fn waits_ms(&self, wall: Timestamp) -> u64 {
        let whole = self.not_before_ms.saturating_sub(self.last_failure_ms);
        self.not_before_ms.saturating_sub(wall.0).min(whole)
    }
}

/// A change of a stored row. The caller adds subscription and partition to the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowChange {
    /// Write the head row.
    Head(Head),
    /// Write a chunk's row.
    Chunk {
        /// Which: offsets from `index * CHUNK_OFFSETS`.
        index: u64,
        /// What of it is settled.
        chunk: Chunk,
    },
    /// Delete a chunk's row, if there is one.
    DropChunk {
        /// The chunk's index: its first offset divided by the offsets of a chunk.
        index: u64,
    },
    /// Write a row of failures.
    Failures {
        /// Which: offsets from `index * FAILURES_OFFSETS`.
        index: u64,
        /// How their deliveries ended.
        failures: Failures,
    },
    /// Delete a row of failures, if there is one.
    DropFailures {
        /// The row's index: its first offset divided by [`FAILURES_OFFSETS`].
        index: u64,
    },
}

/// Which row of a partition's progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowId {
    Head,
    Chunk(u64),
    Failures(u64),
}

impl RowChange {
    /// Which row changes.
    pub(crate) fn id(&self) -> RowId {
        match self {
            Self::Head(_) => RowId::Head,
            Self::Chunk { index, .. } | Self::DropChunk { index } => RowId::Chunk(*index),
            Self::Failures { index, .. } | Self::DropFailures { index } => RowId::Failures(*index),
        }
    }
}

impl RowSet {
    /// Each row that is to be written: with what `row` makes of it, or deleted if that is nothing and it may be stored.
    fn take<T>(&mut self, row: impl Fn(u64) -> Option<T>) -> Vec<(u64, Option<T>)> {
        let mut taken = Vec::new();
        for index in std::mem::take(&mut self.dirty) {
            match row(index) {
                Some(value) => {
                    self.stored.insert(index);
                    taken.push((index, Some(value)));
                }
                None if self.stored.remove(&index) => taken.push((index, None)),
                None => {}
            }
        }
        taken
    }

    /// It is not known what the store has of a row: it is to be written.
    fn retake(&mut self, index: u64) {
        self.dirty.insert(index);
        self.stored.insert(index);
    }
}

impl Progress {
    /// Progress of a new subscription that begins at `floor`; its head row is yet to be written.
    pub fn new(floor: Offset, generation: u64) -> Self {
        Self {
            floor: floor.0,
            generation,
            acked: RangeSet::default(),
            failures: RunMap::default(),
            head_dirty: true,
            head_may_be_old: false,
            chunks: RowSet::default(),
            failure_rows: RowSet::default(),
        }
    }

    /// Progress as its rows have it: the head, all chunks and all rows of failures with their index, in any order.
    ///
    /// `None` if a row has an index that reaches past the last offset.
    pub fn restore(
        head: Head,
        chunks: impl IntoIterator<Item = (u64, Chunk)>,
        failures: impl IntoIterator<Item = (u64, Failures)>,
    ) -> Option<Self> {
        let mut progress = Self::new(Offset(head.floor()), head.generation());
        progress.head_dirty = false;
        progress.head_may_be_old = true;
        for (index, row) in failures {
            row.failed(index)?.for_each(|(run, history)| progress.failures.insert(run, history));
            progress.failure_rows.stored.insert(index);
        }
        // Written before failures had rows of their own, they get them.
        for (run, history) in head.into_failures() {
            progress.set_history(&run, history);
            progress.head_dirty = true;
        }
        let floor = progress.floor;
        for (index, chunk) in chunks {
            for run in chunk.settled(index)? {
                progress.acked.insert(run);
            }
            progress.chunks.stored.insert(index);
        }
        progress.raise_floor(floor);
        let mut settled = progress.failures.take(&(0..progress.floor), |_| true);
        for run in progress.acked.iter() {
            settled.extend(progress.failures.take(&run, |_| true));
        }
        progress.touch_failures(&settled);
        Some(progress)
    }

    /// Everything below is settled, and this offset is not.
    pub fn floor(&self) -> Offset {
        Offset(self.floor)
    }

    /// Which owner's verbs count; a seek or a takeover raises it.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// True if the offset needs no delivery any more.
    pub fn is_settled(&self, offset: Offset) -> bool {
        offset.0 < self.floor || self.acked.contains(offset.0)
    }

    /// How many offsets below `end` are not settled.
    pub fn unsettled(&self, end: Offset) -> u64 {
        end.0.saturating_sub(self.floor).saturating_sub(self.acked.len())
    }

    /// The row changes since the last call, to be committed together. If the commit fails,
    /// `unsettle` makes them dirty again.
    pub fn take_dirty(&mut self) -> Vec<RowChange> {
        let mut changes = Vec::new();
        self.head_dirty |= self.head_may_be_old && !self.failure_rows.dirty.is_empty();
        if std::mem::take(&mut self.head_dirty) {
            self.head_may_be_old = false;
            changes.push(RowChange::Head(Head::of(self.floor, self.generation)));
        }
        let passed: Vec<u64> = self.chunks.stored.range(..self.floor / CHUNK_OFFSETS).copied().collect();
        self.chunks.dirty.extend(passed);
        let chunks = self.chunks.take(|index| Chunk::of(index, &self.acked));
        changes.extend(chunks.into_iter().map(|(index, chunk)| match chunk {
            Some(chunk) => RowChange::Chunk { index, chunk },
            None => RowChange::DropChunk { index },
        }));
        let failures = self.failure_rows.take(|index| Failures::of(index, &self.failures));
        changes.extend(failures.into_iter().map(|(index, failures)| match failures {
            Some(failures) => RowChange::Failures { index, failures },
            None => RowChange::DropFailures { index },
        }));
        changes
    }

    /// True if [`Progress::take_dirty`] has something.
    pub fn is_dirty(&self) -> bool {
        self.head_dirty || !self.chunks.dirty.is_empty() || !self.failure_rows.dirty.is_empty()
    }

    /// Settles offsets that were not, and returns what is forgotten about their failures.
    pub(crate) fn settle(&mut self, range: &Range<u64>) -> Histories {
        let forgotten =
            if self.failures.is_empty() { Vec::new() } else { self.failures.take(range, |_| true) };
        self.touch_failures(&forgotten);
        if range.start <= self.floor {
            self.raise_floor(range.end);
        } else {
            self.acked.insert(range.clone());
            self.chunks.dirty.extend(rows_of(range, CHUNK_OFFSETS));
        }
        forgotten
    }

    /// Takes back what was settled since `floor` stood, with the row changes that could not be committed.
    pub(crate) fn unsettle<'a>(
        &mut self,
        floor: u64,
        ranges: impl Iterator<Item = &'a Range<u64>>,
        forgotten: Histories,
        rows: &[RowId],
    ) {
        self.acked.insert(floor..self.floor);
        self.floor = floor;
        ranges.for_each(|range| self.acked.remove(range.clone()));
        for (range, history) in forgotten {
            self.set_history(&range, history);
        }
        self.head_dirty = true;
        for row in rows {
            match row {
                RowId::Head => {}
                RowId::Chunk(index) => self.chunks.retake(*index),
                RowId::Failures(index) => self.failure_rows.retake(*index),
            }
        }
    }

    /// Cuts `range` into pieces of equal history.
    pub(crate) fn histories(&self, range: &Range<u64>) -> Histories {
        let (mut pieces, mut at) = (Vec::new(), range.start);
        for (part, history) in self.failures.parts_in(range) {
            if at < part.start {
                pieces.push((at..part.start, History::default()));
            }
            at = part.end;
            pieces.push((part, *history));
        }
        if at < range.end {
            pieces.push((at..range.end, History::default()));
        }
        pieces
    }

    pub(crate) fn history_of(&self, offset: u64) -> History {
        self.failures.at(offset).map_or_else(History::default, |(_, history)| *history)
    }

    pub(crate) fn set_history(&mut self, range: &Range<u64>, history: History) {
        self.failures.take(range, |_| true);
        self.failures.insert(range.clone(), history);
        self.failure_rows.dirty.extend(rows_of(range, FAILURES_OFFSETS));
    }

    fn touch_failures(&mut self, changed: &[(Range<u64>, History)]) {
        let rows = changed.iter().flat_map(|(run, _)| rows_of(run, FAILURES_OFFSETS));
        self.failure_rows.dirty.extend(rows);
    }

    /// How many runs have failed, neighbours that ended alike being one.
    pub(crate) fn failed_runs(&self) -> usize {
        self.failures.runs_len()
    }

    /// One past the highest offset that anything is known of.
    pub(crate) fn known_end(&self) -> u64 {
        let acked_end = self.acked.iter().next_back().map_or(0, |run| run.end);
        self.floor.max(acked_end).max(self.failures.end().unwrap_or(0))
    }

    /// The unsettled parts of `range`.
    pub(crate) fn open_parts(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let range = range.start.max(self.floor)..range.end;
        if range.is_empty() {
            return Vec::new();
        }
        self.acked.pieces(&range).into_iter().filter(|(_, acked)| !acked).map(|(part, _)| part).collect()
    }

    fn raise_floor(&mut self, to: u64) {
        let floor = self.acked.first_gap(self.floor.max(to));
        self.head_dirty |= floor != self.floor;
        self.floor = floor;
        self.acked.remove(0..floor);
    }
}

/// The rows of so many offsets each that a range touches.
fn rows_of(range: &Range<u64>, offsets: u64) -> Range<u64> {
    range.start / offsets..range.end.div_ceil(offsets)
}
