//! A chain: plugins in order with their policies, applied to events of one partition.
//!
//! Must not know where events come from or go. See the picture at the head of the crate.

use std::{ops::Range, sync::Arc, time::Duration};

use levada_protocol::limits::REASON_BYTES_MAX;
use levada_stage::StateView;

use crate::{
    ahead::{InFlight, run_ahead},
    batches::{ChainBatch, ranges_within, take_call},
    breaker::EVENTS_MAX,
    forward::Sink,
    outcome::{DeadLetter, DeadReason, Filtered, Paused, Progress, Routed, Target},
    pipeline::decide_window,
    policy::Policy,
    position::Position,
    route::Router,
    run::ChainRun,
    select::{Selector, dropped, passed_slices},
    source::Input,
    stages::{ChainStage, Clock, Stages},
    state::RunState,
    window::{Failure, Reached},
};

/// Windows of one run whose calls may be made at once.
const WINDOWS_IN_FLIGHT: usize = 4;

/// Plugins in order, at one attachment point.
#[derive(Debug)]
pub struct Chain {
    stages: Stages,
}

impl Chain {
    /// A chain of an attachment point. The random numbers of its guests are derived from `seed`, which is made of the
    /// point's identity.
    pub fn new(stages: Vec<ChainStage>, seed: u64, clock: Clock) -> Self {
        Self { stages: Stages::new(stages, seed, clock) }
    }

    /// The same at a point where an event that fails costs nothing but time, as one that is not shown: then plugins are left alone for a
    /// while for the time that they waste, and not for how often they fail.
    #[must_use]
    pub fn minding_time_alone(self) -> Self {
        Self { stages: self.stages.minding_time_alone() }
    }

    /// For how long the plugins are left alone, if they are.
    pub fn paused(&self) -> Option<Duration> {
        self.stages.breaker().admits(self.stages.now()).err()
    }

    /// The stages in order.
    pub fn stages(&self) -> &[ChainStage] {
        self.stages.all()
    }

    /// Closes the breaker and forgets what it counted: a person resumed the attachment.
    pub fn resume(&self) {
        self.stages.reset_breaker();
    }

    /// Applies the chain of a subscription, or of one who reads. Events keep their offsets; one becomes at most one. No stage of it may be
    /// stateful: nothing commits what it would write.
    ///
    /// Cancel safe: a run that is dropped has changed nothing but the breaker's counts.
    pub async fn filter(&self, input: Input<'_>) -> Filtered {
        let (batches, positions) = (input.batches(), input.positions());
        let run = self.run(&input, &batches, Policy::in_place());
        let mut sink = Selector::new();
        let reached = decide(&run, positions.clone(), &mut RunState::over(&[]), &mut sink).await;
        let passed = sink.finish();
        let rekeyed = passed.iter().any(|batch| batch.rekeyed);
        let dropped = dropped(&passed, &reached.dead, positions.start..reached.end, run.origin);
        let passed = passed_slices(&passed, input.sources, run.origin);
        Filtered { passed, dropped, rekeyed, progress: progress(&run, reached) }
    }

    /// Applies the chain of a route with at least one target. Events become events of the targets.
    ///
    /// `state` has what each stage has stored, by the stage's index; a stage without an entry has stored nothing. It
    /// shows everything that earlier runs on this partition have returned in [`Routed::writes`].
    ///
    /// Cancel safe, as [`Chain::filter`] is.
    pub async fn route(
        &self,
        input: Input<'_>,
        targets: &[Target],
        state: &[Option<Arc<dyn StateView>>],
    ) -> Routed {
        let (batches, positions) = (input.batches(), input.positions());
        let run = self.run(&input, &batches, Policy::route(targets));
        let (mut state, mut sink) = (RunState::over(state), Router::new(targets, input.partition));
        let reached = decide(&run, positions, &mut state, &mut sink).await;
        Routed { batches: sink.finish(), writes: state.finish(), progress: progress(&run, reached) }
    }

    fn run<'r>(&'r self, input: &Input<'_>, batches: &'r [ChainBatch], policy: Policy<'r>) -> ChainRun<'r> {
        let (partition, origin) = (input.partition, input.origin());
        ChainRun { stages: &self.stages, policy, partition, origin, batches }
    }
}

/// Decides the events of `positions`, window by window.
async fn decide(
    run: &ChainRun<'_>,
    positions: Range<Position>,
    state: &mut RunState<'_>,
    sink: &mut impl Sink,
) -> Reached {
    let mut reached = Reached { end: positions.start, ..Reached::default() };
    let mut left = ranges_within(run.batches, &positions);
    let mut in_flight = InFlight::new();
    loop {
        let openings = run.stages.breaker().openings();
        let call_limit = match run.stages.breaker().admits(run.stages.now()) {
            Ok(call_limit) => call_limit,
            Err(wait) => {
                let why = "the chain's plugins failed too often a short time ago".to_owned();
                reached.paused = Some(Paused { why, retry_after: Some(wait) });
                return reached;
            }
        };
        let most = if call_limit == EVENTS_MAX { WINDOWS_IN_FLIGHT } else { 1 };
        while in_flight.len() < most && !left.is_empty() {
            in_flight.push(run_ahead(run, take_call(&mut left, run.batches, call_limit)));
        }
        let Some(ahead) = in_flight.next().await else {
            reached.end = positions.end;
            return reached;
        };
        let end = ahead.end;
        let window = decide_window(run, ahead, state, sink).await;
        if let Some(cut) = window.finish(&mut reached) {
            (reached.end, reached.paused) = (cut.at, cut.paused);
            return reached;
        }
        run.stages.breaker().went_well(openings);
        reached.end = end;
        if sink.is_full() || state.is_full() {
            return reached;
        }
    }
}

/// What a run reached, by offsets.
fn progress(run: &ChainRun<'_>, reached: Reached) -> Progress {
    let Reached { end, paused, dead, skipped, passed_unchanged } = reached;
    let dead_letters = dead.into_iter().filter_map(|failure| dead_letter(run, failure)).collect();
    Progress { reached: run.origin.offset(end), paused, dead_letters, skipped, passed_unchanged }
}

/// A failure with its input event.
fn dead_letter(run: &ChainRun<'_>, failure: Failure) -> Option<DeadLetter> {
    let Failure { position, stage, reason, text: mut error } = failure;
    let from = &run.batches[run.batches.partition_point(|batch| batch.end() <= position)..].first()?;
    let at = |delta: u32| from.base.plus(delta.into());
    let event = from.batch.events().find(|event| at(event.offset_delta()) == position)?;
    let plugin = run.stages.all().get(stage).filter(|_| reason != DeadReason::Loop);
    error.truncate(error.floor_char_boundary(REASON_BYTES_MAX));
    Some(DeadLetter {
        offset: run.origin.offset(position),
        event: event.to_event(&from.batch),
        reason,
        plugin: plugin.map(ChainStage::label),
        error,
    })
}
