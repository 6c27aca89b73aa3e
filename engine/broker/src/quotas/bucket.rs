//! A token bucket: a rate, and a second's worth of it at once.
//!
//! It has no clock. What is taken may be more than is there: the debt is paid off before anything else is taken, so that a batch
//! of more than a second's worth is possible, and the rate holds all the same.

use std::time::Duration;

/// How much of a rate is left at a time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bucket {
    /// When the bucket is full again if nothing is taken, since the start.
    full_at: Duration,
}

impl Bucket {
    /// What fits into a bucket.
    const BURST: Duration = Duration::from_secs(1);

    /// How long to wait until something may be taken at this time.
    pub(super) fn wait(&self, now: Duration) -> Duration {
        // Empty is what will be full a whole burst from now; less than that there is something in it.
        (self.full_at + Duration::from_nanos(1)).saturating_sub(now + Self::BURST)
    }

    /// Takes `count` at this time, `rate` a second.
    pub(super) fn take(&mut self, count: u64, rate: u64, now: Duration) {
        let nanos = u128::from(count) * Self::BURST.as_nanos() / u128::from(rate.max(1));
        let took = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.full_at = self.full_at.max(now).saturating_add(took);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_second_s_worth_is_there_at_once_and_more_as_time_passes() {
        let (mut bucket, second) = (Bucket::default(), Duration::from_secs);
        for _ in 0..10 {
            assert_eq!(bucket.wait(second(5)), Duration::ZERO);
            bucket.take(1, 10, second(5));
        }
        assert!(bucket.wait(second(5)) > Duration::ZERO);
        assert!(bucket.wait(second(5)) <= Duration::from_millis(1));
        bucket.take(10, 10, second(5));
        assert!(bucket.wait(second(5)) >= second(1), "the debt comes first");
        assert_eq!(bucket.wait(second(7)), Duration::ZERO);
    }

    proptest! {
        /// Whoever takes what it may as soon as it may gets no more than the rate and one burst, and one batch on top.
        #[test]
        fn the_rate_holds(rate in 1_u64..100_000, counts in proptest::collection::vec(1_u64..1_000, 1..200)) {
            let (mut bucket, mut now, mut taken) = (Bucket::default(), Duration::from_secs(1), 0);
            let began = now;
            for count in &counts {
                now += bucket.wait(now);
                prop_assert_eq!(bucket.wait(now), Duration::ZERO);
                let allowed = rate as f64 * ((now - began).as_secs_f64() + 1.0) + 1.0;
                prop_assert!(taken as f64 <= allowed, "{} taken, {} allowed", taken, allowed);
                bucket.take(*count, rate, now);
                taken += count;
            }
        }
    }
}
