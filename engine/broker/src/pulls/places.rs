//! Which pulls there are, how many there may be, and the way to the keeper of each.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use levada_protocol::{
    error::{ErrorCode, Refusal},
    ids::SubscriptionId,
    verbs::{Verb, VerbKind},
};
use tokio::sync::{mpsc, oneshot};

use super::event::{PullId, PulledEvent};
use crate::{access::Principal, error::Error};

/// Most pulls that may wait for events or be kept: over the engine, of one principal, and of one subscription, which has room
/// for as many other consumers.
const PULLS_MAX: usize = 4_096;
const OF_PRINCIPAL_MAX: usize = 1_024;
const OF_SUBSCRIPTION_MAX: usize = 512;
/// Requests to settle events of one pull that may wait for its keeper; others wait to get there.
const ASKS_QUEUED_MAX: usize = 16;
/// When a caller that is refused one pull too many may try again, in milliseconds.
const RETRY_AFTER_MS: u32 = 1_000;

/// What became of each event of a request, or why nothing became of it.
pub(crate) type Outcomes = HashMap<PulledEvent, ErrorCode>;

/// All pulls.
#[derive(Debug)]
pub(crate) struct Pulls {
    entries: Mutex<HashMap<PullId, Entry>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    principal: Box<str>,
    subscription: SubscriptionId,
    /// The way to its keeper, once it has one.
    asks: Option<mpsc::Sender<Ask>>,
}

/// A request to settle events of one pull.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) events: Vec<PulledEvent>,
    pub(super) kind: VerbKind,
    /// Gets those of the events that were refused.
    pub(super) reply: oneshot::Sender<Outcomes>,
}

/// A place among the pulls, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    pulls: Arc<Pulls>,
    id: PullId,
}

impl Ask {
    /// Its events as verbs, one for each: whoever asks is told of each.
    pub(super) fn verbs(&self) -> Vec<Verb> {
        let verb = |event: &PulledEvent| Verb {
            kind: self.kind.clone(),
            partition: event.partition,
            token: event.delivery,
            first: event.offset,
            last: event.offset,
        };
        self.events.iter().map(verb).collect()
    }

    /// Replies that all of it was refused.
    pub(super) fn refuse(self, code: ErrorCode) {
        let refused = self.events.iter().map(|event| (*event, code)).collect();
        // Whoever asked may have gone.
        let _ = self.reply.send(refused);
    }
}

impl Place {
    /// The pull's id.
    pub(crate) fn id(&self) -> PullId {
        self.id
    }

    /// The pull is kept from now on; what its keeper is asked comes here.
    pub(super) fn keep(&self) -> mpsc::Receiver<Ask> {
        let (asks, asked) = mpsc::channel(ASKS_QUEUED_MAX);
        if let Some(entry) = self.pulls.lock().get_mut(&self.id) {
            entry.asks = Some(asks);
        }
        asked
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pulls.lock().remove(&self.id);
    }
}

impl Pulls {
    /// No pulls yet; they are numbered from `first`, a number that no other start is likely to use.
    pub(crate) fn new(first: u64) -> Arc<Self> {
        Arc::new(Self { entries: Mutex::default(), next: AtomicU64::new(first) })
    }

    /// Counts a pull.
    ///
    /// # Errors
    /// `LIMIT_EXCEEDED`: there are as many as there may be.
    pub(crate) fn enter(
        self: &Arc<Self>,
        subscription: SubscriptionId,
        principal: &Principal,
    ) -> Result<Place, Error> {
        let mut entries = self.lock();
        let of = |matches: fn(&Entry, SubscriptionId, &str) -> bool| {
            entries.values().filter(|entry| matches(entry, subscription, principal.as_str())).count()
        };
        let of_subscription = of(|entry, subscription, _| entry.subscription == subscription);
        let of_principal = of(|entry, _, principal| *entry.principal == *principal);
        let full = match () {
            () if of_subscription >= OF_SUBSCRIPTION_MAX => {
                Some(format!("expected at most {OF_SUBSCRIPTION_MAX} pulls of a subscription"))
            }
            () if of_principal >= OF_PRINCIPAL_MAX => {
                Some(format!("expected at most {OF_PRINCIPAL_MAX} pulls of a principal"))
            }
            () if entries.len() >= PULLS_MAX => Some(format!("expected at most {PULLS_MAX} pulls")),
            () => None,
        };
        if let Some(expected) = full {
            let message = format!(
                "{expected} that wait or of which events are in flight, got one more: settle what was pulled, or pull more events \
                 in a request"
            );
            let refusal = Refusal::new(ErrorCode::LimitExceeded, message).retry_after(RETRY_AFTER_MS);
            return Err(refusal.into());
        }
        let id = PullId(self.next.fetch_add(1, Ordering::Relaxed));
        entries.insert(id, Entry { principal: principal.as_str().into(), subscription, asks: None });
        drop(entries);
        Ok(Place { pulls: Arc::clone(self), id })
    }

    /// Settles events of a subscription's pulls. Returns those that were refused once all others have taken effect, durably;
    /// an event that is named twice counts once. Cancel safe, but what was asked may take effect.
    pub(crate) async fn settle(
        &self,
        subscription: SubscriptionId,
        events: &[PulledEvent],
        kind: &VerbKind,
    ) -> Outcomes {
        let mut by_pull = BTreeMap::<PullId, Vec<PulledEvent>>::new();
        let mut named = HashSet::with_capacity(events.len());
        for event in events.iter().filter(|event| named.insert(**event)) {
            by_pull.entry(event.pull).or_default().push(*event);
        }
        let (mut refused, mut asked) = (Outcomes::new(), Vec::with_capacity(by_pull.len()));
        for (pull, events) in by_pull {
            let late =
                |events: Vec<PulledEvent>| events.into_iter().map(|it| (it, ErrorCode::DeliveryExpired));
            let Some(asks) = self.asks(pull, subscription) else {
                refused.extend(late(events));
                continue;
            };
            let (reply, replied) = oneshot::channel();
            let ask = Ask { events: events.clone(), kind: kind.clone(), reply };
            match asks.send(ask).await {
                Ok(()) => asked.push((events, replied)),
                // It has ended meanwhile.
                Err(_) => refused.extend(late(events)),
            }
        }
        for (events, replied) in asked {
            match replied.await {
                Ok(outcomes) => refused.extend(outcomes),
                Err(_) => refused.extend(events.into_iter().map(|it| (it, ErrorCode::OutcomeUnknown))),
            }
        }
        refused
    }

    /// The way to a pull's keeper, if there is such a pull of this subscription.
    fn asks(&self, pull: PullId, subscription: SubscriptionId) -> Option<mpsc::Sender<Ask>> {
        let entries = self.lock();
        let entry = entries.get(&pull).filter(|entry| entry.subscription == subscription)?;
        entry.asks.clone()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PullId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
