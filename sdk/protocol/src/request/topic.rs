//! Topics, as they are asked for, changed and shown.

use serde::{Deserialize, Serialize};

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
    /// How long events are kept at least, in milliseconds. Default 72 h.
    pub retain_for_ms: u64,
    /// Stored bytes over which the oldest are dropped (`time_and_size`); 0 means no bound.
    pub max_bytes: u64,
}

impl Default for TopicSettings {
    fn default() -> Self {
        Self {
            partitions: 1,
            durability: Durability::Sync,
            retain: Retain::default(),
            retain_for_ms: 72 * 3_600_000,
            max_bytes: 0,
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
}

impl TopicChanges {
    /// What the settings are once this has changed.
    #[must_use]
    pub fn of(&self, settings: &TopicSettings) -> TopicSettings {
        TopicSettings {
            partitions: self.partitions.unwrap_or(settings.partitions),
            durability: self.durability.unwrap_or(settings.durability),
            retain: self.retain.unwrap_or(settings.retain),
            retain_for_ms: self.retain_for_ms.unwrap_or(settings.retain_for_ms),
            max_bytes: self.max_bytes.unwrap_or(settings.max_bytes),
        }
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
}

impl TopicInfo {
    /// A topic with default settings of which nothing else is known.
    pub fn new(name: TopicName) -> Self {
        Self { name, id: 0, settings: TopicSettings::default(), created_ms: 0, partitions: Vec::new() }
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
