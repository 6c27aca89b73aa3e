//! Every metric of the broker: names with their units, and the few calls that record them.
//!
//! Labels: `topic` is a topic's name, `subscription` is `topic/name`, `route` is a route's name.

use std::time::Duration;

use levada_protocol::ids::TopicName;
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

/// Events made durable, by topic.
const PUBLISHED_EVENTS: &str = "levada_published_events_total";
/// Bytes of batches made durable, by topic.
const PUBLISHED_BYTES: &str = "levada_published_bytes_total";
/// Events sent to consumers, by subscription.
const DELIVERED_EVENTS: &str = "levada_delivered_events_total";
/// Events neither acknowledged nor filtered, by subscription or route.
const LAG_EVENTS: &str = "levada_lag_events";
/// Age of the oldest of them, by subscription.
const OLDEST_UNACKED_SECONDS: &str = "levada_oldest_unacked_seconds";
/// Events sent again, by subscription.
const REDELIVERED_EVENTS: &str = "levada_redelivered_events";
/// Events that went to a dead-letter topic, by subscription or route.
const DEAD_LETTERED_EVENTS: &str = "levada_dead_lettered_events";
/// 1 while a route cannot append to a target or is paused, by route.
const ROUTE_BLOCKED: &str = "levada_route_blocked";
/// How long syncs of the write-ahead log take.
const SYNC_SECONDS: &str = "levada_sync_seconds";
/// How many groups one sync covers.
const SYNC_GROUPS: &str = "levada_sync_groups";
/// Free bytes on the data directory's volume.
const DISK_FREE_BYTES: &str = "levada_disk_free_bytes";
/// 1 while writes are taken.
const WRITABLE: &str = "levada_writable";
/// Seconds spent in plugins, by plugin and place.
const PLUGIN_SECONDS: &str = "levada_plugin_seconds";
/// Calls of plugins that failed, by plugin and place.
const PLUGIN_ERRORS: &str = "levada_plugin_errors";
/// Bytes that compaction has written.
const COMPACTION_BYTES: &str = "levada_compaction_bytes";

/// Gives every metric its help text.
pub(crate) fn describe() {
    describe_counter!(PUBLISHED_EVENTS, "events made durable");
    describe_counter!(PUBLISHED_BYTES, "bytes of batches made durable");
    describe_counter!(DELIVERED_EVENTS, "events sent to consumers");
    describe_gauge!(LAG_EVENTS, "events neither acknowledged nor filtered");
    describe_gauge!(OLDEST_UNACKED_SECONDS, "age of the oldest unacknowledged event");
    describe_gauge!(REDELIVERED_EVENTS, "events sent again since the start");
    describe_gauge!(DEAD_LETTERED_EVENTS, "events that went to a dead-letter topic since the start");
    describe_gauge!(ROUTE_BLOCKED, "1 while a route is blocked or paused");
    describe_histogram!(SYNC_SECONDS, "duration of a sync of the write-ahead log");
    describe_histogram!(SYNC_GROUPS, "commit groups that one sync covers");
    describe_gauge!(DISK_FREE_BYTES, "free bytes on the data directory's volume");
    describe_gauge!(WRITABLE, "1 while writes are taken");
    describe_gauge!(PLUGIN_SECONDS, "seconds spent in plugins since the start");
    describe_gauge!(PLUGIN_ERRORS, "plugin calls that failed since the start");
    describe_gauge!(COMPACTION_BYTES, "bytes that compaction has written since the start");
}

/// A topic's counters, kept with it: looking them up costs more than adding to them.
#[derive(Debug)]
pub(crate) struct Appended {
    events: metrics::Counter,
    bytes: metrics::Counter,
}

impl Appended {
    pub(crate) fn of(topic: &TopicName) -> Self {
        let labels = [("topic", topic.to_string())];
        Self { events: counter!(PUBLISHED_EVENTS, &labels), bytes: counter!(PUBLISHED_BYTES, &labels) }
    }

    pub(crate) fn add(&self, events: u64, bytes: u64) {
        self.events.increment(events);
        self.bytes.increment(bytes);
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

/// The counter of a subscription's deliveries, to be kept by its owner.
pub(crate) fn delivered(subscription: &str) -> metrics::Counter {
    counter!(DELIVERED_EVENTS, "subscription" => subscription.to_owned())
}

/// A subscription's gauges, set when they are asked for.
pub(crate) fn subscription(name: &str, info: &levada_protocol::request::SubscriptionInfo) {
    let labels = [("subscription", name.to_owned())];
    gauge!(LAG_EVENTS, &labels).set(as_f64(info.lag));
    gauge!(OLDEST_UNACKED_SECONDS, &labels).set(as_f64(info.oldest_unacked_age_ms) / 1_000.0);
    gauge!(REDELIVERED_EVENTS, &labels).set(as_f64(info.redelivered));
    gauge!(DEAD_LETTERED_EVENTS, &labels).set(as_f64(info.dead_lettered));
}

/// A route's gauges, set when they are asked for.
pub(crate) fn route(info: &levada_protocol::request::RouteInfo) {
    let labels = [("route", info.spec.name.clone())];
    gauge!(LAG_EVENTS, &labels).set(as_f64(info.lag));
    gauge!(DEAD_LETTERED_EVENTS, &labels).set(as_f64(info.dead_lettered));
    gauge!(ROUTE_BLOCKED, &labels).set(if info.state == "running" { 0.0 } else { 1.0 });
}

/// A plugin's gauges at one place, set when they are asked for.
pub(crate) fn plugin(plugin: &str, place: &str, figures: &crate::stage::Figures) {
    let labels = [("plugin", plugin.to_owned()), ("place", place.to_owned())];
    gauge!(PLUGIN_SECONDS, &labels).set(figures.seconds);
    gauge!(PLUGIN_ERRORS, &labels).set(as_f64(figures.errors));
}

/// The engine's own gauges, set when they are asked for.
pub(crate) fn engine(disk_free_bytes: u64, writable: bool, compaction_bytes: u64) {
    gauge!(DISK_FREE_BYTES).set(as_f64(disk_free_bytes));
    gauge!(WRITABLE).set(if writable { 1.0 } else { 0.0 });
    gauge!(COMPACTION_BYTES).set(as_f64(compaction_bytes));
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; counts stay exact below 2^53")]
fn as_f64(number: u64) -> f64 {
    number as f64
}
