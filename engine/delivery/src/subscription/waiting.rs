//! Offsets of one partition that wait to be delivered again, by offset and by when they are due.
//!
//! Owns both indexes and keeps them in step. It must not know why they wait.

use std::{collections::BTreeSet, ops::Range};

use crate::ranges::RunMap;

#[derive(Debug, Default)]
pub(super) struct Waiting {
    runs: RunMap<u64>,
    /// Due time and start of each run.
    due: BTreeSet<(u64, u64)>,
}

impl Waiting {
    pub(super) fn add(&mut self, range: Range<u64>, due: u64) {
        if range.is_empty() {
            return;
        }
        self.runs.insert(range.clone(), due);
        // The new run may have become one with its neighbours of the same due time.
        self.due.remove(&(due, range.end));
        if let Some((run, _)) = self.runs.at(range.start) {
            self.due.insert((due, run.start));
        }
    }

    /// Takes the parts within `range`.
    pub(super) fn take(&mut self, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut parts = Vec::new();
        for (run, due) in self.runs.take_runs(range, |_| true) {
            self.due.remove(&(due, run.start));
            self.add(run.start..range.start.max(run.start), due);
            self.add(range.end.min(run.end)..run.end, due);
            parts.push(run.start.max(range.start)..run.end.min(range.end));
        }
        parts
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// True if every offset of `range` waits.
    pub(super) fn covers(&self, range: &Range<u64>) -> bool {
        self.runs.parts_in(range).map(|(part, _)| part.end - part.start).sum::<u64>()
            == range.end - range.start
    }

    /// The lowest run and when it is due.
    pub(super) fn first(&self) -> Option<(Range<u64>, u64)> {
        self.runs.first().map(|(run, due)| (run, *due))
    }

    /// The rest from `offset` of the run that holds it, and when it is due.
    pub(super) fn rest_at(&self, offset: u64) -> Option<(Range<u64>, u64)> {
        self.runs.at(offset).map(|(run, due)| (offset..run.end, *due))
    }

    /// Where the run begins that has been due for longest at `now`.
    pub(super) fn longest_due(&self, now: u64) -> Option<u64> {
        self.due.first().filter(|(due, _)| *due <= now).map(|(_, start)| *start)
    }

    /// When the next run becomes due after `now`.
    pub(super) fn next_due(&self, now: u64) -> Option<u64> {
        self.due.range((now.checked_add(1)?, 0)..).next().map(|(due, _)| *due)
    }

    /// How many offsets wait.
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
        fn both_indexes_agree(ops in vec((0u64..4, 0u64..60, 1u64..20), 1..60)) {
            let (mut waiting, mut model) = (Waiting::default(), BTreeMap::new());
            for (due, start, len) in ops {
                let range = start..start + len;
                let taken: Vec<u64> = waiting.take(&range).into_iter().flatten().collect();
                let expected: Vec<u64> = range.clone().filter(|at| model.remove(at).is_some()).collect();
                prop_assert_eq!(taken, expected);
                if due > 0 {
                    waiting.add(range.clone(), due);
                    model.extend(range.clone().map(|at| (at, due)));
                    prop_assert!(waiting.covers(&range));
                }
                let runs: BTreeSet<(u64, u64)> = waiting.runs.iter().map(|(run, due)| (*due, run.start)).collect();
                prop_assert_eq!(&runs, &waiting.due);
                prop_assert_eq!(waiting.len(), model.len() as u64);
                prop_assert_eq!(waiting.next_due(1), model.values().copied().filter(|due| *due > 1).min());
                prop_assert_eq!(waiting.longest_due(2).is_some(), model.values().any(|due| *due <= 2));
            }
        }
    }
}
