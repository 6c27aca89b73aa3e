//! Routes: from topic to topic through real components, each event exactly once.

use bytes::Bytes;
use levada_client::{
    Client, DeleteOptions, ErrorCode, Event, OnError, PartitionId, PauseReason, RouteInfo, RouteSpec,
    RunState, StageSpec, Start, TopicSettings,
};
use levada_protocol::partition::partition_of;

use crate::support::{
    engine::Engine,
    events::{self, code, header, numbered, payload},
    guests::{self, hostile, stage},
    rng::Rng,
    until,
};

fn route(name: &str, from: &str, to: &[&str], chain: impl IntoIterator<Item = StageSpec>) -> RouteSpec {
    RouteSpec {
        name: name.parse().unwrap(),
        from: from.parse().unwrap(),
        to: to.iter().map(|topic| topic.parse().unwrap()).collect(),
        chain: chain.into_iter().collect(),
        start: Start::Earliest,
    }
}

async fn info(client: &Client, name: &str) -> RouteInfo {
    let routes = client.list_routes().await.unwrap();
    routes.into_iter().find(|route| route.spec.name == name).unwrap()
}

/// Waits until a route has taken everything.
async fn caught_up(client: &Client, name: &str) {
    until("the route's end", async || (info(client, name).await.lag == 0).then_some(())).await;
}

fn text(payload: &str) -> Event {
    Event { payload: Some(Bytes::from(payload.to_owned())), ..numbered(0) }
}

#[tokio::test]
async fn a_route_s_outputs_are_its_inputs_once_each_across_restarts() {
    let mut rng = Rng::for_test("a_route_s_outputs_are_its_inputs_once_each_across_restarts");
    let mut engine =
        Engine::with(|config| config.subscribe.tail_bytes_max = bytesize::ByteSize::kib(100)).await;
    let client = engine.connect().await;
    client.create_topic("from", events::partitions(3)).await.unwrap();
    client.create_topic("to", events::partitions(3)).await.unwrap();
    guests::deploy(&client, "sample", "plugins/sample").await;
    let chain = [stage("sample", r#"{"transform": "reverse"}"#)];
    client.create_route(route("r", "from", &["to"], chain)).await.unwrap();
    for round in 0..4 {
        let client = engine.connect().await;
        let published: Vec<Event> =
            (0..5_000).map(|number| events::random_event(&mut rng, round * 5_000 + number)).collect();
        events::publish(&client, "from", published).await;
        // The route is in the middle of it.
        engine = engine.restart().await;
    }
    let client = engine.connect().await;
    caught_up(&client, "r").await;
    let (from, to) = (events::read_all(&client, "from").await, events::read_all(&client, "to").await);
    assert_eq!(from.values().map(Vec::len).sum::<usize>(), 20_000);
    for (partition, sources) in &from {
        events::assert_dense(&to[partition], 0);
        assert_eq!(to[partition].len(), sources.len(), "partition {partition}");
        for ((_, source), (offset, output)) in sources.iter().zip(&to[partition]) {
            let reversed: Vec<u8> = payload(source).iter().rev().copied().collect();
            let expected = Event { payload: Some(reversed.into()), ..source.clone() };
            assert_eq!(*output, expected, "partition {partition}, offset {offset}");
        }
    }
    let info = info(&client, "r").await;
    assert_eq!((info.state, info.lag), (RunState::Running, 0));
}

#[tokio::test]
async fn keys_choose_the_partition_of_the_target() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    client.create_topic("from", events::partitions(2)).await.unwrap();
    client.create_topic("to", events::partitions(5)).await.unwrap();
    client.create_route(route("r", "from", &["to"], [])).await.unwrap();
    let publisher = events::publisher(&client, "from").await;
    for number in 0..500_u64 {
        let keyed = numbered(number).with_key(format!("k{}", number % 23));
        drop(publisher.publish(keyed).await.unwrap());
        let partition = PartitionId(u16::try_from(number % 2).unwrap());
        drop(publisher.publish_to(partition, numbered(number)).await.unwrap());
    }
    publisher.flush().await.unwrap();
    caught_up(&client, "r").await;
    let to = events::read_all(&client, "to").await;
    let mut keyless = 0;
    for (partition, events) in &to {
        for (_, event) in events {
            match &event.key {
                Some(key) => assert_eq!(partition_of(key, 5).0, *partition),
                None => keyless += usize::from(*partition < 2),
            }
        }
    }
    assert_eq!(keyless, 500, "without a key the source's partition decides");
    assert_eq!(to.values().map(Vec::len).sum::<usize>(), 1_000);
}

#[tokio::test]
async fn outputs_with_the_id_of_their_source_are_all_stored_also_in_a_topic_with_a_dedup_window() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "from").await;
    let windowed = TopicSettings { dedup_window_ms: 60_000, ..TopicSettings::default() };
    client.create_topic("to", windowed).await.unwrap();
    for name in ["one", "two"] {
        client.create_route(route(name, "from", &["to"], [])).await.unwrap();
    }
    let named = Event { id: Some("order-1".into()), ..numbered(1) };
    events::publish(&client, "from", [named.clone()]).await;
    for name in ["one", "two"] {
        caught_up(&client, name).await;
    }
    let to = events::read_all(&client, "to").await;
    assert_eq!(to[&0].len(), 2, "each route's output is an event of its own");
    assert!(to[&0].iter().all(|(_, event)| event.id == named.id));
    events::publish(&client, "to", [named.clone(), named]).await;
    let to = events::read_all(&client, "to").await;
    assert_eq!(to[&0].len(), 3, "of what is published there the id is stored once");
}

#[tokio::test]
async fn a_router_sends_each_event_where_its_content_says() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    for topic in ["orders", "paid", "shipped", "other"] {
        events::topic(&client, topic).await;
    }
    guests::deploy(&client, "content-router", "plugins/content-router").await;
    let config = r#"{"field": "status", "routes": {"paid": "paid", "shipped": "shipped", "lost": "nowhere"},
        "default": "other"}"#;
    let spec = route("r", "orders", &["other", "paid", "shipped"], [stage("content-router", config)]);
    client.create_route(spec).await.unwrap();
    let statuses = ["paid", "new", "shipped", "lost", "paid", "old"];
    let events = statuses.iter().map(|status| text(&format!(r#"{{"status":"{status}"}}"#)));
    events::publish(&client, "orders", events).await;
    events::publish(&client, "orders", [text("no JSON")]).await;
    caught_up(&client, "r").await;
    for (topic, expected) in
        [("paid", vec!["paid", "paid"]), ("shipped", vec!["shipped"]), ("other", vec!["new", "old"])]
    {
        let expected: Vec<String> =
            expected.iter().map(|status| format!(r#"{{"status":"{status}"}}"#)).collect();
        assert_eq!(events::texts(&events::read_all(&client, topic).await, 0), expected, "{topic}");
    }
    let dead_letters = events::read_all(&client, "dlq.orders.route-r").await;
    assert_eq!(events::texts(&dead_letters, 0), [r#"{"status":"lost"}"#, "no JSON"]);
    let reasons: Vec<String> = dead_letters[&0]
        .iter()
        .map(|(_, dead_letter)| header(dead_letter, "lv-dlq-reason").unwrap())
        .collect();
    assert_eq!(reasons, ["plugin_error", "undecodable"], "a target outside the declaration is an error");
    assert_eq!(header(&dead_letters[&0][0].1, "lv-dlq-plugin").unwrap(), "content-router@1");
    assert_eq!(header(&dead_letters[&0][0].1, "lv-dlq-offset").unwrap(), "3");
    assert_eq!(info(&client, "r").await.dead_lettered, 2);
    let router = client.list_plugins().await.unwrap().remove(0);
    assert_eq!(router.errors, 1, "a rejection is no error");
    assert!(router.last_error.unwrap().contains("which the route does not declare"));
}

#[tokio::test]
async fn a_hostile_event_on_a_route_is_a_dead_letter_and_the_rest_goes_on() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    for topic in ["from", "to"] {
        events::topic(&client, topic).await;
    }
    guests::deploy_hostile(&client).await;
    client.create_route(route("r", "from", &["to"], [hostile(OnError::DeadLetter)])).await.unwrap();
    let bad = ["trap", "loop", "memory", "flood", "large-event", "missing"];
    let mut payloads = Vec::new();
    for (place, bad) in bad.iter().enumerate() {
        payloads.extend((0..20).map(|number| format!("good-{place}-{number}")));
        payloads.push((*bad).to_owned());
    }
    events::publish(&client, "from", payloads.iter().map(|payload| text(payload))).await;
    caught_up(&client, "r").await;
    let good: Vec<&String> = payloads.iter().filter(|payload| payload.starts_with("good")).collect();
    let routed = events::texts(&events::read_all(&client, "to").await, 0);
    assert!(routed.iter().eq(good), "{routed:?}");
    let dead_letters = events::read_all(&client, "dlq.from.route-r").await;
    assert_eq!(events::texts(&dead_letters, 0), bad);
    for (_, dead_letter) in &dead_letters[&0] {
        assert_eq!(header(dead_letter, "lv-dlq-reason").unwrap(), "plugin_error");
        assert_eq!(header(dead_letter, "lv-dlq-plugin").unwrap(), "hostile@1");
        assert_eq!(header(dead_letter, "lv-dlq-topic").unwrap(), "from");
    }
}

#[tokio::test]
async fn a_route_pauses_and_goes_on_where_it_stood() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    for topic in ["from", "to"] {
        events::topic(&client, topic).await;
    }
    guests::deploy_hostile(&client).await;
    client.create_route(route("r", "from", &["to"], [hostile(OnError::Pause)])).await.unwrap();
    events::publish(&client, "from", ["a", "trap", "b"].map(text)).await;
    let paused = async || {
        let info = info(&client, "r").await;
        matches!(info.state, RunState::Paused { reason: PauseReason::Plugin { .. } }).then_some(info)
    };
    let stopped = until("the pause", paused).await;
    assert!(stopped.state.to_string().contains("hostile@1"), "{}", stopped.state);
    assert_eq!((stopped.lag, stopped.positions[0].offset), (2, 1));
    client.resume_route("r").await.unwrap();
    guests::deploy(&client, "hostile", "plugins/sample").await;
    until("the route's end", async || {
        client.resume_route("r").await.unwrap();
        (info(&client, "r").await.lag == 0).then_some(())
    })
    .await;
    assert_eq!(events::texts(&events::read_all(&client, "to").await, 0), ["a", "trap", "b"]);
    assert_eq!(info(&client, "r").await.state, RunState::Running);
}

#[tokio::test]
async fn routes_that_cannot_be_are_refused() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    for topic in ["a", "b", "c"] {
        events::topic(&client, topic).await;
    }
    client.create_route(route("ab", "a", &["b"], [])).await.unwrap();
    client.create_route(route("bc", "b", &["c"], [])).await.unwrap();
    for (spec, expected) in [
        (route("ca", "c", &["a"], []), ErrorCode::RouteCycle),
        (route("aa", "a", &["a"], []), ErrorCode::RouteCycle),
        (route("ab", "a", &["c"], []), ErrorCode::RouteExists),
        (route("x", "absent", &["a"], []), ErrorCode::TopicNotFound),
        (route("x", "a", &["absent"], []), ErrorCode::TopicNotFound),
        (route("x", "a", &[], []), ErrorCode::InvalidArgument),
        (route("x", "a", &["dlq.a.s"], []), ErrorCode::InvalidArgument),
        (route("x", "a", &["b"], [stage("absent", "{}")]), ErrorCode::PluginNotFound),
    ] {
        assert_eq!(code(client.create_route(spec.clone()).await), expected, "{spec:?}");
    }
    assert_eq!(code(client.delete_route("absent", DeleteOptions::default()).await), ErrorCode::RouteNotFound);
    assert_eq!(code(client.resume_route("absent").await), ErrorCode::RouteNotFound);
    assert_eq!(code(client.resume_route("No Name").await), ErrorCode::InvalidName);
}

#[tokio::test]
async fn a_route_has_one_target_at_least_and_64_at_most() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "from").await;
    let names: Vec<String> = (0..65).map(|number| format!("to-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for name in &names {
        events::topic(&client, name).await;
    }
    for count in [0, 65] {
        let refused = client.create_route(route("r", "from", &names[..count], [])).await.unwrap_err();
        let said = format!("the route has {count} targets, expected 1 to 64");
        assert!(refused.to_string().contains(&said), "{refused}");
        assert_eq!(refused.code(), ErrorCode::InvalidArgument);
    }
    let most = client.create_route(route("r", "from", &names[..64], [])).await.unwrap();
    assert_eq!(most.spec.to.len(), 64);
}

#[tokio::test]
async fn a_deleted_route_takes_nothing_more_and_a_later_one_begins_anew() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    for topic in ["from", "to"] {
        events::topic(&client, topic).await;
    }
    client.create_route(route("r", "from", &["to"], [])).await.unwrap();
    events::publish_numbers(&client, "from", 0..3).await;
    caught_up(&client, "r").await;
    client.delete_route("r", DeleteOptions::default()).await.unwrap();
    events::publish_numbers(&client, "from", 3..5).await;
    let spec = RouteSpec { start: Start::Latest, ..route("r", "from", &["to"], []) };
    client.create_route(spec).await.unwrap();
    events::publish_numbers(&client, "from", 5..7).await;
    caught_up(&client, "r").await;
    assert_eq!(events::texts(&events::read_all(&client, "to").await, 0), ["0", "1", "2", "5", "6"]);
}
