//! The contract of a store. [`crate::conformance`] checks it; every implementation runs that suite.

use bytes::Bytes;
use levada_protocol::ids::CommitIndex;

use crate::{Commit, Error, Family, commit::AppliedRow};

/// Keeps commits and answers questions about the rows they made.
///
/// One shard has one store. Only the shard writes to it, and it holds nothing that was not in a commit.
///
/// # Order and atomicity
/// Commits are applied in the order of their indexes, each whole or not at all. Within a commit the operations
/// take effect in their order: a put after a range delete survives it. A read sees all of a commit or nothing
/// of it, and sees it as soon as [`Store::apply`] returned: *before* it is durable. A caller that shows rows to
/// others bounds them by what a sync has confirmed.
///
/// # Durability
/// [`Store::apply`] hands a commit to the operating system: it survives the end of the process, not a power cut.
/// [`Store::sync`] makes everything applied before the call survive that too. After a crash a store holds all
/// commits up to some index, at least the last one that a sync confirmed, and nothing of later ones.
///
/// # Idempotence
/// A commit that was applied before changes nothing and is `Ok`. So a history may be replayed from any index at or
/// below the next one. A commit that leaves a gap is refused with [`Error::Gap`].
///
/// # Forks
/// Every commit names its writer's term and the hash of the commit before it. One that follows on another commit than
/// the one applied last, or has the index of one that was applied and is not the same, is refused with
/// [`Error::Diverged`]; how far back a store can tell is its own, but not less than 1,000 commits, and older ones are
/// taken for a replay. What is new to the store and of a lower term than the commit applied last is refused with
/// [`Error::Fenced`]. Neither is a failure: the right commit is taken afterwards.
///
/// # Failure
/// The first failed write or sync is final: [`Store::apply`], [`Store::sync`] and [`Store::compact`] answer with
/// it, and are not tried again, until [`Store::reopen`] succeeds or the process restarts. What was applied and
/// not confirmed may be there afterwards or not. Reads continue. A full disk, an exhausted quota ([`Error::Full`]) and
/// a lack of file descriptors ([`Error::NoDescriptors`]) are such failures with their own errors, after which `reopen`
/// makes sense again and again ([`Error::heals`]); after any other failure the operator should check first.
///
/// # Threads
/// `apply` has one caller at a time. Everything else may be called from any thread at any time: `sync` while
/// `apply` runs, reads while either runs. `reopen` waits until running calls have ended, and calls made meanwhile
/// wait for it. All calls may block on the disk.
///
/// # Edge values
/// Keys may have any bytes and any length, zero included, up to 64 KiB; values may be empty. A range is
/// `[from, to)` in the order of bytes; one that is empty or turned round holds nothing: it deletes nothing
/// and scans nothing. Index 0 is the empty store; the first commit has `previous` 0.
pub trait Store: Send + Sync + 'static {
    /// The index of the commit applied last; 0 if there is none.
    fn applied(&self) -> CommitIndex {
        self.last().index
    }

    /// The commit applied last; the default if there is none.
    fn last(&self) -> AppliedRow;

    /// Applies a commit as a whole; it is readable at once and not yet durable.
    fn apply(&self, commit: &Commit) -> Result<(), Error>;

    /// Makes everything durable that was applied before the call, and returns the index of the last of it.
    fn sync(&self) -> Result<CommitIndex, Error>;

    /// The value of one row.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, Error>;

    /// The rows of `[from, to)` in ascending order, as of one moment, up to the limit. Of [`Family::Log`] those before
    /// a damaged row are answered alone; a scan that begins with the damaged one fails.
    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
        limit: ScanLimit,
    ) -> Result<Vec<(Bytes, Bytes)>, Error>;

    /// The row with the largest key in `[from, below)`.
    fn last_before(&self, family: Family, from: &[u8], below: &[u8])
    -> Result<Option<(Bytes, Bytes)>, Error>;

    /// Gives the space of deleted rows in `[from, to)` back to the file system. Slow and blocking; it changes
    /// nothing that can be read, as long as `deleted` is true. If it fails with [`Error::Compaction`] the store is as well
    /// as before.
    fn compact(&self, family: Family, from: &[u8], to: &[u8], deleted: Deleted) -> Result<(), Error>;

    /// Writes what is in memory to files, where there is room for that, so that the write-ahead log need not be kept
    /// for it: what has come and gone since takes no space there either. Slow and blocking; it changes nothing that
    /// can be read.
    fn flush(&self) -> Result<(), Error>;

    /// Closes what is open and opens it again, in the same process: how a store recovers from a full disk.
    ///
    /// [`Store::applied`] may be less afterwards, but not less than what a sync confirmed. If there is still no
    /// room the answer is [`Error::Full`] again, without descriptors [`Error::NoDescriptors`], and reads continue where
    /// the implementation can still serve them.
    fn reopen(&self) -> Result<(), Error>;

    /// What the store has done and holds. Cheap enough to call every second.
    fn stats(&self) -> StoreStats;

    /// Makes everything durable and closes the files. Every later call returns [`Error::Closed`].
    fn close(&self) -> Result<(), Error>;
}

/// What of a range is deleted, whose space is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// Every row, and none is ever put there again: where there is no room to write, whole files may be removed.
    All,
    /// Some rows, or none but older values of rows: others live.
    Some,
}

/// Where a scan stops: after the row that reaches either bound, so that one row is always read if there is any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanLimit {
    /// Rows.
    pub rows: usize,
    /// Bytes of keys and values together.
    pub bytes: usize,
}

impl ScanLimit {
    /// No bound: for ranges that are known to be small.
    pub const NONE: Self = Self { rows: usize::MAX, bytes: usize::MAX };

    /// A bound on rows alone.
    pub const fn rows(rows: usize) -> Self {
        Self { rows, bytes: usize::MAX }
    }

    /// A bound on bytes alone.
    pub const fn bytes(bytes: usize) -> Self {
        Self { rows: usize::MAX, bytes }
    }

    /// True if what was read so far reaches a bound.
    pub(crate) fn is_reached(self, rows: usize, bytes: usize) -> bool {
        rows >= self.rows || bytes >= self.bytes
    }
}

/// What a store has done since it was opened, and what it holds now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Bytes written to the write-ahead log.
    pub wal_bytes: u64,
    /// Times that the write-ahead log was synced.
    pub wal_syncs: u64,
    /// Bytes written by moving memory to files, the log's large values included.
    pub flush_bytes: u64,
    /// Bytes that compaction read.
    pub compaction_read_bytes: u64,
    /// Bytes that compaction wrote, moved large values included.
    pub compaction_bytes: u64,
    /// Microseconds that writes were held back because flushing or compaction was behind.
    pub stall_micros: u64,
    /// Bytes in memory that are not in files yet.
    pub memtable_bytes: u64,
    /// Bytes of the log family on disk: keys, small values, and large values, deleted ones included.
    pub log_bytes: u64,
    /// Those of `log_bytes` that are known to be deleted and not given back yet.
    pub log_garbage_bytes: u64,
    /// Bytes of all other families on disk.
    pub other_bytes: u64,
}
