//! What a failure means for who thinks of trying again: whether that may help, how long to wait, and what has changed.

use std::fmt;

use levada_client::{Error, Refusal};
use levada_protocol::error::ErrorCode;
use levada_terminal::FailureCode;
use serde::Serialize;

use crate::args::Named;

/// The answers, in the words of the protocol's table of error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Outcome {
    /// `yes` if the same may succeed later, unchanged; else `no`.
    retry: &'static str,
    /// What was changed: `none`, or `unknown`; `partial` if the message begins with what was done before.
    effect: &'static str,
    /// How long to wait before that, as far as the engine knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u32>,
}

/// What was done before a command failed, as the context of the failure.
#[derive(Debug)]
pub(crate) struct Partly(pub(crate) String);

impl fmt::Display for Partly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Outcome {
    /// What the code says, whatever failed with it.
    pub(crate) fn of_code(code: FailureCode) -> Self {
        match code {
            FailureCode::Known(code) => Self::new(code.is_retryable(), code.has_no_side_effects()),
            FailureCode::FileUnreadable | FailureCode::ContextNotFound | FailureCode::ContextExists => {
                Self::new(false, true)
            }
            FailureCode::OutputFailed => Self::new(false, false),
        }
    }

    /// What is known of this failure of a command.
    pub(crate) fn of(error: &anyhow::Error, code: FailureCode, named: &Named) -> Self {
        let failed = error.chain().find_map(|cause| cause.downcast_ref::<Error>());
        let refusal = error.chain().find_map(refusal_of);
        let known = failed.map_or_else(
            || Self::of_code(code),
            |failed| Self::new(failed.is_retryable(), failed.has_no_side_effects()),
        );
        let effect = match known.effect {
            _ if error.downcast_ref::<Partly>().is_some() => "partial",
            _ if !named.changes() => "none",
            effect => effect,
        };
        Self { effect, retry_after_ms: refusal.and_then(|refusal| refusal.retry_after_ms), ..known }
    }

    fn new(is_retryable: bool, has_no_side_effects: bool) -> Self {
        let retry = if is_retryable { "yes" } else { "no" };
        let effect = if has_no_side_effects { "none" } else { "unknown" };
        Self { retry, effect, retry_after_ms: None }
    }

    /// What a person must know of it that the code and the sentence do not say.
    pub(crate) fn remark(&self, code: FailureCode) -> &'static str {
        // What this side could not do is no question of an answer that did not come.
        let is_answer = matches!(
            code,
            FailureCode::Known(
                ErrorCode::ConnectionLost
                    | ErrorCode::DeadlineExceeded
                    | ErrorCode::OutcomeUnknown
                    | ErrorCode::ProducerFenced
            )
        );
        if is_answer && self.effect == "unknown" { "; it may have taken effect" } else { "" }
    }
}

/// A refusal, also as the last one before the time was over.
fn refusal_of<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a Refusal> {
    match cause.downcast_ref::<Error>() {
        Some(Error::Refused(refusal)) | Some(Error::TimedOut { last: Some(refusal), .. }) => Some(refusal),
        _ => cause.downcast_ref(),
    }
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsString, time::Duration};

    use super::*;

    fn named(line: &str) -> Named {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        Named::parse(&words).unwrap().1
    }

    fn outcome(error: impl Into<anyhow::Error>, code: ErrorCode, line: &str) -> (String, &'static str) {
        let outcome = Outcome::of(&error.into(), code.into(), &named(line));
        (serde_json::to_string(&outcome).unwrap(), outcome.remark(code.into()))
    }

    #[test]
    fn a_failure_says_whether_to_try_again_and_what_it_changed() {
        let publish = "levada publish orders";
        let full = Refusal::new(ErrorCode::BacklogFull, "full").retry_after(250);
        let json = r#"{"retry":"yes","effect":"none","retry_after_ms":250}"#;
        assert_eq!(outcome(Error::from(full.clone()), full.code, publish), (json.to_owned(), ""));
        let timed_out =
            |in_doubt| Error::TimedOut { waited: Duration::ZERO, in_doubt, last: Some(full.clone()) };
        assert_eq!(outcome(timed_out(false), full.code, publish), (json.to_owned(), ""));
        let json = r#"{"retry":"yes","effect":"unknown","retry_after_ms":250}"#;
        assert_eq!(outcome(timed_out(true), ErrorCode::BacklogFull, publish), (json.to_owned(), ""));
        let partly =
            anyhow::Error::from(Error::from(full)).context(Partly("1 event stored, then".to_owned()));
        let json = r#"{"retry":"yes","effect":"partial","retry_after_ms":250}"#;
        assert_eq!(outcome(partly, ErrorCode::BacklogFull, publish), (json.to_owned(), ""));
    }

    #[test]
    fn what_a_fenced_publisher_had_sent_before_a_loss_may_be_stored() {
        let refusal = Refusal::new(ErrorCode::ProducerFenced, "taken over");
        let fenced = |in_doubt| Error::Fenced { refusal: refusal.clone(), in_doubt };
        let said = |in_doubt| outcome(fenced(in_doubt), refusal.code, "levada publish orders --producer a");
        assert_eq!(said(false), (r#"{"retry":"no","effect":"none"}"#.to_owned(), ""));
        let json = r#"{"retry":"no","effect":"unknown"}"#.to_owned();
        assert_eq!(said(true), (json, "; it may have taken effect"));
    }

    #[test]
    fn an_answer_that_did_not_come_may_hide_an_effect_unless_nothing_was_to_change() {
        let lost = || Error::TimedOut { waited: Duration::ZERO, in_doubt: true, last: None };
        let json = r#"{"retry":"yes","effect":"unknown"}"#.to_owned();
        let code = ErrorCode::DeadlineExceeded;
        assert_eq!(outcome(lost(), code, "levada topic create t"), (json, "; it may have taken effect"));
        let json = r#"{"retry":"yes","effect":"none"}"#.to_owned();
        for line in ["levada topic list", "levada dlq show t/s", "levada read t", "levada route describe r"] {
            assert_eq!(outcome(lost(), code, line), (json.clone(), ""), "{line}");
        }
    }
}
