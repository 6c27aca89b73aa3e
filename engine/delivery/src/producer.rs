//! Idempotence of one producer in one partition: each sequence number is accepted once (decision 7).
//!
//! Owns the rule and the row's bytes. It must not know batches, commits or where the row is kept.
//!
//! Row, little endian: 24 bytes, then one entry of 24 bytes per remembered outcome, oldest first.
//!
//! ```text
//!  0         1          2        4       8               16           24
//!  +---------+----------+--------+-------+---------------+------------+---------+
//!  | version | reserved | count  | epoch | next_sequence | last_used  | entries |
//!  | u8 = 1  | u8       | u16    | u32   | u64           | u64 (ms)   |         |
//!  +---------+----------+--------+-------+---------------+------------+---------+
//!
//!  0                8             16      20     21         24
//!  +----------------+-------------+-------+------+----------+
//!  | first_sequence | base_offset | count | kind | reserved |
//!  | u64            | u64         | u32   | u8   | 3 bytes  |
//!  +----------------+-------------+-------+------+----------+
//! ```
//!
//! An entry is a run of events that follow on each other in sequence and in the log: one batch or several.
//! `kind` 0 is appended; other numbers are free for scheduled, prepared and refused outcomes.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};
use levada_protocol::{
    ids::{Epoch, Offset, Sequence, Timestamp},
    limits::PRODUCER_IN_FLIGHT_MAX,
};

use crate::{fields::Fields, progress::RowError};

/// What is known of one producer in one partition. The default is a producer that nothing is known of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Producer {
    epoch: u32,
    next_sequence: u64,
    last_used: u64,
    /// The last 64 outcomes or more: as many as may be in flight, so that every resend finds its own. Those that
    /// follow on each other in the log too are one entry, so that a producer that is alone has a short row.
    outcomes: VecDeque<Appended>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Appended {
    first_sequence: u64,
    base: u64,
    count: u32,
}

impl Appended {
    /// Both as one, if `next` follows on this in sequence and in the log.
    fn followed_by(&self, next: &Self) -> Option<Self> {
        let length = u64::from(self.count);
        let follows = self.first_sequence.checked_add(length) == Some(next.first_sequence)
            && self.base.checked_add(length) == Some(next.base);
        let count = self.count.checked_add(next.count).filter(|_| follows)?;
        Some(Self { count, ..*self })
    }
}

/// What to do with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// It is the next one: append it, then [`Producer::record`] it.
    Append,
    /// All of it was appended before.
    Duplicate {
        /// Where its first event is; `None` if that is no longer remembered.
        base: Option<Offset>,
        /// How many events the repeat holds.
        count: u32,
    },
    /// It does not begin where the producer stands: events before it were never seen, or it repeats some and adds
    /// others. A producer resends batches as they were, so the second is as wrong as the first.
    Gap {
        /// The sequence that is accepted next.
        expected: Sequence,
    },
    /// A newer epoch of the producer exists.
    Fenced {
        /// The newest epoch.
        epoch: Epoch,
    },
    /// Nothing is known of this producer, and it does not begin at 0.
    Unknown,
}

impl Producer {
    /// Compares a batch of `count` events from `first` on with what was accepted so far; changes nothing.
    pub fn check(&self, epoch: Epoch, first: Sequence, count: u32) -> Check {
        if self.is_unknown() {
            return if first.0 == 0 { Check::Append } else { Check::Unknown };
        }
        if epoch.0 < self.epoch {
            return Check::Fenced { epoch: Epoch(self.epoch) };
        }
        let next = if epoch.0 > self.epoch { 0 } else { self.next_sequence };
        if first.0 == next {
            return Check::Append;
        }
        match first.0.checked_add(u64::from(count)) {
            Some(end) if end <= next => Check::Duplicate { base: self.offset_of(first.0, end), count },
            _ => Check::Gap { expected: Sequence(next) },
        }
    }

    /// Remembers that a batch which [`Producer::check`] let through was appended at `base`.
    pub fn record(&mut self, now: Timestamp, epoch: Epoch, first: Sequence, count: u32, base: Offset) {
        if epoch.0 != self.epoch {
            self.outcomes.clear();
            self.epoch = epoch.0;
        }
        let appended = Appended { first_sequence: first.0, base: base.0, count };
        let grown = self.outcomes.back().and_then(|last| last.followed_by(&appended));
        if let (Some(grown), Some(last)) = (grown, self.outcomes.back_mut()) {
            *last = grown;
        } else {
            if self.outcomes.len() == PRODUCER_IN_FLIGHT_MAX {
                self.outcomes.pop_front();
            }
            self.outcomes.push_back(appended);
        }
        self.next_sequence = first.0.saturating_add(u64::from(count));
        self.last_used = now.0;
    }

    /// True if nothing is known of it: as if it had never been seen, and without need of a row.
    pub fn is_unknown(&self) -> bool {
        self.next_sequence == 0 && self.outcomes.is_empty()
    }

    /// When something was last recorded; rows that are idle for long may be deleted.
    pub fn last_used(&self) -> Timestamp {
        Timestamp(self.last_used)
    }

    /// The sequence accepted next in the current epoch.
    pub fn next_sequence(&self) -> Sequence {
        Sequence(self.next_sequence)
    }

    /// The row's bytes.
    pub fn encode(&self) -> Bytes {
        let mut row = BytesMut::with_capacity(ROW_HEADER_BYTES + self.outcomes.len() * ENTRY_BYTES);
        row.put_u8(VERSION);
        row.put_u8(0);
        row.put_u16_le(u16::try_from(self.outcomes.len()).expect("at most 64 outcomes are kept"));
        row.put_u32_le(self.epoch);
        row.put_u64_le(self.next_sequence);
        row.put_u64_le(self.last_used);
        for outcome in &self.outcomes {
            row.put_u64_le(outcome.first_sequence);
            row.put_u64_le(outcome.base);
            row.put_u32_le(outcome.count);
            row.put_u32_le(KIND_APPENDED);
        }
        row.freeze()
    }

    /// Reads a row's bytes.
    ///
    /// # Errors
    /// If the version is unknown or the row is not as [`Producer::encode`] writes it.
    pub fn decode(row: &[u8]) -> Result<Self, RowError> {
        let mut fields = Fields(row);
        RowError::check_version(ROW, &mut fields, VERSION)?;
        let head = (|| {
            let _reserved = fields.u8()?;
            Some((fields.u16()?, fields.u32()?, fields.u64()?, fields.u64()?))
        })();
        let (count, epoch, next_sequence, last_used) =
            head.ok_or_else(|| RowError::damaged(ROW, "it is shorter than its header"))?;
        if usize::from(count) > PRODUCER_IN_FLIGHT_MAX || fields.0.len() != usize::from(count) * ENTRY_BYTES {
            let detail = format!("{count} entries in {} bytes", fields.0.len());
            return Err(RowError::damaged(ROW, detail));
        }
        let mut outcomes = VecDeque::with_capacity(usize::from(count));
        while let Some(first_sequence) = fields.u64() {
            let entry = (|| Some((fields.u64()?, fields.u32()?, fields.u32()?)))();
            match entry {
                Some((base, count, KIND_APPENDED)) => {
                    outcomes.push_back(Appended { first_sequence, base, count });
                }
                _ => return Err(RowError::damaged(ROW, "an entry's kind is unknown")),
            }
        }
        Ok(Self { epoch, next_sequence, last_used, outcomes })
    }

    /// Where the event `first` was appended, if one remembered run holds all of `first..end`.
    fn offset_of(&self, first: u64, end: u64) -> Option<Offset> {
        let newest_first = self.outcomes.iter().rev();
        let holding = newest_first.into_iter().find(|outcome| outcome.first_sequence <= first)?;
        let holds = end <= holding.first_sequence + u64::from(holding.count);
        holds.then(|| Offset(holding.base + (first - holding.first_sequence)))
    }
}

const ROW: &str = "producer";
const VERSION: u8 = 1;
const ROW_HEADER_BYTES: usize = 24;
const ENTRY_BYTES: usize = 24;
const KIND_APPENDED: u32 = 0;

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const E0: Epoch = Epoch(0);
    const NOW: Timestamp = Timestamp(1);

    fn with_two_batches() -> Producer {
        let mut producer = Producer::default();
        producer.record(NOW, E0, Sequence(0), 10, Offset(100));
        producer.record(NOW, E0, Sequence(10), 5, Offset(200));
        producer
    }

    #[test]
    fn an_unknown_producer_begins_at_zero() {
        let producer = Producer::default();
        assert_eq!(producer.check(Epoch(3), Sequence(0), 1), Check::Append);
        assert_eq!(producer.check(E0, Sequence(1), 1), Check::Unknown);
    }

    #[test]
    fn a_repeat_is_answered_with_its_first_offsets() {
        let producer = with_two_batches();
        let duplicate = |base: u64, count| Check::Duplicate { base: Some(Offset(base)), count };
        assert_eq!(producer.check(E0, Sequence(0), 10), duplicate(100, 10));
        assert_eq!(producer.check(E0, Sequence(10), 5), duplicate(200, 5));
        assert_eq!(producer.check(E0, Sequence(12), 2), duplicate(202, 2));
        assert_eq!(producer.check(E0, Sequence(8), 4), Check::Duplicate { base: None, count: 4 });
    }

    #[test]
    fn gaps_and_partly_new_batches_are_refused() {
        let producer = with_two_batches();
        let gap = Check::Gap { expected: Sequence(15) };
        assert_eq!(producer.check(E0, Sequence(16), 1), gap);
        assert_eq!(producer.check(E0, Sequence(14), 2), gap);
        assert_eq!(producer.check(E0, Sequence(u64::MAX), 2), gap);
        assert_eq!(producer.check(E0, Sequence(15), 2), Check::Append);
    }

    #[test]
    fn a_newer_epoch_begins_at_zero_and_fences_the_older() {
        let mut producer = with_two_batches();
        assert_eq!(producer.check(Epoch(2), Sequence(15), 1), Check::Gap { expected: Sequence(0) });
        assert_eq!(producer.check(Epoch(2), Sequence(0), 1), Check::Append);
        producer.record(NOW, Epoch(2), Sequence(0), 1, Offset(300));
        assert_eq!(producer.check(E0, Sequence(15), 1), Check::Fenced { epoch: Epoch(2) });
        let again = Check::Duplicate { base: Some(Offset(300)), count: 1 };
        assert_eq!(producer.check(Epoch(2), Sequence(0), 1), again);
    }

    #[test]
    fn a_repeat_older_than_the_ring_is_a_duplicate_without_offset() {
        let mut producer = Producer::default();
        for batch in 0..=PRODUCER_IN_FLIGHT_MAX as u64 {
            producer.record(NOW, E0, Sequence(batch), 1, Offset(batch * 2));
        }
        assert_eq!(producer.check(E0, Sequence(0), 1), Check::Duplicate { base: None, count: 1 });
        let oldest = Check::Duplicate { base: Some(Offset(2)), count: 1 };
        assert_eq!(producer.check(E0, Sequence(1), 1), oldest);
        assert!(producer.encode().len() <= ROW_HEADER_BYTES + 64 * ENTRY_BYTES);
    }

    #[test]
    fn a_producer_that_is_alone_has_one_entry() {
        let mut producer = Producer::default();
        for batch in 0..1_000 {
            producer.record(NOW, E0, Sequence(batch * 3), 3, Offset(7 + batch * 3));
        }
        assert_eq!(producer.encode().len(), ROW_HEADER_BYTES + ENTRY_BYTES);
        let found = Check::Duplicate { base: Some(Offset(7 + 300)), count: 3 };
        assert_eq!(producer.check(E0, Sequence(300), 3), found);
        // Somebody else's event lies between.
        producer.record(NOW, E0, Sequence(3_000), 1, Offset(3_008));
        assert_eq!(producer.encode().len(), ROW_HEADER_BYTES + 2 * ENTRY_BYTES);
        let last = Check::Duplicate { base: Some(Offset(3_008)), count: 1 };
        assert_eq!(producer.check(E0, Sequence(3_000), 1), last);
    }

    #[test]
    fn the_row_has_these_bytes() {
        let mut producer = Producer::default();
        producer.record(Timestamp(7), Epoch(2), Sequence(0), 3, Offset(9));
        let expected: &[u8] = &[
            1, 0, 1, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, // header
            0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, // entry
        ];
        assert_eq!(&producer.encode()[..], expected);
    }

    proptest! {
        #[test]
        fn any_sequence_of_resends_stores_each_event_once(
            sizes in vec(1u32..20, 1..100),
            jumps in vec((any::<u16>(), 1u8..10), 0..60),
            restarts in vec(any::<bool>(), 16),
        ) {
            let mut starts = vec![0u64];
            sizes.iter().for_each(|size| starts.push(starts[starts.len() - 1] + u64::from(*size)));
            let (mut producer, mut log) = (Producer::default(), Vec::<u64>::new());
            // Wherever the producer jumps to, it sends on from there; at last it sends everything.
            let rounds = jumps.iter().map(|(at, many)| (usize::from(*at) % sizes.len(), usize::from(*many)));
            for (round, (from, many)) in rounds.chain([(0, sizes.len())]).enumerate() {
                for batch in from..(from + many).min(sizes.len()) {
                    let (first, count) = (starts[batch], sizes[batch]);
                    match producer.check(E0, Sequence(first), count) {
                        Check::Append => {
                            let base = Offset(log.len() as u64);
                            log.extend(first..first + u64::from(count));
                            producer.record(NOW, E0, Sequence(first), count, base);
                        }
                        Check::Duplicate { base: Some(base), count: again } => {
                            prop_assert_eq!(again, count);
                            prop_assert_eq!(log[base.0 as usize], first);
                        }
                        Check::Duplicate { base: None, .. } => prop_assert!(first < log.len() as u64),
                        Check::Gap { expected } => {
                            prop_assert_eq!(expected.0, log.len() as u64);
                            prop_assert!(first > expected.0);
                        }
                        Check::Unknown => prop_assert!(log.is_empty() && first > 0),
                        Check::Fenced { .. } => prop_assert!(false, "there is one epoch"),
                    }
                }
                if restarts[round % restarts.len()] {
                    producer = Producer::decode(&producer.encode()).unwrap();
                }
            }
            prop_assert_eq!(log, (0..starts[sizes.len()]).collect::<Vec<_>>());
        }

        #[test]
        fn garbage_is_refused_or_reads_back_as_it_was(row in vec(any::<u8>(), 0..200)) {
            if let Ok(producer) = Producer::decode(&row) {
                prop_assert_eq!(Producer::decode(&producer.encode()).unwrap(), producer);
            }
        }
    }

    #[test]
    fn rows_of_another_version_or_length_are_refused() {
        let row = with_two_batches().encode();
        assert!(Producer::decode(&row[..row.len() - 1]).is_err());
        let mut newer = row.to_vec();
        newer[0] = 2;
        let error = Producer::decode(&newer).unwrap_err();
        assert_eq!(error.code(), levada_protocol::error::ErrorCode::StorageNewer);
        assert!(Producer::decode(&[]).is_err());
    }
}
