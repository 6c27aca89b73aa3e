//! What a subscription is like, and the plugins that a place has, as they are asked for and shown.

use serde::{Deserialize, Serialize};

use super::Position;

/// How several consumers of one subscription share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Events of one key in order, to one consumer at a time. In this version as `partition`.
    #[default]
    Key,
    /// One active consumer; the others stand by.
    Partition,
    /// Whoever has credit.
    None,
}

/// How a subscription delivers, as far as it is given.
///
/// In a request, what is not given is left to the engine: a subscription that is made now gets the default, one that
/// exists keeps what it has. In an answer, everything is given.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SubscriptionOptions {
    /// How several consumers share it. Default `key`.
    pub order: Option<Order>,
    /// Plugins that events pass, in order. Default none.
    pub chain: Option<Vec<StageSpec>>,
    /// Milliseconds after which an unacknowledged delivery may be given again. Default 30,000.
    pub ack_timeout_ms: Option<u32>,
    /// Deliveries after which an event becomes a dead letter. Default 16.
    pub max_attempts: Option<u16>,
    /// Most unacknowledged events of one consumer. Default 1,000.
    pub max_in_flight: Option<u32>,
}

impl SubscriptionOptions {
    /// The order, or the default.
    pub fn order(&self) -> Order {
        self.order.unwrap_or_default()
    }

    /// The chain, or none.
    pub fn chain(&self) -> &[StageSpec] {
        self.chain.as_deref().unwrap_or_default()
    }

    /// The acknowledgement timeout in milliseconds, or the default.
    pub fn ack_timeout_ms(&self) -> u32 {
        self.ack_timeout_ms.unwrap_or(30_000)
    }

    /// The most deliveries of an event, or the default.
    pub fn max_attempts(&self) -> u16 {
        self.max_attempts.unwrap_or(16)
    }

    /// The most unacknowledged events of a consumer, or the default.
    pub fn max_in_flight(&self) -> u32 {
        self.max_in_flight.unwrap_or(1_000)
    }

    /// The same with the default for whatever is not given.
    #[must_use]
    pub fn with_defaults(self) -> Self {
        Self {
            order: Some(self.order()),
            ack_timeout_ms: Some(self.ack_timeout_ms()),
            max_attempts: Some(self.max_attempts()),
            max_in_flight: Some(self.max_in_flight()),
            chain: Some(self.chain.unwrap_or_default().into_iter().map(StageSpec::with_defaults).collect()),
        }
    }
}

/// A subscription as it stands.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SubscriptionInfo {
    /// The topic's name.
    pub topic: String,
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: u64,
    /// Its options.
    pub options: SubscriptionOptions,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Attached consumers, the active one first.
    pub consumers: Vec<String>,
    /// Those of them that get nothing for now: their deliveries timed out again and again, and others take deliveries.
    pub passed_over: Vec<String>,
    /// Per partition: the oldest offset not acknowledged.
    pub positions: Vec<Position>,
    /// Events neither acknowledged nor filtered, over all partitions.
    pub lag: u64,
    /// Milliseconds since the oldest of them was appended; 0 if there is none.
    pub oldest_unacked_age_ms: u64,
    /// Events delivered and not yet acknowledged.
    pub in_flight: u64,
    /// Events delivered again, since the engine started.
    pub redelivered: u64,
    /// Events that went to the dead-letter topic, since the engine started.
    pub dead_lettered: u64,
    /// Events that retention dropped before they were acknowledged.
    pub events_lost: u64,
    /// Why it does not deliver, if it is paused.
    pub paused: Option<String>,
}

/// What happens to an event that a stage fails on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// To the dead-letter topic, in the commit that passes it.
    #[default]
    DeadLetter,
    /// Dropped and counted.
    Skip,
    /// The place stops until somebody resumes it.
    Pause,
    /// Goes on unchanged.
    Pass,
}

/// A plugin with its configuration at one place.
///
/// Policy and limits are optional as [`SubscriptionOptions`] are: given in every answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StageSpec {
    /// `name` for the newest version, `name@3` for that one.
    pub plugin: String,
    /// The configuration: JSON text. Default `{}`.
    pub config: String,
    /// What happens to an event that it fails on. Default `dead_letter`.
    pub on_error: Option<OnError>,
    /// How often a failing event is tried again before that. Default 3.
    pub retries: Option<u8>,
    /// Milliseconds for one call. Default 100.
    pub deadline_ms: Option<u32>,
    /// Bytes of memory of one instance. Default 32 MiB.
    pub memory_bytes_max: Option<u64>,
}

impl Default for StageSpec {
    fn default() -> Self {
        Self {
            plugin: String::new(),
            config: "{}".to_owned(),
            on_error: None,
            retries: None,
            deadline_ms: None,
            memory_bytes_max: None,
        }
    }
}

impl StageSpec {
    /// The policy, or the default.
    pub fn on_error(&self) -> OnError {
        self.on_error.unwrap_or_default()
    }

    /// The number of retries, or the default.
    pub fn retries(&self) -> u8 {
        self.retries.unwrap_or(3)
    }

    /// The milliseconds for one call, or the default.
    pub fn deadline_ms(&self) -> u32 {
        self.deadline_ms.unwrap_or(100)
    }

    /// The bytes of memory of one instance, or the default.
    pub fn memory_bytes_max(&self) -> u64 {
        self.memory_bytes_max.unwrap_or(32 * 1024 * 1024)
    }

    /// The same with the default for whatever is not given.
    #[must_use]
    pub fn with_defaults(self) -> Self {
        Self {
            on_error: Some(self.on_error()),
            retries: Some(self.retries()),
            deadline_ms: Some(self.deadline_ms()),
            memory_bytes_max: Some(self.memory_bytes_max()),
            ..self
        }
    }
}
