//! Dead letters, as they are listed, counted, redriven and purged.

use serde::{Deserialize, Serialize};

use crate::{error::Refusal, ids::TopicName};

/// A dead-letter topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterTopic {
    /// Its name, `dlq.TOPIC.SUBSCRIPTION` or `dlq.TOPIC.route-ROUTE`.
    pub name: TopicName,
    /// How many dead letters are stored.
    #[serde(default)]
    pub count: u64,
    /// Bytes of stored batches, before the store's own overhead.
    #[serde(default)]
    pub bytes: u64,
    /// When the oldest of them became a dead letter, in milliseconds since the Unix epoch; `None` if there is none.
    #[serde(default)]
    pub oldest_ms: Option<u64>,
    /// When the newest of them became one.
    #[serde(default)]
    pub newest_ms: Option<u64>,
}

impl DeadLetterTopic {
    /// A topic without dead letters.
    pub fn new(name: TopicName) -> Self {
        Self { name, count: 0, bytes: 0, oldest_ms: None, newest_ms: None }
    }
}

/// Asks for the dead letters of one topic by reason and plugin version, a stretch of the log at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupDeadLetters {
    /// The dead-letter topic.
    pub topic: TopicName,
    /// Where to begin: a step's `next`. 0, the default, means with the oldest.
    #[serde(default)]
    pub from: u64,
    /// The offset to stop before: the first step's `until`. `None` means at the end as it is now.
    #[serde(default)]
    pub until: Option<u64>,
    /// Only dead letters for which this holds, in the language of the plugin `json-filter`.
    #[serde(default, rename = "where")]
    pub condition: Option<String>,
}

impl GroupDeadLetters {
    /// All dead letters of a topic, from the first step on.
    pub fn new(topic: TopicName) -> Self {
        Self { topic, from: 0, until: None, condition: None }
    }
}

/// One stretch of a dead-letter topic, by reason and plugin version.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DeadLetterGroups {
    /// The groups of this stretch, at most [`DEAD_LETTER_GROUPS_MAX`](crate::limits::DEAD_LETTER_GROUPS_MAX), in order
    /// of reason and plugin. Those of several stretches are to be added up.
    pub groups: Vec<DeadLetterGroup>,
    /// How far it came, and where to go on.
    pub stretch: Stretch,
}

/// The dead letters of one reason and plugin version.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DeadLetterGroup {
    /// The header `lv-dlq-reason`.
    pub reason: String,
    /// The header `lv-dlq-plugin`; `None` without one.
    pub plugin: Option<String>,
    /// How many there are.
    pub count: u64,
    /// How many of them were redriven at least once.
    pub redriven: u64,
    /// The offset of the oldest.
    pub first: u64,
    /// The offset of the newest.
    pub last: u64,
    /// When the oldest became a dead letter, in milliseconds since the Unix epoch.
    pub oldest_ms: u64,
    /// When the newest became one.
    pub newest_ms: u64,
    /// The header `lv-dlq-error` of the newest.
    pub error: String,
}

impl DeadLetterGroup {
    /// Adds what a later stretch holds of the same group.
    pub fn add(&mut self, later: Self) {
        self.count += later.count;
        self.redriven += later.redriven;
        self.last = later.last;
        self.newest_ms = later.newest_ms;
        self.error = later.error;
    }
}

/// How far one step of a walk through a dead-letter topic came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Stretch {
    /// Where the next step begins; `None`: this was the last.
    pub next: Option<u64>,
    /// The offset before which the walk ends, for the steps after this one.
    pub until: u64,
    /// Stored bytes that were scanned.
    pub scanned_bytes: u64,
    /// Dead letters that were scanned.
    pub scanned: u64,
    /// Dead letters of them whose payload is no JSON although the condition names a field of it; they do not match.
    pub undecodable: u64,
}

/// When and where a dead letter was redriven.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedriveInfo {
    /// The dead letter's offset.
    #[serde(default)]
    pub offset: u64,
    /// The topic that it went to, the last time; if it went back to the subscription alone, the subscription's.
    pub to: TopicName,
    /// The partition there. Of what went back to the subscription alone, partition and offset are where it was at first.
    #[serde(default)]
    pub to_partition: u16,
    /// The offset there.
    #[serde(default)]
    pub to_offset: u64,
    /// When that was, in milliseconds since the Unix epoch.
    #[serde(default)]
    pub time_ms: u64,
    /// How often this dead letter was redriven.
    #[serde(default)]
    pub times: u32,
    /// It went back to the subscription alone, and nobody else got it.
    #[serde(default)]
    pub alone: bool,
}

/// Which dead letters are meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum DeadLetterSelection {
    /// Those at these offsets, at most [`REDRIVE_EVENTS_MAX`](crate::limits::REDRIVE_EVENTS_MAX), in any order.
    Offsets {
        /// Their offsets.
        offsets: Vec<u64>,
    },
    /// Those for which a condition holds, in the language of the plugin `json-filter`.
    Where {
        /// The condition.
        condition: String,
    },
    /// All.
    All,
    /// A kind that this version does not know.
    #[serde(other)]
    Unknown,
}

/// Redrives the events of dead letters, a bounded number at a time: appends them to a topic, or gives them back to their
/// subscription alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redrive {
    /// The dead-letter topic.
    pub topic: TopicName,
    /// The topic that the events are appended to; none of the engine's own. `None`, the default: the subscription that they
    /// are dead letters of gets them again, and nobody else. Those of a route need a topic.
    #[serde(default)]
    pub to: Option<TopicName>,
    /// Which dead letters.
    pub select: DeadLetterSelection,
    /// Where to begin: a step's `next`. 0, the default, means with the oldest.
    #[serde(default)]
    pub from: u64,
    /// The offset to stop before: the first step's `until`. `None` means at the end as it is now.
    #[serde(default)]
    pub until: Option<u64>,
    /// Also those that were redriven before, and events that were redriven [`REDRIVES_MAX`](crate::limits::REDRIVES_MAX)
    /// times.
    #[serde(default)]
    pub force: bool,
}

/// What became of the dead letters of one step.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Redriven {
    /// What became of each that was selected, at most [`REDRIVE_EVENTS_MAX`](crate::limits::REDRIVE_EVENTS_MAX).
    pub outcomes: Vec<RedriveOutcome>,
    /// How far it came, and where to go on.
    pub stretch: Stretch,
}

/// What became of one dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RedriveOutcome {
    /// Its event was appended, and the dead letter knows it.
    Redriven(RedriveInfo),
    /// Nothing was done: it was redriven before, as is said here.
    AlreadyRedriven(RedriveInfo),
    /// Nothing was done: the event was redriven too often.
    OverLimit {
        /// The dead letter's offset.
        offset: u64,
        /// How often its event was redriven, over all dead letters that it became.
        redrives: u32,
    },
    /// Nothing was done, for another reason.
    Refused {
        /// The dead letter's offset.
        offset: u64,
        /// The reason.
        refusal: Refusal,
    },
    /// An outcome that this version does not know.
    #[serde(other)]
    Unknown,
}

/// Drops dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeDeadLetters {
    /// The dead-letter topic.
    pub topic: TopicName,
    /// Those before the first that became one at this time or later, in milliseconds since the Unix epoch. `None`: all
    /// that are stored now.
    #[serde(default)]
    pub before_ms: Option<u64>,
    /// Only those before this offset. `None`, the default: no bound but the end.
    #[serde(default)]
    pub until: Option<u64>,
    /// Also if some of them were never redriven, which is refused with `NOT_REDRIVEN` otherwise, or if a subscription or
    /// route that reads the dead-letter topic has not come so far, which is refused with `TOPIC_IN_USE`.
    #[serde(default)]
    pub force: bool,
}

/// What a purge dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Purged {
    /// How many dead letters are gone.
    pub purged: u64,
    /// How many of them had never been redriven.
    pub not_redriven: u64,
    /// The oldest offset that is left, or the next one if there is none.
    pub start: u64,
}
