//! Subscriptions whose plugin takes its time, and what they keep in memory meanwhile.

use std::{ops::RangeInclusive, sync::atomic::Ordering};

use levada_broker::{Consumer, Content, Outgoing};
use levada_protocol::{
    ids::{DeliveryToken, Offset, PartitionId},
    request::{Order, Request, StageSpec, SubscriptionOptions, TopicSettings},
    verbs::{Verb, VerbKind, Verbs},
};
use tokio::time::timeout;

use crate::support::{Engine, PLENTY, SOON, delivery, until};

/// A subscription with a plugin whose calls the test can hold up, and its consumer with as much credit as it needs.
async fn chained(engine: &Engine, partitions: u16, options: SubscriptionOptions) -> Consumer {
    engine.topic("orders", TopicSettings { partitions, ..TopicSettings::default() }).await;
    engine.deploy(b"one").await;
    let chain = vec![StageSpec { plugin: "keep".into(), ..StageSpec::default() }];
    let consumer = engine.subscribe(SubscriptionOptions { chain: Some(chain), ..options }).await;
    consumer.control.credit(PLENTY).await.unwrap();
    consumer
}

async fn outgoing(consumer: &mut Consumer) -> Outgoing {
    timeout(SOON, consumer.outgoing.recv()).await.expect("something comes").unwrap().unwrap()
}

fn is_settled(outgoing: &Outgoing) -> bool {
    matches!(outgoing.content(), Content::Settled(_))
}

async fn say(
    consumer: &Consumer,
    sequence: u64,
    token: DeliveryToken,
    kind: VerbKind,
    offsets: RangeInclusive<u64>,
) {
    let (first, last) = (Offset(*offsets.start()), Offset(*offsets.end()));
    let verb = Verb { kind, partition: PartitionId(0), token, first, last };
    consumer.control.verbs(Verbs { sequence, verbs: vec![verb] }).await.unwrap();
}

#[tokio::test]
async fn while_a_plugin_takes_its_time_verbs_and_whoever_asks_are_served() {
    for order in [Order::Key, Order::None] {
        let engine = Engine::start();
        let options = SubscriptionOptions { order: Some(order), ..SubscriptionOptions::default() };
        let mut consumer = chained(&engine, 1, options).await;
        engine.publish("orders", 3).await;
        let (token, offsets) = delivery(&mut consumer.outgoing).await;
        assert_eq!(offsets, [0, 1, 2]);
        engine.plugins.gate.shut(true);
        engine.publish("orders", 4).await;
        until(|| engine.plugins.gate.held.load(Ordering::Acquire) > 0).await;
        // The plugin has the four; everything else goes on.
        say(&consumer, 1, token, VerbKind::Ack, 0..=0).await;
        assert!(is_settled(&outgoing(&mut consumer).await), "an acknowledgement is confirmed");
        let mut second = timeout(SOON, engine.subscribe(SubscriptionOptions::default())).await.unwrap();
        let info = timeout(SOON, engine.info()).await.expect("it is described");
        assert_eq!((info.lag, info.positions[0].offset, info.consumers.len()), (6, 1, 2));
        let metrics = timeout(SOON, engine.broker.observe()).await.expect("metrics are collected");
        assert!(metrics.iter().any(|series| series.name == "levada_lag_events"));
        say(&consumer, 2, token, VerbKind::Nack { delay_ms: Some(0) }, 1..=2).await;
        let (_, again) = delivery(&mut consumer.outgoing).await;
        assert_eq!(again, [1, 2], "what failed is delivered again, although the read behind it is not over");
        drop(consumer);
        second.control.credit(PLENTY).await.unwrap();
        let (_, again) = delivery(&mut second.outgoing).await;
        assert_eq!(again, [1, 2], "a consumer that goes gives its events back");
        assert_eq!(engine.plugins.gate.held.load(Ordering::Acquire), 1, "the plugin was not asked again");
        engine.plugins.gate.shut(false);
        let (_, fresh) = delivery(&mut second.outgoing).await;
        assert_eq!(fresh, [3, 4, 5, 6]);
        engine.broker.shutdown().await;
    }
}

#[tokio::test]
async fn while_a_plugin_takes_its_time_deliveries_time_out() {
    let engine = Engine::start();
    let options = SubscriptionOptions { ack_timeout_ms: Some(50), ..SubscriptionOptions::default() };
    let mut consumer = chained(&engine, 1, options).await;
    engine.publish("orders", 3).await;
    let (first, _) = delivery(&mut consumer.outgoing).await;
    engine.plugins.gate.shut(true);
    engine.publish("orders", 4).await;
    until(|| engine.plugins.gate.held.load(Ordering::Acquire) > 0).await;
    for _ in 0..3 {
        let (again, offsets) = delivery(&mut consumer.outgoing).await;
        assert_ne!(again, first);
        assert_eq!(offsets, [0, 1, 2]);
    }
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn what_is_in_memory_is_sent_while_as_many_reads_as_may_be_wait_for_the_plugin() {
    const PARTITIONS: u16 = 10;
    for order in [Order::Partition, Order::None] {
        let engine = Engine::start();
        let options = SubscriptionOptions { order: Some(order), ..SubscriptionOptions::default() };
        let mut consumer = chained(&engine, PARTITIONS, options).await;
        engine.publish("orders", 3).await;
        let (token, _) = delivery(&mut consumer.outgoing).await;
        engine.plugins.gate.shut(true);
        for partition in 1..PARTITIONS {
            engine.publish_to("orders", PartitionId(partition), 1).await;
        }
        until(|| engine.plugins.gate.held.load(Ordering::Acquire) >= 4).await;
        say(&consumer, 1, token, VerbKind::Nack { delay_ms: Some(0) }, 0..=2).await;
        let (_, again) = delivery(&mut consumer.outgoing).await;
        assert_eq!((again.len(), engine.plugins.gate.held.load(Ordering::Acquire)), (3, 4));
        engine.plugins.gate.shut(false);
        let mut fresh = 0;
        while fresh < PARTITIONS - 1 {
            fresh += u16::from(!is_settled(&outgoing(&mut consumer).await));
        }
        engine.broker.shutdown().await;
    }
}

#[tokio::test]
async fn a_subscription_whose_plugin_takes_its_time_can_be_deleted_and_its_plugin_replaced() {
    let engine = Engine::start();
    let mut consumer = chained(&engine, 1, SubscriptionOptions::default()).await;
    engine.plugins.gate.shut(true);
    engine.publish("orders", 3).await;
    until(|| engine.plugins.gate.held.load(Ordering::Acquire) == 1).await;
    timeout(SOON, engine.deploy(b"two")).await.unwrap();
    until(|| engine.plugins.gate.held.load(Ordering::Acquire) == 2).await;
    assert_eq!(engine.plugins.attached.load(Ordering::Acquire), 2, "the new version has the same events");
    let request = Request::DeleteSubscription {
        topic: "orders".parse().unwrap(),
        name: "payment".parse().unwrap(),
        force: true,
        with_dead_letters: false,
    };
    timeout(SOON, engine.ask(request)).await.expect("it is deleted");
    let end = timeout(SOON, consumer.outgoing.recv()).await.unwrap().unwrap();
    assert!(end.is_err(), "{end:?}");
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_redelivery_and_a_dead_letter_need_no_read() {
    // The tail keeps the newest batch alone.
    let engine = Engine::with(|config| config.tail_bytes_max = 1);
    engine.topic("orders", TopicSettings::default()).await;
    for _ in 0..5 {
        engine.publish("orders", 2).await;
    }
    let options = SubscriptionOptions { max_attempts: Some(4), ..SubscriptionOptions::default() };
    let mut consumer = engine.subscribe(options).await;
    consumer.control.credit(PLENTY).await.unwrap();
    let (mut token, offsets) = delivery(&mut consumer.outgoing).await;
    assert_eq!(offsets, (0..10).collect::<Vec<_>>());
    let reads = || engine.store.log_reads.load(Ordering::Acquire);
    let before = reads();
    assert!(before > 0, "the first delivery was read from the store");
    let next_delivery = async |consumer: &mut Consumer| loop {
        if let Content::Delivery(delivery) = outgoing(consumer).await.content() {
            break delivery.header;
        }
    };
    for attempt in 2..=4 {
        say(&consumer, attempt, token, VerbKind::Nack { delay_ms: Some(0) }, 0..=9).await;
        let header = next_delivery(&mut consumer).await;
        assert_eq!(u64::from(header.attempt), attempt);
        token = header.token;
    }
    assert_eq!(reads(), before, "what is in flight is in memory");
    say(&consumer, 9, token, VerbKind::reject("no"), 0..=9).await;
    // The verbs before it may be confirmed apart.
    let is_last = |it: &Outgoing| matches!(it.content(), Content::Settled(it) if it.sequence == 9);
    while !is_last(&outgoing(&mut consumer).await) {}
    assert_eq!(reads(), before, "and so is what becomes a dead letter");
    assert_eq!(engine.info().await.dead_lettered, 10);
    engine.broker.shutdown().await;
}
