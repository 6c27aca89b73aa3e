//! Passes the events that a condition over their JSON payload and their headers holds for.

use levada_expression::Condition;
use levada_plugin::{Answer, Answered, Failure, Incoming, Plugin, Setup};
use serde::Deserialize;

/// The configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The condition; see the README for its language.
    #[serde(rename = "where")]
    condition: String,
    /// What becomes of an event whose payload the condition needs, and which is no JSON.
    #[serde(default)]
    on_invalid: OnInvalid,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OnInvalid {
    #[default]
    Reject,
    Drop,
    Keep,
}

/// The plugin.
#[derive(Debug)]
pub struct JsonFilter {
    condition: Condition,
    on_invalid: OnInvalid,
}

impl Plugin for JsonFilter {
    fn init(setup: &Setup) -> Result<Self, String> {
        let config: Config =
            serde_json::from_str(&setup.config).map_err(|error| format!("the configuration: {error}"))?;
        let condition = Condition::parse(&config.condition).map_err(|error| format!("where: {error}"))?;
        Ok(Self { condition, on_invalid: config.on_invalid })
    }

    fn process(&mut self, event: &Incoming<'_>, answer: Answer<'_>) -> Result<Answered, Failure> {
        Ok(match self.condition.holds(event.as_ref()) {
            Ok(true) => answer.keep(),
            Ok(false) => answer.drop(),
            Err(error) => match self.on_invalid {
                OnInvalid::Reject => answer.undecodable(&error.to_string()),
                OnInvalid::Drop => answer.drop(),
                OnInvalid::Keep => answer.keep(),
            },
        })
    }
}

levada_plugin::export!(JsonFilter);
