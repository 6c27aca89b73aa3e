//! The file `synced`: a lower bound of the commits that were durable. It is how an open notices that the
//! write-ahead log lost its middle, which recovery to a point in time takes for its end.
//!
//! Two slots of 16 bytes, at 0 and at 4,096, written in turn, so that a torn write leaves the other one whole.
//! All numbers are little endian:
//!
//! ```text
//!  0         1          4        8       16
//!  +---------+----------+--------+-------+
//!  | version | reserved | crc32c | index |
//!  | u8 = 1  | 3 bytes  | u32    | u64   |
//!  +---------+----------+--------+-------+
//! ```
//!
//! `crc32c` covers the 4 bytes before it and the 8 after it. The greater index of the slots that pass counts.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{MutexGuard, PoisonError, TryLockError},
};

use bytes::{Buf, BufMut};
use levada_protocol::ids::{CommitIndex, Timestamp};
use rocksdb::statistics::Ticker;

use super::{
    database::{Database, sync_directory},
    failure,
};
use crate::Error;

const NAME: &str = "synced";
const VERSION: u8 = 1;
const SLOT_BYTES: usize = 16;
const SLOTS: [u64; 2] = [0, 4096];
const FILE_BYTES: usize = 8192;
/// How often the bound is written, by the commits' own time.
const PERIOD_MS: u64 = 1000;

/// The open file.
pub(super) struct SyncedFile {
    file: File,
    path: PathBuf,
    /// Which slot is written next.
    next: usize,
    /// The time of the commit at the last write.
    written: Timestamp,
    /// Bytes flushed when the file was last made durable itself.
    flushed: u64,
}

impl SyncedFile {
    /// Opens the file, or makes it with room for both slots, and answers the bound it holds.
    pub(super) fn open(dir: &Path, existed: bool) -> Result<(Self, CommitIndex), Error> {
        let path = dir.join(NAME);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if existed {
                    tracing::warn!(path = %path.display(), "the file is missing: lost commits cannot be noticed");
                }
                create(dir, &path)?
            }
            Err(error) => return Err(failure::of_file("read", &path, &error)),
        };
        let slots = SLOTS.map(|at| read_slot(&bytes, at));
        let Some(confirmed) = slots.iter().flatten().max().copied() else {
            let detail = format!(
                "neither slot of {} passes its checksum; without the file the store opens, and cannot notice \
                 missing commits",
                path.display()
            );
            return Err(Error::Corrupt { detail });
        };
        let file = OpenOptions::new()
            .write(true)
            .open(&path)
            .map_err(|error| failure::of_file("open", &path, &error))?;
        // The slot that does not hold the bound is the one to lose.
        let next = usize::from(slots[0] == Some(confirmed));
        Ok((Self { file, path, next, written: Timestamp(0), flushed: 0 }, confirmed))
    }

    fn write(&mut self, index: CommitIndex) -> Result<(), Error> {
        self.file
            .write_all_at(&slot(index), SLOTS[self.next])
            .map_err(|error| failure::of_file("write", &self.path, &error))?;
        self.next ^= 1;
        Ok(())
    }

    fn sync(&self) -> Result<(), Error> {
        self.file.sync_data().map_err(|error| failure::of_file("sync", &self.path, &error))
    }
}

impl Database {
    /// Writes the bound if a second of commit time has passed, and makes it durable if there was a flush since.
    ///
    /// A bound that cannot be written stays where it was, which is still true: the sync itself has succeeded.
    pub(super) fn note_synced(&self, index: CommitIndex, time: Timestamp) {
        let Some(synced) = &self.synced else { return };
        let mut file: MutexGuard<'_, SyncedFile> = match synced.try_lock() {
            Ok(file) => file,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if time.0.abs_diff(file.written.0) < PERIOD_MS {
            return;
        }
        file.written = time;
        let flushed = self.options.get_ticker_count(Ticker::FlushWriteBytes);
        let mut noted = file.write(index);
        if noted.is_ok() && flushed != file.flushed {
            file.flushed = flushed;
            noted = file.sync();
        }
        if let Err(error) = noted {
            tracing::warn!(%error, "the bound of durable commits was not written");
        }
    }

    /// Writes the bound and makes it durable.
    pub(super) fn note_closed(&self, index: CommitIndex) -> Result<(), Error> {
        let Some(synced) = &self.synced else { return Ok(()) };
        let mut file = synced.lock().unwrap_or_else(PoisonError::into_inner);
        file.write(index)?;
        file.sync()
    }
}

/// Makes the file at its full length, durable under its name before anything relies on it.
fn create(dir: &Path, path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; FILE_BYTES];
    for at in SLOTS {
        let at = usize::try_from(at).expect("a slot lies within the file");
        bytes[at..at + SLOT_BYTES].copy_from_slice(&slot(CommitIndex(0)));
    }
    let aside = dir.join("synced.new");
    let made = fs::write(&aside, &bytes)
        .and_then(|()| File::open(&aside)?.sync_all())
        .and_then(|()| fs::rename(&aside, path));
    made.map_err(|error| failure::of_file("write", path, &error))?;
    sync_directory(dir)?;
    Ok(bytes)
}

fn slot(index: CommitIndex) -> [u8; SLOT_BYTES] {
    let mut bytes = [0; SLOT_BYTES];
    bytes[0] = VERSION;
    (&mut bytes[8..]).put_u64_le(index.0);
    let crc = checksum(&bytes);
    (&mut bytes[4..8]).put_u32_le(crc);
    bytes
}

fn read_slot(bytes: &[u8], at: u64) -> Option<CommitIndex> {
    let slot: &[u8; SLOT_BYTES] = bytes.get(usize::try_from(at).ok()?..)?.first_chunk()?;
    let (crc, index) = ((&slot[4..8]).get_u32_le(), (&slot[8..]).get_u64_le());
    (slot[0] == VERSION && crc == checksum(slot)).then_some(CommitIndex(index))
}

fn checksum(slot: &[u8; SLOT_BYTES]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&slot[..4]), &slot[8..])
}
