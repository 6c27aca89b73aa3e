//! The data format: what one version has written, later ones open.
//!
//! `tests/fixtures/format-3` is the data directory that [`write`] made with the version that brought format 3: without
//! the reserve file, the keys and RocksDB's own log, which are made anew. To keep what this version writes, as is due
//! whenever the format's number rises, run `LEVADA_KEEP_FIXTURE=1 cargo test --release -p levada-tests -- format::what`.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use levada_client::{
    Client, DeleteOptions, Event, Order, PartitionId, RouteSpec, Start, SubscriptionOptions, Timestamp,
};
use tempfile::TempDir;

use crate::support::{
    engine::{self, Engine},
    events::{self, Got, earliest, header, next, take, topic},
    guests, package, until, within,
};

const DEAD_LETTERS: &str = "dlq.orders.audit";

/// The events of both partitions: with and without each of the optional parts.
fn orders(partition: u16) -> Vec<Event> {
    let event = |number: u64| {
        let event = Event::new(format!("{partition}/{number}")).at(Timestamp(1_700_000_000_000 + number));
        match number % 5 {
            0 => event,
            1 => event.with_key("k").with_header("region", "eu"),
            2 => Event { id: Some(format!("id-{number}").into()), ..event },
            3 => Event { payload: None, ..event.with_key("tombstone") },
            _ => event.with_header("empty", "").with_header("bytes", vec![0, 255]),
        }
    };
    (0..if partition == 0 { 6 } else { 3 }).map(event).collect()
}

/// Brings the rows about that need no artefact: one would be larger than everything else. Their bytes are kept by the tests
/// of `engine/broker/src/rows`.
async fn write(client: &Client) {
    client.create_topic("orders", events::partitions(2)).await.unwrap();
    topic(client, "copies").await;
    topic(client, "gone").await;
    let publisher = events::publisher(client, "orders").await;
    for partition in 0..2 {
        for event in orders(partition) {
            drop(publisher.publish_to(PartitionId(partition), event).await.unwrap());
        }
    }
    within("the flush", publisher.flush()).await.unwrap();
    let options = SubscriptionOptions { order: Some(Order::None), ..SubscriptionOptions::default() };
    let mut subscriber = client.subscribe(earliest("orders", "audit", options)).await.unwrap();
    let settle = |delivery: &levada_client::Delivery| {
        for (offset, event) in delivery.to_events() {
            match (delivery.partition().0, offset.0) {
                (0, 0 | 1 | 3) => delivery.ack_range(offset..=offset),
                (0, 4) => delivery.reject(offset..=offset, "it does not add up"),
                // Stays open: a hole below what is settled, and an untouched end.
                _ => drop(event),
            }
        }
    };
    take(&mut subscriber, 9, settle).await;
    within("the confirmation", subscriber.confirmed()).await.unwrap();
    drop(subscriber);
    let [from, to] = ["orders", "copies"].map(|name| name.parse().unwrap());
    let route = RouteSpec::new("copy".parse().unwrap(), from, [to]);
    client.create_route(RouteSpec { start: Start::Earliest, ..route }).await.unwrap();
    copied(client, 9).await;
    client.delete_topic("gone", DeleteOptions::default()).await.unwrap();
    guests::deploy_hostile(client).await;
    client.remove_plugin("hostile", None).await.unwrap();
}

/// Waits until the route has come to the end, and counts what it has made.
async fn copied(client: &Client, count: usize) {
    let at_the_end = async || (client.list_routes().await.unwrap()[0].lag == 0).then_some(());
    until("the route's end", at_the_end).await;
    let copies = events::read_all(client, "copies").await;
    assert_eq!(copies.values().map(Vec::len).sum::<usize>(), count, "each event is copied once");
}

/// Finds all of it, and goes on from there.
async fn check(client: &Client) {
    let topics: Vec<String> =
        client.list_topics().await.unwrap().into_iter().map(|topic| topic.name.to_string()).collect();
    assert_eq!(topics, ["copies", DEAD_LETTERS, "orders"]);
    let log = events::read_all(client, "orders").await;
    for partition in 0..2 {
        let stored: Vec<(u64, Event)> = (0..).zip(orders(partition)).collect();
        assert_eq!(log[&partition], stored, "partition {partition}");
    }
    let dead_letters = &events::read_all(client, DEAD_LETTERS).await[&0];
    assert_eq!(dead_letters.len(), 1);
    assert_eq!(events::payload(&dead_letters[0].1), b"0/4");
    assert_eq!(header(&dead_letters[0].1, "lv-dlq-error").as_deref(), Some("it does not add up"));

    let described = client.describe_subscription("orders", "audit").await.unwrap();
    assert_eq!((described.lag, described.positions[0].offset, described.positions[1].offset), (5, 2, 0));
    let mut subscriber = events::subscribe_existing(client, "orders", "audit").await;
    let mut open: Vec<(u16, u64)> =
        events::consume(&mut subscriber, 5).await.iter().map(|it: &Got| (it.partition, it.offset)).collect();
    open.sort_unstable();
    assert_eq!(
        open,
        [(0, 2), (0, 5), (1, 0), (1, 1), (1, 2)],
        "what was not settled comes, and nothing else"
    );

    // Numbers continue: of offsets, of the route's copies, of ids and of a plugin's versions.
    events::publish(client, "orders", [Event::new("new").with_key("k")]).await;
    copied(client, 10).await;
    assert_eq!(
        events::payload(next(&mut subscriber).await.to_events().next().as_ref().map(|it| &it.1).unwrap()),
        b"new"
    );
    let before = client.describe_topic("orders").await.unwrap().id;
    topic(client, "later").await;
    assert!(
        client.describe_topic("later").await.unwrap().id > before + 2,
        "the id of a deleted topic stays free"
    );
    guests::deploy_hostile(client).await;
    assert_eq!(client.list_plugins().await.unwrap()[0].version, 2);
}

/// Starts an engine on a copy of a data directory.
async fn open_copy(of: &Path) -> Engine {
    let dir = Arc::new(TempDir::new().unwrap());
    let data = dir.path().join("data");
    copy(of, &data);
    let mut config = engine::config(data);
    // What is kept is older than its topics keep events.
    config.store.retention_interval = Duration::from_secs(24 * 3600);
    match Engine::run(config, dir).await {
        Ok(engine) => engine,
        Err(error) => panic!("the data directory {} is not opened: {error}", of.display()),
    }
}

/// Copies what cannot be made anew.
fn copy(from: &Path, to: &Path) {
    const MADE_ANEW: [&str; 5] = ["LOG", "LOCK", "ballast", "plugin-cache", "tls"];
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if MADE_ANEW.contains(&name.as_str()) || name.starts_with("OPTIONS-") {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(name));
        } else {
            fs::copy(entry.path(), to.join(name)).unwrap();
        }
    }
}

fn fixtures() -> PathBuf {
    package().join("fixtures")
}

#[tokio::test]
async fn what_this_version_writes_is_found_after_a_restart_without_the_files_that_are_made_anew() {
    let mut engine = Engine::start().await;
    let client = engine.connect().await;
    write(&client).await;
    client.close().await;
    engine.stop().await.unwrap();
    let format = fs::read_to_string(engine.data_dir().join("format")).unwrap();
    let number = format.trim().rsplit(' ').next().unwrap();
    let kept = fixtures().join(format!("format-{number}"));
    if std::env::var_os("LEVADA_KEEP_FIXTURE").is_some() {
        assert!(!kept.exists(), "{} is what an earlier version wrote", kept.display());
        copy(engine.data_dir(), &kept);
    }
    assert!(kept.is_dir(), "a directory of format {number} is to be kept");
    let engine = open_copy(engine.data_dir()).await;
    check(&engine.connect().await).await;
}

#[tokio::test]
async fn data_directories_of_every_release_of_the_format_are_opened() {
    for entry in fs::read_dir(fixtures()).unwrap() {
        let engine = open_copy(&entry.unwrap().path()).await;
        check(&engine.connect().await).await;
    }
}
