//! Values that flags take, parsed once: names, starts, durations, sizes, headers, stages. Knows no command.

use std::{str::FromStr, time::Duration};

use levada_protocol::{
    ids::{PluginName, SubscriptionName, TopicName},
    request::{StageSpec, Start},
};
use serde::de::IgnoredAny;

/// A duration as people write it (`72h`, `7d`, `90s`), in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DurationMs(pub(crate) u64);

impl FromStr for DurationMs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let duration = humantime::parse_duration(text)
            .map_err(|error| format!("expected a duration as 72h, 7d or 90s: {error}"))?;
        u64::try_from(duration.as_millis()).map(Self).map_err(|_| "the duration is too long".to_owned())
    }
}

impl From<DurationMs> for Duration {
    fn from(milliseconds: DurationMs) -> Self {
        Self::from_millis(milliseconds.0)
    }
}

/// `TOPIC/SUBSCRIPTION`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SubscriptionPath {
    pub(crate) topic: TopicName,
    pub(crate) name: SubscriptionName,
}

impl FromStr for SubscriptionPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (topic, name) = text.split_once('/').ok_or("expected TOPIC/SUBSCRIPTION")?;
        Ok(Self { topic: parse_any_topic(topic)?, name: name.parse().map_err(sentence)? })
    }
}

/// A topic's name, the engine's own included.
pub(super) fn parse_any_topic(text: &str) -> Result<TopicName, String> {
    TopicName::parse_any(text).map_err(sentence)
}

/// A size in bytes as people write it: `100`, `64KiB`, `10GiB`.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let size: Result<bytesize::ByteSize, String> = text.parse();
    size.map(|size| size.as_u64()).map_err(|_| "expected a size as 100, 64KiB or 10GiB".to_owned())
}

/// `NAME=VALUE`.
pub(super) fn parse_header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// Events a second, above zero.
pub(super) fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err("expected a number of events a second above 0".to_owned()),
    }
}

/// A share above 0, at most 1.
pub(super) fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("expected a number above 0, at most 1".to_owned()),
    }
}

/// `earliest`, `latest`, an offset, or a time in RFC 3339.
pub(super) fn parse_start(text: &str) -> Result<Start, String> {
    match text {
        "earliest" => return Ok(Start::Earliest),
        "latest" => return Ok(Start::Latest),
        _ => {}
    }
    if let Ok(offset) = text.parse() {
        return Ok(Start::Offset(offset));
    }
    let expected = "expected earliest, latest, an offset, or a time as 2026-01-31T12:00:00Z";
    let time: jiff::Timestamp = text.parse().map_err(|_| expected.to_owned())?;
    u64::try_from(time.as_millisecond()).map(Start::Time).map_err(|_| "the time is before 1970".to_owned())
}

/// `NAME` or `NAME@VERSION`.
pub(super) fn parse_plugin(text: &str) -> Result<(PluginName, Option<u32>), String> {
    let (name, version) = match text.split_once('@') {
        None => (text, None),
        Some((name, version)) => match version.parse() {
            Ok(number) if number > 0 => (name, Some(number)),
            _ => return Err(format!("expected a version from 1 after @, got {version:?}")),
        },
    };
    Ok((name.parse().map_err(sentence)?, version))
}

/// JSON text, kept as it is.
pub(super) fn parse_json(text: &str) -> Result<String, String> {
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("expected JSON: {error}")),
    }
}

/// `NAME[@VERSION][:CONFIG]`: a stage with defaults for all else.
pub(super) fn parse_stage(text: &str) -> Result<StageSpec, String> {
    let (plugin, config) = match text.split_once(':') {
        None => (text, "{}".to_owned()),
        Some((plugin, config)) => (plugin, parse_json(config)?),
    };
    parse_plugin(plugin)?;
    Ok(StageSpec { plugin: plugin.to_owned(), config, ..StageSpec::default() })
}

#[expect(clippy::needless_pass_by_value, reason = "a function for map_err")]
fn sentence(error: levada_protocol::ids::InvalidName) -> String {
    error.to_string()
}
