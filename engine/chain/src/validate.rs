//! Validating a plugin's answer: are these verdicts on the events of the call, and which of them are not allowed.
//!
//! Nothing that a plugin says has an effect before it is [`Validated`]. Must not know what happens to a violation.

use bytes::Bytes;
use levada_protocol::{
    batch::EventRef,
    event::ENGINE_HEADER_PREFIX,
    limits::{
        CALL_OUTPUT_BYTES_MAX, CALL_OUTPUT_EVENTS_MAX, ENGINE_HEADERS_BYTES_MAX, EVENT_BYTES_MAX, HOPS_MAX,
    },
    verdict::{Output, Verdict, Verdicts},
};
use levada_stage::CallError;

use crate::{
    batches::CallEvents,
    emit,
    outcome::DeadReason,
    outputs::Outputs,
    policy::Rules,
    position::Position,
    walk::{Step, Walker},
};

/// Bytes of all outputs of one event: as many as the largest event has, with headers of the engine's.
const OUTPUTS_BYTES_MAX: usize = EVENT_BYTES_MAX + ENGINE_HEADERS_BYTES_MAX;

/// An answer with one verdict per event of its call, within the limits of a call, with everything resolved that
/// forwarding needs.
#[derive(Debug)]
pub(crate) struct Validated {
    /// What becomes of the events, in order; each entry covers at least one.
    pub(crate) entries: Vec<Entry>,
    /// The outputs of all entries, in order.
    pub(crate) outputs: Outputs,
    /// The events whose verdict is not followed, ascending.
    pub(crate) violations: Vec<Violation>,
    /// How many events are emitted.
    pub(crate) output_count: usize,
    /// How many bytes these take together, at most.
    pub(crate) output_bytes: usize,
}

/// What becomes of one or more neighbouring events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// This many events are dropped.
    Drop(u32),
    /// This many events are forwarded as they are, except those with a violation.
    Keep(u32),
    /// One event becomes this many of the next outputs.
    Emit(usize),
    /// One event has a violation.
    Violation,
}

/// An event whose verdict is not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// The event's index in its call.
    pub(crate) index: u32,
    /// The position of the input event that it comes from.
    pub(crate) position: Position,
    pub(crate) reason: DeadReason,
    /// Whether the plugin failed, which the breaker counts. A rejection is a decision, not a failure.
    pub(crate) failed: bool,
    /// A sentence for people.
    pub(crate) text: String,
}

/// Reads a whole answer on `events`.
///
/// # Errors
/// One sentence if no verdict of it can be used: it is malformed, over a limit, or not about these events.
pub(crate) fn validate(
    answer: &Bytes,
    events: CallEvents<'_>,
    rules: Rules<'_>,
) -> Result<Validated, String> {
    if answer.len() > CALL_OUTPUT_BYTES_MAX {
        return Err(format!("it is {} bytes, the limit is {CALL_OUTPUT_BYTES_MAX}", answer.len()));
    }
    let mut validator = Validator::new(answer.clone(), events, rules);
    for verdict in Verdicts::new(answer) {
        validator.verdict(&verdict.map_err(|error| error.to_string())?)?;
    }
    validator.finish()
}

/// What a stage that keeps every event would answer: a chain without stages.
pub(crate) fn keep_all(events: CallEvents<'_>, rules: Rules<'_>) -> Validated {
    let mut validator = Validator::new(Bytes::new(), events, rules);
    validator.keep(events.count());
    validator.validated
}

struct Validator<'e> {
    validated: Validated,
    walker: Walker<'e>,
    rules: Rules<'e>,
    events: u32,
    /// How many events have a verdict.
    seen: u32,
}

impl<'e> Validator<'e> {
    fn new(answer: Bytes, events: CallEvents<'e>, rules: Rules<'e>) -> Self {
        let validated = Validated {
            entries: Vec::new(),
            outputs: Outputs::of(answer),
            violations: Vec::new(),
            output_count: 0,
            output_bytes: 0,
        };
        Self { validated, walker: Walker::new(events), rules, events: events.count(), seen: 0 }
    }

    fn finish(self) -> Result<Validated, String> {
        if self.seen == self.events {
            Ok(self.validated)
        } else {
            Err(format!("its verdicts cover {} of the events, expected {}", self.seen, self.events))
        }
    }

    fn verdict(&mut self, verdict: &Verdict<'_>) -> Result<(), String> {
        let covers = match verdict {
            Verdict::Drop(n) | Verdict::Keep(n) => u32::from(*n),
            Verdict::Reject(_) | Verdict::Undecodable(_) | Verdict::Emit(_) => 1,
        };
        if covers == 0 {
            return Err("a verdict covers no event".to_owned());
        }
        if covers > self.events - self.seen {
            return Err(format!("its verdicts cover more of the events than the {} there are", self.events));
        }
        match verdict {
            Verdict::Drop(_) => {
                self.walker.skip(covers);
                self.decided(Entry::Drop(covers), covers);
            }
            Verdict::Keep(_) => self.keep(covers),
            Verdict::Reject(reason) => self.reject(DeadReason::Rejected, reason),
            Verdict::Undecodable(error) => self.reject(DeadReason::Undecodable, error),
            Verdict::Emit(outputs) => self.emit(outputs)?,
        }
        Ok(())
    }

    fn decided(&mut self, entry: Entry, covers: u32) {
        self.validated.entries.push(entry);
        self.seen += covers;
    }

    fn violation(&mut self, index: u32, position: Position, reason: DeadReason, failed: bool, text: String) {
        self.validated.violations.push(Violation { index, position, reason, failed, text });
    }

    fn keep(&mut self, covers: u32) {
        if self.rules.counts_hop {
            let mut done = 0;
            while done < covers
                && let Some(Step { from, first, count, reader }) = self.walker.step(covers - done)
            {
                if from.hops >= HOPS_MAX {
                    for at in 0..count {
                        let position = from.base.plus(reader.get(first + at).offset_delta().into());
                        self.validated.violations.push(looped(self.seen + done + at, position));
                    }
                }
                done += count;
            }
        } else {
            self.walker.skip(covers);
        }
        self.decided(Entry::Keep(covers), covers);
    }

    fn reject(&mut self, reason: DeadReason, text: &str) {
        if let Some(Step { from, first, reader, .. }) = self.walker.step(1) {
            let position = from.base.plus(reader.get(first).offset_delta().into());
            self.violation(self.seen, position, reason, false, text.to_owned());
        }
        self.decided(Entry::Violation, 1);
    }

    fn emit(&mut self, outputs: &[Output<'_>]) -> Result<(), String> {
        let Some(Step { from, first, reader, .. }) = self.walker.step(1) else { return Ok(()) };
        if outputs.is_empty() {
            self.decided(Entry::Drop(1), 1);
            return Ok(());
        }
        let event = reader.get(first);
        let position = from.base.plus(event.offset_delta().into());
        if self.rules.counts_hop && from.hops >= HOPS_MAX {
            self.validated.violations.push(looped(self.seen, position));
            self.decided(Entry::Violation, 1);
            return Ok(());
        }
        let mark = self.validated.outputs.mark();
        match self.outputs(&event, outputs) {
            Ok(bytes) => {
                self.decided(Entry::Emit(outputs.len()), 1);
                self.within_limits(outputs.len(), bytes)
            }
            Err(text) => {
                self.validated.outputs.undo(mark);
                let text = CallError::Output(text).to_string();
                self.violation(self.seen, position, DeadReason::PluginError, true, text);
                self.decided(Entry::Violation, 1);
                Ok(())
            }
        }
    }

    /// Adds the outputs of one event and returns their bytes; the first thing that is not allowed is an error.
    fn outputs(&mut self, event: &EventRef<'_>, outputs: &[Output<'_>]) -> Result<usize, String> {
        if outputs.len() > 1 && !self.rules.may_split {
            return Err(format!("it made {} events of one, the limit here is 1", outputs.len()));
        }
        let mut bytes = 0;
        for output in outputs {
            let target = self.rules.target(output.target);
            let added = self.validated.outputs.add(output, *target.as_ref().unwrap_or(&0));
            bytes +=
                emit::measure(event, added).map_err(|error| format!("its output is too large: {error}"))?;
            target?;
            if let Some(name) = emit::forged(event, added) {
                let name = String::from_utf8_lossy(name);
                return Err(format!(
                    "it set the header {name:?}, and names that begin with {ENGINE_HEADER_PREFIX} are the engine's own"
                ));
            }
        }
        if bytes > OUTPUTS_BYTES_MAX {
            return Err(format!(
                "the outputs of one event are {bytes} bytes, the limit is {OUTPUTS_BYTES_MAX}"
            ));
        }
        Ok(bytes)
    }

    /// Counts the outputs of one event against the limits of a call.
    fn within_limits(&mut self, count: usize, bytes: usize) -> Result<(), String> {
        self.validated.output_count += count;
        self.validated.output_bytes += bytes;
        let (count, bytes) = (self.validated.output_count, self.validated.output_bytes);
        if count > CALL_OUTPUT_EVENTS_MAX {
            return Err(format!("it emits {count} events or more, the limit is {CALL_OUTPUT_EVENTS_MAX}"));
        }
        if bytes > CALL_OUTPUT_BYTES_MAX {
            return Err(format!(
                "its events are {bytes} bytes or more, the limit is {CALL_OUTPUT_BYTES_MAX}"
            ));
        }
        Ok(())
    }
}

impl Rules<'_> {
    /// The index of the target that an output names; 0 if it names none.
    fn target(&self, target: Option<&str>) -> Result<usize, String> {
        let Some(target) = target else { return Ok(0) };
        let Some(targets) = self.targets else {
            return Err(format!("it chose the target {target:?}, and only a route's last stage may"));
        };
        let found = targets.iter().position(|known| known.topic.as_str() == target);
        found.ok_or_else(|| format!("it chose the target {target:?}, which the route does not declare"))
    }
}

fn looped(index: u32, position: Position) -> Violation {
    let text = format!("the event has passed {HOPS_MAX} routes, the limit is {HOPS_MAX}");
    Violation { index, position, reason: DeadReason::Loop, failed: false, text }
}
