//! Whether deliveries are paused, why, and until when.

use levada_protocol::request::PauseReason;
use tokio::time::{Duration, Instant};

/// A pause that somebody or something else ends, or none.
#[derive(Debug, Default)]
pub(super) struct Pause {
    /// Why somebody has to resume it.
    requested: Option<PauseReason>,
    paused: Option<Paused>,
}

#[derive(Debug)]
struct Paused {
    reason: PauseReason,
    /// When it ends by itself.
    until: Option<Instant>,
}

impl Pause {
    /// Pauses, for a while or until [`Pause::end`]. A pause under way is replaced.
    pub(super) fn begin(&mut self, now: Instant, reason: PauseReason, retry_after: Option<Duration>) {
        if self.paused.is_none() {
            tracing::warn!(why = %reason, "subscription paused");
        }
        self.paused = Some(Paused { reason, until: retry_after.map(|pause| now + pause) });
    }

    /// Ends a pause that nobody asked for.
    pub(super) fn end(&mut self) {
        self.paused = None;
    }

    /// Pauses for this reason, until there is none: somebody has to resume it.
    pub(super) fn request(&mut self, requested: Option<PauseReason>) {
        self.requested = requested;
    }

    /// Ends a pause that would end by itself.
    pub(super) fn end_if_timed(&mut self) {
        self.paused.take_if(|paused| paused.until.is_some());
    }

    /// True while it lasts; ends it if its time is up.
    pub(super) fn lasts(&mut self, now: Instant) -> bool {
        self.paused.take_if(|paused| paused.until.is_some_and(|until| until <= now));
        self.is_on()
    }

    pub(super) fn is_on(&self) -> bool {
        self.requested.is_some() || self.paused.is_some()
    }

    /// When it ends by itself.
    pub(super) fn until(&self) -> Option<Instant> {
        self.paused.as_ref()?.until
    }

    pub(super) fn reason(&self) -> Option<&PauseReason> {
        self.requested.as_ref().or_else(|| self.paused.as_ref().map(|paused| &paused.reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason() -> PauseReason {
        PauseReason::Plugin { message: "a plugin fails".to_owned() }
    }

    #[test]
    fn a_timed_pause_ends_by_itself_and_another_one_does_not() {
        let mut pause = Pause::default();
        let now = Instant::now();
        assert!(!pause.lasts(now));
        pause.begin(now, reason(), Some(Duration::from_secs(1)));
        assert!(pause.lasts(now) && pause.reason() == Some(&reason()));
        assert!(!pause.lasts(now + Duration::from_secs(1)) && !pause.is_on());
        pause.begin(now, reason(), None);
        pause.end_if_timed();
        assert!(pause.lasts(now + Duration::from_secs(1_000)));
        pause.end();
        assert!(!pause.is_on());
    }

    #[test]
    fn a_pause_that_was_asked_for_lasts_whatever_else_ends() {
        let mut pause = Pause::default();
        pause.begin(Instant::now(), reason(), None);
        pause.request(Some(PauseReason::Requested));
        assert_eq!(pause.reason(), Some(&PauseReason::Requested));
        pause.end();
        assert!(pause.is_on() && pause.lasts(Instant::now()));
        pause.request(None);
        assert!(!pause.is_on() && pause.reason().is_none());
    }
}
