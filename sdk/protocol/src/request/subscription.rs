//! Subscriptions, as they are asked for and shown.

use serde::{Deserialize, Serialize};

use super::{Position, PushInfo, RunState, StageSpec, WaitingFor};
use crate::ids::{SubscriptionName, TopicName};
#[cfg(doc)]
use crate::limits::{EXPIRE_AFTER_MS_MAX, EXPIRE_AFTER_MS_MIN};

/// How several consumers of one subscription share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Events of one key in order, to one consumer at a time; events without a key in no order.
    #[default]
    Key,
    /// One active consumer; the others stand by.
    Partition,
    /// Events go to any consumer with credit.
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
    /// Milliseconds that an event waits after its first failed delivery, its second, and so on; the last one repeats. Each
    /// wait is up to a tenth shorter or longer, at random. An empty list means no wait. Default [`BACKOFF_MS`].
    pub backoff_ms: Option<Vec<u32>>,
    /// Events delivered per second, over all consumers and with redeliveries; at once at most a tenth of them, or one. 0
    /// means no limit, the default.
    pub rate: Option<u32>,
    /// Whether an event whose time to live ends before it is delivered becomes a dead letter, with the reason `expired`. By
    /// default it is passed over as if it were acknowledged.
    pub dead_letter_expired: Option<bool>,
    /// Milliseconds without a consumer after which the engine deletes the subscription, with what it has yet to deliver;
    /// its dead-letter topic stays. From [`EXPIRE_AFTER_MS_MIN`] to [`EXPIRE_AFTER_MS_MAX`]; 0 means never, the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expire_after_ms: Option<u64>,
}

/// How long a failed event waits if nothing else is said: 1 s, 5 s, 10 s, 30 s, 1 min, 2 min, 5 min, 10 min, 30 min, 1 h,
/// then always 2 h.
pub const BACKOFF_MS: [u32; 11] =
    [1_000, 5_000, 10_000, 30_000, 60_000, 120_000, 300_000, 600_000, 1_800_000, 3_600_000, 7_200_000];

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

    /// The waits after failed deliveries in milliseconds, or the default.
    pub fn backoff_ms(&self) -> &[u32] {
        self.backoff_ms.as_deref().unwrap_or(&BACKOFF_MS)
    }

    /// The most events delivered in a second; `None` if there is no limit.
    pub fn rate(&self) -> Option<u32> {
        self.rate.filter(|rate| *rate > 0)
    }

    /// Whether an event whose time to live is over becomes a dead letter.
    pub fn dead_letter_expired(&self) -> bool {
        self.dead_letter_expired.unwrap_or(false)
    }

    /// The milliseconds without a consumer after which it is deleted; `None` if it never is.
    pub fn expire_after_ms(&self) -> Option<u64> {
        self.expire_after_ms.filter(|after| *after > 0)
    }

    /// These options where they are given, and `other` where they are not.
    #[must_use]
    pub fn or(self, other: &Self) -> Self {
        Self {
            order: self.order.or(other.order),
            chain: self.chain.or_else(|| other.chain.clone()),
            ack_timeout_ms: self.ack_timeout_ms.or(other.ack_timeout_ms),
            max_attempts: self.max_attempts.or(other.max_attempts),
            max_in_flight: self.max_in_flight.or(other.max_in_flight),
            backoff_ms: self.backoff_ms.or_else(|| other.backoff_ms.clone()),
            rate: self.rate.or(other.rate),
            dead_letter_expired: self.dead_letter_expired.or(other.dead_letter_expired),
            expire_after_ms: self.expire_after_ms.or(other.expire_after_ms),
        }
    }

    /// The same with the default for whatever is not given.
    #[must_use]
    pub fn with_defaults(self) -> Self {
        Self {
            order: Some(self.order()),
            ack_timeout_ms: Some(self.ack_timeout_ms()),
            max_attempts: Some(self.max_attempts()),
            max_in_flight: Some(self.max_in_flight()),
            backoff_ms: Some(self.backoff_ms().to_vec()),
            rate: Some(self.rate().unwrap_or(0)),
            dead_letter_expired: Some(self.dead_letter_expired()),
            expire_after_ms: Some(self.expire_after_ms().unwrap_or(0)),
            chain: Some(self.chain.unwrap_or_default().into_iter().map(StageSpec::with_defaults).collect()),
        }
    }
}

/// Something about a subscription that somebody should look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alarm {
    /// It has had no consumer for a day or longer, and holds back what its topic would drop.
    Unattended,
    /// Something that a newer version knows.
    #[serde(other)]
    Unknown,
}

impl Alarm {
    /// The word for it in metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unattended => "unattended",
            Self::Unknown => "unknown",
        }
    }
}

/// What a subscription has lost of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LostEvents {
    /// The partition.
    pub partition: u16,
    /// The first offset of those lost last. Losses that no client had been told of when more was lost are one range, which
    /// covers all of them.
    pub first: u64,
    /// The last offset, included; those between may have been acknowledged.
    pub last: u64,
    /// How many events were lost since the subscription was made.
    pub events: u64,
    /// How many of them were lost before those of the range.
    pub earlier: u64,
}

/// The description and current state of a subscription.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubscriptionInfo {
    /// The topic.
    pub topic: TopicName,
    /// Its name.
    pub name: SubscriptionName,
    /// Its id.
    #[serde(default)]
    pub id: u64,
    /// Its options.
    #[serde(default)]
    pub options: SubscriptionOptions,
    /// When it was made, in milliseconds since the Unix epoch.
    #[serde(default)]
    pub created_ms: u64,
    /// Attached consumers; by [`Order::Partition`] the active one is the first.
    #[serde(default)]
    pub consumers: Vec<String>,
    /// Those of them that get nothing for now: their deliveries timed out again and again, and others take deliveries.
    #[serde(default)]
    pub passed_over: Vec<String>,
    /// Since when no consumer is attached, in milliseconds since the Unix epoch by the engine's clock: since the last one
    /// left, since the subscription was made, or since the start after the engine died with consumers attached. `None`
    /// while a consumer is attached.
    #[serde(default)]
    pub unattended_since_ms: Option<u64>,
    /// How long that is by the engine's clock, in milliseconds; `None` while a consumer is attached.
    #[serde(default)]
    pub unattended_for_ms: Option<u64>,
    /// What somebody should look at; usually nothing.
    #[serde(default)]
    pub alarms: Vec<Alarm>,
    /// Per partition: the oldest offset not acknowledged.
    #[serde(default)]
    pub positions: Vec<Position>,
    /// Events neither acknowledged nor filtered, over all partitions.
    #[serde(default)]
    pub lag: u64,
    /// Events of dead letters that were redriven to this subscription alone, and have not come to their end again. They are
    /// not part of the lag.
    #[serde(default)]
    pub redriven: u64,
    /// Milliseconds since the oldest event of the lag was appended; 0 if there is none.
    #[serde(default)]
    pub oldest_unacked_age_ms: u64,
    /// Events delivered and not yet acknowledged.
    #[serde(default)]
    pub in_flight: u64,
    /// Events delivered again, since the engine started.
    #[serde(default)]
    pub redelivered: u64,
    /// Events that went to the dead-letter topic, since the engine started.
    #[serde(default)]
    pub dead_lettered: u64,
    /// Events that retention, a purge or a full backlog dropped before they were acknowledged, since the subscription was
    /// made.
    #[serde(default)]
    pub events_lost: u64,
    /// Which those were, partition by partition; not of partitions that lost none.
    #[serde(default)]
    pub lost: Vec<LostEvents>,
    /// Events whose time to live ended before they were delivered, or delivered again, since the engine started.
    #[serde(default)]
    pub events_expired: u64,
    /// Whether it delivers, and why not.
    #[serde(default)]
    pub state: RunState,
    /// What has to happen before it delivers more.
    #[serde(default)]
    pub waiting_for: WaitingFor,
    /// The key of the event that `waiting_for` is about, as text; bytes that are not UTF-8 are replaced. `None` if it is
    /// about none, or if that has no key; and in lists.
    #[serde(default)]
    pub waiting_for_key: Option<String>,
    /// Events appended to the topic in a second, over the last minute.
    #[serde(default)]
    pub arriving_per_s: f64,
    /// Events that came to their end in a second, over the last minute. What was lost does not count.
    #[serde(default)]
    pub settling_per_s: f64,
    /// Milliseconds until there is no lag, if both rates stay as they are; `None` if the lag does not shrink, or if no
    /// consumer is attached.
    #[serde(default)]
    pub clears_in_ms: Option<u64>,
    /// Where the engine pushes its deliveries, if it does.
    #[serde(default)]
    pub push: Option<Box<PushInfo>>,
}

impl SubscriptionInfo {
    /// A subscription that has delivered nothing yet.
    pub fn new(topic: TopicName, name: SubscriptionName) -> Self {
        Self {
            topic,
            name,
            id: 0,
            options: SubscriptionOptions::default(),
            created_ms: 0,
            consumers: Vec::new(),
            passed_over: Vec::new(),
            unattended_since_ms: None,
            unattended_for_ms: None,
            alarms: Vec::new(),
            positions: Vec::new(),
            lag: 0,
            redriven: 0,
            oldest_unacked_age_ms: 0,
            in_flight: 0,
            redelivered: 0,
            dead_lettered: 0,
            events_lost: 0,
            lost: Vec::new(),
            events_expired: 0,
            state: RunState::default(),
            waiting_for: WaitingFor::default(),
            waiting_for_key: None,
            arriving_per_s: 0.0,
            settling_per_s: 0.0,
            clears_in_ms: None,
            push: None,
        }
    }
}
