//! Events whose delivery ended without success, and why.

use levada_protocol::{
    ids::{Offset, PartitionId, Timestamp},
    verbs::Rejection,
};

use super::partitions::partition_id;
use crate::progress::History;

/// Events whose delivery ended without success, alike in everything said here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The partition.
    pub partition: PartitionId,
    /// The first offset.
    pub first: Offset,
    /// The last offset, included; every offset between is a dead letter.
    pub last: Offset,
    /// Deliveries that failed, this one included if it is one that ended it.
    pub attempts: u16,
    /// Why it ended.
    pub reason: Reason,
    /// When the first one failed.
    pub first_failure: Timestamp,
    /// When the last one failed.
    pub last_failure: Timestamp,
}

/// Why an event became a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It failed as often as the subscription allows.
    MaxAttempts,
    /// A consumer or a plugin rejected it.
    Rejected {
        /// In its words.
        reason: String,
    },
    /// A consumer or a plugin could not decode it.
    Undecodable {
        /// What is wrong with it.
        error: String,
    },
    /// Its consumer pushes events on, and the receiver took it in none of its attempts.
    PushFailed {
        /// What the receiver responded at last.
        error: String,
    },
    /// Its last attempt ended with its consumer's connection, as several before.
    ConsumerLost,
    /// Its time to live ended before it was delivered, or delivered again.
    Expired,
    /// The chain failed on it.
    PluginError {
        /// The plugin's name and version.
        plugin: String,
        /// What the plugin reported.
        error: String,
    },
}

impl Reason {
    /// Why a consumer does not want an event.
    pub(super) fn rejected(reason: String, kind: Rejection) -> Self {
        match kind {
            Rejection::Refused => Self::Rejected { reason },
            Rejection::Undecodable => Self::Undecodable { error: reason },
            Rejection::PushFailed => Self::PushFailed { error: reason },
        }
    }

    /// How many bytes of text it has, for whoever counts memory.
    pub fn text_len(&self) -> usize {
        match self {
            Self::MaxAttempts | Self::ConsumerLost | Self::Expired => 0,
            Self::Rejected { reason: text }
            | Self::Undecodable { error: text }
            | Self::PushFailed { error: text } => text.len(),
            Self::PluginError { plugin, error } => plugin.len() + error.len(),
        }
    }

    /// The value of the dead letter's `lv-dlq-reason` header.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::MaxAttempts => "max_attempts",
            Self::Rejected { .. } => "rejected",
            Self::Undecodable { .. } => "undecodable",
            Self::PushFailed { .. } => "push_failed",
            Self::ConsumerLost => "consumer_lost",
            Self::Expired => "expired",
            Self::PluginError { .. } => "plugin_error",
        }
    }
}

impl DeadLetter {
    /// How many events.
    pub(super) fn events(&self) -> u64 {
        self.last.0 - self.first.0 + 1
    }

    /// Events of a partition whose last delivery fails now, or whose time is over; the range is not empty.
    pub(super) fn new(
        now: Timestamp,
        partition: usize,
        range: &std::ops::Range<u64>,
        history: History,
        reason: Reason,
    ) -> Self {
        let first_failure_ms = if history.attempts == 0 { now.0 } else { history.first_failure_ms };
        Self {
            partition: partition_id(partition),
            first: Offset(range.start),
            last: Offset(range.end - 1),
            attempts: history.attempts.saturating_add(u16::from(reason != Reason::Expired)),
            reason,
            first_failure: Timestamp(first_failure_ms),
            last_failure: now,
        }
    }
}
