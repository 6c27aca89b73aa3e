//! Values that flags take, parsed once: names, headers, stages, and durations with bounds of their own. Knows no command.

use levada_protocol::{
    event::{ENGINE_HEADER_PREFIX, is_engine_header},
    ids::{PluginName, Timestamp, TopicName},
    limits::{
        CHECK_AFTER_MS_MAX, DEDUP_WINDOW_MS_MAX, DELAY_MS_MAX, EXPIRE_AFTER_MS_MAX, EXPIRE_AFTER_MS_MIN,
        HEADER_NAME_BYTES_MAX, TRANSACTION_REMEMBERED_MS,
    },
    request::StageSpec,
};
use levada_terminal::values::DurationMs;
use serde::de::IgnoredAny;

/// Longest time for which the client tries to deliver an event.
const DELIVERY_TIMEOUT_MS_MAX: u64 = 6 * 86_400_000;
/// Longest time for which the client sends a transaction again.
const TRANSACTION_TIMEOUT_MS_MAX: u64 = TRANSACTION_REMEMBERED_MS / 2;
/// Most waits of a backoff, the longest of them, and the highest rate: the engine's own bounds.
const BACKOFF_STEPS_MAX: usize = 64;
const BACKOFF_STEP_MS_MAX: u32 = 7 * 86_400_000;
const RATE_MAX: u32 = 10_000_000;

/// A topic's name, the engine's own included.
pub(super) fn parse_any_topic(text: &str) -> Result<TopicName, String> {
    text.parse().map_err(sentence)
}

/// A name that a user may give to a topic, or publish to.
pub(crate) fn parse_free_topic(text: &str) -> Result<TopicName, String> {
    let topic = parse_any_topic(text)?;
    topic.check_free().map(|()| topic).map_err(sentence)
}

/// A duration from a millisecond to the longest that the wire carries, in milliseconds.
pub(super) fn parse_duration_u32(text: &str) -> Result<u32, String> {
    let DurationMs(milliseconds) = text.parse()?;
    match u32::try_from(milliseconds) {
        Ok(0) => Err("expected a duration of 1ms or more".to_owned()),
        Ok(milliseconds) => Ok(milliseconds),
        Err(_) => Err("expected a duration of 49d or less".to_owned()),
    }
}

/// Waits one after the other, as `1s,5s,1m`, or `none`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waits(pub(super) Vec<u32>);

/// Waits of a backoff.
pub(super) fn parse_waits(text: &str) -> Result<Waits, String> {
    if text == "none" {
        return Ok(Waits(Vec::new()));
    }
    let waits = text.split(',').map(|wait| parse_duration_u32(wait.trim()));
    let waits: Vec<u32> = waits
        .collect::<Result<_, _>>()
        .map_err(|why| format!("{why}; expected durations such as 1s,5s,1m, or none for no wait at all"))?;
    if waits.len() > BACKOFF_STEPS_MAX {
        return Err(format!("expected {BACKOFF_STEPS_MAX} waits at most, got {}", waits.len()));
    }
    match waits.iter().find(|wait| **wait > BACKOFF_STEP_MS_MAX) {
        Some(_) => Err("expected waits of 7d at most".to_owned()),
        None => Ok(Waits(waits)),
    }
}

/// Events a second, or `none` for no limit, which is 0.
pub(super) fn parse_limit_of_rate(text: &str) -> Result<u32, String> {
    match text.parse() {
        _ if text == "none" => Ok(0),
        Ok(rate) if (1..=RATE_MAX).contains(&rate) => Ok(rate),
        _ => Err(format!("expected events a second, 1 to {RATE_MAX}, or none, got {text:?}")),
    }
}

/// After how long without a consumer a subscription is deleted, in milliseconds; `none` is 0.
pub(super) fn parse_expire_after(text: &str) -> Result<u64, String> {
    match text.parse() {
        _ if text == "none" => Ok(0),
        Ok(DurationMs(after @ EXPIRE_AFTER_MS_MIN..=EXPIRE_AFTER_MS_MAX)) => Ok(after),
        _ => Err(format!("expected none, or a duration from 1m to 365d such as 7d, got {text:?}")),
    }
}

/// How long to try to publish: the client's own bounds.
pub(super) fn parse_timeout(text: &str) -> Result<DurationMs, String> {
    let timeout: DurationMs = text.parse()?;
    match timeout.0 {
        1..=DELIVERY_TIMEOUT_MS_MAX => Ok(timeout),
        _ => Err("expected a duration from 1ms to 6d".to_owned()),
    }
}

/// How long to try to publish a transaction: the client sends it again for five minutes at most.
pub(super) fn parse_transaction_timeout(text: &str) -> Result<DurationMs, String> {
    let timeout: DurationMs = text.parse()?;
    match timeout.0 {
        1..=TRANSACTION_TIMEOUT_MS_MAX => Ok(timeout),
        _ => Err("expected a duration from 1ms to 5m".to_owned()),
    }
}

/// How long event ids are remembered, in milliseconds; `off` is 0.
pub(super) fn parse_dedup_window(text: &str) -> Result<u64, String> {
    if text == "off" {
        return Ok(0);
    }
    match text.parse::<DurationMs>() {
        Ok(DurationMs(milliseconds)) if milliseconds <= DEDUP_WINDOW_MS_MAX => Ok(milliseconds),
        Ok(_) => Err("expected a duration of 7d or less".to_owned()),
        Err(_) => Err(format!("expected off, or a duration such as 2m or 1h, got {text:?}")),
    }
}

/// How old an unacknowledged event may be; `off` is 0.
pub(super) fn parse_backlog_age(text: &str) -> Result<DurationMs, String> {
    match text {
        "off" => Ok(DurationMs(0)),
        _ => text.parse().map_err(|_| format!("expected off, or a duration such as 10m or 1h, got {text:?}")),
    }
}

/// The name of a header whose value belongs to the event id; empty for none.
pub(super) fn parse_dedup_header(text: &str) -> Result<String, String> {
    if is_engine_header(text.as_bytes()) {
        return Err(format!(
            "expected a header of your own, got {text:?}: names that begin with {ENGINE_HEADER_PREFIX} are the engine's"
        ));
    }
    match text.len() {
        0..=HEADER_NAME_BYTES_MAX => Ok(text.to_owned()),
        more => Err(format!("expected a name of up to {HEADER_NAME_BYTES_MAX} bytes, got {more}")),
    }
}

/// How long delayed events wait, within the engine's limit.
pub(super) fn parse_delay(text: &str) -> Result<DurationMs, String> {
    match text.parse()? {
        DurationMs(delay) if delay > DELAY_MS_MAX => {
            Err(format!("expected a duration of 365d or less, got {text:?}"))
        }
        delay => Ok(delay),
    }
}

/// A time, as RFC 3339 writes it.
pub(super) fn parse_time(text: &str) -> Result<Timestamp, String> {
    let time: Result<jiff::Timestamp, _> = text.parse();
    time.ok()
        .and_then(|time| u64::try_from(time.as_millisecond()).ok())
        .map(Timestamp)
        .ok_or_else(|| format!("expected a time such as 2026-01-31T12:00:00Z, after 1970, got {text:?}"))
}

/// `NAME=VALUE`.
pub(super) fn parse_header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, _)) if is_engine_header(name.as_bytes()) => Err(format!(
            "expected a header of your own, got {name:?}: names that begin with {ENGINE_HEADER_PREFIX} are the \
             engine's"
        )),
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("expected NAME=VALUE, got {text:?}")),
    }
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
        // A shell that is not told otherwise takes the quotes away, which is the most frequent cause.
        Err(_) => Err(format!(
            "expected JSON such as {{\"where\": \"amount > 0\"}}, got {text}; put it between ' so that the shell \
             leaves it as it is"
        )),
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

/// After how long a group is asked about a transaction first: 1ms to a day.
pub(super) fn parse_check_after(text: &str) -> Result<DurationMs, String> {
    let after: DurationMs = text.parse()?;
    match after.0 {
        1..=CHECK_AFTER_MS_MAX => Ok(after),
        _ => Err(format!("expected a duration from 1ms to 1d, got {text:?}")),
    }
}
