//! A reader of RocksDB's log format, which its write-ahead log and its manifest share. It never writes, and it does not
//! know what the records mean.
//!
//! RocksDB's own reader takes whatever it cannot read for the end of a file. This one continues behind it: a whole
//! record there means that something was lost in the middle.
//!
//! A file is a row of blocks of 32 KiB. A block holds records back to back, and zeros where no header fits any more:
//!
//! ```text
//!  0        4      6      7             11
//!  +--------+------+------+-------------+---------+
//!  | crc32c | len  | type | log number  | payload |
//!  | u32    | u16  | u8   | u32         | len     |
//!  +--------+------+------+-------------+---------+
//! ```
//! - All numbers are little endian. The log number is there in the types 5 to 8, 11 and 131 alone: files of the
//!   write-ahead log are written over, and it tells the new records from the old ones.
//! - Types 1 and 5 are a whole entry; 2 and 6, 3 and 7, 4 and 8 are the first, a middle and the last part of one.
//! - `crc32c` covers the type, the log number and the payload, and is masked.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// Bytes of a block.
pub(super) const BLOCK_BYTES: usize = 32 << 10;
const HEADER_BYTES: usize = 7;
const RECYCLABLE_HEADER_BYTES: usize = 11;
const CRC_MASK: u32 = 0xa282_ead8;
const KIND_AT: usize = 6;
/// The types that records have.
const IS_KIND: [bool; 256] = {
    let mut is_kind = [false; 256];
    let mut at = 1;
    while at <= 11 {
        is_kind[at] = true;
        at += 1;
    }
    (is_kind[130], is_kind[131]) = (true, true);
    is_kind
};

/// The result of one scan of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scan {
    /// Where the last entry ends of those that follow on each other from the beginning.
    pub(super) end: u64,
    /// Where a whole record begins behind something that is none: what is between was lost.
    pub(super) behind: Option<u64>,
}

/// An entry: all parts of it together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    /// True if there is something unreadable between the beginning of the file and this entry.
    pub(super) is_behind: bool,
    pub(super) payload: &'a [u8],
}

/// A record in a block.
#[derive(Debug, Clone, Copy)]
struct Physical<'a> {
    part: Part,
    len: usize,
    payload: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    First,
    Middle,
    Last,
    /// Something about the file itself.
    Other,
}

/// Reads a file from its beginning to its end. `number` is the file's own; records of another one are none.
pub(super) fn scan(path: &Path, number: u64, on_entry: impl FnMut(Entry<'_>)) -> io::Result<Scan> {
    let file = File::open(path)?;
    // What may stand under a log file's name in the worst case is no file and has no end.
    let len = if file.metadata()?.is_file() { file.metadata()?.len() } else { 0 };
    scan_from(file.take(len), number, on_entry)
}

/// The same for what `source` holds.
fn scan_from(mut source: impl Read, number: u64, on_entry: impl FnMut(Entry<'_>)) -> io::Result<Scan> {
    let mut scanner = Scanner {
        number: low_half(number),
        header: None,
        at: 0,
        end: 0,
        stop: None,
        behind: None,
        open: None,
        on_entry,
    };
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    loop {
        block.clear();
        source.by_ref().take(BLOCK_BYTES as u64).read_to_end(&mut block)?;
        if block.is_empty() {
            return Ok(Scan { end: scanner.end, behind: scanner.behind });
        }
        scanner.block(&block);
        scanner.at += block.len() as u64;
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the format keeps the lower half of a number")]
fn low_half(number: u64) -> u32 {
    number as u32
}

struct Scanner<F> {
    number: u32,
    /// How long the file's headers are, once there was one: all are alike.
    header: Option<usize>,
    /// Where the block begins.
    at: u64,
    end: u64,
    /// Set when something was no record: until the next one every byte may begin it.
    stop: Option<Stop>,
    behind: Option<u64>,
    /// The parts of an entry that has not ended.
    open: Option<Vec<u8>>,
    on_entry: F,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// No record was found since.
    Searching,
    /// Records are read again.
    Passed,
}

impl<F: FnMut(Entry<'_>)> Scanner<F> {
    fn block(&mut self, block: &[u8]) {
        let mut at = 0;
        while at + HEADER_BYTES <= block.len() {
            match physical(&block[at..], self.number, self.header) {
                Some(record) => {
                    self.header.get_or_insert(record.len - record.payload.len());
                    self.record(record, at);
                    at += record.len;
                }
                None if is_trailer(block, at) => return,
                None => {
                    self.lose();
                    at = candidate(block, at + 1);
                }
            }
        }
    }

    fn lose(&mut self) {
        self.stop = Some(Stop::Searching);
        self.open = None;
    }

    fn record(&mut self, record: Physical<'_>, at: usize) {
        if self.stop.is_some() {
            self.stop = Some(Stop::Passed);
            self.behind.get_or_insert(self.at + at as u64);
        }
        let end = self.at + (at + record.len) as u64;
        match record.part {
            Part::Other => {}
            Part::Whole if self.open.is_none() => self.entry(record.payload, end),
            Part::First if self.open.is_none() => self.open = Some(record.payload.to_vec()),
            Part::Middle if self.open.is_some() => {
                self.open.iter_mut().for_each(|open| open.extend_from_slice(record.payload));
            }
            Part::Last if self.open.is_some() => {
                let mut entry = self.open.take().unwrap_or_default();
                entry.extend_from_slice(record.payload);
                self.entry(&entry, end);
            }
            // Parts that do not fit each other: some between them were lost.
            Part::Whole | Part::First | Part::Middle | Part::Last => {
                self.lose();
                self.stop = Some(Stop::Passed);
                self.behind.get_or_insert(self.at + at as u64);
                match record.part {
                    Part::Whole => self.entry(record.payload, end),
                    Part::First => self.open = Some(record.payload.to_vec()),
                    Part::Middle | Part::Last | Part::Other => {}
                }
            }
        }
    }

    fn entry(&mut self, payload: &[u8], end: u64) {
        let is_behind = self.stop.is_some();
        if !is_behind {
            self.end = end;
        }
        (self.on_entry)(Entry { is_behind, payload });
    }
}

/// The next offset where a record may begin, judging by one byte: most of a long search is over bytes that do not.
fn candidate(block: &[u8], from: usize) -> usize {
    let kinds = block.get(from + KIND_AT..).unwrap_or_default();
    kinds.iter().position(|kind| IS_KIND[usize::from(*kind)]).map_or(block.len(), |skipped| from + skipped)
}

/// True if what is left of a block is what a writer leaves where no header fits.
fn is_trailer(block: &[u8], at: usize) -> bool {
    block.len() == BLOCK_BYTES
        && block.len() - at < RECYCLABLE_HEADER_BYTES
        && block[at..].iter().all(|byte| *byte == 0)
}

/// The record that these bytes begin with, if they do with one of this file.
fn physical(bytes: &[u8], number: u32, expected: Option<usize>) -> Option<Physical<'_>> {
    let (crc, rest) = bytes.split_first_chunk()?;
    let (len, rest) = rest.split_first_chunk()?;
    let (kind, rest) = rest.split_first()?;
    let len = usize::from(u16::from_le_bytes(*len));
    let (part, header) = match kind {
        1 => (Part::Whole, HEADER_BYTES),
        2 => (Part::First, HEADER_BYTES),
        3 => (Part::Middle, HEADER_BYTES),
        4 => (Part::Last, HEADER_BYTES),
        9 | 10 | 130 => (Part::Other, HEADER_BYTES),
        5 => (Part::Whole, RECYCLABLE_HEADER_BYTES),
        6 => (Part::First, RECYCLABLE_HEADER_BYTES),
        7 => (Part::Middle, RECYCLABLE_HEADER_BYTES),
        8 => (Part::Last, RECYCLABLE_HEADER_BYTES),
        11 | 131 => (Part::Other, RECYCLABLE_HEADER_BYTES),
        _ => return None,
    };
    if expected.is_some_and(|expected| header != expected) {
        return None;
    }
    if header == RECYCLABLE_HEADER_BYTES && *rest.first_chunk()? != number.to_le_bytes() {
        return None;
    }
    let covered = bytes.get(KIND_AT..header + len)?;
    let unmasked = u32::from_le_bytes(*crc).wrapping_sub(CRC_MASK).rotate_left(15);
    (crc32c::crc32c(covered) == unmasked).then(|| Physical {
        part,
        len: header + len,
        payload: &bytes[header..header + len],
    })
}

#[cfg(test)]
mod tests {
    use proptest::{collection, prelude::*};

    use super::*;

    const NUMBER: u64 = 17;

    /// Writes entries as RocksDB does, and returns where each ends.
    fn written(entries: &[Vec<u8>], is_recyclable: bool) -> (Vec<u8>, Vec<u64>) {
        let header = if is_recyclable { RECYCLABLE_HEADER_BYTES } else { HEADER_BYTES };
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for entry in entries {
            let (mut rest, mut is_first) = (&entry[..], true);
            loop {
                let left = BLOCK_BYTES - bytes.len() % BLOCK_BYTES;
                if left < header {
                    bytes.resize(bytes.len() + left, 0);
                    continue;
                }
                let (part, after) = rest.split_at(rest.len().min(left - header));
                let kind = match (is_first, after.is_empty()) {
                    (true, true) => 1,
                    (true, false) => 2,
                    (false, false) => 3,
                    (false, true) => 4,
                };
                put(&mut bytes, if is_recyclable { kind + 4 } else { kind }, part);
                (rest, is_first) = (after, false);
                if rest.is_empty() {
                    break;
                }
            }
            ends.push(bytes.len() as u64);
        }
        (bytes, ends)
    }

    fn put(bytes: &mut Vec<u8>, kind: u8, payload: &[u8]) {
        let mut covered = vec![kind];
        if kind > 4 {
            covered.extend_from_slice(&low_half(NUMBER).to_le_bytes());
        }
        covered.extend_from_slice(payload);
        let crc = crc32c::crc32c(&covered).rotate_right(15).wrapping_add(CRC_MASK);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(&covered);
    }

    fn read(bytes: &[u8]) -> (Scan, Vec<(bool, Vec<u8>)>) {
        let mut entries = Vec::new();
        let scan = scan_from(bytes, NUMBER, |entry| entries.push((entry.is_behind, entry.payload.to_vec())))
            .unwrap();
        (scan, entries)
    }

    fn entries() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let len = prop_oneof![0..200_usize, Just(BLOCK_BYTES - 7), 20_000..90_000_usize];
        collection::vec((len, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]), 1..8)
    }

    proptest! {
        #[test]
        fn reads_what_was_written(entries in entries(), is_recyclable: bool) {
            let (bytes, ends) = written(&entries, is_recyclable);
            let (scan, found) = read(&bytes);
            prop_assert_eq!(scan, Scan { end: *ends.last().unwrap(), behind: None });
            let expected: Vec<_> = entries.into_iter().map(|entry| (false, entry)).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn a_cut_is_an_end_and_no_hole(entries in entries(), is_recyclable: bool, cut in 0.0..1.0_f64) {
            let (bytes, ends) = written(&entries, is_recyclable);
            let cut = (bytes.len() as f64 * cut) as usize;
            let (scan, found) = read(&bytes[..cut]);
            let whole = ends.iter().filter(|end| **end <= cut as u64).count();
            prop_assert_eq!(scan.behind, None);
            prop_assert_eq!(found.len(), whole);
            prop_assert_eq!(scan.end, if whole == 0 { 0 } else { ends[whole - 1] });
        }

        #[test]
        fn a_flipped_bit_ends_at_its_entry_and_what_follows_is_behind_it(
            entries in entries(), is_recyclable: bool, at in 0.0..1.0_f64, bit in 0..8_u32
        ) {
            let (mut bytes, ends) = written(&entries, is_recyclable);
            let at = (bytes.len() as f64 * at) as usize;
            bytes[at] ^= 1 << bit;
            let hit = ends.iter().filter(|end| **end <= at as u64).count();
            let (scan, found) = read(&bytes);
            let intact = found.iter().take_while(|(is_behind, _)| !is_behind).count();
            prop_assert_eq!(scan.end, if intact == 0 { 0 } else { ends[intact - 1] });
            prop_assert!(intact >= hit, "{intact} entries are read, {hit} lie before the bit");
            // The bit may be one of the zeros that fill a block.
            prop_assert!(found.len() + 1 >= entries.len());
            prop_assert!(intact == entries.len() || intact + 1 == entries.len() || scan.behind.is_some());
        }

        #[test]
        fn bytes_that_are_none_of_it_are_read_without_harm(bytes in collection::vec(any::<u8>(), 0..70_000)) {
            let (scan, found) = read(&bytes);
            prop_assert_eq!((scan.end, found.len()), (0, 0));
        }
    }

    #[test]
    fn records_of_the_file_that_was_written_over_are_none() {
        let entry = vec![vec![7; 100]];
        let (bytes, _) = written(&entry, true);
        let found = scan_from(&bytes[..], NUMBER + 1, |_| panic!("it is another file's")).unwrap();
        assert_eq!(found, Scan { end: 0, behind: None });
    }

    #[test]
    fn a_block_of_zeros_in_the_middle_is_a_hole() {
        let entries: Vec<_> = (0..40).map(|byte| vec![byte; 1_000]).collect();
        for is_recyclable in [false, true] {
            let (mut bytes, ends) = written(&entries, is_recyclable);
            bytes[8192..12_288].fill(0);
            let (scan, found) = read(&bytes);
            let whole = ends.iter().filter(|end| **end <= 8192).count();
            assert_eq!(scan.end, ends[whole - 1]);
            assert!(scan.behind.is_some_and(|behind| behind >= 12_288));
            assert!(found.len() > 30, "{} entries are read on both sides", found.len());
        }
    }
}
