//! A commit as one write batch, and the sync.
//!
//! When memory is full RocksDB holds a write up until some of it is in files. On a full disk that would be for as long
//! as the disk is full, and whoever writes is also who makes room for a recovery: so the waiting is done here.

use std::{sync::atomic::Ordering, thread, time::Duration};

use levada_protocol::ids::CommitIndex;
use rocksdb::{ColumnFamily, ErrorKind, WriteBatch, WriteOptions, properties};

use super::{
    chain::{self, Link},
    database::Database,
    failure,
};
use crate::{
    Commit, Error, Family, Op,
    commit::{APPLIED_KEY, APPLIED_ROW_BYTES, AppliedRow},
};

/// What RocksDB adds to an operation at most: tag, family, two lengths.
const OP_OVERHEAD_BYTES: usize = 16;
/// How often a write that is held up looks whether it may go on.
const STALL_LOOK: Duration = Duration::from_millis(1);
/// After so many looks it tries, whatever it saw.
const STALL_LOOKS_MAX: u32 = 100;
/// RocksDB's text for a write that it would hold up.
const STALL: &str = "Write stall";

impl Database {
    /// Writes a commit whole, to memory and to the log file, without a sync. `applied` is the row that it leaves
    /// behind, `confirmed` is what a sync has confirmed.
    pub(super) fn write(
        &self,
        commit: &Commit,
        applied: AppliedRow,
        confirmed: CommitIndex,
    ) -> Result<(), Error> {
        let batch = self.batch(commit, applied, confirmed);
        self.cover(batch.size_in_bytes())?;
        let mut options = WriteOptions::default();
        options.set_no_slowdown(true);
        let mut written = self.db.write_opt(batch, &options);
        while written.as_ref().is_err_and(is_stall) {
            self.wait_for_stall();
            written = self.db.write_opt(self.batch(commit, applied, confirmed), &options);
        }
        written.map_err(|error| failure::of_call("write", &error))
    }

    /// Waits until writes are taken again, or writing memory out fails: the next write answers with that.
    fn wait_for_stall(&self) {
        let errors = self.background_errors();
        for _ in 0..STALL_LOOKS_MAX {
            thread::sleep(STALL_LOOK);
            self.stalled_micros.fetch_add(STALL_LOOK.subsec_micros().into(), Ordering::Relaxed);
            let stopped = self.db.property_int_value(properties::IS_WRITE_STOPPED).ok().flatten();
            if stopped != Some(1) || self.background_errors() != errors {
                return;
            }
        }
    }

    fn batch(&self, commit: &Commit, applied: AppliedRow, confirmed: CommitIndex) -> WriteBatch {
        let families = Family::ALL.map(|family| self.family(family));
        let capacity = commit.encoded_len()
            + (commit.ops.len() + 2) * OP_OVERHEAD_BYTES
            + APPLIED_KEY.len()
            + APPLIED_ROW_BYTES
            + chain::LINK_BYTES;
        let mut batch = WriteBatch::with_capacity_bytes(capacity);
        for op in &commit.ops {
            add(&mut batch, &families, op);
        }
        batch.put_cf(&families[usize::from(Family::Meta.number())], APPLIED_KEY, applied.encode());
        chain::link(&mut batch, &Link { applied, confirmed, salt: self.salt });
        batch
    }

    /// Makes everything durable that was written before the call. Writes go on meanwhile.
    pub(super) fn sync(&self) -> Result<(), Error> {
        self.db.flush_wal(true).map_err(|error| failure::of_call("sync", &error))
    }
}

fn is_stall(error: &rocksdb::Error) -> bool {
    error.kind() == ErrorKind::Incomplete && error.to_string().contains(STALL)
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
