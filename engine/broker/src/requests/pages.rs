//! Lists in pages: as many entries as fit one response, and where the next page begins.
//!
//! The next page begins behind the name of the last entry, not at a position, so that what is created or deleted
//! between two pages neither hides nor repeats the others.

use std::{fmt::Display, ops::Bound};

use levada_protocol::{error::ErrorCode, frame::message_bytes, limits::FRAME_BYTES_MAX};
use serde::Serialize;

use crate::error::Error;

/// Bytes of entries in one page. A single entry may be larger: it is a page of its own, and still fits a frame.
const PAGE_BYTES_MAX: usize = FRAME_BYTES_MAX / 2;

/// A page in the making.
pub(super) struct Page<T> {
    entries: Vec<T>,
    /// The last entry's name.
    last: Option<String>,
    bytes: usize,
    entries_max: usize,
    /// There are entries that found no room.
    more: bool,
}

impl<T: Serialize> Page<T> {
    /// A page of at most `limit` entries; 0 means as many as fit.
    pub(super) fn new(limit: u32) -> Self {
        let entries_max = if limit == 0 { usize::MAX } else { usize::try_from(limit).unwrap_or(usize::MAX) };
        Self { entries: Vec::new(), last: None, bytes: 0, entries_max, more: false }
    }

    /// Adds the next entry; false if it has no room: the page ends before it.
    pub(super) fn add(&mut self, name: impl Display, entry: T) -> bool {
        let bytes = self.bytes + message_bytes(&entry);
        if !self.entries.is_empty() && (self.entries.len() >= self.entries_max || bytes > PAGE_BYTES_MAX) {
            self.more = true;
            return false;
        }
        self.bytes = bytes;
        self.last = Some(name.to_string());
        self.entries.push(entry);
        true
    }

    /// The entries, and the name behind which the next page begins, if there is one.
    pub(super) fn finish(self) -> (Vec<T>, Option<String>) {
        (self.entries, self.last.filter(|_| self.more))
    }
}

/// Where a page begins in what is kept by name.
pub(super) fn behind<K>(after: Option<&K>) -> Bound<&K> {
    after.map_or(Bound::Unbounded, Bound::Excluded)
}

/// What is said of an `after` that no list of this kind has answered.
pub(super) fn not_a_page(after: &str, expected: &str) -> Error {
    Error::refused(ErrorCode::InvalidArgument, format!("after is {after:?}, expected {expected}"))
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// Page after page, as a client asks for them.
    fn walk(entries: &[String], limit: u32) -> Vec<Vec<String>> {
        let (mut pages, mut after) = (Vec::new(), None);
        loop {
            let mut page = Page::new(limit);
            let begin = after.map_or(0, |after: String| after.parse::<usize>().unwrap() + 1);
            for (name, entry) in entries.iter().enumerate().skip(begin) {
                if !page.add(name, entry.clone()) {
                    break;
                }
            }
            let (entries, next) = page.finish();
            pages.push(entries);
            match next {
                Some(next) => after = Some(next),
                None => return pages,
            }
        }
    }

    proptest! {
        #[test]
        fn pages_hold_every_entry_once_in_order_and_fit_a_frame(
            lens in vec(prop_oneof![0_usize..100, 0_usize..1_500_000], 0..12),
            limit in 0_u32..6,
        ) {
            let entries: Vec<String> = lens.iter().map(|len| "x".repeat(*len)).collect();
            let pages = walk(&entries, limit);
            prop_assert_eq!(pages.concat(), entries);
            let (last, full) = pages.split_last().unwrap();
            prop_assert!(full.iter().all(|page| !page.is_empty()));
            prop_assert!(!last.is_empty() || full.is_empty());
            for page in &pages {
                prop_assert!(limit == 0 || page.len() <= limit as usize);
                prop_assert!(message_bytes(page) <= FRAME_BYTES_MAX);
            }
        }
    }
}
