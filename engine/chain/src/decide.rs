//! Deciding the events of one stage: a failing call is bisected until the failing events are alone.
//!
//! Everybody else's verdicts come from the calls that succeed (decision 21). Must not know other stages.

use std::{collections::VecDeque, time::Duration};

use levada_protocol::{
    limits::{CALL_OUTPUT_BYTES_MAX, CALL_OUTPUT_EVENTS_MAX},
    request::OnError,
};
use levada_stage::CallError;

use crate::{
    batches::{CallEvents, ChainBatch, EventRange, halve, take_call},
    breaker::EVENTS_MAX,
    forward::{Forward, Sink},
    outcome::{DeadReason, Paused},
    position::Position,
    run::{Answer, CallFailure, Called, ChainRun},
    state::RunState,
    validate::{Validated, Violation, keep_all},
    window::{Failure, Window},
};

/// Events that a stage has decided.
pub(crate) struct Decided {
    ranges: Vec<EventRange>,
    /// What is forwarded of them; `None` forwards them unchanged.
    validated: Option<Validated>,
}

impl Decided {
    /// Forwards them into a sink.
    pub(crate) fn forward(
        &self,
        run: &ChainRun<'_>,
        stage: usize,
        batches: &[ChainBatch],
        window: &Window,
        sink: &mut impl Sink,
    ) {
        let events = CallEvents { batches, ranges: &self.ranges };
        let mut forward = Forward::new(events, window.withheld(run.has_siblings(stage)), sink);
        match &self.validated {
            Some(validated) => {
                let on_error = run.stages.all().get(stage).map(|at| at.on_error);
                forward.answer(validated, on_error == Some(OnError::Pass));
            }
            None => forward.keep(events.count()),
        }
    }
}

/// Events that a stage has not decided yet.
struct Task {
    ranges: Vec<EventRange>,
    /// How often they were tried again.
    tries: u8,
}

/// Decides the events of one stage in a window.
pub(crate) struct Decision<'d, 'r, 's> {
    run: &'d ChainRun<'r>,
    stage: usize,
    batches: &'d [ChainBatch],
    window: &'d mut Window,
    state: &'d mut RunState<'s>,
    /// Whether the breaker counts the events; not if the window is decided for a second time.
    counts: bool,
    /// The calls that are left, the first one last.
    todo: Vec<Task>,
    decided: Vec<Decided>,
    outputs: usize,
    output_bytes: usize,
}

impl<'d, 'r, 's> Decision<'d, 'r, 's> {
    pub(crate) fn new(
        run: &'d ChainRun<'r>,
        stage: usize,
        batches: &'d [ChainBatch],
        window: &'d mut Window,
        state: &'d mut RunState<'s>,
        counts: bool,
    ) -> Self {
        let (todo, decided) = (Vec::new(), Vec::new());
        Self { run, stage, batches, window, state, counts, todo, decided, outputs: 0, output_bytes: 0 }
    }

    /// Calls the stage until each event has a verdict or has failed, or the window ends early. `called` is how a call
    /// with all of them has ended, if it was made.
    pub(crate) async fn run(mut self, ranges: Vec<EventRange>, called: Option<Called>) -> Vec<Decided> {
        let first = CallEvents { batches: self.batches, ranges: &ranges }.first_position();
        self.todo = if called.is_some() { vec![Task { ranges, tries: 0 }] } else { self.tasks(ranges) };
        let mut called = called;
        while let Some(task) = self.todo.pop() {
            let Called { result, time_spent } = match called.take() {
                Some(called) => called,
                None => self.call(&task.ranges).await,
            };
            let ends = match result {
                Ok(answer) => self.answered(task.ranges, answer, first),
                Err(failure) => self.failed(task, &failure, time_spent),
            };
            if ends {
                break;
            }
        }
        self.decided
    }

    /// Decides that all events are kept, as far as the attachment point allows: a chain without stages.
    pub(crate) fn keep_all(mut self, ranges: Vec<EventRange>) -> Vec<Decided> {
        let events = CallEvents { batches: self.batches, ranges: &ranges };
        let validated = keep_all(events, self.run.rules(self.stage));
        self.record(&validated.violations, events.count());
        vec![Decided { ranges, validated: Some(validated) }]
    }

    async fn call(&self, ranges: &[EventRange]) -> Called {
        let stateful = self.run.at(self.stage).stage.is_stateful();
        let state = stateful.then(|| self.state.view(self.stage));
        self.run.call(self.stage, CallEvents { batches: self.batches, ranges }, state).await
    }

    /// The stage's events as calls, the first one last.
    fn tasks(&self, ranges: Vec<EventRange>) -> Vec<Task> {
        let mut left: VecDeque<EventRange> = ranges.into();
        let mut tasks = Vec::new();
        while !left.is_empty() {
            tasks.push(Task { ranges: take_call(&mut left, self.batches, EVENTS_MAX), tries: 0 });
        }
        tasks.reverse();
        tasks
    }

    /// Takes a valid answer. True if the window ends early.
    fn answered(&mut self, ranges: Vec<EventRange>, answer: Answer, first: Position) -> bool {
        let Answer { validated, writes } = answer;
        let events = CallEvents { batches: self.batches, ranges: &ranges };
        self.outputs += validated.output_count;
        self.output_bytes += validated.output_bytes;
        if self.outputs > CALL_OUTPUT_EVENTS_MAX || self.output_bytes > CALL_OUTPUT_BYTES_MAX {
            self.stop_before(events.first_position(), first);
            return true;
        }
        let ends = self.record(&validated.violations, events.count());
        self.state.write(self.stage, writes);
        self.decided.push(Decided { ranges, validated: Some(validated) });
        ends
    }

    /// The window's outputs have grown to what one commit may take: the rest is for the next run. An input event that
    /// alone makes more has failed.
    fn stop_before(&mut self, next: Position, first: Position) {
        if next > first {
            return self.window.cut(next, None);
        }
        let text = CallError::Output(format!(
            "what the chain made of one event is over {CALL_OUTPUT_BYTES_MAX} bytes or {CALL_OUTPUT_EVENTS_MAX} events"
        ));
        let reason = DeadReason::PluginError;
        let failure = Failure { position: next, stage: self.stage, reason, text: text.to_string() };
        self.window.record(failure, OnError::DeadLetter);
        self.window.cut(next.plus(1), None);
    }

    /// Bisects, retries or gives up. True if the window ends early.
    fn failed(&mut self, task: Task, failure: &CallFailure, time_spent: Duration) -> bool {
        let at = self.run.at(self.stage);
        let error = match failure {
            CallFailure::Call(error) => {
                at.stage.failed(error);
                error
            }
            CallFailure::Invalid(error) => {
                at.stage.invalid(&error.to_string());
                error
            }
        };
        let events = CallEvents { batches: self.batches, ranges: &task.ranges };
        let position = events.first_position();
        let stages = self.run.stages;
        let opened = stages.breaker().time_spent(time_spent, stages.now());
        if let Some(pause) = opened {
            let offset = self.run.origin.offset(position);
            let why = format!("plugin {} wastes its time, last at offset {offset}: {error}", at.label());
            self.window.cut(position, Some(Paused { why, retry_after: Some(pause) }));
            return true;
        }
        if events.count() > 1 {
            let (left, right) = halve(self.batches, &task.ranges);
            self.todo.extend([right, left].map(|ranges| Task { ranges, tries: 0 }));
            return false;
        }
        let is_final = matches!(error, CallError::Reject(_));
        if task.tries < at.retries && !is_final {
            self.todo.push(Task { tries: task.tries + 1, ..task });
            return false;
        }
        let reason = if is_final { DeadReason::Rejected } else { DeadReason::PluginError };
        let violation = Violation { index: 0, position, reason, failed: true, text: error.to_string() };
        if at.on_error == OnError::Pass {
            self.decided.push(Decided { ranges: task.ranges, validated: None });
        }
        self.end_event(&violation)
    }

    /// Counts an answer on some events for the breaker and records its violations. True if the window ends early.
    fn record(&mut self, violations: &[Violation], events: u32) -> bool {
        let mut next = 0;
        for violation in violations {
            if violation.index > next || !violation.failed {
                self.passed();
            }
            if let Some(at) = self.run.stages.all().get(self.stage).filter(|_| violation.failed) {
                at.stage.invalid(&violation.text);
            }
            next = violation.index + 1;
            if self.end_event(violation) {
                return true;
            }
        }
        if next < events {
            self.passed();
        }
        false
    }

    fn passed(&self) {
        if self.counts {
            self.run.stages.breaker().passed(self.stage);
        }
    }

    /// Applies the stage's policy to an event that failed. True if the window ends early.
    fn end_event(&mut self, violation: &Violation) -> bool {
        let Violation { position, reason, failed, .. } = *violation;
        let stages = self.run.stages;
        let at = stages.all().get(self.stage);
        let describe = |what: &str| {
            let label = at.map(|at| at.label()).unwrap_or_default();
            let offset = self.run.origin.offset(position);
            format!("plugin {label} {what} offset {offset}: {}", violation.text)
        };
        let on_error = at.map_or(OnError::DeadLetter, |at| at.on_error);
        let action = self.run.policy.action(reason, on_error);
        if action == OnError::Pause {
            let why = describe("pauses the chain at");
            self.window.cut(position, Some(Paused { why, retry_after: None }));
            return true;
        }
        let counts = failed && self.counts;
        let opened = counts.then(|| stages.breaker().failed(self.stage, stages.now())).flatten();
        let paused = opened.map(|pause| Paused {
            why: describe("fails again and again, last at"),
            retry_after: Some(pause),
        });
        let failure = Failure { position, stage: self.stage, reason, text: violation.text.clone() };
        self.window.record(failure, action);
        let ends = paused.is_some();
        if ends {
            // The event is decided, so a failing probe brings the chain one event further; unless siblings of it are
            // still to come.
            let is_decided = action == OnError::DeadLetter || !self.run.has_siblings(self.stage);
            self.window.cut(if is_decided { position.plus(1) } else { position }, paused);
        }
        ends
    }
}
