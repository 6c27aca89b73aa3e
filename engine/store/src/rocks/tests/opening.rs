//! What an open accepts, and what it refuses with which words.

use levada_protocol::error::ErrorCode;

use super::{
    super::{
        superblock::{self, Found, Known, Superblock},
        survey,
        view::Uninspected,
    },
    *,
};
use crate::Error;

fn refused(dir: &Path) -> Error {
    RocksStore::open(dir, RocksOptions::default()).err().expect("the open is refused")
}

/// A closed store with `count` commits, all durable.
fn closed_store(dir: &Path, count: u64) {
    let store = open(dir, &RocksOptions::default());
    for index in 1..=count {
        store.apply(&after(&store, commit(index, 100))).unwrap();
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
    store.apply(&after(&store, commit(1, 10))).unwrap();
    store.close().unwrap();
    assert_eq!(open(dir.path(), &RocksOptions::default()).applied(), CommitIndex(1));
}

#[test]
fn a_directory_of_a_newer_or_an_older_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    closed_store(dir.path(), 1);
    let path = dir.path().join("format");
    assert_eq!(fs::read_to_string(&path).unwrap(), "levada data format 3\n");
    fs::write(&path, "levada data format 4\n").unwrap();
    let error = refused(dir.path());
    assert!(matches!(error, Error::Newer { found: 4, supported: 3, .. }), "{error}");
    assert_eq!(error.code(), ErrorCode::StorageNewer);
    for older in [1, 2] {
        fs::write(&path, format!("levada data format {older}\n")).unwrap();
        let error = refused(dir.path());
        assert_eq!(error.code(), ErrorCode::StorageOlder);
        let said = format!(
            "has format {older}, this release reads formats from 3 on; there is no migration: open it with the build that"
        );
        assert!(error.to_string().contains(&said), "{error}");
    }
    fs::write(&path, "levada data format 3\n").unwrap();
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

/// Writes another superblock than the one that is true.
fn note(dir: &Path, change: impl FnOnce(&mut Known)) {
    let Ok(Found::Known(mut known)) = superblock::read(dir) else { panic!("there is a superblock") };
    let mut file = Superblock::open(dir, known).unwrap();
    change(&mut known);
    file.write(known).unwrap();
}

#[test]
fn commits_missing_below_the_bound_are_named() {
    let dir = tempfile::tempdir().unwrap();
    closed_store(dir.path(), 12);
    note(dir.path(), |known| known.durable = CommitIndex(20));
    let error = refused(dir.path());
    assert_eq!(error.code(), ErrorCode::StorageCorrupt);
    assert!(error.to_string().contains("commits 13 to 20 are missing"), "{error}");
}

#[test]
fn a_manifest_that_is_older_or_shorter_than_it_was_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    closed_store(dir.path(), 12);
    let Ok(Found::Known(known)) = superblock::read(dir.path()) else { panic!("there is a superblock") };
    note(dir.path(), |known| known.manifest_len += 1);
    let error = refused(dir.path()).to_string();
    assert!(error.contains(&format!("MANIFEST-{:06} is whole up to byte", known.manifest)), "{error}");
    note(dir.path(), |known| known.manifest += 1);
    let error = refused(dir.path()).to_string();
    assert!(error.contains("CURRENT names manifest"), "{error}");
    note(dir.path(), |later| *later = known);
    assert_eq!(open(dir.path(), &RocksOptions::default()).applied(), CommitIndex(12));
}

#[test]
fn a_torn_superblock_falls_back_to_the_other_slot_and_two_are_refused_until_a_loss_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    closed_store(dir.path(), 5);
    drop(open(dir.path(), &RocksOptions::default()));
    let path = dir.path().join("superblock");
    let whole = fs::read(&path).unwrap();
    assert_eq!(whole.len(), 8192);
    for at in [0, 4096] {
        for byte in [0, 5, 8, 15, 63] {
            let mut torn = whole.clone();
            torn[at + byte] ^= 0x10;
            fs::write(&path, &torn).unwrap();
            assert!(survey::survey(dir.path(), &RocksOptions::default(), &Uninspected).is_ok());
        }
    }
    let mut torn = whole;
    torn[8] ^= 1;
    torn[4096 + 8] ^= 1;
    for damaged in [Some(&torn[..]), Some(&torn[..4096]), Some(&[]), None] {
        match damaged {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let error = refused(dir.path());
        assert_eq!(error.code(), ErrorCode::StorageCorrupt);
        assert!(error.to_string().contains("superblock"), "{error}");
    }
    fs::write(dir.path().join("accept-loss"), "").unwrap();
    drop(open(dir.path(), &RocksOptions::default()));
    assert!(!dir.path().join("accept-loss").exists(), "it is for one start");
    assert_eq!(open(dir.path(), &RocksOptions::default()).applied(), CommitIndex(5));
}

#[test]
fn a_sync_is_noted_before_it_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &RocksOptions::default());
    let durable = || match superblock::read(dir.path()).unwrap() {
        Found::Known(known) => known.durable,
        other => panic!("the superblock is there, and not {other:?}"),
    };
    for index in 1..=5 {
        store.apply(&after(&store, commit(index, 10))).unwrap();
        assert_eq!(durable(), CommitIndex(index - 1), "an apply notes nothing");
        store.sync().unwrap();
        assert_eq!(durable(), CommitIndex(index));
    }
}

#[test]
fn a_database_whose_creation_was_killed_is_created_by_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    Superblock::create(dir.path(), Known::creating()).unwrap();
    fs::create_dir(dir.path().join("db")).unwrap();
    fs::write(dir.path().join("db/MANIFEST-000001"), "half of").unwrap();
    fs::write(dir.path().join("format"), "levada data format 3\n").unwrap();
    let store = open(dir.path(), &RocksOptions::default());
    store.apply(&after(&store, commit(1, 10))).unwrap();
    store.close().unwrap();
    assert_eq!(open(dir.path(), &RocksOptions::default()).applied(), CommitIndex(1));
}

#[test]
fn a_flipped_bit_in_a_file_is_noticed_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &RocksOptions::default());
    store.apply(&after(&store, commit(1, 100_000))).unwrap();
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
