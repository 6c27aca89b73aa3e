//! Every file of a data directory, damaged in every way: a store opens and serves everything, or it names the file and
//! has changed nothing.

use std::{
    collections::BTreeMap,
    panic::{self, AssertUnwindSafe},
};

use levada_protocol::{
    batch::{BatchBuilder, Stamp},
    error::ErrorCode,
    event::Event,
    ids::{Offset, PartitionId, TopicId},
};

use super::{
    super::{
        manifest::Manifest,
        superblock::{self, Found, Known, Superblock},
    },
    *,
};
use crate::{
    Error,
    record::{self, LogKey},
};

const COMMITS: u64 = 60;
const PARTITIONS: u64 = 2;
/// The files of the whole data directory, by their paths in it.
type Files = BTreeMap<PathBuf, Vec<u8>>;

fn options() -> RocksOptions {
    let mut options =
        RocksOptions { wal_bytes_prepared: 0, wal_files_recycled: 2, ..RocksOptions::default() };
    (options.log.memtable_bytes, options.small_memtable_bytes, options.wal_bytes_max) =
        (1 << 17, 1 << 16, 1 << 18);
    options
}

fn key(index: u64) -> Bytes {
    let (partition, base) = (index % PARTITIONS, Offset(index / PARTITIONS));
    let partition = PartitionId(u16::try_from(partition).unwrap());
    Bytes::copy_from_slice(&LogKey { topic: TopicId(7), partition, base }.encode())
}

/// A commit with one event, and a row of another family that is as long.
fn events(index: u64) -> Commit {
    let mut payload = marker(index);
    payload.resize([50, 3_000, 9_000][usize::try_from(index % 3).unwrap()], b'.');
    let mut batch = BatchBuilder::new();
    batch.push(&Event { payload: Some(payload.clone().into()), ..Event::default() }).unwrap();
    let batch = batch.finish(Stamp::ENGINE);
    let log_key = LogKey::decode(&key(index)).unwrap();
    let (append_time, commit_index) = (Timestamp(1), CommitIndex(index));
    let prefix = record::Prefix { hops: 0, append_time, commit_index, bytes_before: 0, span: 1 };
    let value = record::encode(&log_key, &prefix, &[&batch]);
    let side = Bytes::copy_from_slice(&index.to_be_bytes());
    let ops = vec![
        Op::Put { family: Family::Log, key: key(index), value },
        Op::Put { family: Family::Side, key: side, value: payload.into() },
    ];
    Commit { ops, ..commit(index, 0) }
}

/// A directory as a kill of its engine leaves it, and as it was some time before.
struct Scene {
    now: Files,
    before: Files,
}

impl Scene {
    fn new() -> Self {
        let dir = folder();
        let data = dir.path().join("data");
        let mut before = None;
        // The second half has another manifest.
        for (first, last) in [(1, COMMITS / 2), (COMMITS / 2 + 1, COMMITS)] {
            let store = open(&data, &options());
            for index in first..=last {
                store.apply(&after(&store, events(index))).unwrap();
                store.sync().unwrap();
                if index == COMMITS / 4 {
                    before = Some(read(&data));
                }
            }
            if last < COMMITS {
                store.close().unwrap();
                continue;
            }
            // What a flush adds to the manifest is noted by then.
            wait_for(&data, &store);
            let now = read(&data);
            let count = |kind: &str| now.keys().filter(|path| path.to_string_lossy().ends_with(kind)).count();
            assert!(count(".sst") > 3 && count(".blob") > 1 && count(".log") > 0, "{:?}", now.keys());
            return Self { now, before: before.unwrap() };
        }
        unreachable!("the last half answers")
    }
}

/// A folder in memory, where there is one: these tests sync a lot and need none of it.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Waits until nothing is flushed any more and the superblock says so.
fn wait_for(data: &Path, store: &RocksStore) {
    let is_noted = || {
        let Found::Known(known) = superblock::read(data).unwrap() else { return false };
        Manifest::find(&data.join("db")) == Some(Manifest { number: known.manifest, len: known.manifest_len })
    };
    let pause = || std::thread::sleep(std::time::Duration::from_millis(10));
    let flushed = || store.stats().flush_bytes;
    for _ in 0..1_000 {
        let before = flushed();
        (0..30).for_each(|_| pause());
        if flushed() == before && is_noted() {
            return;
        }
    }
    panic!("the manifest is noted within a second")
}

fn read(dir: &Path) -> Files {
    let mut files = Files::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(bytes) = fs::read(&path) {
                // The ballast is all zeros and only in the way.
                let bytes = if path.ends_with("ballast") { bytes[..4096].to_vec() } else { bytes };
                files.insert(path.strip_prefix(dir).unwrap().to_owned(), bytes);
            }
        }
    }
    files
}

fn write(dir: &Path, files: &Files) {
    fs::create_dir_all(dir.join("db")).unwrap();
    for (path, bytes) in files {
        fs::write(dir.join(path), bytes).unwrap();
    }
}

/// What an open came to.
#[derive(Debug)]
enum Outcome {
    Served,
    /// Opened, and the damaged events are named when they are read.
    NamedWhenRead,
    Refused(Error),
}

/// Opens a directory with these files and checks what must hold.
fn try_open(files: &Files, what: &str) -> Outcome {
    let dir = folder();
    let data = dir.path().join("data");
    write(&data, files);
    let store = match RocksStore::open(&data, options()) {
        Ok(store) => store,
        Err(error) => {
            let now = read(&data);
            let all = files.keys().chain(now.keys());
            let differ: Vec<_> = all.filter(|path| files.get(*path) != now.get(*path)).collect();
            assert!(differ.is_empty(), "{what}: refused with {error}, but {differ:?} changed");
            return Outcome::Refused(error);
        }
    };
    assert_eq!(store.applied(), CommitIndex(COMMITS), "{what}: commits are gone without a word");
    let mut outcome = Outcome::Served;
    for index in 1..=COMMITS {
        let side = store.get(Family::Side, &index.to_be_bytes()).unwrap();
        assert!(side.is_some_and(|value| value.starts_with(&marker(index))), "{what}: row {index}");
        match store.get(Family::Log, &key(index)) {
            Ok(Some(value)) => {
                let record = record::check(&key(index), value).unwrap();
                record.batches().for_each(|batch| drop(batch.unwrap()));
            }
            Ok(None) => panic!("{what}: event {index} is gone without a word"),
            Err(Error::Events { at, .. }) => {
                assert_eq!(at.encode()[..], key(index)[..], "{what}");
                outcome = Outcome::NamedWhenRead;
            }
            Err(error) => panic!("{what}: event {index}: {error}"),
        }
    }
    outcome
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % end.max(1)
    }
}

/// Damages one file, and returns in which way.
fn damage(files: &mut Files, path: &Path, kind: usize, rng: &mut Rng) -> String {
    let bytes = files.get_mut(path).unwrap();
    let what = match kind {
        0 => {
            let len = rng.below(bytes.len());
            bytes.truncate(len);
            format!("cut at {len}")
        }
        1 if !bytes.is_empty() => {
            let (at, bit) = (rng.below(bytes.len()), rng.below(8));
            bytes[at] ^= 1 << bit;
            format!("bit {bit} of byte {at} flipped")
        }
        2 => {
            let from = rng.below(bytes.len().div_ceil(4096)) * 4096;
            let to = bytes.len().min(from + 4096);
            bytes[from..to].fill(0);
            format!("zeros from {from} to {to}")
        }
        _ => {
            files.remove(path);
            "removed".to_owned()
        }
    };
    format!("{} {what}", path.display())
}

#[test]
fn every_file_damaged_in_every_way_is_served_whole_or_refused_by_name() {
    let scene = Scene::new();
    let mut counts = BTreeMap::<&str, u64>::new();
    let paths: Vec<_> = scene.now.keys().cloned().collect();
    let mut failed = Vec::new();
    for (seed, path) in (1..).zip(paths.iter().cycle().take(paths.len().max(64) * 4)) {
        let mut rng = Rng(u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15));
        let mut files = scene.now.clone();
        let turn = usize::try_from(seed - 1).unwrap() / paths.len();
        let what = format!("seed {seed}: {}", damage(&mut files, path, turn % 4, &mut rng));
        let tried = panic::catch_unwind(AssertUnwindSafe(|| {
            let outcome = try_open(&files, &what);
            if let Outcome::Refused(error) = &outcome {
                let codes = [ErrorCode::StorageCorrupt, ErrorCode::StorageNewer];
                assert!(codes.contains(&error.code()), "{what}: {error}");
                let name = path.file_name().unwrap().to_string_lossy();
                let text = error.to_string();
                // Of a log file that is gone the one before it tells.
                let is_gone = what.ends_with("removed")
                    && name.ends_with(".log")
                    && text.contains("log file is missing")
                    || text.contains("log file after it is missing");
                assert!(text.contains(&*name) || is_gone, "{what}: {text}");
            }
            outcome
        }));
        match tried {
            Ok(Outcome::Served) => *counts.entry("served").or_default() += 1,
            Ok(Outcome::NamedWhenRead) => *counts.entry("named when read").or_default() += 1,
            Ok(Outcome::Refused(_)) => *counts.entry("refused").or_default() += 1,
            Err(_) => failed.push(what),
        }
    }
    assert!(failed.is_empty(), "{failed:#?}, others: {counts:?}");
    assert!(counts.len() == 3, "{counts:?}");
}

#[test]
fn a_directory_restored_in_part_is_served_whole_or_refused() {
    let scene = Scene::new();
    for seed in 1..=80 {
        let mut rng = Rng(u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15));
        let mut files = scene.now.clone();
        let restored: Vec<_> = scene.before.iter().filter(|_| rng.below(2) == 0).collect();
        let what = format!(
            "seed {seed}: {:?} from before",
            restored.iter().map(|(path, _)| path).collect::<Vec<_>>()
        );
        files.extend(restored.into_iter().map(|(path, bytes)| (path.clone(), bytes.clone())));
        if let Outcome::Refused(error) = try_open(&files, &what) {
            assert_eq!(error.code(), ErrorCode::StorageCorrupt, "{what}: {error}");
        }
    }
}

#[test]
fn a_manifest_cut_anywhere_is_refused_and_nothing_is_changed() {
    let scene = Scene::new();
    let manifest = |path: &&PathBuf| path.to_string_lossy().contains("MANIFEST-");
    let path = scene.now.keys().rfind(manifest).unwrap().clone();
    let len = scene.now[&path].len();
    for cut in (0..len).step_by(len.div_ceil(60)).chain([195.min(len - 1), 226.min(len - 1), len - 1]) {
        let mut files = scene.now.clone();
        files.get_mut(&path).unwrap().truncate(cut);
        let outcome = try_open(&files, &format!("manifest cut at {cut}"));
        let Outcome::Refused(error) = outcome else { panic!("cut at {cut}: {outcome:?}") };
        assert!(error.to_string().contains("MANIFEST-"), "{error}");
    }
}

#[test]
fn files_moved_away_and_put_back_after_a_refused_start_are_all_there() {
    let scene = Scene::new();
    let dir = folder();
    let (data, aside) = (dir.path().join("data"), dir.path().join("aside"));
    write(&data, &scene.now);
    fs::create_dir(&aside).unwrap();
    let mut moved = files(&data, ".sst");
    moved.extend(files(&data, ".blob"));
    let moved: Vec<_> = moved.into_iter().step_by(2).collect();
    for path in &moved {
        fs::rename(path, aside.join(path.file_name().unwrap())).unwrap();
    }
    for _ in 0..2 {
        let error = RocksStore::open(&data, options()).err().expect("files are missing");
        assert_eq!(error.code(), ErrorCode::StorageCorrupt, "{error}");
    }
    for path in &moved {
        fs::rename(aside.join(path.file_name().unwrap()), path).unwrap();
    }
    assert!(matches!(try_open(&read(&data), "put back"), Outcome::Served));
}

#[test]
fn a_flipped_bit_amid_durable_commits_names_log_file_commits_and_events() {
    let dir = folder();
    let data = dir.path().join("data");
    let store = open(&data, &RocksOptions { wal_bytes_prepared: 0, ..RocksOptions::default() });
    for index in 1..=COMMITS {
        store.apply(&after(&store, events(index))).unwrap();
        store.sync().unwrap();
    }
    let mut files = read(&data);
    drop(store);
    let log = files.keys().rfind(|path| path.to_string_lossy().ends_with(".log")).unwrap().clone();
    let bytes = files.get_mut(&log).unwrap();
    let hit = marker(COMMITS / 2);
    let at = bytes.windows(hit.len()).position(|window| window == hit).unwrap();
    bytes[at] ^= 1;
    let Outcome::Refused(error) = try_open(&files, "a bit flipped") else { panic!("commits are missing") };
    let text = error.to_string();
    let (first, partition) = (COMMITS / 2 / PARTITIONS, COMMITS / 2 % PARTITIONS);
    let expected = [
        format!("commits {} to {COMMITS} are missing", COMMITS / 2),
        format!("{} is damaged between bytes", log.file_name().unwrap().display()),
        format!("topic number 7 partition {partition} from offset {first} on"),
    ];
    for expected in expected {
        assert!(text.contains(&expected), "{expected}: {text}");
    }
    // Without the superblock the commits behind the damage prove as much.
    let restored = dir.path().join("restored");
    write(&restored, &files);
    let Ok(Found::Known(known)) = superblock::read(&restored) else { panic!("there is a superblock") };
    let earlier = Known { durable: CommitIndex(0), ..known };
    Superblock::open(&restored, known).unwrap().write(earlier).unwrap();
    let error = RocksStore::open(&restored, options()).err().expect("commits are missing");
    assert!(error.to_string().contains(&format!("commits {} to {}", COMMITS / 2, COMMITS - 1)), "{error}");
    // An operator may go on without them.
    fs::write(restored.join("accept-loss"), "").unwrap();
    let store = open(&restored, &options());
    assert_eq!(store.applied(), CommitIndex(COMMITS / 2 - 1));
    let killed = dir.path().join("killed");
    write(&killed, &read(&restored));
    assert_eq!(open(&killed, &options()).applied(), store.applied(), "it is accepted for good");
    store.apply(&after(&store, events(COMMITS / 2))).unwrap();
    store.close().unwrap();
    assert_eq!(open(&restored, &options()).applied(), CommitIndex(COMMITS / 2));
}
