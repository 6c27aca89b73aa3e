//! How a command ends without success: on stderr a line with a stable code and a hint, or one JSON object; an exit
//! code.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    process::ExitCode,
};

use clap::error::ErrorKind;
use levada_protocol::error::ErrorCode;
use levada_terminal::{
    Failure, FailureCode, FailureKind,
    choices::Format,
    output::{Output, Unwritten, printable},
};
use serde::Serialize;

use crate::{args::Named, outcome::Outcome};

/// The exit code of wrong usage.
const WRONG_USAGE: u8 = 2;
/// The exit code of work that the user stopped, as shells know it.
const INTERRUPTED: u8 = 130;

/// Prints why a command failed and returns its exit code.
///
/// A reader of stdout that went away (`levada read … | head`) is no failure.
pub(crate) fn report(error: &anyhow::Error, output: &Output, named: &Named) -> ExitCode {
    if error.chain().any(|cause| cause.downcast_ref().is_some_and(Unwritten::is_closed)) {
        return ExitCode::SUCCESS;
    }
    let kind = error.chain().find_map(|cause| cause.downcast_ref::<Failure>()).map(Failure::kind);
    if kind == Some(FailureKind::Interrupted) {
        output.remark(&sentence(error));
        return ExitCode::from(INTERRUPTED);
    }
    let format = if output.is_json() { Format::Json } else { Format::Text };
    let (code, hint) = describe(error);
    // What a command says by itself names what it means; what is said of a code in general does not.
    let usual = self::hint(code).unwrap_or_default();
    let hint = hint.map(|hint| match hint.strip_suffix(&usual) {
        Some(own) => format!("{own}{}", named.filled_in(&usual)),
        None => hint,
    });
    let outcome = Outcome::of(error, code, named);
    print(format, &Reported { code, message: sentence(error), outcome, hint });
    if kind == Some(FailureKind::WrongUsage) || names_no_file(error) {
        ExitCode::from(WRONG_USAGE)
    } else {
        ExitCode::FAILURE
    }
}

/// True if the configuration file that was named cannot be read: as with input files, the name is wrong.
fn names_no_file(error: &anyhow::Error) -> bool {
    use levada_server::{Error, config};
    let is_of_file = |error: &Error| matches!(error, Error::Config(config::Error::File { .. }));
    error.chain().any(|cause| cause.downcast_ref().is_some_and(is_of_file))
}

/// Prints help or what was wrong with the arguments.
pub(crate) fn usage(error: &clap::Error, format: Format) -> ExitCode {
    let wanted = matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    if wanted {
        match error.print().map_err(Unwritten::from) {
            Err(unwritten) if !unwritten.is_closed() => {
                let (code, message) = (FailureCode::OutputFailed, sentence(&unwritten.into()));
                print(format, &Reported::new(code, message, None));
                return ExitCode::FAILURE;
            }
            _ => {}
        }
        return if error.use_stderr() { ExitCode::from(WRONG_USAGE) } else { ExitCode::SUCCESS };
    }
    let (message, tips) = split_usage(&error.render().to_string());
    print(format, &Reported::new(ErrorCode::InvalidArgument.into(), message, Some(tips)));
    ExitCode::from(WRONG_USAGE)
}

/// Prints what is wrong with the environment, where the arguments cannot be parsed.
pub(crate) fn of_environment(error: &levada_server::config::Error, format: Format) -> ExitCode {
    print(format, &Reported::new(error.code().into(), error.to_string(), None));
    ExitCode::FAILURE
}

/// The form in which errors are to be printed when the arguments cannot be parsed: the one that they ask for all the
/// same.
pub(crate) fn format_wanted(arguments: &[OsString]) -> Format {
    let pairs = arguments.iter().zip(arguments.iter().skip(1));
    let is_json = arguments.iter().any(|argument| argument == "--output=json")
        || pairs.clone().any(|(flag, value)| flag == "--output" && value == "json");
    if is_json { Format::Json } else { Format::Text }
}

/// What the standard library says of a text that is no number, and what a reader needs instead.
const BARE: [(&str, &str); 5] = [
    ("invalid digit found in string", "expected a whole number"),
    ("cannot parse integer from empty string", "expected a whole number"),
    ("number too large to fit in target type", "the number is too large"),
    ("invalid float literal", "expected a number"),
    ("number would be zero for non-zero type", "expected 1 or more"),
];

/// The first paragraph of clap's text as one sentence, and the rest that helps as another.
fn split_usage(text: &str) -> (String, String) {
    let one_line = |part: &str| part.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut paragraphs = text.trim().split("\n\n");
    let first = paragraphs.next().unwrap_or_default();
    let mut message = one_line(first.strip_prefix("error: ").unwrap_or(first));
    let value = message.strip_prefix("invalid value '-");
    if value.is_some_and(|value| value.starts_with(|first: char| first.is_ascii_digit())) {
        message = message.replace(BARE[0].0, "expected a whole number that is not negative");
    }
    for (bare, expected) in BARE {
        message = message.replace(bare, expected);
    }
    message = of_range(&message).unwrap_or(message);
    let rest: Vec<String> = paragraphs
        .map(one_line)
        .map(|line| line.replace("For more information, try '--help'.", ""))
        .collect();
    let tip = |line: &'_ String| line.trim().trim_start_matches("tip: ").to_owned();
    let mut tips: Vec<String> = rest.iter().map(tip).filter(|line| !line.is_empty()).collect();
    tips.push("--help says more".to_owned());
    (message, tips.join("; "))
}

/// `…: 0 is not in 1..=5`, as a range refuses a number, in the words of all else.
fn of_range(message: &str) -> Option<String> {
    let (before, range) = message.rsplit_once(" is not in ")?;
    let (of, _) = before.rsplit_once(": ")?;
    let expected = match range.split_once("..")? {
        (least, "") => format!("{least} or more"),
        (least, most) => format!("{least} to {}", most.strip_prefix('=')?),
    };
    Some(format!("{of}: expected {expected}"))
}

/// A failure as it is printed.
#[derive(Serialize)]
struct Reported {
    #[serde(serialize_with = "as_word")]
    code: FailureCode,
    message: String,
    #[serde(flatten)]
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Reported {
    fn new(code: FailureCode, message: String, hint: Option<String>) -> Self {
        Self { code, message, outcome: Outcome::of_code(code), hint }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn as_word<S: serde::Serializer>(code: &FailureCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(code.as_str())
}

fn print(format: Format, reported: &Reported) {
    let Reported { code, message, outcome, hint } = reported;
    let (word, remark) = (code.as_str(), outcome.remark(*code));
    let lines = match (format, hint) {
        (Format::Json, _) => {
            let failure = serde_json::to_string(reported).expect("texts can be written as JSON");
            format!("{{\"error\":{failure}}}")
        }
        (Format::Text, None) => printable(&format!("error: {word}: {message}{remark}")).into_owned(),
        (Format::Text, Some(hint)) => {
            printable(&format!("error: {word}: {message}{remark}\nhint: {hint}")).into_owned()
        }
    };
    // A closed stderr leaves the exit code to say it.
    let _gone = writeln!(io::stderr(), "{lines}");
}

/// The whole chain of causes as one sentence.
fn sentence(error: &anyhow::Error) -> String {
    // An engine's refusal prints its code itself, wherever it is quoted; that is before the sentence already.
    let own = format!("{}: ", describe(error).0.as_str());
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string().replace('\n', " ").replace(&own, "");
        // A transparent error repeats its source's words.
        if parts.last().is_none_or(|last| !last.ends_with(&text)) {
            parts.push(text);
        }
    }
    parts.join(": ")
}

fn describe(error: &anyhow::Error) -> (FailureCode, Option<String>) {
    for cause in error.chain() {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            let advice = failure.advice().map(str::to_owned);
            return (failure.code(), advice.or_else(|| hint(failure.code())));
        }
        if let Some(refused) = cause.downcast_ref::<levada_client::Error>() {
            let code = code_of(refused).into();
            return (code, hint(code));
        }
        if let Some(failed) = cause.downcast_ref::<levada_server::Error>() {
            // What is said about certificates is for clients; an engine's own files are named in the message.
            let code = failed.code();
            return (code.into(), hint(code.into()).filter(|_| code != ErrorCode::TlsFailed));
        }
        if cause.is::<Unwritten>() {
            return (FailureCode::OutputFailed, None);
        }
    }
    (ErrorCode::Internal.into(), None)
}

/// The protocol's code of a failure, if it has one.
pub(crate) fn code(error: &anyhow::Error) -> Option<ErrorCode> {
    match describe(error).0 {
        FailureCode::Known(code) => Some(code),
        FailureCode::FileUnreadable
        | FailureCode::OutputFailed
        | FailureCode::ContextNotFound
        | FailureCode::ContextExists => None,
    }
}

/// The same failure with this hint before the one it has.
pub(crate) fn with_hint(error: &anyhow::Error, first: &str) -> anyhow::Error {
    let (code, hint) = describe(error);
    let hint = hint.map_or_else(|| first.to_owned(), |hint| format!("{first}; {hint}"));
    Failure::new(code, sentence(error)).hint(hint).into()
}

/// The same failure with this hint where it has none of its own: the usual one of its code does not fit.
pub(crate) fn with_default_hint(error: &anyhow::Error, hint: &str) -> anyhow::Error {
    let given = error.chain().find_map(|cause| cause.downcast_ref::<Failure>()).and_then(Failure::advice);
    Failure::new(describe(error).0, sentence(error)).hint(given.unwrap_or(hint)).into()
}

/// The code that says most: of an attempt that was refused until its time was up, why it was refused.
fn code_of(error: &levada_client::Error) -> ErrorCode {
    match error {
        levada_client::Error::TimedOut { last: Some(refusal), .. } => refusal.code,
        other => other.code(),
    }
}

/// What a person can do about a code, where that is clear.
fn hint(code: FailureCode) -> Option<String> {
    let FailureCode::Known(code) = code else { return None };
    let text = match code {
        ErrorCode::TopicNotFound => "`levada topic list` shows the topics, `levada topic create` makes one",
        ErrorCode::SubscriptionNotFound => "`levada subscription list` shows the subscriptions",
        ErrorCode::BacklogFull => {
            "`levada topic describe TOPIC` shows its backlog, `levada subscription describe TOPIC/SUBSCRIPTION` what the \
             subscription waits for"
        }
        ErrorCode::Quota => {
            "`levada principal describe` shows the quotas, `levada principal limit` changes them"
        }
        ErrorCode::SubscriptionMismatch => {
            "`levada subscription set TOPIC/SUBSCRIPTION` with that flag changes it; without the flag that differs it is \
             taken as it is"
        }
        ErrorCode::PluginNotFound => {
            "`levada plugin list` shows the plugins, `levada plugin deploy --bundled` brings those of this binary"
        }
        ErrorCode::PluginInUse => "`levada plugin list` shows where it is used",
        ErrorCode::ProducerFenced => {
            "another publisher of that name has begun since: leave the work to it, or run the command again for what is not \
             stored, which takes the name back and stops the other"
        }
        ErrorCode::ProducerUnknown => "the same command again opens the name anew",
        ErrorCode::ScheduleNotFound => {
            "`levada schedule list TOPIC` shows the events that wait for their time"
        }
        ErrorCode::AlreadyDue => "`levada read TOPIC --last 10` shows the newest events of the topic",
        ErrorCode::RouteCycle => "`levada route list` shows where the routes lead; --to names another topic",
        ErrorCode::RouteNotFound => "`levada route list` shows the routes",
        ErrorCode::TopicInUse | ErrorCode::SubscriptionInUse => {
            "--force deletes it all the same, --with-dead-letters the dead-letter topics of what goes as well"
        }
        ErrorCode::RedriveLoop => {
            "--to names a topic that can be published to, such as the one that the events were in"
        }
        ErrorCode::NotRedriven => "`levada dlq redrive` redrives them, --force purges them all the same",
        ErrorCode::ConnectFailed => {
            "--addr, LEVADA_ADDR or a context names another engine's address, `levada serve` starts one"
        }
        ErrorCode::TlsFailed => {
            "--ca, LEVADA_CA or the context must have the ca.pem of that engine: DATA_DIR/tls/ca.pem"
        }
        ErrorCode::AddressInUse => {
            "--listen and --http choose other addresses; port 0 takes any that is free"
        }
        ErrorCode::StorageInUse => "stop the other engine, or choose another --data-dir",
        ErrorCode::StorageNewer => "run the levada that wrote it, or a newer one",
        ErrorCode::StorageOlder => {
            "`levada read` of the build that wrote it, piped into `levada publish` here, carries events over"
        }
        ErrorCode::StorageFull => "make room on the data directory's volume; reading continues meanwhile",
        _ => return None,
    };
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clap_paragraphs_become_one_sentence_and_a_hint() {
        let text = "error: invalid value 'x' for '--max <N>':\n  not a number\n\n  tip: try 1\n\nFor more \
                    information, try '--help'.\n";
        let (message, tips) = split_usage(text);
        assert_eq!(message, "invalid value 'x' for '--max <N>': not a number");
        assert_eq!(tips, "try 1; --help says more");
    }

    #[test]
    fn a_failure_keeps_its_code_through_context() {
        let error =
            anyhow::Error::new(Failure::new(ErrorCode::TopicNotFound, "no topic x")).context("while reading");
        assert_eq!(describe(&error).0, ErrorCode::TopicNotFound.into());
        assert_eq!(sentence(&error), "while reading: no topic x");
    }

    #[test]
    fn an_attempt_that_ran_out_of_time_is_named_by_its_last_refusal() {
        let last = Some(levada_client::Refusal::new(ErrorCode::StorageFull, "no room"));
        let waited = std::time::Duration::from_secs(2);
        let error = anyhow::Error::new(levada_client::Error::TimedOut { waited, in_doubt: false, last });
        assert_eq!(describe(&error).0, ErrorCode::StorageFull.into());
        assert_eq!(sentence(&error), "no success within 2s: no room");
    }

    #[test]
    fn a_code_is_named_once_wherever_a_refusal_is_quoted() {
        let refusal =
            levada_client::Refusal::new(ErrorCode::TransactionTooLarge, "expected 9 events, got 10");
        let quoted = Failure::new(refusal.code, format!("line 5: {refusal}"));
        let around = anyhow::Error::new(levada_client::Error::from(refusal.clone())).context("line 5");
        let deep = anyhow::Error::new(quoted).context("while preparing");
        assert_eq!(sentence(&around), "line 5: expected 9 events, got 10");
        assert_eq!(sentence(&deep), "while preparing: line 5: expected 9 events, got 10");
    }

    #[test]
    fn json_says_whether_to_try_again() {
        let reported = Reported::new(ErrorCode::ConnectFailed.into(), "cannot connect".to_owned(), None);
        let json = r#"{"code":"CONNECT_FAILED","message":"cannot connect","retry":"yes","effect":"none"}"#;
        assert_eq!(serde_json::to_string(&reported).unwrap(), json);
    }

    #[test]
    fn json_is_asked_for_in_either_spelling() {
        let wanted = |line: &str| format_wanted(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        for line in ["levada --output json topic", "levada topic list --output=json"] {
            assert_eq!(wanted(line), Format::Json, "{line}");
        }
        assert_eq!(wanted("levada publish json --output text"), Format::Text);
    }

    #[test]
    fn a_text_that_is_no_number_is_told_what_was_expected() {
        let said = "error: invalid value 'many' for '--partitions <N>': invalid digit found in string\n\n\
                    For more information, try '--help'.";
        let (message, _) = split_usage(said);
        assert_eq!(message, "invalid value 'many' for '--partitions <N>': expected a whole number");
        for (said, expected) in [
            (
                "'-1' for '<ID>': invalid digit found in string",
                "'-1' for '<ID>': expected a whole number that is not negative",
            ),
            ("'-1' for '--max <N>': -1 is not in 1..", "'-1' for '--max <N>': expected 1 or more"),
            ("'0' for '--max <N>': 0 is not in 1..=9", "'0' for '--max <N>': expected 1 to 9"),
        ] {
            let (message, _) = split_usage(&format!("error: invalid value {said}\n"));
            assert_eq!(message, format!("invalid value {expected}"));
        }
    }
}
