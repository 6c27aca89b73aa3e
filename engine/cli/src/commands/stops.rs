//! Remarks while a command waits: that a subscription or route is paused, that there is no connection and why, that it
//! continues; and how it ends when it is interrupted. Shared by the commands that wait; knows no requests.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    time::Duration,
};

use levada_client::{Client, Error, ErrorCode, RunState};
use levada_terminal::{Failure, output::Output};
use tokio::time::{Instant, sleep, timeout};

/// The wait before the first check why nothing comes, after the start and after any progress.
const CHECK_FIRST: Duration = Duration::from_millis(200);
/// The longest wait between two checks.
const CHECK_LAST: Duration = Duration::from_secs(5);
/// How long the engine may take to describe the subscription or route.
const RESPONSE: Duration = Duration::from_secs(2);
/// How often the connection is checked.
const REASON_CHECK: Duration = Duration::from_secs(1);

/// How far a consumer has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Events that it has dealt with.
    pub(super) done: Cell<u64>,
    /// Why the engine does not serve it now.
    pub(super) refused: RefCell<Option<String>>,
}

impl Progress {
    /// Notes why the engine does not serve this consumer, if it said so.
    pub(super) fn note(&self, interruption: Option<Error>) {
        self.refused.replace(match interruption {
            Some(Error::Refused(refusal)) => Some(refusal.to_string()),
            _ => None,
        });
    }
}

/// What a command waits for.
pub(super) struct Waiting<'a> {
    pub(super) output: &'a Output,
    pub(super) client: &'a Client,
    /// The engine's address as the user gave it.
    pub(super) addr: &'a str,
    /// What it waits for, such as `subscription orders/payment`.
    pub(super) what: String,
}

impl Waiting<'_> {
    /// Prints why `progress` stays the same, as far as the connection or `ask` knows, and when it continues.
    pub(super) async fn report_stops(
        &self,
        progress: impl Fn() -> u64,
        ask: impl AsyncFnMut() -> Result<Option<String>, Error>,
    ) -> Infallible {
        let reason = Reason::default();
        tokio::select! {
            never = reason.follow(self.client) => never,
            never = self.check(progress, ask, &reason) => never,
        }
    }

    async fn check(
        &self,
        progress: impl Fn() -> u64,
        mut ask: impl AsyncFnMut() -> Result<Option<String>, Error>,
        reason: &Reason,
    ) -> Infallible {
        let (mut wait, mut seen, mut reported) = (CHECK_FIRST, progress(), None);
        loop {
            self.rest(wait).await;
            wait = (wait * 2).min(CHECK_LAST);
            let stopped = if progress() != seen {
                (wait, seen) = (CHECK_FIRST, progress());
                None
            } else if !self.client.is_connected() {
                Some(format!("{}; trying again", reason.sentence(self.addr)))
            } else {
                match timeout(RESPONSE, ask()).await {
                    Ok(Ok(stopped)) => stopped,
                    // The command's own error says what is wrong with the subscription or route.
                    Ok(Err(_)) => continue,
                    Err(_) => Some(format!("the engine at {} does not answer; waiting for it", self.addr)),
                }
            };
            if stopped != reported {
                let continues = || format!("{} continues", self.what);
                self.output.remark(&stopped.clone().unwrap_or_else(continues));
                reported = stopped;
            }
        }
    }

    /// Waits for `wait`, or until the connection is lost or comes back.
    async fn rest(&self, wait: Duration) {
        let (before, until) = (self.client.is_connected(), Instant::now() + wait);
        while Instant::now() < until && self.client.is_connected() == before {
            sleep(CHECK_FIRST).await;
        }
    }
}

/// Why there is no connection, if it is an error that does not go away by trying again.
#[derive(Debug, Default)]
pub(super) struct Reason(RefCell<Option<String>>);

impl Reason {
    /// Keeps the reason up to date.
    pub(super) async fn follow(&self, client: &Client) -> Infallible {
        loop {
            // Waits for a connection; the error after the timeout says why there is none.
            let failed = client.hello().await.err();
            let reports = |error: &Error| !error.is_retryable() && !matches!(error, Error::Closed);
            self.0.replace(failed.filter(reports).map(|error| worded(&error)));
            sleep(REASON_CHECK).await;
        }
    }

    /// That there is no connection, and why.
    pub(super) fn sentence(&self, addr: &str) -> String {
        match &*self.0.borrow() {
            None => format!("there is no connection to the engine at {addr}"),
            Some(why) => format!("there is no connection to the engine at {addr}: {why}"),
        }
    }
}

/// An error with its code before it.
pub(super) fn worded(error: &Error) -> String {
    match error {
        // Its text names the code.
        Error::Refused(refusal) => refusal.to_string(),
        other => format!("{}: {other}", other.code()),
    }
}

/// How a command ends that is interrupted: in order if nothing else would end it, and else before it was done.
pub(super) fn stopped(is_endless: bool) -> anyhow::Result<()> {
    if is_endless { Ok(()) } else { Err(Failure::interrupted().into()) }
}

/// A hint on what can be done about a stop.
pub(super) fn cure(stopped: &RunState) -> &'static str {
    match (stopped.code(), stopped) {
        (Some(ErrorCode::PluginInitRefused), _) => {
            "it stops until its plugin starts: deploy a version that takes its configuration, or take back the newest \
             with `levada plugin remove NAME@VERSION`"
        }
        (Some(ErrorCode::TopicNotFound), _) => {
            "it stops until the topic that it writes to exists: create that with `levada topic create TOPIC`, then \
             resume it again"
        }
        (_, RunState::Blocked { .. }) => "it continues by itself once its target takes events",
        (_, RunState::Running | RunState::Paused { .. } | RunState::Unknown) => {
            "it stops at the same event until the cause is fixed: deploy a plugin version that takes the event, or \
             create it again with --on-error dead-letter"
        }
    }
}

#[cfg(test)]
mod tests {
    use levada_protocol::request::PauseReason;

    use super::*;

    #[test]
    fn the_cure_fits_the_cause() {
        let chain = |code| RunState::Paused { reason: PauseReason::Chain { code, message: "x".to_owned() } };
        let blocked = |code| RunState::Blocked { target: Some("big".parse().unwrap()), code };
        let message = "plugin p@1 pauses at offset 0: TOPIC_NOT_FOUND".to_owned();
        for (stopped, said) in [
            (chain(ErrorCode::PluginInitRefused), "plugin remove NAME@VERSION"),
            (chain(ErrorCode::TopicNotFound), "topic create TOPIC"),
            (blocked(ErrorCode::TopicNotFound), "topic create TOPIC"),
            (blocked(ErrorCode::StorageFull), "by itself"),
            (RunState::Paused { reason: PauseReason::Plugin { message } }, "--on-error dead-letter"),
        ] {
            assert!(cure(&stopped).contains(said), "{stopped}: {}", cure(&stopped));
        }
    }
}
