//! Metrics of deleted things: there are none.

use levada_protocol::request::{Request, RouteSpec, Start, SubscriptionOptions, TopicSettings};

use crate::support::Engine;

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
