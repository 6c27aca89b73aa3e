//! What a receiver's response means. Pure; the time is an argument.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use levada_broker::PushOutcome;

/// The longest pause that a receiver can ask for at a time.
const PAUSE_MAX: Duration = Duration::from_secs(3_600);
/// The shortest: `Retry-After: 0` must not become a loop.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// How much of a body is kept of a failure.
pub(crate) const BODY_KEPT: usize = 256;

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The receiver took the event.
    Delivered,
    /// The receiver wants nothing for so long. That is no attempt.
    Wait(Duration, String),
    /// The receiver wants nothing any more.
    Gone(String),
    /// It failed.
    Failed(PushOutcome, String),
}

impl Verdict {
    /// How it is counted.
    pub(crate) fn outcome(&self) -> PushOutcome {
        match self {
            Self::Delivered => PushOutcome::Delivered,
            Self::Wait(..) => PushOutcome::Throttled,
            Self::Gone(_) => PushOutcome::Gone,
            Self::Failed(outcome, _) => *outcome,
        }
    }

    /// What to say of it.
    pub(crate) fn message(&self) -> &str {
        match self {
            Self::Delivered => "",
            Self::Wait(_, message) | Self::Gone(message) | Self::Failed(_, message) => message,
        }
    }

    /// Of a response with this head and the beginning of its body.
    pub(crate) fn of(status: StatusCode, headers: &HeaderMap, body: &[u8], now: SystemTime) -> Self {
        if status.is_success() {
            return Self::Delivered;
        }
        let said = said(status, body);
        match status {
            StatusCode::GONE => Self::Gone(said),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                match headers.get(RETRY_AFTER).and_then(|after| pause(after.as_bytes(), now)) {
                    Some(pause) => {
                        let message =
                            format!("{said}; the receiver asked for a pause of {} s", pause.as_secs());
                        Self::Wait(pause, message)
                    }
                    None => Self::Failed(PushOutcome::Failed, said),
                }
            }
            status if status.is_redirection() => {
                let message = format!("{said}; redirects are not followed: set the url that is meant");
                Self::Failed(PushOutcome::Failed, message)
            }
            _ => Self::Failed(PushOutcome::Failed, said),
        }
    }
}

/// What a `Retry-After` says: seconds, or a date.
fn pause(value: &[u8], now: SystemTime) -> Option<Duration> {
    let text = str::from_utf8(value).ok()?.trim();
    let asked = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // So many digits that they are no number are more than the longest pause.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()
    };
    Some(asked.clamp(PAUSE_MIN, PAUSE_MAX))
}

/// The status, and the beginning of the body as text without control characters.
fn said(status: StatusCode, body: &[u8]) -> String {
    let body = &body[..body.len().min(BODY_KEPT)];
    let text = String::from_utf8_lossy(body);
    let text: String = text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    match text.trim() {
        "" => format!("status {}", status.as_u16()),
        text => format!("status {}: {text}", status.as_u16()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// 1994-11-06T08:49:37Z.
    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)
    }

    fn verdict(status: u16, after: Option<&str>) -> Verdict {
        let headers = after.map(|after| (RETRY_AFTER, after.parse().unwrap()));
        Verdict::of(StatusCode::from_u16(status).unwrap(), &headers.into_iter().collect(), b"no", now())
    }

    #[test]
    fn statuses_mean_this() {
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(verdict(status, Some("5")), Verdict::Delivered, "{status}");
        }
        for status in [100, 301, 302, 307, 400, 401, 404, 408, 425, 429, 500, 502, 503, 504, 599] {
            let failed = verdict(status, None);
            assert_eq!(failed.outcome(), PushOutcome::Failed, "{status}");
            assert!(failed.message().starts_with(&format!("status {status}: no")), "{failed:?}");
        }
        assert_eq!(verdict(410, Some("5")), Verdict::Gone("status 410: no".to_owned()));
        assert!(verdict(302, None).message().contains("not followed"));
        assert_eq!(verdict(500, Some("5")).outcome(), PushOutcome::Failed);
    }

    #[test]
    fn a_pause_is_seconds_or_a_date_and_has_bounds() {
        let hour = 3_600_000;
        for (after, ms) in [
            ("7", Some(7_000)),
            (" 7 ", Some(7_000)),
            ("0", Some(500)),
            ("86400", Some(hour)),
            ("99999999999999999999999999", Some(hour)),
            ("Sun, 06 Nov 1994 08:49:42 GMT", Some(5_000)),
            ("Sun, 06 Nov 1994 08:49:30 GMT", Some(500)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            for status in [429, 503] {
                let pause = match verdict(status, Some(after)) {
                    Verdict::Wait(pause, _) => Some(pause.as_millis()),
                    Verdict::Failed(..) => None,
                    other => panic!("{other:?}"),
                };
                assert_eq!(pause, ms, "{after:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_a_receiver_says_is_short_and_without_control_characters(
            status in 100_u16..1_000, body in vec(any::<u8>(), 0..600), after in vec(any::<u8>(), 0..40),
        ) {
            let headers = http::HeaderValue::from_bytes(&after).ok().map(|after| (RETRY_AFTER, after));
            let status = StatusCode::from_u16(status).unwrap();
            let verdict = Verdict::of(status, &headers.into_iter().collect(), &body, now());
            prop_assert!(verdict.message().len() <= 900, "{:?}", verdict);
            prop_assert!(!verdict.message().chars().any(char::is_control));
        }
    }
}
