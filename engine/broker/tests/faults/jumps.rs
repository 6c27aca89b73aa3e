//! Clocks that jump, and consumers whose streams take nothing: neither costs an event an attempt.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use levada_broker::{Clock, Consumer, Content};
use levada_protocol::{
    ids::{Offset, PartitionId, Timestamp},
    request::{Order, SubscriptionOptions, TopicSettings},
    verbs::{Verb, VerbKind, Verbs},
};
use tokio::time::timeout;

use crate::support::{Engine, PLENTY, SOON, delivery};

const HOUR: u64 = 3_600_000;

/// An engine with ten events in flight at a consumer, and the time of day that it is told.
async fn with_ten_in_flight(options: SubscriptionOptions) -> (Engine, Arc<AtomicU64>, Consumer) {
    let wall = Arc::new(AtomicU64::new(1_000 * HOUR));
    let told = Arc::clone(&wall);
    let clock = Clock::of(move || Timestamp(told.load(Ordering::Acquire)));
    let engine = Engine::with(|config| config.clock = clock);
    engine.topic("orders", TopicSettings::default()).await;
    engine.publish("orders", 10).await;
    let consumer = engine.subscribe(options).await;
    consumer.control.credit(PLENTY).await.unwrap();
    (engine, wall, consumer)
}

fn options(ack_timeout_ms: u32) -> SubscriptionOptions {
    SubscriptionOptions {
        order: Some(Order::None),
        ack_timeout_ms: Some(ack_timeout_ms),
        ..SubscriptionOptions::default()
    }
}

/// Which attempt the next delivery is, as a stream that takes it.
async fn attempt(consumer: &mut Consumer) -> u8 {
    let next = timeout(SOON, consumer.outgoing.recv()).await.expect("a delivery comes").unwrap().unwrap();
    let (content, unwritten) = next.into_parts();
    unwritten.written();
    match content {
        Content::Delivery(delivery) => delivery.header.attempt,
        other => panic!("expected a delivery, got {other:?}"),
    }
}

#[tokio::test]
async fn an_hour_forward_expires_no_delivery() {
    let (engine, wall, mut consumer) = with_ten_in_flight(options(30_000)).await;
    let (token, offsets) = delivery(&mut consumer.outgoing).await;
    assert_eq!(offsets.len(), 10);
    wall.fetch_add(HOUR, Ordering::AcqRel);
    assert_eq!(engine.info().await.in_flight, 10);
    engine.ack(&consumer, 1, token, 0..=9).await;
    while engine.info().await.lag > 0 {
        tokio::task::yield_now().await;
    }
    let info = engine.info().await;
    assert_eq!((info.redelivered, info.dead_lettered), (0, 0));
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn an_hour_back_stalls_neither_nacks_nor_timeouts() {
    let (engine, wall, mut consumer) = with_ten_in_flight(options(100)).await;
    let (token, _) = delivery(&mut consumer.outgoing).await;
    let (kind, partition) = (VerbKind::Nack { delay_ms: Some(20) }, PartitionId(0));
    let nack = Verb { kind, partition, token, first: Offset(0), last: Offset(4) };
    consumer.control.verbs(Verbs { sequence: 1, verbs: vec![nack] }).await.unwrap();
    engine.info().await;
    wall.fetch_sub(HOUR, Ordering::AcqRel);
    let waiting = async {
        while engine.info().await.redelivered < 10 {
            // A stream that takes nothing would get nothing more.
            let _ = consumer.outgoing.try_recv();
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, waiting).await.expect("both halves come again");
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn what_was_stored_while_the_clock_ran_ahead_is_as_old_as_the_clock_says_once_it_is_right() {
    let (engine, wall, _consumer) = with_ten_in_flight(options(30_000)).await;
    let age = async || engine.info().await.oldest_unacked_age_ms;
    wall.fetch_add(5_000, Ordering::AcqRel);
    assert_eq!(age().await, 5_000);
    wall.fetch_sub(HOUR, Ordering::AcqRel);
    assert_eq!(age().await, 0, "nothing tells yet that the clock was wrong before");
    engine.publish("orders", 1).await;
    wall.fetch_add(10_000, Ordering::AcqRel);
    assert_eq!(age().await, 10_000);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn deliveries_into_a_stream_that_takes_nothing_count_no_attempt() {
    let tried = SubscriptionOptions { max_attempts: Some(2), ..options(10) };
    let (engine, _, consumer) = with_ten_in_flight(tried.clone()).await;
    let waiting = async {
        while engine.info().await.in_flight > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, waiting).await.expect("it is taken back, and the stream gets nothing more");
    assert_eq!(engine.info().await.dead_lettered, 0);
    drop(consumer);
    let mut other = engine.subscribe(tried).await;
    other.control.credit(PLENTY).await.unwrap();
    assert_eq!([attempt(&mut other).await, attempt(&mut other).await], [1, 2], "what it takes counts");
    while engine.info().await.dead_lettered < 10 {
        tokio::task::yield_now().await;
    }
    engine.broker.shutdown().await;
}
