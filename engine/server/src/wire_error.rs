//! Turns the broker's errors into what a client sees: a refusal, a close code.

use levada_broker::Error;
use levada_protocol::{
    error::{ErrorCode, Refusal},
    limits::REASON_BYTES_MAX,
};
use quinn::VarInt;

/// The refusal for a failed call. An error of the engine is logged here, the last point where it is known whole.
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
