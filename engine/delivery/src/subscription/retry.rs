//! What becomes of an event whose delivery failed: another attempt, now or later, or a dead letter.
//!
//! It must not know where the event is.

use super::{dead_letter::Reason, options::Options};
use crate::{
    backoff::Backoff,
    now::Now,
    progress::{History, RETURNS_MAX},
    rng::Rng,
};

/// Why a delivery ended without success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The consumer gave it back, perhaps for a time of its choice.
    Nack { delay_ms: Option<u32> },
    /// The consumer did not respond in time.
    Timeout,
    /// The consumer's connection ended.
    ConsumerLost,
    /// The consumer's stream had not even taken the delivery: that says nothing of the event.
    Untaken,
}

/// What happens next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Another attempt at this time on the monotonic clock; the history to store, unless it stays as it was.
    Attempt { due: u64, history: Option<History> },
    /// No further attempt.
    GiveUp(Reason),
}

/// The rules of a subscription.
#[derive(Debug)]
pub(super) struct RetryPolicy {
    max_attempts: u16,
    backoff: Backoff,
    rng: Rng,
}

impl RetryPolicy {
    pub(super) fn new(options: &Options) -> Self {
        let rng = Rng::new(options.seed);
        Self { max_attempts: options.max_attempts, backoff: options.backoff.clone(), rng }
    }

    /// Applies other options from now on.
    pub(super) fn set(&mut self, options: &Options) {
        self.max_attempts = options.max_attempts;
        self.backoff = options.backoff.clone();
    }

    /// Decides about events of equal history.
    pub(super) fn decide(&mut self, now: Now, history: History, cause: Cause) -> Next {
        let counts = match cause {
            Cause::Nack { .. } | Cause::Timeout => true,
            Cause::ConsumerLost => history.is_alone(),
            Cause::Untaken => return Next::Attempt { due: now.mono_ms, history: None },
        };
        let attempts = history.attempts.saturating_add(u16::from(counts));
        if counts && attempts >= self.max_attempts {
            let lost = cause == Cause::ConsumerLost;
            return Next::GiveUp(if lost { Reason::ConsumerLost } else { Reason::MaxAttempts });
        }
        let wait = match cause {
            Cause::Nack { delay_ms: Some(delay) } => u64::from(delay),
            // The timeout was the wait.
            Cause::Timeout => 0,
            _ if counts => self.backoff.delay_ms(attempts, self.rng.next()),
            _ => 0,
        };
        let returned = if cause == Cause::ConsumerLost { (history.returned + 1).min(RETURNS_MAX) } else { 0 };
        let not_before_ms = if wait == 0 { 0 } else { now.wall.0.saturating_add(wait) };
        let failed = History { attempts, returned, not_before_ms, ..history };
        let failed = match (counts, history.attempts) {
            (true, 0) => History { first_failure_ms: now.wall.0, last_failure_ms: now.wall.0, ..failed },
            (true, _) => History { last_failure_ms: now.wall.0, ..failed },
            (false, _) => failed,
        };
        Next::Attempt { due: now.after(wait), history: Some(failed) }
    }
}

#[cfg(test)]
mod tests {
    use levada_protocol::{ids::Timestamp, request::SubscriptionOptions};

    use super::{super::options::Bounds, *};

    fn policy() -> RetryPolicy {
        let options = Options::new(&SubscriptionOptions::default(), Bounds::default(), 1);
        RetryPolicy::new(&Options { max_attempts: 2, backoff: Backoff::new(vec![1_000]), ..options })
    }

    fn now() -> Now {
        Now { mono_ms: 50, wall: Timestamp(7_000) }
    }

    #[test]
    fn a_nack_waits_as_it_says_or_for_the_backoff_and_the_last_attempt_is_a_dead_letter() {
        let mut policy = policy();
        let Next::Attempt { due, history } =
            policy.decide(now(), History::default(), Cause::Nack { delay_ms: Some(300) })
        else {
            panic!("one attempt is left")
        };
        let once = history.unwrap();
        assert_eq!((due, once.attempts, once.not_before_ms), (350, 1, 7_300));
        assert_eq!((once.first_failure_ms, once.last_failure_ms), (7_000, 7_000));
        let last = policy.decide(now(), once, Cause::Timeout);
        assert_eq!(last, Next::GiveUp(Reason::MaxAttempts));
        let backed_off = policy.decide(now(), History::default(), Cause::Nack { delay_ms: None });
        assert!(matches!(backed_off, Next::Attempt { due: 950..=1_150, .. }), "{backed_off:?}");
    }

    #[test]
    fn a_lost_consumer_counts_an_attempt_only_for_an_event_that_was_alone() {
        let mut policy = policy();
        let mut history = History::default();
        for returned in 1..=RETURNS_MAX {
            let next = policy.decide(now(), history, Cause::ConsumerLost);
            let Next::Attempt { due: 50, history: Some(after) } = next else { panic!("{next:?}") };
            history = after;
            assert_eq!((history.attempts, history.returned), (0, returned));
        }
        let next = policy.decide(now(), history, Cause::ConsumerLost);
        let Next::Attempt { history: Some(counted), .. } = next else { panic!("{next:?}") };
        assert_eq!(counted.attempts, 1);
        assert_eq!(policy.decide(now(), counted, Cause::ConsumerLost), Next::GiveUp(Reason::ConsumerLost));
    }

    #[test]
    fn what_a_stream_never_took_has_no_history() {
        let next = policy().decide(now(), History::default(), Cause::Untaken);
        assert_eq!(next, Next::Attempt { due: 50, history: None });
    }
}
