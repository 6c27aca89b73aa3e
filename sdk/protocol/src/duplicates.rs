//! Which events of a batch were not stored because the topic's dedup window holds their ids, and where the first events
//! of those ids are.
//!
//! ```text
//!  0      2          4                    4 + 12 * runs
//!  +------+----------+--------------------+--------+
//!  | runs | reserved | runs               | bitmap |
//!  | u16  | u16 = 0  | events u32, first  |        |
//!  |      |          | offset u64, each   |        |
//!  +------+----------+--------------------+--------+
//! ```
//!
//! Bit `i % 8` of the bitmap's byte `i / 8` is set if event `i` of the batch is a duplicate. The bitmap ends with its last
//! byte that is not 0. The runs name the offsets of the duplicates in order: the first `events` of them have the offsets
//! from `first` on, and so on. There are at most [`DUPLICATE_RUNS_MAX`] runs; of duplicates behind them it is known that
//! they are some, and not where the first events are.

use bytes::BufMut;

use crate::{
    ids::Offset,
    limits::{BATCH_EVENTS_MAX, DUPLICATE_RUNS_MAX},
    wire::Reader,
};

const HEADER_BYTES: usize = 4;
const RUN_BYTES: usize = 12;

/// The duplicates of one batch; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Duplicates {
    bitmap: Vec<u8>,
    runs: Vec<Run>,
    count: u32,
    /// How many of them the runs name.
    named: u32,
}

/// Duplicates whose first events follow on each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    events: u32,
    first: Offset,
}

/// What became of one event of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// It is stored, so many events behind the first stored event of its batch.
    Stored(u32),
    /// It was not stored: an event of the same id is, at this offset; `None` if the answer had no room for it.
    Duplicate(Option<Offset>),
}

impl Duplicates {
    /// The bytes that one batch's can take at most.
    pub const BYTES_MAX: usize = HEADER_BYTES + RUN_BYTES * DUPLICATE_RUNS_MAX + BATCH_EVENTS_MAX.div_ceil(8);

    /// Notes a duplicate, in the order of their indexes in the batch.
    pub fn note(found: &mut Option<Self>, index: u32, first: Offset) {
        let none = || Self { bitmap: Vec::new(), runs: Vec::new(), count: 0, named: 0 };
        let this = found.get_or_insert_with(none);
        let (byte, bit) = (index as usize / 8, 1 << (index % 8));
        if this.bitmap.len() <= byte {
            this.bitmap.resize(byte + 1, 0);
        }
        this.bitmap[byte] |= bit;
        let all_named = this.named == this.count;
        this.count += 1;
        if !all_named {
            return;
        }
        let is_full = this.runs.len() == DUPLICATE_RUNS_MAX;
        match this.runs.last_mut() {
            Some(run) if run.first.plus(u64::from(run.events)) == first => run.events += 1,
            _ if is_full => return,
            _ => this.runs.push(Run { events: 1, first }),
        }
        this.named += 1;
    }

    /// How many events are duplicates.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// True if this event of the batch is one.
    #[inline]
    pub fn contains(&self, index: u32) -> bool {
        self.bitmap.get(index as usize / 8).is_some_and(|byte| byte & 1 << (index % 8) != 0)
    }

    /// What became of this event of the batch.
    pub fn placed(&self, index: u32) -> Placed {
        let before = self.before(index);
        if !self.contains(index) {
            return Placed::Stored(index - before);
        }
        let mut nth = before;
        for run in &self.runs {
            if nth < run.events {
                return Placed::Duplicate(Some(run.first.plus(u64::from(nth))));
            }
            nth -= run.events;
        }
        Placed::Duplicate(None)
    }

    /// How many of the events before this one are duplicates.
    fn before(&self, index: u32) -> u32 {
        let whole = (index as usize / 8).min(self.bitmap.len());
        let ones = self.bitmap[..whole].iter().map(|byte| byte.count_ones()).sum::<u32>();
        let part = self.bitmap.get(index as usize / 8).map_or(0, |byte| byte & ((1 << (index % 8)) - 1));
        ones + part.count_ones()
    }

    /// How many bytes [`Duplicates::write`] writes.
    pub fn encoded_len(&self) -> usize {
        HEADER_BYTES + self.runs.len() * RUN_BYTES + self.bitmap.len()
    }

    /// Writes the bytes.
    ///
    /// # Panics
    /// Never: there are at most [`DUPLICATE_RUNS_MAX`] runs.
    pub fn write(&self, out: &mut impl BufMut) {
        out.put_u16_le(u16::try_from(self.runs.len()).expect("runs are bounded"));
        out.put_u16_le(0);
        for run in &self.runs {
            out.put_u32_le(run.events);
            out.put_u64_le(run.first.0);
        }
        out.put_slice(&self.bitmap);
    }

    /// Reads the bytes, all of them; `None` if nobody could have written them.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let (runs, _) = (reader.u16()?, reader.u16()?);
        if usize::from(runs) > DUPLICATE_RUNS_MAX {
            return None;
        }
        let mut named = 0_u32;
        let mut read = Vec::with_capacity(usize::from(runs));
        for _ in 0..runs {
            let run = Run { events: reader.u32()?, first: Offset(reader.u64()?) };
            run.first.0.checked_add(u64::from(run.events)).filter(|_| run.events > 0)?;
            named = named.checked_add(run.events)?;
            read.push(run);
        }
        let bitmap = reader.rest();
        if bitmap.len() > BATCH_EVENTS_MAX.div_ceil(8) || *bitmap.last()? == 0 {
            return None;
        }
        let count = bitmap.iter().map(|byte| byte.count_ones()).sum();
        (named <= count).then(|| Self { bitmap: bitmap.to_vec(), runs: read, count, named })
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    fn of(firsts: &[Option<u64>]) -> Option<Duplicates> {
        let mut found = None;
        for (index, first) in (0..).zip(firsts) {
            if let Some(first) = first {
                Duplicates::note(&mut found, index, Offset(*first));
            }
        }
        found
    }

    proptest! {
        #[test]
        fn every_event_is_placed_and_the_bytes_are_read_back(
            firsts in vec(option::of(0..40_u64), 1..300),
            garbage in vec(any::<u8>(), 0..60),
        ) {
            let found = of(&firsts);
            prop_assert_eq!(found.is_some(), firsts.iter().any(Option::is_some));
            let Some(found) = found else { return Ok(()) };
            let mut stored = 0;
            for (index, first) in (0..).zip(&firsts) {
                let placed = found.placed(index);
                match first {
                    None => {
                        prop_assert_eq!(placed, Placed::Stored(stored));
                        stored += 1;
                    }
                    Some(first) if found.runs.len() < DUPLICATE_RUNS_MAX => {
                        prop_assert_eq!(placed, Placed::Duplicate(Some(Offset(*first))));
                    }
                    Some(_) => prop_assert!(matches!(placed, Placed::Duplicate(_))),
                }
            }
            prop_assert_eq!(usize::try_from(found.count() + stored).unwrap(), firsts.len());
            let mut bytes = Vec::new();
            found.write(&mut bytes);
            prop_assert_eq!(bytes.len(), found.encoded_len());
            prop_assert_eq!(Duplicates::read(&bytes), Some(found));
            if let Some(read) = Duplicates::read(&garbage) {
                let mut again = Vec::new();
                read.write(&mut again);
                prop_assert_eq!(&again[4..], &garbage[4..]);
            }
        }
    }

    #[test]
    fn beyond_the_bound_an_event_is_a_duplicate_of_an_unknown_offset() {
        let firsts: Vec<_> = (0..BATCH_EVENTS_MAX as u64).map(|at| Some(at * 2)).collect();
        let found = of(&firsts).unwrap();
        let last = u32::try_from(DUPLICATE_RUNS_MAX).unwrap() - 1;
        assert_eq!(found.placed(last), Placed::Duplicate(Some(Offset(u64::from(last) * 2))));
        assert_eq!(found.placed(last + 1), Placed::Duplicate(None));
        assert_eq!(found.count() as usize, BATCH_EVENTS_MAX);
        assert_eq!(found.encoded_len(), Duplicates::BYTES_MAX);
        assert!(u16::try_from(Duplicates::BYTES_MAX).is_ok(), "it fits the extra bytes of an ack entry");
    }

    #[test]
    fn what_nobody_writes_is_not_read() {
        let bytes = |runs: &[(u32, u64)], bitmap: &[u8]| {
            let mut bytes = Vec::new();
            bytes.put_u16_le(u16::try_from(runs.len()).unwrap());
            bytes.put_u16_le(0);
            for (events, first) in runs {
                bytes.put_u32_le(*events);
                bytes.put_u64_le(*first);
            }
            bytes.put_slice(bitmap);
            bytes
        };
        assert!(Duplicates::read(&bytes(&[(2, 7)], &[3])).is_some());
        assert!(Duplicates::read(&bytes(&[], &[3])).is_some(), "offsets that are not known");
        assert!(Duplicates::read(&bytes(&[(3, 7)], &[3])).is_none(), "more offsets than duplicates");
        assert!(Duplicates::read(&bytes(&[(0, 7)], &[3])).is_none(), "a run of nothing");
        assert!(Duplicates::read(&bytes(&[(2, u64::MAX)], &[3])).is_none(), "past the last offset");
        assert!(Duplicates::read(&bytes(&[], &[])).is_none(), "no duplicate");
        assert!(Duplicates::read(&bytes(&[], &[1, 0])).is_none(), "a last byte of 0");
        assert!(
            Duplicates::read(&bytes(&[(1, 7); DUPLICATE_RUNS_MAX + 1], &[0xff; 40])).is_none(),
            "too many"
        );
        assert!(Duplicates::read(&bytes(&[], &[1; BATCH_EVENTS_MAX / 8 + 1])).is_none(), "too long");
        assert!(Duplicates::read(&[1, 0, 0]).is_none(), "cut off");
    }
}
