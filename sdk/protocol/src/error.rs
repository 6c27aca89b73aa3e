//! Error codes: stable numbers and names for everything that a client or an operator can be told.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A stable error code. Names and numbers are part of the protocol and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// Bytes that are not what the protocol says.
    Malformed,
    /// A frame length over the limit of its type.
    FrameTooLarge,
    /// A frame type that this version does not know.
    UnknownFrame,
    /// No protocol version in common.
    UnsupportedVersion,
    /// The first stream of a connection is no hello, or none came in time.
    HelloRequired,
    /// A request or option that this version does not serve.
    Unsupported,
    /// Another engine owns this shard; reserved, a client retries at the address given.
    NotOwner,
    /// The request's deadline passed; whether it took effect is unknown.
    DeadlineExceeded,
    /// The engine is going away; nothing happened.
    ShuttingDown,
    /// One connection, stream or request too many.
    LimitExceeded,
    /// A fault of the engine's own; see its log.
    Internal,
    /// A value outside its range or of the wrong form.
    InvalidArgument,
    /// A name that does not obey its grammar.
    InvalidName,
    /// No such topic, or none that the caller may see.
    TopicNotFound,
    /// A topic of this name exists.
    TopicExists,
    /// A route or subscription still needs the topic.
    TopicInUse,
    /// The topic has fewer partitions.
    PartitionNotFound,
    /// The offset is outside what the partition holds.
    OffsetOutOfRange,
    /// A batch whose length, count, checksum or layout is wrong.
    BatchInvalid,
    /// An event over one of the limits.
    EventTooLarge,
    /// A producer's sequence skips events that were never seen.
    SequenceGap,
    /// A newer epoch of this producer exists.
    ProducerFenced,
    /// The engine no longer knows this producer; begin again at sequence 0.
    ProducerUnknown,
    /// The partition's next offset is not the expected one.
    OffsetMismatch,
    /// The slowest subscription is too far behind; retry later.
    BacklogFull,
    /// Free disk space is under the reserve; retry later.
    StorageFull,
    /// Storage failed before the outcome was durable; retry with the same sequence.
    OutcomeUnknown,
    /// More batches of one producer and partition in flight than the hello allows.
    TooManyInFlight,
    /// A plugin at the publish place refused the event.
    Rejected,
    /// A plugin at the publish place failed.
    PluginFailed,
    /// The place is paused until somebody resumes it.
    PlacePaused,
    /// A header whose name only the engine gives: one that begins with `lv-`.
    HeaderReserved,
    /// No such subscription.
    SubscriptionNotFound,
    /// A subscription of this name exists on the topic.
    SubscriptionExists,
    /// The subscription exists, and an option that was given is another there.
    SubscriptionMismatch,
    /// The delivery is no longer this consumer's: it expired or was given back.
    DeliveryExpired,
    /// Too many offsets above the oldest unacknowledged one.
    WindowFull,
    /// Consumers are attached to the subscription.
    SubscriptionInUse,
    /// No such plugin or version.
    PluginNotFound,
    /// The bytes are no WebAssembly component, or not one that this engine runs.
    PluginInvalid,
    /// The component exports none of the interfaces of levada:plugin.
    PluginExportMissing,
    /// The component imports something that is not granted.
    PluginImportDenied,
    /// The plugin refused its configuration.
    PluginInitRefused,
    /// A subscription or route still uses the plugin.
    PluginInUse,
    /// The artefact is over the limit.
    PluginTooLarge,
    /// No such route.
    RouteNotFound,
    /// A route of this name exists.
    RouteExists,
    /// The route would lead events back to where they came from.
    RouteCycle,
    /// A write or sync failed; the engine takes no writes until it is restarted.
    StorageFailed,
    /// Stored bytes are damaged or missing.
    StorageCorrupt,
    /// Another engine has the data directory open.
    StorageInUse,
    /// The data directory was written by a newer format.
    StorageNewer,
    /// The data directory was written by an older format, which this release does not read.
    StorageOlder,
    /// The store holds another history than the one that it is given.
    StorageDiverged,
    /// Another writer has taken over.
    StorageFenced,
    /// The address to listen on is taken.
    AddressInUse,
    /// A configuration value is missing or wrong.
    ConfigInvalid,
    /// The connection ended; whether what was in flight took effect is unknown.
    ConnectionLost,
    /// No connection could be made.
    ConnectFailed,
    /// The peer's certificate is not trusted, or the handshake failed.
    TlsFailed,
    /// A code of a newer version.
    Unknown(u16),
}

/// Every code of this version with its number and name.
const CODES: &[(ErrorCode, u16, &str)] = &[
    (ErrorCode::Malformed, 1, "MALFORMED"),
    (ErrorCode::FrameTooLarge, 2, "FRAME_TOO_LARGE"),
    (ErrorCode::UnknownFrame, 3, "UNKNOWN_FRAME"),
    (ErrorCode::UnsupportedVersion, 4, "UNSUPPORTED_VERSION"),
    (ErrorCode::HelloRequired, 5, "HELLO_REQUIRED"),
    (ErrorCode::Unsupported, 6, "UNSUPPORTED"),
    (ErrorCode::NotOwner, 7, "NOT_OWNER"),
    (ErrorCode::DeadlineExceeded, 8, "DEADLINE_EXCEEDED"),
    (ErrorCode::ShuttingDown, 9, "SHUTTING_DOWN"),
    (ErrorCode::LimitExceeded, 10, "LIMIT_EXCEEDED"),
    (ErrorCode::Internal, 11, "INTERNAL"),
    (ErrorCode::InvalidArgument, 12, "INVALID_ARGUMENT"),
    (ErrorCode::InvalidName, 13, "INVALID_NAME"),
    (ErrorCode::TopicNotFound, 20, "TOPIC_NOT_FOUND"),
    (ErrorCode::TopicExists, 21, "TOPIC_EXISTS"),
    (ErrorCode::TopicInUse, 22, "TOPIC_IN_USE"),
    (ErrorCode::PartitionNotFound, 23, "PARTITION_NOT_FOUND"),
    (ErrorCode::OffsetOutOfRange, 24, "OFFSET_OUT_OF_RANGE"),
    (ErrorCode::BatchInvalid, 30, "BATCH_INVALID"),
    (ErrorCode::EventTooLarge, 31, "EVENT_TOO_LARGE"),
    (ErrorCode::SequenceGap, 32, "SEQUENCE_GAP"),
    (ErrorCode::ProducerFenced, 33, "PRODUCER_FENCED"),
    (ErrorCode::ProducerUnknown, 34, "PRODUCER_UNKNOWN"),
    (ErrorCode::OffsetMismatch, 35, "OFFSET_MISMATCH"),
    (ErrorCode::BacklogFull, 36, "BACKLOG_FULL"),
    (ErrorCode::StorageFull, 37, "STORAGE_FULL"),
    (ErrorCode::OutcomeUnknown, 38, "OUTCOME_UNKNOWN"),
    (ErrorCode::TooManyInFlight, 39, "TOO_MANY_IN_FLIGHT"),
    (ErrorCode::Rejected, 40, "REJECTED"),
    (ErrorCode::PluginFailed, 41, "PLUGIN_FAILED"),
    (ErrorCode::PlacePaused, 42, "PLACE_PAUSED"),
    (ErrorCode::HeaderReserved, 43, "HEADER_RESERVED"),
    (ErrorCode::SubscriptionNotFound, 50, "SUBSCRIPTION_NOT_FOUND"),
    (ErrorCode::SubscriptionExists, 51, "SUBSCRIPTION_EXISTS"),
    (ErrorCode::SubscriptionMismatch, 52, "SUBSCRIPTION_MISMATCH"),
    (ErrorCode::DeliveryExpired, 53, "DELIVERY_EXPIRED"),
    (ErrorCode::WindowFull, 54, "WINDOW_FULL"),
    (ErrorCode::SubscriptionInUse, 55, "SUBSCRIPTION_IN_USE"),
    (ErrorCode::PluginNotFound, 60, "PLUGIN_NOT_FOUND"),
    (ErrorCode::PluginInvalid, 61, "PLUGIN_INVALID"),
    (ErrorCode::PluginExportMissing, 62, "PLUGIN_EXPORT_MISSING"),
    (ErrorCode::PluginImportDenied, 63, "PLUGIN_IMPORT_DENIED"),
    (ErrorCode::PluginInitRefused, 64, "PLUGIN_INIT_REFUSED"),
    (ErrorCode::PluginInUse, 65, "PLUGIN_IN_USE"),
    (ErrorCode::PluginTooLarge, 66, "PLUGIN_TOO_LARGE"),
    (ErrorCode::RouteNotFound, 70, "ROUTE_NOT_FOUND"),
    (ErrorCode::RouteExists, 71, "ROUTE_EXISTS"),
    (ErrorCode::RouteCycle, 72, "ROUTE_CYCLE"),
    (ErrorCode::StorageFailed, 80, "STORAGE_FAILED"),
    (ErrorCode::StorageCorrupt, 81, "STORAGE_CORRUPT"),
    (ErrorCode::StorageInUse, 82, "STORAGE_IN_USE"),
    (ErrorCode::StorageNewer, 83, "STORAGE_NEWER"),
    (ErrorCode::AddressInUse, 84, "ADDRESS_IN_USE"),
    (ErrorCode::ConfigInvalid, 85, "CONFIG_INVALID"),
    (ErrorCode::StorageOlder, 86, "STORAGE_OLDER"),
    (ErrorCode::StorageDiverged, 87, "STORAGE_DIVERGED"),
    (ErrorCode::StorageFenced, 88, "STORAGE_FENCED"),
    (ErrorCode::ConnectionLost, 90, "CONNECTION_LOST"),
    (ErrorCode::ConnectFailed, 91, "CONNECT_FAILED"),
    (ErrorCode::TlsFailed, 92, "TLS_FAILED"),
];

impl ErrorCode {
    /// The number on the wire.
    pub fn number(self) -> u16 {
        match self {
            Self::Unknown(number) => number,
            known => CODES.iter().find(|row| row.0 == known).map_or(0, |row| row.1),
        }
    }

    /// The code with this number; one that this version does not know is kept as it came.
    pub fn from_number(number: u16) -> Self {
        CODES.iter().find(|row| row.1 == number).map_or(Self::Unknown(number), |row| row.0)
    }

    /// The stable name, such as `TOPIC_NOT_FOUND`.
    pub fn as_str(self) -> &'static str {
        CODES.iter().find(|row| row.0 == self).map_or("UNKNOWN", |row| row.2)
    }

    /// True if the same call may succeed later, unchanged.
    pub fn is_retryable(self) -> bool {
        match self {
            Self::NotOwner
            | Self::DeadlineExceeded
            | Self::ShuttingDown
            | Self::LimitExceeded
            | Self::BacklogFull
            | Self::StorageFull
            | Self::OutcomeUnknown
            | Self::TooManyInFlight
            | Self::PluginFailed
            | Self::PlacePaused
            | Self::WindowFull
            | Self::ConnectionLost
            | Self::ConnectFailed => true,
            Self::Malformed
            | Self::FrameTooLarge
            | Self::UnknownFrame
            | Self::UnsupportedVersion
            | Self::HelloRequired
            | Self::Unsupported
            | Self::Internal
            | Self::InvalidArgument
            | Self::InvalidName
            | Self::TopicNotFound
            | Self::TopicExists
            | Self::TopicInUse
            | Self::PartitionNotFound
            | Self::OffsetOutOfRange
            | Self::BatchInvalid
            | Self::EventTooLarge
            | Self::HeaderReserved
            | Self::SequenceGap
            | Self::ProducerFenced
            | Self::ProducerUnknown
            | Self::OffsetMismatch
            | Self::Rejected
            | Self::SubscriptionNotFound
            | Self::SubscriptionExists
            | Self::SubscriptionMismatch
            | Self::SubscriptionInUse
            | Self::DeliveryExpired
            | Self::PluginNotFound
            | Self::PluginInvalid
            | Self::PluginExportMissing
            | Self::PluginImportDenied
            | Self::PluginInitRefused
            | Self::PluginInUse
            | Self::PluginTooLarge
            | Self::RouteNotFound
            | Self::RouteExists
            | Self::RouteCycle
            | Self::StorageFailed
            | Self::StorageCorrupt
            | Self::StorageInUse
            | Self::StorageNewer
            | Self::StorageOlder
            | Self::StorageDiverged
            | Self::StorageFenced
            | Self::AddressInUse
            | Self::ConfigInvalid
            | Self::TlsFailed
            | Self::Unknown(_) => false,
        }
    }

    /// True if it is certain that nothing was changed.
    pub fn has_no_side_effects(self) -> bool {
        match self {
            Self::Malformed
            | Self::FrameTooLarge
            | Self::UnknownFrame
            | Self::UnsupportedVersion
            | Self::HelloRequired
            | Self::Unsupported
            | Self::NotOwner
            | Self::ShuttingDown
            | Self::LimitExceeded
            | Self::InvalidArgument
            | Self::InvalidName
            | Self::TopicNotFound
            | Self::TopicExists
            | Self::TopicInUse
            | Self::PartitionNotFound
            | Self::OffsetOutOfRange
            | Self::BatchInvalid
            | Self::EventTooLarge
            | Self::HeaderReserved
            | Self::SequenceGap
            | Self::ProducerFenced
            | Self::ProducerUnknown
            | Self::OffsetMismatch
            | Self::BacklogFull
            | Self::StorageFull
            | Self::TooManyInFlight
            | Self::Rejected
            | Self::PluginFailed
            | Self::PlacePaused
            | Self::SubscriptionNotFound
            | Self::SubscriptionExists
            | Self::SubscriptionMismatch
            | Self::SubscriptionInUse
            | Self::DeliveryExpired
            | Self::WindowFull
            | Self::PluginNotFound
            | Self::PluginInvalid
            | Self::PluginExportMissing
            | Self::PluginImportDenied
            | Self::PluginInitRefused
            | Self::PluginInUse
            | Self::PluginTooLarge
            | Self::RouteNotFound
            | Self::RouteExists
            | Self::RouteCycle
            | Self::StorageFailed
            | Self::StorageCorrupt
            | Self::StorageInUse
            | Self::StorageNewer
            | Self::StorageOlder
            | Self::StorageDiverged
            | Self::StorageFenced
            | Self::AddressInUse
            | Self::ConfigInvalid
            | Self::ConnectFailed
            | Self::TlsFailed => true,
            Self::DeadlineExceeded
            | Self::Internal
            | Self::OutcomeUnknown
            | Self::ConnectionLost
            | Self::Unknown(_) => false,
        }
    }

    /// All codes of this version, in order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        CODES.iter().map(|row| row.0)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(number) => write!(f, "UNKNOWN_{number}"),
            known => f.write_str(known.as_str()),
        }
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(self.number())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u16::deserialize(deserializer).map(Self::from_number)
    }
}

/// A refusal as it travels: code, one sentence, and when to try again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// The stable code.
    pub code: ErrorCode,
    /// What was expected and what came, in lower case and without a full stop.
    #[serde(default)]
    pub message: String,
    /// How long to wait before a retry, if the code is retryable and the engine knows.
    #[serde(default)]
    pub retry_after_ms: Option<u32>,
}

impl Refusal {
    /// A refusal with this code and sentence.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_ms: None }
    }

    /// The same refusal with a hint when to try again.
    #[must_use]
    pub fn retry_after(mut self, milliseconds: u32) -> Self {
        self.retry_after_ms = Some(milliseconds);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_round_trip() {
        let mut seen = std::collections::HashSet::new();
        for code in ErrorCode::all() {
            assert!(seen.insert(code.number()), "{code} shares its number");
            assert_eq!(ErrorCode::from_number(code.number()), code);
            assert_ne!(code.number(), 0);
        }
        assert_eq!(ErrorCode::from_number(9999), ErrorCode::Unknown(9999));
    }
}
