//! Which events of one read go to which consumers, in as few deliveries as their attempts allow.

use std::{collections::HashMap, ops::Range};

use super::key_table::Key;
use crate::{
    now::Now,
    progress::History,
    subscription::{
        consumer::{ConsumerId, Room},
        fetch::{Assignment, Wanted},
        ledger::{Ledger, Parts},
    },
};

/// Events that one consumer gets in a row before another has its turn.
const IN_A_ROW: u64 = 16;

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    To(ConsumerId),
    /// Not now: its consumer has no credit.
    Later,
    /// Not in this read: its consumer's stream takes no more at once, or no more events may be given.
    Full,
}

/// One delivery in the making.
#[derive(Debug)]
struct Share {
    consumer: ConsumerId,
    history: History,
    /// What it may take altogether.
    limit: Room,
    parts: Vec<Range<u64>>,
    events: u64,
    bytes: u64,
}

/// What the deliveries to one consumer are together.
#[derive(Debug)]
struct Total {
    used: Room,
    alone: bool,
}

impl Default for Total {
    fn default() -> Self {
        Self { used: Room { events: 0, bytes: 0 }, alone: false }
    }
}

/// The deliveries of one read.
pub(super) struct Shares<'a> {
    list: Vec<Share>,
    totals: HashMap<ConsumerId, Total>,
    /// How many more events may be given.
    left: u64,
    /// Nobody takes an event that may go to anybody.
    exhausted: bool,
    /// The delivery that has the last event of a key.
    keys: HashMap<Key, usize>,
    /// Gets nothing but an event that must be its only one.
    reserved: Option<ConsumerId>,
    /// Whose turn it is, and for how many more events.
    turn: Option<(ConsumerId, u64)>,
    /// Consumers that take no more of this read.
    full: Vec<ConsumerId>,
    room: &'a mut dyn FnMut(ConsumerId, Wanted) -> Option<u64>,
}

impl<'a> Shares<'a> {
    pub(super) fn new(
        reserved: Option<ConsumerId>,
        events_max: u64,
        room: &'a mut dyn FnMut(ConsumerId, Wanted) -> Option<u64>,
    ) -> Self {
        Self {
            list: Vec::new(),
            totals: HashMap::new(),
            left: events_max,
            exhausted: false,
            keys: HashMap::new(),
            reserved,
            turn: None,
            full: Vec::new(),
            room,
        }
    }

    /// Gives an event to the delivery that has the one of its key before it.
    pub(super) fn give_behind(
        &mut self,
        ledger: &Ledger,
        key: Key,
        offset: u64,
        bytes: u64,
        history: History,
    ) -> Given {
        let Some(index) = self.keys.get(&key).copied().filter(|_| self.left > 0) else { return Given::Later };
        let share = &self.list[index];
        let place = ledger.consumers.index_of(share.consumer);
        let room = place.and_then(|place| ledger.consumers.room(place));
        let used = self.used(share.consumer);
        let fits = room.is_some_and(|room| used.events < room.events && used.bytes < room.bytes);
        if history.is_alone() || !fits || !share.has_room_for(bytes, history) {
            return Given::Later;
        }
        self.push(index, key, offset, bytes)
    }

    /// Gives a new event to the consumer that holds its key.
    pub(super) fn give_to(
        &mut self,
        ledger: &mut Ledger,
        consumer: ConsumerId,
        key: Key,
        offset: u64,
        bytes: u64,
    ) -> Given {
        if self.left == 0 {
            return Given::Full;
        }
        let passed_over = || ledger.consumers.passed_over().any(|it| it == consumer);
        if self.reserved == Some(consumer) || passed_over() {
            return Given::Later;
        }
        match self.share_of(ledger, consumer, bytes, History::default()) {
            Ok(index) => self.push(index, key, offset, bytes),
            Err(given) => given,
        }
    }

    /// Gives an event to whoever has the least, rather not to the consumer that let it fail.
    pub(super) fn give_anyone(
        &mut self,
        ledger: &mut Ledger,
        key: Key,
        offset: u64,
        bytes: u64,
        history: History,
        failed_by: Option<ConsumerId>,
    ) -> Given {
        if self.left == 0 {
            return Given::Full;
        }
        if self.exhausted && !history.is_alone() {
            return Given::Later;
        }
        loop {
            let Some(consumer) = self.taker(ledger, history, failed_by) else {
                self.exhausted |= !history.is_alone();
                return if self.full.is_empty() { Given::Later } else { Given::Full };
            };
            match self.share_of(ledger, consumer, bytes, history) {
                Ok(index) => {
                    let left = self.turn.filter(|(turn, left)| *turn == consumer && *left > 0);
                    self.turn = Some((consumer, left.map_or(IN_A_ROW, |(_, left)| left) - 1));
                    return self.push(index, key, offset, bytes);
                }
                // It has no room any more, or none in this read.
                Err(Given::Later)
                    if ledger
                        .consumers
                        .index_of(consumer)
                        .is_some_and(|it| ledger.consumers.room(it).is_none()) => {}
                Err(_) => self.full.push(consumer),
            }
        }
    }

    fn taker(&self, ledger: &Ledger, history: History, failed_by: Option<ConsumerId>) -> Option<ConsumerId> {
        let consumers = &ledger.consumers;
        let (passing, alone) = (consumers.somebody_responds(), history.is_alone());
        let load = |place: usize| {
            consumers.list()[place].in_flight() + self.used(consumers.list()[place].id()).events
        };
        let may = |place: usize, room: Room| {
            let consumer = &consumers.list()[place];
            let used = self.used(consumer.id());
            let full = self.full.contains(&consumer.id());
            let fits = !full
                && used.events < room.events
                && used.bytes < room.bytes
                && !self.is_alone(consumer.id());
            let free = if alone { load(place) == 0 } else { self.reserved != Some(consumer.id()) };
            fits && free && !(passing && consumer.is_silent())
        };
        if let Some((consumer, left)) = self.turn
            && left > 0
            && failed_by != Some(consumer)
            && let Some(place) = consumers.index_of(consumer)
            && consumers.room(place).is_some_and(|room| may(place, room))
        {
            return Some(consumer);
        }
        let takers = consumers.with_room().filter(|(place, room)| may(*place, *room));
        let best =
            takers.min_by_key(|(place, _)| (failed_by == Some(consumers.list()[*place].id()), load(*place)));
        best.map(|(place, _)| consumers.list()[place].id())
    }

    /// What the deliveries of a consumer take together.
    fn used(&self, consumer: ConsumerId) -> Room {
        self.totals.get(&consumer).map_or(Room { events: 0, bytes: 0 }, |total| total.used)
    }

    fn is_alone(&self, consumer: ConsumerId) -> bool {
        self.totals.get(&consumer).is_some_and(|total| total.alone)
    }

    /// True once no more events may be given, or nobody takes another one, not even behind one of its key.
    pub(super) fn is_over(&self) -> bool {
        self.left == 0 || (self.exhausted && self.list.iter().all(|share| share.events >= share.limit.events))
    }

    /// The delivery to a consumer that an event of this history goes into, made if there is none.
    fn share_of(
        &mut self,
        ledger: &mut Ledger,
        consumer: ConsumerId,
        bytes: u64,
        history: History,
    ) -> Result<usize, Given> {
        let own = |share: &Share| share.consumer == consumer && share.history.attempts == history.attempts;
        if let Some(index) = self.list.iter().rposition(own) {
            let share = &self.list[index];
            if share.has_room_for(bytes, history) {
                return Ok(index);
            }
            let used_up = share.events >= share.limit.events;
            return Err(if used_up { Given::Later } else { Given::Full });
        }
        let place = ledger.consumers.index_of(consumer).ok_or(Given::Later)?;
        let room = ledger.consumers.room(place).ok_or(Given::Later)?;
        let used = self.used(consumer);
        let events = room.events.saturating_sub(used.events);
        let most = room.bytes.saturating_sub(used.bytes);
        if events == 0 || most == 0 || self.is_alone(consumer) {
            return Err(Given::Later);
        }
        let Some(stream) = (self.room)(consumer, Wanted { least: bytes, most }) else {
            if let Some(consumer) = ledger.consumers.find_mut(consumer) {
                consumer.hold(true);
            }
            return Err(Given::Later);
        };
        let limit = Room { events, bytes: most.min(stream) };
        self.list.push(Share { consumer, history, limit, parts: Vec::new(), events: 0, bytes: 0 });
        Ok(self.list.len() - 1)
    }

    fn push(&mut self, index: usize, key: Key, offset: u64, bytes: u64) -> Given {
        let share = &mut self.list[index];
        match share.parts.last_mut() {
            Some(last) if last.end == offset => last.end += 1,
            _ => share.parts.push(offset..offset + 1),
        }
        share.events += 1;
        share.bytes += bytes;
        self.left -= 1;
        let total = self.totals.entry(share.consumer).or_default();
        total.used = Room { events: total.used.events + 1, bytes: total.used.bytes + bytes };
        total.alone |= share.history.is_alone();
        self.keys.insert(key, index);
        Given::To(share.consumer)
    }

    /// Puts the deliveries in flight.
    pub(super) fn deliver(self, ledger: &mut Ledger, now: Now, partition: usize) -> Vec<Assignment> {
        let shares = self.list.into_iter();
        let parts = shares.map(|share| Parts {
            consumer: share.consumer,
            offsets: share.parts,
            events: share.events,
            bytes: share.bytes,
            history: share.history,
        });
        parts.map(|parts| ledger.deliver_parts(now, partition, parts)).collect()
    }
}

impl Share {
    /// The first event always fits.
    fn has_room_for(&self, bytes: u64, history: History) -> bool {
        let fits = self.events < self.limit.events && self.bytes.saturating_add(bytes) <= self.limit.bytes;
        let alone = self.history.is_alone() || history.is_alone();
        self.history.attempts == history.attempts && (self.events == 0 || (fits && !alone))
    }
}
