//! The keys of events that are in flight or wait, in one partition: which key is held by whom, and what of it may go next.
//!
//! Where an offset stands is the partition's to say; this looks it up and never decides it. It must not know consumers'
//! credit.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Range,
};

use foldhash::fast::RandomState;

use super::{key::Key, key_pages::KeyPages, sorted_offsets::SortedOffsets};
use crate::{
    ranges::RangeSet,
    subscription::{
        consumer::ConsumerId,
        ledger::Ledger,
        partition::{Partition, Place},
    },
};

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
#[derive(Debug, Default)]
struct Entry {
    in_flight: SortedOffsets,
    waiting: SortedOffsets,
    /// Who has what is in flight; `None` if several have, or nothing is.
    holder: Option<ConsumerId>,
    /// Its place in `next`.
    next: Option<(u64, u64)>,
}

impl Entry {
    fn hold(&mut self, offset: u64, holder: Option<ConsumerId>) {
        self.in_flight.insert(offset);
        let is_only = self.in_flight.first() == self.in_flight.last();
        self.holder = if is_only { holder } else { self.holder.filter(|it| Some(*it) == holder) };
    }

    /// True if something is in flight behind an event that waits.
    fn is_ahead_of_turn(&self) -> bool {
        let first = self.waiting.first();
        first.is_some_and(|first| self.in_flight.last().is_some_and(|last| first < last))
    }
}

/// The table of one partition.
#[derive(Debug, Default)]
pub(super) struct KeyTable {
    /// In flight or waiting, and it has not been read yet which keys they have.
    unknown: RangeSet,
    offsets: KeyPages,
    entries: HashMap<Key, Entry, RandomState>,
    /// The first waiting event of each key of which nothing is in flight: when it is due, and its offset.
    next: BTreeSet<(u64, u64)>,
    /// How many events with known keys wait.
    waiting: usize,
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

    /// The first waiting event of each key that may go to anybody and is due, the one that has been due for longest first.
    pub(super) fn due(&self, now: u64) -> impl Iterator<Item = u64> {
        self.next.range(..=(now, u64::MAX)).map(|(_, offset)| *offset)
    }

    /// The last event before `end` that waits behind this one, or itself.
    pub(super) fn last_behind(&self, offset: u64, end: u64) -> u64 {
        let entry = self.offsets.get(offset).and_then(|key| self.entries.get(&key));
        let last = entry.and_then(|entry| entry.waiting.last_below(end));
        last.map_or(offset, |last| last.max(offset))
    }

    /// The key of an event in flight or waiting, if it is known.
    pub(super) fn key_of(&self, offset: u64) -> Option<Key> {
        self.offsets.get(offset)
    }

    /// The next event of a key that waits behind this one.
    pub(super) fn waiting_behind(&self, key: Key, offset: u64) -> Option<u64> {
        self.entries.get(&key)?.waiting.first_from(offset + 1)
    }

    /// Who may get the event of this key and offset.
    pub(super) fn turn(&self, offset: u64, key: Key) -> Turn {
        let Some(entry) = self.entries.get(&key) else { return Turn::Anyone };
        if entry.waiting.first().is_some_and(|first| first < offset) {
            return Turn::Blocked;
        }
        match entry.holder {
            _ if entry.in_flight.is_empty() => Turn::Anyone,
            Some(holder) => Turn::With(holder),
            None => Turn::Blocked,
        }
    }

    /// Takes the parts of a range of which the keys had to be read.
    pub(super) fn take_unknown(&mut self, range: &Range<u64>) -> Vec<Range<u64>> {
        let parts = self.unknown.runs_in(range).collect();
        self.unknown.remove(range.clone());
        parts
    }

    /// Enters an event, or moves it, to where it stands now; true if something of its key is in flight behind one that waits.
    pub(super) fn enter(&mut self, ledger: &Ledger, partition: usize, offset: u64, key: Key) -> bool {
        let books = ledger.partitions.get(partition);
        let entry = self.entries.entry(key).or_default();
        // What stands where it stood is not moved: it may be one of very many.
        match books.place_of(offset) {
            Place::InFlight { token } => {
                self.waiting -= usize::from(entry.waiting.remove(offset));
                entry.hold(offset, ledger.deliveries.get(token).map(|delivery| delivery.consumer()));
                self.offsets.set(offset, key);
            }
            Place::Waiting { .. } => {
                entry.in_flight.remove(offset);
                self.waiting += usize::from(entry.waiting.insert(offset));
                self.offsets.set(offset, key);
            }
            Place::Elsewhere => {
                entry.in_flight.remove(offset);
                self.waiting -= usize::from(entry.waiting.remove(offset));
                self.offsets.remove(offset);
            }
        }
        self.refresh(books, key)
    }

    /// Enters an event that goes to a consumer at once.
    pub(super) fn enter_in_flight(&mut self, offset: u64, key: Key, holder: ConsumerId) {
        let entry = self.entries.entry(key).or_default();
        self.waiting -= usize::from(entry.waiting.remove(offset));
        entry.hold(offset, Some(holder));
        if let Some(next) = entry.next.take() {
            self.next.remove(&next);
        }
        self.offsets.set(offset, key);
    }

    /// Enters where the offsets of a range stand now; returns the keys among them of which something is in flight behind an
    /// event that waits.
    pub(super) fn update(&mut self, ledger: &Ledger, partition: usize, range: &Range<u64>) -> Vec<Key> {
        let books = ledger.partitions.get(partition);
        let is_settled = books.open_parts(range).is_empty();
        let mut ahead = Vec::new();
        for (offset, key) in self.offsets.known_in(range) {
            let is_ahead = if is_settled {
                self.settle(books, offset, key)
            } else {
                self.enter(ledger, partition, offset, key)
            };
            if is_ahead {
                ahead.push(key);
            }
        }
        let unknown: Vec<_> = self.unknown.runs_in(range).collect();
        for run in unknown {
            self.unknown.remove(run.clone());
            let open = books.open_parts(&run);
            open.into_iter().for_each(|part| self.unknown.insert(part));
        }
        ahead
    }

    /// An event is neither in flight nor waits any more; returns as [`KeyTable::enter`] does.
    fn settle(&mut self, books: &Partition, offset: u64, key: Key) -> bool {
        self.offsets.remove(offset);
        let Some(entry) = self.entries.get_mut(&key) else { return false };
        if !entry.in_flight.remove(offset) {
            self.waiting -= usize::from(entry.waiting.remove(offset));
        }
        self.refresh(books, key)
    }

    /// Offsets that had settled are open again: their keys have to be read anew.
    pub(super) fn forget(&mut self, ledger: &Ledger, partition: usize, range: &Range<u64>) {
        for part in ledger.partitions.get(partition).open_parts(range) {
            let unknown = part.filter(|offset| self.offsets.get(*offset).is_none());
            unknown.for_each(|offset| self.unknown.insert(offset..offset + 1));
        }
    }

    /// What is in flight of a key behind its first waiting event, which must come back.
    pub(super) fn ahead_of_turn(&self, key: Key) -> Vec<u64> {
        let Some(first) = self.first_waiting(key) else { return Vec::new() };
        self.entries[&key].in_flight.from(first).collect()
    }

    pub(super) fn first_waiting(&self, key: Key) -> Option<u64> {
        self.entries.get(&key)?.waiting.first()
    }

    /// Brings what of a key is next up to date; true if something of it is in flight behind an event that waits.
    fn refresh(&mut self, books: &Partition, key: Key) -> bool {
        let Some(entry) = self.entries.get_mut(&key) else { return false };
        if entry.in_flight.is_empty() && entry.waiting.is_empty() {
            if let Some(before) = entry.next {
                self.next.remove(&before);
            }
            self.entries.remove(&key);
            return false;
        }
        let first = entry.waiting.first().filter(|_| entry.in_flight.is_empty());
        let next = first.and_then(|offset| match books.place_of(offset) {
            Place::Waiting { wait } => Some((wait.due, offset)),
            Place::InFlight { .. } | Place::Elsewhere => None,
        });
        if entry.next != next {
            if let Some(before) = std::mem::replace(&mut entry.next, next) {
                self.next.remove(&before);
            }
            self.next.extend(next);
        }
        entry.is_ahead_of_turn()
    }
}
