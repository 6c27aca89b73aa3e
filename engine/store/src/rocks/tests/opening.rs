//! What an open accepts, and what it refuses with which words.

use levada_protocol::error::ErrorCode;

use super::*;
use crate::Error;

fn refused(dir: &Path) -> Error {
    RocksStore::open(dir, RocksOptions::default()).err().expect("the open is refused")
}

/// A closed store with `count` commits, all durable.
fn closed_store(dir: &Path, count: u64) {
    let store = open(dir, &RocksOptions::default());
    for index in 1..=count {
        store.apply(&commit(index, 100)).unwrap();
    }
    store.close().unwrap();
}

#[test]
fn a_directory_in_use_is_refused_and_stays_usable() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &RocksOptions::default());
    let error = refused(dir.path());
    assert_eq!(error, Error::InUse { dir: dir.path().to_owned() });
    assert_eq!(error.code(), ErrorCode::StorageInUse);
    assert!(error.to_string().contains("in use by another engine"), "{error}");
    store.apply(&commit(1, 10)).unwrap();
    store.close().unwrap();
    assert_eq!(open(dir.path(), &RocksOptions::default()).applied(), CommitIndex(1));
}

#[test]
fn a_directory_of_a_newer_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    closed_store(dir.path(), 1);
    let path = dir.path().join("format");
    assert_eq!(fs::read_to_string(&path).unwrap(), "levada data format 1\n");
    fs::write(&path, "levada data format 2\n").unwrap();
    let error = refused(dir.path());
    assert!(matches!(error, Error::Newer { found: 2, supported: 1, .. }), "{error}");
    assert_eq!(error.code(), ErrorCode::StorageNewer);
    fs::write(&path, "levada data format 1\n").unwrap();
    assert_eq!(open(dir.path(), &RocksOptions::default()).applied(), CommitIndex(1));
}

#[test]
fn a_missing_or_damaged_format_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    closed_store(dir.path(), 1);
    let path = dir.path().join("format");
    for damaged in
        ["", "levada data format", "levada data format x", "something else", "levada data format 0"]
    {
        fs::write(&path, damaged).unwrap();
        assert_eq!(refused(dir.path()).code(), ErrorCode::StorageCorrupt, "{damaged:?}");
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(refused(dir.path()).code(), ErrorCode::StorageCorrupt);
}

#[test]
fn a_file_where_the_directory_should_be_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    fs::write(&path, "").unwrap();
    assert_eq!(refused(&path).code(), ErrorCode::StorageFailed);
}

#[test]
fn commits_missing_below_the_bound_are_named() {
    let dir = tempfile::tempdir().unwrap();
    closed_store(&dir.path().join("longer"), 20);
    closed_store(&dir.path().join("shorter"), 12);
    fs::copy(dir.path().join("longer/synced"), dir.path().join("shorter/synced")).unwrap();
    let error = refused(&dir.path().join("shorter"));
    assert_eq!(error.code(), ErrorCode::StorageCorrupt);
    assert!(error.to_string().contains("commits 13 to 20 are missing"), "{error}");
}

#[test]
fn a_torn_bound_falls_back_to_the_other_slot_and_two_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    closed_store(dir.path(), 5);
    drop(open(dir.path(), &RocksOptions::default()));
    let path = dir.path().join("synced");
    let whole = fs::read(&path).unwrap();
    assert_eq!(whole.len(), 8192);
    for at in [0, 4096] {
        for byte in [0, 5, 8, 15] {
            let mut torn = whole.clone();
            torn[at + byte] ^= 0x10;
            fs::write(&path, &torn).unwrap();
            assert_eq!(open(dir.path(), &RocksOptions::default()).applied(), CommitIndex(5));
        }
    }
    let mut torn = whole;
    torn[8] ^= 1;
    torn[4096 + 8] ^= 1;
    fs::write(&path, &torn).unwrap();
    let error = refused(dir.path());
    assert_eq!(error.code(), ErrorCode::StorageCorrupt);
    assert!(error.to_string().contains("neither slot"), "{error}");
    fs::remove_file(&path).unwrap();
    assert_eq!(open(dir.path(), &RocksOptions::default()).applied(), CommitIndex(5));
}

#[test]
fn the_bound_follows_the_syncs_by_the_commits_own_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &RocksOptions::default());
    let read = || fs::read(dir.path().join("synced")).unwrap();
    let mut seen = read();
    for (index, time, written) in
        [(1, 0, false), (2, 999, false), (3, 1000, true), (4, 1500, false), (5, 2000, true)]
    {
        store.apply(&Commit { time: Timestamp(time), ..commit(index, 10) }).unwrap();
        assert_eq!(read(), seen, "an apply writes no bound");
        store.sync().unwrap();
        assert_eq!(read() != seen, written, "commit {index} at {time} ms");
        seen = read();
    }
    // A clock that is set back must not stop it.
    store.apply(&Commit { time: Timestamp(0), ..commit(6, 10) }).unwrap();
    store.sync().unwrap();
    assert_ne!(read(), seen);
}

#[test]
fn a_flipped_bit_in_a_file_is_noticed_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &RocksOptions::default());
    store.apply(&commit(1, 100_000)).unwrap();
    store.close().unwrap();
    let blobs = files(dir.path(), ".blob");
    let [blob] = &blobs[..] else { panic!("one large value makes one blob file, not {blobs:?}") };
    let mut bytes = fs::read(blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(blob, bytes).unwrap();
    let store = open(dir.path(), &RocksOptions::default());
    let key = 1u64.to_be_bytes();
    for error in [
        store.get(Family::Log, &key).unwrap_err(),
        store.scan(Family::Log, &key, &[0xff], crate::ScanLimit::NONE).unwrap_err(),
        store.last_before(Family::Log, &key, &[0xff]).unwrap_err(),
    ] {
        assert_eq!(error.code(), ErrorCode::StorageCorrupt, "{error}");
    }
}
