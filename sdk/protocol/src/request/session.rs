//! The control stream: the hello, its answer, and notices.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{SubscriptionName, TopicName},
    limits::{
        ARTEFACT_BYTES_MAX, BATCH_BODY_BYTES_MAX, BATCH_EVENTS_MAX, DELAY_MS_MAX, EVENT_BYTES_MAX,
        EVENT_ID_BYTES_MAX, HEADER_NAME_BYTES_MAX, HEADERS_BYTES_MAX, HEADERS_MAX, KEY_BYTES_MAX,
        PRODUCER_IN_FLIGHT_MAX, REQUEST_BYTES_MAX, TRANSACTION_ACKS_MAX, TRANSACTION_BATCHES_MAX,
        TRANSACTION_BYTES_MAX, TRANSACTION_EVENTS_MAX, TRANSACTION_ID_BYTES_MAX, VERBS_MAX,
    },
};

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
    /// The text of a token of the principal on whose behalf the client acts; without one it may have shown a client certificate.
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
    /// On whose behalf the connection acts: a principal's name, or `local` in an engine without principals.
    pub principal: String,
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
    /// Largest request.
    pub request_bytes_max: u64,
    /// Most verbs in one frame.
    pub verbs_max: u32,
    /// How far ahead a delayed event may be due, in milliseconds.
    pub delay_ms_max: u64,
    /// Of the parts of one event.
    pub event: EventLimits,
    /// Of one transaction.
    pub transaction: TransactionLimits,
}

/// The limits of the parts of one event, beside `event_bytes_max` of the whole.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EventLimits {
    /// Largest key.
    pub key_bytes_max: u32,
    /// Longest id.
    pub id_bytes_max: u32,
    /// Most headers.
    pub headers_max: u32,
    /// Longest name of a header.
    pub header_name_bytes_max: u32,
    /// All headers together: 3 + name + value each.
    pub headers_bytes_max: u32,
}

/// The limits of one transaction.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TransactionLimits {
    /// Longest id.
    pub id_bytes_max: u32,
    /// All its batches together.
    pub bytes_max: u64,
    /// Most events.
    pub events_max: u32,
    /// Most batches.
    pub batches_max: u32,
    /// Most deliveries, or parts of them, that it acknowledges.
    pub acks_max: u32,
}

impl Limits {
    /// Those of this version of the protocol, for a connection that may have so many streams open.
    pub fn of_this_version(streams_max: u32) -> Self {
        let count = |limit: usize| u32::try_from(limit).expect("the protocol's counts are small");
        Self {
            event_bytes_max: EVENT_BYTES_MAX as u64,
            batch_body_bytes_max: BATCH_BODY_BYTES_MAX as u64,
            batch_events_max: count(BATCH_EVENTS_MAX),
            producer_in_flight_max: count(PRODUCER_IN_FLIGHT_MAX),
            artefact_bytes_max: ARTEFACT_BYTES_MAX as u64,
            streams_max,
            request_bytes_max: REQUEST_BYTES_MAX as u64,
            verbs_max: count(VERBS_MAX),
            delay_ms_max: DELAY_MS_MAX,
            event: EventLimits {
                key_bytes_max: count(KEY_BYTES_MAX),
                id_bytes_max: count(EVENT_ID_BYTES_MAX),
                headers_max: count(HEADERS_MAX),
                header_name_bytes_max: count(HEADER_NAME_BYTES_MAX),
                headers_bytes_max: count(HEADERS_BYTES_MAX),
            },
            transaction: TransactionLimits {
                id_bytes_max: count(TRANSACTION_ID_BYTES_MAX),
                bytes_max: TRANSACTION_BYTES_MAX as u64,
                events_max: count(TRANSACTION_EVENTS_MAX),
                batches_max: count(TRANSACTION_BATCHES_MAX),
                acks_max: count(TRANSACTION_ACKS_MAX),
            },
        }
    }
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
