//! Topics, as they are asked for, changed and shown.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Position;
use crate::{ids::TopicName, publish::Durability};

/// How long a topic keeps events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retain {
    /// At least `retain_for`, and until every durable subscription and route has acknowledged.
    #[default]
    TimeAndAcked,
    /// `retain_for` and `max_bytes` alone; may drop unacknowledged events.
    TimeAndSize,
    /// Until every durable subscription and route has acknowledged.
    UntilAcked,
    /// The last event of each key, however old: a later event of a key takes the place of an earlier one, and one without a
    /// payload, a tombstone, deletes its key. Events without a key are refused.
    ///
    /// What was superseded goes some time later, and never before every durable subscription and route has acknowledged it;
    /// offsets stay as they are. A tombstone stays for at least 24 hours.
    Compact,
}

impl Retain {
    /// The word used on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TimeAndAcked => "time_and_acked",
            Self::TimeAndSize => "time_and_size",
            Self::UntilAcked => "until_acked",
            Self::Compact => "compact",
        }
    }
}

/// What becomes of a publish to a topic whose backlog has reached its quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFull {
    /// It is refused with `BACKLOG_FULL`, and may be tried again.
    #[default]
    Reject,
    /// It is taken, and the oldest events are dropped for it: subscriptions that had them to come are told that they lost
    /// them.
    DropOldest,
    /// One of a newer version. An engine refuses it.
    #[serde(other)]
    Unknown,
}

impl OnFull {
    /// The word used on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::DropOldest => "drop_oldest",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for OnFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A topic's settings. All have defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TopicSettings {
    /// Partitions, 1 to 1024, fixed when the topic is made. Default 1.
    pub partitions: u16,
    /// What an acknowledgement means. Default `sync`.
    pub durability: Durability,
    /// The retention rule.
    pub retain: Retain,
    /// How long events are kept at least, in milliseconds; nothing is dropped for its age with `compact`. Default 72 h.
    pub retain_for_ms: u64,
    /// Stored bytes over which the oldest are dropped (`time_and_size`); 0 means no bound.
    pub max_bytes: u64,
    /// For how long after an event another one of the same id is a duplicate of it, in milliseconds of append times: it
    /// is not stored, and acknowledged with the first one's offset. At most
    /// [`DEDUP_WINDOW_MS_MAX`](crate::limits::DEDUP_WINDOW_MS_MAX). 0, the default: never.
    pub dedup_window_ms: u64,
    /// A header whose value belongs to the id, as `source` does in CloudEvents, whose ids are unique per source alone:
    /// events are duplicates if both are equal. Empty, the default: the id alone. Only with a `dedup_window_ms`.
    pub dedup_header: String,
    /// Events that the slowest subscription or route may have yet to acknowledge, delayed and prepared ones
    /// included; 0, the default: any number.
    pub backlog_max_events: u64,
    /// Stored bytes from the first batch that the slowest subscription or route has not acknowledged all of, with those
    /// of delayed and prepared events; 0, the default: any number.
    pub backlog_max_bytes: u64,
    /// How old the oldest event may be that a subscription or route has yet to acknowledge, in milliseconds; 0, the
    /// default: any age.
    pub backlog_max_age_ms: u64,
    /// What becomes of a publish when one of these is reached. Default `reject`, and all there is without one of them.
    pub on_full: OnFull,
}

impl TopicSettings {
    /// True if the topic's backlog is limited.
    #[must_use]
    pub fn has_backlog_quota(&self) -> bool {
        self.backlog_max_events > 0 || self.backlog_max_bytes > 0 || self.backlog_max_age_ms > 0
    }
}

/// How long a dedup window is if it is switched on without saying how long: 2 minutes.
pub const DEDUP_WINDOW_MS_USUAL: u64 = 120_000;

impl Default for TopicSettings {
    fn default() -> Self {
        Self {
            partitions: 1,
            durability: Durability::Sync,
            retain: Retain::default(),
            retain_for_ms: 72 * 3_600_000,
            max_bytes: 0,
            dedup_window_ms: 0,
            dedup_header: String::new(),
            backlog_max_events: 0,
            backlog_max_bytes: 0,
            backlog_max_age_ms: 0,
            on_full: OnFull::default(),
        }
    }
}

/// What is to change of a topic's settings; what is not given stays as it is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TopicChanges {
    /// The partitions, which cannot change: refused if it is another number than the topic has.
    pub partitions: Option<u16>,
    /// What an acknowledgement means from now on.
    pub durability: Option<Durability>,
    /// The retention rule.
    pub retain: Option<Retain>,
    /// How long events are kept at least, in milliseconds.
    pub retain_for_ms: Option<u64>,
    /// Stored bytes over which the oldest are dropped (`time_and_size`); 0 means no bound.
    pub max_bytes: Option<u64>,
    /// How long ids are remembered, in milliseconds; 0 forgets them and remembers none from now on, nor the header.
    pub dedup_window_ms: Option<u64>,
    /// The header whose value belongs to the id; empty: none. Another one than before forgets all ids so far.
    pub dedup_header: Option<String>,
    /// Events of the backlog; 0 lifts the limit.
    pub backlog_max_events: Option<u64>,
    /// Stored bytes of the backlog; 0 lifts the limit.
    pub backlog_max_bytes: Option<u64>,
    /// The age of the oldest event of the backlog, in milliseconds; 0 lifts the limit.
    pub backlog_max_age_ms: Option<u64>,
    /// What becomes of a publish to a full backlog from now on.
    pub on_full: Option<OnFull>,
}

impl TopicChanges {
    /// What the settings are once this has changed. What is not given and would be without effect goes: the header with the
    /// dedup window, and `drop_oldest` with the last limit of the backlog.
    #[must_use]
    pub fn of(&self, settings: &TopicSettings) -> TopicSettings {
        let mut changed = TopicSettings {
            partitions: self.partitions.unwrap_or(settings.partitions),
            durability: self.durability.unwrap_or(settings.durability),
            retain: self.retain.unwrap_or(settings.retain),
            retain_for_ms: self.retain_for_ms.unwrap_or(settings.retain_for_ms),
            max_bytes: self.max_bytes.unwrap_or(settings.max_bytes),
            dedup_window_ms: self.dedup_window_ms.unwrap_or(settings.dedup_window_ms),
            dedup_header: self.dedup_header.as_ref().unwrap_or(&settings.dedup_header).clone(),
            backlog_max_events: self.backlog_max_events.unwrap_or(settings.backlog_max_events),
            backlog_max_bytes: self.backlog_max_bytes.unwrap_or(settings.backlog_max_bytes),
            backlog_max_age_ms: self.backlog_max_age_ms.unwrap_or(settings.backlog_max_age_ms),
            on_full: self.on_full.unwrap_or(settings.on_full),
        };
        if changed.dedup_window_ms == 0 && self.dedup_header.is_none() {
            changed.dedup_header.clear();
        }
        if !changed.has_backlog_quota() && self.on_full.is_none() {
            changed.on_full = OnFull::default();
        }
        changed
    }
}

/// The description and current state of a topic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TopicInfo {
    /// Its name.
    pub name: TopicName,
    /// Its id.
    #[serde(default)]
    pub id: u32,
    /// Its settings.
    #[serde(default)]
    pub settings: TopicSettings,
    /// When it was made, in milliseconds since the Unix epoch.
    #[serde(default)]
    pub created_ms: u64,
    /// Each partition's extent.
    #[serde(default)]
    pub partitions: Vec<PartitionInfo>,
    /// Events that wait for their time.
    #[serde(default)]
    pub scheduled: u64,
    /// What is remembered of event ids.
    #[serde(default)]
    pub dedup: DedupInfo,
    /// What is yet to be acknowledged, of a topic whose backlog is limited; absent of others.
    #[serde(default)]
    pub backlog: Option<BacklogInfo>,
}

/// What a topic's subscriptions and routes have yet to acknowledge: of each the most, which need not be the same
/// subscription's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BacklogInfo {
    /// Unacknowledged events of the slowest, and those that wait for their time or for a decision.
    pub events: u64,
    /// Stored bytes from the first batch that the slowest has not acknowledged all of, and of those that wait for their
    /// time or for a decision.
    pub bytes: u64,
    /// For how long the oldest unacknowledged event has been in the log, in milliseconds; 0 if there is none.
    pub oldest_age_ms: u64,
    /// Who has the most unacknowledged events, such as `subscription orders/billing` or `route copy`; empty if there is
    /// neither a subscription nor a route.
    pub slowest: String,
    /// How many events were refused with `BACKLOG_FULL` since the engine's start, each time that they were.
    pub refused: u64,
    /// How many events were dropped for newer ones since the engine's start.
    pub dropped: u64,
}

/// What a topic's dedup window holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DedupInfo {
    /// How many ids are remembered.
    pub ids: u64,
    /// How many events were duplicates since the engine's start.
    pub duplicates: u64,
    /// How many ids were forgotten before their time since the engine's start, because the engine remembers no more than
    /// `publish.dedup_ids_max` ids in all.
    pub forgotten_early: u64,
    /// For how long ids are remembered at present, in milliseconds: the topic's window, or less in the partition whose
    /// ids were last forgotten before their time.
    pub window_ms: u64,
}

impl TopicInfo {
    /// A topic with default settings of which nothing else is known.
    pub fn new(name: TopicName) -> Self {
        Self {
            name,
            id: 0,
            settings: TopicSettings::default(),
            created_ms: 0,
            partitions: Vec::new(),
            dedup: DedupInfo::default(),
            scheduled: 0,
            backlog: None,
        }
    }
}

/// The current state of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PartitionInfo {
    /// The partition.
    pub partition: u16,
    /// The oldest offset still stored.
    pub start: u64,
    /// The next offset after the last durable event.
    pub end: u64,
    /// Bytes of stored batches, before the store's own overhead.
    pub bytes: u64,
}

/// Drops events of a topic from the oldest on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeTopic {
    /// The topic, not one of dead letters.
    pub topic: TopicName,
    /// The partitions to purge, each once, with the offset before which its events go. Empty, the default: all partitions,
    /// all that is stored now.
    #[serde(default)]
    pub until: Vec<Position>,
    /// Only those before the first that was appended at this time or later, in milliseconds since the Unix epoch. `None`,
    /// the default: no such bound.
    #[serde(default)]
    pub before_ms: Option<u64>,
    /// Also if a subscription or route has not come so far, which is refused with `TOPIC_IN_USE` otherwise.
    #[serde(default)]
    pub force: bool,
}

/// What a purge of a topic dropped.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PurgedTopic {
    /// How many offsets are gone, over all partitions.
    pub purged: u64,
    /// Where each partition that was asked for begins now. Events that were stored together go together: a few before the
    /// offset that was named may be left.
    pub positions: Vec<Position>,
}
