//! What can go wrong for a user of this crate, with the code and text of each case.
//!
//! Owns the mapping from QUIC's errors. Must not know what was being done when they came.

use std::{sync::Arc, time::Duration};

use levada_protocol::{
    batch::BatchError,
    deliver::DeliverError,
    error::{ErrorCode, Refusal},
    event::{EventTooLarge, HeaderReserved},
    frame::FrameError,
    ids::{InvalidName, Offset, PartitionId},
};

/// The cause of an error, shared so that the error can be given to everyone who waits for the same thing.
pub type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// Anything this crate can fail with.
///
/// Cheap to clone: one failed batch gives its error to every event in it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The engine refused; the code says why.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No connection could be made.
    #[error("cannot connect to {addr}")]
    ConnectFailed {
        /// The address as configured.
        addr: String,
        /// What went wrong.
        #[source]
        source: Cause,
    },
    /// The engine's certificate is not trusted, or there was no agreement on how to talk.
    #[error("cannot trust {addr}: {what}")]
    TlsFailed {
        /// The address as configured.
        addr: String,
        /// What is wrong and what to do about it.
        what: String,
    },
    /// The connection ended before the answer came; whether the call took effect is unknown.
    #[error("the connection was lost before the answer came")]
    ConnectionLost {
        /// Why it ended.
        #[source]
        source: Cause,
    },
    /// An event that no batch can hold; nothing was sent.
    #[error(transparent)]
    EventTooLarge(#[from] EventTooLarge),
    /// An event with a header that only the engine gives; nothing was sent.
    #[error(transparent)]
    HeaderReserved(#[from] HeaderReserved),
    /// A name that does not obey its grammar; nothing was sent.
    #[error(transparent)]
    InvalidName(#[from] InvalidName),
    /// A request that no frame can hold, such as a chain with long configurations; nothing was sent.
    #[error("the request takes {bytes} bytes, at most {max} fit into its frame")]
    RequestTooLarge {
        /// What it would take.
        bytes: usize,
        /// What a frame may hold.
        max: usize,
    },
    /// An append was to be made at one offset, and the partition's next offset is another: somebody else has appended.
    /// Nothing was stored.
    #[error("the next offset of partition {partition} is {found}, expected {expected}")]
    OffsetMismatch {
        /// The partition.
        partition: PartitionId,
        /// The offset that was expected.
        expected: Offset,
        /// The partition's next offset when the engine decided.
        found: Offset,
    },
    /// Another publisher has taken over the name of this one ([`PublisherOptions::producer`](crate::PublisherOptions::producer)),
    /// which has stopped for good.
    #[error("{refusal}")]
    Fenced {
        /// The engine's, whose code is `PRODUCER_FENCED`.
        refusal: Refusal,
        /// True if the event was sent before on a connection that was lost, and may have been stored then: only the log knows.
        in_doubt: bool,
    },
    /// No answer, or only refusals to be retried, for too long.
    #[error("no success within {:?}", rounded(.waited))]
    TimedOut {
        /// How long was waited.
        waited: Duration,
        /// True if something was sent whose outcome is not known.
        in_doubt: bool,
        /// The last refusal, if the engine answered at all.
        #[source]
        last: Option<Refusal>,
    },
    /// A connection has as many streams open as the engine allows, and no other could be used; nothing was sent. Each
    /// subscriber, publisher, reader and request takes one.
    #[error("no stream was free within {:?}: the engine's limit for this client's connections is reached", rounded(.waited))]
    NoStream {
        /// How long was waited.
        waited: Duration,
    },
    /// The engine sent bytes that this version cannot read, or an answer to another question.
    #[error("the engine's answer cannot be read: {what}")]
    BadAnswer {
        /// What was expected and what came.
        what: String,
    },
    /// An event came damaged.
    #[error("a delivery is damaged")]
    Damaged {
        /// The underlying error.
        #[source]
        source: DeliverError,
    },
    /// The configuration cannot work.
    #[error("the configuration is invalid: {what}")]
    Config {
        /// What was expected and what came.
        what: String,
    },
    /// The client, publisher or subscriber was closed by its own program; nothing was sent.
    #[error("it was closed by this program")]
    Closed,
}

impl Error {
    /// The stable code, as the engine would name it.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Refused(refusal) => refusal.code,
            Self::ConnectFailed { .. } => ErrorCode::ConnectFailed,
            Self::TlsFailed { .. } => ErrorCode::TlsFailed,
            Self::ConnectionLost { .. } | Self::Closed => ErrorCode::ConnectionLost,
            Self::EventTooLarge(_) => ErrorCode::EventTooLarge,
            Self::HeaderReserved(_) => ErrorCode::HeaderReserved,
            Self::InvalidName(_) => ErrorCode::InvalidName,
            Self::RequestTooLarge { .. } => ErrorCode::FrameTooLarge,
            Self::OffsetMismatch { .. } => ErrorCode::OffsetMismatch,
            Self::Fenced { .. } => ErrorCode::ProducerFenced,
            Self::TimedOut { .. } => ErrorCode::DeadlineExceeded,
            Self::NoStream { .. } => ErrorCode::LimitExceeded,
            Self::BadAnswer { .. } => ErrorCode::Malformed,
            Self::Damaged { source: DeliverError::Frame(_) } => ErrorCode::Malformed,
            Self::Damaged { source: DeliverError::Batch(_) } => ErrorCode::BatchInvalid,
            Self::Config { .. } => ErrorCode::ConfigInvalid,
        }
    }

    /// True if the same call may succeed later, unchanged.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.code.is_retryable(),
            Self::ConnectFailed { .. }
            | Self::ConnectionLost { .. }
            | Self::TimedOut { .. }
            | Self::NoStream { .. } => true,
            Self::TlsFailed { .. }
            | Self::EventTooLarge(_)
            | Self::HeaderReserved(_)
            | Self::InvalidName(_)
            | Self::RequestTooLarge { .. }
            | Self::OffsetMismatch { .. }
            | Self::Fenced { .. }
            | Self::BadAnswer { .. }
            | Self::Damaged { .. }
            | Self::Config { .. }
            | Self::Closed => false,
        }
    }

    /// True if it is certain that nothing was changed.
    pub fn has_no_side_effects(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.code.has_no_side_effects(),
            Self::TimedOut { in_doubt, .. } | Self::Fenced { in_doubt, .. } => !in_doubt,
            Self::ConnectFailed { .. }
            | Self::TlsFailed { .. }
            | Self::EventTooLarge(_)
            | Self::HeaderReserved(_)
            | Self::InvalidName(_)
            | Self::RequestTooLarge { .. }
            | Self::OffsetMismatch { .. }
            | Self::NoStream { .. }
            | Self::Damaged { .. }
            | Self::Config { .. }
            | Self::Closed => true,
            Self::ConnectionLost { .. } | Self::BadAnswer { .. } => false,
        }
    }

    pub(crate) fn bad_answer(what: impl Into<String>) -> Self {
        Self::BadAnswer { what: what.into() }
    }

    pub(crate) fn lost(cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::ConnectionLost { source: Arc::new(cause) }
    }

    /// The stream ended although the engine had more to say.
    pub(crate) fn cut_off() -> Self {
        Self::lost(CutOff)
    }
}

/// A duration as people read it: with three significant figures, and no finer than seconds from 1,000 on.
pub(crate) fn rounded(exact: &Duration) -> Duration {
    const SECOND: u128 = 1_000_000_000;
    let nanoseconds = exact.as_nanos();
    let mut unit = 1;
    while nanoseconds >= 1_000 * unit && unit < SECOND {
        unit *= 10;
    }
    let rounded = (nanoseconds + unit / 2) / unit * unit;
    u64::try_from(rounded).map_or(*exact, Duration::from_nanos)
}

/// The engine ended a stream without a word.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the engine ended the stream")]
struct CutOff;

impl From<quinn::ConnectionError> for Error {
    /// An engine that closes a connection with a code of the protocol refuses this client; all else is a loss, of which
    /// it is unknown what was done before.
    fn from(error: quinn::ConnectionError) -> Self {
        if let quinn::ConnectionError::ApplicationClosed(close) = &error {
            let number = u16::try_from(close.error_code.into_inner()).unwrap_or(0);
            let code = ErrorCode::from_number(number);
            if !matches!(code, ErrorCode::Unknown(_)) {
                let refusal = Refusal::new(code, String::from_utf8_lossy(&close.reason));
                return if code.is_retryable() { Self::lost(refusal) } else { Self::Refused(refusal) };
            }
        }
        Self::lost(error)
    }
}

impl From<quinn::WriteError> for Error {
    fn from(error: quinn::WriteError) -> Self {
        match error {
            quinn::WriteError::ConnectionLost(error) => error.into(),
            other => Self::lost(other),
        }
    }
}

impl From<quinn::ReadError> for Error {
    fn from(error: quinn::ReadError) -> Self {
        match error {
            quinn::ReadError::ConnectionLost(error) => error.into(),
            other => Self::lost(other),
        }
    }
}

impl From<FrameError> for Error {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Truncated { .. } => Self::lost(error),
            other => Self::bad_answer(other.to_string()),
        }
    }
}

impl From<DeliverError> for Error {
    fn from(source: DeliverError) -> Self {
        Self::Damaged { source }
    }
}

impl From<BatchError> for Error {
    fn from(source: BatchError) -> Self {
        Self::Damaged { source: DeliverError::Batch(source) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_was_waited_is_told_with_three_figures() {
        for (nanoseconds, text) in [
            (0, "0ns"),
            (1_234, "1.23µs"),
            (250_000_000, "250ms"),
            (2_999_998_548, "3s"),
            (2_345_678_901, "2.35s"),
            (123_456_789_012, "123s"),
            (518_400_000_000_000, "518400s"),
        ] {
            let waited = Duration::from_nanos(nanoseconds);
            let said = Error::TimedOut { waited, in_doubt: false, last: None }.to_string();
            assert_eq!(said, format!("no success within {text}"));
        }
        assert_eq!(rounded(&Duration::MAX), Duration::MAX);
    }
}
