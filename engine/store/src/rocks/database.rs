//! The open database: opening it, checking that nothing durable is missing, and closing it.
//!
//! **Invariant:** the files are written only under the lock that [`claim`] gives, a failed recovery's leftovers
//! included.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use levada_protocol::ids::CommitIndex;

use super::{
    RocksOptions,
    ballast::Ballast,
    chain,
    directory::{sync_directory, takes_direct_writes},
    failure,
    format::{self, DirectoryLock},
    handle::Rocks,
    layout::FOLDER,
    leftovers::Note,
    options::without_preallocation,
    prepare,
    space::{self, Collector},
    superblock::{self, Known, Superblock},
    survey::{ACCEPT_LOSS, Existing, Survey},
    upkeep::{self, Upkeep},
    writer::Writer,
};
use crate::{Commit, Deleted, Error, Family, StoreStats, commit::AppliedRow};

/// A log file is prepared only if there is room for this many of its size.
const PREPARED_ROOM: u64 = 64;
/// RocksDB's handle and what belongs to it.
pub(super) struct Database {
    rocks: Rocks,
    writer: Writer,
    collector: Collector,
    /// What is noted apart from RocksDB; `None` if the database is open for reading only.
    superblock: Option<Arc<Mutex<Superblock>>>,
    /// As long as the database is open for writing.
    _upkeep: Option<Upkeep>,
    /// None if the database is open for reading only.
    ballast: Option<Mutex<Ballast>>,
}

/// Makes the data directory if it is not there, and locks it for writing until the lock is dropped.
pub(super) fn claim(dir: &Path) -> Result<DirectoryLock, Error> {
    fs::create_dir_all(dir).map_err(|error| failure::of_file("make the directory", dir, &error))?;
    format::check_or_write(dir, dir.join(superblock::NAME).exists() || dir.join(FOLDER).exists())?;
    format::lock(dir)
}

impl Database {
    /// Opens a surveyed database for writing, and returns it with the commit that was applied last. The caller has
    /// claimed the directory.
    pub(super) fn open(
        dir: &Path,
        options: &RocksOptions,
        survey: &Survey,
    ) -> Result<(Self, AppliedRow), Error> {
        let folder = dir.join(FOLDER);
        let mut ballast = Ballast::find(dir, options.ballast_step());
        if let Some(note) = ballast.note() {
            note.clear_leftovers(&folder);
        }
        let needed = ballast.recovery_bytes();
        let note = Note::take(&folder, needed);
        let begun = note.map_or(Ok(()), |note| ballast.begin_recovery(&note));
        let preallocates = ballast.has_more_than(2 * needed + options.preallocated_bytes());
        let mut recovered = begun.and_then(|()| Self::recover(dir, options, preallocates, survey));
        if matches!(recovered, Err(Error::Full { .. })) && ballast.give_up()? {
            // The volume has free space that cannot be used, as under a quota.
            if let Some(note) = ballast.note() {
                note.clear_leftovers(&folder);
            }
            recovered = Self::recover(dir, options, false, survey);
        }
        match recovered {
            Ok((mut opened, last)) => {
                ballast.end_recovery();
                let prepared = options.wal_bytes_prepared;
                if options.wal_files_recycled > 0
                    && ballast.has_more_than(prepared.saturating_mul(PREPARED_ROOM))
                {
                    prepare::log_file(&opened.rocks, prepared)?;
                    opened.settle(dir, last.index)?;
                }
                opened.ballast = Some(Mutex::new(ballast));
                Ok((opened, last))
            }
            Err(error) => {
                if let Some(note) = ballast.note() {
                    note.clear_leftovers(&folder);
                }
                ballast.end_failed_recovery(needed);
                Err(error)
            }
        }
    }

    /// Lets RocksDB recover what is in its log, and notes what must exist from now on.
    fn recover(
        dir: &Path,
        options: &RocksOptions,
        preallocates: bool,
        survey: &Survey,
    ) -> Result<(Self, AppliedRow), Error> {
        let superblock = match survey {
            Survey::New => Superblock::create(dir, Known::creating())?,
            Survey::Existing(Existing { known, is_unknown: true, .. }) => Superblock::create(dir, *known)?,
            Survey::Existing(Existing { known, .. }) => Superblock::open(dir, *known)?,
        };
        let mut database = options.database();
        database.create_if_missing(matches!(survey, Survey::New));
        database.create_missing_column_families(matches!(survey, Survey::New));
        if !preallocates {
            database = without_preallocation(database)
                .map_err(|error| failure::of_call("turn preallocation off", &error))?;
        }
        database
            .set_use_direct_io_for_flush_and_compaction(options.direct_writes && takes_direct_writes(dir));
        let salt = superblock.known().salt;
        let mut opened = Self::reading(Rocks::open(dir, database, options)?, salt, options);
        let last = opened.rocks.last_applied()?;
        chain::check(&opened.rocks, last.index)?;
        sync_directory(dir)?;
        let superblock = Arc::new(Mutex::new(superblock));
        upkeep::settle(dir, &superblock, last.index)?;
        if matches!(survey, Survey::Existing(Existing { accepts_loss: true, .. })) {
            let path = dir.join(ACCEPT_LOSS);
            fs::remove_file(&path).map_err(|error| failure::of_file("remove", &path, &error))?;
        }
        opened._upkeep = Some(Upkeep::start(dir.to_owned(), Arc::clone(&superblock))?);
        opened.superblock = Some(superblock);
        Ok((opened, last))
    }

    /// Opens without writing anything: what a full disk still allows.
    pub(super) fn open_for_reading(dir: &Path, options: &RocksOptions) -> Result<Self, Error> {
        Ok(Self::reading(Rocks::open_for_reading(dir, options)?, 0, options))
    }

    fn reading(rocks: Rocks, salt: u64, options: &RocksOptions) -> Self {
        Self {
            rocks,
            writer: Writer::new(salt),
            collector: Collector::new(options.log.clone()),
            superblock: None,
            _upkeep: None,
            ballast: None,
        }
    }

    /// The database itself, for reading.
    pub(super) fn rocks(&self) -> &Rocks {
        &self.rocks
    }

    /// Writes a commit whole, to memory and to the log file, without a sync. `applied` is the row that it leaves
    /// behind, `confirmed` is what a sync has confirmed.
    pub(super) fn write(
        &self,
        commit: &Commit,
        applied: AppliedRow,
        confirmed: CommitIndex,
    ) -> Result<(), Error> {
        self.writer.write(&self.rocks, commit, (applied, confirmed), |bytes| self.cover(bytes))
    }

    /// Makes everything durable that was written before the call. Writes continue meanwhile.
    pub(super) fn sync(&self) -> Result<(), Error> {
        self.rocks.sync()
    }

    /// Gives the space of deleted rows of a range back.
    pub(super) fn compact(
        &self,
        family: Family,
        range: (&[u8], &[u8]),
        deleted: Deleted,
    ) -> Result<(), Error> {
        self.collector.compact(&self.rocks, family, range, deleted)
    }

    /// Counters since the open, and sizes now.
    pub(super) fn stats(&self) -> StoreStats {
        space::stats(&self.rocks, self.writer.stalled_micros())
    }

    /// Notes a commit that a sync has confirmed, before its replies are sent.
    pub(super) fn note_durable(&self, durable: CommitIndex) {
        if let Some(superblock) = &self.superblock {
            superblock.lock().unwrap_or_else(PoisonError::into_inner).note_durable(durable);
        }
    }

    /// Makes sure that a commit of `bytes` can be recovered on a disk that is full by then.
    fn cover(&self, bytes: usize) -> Result<(), Error> {
        self.with_ballast(|ballast| ballast.cover(bytes as u64, || self.rocks.unflushed_bytes()))
    }

    fn with_ballast(&self, action: impl FnOnce(&mut Ballast) -> Result<(), Error>) -> Result<(), Error> {
        let Some(ballast) = &self.ballast else { return Ok(()) };
        action(&mut ballast.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Moves everything to synced files and notes it, so that the next start has nothing to recover.
    ///
    /// Where that would need the ballast, the next start does it: a start notes the recovery that it begins, so that
    /// a process killed meanwhile leaves no files behind for good.
    pub(super) fn flush(&self, applied: CommitIndex) -> Result<(), Error> {
        self.sync()?;
        self.with_ballast(|ballast| {
            if ballast.is_spare()? {
                self.rocks.flush()?;
                ballast.end_recovery();
            } else {
                tracing::warn!("the disk is full, what is in memory is written out at the next start");
            }
            Ok(())
        })?;
        self.rocks.db.path().parent().map_or(Ok(()), |dir| self.settle(dir, applied))
    }

    /// Notes the current state of everything, durably.
    fn settle(&self, dir: &Path, applied: CommitIndex) -> Result<(), Error> {
        self.superblock.as_ref().map_or(Ok(()), |superblock| upkeep::settle(dir, superblock, applied))
    }

    /// Writes what is in memory to files, if that does not need the ballast: then no earlier log file is
    /// needed.
    pub(super) fn write_out(&self) -> Result<(), Error> {
        let mut has_room = false;
        // Commits take the ballast too, and need not wait for the writing.
        self.with_ballast(|ballast| {
            has_room = ballast.is_spare()?;
            Ok(())
        })?;
        if !has_room {
            return Ok(());
        }
        self.rocks.flush()?;
        self.with_ballast(|ballast| ballast.relax(self.rocks.unflushed_bytes()))
    }

    /// Ends compactions and flushes, running and to come: the handle is about to be closed.
    pub(super) fn stop_background_work(&self) {
        self.rocks.db.cancel_all_background_work(true);
    }
}
