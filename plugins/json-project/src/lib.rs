//! Keeps, drops and renames fields of JSON payloads. Key, headers, time and event id stay.

mod project;
mod rules;

use levada_plugin::{Answer, Answered, Change, Failure, Incoming, Output, Plugin, Setup};
use serde::Deserialize;

use crate::{project::Projected, rules::Rules};

/// What becomes of an event whose payload is no JSON object.
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
pub struct JsonProject {
    rules: Rules,
    on_invalid: OnInvalid,
    projected: String,
}

impl Plugin for JsonProject {
    fn init(setup: &Setup) -> Result<Self, String> {
        let config: rules::Config =
            serde_json::from_str(&setup.config).map_err(|error| format!("the configuration: {error}"))?;
        let on_invalid = config.on_invalid;
        Ok(Self { rules: Rules::new(&config)?, on_invalid, projected: String::new() })
    }

    fn process(&mut self, event: &Incoming<'_>, answer: Answer<'_>) -> Result<Answered, Failure> {
        match project::project(&self.rules, event.payload().unwrap_or_default(), &mut self.projected) {
            Ok(Projected::Unchanged) => Ok(answer.keep()),
            Ok(Projected::Changed) => {
                let payload = Change::Set(self.projected.as_bytes());
                Ok(answer.emit(&Output { id: event.id(), payload, ..Output::default() }))
            }
            Err(error) => Ok(match self.on_invalid {
                OnInvalid::Reject => answer.reject(&error.to_string()),
                OnInvalid::Drop => answer.drop(),
                OnInvalid::Keep => answer.keep(),
            }),
        }
    }
}

levada_plugin::export!(JsonProject);
