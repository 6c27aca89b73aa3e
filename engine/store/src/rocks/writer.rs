//! A commit as one write batch, and the sync.

use rocksdb::{ColumnFamily, WriteBatch};

use super::{database::Database, failure};
use crate::{
    Commit, Error, Family, Op,
    commit::{APPLIED_KEY, APPLIED_ROW_BYTES, AppliedRow},
};

/// What RocksDB adds to an operation at most: tag, family, two lengths.
const OP_OVERHEAD_BYTES: usize = 16;

impl Database {
    /// Writes a commit whole, to memory and to the log file, without a sync.
    pub(super) fn write(&self, commit: &Commit) -> Result<(), Error> {
        let families = Family::ALL.map(|family| self.family(family));
        let row = AppliedRow::of(commit).encode();
        let capacity = commit.encoded_len()
            + (commit.ops.len() + 2) * OP_OVERHEAD_BYTES
            + APPLIED_KEY.len()
            + 2 * APPLIED_ROW_BYTES;
        let mut batch = WriteBatch::with_capacity_bytes(capacity);
        for op in &commit.ops {
            add(&mut batch, &families, op);
        }
        batch.put_cf(&families[usize::from(Family::Meta.number())], APPLIED_KEY, row);
        self.link(&mut batch, commit.index, &row);
        self.db.write(batch).map_err(|error| failure::of_call("write", &error))
    }

    /// Makes everything durable that was written before the call. Writes go on meanwhile.
    pub(super) fn sync(&self) -> Result<(), Error> {
        self.db.flush_wal(true).map_err(|error| failure::of_call("sync", &error))
    }
}

fn add(batch: &mut WriteBatch, families: &[&ColumnFamily; Family::ALL.len()], op: &Op) {
    let handle = |family: &Family| families[usize::from(family.number())];
    match op {
        Op::Put { family, key, value } => batch.put_cf(&handle(family), key, value),
        Op::Delete { family, key } => batch.delete_cf(&handle(family), key),
        // RocksDB fails the whole batch over a range that is turned round.
        Op::DeleteRange { family, from, to } if from < to => batch.delete_range_cf(&handle(family), from, to),
        Op::DeleteRange { .. } => {}
    }
}
