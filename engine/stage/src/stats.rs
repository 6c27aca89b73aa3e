//! What attachments have cost.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// The last error of an attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastError {
    /// When it happened.
    pub at: Instant,
    /// A sentence for people.
    pub text: Arc<str>,
}

/// What an attachment, or several together, have cost. Counters start at 0 with the attachment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StageStats {
    /// Calls that ended.
    pub calls: u64,
    /// Events that were handed over in them.
    pub events: u64,
    /// Calls that failed, and events whose verdict was not valid.
    pub errors: u64,
    /// The newest of these errors.
    pub last_error: Option<LastError>,
    /// Instances that were made after the first.
    pub restarts: u64,
    /// Those of them that were made because earlier calls had left no memory for the next one, which was then
    /// repeated. They are not errors.
    pub memory_restarts: u64,
    /// Processor time of all calls, including those that still run; neither waiting nor making instances is included.
    pub busy: Duration,
    /// The largest memory in bytes that an instance has had after a call.
    pub memory_bytes_peak: u64,
}

impl StageStats {
    /// Adds what another attachment has cost.
    pub fn add(&mut self, more: &Self) {
        self.calls += more.calls;
        self.events += more.events;
        self.errors += more.errors;
        let at = |error: &Option<LastError>| error.as_ref().map(|error| error.at);
        if at(&more.last_error) > at(&self.last_error) {
            self.last_error.clone_from(&more.last_error);
        }
        self.restarts += more.restarts;
        self.memory_restarts += more.memory_restarts;
        self.busy += more.busy;
        self.memory_bytes_peak = self.memory_bytes_peak.max(more.memory_bytes_peak);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_is_the_newest_of_all_whatever_the_order() {
        let now = Instant::now();
        let failed = |text: &str, at| {
            let last_error = Some(LastError { at, text: text.into() });
            StageStats { errors: 1, last_error, ..StageStats::default() }
        };
        let (old, new) = (failed("old", now), failed("new", now + Duration::from_nanos(1)));
        for order in [[&old, &new, &StageStats::default()], [&new, &StageStats::default(), &old]] {
            let mut sum = StageStats::default();
            order.into_iter().for_each(|stats| sum.add(stats));
            assert_eq!((sum.errors, sum.last_error.map(|error| error.text)), (2, Some("new".into())));
        }
    }

    #[test]
    fn counters_add_up_and_the_peak_is_the_largest() {
        let one = StageStats {
            calls: 1,
            events: 10,
            errors: 2,
            last_error: None,
            restarts: 4,
            memory_restarts: 3,
            busy: Duration::from_millis(5),
            memory_bytes_peak: 100,
        };
        let mut sum = StageStats { memory_bytes_peak: 70, ..one.clone() };
        sum.add(&one);
        let expected = StageStats {
            calls: 2,
            events: 20,
            errors: 4,
            last_error: None,
            restarts: 8,
            memory_restarts: 6,
            busy: Duration::from_millis(10),
            memory_bytes_peak: 100,
        };
        assert_eq!(sum, expected);
    }
}
