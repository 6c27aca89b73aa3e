//! The open database: opening it, checking that nothing durable is missing, and closing it.
//!
//! **Invariant:** the files are written only under the lock that [`claim`] gives, a failed recovery's leftovers
//! included.

use std::{
    fs::{self, File},
    path::Path,
    sync::{Mutex, PoisonError, atomic::AtomicU64},
};

use levada_protocol::ids::{CommitIndex, Timestamp};
use rocksdb::{ColumnFamily, DB, Options};
use rustix::fs::{Mode, OFlags};

use super::{
    RocksOptions, ballast::Ballast, chain, failure, format, leftovers::Note, options::without_preallocation,
    synced::SyncedFile,
};
use crate::{
    Error, Family,
    commit::{APPLIED_KEY, AppliedRow},
};

/// The folder of RocksDB's files in the data directory.
pub(super) const FOLDER: &str = "db";
/// A log file is prepared only where so many of its size would find room.
const PREPARED_ROOM: u64 = 64;

/// RocksDB's handle and what belongs to it.
pub(super) struct Database {
    pub(super) db: DB,
    /// Kept because the counters hang on it.
    pub(super) options: Options,
    pub(super) log: super::LogOptions,
    /// None if the database is open for reading only.
    pub(super) synced: Option<Mutex<SyncedFile>>,
    /// None if the database is open for reading only.
    ballast: Option<Mutex<Ballast>>,
    /// How long writes were held up for want of memory.
    pub(super) stalled_micros: AtomicU64,
}

/// Makes the data directory if it is not there, and locks it for writing until the answer is dropped.
pub(super) fn claim(dir: &Path) -> Result<File, Error> {
    fs::create_dir_all(dir).map_err(|error| failure::of_file("make the directory", dir, &error))?;
    format::check_or_write(dir, exists(dir))?;
    format::lock(dir)
}

fn exists(dir: &Path) -> bool {
    dir.join(FOLDER).join("CURRENT").exists()
}

impl Database {
    /// Opens for writing; answers also which commit was applied last, and its time. The caller has claimed the
    /// directory.
    pub(super) fn open(
        dir: &Path,
        options: &RocksOptions,
    ) -> Result<(Self, (CommitIndex, Timestamp)), Error> {
        let folder = dir.join(FOLDER);
        let mut ballast = Ballast::find(dir, options.ballast_step());
        if let Some(note) = ballast.note() {
            note.clear_leftovers(&folder);
        }
        let needed = ballast.recovery_bytes();
        let note = Note::take(&folder, needed);
        let begun = note.map_or(Ok(()), |note| ballast.begin_recovery(&note));
        let preallocates = ballast.has_more_than(2 * needed + options.preallocated_bytes());
        let mut recovered = begun.and_then(|()| Self::recover(dir, options, preallocates));
        if matches!(recovered, Err(Error::Full { .. })) && ballast.give_up()? {
            // The volume has room and does not give it, as under a quota.
            if let Some(note) = ballast.note() {
                note.clear_leftovers(&folder);
            }
            recovered = Self::recover(dir, options, false);
        }
        match recovered {
            Ok((mut opened, last)) => {
                ballast.end_recovery();
                let prepared = options.wal_bytes_prepared;
                if options.wal_files_recycled > 0
                    && ballast.has_more_than(prepared.saturating_mul(PREPARED_ROOM))
                {
                    opened.prepare_log_file(prepared)?;
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

    /// Lets RocksDB recover what is in its log, and checks that nothing is missing.
    fn recover(
        dir: &Path,
        options: &RocksOptions,
        preallocates: bool,
    ) -> Result<(Self, (CommitIndex, Timestamp)), Error> {
        let (folder, existed) = (dir.join(FOLDER), exists(dir));
        let mut database = options.database();
        if !preallocates {
            database = without_preallocation(database)
                .map_err(|error| failure::of_call("turn preallocation off", &error))?;
        }
        database
            .set_use_direct_io_for_flush_and_compaction(options.direct_writes && takes_direct_writes(dir));
        let db = DB::open_cf_descriptors(&database, &folder, options.families())
            .map_err(|error| failure::of_open(dir, &error))?;
        let mut opened = Self {
            db,
            options: std::mem::take(&mut database),
            log: options.log.clone(),
            synced: None,
            ballast: None,
            stalled_micros: AtomicU64::new(0),
        };
        let (applied, time) = opened.last_applied()?;
        let (file, confirmed) = SyncedFile::open(dir, existed)?;
        if applied < confirmed {
            let first = applied.0 + 1;
            let detail = format!(
                "commits {first} to {confirmed} are missing from {}: the file `synced` says that {confirmed} was \
                 durable, the last one found is {applied}",
                folder.display()
            );
            return Err(Error::Corrupt { detail });
        }
        opened.check_chain(applied)?;
        opened.synced = Some(Mutex::new(file));
        sync_directory(dir)?;
        Ok((opened, (applied, time)))
    }

    /// Opens without writing anything: what a full disk still allows.
    pub(super) fn open_for_reading(dir: &Path, options: &RocksOptions) -> Result<Self, Error> {
        let database = options.database();
        let folder = dir.join(FOLDER);
        let db = DB::open_cf_descriptors_read_only(&database, folder, options.families(), false)
            .map_err(|error| failure::of_open(dir, &error))?;
        Ok(Self {
            db,
            options: database,
            log: options.log.clone(),
            synced: None,
            ballast: None,
            stalled_micros: AtomicU64::new(0),
        })
    }

    /// The column family of a family.
    pub(super) fn family(&self, family: Family) -> &ColumnFamily {
        self.handle(family.name())
    }

    fn handle(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("every family was opened with the database")
    }

    fn last_applied(&self) -> Result<(CommitIndex, Timestamp), Error> {
        match self.get(Family::Meta, APPLIED_KEY)? {
            None => Ok((CommitIndex(0), Timestamp(0))),
            Some(value) => AppliedRow::decode(&value).map(|row| (row.index, row.time)),
        }
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
        self.note_closed(applied)
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
fn takes_direct_writes(dir: &Path) -> bool {
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
