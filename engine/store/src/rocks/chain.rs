//! The last commits by name, so that a hole between them is seen when the store is opened.
//!
//! RocksDB takes the end of one log file for the beginning of the next, whatever lay between. A power cut may take
//! the end of a file that was not synced and leave the next one, and then commits of the middle are gone. So every
//! commit leaves a row here, in RocksDB's family `default`, and the last ones must follow on each other:
//!
//! | key | value | written | goes |
//! | --- | --- | --- | --- |
//! | slot, u16 big endian: the commit's index modulo 1,024 | [`Link`], 64 bytes | in the commit's batch | overwritten |
//!
//! ```text
//!  0             48          56     64
//!  +-------------+-----------+------+
//!  | applied row | confirmed | salt |
//!  | 48 bytes    | u64       | u64  |
//!  +-------------+-----------+------+
//! ```
//!
//! All numbers are little endian. `confirmed` is the last commit that a sync had confirmed when this one was written: a
//! commit that is found proves that the ones up to there were durable. `salt` is the database's own random number, so
//! that no bytes of an event can pass for such a row.
//!
//! **Invariant:** at most 1,024 commits are written and not synced, so a hole is always within reach of the rows.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut};
use levada_protocol::ids::CommitIndex;
use rocksdb::{IteratorMode, WriteBatch};

use super::{failure, handle::Rocks};
use crate::{
    Error,
    commit::{APPLIED_ROW_BYTES, AppliedRow, CommitHash},
};

/// How many commits have a row, and how many may be written and not synced.
pub(super) const LENGTH: u64 = 1024;

pub(super) const LINK_BYTES: usize = APPLIED_ROW_BYTES + 16;
/// A batch ends with its row: a tag, the key with its length, the value with its length.
const SUFFIX_BYTES: usize = 1 + 3 + 1 + LINK_BYTES;

/// A commit's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) applied: AppliedRow,
    /// The last commit that a sync had confirmed.
    pub(super) confirmed: CommitIndex,
    pub(super) salt: u64,
}

impl Link {
    fn encode(&self) -> [u8; LINK_BYTES] {
        let mut value = [0; LINK_BYTES];
        let mut out = &mut value[..];
        out.put_slice(&self.applied.encode());
        out.put_u64_le(self.confirmed.0);
        out.put_u64_le(self.salt);
        value
    }

    fn decode(value: &[u8]) -> Result<Self, Error> {
        let Some((applied, mut rest)) =
            value.split_at_checked(APPLIED_ROW_BYTES).filter(|_| value.len() == LINK_BYTES)
        else {
            let detail = format!("a row of the last commits is {} bytes, expected {LINK_BYTES}", value.len());
            return Err(Error::Corrupt { detail });
        };
        let applied = AppliedRow::decode(applied)?;
        Ok(Self { applied, confirmed: CommitIndex(rest.get_u64_le()), salt: rest.get_u64_le() })
    }

    /// The row that a commit's batch ends with, if these bytes are one of this database.
    pub(super) fn of_batch(batch: &[u8], salt: u64) -> Option<Self> {
        let suffix = batch.get(batch.len().checked_sub(SUFFIX_BYTES)?..)?;
        let link = Self::decode(&suffix[SUFFIX_BYTES - LINK_BYTES..]).ok()?;
        (link.salt == salt && suffix[2..4] == slot(link.applied.index)).then_some(link)
    }
}

fn slot(index: CommitIndex) -> [u8; 2] {
    u16::try_from(index.0 % LENGTH).expect("a slot is below 1,024").to_be_bytes()
}

/// Adds a commit's row to its batch, as the last of it.
pub(super) fn link(batch: &mut WriteBatch, link: &Link) {
    batch.put(slot(link.applied.index), link.encode());
}

/// The hash of the commit that was applied with this index, if it is one of the last.
pub(super) fn hash_of(rocks: &Rocks, index: CommitIndex) -> Result<Option<CommitHash>, Error> {
    let row = rocks.db.get(slot(index)).map_err(|error| failure::of_call("read", &error))?;
    let link = row.map(|row| Link::decode(&row)).transpose()?;
    Ok(link.filter(|link| link.applied.index == index).map(|link| link.applied.hash))
}

/// Checks that the commits up to the one applied last follow on each other, as far back as there are rows.
pub(super) fn check(rocks: &Rocks, applied: CommitIndex) -> Result<(), Error> {
    let mut rows = BTreeMap::new();
    for row in rocks.db.iterator(IteratorMode::Start) {
        let (_, value) = row.map_err(|error| failure::of_call("read", &error))?;
        let row = Link::decode(&value)?.applied;
        rows.insert(row.index, row.previous);
    }
    let (mut expected, count) = (applied, rows.len() as u64);
    for (index, previous) in rows.into_iter().rev() {
        if index != expected {
            let first = index.min(expected).0 + 1;
            let last = index.max(expected);
            let detail = format!(
                "commits {first} to {last} are missing between others in {}; restore the data directory \
                 from a backup",
                rocks.db.path().display()
            );
            return Err(Error::Corrupt { detail });
        }
        expected = previous;
    }
    if expected.0 > 0 && count < LENGTH {
        return Err(Error::Corrupt {
            detail: format!(
                "commits up to {expected} are missing before others in {}; restore the data directory from \
                 a backup",
                rocks.db.path().display()
            ),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use levada_protocol::ids::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::commit::Term;

    proptest! {
        #[test]
        fn a_batch_ends_with_its_row(
            index: u64, previous: u64, time: u64, term: u64, hash: u64, confirmed: u64, salt: u64,
        ) {
            let applied = AppliedRow {
                shard: 0,
                index: CommitIndex(index),
                previous: CommitIndex(previous),
                time: Timestamp(time),
                term: Term(term),
                hash: CommitHash(hash),
            };
            let row = Link { applied, confirmed: CommitIndex(confirmed), salt };
            let mut batch = WriteBatch::default();
            batch.put(b"before", b"it");
            link(&mut batch, &row);
            prop_assert_eq!(Link::of_batch(batch.data(), salt), Some(row));
            prop_assert_eq!(Link::of_batch(batch.data(), salt ^ 1), None);
            prop_assert_eq!(Link::of_batch(&batch.data()[1..50], salt), None);
        }
    }
}
