//! The last commits by name, so that a hole between them is seen when the store is opened.
//!
//! RocksDB takes the end of one log file for the beginning of the next, whatever lay between. A power cut may take
//! the end of a file that was not synced and leave the next one, and then commits of the middle are gone. So every
//! commit leaves a row here, in RocksDB's family `default`, and the last ones must follow on each other:
//!
//! | key | value | written | goes |
//! | --- | --- | --- | --- |
//! | slot, u16 big endian: the commit's index modulo 1,024 | [`AppliedRow`] of the commit | in the commit's batch | overwritten |
//!
//! **Invariant:** at most 1,024 commits are written and not synced, so a hole is always within reach of the rows.

use std::collections::BTreeMap;

use levada_protocol::ids::CommitIndex;
use rocksdb::{IteratorMode, WriteBatch};

use super::{database::Database, failure};
use crate::{
    Error,
    commit::{APPLIED_ROW_BYTES, AppliedRow},
};

/// RocksDB insists on a family of this name.
pub(super) const FAMILY: &str = "default";
/// How many commits have a row, and how many may be written and not synced.
pub(super) const LENGTH: u64 = 1024;

impl Database {
    /// Adds a commit's row to its batch.
    pub(super) fn link(&self, batch: &mut WriteBatch, index: CommitIndex, row: &[u8; APPLIED_ROW_BYTES]) {
        let slot = u16::try_from(index.0 % LENGTH).expect("a slot is below 1,024");
        batch.put(slot.to_be_bytes(), row);
    }

    /// Checks that the commits up to the one applied last follow on each other, as far back as there are rows.
    pub(super) fn check_chain(&self, applied: CommitIndex) -> Result<(), Error> {
        let mut rows = BTreeMap::new();
        for row in self.db.iterator(IteratorMode::Start) {
            let (_, value) = row.map_err(|error| failure::of_call("read", &error))?;
            let row = AppliedRow::decode(&value)?;
            rows.insert(row.index, row.previous);
        }
        let (mut expected, count) = (applied, rows.len() as u64);
        for (index, previous) in rows.into_iter().rev() {
            if index != expected {
                let first = index.min(expected).0 + 1;
                let last = index.max(expected);
                let detail = format!("commits {first} to {last} are missing between others");
                return Err(Error::Corrupt { detail });
            }
            expected = previous;
        }
        if expected.0 > 0 && count < LENGTH {
            return Err(Error::Corrupt {
                detail: format!("commits up to {expected} are missing before others"),
            });
        }
        Ok(())
    }
}
