//! Metrics: each has its own count, and of deleted things there are none.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use levada_broker::{Clock, Principal};
use levada_protocol::{
    batch::{BatchBuilder, Stamp},
    event::Event,
    ids::{PartitionId, Timestamp},
    publish::PublishHeader,
    request::{Order, Redrive, Request, RouteSpec, Start, SubscriptionOptions, TopicSettings, WaitingFor},
    schedule::Due,
    verbs::{VerbKind, Verbs},
};
use tokio::time::timeout;

use crate::{
    redrive::{redrive, these},
    support::{Engine, PLENTY, SOON, take},
};

/// Publishes events to `orders` as one batch.
async fn publish(engine: &Engine, count: usize, ttl_ms: Option<u32>, due: Option<Due>) {
    let mut builder = BatchBuilder::new();
    for number in 0..count {
        builder.push(&Event { ttl_ms, ..Event::new(number.to_string()) }).unwrap();
    }
    let mut stream = engine.broker.open_publish(&Principal::Local, &"orders".parse().unwrap()).unwrap();
    let (partition, durability, expect_offset) = (PartitionId(0), None, None);
    let header = PublishHeader { correlation: 1, partition, durability, expect_offset, due };
    stream.submitter().submit(header, builder.finish(Stamp::ENGINE)).await.unwrap();
    timeout(SOON, stream.acks.recv()).await.unwrap().unwrap();
}

fn create(topic: &str, name: &str, options: SubscriptionOptions) -> Request {
    let (topic, name) = (topic.parse().unwrap(), name.parse().unwrap());
    Request::CreateSubscription { topic, name, options, from: Start::Earliest }
}

/// A route of all events of `orders`.
fn route(name: &str, to: &str) -> Request {
    let (name, from, to) = (name.parse().unwrap(), "orders".parse().unwrap(), to.parse().unwrap());
    Request::CreateRoute(RouteSpec { start: Start::Earliest, ..RouteSpec::new(name, from, [to]) })
}

/// Waits until a metric of something has a value.
async fn until_metric(engine: &Engine, name: &str, of: &str, value: f64) {
    let waiting = async {
        while engine.metric(name).await.get(of) != Some(&value) {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, waiting).await.expect("it comes to be so");
}

/// Every label's value that some sample has.
async fn named(engine: &Engine) -> Vec<String> {
    let series = engine.broker.observe().await;
    let samples = series.into_iter().flat_map(|series| series.samples);
    samples.flat_map(|sample| sample.labels.into_iter().map(|(_, value)| value)).collect()
}

#[tokio::test]
async fn series_of_deleted_topics_subscriptions_and_routes_end_with_them() {
    let engine = Engine::start();
    for name in ["orders", "paid"] {
        engine.topic(name, TopicSettings::default()).await;
    }
    let subscription = |name: &str| Request::CreateSubscription {
        topic: "orders".parse().unwrap(),
        name: name.parse().unwrap(),
        options: SubscriptionOptions::default(),
        from: Start::Earliest,
    };
    engine.ask(subscription("payment")).await;
    engine.ask(subscription("stays")).await;
    let name = |text: &str| text.parse().unwrap();
    let route = RouteSpec::new("split".parse().unwrap(), name("orders"), [name("paid")]);
    engine.ask(Request::CreateRoute(route)).await;
    engine.publish("orders", 3).await;
    let before = named(&engine).await;
    for name in ["orders", "paid", "orders/payment", "orders/stays", "split"] {
        assert!(before.iter().any(|found| found == name), "{name}: {before:?}");
    }
    engine
        .ask(Request::DeleteRoute { name: "split".parse().unwrap(), force: false, with_dead_letters: false })
        .await;
    engine
        .ask(Request::DeleteSubscription {
            topic: "orders".parse().unwrap(),
            name: "payment".parse().unwrap(),
            force: true,
            with_dead_letters: false,
        })
        .await;
    engine
        .ask(Request::DeleteTopic { name: "paid".parse().unwrap(), force: true, with_dead_letters: false })
        .await;
    let after = named(&engine).await;
    for name in ["paid", "orders/payment", "split"] {
        assert!(!after.iter().any(|found| found == name), "{name}: {after:?}");
    }
    assert!(after.iter().any(|found| found == "orders/stays"));
    engine.broker.shutdown().await;
}

/// An engine of whose subscription `orders/payment` 3 events expired, 7 became dead letters, 4 were delivered again, 2 were
/// redriven, 5 are acknowledged and 8 are not; 6 are delayed, and of its routes `copy` goes on and `stuck` does not.
async fn counted() -> (Engine, levada_broker::Consumer) {
    let now = Arc::new(AtomicU64::new(1_767_225_600_000));
    let clock = Arc::clone(&now);
    let engine =
        Engine::with(|config| config.clock = Clock::of(move || Timestamp(clock.load(Ordering::SeqCst))));
    for name in ["orders", "copies"] {
        engine.topic(name, TopicSettings::default()).await;
    }
    engine.topic("full", TopicSettings { backlog_max_events: 1, ..TopicSettings::default() }).await;
    engine.ask(create("full", "held", SubscriptionOptions::default())).await;
    engine.publish("full", 1).await;
    publish(&engine, 3, Some(5), None).await;
    now.fetch_add(5, Ordering::SeqCst);
    publish(&engine, 20, None, None).await;
    publish(&engine, 6, None, Some(Due::After(3_600_000))).await;
    engine.ask(route("copy", "copies")).await;
    engine.ask(route("stuck", "full")).await;
    let options = SubscriptionOptions { order: Some(Order::None), ..SubscriptionOptions::default() };
    let mut consumer = engine.subscribe(options).await;
    consumer.control.credit(PLENTY).await.unwrap();
    let mut verbs = take(&mut consumer.outgoing, 20).await;
    verbs.truncate(16);
    verbs[..7].iter_mut().for_each(|verb| verb.kind = VerbKind::reject("damaged"));
    verbs[7..11].iter_mut().for_each(|verb| verb.kind = VerbKind::Nack { delay_ms: Some(0) });
    consumer.control.verbs(Verbs { sequence: 1, verbs }).await.unwrap();
    take(&mut consumer.outgoing, 4).await;
    engine.until_info(|info| info.dead_lettered == 7 && info.lag == 8).await;
    redrive(&engine, Redrive { to: None, ..these("orders", &[0, 1]) }).await;
    take(&mut consumer.outgoing, 2).await;
    let waits = |waiting_for: &WaitingFor| matches!(waiting_for, WaitingFor::Acknowledgements { .. });
    engine.until_info(|info| waits(&info.waiting_for)).await;
    until_metric(&engine, "levada_lag_events", "copy", 0.0).await;
    until_metric(&engine, "levada_route_blocked", "stuck", 1.0).await;
    (engine, consumer)
}

#[tokio::test]
async fn each_count_stands_in_the_metric_of_its_name() {
    let (engine, consumer) = counted().await;
    let of = async |name: &str, of: &str| engine.metric(&format!("levada_{name}")).await.get(of).copied();
    for (name, expected) in [
        ("delivered_events_total", 26.0),
        ("redelivered_events_total", 4.0),
        ("dead_lettered_events_total", 7.0),
        ("expired_events_total", 3.0),
        ("redriven_events", 2.0),
        ("lag_events", 8.0),
    ] {
        assert_eq!(of(name, "orders/payment").await, Some(expected), "{name}");
    }
    for (name, copy, stuck) in [
        ("dead_lettered_events_total", 0.0, 0.0),
        // What it has not passed on is not counted yet.
        ("expired_events_total", 3.0, 0.0),
        ("lag_events", 0.0, 23.0),
        ("route_blocked", 0.0, 1.0),
    ] {
        assert_eq!((of(name, "copy").await, of(name, "stuck").await), (Some(copy), Some(stuck)), "{name}");
    }
    for (name, expected) in [("published_events_total", 23.0), ("scheduled_events", 6.0)] {
        assert_eq!(of(name, "orders").await, Some(expected), "{name}");
    }
    let waiting = engine.metric("levada_subscription_waiting").await;
    let expected = ["full/held consumer", "orders/payment acknowledgements"].map(|it| (it.to_owned(), 1.0));
    assert_eq!(waiting.into_iter().collect::<Vec<_>>(), expected);
    drop(consumer);
    engine.broker.shutdown().await;
}
