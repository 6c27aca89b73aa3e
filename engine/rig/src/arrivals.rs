//! What has arrived of numbered events: which, and whether in order. The accounts of the demo and of the bench are made
//! of it; what the numbers mean is theirs.

use std::{iter, ops::Range};

/// Numbers that were seen, one bit each.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    words: Vec<u64>,
}

impl Seen {
    /// Marks a number; true if it was seen before.
    ///
    /// # Panics
    /// If the number is beyond what a machine can address one bit of.
    #[inline]
    pub fn mark(&mut self, number: u64) -> bool {
        let (word, bit) = position(number);
        if word >= self.words.len() {
            self.words.resize((word + 1).next_power_of_two(), 0);
        }
        let seen = self.words[word] & bit != 0;
        self.words[word] |= bit;
        seen
    }

    /// Marks all numbers of a range, unless one of them was seen before: then it marks none and returns false.
    ///
    /// # Panics
    /// As [`Seen::mark`].
    pub fn mark_range(&mut self, numbers: Range<u64>) -> bool {
        if words(&numbers).any(|(word, bits)| self.words.get(word).is_some_and(|seen| seen & bits != 0)) {
            return false;
        }
        for (word, bits) in words(&numbers) {
            if word >= self.words.len() {
                self.words.resize((word + 1).next_power_of_two(), 0);
            }
            self.words[word] |= bits;
        }
        true
    }

    /// True if the number was seen.
    pub fn has(&self, number: u64) -> bool {
        let (word, bit) = position(number);
        self.words.get(word).is_some_and(|bits| bits & bit != 0)
    }

    /// How many different numbers were seen.
    pub fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// One more than the largest number that may have been seen.
    pub fn end(&self) -> u64 {
        self.words.len() as u64 * 64
    }

    /// Takes in what another has seen; returns how many numbers both had.
    pub fn absorb(&mut self, other: &Self) -> u64 {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        let mut both = 0;
        for (word, bits) in self.words.iter_mut().zip(&other.words) {
            both += u64::from((*word & bits).count_ones());
            *word |= bits;
        }
        both
    }
}

/// Numbers that have to rise, each seen once.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rising {
    /// One more than the largest so far; 0 before the first.
    next: u64,
}

impl Rising {
    /// Takes the next number; true if it comes too late, after a larger one.
    #[inline]
    pub fn is_late(&mut self, number: u64) -> bool {
        if number < self.next {
            return true;
        }
        self.next = number + 1;
        false
    }

    /// Takes the next numbers, which follow on each other; returns how many of them come too late.
    pub fn late_of(&mut self, numbers: Range<u64>) -> u64 {
        let late = self.next.min(numbers.end).saturating_sub(numbers.start);
        self.next = self.next.max(numbers.end);
        late
    }
}

/// The words that a range has bits in, with those bits.
fn words(numbers: &Range<u64>) -> impl Iterator<Item = (usize, u64)> {
    let (mut from, end) = (numbers.start, numbers.end);
    iter::from_fn(move || {
        let until = end.min((from / 64 + 1) * 64);
        let count = until.checked_sub(from).filter(|count| *count > 0)?;
        let (word, bit) = position(from);
        from = until;
        Some((word, (u64::MAX >> (64 - count)) * bit))
    })
}

#[inline]
fn position(number: u64) -> (usize, u64) {
    let word = usize::try_from(number / 64).expect("a number is small enough to be counted in memory");
    (word, 1 << (number % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_seen_once() {
        let mut seen = Seen::default();
        assert!(!seen.mark(3) && !seen.mark(200) && seen.mark(3));
        assert!(seen.has(200) && !seen.has(201) && !seen.has(1 << 40));
        assert_eq!(seen.count(), 2);
        assert!(seen.end() > 200);
        let mut other = Seen::default();
        other.mark(200);
        other.mark(1_000);
        assert_eq!((seen.absorb(&other), seen.count()), (1, 3));
    }

    #[test]
    fn a_range_is_marked_whole_or_not_at_all() {
        for range in [0..1, 5..63, 64..128, 65..130, 131..400, 7..7] {
            let (mut whole, mut single) = (Seen::default(), Seen::default());
            for number in [4, 63, 130] {
                assert_eq!((whole.mark(number), single.mark(number)), (false, false));
            }
            assert!(whole.mark_range(range.clone()), "{range:?}");
            range.clone().for_each(|number| assert!(!single.mark(number)));
            let same = (0..500).all(|number| whole.has(number) == single.has(number));
            assert!(same, "{range:?}");
        }
        let mut seen = Seen::default();
        seen.mark(63);
        for range in [0..64, 63..64, 60..300] {
            assert!(!seen.mark_range(range));
        }
        assert_eq!(seen.count(), 1);
    }

    #[test]
    fn numbers_that_follow_on_each_other_are_late_as_they_are_one_by_one() {
        for range in [0..5, 5..9, 3..12, 7..7, 20..22, 0..30] {
            let (mut whole, mut single) = (Rising { next: 8 }, Rising { next: 8 });
            let late = range.clone().filter(|number| single.is_late(*number)).count() as u64;
            assert_eq!((whole.late_of(range.clone()), whole.next), (late, single.next), "{range:?}");
        }
    }

    #[test]
    fn a_number_after_a_larger_one_is_late() {
        let mut rising = Rising::default();
        assert_eq!([0, 2, 1, 3].map(|number| rising.is_late(number)), [false, false, true, false]);
    }
}
