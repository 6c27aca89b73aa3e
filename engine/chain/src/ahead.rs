//! Running ahead: calls that are made before it is their events' turn to be decided.
//!
//! Stateless stages may be called several at a time and in vain, so that the next answers are there when they are
//! needed. Nothing is decided here: the breaker, failures and sinks are not touched.

use std::{borrow::Cow, collections::VecDeque, future::poll_fn, pin::Pin, task::Poll};

use crate::{
    batches::{CallEvents, ChainBatch, EventRange, ranges_of, take_call},
    breaker::EVENTS_MAX,
    forward::{Forward, Withheld},
    position::Position,
    run::{Called, ChainRun},
    select::Selector,
};

/// The events that a stage gets next.
pub(crate) struct StageInput<'r> {
    pub(crate) batches: Cow<'r, [ChainBatch]>,
    pub(crate) ranges: Vec<EventRange>,
}

/// How far the events of one window came without anything to decide.
pub(crate) struct Ahead<'r> {
    /// The first stage that has not let them pass.
    pub(crate) stage: usize,
    /// What that stage gets.
    pub(crate) input: StageInput<'r>,
    /// How its call ended, if it was called.
    pub(crate) called: Option<Called>,
    /// The position after the window's events.
    pub(crate) end: Position,
}

impl<'r> StageInput<'r> {
    /// All events of some batches.
    pub(crate) fn all(batches: Vec<ChainBatch>) -> Self {
        let ranges = ranges_of(&batches).into();
        Self { batches: Cow::Owned(batches), ranges }
    }

    pub(crate) fn events(&self) -> CallEvents<'_> {
        CallEvents { batches: &self.batches, ranges: &self.ranges }
    }

    /// True if one call can take them all.
    fn fits_one_call(&self) -> bool {
        let mut left: VecDeque<EventRange> = self.ranges.iter().copied().collect();
        take_call(&mut left, &self.batches, EVENTS_MAX);
        left.is_empty()
    }
}

/// Calls stage after stage, until there is something to decide, a stage keeps state, or the last one has answered.
pub(crate) async fn run_ahead<'r>(run: &ChainRun<'r>, ranges: Vec<EventRange>) -> Ahead<'r> {
    let end = ranges.last().map_or(Position(0), |range| range.end_position(run.batches));
    let input = StageInput { batches: Cow::Borrowed(run.batches), ranges };
    let mut at = Ahead { stage: 0, input, called: None, end };
    while at.stage < run.stages.stateless() && !at.input.ranges.is_empty() {
        let called = run.call(at.stage, at.input.events(), None).await;
        let next = if run.stages.is_last(at.stage) { None } else { passed(&called, at.input.events()) };
        let Some(next) = next else {
            at.called = Some(called);
            break;
        };
        (at.stage, at.input) = (at.stage + 1, StageInput::all(next));
        if !at.input.fits_one_call() {
            break;
        }
    }
    at
}

/// What a call lets pass, if its answer leaves nothing to decide.
fn passed(called: &Called, events: CallEvents<'_>) -> Option<Vec<ChainBatch>> {
    let answer = called.result.as_ref().ok()?;
    if !answer.validated.violations.is_empty() {
        return None;
    }
    let mut sink = Selector::new();
    Forward::new(events, Withheld::NOTHING, &mut sink).answer(&answer.validated, false);
    Some(sink.finish())
}

/// Windows that run ahead, in the order of their events.
pub(crate) struct InFlight<'r> {
    slots: VecDeque<Slot<'r>>,
}

enum Slot<'r> {
    Running(Pin<Box<dyn Future<Output = Ahead<'r>> + Send + 'r>>),
    Ended(Box<Ahead<'r>>),
}

impl<'r> InFlight<'r> {
    pub(crate) fn new() -> Self {
        Self { slots: VecDeque::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Adds the window after those that run.
    pub(crate) fn push(&mut self, ahead: impl Future<Output = Ahead<'r>> + Send + 'r) {
        self.slots.push_back(Slot::Running(Box::pin(ahead)));
    }

    /// Waits for the oldest while all of them run; `None` if there is none.
    pub(crate) async fn next(&mut self) -> Option<Ahead<'r>> {
        poll_fn(|context| {
            for slot in &mut self.slots {
                if let Slot::Running(future) = slot
                    && let Poll::Ready(ahead) = future.as_mut().poll(context)
                {
                    *slot = Slot::Ended(Box::new(ahead));
                }
            }
            match self.slots.pop_front() {
                None => Poll::Ready(None),
                Some(Slot::Ended(ahead)) => Poll::Ready(Some(*ahead)),
                Some(running) => {
                    self.slots.push_front(running);
                    Poll::Pending
                }
            }
        })
        .await
    }
}
