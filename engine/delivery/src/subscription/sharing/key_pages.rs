//! Which key each offset of a partition has that is in flight or waits: pages of 64 offsets.
//!
//! Offsets that are delivered together lie beside each other, so a page is found once for many of them. It must not know
//! what the offsets of a key are together.

use std::{collections::BTreeMap, ops::Range};

use super::key::Key;

const PAGE_OFFSETS: u64 = 64;

/// Offsets with their keys.
#[derive(Debug, Default)]
pub(super) struct KeyPages {
    pages: BTreeMap<u64, Box<Page>>,
}

#[derive(Debug)]
struct Page {
    /// The offsets that are known.
    known: u64,
    /// Those with a key; the others have none.
    keyed: u64,
    hashes: [u64; PAGE_OFFSETS as usize],
}

impl Page {
    const EMPTY: Self = Self { known: 0, keyed: 0, hashes: [0; PAGE_OFFSETS as usize] };

    fn key(&self, page: u64, at: u32) -> (u64, Key) {
        let offset = page * PAGE_OFFSETS + u64::from(at);
        let is_keyed = self.keyed & 1 << at != 0;
        (offset, Key::of(offset, is_keyed.then(|| self.hashes[at as usize])))
    }
}

impl KeyPages {
    /// The key of an offset that is known.
    pub(super) fn get(&self, offset: u64) -> Option<Key> {
        let (page, at) = place_of(offset);
        let found = self.pages.get(&page).filter(|it| it.known & 1 << at != 0)?;
        Some(found.key(page, at).1)
    }

    /// Enters an offset.
    pub(super) fn set(&mut self, offset: u64, key: Key) {
        let (page, at) = place_of(offset);
        let page = self.pages.entry(page).or_insert_with(|| Box::new(Page::EMPTY));
        page.known |= 1 << at;
        if let Key::Hash(hash) = key {
            page.keyed |= 1 << at;
            page.hashes[at as usize] = hash;
        } else {
            page.keyed &= !(1 << at);
        }
    }

    pub(super) fn remove(&mut self, offset: u64) {
        let (page, at) = place_of(offset);
        if let Some(found) = self.pages.get_mut(&page) {
            found.known &= !(1 << at);
            if found.known == 0 {
                self.pages.remove(&page);
            }
        }
    }

    /// What is known of a range, in order.
    pub(super) fn known_in(&self, range: &Range<u64>) -> Vec<(u64, Key)> {
        let mut known = Vec::new();
        for (page, found) in self.pages_of(range) {
            let mut left = found.known & within(page, range);
            while left != 0 {
                known.push(found.key(page, left.trailing_zeros()));
                left &= left - 1;
            }
        }
        known
    }

    fn pages_of(&self, range: &Range<u64>) -> impl Iterator<Item = (u64, &Page)> {
        let first = range.start / PAGE_OFFSETS;
        // One past the last page; an empty range has none.
        let end = if range.is_empty() { first } else { (range.end - 1) / PAGE_OFFSETS + 1 };
        self.pages.range(first..end).map(|(page, found)| (*page, &**found))
    }
}

fn place_of(offset: u64) -> (u64, u32) {
    let at = u32::try_from(offset % PAGE_OFFSETS).expect("less than a page");
    (offset / PAGE_OFFSETS, at)
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
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn pages_are_a_map(
            changes in vec((0u64..200, 0u8..4), 0..120),
            probe in 0u64..220,
            len in 0u64..220,
        ) {
            let (mut pages, mut model) = (KeyPages::default(), BTreeMap::new());
            for (offset, what) in changes {
                if what == 0 {
                    pages.remove(offset);
                    model.remove(&offset);
                } else {
                    let key = Key::of(offset, (what > 1).then_some(u64::from(what)));
                    pages.set(offset, key);
                    model.insert(offset, key);
                }
                prop_assert_eq!(pages.get(offset), model.get(&offset).copied());
            }
            let range = probe..probe + len;
            let known: Vec<_> = model.range(range.clone()).map(|(offset, key)| (*offset, *key)).collect();
            prop_assert_eq!(pages.known_in(&range), known);
            model.into_keys().for_each(|offset| pages.remove(offset));
            prop_assert!(pages.pages.is_empty(), "a page without offsets takes nothing");
        }
    }

    #[test]
    fn the_highest_offsets_are_ordinary() {
        let (mut pages, last) = (KeyPages::default(), u64::MAX - 1);
        pages.set(last, Key::None(last));
        assert_eq!(pages.known_in(&(u64::MAX - 2..u64::MAX)), [(last, Key::None(last))]);
    }
}
