//! The keys of events that are in flight or wait, in one partition: which key is held by whom, and what of it may go next.
//!
//! Where an offset stands is the partition's to say; this looks it up and never decides it. It must not know consumers'
//! credit.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Range,
};

use foldhash::fast::RandomState;

use super::{
    key::Key,
    key_pages::{KeyId, KeyPages, List, Slot},
};
use crate::{
    ranges::RangeSet,
    subscription::{
        consumer::ConsumerId,
        ledger::Ledger,
        partition::{Partition, Place},
    },
};

/// Room for so many keys is kept although it is not needed.
const SMALL: usize = 64;
/// What a key takes in memory, in bytes: its entry, and those of the map of ids and of the keys that may go next.
const KEY_BYTES: usize = size_of::<Entry>() + 2 * size_of::<(Key, KeyId)>() + 2 * size_of::<(u64, u64)>();
/// The most that one more event which waits may take: a key, a page, and a run.
pub(super) const EVENT_BYTES_MAX: usize = KEY_BYTES + KeyPages::PAGE_BYTES + Partition::WAITING_RUN_BYTES;
/// Events of a key that are looked at to say how far to read for them.
const LOOKAHEAD: usize = 16;

/// Who may get an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// An earlier event of its key waits, or such events are in flight at several consumers, as after a commit that failed.
    Blocked,
    /// Earlier events of its key are in flight at this consumer.
    With(ConsumerId),
    /// Anybody.
    Anyone,
}

/// One key's events.
#[derive(Debug)]
struct Entry {
    key: Key,
    list: List,
    first_waiting: Slot,
    last_in_flight: Slot,
    in_flight: u32,
    /// Who has what is in flight; `None` if several have, or nothing is.
    holder: Option<ConsumerId>,
    /// Its place in `next`.
    next: Option<(u64, u64)>,
}

impl Entry {
    fn new(key: Key) -> Self {
        Self {
            key,
            list: List::EMPTY,
            first_waiting: Slot::NONE,
            last_in_flight: Slot::NONE,
            in_flight: 0,
            holder: None,
            next: None,
        }
    }

    fn is_empty(&self) -> bool {
        self.list == List::EMPTY
    }

    /// Who may get an event of it, where an earlier one waits or not.
    fn turn(&self, waits_behind: bool) -> Turn {
        match self.holder {
            _ if waits_behind => Turn::Blocked,
            _ if self.in_flight == 0 => Turn::Anyone,
            Some(holder) => Turn::With(holder),
            None => Turn::Blocked,
        }
    }
}

/// The table of one partition.
#[derive(Debug, Default)]
pub(super) struct KeyTable {
    /// In flight or waiting, and it has not been read yet which keys they have.
    unknown: RangeSet,
    pages: KeyPages,
    ids: HashMap<Key, KeyId, RandomState>,
    entries: Vec<Entry>,
    /// Entries of no key.
    free: Vec<KeyId>,
    /// The first waiting event of each key of which nothing is in flight: when it is due, and its offset.
    next: BTreeSet<(u64, u64)>,
    /// How many events with known keys wait, and of how many keys.
    waiting: usize,
    keys_waiting: usize,
    /// Empty; kept for its memory.
    known: Vec<Slot>,
}

impl KeyTable {
    /// The table of a partition of which no keys are known yet.
    pub(super) fn new(partition: &Partition) -> Self {
        let mut table = Self::default();
        partition.open_parts(&(0..u64::MAX)).into_iter().for_each(|part| table.unknown.insert(part));
        table
    }

    /// The first offsets of which the keys have to be read.
    pub(super) fn first_unknown(&self) -> Option<Range<u64>> {
        self.unknown.iter().next()
    }

    /// How many events with known keys wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// What those take here, in bytes: about, and not too little.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.keys_waiting * KEY_BYTES + self.pages.waiting_pages() * KeyPages::PAGE_BYTES
    }

    /// The first waiting event of each key that may go to anybody and is due, the one that has been due for longest first.
    pub(super) fn due(&self, now: u64) -> impl Iterator<Item = u64> {
        self.next.range(..=(now, u64::MAX)).map(|(_, offset)| *offset)
    }

    /// How far to read for what waits of a key behind its first waiting event, of which nothing is in flight: to its last
    /// event before `end`, or to the end where there are many.
    pub(super) fn last_behind(&self, first: u64, end: u64) -> u64 {
        let Some(slot) = self.pages.find(first) else { return first };
        let last = self.entries[index(self.pages.key(slot))].list.last;
        if let Some(last) = last.some().map(|last| self.pages.offset(last)).filter(|last| *last < end) {
            return last;
        }
        let mut last = first;
        for behind in self.pages.from(slot).skip(1).take(LOOKAHEAD).map(|slot| self.pages.offset(slot)) {
            if behind >= end {
                return last;
            }
            last = behind;
        }
        end - 1
    }

    /// The key of an event in flight or waiting, if it is known.
    pub(super) fn key_of(&self, offset: u64) -> Option<KeyId> {
        self.pages.find(offset).map(|slot| self.pages.key(slot))
    }

    /// The next event of its key that waits behind this one.
    pub(super) fn waiting_behind(&self, offset: u64) -> Option<u64> {
        let behind = self.pages.from(self.pages.find(offset)?).skip(1).find(|slot| self.pages.waits(*slot));
        behind.map(|slot| self.pages.offset(slot))
    }

    /// The id of a key. It holds until [`KeyTable::let_go`], or until nothing of the key is in flight or waits any more.
    pub(super) fn id(&mut self, key: Key) -> KeyId {
        if self.ids.is_empty() && self.entries.len() > SMALL {
            // Nobody has an id, and nothing is known: what a burst took that is over is given back.
            (self.entries, self.free, self.known) = (Vec::new(), Vec::new(), Vec::new());
            (self.ids, self.pages) = (HashMap::default(), KeyPages::default());
        }
        *self.ids.entry(key).or_insert_with(|| match self.free.pop() {
            Some(id) => {
                self.entries[index(id)].key = key;
                id
            }
            None => {
                self.entries.push(Entry::new(key));
                KeyId(u32::try_from(self.entries.len() - 1).expect("fewer events are in flight or wait"))
            }
        })
    }

    /// Forgets a key of which nothing is in flight or waits.
    pub(super) fn let_go(&mut self, id: KeyId) {
        let entry = &mut self.entries[index(id)];
        if !entry.is_empty() {
            return;
        }
        if let Some(before) = entry.next.take() {
            self.next.remove(&before);
        }
        self.ids.remove(&entry.key);
        entry.holder = None;
        self.free.push(id);
    }

    /// Who may get an event of this key that is behind all others of it which are known.
    pub(super) fn turn_of_new(&self, id: KeyId) -> Turn {
        let entry = &self.entries[index(id)];
        entry.turn(entry.first_waiting != Slot::NONE)
    }

    /// The same by the key.
    pub(super) fn turn_of_new_key(&self, key: Key) -> Turn {
        self.ids.get(&key).map_or(Turn::Anyone, |id| self.turn_of_new(*id))
    }

    /// Who may get an event of this key that waits.
    pub(super) fn turn(&self, offset: u64, id: KeyId) -> Turn {
        self.entries[index(id)].turn(self.first_waiting(id).is_some_and(|first| first < offset))
    }

    /// How many keys have events in flight or waiting.
    pub(super) fn known_keys(&self) -> usize {
        self.ids.len()
    }

    /// True if more keys than `count` have events that wait for others of their keys or for a consumer, and for no time.
    pub(super) fn has_blocked_keys(&self, now: u64, count: usize) -> bool {
        let behind_others = self.keys_waiting.saturating_sub(self.next.len());
        let Some(rest) = count.checked_sub(behind_others) else { return true };
        self.due(now).take(rest + 1).count() > rest
    }

    /// Takes the parts of a range of which the keys had to be read.
    pub(super) fn take_unknown(&mut self, range: &Range<u64>) -> Vec<Range<u64>> {
        let parts = self.unknown.runs_in(range).collect();
        self.unknown.remove(range.clone());
        parts
    }

    /// Enters an event, or moves it, to where it stands now; true if something of its key is in flight behind one that waits.
    pub(super) fn enter(&mut self, ledger: &Ledger, partition: usize, offset: u64, id: KeyId) -> bool {
        let books = ledger.partitions.get(partition);
        match books.place_of(offset) {
            Place::InFlight { token } => {
                let holder = ledger.deliveries.get(token).map(|delivery| delivery.consumer());
                self.hold(offset, id, holder);
            }
            Place::Waiting { .. } => self.let_wait(offset, id),
            Place::Elsewhere => {
                if let Some(slot) = self.pages.find(offset) {
                    self.remove(slot, id);
                }
            }
        }
        self.refresh(books, id)
    }

    /// Enters an event that goes to a consumer at once.
    pub(super) fn enter_in_flight(&mut self, offset: u64, id: KeyId, holder: ConsumerId) {
        self.hold(offset, id, Some(holder));
        if let Some(next) = self.entries[index(id)].next.take() {
            self.next.remove(&next);
        }
    }

    /// Enters where the offsets of a range stand now; returns the keys among them of which something is in flight behind an
    /// event that waits.
    pub(super) fn update(&mut self, ledger: &Ledger, partition: usize, range: &Range<u64>) -> Vec<KeyId> {
        let books = ledger.partitions.get(partition);
        if books.open_parts(range).is_empty() {
            return self.settle(books, range);
        }
        let mut ahead = Vec::new();
        let mut known = std::mem::take(&mut self.known);
        self.pages.known_in(range, &mut known);
        for slot in known.drain(..) {
            let (offset, id) = (self.pages.offset(slot), self.pages.key(slot));
            if self.enter(ledger, partition, offset, id) && ahead.last() != Some(&id) {
                ahead.push(id);
            }
        }
        self.known = known;
        for run in self.take_unknown(range) {
            books.open_parts(&run).into_iter().for_each(|part| self.unknown.insert(part));
        }
        ahead
    }

    /// Nothing of a range is in flight or waits any more; returns as [`KeyTable::update`] does.
    fn settle(&mut self, books: &Partition, range: &Range<u64>) -> Vec<KeyId> {
        let mut ahead = Vec::new();
        let mut known = std::mem::take(&mut self.known);
        self.pages.known_in(range, &mut known);
        for slot in known.drain(..) {
            let id = self.pages.key(slot);
            self.remove(slot, id);
            if self.refresh(books, id) {
                ahead.push(id);
            }
        }
        self.known = known;
        if !self.unknown.is_empty() {
            self.unknown.remove(range.clone());
        }
        ahead
    }

    /// Offsets that had settled are open again: their keys have to be read anew.
    pub(super) fn forget(&mut self, ledger: &Ledger, partition: usize, range: &Range<u64>) {
        for part in ledger.partitions.get(partition).open_parts(range) {
            let unknown = part.filter(|offset| self.pages.find(*offset).is_none());
            unknown.for_each(|offset| self.unknown.insert(offset..offset + 1));
        }
    }

    /// What is in flight of a key behind its first waiting event, which must come back; in order.
    pub(super) fn ahead_of_turn(&self, id: KeyId) -> Vec<u64> {
        let Some(first) = self.first_waiting(id) else { return Vec::new() };
        let last = self.pages.back_from(self.entries[index(id)].last_in_flight);
        let behind = last.take_while(|slot| self.pages.offset(*slot) > first);
        let in_flight = behind.filter(|slot| !self.pages.waits(*slot));
        let mut ahead: Vec<u64> = in_flight.map(|slot| self.pages.offset(slot)).collect();
        ahead.reverse();
        ahead
    }

    pub(super) fn first_waiting(&self, id: KeyId) -> Option<u64> {
        self.entries[index(id)].first_waiting.some().map(|slot| self.pages.offset(slot))
    }

    /// Counts an event among those in flight.
    fn hold(&mut self, offset: u64, id: KeyId, holder: Option<ConsumerId>) {
        let slot = match self.pages.find(offset) {
            Some(slot) if !self.pages.waits(slot) => slot,
            Some(slot) => {
                self.leave_waiting(slot, id);
                self.pages.set_waits(slot, false);
                self.entries[index(id)].in_flight += 1;
                slot
            }
            None => {
                let entry = &mut self.entries[index(id)];
                entry.in_flight += 1;
                self.pages.enter(offset, id, false, &mut entry.list)
            }
        };
        let entry = &mut self.entries[index(id)];
        entry.holder =
            if entry.in_flight == 1 { holder } else { entry.holder.filter(|it| Some(*it) == holder) };
        let is_last = entry.last_in_flight.some().is_none_or(|last| self.pages.offset(last) < offset);
        if is_last {
            entry.last_in_flight = slot;
        }
    }

    /// Counts an event among those that wait.
    fn let_wait(&mut self, offset: u64, id: KeyId) {
        let slot = match self.pages.find(offset) {
            // What stands where it stood is not moved: it may be one of very many.
            Some(slot) if self.pages.waits(slot) => return,
            Some(slot) => {
                self.leave_flight(slot, id);
                self.pages.set_waits(slot, true);
                slot
            }
            None => self.pages.enter(offset, id, true, &mut self.entries[index(id)].list),
        };
        self.waiting += 1;
        let first = self.first_waiting(id);
        self.keys_waiting += usize::from(first.is_none());
        if first.is_none_or(|first| offset < first) {
            self.entries[index(id)].first_waiting = slot;
        }
    }

    /// Takes an event out that is neither in flight nor waits any more.
    fn remove(&mut self, slot: Slot, id: KeyId) {
        if self.pages.waits(slot) {
            self.leave_waiting(slot, id);
        } else {
            self.leave_flight(slot, id);
        }
        self.pages.remove(slot, &mut self.entries[index(id)].list);
    }

    fn leave_waiting(&mut self, slot: Slot, id: KeyId) {
        self.waiting -= 1;
        let entry = &mut self.entries[index(id)];
        if entry.first_waiting == slot {
            let mut behind = self.pages.from(self.pages.behind(slot));
            entry.first_waiting = behind.find(|slot| self.pages.waits(*slot)).unwrap_or(Slot::NONE);
            self.keys_waiting -= usize::from(entry.first_waiting == Slot::NONE);
        }
    }

    fn leave_flight(&mut self, slot: Slot, id: KeyId) {
        let entry = &mut self.entries[index(id)];
        entry.in_flight -= 1;
        if entry.last_in_flight == slot {
            let mut before = self.pages.back_from(self.pages.before(slot));
            entry.last_in_flight = before.find(|slot| !self.pages.waits(*slot)).unwrap_or(Slot::NONE);
        }
    }

    /// Brings what of a key is next up to date; true if something of it is in flight behind an event that waits.
    fn refresh(&mut self, books: &Partition, id: KeyId) -> bool {
        let entry = &self.entries[index(id)];
        if entry.is_empty() {
            self.let_go(id);
            return false;
        }
        let Some(first) = self.first_waiting(id) else {
            self.set_next(id, None);
            return false;
        };
        if let Some(last) = entry.last_in_flight.some() {
            let is_ahead = first < self.pages.offset(last);
            self.set_next(id, None);
            return is_ahead;
        }
        let next = match books.place_of(first) {
            Place::Waiting { wait } => Some((wait.due, first)),
            Place::InFlight { .. } | Place::Elsewhere => None,
        };
        self.set_next(id, next);
        false
    }

    fn set_next(&mut self, id: KeyId, next: Option<(u64, u64)>) {
        let before = std::mem::replace(&mut self.entries[index(id)].next, next);
        if before != next {
            if let Some(before) = before {
                self.next.remove(&before);
            }
            self.next.extend(next);
        }
    }
}

fn index(id: KeyId) -> usize {
    id.0 as usize
}
