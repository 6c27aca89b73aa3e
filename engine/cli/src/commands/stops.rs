//! What is said while nothing comes: that a subscription or route is paused, that there is no connection and why, that it goes on.
//! Shared by the commands that wait; knows no place itself.

use std::{cell::RefCell, convert::Infallible, time::Duration};

use levada_client::{Client, Error, ErrorCode, RunState};
use levada_terminal::output::Output;
use tokio::time::{Instant, sleep, timeout};

/// How soon after the beginning, and after anything that came, it is asked why nothing comes.
const LOOK_FIRST: Duration = Duration::from_millis(200);
/// And how often then, at most.
const LOOK_LAST: Duration = Duration::from_secs(5);
/// How long the engine may take to say how a place stands.
const ANSWER: Duration = Duration::from_secs(2);
/// How often it is asked whether the connection is there.
const REASON_LOOK: Duration = Duration::from_secs(1);

/// Who waits, and on what.
pub(super) struct Waiting<'a> {
    pub(super) output: &'a Output,
    pub(super) client: &'a Client,
    /// The engine's address as the user gave it.
    pub(super) addr: &'a str,
    /// What goes on or does not, as `subscription orders/payment`.
    pub(super) what: String,
}

impl Waiting<'_> {
    /// While `progress` stays the same: says why nothing comes, as far as the connection or `ask` knows, and that it
    /// goes on.
    pub(super) async fn tell_stops(
        &self,
        progress: impl Fn() -> u64,
        ask: impl AsyncFnMut() -> Result<Option<String>, Error>,
    ) -> Infallible {
        let reason = Reason::default();
        tokio::select! {
            never = reason.follow(self.client) => never,
            never = self.look(progress, ask, &reason) => never,
        }
    }

    async fn look(
        &self,
        progress: impl Fn() -> u64,
        mut ask: impl AsyncFnMut() -> Result<Option<String>, Error>,
        reason: &Reason,
    ) -> Infallible {
        let (mut wait, mut seen, mut told) = (LOOK_FIRST, progress(), None);
        loop {
            self.rest(wait).await;
            wait = (wait * 2).min(LOOK_LAST);
            let stopped = if progress() != seen {
                (wait, seen) = (LOOK_FIRST, progress());
                None
            } else if !self.client.is_connected() {
                Some(format!("{}; trying again", reason.sentence(self.addr)))
            } else {
                match timeout(ANSWER, ask()).await {
                    Ok(Ok(stopped)) => stopped,
                    // What is wrong with the place itself is told by the command's own error.
                    Ok(Err(_)) => continue,
                    Err(_) => Some(format!("the engine at {} does not answer; waiting for it", self.addr)),
                }
            };
            if stopped != told {
                let goes_on = || format!("{} goes on", self.what);
                self.output.remark(&stopped.clone().unwrap_or_else(goes_on));
                told = stopped;
            }
        }
    }

    /// Waits so long, or until the connection is lost or comes back.
    async fn rest(&self, wait: Duration) {
        let (before, until) = (self.client.is_connected(), Instant::now() + wait);
        while Instant::now() < until && self.client.is_connected() == before {
            sleep(LOOK_FIRST).await;
        }
    }
}

/// Why there is no connection, once the client has found out that trying again alone does not mend it.
#[derive(Debug, Default)]
pub(super) struct Reason(RefCell<Option<String>>);

impl Reason {
    /// Keeps the reason up to date.
    pub(super) async fn follow(&self, client: &Client) -> Infallible {
        loop {
            // Waits for a connection, and says at the end of its time why there is none.
            let failed = client.hello().await.err();
            let tells = |error: &Error| !error.is_retryable() && !matches!(error, Error::Closed);
            self.0.replace(failed.filter(tells).map(|error| worded(&error)));
            sleep(REASON_LOOK).await;
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
        // It names its code itself.
        Error::Refused(refusal) => refusal.to_string(),
        other => format!("{}: {other}", other.code()),
    }
}

/// What can be done about a stop.
pub(super) fn cure(stopped: &RunState) -> &'static str {
    match (stopped.code(), stopped) {
        (Some(ErrorCode::PluginInitRefused), _) => {
            "it stops until its plugin starts: deploy a version that takes its configuration, or take back the newest \
             with `levada plugin remove NAME@VERSION`"
        }
        (Some(ErrorCode::TopicNotFound), _) => {
            "it stops until the topic that it writes to is there: make that with `levada topic create TOPIC`, then \
             resume it again"
        }
        (_, RunState::Blocked { .. }) => "it goes on by itself once its target takes events",
        (_, RunState::Running | RunState::Paused { .. } | RunState::Unknown) => {
            "it stops at the same event until its cause is mended: deploy a plugin version that takes the event, or \
             make it anew with --on-error dead-letter"
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
