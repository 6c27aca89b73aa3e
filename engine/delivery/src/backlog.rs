//! Whether a topic's backlog has room: the decision alone.
//!
//! It must not know who has how much to acknowledge, nor how that is found out.

use levada_protocol::{
    ids::Timestamp,
    request::{OnFull, TopicSettings},
};

/// A topic's limits of its backlog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Unacknowledged events.
    pub events_max: u64,
    /// Stored bytes of batches.
    pub bytes_max: u64,
    /// The age of the oldest unacknowledged event, in milliseconds; `None` if it may have any.
    pub age_max_ms: Option<u64>,
    /// What becomes of a publish beyond a limit.
    pub on_full: OnFull,
}

/// What is to be added to a backlog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Charge {
    /// Events.
    pub events: u64,
    /// Bytes of batches.
    pub bytes: u64,
}

impl Charge {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { events: self.events + other.events, bytes: self.bytes + other.bytes }
    }

    /// What is left of it without the other, 0 at least.
    #[must_use]
    pub fn less(self, other: Self) -> Self {
        Self {
            events: self.events.saturating_sub(other.events),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

/// A limit that a backlog has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// So many events, of at most so many.
    Events {
        /// What the backlog has.
        has: u64,
        /// What it may have.
        max: u64,
    },
    /// So many bytes, of at most so many.
    Bytes {
        /// What the backlog has.
        has: u64,
        /// What it may have.
        max: u64,
    },
    /// An oldest event of such an age, in milliseconds.
    Age {
        /// Its age.
        has_ms: u64,
        /// What it may be.
        max_ms: u64,
    },
}

impl Quota {
    /// The quota in a topic's settings; `None` without any limit.
    pub fn new(settings: &TopicSettings) -> Option<Self> {
        let limit = |limit| if limit == 0 { u64::MAX } else { limit };
        settings.has_backlog_quota().then_some(Self {
            events_max: limit(settings.backlog_max_events),
            bytes_max: limit(settings.backlog_max_bytes),
            age_max_ms: Some(settings.backlog_max_age_ms).filter(|age| *age > 0),
            on_full: settings.on_full,
        })
    }

    /// Whether `has` and `more` together are within the limits. An empty backlog takes any charge: one that is
    /// larger than the quota would wait for ever otherwise.
    ///
    /// # Errors
    /// The limit that they would exceed.
    pub fn check(&self, has: Charge, more: Charge) -> Result<(), Reached> {
        if has.events > 0 && has.events.saturating_add(more.events) > self.events_max {
            return Err(Reached::Events { has: has.events, max: self.events_max });
        }
        if has.bytes > 0 && has.bytes.saturating_add(more.bytes) > self.bytes_max {
            return Err(Reached::Bytes { has: has.bytes, max: self.bytes_max });
        }
        Ok(())
    }

    /// Whether the oldest unacknowledged event, appended at `oldest`, is not older than it may be.
    ///
    /// # Errors
    /// The limit, if it is.
    pub fn check_age(&self, oldest: Timestamp, now: Timestamp) -> Result<(), Reached> {
        let has_ms = now.0.saturating_sub(oldest.0);
        match self.age_max_ms {
            Some(max_ms) if has_ms > max_ms => Err(Reached::Age { has_ms, max_ms }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(events: u64, bytes: u64, age: u64) -> Quota {
        let settings = TopicSettings {
            backlog_max_events: events,
            backlog_max_bytes: bytes,
            backlog_max_age_ms: age,
            ..TopicSettings::default()
        };
        Quota::new(&settings).unwrap()
    }

    fn charge(events: u64, bytes: u64) -> Charge {
        Charge { events, bytes }
    }

    #[test]
    fn the_last_event_that_fits_is_the_one_that_makes_the_limit() {
        let quota = quota(10, 0, 0);
        assert_eq!(quota.check(charge(8, 1 << 40), charge(2, 1 << 40)), Ok(()));
        assert_eq!(quota.check(charge(8, 1), charge(3, 1)), Err(Reached::Events { has: 8, max: 10 }));
    }

    #[test]
    fn the_last_byte_that_fits_is_the_one_that_makes_the_limit() {
        let quota = quota(0, 100, 0);
        assert_eq!(quota.check(charge(1 << 40, 60), charge(1 << 40, 40)), Ok(()));
        assert_eq!(quota.check(charge(1, 60), charge(1, 41)), Err(Reached::Bytes { has: 60, max: 100 }));
    }

    #[test]
    fn an_empty_backlog_takes_what_is_larger_than_the_quota() {
        let quota = quota(10, 100, 0);
        assert_eq!(quota.check(charge(0, 0), charge(11, 101)), Ok(()));
        assert!(quota.check(charge(1, 1), charge(10, 1)).is_err());
    }

    #[test]
    fn an_event_may_be_as_old_as_the_limit_and_no_older() {
        let quota = quota(0, 0, 5);
        assert_eq!(quota.check_age(Timestamp(10), Timestamp(15)), Ok(()));
        let reached = Reached::Age { has_ms: 6, max_ms: 5 };
        assert_eq!(quota.check_age(Timestamp(10), Timestamp(16)), Err(reached));
        assert_eq!(quota.check_age(Timestamp(17), Timestamp(16)), Ok(()), "the clock went back");
    }

    #[test]
    fn without_limits_there_is_no_quota() {
        let settings = TopicSettings { on_full: OnFull::DropOldest, ..TopicSettings::default() };
        assert_eq!(Quota::new(&settings), None);
    }
}
