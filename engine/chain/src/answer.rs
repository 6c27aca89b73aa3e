//! Judging a plugin's answer: is it one, and which of its verdicts are not allowed at this place.
//!
//! Nothing that a plugin says is acted on before it went through here. Must not know policies.

use levada_protocol::{
    event::ENGINE_HEADER_PREFIX,
    ids::Offset,
    limits::{
        CALL_OUTPUT_BYTES_MAX, CALL_OUTPUT_EVENTS_MAX, ENGINE_HEADERS_BYTES_MAX, EVENT_BYTES_MAX, HOPS_MAX,
    },
    verdict::{Output, Verdict, Verdicts},
};

use levada_stage::CallError;

use crate::{
    cut::{Flat, Part, count_of},
    emit,
    outcome::{DeadReason, Target},
    walk::{Chunk, Walker},
};

/// Bytes of all outputs of one event: as many as the largest event has, with headers of the engine's.
const OUTPUTS_BYTES_MAX: usize = EVENT_BYTES_MAX + ENGINE_HEADERS_BYTES_MAX;

/// What a stage may answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules<'t> {
    /// Where outputs may go; `None` if the stage may choose no target.
    pub(crate) targets: Option<&'t [Target]>,
    /// Whether one event may become several.
    pub(crate) many: bool,
}

/// An answer that is one verdict per event, within the limits of a call.
#[derive(Debug)]
pub(crate) struct Judged<'a> {
    /// The verdicts; each covers at least one event.
    pub(crate) verdicts: Vec<Verdict<'a>>,
    /// The events whose verdict cannot be followed, ascending.
    pub(crate) faults: Vec<Fault>,
    /// How many events are emitted.
    pub(crate) outputs: usize,
    /// What these will take together.
    pub(crate) output_bytes: usize,
}

/// An event that does not pass as the plugin was meant to let it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The event's place in its call.
    pub(crate) index: u32,
    /// The source offset.
    pub(crate) offset: Offset,
    /// The word for it.
    pub(crate) reason: DeadReason,
    /// Whether the plugin failed, which the breaker counts; a rejection is no failure.
    pub(crate) guilty: bool,
    /// One sentence.
    pub(crate) text: String,
}

/// Reads a whole answer about the events of `parts`.
///
/// # Errors
/// If the answer as a whole is none: then no verdict of it counts.
pub(crate) fn judge<'a>(
    answer: &'a [u8],
    flats: &[Flat],
    parts: &[Part],
    rules: Rules<'_>,
) -> Result<Judged<'a>, String> {
    if answer.len() > CALL_OUTPUT_BYTES_MAX {
        return Err(format!("it is {} bytes, the limit is {CALL_OUTPUT_BYTES_MAX}", answer.len()));
    }
    let mut judge = Judge::new(flats, parts, rules);
    for verdict in Verdicts::new(answer) {
        judge.verdict(verdict.map_err(|error| error.to_string())?)?;
    }
    judge.finish()
}

/// The same as if a plugin had kept every event: a chain without stages.
pub(crate) fn keep_all(flats: &[Flat], parts: &[Part], rules: Rules<'_>) -> Judged<'static> {
    let mut judge = Judge::new(flats, parts, rules);
    while judge.seen < judge.events {
        let n = u16::try_from(judge.events - judge.seen).unwrap_or(u16::MAX);
        judge.verdict(Verdict::Keep(n)).expect("what is left of the events may be kept");
    }
    judge.judged
}

struct Judge<'a, 'f> {
    judged: Judged<'a>,
    walker: Walker<'f>,
    rules: Rules<'f>,
    events: u32,
    seen: u32,
}

impl<'a, 'f> Judge<'a, 'f> {
    fn new(flats: &'f [Flat], parts: &'f [Part], rules: Rules<'f>) -> Self {
        Self {
            judged: Judged { verdicts: Vec::new(), faults: Vec::new(), outputs: 0, output_bytes: 0 },
            walker: Walker::new(flats, parts),
            rules,
            events: count_of(parts),
            seen: 0,
        }
    }

    fn finish(self) -> Result<Judged<'a>, String> {
        if self.seen == self.events {
            Ok(self.judged)
        } else {
            Err(format!("it has verdicts for {} events, expected {}", self.seen, self.events))
        }
    }

    fn verdict(&mut self, verdict: Verdict<'a>) -> Result<(), String> {
        let covers = match verdict {
            Verdict::Drop(n) | Verdict::Keep(n) => u32::from(n),
            Verdict::Reject(_) | Verdict::Emit(_) => 1,
        };
        if covers == 0 {
            return Err("a verdict covers no event".to_owned());
        }
        if covers > self.events - self.seen {
            return Err(format!("it has verdicts for more than {} events", self.events));
        }
        match &verdict {
            Verdict::Drop(_) => self.walker.skip(covers),
            Verdict::Keep(_) => self.keep(covers),
            Verdict::Reject(reason) => {
                let offset = self.next_offset();
                let (index, text) = (self.seen, (*reason).to_owned());
                let fault = Fault { index, offset, reason: DeadReason::Rejected, guilty: false, text };
                self.judged.faults.push(fault);
            }
            Verdict::Emit(outputs) => self.emit(outputs)?,
        }
        self.seen += covers;
        self.judged.verdicts.push(verdict);
        Ok(())
    }

    fn next_offset(&mut self) -> Offset {
        let Chunk { flat, first, forward, .. } = self.walker.chunk(1).expect("an event is left");
        forward.get(first).offset(flat.base)
    }

    fn keep(&mut self, covers: u32) {
        if self.rules.targets.is_none() {
            return self.walker.skip(covers);
        }
        let mut done = 0;
        while let Some(Chunk { flat, first, count, forward }) = self.walker.chunk(covers - done) {
            if flat.hops >= HOPS_MAX {
                for at in 0..count {
                    let offset = forward.get(first + at).offset(flat.base);
                    self.judged.faults.push(looped(self.seen + done + at, offset));
                }
            }
            done += count;
            if done == covers {
                break;
            }
        }
    }

    fn emit(&mut self, outputs: &[Output<'a>]) -> Result<(), String> {
        let Chunk { flat, first, forward, .. } = self.walker.chunk(1).expect("an event is left");
        if outputs.is_empty() {
            return Ok(());
        }
        let event = forward.get(first);
        let offset = event.offset(flat.base);
        if self.rules.targets.is_some() && flat.hops >= HOPS_MAX {
            self.judged.faults.push(looped(self.seen, offset));
            return Ok(());
        }
        let mut bytes = 0;
        let mut wrong = (outputs.len() > 1 && !self.rules.many)
            .then(|| format!("it made {} events of one, the limit here is 1", outputs.len()));
        for output in outputs {
            match emit::measure(&event, output) {
                Ok(len) => bytes += len,
                Err(error) => wrong = wrong.or_else(|| Some(format!("its output is too large: {error}"))),
            }
            wrong = wrong.or_else(|| self.rules.refuse_target(output.target));
            wrong = wrong.or_else(|| {
                let name = emit::forged(&event, output)?;
                Some(format!("it set the header {name:?}, and names that begin with {ENGINE_HEADER_PREFIX} are the engine's own"))
            });
        }
        if bytes > OUTPUTS_BYTES_MAX {
            let text =
                format!("the outputs of one event are {bytes} bytes, the limit is {OUTPUTS_BYTES_MAX}");
            wrong = wrong.or(Some(text));
        }
        if let Some(text) = wrong {
            let (index, reason) = (self.seen, DeadReason::PluginError);
            let text = CallError::Output(text).to_string();
            self.judged.faults.push(Fault { index, offset, reason, guilty: true, text });
            return Ok(());
        }
        self.judged.outputs += outputs.len();
        self.judged.output_bytes += bytes;
        let (count, bytes) = (self.judged.outputs, self.judged.output_bytes);
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
    fn refuse_target(&self, target: Option<&str>) -> Option<String> {
        let target = target?;
        match self.targets {
            None => Some(format!("it chose the target {target:?}, and only a route's last stage may")),
            Some(targets) if targets.iter().any(|known| known.topic.as_str() == target) => None,
            Some(_) => Some(format!("it chose the target {target:?}, which the route does not declare")),
        }
    }
}

fn looped(index: u32, offset: Offset) -> Fault {
    let text = format!("the event has passed {HOPS_MAX} routes, the limit is {HOPS_MAX}");
    Fault { index, offset, reason: DeadReason::Loop, guilty: false, text }
}
