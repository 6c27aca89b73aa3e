//! Batches on their way through a chain, and how their events are divided into calls.
//!
//! Must not know answers or policies.

use std::{collections::VecDeque, ops::Range};

use levada_protocol::{
    batch::{BATCH_HEADER_BYTES, Batch},
    deliver::RUN_HEADER_BYTES,
    ids::Timestamp,
    limits::CALL_BYTES_MAX,
};

use crate::position::Position;

/// A batch on its way through a chain.
#[derive(Debug, Clone)]
pub(crate) struct ChainBatch {
    /// The position that its events count from.
    pub(crate) base: Position,
    pub(crate) append_time: Timestamp,
    pub(crate) hops: u8,
    pub(crate) batch: Batch,
    /// Which source its bytes are a part of, and from which byte of that source's batches; `None` if a stage's output
    /// was built into it.
    pub(crate) stored: Option<(usize, usize)>,
    /// A stage may have changed the key of an event.
    pub(crate) rekeyed: bool,
}

impl ChainBatch {
    /// The position after the last one that it covers.
    pub(crate) fn end(&self) -> Position {
        self.base.plus(u64::from(self.batch.span()))
    }

    /// The position of the event at `index`, or the end of the batch if it has fewer events.
    pub(crate) fn position_at(&self, index: u32) -> Position {
        if index >= self.batch.count() {
            self.end()
        } else if self.batch.header().is_selection() {
            let event = self.batch.events().nth(index as usize);
            event.map_or_else(|| self.end(), |event| self.base.plus(event.offset_delta().into()))
        } else {
            self.base.plus(u64::from(index))
        }
    }

    /// How many of its events are before `position`.
    fn index_of(&self, position: Position) -> u32 {
        if position >= self.end() {
            return self.batch.count();
        }
        let Some(delta) = position.0.checked_sub(self.base.0) else { return 0 };
        let before = if self.batch.header().is_selection() {
            self.batch.events().take_while(|event| u64::from(event.offset_delta()) < delta).count() as u64
        } else {
            delta
        };
        u32::try_from(before).unwrap_or(u32::MAX).min(self.batch.count())
    }
}

/// Neighbouring events of one batch of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EventRange {
    /// The batch's index in the list.
    pub(crate) batch: usize,
    /// The first event's index in it.
    pub(crate) first: u32,
    /// How many events, at least 1.
    pub(crate) count: u32,
    /// Where the first event's record begins in the batch's body.
    pub(crate) start: usize,
    /// How many bytes the records take.
    pub(crate) len: usize,
}

impl EventRange {
    fn whole(index: usize, of: &ChainBatch) -> Self {
        let header = of.batch.header();
        Self { batch: index, first: 0, count: header.count, start: 0, len: header.body_len as usize }
    }

    /// Its first events, at most `events_max` and `bytes_max` of them, and the others. Either may be empty.
    fn split(&self, batches: &[ChainBatch], events_max: u32, bytes_max: usize) -> (Self, Self) {
        let body = &batches[self.batch].batch.bytes()[BATCH_HEADER_BYTES..];
        let body = &body[self.start..self.start + self.len];
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

    /// The position of its first event.
    pub(crate) fn first_position(&self, batches: &[ChainBatch]) -> Position {
        batches[self.batch].position_at(self.first)
    }

    /// The position of the event after its last one.
    pub(crate) fn end_position(&self, batches: &[ChainBatch]) -> Position {
        batches[self.batch].position_at(self.first + self.count)
    }

    pub(crate) fn is_whole(&self, batches: &[ChainBatch]) -> bool {
        self.count == batches[self.batch].batch.count()
    }

    /// Most bytes that it takes of a call.
    pub(crate) fn call_bytes(&self) -> usize {
        RANGE_HEADER_BYTES + self.len
    }
}

const RANGE_HEADER_BYTES: usize = RUN_HEADER_BYTES + BATCH_HEADER_BYTES;

/// Events of one call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallEvents<'e> {
    pub(crate) batches: &'e [ChainBatch],
    /// The events, ascending.
    pub(crate) ranges: &'e [EventRange],
}

impl CallEvents<'_> {
    pub(crate) fn count(&self) -> u32 {
        count_of(self.ranges)
    }

    /// The position of the first event; 0 if there is none.
    pub(crate) fn first_position(&self) -> Position {
        self.ranges.first().map(|range| range.first_position(self.batches)).unwrap_or_default()
    }
}

/// How many events there are in `ranges`.
pub(crate) fn count_of(ranges: &[EventRange]) -> u32 {
    ranges.iter().map(|range| range.count).sum()
}

/// The events of `batches` in `positions`.
pub(crate) fn ranges_within(batches: &[ChainBatch], positions: &Range<Position>) -> VecDeque<EventRange> {
    let mut ranges = VecDeque::with_capacity(batches.len());
    for (index, of) in batches.iter().enumerate() {
        let first = of.index_of(positions.start);
        let end = of.index_of(positions.end);
        if (first, end) == (0, of.batch.count()) {
            ranges.push_back(EventRange::whole(index, of));
        } else if first < end {
            let (_, from) = EventRange::whole(index, of).split(batches, first, usize::MAX);
            ranges.push_back(from.split(batches, end - first, usize::MAX).0);
        }
    }
    ranges
}

/// The events of `ranges` before `position`.
pub(crate) fn ranges_before(
    batches: &[ChainBatch],
    ranges: &[EventRange],
    position: Position,
) -> Vec<EventRange> {
    let mut before = Vec::with_capacity(ranges.len());
    for range in ranges {
        let count = batches[range.batch].index_of(position).saturating_sub(range.first);
        let (first, rest) = range.split(batches, count, usize::MAX);
        before.extend((first.count > 0).then_some(first));
        if rest.count > 0 {
            break;
        }
    }
    before
}

/// All events of `batches`.
pub(crate) fn ranges_of(batches: &[ChainBatch]) -> VecDeque<EventRange> {
    batches.iter().enumerate().map(|(index, of)| EventRange::whole(index, of)).collect()
}

/// Takes the next call from the front of `left`: at most `events_max` events and 256 KiB, or one larger event.
///
/// A batch is cut only if it is larger than a call, or if the call would be less than half full without it.
pub(crate) fn take_call(
    left: &mut VecDeque<EventRange>,
    batches: &[ChainBatch],
    events_max: u32,
) -> Vec<EventRange> {
    let mut call = Vec::new();
    let (mut events_left, mut bytes_left) = (events_max, CALL_BYTES_MAX);
    while let Some(range) = left.front_mut() {
        let bytes = range.call_bytes();
        if range.count <= events_left && bytes <= bytes_left {
            events_left -= range.count;
            bytes_left -= bytes;
            call.push(*range);
            left.pop_front();
            continue;
        }
        let fits_alone = range.count <= events_max && bytes <= CALL_BYTES_MAX;
        let half_full = events_left < events_max / 2 || bytes_left < CALL_BYTES_MAX / 2;
        if fits_alone && half_full {
            break;
        }
        let (mut first, mut rest) =
            range.split(batches, events_left, bytes_left.saturating_sub(RANGE_HEADER_BYTES));
        if first.count == 0 && call.is_empty() {
            (first, rest) = range.split(batches, 1, usize::MAX);
        }
        if first.count > 0 {
            call.push(first);
        }
        match rest.count {
            0 => drop(left.pop_front()),
            _ => *range = rest,
        }
        break;
    }
    call
}

/// Two halves of a call of at least two events.
pub(crate) fn halve(batches: &[ChainBatch], ranges: &[EventRange]) -> (Vec<EventRange>, Vec<EventRange>) {
    let mut room = count_of(ranges) / 2;
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for range in ranges {
        let (first, rest) = range.split(batches, room, usize::MAX);
        room -= first.count;
        left.extend((first.count > 0).then_some(first));
        right.extend((rest.count > 0).then_some(rest));
    }
    (left, right)
}

#[cfg(test)]
mod tests {
    use levada_protocol::{
        batch::{BatchBuilder, EventParts, Stamp},
        event::Event,
    };

    use super::*;

    fn of(base: u64, batch: Batch) -> ChainBatch {
        let (base, append_time) = (Position(base), Timestamp(1));
        ChainBatch { base, append_time, hops: 0, batch, stored: None, rekeyed: false }
    }

    fn plain(base: u64, count: u32) -> ChainBatch {
        let mut builder = BatchBuilder::new();
        (0..count).for_each(|_| builder.push(&Event::new("x")).unwrap());
        of(base, builder.finish(Stamp::ENGINE))
    }

    fn selection(base: u64, deltas: &[u32]) -> ChainBatch {
        let mut builder = BatchBuilder::selection();
        for delta in deltas {
            builder.push_parts(*delta, &EventParts::default(), std::iter::empty()).unwrap();
        }
        of(base, builder.finish(Stamp::ENGINE))
    }

    fn positions(batches: &[ChainBatch], ranges: &[EventRange]) -> Vec<u64> {
        let of = |range: &EventRange| {
            let batch = &batches[range.batch];
            (range.first..range.first + range.count)
                .map(|index| batch.position_at(index).0)
                .collect::<Vec<_>>()
        };
        ranges.iter().flat_map(of).collect()
    }

    #[test]
    fn what_is_before_a_position_ends_there_in_plain_batches_and_selections() {
        let batches = [plain(0, 5), selection(5, &[0, 3, 4, 9])];
        let all: Vec<_> = ranges_of(&batches).into();
        let held = [0, 1, 2, 3, 4, 5, 8, 9, 14];
        assert_eq!(positions(&batches, &all), held);
        for cut in 0..16 {
            let before = ranges_before(&batches, &all, Position(cut));
            let expected: Vec<u64> = held.into_iter().filter(|position| *position < cut).collect();
            assert_eq!(positions(&batches, &before), expected, "before {cut}");
            let within: Vec<_> = ranges_within(&batches, &(Position(0)..Position(cut))).into();
            assert_eq!(before, within);
        }
    }

    #[test]
    fn halves_are_all_of_it_in_order() {
        let batches = [plain(0, 4), selection(4, &[0, 2, 5])];
        let (left, right) = halve(&batches, &Vec::from(ranges_of(&batches)));
        assert_eq!(positions(&batches, &left), [0, 1, 2]);
        assert_eq!(positions(&batches, &right), [3, 4, 6, 9]);
    }
}
