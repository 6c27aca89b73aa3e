//! Errors as clients and operators see them: a stable code, and a refusal that carries one.

mod code;

use serde::{Deserialize, Serialize};

pub use self::code::ErrorCode;

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
