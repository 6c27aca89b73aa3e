//! Why a subscription or route pauses, in the words of the wire.

use levada_chain::Paused;
use levada_protocol::request::PauseReason;

use crate::error::Error;

/// What its chain says: without a time to try again it is the policy of a plugin, otherwise the breaker.
pub(crate) fn of_chain(paused: Paused) -> PauseReason {
    let message = paused.why;
    match paused.retry_after {
        None => PauseReason::Plugin { message },
        Some(_) => PauseReason::Breaker { message },
    }
}

/// Its chain, or a topic that it needs, could not be had.
pub(crate) fn of_attach(error: &Error) -> PauseReason {
    PauseReason::Chain { code: error.code(), message: error.refusal().message }
}

/// Events could not be read, or progress not be written.
pub(crate) fn of_storage(error: &Error) -> PauseReason {
    PauseReason::Storage { code: error.code(), message: error.refusal().message }
}
