//! Sets and maps over offsets, kept as runs: their cost grows with the number of runs, not of offsets.
//!
//! Owns the arithmetic of half-open ranges. It must not know what the offsets mean.

use std::{collections::BTreeMap, ops::Range};

/// A set of offsets as disjoint runs that never touch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RangeSet {
    runs: RunMap<()>,
    len: u64,
}

impl RangeSet {
    /// Adds all of `range`; what is in already stays.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let mut union = range.clone();
        for (run, ()) in self.runs.take_runs(&range, |()| true) {
            self.len -= run.end - run.start;
            union = union.start.min(run.start)..union.end.max(run.end);
        }
        self.len += union.end - union.start;
        self.runs.insert(union, ());
    }

    /// Takes all of `range` out.
    pub fn remove(&mut self, range: Range<u64>) {
        for (part, ()) in self.runs.take(&range, |()| true) {
            self.len -= part.end - part.start;
        }
    }

    /// True if `offset` is in the set.
    pub fn contains(&self, offset: u64) -> bool {
        self.runs.at(offset).is_some()
    }

    /// The first offset at or after `offset` that is not in the set.
    pub fn first_gap(&self, offset: u64) -> u64 {
        self.runs.at(offset).map_or(offset, |(run, ())| run.end)
    }

    /// The run that holds `offset`.
    pub fn run_at(&self, offset: u64) -> Option<Range<u64>> {
        self.runs.at(offset).map(|(run, ())| run)
    }

    /// How many offsets there are.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many offsets of `range` are in the set.
    pub fn count_in(&self, range: &Range<u64>) -> u64 {
        self.runs_in(range).map(|part| part.end - part.start).sum()
    }

    /// All runs in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Range<u64>> {
        self.runs.iter().map(|(run, ())| run)
    }

    /// The runs within `range` in order, cut to it.
    pub fn runs_in<'a>(&'a self, range: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<'a> {
        self.runs.parts_in(range).map(|(part, ())| part)
    }

    /// Cuts `range` into pieces that are wholly in the set (`true`) or wholly outside (`false`), in order.
    pub fn pieces(&self, range: &Range<u64>) -> Vec<(Range<u64>, bool)> {
        let (mut pieces, mut at) = (Vec::new(), range.start);
        for part in self.runs_in(range) {
            if at < part.start {
                pieces.push((at..part.start, false));
            }
            at = part.end;
            pieces.push((part, true));
        }
        if at < range.end {
            pieces.push((at..range.end, false));
        }
        pieces
    }
}

/// A value for each of some offsets, kept once per run. Neighbouring runs of equal value are one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunMap<V> {
    runs: BTreeMap<u64, (u64, V)>,
}

impl<V> Default for RunMap<V> {
    fn default() -> Self {
        Self { runs: BTreeMap::new() }
    }
}

impl<V: Clone + PartialEq> RunMap<V> {
    /// Gives every offset of `range`, none of which may have a value yet, this one.
    pub(crate) fn insert(&mut self, range: Range<u64>, value: V) {
        debug_assert!(self.parts_in(&range).next().is_none(), "offsets with a value are taken out first");
        if range.is_empty() {
            return;
        }
        let end = match self.runs.get(&range.end) {
            Some((end, after)) if *after == value => {
                let end = *end;
                self.runs.remove(&range.end);
                end
            }
            _ => range.end,
        };
        match self.runs.range_mut(..range.start).next_back() {
            Some((_, (before_end, before))) if *before_end == range.start && *before == value => {
                *before_end = end;
            }
            _ => {
                self.runs.insert(range.start, (end, value));
            }
        }
    }

    /// Takes the parts within `range` whose value is `wanted`; runs that reach beyond it are cut.
    pub(crate) fn take(&mut self, range: &Range<u64>, wanted: impl Fn(&V) -> bool) -> Vec<(Range<u64>, V)> {
        let mut taken = self.take_runs(range, wanted);
        for (run, value) in &mut taken {
            if run.start < range.start {
                self.runs.insert(run.start, (range.start, value.clone()));
            }
            if run.end > range.end {
                self.runs.insert(range.end, (run.end, value.clone()));
            }
            *run = cut(run, range);
        }
        taken
    }

    /// Takes the whole runs that overlap `range` and whose value is `wanted`.
    pub(crate) fn take_runs(
        &mut self,
        range: &Range<u64>,
        wanted: impl Fn(&V) -> bool,
    ) -> Vec<(Range<u64>, V)> {
        let starts: Vec<u64> = self
            .overlapping(range)
            .filter(|(_, (_, value))| wanted(value))
            .map(|(start, _)| *start)
            .collect();
        starts
            .into_iter()
            .filter_map(|start| self.runs.remove(&start).map(|(end, value)| (start..end, value)))
            .collect()
    }

    /// The run that holds `offset`.
    pub(crate) fn at(&self, offset: u64) -> Option<(Range<u64>, &V)> {
        let (start, (end, value)) = self.runs.range(..=offset).next_back()?;
        (*end > offset).then_some((*start..*end, value))
    }

    /// The lowest run.
    pub(crate) fn first(&self) -> Option<(Range<u64>, &V)> {
        self.runs.first_key_value().map(|(start, (end, value))| (*start..*end, value))
    }

    /// One past the highest offset with a value.
    pub(crate) fn end(&self) -> Option<u64> {
        self.runs.last_key_value().map(|(_, (end, _))| *end)
    }

    /// How many runs there are.
    pub(crate) fn runs_len(&self) -> usize {
        self.runs.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// All runs in order.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (Range<u64>, &V)> {
        self.runs.iter().map(|(start, (end, value))| (*start..*end, value))
    }

    /// The parts of runs within `range` in order.
    pub(crate) fn parts_in<'a>(
        &'a self,
        range: &Range<u64>,
    ) -> impl Iterator<Item = (Range<u64>, &'a V)> + use<'a, V> {
        let range = range.clone();
        self.overlapping(&range).map(move |(start, (end, value))| (cut(&(*start..*end), &range), value))
    }

    fn overlapping<'a>(
        &'a self,
        range: &Range<u64>,
    ) -> impl Iterator<Item = (&'a u64, &'a (u64, V))> + use<'a, V> {
        let from = self.at(range.start).map_or(range.start, |(run, _)| run.start);
        let to = if range.is_empty() { from } else { range.end };
        self.runs.range(from..to)
    }
}

fn cut(run: &Range<u64>, range: &Range<u64>) -> Range<u64> {
    run.start.max(range.start)..run.end.min(range.end)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn check(set: &RangeSet, model: &BTreeSet<u64>, probe: Range<u64>) {
        let listed: BTreeSet<u64> = set.iter().flatten().collect();
        assert_eq!(&listed, model);
        assert_eq!(set.len(), model.len() as u64);
        assert_eq!(set.is_empty(), model.is_empty());
        let runs: Vec<_> = set.iter().collect();
        assert!(runs.windows(2).all(|pair| pair[0].end < pair[1].start), "runs touch: {runs:?}");
        assert_eq!(set.contains(probe.start), model.contains(&probe.start));
        let gap = (probe.start..).find(|offset| !model.contains(offset)).unwrap();
        assert_eq!(set.first_gap(probe.start), gap);
        let within = if probe.is_empty() { 0 } else { model.range(probe.clone()).count() as u64 };
        assert_eq!(set.count_in(&probe), within);
        let mut at = probe.start;
        for (piece, inside) in set.pieces(&probe) {
            assert_eq!(piece.start, at);
            assert!(piece.clone().all(|offset| model.contains(&offset) == inside));
            at = piece.end;
        }
        assert_eq!(at, probe.end.max(probe.start));
    }

    proptest! {
        #[test]
        fn a_range_set_is_a_set(ops in vec((any::<bool>(), 0u64..120, 0u64..25), 1..80), probe in 0u64..130) {
            let (mut set, mut model) = (RangeSet::default(), BTreeSet::new());
            for (insert, start, len) in ops {
                let range = start..start + len;
                if insert {
                    model.extend(range.clone());
                    set.insert(range);
                } else {
                    model.retain(|offset| !range.contains(offset));
                    set.remove(range);
                }
                check(&set, &model, probe..probe + len);
            }
        }

        #[test]
        fn a_run_map_is_a_map(ops in vec((0u8..4, 0u64..100, 1u64..25), 1..80)) {
            let (mut map, mut model) = (RunMap::default(), BTreeMap::new());
            for (value, start, len) in ops {
                let range = start..start + len;
                if value == 3 {
                    let taken = map.take(&range, |value| *value == 1);
                    let expected: Vec<u64> = range.filter(|at| model.get(at) == Some(&1)).collect();
                    expected.iter().for_each(|at| { model.remove(at); });
                    prop_assert_eq!(taken.into_iter().flat_map(|(run, _)| run).collect::<Vec<_>>(), expected);
                } else {
                    map.take(&range, |_| true);
                    model.extend(range.clone().map(|at| (at, value)));
                    map.insert(range, value);
                }
                let listed: BTreeMap<u64, u8> =
                    map.iter().flat_map(|(run, value)| run.map(move |at| (at, *value))).collect();
                prop_assert_eq!(&listed, &model);
                for at in 0..130 {
                    prop_assert_eq!(map.at(at).map(|(_, value)| *value), model.get(&at).copied());
                }
            }
        }
    }

    #[test]
    fn the_highest_offsets_are_ordinary() {
        let mut set = RangeSet::default();
        set.insert(u64::MAX - 2..u64::MAX);
        assert!(set.contains(u64::MAX - 1));
        assert_eq!(set.first_gap(u64::MAX - 2), u64::MAX);
    }
}
