//! What is known of the pushes while the engine runs: whether a URL may be one, how each push gets on, and what is to be
//! pushed. Who pushes is elsewhere.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use levada_protocol::{
    ids::{SubscriptionId, SubscriptionName, Timestamp, TopicId, TopicName},
    push_secret::PushSecret,
    request::{Order, PushFailure, PushInfo, PushState},
};
use tokio::time::Duration;

use crate::rows::PushRecord;

/// Says which URLs deliveries may be pushed to.
pub trait PushUrls: fmt::Debug + Send + Sync {
    /// Checks what can be checked of a URL without connecting.
    ///
    /// # Errors
    /// What is wrong with it, what was expected and what to do.
    fn check(&self, url: &str) -> Result<(), String>;
}

/// What became of a request to a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushOutcome {
    /// It took the event.
    Delivered,
    /// It responded with a status that is a failure.
    Failed,
    /// It did not respond in time.
    TimedOut,
    /// No connection could be made, or it broke.
    Unreachable,
    /// Its address may not be pushed to.
    Refused,
    /// It asked for a pause.
    Throttled,
    /// It wants no more.
    Gone,
}

impl PushOutcome {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Delivered,
        Self::Failed,
        Self::TimedOut,
        Self::Unreachable,
        Self::Refused,
        Self::Throttled,
        Self::Gone,
    ];

    /// The word for it in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::Throttled => "throttled",
            Self::Gone => "gone",
        }
    }

    fn index(self) -> usize {
        Self::ALL.iter().position(|outcome| *outcome == self).unwrap_or(0)
    }

    /// How the push gets on after it.
    fn state(self) -> PushState {
        match self {
            Self::Delivered => PushState::Active,
            Self::Throttled => PushState::Throttled,
            Self::Failed | Self::TimedOut | Self::Unreachable | Self::Refused | Self::Gone => {
                PushState::Failing
            }
        }
    }
}

/// How a push gets on, noted by who pushes and read by all.
#[derive(Debug, Default)]
pub struct PushStanding {
    counts: [AtomicU64; PushOutcome::ALL.len()],
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    state: Option<PushState>,
    failure: Option<PushFailure>,
}

impl PushStanding {
    /// Notes what became of a request at this time of day. The message is for a person; a success needs none.
    pub fn note(&self, outcome: PushOutcome, now: Timestamp, message: &str) {
        self.counts[outcome.index()].fetch_add(1, Ordering::Relaxed);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.state = Some(outcome.state());
        if outcome != PushOutcome::Delivered {
            last.failure = Some(PushFailure { at_ms: now.0, message: message.to_owned() });
        }
    }

    /// Notes whether somebody pushes.
    pub fn set_pushing(&self, pushing: bool) {
        let state = if pushing { PushState::Active } else { PushState::Idle };
        self.last.lock().unwrap_or_else(PoisonError::into_inner).state = Some(state);
    }

    /// How often a request came to this.
    pub fn count(&self, outcome: PushOutcome) -> u64 {
        self.counts[outcome.index()].load(Ordering::Relaxed)
    }

    fn describe(&self, info: &mut PushInfo) {
        let failed = PushOutcome::ALL.iter().filter(|it| **it != PushOutcome::Delivered);
        info.delivered = self.count(PushOutcome::Delivered);
        info.failed = failed.map(|outcome| self.count(*outcome)).sum();
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        info.state = last.state.unwrap_or(PushState::Idle);
        info.last_failure.clone_from(&last.failure);
    }
}

/// How all pushes get on.
#[derive(Debug, Default)]
pub(crate) struct PushBoard {
    standings: Mutex<HashMap<SubscriptionId, Arc<PushStanding>>>,
}

impl PushBoard {
    /// How the push of a subscription gets on.
    pub(crate) fn of(&self, id: SubscriptionId) -> Arc<PushStanding> {
        let mut standings = self.standings.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(standings.entry(id).or_default())
    }

    /// Forgets those that do not exist any more.
    pub(crate) fn retain(&self, exists: impl Fn(SubscriptionId) -> bool) {
        self.standings.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| exists(*id));
    }

    /// What is shown of a push at this time of day.
    pub(crate) fn info(&self, record: &PushRecord, now: Timestamp) -> PushInfo {
        let mut info = PushInfo {
            max_in_flight: record.max_in_flight,
            timeout_ms: record.timeout_ms,
            previous_until_ms: record.previous_at(now).map(|previous| previous.until_ms),
            created_ms: record.created_ms,
            created_by: record.owner.clone(),
            ..PushInfo::new(record.url.clone())
        };
        self.of(SubscriptionId(record.subscription)).describe(&mut info);
        info
    }
}

/// Where a subscription's deliveries are to be pushed, and how.
#[derive(Debug, Clone)]
pub struct PushTarget {
    /// The subscription.
    pub id: SubscriptionId,
    /// Its topic.
    pub topic: TopicName,
    /// The topic's id.
    pub topic_id: TopicId,
    /// The subscription's name.
    pub subscription: SubscriptionName,
    /// What is said of how to push.
    pub rules: PushRules,
    /// How it gets on.
    pub standing: Arc<PushStanding>,
}

/// How to push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushRules {
    /// Where to.
    pub url: String,
    /// The secret that signs.
    pub secret: PushSecret,
    /// The one before it, and until when it signs as well.
    pub previous: Option<(PushSecret, Timestamp)>,
    /// Most events that the receiver has at a time.
    pub max_in_flight: u32,
    /// How long the receiver has to respond.
    pub timeout: Duration,
    /// How events are shared and ordered.
    pub order: Order,
    /// Deliveries after which an event becomes a dead letter.
    pub max_attempts: u16,
    /// After which an unacknowledged delivery may be given again.
    pub ack_timeout: Duration,
}
