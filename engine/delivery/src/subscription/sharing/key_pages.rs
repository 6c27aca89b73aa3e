//! Which key each offset of a partition has that is in flight or waits, and its neighbours of that key: pages of 64 offsets.
//!
//! Offsets that are delivered together lie beside each other, so a page is found once for many of them, and whoever knows a
//! slot finds the next event of its key without a search. It must not know what a key is, nor who holds it.

use std::{cell::Cell, collections::BTreeMap, ops::Range};

const PAGE_OFFSETS: u64 = 64;

/// Names a key of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct KeyId(pub(super) u32);

/// The place of an offset that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot(u32);

impl Slot {
    /// The place of no offset.
    pub(super) const NONE: Self = Self(u32::MAX);

    /// `None` for the place of no offset.
    pub(super) fn some(self) -> Option<Self> {
        (self != Self::NONE).then_some(self)
    }

    fn page(self) -> usize {
        (self.0 / 64) as usize
    }

    fn at(self) -> usize {
        (self.0 % 64) as usize
    }

    fn bit(self) -> u64 {
        1 << self.at()
    }
}

/// The events of a key, in order: its ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct List {
    pub(super) first: Slot,
    pub(super) last: Slot,
}

impl List {
    pub(super) const EMPTY: Self = Self { first: Slot::NONE, last: Slot::NONE };
}

/// Offsets with their keys.
#[derive(Debug, Default)]
pub(super) struct KeyPages {
    pages: Vec<Option<Box<Page>>>,
    /// Places in `pages` without one.
    free: Vec<u32>,
    by_number: BTreeMap<u64, u32>,
    /// Pages of which some offset waits.
    waiting: usize,
    /// The number and the place of the page that was found last.
    recent: Cell<Option<(u64, u32)>>,
}

#[derive(Debug)]
struct Page {
    number: u64,
    /// The offsets that are known.
    known: u64,
    /// Those that wait; the others are in flight.
    waiting: u64,
    keys: [KeyId; PAGE_OFFSETS as usize],
    before: [Slot; PAGE_OFFSETS as usize],
    behind: [Slot; PAGE_OFFSETS as usize],
}

impl Page {
    fn new(number: u64) -> Box<Self> {
        let none = [Slot::NONE; PAGE_OFFSETS as usize];
        let keys = [KeyId::default(); PAGE_OFFSETS as usize];
        Box::new(Self { number, known: 0, waiting: 0, keys, before: none, behind: none })
    }
}

impl KeyPages {
    /// What a page takes in memory, in bytes, its entry in the index included.
    pub(super) const PAGE_BYTES: usize = size_of::<Page>() + 48;

    /// How many pages hold an offset that waits.
    pub(super) fn waiting_pages(&self) -> usize {
        self.waiting
    }

    /// The place of an offset, if it is known.
    pub(super) fn find(&self, offset: u64) -> Option<Slot> {
        let place = self.place(offset / PAGE_OFFSETS)?;
        let slot = slot(place, offset % PAGE_OFFSETS);
        (self.page(slot).known & slot.bit() != 0).then_some(slot)
    }

    /// Enters an offset of a key that is not known yet, between the others of its list.
    pub(super) fn enter(&mut self, offset: u64, key: KeyId, waits: bool, list: &mut List) -> Slot {
        let number = offset / PAGE_OFFSETS;
        let place = self.place(number).unwrap_or_else(|| self.add(number));
        let slot = slot(place, offset % PAGE_OFFSETS);
        let page = self.page_mut(slot);
        page.known |= slot.bit();
        page.keys[slot.at()] = key;
        self.set_waits(slot, waits);
        self.link(slot, offset, list);
        slot
    }

    /// Takes an offset out, and out of its list.
    pub(super) fn remove(&mut self, slot: Slot, list: &mut List) {
        self.set_waits(slot, false);
        let page = self.page_mut(slot);
        page.known &= !slot.bit();
        let (before, behind) = (page.before[slot.at()], page.behind[slot.at()]);
        let (number, is_empty) = (page.number, page.known == 0);
        if list.first == slot {
            list.first = behind;
        } else {
            self.page_mut(before).behind[before.at()] = behind;
        }
        if list.last == slot {
            list.last = before;
        } else {
            self.page_mut(behind).before[behind.at()] = before;
        }
        if is_empty {
            self.pages[slot.page()] = None;
            self.free.push(slot.0 / 64);
            self.by_number.remove(&number);
            self.recent.set(None);
        }
    }

    pub(super) fn offset(&self, slot: Slot) -> u64 {
        self.page(slot).number * PAGE_OFFSETS + slot.at() as u64
    }

    pub(super) fn key(&self, slot: Slot) -> KeyId {
        self.page(slot).keys[slot.at()]
    }

    /// True if it waits, false if it is in flight.
    pub(super) fn waits(&self, slot: Slot) -> bool {
        self.page(slot).waiting & slot.bit() != 0
    }

    pub(super) fn set_waits(&mut self, slot: Slot, waits: bool) {
        let page = self.page_mut(slot);
        let waited = page.waiting != 0;
        page.waiting = page.waiting & !slot.bit() | if waits { slot.bit() } else { 0 };
        match (waited, page.waiting != 0) {
            (false, true) => self.waiting += 1,
            (true, false) => self.waiting -= 1,
            (false, false) | (true, true) => {}
        }
    }

    /// The event of its key before it; [`Slot::NONE`] before the first.
    pub(super) fn before(&self, slot: Slot) -> Slot {
        self.page(slot).before[slot.at()]
    }

    /// The event of its key behind it; [`Slot::NONE`] behind the last.
    pub(super) fn behind(&self, slot: Slot) -> Slot {
        self.page(slot).behind[slot.at()]
    }

    /// This one, if any, and those of its key behind it.
    pub(super) fn from(&self, slot: Slot) -> impl Iterator<Item = Slot> {
        std::iter::successors(slot.some(), |slot| self.behind(*slot).some())
    }

    /// This one, if any, and those of its key before it.
    pub(super) fn back_from(&self, slot: Slot) -> impl Iterator<Item = Slot> {
        std::iter::successors(slot.some(), |slot| self.before(*slot).some())
    }

    /// Enters what is known of a range into `known`, in order.
    pub(super) fn known_in(&self, range: &Range<u64>, known: &mut Vec<Slot>) {
        // One past the last page; an empty range has none.
        let first = range.start / PAGE_OFFSETS;
        let end = if range.is_empty() { first } else { (range.end - 1) / PAGE_OFFSETS + 1 };
        let mut enter = |number: u64, place: u32| {
            let first = slot(place, 0);
            let mut left = self.page(first).known & within(number, range);
            while left != 0 {
                known.push(Slot(first.0 + left.trailing_zeros()));
                left &= left - 1;
            }
        };
        if end - first == 1 {
            self.place(first).into_iter().for_each(|place| enter(first, place));
        } else {
            self.by_number.range(first..end).for_each(|(number, place)| enter(*number, *place));
        }
    }

    fn link(&mut self, slot: Slot, offset: u64, list: &mut List) {
        let before = self.last_before(offset, *list);
        let behind = match before {
            Slot::NONE => std::mem::replace(&mut list.first, slot),
            _ => std::mem::replace(&mut self.page_mut(before).behind[before.at()], slot),
        };
        match behind {
            Slot::NONE => list.last = slot,
            _ => self.page_mut(behind).before[behind.at()] = slot,
        }
        let page = self.page_mut(slot);
        (page.before[slot.at()], page.behind[slot.at()]) = (before, behind);
    }

    /// The last event of a list before an offset, looked for from both ends.
    fn last_before(&self, offset: u64, list: List) -> Slot {
        let (mut from_first, mut from_last) = (list.first, list.last);
        loop {
            let Some(last) = from_last.some().filter(|last| self.offset(*last) > offset) else {
                return from_last;
            };
            let Some(first) = from_first.some().filter(|first| self.offset(*first) < offset) else {
                return from_first.some().map_or(Slot::NONE, |first| self.before(first));
            };
            (from_first, from_last) = (self.behind(first), self.before(last));
        }
    }

    /// Where a page is.
    fn place(&self, number: u64) -> Option<u32> {
        if let Some((_, place)) = self.recent.get().filter(|(recent, _)| *recent == number) {
            return Some(place);
        }
        let place = self.by_number.get(&number).copied()?;
        self.recent.set(Some((number, place)));
        Some(place)
    }

    fn add(&mut self, number: u64) -> u32 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.pages.push(None);
            u32::try_from(self.pages.len() - 1).expect("fewer offsets are in flight or wait")
        });
        assert!(place < u32::MAX / 64, "fewer offsets are in flight or wait");
        self.pages[place as usize] = Some(Page::new(number));
        self.by_number.insert(number, place);
        self.recent.set(Some((number, place)));
        place
    }

    fn page(&self, slot: Slot) -> &Page {
        self.pages[slot.page()].as_deref().expect("a slot's page stays while it is known")
    }

    fn page_mut(&mut self, slot: Slot) -> &mut Page {
        self.pages[slot.page()].as_deref_mut().expect("a slot's page stays while it is known")
    }
}

fn slot(place: u32, at: u64) -> Slot {
    Slot(place * 64 + u32::try_from(at).expect("less than a page"))
}

/// The bits of a page's offsets that lie in a range which overlaps it.
fn within(page: u64, range: &Range<u64>) -> u64 {
    let start = page * PAGE_OFFSETS;
    let from = range.start.saturating_sub(start).min(PAGE_OFFSETS - 1);
    let behind = start.saturating_add(PAGE_OFFSETS).saturating_sub(range.end).min(PAGE_OFFSETS - 1);
    u64::MAX << from & u64::MAX >> behind
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// Offsets of a range, with their keys and whether they wait.
    fn known(pages: &KeyPages, range: &Range<u64>) -> Vec<(u64, (u32, bool))> {
        let mut slots = Vec::new();
        pages.known_in(range, &mut slots);
        slots.into_iter().map(|slot| (pages.offset(slot), (pages.key(slot).0, pages.waits(slot)))).collect()
    }

    proptest! {
        #[test]
        fn pages_are_a_map_with_a_list_for_each_key(
            changes in vec((0u64..200, 0u32..4, any::<bool>()), 0..120),
            probe in 0u64..220,
            len in 0u64..220,
        ) {
            let (mut pages, mut model) = (KeyPages::default(), BTreeMap::new());
            let mut lists = [List::EMPTY; 4];
            for (offset, key, waits) in changes {
                if let Some(slot) = pages.find(offset) {
                    let list = &mut lists[pages.key(slot).0 as usize];
                    if key == 0 {
                        pages.remove(slot, list);
                        model.remove(&offset);
                    } else {
                        pages.set_waits(slot, waits);
                        model.insert(offset, (pages.key(slot).0, waits));
                    }
                } else if key != 0 {
                    pages.enter(offset, KeyId(key), waits, &mut lists[key as usize]);
                    model.insert(offset, (key, waits));
                }
                prop_assert_eq!(pages.find(offset).is_some(), model.contains_key(&offset));
            }
            let waiting = model.iter().filter(|(_, (_, waits))| *waits).map(|(offset, _)| offset / PAGE_OFFSETS);
            prop_assert_eq!(pages.waiting_pages(), waiting.collect::<BTreeSet<_>>().len());
            let range = probe..probe + len;
            let expected: Vec<_> = model.range(range.clone()).map(|(offset, what)| (*offset, *what)).collect();
            prop_assert_eq!(known(&pages, &range), expected);
            for (key, list) in lists.iter().enumerate() {
                let of_key = |it: &(&u64, &(u32, bool))| it.1.0 as usize == key;
                let expected: Vec<u64> = model.iter().filter(of_key).map(|(offset, _)| *offset).collect();
                let there: Vec<u64> = pages.from(list.first).map(|slot| pages.offset(slot)).collect();
                let mut back: Vec<u64> = pages.back_from(list.last).map(|slot| pages.offset(slot)).collect();
                back.reverse();
                prop_assert_eq!((&there, &back), (&expected, &expected));
            }
            for offset in model.into_keys() {
                let slot = pages.find(offset).unwrap();
                let key = pages.key(slot).0 as usize;
                pages.remove(slot, &mut lists[key]);
            }
            prop_assert_eq!(lists, [List::EMPTY; 4]);
            prop_assert_eq!(pages.waiting_pages(), 0);
            prop_assert!(pages.pages.iter().all(Option::is_none), "a page without offsets takes nothing");
            prop_assert_eq!((pages.by_number.len(), pages.free.len()), (0, pages.pages.len()));
        }
    }

    #[test]
    fn the_highest_offsets_are_ordinary() {
        let (mut pages, mut list, last) = (KeyPages::default(), List::EMPTY, u64::MAX - 1);
        pages.enter(last, KeyId(7), true, &mut list);
        assert_eq!(known(&pages, &(u64::MAX - 2..u64::MAX)), [(last, (7, true))]);
    }
}
