//! The shared view of the shard: the durable catalogue, the live topics, and whether writes are taken.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    catalogue::{Catalogue, CatalogueEvent},
    check_times::CheckTimes,
    error::Error,
    queue_ends::QueueEnds,
    topic::Topic,
    topics::Topics,
};
use arc_swap::ArcSwap;
use hdrhistogram::Histogram;
use levada_protocol::{error::ErrorCode, ids::TopicName};
use tokio::sync::{Notify, broadcast, watch};

/// Syncs that take longer count as this long: a minute.
const SYNC_MICROS_MAX: u64 = 60_000_000;
/// Catalogue events that one who follows may be behind by before it loses some.
const EVENTS_QUEUED_MAX: usize = 1_024;

/// Why no writes are taken.
#[derive(Debug, Clone)]
pub(crate) struct Closed {
    pub(crate) code: ErrorCode,
    pub(crate) reason: String,
}

impl Closed {
    pub(crate) fn error(&self) -> Error {
        Error::Store { code: self.code, message: self.reason.clone() }
    }

    /// True if writes may be taken again without anybody's help: there was no room, or no file descriptor.
    pub(crate) fn heals(&self) -> bool {
        matches!(self.code, ErrorCode::StorageFull | ErrorCode::LimitExceeded)
    }
}

/// How long syncs took, in microseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SyncTimes {
    /// How many syncs there were.
    pub(crate) count: u64,
    /// The median.
    pub(crate) p50_us: u64,
    /// The 99th percentile.
    pub(crate) p99_us: u64,
}

/// What the shard's threads publish.
#[derive(Debug)]
pub(crate) struct ShardView {
    catalogue: ArcSwap<Catalogue>,
    topics: Arc<Topics>,
    checks: Arc<CheckTimes>,
    queues: Arc<QueueEnds>,
    events: broadcast::Sender<CatalogueEvent>,
    /// Counts the changes of identities: each session follows these, and not what else happens.
    identities: watch::Sender<u64>,
    closed: ArcSwap<Option<Closed>>,
    /// How often the store was opened again: what it showed before that may be void.
    reopened: AtomicU64,
    sync_micros: Mutex<Histogram<u64>>,
    /// Notified when many rows were dropped for good.
    dropped: Notify,
}

impl ShardView {
    pub(super) fn new(
        catalogue: Catalogue,
        topics: Arc<Topics>,
        checks: Arc<CheckTimes>,
        queues: Arc<QueueEnds>,
    ) -> Self {
        let sync_micros = Histogram::new_with_max(SYNC_MICROS_MAX, 2)
            .expect("two significant figures are a legal precision");
        Self {
            catalogue: ArcSwap::from_pointee(catalogue),
            topics,
            checks,
            queues,
            events: broadcast::Sender::new(EVENTS_QUEUED_MAX),
            identities: watch::Sender::new(0),
            reopened: AtomicU64::new(0),
            closed: ArcSwap::from_pointee(None),
            sync_micros: Mutex::new(sync_micros),
            dropped: Notify::new(),
        }
    }

    /// The newest durable catalogue.
    pub(crate) fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.load_full()
    }

    /// The live topic of this name.
    ///
    /// # Errors
    /// `TOPIC_NOT_FOUND`.
    pub(crate) fn topic(&self, name: &TopicName) -> Result<Arc<Topic>, Error> {
        let id = self.catalogue.load().topic(name)?.id();
        // One that the catalogue still names is deleted at this moment.
        self.topics
            .get(id)
            .ok_or_else(|| Error::refused(ErrorCode::TopicNotFound, format!("topic {name} was deleted")))
    }

    /// The topics that exist.
    pub(crate) fn topics(&self) -> &Topics {
        &self.topics
    }

    /// The transactions that wait for their decision, and when somebody is asked about them.
    pub(crate) fn checks(&self) -> &CheckTimes {
        &self.checks
    }

    /// Where the queues of subscriptions end.
    pub(crate) fn queues(&self) -> &QueueEnds {
        &self.queues
    }

    /// Follows the catalogue from now on. Events come after the catalogue that they led to is visible.
    pub(crate) fn follow(&self) -> broadcast::Receiver<CatalogueEvent> {
        self.events.subscribe()
    }

    /// Follows the changes of principals, permissions and tokens from now on; the number itself means nothing.
    pub(crate) fn follow_identities(&self) -> watch::Receiver<u64> {
        self.identities.subscribe()
    }

    /// Publishes a catalogue, and notifies those who follow it.
    pub(super) fn show(&self, catalogue: Arc<Catalogue>, events: Vec<CatalogueEvent>) {
        self.catalogue.store(catalogue);
        if events.iter().any(|event| matches!(event, CatalogueEvent::IdentitiesChanged)) {
            self.identities.send_modify(|count| *count += 1);
        }
        for event in events {
            // There is no follower if this fails.
            let _ = self.events.send(event);
        }
    }

    /// Shows the catalogue that was found in the store after it was opened again. Those who follow may have missed what
    /// happened, so that all topics are checked again.
    /// How often the store was opened again.
    pub(crate) fn reopened(&self) -> u64 {
        self.reopened.load(Ordering::Acquire)
    }

    /// To be called after the store was opened again, and before anything is decided about what it shows now.
    pub(super) fn note_reopened(&self) {
        self.reopened.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn show_again(&self, catalogue: Arc<Catalogue>) {
        self.catalogue.store(catalogue);
        self.topics.wake_all();
        self.identities.send_modify(|count| *count += 1);
        let _ = self.events.send(CatalogueEvent::Reloaded);
    }

    /// Why writes are refused, if they are.
    pub(crate) fn closed(&self) -> Option<Closed> {
        (**self.closed.load()).clone()
    }

    pub(super) fn close(&self, code: ErrorCode, reason: String) {
        self.closed.store(Arc::new(Some(Closed { code, reason })));
    }

    pub(super) fn open(&self) {
        self.closed.store(Arc::new(None));
    }

    pub(super) fn note_sync(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.sync_micros.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(micros);
    }

    /// How long syncs took since the start.
    pub(crate) fn sync_times(&self) -> SyncTimes {
        let micros = self.sync_micros.lock().unwrap_or_else(PoisonError::into_inner);
        SyncTimes {
            count: micros.len(),
            p50_us: micros.value_at_quantile(0.5),
            p99_us: micros.value_at_quantile(0.99),
        }
    }

    pub(super) fn note_dropped(&self) {
        self.dropped.notify_one();
    }

    /// Waits until many rows were dropped for good. For one who waits at a time.
    pub(crate) async fn dropped(&self) {
        self.dropped.notified().await;
    }
}
