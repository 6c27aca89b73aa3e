//! Offsets in order, of which those at either end come and go: the events of one key.

use std::collections::VecDeque;

/// Room for so many offsets is kept although it is not needed.
const SMALL: usize = 64;

/// A sorted set of offsets.
#[derive(Debug, Default)]
pub(super) struct SortedOffsets(VecDeque<u64>);

impl SortedOffsets {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn first(&self) -> Option<u64> {
        self.0.front().copied()
    }

    pub(super) fn last(&self) -> Option<u64> {
        self.0.back().copied()
    }

    /// Adds an offset; true if it was not there.
    pub(super) fn insert(&mut self, offset: u64) -> bool {
        if self.last().is_none_or(|last| last < offset) {
            self.0.push_back(offset);
            return true;
        }
        let place = self.0.binary_search(&offset);
        place.map_err(|place| self.0.insert(place, offset)).is_err()
    }

    /// Removes an offset; true if it was there.
    pub(super) fn remove(&mut self, offset: u64) -> bool {
        let place = if self.first() == Some(offset) { Ok(0) } else { self.0.binary_search(&offset) };
        let is_in = place.is_ok_and(|place| self.0.remove(place).is_some());
        if self.0.capacity() > SMALL && self.0.len() * 4 < self.0.capacity() {
            self.0.shrink_to(self.0.len() * 2);
        }
        is_in
    }

    /// The offsets from this one on.
    pub(super) fn from(&self, offset: u64) -> impl Iterator<Item = u64> {
        self.0.range(self.0.partition_point(|it| *it < offset)..).copied()
    }

    /// The first offset that is not below `start`.
    pub(super) fn first_from(&self, start: u64) -> Option<u64> {
        self.from(start).next()
    }

    /// The last offset below `end`.
    pub(super) fn last_below(&self, end: u64) -> Option<u64> {
        self.0.partition_point(|it| *it < end).checked_sub(1).map(|place| self.0[place])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_sorted_set(changes in vec((any::<bool>(), 0u64..40), 0..120), probe in 0u64..45) {
            let (mut offsets, mut model) = (SortedOffsets::default(), BTreeSet::new());
            for (is_in, offset) in changes {
                if is_in {
                    prop_assert_eq!(offsets.insert(offset), model.insert(offset));
                } else {
                    prop_assert_eq!(offsets.remove(offset), model.remove(&offset));
                }
            }
            prop_assert_eq!(offsets.is_empty(), model.is_empty());
            prop_assert_eq!((offsets.first(), offsets.last()), (model.first().copied(), model.last().copied()));
            prop_assert_eq!(offsets.last_below(probe), model.range(..probe).next_back().copied());
            prop_assert!(offsets.from(probe).eq(model.range(probe..).copied()));
        }
    }
}
