//! One application of a chain to some input: what all parts of a run read, and how a stage is called.
//!
//! A call ends in an answer that is validated. Must not know what its verdicts lead to.

use std::{sync::Arc, time::Duration};

use levada_protocol::ids::PartitionId;
use levada_stage::{CallError, CallInput, CallOutcome, StateView, StateWrite};

use crate::{
    batches::{CallEvents, ChainBatch},
    call::call_runs,
    policy::{Policy, Rules},
    position::Origin,
    stages::{ChainStage, Stages},
    validate::{Validated, validate},
};

/// One application of a chain to some input.
#[derive(Debug)]
pub(crate) struct ChainRun<'r> {
    pub(crate) stages: &'r Stages,
    pub(crate) policy: Policy<'r>,
    pub(crate) partition: PartitionId,
    pub(crate) origin: Origin,
    /// The batches of the input.
    pub(crate) batches: &'r [ChainBatch],
}

/// How a call ended.
pub(crate) struct Called {
    pub(crate) result: Result<Answer, CallFailure>,
    /// The processor time that it took, at most its deadline.
    pub(crate) time_spent: Duration,
}

/// A valid answer.
pub(crate) struct Answer {
    pub(crate) validated: Validated,
    /// What it changes in the stage's state.
    pub(crate) writes: Vec<StateWrite>,
}

/// A call without a valid answer.
pub(crate) enum CallFailure {
    /// The call failed; the stage has counted that.
    Call(CallError),
    /// The answer is not valid, which the stage cannot know.
    Invalid(CallError),
}

impl ChainRun<'_> {
    /// Hands events to a stage and validates its answer. There is at least one event.
    pub(crate) async fn call(
        &self,
        stage: usize,
        events: CallEvents<'_>,
        state: Option<Arc<dyn StateView>>,
    ) -> Called {
        let at = self.at(stage);
        let first = self.origin.offset(events.first_position());
        let identity = [u64::from(self.partition.0), first.0, u64::from(at.version)];
        let last = events.ranges.last().map(|range| &events.batches[range.batch]);
        let input = CallInput {
            runs: call_runs(events, self.origin),
            events: events.count(),
            now: last.map(|last| last.append_time).unwrap_or_default(),
            seed: self.stages.seed(identity),
            state,
        };
        let CallOutcome { result, time_spent } = at.stage.call(input).await;
        let result = match result {
            Err(error) => Err(CallFailure::Call(error)),
            Ok(output) if !output.writes.is_empty() && !at.stage.is_stateful() => {
                Err(CallFailure::Invalid(CallError::Output("it writes state, and has none".to_owned())))
            }
            Ok(output) => validate(&output.answer, events, self.rules(stage))
                .map(|validated| Answer { validated, writes: output.writes })
                .map_err(|what| CallFailure::Invalid(CallError::Output(what))),
        };
        Called { result, time_spent: time_spent.min(at.deadline) }
    }

    /// The stage of this index, which is below their count.
    pub(crate) fn at(&self, stage: usize) -> &ChainStage {
        &self.stages.all()[stage]
    }

    /// What a stage may answer.
    pub(crate) fn rules(&self, stage: usize) -> Rules<'_> {
        self.policy.rules(self.stages.is_last(stage))
    }

    /// Whether several events that this stage gets may come from one input event.
    pub(crate) fn has_siblings(&self, stage: usize) -> bool {
        stage > 0 && self.policy.may_split()
    }
}
