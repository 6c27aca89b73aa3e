//! That a transaction is not decided, and how often its group was asked about it.
//!
//! ```text
//!  0         1          9       13       15
//!  +---------+----------+-------+--------+----------+
//!  | version | prepared | bytes | checks | next     |
//!  | u8 = 1  | u64 (ms) | u32   | u16    | u64 (ms) |
//!  +---------+----------+-------+--------+----------+
//! ```
//!
//! `next` is all ones if it is parked: nobody is asked any more.

use bytes::{BufMut, Bytes, BytesMut};
use levada_protocol::{
    ids::{GroupName, Timestamp},
    limits::CHECK_AFTER_MS_MAX,
};
use levada_store::Family;

use super::{
    Row,
    codec::{Damage, Fields},
    key::{KeyBuilder, KeyFields, KeyRange},
    tag,
    transaction_key::{TransactionKey, of_group},
};

const PARKED: u64 = u64::MAX;

/// A transaction that waits for its decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Undecided {
    /// When it was prepared.
    pub(crate) prepared: Timestamp,
    /// Bytes of its batches.
    pub(crate) bytes: u32,
    /// How often its group was asked.
    pub(crate) checks: u16,
    /// When it is asked next; `None` if it is parked.
    pub(crate) next_check: Option<Timestamp>,
}

impl Undecided {
    /// True if its group is to be asked by now. One that waits for longer than anything may was prepared by a clock that was
    /// ahead, and set back since.
    pub(crate) fn is_due(&self, now: Timestamp) -> bool {
        self.next_check.is_some_and(|at| at <= now || at.0 - now.0 > CHECK_AFTER_MS_MAX)
    }

    /// Those of one group.
    pub(crate) fn of_group(group: &GroupName) -> KeyRange {
        of_group(tag::UNDECIDED, group)
    }

    /// All of them.
    pub(crate) fn all() -> KeyRange {
        KeyBuilder::new(1).u8(tag::UNDECIDED).range()
    }
}

impl Row for Undecided {
    const NAME: &'static str = "undecided transaction";
    const FAMILY: Family = Family::Prepared;
    const VERSION: u8 = 1;
    type Key = TransactionKey;

    fn key(key: &Self::Key) -> Bytes {
        key.put(KeyBuilder::new(1 + key.len()).u8(tag::UNDECIDED)).finish()
    }

    fn parse_key(key: &[u8]) -> Option<Self::Key> {
        let mut fields = KeyFields::after(&[tag::UNDECIDED], key)?;
        let key = TransactionKey::read(&mut fields)?;
        fields.finish(key)
    }

    fn len(&self) -> usize {
        22
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u64_le(self.prepared.0);
        out.put_u32_le(self.bytes);
        out.put_u16_le(self.checks);
        out.put_u64_le(self.next_check.map_or(PARKED, |time| time.0));
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        let prepared = Timestamp(fields.u64()?);
        let (bytes, checks) = (fields.u32()?, fields.u16()?);
        let next_check = Some(fields.u64()?).filter(|time| *time != PARKED).map(Timestamp);
        Ok(Self { prepared, bytes, checks, next_check })
    }
}

#[cfg(test)]
mod tests {
    use proptest::{option, prelude::*};

    use super::*;
    use crate::rows::check;

    #[test]
    fn the_bytes_are_these() {
        let key = TransactionKey { group: "a".parse().unwrap(), id: "b".parse().unwrap() };
        let row = Undecided { prepared: Timestamp(1), bytes: 2, checks: 3, next_check: Some(Timestamp(4)) };
        check::bytes(&key, &row, "03 61 00 62 00", "01 0100000000000000 02000000 0300 0400000000000000");
        let parked = Undecided { next_check: None, ..row };
        check::bytes(&key, &parked, "03 61 00 62 00", "01 0100000000000000 02000000 0300 ffffffffffffffff");
    }

    #[test]
    fn a_check_is_due_at_its_time_and_where_the_clock_was_set_back() {
        let waits =
            |at| Undecided { prepared: Timestamp(0), bytes: 1, checks: 0, next_check: Some(Timestamp(at)) };
        let now = Timestamp(1_000);
        assert!(waits(1_000).is_due(now) && !waits(1_001).is_due(now));
        assert!(
            !waits(1_000 + CHECK_AFTER_MS_MAX).is_due(now) && waits(1_001 + CHECK_AFTER_MS_MAX).is_due(now)
        );
        assert!(!Undecided { next_check: None, ..waits(1) }.is_due(now), "it is parked");
    }

    proptest! {
        #[test]
        fn it_comes_back(group in "[a-z0-9]{1,20}", id in "[!-~]{1,40}", counts: (u64, u32, u16), next in option::of(0..u64::MAX)) {
            let key = TransactionKey { group: group.parse().unwrap(), id: id.parse().unwrap() };
            let (prepared, bytes, checks) = (Timestamp(counts.0), counts.1, counts.2);
            check::comes_back(&key, &Undecided { prepared, bytes, checks, next_check: next.map(Timestamp) });
            check::is_within::<Undecided>(&key, &Undecided::all());
            check::is_within::<Undecided>(&key, &Undecided::of_group(&key.group));
        }
    }
}
