//! Calls that were refused for who made them: counted, and sampled for the topic `_audit`.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use levada_protocol::error::ErrorCode;

use crate::error::Error;

/// A refusal of the same caller for the same reason is told at most this often.
const INTERVAL: Duration = Duration::from_secs(60);
/// Callers and reasons that are told apart at a time. What comes on top is told together.
const KEPT_MAX: usize = 256;
/// What the refusals on top are told as.
const OTHERS: &str = "other calls";

/// How often who called was the reason of a refusal.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    unauthenticated: AtomicU64,
    denied: AtomicU64,
    sampled: Mutex<HashMap<Sampled, Sample>>,
}

/// Whose refusals, and what the calls required.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Sampled {
    pub(crate) principal: String,
    pub(crate) required: String,
}

#[derive(Debug, Default)]
struct Sample {
    /// When it was told last, since the start; `None`: not yet.
    told: Option<Duration>,
    /// How many there were since.
    since: u64,
}

impl Refusals {
    /// Counts a refusal, whatever it looks like to its caller.
    pub(crate) fn count(&self, error: &Error) {
        let count =
            if error.code() == ErrorCode::Unauthenticated { &self.unauthenticated } else { &self.denied };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts by their reasons.
    pub(crate) fn counts(&self) -> [(&'static str, u64); 2] {
        [("unauthenticated", &self.unauthenticated), ("denied", &self.denied)]
            .map(|(reason, count)| (reason, count.load(Ordering::Relaxed)))
    }

    /// Takes a refusal at this time since the start. If it is to be told, returns as what, and how many it stands for.
    pub(crate) fn sample(&self, mut of: Sampled, now: Duration) -> Option<(Sampled, u64)> {
        let mut sampled = self.sampled.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |sample: &Sample| sample.told.is_some_and(|told| now.saturating_sub(told) < INTERVAL);
        if sampled.len() >= KEPT_MAX && !sampled.contains_key(&of) {
            sampled.retain(|_, sample| is_recent(sample));
            if sampled.len() >= KEPT_MAX {
                of = Sampled { principal: OTHERS.to_owned(), required: OTHERS.to_owned() };
            }
        }
        let sample = sampled.entry(of.clone()).or_default();
        sample.since += 1;
        if is_recent(sample) {
            return None;
        }
        sample.told = Some(now);
        Some((of, std::mem::take(&mut sample.since)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(principal: &str) -> Sampled {
        Sampled { principal: principal.to_owned(), required: "publish topic orders".to_owned() }
    }

    fn times(told: Option<(Sampled, u64)>) -> Option<u64> {
        told.map(|(_, times)| times)
    }

    #[test]
    fn the_first_refusal_is_told_at_once_and_those_of_a_minute_together() {
        let (refusals, at) = (Refusals::default(), Duration::from_secs);
        assert_eq!(refusals.sample(of("shop"), at(5)), Some((of("shop"), 1)));
        assert_eq!(times(refusals.sample(of("stock"), at(5))), Some(1), "each caller on its own");
        for second in 6..65 {
            assert_eq!(refusals.sample(of("shop"), at(second)), None);
        }
        assert_eq!(times(refusals.sample(of("shop"), at(65))), Some(60));
        assert_eq!(refusals.sample(of("shop"), at(66)), None);
    }

    #[test]
    fn however_many_callers_there_are_few_are_kept_and_the_others_are_told_together() {
        let (refusals, now) = (Refusals::default(), Duration::from_secs(1));
        let told = (0..10_000).filter_map(|number| refusals.sample(of(&number.to_string()), now)).count();
        assert_eq!(told, KEPT_MAX + 1);
        let kept = || refusals.sampled.lock().unwrap().len();
        assert_eq!(kept(), KEPT_MAX + 1);
        let later = now + INTERVAL;
        assert_eq!(times(refusals.sample(of("new"), later)), Some(1), "what is old makes room");
        assert_eq!(kept(), 1);
    }
}
