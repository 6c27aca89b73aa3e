//! Files of a data directory that are damaged after `kill -9`: the next start serves everything, or it is refused, says
//! what is damaged, and has changed nothing.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::support::{
    events::{self, partitions},
    guests,
    process::{Process, Ran, command, run},
};

const EVENTS: u64 = 400;
/// An event of this size is in a blob file once it was flushed.
const LARGE: usize = 6_000;

/// The files of a data directory, by their paths.
fn read(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = fs::read(&path).unwrap();
                files.insert(path, bytes);
            }
        }
    }
    files
}

/// The files of the database whose paths end so, in the order of their numbers.
fn database(data: &Path, suffix: &str) -> Vec<PathBuf> {
    let files = read(&data.join("db")).into_keys();
    files.filter(|path| path.to_string_lossy().ends_with(suffix)).collect()
}

/// The newest file of the write-ahead log with events, and where its last one lies.
fn log(data: &Path) -> (PathBuf, usize) {
    let is_filler = |window: &[u8]| window.iter().all(|byte| *byte == b'.');
    let end = |path: PathBuf| {
        let bytes = fs::read(&path).unwrap();
        let block = bytes.chunks(64).rposition(is_filler)?;
        Some((path, block * 64))
    };
    database(data, ".log").into_iter().rev().find_map(end).expect("a log file holds events")
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 4;
    fs::write(path, bytes).unwrap();
}

/// A start that is refused as damaged and leaves every byte as it was; what it says.
async fn refused(data: &Path) -> String {
    let before = read(data);
    let mut serve = command();
    serve.arg("serve").arg("--data-dir").arg(data).args(["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    // One that starts all the same ends at once.
    serve.arg("--until-stdin-closes");
    let ran: Ran = run(serve, "").await;
    assert_eq!(ran.code, 1, "{ran:?}");
    let now = read(data);
    let all = before.keys().chain(now.keys());
    let changed: Vec<_> = all.filter(|path| before.get(*path) != now.get(*path)).collect();
    assert!(changed.is_empty(), "{changed:?} changed: {ran:?}");
    let lines = ran.stderr.lines().filter(|line| line.starts_with("error: ") || line.starts_with("hint: "));
    lines.collect::<Vec<_>>().join("\n")
}

/// Publishes events from `first` on, each acknowledged before the next ones.
async fn publish(engine: &Process, topic: &str, first: u64, count: u64, len: usize) {
    let client = engine.connect().await;
    for chunk in (first..first + count).collect::<Vec<_>>().chunks(20) {
        let event = |number: &u64| events::numbered(*number).with_header("filler", vec![b'.'; len]);
        events::publish(&client, topic, chunk.iter().map(event)).await;
    }
}

/// Everything that the topic holds, as numbers.
async fn numbers(engine: &Process, topic: &str) -> Vec<u64> {
    let read = engine.run(&["read", topic, "--output", "json"], "").await.json();
    let number = |event: &serde_json::Value| match &event["payload"] {
        serde_json::Value::Number(number) => number.as_u64().unwrap(),
        other => panic!("{other} is no number"),
    };
    let mut numbers: Vec<_> = read.iter().map(number).collect();
    numbers.sort_unstable();
    numbers
}

/// An engine that was stopped once, has stored more since, and was killed.
async fn killed() -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let engine = Process::start(&data).await;
    let client = engine.connect().await;
    client.create_topic("orders", partitions(2)).await.unwrap();
    publish(&engine, "orders", 0, EVENTS / 2, LARGE).await;
    engine.stop().await;
    let engine = Process::start(&data).await;
    publish(&engine, "orders", EVENTS / 2, EVENTS / 2, LARGE).await;
    engine.kill().await;
    (dir, data)
}

async fn assert_all_is_served(data: &Path) {
    let engine = Process::start(data).await;
    assert_eq!(numbers(&engine, "orders").await, (0..EVENTS).collect::<Vec<_>>());
    engine.stop().await;
}

#[tokio::test]
async fn a_manifest_cut_early_is_refused_and_putting_it_back_helps() {
    let (_dir, data) = killed().await;
    let name = fs::read_to_string(data.join("db/CURRENT")).unwrap();
    let manifest = data.join("db").join(name.trim_end());
    let whole = fs::read(&manifest).unwrap();
    // What the last quarter of a second has added is not known yet.
    for cut in [0, 20, 195, 226, 243, whole.len() / 2] {
        fs::write(&manifest, &whole[..cut]).unwrap();
        let said = refused(&data).await;
        assert!(said.starts_with("error: STORAGE_CORRUPT: ") && said.contains(name.trim_end()), "{said}");
    }
    fs::write(&manifest, whole).unwrap();
    assert_all_is_served(&data).await;
}

#[tokio::test]
async fn files_that_were_moved_away_and_put_back_are_all_there() {
    let (dir, data) = killed().await;
    let aside = dir.path().join("aside");
    fs::create_dir(&aside).unwrap();
    let rows = [database(&data, ".sst"), database(&data, ".blob")].concat();
    let moved: Vec<_> = rows.into_iter().step_by(2).collect();
    assert!(moved.len() > 1, "{moved:?}");
    let away = |path: &Path| aside.join(path.file_name().unwrap());
    moved.iter().for_each(|path| fs::rename(path, away(path)).unwrap());
    for _ in 0..2 {
        let said = refused(&data).await;
        let is_named = moved.iter().any(|path| said.contains(path.file_name().unwrap().to_str().unwrap()));
        assert!(said.starts_with("error: STORAGE_CORRUPT: ") && is_named, "{said}");
    }
    moved.iter().for_each(|path| fs::rename(away(path), path).unwrap());
    assert_all_is_served(&data).await;
}

#[tokio::test]
async fn a_flipped_bit_amid_acknowledged_events_is_refused_with_its_place() {
    let (_dir, data) = killed().await;
    let (log, end) = log(&data);
    let whole = fs::read(&log).unwrap();
    for part in 2..8 {
        flip(&log, end / 9 * part);
        let said = refused(&data).await;
        let expected =
            ["error: STORAGE_CORRUPT: ", log.file_name().unwrap().to_str().unwrap(), "commits ", "bytes "];
        assert!(expected.iter().all(|expected| said.contains(expected)), "{said}");
        assert!(said.contains("topic orders partition ") && said.contains("from offset "), "{said}");
        fs::write(&log, &whole).unwrap();
    }
    assert_all_is_served(&data).await;
}

#[tokio::test]
async fn an_operator_may_accept_a_loss_and_it_is_for_one_start() {
    let (_dir, data) = killed().await;
    let (log, end) = log(&data);
    flip(&log, end / 2);
    let said = refused(&data).await;
    assert!(said.contains("accept-loss"), "{said}");
    fs::write(data.join("accept-loss"), "").unwrap();
    let engine = Process::start(&data).await;
    let left = numbers(&engine, "orders").await;
    assert!(left.len() as u64 >= EVENTS / 2 && (left.len() as u64) < EVENTS, "{} are left", left.len());
    assert!(!data.join("accept-loss").exists());
    engine.kill().await;
    let engine = Process::start(&data).await;
    assert_eq!(numbers(&engine, "orders").await, left);
}

#[tokio::test]
async fn a_damaged_event_is_named_and_those_before_it_are_served() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let engine = Process::start(&data).await;
    events::topic(&engine.connect().await, "orders").await;
    // Longer than what a start reads of a partition's end.
    publish(&engine, "orders", 0, 1_600, LARGE).await;
    engine.stop().await;
    let blob = database(&data, ".blob").into_iter().next().unwrap();
    flip(&blob, usize::try_from(fs::metadata(&blob).unwrap().len()).unwrap() / 4);
    let engine = Process::start(&data).await;
    let read = engine.run(&["read", "orders", "--output", "json"], "").await;
    assert_eq!(read.code, 1, "{}", read.stderr);
    let served = read.stdout.lines().count();
    assert!(served > 100 && served < 1_000, "{served} events are served");
    let place = format!("topic orders partition 0: the events from offset {served} on are damaged");
    assert!(read.stderr.contains("STORAGE_CORRUPT") && read.stderr.contains(&place), "{}", read.stderr);
}

#[tokio::test]
async fn damage_beside_the_database_is_named_before_anything_is_written() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let engine = Process::start(&data).await;
    guests::deploy(&engine.connect().await, "sample", "plugins/sample").await;
    engine.stop().await;
    let artefacts = read(&data.join("artefacts"));
    let (artefact, whole) = artefacts.first_key_value().unwrap();
    for damage in [&b""[..], &whole[..whole.len() / 2]] {
        fs::write(artefact, damage).unwrap();
        let said = refused(&data).await;
        assert!(said.contains("plugin sample@1") && said.contains(artefact.to_str().unwrap()), "{said}");
    }
    fs::remove_file(artefact).unwrap();
    assert!(refused(&data).await.contains("is missing"));
    fs::write(artefact, whole).unwrap();
    for name in ["ca.pem", "ca.key", "server.pem", "server.key", "reset.key"] {
        let path = data.join("tls").join(name);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let said = refused(&data).await;
        assert!(said.starts_with("error: TLS_FAILED: ") && said.contains(path.to_str().unwrap()), "{said}");
        assert!(said.contains("put the file back, or remove") && !said.contains("--ca"), "{said}");
        fs::write(&path, whole).unwrap();
    }
    // The compiled form of a plugin is only a cache, and a component that nothing names is nobody's to delete.
    for (path, bytes) in read(&data.join("plugin-cache")) {
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    }
    fs::write(data.join("artefacts").join("ab".repeat(32)), "unnamed").unwrap();
    Process::start(&data).await.stop().await;
    assert!(data.join("artefacts").join("ab".repeat(32)).exists());
}

#[tokio::test]
async fn the_very_last_commit_is_known_to_have_been_durable() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let engine = Process::start(&data).await;
    events::topic(&engine.connect().await, "orders").await;
    publish(&engine, "orders", 0, 1, 500).await;
    // At once, with nothing behind the commit to prove it.
    engine.kill().await;
    let (log, at) = log(&data);
    flip(&log, at);
    let said = refused(&data).await;
    assert!(said.contains("topic orders partition 0 from offset 0 on"), "{said}");
}
