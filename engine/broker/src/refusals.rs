//! Calls that were refused for who made them: counted, and sampled for the topic `_audit`.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use levada_protocol::error::ErrorCode;

use crate::error::Error;

/// A refusal of the same caller for the same reason is told at most this often.
pub(crate) const INTERVAL: Duration = Duration::from_secs(60);
/// Reasons of one caller that are told apart at a time. What comes on top is told together.
const REASONS_MAX: usize = 8;
/// Callers and reasons that are told at a time; what comes on top is counted alone.
const KEPT_MAX: usize = 4_096;
/// What the reasons on top are told as.
const OTHERS: &str = "other calls";

/// How often who called was the reason of a refusal.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    unauthenticated: AtomicU64,
    denied: AtomicU64,
    /// How many there were since the last was told, of those that are told.
    sampled: Mutex<BTreeMap<Sampled, u64>>,
}

/// Whose refusals, and what the calls required.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sampled {
    pub(crate) principal: String,
    pub(crate) required: String,
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

    /// Takes a refusal. If it is the first of its kind, returns as what it is told now; whoever tells it asks [`Self::since`] for those
    /// that follow, once an interval.
    pub(crate) fn sample(&self, mut of: Sampled) -> Option<Sampled> {
        let mut sampled = self.sampled.lock().unwrap_or_else(PoisonError::into_inner);
        if !sampled.contains_key(&of) {
            let first = Sampled { required: String::new(), ..of.clone() };
            let of_caller = sampled.range(first..).take_while(|(other, _)| other.principal == of.principal);
            if of_caller.count() >= REASONS_MAX {
                OTHERS.clone_into(&mut of.required);
            }
        }
        if let Some(since) = sampled.get_mut(&of) {
            *since += 1;
            return None;
        }
        if sampled.len() >= KEPT_MAX {
            return None;
        }
        sampled.insert(of.clone(), 0);
        Some(of)
    }

    /// How many refusals of a kind there were since this was asked last; after an interval without any it is forgotten.
    pub(crate) fn since(&self, of: &Sampled) -> Option<u64> {
        let mut sampled = self.sampled.lock().unwrap_or_else(PoisonError::into_inner);
        let since = std::mem::take(sampled.get_mut(of)?);
        if since == 0 {
            sampled.remove(of);
        }
        (since > 0).then_some(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(principal: &str, required: &str) -> Sampled {
        Sampled { principal: principal.to_owned(), required: required.to_owned() }
    }

    #[test]
    fn the_first_refusal_is_told_at_once_and_those_of_an_interval_together() {
        let refusals = Refusals::default();
        let (shop, stock) = (of("shop", "read a"), of("stock", "read a"));
        assert_eq!(refusals.sample(shop.clone()), Some(shop.clone()));
        assert_eq!(refusals.sample(stock.clone()), Some(stock), "each caller on its own");
        (0..60).for_each(|_| assert_eq!(refusals.sample(shop.clone()), None));
        assert_eq!(refusals.since(&shop), Some(60));
        assert_eq!(refusals.since(&shop), None);
        assert_eq!(
            refusals.sample(shop.clone()),
            Some(shop),
            "after a quiet interval the next is the first again"
        );
    }

    #[test]
    fn whoever_is_refused_many_things_hides_no_other_s_refusals() {
        let refusals = Refusals::default();
        let told = (0..10_000).filter_map(|number| refusals.sample(of("noisy", &format!("read {number}"))));
        let told: Vec<Sampled> = told.collect();
        assert_eq!(told.len(), REASONS_MAX + 1);
        assert_eq!(told.last(), Some(&of("noisy", OTHERS)));
        assert_eq!(refusals.since(&of("noisy", OTHERS)), Some(10_000 - REASONS_MAX as u64 - 1));
        assert!(refusals.sample(of("quiet", "read a")).is_some());
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let refusals = Refusals::default();
        let told = (0..10_000).filter(|number| refusals.sample(of(&number.to_string(), "read a")).is_some());
        assert_eq!(told.count(), KEPT_MAX);
    }
}
