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
        for &(start, end) in self.0.iter().filter(|(start, end)| *end >= first.0 && *start <= last.0) {
            if start > from {
                gap(Offset(from), Offset(start - 1));
            }
            from = end.saturating_add(1);
        }
        if from <= last.0 {
            gap(Offset(from), last);
        }
    }

    pub(super) fn add(&mut self, first: Offset, last: Offset) {
        let (mut first, mut last) = (first.0, last.0);
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
        ranges.add(Offset(11), Offset(29));
        assert_eq!(ranges.0, [(10, 30)]);
    }
}
