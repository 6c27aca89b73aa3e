//! How many events may be delivered by now, at so many a second: a token bucket.
//!
//! Time is an argument, in milliseconds on the monotonic clock.

/// A pace, and what of it is saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pace {
    per_second: u64,
    /// Thousandths of an event: a millisecond brings `per_second` of them.
    saved: u64,
    at: u64,
}

/// The share of a second that may be saved, so that a consumer that was away is not flooded.
const BURSTS_PER_SECOND: u64 = 10;
/// The share of a second that has to be saved before anything is delivered, so that a high rate does not wake anybody for
/// each event.
const STEPS_PER_SECOND: u64 = 100;
const PER_EVENT: u64 = 1_000;

impl Pace {
    /// Begins with nothing saved.
    pub(crate) fn new(per_second: u64, now: u64) -> Self {
        Self { per_second: per_second.max(1), saved: 0, at: now }
    }

    pub(crate) fn per_second(&self) -> u64 {
        self.per_second
    }

    /// Most events that are delivered at once.
    pub(crate) fn burst(&self) -> u64 {
        (self.per_second / BURSTS_PER_SECOND).max(1)
    }

    fn step(&self) -> u64 {
        (self.per_second / STEPS_PER_SECOND).max(1)
    }

    /// How many events may be delivered now: none until it is worth a delivery.
    pub(crate) fn available(&mut self, now: u64) -> u64 {
        let elapsed = now.saturating_sub(self.at);
        self.at = self.at.max(now);
        let saved = self.saved.saturating_add(elapsed.saturating_mul(self.per_second));
        // A part of an event is kept as well, so that whoever comes a moment late loses nothing.
        self.saved = saved.min(self.burst().saturating_mul(PER_EVENT) + PER_EVENT - 1);
        let events = self.saved / PER_EVENT;
        if events < self.step() { 0 } else { events }
    }

    /// Takes events that were delivered; they were available.
    pub(crate) fn take(&mut self, events: u64) {
        self.saved = self.saved.saturating_sub(events.saturating_mul(PER_EVENT));
    }

    /// When something is available, if nothing is now.
    pub(crate) fn ready_at(&self) -> u64 {
        let missing = self.step().saturating_mul(PER_EVENT).saturating_sub(self.saved);
        self.at.saturating_add(missing.div_ceil(self.per_second))
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        /// Over any stretch of time no more is delivered than the rate allows and one burst, and whoever waits until it is
        /// ready loses nothing of the rate.
        #[test]
        fn no_stretch_of_time_gets_more_than_its_rate_and_one_burst(
            per_second in 1u64..50_000,
            waits in vec(0u64..40, 1..200),
        ) {
            let mut pace = Pace::new(per_second, 0);
            let (mut now, mut given) = (0, vec![(0, 0)]);
            for wait in waits {
                now += wait;
                let events = pace.available(now);
                prop_assert!(events <= pace.burst());
                pace.take(events);
                given.push((now, events));
            }
            for from in 0..given.len() {
                let all: u64 = given[from..].iter().map(|(_, events)| events).sum();
                let allowed = (now - given[from].0) * per_second / 1_000 + pace.burst() + 1;
                prop_assert!(all <= allowed, "{all} in {} ms, {allowed} are allowed", now - given[from].0);
            }
        }

        #[test]
        fn whoever_waits_until_it_is_ready_gets_the_whole_rate(per_second in 1u64..1_000_000) {
            let mut pace = Pace::new(per_second, 7);
            let (mut now, mut all) = (7, 0);
            while now < 20_007 {
                let ready = pace.ready_at();
                prop_assert!(ready > now, "nothing is available, and it is not ready either");
                now = ready;
                let events = pace.available(now);
                prop_assert!(events > 0, "it is ready, and nothing is available");
                pace.take(events);
                all += events;
            }
            let due = (now - 7) * per_second / 1_000;
            prop_assert!(all <= due && all + per_second / STEPS_PER_SECOND + 1 >= due, "{all} of {due}");
        }
    }

    #[test]
    fn what_was_not_used_is_lost_but_for_a_burst() {
        let mut pace = Pace::new(1_000, 0);
        assert_eq!(pace.available(3_600_000), 100);
        pace.take(100);
        assert_eq!((pace.available(3_600_000), pace.ready_at()), (0, 3_600_010));
        assert_eq!(pace.available(3_600_009), 0);
        assert_eq!(pace.available(3_600_010), 10);
        // A clock that stands still or goes back brings nothing.
        pace.take(10);
        assert_eq!(pace.available(0), 0);
    }
}
