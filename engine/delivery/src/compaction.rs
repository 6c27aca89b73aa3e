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
    /// When it counts as appended.
    pub append_time: Timestamp,
}

/// The last event of each key in a stretch of a log.
#[derive(Debug, Default)]
pub struct Latest {
    offsets: HashMap<u128, Offset>,
}

impl Latest {
    /// Takes note of an event; those of a key must come in the order of their offsets.
    pub fn note(&mut self, key: u128, offset: Offset) {
        self.offsets.insert(key, offset);
    }

    /// How many keys there are.
    pub fn keys(&self) -> usize {
        self.offsets.len()
    }

    /// True if an event stays: no later one of its key was noted, and it is no tombstone from before `tombstones_from`.
    pub fn keeps(&self, event: &Candidate, tombstones_from: Timestamp) -> bool {
        let Some(key) = event.key else { return true };
        let is_last = self.offsets.get(&key).is_none_or(|last| *last <= event.offset);
        is_last && !(event.is_tombstone && event.append_time < tombstones_from)
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

/// How far a log may be compacted: up to the last of these edges that everybody has passed, if all before it is from
/// `before` or older; `None` if there is none. `floors` are the oldest unacknowledged offsets of all durable subscriptions
/// and routes, `edges` where the log's segments begin, in order.
pub fn bound(edges: &[Edge], floors: impl IntoIterator<Item = Offset>, before: Timestamp) -> Option<Edge> {
    let lowest = floors.into_iter().min();
    let may_go = |edge: &&Edge| edge.append_time <= before && lowest.is_none_or(|floor| edge.base <= floor);
    edges.iter().rev().find(may_go).copied()
}

/// True if so many bytes that were never compacted are worth a pass over all, given how many are that were: with as many
/// as these, each byte is read about twice in all.
pub fn is_worth(dirty_bytes: u64, clean_bytes: u64) -> bool {
    dirty_bytes > 0 && dirty_bytes >= clean_bytes
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn event(offset: u64, key: Option<u128>) -> Candidate {
        Candidate { offset: Offset(offset), key, is_tombstone: false, append_time: Timestamp(10) }
    }

    fn edges(edges: &[(u64, u64)]) -> Vec<Edge> {
        let edge = |(base, time): &(u64, u64)| Edge {
            base: Offset(*base),
            append_time: Timestamp(*time),
            bytes_before: base * 100,
        };
        edges.iter().map(edge).collect()
    }

    #[test]
    fn the_last_event_of_a_key_stays_and_what_has_no_key_does_too() {
        let mut latest = Latest::default();
        latest.note(1, Offset(5));
        latest.note(2, Offset(6));
        latest.note(1, Offset(9));
        assert_eq!(latest.keys(), 2);
        let keeps = |event| latest.keeps(&event, Timestamp(0));
        assert!(!keeps(event(5, Some(1))) && !keeps(event(3, Some(2))), "a later one was noted");
        assert!(keeps(event(9, Some(1))) && keeps(event(6, Some(2))));
        assert!(keeps(event(3, Some(7))), "nothing later was noted of its key");
        assert!(keeps(event(3, None)));
    }

    #[test]
    fn a_tombstone_stays_as_long_as_it_is_young() {
        let latest = Latest::default();
        let tombstone = Candidate { is_tombstone: true, ..event(3, Some(1)) };
        assert!(latest.keeps(&tombstone, Timestamp(10)));
        assert!(!latest.keeps(&tombstone, Timestamp(11)));
        assert!(latest.keeps(&event(3, Some(1)), Timestamp(11)), "it has a payload");
        assert!(latest.keeps(&Candidate { key: None, ..tombstone }, Timestamp(11)), "it deletes nothing");
    }

    #[test]
    fn the_bound_is_an_edge_that_everybody_has_passed_and_that_is_old_enough() {
        let edges = edges(&[(10, 100), (20, 200), (30, 300)]);
        let bound = |floors: &[u64], before| {
            let floors = floors.iter().map(|floor| Offset(*floor));
            bound(&edges, floors, Timestamp(before)).map(|edge| edge.base.0)
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
        #[test]
        fn exactly_the_last_of_each_key_is_kept(keys in vec(0u128..6, 0..60)) {
            let mut latest = Latest::default();
            (0..).zip(&keys).for_each(|(offset, key)| latest.note(*key, Offset(offset)));
            for (offset, key) in (0..).zip(&keys) {
                let is_last = !keys[usize::try_from(offset).unwrap() + 1..].contains(key);
                prop_assert_eq!(latest.keeps(&event(offset, Some(*key)), Timestamp(0)), is_last);
            }
        }
    }
}
