//! Cutting batches into calls: which events go into one call, and the bytes that the plugin gets for them.
//!
//! Knows how a part of a batch becomes a batch of its own. Must not know answers or policies.

use std::{collections::VecDeque, ops::Range};

use bytes::{BufMut, Bytes, BytesMut};
use levada_protocol::{
    batch::{BATCH_HEADER_BYTES, Batch, BatchError, EventRef, Events},
    deliver::{RUN_HEADER_BYTES, Run, RunHeader},
    ids::{Offset, Timestamp},
    limits::CALL_BYTES_MAX,
};

/// Stored batches that lie back to back and were checked.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    run: Run,
    batches: Vec<(Offset, Batch)>,
    end: Offset,
}

impl Source {
    /// Checks every batch of a stored value.
    ///
    /// # Errors
    /// If one of them is malformed or damaged.
    pub(crate) fn check(run: Run) -> Result<Self, BatchError> {
        let batches = run.batches().collect::<Result<Vec<_>, _>>()?;
        let end = batches.last().map_or(run.base, |(base, batch)| base.plus(u64::from(batch.span())));
        Ok(Self { run, batches, end })
    }

    /// The bytes and where they belong.
    pub(crate) fn run(&self) -> &Run {
        &self.run
    }

    /// The offset after the last event.
    pub(crate) fn end(&self) -> Offset {
        self.end
    }

    /// How many events there are.
    pub(crate) fn count(&self) -> u64 {
        self.batches.iter().map(|(_, batch)| u64::from(batch.count())).sum()
    }
}

/// A batch on its way through a chain.
#[derive(Debug, Clone)]
pub(super) struct Flat {
    pub(super) base: Offset,
    pub(super) append_time: Timestamp,
    pub(super) hops: u8,
    pub(super) batch: Batch,
    /// Where its bytes lie, if they are stored ones: which source, and from which byte of its batches.
    pub(super) stored: Option<(usize, usize)>,
}

impl Flat {
    pub(super) fn end(&self) -> Offset {
        self.base.plus(u64::from(self.batch.span()))
    }

    /// The offset of the event at `index`, or the end of the batch if there are not so many.
    pub(super) fn offset_at(&self, index: u32) -> Offset {
        if index >= self.batch.count() {
            self.end()
        } else if self.batch.header().is_selection() {
            self.batch.events().nth(index as usize).map_or(self.end(), |event| event.offset(self.base))
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
pub(super) struct Part {
    /// Which batch of the list.
    pub(super) flat: usize,
    /// The first event's index in it.
    pub(super) first: u32,
    /// How many; at least 1.
    pub(super) count: u32,
}

impl Part {
    pub(super) fn first_offset(&self, flats: &[Flat]) -> Offset {
        flats[self.flat].offset_at(self.first)
    }

    /// Where the event after this part's last one begins.
    pub(super) fn end_offset(&self, flats: &[Flat]) -> Offset {
        flats[self.flat].offset_at(self.first + self.count)
    }

    fn events<'a>(&self, flats: &'a [Flat]) -> impl Iterator<Item = EventRef<'a>> {
        flats[self.flat].batch.events().skip(self.first as usize).take(self.count as usize)
    }

    fn is_whole(&self, flats: &[Flat]) -> bool {
        self.count == flats[self.flat].batch.count()
    }

    /// How many bytes of a call it takes, at most.
    fn call_bytes(&self, flats: &[Flat]) -> usize {
        let body = if self.is_whole(flats) {
            flats[self.flat].batch.header().body_len as usize
        } else {
            self.events(flats).map(|event| event.record().len()).sum()
        };
        PART_HEADER_BYTES + body
    }
}

const PART_HEADER_BYTES: usize = RUN_HEADER_BYTES + BATCH_HEADER_BYTES;

/// All batches of some sources.
pub(super) fn flatten(sources: &[Source]) -> Vec<Flat> {
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
pub(super) fn parts_within(flats: &[Flat], offsets: &Range<Offset>) -> VecDeque<Part> {
    let mut parts = VecDeque::with_capacity(flats.len());
    for (index, flat) in flats.iter().enumerate() {
        let first = flat.index_of(offsets.start);
        let end = flat.index_of(offsets.end);
        if first < end {
            parts.push_back(Part { flat: index, first, count: end - first });
        }
    }
    parts
}

/// All events of `flats`.
pub(super) fn parts_of(flats: &[Flat]) -> VecDeque<Part> {
    let part = |(index, flat): (usize, &Flat)| Part { flat: index, first: 0, count: flat.batch.count() };
    flats.iter().enumerate().map(part).collect()
}

/// How many events there are in `parts`.
pub(super) fn count_of(parts: &[Part]) -> u32 {
    parts.iter().map(|part| part.count).sum()
}

/// Takes the next call from the front of `left`: at most `events_max` events and 256 KiB, or one larger event.
///
/// A batch is cut only if it is larger than a call, or if the call would stay less than half full without it.
pub(super) fn take_call(left: &mut VecDeque<Part>, flats: &[Flat], events_max: u32) -> Vec<Part> {
    let mut call = Vec::new();
    let (mut events_left, mut bytes_left) = (events_max, CALL_BYTES_MAX);
    while let Some(part) = left.front_mut() {
        let bytes = part.call_bytes(flats);
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
        let fitting = fitting(part, flats, events_left, bytes_left);
        let count = if call.is_empty() { fitting.max(1) } else { fitting };
        if count > 0 {
            call.push(Part { count, ..*part });
            part.first += count;
            part.count -= count;
        }
        if part.count == 0 {
            left.pop_front();
        }
        break;
    }
    call
}

/// How many of a part's first events fit into so many events and bytes.
fn fitting(part: &Part, flats: &[Flat], events_left: u32, bytes_left: usize) -> u32 {
    let mut bytes_left = bytes_left.saturating_sub(PART_HEADER_BYTES);
    let mut count = 0;
    for event in part.events(flats).take(events_left as usize) {
        match bytes_left.checked_sub(event.record().len()) {
            Some(rest) => bytes_left = rest,
            None => break,
        }
        count += 1;
    }
    count
}

/// Two halves of a call of at least two events.
pub(super) fn halve(parts: &[Part]) -> (Vec<Part>, Vec<Part>) {
    let mut room = count_of(parts) / 2;
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for part in parts {
        let count = part.count.min(room);
        room -= count;
        if count > 0 {
            left.push(Part { count, ..*part });
        }
        if count < part.count {
            right.push(Part { flat: part.flat, first: part.first + count, count: part.count - count });
        }
    }
    (left, right)
}

/// The bytes of a call: runs, as a delivery frame would carry them.
pub(super) fn call_runs(flats: &[Flat], parts: &[Part]) -> Bytes {
    let estimate = |part: &Part| PART_HEADER_BYTES + flats[part.flat].batch.bytes().len().min(CALL_BYTES_MAX);
    let mut out = BytesMut::with_capacity(parts.iter().map(estimate).sum());
    let mut open: Option<OpenRun> = None;
    for part in parts {
        let flat = &flats[part.flat];
        let base = match flat.batch.header().is_selection() {
            true => flat.base,
            false => flat.base.plus(u64::from(part.first)),
        };
        let mut run = match open.take() {
            Some(run) if run.next == base && run.append_time == flat.append_time && run.hops == flat.hops => {
                run
            }
            before => {
                before.into_iter().for_each(|run| run.close(&mut out));
                let start = out.len();
                out.put_bytes(0, RUN_HEADER_BYTES);
                OpenRun { start, base, next: base, append_time: flat.append_time, hops: flat.hops }
            }
        };
        let span = if part.is_whole(flats) {
            out.put_slice(flat.batch.bytes());
            flat.batch.span()
        } else {
            put_part(&mut out, flats, part)
        };
        run.next = base.plus(u64::from(span));
        open = Some(run);
    }
    open.into_iter().for_each(|run| run.close(&mut out));
    out.freeze()
}

/// A run whose batches are being written.
struct OpenRun {
    start: usize,
    base: Offset,
    next: Offset,
    append_time: Timestamp,
    hops: u8,
}

impl OpenRun {
    fn close(self, out: &mut BytesMut) {
        let len = out.len() - self.start - RUN_HEADER_BYTES;
        let len = u32::try_from(len).expect("a call is at most 256 KiB or one event");
        let header = RunHeader { base: self.base, append_time: self.append_time, len, hops: self.hops };
        out[self.start..self.start + RUN_HEADER_BYTES].copy_from_slice(&header.bytes());
    }
}

/// Writes neighbouring events of a batch as a batch of their own and answers its span.
///
/// The records are copied as they are: the earliest and latest time stay the whole batch's, as bounds, and only
/// the header's count, span, lengths, first sequence and checksum change. A plain batch's part begins at its first
/// event's offset, a selection's keeps the base that its deltas count from.
fn put_part(out: &mut BytesMut, flats: &[Flat], part: &Part) -> u32 {
    let batch = &flats[part.flat].batch;
    let header = batch.header();
    let before: usize = batch.events().take(part.first as usize).map(|event| event.record().len()).sum();
    let (mut len, mut span) = (0, part.count);
    for event in part.events(flats) {
        len += event.record().len();
        if header.is_selection() {
            span = event.offset_delta() + 1;
        }
    }
    let at = out.len();
    let body = BATCH_HEADER_BYTES + before;
    out.put_slice(&batch.bytes()[..BATCH_HEADER_BYTES]);
    out.put_slice(&batch.bytes()[body..body + len]);
    let body_len = u32::try_from(len).expect("a part of a body of at most 1 MiB");
    let part_bytes = &mut out[at..];
    for (field, value) in [(4, part.count), (8, span), (12, body_len), (16, body_len)] {
        part_bytes[field..field + 4].copy_from_slice(&value.to_le_bytes());
    }
    let first_sequence = header.first_sequence.wrapping_add(u64::from(part.first));
    part_bytes[48..56].copy_from_slice(&first_sequence.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&part_bytes[..20]), &part_bytes[24..]);
    part_bytes[20..24].copy_from_slice(&crc.to_le_bytes());
    span
}

/// A batch's events, fetched by an index that never goes back.
#[derive(Debug)]
pub(super) struct Forward<'a> {
    events: Events<'a>,
    /// The index of the next event to come out of `events`.
    at: u32,
    last: Option<EventRef<'a>>,
}

impl<'a> Forward<'a> {
    pub(super) fn new(batch: &'a Batch) -> Self {
        Self { events: batch.events(), at: 0, last: None }
    }

    /// The event at `index`, which is below the batch's count and not below the last one asked for.
    #[inline]
    pub(super) fn get(&mut self, index: u32) -> EventRef<'a> {
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
pub(super) struct Walker<'a> {
    flats: &'a [Flat],
    parts: &'a [Part],
    /// How many events of the first of `parts` were passed.
    used: u32,
    forward: Option<(usize, Forward<'a>)>,
}

/// Neighbouring events of one batch, reached by a walker.
pub(super) struct Chunk<'w, 'a> {
    pub(super) flat: &'a Flat,
    pub(super) first: u32,
    pub(super) count: u32,
    pub(super) forward: &'w mut Forward<'a>,
}

impl<'a> Walker<'a> {
    pub(super) fn new(flats: &'a [Flat], parts: &'a [Part]) -> Self {
        Self { flats, parts, used: 0, forward: None }
    }

    /// The next events of one batch, at most `most` and at least one; `None` after the last.
    pub(super) fn chunk(&mut self, most: u32) -> Option<Chunk<'_, 'a>> {
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
    pub(super) fn skip(&mut self, mut n: u32) {
        while n > 0
            && let Some(chunk) = self.chunk(n)
        {
            n -= chunk.count;
        }
    }
}
