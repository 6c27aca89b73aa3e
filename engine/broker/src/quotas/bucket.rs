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
    /// What it is taken from by, a second; 0: nothing was taken yet.
    rate: u64,
}

/// What fits into a bucket.
const BURST: Duration = Duration::from_secs(1);

/// How long `count` takes at a rate.
fn time_of(count: u64, rate: u64) -> Duration {
    let nanos = u128::from(count) * BURST.as_nanos() / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

impl Bucket {
    /// Goes by this rate from this time on. What is owed stays the same amount, and takes as long as it does at the new rate.
    pub(super) fn set_rate(&mut self, rate: u64, now: Duration) {
        if self.rate != rate && self.rate > 0 && rate > 0 {
            let owed = self.full_at.saturating_sub(now).as_nanos() * u128::from(self.rate) / u128::from(rate);
            self.full_at = now.saturating_add(Duration::from_nanos(u64::try_from(owed).unwrap_or(u64::MAX)));
        }
        self.rate = rate;
    }

    /// How long to wait until something may be taken at this time; without a rate not at all.
    pub(super) fn wait(&self, now: Duration) -> Duration {
        if self.rate == 0 {
            return Duration::ZERO;
        }
        // Empty is what will be full a whole burst from now; less than that there is something in it.
        self.full_at.saturating_add(Duration::from_nanos(1)).saturating_sub(now.saturating_add(BURST))
    }

    /// Takes `count` at this time.
    pub(super) fn take(&mut self, count: u64, now: Duration) {
        if self.rate > 0 {
            self.full_at = self.full_at.max(now).saturating_add(time_of(count, self.rate));
        }
    }

    /// Puts back what was taken for nothing.
    pub(super) fn put_back(&mut self, count: u64) {
        if self.rate > 0 {
            self.full_at = self.full_at.saturating_sub(time_of(count, self.rate));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn at_rate(rate: u64) -> Bucket {
        let mut bucket = Bucket::default();
        bucket.set_rate(rate, Duration::ZERO);
        bucket
    }

    #[test]
    fn a_second_s_worth_is_there_at_once_and_more_as_time_passes() {
        let mut bucket = at_rate(10);
        for _ in 0..10 {
            assert_eq!(bucket.wait(seconds(5)), Duration::ZERO);
            bucket.take(1, seconds(5));
        }
        assert!(bucket.wait(seconds(5)) > Duration::ZERO);
        assert!(bucket.wait(seconds(5)) <= Duration::from_millis(1));
        bucket.take(10, seconds(5));
        assert!(bucket.wait(seconds(5)) >= seconds(1), "the debt comes first");
        assert_eq!(bucket.wait(seconds(7)), Duration::ZERO);
    }

    #[test]
    fn a_debt_is_the_same_amount_at_another_rate() {
        let mut bucket = at_rate(10);
        bucket.take(1_010, seconds(5));
        assert_eq!(bucket.wait(seconds(5)).as_secs(), 100);
        bucket.set_rate(1_000, seconds(5));
        // What was a burst of ten is one of a thousand now.
        assert!(bucket.wait(seconds(5)) < Duration::from_millis(20), "{:?}", bucket.wait(seconds(5)));
        bucket.set_rate(0, seconds(5));
        assert_eq!(bucket.wait(seconds(5)), Duration::ZERO, "a limit that is lifted is lifted");
    }

    #[test]
    fn what_is_put_back_can_be_taken() {
        let mut bucket = at_rate(10);
        bucket.take(100, seconds(5));
        bucket.put_back(100);
        assert_eq!(bucket.wait(seconds(5)), Duration::ZERO);
    }

    proptest! {
        /// Whoever takes what it may as soon as it may gets no more than the rate and one burst, and one batch on top.
        #[test]
        fn the_rate_holds(rate in 1_u64..100_000, counts in proptest::collection::vec(1_u64..1_000, 1..200)) {
            let (mut bucket, mut now, mut taken) = (at_rate(rate), seconds(1), 0);
            let began = now;
            for count in &counts {
                now += bucket.wait(now);
                prop_assert_eq!(bucket.wait(now), Duration::ZERO);
                let allowed = rate as f64 * ((now - began).as_secs_f64() + 1.0) + 1.0;
                prop_assert!(taken as f64 <= allowed, "{} taken, {} allowed", taken, allowed);
                bucket.take(*count, now);
                taken += count;
            }
        }
    }
}
