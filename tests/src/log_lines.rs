//! Whoever reads the engine's log may go, stop or have no room: that costs log lines and nothing else.

use std::{fs::File, io, process::Stdio};

use levada_client::{Event, OnError, SubscriptionOptions};
use tempfile::TempDir;

use crate::support::{
    events::{self, consume, earliest},
    guests::{self, hostile},
    process::Process,
    until,
};

/// Log lines that were lost so far, as the engine counts them.
async fn lines_lost(engine: &Process) -> u64 {
    let (_, page) = engine.get("/metrics").await;
    let line = page.lines().find(|line| line.starts_with("levada_log_lines_lost_total "));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).expect("lost lines are counted")
}

/// Publishes, runs a plugin that logs, reads, and stops in order.
async fn works(engine: Process) {
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    guests::deploy_hostile(&client).await;
    let payloads = ["a", "log", "trap", "b"].map(Event::new);
    events::publish(&client, "orders", payloads).await;
    let chain = vec![hostile(OnError::DeadLetter)];
    let options = SubscriptionOptions { chain: Some(chain), ..SubscriptionOptions::default() };
    let mut subscriber = client.subscribe(earliest("orders", "s", options)).await.unwrap();
    consume(&mut subscriber, 2).await;
    until("the dead letter", async || {
        let described = client.describe_subscription("orders", "s").await.unwrap();
        (described.lag == 0).then_some(())
    })
    .await;
    events::publish_numbers(&client, "orders", 0..100).await;
    assert!(engine.get("/readyz").await.0 == 200);
    client.close().await;
    engine.stop().await;
}

#[tokio::test]
async fn an_engine_whose_log_has_no_room_goes_on_and_counts_the_lines() {
    let dir = TempDir::new().unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let engine = Process::start_logging_to(&dir.path().join("data"), full).await;
    assert!(lines_lost(&engine).await > 0);
    works(engine).await;
}

#[tokio::test]
async fn an_engine_whose_log_has_lost_its_reader_goes_on_and_counts_the_lines() {
    let dir = TempDir::new().unwrap();
    let (reader, writer) = io::pipe().unwrap();
    let engine = Process::start_logging_to(&dir.path().join("data"), Stdio::from(writer)).await;
    drop(reader);
    // A connection is worth some lines.
    let client = engine.connect().await;
    until("a line that nobody reads", async || (lines_lost(&engine).await > 0).then_some(())).await;
    client.close().await;
    works(engine).await;
}

#[tokio::test]
async fn an_engine_whose_log_nobody_reads_just_now_goes_on() {
    let dir = TempDir::new().unwrap();
    let (reader, writer) = io::pipe().unwrap();
    let engine = Process::start_logging_to(&dir.path().join("data"), Stdio::from(writer)).await;
    // A connection is worth some lines, and a pipe holds few.
    for _ in 0..60 {
        engine.connect().await.close().await;
    }
    works(engine).await;
    drop(reader);
}
