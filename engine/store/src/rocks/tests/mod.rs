//! The store on a real disk: the contract, what an open refuses, what damage, a power cut and a failing disk leave, and
//! whether space comes back.

mod damage;
mod failing_disk;
mod full_disk;
mod opening;
mod power_cut;
mod space;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use levada_protocol::ids::{CommitIndex, Timestamp};

use crate::{
    Commit, Family, Op, RocksOptions, RocksStore, Store,
    commit::{CommitHash, Term},
    conformance,
};

#[test]
fn conforms() {
    let dir = tempfile::tempdir().unwrap();
    conformance::run(&|name| Arc::new(open(&dir.path().join(name), &RocksOptions::default())));
}

#[test]
fn conforms_with_memtables_that_are_flushed_all_the_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = RocksOptions::default();
    (options.log.memtable_bytes, options.small_memtable_bytes, options.wal_bytes_max) =
        (1 << 16, 1 << 16, 1 << 17);
    conformance::run(&|name| Arc::new(open(&dir.path().join(name), &options)));
}

fn open(dir: &Path, options: &RocksOptions) -> RocksStore {
    RocksStore::open(dir, options.clone()).unwrap()
}

/// Commit `index` with one row in the log and one in another family; the log's value is `len` bytes and holds
/// [`marker`] so that it can be found in files.
fn commit(index: u64, len: usize) -> Commit {
    let mut value = marker(index);
    value.resize(len.max(value.len()), 0x5a);
    let key = Bytes::copy_from_slice(&index.to_be_bytes());
    let ops = vec![
        Op::Put { family: Family::Log, key: key.clone(), value: value.into() },
        Op::Put { family: Family::Side, key, value: Bytes::from_static(b"\x01") },
    ];
    let (index, previous) = (CommitIndex(index), CommitIndex(index - 1));
    Commit { shard: 0, index, previous, time: Timestamp(0), term: Term(1), parent: CommitHash(0), ops }
}

/// The same commit, as the next one of what the store holds.
fn after(store: &RocksStore, commit: Commit) -> Commit {
    Commit { parent: store.last().hash, ..commit }
}

fn marker(index: u64) -> Vec<u8> {
    format!("<commit {index:08}>").into_bytes()
}

/// Asserts that the store holds the rows of the commits up to the one applied last, and of no later one.
fn assert_whole(store: &RocksStore, last: u64) {
    let applied = store.applied().0;
    for index in 1..=last {
        let key = index.to_be_bytes();
        let log = store.get(Family::Log, &key).unwrap();
        let side = store.get(Family::Side, &key).unwrap();
        assert_eq!(log.is_some(), index <= applied, "log row of commit {index}, {applied} was applied last");
        assert_eq!(
            side.is_some(),
            index <= applied,
            "side row of commit {index}, {applied} was applied last"
        );
        assert!(
            log.is_none_or(|value| value.starts_with(&marker(index))),
            "commit {index} has another's row"
        );
    }
}

/// The next open makes the superblock anew, and finds no room for it: answers what to remove to give it some.
fn trap_superblock(data: &Path) -> PathBuf {
    fs::remove_file(data.join("superblock")).unwrap();
    fs::write(data.join("accept-loss"), "").unwrap();
    let aside = data.join("superblock.new");
    std::os::unix::fs::symlink("/dev/full", &aside).unwrap();
    aside
}

/// Copies a data directory, as a power cut at this moment would find it with everything written out.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The files of RocksDB whose names end so, in the order of their numbers.
fn files(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir.join("db"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(suffix))
        .collect();
    found.sort();
    found
}
