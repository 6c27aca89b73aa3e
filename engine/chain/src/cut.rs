//! Cutting batches into calls: which events go into one call.
//!
//! Must not know answers or policies.

use std::{collections::VecDeque, ops::Range};

use levada_protocol::{
    batch::{BATCH_HEADER_BYTES, Batch, BatchError},
    deliver::{RUN_HEADER_BYTES, Run},
    ids::{Offset, Timestamp},
    limits::CALL_BYTES_MAX,
};

/// Stored batches that lie back to back and were checked.
#[derive(Debug, Clone)]
pub struct Source {
    run: Run,
    batches: Vec<(Offset, Batch)>,
    end: Offset,
}

impl Source {
    /// Checks every batch of a stored value.
    ///
    /// # Errors
    /// If one of them is malformed or damaged.
    pub fn check(run: Run) -> Result<Self, BatchError> {
        let batches = run.batches().collect::<Result<Vec<_>, _>>()?;
        let end = batches.last().map_or(run.base, |(base, batch)| base.plus(u64::from(batch.span())));
        Ok(Self { run, batches, end })
    }

    /// The bytes and where they belong.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// The offset after the last event.
    pub fn end(&self) -> Offset {
        self.end
    }
}

/// A batch on its way through a chain.
#[derive(Debug, Clone)]
pub(crate) struct Flat {
    pub(crate) base: Offset,
    pub(crate) append_time: Timestamp,
    pub(crate) hops: u8,
    pub(crate) batch: Batch,
    /// Where its bytes lie, if they are stored ones: which source, and from which byte of its batches.
    pub(crate) stored: Option<(usize, usize)>,
}

impl Flat {
    pub(crate) fn end(&self) -> Offset {
        self.base.plus(u64::from(self.batch.span()))
    }

    /// The offset of the event at `index`, or the end of the batch if there are not so many.
    pub(crate) fn offset_at(&self, index: u32) -> Offset {
        if index >= self.batch.count() {
            self.end()
        } else if self.batch.header().is_selection() {
            self.batch
                .events()
                .nth(index as usize)
                .map_or_else(|| self.end(), |event| event.offset(self.base))
        } else {
            self.base.plus(u64::from(index))
        }
    }

    /// How many events lie below `offset`.
    fn index_of(&self, offset: Offset) -> u32 {
        if offset >= self.end() {
            return self.batch.count();
        }
        let Some(delta) = offset.0.checked_sub(self.base.0) else { return 0 };
        let below = if self.batch.header().is_selection() {
            self.batch.events().take_while(|event| u64::from(event.offset_delta()) < delta).count() as u64
        } else {
            delta
        };
        u32::try_from(below).expect("below the count of the batch")
    }
}

/// Some neighbouring events of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// Which batch of the list.
    pub(crate) flat: usize,
    /// The first event's index in it.
    pub(crate) first: u32,
    /// How many; at least 1.
    pub(crate) count: u32,
    /// Where the first event's record begins in the batch's body.
    pub(crate) start: usize,
    /// How many bytes the records take.
    pub(crate) len: usize,
}

impl Part {
    fn whole(index: usize, flat: &Flat) -> Self {
        let header = flat.batch.header();
        Self { flat: index, first: 0, count: header.count, start: 0, len: header.body_len as usize }
    }

    /// The first of its events, as many as are at most `events_max` and `bytes_max`, and the others.
    fn split(&self, flats: &[Flat], events_max: u32, bytes_max: usize) -> (Self, Self) {
        let body = &flats[self.flat].batch.bytes()[BATCH_HEADER_BYTES..][self.start..self.start + self.len];
        let (mut count, mut len) = (0, 0);
        while count < events_max.min(self.count)
            && let Some(next) = body[len..].first_chunk()
            && let next = u32::from_le_bytes(*next) as usize
            && len + next <= bytes_max
        {
            count += 1;
            len += next;
        }
        let rest = Self {
            first: self.first + count,
            count: self.count - count,
            start: self.start + len,
            len: self.len - len,
            ..*self
        };
        (Self { count, len, ..*self }, rest)
    }

    pub(crate) fn first_offset(&self, flats: &[Flat]) -> Offset {
        flats[self.flat].offset_at(self.first)
    }

    /// Where the event after this part's last one begins.
    pub(crate) fn end_offset(&self, flats: &[Flat]) -> Offset {
        flats[self.flat].offset_at(self.first + self.count)
    }

    pub(crate) fn is_whole(&self, flats: &[Flat]) -> bool {
        self.count == flats[self.flat].batch.count()
    }

    /// How many bytes of a call it takes, at most.
    pub(crate) fn call_bytes(&self) -> usize {
        PART_HEADER_BYTES + self.len
    }
}

const PART_HEADER_BYTES: usize = RUN_HEADER_BYTES + BATCH_HEADER_BYTES;

/// All batches of some sources.
pub(crate) fn flatten(sources: &[Source]) -> Vec<Flat> {
    let mut flats = Vec::with_capacity(sources.iter().map(|source| source.batches.len()).sum());
    for (index, source) in sources.iter().enumerate() {
        let mut start = 0;
        for (base, batch) in &source.batches {
            flats.push(Flat {
                base: *base,
                append_time: source.run.append_time,
                hops: source.run.hops,
                batch: batch.clone(),
                stored: Some((index, start)),
            });
            start += batch.bytes().len();
        }
    }
    flats
}

/// The events of `flats` inside of `offsets`.
pub(crate) fn parts_within(flats: &[Flat], offsets: &Range<Offset>) -> VecDeque<Part> {
    let mut parts = VecDeque::with_capacity(flats.len());
    for (index, flat) in flats.iter().enumerate() {
        let first = flat.index_of(offsets.start);
        let end = flat.index_of(offsets.end);
        if (first, end) == (0, flat.batch.count()) {
            parts.push_back(Part::whole(index, flat));
        } else if first < end {
            let (_, from) = Part::whole(index, flat).split(flats, first, usize::MAX);
            parts.push_back(from.split(flats, end - first, usize::MAX).0);
        }
    }
    parts
}

/// All events of `flats`.
pub(crate) fn parts_of(flats: &[Flat]) -> VecDeque<Part> {
    flats.iter().enumerate().map(|(index, flat)| Part::whole(index, flat)).collect()
}

/// How many events there are in `parts`.
pub(crate) fn count_of(parts: &[Part]) -> u32 {
    parts.iter().map(|part| part.count).sum()
}

/// Takes the next call from the front of `left`: at most `events_max` events and 256 KiB, or one larger event.
///
/// A batch is cut only if it is larger than a call, or if the call would stay less than half full without it.
pub(crate) fn take_call(left: &mut VecDeque<Part>, flats: &[Flat], events_max: u32) -> Vec<Part> {
    let mut call = Vec::new();
    let (mut events_left, mut bytes_left) = (events_max, CALL_BYTES_MAX);
    while let Some(part) = left.front_mut() {
        let bytes = part.call_bytes();
        if part.count <= events_left && bytes <= bytes_left {
            events_left -= part.count;
            bytes_left -= bytes;
            call.push(*part);
            left.pop_front();
            continue;
        }
        let fits_alone = part.count <= events_max && bytes <= CALL_BYTES_MAX;
        let half_full = events_left < events_max / 2 || bytes_left < CALL_BYTES_MAX / 2;
        if fits_alone && half_full {
            break;
        }
        let (mut first, mut rest) =
            part.split(flats, events_left, bytes_left.saturating_sub(PART_HEADER_BYTES));
        if first.count == 0 && call.is_empty() {
            (first, rest) = part.split(flats, 1, usize::MAX);
        }
        if first.count > 0 {
            call.push(first);
        }
        match rest.count {
            0 => drop(left.pop_front()),
            _ => *part = rest,
        }
        break;
    }
    call
}

/// Two halves of a call of at least two events.
pub(crate) fn halve(flats: &[Flat], parts: &[Part]) -> (Vec<Part>, Vec<Part>) {
    let mut room = count_of(parts) / 2;
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for part in parts {
        let (first, rest) = part.split(flats, room, usize::MAX);
        room -= first.count;
        left.extend((first.count > 0).then_some(first));
        right.extend((rest.count > 0).then_some(rest));
    }
    (left, right)
}
