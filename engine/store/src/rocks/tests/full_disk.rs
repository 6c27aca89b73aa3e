//! A volume without a free byte: a small file system in memory, filled by somebody else.

use std::{io::Write, process::Command};

use super::{
    super::{
        database::{Database, claim},
        leftovers::Note,
        survey,
        view::Uninspected,
    },
    *,
};
use crate::Error;

const COMMITS: u64 = 10;
const MIB: u64 = 1 << 20;

/// A file system in memory, unmounted with its handle.
struct Volume {
    dir: tempfile::TempDir,
}

impl Volume {
    /// `None` where nobody may mount.
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=128m", "tmpfs"]).arg(dir.path()).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self { dir });
        }
        eprintln!("NOT TESTED: a full disk, for this user may not mount a file system");
        None
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn filler(&self) -> PathBuf {
        self.dir.path().join("filler")
    }

    fn free(&self) -> u64 {
        let volume = rustix::fs::statvfs(self.dir.path()).unwrap();
        volume.f_bavail * volume.f_frsize
    }

    /// Leaves so much room.
    fn fill(&self, left: u64) {
        let mut filler = fs::File::create(self.filler()).unwrap();
        let page = [1; 4096];
        while self.free() > left && filler.write_all(&page).is_ok() {}
    }

    fn empty(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    /// A store with some commits that are in memory and in the log only.
    fn store(&self) -> RocksStore {
        let store = open(&self.data(), &RocksOptions::default());
        for index in 1..=COMMITS {
            store.apply(&after(&store, commit(index, 100_000))).unwrap();
        }
        store.sync().unwrap();
        store
    }

    /// Files with rows.
    fn rows(&self) -> Vec<PathBuf> {
        [".sst", ".blob"].iter().flat_map(|kind| files(&self.data(), kind)).collect()
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.dir.path()).output();
    }
}

fn full(result: Result<(), Error>) -> String {
    match result {
        Err(Error::Full { reason }) => reason,
        other => panic!("the disk is full, and not {other:?}"),
    }
}

#[test]
fn a_close_on_a_full_disk_begins_no_files_and_the_next_open_recovers() {
    let Some(volume) = Volume::mount() else { return };
    let store = volume.store();
    volume.fill(0);
    let (rows, ballast) = (volume.rows(), fs::metadata(volume.data().join("ballast")).unwrap().len());
    store.close().unwrap();
    assert_eq!(volume.rows(), rows, "a kill in the middle of these would leave them behind");
    assert_eq!(fs::metadata(volume.data().join("ballast")).unwrap().len(), ballast);
    let store = open(&volume.data(), &RocksOptions::default());
    assert_eq!(store.applied(), CommitIndex(COMMITS));
    assert_whole(&store, COMMITS);
    assert!(volume.rows().len() > rows.len(), "the recovery wrote what the close did not");
}

#[test]
fn a_close_with_room_leaves_the_next_open_nothing_to_recover() {
    let Some(volume) = Volume::mount() else { return };
    let store = volume.store();
    let rows = volume.rows();
    store.close().unwrap();
    assert!(volume.rows().len() > rows.len());
}

#[test]
fn a_recovery_that_found_no_room_is_tried_again_only_with_as_much() {
    let Some(volume) = Volume::mount() else { return };
    let store = volume.store();
    let needed = fs::metadata(volume.data().join("ballast")).unwrap().len();
    volume.fill(0);
    trap_superblock(&volume.data());
    let reason = full(store.reopen());
    assert!(reason.contains("superblock"), "{reason}");
    // The ballast may be gone by then: what it held is remembered.
    fs::remove_file(volume.data().join("ballast")).unwrap();
    volume.empty();
    volume.fill(needed - MIB);
    let reason = full(store.reopen());
    assert!(reason.contains(&format!("{needed} bytes must be free")), "{reason}");
    assert_whole(&store, COMMITS);
    volume.empty();
    fs::remove_file(volume.data().join("superblock.new")).unwrap();
    store.reopen().unwrap();
    store.apply(&after(&store, commit(COMMITS + 1, 10))).unwrap();
    store.sync().unwrap();
}

#[test]
fn a_start_after_a_killed_recovery_says_how_much_room_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), &RocksOptions::default()));
    let needed = fs::metadata(dir.path().join("ballast")).unwrap().len();
    trap_superblock(dir.path());
    // A recovery was noted and the room given up, and then it was killed.
    let note = Note::take(&dir.path().join("db"), 7 * needed).unwrap();
    fs::write(dir.path().join("ballast"), note.encode()).unwrap();
    let error = RocksStore::open(dir.path(), RocksOptions::default()).err().expect("there is no room");
    let text = error.to_string();
    assert!(text.contains(&format!("free {} bytes", 7 * needed)), "{text}");
}

#[test]
fn a_directory_stays_claimed_while_it_can_only_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &RocksOptions::default());
    store.apply(&after(&store, commit(1, 100))).unwrap();
    trap_superblock(dir.path());
    full(store.reopen());
    assert_whole(&store, 1);
    let again = RocksStore::open(dir.path(), RocksOptions::default());
    assert_eq!(again.err(), Some(Error::InUse { dir: dir.path().to_owned() }));
    store.close().unwrap();
    fs::remove_file(dir.path().join("superblock.new")).unwrap();
    assert_eq!(open(dir.path(), &RocksOptions::default()).applied(), CommitIndex(1));
}

#[test]
fn a_log_with_a_torn_end_is_recovered_on_a_full_disk_whatever_a_log_file_would_preallocate() {
    let Some(volume) = Volume::mount() else { return };
    let store = volume.store();
    // Not synced: its end may be torn.
    store.apply(&after(&store, commit(COMMITS + 1, 100_000))).unwrap();
    drop(store);
    let logs = files(&volume.data(), ".log");
    let log = fs::File::options().write(true).open(logs.last().unwrap()).unwrap();
    log.set_len(log.metadata().unwrap().len() - 5).unwrap();
    volume.fill(0);
    // As on a large volume: a log file's share is many times what the ballast holds.
    let lock = claim(&volume.data()).unwrap();
    let options = RocksOptions::default();
    let survey = survey::survey(&volume.data(), &options, &Uninspected).unwrap();
    let (database, last) = Database::open(&volume.data(), &options, &survey).unwrap();
    assert_eq!(last.index, CommitIndex(COMMITS), "the end is torn");
    drop((database, lock));
}

#[test]
fn without_room_to_spare_files_are_not_preallocated_and_nothing_else_differs() {
    let Some(volume) = Volume::mount() else { return };
    // The newest file of options that an open wrote.
    let written = |data: &Path| {
        drop(open(data, &RocksOptions::default()));
        let entries = fs::read_dir(data.join("db")).unwrap().map(|entry| entry.unwrap().path());
        let newest = entries.filter(|path| path.to_string_lossy().contains("OPTIONS-")).max().unwrap();
        let text = fs::read_to_string(newest).unwrap();
        text.lines().map(str::trim).map(str::to_owned).collect::<Vec<_>>()
    };
    // Creating a database takes options of its own.
    drop(open(&volume.data(), &RocksOptions::default()));
    let ample = written(&volume.data());
    volume.fill(6 * MIB);
    let scarce = written(&volume.data());
    assert_eq!(ample.len(), scarce.len());
    let differ = ample.iter().zip(&scarce).filter(|(ample, scarce)| ample != scarce);
    let expected = ("allow_fallocate=true".to_owned(), "allow_fallocate=false".to_owned());
    assert_eq!(differ.collect::<Vec<_>>(), [(&expected.0, &expected.1)]);
}
