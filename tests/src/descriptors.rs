//! File descriptors that run out under a running engine.

use levada_client::{ErrorCode, Event, TopicSettings};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::{
    disk::publish_one,
    support::{
        events,
        process::{HttpConnection, Process},
        until,
    },
};

/// How many descriptors the engine has open.
fn open(engine: &Process) -> u64 {
    std::fs::read_dir(format!("/proc/{}/fd", engine.id())).unwrap().count() as u64
}

/// Sets how many it may have, and returns how many it might have before.
fn limit(engine: &Process, current: u64) -> u64 {
    let pid = Pid::from_raw(i32::try_from(engine.id()).unwrap());
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", engine.id())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let mut numbers = line.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
    let (before, maximum) = (numbers.next().unwrap(), numbers.next().unwrap());
    prlimit(pid, Resource::Nofile, Rlimit { current: Some(current), maximum: Some(maximum) }).unwrap();
    before
}

#[tokio::test]
async fn an_engine_without_descriptors_refuses_says_so_and_takes_events_again_by_itself() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let engine = Process::start_with(&data, &[("LEVADA_STORE_DISK_CHECK_INTERVAL", "50ms")]).await;
    let client = engine.connect().await;
    client.create_topic("orders", TopicSettings::default()).await.unwrap();
    events::publish_numbers(&client, "orders", 0..1_000).await;
    let mut watching = HttpConnection(TcpStream::connect(&engine.http).await.unwrap());
    assert_eq!(watching.get("/readyz").await.0, 200);

    let before = limit(&engine, open(&engine));
    // So much needs files: the ballast grows with what is in memory.
    let refused = until("the end of the descriptors", async || {
        let large = Event::new(vec![b'x'; 900_000]);
        let options = levada_client::PublisherOptions {
            delivery_timeout: std::time::Duration::from_millis(300),
            ..Default::default()
        };
        let publisher = client.publisher("orders", options).await.unwrap();
        drop(publisher.publish(large).await.unwrap().await);
        publish_one(&client, 9).await.err()
    })
    .await;
    assert_eq!(refused, ErrorCode::LimitExceeded);
    let (status, said) = watching.get("/readyz").await;
    assert_eq!(status, 503, "{said}");
    assert!(said.contains("LIMIT_EXCEEDED") && said.contains("no file descriptor is left"), "{said}");
    let stored = events::read_all(&client, "orders").await[&0].len();
    assert!(stored >= 1_000, "reading goes on: {stored} events");

    limit(&engine, before);
    until("descriptors again", async || publish_one(&client, 10).await.ok()).await;
    assert_eq!(watching.get("/readyz").await.0, 200);
    assert!(events::read_all(&client, "orders").await[&0].len() > stored);
    client.close().await;
    engine.stop().await;
}

#[tokio::test]
async fn an_engine_takes_as_many_descriptors_as_it_may_have() {
    let dir = TempDir::new().unwrap();
    let engine = Process::start(&dir.path().join("data")).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", engine.id())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[3], words[4], "the soft limit is the hard one: {line}");
    engine.stop().await;
}
