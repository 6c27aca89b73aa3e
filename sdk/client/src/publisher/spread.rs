//! Which partition events without a key go to: one for a whole batch, then the one that got the least.
//!
//! Pure. Owns the account of bytes; must not know batches.

/// Bytes that each partition was given, and whose turn it is.
#[derive(Debug)]
pub(super) struct Spread {
    /// The partition of the batch that is being filled.
    pub(super) current: u16,
    given: Vec<u64>,
}

impl Spread {
    /// Begins with partition `first`.
    pub(super) fn new(partitions: u16, first: u32) -> Self {
        Self { current: u16::try_from(first).unwrap_or(0), given: vec![0; usize::from(partitions)] }
    }

    /// The partition whose turn it is got so many bytes.
    #[inline]
    pub(super) fn took(&mut self, bytes: usize) {
        self.given[usize::from(self.current)] += u64::try_from(bytes).unwrap_or(u64::MAX);
    }

    /// The next batch is for the partition that was given the least; of several, for the next one in turn.
    pub(super) fn advance(&mut self) {
        let (before, after) = self.given.split_at(usize::from(self.current) + 1);
        let least = after.iter().chain(before).min().copied().unwrap_or(0);
        let step = after.iter().chain(before).position(|given| *given == least).unwrap_or(0);
        let next = (usize::from(self.current) + 1 + step) % self.given.len().max(1);
        self.current = u16::try_from(next).unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn no_partition_is_ahead_by_more_than_a_batch(
            partitions in 1_u16..20,
            batches in vec(1_usize..1_000, 1..300),
        ) {
            let mut spread = Spread::new(partitions, u32::from(partitions) / 2);
            for bytes in batches {
                spread.took(bytes);
                spread.advance();
            }
            let (least, most) = (spread.given.iter().min().unwrap(), spread.given.iter().max().unwrap());
            prop_assert!(most - least <= 1_000, "{:?}", spread.given);
        }
    }

    #[test]
    fn batches_of_one_size_go_round() {
        let mut spread = Spread::new(3, 1);
        let turns: Vec<u16> = (0..6)
            .map(|_| {
                spread.took(10);
                spread.advance();
                spread.current
            })
            .collect();
        assert_eq!(turns, [2, 0, 1, 2, 0, 1]);
    }
}
