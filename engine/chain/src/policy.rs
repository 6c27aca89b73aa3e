//! What each attachment point allows its stages and does with an event that fails.
//!
//! Must not know calls.

use levada_protocol::request::OnError;

use crate::outcome::{DeadReason, Target};

/// The rules of the attachment point that a chain is applied at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy<'t> {
    /// Where a route's outputs may go; `None` where outputs keep the positions of their inputs.
    targets: Option<&'t [Target]>,
}

/// What one stage may answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules<'t> {
    /// The topics that an output may choose; `None` if the stage may choose none.
    pub(crate) targets: Option<&'t [Target]>,
    /// Whether one event may become several.
    pub(crate) may_split: bool,
    /// Whether an event that passes has passed one route more, of which there is a limit.
    pub(crate) counts_hop: bool,
}

impl<'t> Policy<'t> {
    /// The rules of a point whose outputs keep the positions of their inputs.
    pub(crate) fn in_place() -> Self {
        Self { targets: None }
    }

    /// The rules of a route into `targets`.
    pub(crate) fn route(targets: &'t [Target]) -> Self {
        Self { targets: Some(targets) }
    }

    /// Whether a stage may make several events of one.
    pub(crate) fn may_split(self) -> bool {
        self.targets.is_some()
    }

    /// The rules of the chain's last stage, or of one before it.
    pub(crate) fn rules(self, is_last: bool) -> Rules<'t> {
        let targets = self.targets.filter(|_| is_last);
        Rules { targets, may_split: self.may_split(), counts_hop: targets.is_some() }
    }

    /// What happens to an event that ends for `reason` at a stage that is configured with `on_error`.
    pub(crate) fn action(self, reason: DeadReason, on_error: OnError) -> OnError {
        match reason {
            // No setting of a plugin lets an event loop for ever.
            DeadReason::Loop => OnError::DeadLetter,
            DeadReason::PluginError | DeadReason::Rejected | DeadReason::Undecodable => on_error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_routes_last_stage_chooses_targets_and_counts_hops() {
        let route = Policy::route(&[]);
        assert!(route.rules(true).targets.is_some() && route.rules(true).counts_hop);
        assert!(route.rules(false).targets.is_none() && !route.rules(false).counts_hop);
        let in_place = Policy::in_place().rules(true);
        assert!(in_place.targets.is_none() && !in_place.counts_hop && !in_place.may_split);
        assert!(route.rules(false).may_split, "between its stages an event may be several");
    }

    #[test]
    fn a_loop_ends_in_a_dead_letter_whatever_the_stages_policy() {
        for on_error in [OnError::DeadLetter, OnError::Skip, OnError::Pause, OnError::Pass] {
            let policy = Policy::route(&[]);
            assert_eq!(policy.action(DeadReason::Loop, on_error), OnError::DeadLetter);
            assert_eq!(policy.action(DeadReason::Rejected, on_error), on_error);
        }
    }
}
