//! When the time to live of events ends.
//!
//! It must not know what becomes of an event then.

use std::ops::Range;

use levada_protocol::ids::{Offset, Timestamp};

use crate::{
    error::Error,
    frames::{LogSlice, SliceBatches},
};

/// The events with a time to live in one stretch of a partition. It takes no memory where there are none.
#[derive(Debug, Default)]
pub(super) struct Lifetimes(Option<Box<Ends>>);

#[derive(Debug, Default)]
struct Ends {
    /// Events that live, each with its end, ascending by offset.
    ends: Vec<(Offset, Timestamp)>,
    /// The first end; nothing has ended before.
    first: Option<Timestamp>,
    /// Those whose time is over, as ascending and disjoint ranges.
    ended: Vec<Range<Offset>>,
}

impl Lifetimes {
    /// The lifetimes of the events from an offset on.
    ///
    /// # Errors
    /// If a batch is damaged.
    pub(super) fn of(pieces: &[LogSlice], from: Offset) -> Result<Self, Error> {
        let mut ends = Vec::new();
        for piece in pieces.iter().filter(|piece| piece.has_ttls) {
            for batch in SliceBatches::new(&piece.run, false) {
                let (base, batch) = batch?;
                let events = batch.events().filter(|event| event.offset(base) >= from);
                let end = |ttl_ms: u32| Timestamp(piece.run.append_time.0.saturating_add(u64::from(ttl_ms)));
                ends.extend(events.filter_map(|it| Some((it.offset(base), end(it.ttl_ms()?)))));
            }
        }
        if ends.is_empty() {
            return Ok(Self::default());
        }
        let mut ends = Ends { ends, ..Ends::default() };
        ends.find_first();
        Ok(Self(Some(Box::new(ends))))
    }

    /// Adds those of a stretch that follows.
    pub(super) fn append(&mut self, more: Self) {
        let Some(more) = more.0 else { return };
        let Some(ends) = &mut self.0 else {
            self.0 = Some(more);
            return;
        };
        ends.first = ends.first.into_iter().chain(more.first).min();
        ends.ends.extend(more.ends);
        ends.ended.extend(more.ended);
    }

    /// Ends what is over `now`; returns that, as ascending and disjoint ranges.
    pub(super) fn end(&mut self, now: Timestamp) -> Vec<Range<Offset>> {
        let Some(ends) = &mut self.0 else { return Vec::new() };
        let ended = ends.take_ended(now);
        if !ended.is_empty() {
            self.add_ended(ended.clone());
        }
        ended
    }

    /// Adds events whose time was over before, as ascending and disjoint ranges.
    pub(super) fn add_ended(&mut self, ended: Vec<Range<Offset>>) {
        if !ended.is_empty() {
            let ends = self.0.get_or_insert_default();
            ends.ended.extend(ended);
            ends.ended.sort_unstable_by_key(|range| range.start);
        }
    }

    /// Everything whose time is over, as ascending and disjoint ranges.
    pub(super) fn ended(&self) -> &[Range<Offset>] {
        self.0.as_ref().map_or(&[], |ends| &ends.ended)
    }

    /// Numbers the events otherwise, in the same order.
    pub(super) fn renumber(&mut self, renumber: impl Fn(&mut Offset)) {
        let Some(ends) = &mut self.0 else { return };
        ends.ends.iter_mut().for_each(|(offset, _)| renumber(offset));
        ends.ended.iter_mut().for_each(|range| {
            renumber(&mut range.start);
            renumber(&mut range.end);
        });
    }

    /// Bytes that it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |ends| size_of_val(&ends.ends[..]) + size_of_val(&ends.ended[..]))
    }
}

impl Ends {
    fn take_ended(&mut self, now: Timestamp) -> Vec<Range<Offset>> {
        let mut ended: Vec<Range<Offset>> = Vec::new();
        if self.first.is_none_or(|first| now < first) {
            return ended;
        }
        self.ends.retain(|(offset, end)| {
            if now < *end {
                return true;
            }
            match ended.last_mut() {
                Some(last) if last.end == *offset => last.end = offset.plus(1),
                _ => ended.push(*offset..offset.plus(1)),
            }
            false
        });
        self.find_first();
        ended
    }

    fn find_first(&mut self) {
        self.first = self.ends.iter().map(|(_, end)| *end).min();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subscription::slices::tests::{piece, piece_with_ttls};

    fn numbers(ranges: &[Range<Offset>]) -> Vec<(u64, u64)> {
        ranges.iter().map(|it| (it.start.0, it.end.0)).collect()
    }

    #[test]
    fn events_end_when_their_time_is_over_and_others_never() {
        let pieces = [
            piece_with_ttls(&[(2, 1), (3, 50), (4, 0), (5, 50), (6, 40)]),
            piece(&[7]),
            piece_with_ttls(&[(8, 70)]),
        ];
        let mut lifetimes = Lifetimes::of(&pieces, Offset(3)).unwrap();
        let mut ended = |now| numbers(&lifetimes.end(Timestamp(now)));
        assert_eq!(ended(39), [], "what lies before the stretch does not count");
        assert_eq!(ended(50), [(3, 4), (5, 7)], "neighbours are one range");
        assert_eq!(ended(69), []);
        assert_eq!(ended(1_000), [(8, 9)]);
        assert_eq!(ended(2_000), [], "each ends once");
        assert_eq!(numbers(lifetimes.ended()), [(3, 4), (5, 7), (8, 9)]);
        lifetimes.renumber(|offset| offset.0 -= 3);
        assert_eq!(numbers(lifetimes.ended()), [(0, 1), (2, 4), (5, 6)]);
    }

    #[test]
    fn without_a_time_to_live_it_takes_no_memory() {
        let mut lifetimes = Lifetimes::of(&[piece(&[1, 2])], Offset(0)).unwrap();
        lifetimes.append(Lifetimes::default());
        assert_eq!((lifetimes.0.is_none(), lifetimes.bytes()), (true, 0));
        assert_eq!((lifetimes.end(Timestamp(u64::MAX)), lifetimes.ended()), (vec![], &[][..]));
        lifetimes.append(Lifetimes::of(&[piece_with_ttls(&[(3, 9)])], Offset(3)).unwrap());
        assert_eq!((numbers(&lifetimes.end(Timestamp(9))), lifetimes.bytes()), (vec![(3, 4)], 16));
    }
}
