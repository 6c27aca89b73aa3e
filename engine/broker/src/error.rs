//! Errors of the broker's calls.

use levada_chain::SliceError;
use levada_protocol::{
    error::{ErrorCode, Refusal},
    ids::{InvalidName, InvalidTokenId},
};

/// Why a call into the broker failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Refused with a code and a sentence.
    #[error("{0}")]
    Refused(Refusal),
    /// The store failed.
    #[error("storage failed: {message}")]
    Store {
        /// The store's code.
        code: ErrorCode,
        /// The store's words.
        message: String,
    },
    /// The broker is shutting down.
    #[error("the engine is shutting down")]
    ShuttingDown,
}

impl Error {
    /// A refusal with this code and sentence.
    pub fn refused(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::Refused(Refusal::new(code, message))
    }

    /// The answer to something that the writer may have taken, and which never came.
    pub(crate) fn unanswered() -> Self {
        let message = "the engine's writer ended before it answered; whether it took effect is unknown";
        Self::refused(ErrorCode::OutcomeUnknown, message)
    }

    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Refused(refusal) => refusal.code,
            Self::Store { code, .. } => *code,
            Self::ShuttingDown => ErrorCode::ShuttingDown,
        }
    }

    /// True if the same call may succeed later, unchanged.
    pub fn is_retryable(&self) -> bool {
        self.code().is_retryable()
    }

    /// True if it is certain that nothing was changed.
    pub fn has_no_side_effects(&self) -> bool {
        self.code().has_no_side_effects()
    }

    /// The same, as it travels.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Refused(refusal) => refusal.clone(),
            Self::Store { code, message } => Refusal::new(*code, message.clone()),
            Self::ShuttingDown => Refusal::new(ErrorCode::ShuttingDown, self.to_string()).retry_after(500),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<InvalidName> for Error {
    fn from(error: InvalidName) -> Self {
        Self::refused(ErrorCode::InvalidName, error.to_string())
    }
}

impl From<InvalidTokenId> for Error {
    fn from(error: InvalidTokenId) -> Self {
        Self::refused(ErrorCode::InvalidName, error.to_string())
    }
}

impl From<SliceError> for Error {
    fn from(error: SliceError) -> Self {
        let code = match error {
            SliceError::Damaged { .. } => ErrorCode::StorageCorrupt,
            SliceError::NoRoom(_) => ErrorCode::Internal,
        };
        Self::refused(code, error.to_string())
    }
}

impl From<levada_store::Error> for Error {
    fn from(error: levada_store::Error) -> Self {
        Self::Store { code: error.code(), message: error.to_string() }
    }
}
