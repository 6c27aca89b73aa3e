//! Which events of one read go to which consumers, in as few deliveries as their attempts allow.

use std::{collections::HashMap, ops::Range};

use foldhash::fast::RandomState;

use super::key_pages::KeyId;
use crate::{
    now::Now,
    progress::History,
    subscription::{
        consumer::{ConsumerId, Room},
        fetch::{Assignment, Wanted},
        ledger::{Ledger, Parts},
    },
};

/// How long a consumer may be without room before others get what follows on its events, whatever they have: a stream that
/// is full has room again within a few.
const MOMENT_MS: u64 = 10;

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    To(ConsumerId),
    /// Not now: it must wait for something else.
    Later,
    /// Not until its consumer has room, which it lacks for a moment only until this time on the monotonic clock.
    NoRoom(u64),
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

/// What a consumer gets of a read, over all its deliveries.
#[derive(Debug, Clone)]
struct Total {
    used: Room,
    /// One of them is an event that must be its only one.
    alone: bool,
    /// It takes no more of this read.
    full: bool,
    /// The last of them.
    share: Option<usize>,
}

impl Total {
    const NOTHING: Self = Self { used: Room { events: 0, bytes: 0 }, alone: false, full: false, share: None };
}

/// The deliveries of one read. Consumers are named by their places in the list, which do not change meanwhile.
pub(super) struct Shares<'a> {
    now: u64,
    list: Vec<Share>,
    totals: Vec<Total>,
    /// How many more events may be given.
    left: u64,
    /// Nobody takes an event that may go to anybody.
    exhausted: bool,
    /// A consumer takes no more of this read.
    some_full: bool,
    /// Where events follow others of their keys: the delivery that has the last event of each.
    keys: HashMap<KeyId, usize, RandomState>,
    /// Gets nothing but an event that must be its only one.
    reserved: Option<usize>,
    /// Silent consumers are passed over.
    passing: bool,
    /// Whose turn it is, and for how many more events.
    turn: Option<(usize, u64)>,
    room: &'a mut dyn FnMut(ConsumerId, Wanted) -> Option<u64>,
}

impl<'a> Shares<'a> {
    pub(super) fn new(
        ledger: &Ledger,
        now: u64,
        reserved: Option<ConsumerId>,
        events_max: u64,
        room: &'a mut dyn FnMut(ConsumerId, Wanted) -> Option<u64>,
    ) -> Self {
        Self {
            now,
            list: Vec::new(),
            totals: vec![Total::NOTHING; ledger.consumers.list().len()],
            left: events_max,
            exhausted: false,
            some_full: false,
            keys: HashMap::default(),
            reserved: reserved.and_then(|consumer| ledger.consumers.index_of(consumer)),
            passing: ledger.consumers.somebody_responds(),
            turn: None,
            room,
        }
    }

    /// Gives an event to the delivery that has the one of its key before it.
    pub(super) fn give_behind(
        &mut self,
        ledger: &Ledger,
        key: KeyId,
        offset: u64,
        bytes: u64,
        history: History,
    ) -> Given {
        let Some(index) = self.keys.get(&key).copied().filter(|_| self.left > 0) else { return Given::Later };
        let share = &self.list[index];
        let Some(place) = ledger.consumers.index_of(share.consumer) else { return Given::Later };
        let used = self.totals[place].used;
        let room = ledger.consumers.room(place);
        let fits = room.is_some_and(|room| used.events < room.events && used.bytes < room.bytes);
        if history.is_alone() || !fits || !share.has_room_for(bytes, history) {
            return Given::Later;
        }
        self.push(place, index, offset, bytes);
        self.keys.insert(key, index);
        Given::To(self.list[index].consumer)
    }

    /// Gives a new event to the consumer that holds its key.
    pub(super) fn give_to(
        &mut self,
        ledger: &mut Ledger,
        consumer: ConsumerId,
        offset: u64,
        bytes: u64,
    ) -> Given {
        if self.left == 0 {
            return Given::Full;
        }
        let place = ledger.consumers.index_of(consumer);
        let Some(place) = place.filter(|place| self.reserved != Some(*place) && !self.passes(ledger, *place))
        else {
            return Given::Later;
        };
        match self.share_of(ledger, place, bytes, History::default()) {
            Ok(index) => self.push(place, index, offset, bytes),
            Err(given) => given,
        }
    }

    /// Gives an event that waited to whoever has the least, rather not to the consumer that let it fail.
    pub(super) fn give_again(
        &mut self,
        ledger: &mut Ledger,
        key: KeyId,
        offset: u64,
        bytes: u64,
        history: History,
        failed_by: Option<ConsumerId>,
    ) -> Given {
        let failed_by = failed_by.and_then(|consumer| ledger.consumers.index_of(consumer));
        let given = self.give(ledger, offset, bytes, history, failed_by);
        if let Ok(index) = given {
            self.keys.insert(key, index);
        }
        self.given(given)
    }

    /// Gives a new event to whoever has the least.
    pub(super) fn give_anyone(&mut self, ledger: &mut Ledger, offset: u64, bytes: u64) -> Given {
        let given = self.give(ledger, offset, bytes, History::default(), None);
        self.given(given)
    }

    fn given(&self, given: Result<usize, Given>) -> Given {
        given.map_or_else(|refused| refused, |index| Given::To(self.list[index].consumer))
    }

    /// Gives an event to whoever has the least; returns the delivery.
    fn give(
        &mut self,
        ledger: &mut Ledger,
        offset: u64,
        bytes: u64,
        history: History,
        failed_by: Option<usize>,
    ) -> Result<usize, Given> {
        if self.left == 0 {
            return Err(Given::Full);
        }
        if self.exhausted && !history.is_alone() {
            return Err(Given::Later);
        }
        loop {
            let Some(place) = self.taker(ledger, history, failed_by) else {
                self.exhausted |= !history.is_alone();
                return Err(if self.some_full { Given::Full } else { Given::Later });
            };
            match self.share_of(ledger, place, bytes, history) {
                Ok(index) => {
                    let left = self.turn.filter(|(turn, left)| *turn == place && *left > 0);
                    let left =
                        left.map_or_else(|| ledger.consumers.list()[place].in_a_row(), |(_, left)| left);
                    self.turn = Some((place, left - 1));
                    self.push(place, index, offset, bytes);
                    return Ok(index);
                }
                // It has no room any more, or none in this read.
                Err(Given::NoRoom(_)) if ledger.consumers.room(place).is_none() => {}
                Err(_) => {
                    self.totals[place].full = true;
                    self.some_full = true;
                }
            }
        }
    }

    fn taker(&self, ledger: &Ledger, history: History, failed_by: Option<usize>) -> Option<usize> {
        let consumers = &ledger.consumers;
        let alone = history.is_alone();
        let load = |place: usize| consumers.list()[place].in_flight() + self.totals[place].used.events;
        let may = |place: usize, room: Room| {
            let free = if alone { load(place) == 0 } else { self.reserved != Some(place) };
            !self.totals[place].full && self.has_room(place, room) && free && !self.passes(ledger, place)
        };
        if let Some((place, left)) = self.turn
            && left > 0
            && failed_by != Some(place)
            && consumers.room(place).is_some_and(|room| may(place, room))
        {
            return Some(place);
        }
        let takers = consumers.with_room().filter(|(place, room)| may(*place, *room));
        // Rather not to whoever let it fail, or lets time run out and has not responded since.
        let is_poor = |place: usize| failed_by == Some(place) || consumers.list()[place].has_lapsed(self.now);
        let best = takers.min_by_key(|(place, _)| (is_poor(*place), load(*place)));
        best.map(|(place, _)| place)
    }

    /// True if a consumer that takes events has so few that it may run dry while events wait for another one.
    pub(super) fn somebody_is_short(&self, ledger: &Ledger) -> bool {
        ledger.consumers.short(|place| self.totals[place].used).any(|place| {
            let total = &self.totals[place];
            self.reserved != Some(place) && !self.passes(ledger, place) && !total.full && !total.alone
        })
    }

    fn passes(&self, ledger: &Ledger, place: usize) -> bool {
        self.passing && ledger.consumers.list()[place].is_silent()
    }

    /// True if a consumer that has this room takes more than it gets of this read already.
    fn has_room(&self, place: usize, room: Room) -> bool {
        let Total { used, alone, .. } = self.totals[place];
        used.events < room.events && used.bytes < room.bytes && !alone
    }

    /// True once no more events may be given, or nobody takes another one, not even behind one of its key.
    pub(super) fn is_over(&self) -> bool {
        self.left == 0 || (self.exhausted && self.list.iter().all(|share| share.events >= share.limit.events))
    }

    /// The delivery to a consumer that an event of this history goes into, made if there is none.
    fn share_of(
        &mut self,
        ledger: &mut Ledger,
        place: usize,
        bytes: u64,
        history: History,
    ) -> Result<usize, Given> {
        if let Some(index) = self.last_share(place, history) {
            let share = &self.list[index];
            if share.has_room_for(bytes, history) {
                return Ok(index);
            }
            let used_up = share.events >= share.limit.events;
            return Err(if used_up { self.no_room(ledger, place) } else { Given::Full });
        }
        let room = ledger.consumers.room(place).filter(|room| self.has_room(place, *room));
        let Some(room) = room else { return Err(self.no_room(ledger, place)) };
        let used = self.totals[place].used;
        let (events, most) = (room.events - used.events, room.bytes - used.bytes);
        let consumer = ledger.consumers.list()[place].id();
        let Some(stream) = (self.room)(consumer, Wanted { least: bytes, most }) else {
            if let Some(consumer) = ledger.consumers.find_mut(consumer) {
                consumer.hold(true);
            }
            return Err(self.no_room(ledger, place));
        };
        let limit = Room { events, bytes: most.min(stream) };
        self.list.push(Share { consumer, history, limit, parts: Vec::new(), events: 0, bytes: 0 });
        Ok(self.list.len() - 1)
    }

    fn no_room(&self, ledger: &mut Ledger, place: usize) -> Given {
        let consumer = ledger.consumers.list()[place].id();
        let since = ledger.consumers.find_mut(consumer).map_or(self.now, |it| it.lack_room(self.now));
        Given::NoRoom(since.saturating_add(MOMENT_MS))
    }

    /// The last delivery to a consumer of events that have failed as often.
    fn last_share(&self, place: usize, history: History) -> Option<usize> {
        let last = self.totals[place].share?;
        let share = &self.list[last];
        if share.history.attempts == history.attempts {
            return Some(last);
        }
        let own = |it: &Share| it.consumer == share.consumer && it.history.attempts == history.attempts;
        self.list[..last].iter().rposition(own)
    }

    fn push(&mut self, place: usize, index: usize, offset: u64, bytes: u64) -> Given {
        let share = &mut self.list[index];
        match share.parts.last_mut() {
            Some(last) if last.end == offset => last.end += 1,
            _ => share.parts.push(offset..offset + 1),
        }
        share.events += 1;
        share.bytes += bytes;
        self.left -= 1;
        let total = &mut self.totals[place];
        total.used.events += 1;
        total.used.bytes += bytes;
        total.alone |= share.history.is_alone();
        total.share = Some(index);
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
