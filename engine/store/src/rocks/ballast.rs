//! The file `ballast` in the data directory: room that is held so that a full disk can always be recovered from.
//! It must not know what is written, nor why the disk is full.
//!
//! A recovery writes what is in the write-ahead log to new files before the log's files go, so it needs as
//! much room again as the log holds that is in no file yet. Free space cannot be promised, but an existing file
//! can be given up.
//!
//! **Invariant:** before a commit is written the ballast has room for everything that is in memory and in no
//! file yet, this commit included. A commit for which that cannot be had is refused with [`Error::Full`].
//!
//! The first 4 KiB stay when the rest is given up: they hold the [`Note`] of the recovery that began last.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::{Errno, retry_on_intr},
};

use super::{directory::sync_directory, failure, layout::FOLDER, leftovers::Note};
use crate::Error;

const NAME: &str = "ballast";
/// What is reserved if nothing is in memory: room for some acknowledgements on a disk that is full.
const SETTLED_BYTES: u64 = 4 << 20;
/// What a recovery writes besides the rows: a manifest, a log file, options, the least of each family.
const RECOVERY_BYTES: u64 = 2 << 20;
/// Rows take at most this fraction more in files than in memory: one part in 16.
const FILE_OVERHEAD_PART: u64 = 16;
/// The same for a commit's own bytes, one part in 4: small rows take more memory than their own bytes.
const COMMIT_OVERHEAD_PART: u64 = 4;
const HEAD_BYTES: u64 = 4096;
const BLOCK_BYTES: u64 = 64 << 10;
/// With less nothing can be written.
const LEAST_BYTES: u64 = RECOVERY_BYTES + 4 * BLOCK_BYTES;

/// The file, and how much of it is reserved.
#[derive(Debug)]
pub(super) struct Ballast {
    dir: PathBuf,
    path: PathBuf,
    /// How much room the file holds.
    held: u64,
    /// What a recovery needs that was begun and has not ended well; 0 if the last one has.
    debt: u64,
    /// By how much more it grows than it must, so that it grows seldom.
    step: u64,
    /// Bytes in memory and in no file, when they were counted last.
    counted: u64,
    /// Bytes of the commits since.
    since: u64,
}

impl Ballast {
    /// The ballast of a data directory as it was left; it holds nothing if there is none.
    pub(super) fn find(dir: &Path, step: u64) -> Self {
        let path = dir.join(NAME);
        // A file that was copied may be long and hold nothing.
        let held = fs::metadata(&path).map_or(0, |file| file.len().min(file.blocks() * 512));
        let mut ballast = Self { dir: dir.to_owned(), path, held, debt: 0, step, counted: 0, since: 0 };
        let begun = ballast.note().filter(|note| note.is_current(&dir.join(FOLDER)));
        ballast.debt = begun.map_or(0, |note| note.recovery_bytes);
        ballast
    }

    /// What a recovery may need, as far as the ballast tells.
    pub(super) fn recovery_bytes(&self) -> u64 {
        self.held.max(self.debt).max(LEAST_BYTES)
    }

    /// How much room a recovery has: what is free, and what the ballast gives up.
    pub(super) fn room(&self) -> Result<u64, Error> {
        Ok(self.free()? + self.held)
    }

    /// True if there is known to be more room than that.
    pub(super) fn has_more_than(&self, bytes: u64) -> bool {
        self.room().is_ok_and(|room| room > bytes)
    }

    /// True if what is in memory finds room without the ballast.
    pub(super) fn is_spare(&self) -> Result<bool, Error> {
        Ok(self.free()? >= self.held)
    }

    fn free(&self) -> Result<u64, Error> {
        let volume = rustix::fs::statvfs(&self.dir)
            .map_err(|error| failure::of_file("measure the volume of", &self.dir, &error.into()))?;
        Ok(volume.f_bavail.saturating_mul(volume.f_frsize))
    }

    /// The note of the recovery that began last.
    pub(super) fn note(&self) -> Option<Note> {
        let mut head = [0; Note::BYTES];
        File::open(&self.path).and_then(|file| file.read_exact_at(&mut head, 0)).ok()?;
        Note::decode(&head)
    }

    /// Notes that a recovery begins, and gives the room up if it may be needed.
    pub(super) fn begin_recovery(&mut self, note: &Note) -> Result<(), Error> {
        if self.held < HEAD_BYTES {
            // There is none yet, or no room was left for one: then nothing can be noted.
            return Ok(());
        }
        let needed = self.free()? < self.recovery_bytes();
        let given_up = OpenOptions::new().write(true).open(&self.path).and_then(|file| {
            let mut noted = file.write_all_at(&note.encode(), 0);
            if needed {
                file.set_len(HEAD_BYTES)?;
                tracing::warn!(bytes = self.held, "the disk is full, the ballast is given up to recover");
                self.held = HEAD_BYTES;
                if noted.is_err() {
                    // Some file systems write nothing in place: now there is room.
                    noted = file.write_all_at(&note.encode(), 0);
                }
            }
            if let Err(error) = noted {
                // An older note of the same manifest is as true.
                tracing::warn!(%error, "the recovery is not noted, what it leaves if it is killed may stay");
            }
            // Some file systems free room no earlier.
            file.sync_all()
        });
        given_up.map_err(|error| failure::of_file("give up", &self.path, &error))
    }

    /// Gives the room up although the volume seems to have enough; false if there was nothing to give.
    pub(super) fn give_up(&mut self) -> Result<bool, Error> {
        if self.held <= HEAD_BYTES {
            return Ok(false);
        }
        tracing::warn!(bytes = self.held, "no more may be written, the ballast is given up to recover");
        match self.set_len(HEAD_BYTES) {
            // Some file systems allocate the shorter file again, and can only remove it.
            Err(Error::Full { .. }) => {
                fs::remove_file(&self.path)
                    .and_then(|()| File::open(&self.dir)?.sync_all())
                    .map_err(|error| failure::of_file("give up", &self.path, &error))?;
                self.held = 0;
                Ok(true)
            }
            done => done.map(|()| true),
        }
    }

    /// Takes room again after a recovery that failed, for the next one.
    pub(super) fn end_failed_recovery(&mut self, held: u64) {
        if let Err(error) = self.hold(held) {
            tracing::warn!(%error, "the ballast could not be taken again");
        }
    }

    /// Holds little again, or what can be had: everything is in files now.
    ///
    /// If there is no room for the least, reading still continues, and commits are refused.
    pub(super) fn end_recovery(&mut self) {
        (self.debt, self.counted, self.since) = (0, 0, 0);
        if let Err(error) = self.settle() {
            tracing::warn!(%error, "there is no room for the ballast, nothing is written until there is");
        }
    }

    fn settle(&mut self) -> Result<(), Error> {
        // The last of the room is of more use to the commits themselves.
        let scarce = self.room()? < 2 * SETTLED_BYTES;
        let bytes = if scarce { LEAST_BYTES } else { SETTLED_BYTES };
        if self.held > bytes {
            return self.set_len(bytes);
        }
        // Under a quota less may be had than is free.
        self.hold(bytes).or_else(|_| self.hold(LEAST_BYTES))
    }

    /// Makes sure that `bytes` more in memory can be recovered; `unflushed` counts what is there, at some cost.
    pub(super) fn cover(&mut self, bytes: u64, unflushed: impl FnOnce() -> u64) -> Result<(), Error> {
        let since = self.since + bytes;
        if needed(self.counted, since) <= self.held {
            self.since = since;
            return Ok(());
        }
        let counted = unflushed();
        let least = needed(counted, bytes);
        // Growing before it must spares the count for a while.
        if least + self.step / 2 > self.held && self.hold(least + self.step).is_err() && least > self.held {
            self.hold(least)?;
        }
        (self.counted, self.since) = (counted, bytes);
        Ok(())
    }

    /// Gives back what is held for rows that are in files by now; `unflushed` bytes are not.
    pub(super) fn relax(&mut self, unflushed: u64) -> Result<(), Error> {
        (self.counted, self.since) = (unflushed, 0);
        let bytes = (needed(unflushed, 0) + self.step).max(SETTLED_BYTES).next_multiple_of(BLOCK_BYTES);
        if bytes < self.held { self.set_len(bytes) } else { Ok(()) }
    }

    fn set_len(&mut self, bytes: u64) -> Result<(), Error> {
        let cut = OpenOptions::new().write(true).open(&self.path).and_then(|file| {
            file.set_len(bytes)?;
            file.sync_all()
        });
        cut.map_err(|error| failure::of_file("shrink", &self.path, &error))?;
        self.held = bytes;
        Ok(())
    }

    /// Grows to hold `bytes`, or stays as it was.
    fn hold(&mut self, bytes: u64) -> Result<(), Error> {
        let bytes = bytes.next_multiple_of(BLOCK_BYTES);
        if bytes <= self.held {
            return Ok(());
        }
        let existed = self.path.exists();
        let grown = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&self.path)
            .and_then(|file| grow(&file, self.held, bytes));
        grown.map_err(|error| failure::of_file(&format!("hold {bytes} bytes in"), &self.path, &error))?;
        if !existed {
            sync_directory(&self.dir)?;
        }
        self.held = bytes;
        Ok(())
    }
}

/// What a recovery needs for `counted` bytes in memory and `since` bytes of commits since they were counted.
fn needed(counted: u64, since: u64) -> u64 {
    RECOVERY_BYTES + counted + counted / FILE_OVERHEAD_PART + since + since / COMMIT_OVERHEAD_PART
}

fn grow(file: &File, from: u64, to: u64) -> io::Result<()> {
    let grown = match retry_on_intr(|| fallocate(file, FallocateFlags::empty(), from, to - from)) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_out(file, from, to),
        done => done.map_err(io::Error::from),
    };
    let durable = grown.and_then(|()| file.sync_all());
    if durable.is_err() {
        // What was had of it would only be in the way.
        file.set_len(from)?;
    }
    durable
}

/// For file systems that hold room only for bytes.
fn write_out(file: &File, from: u64, to: u64) -> io::Result<()> {
    let block = [0xb5; 1 << 16];
    let mut at = from;
    while at < to {
        let len = usize::try_from(to - at).map_or(block.len(), |left| left.min(block.len()));
        file.write_all_at(&block[..len], at)?;
        at += len as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn settled(dir: &Path) -> Ballast {
        let mut ballast = Ballast::find(dir, 8 * MIB);
        ballast.end_recovery();
        ballast
    }

    /// A folder of a database, as far as a note looks.
    fn database(dir: &Path) -> PathBuf {
        let folder = dir.join(FOLDER);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("CURRENT"), "MANIFEST-000004\n").unwrap();
        fs::write(folder.join("MANIFEST-000004"), "some").unwrap();
        folder
    }

    fn allocated(dir: &Path) -> u64 {
        fs::metadata(dir.join(NAME)).unwrap().blocks() * 512
    }

    fn assert_settled(dir: &Path) {
        // A file system counts its own blocks for a file in many pieces too.
        let allocated = allocated(dir);
        assert!(
            (SETTLED_BYTES..SETTLED_BYTES + BLOCK_BYTES).contains(&allocated),
            "{allocated} bytes are held"
        );
    }

    #[test]
    fn what_is_in_files_by_now_needs_no_room_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let mut ballast = settled(dir.path());
        ballast.cover(100 * MIB, || 0).unwrap();
        assert!(allocated(dir.path()) > 100 * MIB);
        ballast.relax(MIB).unwrap();
        let held = allocated(dir.path());
        assert!((RECOVERY_BYTES + MIB..20 * MIB).contains(&held), "{held} bytes are held for 1 MiB");
        assert_eq!(Ballast::find(dir.path(), 0).held, ballast.held);
    }

    #[test]
    fn holds_room_for_everything_that_is_in_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut ballast = settled(dir.path());
        assert_settled(dir.path());
        for written in 1..=50 {
            ballast.cover(MIB, || (written - 1) * MIB).unwrap();
            let held = allocated(dir.path());
            assert!(held > written * MIB + MIB, "{held} bytes are held for {written} MiB");
        }
        assert_eq!(Ballast::find(dir.path(), 0).held, ballast.held);
        ballast.end_recovery();
        assert_settled(dir.path());
    }

    #[test]
    fn what_was_written_out_needs_no_more_room() {
        let dir = tempfile::tempdir().unwrap();
        let mut ballast = settled(dir.path());
        for _ in 0..1_000 {
            ballast.cover(MIB, || 4 * MIB).unwrap();
        }
        assert!(ballast.held < 32 * MIB, "{} bytes are held", ballast.held);
    }

    #[test]
    fn a_commit_that_the_volume_has_no_room_for_is_refused_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut ballast = settled(dir.path());
        let refused = ballast.cover(1 << 55, || 0).unwrap_err();
        assert!(matches!(refused, Error::Full { .. } | Error::Failed { .. }), "{refused}");
        assert_settled(dir.path());
        ballast.cover(MIB, || 0).unwrap();
    }

    #[test]
    fn a_file_without_blocks_holds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        File::create(dir.path().join(NAME)).unwrap().set_len(100 * MIB).unwrap();
        assert_eq!(Ballast::find(dir.path(), 0).held, 0);
    }

    #[test]
    fn with_room_nothing_is_given_up_and_the_note_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let note = Note::take(&database(dir.path()), MIB).unwrap();
        let mut ballast = settled(dir.path());
        assert_eq!(ballast.note(), None);
        ballast.begin_recovery(&note).unwrap();
        assert_eq!(ballast.note(), Some(note));
        assert_settled(dir.path());
    }

    #[test]
    fn what_a_killed_recovery_needs_is_known_until_one_ends_well() {
        let dir = tempfile::tempdir().unwrap();
        let folder = database(dir.path());
        let mut ballast = settled(dir.path());
        ballast.hold(40 * MIB).unwrap();
        let note = Note::take(&folder, ballast.recovery_bytes()).unwrap();
        ballast.begin_recovery(&note).unwrap();
        File::options().write(true).open(dir.path().join(NAME)).unwrap().set_len(HEAD_BYTES).unwrap();
        assert_eq!(Ballast::find(dir.path(), 0).recovery_bytes(), 40 * MIB);
        fs::write(folder.join("MANIFEST-000004"), "some more").unwrap();
        assert_eq!(Ballast::find(dir.path(), 0).recovery_bytes(), LEAST_BYTES);
    }

    #[test]
    fn bytes_take_room_where_room_cannot_be_had_without() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        write_out(&File::create(&path).unwrap(), 0, 3 * BLOCK_BYTES + 5).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 3 * BLOCK_BYTES + 5);
    }
}
