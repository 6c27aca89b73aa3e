//! A disk that is full, refuses a file, or fails a sync. Devices under the name of the next log file stand in for it:
//! `/dev/full` has no room for anything, `/dev/null` takes everything and cannot be synced.

use std::os::unix::fs::symlink;

use levada_protocol::error::ErrorCode;

use super::*;
use crate::{Deleted, Error, ScanLimit};

/// A store whose log file is changed every few commits, with ten durable ones.
struct Scene {
    dir: tempfile::TempDir,
    store: RocksStore,
    traps: Vec<PathBuf>,
}

const DURABLE: u64 = 10;

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = RocksOptions { wal_files_recycled: 0, ..RocksOptions::default() };
        options.log.memtable_bytes = 1 << 17;
        let store = open(dir.path(), &options);
        for index in 1..=DURABLE {
            store.apply(&after(&store, commit(index, 100))).unwrap();
        }
        store.sync().unwrap();
        Self { dir, store, traps: Vec::new() }
    }

    /// Sets `trap` at every name that the next files of a kind can have.
    fn set(&mut self, name: impl Fn(u64) -> String, trap: impl Fn(&Path)) {
        let number = |path: &PathBuf| path.file_stem()?.to_str()?.rsplit('-').next()?.parse::<u64>().ok();
        let last = files(self.dir.path(), "").iter().filter_map(number).max().unwrap();
        for number in last + 1..last + 60 {
            let path = self.dir.path().join("db").join(name(number));
            trap(&path);
            self.traps.push(path);
        }
    }

    /// Takes the traps away: the disk is well again.
    fn heal(&mut self) {
        for path in self.traps.drain(..) {
            // Some may be gone: RocksDB cleans up behind itself.
            let _gone = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
        }
    }

    /// Applies, and syncs now and then, until something fails.
    fn fail(&self) -> Error {
        (self.store.applied().0 + 1..1000)
            .find_map(|index| {
                let applied = self.store.apply(&after(&self.store, commit(index, 5000)));
                applied.and_then(|()| self.store.sync()).err()
            })
            .expect("the next log file fails")
    }

    /// Asserts that nothing is written any more, and everything durable is read.
    fn assert_closed_for_writes(&self, failure: &Error) {
        let next = self.store.applied().0 + 1;
        assert_eq!(self.store.apply(&after(&self.store, commit(next, 10))).as_ref(), Err(failure));
        assert_eq!(self.store.sync().as_ref(), Err(failure));
        assert_eq!(self.store.compact(Family::Log, &[], &[0xff], Deleted::Some).as_ref(), Err(failure));
        let rows = self.store.scan(Family::Log, &[], &[0xff], ScanLimit::NONE).unwrap();
        assert!(rows.len() as u64 >= DURABLE, "{} rows are read", rows.len());
    }

    /// Asserts that a reopen heals the store, and that it has kept everything up to `durable`.
    fn assert_heals(&mut self, durable: u64) {
        self.heal();
        self.store.reopen().unwrap();
        let applied = self.store.applied().0;
        assert!(applied >= durable, "{durable} were durable, {applied} are there");
        assert_whole(&self.store, 1000);
        self.store.apply(&after(&self.store, commit(applied + 1, 10))).unwrap();
        assert_eq!(self.store.sync(), Ok(CommitIndex(applied + 1)));
    }
}

fn wal(number: u64) -> String {
    format!("{number:06}.log")
}

#[test]
fn a_full_disk_says_so_until_there_is_room_and_a_reopen() {
    let mut scene = Scene::new();
    scene.set(wal, |path| symlink("/dev/full", path).unwrap());
    let failure = scene.fail();
    assert_eq!(failure.code(), ErrorCode::StorageFull, "{failure}");
    scene.assert_closed_for_writes(&failure);
    scene.heal();
    scene.assert_closed_for_writes(&failure);
    let durable = scene.store.applied().0;
    scene.assert_heals(durable);
}

#[test]
fn a_reopen_on_a_full_disk_is_refused_and_reads_go_on() {
    let mut scene = Scene::new();
    scene.set(wal, |path| symlink("/dev/full", path).unwrap());
    scene.fail();
    let durable = scene.store.applied().0;
    scene.heal();
    let aside = trap_superblock(scene.dir.path());
    for _ in 0..2 {
        let failure = scene.store.reopen().unwrap_err();
        assert_eq!(failure.code(), ErrorCode::StorageFull, "{failure}");
        scene.assert_closed_for_writes(&failure);
    }
    fs::remove_file(aside).unwrap();
    scene.assert_heals(durable);
}

#[test]
fn a_failed_write_is_final_until_a_reopen() {
    let mut scene = Scene::new();
    scene.set(wal, |path| fs::create_dir(path).unwrap());
    let failure = scene.fail();
    assert_eq!(failure.code(), ErrorCode::StorageFailed, "{failure}");
    scene.assert_closed_for_writes(&failure);
    scene.heal();
    scene.assert_closed_for_writes(&failure);
    let durable = scene.store.applied().0;
    scene.assert_heals(durable);
}

#[test]
fn a_failed_sync_is_final_and_confirms_nothing() {
    let mut scene = Scene::new();
    scene.set(wal, |path| symlink("/dev/null", path).unwrap());
    let before = (scene.store.applied().0 + 1..1000)
        .find_map(|index| {
            scene.store.apply(&after(&scene.store, commit(index, 5000))).unwrap();
            scene.store.sync().err().map(|failure| (index, failure))
        })
        .expect("the next log file cannot be synced");
    let (unconfirmed, failure) = before;
    assert_eq!(failure.code(), ErrorCode::StorageFailed, "{failure}");
    scene.assert_closed_for_writes(&failure);
    scene.assert_heals(unconfirmed - 1);
    assert_eq!(
        scene.store.applied().0,
        unconfirmed,
        "what was not confirmed is gone, and one more was applied"
    );
}

#[test]
fn a_failed_store_can_be_closed_and_opened_again() {
    let mut scene = Scene::new();
    scene.set(wal, |path| symlink("/dev/full", path).unwrap());
    scene.fail();
    scene.heal();
    scene.store.close().unwrap();
    let store = open(scene.dir.path(), &RocksOptions::default());
    assert!(store.applied().0 >= DURABLE);
    assert_whole(&store, 1000);
}
