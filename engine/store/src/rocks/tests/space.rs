//! Deleted ranges give their space back to the file system.

use levada_protocol::ids::{Offset, PartitionId, TopicId};

use super::*;
use crate::{
    Deleted, ScanLimit, StoreStats,
    record::{LogKey, LogRange},
};

const MIB: u64 = 1024 * 1024;

fn size(dir: &Path) -> u64 {
    [".blob", ".sst"]
        .iter()
        .flat_map(|suffix| files(dir, suffix))
        .map(|file| fs::metadata(file).unwrap().len())
        .sum()
}

/// Appends values of 64 KiB in turn to the topics given, 1 MiB a commit.
fn fill(store: &RocksStore, topics: &[u32], mib: u64) {
    for step in 0..mib {
        let index = store.applied().0 + 1;
        let ops = (0..16).map(|row| {
            let topic = TopicId(topics[usize::try_from(row).unwrap() % topics.len()]);
            let key = LogKey { topic, partition: PartitionId(0), base: Offset(step * 16 + row) };
            let value = Bytes::from(vec![u8::try_from(step % 251).unwrap(); 64 * 1024]);
            Op::Put { family: Family::Log, key: Bytes::copy_from_slice(&key.encode()), value }
        });
        store.apply(&after(store, Commit { ops: ops.collect(), ..commit(index, 0) })).unwrap();
    }
}

fn delete(store: &RocksStore, range: &LogRange) {
    let index = store.applied().0 + 1;
    let op = Op::DeleteRange { family: Family::Log, from: range.from.clone(), to: range.to.clone() };
    store.apply(&after(store, Commit { ops: vec![op], ..commit(index, 0) })).unwrap();
}

/// Deletes all of a topic and gives its space back.
fn delete_topic(store: &RocksStore, topic: u32) -> StoreStats {
    let range = LogRange::topic(TopicId(topic));
    delete(store, &range);
    store.compact(Family::Log, &range.from, &range.to, Deleted::All).unwrap();
    store.stats()
}

#[test]
fn retention_gives_the_space_back_without_writing_what_stays() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = RocksOptions::default();
    options.log.memtable_bytes = 16 << 20;
    let store = open(dir.path(), &options);
    fill(&store, &[7], 200);
    let range = LogRange::offsets(TopicId(7), PartitionId(0), Offset(0), Offset(180 * 16));
    delete(&store, &range);
    let before = size(dir.path());
    assert!(before > 150 * MIB, "{} MiB are in files", before / MIB);
    store.compact(Family::Log, &range.from, &range.to, Deleted::All).unwrap();
    let after = size(dir.path());
    assert!(after < 50 * MIB, "{} MiB are left of {} MiB, 20 are alive", after / MIB, before / MIB);
    let stats = store.stats();
    assert!(stats.log_bytes <= after, "{stats:?}");
    assert!(stats.compaction_bytes < 20 * MIB, "{stats:?}");
    assert!(stats.flush_bytes > 150 * MIB && stats.wal_bytes > 200 * MIB, "{stats:?}");
    let whole = LogRange::topic(TopicId(7));
    let rows = store.scan(Family::Log, &whole.from, &whole.to, ScanLimit::NONE).unwrap();
    assert_eq!(rows.len(), 20 * 16);
}

#[test]
fn a_deleted_topic_gives_space_back_from_files_that_it_shared() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = RocksOptions::default();
    options.log.memtable_bytes = 2 << 20;
    let store = open(dir.path(), &options);
    fill(&store, &[1, 2, 1, 1], 64);
    let stats = delete_topic(&store, 1);
    assert!(stats.log_bytes < 40 * MIB, "16 MiB are alive: {stats:?}");
    assert!(stats.compaction_bytes <= 24 * MIB, "what stays is moved once: {stats:?}");
    let kept = LogRange::topic(TopicId(2));
    assert_eq!(store.scan(Family::Log, &kept.from, &kept.to, ScanLimit::NONE).unwrap().len(), 64 * 4);
}

#[test]
fn a_deleted_topic_gives_space_back_from_the_only_file_there_is() {
    for files in [1, 2] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), &RocksOptions::default());
        for _ in 0..files {
            fill(&store, &[1, 2, 1, 1], 8);
            store.flush().unwrap();
        }
        let stats = delete_topic(&store, 1);
        assert!(stats.log_garbage_bytes * 2 <= stats.log_bytes, "of {files} files: {stats:?}");
    }
}

#[test]
fn space_comes_back_from_behind_files_that_are_wholly_alive() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &RocksOptions::default());
    fill(&store, &[2], 8);
    store.flush().unwrap();
    fill(&store, &[1, 1, 1, 3], 16);
    store.flush().unwrap();
    let stats = delete_topic(&store, 1);
    assert!(stats.log_garbage_bytes * 2 <= stats.log_bytes, "{stats:?}");
    assert!(stats.compaction_bytes <= 14 * MIB, "12 MiB are alive: {stats:?}");
}

#[test]
fn ordinary_compactions_do_not_move_large_values() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = RocksOptions::default();
    options.log.memtable_bytes = 2 << 20;
    let store = open(dir.path(), &options);
    fill(&store, &[1, 2, 3, 4], 64);
    store.compact(Family::Log, &[], &[0xff], Deleted::Some).unwrap();
    let stats = store.stats();
    assert!(stats.compaction_bytes < MIB, "{stats:?}");
    assert!(stats.log_bytes >= 60 * MIB && stats.log_garbage_bytes == 0, "{stats:?}");
}

/// Appends rows of 1 KiB, which lie beside their keys, 64 a commit.
fn fill_small(store: &RocksStore, topic: u32, mib: u64) {
    for step in 0..mib * 16 {
        let index = store.applied().0 + 1;
        let ops = (0..64).map(|row| {
            let base = Offset(step * 64 + row);
            let key = LogKey { topic: TopicId(topic), partition: PartitionId(0), base };
            let value = Bytes::from(vec![7; 1024]);
            Op::Put { family: Family::Log, key: Bytes::copy_from_slice(&key.encode()), value }
        });
        store.apply(&after(store, Commit { ops: ops.collect(), ..commit(index, 0) })).unwrap();
    }
}

#[test]
fn files_of_deleted_rows_alone_go_without_a_byte_being_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = RocksOptions::default();
    options.log.memtable_bytes = 1 << 20;
    let store = open(dir.path(), &options);
    for topic in 1..=3 {
        fill_small(&store, topic, 8);
    }
    // Nothing is left at level 0.
    store.compact(Family::Log, &[], &[0xff], Deleted::Some).unwrap();
    let (before, written) = (size(dir.path()), store.stats().compaction_bytes);
    let kept = 100;
    let range = LogRange::offsets(TopicId(2), PartitionId(0), Offset(0), Offset(8 * 1024 - kept));
    delete(&store, &range);
    store
        .with(|database| {
            super::super::space::drop_whole_files(database.rocks(), Family::Log, &range.from, &range.to)
        })
        .unwrap();
    let after = size(dir.path());
    // The files at both ends hold rows of others too.
    assert!(before - after >= 2 * MIB, "{} KiB of 8 MiB are back", (before - after) / 1024);
    assert_eq!(store.stats().compaction_bytes, written);
    for (topic, rows) in [(1, 8 * 1024), (2, kept), (3, 8 * 1024)] {
        let whole = LogRange::topic(TopicId(topic));
        let found = store.scan(Family::Log, &whole.from, &whole.to, ScanLimit::NONE).unwrap().len();
        assert_eq!(found as u64, rows, "topic {topic}");
    }
}
