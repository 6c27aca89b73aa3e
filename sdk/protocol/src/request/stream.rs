//! What opens a consumer or a reader, and where reading begins.

use serde::{Deserialize, Serialize};

use super::{Search, SubscriptionOptions};
use crate::{
    ids::{SubscriptionName, TopicName},
    trace::TraceContext,
};

/// Where to begin in a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "at", content = "value", rename_all = "snake_case")]
pub enum Start {
    /// The oldest event still stored.
    Earliest,
    /// The durable end: only what comes from now on.
    #[default]
    Latest,
    /// This offset, in every partition read.
    Offset(u64),
    /// The first event appended at or after this time, in milliseconds since the Unix epoch; the end if there is none. A time
    /// that has not come by the engine's clock, give or take a minute, is refused with `OFFSET_OUT_OF_RANGE`.
    Time(u64),
}

/// Attaches a consumer to a subscription.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subscribe {
    /// The topic.
    pub topic: TopicName,
    /// The subscription on it.
    pub subscription: SubscriptionName,
    /// Names the consumer in listings; at most 256 bytes.
    #[serde(default)]
    pub consumer: String,
    /// Make the subscription with these options if it is absent; if it exists and one that is given is another:
    /// `SUBSCRIPTION_MISMATCH`. `None`: it must exist, with whatever options.
    #[serde(default)]
    pub options: Option<SubscriptionOptions>,
    /// Where a subscription that is made now begins.
    #[serde(default)]
    pub from: Start,
    /// The caller's span, for tracing.
    #[serde(default)]
    pub trace: Option<TraceContext>,
}

impl Subscribe {
    /// A consumer without a name of a subscription that must exist.
    pub fn new(topic: TopicName, subscription: SubscriptionName) -> Self {
        let (consumer, options, from, trace) = (String::new(), None, Start::default(), None);
        Self { topic, subscription, consumer, options, from, trace }
    }
}

/// The engine's answer to [`Subscribe`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Subscribed {
    /// True if the subscription was made by this.
    pub created: bool,
    /// How many partitions the topic has.
    pub partitions: u16,
    /// The oldest offset not yet acknowledged, per partition.
    pub positions: Vec<Position>,
    /// How many stored events lie before the positions; what `earliest` would have read in addition.
    pub stored_before: u64,
    /// True while another consumer is active and this one waits to take over.
    pub standby: bool,
    /// Milliseconds after which an unacknowledged delivery is given again. 0: the engine does not say.
    pub ack_timeout_ms: u32,
}

/// An offset in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Position {
    /// The partition.
    pub partition: u16,
    /// The offset.
    pub offset: u64,
}

/// Reads stored events without leaving a trace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Read {
    /// The topic.
    pub topic: TopicName,
    /// Which partitions; empty means all.
    #[serde(default)]
    pub partitions: Vec<u16>,
    /// Where to begin in each.
    #[serde(default)]
    pub from: Start,
    /// True: go on with new events until the stream ends. False: `End` after what is stored now.
    #[serde(default)]
    pub follow: bool,
    /// Begin here instead of at `from` in the partitions that this names: where another reader ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub positions: Vec<Position>,
    /// Which events, instead of all; the answer has `Progress` frames then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<Search>,
    /// The caller's span, for tracing.
    #[serde(default)]
    pub trace: Option<TraceContext>,
}

impl Read {
    /// A reader of all events of all partitions that begins at the end and does not follow.
    pub fn new(topic: TopicName) -> Self {
        let (partitions, from, follow) = (Vec::new(), Start::default(), false);
        Self { topic, partitions, from, follow, positions: Vec::new(), search: None, trace: None }
    }
}
