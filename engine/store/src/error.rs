//! What a store can answer instead of doing what it was asked, and the code that a client sees for it.

use std::{
    io,
    path::{Path, PathBuf},
};

use levada_protocol::{error::ErrorCode, ids::CommitIndex};
use rustix::io::Errno;

use crate::{commit::Term, record::LogKey};

/// Why a store did not do what it was asked.
///
/// It can be cloned: the failure that closed a store is the answer to every later write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The disk has no room. Nothing more is written until [`crate::Store::reopen`] succeeds; reads continue.
    #[error("the disk is full: {reason}")]
    Full {
        /// What the disk answered.
        reason: String,
    },
    /// The process, or the system, has no file descriptor left. After a write or a sync nothing more is written until
    /// [`crate::Store::reopen`] succeeds.
    #[error(
        "no file descriptor is left, which passes; raise the limit of open files if it comes again: {reason}"
    )]
    NoDescriptors {
        /// What was to be opened, and what the system answered.
        reason: String,
    },
    /// A write, a sync or a read failed. After a write or a sync the store takes no more of them.
    #[error("storage failed: {reason}")]
    Failed {
        /// What was being done, and what the disk answered.
        reason: String,
    },
    /// A compaction did not end, often for lack of room. Nothing is lost and writes continue, but deleted rows still
    /// take space; it may be tried again.
    #[error("{jobs} jobs of a compaction failed, the reasons are in {}", log.display())]
    Compaction {
        /// How many of its jobs.
        jobs: u64,
        /// Where RocksDB wrote why.
        log: PathBuf,
    },
    /// Stored bytes are damaged or missing.
    #[error("stored data is damaged: {detail}")]
    Corrupt {
        /// What is damaged or missing.
        detail: String,
    },
    /// Events of one partition cannot be read: their record is damaged or missing.
    #[error(
        "stored events are damaged: topic number {}, partition {}, from offset {} on: {what}",
        at.topic, at.partition, at.base
    )]
    Events {
        /// Where the first of them is.
        at: LogKey,
        /// What was found there.
        what: String,
    },
    /// Another process, or another store of this one, has the directory open.
    #[error("the data directory {} is in use by another engine; stop that one or choose another directory", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory was written by a later release.
    #[error("{what} has format {found}, this release reads up to {supported}; open it with a newer release")]
    Newer {
        /// Which file or row.
        what: String,
        /// The format it has.
        found: u32,
        /// The newest format that this build reads.
        supported: u32,
    },
    /// The directory was written by an earlier release, in a format that this one does not read.
    #[error(
        "{what} has format {found}, this release reads formats from {oldest} on; there is no migration: open it with the \
         build that wrote it, or choose another directory"
    )]
    Older {
        /// Which file or row.
        what: String,
        /// The format it has.
        found: u32,
        /// The oldest format that this build reads.
        oldest: u32,
    },
    /// The commit does not follow the last one applied.
    #[error("commit {index} follows {previous}, but {applied} was applied last")]
    Gap {
        /// The commit that was refused.
        index: CommitIndex,
        /// What it says comes before it.
        previous: CommitIndex,
        /// What was applied last.
        applied: CommitIndex,
    },
    /// The commit is of another history than the one that the store holds: two writers made commits of one index, and
    /// the store has the other's. Its rows have to be rebuilt from the right history.
    #[error("commit {index} is of another history than the store's: {detail}")]
    Diverged {
        /// The commit that was refused.
        index: CommitIndex,
        /// In what they differ.
        detail: String,
    },
    /// The commit is of a writer that another one has taken over from.
    #[error(
        "commit {index} is of term {term}, and the store has commits of term {newest}: another writer has taken over"
    )]
    Fenced {
        /// The commit that was refused.
        index: CommitIndex,
        /// Its term.
        term: Term,
        /// The newest term.
        newest: Term,
    },
    /// The commit writes a row that belongs to the store.
    #[error("commit {index} writes the row `applied`, which is the store's own")]
    Reserved {
        /// The commit that was refused.
        index: CommitIndex,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

impl Error {
    /// An error of a file. `action` is a verb and its object.
    pub fn of_file(action: &str, path: &Path, error: &io::Error) -> Self {
        let reason = format!("cannot {action} {}: {error}", path.display());
        match Errno::from_io_error(error) {
            Some(Errno::NOSPC | Errno::DQUOT) => Self::Full { reason },
            Some(Errno::MFILE | Errno::NFILE) => Self::NoDescriptors { reason },
            _ => match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { reason },
                _ => Self::Failed { reason },
            },
        }
    }

    /// True for the want of something that may be there again a moment later: [`crate::Store::reopen`] is worth trying
    /// again and again, without an operator.
    pub fn heals(&self) -> bool {
        match self {
            Self::Full { .. } | Self::NoDescriptors { .. } => true,
            Self::Failed { .. }
            | Self::Compaction { .. }
            | Self::Corrupt { .. }
            | Self::Events { .. }
            | Self::InUse { .. }
            | Self::Newer { .. }
            | Self::Older { .. }
            | Self::Gap { .. }
            | Self::Diverged { .. }
            | Self::Fenced { .. }
            | Self::Reserved { .. }
            | Self::Closed => false,
        }
    }

    /// The stable code that a client sees.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Full { .. } => ErrorCode::StorageFull,
            Self::NoDescriptors { .. } => ErrorCode::LimitExceeded,
            Self::Failed { .. } | Self::Compaction { .. } => ErrorCode::StorageFailed,
            Self::Corrupt { .. } | Self::Events { .. } => ErrorCode::StorageCorrupt,
            Self::InUse { .. } => ErrorCode::StorageInUse,
            Self::Newer { .. } => ErrorCode::StorageNewer,
            Self::Older { .. } => ErrorCode::StorageOlder,
            Self::Gap { .. } | Self::Reserved { .. } => ErrorCode::Internal,
            Self::Diverged { .. } => ErrorCode::StorageDiverged,
            Self::Fenced { .. } => ErrorCode::StorageFenced,
            Self::Closed => ErrorCode::ShuttingDown,
        }
    }

    /// True if the same call may succeed later, unchanged.
    pub fn is_retryable(&self) -> bool {
        self.code().is_retryable()
    }
}
