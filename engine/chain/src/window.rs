//! What became of one window of events: who failed, what was done about it, and where the window ends early.
//!
//! Must not know calls: it is given their results.

use std::collections::BTreeSet;

use levada_protocol::request::OnError;

use crate::{
    forward::Withheld,
    outcome::{DeadReason, Paused},
    position::Position,
};

/// What became of the events of one window: those that one call of the first stage took.
#[derive(Debug, Default)]
pub(crate) struct Window {
    failures: Vec<(Failure, OnError)>,
    dead: BTreeSet<Position>,
    cut: Option<Cut>,
}

/// Where a window ends early.
#[derive(Debug)]
pub(crate) struct Cut {
    /// The position of the first event that is not decided.
    pub(crate) at: Position,
    /// Why the attachment stops there, if it does.
    pub(crate) paused: Option<Paused>,
}

/// An event that failed at a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The position of the input event.
    pub(crate) position: Position,
    pub(crate) stage: usize,
    pub(crate) reason: DeadReason,
    /// A sentence for people.
    pub(crate) text: String,
}

/// How far a run came, by positions.
#[derive(Debug, Default)]
pub(crate) struct Reached {
    /// Every event before this position is decided, none from it on is.
    pub(crate) end: Position,
    pub(crate) paused: Option<Paused>,
    /// The events that ended in a failure, ascending, at most one for each input event.
    pub(crate) dead: Vec<Failure>,
    /// How many failing events were dropped.
    pub(crate) skipped: u64,
    /// How many failing events were forwarded unchanged.
    pub(crate) passed_unchanged: u64,
}

impl Window {
    /// Records an event that failed, and what is done about it.
    pub(crate) fn record(&mut self, failure: Failure, action: OnError) {
        if action == OnError::DeadLetter {
            self.dead.insert(failure.position);
        }
        self.failures.push((failure, action));
    }

    /// Ends the window at `at`, unless it already ends there or before.
    pub(crate) fn cut(&mut self, at: Position, paused: Option<Paused>) {
        if self.cut.as_ref().is_none_or(|cut| at < cut.at) {
            self.cut = Some(Cut { at, paused });
        }
    }

    /// Where it ends early.
    pub(crate) fn cut_at(&self) -> Option<Position> {
        self.cut.as_ref().map(|cut| cut.at)
    }

    /// Forgets who failed, but not where the window ends: the events before the cut are decided again.
    pub(crate) fn restart(&mut self) {
        self.failures.clear();
        self.dead.clear();
    }

    /// What is not forwarded; `siblings` if several events may come from one input event.
    pub(crate) fn withheld(&self, siblings: bool) -> Withheld<'_> {
        let dead = (siblings && !self.dead.is_empty()).then_some(&self.dead);
        Withheld { from: self.cut_at(), dead }
    }

    /// Adds what was decided before the cut to `reached` and returns the cut.
    pub(crate) fn finish(mut self, reached: &mut Reached) -> Option<Cut> {
        if let Some(cut) = &self.cut {
            self.failures.retain(|(failure, _)| failure.position < cut.at);
        }
        self.failures.sort_by_key(|(failure, _)| failure.position);
        let mut last_dead = None;
        for (failure, action) in self.failures {
            match action {
                OnError::Skip => reached.skipped += 1,
                OnError::Pass => reached.passed_unchanged += 1,
                OnError::DeadLetter if last_dead == Some(failure.position) => {}
                OnError::DeadLetter => {
                    last_dead = Some(failure.position);
                    reached.dead.push(failure);
                }
                OnError::Pause => {}
            }
        }
        self.cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(position: u64) -> Failure {
        let reason = DeadReason::PluginError;
        Failure { position: Position(position), stage: 0, reason, text: String::new() }
    }

    #[test]
    fn the_earliest_cut_holds_and_what_failed_behind_it_is_not_reported() {
        let mut window = Window::default();
        for (position, action) in
            [(7, OnError::DeadLetter), (3, OnError::Skip), (3, OnError::DeadLetter), (5, OnError::Pass)]
        {
            window.record(failure(position), action);
        }
        window.record(failure(3), OnError::DeadLetter);
        let paused = Paused { why: "here".to_owned(), retry_after: None };
        window.cut(Position(6), Some(paused.clone()));
        window.cut(Position(8), None);
        let mut reached = Reached::default();
        let cut = window.finish(&mut reached).expect("it was cut");
        assert_eq!((cut.at, cut.paused), (Position(6), Some(paused)));
        assert_eq!((reached.skipped, reached.passed_unchanged), (1, 1));
        assert_eq!(reached.dead, [failure(3)], "one dead letter for one input event");
    }

    #[test]
    fn a_restart_keeps_the_cut_alone() {
        let mut window = Window::default();
        window.record(failure(1), OnError::DeadLetter);
        window.cut(Position(4), None);
        window.restart();
        assert_eq!(window.cut_at(), Some(Position(4)));
        assert!(window.withheld(true).dead.is_none());
        let mut reached = Reached::default();
        window.finish(&mut reached);
        assert!(reached.dead.is_empty());
    }
}
