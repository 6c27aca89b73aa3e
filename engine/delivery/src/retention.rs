//! How far a partition's log may be dropped: the decision alone.
//!
//! It must not know where the log is kept, nor delete anything. When to run it, how often, and how to give the space
//! back are the caller's (decision 36).

use levada_protocol::{
    ids::{Offset, Timestamp},
    request::{Retain, TopicSettings},
};

/// A topic's rules for keeping events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// What holds an event besides its age.
    pub retain: Retain,
    /// How long events are kept, in milliseconds.
    pub retain_for_ms: u64,
    /// Stored bytes over which the oldest are dropped, with `time_and_size` alone; 0 means no bound.
    pub bytes_max: u64,
}

impl Rules {
    /// The rules in a topic's settings.
    pub fn new(settings: &TopicSettings) -> Self {
        Self { retain: settings.retain, retain_for_ms: settings.retain_for_ms, bytes_max: settings.max_bytes }
    }
}

/// What one partition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// The first offset that is kept now.
    pub start: Offset,
    /// The durable end: one past the last offset that a crash can no longer take back.
    pub end: Offset,
    /// Bytes from `start` to `end`.
    pub bytes: u64,
}

/// A stretch of the log that can be dropped only as a whole: a stored record, or several of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Its first offset. It ends where the next one begins, the last one at the log's end.
    pub base: Offset,
    /// When the newest of its events was appended.
    pub append_time: Timestamp,
    /// Its bytes.
    pub bytes: u64,
}

/// What may be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trim {
    /// The new first offset; the old one if nothing may be dropped. Never past the durable end.
    pub log_start: Offset,
    /// How many bytes are dropped.
    pub bytes: u64,
}

/// Decides the new first offset (decision 15). `floors` are the oldest unacknowledged offsets of all durable
/// subscriptions and routes, `stored` the log's stretches from its start in order; it is read only as far as needed.
///
/// - `time_and_acked`: an event is dropped when it is older than `retain_for` and acknowledged by all.
/// - `until_acked`: when it is acknowledged by all.
/// - Both, with no subscription and no route: when it is older than `retain_for`, so that a subscription made a
///   little later still finds it.
/// - `compact`: never; see [`crate::compaction`].
/// - `time_and_size`: when it is older than `retain_for`, or while more than `bytes_max` are stored; acknowledged or
///   not.
pub fn trim(
    rules: &Rules,
    now: Timestamp,
    log: Log,
    floors: impl IntoIterator<Item = Offset>,
    stored: impl IntoIterator<Item = Stored>,
) -> Trim {
    let lowest = floors.into_iter().min();
    let (acked_to, age_min) = match (rules.retain, lowest) {
        (Retain::TimeAndAcked, Some(floor)) => (floor, rules.retain_for_ms),
        (Retain::UntilAcked, Some(floor)) => (floor, 0),
        (Retain::Compact, _) => return Trim { log_start: log.start, bytes: 0 },
        (Retain::TimeAndSize, _) | (_, None) => (log.end, rules.retain_for_ms),
    };
    let bytes_max = match rules.retain {
        Retain::TimeAndSize if rules.bytes_max > 0 => rules.bytes_max,
        _ => u64::MAX,
    };
    let mut trim = Trim { log_start: log.start, bytes: 0 };
    let mut stored = stored.into_iter().peekable();
    while let Some(stretch) = stored.next() {
        let end = stored.peek().map_or(log.end, |next| next.base);
        let old = now.0.saturating_sub(stretch.append_time.0) >= age_min;
        let crowded = log.bytes.saturating_sub(trim.bytes) > bytes_max;
        if end > acked_to.min(log.end) || !(old || crowded) {
            break;
        }
        trim.log_start = trim.log_start.max(end);
        trim.bytes += stretch.bytes;
    }
    trim
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// Ten stretches of ten events and 100 bytes, appended at 0, 10, 20 .. 90 ms.
    fn stretches() -> Vec<Stored> {
        let stretch = |at: u64| Stored { base: Offset(at * 10), append_time: Timestamp(at * 10), bytes: 100 };
        (0..10).map(stretch).collect()
    }

    const LOG: Log = Log { start: Offset(0), end: Offset(100), bytes: 1000 };

    fn start(retain: Retain, retain_for_ms: u64, bytes_max: u64, now: u64, floors: &[u64]) -> u64 {
        let rules = Rules { retain, retain_for_ms, bytes_max };
        let floors = floors.iter().map(|floor| Offset(*floor));
        trim(&rules, Timestamp(now), LOG, floors, stretches()).log_start.0
    }

    #[test]
    fn time_and_acked_waits_for_age_and_for_the_slowest() {
        use Retain::TimeAndAcked;
        assert_eq!(start(TimeAndAcked, 50, 0, 100, &[100]), 60);
        assert_eq!(start(TimeAndAcked, 50, 0, 100, &[100, 34]), 30);
        assert_eq!(start(TimeAndAcked, 50, 1, 100, &[34]), 30, "bytes do not drop what is not acknowledged");
        assert_eq!(start(TimeAndAcked, 50, 0, 1_000_000, &[0]), 0);
        assert_eq!(start(TimeAndAcked, 50, 0, 49, &[100]), 0);
    }

    #[test]
    fn until_acked_follows_the_slowest_alone() {
        assert_eq!(start(Retain::UntilAcked, 1_000_000, 0, 100, &[70, 45]), 40);
        assert_eq!(start(Retain::UntilAcked, 1_000_000, 0, 100, &[100]), 100);
    }

    #[test]
    fn without_subscriptions_time_alone_decides() {
        assert_eq!(start(Retain::TimeAndAcked, 50, 0, 100, &[]), 60);
        assert_eq!(start(Retain::UntilAcked, 50, 0, 100, &[]), 60);
        assert_eq!(start(Retain::UntilAcked, 500, 0, 100, &[]), 0);
    }

    #[test]
    fn time_and_size_drops_what_nobody_acknowledged() {
        use Retain::TimeAndSize;
        assert_eq!(start(TimeAndSize, 50, 0, 100, &[0]), 60);
        assert_eq!(start(TimeAndSize, 1_000, 300, 100, &[0]), 70);
        assert_eq!(start(TimeAndSize, 1_000, 1_000, 100, &[0]), 0);
        assert_eq!(start(TimeAndSize, 1_000, 999, 100, &[0]), 10);
    }

    #[test]
    fn a_compacted_topic_is_never_dropped_from_the_front() {
        assert_eq!(start(Retain::Compact, 0, 1, 1_000_000, &[100]), 0);
        assert_eq!(start(Retain::Compact, 0, 1, 1_000_000, &[]), 0);
    }

    #[test]
    fn what_is_not_durable_stays() {
        let rules = Rules { retain: Retain::TimeAndSize, retain_for_ms: 0, bytes_max: 0 };
        let log = Log { end: Offset(95), ..LOG };
        let trimmed = trim(&rules, Timestamp(1_000), log, [], stretches());
        assert_eq!(trimmed, Trim { log_start: Offset(95), bytes: 1000 });
        let log = Log { end: Offset(85), ..LOG };
        assert_eq!(trim(&rules, Timestamp(1_000), log, [], stretches()).log_start, Offset(80));
    }

    proptest! {
        #[test]
        fn nothing_unacknowledged_or_young_goes_by_default(
            now in 0u64..200, keep in 0u64..150, floors in vec(0u64..=100, 1..4),
        ) {
            let start = start(Retain::TimeAndAcked, keep, 0, now, &floors);
            let lowest = floors.iter().copied().min().unwrap();
            prop_assert!(start <= lowest);
            for stretch in stretches() {
                let may_go = stretch.base.0 + 10 <= lowest && now.saturating_sub(stretch.append_time.0) >= keep;
                prop_assert_eq!(stretch.base.0 < start, may_go);
            }
        }
    }
}
