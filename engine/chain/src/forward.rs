//! Forwarding what a validated answer lets through: events go into a sink, in order, except those that are withheld.

use std::collections::BTreeSet;

use levada_protocol::batch::EventRef;

use crate::{
    batches::{CallEvents, ChainBatch},
    outcome::DeadReason,
    outputs::{OutputRef, Outputs},
    position::Position,
    validate::{Entry, Validated},
    walk::{EventReader, Step, Walker},
};

/// Takes the events that pass a stage.
pub(crate) trait Sink: Send {
    /// Takes `count` neighbouring events of `from` as they are, from index `first` on.
    fn keep(&mut self, from: &ChainBatch, first: u32, count: u32, reader: &mut EventReader<'_>);

    /// Takes the event that a valid output makes of `event`: it is within every limit.
    fn emit<'a>(&mut self, from: &ChainBatch, event: &EventRef<'a>, output: OutputRef<'a>);

    /// True once there is as much as should be committed at once.
    fn is_full(&self) -> bool;
}

/// The events that are not forwarded although their verdict says so.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Withheld<'w> {
    /// Every event from this position on.
    pub(crate) from: Option<Position>,
    /// Every event of these positions: another output of the same event failed, and the input event is a
    /// dead letter as a whole.
    pub(crate) dead: Option<&'w BTreeSet<Position>>,
}

impl Withheld<'_> {
    pub(crate) const NOTHING: Self = Self { from: None, dead: None };

    fn is_nothing(&self) -> bool {
        self.from.is_none() && self.dead.is_none()
    }

    fn holds(&self, position: Position) -> bool {
        self.from.is_some_and(|from| position >= from)
            || self.dead.is_some_and(|dead| dead.contains(&position))
    }
}

/// Forwards the events of one call.
pub(crate) struct Forward<'f, S> {
    walker: Walker<'f>,
    withheld: Withheld<'f>,
    sink: &'f mut S,
}

impl<'f, S: Sink> Forward<'f, S> {
    pub(crate) fn new(events: CallEvents<'f>, withheld: Withheld<'f>, sink: &'f mut S) -> Self {
        Self { walker: Walker::new(events), withheld, sink }
    }

    /// Follows an answer. An event with a violation is forwarded unchanged if `keeps_failed`, else not at all.
    pub(crate) fn answer(&mut self, validated: &Validated, keeps_failed: bool) {
        let mut violations = validated.violations.iter().peekable();
        let (mut index, mut output) = (0, 0);
        for entry in &validated.entries {
            match *entry {
                Entry::Drop(n) => {
                    self.walker.skip(n);
                    index += n;
                }
                Entry::Keep(n) => {
                    let end = index + n;
                    while index < end {
                        // Only an event that passed too many routes has a violation here: it is never forwarded.
                        if violations.next_if(|violation| violation.index == index).is_some() {
                            self.walker.skip(1);
                            index += 1;
                        } else {
                            let until = violations.peek().map_or(end, |next| next.index.min(end));
                            self.keep(until - index);
                            index = until;
                        }
                    }
                }
                Entry::Emit(count) => {
                    self.emit(&validated.outputs, output..output + count);
                    output += count;
                    index += 1;
                }
                Entry::Violation => {
                    let violation = violations.next_if(|violation| violation.index == index);
                    let keeps = keeps_failed
                        && violation.is_some_and(|violation| violation.reason != DeadReason::Loop);
                    if keeps {
                        self.keep(1);
                    } else {
                        self.walker.skip(1);
                    }
                    index += 1;
                }
            }
        }
    }

    /// Forwards the next `count` events unchanged.
    pub(crate) fn keep(&mut self, count: u32) {
        let mut left = count;
        let most = if self.withheld.is_nothing() { u32::MAX } else { 1 };
        while left > 0
            && let Some(Step { from, first, count, reader }) = self.walker.step(left.min(most))
        {
            left -= count;
            let position = |event: EventRef<'_>| from.base.plus(event.offset_delta().into());
            if self.withheld.is_nothing() || !self.withheld.holds(position(reader.get(first))) {
                self.sink.keep(from, first, count, reader);
            }
        }
    }

    /// Forwards the outputs of the next event.
    fn emit(&mut self, outputs: &Outputs, indexes: std::ops::Range<usize>) {
        let Some(Step { from, first, reader, .. }) = self.walker.step(1) else { return };
        let event = reader.get(first);
        let position = from.base.plus(event.offset_delta().into());
        if !self.withheld.is_nothing() && self.withheld.holds(position) {
            return;
        }
        for output in indexes.filter_map(|index| outputs.get(index)) {
            self.sink.emit(from, &event, output);
        }
    }
}
