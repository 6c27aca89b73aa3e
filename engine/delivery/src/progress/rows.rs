//! What the stored rows of a partition's progress hold: values that are checked when they are made, so that progress
//! can be restored from any of them. Their bytes and keys are defined where they are stored.

use std::ops::Range;

use super::{CHUNK_OFFSETS, History};
use crate::ranges::{RangeSet, RunMap};

/// The head of a partition's progress: its floor, and the runs of unsettled offsets whose deliveries failed.
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

    pub(super) fn of(floor: u64, generation: u64, failures: &RunMap<History>) -> Self {
        let failures = failures.iter().map(|(run, history)| (run, *history)).collect();
        Self { floor, generation, failures }
    }

    /// Everything below is settled.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Which owner's verbs count.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Runs of failed offsets, in order.
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
        let within = chunk_range(index)?;
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
        let base = chunk_range(index)?.start;
        Some(self.runs.into_iter().map(move |run| base + run.start..base + run.end))
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

fn chunk_range(index: u64) -> Option<Range<u64>> {
    let start = index.checked_mul(CHUNK_OFFSETS)?;
    Some(start..start.checked_add(CHUNK_OFFSETS)?)
}
