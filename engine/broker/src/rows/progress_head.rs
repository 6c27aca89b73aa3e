//! The head of a subscription's progress in one partition: 23 bytes after the version byte. In version 1 one entry of 40
//! bytes follows per run of failed offsets, in order; since version 2 these have rows of their own
//! ([`levada_delivery::progress::Failures`]), and there are no entries.
//!
//! ```text
//!  0         1          4        8         16           24
//!  +---------+----------+--------+---------+------------+---------+
//!  | version | reserved | count  | floor   | generation | entries |
//!  | u8 = 2  | 3 bytes  | u32    | u64     | u64        |         |
//!  +---------+----------+--------+---------+------------+---------+
//!
//!  0       8      12         14         15         16              24             32           40
//!  +-------+------+----------+----------+----------+---------------+--------------+------------+
//!  | first | len  | attempts | returned | reserved | first_failure | last_failure | not_before |
//!  | u64   | u32  | u16      | u8       | u8       | u64 (ms)      | u64 (ms)     | u64 (ms)   |
//!  +-------+------+----------+----------+----------+---------------+--------------+------------+
//! ```

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use levada_delivery::progress::{Head, History};
use levada_protocol::ids::{PartitionId, SubscriptionId};
use levada_store::Family;

use super::{
    Row,
    codec::{Damage, Fields},
    key::{KeyBuilder, KeyFields, KeyRange},
    progress_part::{HISTORY_BYTES, read_history, write_history},
    tag,
};

const HEADER_BYTES: usize = 23;
const ENTRY_BYTES: usize = 12 + HISTORY_BYTES;
/// What follows the partition in the key.
const KIND: u8 = 0x00;

/// All rows of a subscription's progress, chunks included.
pub(crate) fn of_subscription(id: SubscriptionId) -> KeyRange {
    KeyBuilder::new(9).u8(tag::CURSOR_SUBSCRIPTION).u64(id.0).range()
}

impl Row for Head {
    const NAME: &'static str = "progress head";
    const FAMILY: Family = Family::Cursors;
    const VERSION: u8 = 2;
    const VERSION_MIN: u8 = 1;
    type Key = (SubscriptionId, PartitionId);

    fn key((id, partition): &Self::Key) -> Bytes {
        KeyBuilder::new(12).u8(tag::CURSOR_SUBSCRIPTION).u64(id.0).u16(partition.0).u8(KIND).finish()
    }

    fn parse_key(key: &[u8]) -> Option<Self::Key> {
        let mut fields = KeyFields::after(&[tag::CURSOR_SUBSCRIPTION], key)?;
        let partition = (SubscriptionId(fields.u64()?), PartitionId(fields.u16()?));
        (fields.array()? == [KIND]).then_some(())?;
        fields.finish(partition)
    }

    fn len(&self) -> usize {
        HEADER_BYTES + self.failures().len() * ENTRY_BYTES
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_bytes(0, 3);
        out.put_u32_le(u32::try_from(self.failures().len()).expect("runs lie within two windows"));
        out.put_u64_le(self.floor());
        out.put_u64_le(self.generation());
        for (run, history) in self.failures() {
            out.put_u64_le(run.start);
            out.put_u32_le(u32::try_from(run.end - run.start).expect("runs lie within two windows"));
            write_history(out, history);
        }
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        fields.reserved::<3>()?;
        let (count, floor, generation) = (fields.u32()?, fields.u64()?, fields.u64()?);
        let expected = usize::try_from(count).ok().and_then(|count| count.checked_mul(ENTRY_BYTES));
        if expected != Some(fields.left()) {
            return Err(format!("{count} entries in {} bytes", fields.left()).into());
        }
        let failures = (0..count).map(|_| read_entry(fields)).collect::<Result<_, _>>()?;
        Self::new(floor, generation, failures).ok_or_else(|| "failed offsets are out of order".into())
    }
}

fn read_entry(fields: &mut Fields<'_>) -> Result<(Range<u64>, History), Damage> {
    let (first, len) = (fields.u64()?, u64::from(fields.u32()?));
    let history = read_history(fields)?;
    let end = first.checked_add(len).ok_or("failed offsets end past the last offset")?;
    Ok((first..end, history))
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::rows::check;

    #[test]
    fn the_bytes_are_these() {
        let history =
            History { attempts: 2, returned: 1, first_failure_ms: 5, last_failure_ms: 6, not_before_ms: 7 };
        let head = Head::new(3, 9, vec![(3..5, history)]).unwrap();
        let expected = "02 000000 01000000 0300000000000000 0900000000000000 \
            0300000000000000 02000000 0200 01 00 0500000000000000 0600000000000000 0700000000000000";
        check::bytes(&(SubscriptionId(1), PartitionId(2)), &head, "01 0000000000000001 0002 00", expected);
    }

    #[test]
    fn a_head_of_version_1_is_read_with_the_failures_in_it() {
        let bytes = check::from_hex(concat!(
            "01",
            "000000",
            "01000000",
            "0300000000000000",
            "0900000000000000",
            "0300000000000000",
            "02000000",
            "0200",
            "01",
            "00",
            "0500000000000000",
            "0600000000000000",
            "0700000000000000",
        ));
        let head = Head::decode(&bytes).unwrap();
        assert_eq!((head.floor(), head.generation(), head.failures()[0].0.clone()), (3, 9, 3..5));
    }

    proptest! {
        #[test]
        fn it_comes_back(
            id in any::<u64>(), partition in any::<u16>(), floor in any::<u64>(), generation in any::<u64>(),
            runs in vec((0..1_000u64, 1..1_000u64, any::<(u16, u8, u64, u64, u64)>()), 0..6),
        ) {
            let mut at = 0;
            let failures = runs.into_iter().map(|(gap, len, history)| {
                let (attempts, returned, first_failure_ms, last_failure_ms, not_before_ms) = history;
                let run = at + gap..at + gap + len;
                at = run.end;
                (run, History { attempts, returned, first_failure_ms, last_failure_ms, not_before_ms })
            });
            let head = Head::new(floor, generation, failures.collect()).unwrap();
            let key = (SubscriptionId(id), PartitionId(partition));
            check::comes_back(&key, &head);
            check::is_within::<Head>(&key, &of_subscription(key.0));
        }

        #[test]
        fn garbage_is_refused_or_reads_back_as_it_was(garbage in vec(any::<u8>(), 0..120)) {
            check::garbage::<Head>(&garbage);
        }
    }
}
