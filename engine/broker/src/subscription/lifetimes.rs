//! When the time to live of events ends.
//!
//! It must not know what becomes of an event then.

use std::ops::Range;

use levada_protocol::ids::{Offset, Timestamp};

use crate::{
    error::Error,
    frames::{LogSlice, SliceBatches},
};

/// The events with a time to live in one stretch of a partition. It costs nothing where there are none.
#[derive(Debug, Default)]
pub(super) struct Lifetimes {
    /// Each with its end, ascending by offset.
    ends: Vec<(Offset, Timestamp)>,
    /// The first end; nothing has ended before.
    first: Option<Timestamp>,
}

impl Lifetimes {
    /// The lifetimes of the events from an offset on.
    ///
    /// # Errors
    /// If a batch is damaged.
    pub(super) fn of(pieces: &[LogSlice], from: Offset) -> Result<Self, Error> {
        let mut lifetimes = Self::default();
        for piece in pieces.iter().filter(|piece| piece.has_ttls) {
            for batch in SliceBatches::new(&piece.run, false) {
                let (base, batch) = batch?;
                let events = batch.events().filter(|event| event.offset(base) >= from);
                let end = |ttl_ms: u32| Timestamp(piece.run.append_time.0.saturating_add(u64::from(ttl_ms)));
                lifetimes.ends.extend(events.filter_map(|it| Some((it.offset(base), end(it.ttl_ms()?)))));
            }
        }
        lifetimes.find_first();
        Ok(lifetimes)
    }

    /// Adds those of a stretch that follows.
    pub(super) fn append(&mut self, more: Self) {
        self.ends.extend(more.ends);
        self.first = self.first.into_iter().chain(more.first).min();
    }

    /// Takes out the events whose time is over, as ascending and disjoint ranges.
    pub(super) fn take_ended(&mut self, now: Timestamp) -> Vec<Range<Offset>> {
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

    /// The offsets of the events, for whoever numbers them otherwise, in the same order.
    pub(super) fn offsets_mut(&mut self) -> impl Iterator<Item = &mut Offset> {
        self.ends.iter_mut().map(|(offset, _)| offset)
    }

    /// Bytes that it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.ends[..])
    }

    fn find_first(&mut self) {
        self.first = self.ends.iter().map(|(_, end)| *end).min();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subscription::slices::tests::{piece, piece_with_ttls};

    #[test]
    fn events_end_when_their_time_is_over_and_others_never() {
        let pieces = [
            piece_with_ttls(&[(2, 1), (3, 50), (4, 0), (5, 50), (6, 40)]),
            piece(&[7]),
            piece_with_ttls(&[(8, 70)]),
        ];
        let mut lifetimes = Lifetimes::of(&pieces, Offset(3)).unwrap();
        let mut ended = |now| {
            let ranges = lifetimes.take_ended(Timestamp(now));
            (ranges.iter().map(|it| it.start.0..it.end.0).collect::<Vec<_>>(), lifetimes.bytes())
        };
        assert_eq!(ended(39), (vec![], 4 * 16), "what lies before the stretch does not count");
        assert_eq!(ended(50), (vec![3..4, 5..7], 16), "neighbours are one range");
        assert_eq!(ended(69), (vec![], 16));
        assert_eq!(ended(1_000), (vec![8..9], 0), "each ends once");
        assert_eq!(ended(2_000), (vec![], 0));
    }
}
