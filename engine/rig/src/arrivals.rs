//! What has arrived of numbered events: which, and whether in order. The accounts of the demo and of the bench are made
//! of it; what the numbers mean is theirs.

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
    fn a_number_after_a_larger_one_is_late() {
        let mut rising = Rising::default();
        assert_eq!([0, 2, 1, 3].map(|number| rising.is_late(number)), [false, false, true, false]);
    }
}
