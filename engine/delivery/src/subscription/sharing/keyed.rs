//! Key order: the events of a key go to one consumer at a time, in order; what has no key has no order.
//!
//! While one consumer is attached and nothing has failed, key order is partition order, and whole stored records are sent
//! and settled as such. With a second consumer, or once an event fails, keys are looked at one by one: those of what is in
//! flight or waits are read first, and nothing new of a partition is sent until they are known.
//!
//! An event that may not go yet because an earlier one of its key waits is left waiting, and those behind it go on. Where
//! its key is held by a consumer without room, those behind it stay where they are as well, for a moment and as long as
//! every other consumer has enough to do: to wait costs more than to be sent at once. Where most keys have events that wait,
//! those go before anything new is read, for a moment. So many may wait at most; then nothing new is sent until fewer do.

use std::{
    cell::LazyCell,
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
    ops::Range,
};

use levada_protocol::ids::Offset;

use super::{
    drain::Drain,
    exclusive::Exclusive,
    key::Key,
    key_pages::KeyId,
    key_table::{EVENT_BYTES_MAX, KeyTable, Turn},
    policy::{Choice, Policy, RUN_OFFSETS_MAX, RunPolicy, least_loaded},
    shares::{Given, Shares},
};
use crate::{
    now::Now,
    ranges::RangeSet,
    subscription::{
        consumer::{Consumer, ConsumerId, Room},
        fetch::{Assigned, Contents, Wanted},
        ledger::Ledger,
        partition::{Again, Place, Run},
        partitions::Partitions,
        waiting::Wait,
    },
};

/// Reads for keys that may be under way: others are to go on meanwhile.
const LEARNING_MAX: usize = 2;
/// Keys that one read of waiting events is chosen for.
const DUE_KEYS_MAX: usize = 256;
/// Keys of which one read gives waiting events.
const DUE_KEYS_GIVEN_MAX: usize = 4 * DUE_KEYS_MAX;
/// Due events of a partition that are looked at to find one that must be its consumer's only one. What is before it is sent
/// first.
const LOOKS_MAX: usize = 16;

/// Events of one read that were left waiting for others, from which on what waits may go before what is new for a while.
const LEFT_MIN: u64 = 64;
/// It does if more keys than these, and more than this part of those that are known, have events that wait for others.
const BLOCKED_KEYS_MIN: usize = 8;
const BLOCKED_KEYS_PART: usize = 8;

/// Sharing by key.
#[derive(Debug)]
pub(in crate::subscription) struct Keyed {
    mode: Mode,
    waiting_bytes_max: usize,
}

#[derive(Debug)]
enum Mode {
    /// One consumer gets everything, in partition order.
    ByPartition(Exclusive),
    /// Each event goes by its key.
    ByKey(ByKey),
}

impl Keyed {
    /// Looks at keys only if something waits. What waits for its key may take so many bytes.
    pub(super) fn new(ledger: &Ledger, waiting_bytes_max: usize) -> Self {
        let mut keyed = Self { mode: Mode::ByPartition(Exclusive::default()), waiting_bytes_max };
        if ledger.partitions.retrying().next().is_some() {
            keyed.look_at_keys(ledger);
        }
        keyed
    }

    pub(super) fn policy(&self) -> &dyn Policy {
        match &self.mode {
            Mode::ByPartition(exclusive) => exclusive,
            Mode::ByKey(by_key) => by_key,
        }
    }

    pub(super) fn policy_mut(&mut self) -> &mut dyn Policy {
        match &mut self.mode {
            Mode::ByPartition(exclusive) => exclusive,
            Mode::ByKey(by_key) => by_key,
        }
    }

    /// What gives events in runs; `None` while each goes by its key.
    pub(super) fn by_runs(&self) -> Option<&dyn RunPolicy> {
        match &self.mode {
            Mode::ByPartition(exclusive) => Some(exclusive),
            Mode::ByKey(_) => None,
        }
    }

    /// What gives events by their keys; `None` while keys do not matter.
    pub(super) fn by_key(&mut self) -> Option<&mut ByKey> {
        match &mut self.mode {
            Mode::ByPartition(_) => None,
            Mode::ByKey(by_key) => Some(by_key),
        }
    }

    /// How many events wait for earlier ones of their keys, if no more may.
    pub(super) fn keys_full(&self, ledger: &Ledger) -> Option<u64> {
        match &self.mode {
            Mode::ByKey(by_key) => by_key.is_full(ledger).then(|| by_key.waiting() as u64),
            Mode::ByPartition(_) => None,
        }
    }

    /// Looks at keys from now on.
    pub(super) fn look_at_keys(&mut self, ledger: &Ledger) -> &mut ByKey {
        if let Mode::ByPartition(_) = self.mode {
            self.mode = Mode::ByKey(ByKey::new(&ledger.partitions, self.waiting_bytes_max));
        }
        self.by_key().expect("it was made above")
    }

    /// Looks at keys if, and only if, it matters.
    pub(super) fn prepare(&mut self, ledger: &Ledger) {
        let alone = ledger.consumers.list().len() <= 1;
        let waits = ledger.partitions.retrying().next().is_some();
        match &self.mode {
            Mode::ByPartition(_) if !alone => {
                self.look_at_keys(ledger);
            }
            Mode::ByKey(by_key) if alone && !waits && by_key.is_over(ledger) => {
                self.mode = Mode::ByPartition(Exclusive::default());
            }
            Mode::ByPartition(_) | Mode::ByKey(_) => {}
        }
    }
}

/// The tables of all partitions.
#[derive(Debug)]
pub(in crate::subscription) struct ByKey {
    tables: Vec<KeyTable>,
    /// Partitions of which keys have to be read.
    unknown: BTreeSet<usize>,
    /// Of each partition: the new event that its consumer had no room for, while nobody else needed more.
    stalled: Vec<Option<Stall>>,
    /// Of each partition: whether what waits is given before anything new is read.
    drains: Vec<Drain>,
    /// Events that were given since one failed.
    given: u64,
    waiting_bytes_max: usize,
}

/// A new event that keeps those behind it from being given, for a moment.
#[derive(Debug, Clone, Copy)]
struct Stall {
    offset: u64,
    key: Key,
    /// On the monotonic clock.
    until: u64,
}

/// What was read of a partition, to be given to consumers.
pub(in crate::subscription) struct Stretch<'a> {
    pub(in crate::subscription) partition: usize,
    pub(in crate::subscription) range: Range<u64>,
    /// It was delivered, or left waiting, before.
    pub(in crate::subscription) again: bool,
    pub(in crate::subscription) contents: &'a Contents<'a>,
}

impl ByKey {
    fn new(partitions: &Partitions, waiting_bytes_max: usize) -> Self {
        let tables: Vec<_> = partitions.iter().map(KeyTable::new).collect();
        let unknown = (0..tables.len()).filter(|index| tables[*index].first_unknown().is_some()).collect();
        let stalled = vec![None; tables.len()];
        let drains = tables.iter().map(|_| Drain::default()).collect();
        Self { tables, unknown, stalled, drains, given: 0, waiting_bytes_max }
    }

    /// Gives what was read to consumers, each event by its key, and at most so many events.
    pub(in crate::subscription) fn assign(
        &mut self,
        ledger: &mut Ledger,
        now: Now,
        stretch: &Stretch<'_>,
        events_max: u64,
        room: &mut dyn FnMut(ConsumerId, Wanted) -> Option<u64>,
    ) -> Assigned {
        let learned = self.learn(ledger, now, stretch);
        let reserved = self.reserved(ledger, now.mono_ms);
        let mut shares = Shares::new(ledger, now.mono_ms, reserved, events_max, room);
        let mut left_waiting = 0;
        let until = if stretch.again {
            let known = !self.unknown.contains(&stretch.partition);
            let given = known && self.assign_waiting(ledger, now, stretch, &mut shares);
            if given || learned { stretch.range.end } else { stretch.range.start }
        } else if self.unknown.contains(&stretch.partition) {
            stretch.range.start
        } else {
            let (until, left) = self.assign_fresh(ledger, now, stretch, &mut shares);
            left_waiting = left;
            until
        };
        let assignments = shares.deliver(ledger, now, stretch.partition);
        if left_waiting >= LEFT_MIN {
            self.drain(ledger, now, stretch.partition);
        }
        self.given += assignments.iter().map(|assignment| assignment.events).sum::<u64>();
        Assigned { until: Offset(until), assignments }
    }

    /// Enters the keys of what was read; true if any was not known.
    fn learn(&mut self, ledger: &mut Ledger, now: Now, stretch: &Stretch<'_>) -> bool {
        let Stretch { partition, range, contents, .. } = stretch;
        let table = &mut self.tables[*partition];
        let Some(first) = table.first_unknown().filter(|unknown| unknown.start < range.end) else {
            return false;
        };
        let (mut ahead, mut progress) = (Vec::new(), false);
        let mut walk = contents.walk();
        let read = first.start.max(range.start)..range.end;
        for offset in table.take_unknown(&read).into_iter().flatten() {
            progress = true;
            let holds_event = ledger.partitions.get(*partition).events_in(&(offset..offset + 1)) > 0;
            match ledger.partitions.get(*partition).place_of(offset) {
                Place::Waiting { .. } if walk.hole_at(offset).is_some() => {
                    ledger.use_up(now, *partition, &(offset..offset + 1), false, contents);
                }
                Place::InFlight { .. } | Place::Waiting { .. } if holds_event => {
                    let key = table.id(Key::of(offset, walk.key_of(offset)));
                    if table.enter(ledger, *partition, offset, key) {
                        ahead.push(key);
                    }
                }
                // A filtered offset stays with the events of its delivery.
                Place::InFlight { .. } | Place::Waiting { .. } | Place::Elsewhere => {}
            }
        }
        self.update_unknown(*partition);
        ahead.iter().for_each(|key| self.rewind(ledger, *partition, *key));
        progress
    }

    /// Takes back what is in flight of a key behind an event of it that waits. Not their own failure, so it counts nothing.
    fn rewind(&mut self, ledger: &mut Ledger, partition: usize, key: KeyId) {
        let table = &mut self.tables[partition];
        let Some(first) = table.first_waiting(key) else { return };
        let due = match ledger.partitions.get(partition).place_of(first) {
            Place::Waiting { wait } => wait.due,
            Place::InFlight { .. } | Place::Elsewhere => return,
        };
        for offset in table.ahead_of_turn(key) {
            // Filtered offsets beside it go along, for what stays in flight must hold an event.
            let part = ledger.partitions.get(partition).widen(&(offset..offset + 1), &(0..u64::MAX));
            for (part, token) in ledger.partitions.update(partition, |it| it.take_all_in_flight(&part)) {
                ledger.take_back(partition, &part, token, due);
            }
            table.enter(ledger, partition, offset, key);
        }
    }

    fn update_unknown(&mut self, partition: usize) {
        if self.tables[partition].first_unknown().is_some() {
            self.unknown.insert(partition);
        } else {
            self.unknown.remove(&partition);
        }
    }

    fn waiting(&self) -> usize {
        self.tables.iter().map(KeyTable::waiting).sum()
    }

    /// What takes memory for waiting, in bytes, leaving a partition out.
    fn waiting_bytes(&self, ledger: &Ledger, but: Option<usize>) -> usize {
        let partitions = self.tables.iter().zip(ledger.partitions.iter()).enumerate();
        let others = partitions.filter(|(index, _)| Some(*index) != but);
        others.map(|(_, (table, books))| table.waiting_bytes() + books.waiting_bytes()).sum()
    }

    /// True if no more events may wait.
    fn is_full(&self, ledger: &Ledger) -> bool {
        self.waiting_bytes(ledger, None) + EVENT_BYTES_MAX > self.waiting_bytes_max
    }

    /// The consumer that gets nothing more until it is idle, for an event that must be its only one.
    fn reserved(&self, ledger: &Ledger, now: u64) -> Option<ConsumerId> {
        let due = ledger.partitions.retrying().any(|(partition, it)| {
            self.tables[partition].due(now).take(LOOKS_MAX).any(|offset| it.history_of(offset).is_alone())
        });
        if !due {
            return None;
        }
        let passing = ledger.consumers.somebody_responds();
        let list = ledger.consumers.list();
        let may = |consumer: &Consumer| !(passing && consumer.is_silent());
        let idle = ledger.consumers.with_room().map(|(place, _)| place);
        let idle = idle.filter(|place| list[*place].is_idle() && may(&list[*place])).min();
        let reserved = idle.or_else(|| least_loaded(list, may));
        reserved.map(|place| list[place].id())
    }

    /// Gives waiting events whose turn it is; true if there were any, or some turned out to be none.
    fn assign_waiting(
        &mut self,
        ledger: &mut Ledger,
        now: Now,
        stretch: &Stretch<'_>,
        shares: &mut Shares<'_>,
    ) -> bool {
        let Stretch { partition, range, contents, .. } = stretch;
        let (mut progress, mut given_parts) = (false, RangeSet::default());
        let mut walk = contents.walk();
        // The first event of each key, and behind one that was given the next one of its key, by their offsets.
        let due = self.tables[*partition].due(now.mono_ms).take(DUE_KEYS_GIVEN_MAX);
        let mut next: BinaryHeap<_> = due.filter(|offset| range.contains(offset)).map(Reverse).collect();
        while let Some(Reverse(offset)) = next.pop() {
            if shares.is_over() {
                break;
            }
            let (table, part) = (&mut self.tables[*partition], offset..offset + 1);
            let Some(key) = table.key_of(offset) else { continue };
            let Place::Waiting { wait } = ledger.partitions.get(*partition).place_of(offset) else {
                continue;
            };
            if walk.hole_at(offset).is_some() {
                next.extend(table.waiting_behind(offset).filter(|it| range.contains(it)).map(Reverse));
                ledger.use_up(now, *partition, &part, false, contents);
                table.enter(ledger, *partition, offset, key);
                progress = true;
                continue;
            }
            let history = ledger.partitions.get(*partition).history_of(offset);
            let bytes = walk.bytes_of(offset);
            let given = match table.turn(offset, key) {
                _ if wait.due > now.mono_ms => continue,
                Turn::Blocked => continue,
                // Only behind the event before it, in the same delivery.
                Turn::With(_) => shares.give_behind(ledger, key, offset, bytes, history),
                Turn::Anyone => shares.give_again(ledger, key, offset, bytes, history, wait.by),
            };
            if let Given::To(consumer) = given {
                next.extend(table.waiting_behind(offset).filter(|it| range.contains(it)).map(Reverse));
                given_parts.insert(part);
                table.enter_in_flight(offset, key, consumer);
                self.drains[*partition].give();
                progress = true;
            }
        }
        ledger
            .partitions
            .update(*partition, |it| given_parts.iter().for_each(|part| it.take_run(&part, false)));
        progress
    }

    /// Gives new events, lets those wait whose turn it is not; returns behind the last one, and how many wait.
    fn assign_fresh(
        &mut self,
        ledger: &mut Ledger,
        now: Now,
        stretch: &Stretch<'_>,
        shares: &mut Shares<'_>,
    ) -> (u64, u64) {
        let Stretch { partition, range, contents, .. } = stretch;
        let fresh = ledger.partitions.get(*partition).fresh();
        let Some(fresh) = fresh.filter(|fresh| fresh.range.start == range.start) else {
            return (range.start, 0);
        };
        let (mut at, end) = (range.start, range.end.min(fresh.range.end));
        let others = self.waiting_bytes(ledger, Some(*partition)) + EVENT_BYTES_MAX;
        self.stalled[*partition] = None;
        let (mut walk, mut id, mut left_waiting) = (contents.walk(), None, 0);
        while at < end {
            if let Some(hole) = walk.hole_at(at) {
                let hole = at..hole.end.min(end);
                ledger.use_up(now, *partition, &hole, true, contents);
                at = hole.end;
                continue;
            }
            let (part, bytes) = (at..at + 1, walk.bytes_of(at));
            let table = &mut self.tables[*partition];
            let key = Key::of(at, walk.key_of(at));
            let key_id = *id.insert(table.id(key));
            let given = match table.turn_of_new(key_id) {
                Turn::Blocked => Given::Later,
                Turn::With(holder) => shares.give_to(ledger, holder, at, bytes),
                Turn::Anyone => match shares.give_anyone(ledger, at, bytes) {
                    Given::Later | Given::NoRoom(_) => break,
                    given => given,
                },
            };
            match given {
                Given::To(consumer) => {
                    ledger.partitions.update(*partition, |it| it.take_run(&part, true));
                    table.enter_in_flight(at, key_id, consumer);
                }
                Given::NoRoom(until) if until > now.mono_ms && !shares.somebody_is_short(ledger) => {
                    self.stalled[*partition] = Some(Stall { offset: at, key, until });
                    break;
                }
                Given::Later | Given::NoRoom(_)
                    if table.waiting_bytes() + ledger.partitions.get(*partition).waiting_bytes() + others
                        <= self.waiting_bytes_max =>
                {
                    ledger.partitions.update(*partition, |it| {
                        it.take_run(&part, true);
                        it.wait(part, Wait { due: now.mono_ms, by: None });
                    });
                    table.enter(ledger, *partition, at, key_id);
                    left_waiting += 1;
                }
                Given::Full | Given::Later | Given::NoRoom(_) => break,
            }
            at += 1;
        }
        // The last one may not have been taken.
        id.into_iter().for_each(|id| self.tables[*partition].let_go(id));
        (at, left_waiting)
    }

    /// True if the next new event of a partition is for a consumer that lacks room for a moment only; nobody else may need
    /// more meanwhile.
    fn is_stalled(&self, ledger: &Ledger, partition: usize, next: u64, now: u64) -> bool {
        let stall = self.stalled[partition].filter(|stall| stall.offset == next && stall.until > now);
        let Some(Stall { key, .. }) = stall else { return false };
        let Turn::With(holder) = self.tables[partition].turn_of_new_key(key) else { return false };
        let place = ledger.consumers.index_of(holder);
        place.is_some_and(|place| ledger.consumers.room(place).is_none())
    }

    /// Has what waits given before anything new of a partition is read, if most of that would have to wait as well.
    fn drain(&mut self, ledger: &Ledger, now: Now, partition: usize) {
        let table = &self.tables[partition];
        let (waiting, blocked) = (table.waiting() as u64, table.known_keys() / BLOCKED_KEYS_PART);
        // While much less waits than is in flight, consumers would run dry meanwhile.
        if 2 * waiting > ledger.consumers.in_flight()
            && table.has_blocked_keys(now.mono_ms, blocked.max(BLOCKED_KEYS_MIN))
        {
            self.drains[partition].begin(now.mono_ms, waiting);
        }
    }

    /// True if a consumer that may get new events may run dry before it gets more.
    fn somebody_is_short(ledger: &Ledger, reserved: Option<ConsumerId>) -> bool {
        let consumers = &ledger.consumers;
        let passing = consumers.somebody_responds();
        consumers.short(|_| Room { events: 0, bytes: 0 }).any(|place| {
            let consumer = &consumers.list()[place];
            Some(consumer.id()) != reserved && !(passing && consumer.is_silent())
        })
    }

    /// True once what was in flight when the last event failed has settled, as far as counts tell: otherwise whoever lets
    /// one of a hundred fail has all the others looked at again each time.
    fn is_over(&self, ledger: &Ledger) -> bool {
        self.unknown.is_empty() && self.given >= ledger.consumers.in_flight()
    }

    /// Events have failed: [`ByKey::update`] says which.
    pub(super) fn failed(&mut self) {
        self.given = 0;
    }

    /// Enters where the offsets of a range stand now: they were settled or lost, or wait.
    pub(in crate::subscription) fn update(
        &mut self,
        ledger: &mut Ledger,
        partition: usize,
        range: &Range<u64>,
    ) {
        for key in self.tables[partition].update(ledger, partition, range) {
            self.rewind(ledger, partition, key);
        }
        self.update_unknown(partition);
    }

    /// Offsets that had settled are open again.
    pub(in crate::subscription) fn reopened(
        &mut self,
        ledger: &Ledger,
        partition: usize,
        range: &Range<u64>,
    ) {
        self.tables[partition].forget(ledger, partition, range);
        self.update_unknown(partition);
    }
}

#[cfg(test)]
impl ByKey {
    pub(in crate::subscription) fn knows_keys(&self, partition: usize) -> bool {
        !self.unknown.contains(&partition)
    }
}

impl Policy for ByKey {
    fn choose(&self, ledger: &Ledger, now: u64) -> Option<Choice> {
        let again = Some(Again { attempts: 0, alone: false, by: None });
        if ledger.consumers.list().is_empty() {
            return None;
        }
        let is_read = |partition: &&usize| ledger.partitions.get(**partition).is_fetching(true);
        let few = self.unknown.iter().filter(is_read).count() < LEARNING_MAX;
        let learning = self.unknown.iter().filter(|partition| few && !is_read(partition));
        if let Some(partition) = learning.min().copied() {
            let unknown = self.tables[partition].first_unknown()?;
            let range = unknown.start..unknown.end.min(unknown.start.saturating_add(RUN_OFFSETS_MAX));
            return Some(Choice { partition, run: Run { range, again } });
        }
        ledger.consumers.with_room().next()?;
        let reserved = self.reserved(ledger, now);
        let list = ledger.consumers.list();
        let passing = ledger.consumers.somebody_responds();
        let takers = || {
            let with_room = ledger.consumers.with_room().map(|(place, _)| &list[place]);
            with_room.filter(|consumer| !(passing && consumer.is_silent()))
        };
        let idle = takers().any(Consumer::is_idle);
        let takes = takers().any(|consumer| Some(consumer.id()) != reserved);
        let known = |partition: usize| !self.unknown.contains(&partition);
        let waiting =
            ledger.partitions.retrying().filter(|(index, it)| !it.is_fetching(true) && known(*index));
        let mut due = waiting.filter_map(|(partition, it)| {
            let due = self.tables[partition].due(now).take(DUE_KEYS_MAX);
            let may = |offset: &u64| if it.history_of(*offset).is_alone() { idle } else { takes };
            let offsets: Vec<u64> = due.filter(may).collect();
            let first = *offsets.iter().min()?;
            // With what waits behind them.
            let reach = first..first.saturating_add(RUN_OFFSETS_MAX);
            let near = offsets.into_iter().filter(|offset| reach.contains(offset));
            let last = near.map(|offset| self.tables[partition].last_behind(offset, reach.end)).max()?;
            Some(Choice { partition, run: Run { range: first..last + 1, again } })
        });
        let fresh = || {
            if !takes || self.is_full(ledger) {
                return None;
            }
            let short = LazyCell::new(|| Self::somebody_is_short(ledger, reserved));
            ledger.partitions.readable().find_map(|(partition, it)| {
                let run = it.fresh().filter(|_| !it.is_fetching(false) && known(partition))?;
                let stalled = self.is_stalled(ledger, partition, run.range.start, now) && !*short;
                (!stalled && self.drains[partition].until(now).is_none()).then_some(Choice { partition, run })
            })
        };
        due.next().or_else(fresh)
    }

    fn next_deadline(&self, now: u64) -> Option<u64> {
        let stalls = self.stalled.iter().flatten().map(|stall| stall.until);
        let drains = self.drains.iter().filter_map(|drain| drain.until(now));
        stalls.chain(drains).filter(|until| *until > now).min()
    }
}
