//! The plugins of a subscription or route, as they are asked for and shown.

use serde::{Deserialize, Serialize};

/// What happens to an event that a stage fails on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// To the dead-letter topic, in the commit that passes it.
    #[default]
    DeadLetter,
    /// Dropped and counted.
    Skip,
    /// The subscription or route pauses until it is resumed.
    Pause,
    /// Goes on unchanged.
    Pass,
}

/// One stage of a chain: a plugin with its configuration.
///
/// Policy and limits are optional as [`super::SubscriptionOptions`] are: given in every answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StageSpec {
    /// `name` for the newest version, `name@3` for that one.
    pub plugin: String,
    /// The configuration: JSON text. Default `{}`.
    pub config: String,
    /// What happens to an event that it fails on. Default `dead_letter`.
    pub on_error: Option<OnError>,
    /// How often a failing event is tried again before that. Default 3.
    pub retries: Option<u8>,
    /// Milliseconds for one call. Default 100.
    pub deadline_ms: Option<u32>,
    /// Bytes of memory of one instance. Default 32 MiB.
    pub memory_bytes_max: Option<u64>,
}

impl Default for StageSpec {
    fn default() -> Self {
        Self {
            plugin: String::new(),
            config: "{}".to_owned(),
            on_error: None,
            retries: None,
            deadline_ms: None,
            memory_bytes_max: None,
        }
    }
}

impl StageSpec {
    /// The policy, or the default.
    pub fn on_error(&self) -> OnError {
        self.on_error.unwrap_or_default()
    }

    /// The number of retries, or the default.
    pub fn retries(&self) -> u8 {
        self.retries.unwrap_or(3)
    }

    /// The milliseconds for one call, or the default.
    pub fn deadline_ms(&self) -> u32 {
        self.deadline_ms.unwrap_or(100)
    }

    /// The bytes of memory of one instance, or the default.
    pub fn memory_bytes_max(&self) -> u64 {
        self.memory_bytes_max.unwrap_or(32 * 1024 * 1024)
    }

    /// The same with the default for whatever is not given.
    #[must_use]
    pub fn with_defaults(self) -> Self {
        Self {
            on_error: Some(self.on_error()),
            retries: Some(self.retries()),
            deadline_ms: Some(self.deadline_ms()),
            memory_bytes_max: Some(self.memory_bytes_max()),
            ..self
        }
    }
}
