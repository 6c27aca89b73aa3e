//! Remarks while what was published is not stored yet: why, as far as that is known. Shared by the commands that publish.

use std::{convert::Infallible, time::Duration};

use levada_client::{Client, ErrorCode, Refusal};
use levada_terminal::output::Output;
use tokio::time::{Instant, interval};

use super::stops::Reason;

/// How often it is checked whether anything has been stored.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// After this time without, the reason is printed.
const DELAYED: Duration = Duration::from_millis(1_500);
/// The same reason is printed again after this.
const REPEAT_AFTER: Duration = Duration::from_secs(10);

/// What a command that publishes waits for.
pub(super) struct Delays<'a> {
    pub(super) output: &'a Output,
    pub(super) client: &'a Client,
    /// The engine's address as the user gave it.
    pub(super) addr: &'a str,
    /// What is said if the engine has given no reason.
    pub(super) unanswered: &'static str,
    /// What is tried again, and for how long.
    pub(super) tried: String,
}

impl Delays<'_> {
    /// Says on stderr why nothing is stored, when nothing was for a while: `has_moved` is true if something was since it was
    /// last asked, or nothing is to be; `refusal` is the engine's last one.
    pub(super) async fn report(
        &self,
        has_moved: impl FnMut() -> bool,
        refusal: impl Fn() -> Option<Refusal>,
    ) -> Infallible {
        let reason = Reason::default();
        tokio::select! {
            never = reason.follow(self.client) => never,
            never = self.watch(has_moved, refusal, &reason) => never,
        }
    }

    async fn watch(
        &self,
        mut has_moved: impl FnMut() -> bool,
        refusal: impl Fn() -> Option<Refusal>,
        reason: &Reason,
    ) -> Infallible {
        let (mut checks, mut since) = (interval(CHECK_INTERVAL), Instant::now());
        let mut reported: Option<(Option<ErrorCode>, Instant)> = None;
        loop {
            checks.tick().await;
            if has_moved() {
                since = Instant::now();
            }
            if since.elapsed() < DELAYED {
                continue;
            }
            let (code, why) = match refusal() {
                _ if !self.client.is_connected() => {
                    (Some(ErrorCode::ConnectionLost), reason.sentence(self.addr))
                }
                Some(refusal) => (Some(refusal.code), refusal.to_string()),
                None => (None, self.unanswered.to_owned()),
            };
            // A sentence may hold numbers that change all the time; the code distinguishes reasons.
            let is_due = |(before, at): &(Option<ErrorCode>, Instant)| {
                at.elapsed() >= if *before == code { REPEAT_AFTER } else { DELAYED }
            };
            if reported.as_ref().is_none_or(is_due) {
                self.output.remark(&format!("waiting: {why}; {}", self.tried));
                reported = Some((code, Instant::now()));
            }
        }
    }
}
