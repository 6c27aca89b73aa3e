//! Settings of logs and traces.

use serde::{Deserialize, Serialize};

use super::{
    Error,
    section::{require, section},
};
use crate::units;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

section! {
    /// The log.
    TelemetryConfig {
        /// How log lines are written: `text` or `json`.
        log_format: LogFormat = LogFormat::Text;
        /// Which log lines are written: a level, or `target=level` pairs with commas between.
        log_filter: String = "info".to_owned();
    }
}

impl TelemetryConfig {
    pub(super) fn check(&self) -> Result<(), Error> {
        let filter = &self.log_filter;
        let is_filter = units::filter::parse(filter).is_some();
        require("telemetry.log_filter", is_filter, format_args!("{filter:?}"), units::filter::EXPECTED)
    }
}
