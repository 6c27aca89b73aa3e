//! The choice of what to send next.
//!
//! Owns the order of preference: events to be given alone, then due redeliveries, then fresh events; partitions and
//! consumers in turn. It must not know what came of a delivery.

use std::ops::Range;

use levada_protocol::ids::{Offset, PartitionId};

use super::{
    ConsumerId, DELIVERY_BYTES_MAX, DELIVERY_EVENTS_MAX, Subscription,
    consumer::{Consumer, Room},
    partition::DueRun,
};
use crate::now::Now;

/// Milliseconds for which an active consumer may take nothing while another could: then the other is active.
pub(super) const PATIENCE_MS: u64 = 1_000;

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
    pub fn next(&mut self, now: Now) -> Option<Wanted> {
        let now = now.mono_ms;
        if self.is_ordered() {
            self.pass_place_on(now);
        }
        if self.consumers.is_empty() {
            return None;
        }
        let draining = match self.alone_due(now) {
            Some((partition, run)) => match self.idle_consumer() {
                Some((place, room)) => return Some(self.ask_again(place, room, partition, run)),
                None => self.least_loaded(),
            },
            None => None,
        };
        let anybody = self.consumer_with_room(draining, None)?;
        if let Some((partition, run)) = self.due_run(now) {
            let other = run.by.and_then(|by| self.consumer_with_room(draining, Some(by)));
            let (place, room) = other.unwrap_or(anybody);
            return Some(self.ask_again(place, room, partition, run));
        }
        let (partition, range) = self.fresh_run()?;
        Some(self.ask(anybody.0, anybody.1, partition, range, WantedKind::Fresh))
    }

    /// Consumers that get nothing for now: their deliveries timed out again and again, and others take deliveries.
    pub fn passed_over(&self) -> impl Iterator<Item = ConsumerId> {
        let passing = self.somebody_takes();
        let silent = self.consumers.iter().filter(move |consumer| passing && consumer.is_silent());
        silent.map(|consumer| consumer.id)
    }

    /// An event that must go alone, with its partition.
    fn alone_due(&self, now: u64) -> Option<(usize, DueRun)> {
        self.retrying.iter().find_map(|partition| {
            let part = &self.partitions[*partition];
            let leads = part.leads_alone(now, self.is_ordered());
            leads.then(|| Some((*partition, self.due_in(*partition, now)?))).flatten()
        })
    }

    /// A run that is due; where order matters, rather one that did not fail with the active consumer.
    fn due_run(&self, now: u64) -> Option<(usize, DueRun)> {
        let (before, from) =
            (self.retrying.range(..self.next_partition), self.retrying.range(self.next_partition..));
        let due =
            from.chain(before).filter_map(|partition| Some((*partition, self.due_in(*partition, now)?)));
        let mut due = due.filter(|(_, run)| !run.alone);
        if !self.is_ordered() {
            return due.next();
        }
        let active = self.consumers.first()?.id;
        let mut own = None;
        for (partition, run) in due {
            if run.by != Some(active) {
                return Some((partition, run));
            }
            own.get_or_insert((partition, run));
        }
        own
    }

    fn due_in(&self, partition: usize, now: u64) -> Option<DueRun> {
        if !self.is_free(partition) {
            return None;
        }
        self.partitions[partition].due(now, self.is_ordered(), DELIVERY_EVENTS_MAX)
    }

    fn fresh_run(&self) -> Option<(usize, Range<u64>)> {
        let (before, from) =
            (self.unread.range(..self.next_partition), self.unread.range(self.next_partition..));
        from.chain(before).find_map(|place| {
            let part = &self.partitions[*place];
            let held = !self.is_free(*place) || (self.is_ordered() && !part.waiting.is_empty());
            if held { None } else { part.fresh().map(|range| (*place, range)) }
        })
    }

    /// True if nothing is read of a partition, and where order matters, if nobody but the active consumer holds any of
    /// it: one who was active before may not be done.
    fn is_free(&self, partition: usize) -> bool {
        let active = || self.consumers.first().map(|consumer| consumer.id);
        self.partitions[partition].reading.is_none()
            && (!self.is_ordered() || self.holder(partition).is_none_or(|holder| active() == Some(holder)))
    }

    /// Who holds the lowest deliveries in flight of a partition.
    fn holder(&self, partition: usize) -> Option<ConsumerId> {
        let (_, flight) = self.partitions[partition].flights.first()?;
        self.deliveries.get(&flight.token).map(|delivery| delivery.consumer)
    }

    /// Where order matters: whether what a consumer would get again, were it the active one, is what it let fail
    /// itself; `None` if nothing is due that it could get.
    fn gets_own_failure(&self, consumer: ConsumerId, now: u64) -> Option<bool> {
        let mut own = None;
        for partition in &self.retrying {
            let part = &self.partitions[*partition];
            let held = self.holder(*partition).is_some_and(|holder| holder != consumer);
            let Some(lead) = part.due_lead(now, true).filter(|_| part.reading.is_none() && !held) else {
                continue;
            };
            let is_own = lead.by == Some(consumer);
            if lead.history.is_alone() {
                return Some(is_own);
            }
            own = Some(is_own && own.unwrap_or(true));
        }
        own
    }

    /// Gives the active place to another consumer that could take something: if all that is due failed with the active
    /// one last, if that one is silent, or if it takes nothing for a while.
    fn pass_place_on(&mut self, now: u64) {
        let since = self.starving_since.take();
        let Some(active) = self.consumers.first().filter(|_| self.consumers.len() > 1) else { return };
        let failed = self.gets_own_failure(active.id, now) == Some(true);
        let starves = self.room_of(0).is_none() && active.is_idle();
        if !failed && !starves && !active.is_silent() {
            return;
        }
        let heirs = || (1..self.consumers.len()).filter(|place| self.room_of(*place).is_some());
        let own_failure = |place: usize| self.gets_own_failure(self.consumers[place].id, now);
        let talking = heirs().filter(|place| !self.consumers[*place].is_silent());
        let sound = talking.min_by_key(|place| match own_failure(*place) {
            Some(false) => 0,
            None => 1,
            Some(true) => 2,
        });
        let now_silent = active.is_silent() && sound.is_some();
        // One that is silent is no better than an active one that only fails.
        let silent_may = starves || (failed && active.is_silent());
        let Some(heir) = sound.or_else(|| heirs().next().filter(|_| silent_may)) else { return };
        // Nothing is gained by an heir that would get its own failures in turn.
        let failed = failed && own_failure(heir) != Some(true);
        if !failed && !now_silent {
            let work =
                self.alone_due(now).is_some() || self.due_run(now).is_some() || self.fresh_run().is_some();
            let since = since.unwrap_or(now);
            if !starves || !work || now < since.saturating_add(PATIENCE_MS) {
                self.starving_since = (starves && work).then_some(since);
                return;
            }
        }
        let heir = self.consumers.remove(heir);
        let before = std::mem::replace(&mut self.consumers[0], heir);
        self.consumers.push(before);
    }

    /// The consumers that may get something, with their places, the one whose turn it is first.
    fn candidates(&self) -> impl Iterator<Item = (usize, Room)> {
        let count = self.active();
        let passing = !self.is_ordered() && self.somebody_takes();
        (0..count).map(move |step| (self.next_consumer + step) % count).filter_map(move |place| {
            let passed_over = passing && self.consumers[place].is_silent();
            if passed_over { None } else { Some((place, self.room_of(place)?)) }
        })
    }

    /// How many consumers, from the first on, may get something.
    pub(super) fn active(&self) -> usize {
        if self.is_ordered() { self.consumers.len().min(1) } else { self.consumers.len() }
    }

    fn room_of(&self, place: usize) -> Option<Room> {
        self.consumers[place].room(self.options.max_in_flight, self.options.max_in_flight_bytes)
    }

    /// True if there is a silent consumer, and one that is not and takes deliveries.
    fn somebody_takes(&self) -> bool {
        self.consumers.iter().any(Consumer::is_silent)
            && (0..self.consumers.len()).any(|place| {
                let consumer = &self.consumers[place];
                !consumer.is_silent() && (!consumer.is_idle() || self.room_of(place).is_some())
            })
    }

    /// Whose turn it is, rather somebody else than `not`.
    fn consumer_with_room(&self, draining: Option<usize>, not: Option<ConsumerId>) -> Option<(usize, Room)> {
        let mut own = None;
        for candidate in self.candidates().filter(|(place, _)| Some(*place) != draining) {
            if Some(self.consumers[candidate.0].id) != not {
                return Some(candidate);
            }
            own = Some(candidate);
        }
        own
    }

    fn idle_consumer(&self) -> Option<(usize, Room)> {
        self.candidates().find(|(place, _)| self.consumers[*place].is_idle())
    }

    /// The consumer that is kept from new deliveries until it is idle. Its load cannot grow, so its turn comes. One
    /// that is idle already lacks credit, and nobody waits for that.
    fn least_loaded(&self) -> Option<usize> {
        let passing = !self.is_ordered() && self.somebody_takes();
        let busy = self.consumers.iter().enumerate().take(self.active());
        let busy = busy.filter(|(_, consumer)| !consumer.alone && !consumer.is_idle());
        let busy = busy.filter(|(_, consumer)| !(passing && consumer.is_silent()));
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
