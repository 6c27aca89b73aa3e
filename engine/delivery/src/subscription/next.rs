//! The choice of what to send next.
//!
//! Owns the order of preference: events to be given alone, then due redeliveries, then fresh events; partitions and
//! consumers in turn. It must not know what came of a delivery.

use std::ops::Range;

use levada_protocol::ids::{Offset, PartitionId, Timestamp};

use super::{
    ConsumerId, DELIVERY_BYTES_MAX, DELIVERY_EVENTS_MAX, Subscription, consumer::Room, partition::DueRun,
};

/// What the owner should read, run through the chain and send. It ends in [`Subscription::delivered`],
/// [`Subscription::filtered`] or [`Subscription::abandon`]; until then its partition and part of its consumer's credit
/// are set aside, so that reads of other partitions may go on beside it.
#[derive(Debug)]
#[must_use = "its partition stands still until it is delivered, filtered or abandoned"]
pub struct Wanted {
    /// Who gets it.
    pub consumer: ConsumerId,
    /// Where to read.
    pub partition: PartitionId,
    /// The first offset to read.
    pub first: Offset,
    /// The last offset to read, included. Less may be sent, from `first` on.
    pub last: Offset,
    /// Most events to send; filtered ones do not count.
    pub events_max: u64,
    /// Bytes of frame payload to send; more only if the first event alone is larger.
    pub bytes_max: u64,
    /// Whether it went out before.
    pub kind: WantedKind,
    pub(super) read: u64,
}

/// Whether what is wanted was delivered before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WantedKind {
    /// For the first time, since the engine started.
    Fresh,
    /// Again.
    Again {
        /// Which attempt this is, from 1; deliveries that counted no attempt do not raise it.
        attempt: u16,
        /// It is one offset, and nothing else is in flight at its consumer.
        alone: bool,
    },
}

impl Wanted {
    /// Which attempt this is, from 1.
    pub fn attempt(&self) -> u16 {
        match self.kind {
            WantedKind::Fresh => 1,
            WantedKind::Again { attempt, .. } => attempt,
        }
    }

    pub(super) fn is_alone(&self) -> bool {
        matches!(self.kind, WantedKind::Again { alone: true, .. })
    }

    pub(super) fn room(&self) -> Room {
        Room { events: self.events_max, bytes: self.bytes_max }
    }
}

impl Subscription {
    /// What to send next; `None` until time passes (see [`Subscription::next_deadline`]), the end moves, a verb, a
    /// grant or a commit comes, or a read under way ends.
    pub fn next(&mut self, now: Timestamp) -> Option<Wanted> {
        if self.consumers.is_empty() {
            return None;
        }
        let draining = match self.alone_due(now.0) {
            Some((partition, run)) => match self.idle_consumer() {
                Some((place, room)) => return Some(self.ask_again(place, room, partition, run)),
                None => self.least_loaded(),
            },
            None => None,
        };
        let place = self.consumer_with_room(draining)?;
        if let Some((partition, run)) = self.due_run(now.0) {
            return Some(self.ask_again(place.0, place.1, partition, run));
        }
        let (partition, range) = self.fresh_run()?;
        Some(self.ask(place.0, place.1, partition, range, WantedKind::Fresh))
    }

    /// An event that must go alone, with its partition.
    fn alone_due(&self, now: u64) -> Option<(usize, DueRun)> {
        self.retrying.iter().find_map(|partition| {
            let part = &self.partitions[*partition];
            let free = part.reading.is_none() && part.leads_alone(now, self.is_ordered());
            free.then(|| Some((*partition, self.due_in(*partition, now)?))).flatten()
        })
    }

    fn due_run(&self, now: u64) -> Option<(usize, DueRun)> {
        let (before, from) =
            (self.retrying.range(..self.next_partition), self.retrying.range(self.next_partition..));
        let mut due =
            from.chain(before).filter_map(|partition| Some((*partition, self.due_in(*partition, now)?)));
        due.find(|(_, run)| !run.alone)
    }

    fn due_in(&self, partition: usize, now: u64) -> Option<DueRun> {
        let part = &self.partitions[partition];
        if part.reading.is_some() {
            return None;
        }
        part.due(now, self.is_ordered(), DELIVERY_EVENTS_MAX)
    }

    fn fresh_run(&self) -> Option<(usize, Range<u64>)> {
        let count = self.partitions.len();
        (0..count).map(|step| (self.next_partition + step) % count).find_map(|place| {
            let part = &self.partitions[place];
            let held = part.reading.is_some() || (self.is_ordered() && !part.waiting.is_empty());
            if held { None } else { part.fresh().map(|range| (place, range)) }
        })
    }

    /// The consumers that may get something, with their places, the one whose turn it is first.
    fn candidates(&self) -> impl Iterator<Item = (usize, Room)> {
        let count = if self.is_ordered() { self.consumers.len().min(1) } else { self.consumers.len() };
        (0..count).map(move |step| (self.next_consumer + step) % count).filter_map(|place| {
            let (events, bytes) = (self.options.max_in_flight, self.options.max_in_flight_bytes);
            Some((place, self.consumers[place].room(events, bytes)?))
        })
    }

    fn consumer_with_room(&self, draining: Option<usize>) -> Option<(usize, Room)> {
        self.candidates().find(|(place, _)| Some(*place) != draining)
    }

    fn idle_consumer(&self) -> Option<(usize, Room)> {
        self.candidates().find(|(place, _)| self.consumers[*place].is_idle())
    }

    /// The consumer that is kept from new deliveries until it is idle. Its load cannot grow, so its turn comes. One
    /// that is idle already lacks credit, and nobody waits for that.
    fn least_loaded(&self) -> Option<usize> {
        let active = if self.is_ordered() { 1 } else { self.consumers.len() };
        let busy = self.consumers.iter().enumerate().take(active);
        let busy = busy.filter(|(_, consumer)| !consumer.alone && !consumer.is_idle());
        busy.min_by_key(|(_, consumer)| consumer.load()).map(|(place, _)| place)
    }

    fn ask_again(&mut self, place: usize, room: Room, partition: usize, run: DueRun) -> Wanted {
        let kind = WantedKind::Again { attempt: run.attempts.saturating_add(1), alone: run.alone };
        self.ask(place, room, partition, run.range, kind)
    }

    fn ask(
        &mut self,
        place: usize,
        room: Room,
        partition: usize,
        range: Range<u64>,
        kind: WantedKind,
    ) -> Wanted {
        let alone = matches!(kind, WantedKind::Again { alone: true, .. });
        let events = if alone { 1 } else { DELIVERY_EVENTS_MAX };
        let room = Room { events: room.events.min(events), bytes: room.bytes.min(DELIVERY_BYTES_MAX) };
        self.consumers[place].reserve(room);
        self.consumers[place].alone |= alone;
        self.reads += 1;
        self.partitions[partition].reading = Some(self.reads);
        self.next_consumer = (place + 1) % self.consumers.len();
        self.next_partition = (partition + 1) % self.partitions.len();
        Wanted {
            consumer: self.consumers[place].id,
            partition: PartitionId(u16::try_from(partition).expect("a topic has at most 1,024 partitions")),
            first: Offset(range.start),
            last: Offset(range.end - 1),
            events_max: room.events,
            bytes_max: room.bytes,
            kind,
            read: self.reads,
        }
    }
}
