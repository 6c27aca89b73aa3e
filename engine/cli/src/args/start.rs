//! Where reading begins, as it is typed.

use levada_protocol::{ids::Timestamp, request::Start};
use levada_terminal::values::DurationMs;

/// What a start may look like, for errors.
const FORMS: &str = "earliest, latest, an offset, a time such as 2026-01-31T12:00:00Z, 2026-01-31 (in UTC), now, -1h \
                     or 2h ago";

/// Most events that `--last` takes: they are held until the last is known.
pub(super) const LAST_MAX: u64 = 10_000;

/// Where `levada read` begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beginning {
    At(Start),
    /// This many events before the end.
    Last(u64),
}

/// A start, or `-N` for the last N events.
pub(super) fn parse_beginning(text: &str) -> Result<Beginning, String> {
    match beginning(text, now()) {
        Ok(Beginning::Last(last)) if last > LAST_MAX => {
            Err(format!("expected at most {LAST_MAX} as the number of last events, got {last}"))
        }
        Ok(beginning) => Ok(beginning),
        Err(got) => Err(format!("expected {FORMS}, or -N for the last N events, got {got}")),
    }
}

/// A start that does not depend on what is stored at that moment.
pub(super) fn parse_start(text: &str) -> Result<Start, String> {
    match beginning(text, now()) {
        Ok(Beginning::At(start)) => Ok(start),
        Ok(Beginning::Last(_)) => Err(format!(
            "expected {FORMS}, got {text:?}; `levada read TOPIC --last N` reads the last N events"
        )),
        Err(got) => Err(format!("expected {FORMS}, got {got}")),
    }
}

/// A time to look back to: so long ago, or a time of its own.
pub(super) fn parse_since(text: &str) -> Result<Start, String> {
    since(text, now())
}

fn since(text: &str, now: Timestamp) -> Result<Start, String> {
    if let Ok(DurationMs(ago)) = text.parse() {
        let before = || format!("expected a duration back from now, got {text:?}, which is before 1970");
        return now.0.checked_sub(ago).map(Start::Time).ok_or_else(before);
    }
    match beginning(text, now) {
        Ok(Beginning::At(time @ Start::Time(_))) => Ok(time),
        _ => Err(format!(
            "expected a duration back from now such as 1h, or a time such as 2026-01-31T12:00:00Z or 2026-01-31 (in UTC), \
             got {text:?}"
        )),
    }
}

/// This machine's time of day.
pub(crate) fn now() -> Timestamp {
    Timestamp(u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0))
}

/// # Errors
/// What the text is instead.
fn beginning(text: &str, now: Timestamp) -> Result<Beginning, String> {
    let at = |start| Ok(Beginning::At(start));
    match text {
        "earliest" => return at(Start::Earliest),
        "latest" => return at(Start::Latest),
        "now" => return at(Start::Time(now.0)),
        _ => {}
    }
    if let Ok(offset) = text.parse() {
        return at(Start::Offset(offset));
    }
    if let Some(back) = text.strip_prefix('-') {
        match back.parse() {
            Ok(0) => return Err("-0, which is no event".to_owned()),
            Ok(last) => return Ok(Beginning::Last(last)),
            Err(_) => {}
        }
    }
    let ago = text.strip_prefix('-').or_else(|| text.strip_suffix(" ago"));
    if let Some(DurationMs(ago)) = ago.and_then(|ago| ago.trim().parse().ok()) {
        let time = now.0.checked_sub(ago).ok_or_else(|| format!("{text:?}, which is before 1970"))?;
        return at(Start::Time(time));
    }
    match levada_json::time::parse_lenient(text) {
        Ok(time) => at(Start::Time(time.0)),
        Err(levada_json::time::InvalidTime::Before1970) => Err(format!("{text:?}, which is before 1970")),
        Err(_) => Err(format!("{text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_places_or_times_and_a_time_without_zone_is_utc() {
        let noon = Timestamp(1_769_860_800_000);
        for (text, start) in [
            ("earliest", Start::Earliest),
            ("latest", Start::Latest),
            ("42", Start::Offset(42)),
            ("1970-01-01T00:00:01.5Z", Start::Time(1_500)),
            ("1970-01-01T01:00:01+01:00", Start::Time(1_000)),
            ("2026-01-31T12:00", Start::Time(noon.0)),
            ("2026-01-31", Start::Time(noon.0 - 12 * 3_600_000)),
            ("now", Start::Time(noon.0)),
            ("-1h", Start::Time(noon.0 - 3_600_000)),
            ("2h ago", Start::Time(noon.0 - 7_200_000)),
            ("1h 30m ago", Start::Time(noon.0 - 5_400_000)),
        ] {
            assert_eq!(beginning(text, noon), Ok(Beginning::At(start)), "{text}");
        }
        assert_eq!(beginning("-3", noon), Ok(Beginning::Last(3)));
        for text in ["yesterday", "", "-", "-0", " ago", "1969-12-31T00:00:00Z", "-100y"] {
            assert!(beginning(text, noon).is_err(), "{text}");
        }
    }

    #[test]
    fn since_takes_durations_and_times() {
        let noon = Timestamp(1_769_860_800_000);
        for (text, time) in [
            ("1h", noon.0 - 3_600_000),
            ("1h 30m", noon.0 - 5_400_000),
            ("-1h", noon.0 - 3_600_000),
            ("2h ago", noon.0 - 7_200_000),
            ("2026-01-31T12:00", noon.0),
            ("1970-01-01T01:00:00+01:00", 0),
        ] {
            assert_eq!(since(text, noon), Ok(Start::Time(time)), "{text}");
        }
        for text in ["", "earliest", "latest", "42", "-3", "yesterday", "100y"] {
            assert!(since(text, noon).is_err(), "{text}");
        }
    }

    #[test]
    fn only_reading_begins_before_the_end() {
        assert_eq!(parse_beginning("-3"), Ok(Beginning::Last(3)));
        assert!(parse_start("-3").unwrap_err().contains("levada read TOPIC --last N"));
    }
}
