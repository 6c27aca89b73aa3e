//! The open database: opening it, checking that nothing durable is missing, and closing it.
//!
//! **Invariant:** the files are written only under the lock that [`claim`] gives, a failed recovery's leftovers
//! included.

use std::{
    fs::{self, File},
    path::Path,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
};

use levada_protocol::ids::CommitIndex;
use rocksdb::{ColumnFamily, DB, Options};
use rustix::fs::{Mode, OFlags};

use super::{
    FOLDER, RocksOptions,
    ballast::Ballast,
    chain, failure, format,
    keeper::{self, Keeper},
    leftovers::Note,
    options::without_preallocation,
    superblock::{self, Known, Superblock},
    survey::{self, ACCEPT_LOSS, Existing, Survey},
};
use crate::{
    Error, Family,
    commit::{APPLIED_KEY, AppliedRow},
};

/// A log file is prepared only where so many of its size would find room.
const PREPARED_ROOM: u64 = 64;
/// RocksDB's property that names every file of a family.
const FILES: &str = "rocksdb.sstables";

/// RocksDB's handle and what belongs to it.
pub(super) struct Database {
    pub(super) db: DB,
    /// Kept because the counters hang on it.
    pub(super) options: Options,
    pub(super) log: super::LogOptions,
    /// What is noted apart from RocksDB; `None` if the database is open for reading only.
    superblock: Option<Arc<Mutex<Superblock>>>,
    keeper: Option<Keeper>,
    /// What every commit carries to show that it is this database's.
    pub(super) salt: u64,
    /// None if the database is open for reading only.
    ballast: Option<Mutex<Ballast>>,
    /// How long writes were held up for want of memory.
    pub(super) stalled_micros: AtomicU64,
}

/// Makes the data directory if it is not there, and locks it for writing until the answer is dropped.
pub(super) fn claim(dir: &Path) -> Result<File, Error> {
    fs::create_dir_all(dir).map_err(|error| failure::of_file("make the directory", dir, &error))?;
    format::check_or_write(dir, dir.join(superblock::NAME).exists() || dir.join(FOLDER).exists())?;
    format::lock(dir)
}

impl Database {
    /// Opens for writing what [`survey::survey`] has looked at; answers also which commit was applied last. The
    /// caller has claimed the directory.
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
            // The volume has room and does not give it, as under a quota.
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
                    opened.prepare_log_file(prepared)?;
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
        let folder = dir.join(FOLDER);
        let mut database = options.database();
        database.create_if_missing(matches!(survey, Survey::New));
        database.create_missing_column_families(matches!(survey, Survey::New));
        if !preallocates {
            database = without_preallocation(database)
                .map_err(|error| failure::of_call("turn preallocation off", &error))?;
        }
        database
            .set_use_direct_io_for_flush_and_compaction(options.direct_writes && takes_direct_writes(dir));
        let db = DB::open_cf_descriptors(&database, &folder, options.families())
            .map_err(|error| failure::of_open(dir, &error))?;
        let salt = superblock.known().salt;
        let mut opened = Self { salt, ..Self::reading(db, database, options) };
        let last = opened.last_applied()?;
        opened.check_chain(last.index)?;
        sync_directory(dir)?;
        let superblock = Arc::new(Mutex::new(superblock));
        keeper::settle(dir, &superblock, last.index)?;
        if matches!(survey, Survey::Existing(Existing { accepts_loss: true, .. })) {
            let path = dir.join(ACCEPT_LOSS);
            fs::remove_file(&path).map_err(|error| failure::of_file("remove", &path, &error))?;
        }
        opened.keeper = Some(Keeper::start(dir.to_owned(), Arc::clone(&superblock))?);
        opened.superblock = Some(superblock);
        Ok((opened, last))
    }

    /// Opens without writing anything: to look before anything is written, and what a full disk still allows.
    pub(super) fn open_for_reading(dir: &Path, options: &RocksOptions) -> Result<Self, Error> {
        let database = options.database();
        let folder = dir.join(FOLDER);
        let db = DB::open_cf_descriptors_read_only(&database, folder, options.families(), false)
            .map_err(|error| failure::of_damage(dir, &error))?;
        Ok(Self::reading(db, database, options))
    }

    pub(super) fn reading(db: DB, database: Options, options: &RocksOptions) -> Self {
        Self {
            db,
            options: database,
            log: options.log.clone(),
            superblock: None,
            keeper: None,
            salt: 0,
            ballast: None,
            stalled_micros: AtomicU64::new(0),
        }
    }

    /// The blob files that the manifest names, with the bytes that each must have.
    pub(super) fn blob_files(&self) -> Vec<(String, u64)> {
        // No other call tells of each file.
        let dump =
            self.db.property_value_cf(self.family(Family::Log), FILES).ok().flatten().unwrap_or_default();
        survey::blob_files(&dump).collect()
    }

    /// Notes a commit that a sync has confirmed, before anybody is answered.
    pub(super) fn note_durable(&self, durable: CommitIndex) {
        if let Some(superblock) = &self.superblock {
            superblock.lock().unwrap_or_else(PoisonError::into_inner).note_durable(durable);
        }
    }

    /// The column family of a family.
    pub(super) fn family(&self, family: Family) -> &ColumnFamily {
        self.handle(family.name())
    }

    fn handle(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("every family was opened with the database")
    }

    /// The commit applied last.
    pub(super) fn last_applied(&self) -> Result<AppliedRow, Error> {
        self.get(Family::Meta, APPLIED_KEY)?
            .map_or_else(|| Ok(AppliedRow::default()), |value| AppliedRow::decode(&value))
    }

    /// Makes sure that a commit of so many bytes can be recovered on a disk that is full by then.
    pub(super) fn cover(&self, bytes: usize) -> Result<(), Error> {
        self.with_ballast(|ballast| ballast.cover(bytes as u64, || self.unflushed_bytes()))
    }

    fn with_ballast(&self, action: impl FnOnce(&mut Ballast) -> Result<(), Error>) -> Result<(), Error> {
        let Some(ballast) = &self.ballast else { return Ok(()) };
        action(&mut ballast.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Moves everything to synced files and notes it, so that the next start has nothing to recover.
    ///
    /// Where that would take the ballast, the next start does it: there it is noted what was begun, and whoever is
    /// killed meanwhile leaves nothing behind that stays.
    pub(super) fn flush(&self, applied: CommitIndex) -> Result<(), Error> {
        self.sync()?;
        self.with_ballast(|ballast| {
            if ballast.is_spare()? {
                self.flush_families()?;
                ballast.end_recovery();
            } else {
                tracing::warn!("the disk is full, what is in memory is written out at the next start");
            }
            Ok(())
        })?;
        self.db.path().parent().map_or(Ok(()), |dir| self.settle(dir, applied))
    }

    /// Notes everything as it is now, durably.
    fn settle(&self, dir: &Path, applied: CommitIndex) -> Result<(), Error> {
        self.superblock.as_ref().map_or(Ok(()), |superblock| keeper::settle(dir, superblock, applied))
    }

    /// Writes what is in memory to files, where that does not take the ballast: then no log file is needed that was
    /// begun before.
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
        self.flush_families()?;
        self.with_ballast(|ballast| ballast.relax(self.unflushed_bytes()))
    }

    fn flush_families(&self) -> Result<(), Error> {
        let names = Family::ALL.into_iter().map(Family::name).chain([chain::FAMILY]);
        for name in names {
            self.db.flush_cf(self.handle(name)).map_err(|error| failure::of_call("flush", &error))?;
        }
        Ok(())
    }

    /// Ends compactions and flushes, running and to come: the handle is about to be closed.
    pub(super) fn stop_background_work(&self) {
        self.db.cancel_all_background_work(true);
    }
}

/// True if the file system lets files be written past the page cache; some that live in memory do not.
pub(super) fn takes_direct_writes(dir: &Path) -> bool {
    let path = dir.join("direct-writes");
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC;
    let opened = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR);
    // It was made above, or could not be.
    let _ = fs::remove_file(&path);
    opened.is_ok()
}

/// Makes names of new files in a directory durable.
pub(super) fn sync_directory(dir: &Path) -> Result<(), Error> {
    File::open(dir)
        .and_then(|file| file.sync_all())
        .map_err(|error| failure::of_file("sync the directory", dir, &error))
}
