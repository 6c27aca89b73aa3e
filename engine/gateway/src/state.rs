//! What all handlers share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use levada_broker::{Broker, SinglePublishes};
use levada_protocol::{
    ids::{Timestamp, TopicName},
    partition::partition_of,
};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use crate::responses::Responses;

/// How many counters of turns there are; topics share them by the hashes of their names, so that they need no memory each.
const TURNS: u16 = 256;

/// Plugins that are deployed at once.
const UPLOADS_MAX: usize = 2;

/// Settings of the gateway.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// Whether callers without a token are served while there are no principals: only where nobody but this machine can reach the
    /// gateway.
    pub serves_local: bool,
    /// Origins whose pages may call the gateway, such as `https://console.example.com`. Empty: none.
    pub cors_origins: Vec<String>,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
    /// How long a publish may take until it is answered, body and commit together: less than its connection may.
    pub answer_max: Duration,
    /// How long a read may search, and what is asked of the broker may take, before there is an answer.
    pub work_max: Duration,
    /// How long a request may ask to wait for events.
    pub wait_max: Duration,
    /// How long a plugin may take to arrive.
    pub upload_timeout: Duration,
    /// How often a stream that has nothing to send sends a comment.
    pub comment_interval: Duration,
    /// The time of day.
    pub now: fn() -> Timestamp,
}

impl GatewayConfig {
    /// The defaults, with a clock.
    pub fn new(now: fn() -> Timestamp) -> Self {
        Self {
            serves_local: true,
            cors_origins: Vec::new(),
            body_timeout: Duration::from_secs(8),
            answer_max: Duration::from_millis(9_500),
            work_max: Duration::from_secs(8),
            wait_max: Duration::from_secs(60),
            upload_timeout: Duration::from_secs(60),
            comment_interval: Duration::from_secs(15),
            now,
        }
    }
}

/// The gateway's state. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

struct Inner {
    broker: Broker,
    publishes: SinglePublishes,
    config: GatewayConfig,
    /// Cancelled when streams are to end.
    ending: CancellationToken,
    /// Tells this start's ids from those of another.
    start: u64,
    next: AtomicU64,
    /// Which partition of a topic is next to get events that go to any.
    turns: [AtomicU64; TURNS as usize],
    /// Plugins that may be deployed at once; each is held in memory.
    uploads: Semaphore,
    responses: Responses,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Gateway {
    /// A gateway to a broker, on the runtime that this is called in. Streams end when `ending` is cancelled.
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub fn new(
        broker: Broker,
        config: GatewayConfig,
        ending: CancellationToken,
    ) -> Result<Self, getrandom::Error> {
        let start = getrandom::u64()?;
        let turns = std::array::from_fn(|_| AtomicU64::new(start));
        Ok(Self {
            inner: Arc::new(Inner {
                publishes: SinglePublishes::new(broker.clone()),
                broker,
                config,
                ending,
                start,
                next: AtomicU64::new(0),
                turns,
                uploads: Semaphore::new(UPLOADS_MAX),
                responses: Responses::default(),
            }),
        })
    }

    pub(crate) fn broker(&self) -> &Broker {
        &self.inner.broker
    }

    pub(crate) fn publishes(&self) -> &SinglePublishes {
        &self.inner.publishes
    }

    pub(crate) fn config(&self) -> &GatewayConfig {
        &self.inner.config
    }

    pub(crate) fn ending(&self) -> &CancellationToken {
        &self.inner.ending
    }

    /// Leave to receive a plugin, until it is dropped; `None` while others are received.
    pub(crate) fn upload(&self) -> Option<SemaphorePermit<'_>> {
        self.inner.uploads.try_acquire().ok()
    }

    pub(crate) fn responses(&self) -> &Responses {
        &self.inner.responses
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.inner.config.now)()
    }

    /// The next turn of a topic: one more each time, from a random number on.
    pub(crate) fn turn(&self, topic: &TopicName) -> u64 {
        let counter = partition_of(topic.as_str().as_bytes(), TURNS);
        self.inner.turns[usize::from(counter.0)].fetch_add(1, Ordering::Relaxed)
    }

    /// A text that no other call of any start gets.
    pub(crate) fn unique(&self) -> String {
        format!("{:016x}{:016x}", self.inner.start, self.inner.next.fetch_add(1, Ordering::Relaxed))
    }
}
