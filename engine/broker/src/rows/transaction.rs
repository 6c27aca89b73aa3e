//! A transaction: its batches without their bytes, and what was decided about it. How often its group was asked is in a
//! row of its own ([`super::Undecided`]), and so are the bytes of what is prepared ([`super::PreparedBatch`]).
//!
//! ```text
//!  0         1       2        18               26              34
//!  +---------+-------+--------+----------------+---------------+---------+
//!  | version | state | digest | prepared       | decided       | batches |
//!  | u8 = 1  | u8    | u128   | u64 (ms)       | u64 (ms)      |         |
//!  +---------+-------+--------+----------------+---------------+---------+
//! ```
//!
//! `state`: 0 prepared, 1 committed, 2 rolled back. `prepared` is 0 if it was committed at once. Each batch:
//!
//! ```text
//!  0       4           6        10       18               20
//!  +-------+-----------+--------+--------+----------------+------------+
//!  | topic | partition | events | base   | duplicates_len | duplicates |
//!  | u32   | u16       | u32    | u64    | u16            |            |
//!  +-------+-----------+--------+--------+----------------+------------+
//! ```
//!
//! `base` is all ones if no event of the batch is in the log.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use levada_protocol::{
    duplicates::Duplicates,
    ids::{GroupName, Offset, PartitionId, Timestamp, TopicId},
    limits::{DECISION_REMEMBERED_MS, TRANSACTION_REMEMBERED_MS},
};
use levada_store::Family;

use super::{
    Row,
    codec::{Damage, Fields},
    key::{KeyBuilder, KeyFields, KeyRange},
    tag,
    transaction_key::{TransactionKey, of_group},
};

const NO_BASE: u64 = u64::MAX;
const FIXED: usize = 33;
const BATCH_FIXED: usize = 24;

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nobody has decided yet.
    Prepared,
    Committed,
    RolledBack,
}

/// A transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transaction {
    /// Of everything that was asked for: a repeat has the same.
    pub(crate) digest: u128,
    /// When it was prepared; `None` if it was committed at once.
    pub(crate) prepared: Option<Timestamp>,
    pub(crate) verdict: Verdict,
    /// When it was decided; 0 if it was not.
    pub(crate) decided: Timestamp,
    /// In the order in which they came.
    pub(crate) batches: Vec<Share>,
}

/// A batch of a transaction, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) topic: TopicId,
    pub(crate) partition: PartitionId,
    pub(crate) events: u32,
    /// Bytes of the batch.
    pub(crate) bytes: u32,
    /// The first stored event's offset.
    pub(crate) base: Option<Offset>,
    /// The events that were not stored because of their ids.
    pub(crate) duplicates: Option<Arc<Duplicates>>,
}

impl Transaction {
    /// Bytes that a transaction of so many batches takes, its key included, without duplicates.
    pub(crate) fn len_of(key: &TransactionKey, batches: usize) -> usize {
        1 + key.len() + 1 + FIXED + batches * BATCH_FIXED
    }

    /// When it is forgotten, if it was decided.
    pub(crate) fn end(&self) -> Timestamp {
        let remembered = self.prepared.map_or(TRANSACTION_REMEMBERED_MS, |_| DECISION_REMEMBERED_MS);
        Timestamp(self.decided.0.saturating_add(remembered))
    }

    /// Those of one group.
    pub(crate) fn of_group(group: &GroupName) -> KeyRange {
        of_group(tag::TRANSACTION, group)
    }

    /// All of them.
    pub(crate) fn all() -> KeyRange {
        KeyBuilder::new(1).u8(tag::TRANSACTION).range()
    }
}

impl Row for Transaction {
    const NAME: &'static str = "transaction";
    const FAMILY: Family = Family::Prepared;
    const VERSION: u8 = 1;
    type Key = TransactionKey;

    fn key(key: &Self::Key) -> Bytes {
        key.put(KeyBuilder::new(1 + key.len()).u8(tag::TRANSACTION)).finish()
    }

    fn parse_key(key: &[u8]) -> Option<Self::Key> {
        let mut fields = KeyFields::after(&[tag::TRANSACTION], key)?;
        let key = TransactionKey::read(&mut fields)?;
        fields.finish(key)
    }

    fn len(&self) -> usize {
        let share = |share: &Share| {
            BATCH_FIXED + share.duplicates.as_ref().map_or(0, |duplicates| duplicates.encoded_len())
        };
        FIXED + self.batches.iter().map(share).sum::<usize>()
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u8(match self.verdict {
            Verdict::Prepared => 0,
            Verdict::Committed => 1,
            Verdict::RolledBack => 2,
        });
        out.put_u128_le(self.digest);
        out.put_u64_le(self.prepared.map_or(0, |time| time.0));
        out.put_u64_le(self.decided.0);
        for Share { topic, partition, events, bytes, base, duplicates } in &self.batches {
            out.put_u32_le(topic.0);
            out.put_u16_le(partition.0);
            out.put_u32_le(*events);
            out.put_u32_le(*bytes);
            out.put_u64_le(base.map_or(NO_BASE, |base| base.0));
            let len = duplicates.as_ref().map_or(0, |duplicates| duplicates.encoded_len());
            out.put_u16_le(u16::try_from(len).expect("one batch's duplicates are bounded"));
            if let Some(duplicates) = duplicates {
                duplicates.write(out);
            }
        }
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        let verdict = match fields.u8()? {
            0 => Verdict::Prepared,
            1 => Verdict::Committed,
            2 => Verdict::RolledBack,
            other => return Err(format!("state {other} never was").into()),
        };
        let digest = u128::from_le_bytes(fields.array()?);
        let prepared = Some(Timestamp(fields.u64()?)).filter(|time| time.0 > 0);
        let decided = Timestamp(fields.u64()?);
        let mut batches = Vec::new();
        while fields.left() > 0 {
            let (topic, partition) = (TopicId(fields.u32()?), PartitionId(fields.u16()?));
            let (events, bytes) = (fields.u32()?, fields.u32()?);
            let base = Some(fields.u64()?).filter(|base| *base != NO_BASE).map(Offset);
            let len = usize::from(fields.u16()?);
            let duplicates = match fields.take(len)? {
                [] => None,
                found => Some(Arc::new(Duplicates::read(found).ok_or("its duplicates are damaged")?)),
            };
            batches.push(Share { topic, partition, events, bytes, base, duplicates });
        }
        if batches.is_empty() {
            return Err("it has no batch".into());
        }
        Ok(Self { digest, prepared, verdict, decided, batches })
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;
    use crate::rows::check;

    fn key(group: &str, id: &str) -> TransactionKey {
        TransactionKey { group: group.parse().unwrap(), id: id.parse().unwrap() }
    }

    #[test]
    fn the_bytes_are_these() {
        let share = Share {
            topic: TopicId(1),
            partition: PartitionId(2),
            events: 3,
            bytes: 8,
            base: Some(Offset(4)),
            duplicates: None,
        };
        let row = Transaction {
            digest: 5,
            prepared: Some(Timestamp(6)),
            verdict: Verdict::Committed,
            decided: Timestamp(7),
            batches: vec![share],
        };
        let value = "01 01 05000000000000000000000000000000 0600000000000000 0700000000000000 \
                     01000000 0200 03000000 08000000 0400000000000000 0000";
        let key = key("ab", "c/d");
        let decoded = (Transaction::parse_key(&Transaction::key(&key)), row.encode());
        assert_eq!(decoded.0, Some(key.clone()));
        assert_eq!(Transaction::key(&key)[..], [1, b'a', b'b', 0, b'c', b'/', b'd', 0]);
        assert_eq!(decoded.1[..], check::from_hex(value)[..]);
        assert_eq!(Transaction::decode(&decoded.1), Ok(row));
    }

    proptest! {
        #[test]
        fn it_comes_back(
            names in ("[a-z0-9]{1,20}", "[!-~]{1,40}"),
            digest: u128,
            times in (option::of(1..u64::MAX), any::<u64>()),
            verdict in prop_oneof![Just(Verdict::Prepared), Just(Verdict::Committed), Just(Verdict::RolledBack)],
            batches in vec((any::<(u32, u16, u32, u32)>(), option::of(0..u64::MAX), vec(option::of(0..40_u64), 0..20)), 1..5),
        ) {
            let share = |((topic, partition, events, bytes), base, firsts): (_, Option<u64>, Vec<Option<u64>>)| {
                let mut duplicates = None;
                for (index, first) in (0..).zip(firsts) {
                    first.into_iter().for_each(|first| Duplicates::note(&mut duplicates, index, Offset(first)));
                }
                Share {
                    topic: TopicId(topic),
                    partition: PartitionId(partition),
                    events,
                    bytes,
                    base: base.map(Offset),
                    duplicates: duplicates.map(Arc::new),
                }
            };
            let row = Transaction {
                digest,
                prepared: times.0.map(Timestamp),
                verdict,
                decided: Timestamp(times.1),
                batches: batches.into_iter().map(share).collect(),
            };
            let key = key(&names.0, &names.1);
            let value = row.encode();
            prop_assert_eq!(value.len(), 1 + row.len());
            let duplicates: usize = row.batches.iter().flat_map(|it| &it.duplicates).map(|it| it.encoded_len()).sum();
            let counted = Transaction::len_of(&key, row.batches.len()) + duplicates;
            prop_assert_eq!(Transaction::key(&key).len() + value.len(), counted);
            prop_assert_eq!(Transaction::parse_key(&Transaction::key(&key)), Some(key.clone()));
            prop_assert_eq!(Transaction::decode(&value), Ok(row));
            check::is_within::<Transaction>(&key, &Transaction::of_group(&key.group));
            check::is_within::<Transaction>(&key, &Transaction::all());
        }

        #[test]
        fn garbage_is_refused_or_reads_back_as_it_was(garbage in vec(any::<u8>(), 0..120)) {
            check::garbage::<Transaction>(&garbage);
        }

        #[test]
        fn keys_sort_by_group_then_id(a in ("[a-z0-9_-]{0,9}", "[!-~]{1,9}"), b in ("[a-z0-9_-]{0,9}", "[!-~]{1,9}")) {
            let (a, b) = (key(&format!("g{}", a.0), &a.1), key(&format!("g{}", b.0), &b.1));
            prop_assert_eq!(a.cmp(&b), Transaction::key(&a).cmp(&Transaction::key(&b)));
        }
    }
}
