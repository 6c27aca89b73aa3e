//! The file `superblock` in the data directory: what must exist, known apart from RocksDB. It is how an open notices that
//! files were lost, cut or put back from an earlier time, which RocksDB takes for all that there ever was.
//!
//! Two slots of 64 bytes, at 0 and at 4,096, written in turn, so that a torn write or a damaged block leaves the other
//! one whole. All numbers are little endian:
//!
//! ```text
//!  0         1       2          4        8            16        24         32             40     48         64
//!  +---------+-------+----------+--------+------------+---------+----------+--------------+------+----------+
//!  | version | state | reserved | crc32c | generation | durable | manifest | manifest_len | salt | reserved |
//!  | u8 = 1  | u8    | u16 = 0  | u32    | u64        | u64     | u64      | u64          | u64  | 16 bytes |
//!  +---------+-------+----------+--------+------------+---------+----------+--------------+------+----------+
//! ```
//!
//! - `crc32c` covers the 4 bytes before it and the 56 after it. Of the slots that pass the greater generation counts.
//! - `state` 1: the database is being created, nothing was ever acknowledged. 2: it exists.
//! - `durable` is the last commit that a sync confirmed: written after every sync, before anybody is answered.
//! - `manifest` and `manifest_len` are RocksDB's catalogue of files: the number in its name, and how many bytes of it
//!   are known to be whole and synced.
//! - `salt` is a random number that every commit carries (see [`super::chain`]).
//!
//! **Invariant:** the file may be behind what is true, never ahead of it.

use std::{
    fs::{self, File, OpenOptions},
    hash::{BuildHasher, RandomState},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{Buf, BufMut};
use levada_protocol::ids::CommitIndex;

use super::{directory::sync_directory, failure};
use crate::Error;

pub(super) const NAME: &str = "superblock";
const ASIDE: &str = "superblock.new";
const VERSION: u8 = 1;
const CREATING: u8 = 1;
const EXISTING: u8 = 2;
const SLOT_BYTES: usize = 64;
const SLOTS: [u64; 2] = [0, 4096];
const FILE_BYTES: usize = 8192;

/// How far a database is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It is being created, and nothing was ever acknowledged.
    Creating,
    /// It was created.
    Existing,
}

/// What must exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) state: State,
    /// Counts the writes; the greater one of the two slots counts.
    pub(super) generation: u64,
    /// The last commit that a sync confirmed.
    pub(super) durable: CommitIndex,
    /// The number of RocksDB's manifest.
    pub(super) manifest: u64,
    /// How long it is at least.
    pub(super) manifest_len: u64,
    /// A random number that every commit of this database carries.
    pub(super) salt: u64,
}

/// What the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Missing,
    /// Neither slot passes its checksum.
    Damaged,
    Known(Known),
}

impl Known {
    /// A database that is being created.
    pub(super) fn creating() -> Self {
        // The hasher's keys come from the system's random numbers.
        let salt = RandomState::new().hash_one(NAME);
        Self {
            state: State::Creating,
            generation: 1,
            durable: CommitIndex(0),
            manifest: 0,
            manifest_len: 0,
            salt,
        }
    }

    fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut bytes = [0; SLOT_BYTES];
        bytes[0] = VERSION;
        bytes[1] = match self.state {
            State::Creating => CREATING,
            State::Existing => EXISTING,
        };
        let mut rest = &mut bytes[8..];
        rest.put_u64_le(self.generation);
        rest.put_u64_le(self.durable.0);
        rest.put_u64_le(self.manifest);
        rest.put_u64_le(self.manifest_len);
        rest.put_u64_le(self.salt);
        let crc = checksum(&bytes);
        (&mut bytes[4..8]).put_u32_le(crc);
        bytes
    }

    fn decode(slot: &[u8; SLOT_BYTES]) -> Option<Self> {
        if slot[0] != VERSION || (&slot[4..8]).get_u32_le() != checksum(slot) {
            return None;
        }
        let state = match slot[1] {
            CREATING => State::Creating,
            EXISTING => State::Existing,
            _ => return None,
        };
        let mut rest = &slot[8..];
        Some(Self {
            state,
            generation: rest.get_u64_le(),
            durable: CommitIndex(rest.get_u64_le()),
            manifest: rest.get_u64_le(),
            manifest_len: rest.get_u64_le(),
            salt: rest.get_u64_le(),
        })
    }
}

/// Reads the file, changing nothing.
pub(super) fn read(dir: &Path) -> Result<Found, Error> {
    let path = dir.join(NAME);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Missing),
        Err(error) => return Err(failure::of_file("read", &path, &error)),
    };
    let slots = SLOTS.map(|at| read_slot(&file, at).map_err(|error| failure::of_file("read", &path, &error)));
    let [first, second] = slots;
    let newest = [first?, second?].into_iter().flatten().max_by_key(|known| known.generation);
    Ok(newest.map_or(Found::Damaged, Found::Known))
}

fn read_slot(file: &File, at: u64) -> io::Result<Option<Known>> {
    let mut slot = [0; SLOT_BYTES];
    match file.read_exact_at(&mut slot, at) {
        Ok(()) => Ok(Known::decode(&slot)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// The open file, and what it says.
#[derive(Debug)]
pub(super) struct Superblock {
    file: Arc<File>,
    path: PathBuf,
    known: Known,
    /// True if the last write failed: that is said once.
    is_failing: bool,
}

impl Superblock {
    /// Opens the file for writing, with what [`read`] found in it.
    pub(super) fn open(dir: &Path, known: Known) -> Result<Self, Error> {
        let path = dir.join(NAME);
        let file = OpenOptions::new()
            .write(true)
            .open(&path)
            .map_err(|error| failure::of_file("open", &path, &error))?;
        Ok(Self { file: Arc::new(file), path, known, is_failing: false })
    }

    /// Makes the file at its full length, durable under its name before anything relies on it.
    pub(super) fn create(dir: &Path, known: Known) -> Result<Self, Error> {
        let (path, aside) = (dir.join(NAME), dir.join(ASIDE));
        let mut bytes = vec![0; FILE_BYTES];
        for at in SLOTS {
            let at = usize::try_from(at).expect("a slot lies within the file");
            bytes[at..at + SLOT_BYTES].copy_from_slice(&known.encode());
        }
        fs::write(&aside, &bytes)
            .and_then(|()| File::open(&aside)?.sync_all())
            .and_then(|()| fs::rename(&aside, &path))
            .map_err(|error| failure::of_file("write", &path, &error))?;
        sync_directory(dir)?;
        Self::open(dir, known)
    }

    pub(super) fn known(&self) -> Known {
        self.known
    }

    /// Counts the writes.
    pub(super) fn generation(&self) -> u64 {
        self.known.generation
    }

    /// The file, to be synced without holding up who writes to it.
    pub(super) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Notes a commit that a sync has confirmed.
    ///
    /// If that cannot be written the file stays behind, which is still true: the sync itself has succeeded.
    pub(super) fn note_durable(&mut self, durable: CommitIndex) {
        if durable > self.known.durable {
            let noted = self.write(Known { durable, ..self.known });
            self.report(noted);
        }
    }

    /// Notes how long the manifest is that is synced.
    pub(super) fn note_manifest(&mut self, manifest: u64, manifest_len: u64) {
        let noted = self.write(Known { manifest, manifest_len, ..self.known });
        self.report(noted);
    }

    fn report(&mut self, noted: Result<(), Error>) {
        match noted {
            Err(error) if !self.is_failing => {
                self.is_failing = true;
                tracing::warn!(%error, "what must exist could not be noted");
            }
            Err(_) => {}
            Ok(()) => self.is_failing = false,
        }
    }

    /// Writes the slot that holds the older state.
    pub(super) fn write(&mut self, known: Known) -> Result<(), Error> {
        let known = Known { generation: self.known.generation + 1, ..known };
        let at = SLOTS[usize::from(known.generation.is_multiple_of(2))];
        self.file
            .write_all_at(&known.encode(), at)
            .map_err(|error| failure::of_file("write", &self.path, &error))?;
        self.known = known;
        Ok(())
    }

    pub(super) fn sync(&self) -> Result<(), Error> {
        self.file.sync_data().map_err(|error| failure::of_file("sync", &self.path, &error))
    }
}

fn checksum(slot: &[u8; SLOT_BYTES]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&slot[..4]), &slot[8..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn known() -> Known {
        Known {
            state: State::Existing,
            generation: 3,
            durable: CommitIndex(0x0102_0304),
            manifest: 5,
            manifest_len: 975,
            salt: 0xfeed,
        }
    }

    #[test]
    fn has_its_golden_bytes() {
        let mut encoded = known().encode();
        assert_eq!(Known::decode(&encoded), Some(known()));
        encoded[4..8].fill(0);
        let golden = [
            [1, 2, 0, 0, 0, 0, 0, 0],
            [3, 0, 0, 0, 0, 0, 0, 0],
            [4, 3, 2, 1, 0, 0, 0, 0],
            [5, 0, 0, 0, 0, 0, 0, 0],
            [0xcf, 3, 0, 0, 0, 0, 0, 0],
            [0xed, 0xfe, 0, 0, 0, 0, 0, 0],
            [0; 8],
            [0; 8],
        ];
        assert_eq!(encoded, golden.concat().as_slice());
    }

    #[test]
    fn the_newest_slot_counts_and_each_write_leaves_the_other() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()), Ok(Found::Missing));
        let mut superblock = Superblock::create(dir.path(), Known::creating()).unwrap();
        for index in 1..=9 {
            superblock.note_durable(CommitIndex(index));
            superblock.note_durable(CommitIndex(index - 1));
            let Ok(Found::Known(found)) = read(dir.path()) else { panic!("a slot passes") };
            assert_eq!(found.durable, CommitIndex(index));
            let path = dir.path().join(NAME);
            let whole = fs::read(&path).unwrap();
            let found = SLOTS.map(|at| {
                let mut damaged = whole.clone();
                damaged[usize::try_from(at).unwrap()..][..64].fill(0);
                fs::write(&path, damaged).unwrap();
                let Ok(Found::Known(found)) = read(dir.path()) else { panic!("a slot passes") };
                found.durable.0
            });
            assert_eq!(found.iter().max(), Some(&index));
            assert_eq!(found.iter().min(), Some(&(index - 1)));
            fs::write(&path, whole).unwrap();
        }
        fs::write(dir.path().join(NAME), [7; 5000]).unwrap();
        assert_eq!(read(dir.path()), Ok(Found::Damaged));
    }

    proptest! {
        #[test]
        fn a_damaged_slot_is_none(byte in 0..SLOT_BYTES, change in 1..=255_u8) {
            let mut bytes = known().encode();
            bytes[byte] ^= change;
            prop_assert_eq!(Known::decode(&bytes), None);
        }

        #[test]
        fn comes_back_as_it_was(generation: u64, durable: u64, manifest: u64, manifest_len: u64, salt: u64) {
            let durable = CommitIndex(durable);
            let known = Known { generation, durable, manifest, manifest_len, salt, ..known() };
            prop_assert_eq!(Known::decode(&known.encode()), Some(known));
        }
    }
}
