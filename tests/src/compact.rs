//! Topics that keep the last event of each key, end to end: over QUIC, on RocksDB, through kills.

use std::{collections::BTreeMap, path::Path, time::Duration};

use levada_client::{
    Client, ErrorCode, Event, PublisherOptions, ReadOptions, Retain, SubscriptionOptions, TopicSettings,
};
use tempfile::TempDir;

use crate::support::{
    engine::Engine,
    events::{self, code, consume, earliest, payload},
    process::Process,
    rng::Rng,
    until, within,
};

const MIB: u64 = 1 << 20;

fn compacted() -> TopicSettings {
    TopicSettings { retain: Retain::Compact, ..TopicSettings::default() }
}

/// Rounds follow each other at once, and a millisecond is old.
const EAGER: [(&str, &str); 3] = [
    ("LEVADA_STORE_RETENTION_INTERVAL", "20ms"),
    ("LEVADA_STORE_COMPACT_AFTER", "1ms"),
    ("LEVADA_STORE_DISK_RESERVE", "1MiB"),
];

/// Files of a few MiB.
const SMALL: [(&str, &str); 5] = [
    ("LEVADA_ROCKSDB_LOG_MEMTABLE_BYTES", "4MiB"),
    ("LEVADA_ROCKSDB_LOG_BLOB_FILE_BYTES", "4MiB"),
    ("LEVADA_ROCKSDB_SMALL_MEMTABLE_BYTES", "1MiB"),
    ("LEVADA_ROCKSDB_WAL_BYTES_PREPARED", "0B"),
    ("LEVADA_ROCKSDB_WAL_BYTES_MAX", "8MiB"),
];

fn event(key: &str, value: impl Into<Vec<u8>>) -> Event {
    Event::new(value.into()).with_key(key.to_owned())
}

async fn publish(client: &Client, events: impl IntoIterator<Item = Event>) {
    events::publish(client, "orders", events).await;
}

/// Closes the segment: as much as one has, and an event behind it.
async fn close_segment(client: &Client) {
    publish(client, (0..5).map(|_| event("filler", vec![b'x'; 900_000]))).await;
    publish(client, [event("more", "1")]).await;
}

/// What compaction has dropped since the engine started.
async fn compacted_bytes(engine: &Process) -> u64 {
    let (_, metrics) = engine.get("/metrics").await;
    let line = metrics.lines().find(|line| line.starts_with("levada_compacted_bytes_total{"));
    line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

/// Keys and the values that were read of each, in order.
async fn values(client: &Client) -> BTreeMap<String, Vec<String>> {
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let log = events::read_all(client, "orders").await;
    for (_, event) in log.values().flatten() {
        let key = String::from_utf8(event.key.as_ref().unwrap().to_vec()).unwrap();
        values.entry(key).or_default().push(String::from_utf8_lossy(payload(event)).into_owned());
    }
    values
}

#[tokio::test]
async fn the_last_event_of_each_key_is_left_to_readers_and_subscriptions_also_after_a_restart() {
    let engine = Engine::with(|config| {
        config.store.retention_interval = Duration::from_millis(5);
        config.store.compact_after = Duration::from_millis(1);
    })
    .await;
    let client = engine.connect().await;
    client.create_topic("orders", compacted()).await.unwrap();
    for round in 0..20 {
        let round = format!("{round}");
        publish(&client, (0..50).map(|key| event(&format!("k{key}"), round.clone()))).await;
    }
    publish(&client, [Event { payload: None, ..event("k7", "") }]).await;
    close_segment(&client).await;
    until("the compaction", async || {
        values(&client).await.values().all(|values| values.len() == 1).then_some(())
    })
    .await;
    let expect = |mut values: BTreeMap<String, Vec<String>>| {
        assert!(values.remove("filler").is_some() && values.remove("more").is_some());
        assert_eq!(values.len(), 50);
        assert_eq!(values.remove("k7").unwrap(), [""], "a tombstone stays for a day");
        assert!(values.values().all(|values| *values == ["19"]), "{values:?}");
    };
    expect(values(&client).await);
    let engine = engine.restart_with(|config| config.store.compact_after = Duration::from_secs(3_600)).await;
    let client = engine.connect().await;
    let log = events::read_all(&client, "orders").await;
    expect(values(&client).await);
    let mut subscriber =
        client.subscribe(earliest("orders", "s", SubscriptionOptions::default())).await.unwrap();
    let got = consume(&mut subscriber, log[&0].len()).await;
    let offsets: Vec<u64> = got.iter().map(|got| got.offset).collect();
    assert_eq!(offsets, log[&0].iter().map(|(offset, _)| *offset).collect::<Vec<_>>());
    assert_eq!(client.describe_subscription("orders", "s").await.unwrap().lag, 0);
    let described = client.describe_topic("orders").await.unwrap();
    assert!(described.partitions[0].end >= 1_001, "offsets are as they were");
    let (_, metrics) = engine.get("/metrics").await;
    assert!(metrics.contains("levada_compacted_bytes_total{topic=\"orders\"}"), "{metrics}");
}

#[tokio::test]
async fn an_event_without_a_key_is_refused_however_it_is_published() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    client.create_topic("orders", compacted()).await.unwrap();
    events::topic(&client, "others").await;
    let publisher = client.publisher("orders", PublisherOptions::default()).await.unwrap();
    let ticket = publisher.publish(Event::new("no key")).await.unwrap();
    assert_eq!(code(within("the refusal", ticket).await), ErrorCode::InvalidArgument);
    let publisher = client.publisher("orders", PublisherOptions::default()).await.unwrap();
    let ticket = publisher.schedule(Event::new("no key"), Duration::from_secs(3_600)).await.unwrap();
    assert_eq!(code(within("the refusal", ticket).await), ErrorCode::InvalidArgument);
    let mut transaction = client.transaction().unwrap();
    transaction.publish("others", Event::new("no key is needed here")).unwrap();
    transaction.publish("orders", Event::new("no key")).unwrap();
    let refused = transaction.commit().await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::InvalidArgument);
    assert!(refused.to_string().contains("event 0 of the batch has no key"), "{refused}");
    assert!(events::read_all(&client, "others").await.is_empty(), "all or nothing");
    assert!(events::read_all(&client, "orders").await.is_empty());
    assert_eq!(client.describe_topic("orders").await.unwrap().scheduled, 0);
}

#[tokio::test]
async fn kills_in_the_middle_of_it_lose_nothing() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let mut rng = Rng::for_test("compaction");
    let mut newest: BTreeMap<String, String> = BTreeMap::new();
    for round in 0..4 {
        let engine = Process::start_with(&data, &EAGER).await;
        let client = engine.connect().await;
        if round == 0 {
            client.create_topic("orders", compacted()).await.unwrap();
        }
        let found = values(&client).await;
        for (key, value) in &newest {
            assert_eq!(found[key].last(), Some(value), "round {round}: {key}");
        }
        for pass in 0..3 {
            for batch in 0..5 {
                let value = format!("{round}/{pass}/{batch}/{}", "x".repeat(500));
                let keys: Vec<String> = (0..20).map(|_| format!("k{}", rng.within(0..60))).collect();
                publish(&client, keys.iter().map(|key| event(key, value.clone()))).await;
                newest.extend(keys.into_iter().map(|key| (key, value.clone())));
            }
            let before = compacted_bytes(&engine).await;
            close_segment(&client).await;
            // The last one has begun when the engine is killed, and is at its end at most.
            until("a pass", async || (compacted_bytes(&engine).await > before).then_some(())).await;
        }
        engine.kill().await;
        client.close().await;
    }
    let engine = Process::start_with(&data, &EAGER).await;
    let client = engine.connect().await;
    close_segment(&client).await;
    until("the compaction", async || {
        let found = values(&client).await;
        newest.keys().all(|key| found[key].len() == 1).then_some(())
    })
    .await;
    let found = values(&client).await;
    for (key, value) in &newest {
        assert_eq!(&found[key], std::slice::from_ref(value));
    }
    client.close().await;
    engine.stop().await;
}

#[tokio::test]
async fn the_space_of_what_was_superseded_comes_back() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let engine = Process::start_with(&data, &[EAGER.as_slice(), SMALL.as_slice()].concat()).await;
    let client = engine.connect().await;
    client
        .create_topic("orders", TopicSettings { retain: Retain::TimeAndAcked, ..compacted() })
        .await
        .unwrap();
    for value in 0..60 {
        publish(&client, (0..10).map(|key| event(&format!("k{key}"), vec![value; 100_000]))).await;
    }
    close_segment(&client).await;
    let before = Process::disk_bytes(&data);
    assert!(before > 60_000_000, "{before}");
    let changes = levada_client::TopicChanges { retain: Some(Retain::Compact), ..Default::default() };
    client.set_topic("orders", changes).await.unwrap();
    until("the space", async || (Process::disk_bytes(Path::new(&data)) < 40 * MIB).then_some(())).await;
    // What fills segments up is superseded as well, but for that of the last one.
    until("the last event of each key", async || {
        let topic = client.describe_topic("orders").await.unwrap();
        (topic.partitions[0].bytes < 6_000_000).then_some(())
    })
    .await;
    let log = events::drain(client.read(ReadOptions::new("orders")).await.unwrap()).await;
    let kept = log[&0].iter().map(|(_, event)| event).filter(|event| payload(event).len() == 100_000);
    let kept: Vec<_> = kept.map(|event| (event.key.clone(), payload(event)[0])).collect();
    assert!(kept.iter().all(|(_, value)| *value == 59), "{kept:?}");
    assert_eq!(kept.len(), 10);
    client.close().await;
    engine.stop().await;
}
