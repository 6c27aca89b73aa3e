//! Stepping through the events of a call, forward and without copying.
//!
//! Must not know why: validating an answer and forwarding events walk the same way.

use levada_protocol::batch::{Batch, EventRef, Events};

use crate::batches::{CallEvents, ChainBatch, EventRange};

/// Reads a batch's events by an index that never falls.
#[derive(Debug)]
pub(crate) struct EventReader<'a> {
    events: Events<'a>,
    /// The index of the event that `events` gives next.
    at: u32,
    last: Option<EventRef<'a>>,
}

impl<'a> EventReader<'a> {
    pub(crate) fn new(batch: &'a Batch) -> Self {
        Self { events: batch.events(), at: 0, last: None }
    }

    /// The event at `index`, which is below the batch's count and not below the last one asked for.
    #[inline]
    pub(crate) fn get(&mut self, index: u32) -> EventRef<'a> {
        if let Some(last) = self.last
            && index + 1 == self.at
        {
            return last;
        }
        let event = self.events.nth((index - self.at) as usize).expect("the index is below the count");
        self.at = index + 1;
        self.last = Some(event);
        event
    }
}

/// Walks through the events of a call, in order.
#[derive(Debug)]
pub(crate) struct Walker<'a> {
    batches: &'a [ChainBatch],
    ranges: &'a [EventRange],
    /// How many events of the first of `ranges` were passed.
    used: u32,
    reader: Option<(usize, EventReader<'a>)>,
}

/// One step of a walk: neighbouring events of one batch.
pub(crate) struct Step<'w, 'a> {
    pub(crate) from: &'a ChainBatch,
    /// The first event's index in the batch.
    pub(crate) first: u32,
    /// How many events, at least 1.
    pub(crate) count: u32,
    pub(crate) reader: &'w mut EventReader<'a>,
}

impl<'a> Walker<'a> {
    pub(crate) fn new(events: CallEvents<'a>) -> Self {
        Self { batches: events.batches, ranges: events.ranges, used: 0, reader: None }
    }

    /// The next events of one batch, at most `most` of them; `None` after the last.
    pub(crate) fn step(&mut self, most: u32) -> Option<Step<'_, 'a>> {
        let range = *self.ranges.first()?;
        let count = most.min(range.count - self.used);
        let first = range.first + self.used;
        self.used += count;
        if self.used == range.count {
            self.ranges = &self.ranges[1..];
            self.used = 0;
        }
        let from = &self.batches[range.batch];
        self.reader.take_if(|(index, _)| *index != range.batch);
        let (_, reader) = self.reader.get_or_insert_with(|| (range.batch, EventReader::new(&from.batch)));
        Some(Step { from, first, count, reader })
    }

    /// Passes `n` events.
    pub(crate) fn skip(&mut self, mut n: u32) {
        while n > 0
            && let Some(step) = self.step(n)
        {
            n -= step.count;
        }
    }
}
