//! The offsets of events by the hashes of their ids: 16 bytes an entry, in small tables that grow one at a time.
//!
//! The tables are found by a directory, as in extendible hashing: when one is full it grows by half, and beyond a bound
//! it splits in two. So no insertion ever moves more than a few thousand entries, and the tables are half to three quarters
//! full.
//!
//! An entry has 87 bits of the hash, mixed with a secret seed, and 40 of the offset. Two ids of a partition are taken for
//! one with a probability of about their number divided by 2^87; nobody who does not know the seed can make entries
//! gather in one place.

use std::{hint, mem};

/// Entries that a table has room for at most, unless its entries cannot be told apart by the directory.
const CAPACITY_MAX: usize = 8_192;
const CAPACITY_MIN: usize = 16;
/// Bits of the hash by which the directory can tell tables apart at most.
const DEPTH_MAX: u32 = 16;
const TAG_BITS: u32 = 24;
const OFFSET_BITS: u32 = 40;
const OFFSET_MASK: u64 = (1 << OFFSET_BITS) - 1;

/// One id; `low` is odd, so that all zeros are an empty slot.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    low: u64,
    /// 24 bits of the hash, then 40 of the offset.
    high: u64,
}

impl Slot {
    fn is_empty(self) -> bool {
        self.low == 0
    }

    fn tag(self) -> u64 {
        self.high >> OFFSET_BITS
    }

    /// True for the same id, wherever it was.
    fn is_same_id(self, other: Self) -> bool {
        self.low == other.low && self.tag() == other.tag()
    }

    /// The whole offset: the first at or after `floor` with these bits.
    fn offset(self, floor: u64) -> u64 {
        floor.wrapping_add((self.high & OFFSET_MASK).wrapping_sub(floor) & OFFSET_MASK)
    }
}

/// Which offsets are alive: those from `floor` to before `next`, less than 2^40 of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Alive {
    pub(super) floor: u64,
    pub(super) next: u64,
}

impl Alive {
    fn offset(self, slot: Slot) -> Option<u64> {
        Some(slot.offset(self.floor)).filter(|offset| *offset < self.next)
    }
}

/// One small table: open addressing, linear probing.
#[derive(Debug)]
struct Part {
    slots: Box<[Slot]>,
    len: usize,
    /// How many bits of the tag its entries have in common.
    depth: u32,
}

impl Part {
    /// With room for so many entries and half as many more.
    fn of(entries: usize, depth: u32) -> Self {
        let slots = vec![Slot::default(); Self::capacity_for(entries)].into_boxed_slice();
        Self { slots, len: 0, depth }
    }

    /// Slots for so many entries: few enough to take less than 32 bytes each, and so many that an id is found at the place
    /// where it is looked for first or close to it, and that half as many more come before all are moved again.
    fn capacity_for(entries: usize) -> usize {
        (entries * 25 / 13).max(CAPACITY_MIN)
    }

    /// Where this id is looked for first.
    #[inline]
    fn first_place(&self, wanted: Slot) -> usize {
        usize::try_from((u128::from(wanted.low) * self.slots.len() as u128) >> 64).unwrap_or(0)
    }

    /// Where this id is, or would be.
    #[inline]
    fn place(&self, wanted: Slot) -> usize {
        let capacity = self.slots.len();
        let mut at = self.first_place(wanted);
        loop {
            let slot = self.slots[at];
            if slot.is_empty() || slot.is_same_id(wanted) {
                return at;
            }
            at = if at + 1 == capacity { 0 } else { at + 1 };
        }
    }

    fn is_full(&self) -> bool {
        (self.len + 1) * 4 > self.slots.len() * 3
    }

    /// Adds an entry that is not there; there must be room.
    fn add(&mut self, slot: Slot) {
        let place = self.place(slot);
        self.slots[place] = slot;
        self.len += 1;
    }

    fn alive(&self, alive: Alive) -> impl Iterator<Item = Slot> {
        let slots = self.slots.iter().copied();
        slots.filter(move |slot| !slot.is_empty() && alive.offset(*slot).is_some())
    }
}

/// See the file's head.
#[derive(Debug)]
pub(super) struct Table {
    seed: [u64; 2],
    /// The index of the part for each value of the tag's first `depth` bits.
    directory: Vec<u32>,
    depth: u32,
    parts: Vec<Part>,
    /// Entries in all parts, dead ones included.
    len: usize,
    /// The part that is looked at next for dead entries.
    swept: usize,
}

impl Table {
    pub(super) fn new(seed: [u64; 2]) -> Self {
        Self { seed, directory: vec![0], depth: 0, parts: vec![Part::of(0, 0)], len: 0, swept: 0 }
    }

    /// How many entries there are, dead ones included.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        let slots = self.parts.iter().map(|part| part.slots.len()).sum::<usize>() * size_of::<Slot>();
        slots + self.parts.capacity() * size_of::<Part>() + self.directory.capacity() * size_of::<u32>()
    }

    /// The slot of an id at an offset.
    #[inline]
    fn slot(&self, hash: u128, offset: u64) -> Slot {
        let (first, second) = (hash as u64, (hash >> 64) as u64);
        let product = |a: u64, b: u64| {
            let product = u128::from(a) * u128::from(b);
            product as u64 ^ (product >> 64) as u64
        };
        let low = product(first ^ self.seed[0], second ^ self.seed[1]);
        let tag = product(first ^ self.seed[1].rotate_left(32), second ^ !self.seed[0]) >> OFFSET_BITS;
        Slot { low: low | 1, high: tag << OFFSET_BITS | (offset & OFFSET_MASK) }
    }

    #[inline]
    fn part_of(&self, slot: Slot) -> usize {
        let index = slot.tag() >> (TAG_BITS - self.depth);
        self.directory[usize::try_from(index).unwrap_or(0)] as usize
    }

    /// Reads the memory in which these ids are looked for. One such read takes much longer than all else about an id, and
    /// the processor makes several at once if none waits for another.
    pub(super) fn touch(&self, hashes: impl Iterator<Item = u128>) {
        let read = |hash| {
            let slot = self.slot(hash, 0);
            let part = &self.parts[self.part_of(slot)];
            part.slots[part.first_place(slot)].low
        };
        hint::black_box(hashes.map(read).fold(0, |all, low| all ^ low));
    }

    /// The offset of this id, if it is alive; otherwise it is at `offset` from now on, which `alive` does not include yet.
    #[inline]
    pub(super) fn find_or_add(&mut self, hash: u128, offset: u64, alive: Alive) -> Option<u64> {
        let slot = self.slot(hash, offset);
        let index = self.part_of(slot);
        let part = &mut self.parts[index];
        let place = part.place(slot);
        let found = part.slots[place];
        if found.is_empty() {
            if part.is_full() {
                self.make_room(index, alive);
                let index = self.part_of(slot);
                self.parts[index].add(slot);
            } else {
                part.slots[place] = slot;
                part.len += 1;
            }
            self.len += 1;
            return None;
        }
        let first = alive.offset(found);
        if first.is_none() {
            part.slots[place] = slot;
        }
        first
    }

    /// Puts this id at `offset`, wherever it was; returns where that was, if it was alive.
    pub(super) fn replace(&mut self, hash: u128, offset: u64, alive: Alive) -> Option<u64> {
        let before = self.find_or_add(hash, offset, alive);
        if before.is_some() {
            let slot = self.slot(hash, offset);
            let index = self.part_of(slot);
            let part = &mut self.parts[index];
            let place = part.place(slot);
            part.slots[place] = slot;
        }
        before
    }

    /// Takes the dead entries out of a full part, and gives it as much room as the others need; beyond a bound, makes two of it.
    #[cold]
    fn make_room(&mut self, index: usize, alive: Alive) {
        let part = &self.parts[index];
        let (depth, count) = (part.depth, part.alive(alive).count());
        if Part::capacity_for(count) <= CAPACITY_MAX || depth == DEPTH_MAX {
            self.rebuild(index, count, alive);
        } else {
            self.split(index, alive);
        }
    }

    /// Replaces a part by one with room for so many entries and half as many more, and without dead ones.
    fn rebuild(&mut self, index: usize, entries: usize, alive: Alive) {
        let part = &mut self.parts[index];
        let mut rebuilt = Part::of(entries, part.depth);
        part.alive(alive).for_each(|slot| rebuilt.add(slot));
        self.len = self.len + rebuilt.len - part.len;
        *part = rebuilt;
    }

    /// Makes two parts of one, by the next bit of their tags.
    fn split(&mut self, index: usize, alive: Alive) {
        let depth = self.parts[index].depth + 1;
        if depth > self.depth {
            self.directory = self.directory.iter().flat_map(|part| [*part, *part]).collect();
            self.depth = depth;
        }
        let is_second = |slot: Slot| slot.tag() >> (TAG_BITS - depth) & 1 == 1;
        let second_index = self.parts.len();
        let whole = mem::replace(&mut self.parts[index], Part::of(0, depth));
        let seconds = whole.alive(alive).filter(|slot| is_second(*slot)).count();
        let count = whole.alive(alive).count();
        let (mut first, mut second) = (Part::of(count - seconds + 1, depth), Part::of(seconds + 1, depth));
        for slot in whole.alive(alive) {
            if is_second(slot) { second.add(slot) } else { first.add(slot) }
        }
        self.len = self.len + count - whole.len;
        self.parts[index] = first;
        self.parts.push(second);
        // Of the directory's entries for the whole, the second half is those whose next bit is 1.
        let second_number = u32::try_from(second_index).expect("there are at most 2^16 parts");
        for (at, part) in self.directory.iter_mut().enumerate() {
            if *part as usize == index && at >> (self.depth - depth) & 1 == 1 {
                *part = second_number;
            }
        }
    }

    /// Takes the dead entries out of the next `parts` parts, in turn.
    pub(super) fn sweep(&mut self, parts: usize, alive: Alive) {
        for _ in 0..parts.min(self.parts.len()) {
            self.swept = if self.swept + 1 >= self.parts.len() { 0 } else { self.swept + 1 };
            let part = &self.parts[self.swept];
            let count = part.alive(alive).count();
            if count < part.len {
                self.rebuild(self.swept, count + 1, alive);
            }
        }
    }
}
