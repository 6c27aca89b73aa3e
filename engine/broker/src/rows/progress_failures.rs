//! How deliveries of [`FAILURES_OFFSETS`] offsets of one partition ended that a subscription is not done with. After the
//! version byte one entry of 32 bytes per run of offsets that ended alike, in order; `first` and `last` are counted from the
//! row's first offset, both included.
//!
//! ```text
//!  0       2      4          6          7          8               16             24           32
//!  +-------+------+----------+----------+----------+---------------+--------------+------------+
//!  | first | last | attempts | returned | reserved | first_failure | last_failure | not_before |
//!  | u16   | u16  | u16      | u8       | u8       | u64 (ms)      | u64 (ms)     | u64 (ms)   |
//!  +-------+------+----------+----------+----------+---------------+--------------+------------+
//! ```
//!
//! [`FAILURES_OFFSETS`]: levada_delivery::progress::FAILURES_OFFSETS

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use levada_delivery::progress::{Failures, History};
use levada_protocol::ids::{PartitionId, SubscriptionId};
use levada_store::Family;

use super::{
    Row,
    codec::{Damage, Fields},
    key::KeyRange,
    progress_part::{self, HISTORY_BYTES, PartKey, read_history, write_history},
};

const ENTRY_BYTES: usize = 4 + HISTORY_BYTES;
/// What follows the partition in the key.
const KIND: u8 = 0x02;

/// The failures of a subscription in one partition.
pub(crate) fn of_partition(id: SubscriptionId, partition: PartitionId) -> KeyRange {
    progress_part::of_partition(KIND, id, partition)
}

impl Row for Failures {
    const NAME: &'static str = "progress failures";
    const FAMILY: Family = Family::Cursors;
    const VERSION: u8 = 1;
    /// The last is the row's index.
    type Key = PartKey;

    fn key(key: &Self::Key) -> Bytes {
        progress_part::key(KIND, key)
    }

    fn parse_key(key: &[u8]) -> Option<Self::Key> {
        progress_part::parse_key(KIND, key)
    }

    fn len(&self) -> usize {
        self.runs().len() * ENTRY_BYTES
    }

    fn write(&self, out: &mut BytesMut) {
        let within = |offset: u64| u16::try_from(offset).expect("runs lie within their row");
        for (run, history) in self.runs() {
            out.put_u16_le(within(run.start));
            out.put_u16_le(within(run.end - 1));
            write_history(out, history);
        }
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        let mut runs = Vec::with_capacity(fields.left() / ENTRY_BYTES);
        while fields.left() > 0 {
            runs.push(read_entry(fields)?);
        }
        Self::new(runs).ok_or_else(|| "failed offsets are out of order".into())
    }
}

fn read_entry(fields: &mut Fields<'_>) -> Result<(Range<u64>, History), Damage> {
    let (first, last) = (u64::from(fields.u16()?), u64::from(fields.u16()?));
    Ok((first..last + 1, read_history(fields)?))
}

#[cfg(test)]
mod tests {
    use levada_delivery::progress::FAILURES_OFFSETS;
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::rows::{check, progress_of_subscription};

    #[test]
    fn the_bytes_are_these() {
        let history =
            History { attempts: 2, returned: 1, first_failure_ms: 5, last_failure_ms: 6, not_before_ms: 7 };
        let last = FAILURES_OFFSETS - 1;
        let runs = vec![(3..5, history), (last..last + 1, History::default())];
        let row = Failures::new(runs).unwrap();
        let expected = "01 0300 0400 0200 01 00 0500000000000000 0600000000000000 0700000000000000 \
            ff03 ff03 0000 00 00 0000000000000000 0000000000000000 0000000000000000";
        let key = (SubscriptionId(1), PartitionId(2), 3);
        let key_bytes = "01 0000000000000001 0002 02 0000000000000003";
        assert_eq!(Failures::key(&key)[..], check::from_hex(&key_bytes.replace(' ', "")));
        assert_eq!(row.encode()[..], check::from_hex(&expected.replace(char::is_whitespace, "")));
        assert_eq!(Failures::decode(&row.encode()).as_ref(), Ok(&row));
        assert!(Failures::decode(&[1]).is_err(), "a row of nothing is not written");
    }

    proptest! {
        #[test]
        fn it_comes_back(
            id in 0..u64::MAX, partition in any::<u16>(), index in any::<u64>(),
            runs in vec((0..100u64, 1..100u64, any::<(u16, u8, u64, u64, u64)>()), 1..6),
        ) {
            let mut at = 0;
            let runs = runs.into_iter().map(|(gap, len, history)| {
                let (attempts, returned, first_failure_ms, last_failure_ms, not_before_ms) = history;
                let run = at + gap..at + gap + len;
                at = run.end;
                (run, History { attempts, returned, first_failure_ms, last_failure_ms, not_before_ms })
            });
            let row = Failures::new(runs.collect()).unwrap();
            let key = (SubscriptionId(id), PartitionId(partition), index);
            let decoded = Failures::decode(&row.encode());
            prop_assert_eq!(decoded.as_ref(), Ok(&row));
            prop_assert_eq!(Failures::parse_key(&Failures::key(&key)), Some(key));
            check::is_within::<Failures>(&key, &of_partition(key.0, key.1));
            check::is_within::<Failures>(&key, &progress_of_subscription(key.0));
        }

        #[test]
        fn garbage_is_refused_or_reads_back_as_it_was(garbage in vec(any::<u8>(), 0..120)) {
            check::garbage::<Failures>(&garbage);
        }
    }
}
