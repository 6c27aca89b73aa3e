//! Stepping through the events of a call, forward and without copying.
//!
//! Must not know why: judging an answer and following it walk the same way.

use levada_protocol::batch::{Batch, EventRef, Events};

use crate::cut::{Flat, Part};

/// A batch's events, fetched by an index that never goes back.
#[derive(Debug)]
pub(crate) struct Forward<'a> {
    events: Events<'a>,
    /// The index of the next event to come out of `events`.
    at: u32,
    last: Option<EventRef<'a>>,
}

impl<'a> Forward<'a> {
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

/// Steps through the events of a call, in order.
#[derive(Debug)]
pub(crate) struct Walker<'a> {
    flats: &'a [Flat],
    parts: &'a [Part],
    /// How many events of the first of `parts` were passed.
    used: u32,
    forward: Option<(usize, Forward<'a>)>,
}

/// Neighbouring events of one batch, reached by a walker.
pub(crate) struct Chunk<'w, 'a> {
    pub(crate) flat: &'a Flat,
    pub(crate) first: u32,
    pub(crate) count: u32,
    pub(crate) forward: &'w mut Forward<'a>,
}

impl<'a> Walker<'a> {
    pub(crate) fn new(flats: &'a [Flat], parts: &'a [Part]) -> Self {
        Self { flats, parts, used: 0, forward: None }
    }

    /// The next events of one batch, at most `most` and at least one; `None` after the last.
    pub(crate) fn chunk(&mut self, most: u32) -> Option<Chunk<'_, 'a>> {
        let part = *self.parts.first()?;
        let count = most.min(part.count - self.used);
        let first = part.first + self.used;
        self.used += count;
        if self.used == part.count {
            self.parts = &self.parts[1..];
            self.used = 0;
        }
        let flat = &self.flats[part.flat];
        if self.forward.as_ref().is_none_or(|(index, _)| *index != part.flat) {
            self.forward = Some((part.flat, Forward::new(&flat.batch)));
        }
        let forward = &mut self.forward.as_mut().expect("set above").1;
        Some(Chunk { flat, first, count, forward })
    }

    /// Passes `n` events.
    pub(crate) fn skip(&mut self, mut n: u32) {
        while n > 0
            && let Some(chunk) = self.chunk(n)
        {
            n -= chunk.count;
        }
    }
}
