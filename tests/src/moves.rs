//! Subscriptions that are moved, changed and paused while subscribers are attached.

use std::collections::BTreeSet;

use levada_client::{ErrorCode, Order, Start, Subscriber, SubscriptionOptions};
use tokio::{sync::watch, task::JoinSet};

use crate::support::{
    engine::Engine,
    events::{self, code, consume, earliest, next, number_of, payload, publish_numbers},
    until, within,
};

/// Acknowledges everything until the sender is dropped; returns what came since it said true.
async fn consume_until_the_end(
    mut subscriber: Subscriber,
    mut was_moved: watch::Receiver<bool>,
) -> BTreeSet<u64> {
    let mut numbers = BTreeSet::new();
    loop {
        let delivery = tokio::select! {
            delivery = subscriber.next_delivery() => delivery.expect("a move is no error").expect("it goes on"),
            changed = was_moved.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return numbers,
            },
        };
        if *was_moved.borrow() {
            numbers.extend(delivery.to_events().map(|(_, event)| number_of(payload(&event))));
        }
        delivery.ack();
    }
}

#[tokio::test]
async fn a_live_subscription_moves_back_under_load_and_its_subscribers_get_everything_again() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    client.create_topic("orders", events::partitions(3)).await.unwrap();
    let publishing = {
        let client = engine.connect().await;
        async move { publish_numbers(&client, "orders", 0..3_000).await }
    };
    let (moved, was_moved) = watch::channel(false);
    let mut consuming = JoinSet::new();
    for _ in 0..3 {
        let subscriber = events::subscribe(&client, "orders", "s").await;
        consuming.spawn(consume_until_the_end(subscriber, was_moved.clone()));
    }
    let driving = async {
        until("half of it", async || {
            let info = client.describe_subscription("orders", "s").await.unwrap();
            let done: u64 = info.positions.iter().map(|position| position.offset).sum();
            (done > 500).then_some(())
        })
        .await;
        moved.send_replace(true);
        let info = client.seek_subscription("orders", "s", Start::Earliest, &[]).await.unwrap();
        assert!(info.positions.iter().all(|position| position.offset == 0), "{info:?}");
        until("everything acknowledged", async || {
            let topic = client.describe_topic("orders").await.unwrap();
            let stored: u64 = topic.partitions.iter().map(|partition| partition.end).sum();
            let info = client.describe_subscription("orders", "s").await.unwrap();
            (stored == 3_000 && info.lag == 0).then_some(())
        })
        .await;
        drop(moved);
    };
    tokio::join!(publishing, driving);
    let got = within("their ends", consuming.join_all()).await;
    let all: BTreeSet<u64> = got.into_iter().flatten().collect();
    assert!(all.into_iter().eq(0..3_000), "what was acknowledged before the move came again");
}

#[tokio::test]
async fn a_live_subscription_is_changed_under_load_and_loses_nothing() {
    const EVENTS: u64 = 6_000;
    let engine = Engine::start().await;
    let client = engine.connect().await;
    client.create_topic("orders", events::partitions(3)).await.unwrap();
    let publishing = {
        let client = engine.connect().await;
        async move { publish_numbers(&client, "orders", 0..EVENTS).await }
    };
    let (everything, is_wanted) = watch::channel(true);
    let mut consuming = JoinSet::new();
    for _ in 0..3 {
        let client = engine.connect().await;
        let subscriber = events::subscribe(&client, "orders", "s").await;
        consuming.spawn(consume_until_the_end(subscriber, is_wanted.clone()));
    }
    let changes = [
        SubscriptionOptions { order: Some(Order::None), max_in_flight: Some(50), ..Default::default() },
        SubscriptionOptions {
            order: Some(Order::Partition),
            ack_timeout_ms: Some(5_000),
            ..Default::default()
        },
        SubscriptionOptions { order: Some(Order::Key), rate: Some(1_000_000), ..Default::default() },
        SubscriptionOptions { max_in_flight: Some(10), max_attempts: Some(3), ..Default::default() },
        SubscriptionOptions { order: Some(Order::None), rate: Some(0), ..Default::default() },
        SubscriptionOptions { order: Some(Order::Key), max_in_flight: Some(1_000), ..Default::default() },
    ];
    let driving = async {
        for (step, changed) in (1..).zip(changes) {
            until("its share of the events", async || {
                let info = client.describe_subscription("orders", "s").await.unwrap();
                let done: u64 = info.positions.iter().map(|position| position.offset).sum();
                (done > step * EVENTS / 8).then_some(())
            })
            .await;
            client.set_subscription("orders", "s", changed).await.unwrap();
        }
        until("everything acknowledged", async || {
            let topic = client.describe_topic("orders").await.unwrap();
            let stored: u64 = topic.partitions.iter().map(|partition| partition.end).sum();
            let info = client.describe_subscription("orders", "s").await.unwrap();
            (stored == EVENTS && info.lag == 0).then_some(info)
        })
        .await
    };
    let ((), info) = tokio::join!(publishing, driving);
    drop(everything);
    assert_eq!((info.options.max_in_flight, info.options.max_attempts), (Some(1_000), Some(3)));
    assert_eq!(info.dead_lettered, 0, "what is taken back has not failed");
    let got = within("their ends", consuming.join_all()).await;
    let all: BTreeSet<u64> = got.into_iter().flatten().collect();
    assert!(all.into_iter().eq(0..EVENTS));
}

#[tokio::test]
async fn a_subscriber_that_has_received_nothing_yet_survives_a_move() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    let mut subscriber = events::subscribe(&client, "orders", "s").await;
    client.seek_subscription("orders", "s", Start::Latest, &[]).await.unwrap();
    publish_numbers(&client, "orders", 0..1).await;
    assert_eq!(consume(&mut subscriber, 1).await.len(), 1);
    assert_eq!(
        code(client.seek_subscription("orders", "s", Start::Offset(2), &[]).await),
        ErrorCode::OffsetOutOfRange
    );
    assert_eq!(
        code(client.seek_subscription("orders", "absent", Start::Earliest, &[]).await),
        ErrorCode::SubscriptionNotFound
    );
}

#[tokio::test]
async fn options_and_a_pause_hold_after_a_kill_of_the_engine() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    publish_numbers(&client, "orders", 0..20).await;
    client.create_subscription("orders", "s", SubscriptionOptions::default(), Start::Earliest).await.unwrap();
    let changed = SubscriptionOptions {
        order: Some(Order::None),
        rate: Some(50),
        backoff_ms: Some(vec![10, 20]),
        ..SubscriptionOptions::default()
    };
    client.set_subscription("orders", "s", changed).await.unwrap();
    client.pause_subscription("orders", "s").await.unwrap();
    let engine = engine.restart().await;
    let client = engine.connect().await;
    let info = client.describe_subscription("orders", "s").await.unwrap();
    let options = &info.options;
    assert_eq!(
        (options.order(), options.rate(), options.backoff_ms()),
        (Order::None, Some(50), &[10, 20][..])
    );
    assert_eq!(info.state.to_string(), "paused: on request");
    let mut subscriber = events::subscribe_existing(&client, "orders", "s").await;
    client.resume_subscription("orders", "s").await.unwrap();
    let got = consume(&mut subscriber, 20).await;
    let numbers: BTreeSet<u64> = got.iter().map(|got| number_of(payload(&got.event))).collect();
    assert_eq!(numbers.len(), 20);
}

#[tokio::test]
async fn a_rate_holds_up_what_there_is_and_no_rate_lets_it_go() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    publish_numbers(&client, "orders", 0..1_000).await;
    let slow = SubscriptionOptions { rate: Some(1), ..SubscriptionOptions::default() };
    let mut subscriber = client.subscribe(earliest("orders", "s", slow)).await.unwrap();
    let first = next(&mut subscriber).await;
    assert_eq!(first.events().count(), 1, "one a second, one at a time");
    first.ack();
    until("the rate", async || {
        let info = client.describe_subscription("orders", "s").await.unwrap();
        (info.waiting_for.to_string() == "its rate of 1 event a second").then_some(())
    })
    .await;
    let none = SubscriptionOptions { rate: Some(0), ..SubscriptionOptions::default() };
    client.set_subscription("orders", "s", none).await.unwrap();
    consume(&mut subscriber, 999).await;
}
