//! Power cuts in small: the log's end cut, scribbled over or with a flipped bit, at many places. A store opens
//! with some of the last commits gone and never one of the middle, or refuses because one is gone that was durable.

use std::{fs::OpenOptions, os::unix::fs::FileExt};

use super::*;
use crate::Error;

/// Commits in one log file, the first ones durable for sure, and where each ends in the file.
///
/// The file grows, or it is written over and what was there before follows on the last commit.
struct Scene {
    dir: tempfile::TempDir,
    wal: PathBuf,
    ends: Vec<u64>,
}

const COMMITS: u64 = 24;
const BOUND: u64 = 16;

impl Scene {
    fn growing() -> Self {
        Self::new(0)
    }

    fn written_over() -> Self {
        Self::new(1)
    }

    fn new(wal_bytes_prepared: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let live = dir.path().join("live");
        let store = open(&live, &RocksOptions { wal_bytes_prepared, ..RocksOptions::default() });
        let wals = files(&live, ".log");
        // The newest: one that waits to be written over may lie beside it.
        let wal = wals.last().unwrap();
        let (mut ends, mut before) = (vec![0], fs::read(wal).unwrap());
        assert_eq!(before.is_empty(), wal_bytes_prepared == 0, "the first log file grows or is written over");
        for index in 1..=COMMITS {
            // Short ones, long ones, and one that crosses RocksDB's blocks of 32 KiB.
            let len = [40, 3000, 200, 40_000][usize::try_from(index % 4).unwrap()];
            let time = Timestamp(if index < BOUND { 0 } else { 5000 });
            store.apply(&after(&store, Commit { time, ..commit(index, len) })).unwrap();
            if index == BOUND {
                store.sync().unwrap();
            }
            let after = fs::read(wal).unwrap();
            let is_new = |at: &usize| before.get(*at) != after.get(*at);
            ends.push((0..after.len()).rev().find(is_new).unwrap() as u64 + 1);
            before = after;
        }
        // Before it is closed, which would cut off what the file held before.
        copy(&live, &dir.path().join("cut"));
        drop(store);
        let wal = dir.path().join("cut/db").join(wal.file_name().unwrap());
        Self { dir, wal, ends }
    }

    /// Damages a copy of the directory, opens it, and returns what was applied last.
    fn open_damaged(&self, damage: impl FnOnce(&Path)) -> Result<u64, Error> {
        let copied = self.dir.path().join("again");
        if copied.exists() {
            fs::remove_dir_all(&copied).unwrap();
        }
        copy(&self.dir.path().join("cut"), &copied);
        damage(&copied.join("db").join(self.wal.file_name().unwrap()));
        let store = RocksStore::open(&copied, RocksOptions::default())?;
        assert_whole(&store, COMMITS);
        let applied = store.applied().0;
        if applied % 4 == 0 {
            // It goes on from there, and what it takes now is there after the next open.
            store.apply(&after(&store, commit(applied + 1, 50))).unwrap();
            store.sync().unwrap();
            drop(store);
            assert_eq!(open(&copied, &RocksOptions::default()).applied(), CommitIndex(applied + 1));
        }
        Ok(applied)
    }

    /// The commits that lie whole before a place in the file.
    fn whole_before(&self, at: u64) -> u64 {
        (0..=COMMITS).rev().find(|index| self.ends[usize::try_from(*index).unwrap()] <= at).unwrap()
    }

    /// Places around every boundary from commit `first` on, and within each commit.
    fn places(&self, first: u64) -> Vec<u64> {
        let ends = &self.ends[usize::try_from(first - 1).unwrap()..];
        let mut places: Vec<u64> = ends
            .windows(2)
            .flat_map(|pair| [pair[0], pair[0] + 5, (pair[0] + pair[1]) / 2, pair[1] - 1])
            .collect();
        places.push(ends[ends.len() - 1]);
        places
    }
}

fn writable(path: &Path) -> fs::File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

fn flip(path: &Path, at: u64) {
    let file = writable(path);
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    byte[0] ^= 0x20;
    file.write_all_at(&byte, at).unwrap();
}

#[test]
fn a_log_cut_anywhere_behind_the_bound_loses_only_its_last_commits() {
    for scene in [Scene::growing(), Scene::written_over()] {
        for at in scene.places(BOUND + 1) {
            let applied = scene.open_damaged(|wal| writable(wal).set_len(at).unwrap());
            assert_eq!(applied, Ok(scene.whole_before(at)), "cut at {at}");
        }
    }
}

#[test]
fn a_log_scribbled_over_from_anywhere_behind_the_bound_loses_only_its_last_commits() {
    for scene in [Scene::growing(), Scene::written_over()] {
        scribble(&scene);
    }
}

fn scribble(scene: &Scene) {
    let whole = fs::read(&scene.wal).unwrap();
    for (turn, at) in scene.places(BOUND + 1).into_iter().enumerate() {
        let rest = &whole[usize::try_from(at).unwrap()..];
        let scribbled: Vec<u8> = match turn % 3 {
            0 => vec![0x00; rest.len()],
            1 => vec![0xa5; rest.len()],
            _ => rest.iter().map(|byte| !byte).collect(),
        };
        // What happens to be written over with itself is not damaged.
        let same = rest.iter().zip(&scribbled).take_while(|(old, new)| old == new).count() as u64;
        let applied = scene.open_damaged(|wal| writable(wal).write_all_at(&scribbled, at).unwrap());
        assert_eq!(applied, Ok(scene.whole_before(at + same)), "scribbled from {at}, turn {turn}");
    }
}

#[test]
fn a_flipped_bit_loses_its_commit_and_those_behind_it_or_is_refused() {
    for scene in [Scene::growing(), Scene::written_over()] {
        flip_each(&scene);
    }
}

fn flip_each(scene: &Scene) {
    for index in 1..=COMMITS {
        let begin = scene.ends[usize::try_from(index - 1).unwrap()];
        let end = scene.ends[usize::try_from(index).unwrap()];
        let found = scene.open_damaged(|wal| flip(wal, (begin + end) / 2));
        if index > BOUND {
            assert_eq!(found, Ok(index - 1), "a bit of commit {index}");
        } else {
            let error = found.unwrap_err();
            assert!(matches!(error, Error::Corrupt { .. }), "{error}");
            let missing = format!("commits {index} to {BOUND} are missing");
            assert!(error.to_string().contains(&missing), "{error}");
        }
    }
}

#[test]
fn a_flipped_bit_in_a_recycled_log_loses_its_commit_and_those_behind_it() {
    const COMMITS: u64 = 400;
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    let mut options = RocksOptions::default();
    (options.log.memtable_bytes, options.wal_bytes_max) = (1 << 17, 1 << 19);
    let store = open(&live, &options);
    for index in 1..=COMMITS {
        store.apply(&after(&store, commit(index, 5000))).unwrap();
    }
    drop(store);
    // Those of the newest file: nothing of them was moved out of the log yet.
    let newest = files(&live, ".log").pop().unwrap();
    let mut flipped = 0;
    for index in (COMMITS - 2..=COMMITS).rev() {
        let copied = dir.path().join(format!("again {index}"));
        copy(&live, &copied);
        let (wal, at) = find(&copied, &marker(index)).expect("the last commits are in a log file");
        if wal.file_name() != newest.file_name() {
            break;
        }
        flip(&wal, at);
        let store = open(&copied, &RocksOptions::default());
        assert_eq!(store.applied(), CommitIndex(index - 1));
        assert_whole(&store, COMMITS);
        flipped += 1;
    }
    assert!(flipped > 0, "commit {COMMITS} is in the newest file");
}

fn find(dir: &Path, marker: &[u8]) -> Option<(PathBuf, u64)> {
    files(dir, ".log").into_iter().find_map(|wal| {
        let bytes = fs::read(&wal).unwrap();
        let at = bytes.windows(marker.len()).position(|window| window == marker)?;
        Some((wal, at.try_into().unwrap()))
    })
}

#[test]
fn a_log_file_that_went_missing_never_leaves_a_hole() {
    const COMMITS: u64 = 200;
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    let mut options = RocksOptions::default();
    (options.log.memtable_bytes, options.log.memtables_max) = (1 << 17, 100);
    let store = open(&live, &options);
    // Without flushes no log file is synced when the next one begins, and none is known by name.
    let stopped = store.with(|database| {
        database.stop_background_work();
        Ok(())
    });
    stopped.unwrap();
    for index in 1..=COMMITS {
        store.apply(&after(&store, commit(index, 5000))).unwrap();
    }
    drop(store);
    let count = files(&live, ".log").len();
    assert!(count > 4, "{count} log files are too few to lose one in the middle");
    for gone in 0..count {
        let copied = dir.path().join(format!("again {gone}"));
        copy(&live, &copied);
        fs::remove_file(&files(&copied, ".log")[gone]).unwrap();
        let opened = RocksStore::open(&copied, RocksOptions::default());
        if gone == count - 1 {
            let store = opened.unwrap();
            assert!(store.applied().0 < COMMITS);
            assert_whole(&store, COMMITS);
        } else {
            let error = opened.err().expect("a hole is refused");
            assert!(matches!(error, Error::Corrupt { .. }), "{error}");
            assert!(error.to_string().contains("are missing"), "{error}");
        }
    }
}

#[test]
fn more_commits_than_a_hole_can_be_seen_in_are_never_left_without_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &RocksOptions::default());
    let before = store.stats().wal_syncs;
    for index in 1..=1024 {
        store.apply(&after(&store, commit(index, 10))).unwrap();
    }
    assert_eq!(store.stats().wal_syncs, before);
    store.apply(&after(&store, commit(1025, 10))).unwrap();
    assert_eq!(store.stats().wal_syncs, before + 1);
    store.apply(&after(&store, commit(1026, 10))).unwrap();
    assert_eq!(store.stats().wal_syncs, before + 1);
    drop(store);
    assert_eq!(open(dir.path(), &RocksOptions::default()).applied(), CommitIndex(1026));
}
