//! What is asked of a pull, what it brings, and how an event of it is named.

use levada_protocol::{
    ids::{DeliveryToken, Offset, PartitionId, SubscriptionName, TopicId, TopicName},
    verbs::Credit,
};
use tokio::time::Duration;

use crate::outgoing::Delivery;

/// Names a pull; no other pull of this or another start has the same number, but for chance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PullId(pub u64);

/// What is pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    /// The topic.
    pub topic: TopicName,
    /// The subscription, which must exist.
    pub subscription: SubscriptionName,
    /// Most events, and bytes after which no further delivery is made; each above zero.
    pub credit: Credit,
    /// How long to wait for a first event; at least what it takes to look, a twentieth of a second.
    pub wait: Duration,
}

/// What a pull brought.
#[derive(Debug)]
pub struct Pulled {
    /// The topic's id.
    pub topic: TopicId,
    /// The pull; it is kept while any of this is in flight.
    pub pull: PullId,
    /// The events; none if there were none in time.
    pub deliveries: Vec<Delivery>,
}

/// Names one event that a pull brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PulledEvent {
    /// The pull.
    pub pull: PullId,
    /// The event's partition.
    pub partition: PartitionId,
    /// The event's offset.
    pub offset: Offset,
    /// The token of the delivery that it came in.
    pub delivery: DeliveryToken,
}
