//! What of one partition a subscription is done with: a floor, and runs of settled offsets above it (decision 16).
//!
//! Owns the settled set, the failures of what is not settled, and which stored rows they have outrun. It must not know
//! consumers, deliveries or a store: rows go out and come back as values, whose encoding is the caller's.

mod rows;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, ops::Range};

use levada_protocol::ids::{Offset, Timestamp};

pub use self::rows::{Chunk, Head};
use crate::ranges::{RangeSet, RunMap};

/// Offsets in one chunk row.
pub const CHUNK_OFFSETS: u64 = 65_536;
/// How many chunks above the floor new offsets are delivered.
pub const WINDOW_CHUNKS: u64 = 16;
/// How far above the floor new offsets are delivered: 1,048,576.
pub const WINDOW_OFFSETS: u64 = WINDOW_CHUNKS * CHUNK_OFFSETS;
/// Runs of failed offsets in one partition from which on no new offsets are delivered: they are rewritten together.
pub const FAILURE_RUNS_MAX: usize = 4_096;

/// One partition's progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    floor: u64,
    generation: u64,
    /// Settled offsets above the floor; the floor itself is never among them.
    acked: RangeSet,
    failures: RunMap<History>,
    head_dirty: bool,
    dirty: BTreeSet<u64>,
    /// Chunks that may have a row.
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
}

impl RowChange {
    /// Which chunk's row changes; `None` for the head.
    pub(crate) fn chunk(&self) -> Option<u64> {
        match self {
            Self::Head(_) => None,
            Self::Chunk { index, .. } | Self::DropChunk { index } => Some(*index),
        }
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
            dirty: BTreeSet::new(),
            stored: BTreeSet::new(),
        }
    }

    /// Progress as its rows have it: the head and all chunks with their index, in any order.
    ///
    /// `None` if a chunk has an index that reaches past the last offset.
    pub fn restore(head: Head, chunks: impl IntoIterator<Item = (u64, Chunk)>) -> Option<Self> {
        let mut progress = Self::new(Offset(head.floor()), head.generation());
        progress.head_dirty = false;
        for (run, history) in head.into_failures() {
            progress.failures.insert(run, history);
        }
        let floor = progress.floor;
        for (index, chunk) in chunks {
            for run in chunk.settled(index)? {
                progress.acked.insert(run);
            }
            progress.stored.insert(index);
        }
        progress.raise_floor(floor);
        progress.failures.take(&(0..progress.floor), |_| true);
        for run in progress.acked.iter() {
            progress.failures.take(&run, |_| true);
        }
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
        if std::mem::take(&mut self.head_dirty) {
            changes.push(RowChange::Head(Head::of(self.floor, self.generation, &self.failures)));
        }
        let passed: Vec<u64> = self.stored.range(..self.floor / CHUNK_OFFSETS).copied().collect();
        self.dirty.extend(passed);
        for index in std::mem::take(&mut self.dirty) {
            match Chunk::of(index, &self.acked) {
                Some(chunk) => {
                    self.stored.insert(index);
                    changes.push(RowChange::Chunk { index, chunk });
                }
                None if self.stored.remove(&index) => changes.push(RowChange::DropChunk { index }),
                None => {}
            }
        }
        changes
    }

    /// True if [`Progress::take_dirty`] has something.
    pub fn is_dirty(&self) -> bool {
        self.head_dirty || !self.dirty.is_empty()
    }

    /// Settles offsets that were not, and returns what is forgotten about their failures.
    pub(crate) fn settle(&mut self, range: &Range<u64>) -> Histories {
        let forgotten =
            if self.failures.is_empty() { Vec::new() } else { self.failures.take(range, |_| true) };
        self.head_dirty |= !forgotten.is_empty();
        if range.start <= self.floor {
            self.raise_floor(range.end);
        } else {
            self.acked.insert(range.clone());
            self.dirty.extend(chunks_of(range));
        }
        forgotten
    }

    /// Takes back what was settled since `floor` stood, with the row changes that could not be committed.
    pub(crate) fn unsettle<'a>(
        &mut self,
        floor: u64,
        ranges: impl Iterator<Item = &'a Range<u64>>,
        forgotten: Histories,
        chunks: &[u64],
    ) {
        self.acked.insert(floor..self.floor);
        self.floor = floor;
        ranges.for_each(|range| self.acked.remove(range.clone()));
        for (range, history) in forgotten {
            self.failures.take(&range, |_| true);
            self.failures.insert(range, history);
        }
        self.head_dirty = true;
        self.dirty.extend(chunks);
        self.stored.extend(chunks);
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
        self.head_dirty = true;
    }

    pub(crate) fn failure_runs(&self) -> usize {
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

fn chunks_of(range: &Range<u64>) -> impl Iterator<Item = u64> {
    range.start / CHUNK_OFFSETS..range.end.div_ceil(CHUNK_OFFSETS)
}
