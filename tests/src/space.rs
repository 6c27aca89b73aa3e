//! The space of deleted topics comes back within seconds, also on a full disk and after a kill.

use std::path::Path;

use levada_client::{Client, DeleteOptions, ErrorCode, Event, PurgeOptions, Retain, TopicSettings};
use tempfile::TempDir;

use crate::{
    disk::{BLIND, publish_one, volume},
    support::{events, process::Process, until, within},
};

const MIB: u64 = 1 << 20;
/// What an engine that stores next to nothing may take: log files that are kept to be written over, and the ballast.
const EMPTY_BYTES: u64 = 240 * MIB;
/// Events of one MiB less a little.
const EVENT_BYTES: usize = 1_000_000;

/// Makes a topic of so many events of a megabyte.
async fn store(client: &Client, topic: &str, count: usize) {
    events::topic(client, topic).await;
    publish(client, topic, count).await;
}

async fn publish(client: &Client, topic: &str, count: usize) {
    let publisher = events::publisher(client, topic).await;
    for _ in 0..count {
        let ticket = publisher.publish(Event::new(vec![b'x'; EVENT_BYTES])).await;
        drop(ticket.expect("the publisher takes events"));
    }
    within("the flush", publisher.flush()).await.expect("every event is stored");
}

async fn shrinks(data: &Path, below: u64) {
    until("the space of the topic", async || (Process::disk_bytes(data) < below).then_some(())).await;
}

#[tokio::test]
async fn a_deleted_topic_gives_its_space_back() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let engine = Process::start(&data).await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    events::publish_numbers(&client, "orders", 0..1_000).await;
    store(&client, "large", 600).await;
    events::publish_numbers(&client, "orders", 1_000..2_000).await;
    assert!(Process::disk_bytes(&data) > 600_000_000);
    client.delete_topic("large", DeleteOptions::default()).await.unwrap();
    shrinks(&data, EMPTY_BYTES).await;
    assert_eq!(events::read_all(&client, "orders").await[&0].len(), 2_000, "others are as they were");
    client.close().await;
    engine.stop().await;
}

#[tokio::test]
async fn a_purged_topic_gives_its_space_back() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let engine = Process::start(&data).await;
    let client = engine.connect().await;
    store(&client, "large", 600).await;
    assert!(Process::disk_bytes(&data) > 600_000_000);
    client.purge_topic("large", PurgeOptions::all()).await.unwrap();
    // More files of the write-ahead log are left than a deletion leaves, but not the 600 MB.
    shrinks(&data, 500 * MIB).await;
    events::publish_numbers(&client, "large", 0..10).await;
    assert_eq!(events::read_all(&client, "large").await[&0].len(), 10);
    client.close().await;
    engine.stop().await;
}

#[tokio::test]
async fn what_everybody_has_acknowledged_gives_its_space_back() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let engine = Process::start_with(&data, &[("LEVADA_STORE_RETENTION_INTERVAL", "500ms")]).await;
    let client = engine.connect().await;
    let settings = TopicSettings { retain: Retain::UntilAcked, ..TopicSettings::default() };
    client.create_topic("large", settings).await.unwrap();
    let mut subscriber = events::subscribe(&client, "large", "s").await;
    publish(&client, "large", 600).await;
    assert!(Process::disk_bytes(&data) > 600_000_000);
    let mut taken = 0;
    while taken < 600 {
        let delivery = events::next(&mut subscriber).await;
        taken += delivery.count();
        delivery.ack();
    }
    within("the confirmation", subscriber.confirmed()).await.unwrap();
    // Segments are dropped whole, and the last one is being written.
    until("the log begins later", async || {
        let partition = client.describe_topic("large").await.unwrap().partitions[0];
        (partition.start > 500 && partition.end == 600).then_some(())
    })
    .await;
    // As much of the write-ahead log may be left as after a purge.
    shrinks(&data, 500 * MIB).await;
    client.close().await;
    engine.stop().await;
}

#[tokio::test]
async fn a_kill_right_after_the_delete_only_puts_it_off() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let engine = Process::start(&data).await;
    let client = engine.connect().await;
    store(&client, "large", 400).await;
    client.delete_topic("large", DeleteOptions::default()).await.unwrap();
    engine.kill().await;
    client.close().await;
    let engine = Process::start(&data).await;
    shrinks(&data, EMPTY_BYTES).await;
    engine.stop().await;
}

#[tokio::test]
async fn deleting_the_only_large_topic_of_a_full_volume_makes_room_for_publishing() {
    let Some(volume) = volume() else { return };
    let data = volume.path().join("data");
    let engine = Process::start_with(&data, &[("LEVADA_STORE_DISK_RESERVE", "16MiB")]).await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    events::topic(&client, "large").await;
    fill(&client).await;
    assert_eq!(publish_one(&client, 1).await, Err(ErrorCode::StorageFull));
    client.delete_topic("large", DeleteOptions::default()).await.unwrap();
    until("room for publishing", async || publish_one(&client, 2).await.ok()).await;
    shrinks(&data, 40 * MIB).await;
    client.close().await;
    engine.stop().await;
}

#[tokio::test]
async fn a_delete_makes_room_on_a_volume_without_a_free_byte() {
    let Some(volume) = volume() else { return };
    let data = volume.path().join("data");
    let engine = Process::start_with(&data, &BLIND).await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    events::topic(&client, "large").await;
    volume.fill(60 << 20);
    fill(&client).await;
    // Somebody else takes what the engine has left.
    volume.fill_with("more filler", 0);
    until("the delete", async || client.delete_topic("large", DeleteOptions::default()).await.ok()).await;
    until("room for publishing", async || publish_one(&client, 2).await.ok()).await;
    client.close().await;
    engine.stop().await;
}

/// Publishes to the large topic until that is refused for want of room.
async fn fill(client: &Client) {
    let options = levada_client::PublisherOptions {
        delivery_timeout: std::time::Duration::from_millis(500),
        ..Default::default()
    };
    let publisher = client.publisher("large", options).await.unwrap();
    for _ in 0..2_000 {
        let ticket = publisher.publish(Event::new(vec![b'x'; 100_000])).await.unwrap();
        if within("a ticket", ticket).await.is_err() {
            return;
        }
    }
    panic!("the volume does not fill up");
}
