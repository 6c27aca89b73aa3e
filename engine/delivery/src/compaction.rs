//! Which events of a log survive compaction, and when it is worth its reads: the decisions alone.
//!
//! It must not know where events lie nor how they are rewritten. Keys are hashes of 128 bits, which tell apart all keys
//! that are not made to collide.

use std::collections::HashMap;

use levada_protocol::ids::{Offset, Timestamp};

/// An event, as far as compaction looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its offset.
    pub offset: Offset,
    /// A hash of its key; `None` if it has none.
    pub key: Option<u128>,
    /// True if it has no payload.
    pub is_tombstone: bool,
}

/// The last event of each key in a stretch of a log.
#[derive(Debug, Default)]
pub struct Latest {
    /// Two halves of a hash, which need no more than 8 bytes' alignment: an entry has 24 bytes.
    offsets: HashMap<[u64; 2], Offset>,
}

impl Latest {
    /// With room for so many keys, which is reserved once.
    pub fn with_capacity(keys: usize) -> Self {
        Self { offsets: HashMap::with_capacity(keys) }
    }

    /// Takes note of an event; those of a key must come in the order of their offsets.
    pub fn note(&mut self, key: u128, offset: Offset) {
        self.offsets.insert(halves(key), offset);
    }

    /// How many keys there are.
    pub fn keys(&self) -> usize {
        self.offsets.len()
    }

    /// True if an event stays: no later one of its key was noted, and it is no tombstone from before `tombstones_until`.
    pub fn keeps(&self, event: &Candidate, tombstones_until: Offset) -> bool {
        let Some(key) = event.key else { return true };
        let is_last = self.offsets.get(&halves(key)).is_none_or(|last| *last <= event.offset);
        is_last && !(event.is_tombstone && event.offset < tombstones_until)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "both halves are taken")]
fn halves(key: u128) -> [u64; 2] {
    [(key >> 64) as u64, key as u64]
}

/// How far a pass came, and when it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reached {
    /// The offset up to which each key had one event at most.
    pub until: Offset,
    /// When the pass ended.
    pub at: Timestamp,
}

impl Reached {
    fn is_ago(&self, time_ms: u64, now: Timestamp) -> bool {
        now.0.saturating_sub(self.at.0) >= time_ms
    }
}

/// The passes over a log, as far as tombstones need them.
///
/// A tombstone goes when the pass that took away what it deletes ended long enough ago: whoever read that before has had as
/// long to come to the tombstone. However often passes follow each other, one that is old enough is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Passes {
    /// The last one.
    pub last: Reached,
    /// That one, or an earlier one.
    pub earlier: Reached,
}

impl Passes {
    /// The offset before which tombstones may go at `now`, if they stay for so long.
    pub fn tombstones_until(&self, tombstones_for_ms: u64, now: Timestamp) -> Offset {
        let passes = [self.last, self.earlier].into_iter();
        let old = passes.filter(|pass| pass.is_ago(tombstones_for_ms, now)).map(|pass| pass.until);
        old.max().unwrap_or_default()
    }

    /// With another pass, which took what goes at its end.
    pub fn with(&self, last: Reached, tombstones_for_ms: u64) -> Self {
        let is_used = self.earlier.is_ago(tombstones_for_ms, last.at);
        // One from the future was noted by a clock that was set back since.
        let earlier = if is_used || self.earlier.at > last.at { last } else { self.earlier };
        Self { last, earlier }
    }
}

/// Where a segment of the log begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    /// Its first offset.
    pub base: Offset,
    /// When its first event counts as appended: those before it are no younger.
    pub append_time: Timestamp,
    /// Bytes appended to the log before it.
    pub bytes_before: u64,
}

/// How far a log may be compacted: up to the last of the edges that everybody has passed, if all before it is old enough.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    lowest: Option<Offset>,
    before: Timestamp,
    found: Option<Edge>,
}

impl Bound {
    /// `floors` are the oldest unacknowledged offsets of all durable subscriptions and routes; what is compacted is from
    /// `before` or older.
    pub fn new(floors: impl IntoIterator<Item = Offset>, before: Timestamp) -> Self {
        Self { lowest: floors.into_iter().min(), before, found: None }
    }

    /// Looks at where the next segment begins: they come in order.
    pub fn see(&mut self, edge: Edge) {
        let is_passed = self.lowest.is_none_or(|floor| edge.base <= floor);
        if edge.append_time <= self.before && is_passed {
            self.found = Some(edge);
        }
    }

    /// The bound; `None` if no edge was one.
    pub fn found(&self) -> Option<Edge> {
        self.found
    }
}

/// True if so many bytes that were never compacted are worth a pass over all, given how many are that were. A pass reads the
/// former twice and the latter once: with as many as these, at most three bytes for each that was appended.
pub fn is_worth(dirty_bytes: u64, clean_bytes: u64) -> bool {
    dirty_bytes > 0 && dirty_bytes >= clean_bytes
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn event(offset: u64, key: Option<u128>) -> Candidate {
        Candidate { offset: Offset(offset), key, is_tombstone: false }
    }

    #[test]
    fn the_last_event_of_a_key_stays_and_what_has_no_key_does_too() {
        let mut latest = Latest::with_capacity(2);
        latest.note(1, Offset(5));
        latest.note(2, Offset(6));
        latest.note(1, Offset(9));
        assert_eq!(latest.keys(), 2);
        let keeps = |event| latest.keeps(&event, Offset(0));
        assert!(!keeps(event(5, Some(1))) && !keeps(event(3, Some(2))), "a later one was noted");
        assert!(keeps(event(9, Some(1))) && keeps(event(6, Some(2))));
        assert!(keeps(event(3, Some(7))), "nothing later was noted of its key");
        assert!(keeps(event(3, None)));
    }

    #[test]
    fn a_tombstone_stays_behind_where_tombstones_go() {
        let latest = Latest::default();
        let tombstone = Candidate { is_tombstone: true, ..event(3, Some(1)) };
        assert!(latest.keeps(&tombstone, Offset(3)));
        assert!(!latest.keeps(&tombstone, Offset(4)));
        assert!(latest.keeps(&event(3, Some(1)), Offset(4)), "it has a payload");
        assert!(latest.keeps(&Candidate { key: None, ..tombstone }, Offset(4)), "it deletes nothing");
    }

    #[test]
    fn a_table_takes_as_many_bytes_as_is_said() {
        assert_eq!(size_of::<([u64; 2], Offset)>(), 24);
        // A table of 2^20 places, each with a byte of its own.
        let most = (1 << 20) / 8 * 7;
        assert_eq!(Latest::with_capacity(most).offsets.capacity(), most);
    }

    #[test]
    fn tombstones_go_where_an_old_pass_had_come_however_often_passes_follow() {
        let reached = |until, at| Reached { until: Offset(until), at: Timestamp(at) };
        let until = |passes: &Passes, now| passes.tombstones_until(100, Timestamp(now)).0;
        let mut passes = Passes::default();
        assert_eq!(until(&passes, 1_000), 0, "there was no pass");
        passes = passes.with(reached(10, 1_000), 100);
        assert_eq!((until(&passes, 1_099), until(&passes, 1_100)), (0, 10));
        passes = passes.with(reached(20, 1_050), 100);
        assert_eq!((until(&passes, 1_099), until(&passes, 1_100), until(&passes, 1_150)), (0, 10, 20));
        passes = passes.with(reached(30, 1_090), 100);
        assert_eq!(until(&passes, 1_110), 10);
        // One that took those: the next that go are those that it saw, so long after it.
        passes = passes.with(reached(40, 1_110), 100);
        assert_eq!((until(&passes, 1_209), until(&passes, 1_210)), (0, 40));
    }

    #[test]
    fn a_pass_from_the_future_does_not_keep_tombstones() {
        let reached = |until, at| Reached { until: Offset(until), at: Timestamp(at) };
        let passes = Passes::default().with(reached(10, 1_000_000), 100);
        assert_eq!(passes.tombstones_until(100, Timestamp(1_000)), Offset(0));
        let passes = passes.with(reached(20, 1_000), 100);
        assert_eq!(passes.tombstones_until(100, Timestamp(1_100)), Offset(20));
    }

    #[test]
    fn the_bound_is_an_edge_that_everybody_has_passed_and_that_is_old_enough() {
        let bound = |floors: &[u64], before| {
            let mut bound = Bound::new(floors.iter().map(|floor| Offset(*floor)), Timestamp(before));
            for (base, time) in [(10, 100), (20, 200), (30, 300)] {
                let (base, append_time) = (Offset(base), Timestamp(time));
                bound.see(Edge { base, append_time, bytes_before: base.0 * 100 });
            }
            bound.found().map(|edge| edge.base.0)
        };
        assert_eq!(bound(&[], 300), Some(30));
        assert_eq!(bound(&[], 299), Some(20));
        assert_eq!(bound(&[100, 29], 300), Some(20));
        assert_eq!(bound(&[30, 100], 300), Some(30));
        assert_eq!(bound(&[9], 300), None);
        assert_eq!(bound(&[], 99), None);
    }

    #[test]
    fn a_pass_waits_until_there_is_as_much_to_compact_as_was_compacted() {
        assert!(!is_worth(0, 0));
        assert!(is_worth(1, 0));
        assert!(!is_worth(99, 100));
        assert!(is_worth(100, 100));
    }

    proptest! {
        /// Passes at any times: a tombstone goes only if one that had come to it ended long enough before, and at the latest
        /// with the first pass that is three times as long behind it.
        #[test]
        fn tombstones_stay_as_long_as_they_are_to_and_no_more_than_three_times(gaps in vec(0u64..150, 1..30)) {
            let (mut passes, mut done, mut at, mut gone) = (Passes::default(), Vec::new(), 1_000, 0);
            for (gap, until) in gaps.into_iter().zip(1..) {
                at += gap;
                let may_go = passes.tombstones_until(100, Timestamp(at)).0;
                let old = |ago: u64| {
                    let old = done.iter().filter(|(_, ended)| at - ended >= ago);
                    old.map(|(until, _)| *until).max().unwrap_or(0)
                };
                prop_assert!(may_go <= old(100));
                gone = gone.max(may_go);
                prop_assert!(gone >= old(300));
                passes = passes.with(Reached { until: Offset(until), at: Timestamp(at) }, 100);
                done.push((until, at));
            }
        }

        #[test]
        fn exactly_the_last_of_each_key_is_kept(keys in vec(0u128..6, 0..60)) {
            let mut latest = Latest::default();
            (0..).zip(&keys).for_each(|(offset, key)| latest.note(*key, Offset(offset)));
            for (offset, key) in (0..).zip(&keys) {
                let is_last = !keys[usize::try_from(offset).unwrap() + 1..].contains(key);
                prop_assert_eq!(latest.keeps(&event(offset, Some(*key)), Offset(0)), is_last);
            }
        }
    }
}
