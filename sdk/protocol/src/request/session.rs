//! The control stream: the hello, its answer, and notices.

use serde::{Deserialize, Serialize};

use crate::ids::{SubscriptionName, TopicName};

/// What a client says first.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Hello {
    /// Oldest protocol version spoken.
    pub protocol_min: u16,
    /// Newest protocol version spoken.
    pub protocol_max: u16,
    /// Name and version of the client library, for the engine's log.
    pub client: String,
    /// A bearer token; not used yet.
    pub token: Option<String>,
    /// Optional features wanted; none are defined yet.
    pub features: Vec<String>,
}

/// The engine's answer to a hello.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HelloAnswer {
    /// The version both will speak.
    pub protocol: u16,
    /// The engine's version.
    pub version: String,
    /// Names this data directory; the same after a restart.
    pub engine_id: String,
    /// Names this start of the engine; another after a restart.
    pub start_id: String,
    /// The engine's clock in milliseconds since the Unix epoch.
    pub server_time_ms: u64,
    /// What a client must obey.
    pub limits: Limits,
}

/// The limits of `limits.rs` that a client must obey, in bytes and counts.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Largest event.
    pub event_bytes_max: u64,
    /// Largest batch body.
    pub batch_body_bytes_max: u64,
    /// Most events in a batch.
    pub batch_events_max: u32,
    /// Most unacknowledged batches of one producer and partition.
    pub producer_in_flight_max: u32,
    /// Largest plugin artefact.
    pub artefact_bytes_max: u64,
    /// Most streams that this connection may have open at once, the control stream among them.
    pub streams_max: u32,
}

/// A message of the engine to a client on the control stream, which answers no request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Notice {
    /// The engine is going away; finish what is in flight and reconnect.
    GoAway {
        /// The cause, for a person.
        reason: String,
    },
    /// Retention dropped events that a subscription had not acknowledged.
    EventsLost {
        /// The topic.
        topic: TopicName,
        /// The subscription on it.
        subscription: SubscriptionName,
        /// The partition.
        partition: u16,
        /// The first lost offset.
        first: u64,
        /// The last lost offset.
        last: u64,
    },
    /// Reserved (`CheckBack`, `TopicChanged`) or of a newer version.
    #[serde(other)]
    Unknown,
}
