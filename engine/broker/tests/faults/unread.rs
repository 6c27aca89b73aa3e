//! Clients that take nothing, or less than they ask for: what is kept for them is bounded, and nothing is held against
//! events that they never saw.

use std::time::Duration;

use levada_broker::{Content, Outgoing, Principal};
use levada_protocol::{
    error::ErrorCode,
    request::{Read, Start, SubscriptionOptions, TopicSettings},
    verbs::Credit,
};
use tokio::time::timeout;

use crate::support::{Engine, SOON, publish_bytes, until};

const ENDLESS: Credit = Credit { events: u64::MAX, bytes: u64::MAX };

/// Bytes of batches.
fn bytes(outgoing: &Outgoing) -> usize {
    match outgoing.content() {
        Content::Delivery(delivery) => delivery.runs.iter().map(|run| run.batches.len()).sum(),
        Content::Settled(_) | Content::End(_) | Content::Progress(_) => 0,
    }
}

fn read(partitions: Vec<u16>) -> Read {
    Read { partitions, from: Start::Earliest, ..Read::new("orders".parse().unwrap()) }
}

#[tokio::test]
async fn a_partition_that_is_named_twice_is_refused() {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    let refused = engine.broker.read(&Principal::Local, read(vec![0; 90_000])).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::InvalidArgument);
    let refused = engine.broker.read(&Principal::Local, read(vec![7])).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::PartitionNotFound);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_reader_pays_its_debt_of_bytes_before_it_gets_more() {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    publish_bytes(&engine, 20, 1_000).await;
    let mut reader = engine.broker.read(&Principal::Local, read(Vec::new())).await.unwrap();
    reader.credit.grant(Credit { events: 5, bytes: 1 }).await.unwrap();
    let first = timeout(SOON, reader.outgoing.recv()).await.unwrap().unwrap().unwrap();
    assert!(bytes(&first) > 5_000);
    reader.credit.grant(Credit { events: 5, bytes: 1_000 }).await.unwrap();
    let more = timeout(Duration::from_millis(200), reader.outgoing.recv()).await;
    assert!(more.is_err(), "4,000 bytes are still to be repaid");
    reader.credit.grant(Credit { events: 0, bytes: 10_000 }).await.unwrap();
    timeout(SOON, reader.outgoing.recv()).await.unwrap().unwrap().unwrap();
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn what_is_ready_for_streams_that_take_nothing_is_bounded_and_goes_on_once_it_is_taken() {
    let engine = Engine::with(|config| config.connection_unread_bytes_max = 256 * 1024);
    engine.topic("orders", TopicSettings::default()).await;
    publish_bytes(&engine, 200, 20_000).await;
    let connection = engine.broker.for_connection();
    let mut readers = Vec::new();
    for _ in 0..20 {
        let reader = connection.read(&Principal::Local, read(Vec::new())).await.unwrap();
        reader.credit.grant(ENDLESS).await.unwrap();
        readers.push(reader);
    }
    let consumer = Engine::wanted(Some(SubscriptionOptions::default()));
    let consumer = connection.subscribe(&Principal::Local, consumer).await.unwrap();
    consumer.control.credit(ENDLESS).await.unwrap();
    until(|| connection.is_short_of_room()).await;
    // Another connection has room of its own.
    let mut other = engine.broker.for_connection().read(&Principal::Local, read(Vec::new())).await.unwrap();
    other.credit.grant(ENDLESS).await.unwrap();
    let mut seen = 0;
    while let Some(frame) = timeout(SOON, other.outgoing.recv()).await.unwrap() {
        seen += bytes(&frame.unwrap());
    }
    assert!(seen > 200 * 20_000);
    let mut ready = 0;
    for reader in &mut readers {
        while let Ok(frame) = reader.outgoing.try_recv() {
            let frame = frame.unwrap();
            ready += bytes(&frame);
            std::mem::forget(frame);
        }
    }
    assert!(ready <= 300 * 1024, "{ready} bytes are ready");
    drop((readers, consumer));
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn deliveries_into_a_stream_that_takes_nothing_count_no_attempts() {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    engine.publish("orders", 10).await;
    let options = SubscriptionOptions {
        ack_timeout_ms: Some(50),
        max_attempts: Some(2),
        ..SubscriptionOptions::default()
    };
    let consumer = engine.subscribe(options.clone()).await;
    consumer.control.credit(ENDLESS).await.unwrap();
    until(|| !consumer.outgoing.is_empty()).await;
    // Many times the timeout, and of the wait behind a failure.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(consumer.outgoing.len(), 1, "nothing is given again into a stream that takes nothing");
    drop(consumer);
    let mut next = engine.subscribe(options).await;
    next.control.credit(ENDLESS).await.unwrap();
    let frame = timeout(SOON, next.outgoing.recv()).await.unwrap().unwrap().unwrap();
    let Content::Delivery(delivery) = frame.content() else { panic!("{frame:?}") };
    assert_eq!(delivery.header.attempt, 1, "the first attempt");
    engine.broker.shutdown().await;
}
