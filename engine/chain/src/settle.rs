//! Settling calls: what each answer means, who is guilty when a call failed, and where the place stops.
//!
//! A failing call is halved until the guilty events stand alone; everybody else's verdicts come from the calls that
//! succeed (decision 21). Must not know how calls are run ahead.

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
use levada_protocol::{
    ids::Offset,
    limits::{CALL_OUTPUT_BYTES_MAX, CALL_OUTPUT_EVENTS_MAX},
    request::OnError,
};

use levada_stage::{CallError, CallOutcome, CallOutput};

use crate::{
    answer::{Fault, Judged, Rules, judge, keep_all},
    breaker::EVENTS_MAX,
    chain::Chain,
    cut::{Flat, Part, count_of, halve, parts_of, take_call},
    outcome::{DeadReason, Input, Paused, Target},
    select::Selector,
    window::{Recorded, Window},
    write::{Sink, Withheld, follow, keep_parts},
};

/// One application of a chain to some input.
pub(crate) struct Pass<'p> {
    pub(crate) chain: &'p Chain,
    pub(crate) input: &'p Input<'p>,
    pub(crate) flats: &'p [Flat],
    /// Of a route; `None` at a subscription.
    pub(crate) targets: Option<&'p [Target]>,
}

/// How far some events came through the stages without anything to decide.
pub(crate) struct Reached<'p> {
    stage: usize,
    /// What that stage gets.
    flats: Cow<'p, [Flat]>,
    parts: Vec<Part>,
    /// How its call ended, if it was made.
    call: Option<CallOutcome>,
    /// The source offset after these events.
    pub(crate) end: Offset,
}

/// Events whose fate at a stage is known.
enum Decided {
    Answered { parts: Vec<Part>, answer: Bytes },
    Kept { parts: Vec<Part> },
}

/// Events that a stage still has to decide.
struct Task {
    parts: Vec<Part>,
    tries: u8,
    call: Option<CallOutcome>,
}

impl<'p> Pass<'p> {
    /// The source offset after everything that was given and asked for.
    pub(crate) fn end(&self) -> Offset {
        let given = self.input.sources.last().map_or(self.input.offsets.start, |source| source.end());
        given.min(self.input.offsets.end).max(self.input.offsets.start)
    }

    /// Calls stage after stage until there is something to decide, or the last stage has answered.
    pub(crate) async fn attempt(&self, parts: Vec<Part>) -> Reached<'p> {
        let end = parts.last().map_or(self.input.offsets.start, |part| part.end_offset(self.flats));
        let mut at = Reached { stage: 0, flats: Cow::Borrowed(self.flats), parts, call: None, end };
        while at.stage < self.chain.stages().len() && !at.parts.is_empty() {
            let call = self.chain.call(at.stage, self, &at.flats, &at.parts).await;
            let next = match &call.result {
                Ok(CallOutput { answer, .. }) if at.stage + 1 < self.chain.stages().len() => {
                    self.go_on(at.stage, &at.flats, &at.parts, answer)
                }
                _ => None,
            };
            let Some(next) = next else {
                at.call = Some(call);
                break;
            };
            let mut left = parts_of(&next);
            at.parts = left.iter().copied().collect();
            (at.stage, at.flats) = (at.stage + 1, Cow::Owned(next));
            take_call(&mut left, &at.flats, EVENTS_MAX);
            if !left.is_empty() {
                break;
            }
        }
        at
    }

    /// What the next stage gets, if the answer leaves nothing to decide.
    fn go_on(&self, stage: usize, flats: &[Flat], parts: &[Part], answer: &[u8]) -> Option<Vec<Flat>> {
        let judged = judge(answer, flats, parts, self.rules(stage)).ok()?;
        if !judged.faults.is_empty() {
            return None;
        }
        let mut sink = Selector::new();
        follow(&judged, flats, parts, Withheld::NOTHING, false, &mut sink);
        Some(sink.finish())
    }

    fn rules(&self, stage: usize) -> Rules<'p> {
        let is_last = stage + 1 >= self.chain.stages().len();
        Rules { targets: self.targets.filter(|_| is_last), many: self.targets.is_some() }
    }

    /// Decides all events of a window and gives those that pass to `sink`.
    pub(crate) async fn settle(&self, reached: Reached<'_>, sink: &mut impl Sink) -> Window {
        let Reached { mut stage, mut flats, mut parts, mut call, .. } = reached;
        let mut window = Window::default();
        if self.chain.stages().is_empty() {
            let judged = keep_all(&flats, &parts, self.rules(0));
            self.account(0, &judged, count_of(&parts), &mut window);
            follow(&judged, &flats, &parts, window.withheld(false), false, sink);
            return window;
        }
        (0..stage).for_each(|passed| self.chain.breaker().good(passed));
        while !parts.is_empty() {
            if stage + 1 == self.chain.stages().len() {
                self.pass_stage(stage, &flats, parts, call.take(), &mut window, sink).await;
                break;
            }
            let mut next = Selector::new();
            self.pass_stage(stage, &flats, parts, call.take(), &mut window, &mut next).await;
            flats = Cow::Owned(next.finish());
            parts = parts_of(&flats).into();
            stage += 1;
        }
        window
    }

    async fn pass_stage(
        &self,
        stage: usize,
        flats: &[Flat],
        parts: Vec<Part>,
        call: Option<CallOutcome>,
        window: &mut Window,
        sink: &mut impl Sink,
    ) {
        let rules = self.rules(stage);
        let faulty_pass = self.chain.stages()[stage].on_error == OnError::Pass;
        let siblings = self.has_siblings(stage);
        if let Some(CallOutcome { result: Ok(output), .. }) = &call
            && let Ok(judged) = judge(&output.answer, flats, &parts, rules)
        {
            self.account(stage, &judged, count_of(&parts), window);
            follow(&judged, flats, &parts, window.withheld(siblings), faulty_pass, sink);
            return;
        }
        let decided = self.decide(stage, flats, parts, call, window).await;
        for decided in &decided {
            match decided {
                Decided::Answered { parts, answer } => {
                    let judged = judge(answer, flats, parts, rules).expect("it was judged before");
                    follow(&judged, flats, parts, window.withheld(siblings), faulty_pass, sink);
                }
                Decided::Kept { parts } => keep_parts(flats, parts, window.withheld(siblings), sink),
            }
        }
    }

    /// Whether several events that this stage gets may come from one source event.
    fn has_siblings(&self, stage: usize) -> bool {
        stage > 0 && self.targets.is_some()
    }

    /// Calls a stage until each event has a verdict or is guilty, or the place stops.
    async fn decide(
        &self,
        stage: usize,
        flats: &[Flat],
        parts: Vec<Part>,
        call: Option<CallOutcome>,
        window: &mut Window,
    ) -> Vec<Decided> {
        let first = parts.first().map(|part| part.first_offset(flats)).unwrap_or_default();
        let mut todo = match call {
            Some(call) => vec![Task { parts, tries: 0, call: Some(call) }],
            None => tasks(parts, flats),
        };
        let mut decided = Vec::new();
        let (mut outputs, mut output_bytes) = (0, 0);
        while let Some(mut task) = todo.pop() {
            let call = match task.call.take() {
                Some(call) => call,
                None => self.chain.call(stage, self, flats, &task.parts).await,
            };
            let failure = match call.result {
                Ok(CallOutput { answer, .. }) => {
                    match judge(&answer, flats, &task.parts, self.rules(stage)) {
                        Ok(judged) => {
                            outputs += judged.outputs;
                            output_bytes += judged.output_bytes;
                            if outputs > CALL_OUTPUT_EVENTS_MAX || output_bytes > CALL_OUTPUT_BYTES_MAX {
                                self.stop_before(stage, first, task.parts[0].first_offset(flats), window);
                                break;
                            }
                            let stops = self.account(stage, &judged, count_of(&task.parts), window);
                            decided.push(Decided::Answered { parts: task.parts, answer });
                            if stops {
                                break;
                            }
                            continue;
                        }
                        Err(what) => {
                            let failure = CallError::Output(what);
                            self.chain.stages()[stage].stage.faulty(&failure.to_string());
                            failure
                        }
                    }
                }
                Err(error) => {
                    self.chain.stages()[stage].stage.failed(&error);
                    error
                }
            };
            let failed = Failed { stage, task, failure, spent: call.time_spent };
            if self.failed(failed, flats, &mut todo, &mut decided, window) {
                break;
            }
        }
        decided
    }

    /// The window's outputs have grown to what one commit may take: the rest is for the next run. A source event
    /// that alone makes more is guilty.
    fn stop_before(&self, stage: usize, first: Offset, next: Offset, window: &mut Window) {
        if next > first {
            return window.cut(next, None);
        }
        let text = CallError::Output(format!(
            "what the chain made of one event is over {CALL_OUTPUT_BYTES_MAX} bytes or {CALL_OUTPUT_EVENTS_MAX} events"
        ));
        let reason = DeadReason::PluginError;
        let fault = Fault { index: 0, offset: next, reason, guilty: true, text: text.to_string() };
        window.record(Recorded { stage, fault, action: OnError::DeadLetter });
        window.cut(next.plus(1), None);
    }

    /// Halves, retries or blames. True if the place stops.
    fn failed(
        &self,
        failed: Failed,
        flats: &[Flat],
        todo: &mut Vec<Task>,
        decided: &mut Vec<Decided>,
        window: &mut Window,
    ) -> bool {
        let Failed { stage, task, failure, spent } = failed;
        let at = &self.chain.stages()[stage];
        let offset = task.parts[0].first_offset(flats);
        let opened = self.chain.breaker().wasted(spent, self.chain.now());
        if let Some(pause) = opened {
            let why = format!("plugin {} wastes its time, last at offset {offset}: {failure}", at.label());
            window.cut(offset, Some(Paused { why, retry_after: Some(pause) }));
            return true;
        }
        if count_of(&task.parts) > 1 {
            let (left, right) = halve(flats, &task.parts);
            todo.extend([right, left].map(|parts| Task { parts, tries: 0, call: None }));
            return false;
        }
        let is_final = matches!(failure, CallError::Reject(_));
        if task.tries < at.retries && !is_final {
            todo.push(Task { tries: task.tries + 1, ..task });
            return false;
        }
        let reason = if is_final { DeadReason::Rejected } else { DeadReason::PluginError };
        let fault = Fault { index: 0, offset, reason, guilty: true, text: failure.to_string() };
        if at.on_error == OnError::Pass {
            decided.push(Decided::Kept { parts: task.parts });
        }
        self.blame(stage, fault, window)
    }

    /// Counts a judged answer for the breaker and records its faults. True if the place stops.
    fn account(&self, stage: usize, judged: &Judged<'_>, events: u32, window: &mut Window) -> bool {
        let mut next = 0;
        for fault in &judged.faults {
            if fault.index > next || !fault.guilty {
                self.chain.breaker().good(stage);
            }
            if let Some(at) = self.chain.stages().get(stage).filter(|_| fault.guilty) {
                at.stage.faulty(&fault.text);
            }
            next = fault.index + 1;
            if self.blame(stage, fault.clone(), window) {
                return true;
            }
        }
        if next < events {
            self.chain.breaker().good(stage);
        }
        false
    }

    /// Applies the stage's policy to an event that does not pass. True if the place stops.
    fn blame(&self, stage: usize, fault: Fault, window: &mut Window) -> bool {
        let (offset, guilty) = (fault.offset, fault.guilty);
        let describe = |what: &str| {
            let label = self.chain.stages().get(stage).map(|at| at.label()).unwrap_or_default();
            format!("plugin {label} {what} offset {offset}: {}", fault.text)
        };
        let action = match fault.reason {
            DeadReason::Loop => OnError::DeadLetter,
            DeadReason::PluginError | DeadReason::Rejected => self.chain.stages()[stage].on_error,
        };
        if action == OnError::Pause {
            let why = describe("pauses the place at");
            window.cut(offset, Some(Paused { why, retry_after: None }));
            return true;
        }
        let opened: Option<Duration> =
            guilty.then(|| self.chain.breaker().guilty(stage, self.chain.now())).flatten();
        let paused = opened.map(|pause| Paused {
            why: describe("fails again and again, last at"),
            retry_after: Some(pause),
        });
        window.record(Recorded { stage, fault, action });
        let stops = paused.is_some();
        if stops {
            // The event is decided, and a failing probe so brings the place one event further; unless siblings of
            // it are still to come.
            let is_decided = action == OnError::DeadLetter || !self.has_siblings(stage);
            window.cut(if is_decided { offset.plus(1) } else { offset }, paused);
        }
        stops
    }
}

/// A call that gave no answer to go by.
struct Failed {
    stage: usize,
    task: Task,
    failure: CallError,
    spent: Duration,
}

/// A stage's events as calls, the first one last.
fn tasks(parts: Vec<Part>, flats: &[Flat]) -> Vec<Task> {
    let mut left = parts.into();
    let mut tasks = Vec::new();
    loop {
        let parts = take_call(&mut left, flats, EVENTS_MAX);
        if parts.is_empty() {
            tasks.reverse();
            return tasks;
        }
        tasks.push(Task { parts, tries: 0, call: None });
    }
}
