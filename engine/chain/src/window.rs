//! What became of one window of events: who failed, what was done about it, and where the window ends early.
//!
//! Must not know calls: it is told.

use std::collections::BTreeSet;

use levada_protocol::{ids::Offset, limits::REASON_BYTES_MAX, request::OnError};

use crate::{
    answer::Fault,
    outcome::{DeadLetter, DeadReason, Paused, Progress},
    settle::Pass,
    write::Withheld,
};

/// What became of the events of one window: those that one call of the first stage took.
#[derive(Debug, Default)]
pub(crate) struct Window {
    recorded: Vec<Recorded>,
    dead: BTreeSet<Offset>,
    cut: Option<Cut>,
}

/// Where a window ends early.
#[derive(Debug)]
pub(crate) struct Cut {
    /// The first source offset that is not decided.
    pub(crate) at: Offset,
    /// Why the place stops, if it does.
    pub(crate) paused: Option<Paused>,
}

/// An event that failed, and what was done about it.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) stage: usize,
    pub(crate) fault: Fault,
    pub(crate) action: OnError,
}

impl Window {
    pub(crate) fn record(&mut self, recorded: Recorded) {
        if recorded.action == OnError::DeadLetter {
            self.dead.insert(recorded.fault.offset);
        }
        self.recorded.push(recorded);
    }

    /// Ends the window at `at`, unless it ends there or before already.
    pub(crate) fn cut(&mut self, at: Offset, paused: Option<Paused>) {
        if self.cut.as_ref().is_none_or(|cut| at < cut.at) {
            self.cut = Some(Cut { at, paused });
        }
    }

    pub(crate) fn withheld(&self, siblings: bool) -> Withheld<'_> {
        let dead = (siblings && !self.dead.is_empty()).then_some(&self.dead);
        Withheld { from: self.cut.as_ref().map(|cut| cut.at), dead }
    }

    /// Adds what was decided below the cut to `progress` and answers the cut.
    pub(crate) fn finish(mut self, pass: &Pass<'_>, progress: &mut Progress) -> Option<Cut> {
        if let Some(cut) = &self.cut {
            self.recorded.retain(|recorded| recorded.fault.offset < cut.at);
        }
        self.recorded.sort_by_key(|recorded| recorded.fault.offset);
        let mut last_dead = None;
        for recorded in self.recorded {
            match recorded.action {
                OnError::Skip => progress.skipped += 1,
                OnError::Pass => progress.passed_unchanged += 1,
                OnError::DeadLetter if last_dead == Some(recorded.fault.offset) => {}
                OnError::DeadLetter => {
                    last_dead = Some(recorded.fault.offset);
                    progress.dead_letters.extend(recorded.dead_letter(pass));
                }
                OnError::Pause => {}
            }
        }
        self.cut
    }
}

impl Recorded {
    /// With the source event, which was part of the input.
    fn dead_letter(self, pass: &Pass<'_>) -> Option<DeadLetter> {
        let Self { stage, fault: Fault { offset, reason, mut text, .. }, .. } = self;
        let flat = &pass.flats[pass.flats.partition_point(|flat| flat.end() <= offset)..].first()?;
        let event = flat.batch.events().find(|event| event.offset(flat.base) == offset)?;
        let plugin = (reason != DeadReason::Loop).then(|| pass.chain.stages()[stage].label());
        text.truncate(text.floor_char_boundary(REASON_BYTES_MAX));
        Some(DeadLetter { offset, event: event.to_event(&flat.batch), reason, plugin, error: text })
    }
}
