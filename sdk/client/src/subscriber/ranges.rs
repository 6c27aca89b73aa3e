//! Which offsets of a delivery were settled.
//!
//! Pure.

use levada_protocol::ids::Offset;

/// Ranges of offsets, in order, apart from each other, ends included.
#[derive(Debug, Default)]
pub(super) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// The parts of `first` to `last` that are in no range.
    pub(super) fn gaps(&self, first: Offset, last: Offset, mut gap: impl FnMut(Offset, Offset)) {
        let mut from = first.0;
        // Events are mostly settled in order: what is asked for is behind nearly all ranges.
        let at = match self.0.last() {
            Some((_, end)) if *end < first.0 => self.0.len(),
            _ => self.0.partition_point(|(_, end)| *end < first.0),
        };
        for &(start, end) in self.0[at..].iter().take_while(|(start, _)| *start <= last.0) {
            if start > from {
                gap(Offset(from), Offset(start - 1));
            }
            from = end.saturating_add(1);
        }
        if from <= last.0 {
            gap(Offset(from), last);
        }
    }

    /// How many offsets from `first` to `last` are in a range.
    pub(super) fn covered(&self, first: Offset, last: Offset) -> u64 {
        let from = self.0.partition_point(|(_, end)| *end < first.0);
        let among = self.0[from..].iter().take_while(|(start, _)| *start <= last.0);
        among.map(|(start, end)| (*end).min(last.0) - (*start).max(first.0) + 1).sum()
    }

    pub(super) fn add(&mut self, first: Offset, last: Offset) {
        let (mut first, mut last) = (first.0, last.0);
        match self.0.last_mut() {
            Some((start, end)) if *start <= first && first <= end.saturating_add(1) => {
                *end = last.max(*end);
                return;
            }
            Some((_, end)) if first <= *end => {}
            _ => return self.0.push((first, last)),
        }
        // Those that touch the new one, its neighbours included, become one with it.
        let from = self.0.partition_point(|(_, end)| end.saturating_add(1) < first);
        let to = self.0.partition_point(|(start, _)| *start <= last.saturating_add(1));
        for &(start, end) in &self.0[from..to] {
            (first, last) = (first.min(start), last.max(end));
        }
        self.0.splice(from..to, [(first, last)]);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn gaps(ranges: &Ranges, first: u64, last: u64) -> Vec<(u64, u64)> {
        let mut found = Vec::new();
        ranges.gaps(Offset(first), Offset(last), |first, last| found.push((first.0, last.0)));
        found
    }

    #[test]
    fn ranges_grow_together_and_leave_gaps() {
        let mut ranges = Ranges::default();
        for (first, last) in [(10, 12), (20, 25), (13, 14), (30, 30)] {
            ranges.add(Offset(first), Offset(last));
        }
        assert_eq!(ranges.0, [(10, 14), (20, 25), (30, 30)]);
        assert_eq!(gaps(&ranges, 0, 40), [(0, 9), (15, 19), (26, 29), (31, 40)]);
        assert_eq!(gaps(&ranges, 12, 22), [(15, 19)]);
        assert_eq!(gaps(&ranges, 21, 24), []);
        assert_eq!(gaps(&ranges, 31, 32), [(31, 32)]);
        assert_eq!(ranges.covered(Offset(0), Offset(9)), 0);
        assert_eq!(ranges.covered(Offset(13), Offset(21)), 4);
        assert_eq!(ranges.covered(Offset(0), Offset(40)), 12);
        ranges.add(Offset(11), Offset(29));
        assert_eq!(ranges.0, [(10, 30)]);
    }

    proptest! {
        #[test]
        fn ranges_hold_what_was_added(added in prop::collection::vec((0_u64..60, 0_u64..6), 0..40), first in 0_u64..66, more in 0_u64..66) {
            let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
            for (first, more) in added {
                ranges.add(Offset(first), Offset(first + more));
                set.extend(first..=first + more);
            }
            prop_assert!(ranges.0.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
            let within: Vec<_> = (first..=first + more).filter(|offset| set.contains(offset)).collect();
            prop_assert_eq!(ranges.covered(Offset(first), Offset(first + more)), within.len() as u64);
            let outside: Vec<_> = gaps(&ranges, first, first + more).into_iter().flat_map(|(a, b)| a..=b).collect();
            prop_assert_eq!(outside.len() + within.len(), more as usize + 1);
            prop_assert!(outside.iter().all(|offset| !set.contains(offset)));
        }
    }
}
