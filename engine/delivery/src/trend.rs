//! How fast a backlog grows and shrinks: counts at moments of the last minute.

use std::collections::VecDeque;

/// How often a moment should be noted.
pub const INTERVAL_MS: u64 = 5_000;
/// How far back the rates look.
const WINDOW_MS: u64 = 60_000;
/// Rates over less than this say nothing.
const LEAST_MS: u64 = 1_000;

/// Counts at one moment, on the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// When, in milliseconds.
    pub at_ms: u64,
    /// Events appended since the topic was created.
    pub appended: u64,
    /// Events that have come to their end, or need none.
    pub settled: u64,
    /// Those among them that were lost, which is no progress.
    pub lost: u64,
}

/// Rates between two moments.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rates {
    /// Events appended in a second.
    pub arriving: f64,
    /// Events that came to their end in a second.
    pub settling: f64,
}

/// The moments of the last minute.
#[derive(Debug, Default)]
pub struct Trend {
    moments: VecDeque<Moment>,
}

impl Trend {
    /// Notes a moment, and forgets those that are too old.
    pub fn note(&mut self, moment: Moment) {
        self.moments.push_back(moment);
        while self.moments.front().is_some_and(|first| first.at_ms.saturating_add(WINDOW_MS) < moment.at_ms) {
            self.moments.pop_front();
        }
    }

    /// The rates until `now`, over the last minute or since the first moment; zero before there is enough of it.
    pub fn rates(&self, now: Moment) -> Rates {
        let Some(first) = self.moments.front() else { return Rates::default() };
        let elapsed_ms = now.at_ms.saturating_sub(first.at_ms);
        if elapsed_ms < LEAST_MS {
            return Rates::default();
        }
        let per_second = |events: u64| as_f64(events) * 1_000.0 / as_f64(elapsed_ms);
        Rates {
            arriving: per_second(now.appended.saturating_sub(first.appended)),
            settling: per_second(
                now.settled.saturating_sub(first.settled).saturating_sub(now.lost.saturating_sub(first.lost)),
            ),
        }
    }
}

impl Rates {
    /// Milliseconds until a backlog is gone, if both rates stay as they are; `None` if it does not shrink, or if no consumer is
    /// left who could go on.
    pub fn clears_in_ms(&self, backlog: u64, has_consumers: bool) -> Option<u64> {
        let shrinks = self.settling - self.arriving;
        if backlog == 0 || shrinks <= 0.0 || !has_consumers {
            return (backlog == 0).then_some(0);
        }
        let wait = as_f64(backlog) * 1_000.0 / shrinks;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is positive, and saturates"
        )]
        Some(wait.ceil() as u64)
    }
}

#[expect(clippy::cast_precision_loss, reason = "rates are approximate")]
fn as_f64(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(at_ms: u64, appended: u64, settled: u64) -> Moment {
        Moment { at_ms, appended, settled, lost: 0 }
    }

    #[test]
    fn rates_are_of_the_last_minute_and_tell_when_a_backlog_is_gone() {
        let mut trend = Trend::default();
        assert_eq!(trend.rates(moment(0, 5, 0)), Rates::default(), "there is nothing to compare with");
        // Ten a second for a minute, then only what is settled counts.
        for second in 0..120 {
            let appended = 10 * second.min(60);
            trend.note(moment(second * 1_000, appended, 3 * second));
        }
        let rates = trend.rates(moment(120_000, 600, 360));
        assert!(rates.arriving < 0.2 && (rates.settling - 3.0).abs() < 0.1, "{rates:?}");
        let clears = rates.clears_in_ms(240, true).unwrap();
        assert!((78_000..90_000).contains(&clears), "{clears}");
    }

    #[test]
    fn a_backlog_that_does_not_shrink_is_never_gone() {
        let rates = |arriving, settling| Rates { arriving, settling };
        assert_eq!(rates(3.0, 3.0).clears_in_ms(5, true), None);
        assert_eq!(rates(0.0, 0.0).clears_in_ms(5, true), None);
        assert_eq!(rates(5.0, 3.0).clears_in_ms(0, true), Some(0));
        assert_eq!(rates(0.0, 1e-300).clears_in_ms(u64::MAX, true), Some(u64::MAX));
    }

    #[test]
    fn what_was_lost_is_no_progress_and_nobody_goes_on_without_consumers() {
        let mut trend = Trend::default();
        trend.note(Moment { lost: 7, ..moment(0, 1_000, 100) });
        let rates = trend.rates(Moment { lost: 507, ..moment(10_000, 1_000, 700) });
        assert!((rates.settling - 10.0).abs() < 1e-9, "{rates:?}");
        assert_eq!(rates.clears_in_ms(100, true), Some(10_000));
        assert_eq!(rates.clears_in_ms(100, false), None);
        assert_eq!(rates.clears_in_ms(0, false), Some(0));
    }

    #[test]
    fn a_moment_ago_says_nothing_and_counts_that_go_back_are_no_rate() {
        let mut trend = Trend::default();
        trend.note(moment(10, 5, 5));
        assert_eq!(trend.rates(moment(900, 500, 500)), Rates::default());
        assert_eq!(trend.rates(moment(5_010, 5, 0)), Rates::default());
    }
}
