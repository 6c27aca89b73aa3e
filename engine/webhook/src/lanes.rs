//! Which of the events that a receiver is yet to get may go to it now: by the order of the subscription. Pure.
//!
//! An event of a key waits for those before it. When one fails, the broker takes back what is delivered behind it of its key, or
//! of its partition, and delivers all of it again; so that is forgotten here, and what still comes of it until the broker
//! has heard of the failure.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use levada_protocol::{
    ids::{DeliveryToken, Offset, PartitionId},
    request::Order,
};

/// What of events goes one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    /// The events of a key in a partition.
    Key(PartitionId, Bytes),
    /// A whole partition.
    Partition(PartitionId),
    /// The event alone.
    Alone(PartitionId, Offset),
}

impl Lane {
    /// The lane of an event.
    pub(crate) fn of(order: Order, partition: PartitionId, offset: Offset, key: Option<&[u8]>) -> Self {
        match (order, key) {
            (Order::Key, Some(key)) => Self::Key(partition, Bytes::copy_from_slice(key)),
            (Order::Partition, _) => Self::Partition(partition),
            (Order::Key | Order::None, _) => Self::Alone(partition, offset),
        }
    }
}

/// An event that was delivered and is not settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) partition: PartitionId,
    pub(crate) offset: Offset,
    pub(crate) token: DeliveryToken,
    /// Which delivery of it this is, from 1; 255 means 255 or more.
    pub(crate) attempt: u8,
    /// The number of the frame that it came in.
    pub(crate) frame: u64,
    /// What is sent.
    pub(crate) body: Bytes,
}

/// Where a lane broke: the event that failed, and the verbs frame that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Break {
    offset: Offset,
    sequence: u64,
}

/// All that is held.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    lanes: HashMap<Lane, VecDeque<Held>>,
    /// Lanes whose first event may go.
    ready: VecDeque<Lane>,
    broken: BTreeMap<u64, Vec<(Lane, Break)>>,
}

impl Lanes {
    /// Adds an event. Returns what is no longer held for it: the event itself, if it will come again, or an earlier delivery of
    /// it that did not go yet.
    pub(crate) fn add(&mut self, lane: Lane, held: Held) -> Option<Held> {
        if let Some(broke) = self.broke(&lane) {
            if held.offset > broke.offset {
                return Some(held);
            }
            // The broker has heard of the failure: from here on everything comes in order.
            self.mend(&lane);
        }
        let waiting = self.lanes.entry(lane.clone()).or_default();
        if let Some(earlier) = waiting.iter_mut().skip(1).find(|earlier| earlier.offset == held.offset) {
            return Some(std::mem::replace(earlier, held));
        }
        waiting.push_back(held);
        if waiting.len() == 1 {
            self.ready.push_back(lane);
        }
        None
    }

    /// An event that may go now; its lane waits for what becomes of it.
    pub(crate) fn next(&mut self) -> Option<(Lane, Held)> {
        while let Some(lane) = self.ready.pop_front() {
            if let Some(held) = self.lanes.get(&lane).and_then(VecDeque::front) {
                let held = held.clone();
                return Some((lane, held));
            }
        }
        None
    }

    /// The event of this lane that went is settled; those behind it go on.
    pub(crate) fn settle(&mut self, lane: &Lane) -> Option<Held> {
        let waiting = self.lanes.get_mut(lane)?;
        let settled = waiting.pop_front();
        if waiting.is_empty() {
            self.lanes.remove(lane);
        } else {
            self.ready.push_back(lane.clone());
        }
        settled
    }

    /// The event of this lane that went is to go again.
    pub(crate) fn again(&mut self, lane: Lane) {
        self.ready.push_front(lane);
    }

    /// The event of this lane that went has failed, as the verbs frame of this number says. Returns what is no longer held.
    pub(crate) fn fail(&mut self, lane: &Lane, sequence: u64) -> VecDeque<Held> {
        let gone = self.lanes.remove(lane).unwrap_or_default();
        if let (Some(failed), Lane::Key(..) | Lane::Partition(_)) = (gone.front(), lane) {
            let broke = Break { offset: failed.offset, sequence };
            self.broken.entry(sequence).or_default().push((lane.clone(), broke));
        }
        gone
    }

    /// The broker has heard of every verbs frame up to this number.
    pub(crate) fn heard(&mut self, sequence: u64) {
        self.broken = self.broken.split_off(&sequence.saturating_add(1));
    }

    /// Everything that is held.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Held> {
        self.lanes.values().flatten()
    }

    fn broke(&self, lane: &Lane) -> Option<Break> {
        let mut all = self.broken.values().flatten();
        all.find(|(of, _)| of == lane).map(|(_, broke)| *broke)
    }

    fn mend(&mut self, lane: &Lane) {
        self.broken.values_mut().for_each(|lanes| lanes.retain(|(of, _)| of != lane));
        self.broken.retain(|_, lanes| !lanes.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn held(offset: u64, attempt: u8) -> Held {
        Held {
            partition: PartitionId(0),
            offset: Offset(offset),
            token: DeliveryToken(offset + 100 * u64::from(attempt)),
            attempt,
            frame: 1,
            body: Bytes::new(),
        }
    }

    fn key(name: &str) -> Lane {
        Lane::of(Order::Key, PartitionId(0), Offset(0), Some(name.as_bytes()))
    }

    fn next(lanes: &mut Lanes) -> Option<u64> {
        lanes.next().map(|(_, held)| held.offset.0)
    }

    #[test]
    fn keys_go_side_by_side_and_the_events_of_one_after_each_other() {
        let mut lanes = Lanes::default();
        for (name, offset) in [("a", 0), ("a", 1), ("b", 2)] {
            assert_eq!(lanes.add(key(name), held(offset, 1)), None);
        }
        assert_eq!([next(&mut lanes), next(&mut lanes), next(&mut lanes)], [Some(0), Some(2), None]);
        assert_eq!(lanes.settle(&key("a")), Some(held(0, 1)));
        assert_eq!([next(&mut lanes), next(&mut lanes)], [Some(1), None]);
        lanes.again(key("a"));
        assert_eq!(next(&mut lanes), Some(1));
        assert_eq!(lanes.iter().count(), 2);
    }

    #[test]
    fn what_comes_behind_a_failure_is_forgotten_until_the_failed_event_comes_again() {
        let mut lanes = Lanes::default();
        (0..3).for_each(|offset| assert_eq!(lanes.add(key("a"), held(offset, 1)), None));
        assert_eq!(next(&mut lanes), Some(0));
        assert_eq!(lanes.fail(&key("a"), 7).len(), 3);
        assert_eq!(
            lanes.add(key("a"), held(3, 1)),
            Some(held(3, 1)),
            "it was sent before the failure was heard of"
        );
        assert_eq!(lanes.add(key("b"), held(4, 1)), None, "another key");
        assert_eq!(lanes.add(key("a"), held(0, 2)), None);
        assert_eq!(lanes.add(key("a"), held(1, 1)), None);
        assert_eq!([next(&mut lanes), next(&mut lanes), next(&mut lanes)], [Some(4), Some(0), None]);
    }

    #[test]
    fn a_failure_that_was_heard_of_holds_nothing_up() {
        let mut lanes = Lanes::default();
        assert_eq!(lanes.add(key("a"), held(0, 1)), None);
        assert_eq!(next(&mut lanes), Some(0));
        assert_eq!(lanes.fail(&key("a"), 7).len(), 1);
        lanes.heard(6);
        assert_eq!(lanes.add(key("a"), held(1, 1)), Some(held(1, 1)));
        lanes.heard(7);
        assert_eq!(lanes.add(key("a"), held(2, 1)), None);
        assert!(lanes.broken.is_empty());
    }

    #[test]
    fn without_order_and_without_a_key_events_go_alone() {
        let mut lanes = Lanes::default();
        for offset in 0..3 {
            let order = if offset == 0 { Order::None } else { Order::Key };
            assert_eq!(
                lanes.add(Lane::of(order, PartitionId(0), Offset(offset), None), held(offset, 1)),
                None
            );
        }
        assert_eq!([next(&mut lanes), next(&mut lanes), next(&mut lanes)], [Some(0), Some(1), Some(2)]);
        assert_eq!(lanes.fail(&Lane::Alone(PartitionId(0), Offset(1)), 3).len(), 1);
        assert!(lanes.broken.is_empty());
    }

    proptest! {
        /// Whatever fails, a key's events reach the receiver in order, none is skipped, and nothing is left.
        #[test]
        fn every_event_of_a_key_is_taken_in_order_whatever_fails(fails in vec(any::<bool>(), 0..20), ahead in 1_u64..5) {
            let (mut lanes, mut fails, mut taken, mut sent) = (Lanes::default(), fails.into_iter(), Vec::new(), 0);
            let mut sequence = 0;
            while taken.len() < 10 {
                while sent < 10 && lanes.iter().count() < usize::try_from(ahead).unwrap() {
                    prop_assert_eq!(lanes.add(key("a"), held(sent, 1)), None);
                    sent += 1;
                }
                let (lane, event) = lanes.next().expect("one is ready");
                sequence += 1;
                if fails.next().unwrap_or(false) {
                    lanes.fail(&lane, sequence);
                    // What the broker sends again begins with the event that failed.
                    sent = event.offset.0;
                } else {
                    prop_assert_eq!(event.offset.0, u64::try_from(taken.len()).unwrap());
                    taken.push(event.offset.0);
                    lanes.settle(&lane);
                }
            }
            prop_assert_eq!(lanes.iter().count(), 0);
        }
    }
}
