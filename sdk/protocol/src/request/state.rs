//! Whether a subscription or route runs, and why not.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{error::ErrorCode, ids::TopicName};

/// Whether a subscription or route goes on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RunState {
    /// It takes events as they come.
    #[default]
    Running,
    /// It takes no events, for a reason of its own.
    Paused {
        /// The reason.
        reason: PauseReason,
    },
    /// A route cannot write what it made, or not read its source. It tries again by itself.
    Blocked {
        /// The target that takes nothing; `None` if it is the source that cannot be read.
        #[serde(default)]
        target: Option<TopicName>,
        /// The error code of the reason.
        code: ErrorCode,
    },
    /// A state of a newer version.
    #[serde(other)]
    Unknown,
}

/// Why a subscription or route is paused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum PauseReason {
    /// It was asked for. It stays paused until it is resumed.
    Requested,
    /// The receiver of its pushes wants no more of them. It stays paused until it is resumed.
    Push {
        /// What the receiver said.
        message: String,
    },
    /// A plugin failed on an event, and its `on_error` is `pause`. It stays paused until it is resumed.
    Plugin {
        /// Which plugin, at which offset, and its error.
        message: String,
    },
    /// Its plugins fail too often. It tries again by itself, with growing pauses of 1 to 60 seconds.
    Breaker {
        /// Which plugin failed last, at which offset, and its error.
        message: String,
    },
    /// Its chain cannot be attached: a plugin or a target topic is missing, or a plugin does not start. It tries again
    /// by itself.
    Chain {
        /// The error code of the failure.
        code: ErrorCode,
        /// The error, without its code.
        message: String,
    },
    /// Stored events cannot be read or progress cannot be written. It tries again by itself.
    Storage {
        /// The error code of the failure.
        code: ErrorCode,
        /// The error, without its code.
        message: String,
    },
    /// A reason of a newer version.
    #[serde(other)]
    Unknown,
}

impl RunState {
    /// True while it takes events.
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Running)
    }

    /// The error code behind it, if there is one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Blocked { code, .. } => Some(*code),
            Self::Paused { reason: PauseReason::Chain { code, .. } | PauseReason::Storage { code, .. } } => {
                Some(*code)
            }
            Self::Paused {
                reason:
                    PauseReason::Requested
                    | PauseReason::Push { .. }
                    | PauseReason::Plugin { .. }
                    | PauseReason::Breaker { .. }
                    | PauseReason::Unknown,
            }
            | Self::Running
            | Self::Unknown => None,
        }
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running => f.write_str("running"),
            Self::Paused { reason } => write!(f, "paused: {reason}"),
            Self::Blocked { target: Some(target), code } => write!(f, "blocked: {target} {code}"),
            Self::Blocked { target: None, code } => write!(f, "blocked: {code}"),
            Self::Unknown => f.write_str("in a state that this version does not know"),
        }
    }
}

impl fmt::Display for PauseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requested => f.write_str("on request"),
            Self::Push { message } | Self::Plugin { message } | Self::Breaker { message } => {
                f.write_str(message)
            }
            Self::Chain { code, message } | Self::Storage { code, message } => write!(f, "{code}: {message}"),
            Self::Unknown => f.write_str("a reason that this version does not know"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_or_reason_of_a_newer_version_is_unknown() {
        let state = |text: &str| serde_json::from_str::<RunState>(text).unwrap();
        assert_eq!(state(r#"{"kind":"drained","since":5}"#), RunState::Unknown);
        let reason = PauseReason::Unknown;
        assert_eq!(
            state(r#"{"kind":"paused","reason":{"kind":"asked","by":"me"}}"#),
            RunState::Paused { reason }
        );
        let blocked = RunState::Blocked { target: None, code: ErrorCode::Unknown(9_999) };
        assert_eq!(state(r#"{"kind":"blocked","code":9999}"#), blocked);
    }

    #[test]
    fn a_state_is_one_line_for_people() {
        let target = Some("audit".parse().unwrap());
        let code = ErrorCode::StorageFull;
        assert_eq!(RunState::Blocked { target, code }.to_string(), "blocked: audit STORAGE_FULL");
        let reason =
            PauseReason::Chain { code: ErrorCode::PluginNotFound, message: "no plugin x".to_owned() };
        let paused = RunState::Paused { reason };
        assert_eq!(paused.to_string(), "paused: PLUGIN_NOT_FOUND: no plugin x");
        assert_eq!(paused.code(), Some(ErrorCode::PluginNotFound));
        assert!(!paused.is_running() && RunState::Running.is_running());
    }
}
