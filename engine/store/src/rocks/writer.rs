//! A commit as one write batch.
//!
//! When memory is full RocksDB holds a write up until some of it is in files. On a full disk that would be for as long
//! as the disk is full, and the writer is also what makes room for a recovery: so the waiting is done here.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use levada_protocol::ids::CommitIndex;
use rocksdb::{ColumnFamily, ErrorKind, WriteBatch, WriteOptions, properties};

use super::{
    chain::{self, Link},
    failure,
    handle::Rocks,
};
use crate::{
    Commit, Error, Family, Op,
    commit::{APPLIED_KEY, APPLIED_ROW_BYTES, AppliedRow},
};

/// What RocksDB adds to an operation at most: tag, family, two lengths.
const OP_OVERHEAD_BYTES: usize = 16;
/// How often a delayed write checks whether it may continue.
const STALL_LOOK: Duration = Duration::from_millis(1);
/// After this many checks it tries in any case.
const STALL_LOOKS_MAX: u32 = 100;
/// RocksDB's text for a write that it would hold up.
const STALL: &str = "Write stall";

/// What writes commits.
pub(super) struct Writer {
    /// What every commit carries to show that it is this database's.
    salt: u64,
    /// How long writes were delayed for lack of memory.
    stalled_micros: AtomicU64,
}

impl Writer {
    pub(super) fn new(salt: u64) -> Self {
        Self { salt, stalled_micros: AtomicU64::new(0) }
    }

    /// How long writes were delayed since the open, in microseconds.
    pub(super) fn stalled_micros(&self) -> u64 {
        self.stalled_micros.load(Ordering::Relaxed)
    }

    /// Writes a commit whole, to memory and to the log file, without a sync. `applied` is the row that it leaves
    /// behind, `confirmed` is what a sync has confirmed. `cover` is asked first, with the bytes that are written.
    pub(super) fn write(
        &self,
        rocks: &Rocks,
        commit: &Commit,
        (applied, confirmed): (AppliedRow, CommitIndex),
        cover: impl FnOnce(usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let link = Link { applied, confirmed, salt: self.salt };
        let first = batch(rocks, commit, &link);
        cover(first.size_in_bytes())?;
        let mut options = WriteOptions::default();
        options.set_no_slowdown(true);
        let mut written = rocks.db.write_opt(first, &options);
        while written.as_ref().is_err_and(is_stall) {
            self.wait_for_stall(rocks);
            written = rocks.db.write_opt(batch(rocks, commit, &link), &options);
        }
        written.map_err(|error| failure::of_call("write", &error))
    }

    /// Waits until writes are taken again, or writing memory out fails: the next write answers with that.
    fn wait_for_stall(&self, rocks: &Rocks) {
        let errors = rocks.background_errors();
        for _ in 0..STALL_LOOKS_MAX {
            thread::sleep(STALL_LOOK);
            self.stalled_micros.fetch_add(STALL_LOOK.subsec_micros().into(), Ordering::Relaxed);
            let is_stopped = rocks.property(properties::IS_WRITE_STOPPED) == 1;
            if !is_stopped || rocks.background_errors() != errors {
                return;
            }
        }
    }
}

fn batch(rocks: &Rocks, commit: &Commit, link: &Link) -> WriteBatch {
    let mut families = Families { rocks, found: [None; Family::ALL.len()] };
    let capacity = commit.encoded_len()
        + (commit.ops.len() + 2) * OP_OVERHEAD_BYTES
        + APPLIED_KEY.len()
        + APPLIED_ROW_BYTES
        + chain::LINK_BYTES;
    let mut batch = WriteBatch::with_capacity_bytes(capacity);
    for op in &commit.ops {
        add(&mut batch, &mut families, op);
    }
    batch.put_cf(&families.of(Family::Meta), APPLIED_KEY, link.applied.encode());
    chain::link(&mut batch, link);
    batch
}

fn is_stall(error: &rocksdb::Error) -> bool {
    error.kind() == ErrorKind::Incomplete && error.to_string().contains(STALL)
}

/// The column families that a batch names, each looked up once.
struct Families<'a> {
    rocks: &'a Rocks,
    found: [Option<&'a ColumnFamily>; Family::ALL.len()],
}

impl<'a> Families<'a> {
    fn of(&mut self, family: Family) -> &'a ColumnFamily {
        let found = &mut self.found[usize::from(family.number())];
        found.get_or_insert_with(|| self.rocks.family(family))
    }
}

fn add(batch: &mut WriteBatch, families: &mut Families<'_>, op: &Op) {
    match op {
        Op::Put { family, key, value } => batch.put_cf(&families.of(*family), key, value),
        Op::Delete { family, key } => batch.delete_cf(&families.of(*family), key),
        // RocksDB fails the whole batch over a range that is turned round.
        Op::DeleteRange { family, from, to } if from < to => {
            batch.delete_range_cf(&families.of(*family), from, to);
        }
        Op::DeleteRange { .. } => {}
    }
}
