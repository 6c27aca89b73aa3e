//! The model's events, by partition and offset.

use std::{
    collections::BTreeSet,
    ops::{Index, IndexMut},
};

use levada_protocol::request::Order;

use super::{
    super::ConsumerId,
    setting::{PARTITIONS, key_of},
    states::{At, Event, Sent},
};

#[derive(Debug, Clone)]
pub(super) struct Events {
    partitions: Vec<Vec<Event>>,
}

impl Index<usize> for Events {
    type Output = Vec<Event>;

    fn index(&self, partition: usize) -> &Vec<Event> {
        &self.partitions[partition]
    }
}

impl IndexMut<usize> for Events {
    fn index_mut(&mut self, partition: usize) -> &mut Vec<Event> {
        &mut self.partitions[partition]
    }
}

impl Events {
    pub(super) fn new() -> Self {
        Self { partitions: vec![Vec::new(); PARTITIONS] }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Event> + Clone {
        self.partitions.iter().flatten()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Event> {
        self.partitions.iter_mut().flatten()
    }

    pub(super) fn partitions_mut(&mut self) -> impl Iterator<Item = (usize, &mut Vec<Event>)> {
        self.partitions.iter_mut().enumerate()
    }

    pub(super) fn held_by(&self, consumer: ConsumerId) -> usize {
        self.iter().filter(|event| event.at.holder() == Some(consumer)).count()
    }

    /// True if all of those that count have come to their end.
    pub(super) fn all_done(&self, counts: impl Fn(usize, u64) -> bool) -> bool {
        self.partitions.iter().enumerate().all(|(partition, events)| {
            (0..).zip(events).all(|(offset, event)| event.at == At::Done || !counts(partition, offset))
        })
    }

    /// True if an event of a delivery is in flight with it.
    pub(super) fn holds(&self, sent: &Sent) -> bool {
        let events = &self.partitions[sent.partition][sent.range.start as usize..sent.range.end as usize];
        events.iter().any(|event| event.at.token() == Some(sent.token.0))
    }

    /// What those that wait take at least in the partitions of which this holds: pages of 64 offsets, keys, and runs.
    pub(super) fn waiting_bytes(&self, mut counts: impl FnMut(usize) -> bool) -> usize {
        let partitions = self.partitions.iter().enumerate().filter(|(partition, _)| counts(*partition));
        let bytes = partitions.map(|(partition, events)| {
            let all = (0_u64..).zip(events);
            let waiting =
                all.filter(|(_, event)| matches!(event.at, At::Waiting { .. })).map(|(offset, _)| offset);
            let waiting: BTreeSet<u64> = waiting.collect();
            let pages: BTreeSet<u64> = waiting.iter().map(|offset| offset / 64).collect();
            let keys: BTreeSet<_> =
                waiting.iter().map(|offset| key_of(partition, *offset).ok_or(*offset)).collect();
            let runs = waiting.iter().filter(|offset| !waiting.contains(&(*offset + 1))).count();
            pages.len() * 800 + keys.len() * 150 + runs * 90
        });
        bytes.sum()
    }

    /// True if an event waits to go alone: before that, its consumer is drained.
    pub(super) fn alone_waits(&self) -> bool {
        let is_alone = |event: &Event| event.past.is_alone() && matches!(event.at, At::Waiting { .. });
        self.iter().any(is_alone)
    }

    /// True if an ordered subscription could give this consumer something again that it did not let fail.
    pub(super) fn could_get(&self, consumer: ConsumerId, now: u64) -> bool {
        self.partitions.iter().any(|events| {
            let others = events.iter().filter_map(|event| event.at.holder()).any(|it| it != consumer);
            let first = events.iter().find(|event| matches!(event.at, At::Waiting { .. }));
            !others && first.is_some_and(|it| it.at.is_open(now) && it.by != Some(consumer))
        })
    }

    /// What is in flight at this moment past its deadline.
    pub(super) fn late(&self, partition: usize, now: u64) -> Vec<u64> {
        let late = |event: &Event| matches!(event.at, At::Flight { deadline, .. } if deadline <= now);
        (0..).zip(&self.partitions[partition]).filter(|(_, event)| late(event)).map(|(at, _)| at).collect()
    }

    /// Where order matters, what is in flight behind an event that waits now comes back.
    pub(super) fn rewind(&mut self, order: Order, partition: usize, failed: &[u64]) {
        let events = &mut self.partitions[partition];
        let waits = |offset: &&u64| matches!(events[**offset as usize].at, At::Waiting { .. });
        let Some(from) = failed.iter().find(waits).copied() else { return };
        if order != Order::Partition {
            return;
        }
        for event in &mut events[from as usize..] {
            if matches!(event.at, At::Flight { .. }) {
                event.at = At::Waiting { not_before: 0 };
                event.by = None;
            }
        }
    }

    /// Takes over which events have come back from flight for the sake of an earlier one of their key, which waited at the
    /// start of this step or waits now.
    pub(super) fn follow(&mut self, start: &Self, waits: impl Fn(usize, u64) -> bool) {
        for (partition, events) in self.partitions.iter_mut().enumerate() {
            for offset in 0..events.len() {
                let flies = matches!(events[offset].at, At::Flight { .. });
                if !flies || !waits(partition, offset as u64) {
                    continue;
                }
                let key = key_of(partition, offset as u64).expect("what has no key follows nothing");
                let earlier = (0..offset).filter(|at| key_of(partition, *at as u64) == Some(key));
                // It may have been sent again by now.
                let mut earlier = earlier.flat_map(|at| [events[at].at, start.partitions[partition][at].at]);
                assert!(earlier.any(|at| matches!(at, At::Waiting { .. })), "{offset} came back for nothing");
                let event = &mut events[offset];
                (event.at, event.by) = (At::Waiting { not_before: 0 }, None);
            }
        }
    }
}
