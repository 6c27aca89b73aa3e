//! Where the broker's errors become what a client sees: the one match per surface, none with a catch-all.

use axum::http::StatusCode;
use levada_broker::Error;
use levada_protocol::{
    error::{ErrorCode, Refusal},
    limits::REASON_BYTES_MAX,
};
use quinn::VarInt;

/// What a client is told about a failed call. A fault of ours is logged here, where it is last seen.
pub(crate) fn refusal(error: &Error) -> Refusal {
    match error {
        Error::Refused(refusal) if refusal.code == ErrorCode::Internal => {
            tracing::error!(%error, "internal fault answered");
        }
        Error::Refused(_) | Error::ShuttingDown => tracing::debug!(%error, "call refused"),
        Error::Store { .. } => tracing::warn!(%error, "call refused by the store"),
    }
    bounded(error.refusal())
}

/// The same refusal with a text that fits every frame: it may quote what the client sent.
pub(crate) fn bounded(mut refusal: Refusal) -> Refusal {
    refusal.message.truncate(refusal.message.floor_char_boundary(REASON_BYTES_MAX));
    refusal
}

/// The application code with which a stream or connection is closed: the error's number.
pub(crate) fn close_code(code: ErrorCode) -> VarInt {
    VarInt::from_u32(u32::from(code.number()))
}

/// The HTTP status that goes with a code.
pub(crate) fn http_status(code: ErrorCode) -> StatusCode {
    use ErrorCode as Code;
    match code {
        Code::Malformed
        | Code::UnknownFrame
        | Code::InvalidArgument
        | Code::InvalidName
        | Code::BatchInvalid
        | Code::HeaderReserved
        | Code::PluginInvalid
        | Code::PluginExportMissing
        | Code::PluginImportDenied
        | Code::PluginInitRefused
        | Code::RouteCycle
        | Code::ConfigInvalid => StatusCode::BAD_REQUEST,
        // A path that this version does not serve is, to HTTP, not there.
        Code::Unsupported
        | Code::TopicNotFound
        | Code::PartitionNotFound
        | Code::SubscriptionNotFound
        | Code::PluginNotFound
        | Code::RouteNotFound => StatusCode::NOT_FOUND,
        Code::TopicExists
        | Code::TopicInUse
        | Code::SubscriptionExists
        | Code::SubscriptionMismatch
        | Code::SubscriptionInUse
        | Code::RouteExists
        | Code::PluginInUse
        | Code::OffsetMismatch
        | Code::SequenceGap
        | Code::ProducerFenced
        | Code::ProducerUnknown
        | Code::DeliveryExpired
        | Code::StorageInUse
        | Code::AddressInUse => StatusCode::CONFLICT,
        Code::FrameTooLarge | Code::EventTooLarge | Code::PluginTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::OffsetOutOfRange => StatusCode::RANGE_NOT_SATISFIABLE,
        Code::Rejected => StatusCode::UNPROCESSABLE_ENTITY,
        Code::LimitExceeded | Code::BacklogFull | Code::TooManyInFlight | Code::WindowFull => {
            StatusCode::TOO_MANY_REQUESTS
        }
        Code::NotOwner => StatusCode::MISDIRECTED_REQUEST,
        Code::UnsupportedVersion | Code::HelloRequired => StatusCode::UPGRADE_REQUIRED,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
        Code::ShuttingDown
        | Code::OutcomeUnknown
        | Code::PluginFailed
        | Code::PlacePaused
        | Code::StorageFailed
        | Code::ConnectionLost
        | Code::ConnectFailed => StatusCode::SERVICE_UNAVAILABLE,
        Code::Internal
        | Code::StorageCorrupt
        | Code::StorageNewer
        | Code::StorageOlder
        | Code::StorageDiverged
        | Code::StorageFenced
        | Code::TlsFailed
        | Code::Unknown(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
