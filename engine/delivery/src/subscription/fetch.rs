//! What to read, and what was read: the input of an assignment.
//!
//! It must not know consumers or events: only offsets, and how many bytes they take.

use std::ops::Range;

use levada_protocol::ids::{DeliveryToken, Offset, PartitionId};

use super::{
    consumer::{ConsumerId, Room},
    dead_letter::Reason,
};

/// Most bytes that one [`Fetch`] asks for.
pub const FETCH_BYTES_MAX: u64 = 512 * 1024;

/// A stretch of a partition to read and to run through the chain. It ends in [`super::Subscription::assign`] or
/// [`super::Subscription::abandon`]; until then the same is not asked for again, while other fetches may be under way.
#[derive(Debug)]
#[must_use = "its offsets are not sent until it is assigned or abandoned"]
pub struct Fetch {
    /// Names this fetch among those of the subscription.
    pub id: u64,
    /// The partition.
    pub partition: PartitionId,
    /// What may be sent of it now. Less may be read, from the first offset on.
    pub range: Range<Offset>,
    /// Bytes of frame payload that consumers have room for together, or the most there are if it is read for keys.
    pub bytes_max: u64,
    /// Who gets what depends on keys: [`Fetched::keys`] must be there.
    pub needs_keys: bool,
    /// It was delivered before.
    pub(super) again: bool,
}

/// What a fetch brought: everything from its first offset up to `reached` is in a chunk, filtered or failed.
#[derive(Debug, Clone, Copy)]
pub struct Fetched<'a> {
    /// Behind the last offset that is decided.
    pub reached: Offset,
    /// Stretches that are sent whole or cut, ascending.
    pub chunks: &'a [Chunk],
    /// Offsets without an event: the chain dropped it or the log does not hold it. Ascending and disjoint. They count as
    /// acknowledged.
    pub filtered: &'a [Range<Offset>],
    /// Offsets that the chain failed on or whose time to live is over, and that become dead letters where the options say
    /// so; ascending, disjoint from `filtered`.
    pub failed: &'a [Failed],
    /// The stored events from the first offset on up to `reached` with their keys, ascending; `None` unless
    /// [`Fetch::needs_keys`]. Filtered and failed ones may be missing: one that is in flight all the same has no order then.
    pub keys: Option<&'a [EventKey]>,
}

/// An event and its key. Keys are compared by their hashes: two that share one may wait for each other, and are never
/// reordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventKey {
    /// The event's offset.
    pub offset: Offset,
    /// XXH3-64 of the key as it is stored, whatever a chain makes of it; `None` without a key, for an event that has no
    /// order. An empty key is a key.
    pub key: Option<u64>,
}

/// Neighbouring events that are cheap to send together, such as those of one stored record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// From its first offset to behind its last. Every offset that is neither filtered nor failed holds an event.
    pub range: Range<Offset>,
    /// Bytes of frame payload that all of it takes.
    pub bytes: u64,
}

/// Offsets that are not delivered, for a reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// The first offset.
    pub first: Offset,
    /// The last offset, included.
    pub last: Offset,
    /// Why.
    pub reason: Reason,
}

/// What became of what was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Assigned {
    /// Everything below is assigned, filtered or dead; the rest is to be fetched again.
    pub until: Offset,
    /// Who gets what, in order.
    pub assignments: Vec<Assignment>,
}

/// A delivery that is in flight from now on. Send it and call [`super::Subscription::sent`], or
/// [`super::Subscription::recall`] it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Who gets it.
    pub consumer: ConsumerId,
    /// The partition.
    pub partition: PartitionId,
    /// Ascending and disjoint; all events in them are part of it.
    pub offsets: Vec<Range<Offset>>,
    /// What verbs about it must carry.
    pub token: DeliveryToken,
    /// Which attempt it is, from 1; deliveries that counted no attempt do not raise it.
    pub attempt: u16,
    /// How many events.
    pub events: u64,
}

/// How many bytes of a consumer's stream an assignment asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// What the smallest delivery takes, about.
    pub least: u64,
    /// What the consumer's credit allows.
    pub most: u64,
}

/// A delivery cut from what was fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) end: u64,
    pub(super) events: u64,
    /// Exact where chunks are whole, by the share of events where one is cut.
    pub(super) bytes: u64,
}

/// What was fetched, for cutting: chunks, and the offsets in them that hold no event to send.
#[derive(Debug)]
pub(super) struct Contents<'a> {
    fetched: Fetched<'a>,
    /// Filtered and failed offsets, ascending.
    holes: Vec<Range<u64>>,
}

impl<'a> Contents<'a> {
    pub(super) fn new(fetched: Fetched<'a>) -> Self {
        let filtered = fetched.filtered.iter().map(|range| range.start.0..range.end.0);
        let failed = fetched.failed.iter().map(|it| it.first.0..it.last.0.saturating_add(1));
        let mut holes: Vec<Range<u64>> = filtered.chain(failed).collect();
        holes.sort_unstable_by_key(|range| range.start);
        Self { fetched, holes }
    }

    /// The filtered parts of a range.
    pub(super) fn filtered(&self, range: &Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let from = self.fetched.filtered.partition_point(|it| it.end.0 <= range.start);
        let range = range.clone();
        let overlapping = self.fetched.filtered[from..].iter().map(|it| it.start.0..it.end.0);
        let end = range.end;
        overlapping.take_while(move |it| it.start < end).map(move |it| cut(&it, &range))
    }

    /// The failed parts of a range, with why.
    pub(super) fn failed(&self, range: &Range<u64>) -> impl Iterator<Item = (Range<u64>, &'a Reason)> {
        let from = self.fetched.failed.partition_point(|it| it.last.0 < range.start);
        let range = range.clone();
        let end = range.end;
        let overlapping = self.fetched.failed[from..].iter().take_while(move |it| it.first.0 < end);
        overlapping.map(move |it| (cut(&(it.first.0..it.last.0.saturating_add(1)), &range), &it.reason))
    }

    /// For a look at events one by one.
    pub(super) fn walk(&'a self) -> Walk<'a> {
        Walk { contents: self, hole: 0, key: 0, chunk: 0, bytes: None }
    }

    /// How many events a range holds.
    pub(super) fn events_in(&self, range: &Range<u64>) -> u64 {
        let holes: u64 = self.holes_in(range).map(|hole| hole.end - hole.start).sum();
        range.end.saturating_sub(range.start) - holes
    }

    /// Cuts a delivery from the front of a range that holds an event: at least one event, as many as there is room for, and
    /// no further chunk once its bytes would exceed the room.
    pub(super) fn cut(&self, range: &Range<u64>, room: Room) -> Cut {
        let chunks = self.fetched.chunks;
        let from = chunks.partition_point(|chunk| chunk.range.end.0 <= range.start);
        let mut cut = Cut { end: range.start, events: 0, bytes: 0 };
        for chunk in &chunks[from..] {
            let whole = chunk.range.start.0..chunk.range.end.0;
            let part = whole.start.max(range.start)..whole.end.min(range.end);
            if part.is_empty() {
                break;
            }
            let inside = self.events_in(&part);
            if inside == 0 {
                continue;
            }
            let events = inside.min(room.events - cut.events);
            let end = if events == inside { part.end } else { self.end_of(&part, events) };
            let bytes = self.bytes_of(chunk, &whole, &(part.start..end), events);
            if cut.events > 0 && cut.bytes.saturating_add(bytes) > room.bytes {
                break;
            }
            let (events, bytes) = (cut.events + events, cut.bytes.saturating_add(bytes));
            cut = Cut { end, events, bytes };
            if events == room.events {
                break;
            }
        }
        if self.events_in(&(cut.end..range.end)) == 0 {
            cut.end = range.end;
        }
        cut
    }

    /// Behind the `events`th event of a range that holds more.
    fn end_of(&self, range: &Range<u64>, events: u64) -> u64 {
        let mut end = range.start + events;
        for hole in self.holes_in(range) {
            if hole.start >= end {
                break;
            }
            end += hole.end - hole.start;
        }
        end
    }

    fn bytes_of(&self, chunk: &Chunk, whole: &Range<u64>, part: &Range<u64>, events: u64) -> u64 {
        if part == whole {
            return chunk.bytes;
        }
        let all = u128::from(self.events_in(whole).max(1));
        let share = u128::from(chunk.bytes) * u128::from(events) / all;
        u64::try_from(share).unwrap_or(u64::MAX)
    }

    fn holes_in(&self, range: &Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let from = self.holes.partition_point(|hole| hole.end <= range.start);
        let range = range.clone();
        let end = range.end;
        let overlapping = self.holes[from..].iter().take_while(move |hole| hole.start < end);
        overlapping.map(move |hole| cut(hole, &range))
    }
}

/// A look at the events of what was fetched, each behind the one before: no search for what follows.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    contents: &'a Contents<'a>,
    hole: usize,
    key: usize,
    chunk: usize,
    /// Bytes of each event of the chunk, by its share.
    bytes: Option<u64>,
}

impl Walk<'_> {
    /// The offsets without an event to send that `offset` is one of.
    pub(super) fn hole_at(&mut self, offset: u64) -> Option<&Range<u64>> {
        let holes = &self.contents.holes;
        self.hole = advance(holes, self.hole, |hole| hole.end <= offset);
        holes.get(self.hole).filter(|hole| hole.start <= offset)
    }

    /// The key of an event; `None` if it has none.
    pub(super) fn key_of(&mut self, offset: u64) -> Option<u64> {
        let keys = self.contents.fetched.keys.unwrap_or_default();
        self.key = advance(keys, self.key, |it| it.offset.0 < offset);
        keys.get(self.key).filter(|it| it.offset.0 == offset)?.key
    }

    /// Bytes of one event, by its share of its chunk.
    pub(super) fn bytes_of(&mut self, offset: u64) -> u64 {
        let chunks = self.contents.fetched.chunks;
        let at = advance(chunks, self.chunk, |chunk| chunk.range.end.0 <= offset);
        if at != self.chunk {
            (self.chunk, self.bytes) = (at, None);
        }
        *self.bytes.get_or_insert_with(|| {
            chunks.get(at).map_or(0, |chunk| {
                let whole = chunk.range.start.0..chunk.range.end.0;
                self.contents.bytes_of(chunk, &whole, &(offset..offset + 1), 1)
            })
        })
    }
}

/// The first place from `from` on that is not passed; mostly it is this one or the next.
fn advance<T>(list: &[T], from: usize, is_passed: impl Fn(&T) -> bool) -> usize {
    match &list[from..] {
        [here, ..] if !is_passed(here) => from,
        [] => from,
        [_, next, ..] if !is_passed(next) => from + 1,
        rest => from + rest.partition_point(is_passed),
    }
}

fn cut(range: &Range<u64>, within: &Range<u64>) -> Range<u64> {
    let start = range.start.clamp(within.start, within.end);
    start..range.end.clamp(start, within.end)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn offsets(range: Range<u64>) -> Range<Offset> {
        Offset(range.start)..Offset(range.end)
    }

    proptest! {
        #[test]
        fn a_cut_takes_events_from_the_front_as_far_as_there_is_room(
            lens in vec(1u64..8, 1..8),
            holes in vec(0u64..60, 0..20),
            start in 0u64..10,
            most in 1u64..20,
            bytes in 0u64..400,
        ) {
            let mut at = 0;
            let chunks: Vec<Chunk> = lens
                .iter()
                .map(|len| {
                    at += len;
                    Chunk { range: offsets(at - len..at), bytes: len * 10 }
                })
                .collect();
            let range = start.min(at - 1)..at;
            let mut holes: Vec<u64> = holes.into_iter().filter(|hole| *hole < at).collect();
            holes.sort_unstable();
            holes.dedup();
            let filtered: Vec<_> = holes.iter().map(|hole| offsets(*hole..hole + 1)).collect();
            let fetched = Fetched { reached: Offset(at), chunks: &chunks, filtered: &filtered, failed: &[], keys: None };
            let contents = Contents::new(fetched);
            let events: Vec<u64> = range.clone().filter(|offset| !holes.contains(offset)).collect();
            prop_assert_eq!(contents.events_in(&range), events.len() as u64);
            prop_assume!(!events.is_empty());
            let cut = contents.cut(&range, Room { events: most, bytes });
            let taken: Vec<u64> = events.iter().copied().filter(|offset| *offset < cut.end).collect();
            prop_assert_eq!(cut.events, taken.len() as u64);
            prop_assert!(cut.events >= 1 && cut.events <= most);
            let whole = cut.events == events.len() as u64;
            prop_assert_eq!(cut.end == range.end, whole);
            // It stopped because events or bytes were used up.
            let next = events.get(taken.len()).map(|next| chunks.iter().find(|it| it.range.end.0 > *next).unwrap());
            prop_assert!(
                whole || cut.events == most || cut.bytes + next.unwrap().bytes > bytes,
                "{:?} of {:?}", cut, events
            );
        }
    }
}
