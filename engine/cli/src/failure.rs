//! How a command ends without success: one line on stderr with a stable code, a hint, an exit code.

use std::{
    error::Error,
    fmt,
    io::{self, Write as _},
    process::ExitCode,
};

use clap::error::ErrorKind;
use levada_protocol::error::ErrorCode;

/// A failure that the command line itself finds, as opposed to one that the engine answers.
#[derive(Debug)]
pub(crate) struct Failure {
    code: ErrorCode,
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// A failure with this code and sentence.
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    /// The same failure with a hint what to do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {}

/// Prints why a command failed and answers its exit code.
///
/// A reader of stdout that went away (`levada read … | head`) is no failure.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let closed = |cause: &(dyn Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(closed) {
        return ExitCode::SUCCESS;
    }
    let (code, hint) = describe(error);
    print_lines(&format!("{code}: {}", sentence(error)), hint.as_deref());
    ExitCode::FAILURE
}

/// Prints help or what was wrong with the arguments.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    let wanted = matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    if wanted {
        // Nobody is left to tell if the terminal is gone.
        let _gone = error.print();
        return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
    }
    let text = error.render().to_string();
    let (message, tips) = split_usage(&text);
    print_lines(&format!("{}: {message}", ErrorCode::InvalidArgument), Some(&tips));
    ExitCode::from(2)
}

/// The first paragraph of clap's text as one sentence, and the rest that helps as another.
fn split_usage(text: &str) -> (String, String) {
    let one_line = |part: &str| part.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut paragraphs = text.trim().split("\n\n");
    let first = paragraphs.next().unwrap_or_default();
    let message = one_line(first.strip_prefix("error: ").unwrap_or(first));
    let rest: Vec<String> = paragraphs
        .map(one_line)
        .map(|line| line.replace("For more information, try '--help'.", ""))
        .collect();
    let mut tips = rest.iter().map(|line| line.trim()).filter(|line| !line.is_empty()).collect::<Vec<_>>();
    tips.push("--help says more");
    (message, tips.join("; "))
}

fn print_lines(line: &str, hint: Option<&str>) {
    let mut stderr = io::stderr().lock();
    // A closed stderr leaves the exit code to say it.
    let _gone = writeln!(stderr, "error: {line}");
    if let Some(hint) = hint {
        let _gone = writeln!(stderr, "hint: {hint}");
    }
}

/// The whole chain of causes as one sentence.
fn sentence(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string().replace('\n', " ");
        // A transparent error repeats its source's words.
        if parts.last().is_none_or(|last| !last.ends_with(&text)) {
            parts.push(text);
        }
    }
    let joined = parts.join(": ");
    // An engine's refusal prints its code itself.
    match describe(error).0 {
        code if joined.starts_with(&format!("{code}: ")) => joined[code.to_string().len() + 2..].to_owned(),
        _ => joined,
    }
}

fn describe(error: &anyhow::Error) -> (ErrorCode, Option<String>) {
    for cause in error.chain() {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return (failure.code, failure.hint.clone().or_else(|| hint(failure.code)));
        }
        if let Some(refused) = cause.downcast_ref::<levada_client::Error>() {
            return (refused.code(), hint(refused.code()));
        }
        if let Some(failed) = cause.downcast_ref::<levada_server::Error>() {
            return (failed.code(), hint(failed.code()));
        }
    }
    (ErrorCode::Internal, None)
}

/// What a person can do about a code, where that is clear.
fn hint(code: ErrorCode) -> Option<String> {
    let text = match code {
        ErrorCode::TopicNotFound => "`levada topic list` shows the topics, `levada topic create` makes one",
        ErrorCode::SubscriptionNotFound => "`levada subscription list` shows the subscriptions",
        ErrorCode::SubscriptionMismatch => {
            "leave --order and --plugin out to take the subscription as it is, or `levada subscription delete` it"
        }
        ErrorCode::PluginNotFound => {
            "`levada plugin list` shows the plugins, `levada plugin deploy --bundled` brings those of this binary"
        }
        ErrorCode::PluginInUse => "`levada plugin list` shows where it is used",
        ErrorCode::RouteNotFound => "`levada route list` shows the routes",
        ErrorCode::TopicInUse => "--force deletes it all the same",
        ErrorCode::ConnectFailed => {
            "does `levada serve` run there? --addr or LEVADA_ADDR names another engine's address"
        }
        ErrorCode::TlsFailed => "--ca or LEVADA_CA must name the ca.pem of that engine: DATA_DIR/tls/ca.pem",
        ErrorCode::AddressInUse => {
            "--listen and --http choose other addresses; port 0 takes any that is free"
        }
        ErrorCode::StorageInUse => "stop the other engine, or choose another --data-dir",
        ErrorCode::StorageNewer => "run the levada that wrote it, or a newer one",
        ErrorCode::StorageFull => "make room on the data directory's volume; reading goes on meanwhile",
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
        assert_eq!(tips, "tip: try 1; --help says more");
    }

    #[test]
    fn a_failure_keeps_its_code_through_context() {
        let error =
            anyhow::Error::new(Failure::new(ErrorCode::TopicNotFound, "no topic x")).context("while reading");
        assert_eq!(describe(&error).0, ErrorCode::TopicNotFound);
        assert_eq!(sentence(&error), "while reading: no topic x");
    }
}
