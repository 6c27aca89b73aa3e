//! Keeps, drops and renames fields of JSON payloads. Key, headers, time and event id stay.

mod project;
mod rules;

use levada_plugin::{Answer, Answered, Change, Failure, Incoming, Output, Plugin, Setup, log_warn};
use serde::Deserialize;

use crate::rules::Rules;

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
    /// A field that a path probably meant was logged.
    warned: bool,
}

impl Plugin for JsonProject {
    fn init(setup: &Setup) -> Result<Self, String> {
        let config: rules::Config =
            serde_json::from_str(&setup.config).map_err(|error| format!("the configuration: {error}"))?;
        let on_invalid = config.on_invalid;
        Ok(Self { rules: Rules::new(&config)?, on_invalid, projected: String::new(), warned: false })
    }

    fn process(&mut self, event: &Incoming<'_>, answer: Answer<'_>) -> Result<Answered, Failure> {
        match project::project(&self.rules, event.payload().unwrap_or_default(), &mut self.projected) {
            Ok(done) => {
                if let Some(name) = done.mistaken
                    && !self.warned
                {
                    self.warned = true;
                    log_warn!(
                        "a payload has a field named {name:?}, which no path of the configuration matches: in a path \
                         a dot leads into an object, and a name with dots is written in quotes, as in \"\\\"{name}\\\"\""
                    );
                }
                if !done.changed {
                    return Ok(answer.keep());
                }
                let payload = Change::Set(self.projected.as_bytes());
                Ok(answer.emit(&Output { id: event.id(), payload, ..Output::default() }))
            }
            Err(error) => Ok(match self.on_invalid {
                OnInvalid::Reject => answer.undecodable(&error.to_string()),
                OnInvalid::Drop => answer.drop(),
                OnInvalid::Keep => answer.keep(),
            }),
        }
    }
}

levada_plugin::export!(JsonProject);
