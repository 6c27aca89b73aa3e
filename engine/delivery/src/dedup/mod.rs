//! Which event ids one partition has seen within a window of time, and at which offsets.
//!
//! Owns the rule: an id is remembered for its window, and for at most a 1,024th of it longer, by append times. It must
//! not know events, rows or how hashes are made; time is an argument.

mod table;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use levada_protocol::ids::{Offset, Timestamp};

use self::table::{Alive, Table};

/// How much longer than its window an id may be remembered: the window divided by this.
const GRAINS: u64 = 1_024;
/// Parts of the table that are swept when ids have expired.
const SWEPT: usize = 4;
/// Dead entries that are left alone.
const DEAD_MIN: usize = 1_024;

/// The ids of one partition.
#[derive(Debug)]
pub struct Ids {
    seed: [u64; 2],
    table: Table,
    /// When the ids were appended: oldest first.
    marks: VecDeque<Mark>,
    /// Ids before this offset are forgotten.
    floor: u64,
    /// The offset after the last id.
    next: u64,
    /// How many are remembered.
    held: u64,
    /// All ids from after this time on are remembered.
    complete_since: u64,
}

/// Ids that were appended at about the same time and are forgotten together.
#[derive(Debug, Clone, Copy)]
struct Mark {
    first: u64,
    begun: u64,
    newest: u64,
    ids: u64,
}

impl Ids {
    /// None yet. The seed is to be a secret of the process.
    pub fn new(seed: [u64; 2]) -> Self {
        Self {
            seed,
            table: Table::new(seed),
            marks: VecDeque::new(),
            floor: 0,
            next: 0,
            held: 0,
            complete_since: 0,
        }
    }

    /// How many ids are remembered.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// Ids before this offset are forgotten, so that what is stored of them may go.
    pub fn floor(&self) -> Offset {
        Offset(self.floor)
    }

    /// All ids that were appended after this time are remembered.
    pub fn complete_since(&self) -> Timestamp {
        Timestamp(self.complete_since)
    }

    /// Takes over from before a restart since when all ids are remembered.
    pub fn restore_complete_since(&mut self, time: Timestamp) {
        self.complete_since = self.complete_since.max(time.0);
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.table.bytes() + self.marks.capacity() * size_of::<Mark>()
    }

    /// Makes the look-ups of these ids that follow faster. Changes nothing.
    pub fn touch(&self, hashes: impl Iterator<Item = u128>) {
        self.table.touch(hashes);
    }

    /// The offset of the event with this id, if it is remembered; if not, that is the one at `offset` from now on, which
    /// is appended at `time`. Offsets rise; call [`Ids::expire`] with the time before.
    #[inline]
    pub fn find_or_add(
        &mut self,
        hash: u128,
        offset: Offset,
        time: Timestamp,
        window_ms: u64,
    ) -> Option<Offset> {
        let alive = Alive { floor: self.floor, next: self.next };
        let found = self.table.find_or_add(hash, offset.0, alive);
        if found.is_none() {
            self.note(offset.0, time.0, window_ms);
        }
        found.map(Offset)
    }

    /// Takes over an id from before a restart, in the order of offsets. Of an id that is there twice, as it had been
    /// forgotten in between, it is the later event that counts.
    pub fn restore(&mut self, hash: u128, offset: Offset, time: Timestamp, window_ms: u64) {
        let alive = Alive { floor: self.floor, next: self.next };
        if let Some(before) = self.table.replace(hash, offset.0, alive) {
            let behind = self.marks.partition_point(|mark| mark.first <= before);
            if let Some(mark) = behind.checked_sub(1).and_then(|at| self.marks.get_mut(at)) {
                mark.ids -= 1;
                self.held -= 1;
            }
        }
        self.note(offset.0, time.0, window_ms);
    }

    #[inline]
    fn note(&mut self, offset: u64, time: u64, window_ms: u64) {
        self.set_back(time);
        if self.held == 0 && self.marks.is_empty() {
            self.floor = offset;
        }
        match self.marks.back_mut() {
            Some(last) if time.saturating_sub(last.begun) <= window_ms / GRAINS => {
                last.newest = time;
                last.ids += 1;
            }
            _ => self.marks.push_back(Mark { first: offset, begun: time, newest: time, ids: 1 }),
        }
        self.next = offset + 1;
        self.held += 1;
    }

    /// Forgets the ids whose window has passed. What was appended later than `now`, before the clock was set back, counts
    /// as appended now.
    pub fn expire(&mut self, now: Timestamp, window_ms: u64) {
        self.set_back(now.0);
        let mut expired = false;
        while self.marks.front().is_some_and(|mark| now.0 - mark.newest >= window_ms) {
            self.forget_oldest();
            expired = true;
        }
        if expired {
            self.tidy();
        }
    }

    /// Append times go back only where the clock was set back: then the new time is that of everything before.
    #[inline]
    fn set_back(&mut self, now: u64) {
        if self.marks.back().is_none_or(|last| last.newest <= now) {
            return;
        }
        for mark in self.marks.iter_mut().rev().take_while(|mark| mark.newest > now) {
            (mark.begun, mark.newest) = (mark.begun.min(now), now);
        }
        self.complete_since = self.complete_since.min(now);
    }

    /// Forgets the oldest ids, those of about one moment, whether or not their window has passed. Returns how many.
    pub fn forget_oldest(&mut self) -> u64 {
        let Some(mark) = self.marks.pop_front() else { return 0 };
        self.floor = self.marks.front().map_or(self.next, |mark| mark.first);
        self.held -= mark.ids;
        self.complete_since = self.complete_since.max(mark.newest);
        mark.ids
    }

    /// Gives memory back, a little at a time.
    pub fn tidy(&mut self) {
        if self.held == 0 {
            self.table = Table::new(self.seed);
            self.marks = VecDeque::new();
        } else if self.table.len() as u64 > 2 * self.held + DEAD_MIN as u64 {
            self.table.sweep(SWEPT, Alive { floor: self.floor, next: self.next });
        }
    }
}
