//! A set of small numbers, such as the indexes of partitions, as bits: changing it costs no search and, once it has its
//! size, no allocation.

/// A set of indexes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct IndexSet {
    words: Vec<u64>,
    len: usize,
}

impl IndexSet {
    /// Puts an index in or takes it out.
    pub(super) fn set(&mut self, index: usize, is_in: bool) {
        let (at, bit) = (index / 64, 1 << (index % 64));
        if at >= self.words.len() {
            if !is_in {
                return;
            }
            self.words.resize(at + 1, 0);
        }
        let word = &mut self.words[at];
        let was_in = *word & bit != 0;
        if is_in && !was_in {
            *word |= bit;
            self.len += 1;
        } else if !is_in && was_in {
            *word &= !bit;
            self.len -= 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All indexes, those from `first` on in front; both parts in order.
    pub(super) fn iter_from(&self, first: usize) -> impl Iterator<Item = usize> {
        let below = move |index: &usize| *index < first;
        let words = if self.len == 0 { &[] } else { &self.words[..] };
        let start = (first / 64).min(words.len());
        let from = bits(&words[start..], start).skip_while(below);
        let end = first.div_ceil(64).min(words.len());
        from.chain(bits(&words[..end], 0).take_while(below))
    }

    /// Takes all indexes, in order.
    pub(super) fn take(&mut self) -> Vec<usize> {
        if self.len == 0 {
            return Vec::new();
        }
        let taken = bits(&self.words, 0).collect();
        self.words.fill(0);
        self.len = 0;
        taken
    }
}

fn bits(words: &[u64], first: usize) -> impl Iterator<Item = usize> {
    words.iter().enumerate().filter(|(_, word)| **word != 0).flat_map(move |(at, word)| {
        let mut left = *word;
        std::iter::from_fn(move || {
            let bit = (left != 0).then(|| left.trailing_zeros() as usize)?;
            left &= left - 1;
            Some((first + at) * 64 + bit)
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set_that_is_gone_through_from_anywhere(
            changes in vec((0usize..300, any::<bool>()), 0..60),
            first in 0usize..320,
        ) {
            let (mut set, mut model) = (IndexSet::default(), BTreeSet::new());
            for (index, is_in) in changes {
                set.set(index, is_in);
                if is_in { model.insert(index); } else { model.remove(&index); }
            }
            prop_assert_eq!(set.is_empty(), model.is_empty());
            let turn: Vec<usize> = model.range(first..).chain(model.range(..first)).copied().collect();
            prop_assert_eq!(set.iter_from(first).collect::<Vec<_>>(), turn);
            prop_assert_eq!(set.take(), Vec::from_iter(model));
            prop_assert!(set.is_empty() && set.iter_from(0).next().is_none());
        }
    }
}
