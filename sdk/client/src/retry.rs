//! How long to wait before trying again.

use std::time::Duration;

use crate::clock;

/// Waiting times that double from the first to the last, each shortened at random by up to a half so that
/// many clients do not come back at once.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    last: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, last: Duration) -> Self {
        Self { first, last, next: first }
    }

    /// The next waiting time.
    pub(crate) fn next(&mut self) -> Duration {
        let full = self.next;
        self.next = (full * 2).min(self.last);
        full - full * clock::random_below(1_000) / 2_000
    }

    /// Something worked: begin with the first again.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_times_double_up_to_the_last_and_begin_again() {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(50));
        for full in [10, 20, 40, 50, 50] {
            let wait = backoff.next();
            assert!(wait >= Duration::from_millis(full) / 2 && wait <= Duration::from_millis(full));
        }
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(10));
    }
}
