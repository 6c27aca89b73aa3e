//! Offsets of one partition that wait to be delivered again, by offset and by when they are due.
//!
//! Owns both indexes and keeps them in step. It must not know why they wait.

use std::{collections::BTreeSet, ops::Range};

use super::consumer::ConsumerId;
use crate::ranges::RunMap;

/// What a run waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait {
    /// When it may be delivered again, on the monotonic clock.
    pub(super) due: u64,
    /// Whose delivery of it failed last: somebody else should have the next.
    pub(super) by: Option<ConsumerId>,
}

#[derive(Debug, Default)]
pub(super) struct Waiting {
    runs: RunMap<Wait>,
    /// Due time and start of each run.
    due: BTreeSet<(u64, u64)>,
}

impl Waiting {
    /// What a run takes in memory, in bytes: an entry of each index, in nodes that are about two thirds full.
    pub(super) const RUN_BYTES: usize =
        (2 * size_of::<u64>() + size_of::<Wait>() + size_of::<(u64, u64)>()) * 3 / 2;

    /// What all runs take in memory, in bytes: about.
    pub(super) fn bytes(&self) -> usize {
        self.due.len() * Self::RUN_BYTES
    }

    pub(super) fn add(&mut self, range: Range<u64>, wait: Wait) {
        if range.is_empty() {
            return;
        }
        self.runs.insert(range.clone(), wait);
        if let Some((run, _)) = self.runs.at(range.start) {
            // The new run may have become one with its neighbours that wait for the same.
            if run.end > range.end {
                self.due.remove(&(wait.due, range.end));
            }
            self.due.insert((wait.due, run.start));
        }
    }

    /// Takes the parts within `range`.
    pub(super) fn take(&mut self, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut parts = Vec::new();
        for (run, wait) in self.runs.take_runs(range, |_| true) {
            self.due.remove(&(wait.due, run.start));
            self.add(run.start..range.start.max(run.start), wait);
            self.add(range.end.min(run.end)..run.end, wait);
            parts.push(run.start.max(range.start)..run.end.min(range.end));
        }
        parts
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// True if every offset of `range` waits.
    #[cfg(test)]
    pub(super) fn covers(&self, range: &Range<u64>) -> bool {
        self.runs.parts_in(range).map(|(part, _)| part.end - part.start).sum::<u64>()
            == range.end - range.start
    }

    /// True if an offset of `range` waits.
    pub(super) fn overlaps(&self, range: &Range<u64>) -> bool {
        self.runs.parts_in(range).next().is_some()
    }

    /// The parts of `range` that wait.
    pub(super) fn parts_in<'a>(&'a self, range: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<'a> {
        self.runs.parts_in(range).map(|(part, _)| part)
    }

    /// The lowest run and what it waits for.
    pub(super) fn first(&self) -> Option<(Range<u64>, Wait)> {
        self.runs.first().map(|(run, wait)| (run, *wait))
    }

    /// The rest from `offset` of the run that holds it, and what it waits for.
    pub(super) fn rest_at(&self, offset: u64) -> Option<(Range<u64>, Wait)> {
        self.runs.at(offset).map(|(run, wait)| (offset..run.end, *wait))
    }

    /// Where the run begins that has been due for longest at `now`.
    pub(super) fn longest_due(&self, now: u64) -> Option<u64> {
        self.due.first().filter(|(due, _)| *due <= now).map(|(_, start)| *start)
    }

    /// When the next run becomes due after `now`, and where it begins.
    pub(super) fn next_due(&self, now: u64) -> Option<(u64, u64)> {
        self.due.range((now.checked_add(1)?, 0)..).next().copied()
    }

    /// How many offsets wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> u64 {
        self.runs.iter().map(|(run, _)| run.end - run.start).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn both_indexes_agree(ops in vec((0u64..4, 0u64..60, 1u64..20, 0u64..3), 1..60)) {
            let (mut waiting, mut model) = (Waiting::default(), BTreeMap::new());
            for (due, start, len, by) in ops {
                let range = start..start + len;
                let taken: Vec<u64> = waiting.take(&range).into_iter().flatten().collect();
                let expected: Vec<u64> = range.clone().filter(|at| model.remove(at).is_some()).collect();
                prop_assert_eq!(taken, expected);
                if due > 0 {
                    waiting.add(range.clone(), Wait { due, by: (by > 0).then_some(ConsumerId(by)) });
                    model.extend(range.clone().map(|at| (at, due)));
                    prop_assert!(waiting.covers(&range));
                }
                let runs: BTreeSet<(u64, u64)> = waiting.runs.iter().map(|(run, wait)| (wait.due, run.start)).collect();
                prop_assert_eq!(&runs, &waiting.due);
                prop_assert_eq!(waiting.len(), model.len() as u64);
                prop_assert_eq!(waiting.next_due(1).map(|(due, _)| due), model.values().copied().filter(|due| *due > 1).min());
                prop_assert_eq!(waiting.longest_due(2).is_some(), model.values().any(|due| *due <= 2));
            }
        }
    }
}
