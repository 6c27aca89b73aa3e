//! The store on disk: RocksDB below the contract of [`crate::store`]. It must not know what the rows mean.
//!
//! A commit is one write batch with the row `meta/applied` in it. Writing goes to the write-ahead log at once and
//! to the disk when synced; the two run on two threads, as RocksDB syncs a log file without holding writes up.
//!
//! **Invariant:** the first failed write or sync is kept and answered to every later one; only a successful
//! reopen forgets it. Recovery reads back what the disk gives and writes it to new, synced files, so nothing
//! that a failed sync left in doubt counts as durable by accident.

mod options;

mod ballast;
mod chain;
mod database;
mod directory;
mod handle;
mod layout;
mod leftovers;
mod prepare;
mod space;
mod writer;

mod log_file;
mod manifest;
mod superblock;
mod survey;
mod upkeep;
mod view;
mod wal;

mod bare;

mod damaged_table;
mod failure;
mod failures;
mod format;

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use levada_protocol::ids::CommitIndex;

use crate::{Commit, Deleted, Error, Family, ScanLimit, Store, StoreStats, commit::AppliedRow, follow};
use ballast::Ballast;
use database::Database;
use failures::Failures;
use format::DirectoryLock;

pub use bare::BareStore;
pub use format::FORMAT;
pub use options::{LogOptions, RocksOptions};
pub use view::{Inspect, Uninspected};

/// A store in a directory of its own.
pub struct RocksStore {
    dir: PathBuf,
    options: RocksOptions,
    handle: RwLock<Handle>,
    /// The claim on the directory, until the store is closed: also while only reading is possible. It goes after the
    /// handle.
    lock: Mutex<Option<DirectoryLock>>,
    last: Mutex<AppliedRow>,
    /// What was applied last when the last successful sync began.
    confirmed: AtomicU64,
    failures: Failures,
    /// What a recovery needs that failed for want of room: with less it is not tried again. 0 if none did.
    recovery_bytes: AtomicU64,
}

/// Descriptors that must be free before a reopen is tried: it opens a few files at once, and one that fails half way
/// would take readers their handle.
const REOPEN_DESCRIPTORS: usize = 24;

/// What is open.
enum Handle {
    Open(Box<Database>),
    /// A reopen found no way to open the files, not even for reading.
    Lost,
    Closed,
}

impl Handle {
    fn is_closed(&self) -> bool {
        matches!(self, Self::Closed)
    }
}

impl RocksStore {
    /// Opens the store in a data directory, and makes both if they are not there.
    ///
    /// # Errors
    /// [`Error::InUse`] if another process has it open, [`Error::Newer`] if a later release wrote it,
    /// [`Error::Corrupt`] if anything is damaged or missing that must exist, [`Error::Full`] if there is no room to
    /// recover. Of an existing store that is refused as damaged nothing was changed.
    pub fn open(dir: impl AsRef<Path>, options: RocksOptions) -> Result<Self, Error> {
        Self::open_inspected(dir, options, &Uninspected)
    }

    /// The same, and the owner of the rows is asked as well before anything is written.
    ///
    /// # Errors
    /// Those of [`Self::open`] and of [`Inspect::inspect`].
    pub fn open_inspected<I: Inspect>(
        dir: impl AsRef<Path>,
        options: RocksOptions,
        inspect: &I,
    ) -> Result<Self, I::Error> {
        let dir = dir.as_ref().to_owned();
        let options = match rustix::fs::statvfs(existing(&dir)) {
            Ok(volume) => options.fitted_to(volume.f_blocks.saturating_mul(volume.f_frsize)),
            // Opening will say what is the matter.
            Err(_) => options,
        };
        let options = match rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
            Some(limit) => options.within_descriptors(limit),
            None => options,
        };
        let needed = Ballast::find(&dir, options.ballast_step()).recovery_bytes();
        let explain = |error| match error {
            Error::Full { reason } => {
                let dir = dir.display();
                let reason = format!("{reason}; free {needed} bytes on the volume of {dir} and start again");
                Error::Full { reason }
            }
            other => other,
        };
        let lock = database::claim(&dir).map_err(explain)?;
        let survey = survey::survey(&dir, &options, inspect)?;
        let (database, recovered) = Database::open(&dir, &options, &survey).map_err(explain)?;
        tracing::info!(dir = %dir.display(), applied = recovered.index.0, "store opened");
        Ok(Self {
            dir,
            options,
            handle: RwLock::new(Handle::Open(Box::new(database))),
            lock: Mutex::new(Some(lock)),
            last: Mutex::new(recovered),
            confirmed: AtomicU64::new(recovered.index.0),
            failures: Failures::default(),
            recovery_bytes: AtomicU64::new(0),
        })
    }

    /// Runs `action` on what is open. A reopen waits for it, so it must not come back here.
    fn with<T>(&self, action: impl FnOnce(&Database) -> Result<T, Error>) -> Result<T, Error> {
        match &*self.read_handle() {
            Handle::Open(database) => action(database),
            Handle::Lost => Err(self.failures.check().err().unwrap_or(Error::Closed)),
            Handle::Closed => Err(Error::Closed),
        }
    }

    fn read_handle(&self) -> RwLockReadGuard<'_, Handle> {
        self.handle.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_last(&self, row: AppliedRow) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = row;
    }

    fn sync_open(&self, database: &Database) -> Result<CommitIndex, Error> {
        let applied = self.applied();
        self.failures.syncing(|| database.sync())?;
        self.confirmed.fetch_max(applied.0, Ordering::AcqRel);
        database.note_durable(applied);
        Ok(applied)
    }

    /// Refuses a recovery for which there is no room: trying would take readers their handle for nothing. Returns
    /// what one needs, as far as is known.
    fn check_room(&self) -> Result<u64, Error> {
        let ballast = Ballast::find(&self.dir, self.options.ballast_step());
        let needed = ballast.recovery_bytes().max(self.recovery_bytes.load(Ordering::Acquire));
        if ballast.room()? >= needed {
            return Ok(needed);
        }
        let reason = format!("{needed} bytes must be free on the volume of {}", self.dir.display());
        Err(Error::Full { reason })
    }

    /// Refuses a recovery for which there are no file descriptors, for the same reason.
    fn check_descriptors(&self) -> Result<(), Error> {
        let opened: Result<Vec<File>, _> = (0..REOPEN_DESCRIPTORS).map(|_| File::open(&self.dir)).collect();
        opened.map(drop).map_err(|error| Error::of_file("open", &self.dir, &error))
    }
}

/// The directory itself, or the nearest one above it that is there.
fn existing(dir: &Path) -> &Path {
    dir.ancestors().find(|dir| dir.exists()).unwrap_or(dir)
}

impl Store for RocksStore {
    fn last(&self) -> AppliedRow {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, commit: &Commit) -> Result<(), Error> {
        self.with(|database| {
            self.failures.check()?;
            let known = |index| chain::hash_of(database.rocks(), index);
            let Some(row) = follow::check(commit, &self.last(), known)? else { return Ok(()) };
            if commit.index.0.saturating_sub(self.confirmed.load(Ordering::Acquire)) > chain::LENGTH {
                self.sync_open(database)?;
            }
            let confirmed = CommitIndex(self.confirmed.load(Ordering::Acquire));
            self.failures.writing(|| database.write(commit, row, confirmed))?;
            self.set_last(row);
            Ok(())
        })
    }

    fn sync(&self) -> Result<CommitIndex, Error> {
        self.with(|database| {
            self.failures.check()?;
            self.sync_open(database)
        })
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.with(|database| database.rocks().get(family, key))
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
        limit: ScanLimit,
    ) -> Result<Vec<(Bytes, Bytes)>, Error> {
        self.with(|database| database.rocks().scan(family, from, to, limit))
    }

    fn last_before(
        &self,
        family: Family,
        from: &[u8],
        below: &[u8],
    ) -> Result<Option<(Bytes, Bytes)>, Error> {
        self.with(|database| database.rocks().last_before(family, from, below))
    }

    fn compact(&self, family: Family, from: &[u8], to: &[u8], deleted: Deleted) -> Result<(), Error> {
        self.with(|database| {
            self.failures.check()?;
            database.compact(family, (from, to), deleted)
        })
    }

    fn flush(&self) -> Result<(), Error> {
        self.with(|database| {
            self.failures.check()?;
            database.write_out()
        })
    }

    fn reopen(&self) -> Result<(), Error> {
        if self.read_handle().is_closed() {
            return Err(Error::Closed);
        }
        let checked = self.check_descriptors().and_then(|()| self.check_room());
        let needed = checked.inspect_err(|error| self.failures.replace(Some(error.clone())))?;
        // A compaction may take minutes and holds the handle: end it first.
        self.with(|database| {
            database.stop_background_work();
            Ok(())
        })
        .or_else(|error| if error == Error::Closed { Err(error) } else { Ok(()) })?;
        let mut handle = self.handle.write().unwrap_or_else(PoisonError::into_inner);
        if handle.is_closed() {
            return Err(Error::Closed);
        }
        // The files must be closed before they can be opened again.
        *handle = Handle::Lost;
        let opened = survey::survey(&self.dir, &self.options, &Uninspected)
            .and_then(|survey| Database::open(&self.dir, &self.options, &survey));
        match opened {
            Ok((database, last)) => {
                *handle = Handle::Open(Box::new(database));
                self.set_last(last);
                self.confirmed.store(last.index.0, Ordering::Release);
                self.failures.replace(None);
                self.recovery_bytes.store(0, Ordering::Release);
                tracing::info!(applied = last.index.0, "store opened again");
                Ok(())
            }
            Err(error) => {
                if matches!(error, Error::Full { .. }) {
                    self.recovery_bytes.store(needed, Ordering::Release);
                }
                if let Ok(database) = Database::open_for_reading(&self.dir, &self.options) {
                    *handle = Handle::Open(Box::new(database));
                }
                self.failures.replace(Some(error.clone()));
                Err(error)
            }
        }
    }

    fn stats(&self) -> StoreStats {
        self.with(|database| Ok(database.stats())).unwrap_or_default()
    }

    fn close(&self) -> Result<(), Error> {
        let flushed = self.with(|database| {
            let flushed = match self.failures.check() {
                Ok(()) => database.flush(self.applied()),
                Err(_) => Ok(()),
            };
            database.stop_background_work();
            flushed
        });
        let mut handle = self.handle.write().unwrap_or_else(PoisonError::into_inner);
        if handle.is_closed() {
            return Err(Error::Closed);
        }
        *handle = Handle::Closed;
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = None;
        flushed
    }
}

#[cfg(test)]
mod tests;
