//! How things end: the engine while somebody takes nothing, its threads by a panic, a topic under those who read it.

use std::sync::atomic::Ordering;

use levada_broker::{Error, Outgoing, Principal, PublishStream};
use levada_protocol::{
    batch::{BatchBuilder, Stamp},
    error::ErrorCode,
    event::Event,
    ids::PartitionId,
    publish::{Ack, AckOutcome, PublishHeader},
    request::{PauseReason, Request, RunState, SubscriptionOptions, TopicSettings},
};
use levada_store::{Family, ScanLimit, Store};
use tokio::{sync::mpsc, time::timeout};

use crate::support::{Engine, PLENTY, SOON, delivery, until};

/// Hands in a batch of one event of this size.
async fn submit(stream: &PublishStream, correlation: u32, bytes: usize) -> Result<(), Error> {
    let mut builder = BatchBuilder::new();
    builder.push(&Event::new(vec![b'x'; bytes])).unwrap();
    let partition = PartitionId(0);
    let header = PublishHeader { correlation, partition, durability: None, expect_offset: None, due: None };
    stream.submitter().submit(header, builder.finish(Stamp::ENGINE)).await
}

async fn refused(acks: &mut mpsc::Receiver<Ack>) -> ErrorCode {
    let ack = timeout(SOON, acks.recv()).await.expect("it is answered").unwrap();
    let AckOutcome::Refused(refusal) = ack.outcome else { panic!("{ack:?}") };
    refusal.code
}

/// What is left in a channel, up to the error that ends it.
async fn end_of(frames: &mut mpsc::Receiver<Result<Outgoing, Error>>) -> ErrorCode {
    loop {
        if let Err(error) = timeout(SOON, frames.recv()).await.expect("it ends").expect("with a reason") {
            return error.code();
        }
    }
}

#[tokio::test]
async fn shutdown_waits_for_nobody_who_takes_no_frames() {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    let mut stream = engine.broker.open_publish(&Principal::Local, &"orders".parse().unwrap()).unwrap();
    for correlation in 0..24 {
        // Each fills a frame of its own.
        submit(&stream, correlation, 300_000).await.unwrap();
        timeout(SOON, stream.acks.recv()).await.unwrap().unwrap();
    }
    let mut reader = engine.reader("orders").await;
    let mut consumer = engine.subscribe(SubscriptionOptions::default()).await;
    consumer.control.credit(PLENTY).await.unwrap();
    until(|| !reader.outgoing.is_empty() && !consumer.outgoing.is_empty()).await;
    timeout(SOON, engine.broker.shutdown()).await.expect("the shutdown ends");
    assert_eq!(end_of(&mut reader.outgoing).await, ErrorCode::ShuttingDown);
    assert_eq!(end_of(&mut consumer.outgoing).await, ErrorCode::ShuttingDown);
}

/// Events of a size that the writer syncs itself, and of one that it leaves to the syncer.
const SMALL: usize = 100;
const LARGE: usize = 100_000;

#[tokio::test]
async fn a_thread_that_panics_leaves_nobody_waiting_and_the_engine_says_so() {
    for (at_sync, bytes) in [(false, SMALL), (true, SMALL), (true, LARGE)] {
        let engine = Engine::start();
        engine.topic("orders", TopicSettings::default()).await;
        engine.publish("orders", 3).await;
        let mut stream = engine.broker.open_publish(&Principal::Local, &"orders".parse().unwrap()).unwrap();
        engine.store.hold(true);
        let at = if at_sync { &engine.store.panic_at_sync } else { &engine.store.panic_at_apply };
        submit(&stream, 0, bytes).await.unwrap();
        if at_sync {
            engine.store.entered.notified().await;
        }
        at.store(true, Ordering::Release);
        for correlation in 1..6 {
            submit(&stream, correlation, bytes).await.unwrap();
        }
        engine.store.hold(false);
        let mut unknown = 0;
        for _ in 0..6 {
            match timeout(SOON, stream.acks.recv()).await.expect("it is answered").unwrap().outcome {
                AckOutcome::Refused(refusal) if refusal.code == ErrorCode::OutcomeUnknown => unknown += 1,
                AckOutcome::Refused(refusal) => assert_eq!(refusal.code, ErrorCode::StorageFailed),
                AckOutcome::Appended { .. } | AckOutcome::Scheduled { .. } => {
                    assert!(!at_sync, "nothing was synced");
                }
                AckOutcome::OffsetMismatch { .. } => panic!("no offset was expected"),
            }
        }
        assert!(unknown > 0, "what was under way may have been stored");
        until(|| !engine.broker.health().ready).await;
        let reason = engine.broker.health().reason.unwrap();
        assert!(reason.starts_with("STORAGE_FAILED: the shard-"), "{reason}");
        // A stream goes on or ends; either way the publish is answered, and certainly not stored.
        let error = submit(&stream, 6, bytes).await.err().map(|error| error.code());
        assert!(error.is_none_or(|code| code == ErrorCode::StorageFailed), "{error:?}");
        assert_eq!(refused(&mut stream.acks).await, ErrorCode::StorageFailed);
        let mut reader = engine.reader("orders").await;
        assert_eq!(delivery(&mut reader.outgoing).await.1[..3], [0, 1, 2], "reading goes on");
        timeout(SOON, engine.broker.shutdown()).await.expect("the shutdown ends");
    }
}

#[tokio::test]
async fn a_change_that_is_never_answered_is_of_unknown_outcome() {
    let engine = Engine::start();
    engine.store.panic_at_apply.store(true, Ordering::Release);
    let create = |name: &str| {
        let request =
            Request::CreateTopic { name: name.parse().unwrap(), settings: TopicSettings::default() };
        timeout(SOON, engine.broker.request(&Principal::Local, request, None))
    };
    let error = create("orders").await.expect("it is answered").unwrap_err();
    assert_eq!(error.code(), ErrorCode::OutcomeUnknown);
    until(|| !engine.broker.health().ready).await;
    let error = create("orders").await.expect("it is answered").unwrap_err();
    assert_eq!((error.code(), error.has_no_side_effects()), (ErrorCode::StorageFailed, true));
    timeout(SOON, engine.broker.shutdown()).await.expect("the shutdown ends");
}

#[tokio::test]
async fn an_acknowledgement_of_events_does_not_wait_for_a_dead_writer() {
    let engine = Engine::start();
    let (consumer, token) = engine.delivered_three().await;
    engine.store.panic_at_apply.store(true, Ordering::Release);
    // The first is with the writer when it panics, the second comes when it is gone.
    for sequence in 1..3 {
        engine.ack(&consumer, sequence, token, 0..=2).await;
        // Whoever comes later is attached once the acknowledgement was taken.
        drop(engine.subscribe(SubscriptionOptions::default()).await);
        // The commit fails, and the events are in flight again.
        engine.until_info(|info| info.in_flight == 3).await;
    }
    assert!(!engine.broker.health().ready);
    assert_eq!(engine.info().await.lag, 3);
    timeout(SOON, engine.broker.shutdown()).await.expect("the shutdown ends");
}

#[tokio::test]
async fn what_a_deleted_topic_no_longer_holds_is_not_called_damaged() {
    let engine = Engine::with(|config| config.tail_bytes_max = 0);
    engine.topic("orders", TopicSettings::default()).await;
    // Only the newest is in memory.
    engine.publish("orders", 3).await;
    engine.publish("orders", 3).await;
    let mut consumer = engine.subscribe(SubscriptionOptions::default()).await;
    engine.store.hold(true);
    let delete =
        Request::DeleteTopic { name: "orders".parse().unwrap(), force: true, with_dead_letters: false };
    let deleting = engine.broker.request(&Principal::Local, delete, None);
    let reading = async {
        // The rows have gone, and nobody was told yet. The sync that is held may be one of before.
        let log = || engine.store.inner.scan(Family::Log, &[0], &[255], ScanLimit::rows(1)).unwrap();
        while !log().is_empty() {
            tokio::task::yield_now().await;
        }
        let mut reader = engine.reader("orders").await;
        assert_eq!(end_of(&mut reader.outgoing).await, ErrorCode::TopicNotFound);
        consumer.control.credit(PLENTY).await.unwrap();
        let paused = loop {
            match engine.info().await.state {
                RunState::Running => tokio::task::yield_now().await,
                paused => break paused,
            }
        };
        let message = "topic orders was deleted".to_owned();
        let reason = PauseReason::Storage { code: ErrorCode::TopicNotFound, message };
        assert_eq!(paused, RunState::Paused { reason });
        engine.store.hold(false);
    };
    let (deleted, ()) = Box::pin(timeout(SOON, async { tokio::join!(deleting, reading) })).await.unwrap();
    deleted.unwrap();
    assert_eq!(end_of(&mut consumer.outgoing).await, ErrorCode::TopicNotFound);
    engine.broker.shutdown().await;
}
