//! Lists that no single frame holds come in pages, and clients put them together.

use levada_client::{DeleteOptions, RouteSpec, Start, SubscriptionOptions};
use levada_protocol::{
    limits::{FRAME_BYTES_MAX, PARTITIONS_MAX},
    request::{Request, Response},
};

use crate::support::{engine::Engine, events, raw};

/// As many entries as are well over what one frame holds.
const MANY: usize = 100;

fn named(number: usize) -> String {
    format!("s-{number:03}")
}

#[tokio::test]
async fn a_hundred_subscriptions_of_1024_partitions_are_listed_whole() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    client.create_topic("wide", events::partitions(PARTITIONS_MAX)).await.unwrap();
    for number in 0..MANY {
        let options = SubscriptionOptions::default();
        client.create_subscription("wide", &named(number), options, Start::Latest).await.unwrap();
    }
    let listed = client.list_subscriptions(Some("wide")).await.unwrap();
    assert!(rmp_serde::to_vec_named(&listed).unwrap().len() > FRAME_BYTES_MAX, "more than one frame holds");
    assert!(listed.iter().map(|found| found.name.to_string()).eq((0..MANY).map(named)));
    assert!(listed.iter().all(|found| found.positions.len() == usize::from(PARTITIONS_MAX)));
    assert_eq!(client.list_subscriptions(None).await.unwrap().len(), MANY);
    let described = client.describe_subscription("wide", &named(7)).await.unwrap();
    assert_eq!(described.positions.len(), usize::from(PARTITIONS_MAX));
}

#[tokio::test]
async fn topics_of_1024_partitions_are_listed_whole() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    for number in 0..MANY {
        client.create_topic(&named(number), events::partitions(PARTITIONS_MAX)).await.unwrap();
    }
    let listed = client.list_topics().await.unwrap();
    assert!(rmp_serde::to_vec_named(&listed).unwrap().len() > FRAME_BYTES_MAX, "more than one frame holds");
    assert!(listed.iter().map(|found| found.name.to_string()).eq((0..MANY).map(named)));
    let described = client.describe_topic(&named(7)).await.unwrap();
    assert_eq!(described.partitions.len(), usize::from(PARTITIONS_MAX));
}

#[tokio::test]
async fn pages_go_on_behind_their_last_entry_whatever_is_made_or_deleted_meanwhile() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    for name in ["a", "b", "c", "d", "e"] {
        events::topic(&client, name).await;
    }
    let (quic, ca) = (engine.started.quic, &engine.started.ca_pem_path);
    let (connection, _control, _) = raw::greet(quic, ca).await;
    let page = async |after: Option<&str>| {
        let request = Request::ListTopics { limit: 2, after: after.map(str::to_owned) };
        match raw::request(&connection, request).await {
            Response::Topics { topics, next } => {
                (topics.into_iter().map(|topic| topic.name.to_string()).collect::<Vec<_>>(), next)
            }
            other => panic!("expected topics, got {other:?}"),
        }
    };
    assert_eq!(page(None).await, (vec!["a".to_owned(), "b".to_owned()], Some("b".to_owned())));
    client.delete_topic("b", DeleteOptions::default()).await.unwrap();
    events::topic(&client, "aa").await;
    assert_eq!(page(Some("b")).await, (vec!["c".to_owned(), "d".to_owned()], Some("d".to_owned())));
    assert_eq!(page(Some("d")).await, (vec!["e".to_owned()], None));
    assert_eq!(page(Some("e")).await, (Vec::new(), None));
}

#[tokio::test]
async fn routes_and_subscriptions_come_in_pages_of_any_size() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    for name in ["one", "two", "to"] {
        events::topic(&client, name).await;
    }
    for (from, name) in [("one", "r-1"), ("two", "r-2"), ("one", "r-3")] {
        let spec = RouteSpec::new(name.parse().unwrap(), from.parse().unwrap(), ["to".parse().unwrap()]);
        client.create_route(spec).await.unwrap();
        let options = SubscriptionOptions::default();
        client.create_subscription(from, name, options, Start::Latest).await.unwrap();
    }
    let (quic, ca) = (engine.started.quic, &engine.started.ca_pem_path);
    let (connection, _control, _) = raw::greet(quic, ca).await;
    for limit in 1..=4 {
        let (mut routes, mut after) = (Vec::new(), None);
        loop {
            let Response::Routes { routes: page, next } =
                raw::request(&connection, Request::ListRoutes { limit, after }).await
            else {
                panic!("expected routes")
            };
            assert!(page.len() <= limit as usize);
            routes.extend(page.into_iter().map(|route| route.spec.name));
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(routes, ["r-1", "r-2", "r-3"], "pages of {limit}");
        let (mut paths, mut after) = (Vec::new(), None);
        loop {
            let request = Request::ListSubscriptions { topic: Some("one".parse().unwrap()), limit, after };
            let Response::Subscriptions { subscriptions: page, next } =
                raw::request(&connection, request).await
            else {
                panic!("expected subscriptions")
            };
            paths.extend(page.into_iter().map(|found| format!("{}/{}", found.topic, found.name)));
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(paths, ["one/r-1", "one/r-3"], "pages of {limit}");
    }
}
