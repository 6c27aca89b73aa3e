//! Times of events as text, from 1970 to the end of the year 9999.

use jiff::{
    SignedDuration,
    civil::{DateTime, Time},
    fmt::temporal::Pieces,
};
use levada_protocol::ids::Timestamp;

const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// Why a text is no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTime {
    /// Nothing that looks like a date and a time.
    #[error("expected a time such as 2026-01-31T12:00:00Z")]
    Form,
    /// A date and a time of day that could be anywhere on earth.
    #[error("expected a time with its zone, such as 2026-01-31T12:00:00Z or 2026-01-31T13:00:00+01:00")]
    NoZone,
    /// A time that no event can have.
    #[error("expected a time from 1970 on")]
    Before1970,
}

/// A time as RFC 3339 in UTC, with as many decimals as it needs; `None` after the year 9999, which that form cannot
/// write.
pub fn format(time: Timestamp) -> Option<String> {
    let since = SignedDuration::from_millis(i64::try_from(time.0).ok()?);
    EPOCH.checked_add(since).ok().map(|time| format!("{time}Z"))
}

/// A time in RFC 3339. What is finer than a millisecond is cut off.
///
/// # Errors
/// See [`InvalidTime`].
pub fn parse(text: &str) -> Result<Timestamp, InvalidTime> {
    if !has_form(text.as_bytes()) {
        return Err(if pieces(text).is_ok_and(|pieces| pieces.to_numeric_offset().is_none()) {
            InvalidTime::NoZone
        } else {
            InvalidTime::Form
        });
    }
    let pieces = pieces(text)?;
    let (Some(time), Some(offset)) = (pieces.time(), pieces.to_numeric_offset()) else {
        return Err(InvalidTime::NoZone);
    };
    instant(pieces.date().to_datetime(time), offset.seconds())
}

/// True for the form of RFC 3339, section 5.6, whatever its numbers: what is parsed below it may leave out more.
fn has_form(text: &[u8]) -> bool {
    let digits =
        |from: usize, to: usize| text.get(from..to).is_some_and(|part| part.iter().all(u8::is_ascii_digit));
    let is = |at: usize, one_of: &[u8]| text.get(at).is_some_and(|byte| one_of.contains(byte));
    let date = digits(0, 4) && is(4, b"-") && digits(5, 7) && is(7, b"-") && digits(8, 10);
    let time =
        is(10, b"Tt ") && digits(11, 13) && is(13, b":") && digits(14, 16) && is(16, b":") && digits(17, 19);
    let mut at = 19;
    if is(at, b".") {
        let decimals = text[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        at = if decimals == 0 { text.len() } else { at + 1 + decimals };
    }
    let zulu = is(at, b"Zz") && text.len() == at + 1;
    let offset = is(at, b"+-") && digits(at + 1, at + 3) && is(at + 3, b":") && digits(at + 4, at + 6);
    date && time && (zulu || (offset && text.len() == at + 6))
}

/// A time as people type it: without a zone it is in UTC, without a time of day it is the day's beginning.
///
/// # Errors
/// See [`InvalidTime`].
pub fn parse_lenient(text: &str) -> Result<Timestamp, InvalidTime> {
    let pieces = pieces(text)?;
    let time = pieces.time().unwrap_or(Time::midnight());
    let offset = pieces.to_numeric_offset().map_or(0, |offset| offset.seconds());
    instant(pieces.date().to_datetime(time), offset)
}

/// The parts of a time; names of time zones in brackets, which RFC 3339 does not know, are none.
fn pieces(text: &str) -> Result<Pieces<'_>, InvalidTime> {
    let pieces = Pieces::parse(text).map_err(|_| InvalidTime::Form)?;
    if pieces.time_zone_annotation().is_some() { Err(InvalidTime::Form) } else { Ok(pieces) }
}

fn instant(local: DateTime, offset_seconds: i32) -> Result<Timestamp, InvalidTime> {
    let since = local.duration_since(EPOCH) - SignedDuration::from_secs(i64::from(offset_seconds));
    if since.is_negative() {
        return Err(InvalidTime::Before1970);
    }
    u64::try_from(since.as_millis()).map(Timestamp).map_err(|_| InvalidTime::Form)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_to_the_end_of_its_calendar() {
        for (milliseconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_769_860_800_123, "2026-01-31T12:00:00.123Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(format(Timestamp(milliseconds)).as_deref(), Some(text));
            assert_eq!(parse(text), Ok(Timestamp(milliseconds)), "{text}");
        }
        assert_eq!(format(Timestamp(253_402_300_800_000)), None);
        assert_eq!(format(Timestamp(u64::MAX)), None);
    }

    #[test]
    fn a_zone_counts_and_must_be_there() {
        let noon = Ok(Timestamp(1_769_860_800_000));
        assert_eq!(parse("2026-01-31T13:00:00+01:00"), noon);
        assert_eq!(parse("2026-01-31t07:00:00.0009-05:00"), noon);
        assert_eq!(parse("2026-01-31T12:00:00"), Err(InvalidTime::NoZone));
        assert_eq!(parse("2026-01-31"), Err(InvalidTime::NoZone));
        for text in [
            "2026-01-31T01:00+01:00",
            "2026-01-31T01:00:00.Z",
            "20260131T010000Z",
            "2026-01-31T01:00:00+01",
            "2026-01-31T01:00:00Z ",
        ] {
            assert_eq!(parse(text), Err(InvalidTime::Form), "{text}");
        }
        assert_eq!(parse("1969-12-31T23:59:59Z"), Err(InvalidTime::Before1970));
        for text in ["noon", "", "2026-13-01T00:00:00Z", "17"] {
            assert_eq!(parse(text), Err(InvalidTime::Form), "{text}");
        }
    }

    #[test]
    fn what_people_type_is_utc_unless_it_says_otherwise() {
        for text in ["2026-01-31", "2026-01-31T00:00", "2026-01-31 00:00:00", "2026-01-31T01:00+01:00"] {
            assert_eq!(parse_lenient(text), Ok(Timestamp(1_769_817_600_000)), "{text}");
        }
        for text in ["yesterday", "2026-01-31T12:00[Europe/Berlin]"] {
            assert_eq!(parse_lenient(text), Err(InvalidTime::Form), "{text}");
        }
    }
}
