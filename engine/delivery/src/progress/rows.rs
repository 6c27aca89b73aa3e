//! What the stored rows of a partition's progress hold: values that are checked when they are made, so that progress
//! can be restored from any of them. Their bytes and keys are defined where they are stored.

use std::ops::Range;

use super::{CHUNK_OFFSETS, FAILURES_OFFSETS, History};
use crate::ranges::{RangeSet, RunMap};

/// The head of a partition's progress: its floor. Earlier versions also kept the runs of unsettled offsets there whose
/// deliveries failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    floor: u64,
    generation: u64,
    failures: Vec<(Range<u64>, History)>,
}

impl Head {
    /// `None` if a run of failures is empty, or they are not in order.
    pub fn new(floor: u64, generation: u64, failures: Vec<(Range<u64>, History)>) -> Option<Self> {
        let runs = failures.iter().map(|(run, _)| run);
        are_in_order(runs).then_some(Self { floor, generation, failures })
    }

    pub(super) fn of(floor: u64, generation: u64) -> Self {
        Self { floor, generation, failures: Vec::new() }
    }

    /// Everything below is settled.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Which owner's verbs count.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Runs of failed offsets, in order; none unless an earlier version wrote it.
    pub fn failures(&self) -> &[(Range<u64>, History)] {
        &self.failures
    }

    pub(super) fn into_failures(self) -> Vec<(Range<u64>, History)> {
        self.failures
    }
}

/// What is settled of [`CHUNK_OFFSETS`] offsets, some of them at least; counted from the chunk's first offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    runs: Vec<Range<u64>>,
}

impl Chunk {
    /// `None` if there is no run, one is empty or ends past the chunk, or they are not in order.
    pub fn new(runs: Vec<Range<u64>>) -> Option<Self> {
        let fits = runs.last().is_some_and(|last| last.end <= CHUNK_OFFSETS) && are_in_order(runs.iter());
        fits.then_some(Self { runs })
    }

    /// The part of `acked` in the chunk of this index; `None` if there is none.
    pub(super) fn of(index: u64, acked: &RangeSet) -> Option<Self> {
        let within = row_range(index, CHUNK_OFFSETS)?;
        let runs = acked.runs_in(&within).map(|run| run.start - within.start..run.end - within.start);
        let runs: Vec<_> = runs.collect();
        (!runs.is_empty()).then_some(Self { runs })
    }

    /// The runs of settled offsets, in order.
    pub fn runs(&self) -> &[Range<u64>] {
        &self.runs
    }

    /// The settled offsets, if this is the chunk of this index; `None` if that reaches past the last offset.
    pub(super) fn settled(self, index: u64) -> Option<impl Iterator<Item = Range<u64>>> {
        let base = row_range(index, CHUNK_OFFSETS)?.start;
        Some(self.runs.into_iter().map(move |run| base + run.start..base + run.end))
    }
}

/// How deliveries of [`FAILURES_OFFSETS`] offsets ended that are not settled, some of them at least; counted from the row's
/// first offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failures {
    runs: Vec<(Range<u64>, History)>,
}

impl Failures {
    /// `None` if there is no run, one is empty or ends past the row, or they are not in order.
    pub fn new(runs: Vec<(Range<u64>, History)>) -> Option<Self> {
        let fits = runs.last().is_some_and(|(last, _)| last.end <= FAILURES_OFFSETS);
        (fits && are_in_order(runs.iter().map(|(run, _)| run))).then_some(Self { runs })
    }

    /// The part of `failures` in the row of this index; `None` if there is none.
    pub(super) fn of(index: u64, failures: &RunMap<History>) -> Option<Self> {
        let within = row_range(index, FAILURES_OFFSETS)?;
        let from = |run: Range<u64>| run.start - within.start..run.end - within.start;
        let runs: Vec<_> = failures.parts_in(&within).map(|(run, history)| (from(run), *history)).collect();
        (!runs.is_empty()).then_some(Self { runs })
    }

    /// The runs of failed offsets, in order.
    pub fn runs(&self) -> &[(Range<u64>, History)] {
        &self.runs
    }

    /// The failed offsets, if this is the row of this index; `None` if that reaches past the last offset.
    pub(super) fn failed(self, index: u64) -> Option<impl Iterator<Item = (Range<u64>, History)>> {
        let base = row_range(index, FAILURES_OFFSETS)?.start;
        let runs = self.runs.into_iter();
        Some(runs.map(move |(run, history)| (base + run.start..base + run.end, history)))
    }
}

fn are_in_order<'a>(runs: impl Iterator<Item = &'a Range<u64>>) -> bool {
    let mut end = 0;
    for run in runs {
        if run.is_empty() || run.start < end {
            return false;
        }
        end = run.end;
    }
    true
}

/// The offsets of the row with this index, if each has so many.
fn row_range(index: u64, offsets: u64) -> Option<Range<u64>> {
    let start = index.checked_mul(offsets)?;
    Some(start..start.checked_add(offsets)?)
}
