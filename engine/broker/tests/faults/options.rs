//! What is given of options and settings, and what is left as it is.

use bytes::Bytes;
use levada_broker::Principal;
use levada_protocol::{
    error::ErrorCode,
    publish::Durability,
    request::{
        OnError, OnFull, Order, Request, Response, Retain, RouteSpec, StageSpec, Start, SubscriptionOptions,
        TopicChanges, TopicSettings,
    },
};

use crate::support::{Engine, PLENTY, delivery};

/// A topic and a subscription with a chain, on an engine that has its plugin.
async fn with_chain() -> Engine {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    let deploy = Request::DeployPlugin { name: "keep".parse().unwrap(), size: 3, config: None };
    engine.broker.request(&Principal::Local, deploy, Some(Bytes::from_static(b"one"))).await.unwrap();
    let stage = StageSpec {
        plugin: "keep".into(),
        config: r#"{"currency": "EUR"}"#.into(),
        retries: Some(9),
        ..StageSpec::default()
    };
    let options = SubscriptionOptions { chain: Some(vec![stage]), ..SubscriptionOptions::default() };
    let (topic, name) = ("orders".parse().unwrap(), "payment".parse().unwrap());
    engine.ask(Request::CreateSubscription { topic, name, options, from: Start::Earliest }).await;
    engine
}

#[tokio::test]
async fn options_that_are_not_given_are_taken_as_they_are() {
    let engine = with_chain().await;
    let same = StageSpec {
        plugin: "keep".into(),
        config: "{ \"currency\":\"EUR\" }".into(),
        ..StageSpec::default()
    };
    for given in [
        SubscriptionOptions::default(),
        SubscriptionOptions { ack_timeout_ms: Some(30_000), ..SubscriptionOptions::default() },
        SubscriptionOptions { chain: Some(vec![same]), ..SubscriptionOptions::default() },
    ] {
        drop(engine.subscribe(given).await);
    }
    let described = engine.info().await.options;
    assert_eq!((described.order, described.ack_timeout_ms), (Some(Order::Key), Some(30_000)));
    let stage = &described.chain()[0];
    assert_eq!((stage.retries, stage.on_error), (Some(9), Some(OnError::DeadLetter)), "all of it is told");
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn the_option_that_differs_is_named_with_both_values() {
    let engine = with_chain().await;
    let refused = async |given: SubscriptionOptions| {
        let refused = engine.broker.subscribe(&Principal::Local, Engine::wanted(Some(given))).await;
        let refused = refused.expect_err("it is refused");
        assert_eq!(refused.code(), ErrorCode::SubscriptionMismatch);
        refused.to_string()
    };
    let timeout = SubscriptionOptions { ack_timeout_ms: Some(5_000), ..SubscriptionOptions::default() };
    let said = refused(timeout).await;
    assert!(
        said.contains("orders/payment has ack_timeout_ms 30000, got 5000; change the subscription, or"),
        "{said}"
    );
    assert!(!said.contains("chain"), "{said}");
    let other =
        StageSpec { plugin: "keep".into(), config: r#"{"currency":"eur"}"#.into(), ..StageSpec::default() };
    let chain = SubscriptionOptions { chain: Some(vec![other]), ..SubscriptionOptions::default() };
    let said = refused(chain).await;
    assert!(said.contains(r#"chain[0].config.currency "EUR", got "eur""#), "{said}");
    let none = SubscriptionOptions { chain: Some(Vec::new()), ..SubscriptionOptions::default() };
    let said = refused(none).await;
    assert!(said.contains("chain [keep], got []"), "{said}");
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_bound_that_retention_would_ignore_is_refused_with_what_it_contradicts() {
    let engine = Engine::start();
    let ask = async |request| engine.broker.request(&Principal::Local, request, None).await;
    let create = |name: &str, settings| Request::CreateTopic { name: name.parse().unwrap(), settings };
    let bounded = TopicSettings { max_bytes: 1 << 30, ..TopicSettings::default() };
    let said = ask(create("orders", bounded.clone())).await.unwrap_err().to_string();
    assert!(said.contains("max_bytes 1073741824 has no effect with retain time_and_acked"), "{said}");
    let aged = TopicSettings { retain: Retain::Compact, retain_for_ms: 9, ..TopicSettings::default() };
    let said = ask(create("orders", aged)).await.unwrap_err().to_string();
    assert!(said.contains("retain_for_ms 9 has no effect with retain compact"), "{said}");
    engine.topic("orders", TopicSettings { retain: Retain::TimeAndSize, ..bounded }).await;
    let set = |settings| Request::SetTopic { name: "orders".parse().unwrap(), settings };
    // What was given before and has no effect any more is in nobody's way.
    engine.ask(set(TopicChanges { retain: Some(Retain::Compact), ..TopicChanges::default() })).await;
    let changes = TopicChanges { max_bytes: Some(9), ..TopicChanges::default() };
    let said = ask(set(changes)).await.unwrap_err().to_string();
    assert!(said.contains("max_bytes 9 has no effect with retain compact"), "{said}");
    let changes = TopicChanges { retain_for_ms: Some(9), ..TopicChanges::default() };
    let said = ask(set(changes)).await.unwrap_err().to_string();
    assert!(said.contains("retain_for_ms 9 has no effect with retain compact"), "{said}");
    let none = TopicChanges { max_bytes: Some(0), ..TopicChanges::default() };
    engine.ask(set(none)).await;
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_chain_of_a_subscription_or_a_route_has_8_plugins_and_not_9() {
    let engine = Engine::start();
    for name in ["orders", "copies"] {
        engine.topic(name, TopicSettings::default()).await;
    }
    engine.deploy(b"one").await;
    let chain = |stages| vec![StageSpec { plugin: "keep".into(), ..StageSpec::default() }; stages];
    let topic = |name: &str| name.parse().unwrap();
    let create = |stages| Request::CreateSubscription {
        topic: topic("orders"),
        name: "payment".parse().unwrap(),
        options: SubscriptionOptions { chain: Some(chain(stages)), ..SubscriptionOptions::default() },
        from: Start::Earliest,
    };
    let set = |stages| Request::SetSubscription {
        topic: topic("orders"),
        name: "payment".parse().unwrap(),
        options: SubscriptionOptions { chain: Some(chain(stages)), ..SubscriptionOptions::default() },
    };
    let route = |stages| {
        let spec = RouteSpec::new("copy".parse().unwrap(), topic("orders"), [topic("copies")]);
        Request::CreateRoute(RouteSpec { chain: chain(stages), start: Start::Earliest, ..spec })
    };
    let requests: [&dyn Fn(usize) -> Request; 3] = [&create, &set, &route];
    for request in requests {
        let refused = engine.broker.request(&Principal::Local, request(9), None).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::InvalidArgument, "{refused}");
        assert!(refused.to_string().contains("the chain has 9 stages, the limit is 8"), "{refused}");
        engine.ask(request(8)).await;
    }
    assert_eq!(engine.info().await.options.chain().len(), 8);
    engine.publish("orders", 3).await;
    let mut consumer = engine.subscribe(SubscriptionOptions::default()).await;
    consumer.control.credit(PLENTY).await.unwrap();
    assert_eq!(delivery(&mut consumer.outgoing).await.1, [0, 1, 2], "they passed all of them");
    let mut reader = engine.reader("copies").await;
    assert_eq!(delivery(&mut reader.outgoing).await.1, [0, 1, 2]);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn settings_that_are_not_given_stay_as_they_are() {
    let engine = Engine::start();
    let made = TopicSettings {
        partitions: 3,
        durability: Durability::Os,
        retain: Retain::UntilAcked,
        retain_for_ms: 7,
        max_bytes: 0,
        dedup_window_ms: 7,
        dedup_header: "source".to_owned(),
        backlog_max_events: 1_000,
        backlog_max_bytes: 1 << 20,
        backlog_max_age_ms: 3_600_000,
        on_full: OnFull::DropOldest,
    };
    engine.topic("orders", made.clone()).await;
    let changes = TopicChanges { retain_for_ms: Some(8), ..TopicChanges::default() };
    let Response::Topic(now) =
        engine.ask(Request::SetTopic { name: "orders".parse().unwrap(), settings: changes }).await
    else {
        panic!("no topic")
    };
    assert_eq!(now.settings, TopicSettings { retain_for_ms: 8, ..made });
    engine.broker.shutdown().await;
}
