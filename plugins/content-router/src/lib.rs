//! Sends each event to the topic that a field of its JSON payload, or one of its headers, names.

use std::{borrow::Cow, collections::BTreeMap};

use levada_plugin::{
    Answer, Answered, Failure, Incoming, Output, Plugin, Setup,
    json::{self, Kind, Scanner, Value},
};
use serde::{Deserialize, Deserializer};

/// The configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The path of the field that decides, as [`json::path`] reads it.
    field: Option<String>,
    /// The header that decides.
    header: Option<String>,
    /// Value to topic.
    routes: BTreeMap<String, String>,
    /// The topic of events that no route fits; `null` drops them. Without it they are rejected.
    #[serde(default, deserialize_with = "present")]
    default: Option<Option<String>>,
}

/// Tells `null` from a field that is not there.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// The plugin.
#[derive(Debug)]
pub struct ContentRouter {
    decides: Decides,
    routes: BTreeMap<String, String>,
    default: Option<Option<String>>,
}

#[derive(Debug)]
enum Decides {
    /// The one field that the scanner looks for.
    Field(Scanner),
    Header(String),
}

impl Plugin for ContentRouter {
    fn init(setup: &Setup) -> Result<Self, String> {
        let config: Config =
            serde_json::from_str(&setup.config).map_err(|error| format!("the configuration: {error}"))?;
        let decides = match (config.field, config.header) {
            (Some(field), None) => Decides::Field(scanner(&field)?),
            (None, Some(header)) => Decides::Header(header),
            _ => return Err("expected exactly one of field and header".to_owned()),
        };
        if config.routes.is_empty() && config.default.is_none() {
            return Err("expected at least one route, or a default".to_owned());
        }
        Ok(Self { decides, routes: config.routes, default: config.default })
    }

    fn process(&mut self, event: &Incoming<'_>, answer: Answer<'_>) -> Result<Answered, Failure> {
        let value = match &mut self.decides {
            Decides::Header(name) => event.header(name).map(String::from_utf8_lossy),
            Decides::Field(scanner) => match scanner.scan(event.payload().unwrap_or_default()) {
                Ok(fields) => fields.get(0).and_then(text),
                Err(error) => return Ok(answer.undecodable(&error.to_string())),
            },
        };
        let routed = value.as_deref().and_then(|value| self.routes.get(value)).map(String::as_str);
        let target = match (routed, &self.default) {
            (Some(topic), _) => topic,
            (None, Some(Some(topic))) => topic,
            (None, Some(None)) => return Ok(answer.drop()),
            (None, None) => {
                return Ok(match value {
                    Some(value) => answer.reject(&format!("no route for {value:?}")),
                    None => answer.reject("no route without a value"),
                });
            }
        };
        Ok(answer.emit(&Output { target: Some(target), id: event.id(), ..Output::default() }))
    }
}

levada_plugin::export!(ContentRouter);

/// What looks for the field of this path.
fn scanner(field: &str) -> Result<Scanner, String> {
    let mut scanner = Scanner::new();
    scanner.want(&json::path(field).map_err(|error| format!("field: {error}"))?);
    Ok(scanner)
}

/// The text that a value is compared as: a string's content; a number, `true`, `false` or `null` as it is written.
fn text<'a>(value: Value<'a>) -> Option<Cow<'a, str>> {
    match value.kind() {
        Kind::Text => value.as_text().map(|text| text.decode()),
        Kind::Number | Kind::Bool | Kind::Null => Some(Cow::Borrowed(value.raw())),
        Kind::Array | Kind::Object => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(config: &str) -> String {
        ContentRouter::init(&Setup::with_config(config)).err().unwrap()
    }

    #[test]
    fn a_configuration_names_one_source_and_somewhere_to_go() {
        assert!(refusal(r#"{"routes": {"a": "b"}}"#).contains("exactly one of field and header"));
        assert!(refusal(r#"{"field": "a", "header": "b", "routes": {"a": "b"}}"#).contains("exactly one"));
        assert!(refusal(r#"{"field": "a", "routes": {}}"#).contains("at least one route"));
        assert!(refusal(r#"{"field": "a..b", "routes": {"a": "b"}}"#).contains("a..b"));
        assert!(refusal(r#"{"field": "a", "routes": {"a": 1}}"#).contains("line 1"));
        let dotted = Setup::with_config(r#"{"field": "\"order.status\"", "routes": {"a": "b"}}"#);
        assert!(ContentRouter::init(&dotted).is_ok());
        assert!(
            ContentRouter::init(&Setup::with_config(r#"{"field":"a","routes":{},"default":null}"#)).is_ok()
        );
    }

    #[test]
    fn null_and_no_default_differ() {
        let default = |config| serde_json::from_str::<Config>(config).unwrap().default;
        assert_eq!(default(r#"{"routes":{}}"#), None);
        assert_eq!(default(r#"{"routes":{},"default":null}"#), Some(None));
        assert_eq!(default(r#"{"routes":{},"default":"x"}"#), Some(Some("x".to_owned())));
    }
}
