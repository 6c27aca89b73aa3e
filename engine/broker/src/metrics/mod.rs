//! Every metric of the broker: names with their units, and the few calls that record them.
//!
//! What belongs to something with a name is kept with that thing, and collected from those that exist when they are
//! read: the series of a deleted topic, subscription or route end with it. Only histograms are the process's.
//!
//! Labels: `topic` is a topic's name, `subscription` is `topic/name`, `route` is a route's name, `plugin` is
//! `name@version`, `for` is the kind of what a subscription waits for, `alarm` is a word of [`levada_protocol::request::Alarm`], `attachment` is `topic/name` of a subscription, `route` and a route's name, or `read` for all masks,
//! `outcome` is a word of [`crate::PushOutcome`].

mod series;
mod standing;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use levada_protocol::{
    ids::Timestamp,
    request::{BacklogInfo, DedupInfo, RouteInfo, SubscriptionInfo},
};
use levada_stage::StageStats;
use metrics::{describe_histogram, histogram};

pub use self::series::{Kind, Sample, Series};
use self::{series::as_f64, standing::Standing};
use crate::{
    check_times::UndecidedCounts,
    push::{PushOutcome, PushStanding},
};

/// How long syncs of the write-ahead log take.
const SYNC_SECONDS: &str = "levada_sync_seconds";
/// How many groups one sync covers.
const SYNC_GROUPS: &str = "levada_sync_groups";

const COMPACTED_BYTES: Series = Series::counter(
    "levada_compacted_bytes_total",
    "bytes of events that were dropped because later ones of their keys had come",
);
const SCHEDULED_EVENTS: Series =
    Series::gauge("levada_scheduled_events", "delayed events that wait for their time");
const EXPIRED_EVENTS: Series = Series::counter(
    "levada_expired_events_total",
    "events whose time to live ended before they were delivered or routed",
);
const REDRIVEN_EVENTS: Series = Series::gauge(
    "levada_redriven_events",
    "events that were redriven to a subscription alone and are not acknowledged yet",
);
const BACKLOG_DROPPED_EVENTS: Series = Series::counter(
    "levada_backlog_dropped_events_total",
    "events that a full backlog dropped for newer ones",
);
const EXPIRED_SUBSCRIPTIONS: Series = Series::counter(
    "levada_expired_subscriptions_total",
    "subscriptions that were deleted because nobody consumed them for as long as they said",
);
const PLUGIN_MEMORY_RESTARTS: Series = Series::counter(
    "levada_plugin_memory_restarts_total",
    "plugin instances replaced because earlier calls had filled their memory",
);
const WITHHELD_EVENTS: Series = Series::counter(
    "levada_withheld_events_total",
    "events withheld from those who read through plugins, because one failed on them",
);
const REFUSED_CALLS: Series = Series::counter(
    "levada_refused_calls_total",
    "calls refused for who made them: unauthenticated, or denied for want of a permission",
);
const ADMINISTRATORS_END: Series = Series::gauge(
    "levada_administrators_end_seconds",
    "seconds until the last proof of an administrator expires, if none is without an end",
);
const PUSHED: Series = Series::counter(
    "levada_push_requests_total",
    "requests to the receivers of pushes, by what became of them",
);
const PREPARED_TRANSACTIONS: Series = Series::gauge(
    "levada_prepared_transactions",
    "transactions that wait for a decision, their groups being asked about them",
);
const PARKED_TRANSACTIONS: Series =
    Series::gauge("levada_parked_transactions", "transactions that wait for a person's decision");

/// All metrics that are collected when they are read.
#[derive(Debug)]
pub(crate) struct Collected {
    published_events: Series,
    published_bytes: Series,
    duplicate_events: Series,
    dedup_ids: Series,
    dedup_forgotten_early: Series,
    compacted_bytes: Series,
    scheduled_events: Series,
    backlog_events: Series,
    backlog_bytes: Series,
    backlog_refused_events: Series,
    backlog_dropped_events: Series,
    delivered_events: Series,
    redelivered_events: Series,
    dead_lettered_events: Series,
    expired_events: Series,
    lag_events: Series,
    redriven_events: Series,
    oldest_unacked_seconds: Series,
    subscription_waiting: Series,
    standing: Standing,
    route_blocked: Series,
    plugin_seconds: Series,
    plugin_errors: Series,
    plugin_memory_restarts: Series,
    pushed: Series,
    expired_subscriptions: Series,
    refused_calls: Series,
    withheld_events: Series,
    administrators_end: Series,
    prepared_transactions: Series,
    parked_transactions: Series,
    compaction_bytes: Series,
    disk_free_bytes: Series,
    writable: Series,
}

impl Collected {
    pub(crate) fn new() -> Self {
        Self {
            published_events: Series::counter("levada_published_events_total", "events made durable"),
            published_bytes: Series::counter("levada_published_bytes_total", "bytes of batches made durable"),
            duplicate_events: Series::counter(
                "levada_duplicate_events_total",
                "events that were not stored because the dedup window held their ids",
            ),
            dedup_ids: Series::gauge("levada_dedup_ids", "event ids that a dedup window holds"),
            dedup_forgotten_early: Series::counter(
                "levada_dedup_forgotten_early_total",
                "event ids forgotten before their window had passed, beyond publish.dedup_ids_max",
            ),
            compacted_bytes: COMPACTED_BYTES,
            scheduled_events: SCHEDULED_EVENTS,
            backlog_events: Series::gauge(
                "levada_backlog_events",
                "events that the slowest has yet to acknowledge, of a topic whose backlog is limited",
            ),
            backlog_bytes: Series::gauge(
                "levada_backlog_bytes",
                "bytes that the slowest has yet to acknowledge, of a topic whose backlog is limited",
            ),
            backlog_refused_events: Series::counter(
                "levada_backlog_refused_events_total",
                "events that were refused with BACKLOG_FULL",
            ),
            backlog_dropped_events: BACKLOG_DROPPED_EVENTS,
            delivered_events: Series::counter("levada_delivered_events_total", "events sent to consumers"),
            redelivered_events: Series::counter("levada_redelivered_events_total", "events sent again"),
            dead_lettered_events: Series::counter(
                "levada_dead_lettered_events_total",
                "events that went to a dead-letter topic",
            ),
            expired_events: EXPIRED_EVENTS,
            lag_events: Series::gauge("levada_lag_events", "events neither acknowledged nor filtered"),
            redriven_events: REDRIVEN_EVENTS,
            oldest_unacked_seconds: Series::gauge(
                "levada_oldest_unacked_seconds",
                "age of the oldest unacknowledged event",
            ),
            subscription_waiting: Series::gauge(
                "levada_subscription_waiting",
                "1 for what a subscription waits for before it delivers more",
            ),
            standing: Standing::new(),
            route_blocked: Series::gauge("levada_route_blocked", "1 while a route is blocked or paused"),
            plugin_seconds: Series::counter("levada_plugin_seconds_total", "seconds spent in plugins"),
            plugin_errors: Series::counter(
                "levada_plugin_errors_total",
                "plugin calls that failed, and events whose verdict could not be followed",
            ),
            plugin_memory_restarts: PLUGIN_MEMORY_RESTARTS,
            pushed: PUSHED,
            expired_subscriptions: EXPIRED_SUBSCRIPTIONS,
            refused_calls: REFUSED_CALLS,
            withheld_events: WITHHELD_EVENTS,
            administrators_end: ADMINISTRATORS_END,
            prepared_transactions: PREPARED_TRANSACTIONS,
            parked_transactions: PARKED_TRANSACTIONS,
            compaction_bytes: Series::counter(
                "levada_compaction_bytes_total",
                "bytes that compaction has written",
            ),
            disk_free_bytes: Series::gauge(
                "levada_disk_free_bytes",
                "free bytes on the data directory's volume",
            ),
            writable: Series::gauge("levada_writable", "1 while writes are taken"),
        }
    }

    pub(crate) fn topic(
        &mut self,
        name: &str,
        appended: &Appended,
        dedup: Option<DedupInfo>,
        scheduled: u64,
    ) {
        let labels = [("topic", name)];
        if let Some(dedup) = dedup {
            self.duplicate_events.add(&labels, as_f64(dedup.duplicates));
            self.dedup_ids.add(&labels, as_f64(dedup.ids));
            self.dedup_forgotten_early.add(&labels, as_f64(dedup.forgotten_early));
        }
        self.published_events.add(&labels, as_f64(appended.events.load(Ordering::Relaxed)));
        self.published_bytes.add(&labels, as_f64(appended.bytes.load(Ordering::Relaxed)));
        self.scheduled_events.add(&labels, as_f64(scheduled));
    }

    /// Of a topic that keeps the last event of each key.
    pub(crate) fn compacted(&mut self, name: &str, appended: &Appended) {
        let bytes = appended.superseded_bytes.load(Ordering::Relaxed);
        self.compacted_bytes.add(&[("topic", name)], as_f64(bytes));
    }

    pub(crate) fn backlog(&mut self, name: &str, info: &BacklogInfo) {
        let labels = [("topic", name)];
        self.backlog_events.add(&labels, as_f64(info.events));
        self.backlog_bytes.add(&labels, as_f64(info.bytes));
        self.backlog_refused_events.add(&labels, as_f64(info.refused));
        self.backlog_dropped_events.add(&labels, as_f64(info.dropped));
    }

    /// Of a push that gets on so.
    pub(crate) fn push(&mut self, subscription: &str, standing: &PushStanding) {
        for outcome in PushOutcome::ALL {
            let labels = [("subscription", subscription), ("outcome", outcome.as_str())];
            self.pushed.add(&labels, as_f64(standing.count(outcome)));
        }
    }

    /// Of a subscription that is so at this time of day.
    pub(crate) fn subscription(
        &mut self,
        name: &str,
        delivered: &Delivered,
        info: &SubscriptionInfo,
        now: Timestamp,
    ) {
        let labels = [("subscription", name)];
        self.delivered_events.add(&labels, as_f64(delivered.events.load(Ordering::Relaxed)));
        self.redelivered_events.add(&labels, as_f64(info.redelivered));
        self.dead_lettered_events.add(&labels, as_f64(info.dead_lettered));
        self.expired_events.add(&labels, as_f64(info.events_expired));
        self.redriven_events.add(&labels, as_f64(info.redriven));
        self.lag_events.add(&labels, as_f64(info.lag));
        self.oldest_unacked_seconds.add(&labels, as_f64(info.oldest_unacked_age_ms) / 1_000.0);
        let waits = [("subscription", name), ("for", info.waiting_for.as_str())];
        self.subscription_waiting.add(&waits, 1.0);
        self.standing.add(&labels, info, now);
    }

    pub(crate) fn route(&mut self, info: &RouteInfo) {
        let labels = [("route", info.spec.name.as_str())];
        self.dead_lettered_events.add(&labels, as_f64(info.dead_lettered));
        self.expired_events.add(&labels, as_f64(info.events_expired));
        self.lag_events.add(&labels, as_f64(info.lag));
        self.route_blocked.add(&labels, if info.state.is_running() { 0.0 } else { 1.0 });
    }

    pub(crate) fn plugin(&mut self, plugin: &str, attachment: &str, stats: &StageStats) {
        let labels = [("plugin", plugin), ("attachment", attachment)];
        self.plugin_seconds.add(&labels, stats.busy.as_secs_f64());
        self.plugin_errors.add(&labels, as_f64(stats.errors));
        self.plugin_memory_restarts.add(&labels, as_f64(stats.memory_restarts));
    }

    pub(crate) fn refused_calls(&mut self, reason: &str, count: u64) {
        self.refused_calls.add(&[("reason", reason)], as_f64(count));
    }

    pub(crate) fn withheld_events(&mut self, count: u64) {
        self.withheld_events.add(&[], as_f64(count));
    }

    pub(crate) fn administrators_end(&mut self, left: Duration) {
        self.administrators_end.add(&[], left.as_secs_f64());
    }

    pub(crate) fn expired_subscriptions(&mut self, count: u64) {
        self.expired_subscriptions.add(&[], as_f64(count));
    }

    pub(crate) fn transactions(&mut self, undecided: UndecidedCounts) {
        self.prepared_transactions.add(&[], as_f64(undecided.prepared));
        self.parked_transactions.add(&[], as_f64(undecided.parked));
    }

    pub(crate) fn engine(&mut self, disk_free_bytes: u64, writable: bool, compaction_bytes: u64) {
        self.disk_free_bytes.add(&[], as_f64(disk_free_bytes));
        self.writable.add(&[], if writable { 1.0 } else { 0.0 });
        self.compaction_bytes.add(&[], as_f64(compaction_bytes));
    }

    /// The metrics that have samples, in a fixed order.
    pub(crate) fn finish(self) -> Vec<Series> {
        let standing = self.standing.into_series();
        let all = [
            self.published_events,
            self.published_bytes,
            self.duplicate_events,
            self.dedup_ids,
            self.dedup_forgotten_early,
            self.compacted_bytes,
            self.scheduled_events,
            self.backlog_events,
            self.backlog_bytes,
            self.backlog_refused_events,
            self.backlog_dropped_events,
            self.delivered_events,
            self.redelivered_events,
            self.dead_lettered_events,
            self.expired_events,
            self.lag_events,
            self.redriven_events,
            self.oldest_unacked_seconds,
            self.subscription_waiting,
            self.route_blocked,
            self.plugin_seconds,
            self.plugin_errors,
            self.plugin_memory_restarts,
            self.expired_subscriptions,
            self.refused_calls,
            self.withheld_events,
            self.administrators_end,
            self.pushed,
            self.prepared_transactions,
            self.parked_transactions,
            self.compaction_bytes,
            self.disk_free_bytes,
            self.writable,
        ];
        all.into_iter().chain(standing).filter(|series| !series.samples.is_empty()).collect()
    }
}

/// Gives the histograms their help texts.
pub(crate) fn describe() {
    describe_histogram!(SYNC_SECONDS, "duration of a sync of the write-ahead log");
    describe_histogram!(SYNC_GROUPS, "commit groups that one sync covers");
}

/// A topic's counters, kept with it.
#[derive(Debug, Default)]
pub(crate) struct Appended {
    events: AtomicU64,
    bytes: AtomicU64,
    /// Bytes of those that compaction has dropped.
    superseded_bytes: AtomicU64,
}

impl Appended {
    pub(crate) fn add_superseded(&self, bytes: u64) {
        self.superseded_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn add(&self, events: u64, bytes: u64) {
        self.events.fetch_add(events, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What is remembered of a topic's event ids, kept with it.
#[derive(Debug)]
pub(crate) struct Dedup {
    ids: AtomicU64,
    duplicates: AtomicU64,
    forgotten_early: AtomicU64,
    /// For how long ids are remembered, if that is less than the window.
    kept_ms: AtomicU64,
}

impl Default for Dedup {
    fn default() -> Self {
        let zero = AtomicU64::default;
        Self { ids: zero(), duplicates: zero(), forgotten_early: zero(), kept_ms: AtomicU64::new(u64::MAX) }
    }
}

impl Dedup {
    /// Takes what is remembered now, and what was counted since.
    pub(crate) fn add(&self, info: &DedupInfo) {
        self.ids.store(info.ids, Ordering::Relaxed);
        self.duplicates.fetch_add(info.duplicates, Ordering::Relaxed);
        self.forgotten_early.fetch_add(info.forgotten_early, Ordering::Relaxed);
        self.kept_ms.store(info.window_ms, Ordering::Relaxed);
    }

    /// Its description for the wire, of a topic with this window.
    pub(crate) fn info(&self, window_ms: u64) -> DedupInfo {
        DedupInfo {
            ids: self.ids.load(Ordering::Relaxed),
            duplicates: self.duplicates.load(Ordering::Relaxed),
            forgotten_early: self.forgotten_early.load(Ordering::Relaxed),
            window_ms: self.kept_ms.load(Ordering::Relaxed).min(window_ms),
        }
    }
}

/// What became of publishes to a topic whose backlog is full, kept with it.
#[derive(Debug, Default)]
pub(crate) struct FullBacklog {
    refused: AtomicU64,
    dropped: AtomicU64,
}

impl FullBacklog {
    /// Counts events that were refused.
    pub(crate) fn add_refused(&self, events: u64) {
        self.refused.fetch_add(events, Ordering::Relaxed);
    }

    /// Counts events that were dropped for newer ones.
    pub(crate) fn add_dropped(&self, events: u64) {
        self.dropped.fetch_add(events, Ordering::Relaxed);
    }

    /// How many were refused.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// How many were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// The counter of a subscription's deliveries, shared by its owner and its handle.
#[derive(Debug, Default, Clone)]
pub(crate) struct Delivered {
    events: Arc<AtomicU64>,
}

impl Delivered {
    pub(crate) fn increment(&self, events: u64) {
        self.events.fetch_add(events, Ordering::Relaxed);
    }
}

/// The histograms of syncs.
#[derive(Debug)]
pub(crate) struct Synced {
    seconds: metrics::Histogram,
    groups: metrics::Histogram,
}

impl Synced {
    pub(crate) fn new() -> Self {
        Self { seconds: histogram!(SYNC_SECONDS), groups: histogram!(SYNC_GROUPS) }
    }

    pub(crate) fn add(&self, elapsed: Duration, groups: usize) {
        self.seconds.record(elapsed);
        self.groups.record(u32::try_from(groups).unwrap_or(u32::MAX));
    }
}
