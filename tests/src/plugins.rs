//! Plugins in front of subscriptions: real components that filter, change, fail and misbehave, and what is refused.

use bytes::Bytes;
use levada_client::{
    Client, DeleteOptions, ErrorCode, Event, OnError, Order, RunState, StageSpec, Start, SubscriptionOptions,
    WaitingFor,
};
use levada_protocol::{
    limits::ARTEFACT_BYTES_MAX,
    request::{Request, Response},
};

use crate::support::{
    engine::Engine,
    events::{self, code, consume, earliest, header, numbered, payload},
    guests::{self, hostile, stage},
    raw, until, within,
};

/// Options with this chain.
fn chained(chain: impl IntoIterator<Item = StageSpec>) -> SubscriptionOptions {
    SubscriptionOptions { chain: Some(chain.into_iter().collect()), ..SubscriptionOptions::default() }
}

fn text(payload: &str) -> Event {
    Event { payload: Some(Bytes::from(payload.to_owned())), ..numbered(0) }
}

async fn publish_texts(client: &Client, topic: &str, payloads: &[&str]) {
    events::publish(client, topic, payloads.iter().map(|payload| text(payload))).await;
}

fn texts(got: &[events::Got]) -> Vec<String> {
    got.iter().map(|got| String::from_utf8_lossy(payload(&got.event)).into_owned()).collect()
}

#[tokio::test]
async fn a_filter_and_a_projection_show_a_subscriber_what_it_may_see() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    guests::deploy(&client, "json-filter", "plugins/json-filter").await;
    guests::deploy(&client, "json-project", "plugins/json-project").await;
    let chain = [
        stage("json-filter", r#"{"where": "amount > 0 && header.region == \"eu\""}"#),
        stage("json-project", r#"{"keep": ["id", "amount"]}"#),
    ];
    let mut subscriber = client.subscribe(earliest("orders", "payment", chained(chain))).await.unwrap();
    let order = |id: u64| {
        let region = if id.is_multiple_of(3) { "us" } else { "eu" };
        let payload = format!(r#"{{"id":{id},"amount":{},"card":"secret"}}"#, id % 2);
        text(&payload).with_key(format!("order-{id}")).with_header("region", region)
    };
    events::publish(&client, "orders", (0..1_200).map(order)).await;
    let passing: Vec<u64> = (0..1_200).filter(|id| id % 2 == 1 && id % 3 != 0).collect();
    let got = consume(&mut subscriber, passing.len()).await;
    for (got, id) in got.iter().zip(&passing) {
        assert_eq!(got.offset, *id, "offsets stay those of the source");
        assert_eq!(payload(&got.event), format!(r#"{{"id":{id},"amount":1}}"#).as_bytes());
        assert_eq!(got.event.key, order(*id).key);
        assert_eq!(got.event.headers, order(*id).headers);
    }
    until("the last filtered event", async || {
        let described = client.describe_subscription("orders", "payment").await.unwrap();
        (described.positions[0].offset == 1_200 && described.lag == 0).then_some(())
    })
    .await;
    let plugins = client.list_plugins().await.unwrap();
    let filter = plugins.iter().find(|plugin| plugin.name == "json-filter").unwrap();
    assert!(filter.events_in >= 1_200 && filter.calls > 0 && filter.errors == 0, "{filter:?}");
    assert_eq!(filter.used_by, ["orders/payment"]);
    assert_eq!(events::read_all(&client, "orders").await[&0].len(), 1_200, "the topic keeps everything");
}

#[tokio::test]
async fn a_hostile_event_costs_itself_and_nothing_else() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    for topic in ["orders", "beside"] {
        events::topic(&client, topic).await;
    }
    guests::deploy_hostile(&client).await;
    let bad = ["trap", "loop", "memory", "recurse", "huge", "malformed", "fail", "reject"];
    let mut payloads = Vec::new();
    for (place, bad) in bad.iter().enumerate() {
        payloads.extend((0..25).map(|number| format!("good-{place}-{number}")));
        payloads.push((*bad).to_owned());
    }
    let all: Vec<&str> = payloads.iter().map(String::as_str).collect();
    let good: Vec<&str> = all.iter().copied().filter(|payload| payload.starts_with("good")).collect();
    publish_texts(&client, "orders", &all).await;
    let mut beside = events::subscribe(&client, "beside", "s").await;
    let options = chained([hostile(OnError::DeadLetter)]);
    let mut subscriber = client.subscribe(earliest("orders", "s", options)).await.unwrap();
    let neighbours = async {
        for number in 0..50 {
            events::publish(&client, "beside", [numbered(number)]).await;
            consume(&mut beside, 1).await;
        }
    };
    let (got, ()) = tokio::join!(consume(&mut subscriber, good.len()), neighbours);
    assert_eq!(texts(&got), good, "every other event flows, in order");
    until("the last dead letter", async || {
        let described = client.describe_subscription("orders", "s").await.unwrap();
        (described.lag == 0 && described.dead_lettered == 8).then_some(())
    })
    .await;
    let dead_letters = events::read_all(&client, "dlq.orders.s").await;
    assert_eq!(events::texts(&dead_letters, 0), bad);
    for (_, dead_letter) in &dead_letters[&0] {
        let given_up = matches!(payload(dead_letter), b"reject" | b"fail");
        let reason = if given_up { "rejected" } else { "plugin_error" };
        assert_eq!(header(dead_letter, "lv-dlq-reason").unwrap(), reason);
        assert!(!header(dead_letter, "lv-dlq-error").unwrap().is_empty());
        let offset: usize = header(dead_letter, "lv-dlq-offset").unwrap().parse().unwrap();
        assert_eq!(all[offset].as_bytes(), payload(dead_letter));
        assert_eq!(header(dead_letter, "lv-dlq-plugin").unwrap(), "hostile@1");
    }
    let errors = client.list_plugins().await.unwrap()[0].errors;
    assert!(errors >= 7, "{errors} failed calls are counted");
}

#[tokio::test]
async fn a_failing_event_is_skipped_or_passed_if_so_configured() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    guests::deploy_hostile(&client).await;
    publish_texts(&client, "orders", &["a", "trap", "b"]).await;
    for (name, on_error, expected) in
        [("skip", OnError::Skip, vec!["a", "b"]), ("pass", OnError::Pass, vec!["a", "trap", "b"])]
    {
        let options = chained([hostile(on_error)]);
        let mut subscriber = client.subscribe(earliest("orders", name, options)).await.unwrap();
        let got = consume(&mut subscriber, expected.len()).await;
        assert_eq!(texts(&got), expected, "{name}");
        let described = client.describe_subscription("orders", name).await.unwrap();
        assert_eq!((described.lag, described.dead_lettered), (0, 0), "{name}");
    }
    let topics: Vec<String> =
        client.list_topics().await.unwrap().into_iter().map(|topic| topic.name.to_string()).collect();
    assert_eq!(topics, ["orders"], "no dead letters, no topic for them");
}

#[tokio::test]
async fn a_place_pauses_until_somebody_resumes_it() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    guests::deploy_hostile(&client).await;
    publish_texts(&client, "orders", &["a", "b", "trap", "c"]).await;
    let options = chained([hostile(OnError::Pause)]);
    let mut subscriber = client.subscribe(earliest("orders", "s", options)).await.unwrap();
    assert_eq!(texts(&consume(&mut subscriber, 2).await), ["a", "b"]);
    let paused = async || {
        let described = client.describe_subscription("orders", "s").await.unwrap();
        (!described.state.is_running()).then(|| (described.state.to_string(), described.lag))
    };
    let (why, lag) = until("the pause", paused).await;
    assert!(why.contains("hostile@1"), "{why}");
    assert_eq!(lag, 2, "nothing is lost meanwhile");
    let waiting = client.describe_subscription("orders", "s").await.unwrap().waiting_for;
    assert!(matches!(&waiting, WaitingFor::Resume { why } if why.contains("hostile@1")), "{waiting:?}");
    // As long as the plugin is as it was, the chain pauses again.
    client.resume_subscription("orders", "s").await.unwrap();
    until("the second pause", paused).await;
    let engine = engine.restart().await;
    let client = engine.connect().await;
    // A version that can live with such events.
    guests::deploy(&client, "hostile", "plugins/sample").await;
    client.resume_subscription("orders", "s").await.unwrap();
    assert_eq!(texts(&consume(&mut subscriber, 2).await), ["trap", "c"]);
    assert_eq!(client.describe_subscription("orders", "s").await.unwrap().state, RunState::Running);
}

#[tokio::test]
async fn what_is_no_plugin_is_refused_and_nothing_is_stored() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    let core_module = Bytes::from_static(b"\0asm\x01\0\0\0");
    for (what, artefact, expected) in [
        ("text", Bytes::from_static(b"no component"), ErrorCode::PluginInvalid),
        ("nothing", Bytes::new(), ErrorCode::PluginInvalid),
        ("a core module", core_module, ErrorCode::PluginInvalid),
        ("half a component", guests::component("plugins/sample").slice(..2_000), ErrorCode::PluginInvalid),
        ("no export", guests::component("tests/guests/no-export"), ErrorCode::PluginExportMissing),
        ("an import", guests::component("tests/guests/denied"), ErrorCode::PluginImportDenied),
    ] {
        let refused = client.deploy_plugin("p", artefact, None).await.unwrap_err();
        assert_eq!(refused.code(), expected, "{what}: {refused}");
        assert!(refused.to_string().len() > expected.as_str().len() + 10, "{what}: {refused}");
    }
    let filter = guests::component("plugins/json-filter");
    let refused =
        client.deploy_plugin("p", filter, Some(r#"{"where": "amount >"}"#.into())).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::PluginInitRefused);
    assert!(refused.to_string().contains("column"), "{refused}");
    assert_eq!(code(client.deploy_plugin("No.Name", Bytes::new(), None).await), ErrorCode::InvalidName);
    let (connection, _control, _) = raw::greet(engine.started.quic, &engine.started.ca_pem_path).await;
    let size = ARTEFACT_BYTES_MAX as u64 + 1;
    let deploy = Request::DeployPlugin { name: "p".parse().unwrap(), size, config: None };
    match raw::request(&connection, deploy).await {
        Response::Refused(refusal) => assert_eq!(refusal.code, ErrorCode::PluginTooLarge),
        other => panic!("expected a refusal, got {other:?}"),
    }
    assert_eq!(client.list_plugins().await.unwrap(), []);
    let stored = std::fs::read_dir(engine.data_dir().join("plugins")).map_or(0, Iterator::count);
    assert_eq!(stored, 0, "no artefact is left behind");
}

#[tokio::test]
async fn a_chain_that_cannot_begin_makes_no_subscription() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    guests::deploy(&client, "json-filter", "plugins/json-filter").await;
    for (what, stage, expected) in [
        ("an absent plugin", stage("absent", "{}"), ErrorCode::PluginNotFound),
        ("an absent version", stage("json-filter@2", "{}"), ErrorCode::PluginNotFound),
        ("a refused configuration", stage("json-filter", r#"{"where": "("}"#), ErrorCode::PluginInitRefused),
        ("a configuration that is no JSON", stage("json-filter", "where"), ErrorCode::InvalidArgument),
    ] {
        let refused = client.subscribe(earliest("orders", "s", chained([stage]))).await.unwrap_err();
        assert_eq!(refused.code(), expected, "{what}: {refused}");
    }
    let of_stages = |count| chained((0..count).map(|_| stage("json-filter", r#"{"where": "a"}"#)));
    let many = earliest("orders", "s", of_stages(9));
    assert_eq!(code(client.subscribe(many).await), ErrorCode::InvalidArgument);
    assert_eq!(client.list_subscriptions(None).await.unwrap(), []);
    let most = client.subscribe(earliest("orders", "s", of_stages(8))).await.unwrap();
    drop(most);
    assert_eq!(client.list_subscriptions(None).await.unwrap().len(), 1);
}

#[tokio::test]
async fn versions_rise_and_one_in_use_is_not_removed() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    guests::deploy(&client, "p", "plugins/sample").await;
    let newest = client.deploy_plugin("p", guests::component("tests/guests/typed"), None).await.unwrap();
    assert_eq!((newest.version, newest.interface.as_str()), (2, "events"));
    let pinned = chained([stage("p@1", r#"{"transform": "upper"}"#)]);
    let mut subscriber = client.subscribe(earliest("orders", "pinned", pinned)).await.unwrap();
    publish_texts(&client, "orders", &["keep", "drop", "echo"]).await;
    assert_eq!(texts(&consume(&mut subscriber, 3).await), ["KEEP", "DROP", "ECHO"]);
    let mut subscriber =
        client.subscribe(earliest("orders", "newest", chained([stage("p", "{}")]))).await.unwrap();
    let got = texts(&consume(&mut subscriber, 2).await);
    assert_eq!(got[0], "keep");
    assert!(got[1].contains("Event"), "the typed guest speaks: {}", got[1]);

    assert_eq!(code(client.remove_plugin("p", Some(1)).await), ErrorCode::PluginInUse);
    assert_eq!(code(client.remove_plugin("absent", None).await), ErrorCode::PluginNotFound);
    drop(subscriber);
    client.delete_subscription("orders", "pinned", DeleteOptions::forced()).await.unwrap();
    client.remove_plugin("p", Some(1)).await.unwrap();
    let left: Vec<u32> =
        client.list_plugins().await.unwrap().into_iter().map(|plugin| plugin.version).collect();
    assert_eq!(left, [2]);
}

#[tokio::test]
async fn tiny_credit_behind_a_filter_loses_nothing() {
    let engine = Engine::with(|config| config.subscribe.tail_bytes_max = bytesize::ByteSize::b(1)).await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    guests::deploy(&client, "json-filter", "plugins/json-filter").await;
    let numbers = (0..3_000).map(|number| text(&format!("{{\"n\":{number},\"pass\":{}}}", number % 7 == 3)));
    events::publish(&client, "orders", numbers).await;
    let passing: Vec<u64> = (0..3_000).filter(|number| number % 7 == 3).collect();
    for credit_events in [1, 2, 7] {
        for order in [Order::Key, Order::None] {
            let name = format!("s-{credit_events}-{}", u8::from(order == Order::None));
            let options = SubscriptionOptions {
                order: Some(order),
                ..chained([stage("json-filter", r#"{"where": "pass"}"#)])
            };
            let ask = levada_client::SubscribeOptions { credit_events, ..earliest("orders", &name, options) };
            let mut subscriber = client.subscribe(ask).await.unwrap();
            let got = consume(&mut subscriber, passing.len()).await;
            let offsets: Vec<u64> = got.iter().map(|got| got.offset).collect();
            assert_eq!(offsets, passing, "{name}");
        }
    }
}

#[tokio::test]
async fn plugins_and_chains_survive_a_restart() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    guests::deploy(&client, "sample", "plugins/sample").await;
    let options = chained([stage("sample", r#"{"transform": "upper"}"#)]);
    client.create_subscription("orders", "s", options, Start::Earliest).await.unwrap();
    let before = client.list_plugins().await.unwrap();
    let engine = engine.restart().await;
    let client = engine.connect().await;
    let after = client.list_plugins().await.unwrap();
    assert_eq!((&after[0].sha256, after[0].version), (&before[0].sha256, 1));
    publish_texts(&client, "orders", &["quiet"]).await;
    let mut subscriber = events::subscribe_existing(&client, "orders", "s").await;
    assert_eq!(texts(&consume(&mut subscriber, 1).await), ["QUIET"]);
    within("the end", client.close()).await;
}

#[tokio::test]
async fn lists_and_metrics_answer_while_a_plugin_loops() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    guests::deploy_hostile(&client).await;
    let patient = StageSpec { deadline_ms: Some(60_000), ..hostile(OnError::DeadLetter) };
    publish_texts(&client, "orders", &["loop"]).await;
    let _subscriber = client.subscribe(earliest("orders", "s", chained([patient]))).await.unwrap();
    let plugin = async || client.list_plugins().await.unwrap().remove(0);
    until("the loop", async || (plugin().await.seconds > 0.0).then_some(())).await;
    publish_texts(&client, "orders", &["more"]).await;
    let described = client.describe_subscription("orders", "s").await.unwrap();
    assert_eq!((described.lag, described.state), (2, RunState::Running));
    let listed = client.list_subscriptions(None).await.unwrap();
    assert_eq!(listed.iter().map(|listed| listed.lag).collect::<Vec<_>>(), [2]);
    let (_, page) = engine.get("/metrics").await;
    assert!(page.contains(r#"levada_lag_events{subscription="orders/s"} 2"#), "{page}");
    assert!(
        page.contains(r#"levada_plugin_seconds_total{plugin="hostile@1",attachment="orders/s"}"#),
        "{page}"
    );
    let plugin = plugin().await;
    assert_eq!((plugin.calls, plugin.errors), (0, 0), "all of that was answered while the call ran");
}

#[tokio::test]
async fn errors_are_counted_with_their_reason_and_restarts_for_memory_apart() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    guests::deploy_hostile(&client).await;
    let options = chained([hostile(OnError::DeadLetter)]);
    let mut subscriber = client.subscribe(earliest("orders", "s", options)).await.unwrap();
    for _ in 0..12 {
        // Each leaves 4 MiB behind.
        publish_texts(&client, "orders", &["leak"]).await;
        consume(&mut subscriber, 1).await;
    }
    let plugin = client.list_plugins().await.unwrap().remove(0);
    assert_eq!((plugin.errors, &plugin.last_error), (0, &None));
    assert!(plugin.memory_restarts > 0, "{plugin:?}");
    publish_texts(&client, "orders", &["abort", "a"]).await;
    assert_eq!(texts(&consume(&mut subscriber, 1).await), ["a"]);
    let plugin = client.list_plugins().await.unwrap().remove(0);
    let last = plugin.last_error.clone().unwrap_or_default();
    assert!(plugin.errors > 0 && last.contains("uncaught exception"), "{plugin:?}");
    // A newer version begins at nothing, and what the older one cost stays told.
    guests::deploy(&client, "hostile", "plugins/sample").await;
    publish_texts(&client, "orders", &["b"]).await;
    assert_eq!(texts(&consume(&mut subscriber, 1).await), ["b"]);
    let plugins = client.list_plugins().await.unwrap();
    assert_eq!((plugins[0].errors, plugins[0].last_error.as_ref()), (plugin.errors, Some(&last)));
    assert_eq!((plugins[1].events_in, plugins[1].errors), (1, 0));
    let dead_letters = until("the dead letter", async || {
        let is_there = client.describe_subscription("orders", "s").await.unwrap().dead_lettered == 1;
        if is_there { Some(events::read_all(&client, "dlq.orders.s").await) } else { None }
    })
    .await;
    assert!(header(&dead_letters[&0][0].1, "lv-dlq-error").unwrap().contains("uncaught exception"));
}

#[tokio::test]
async fn a_deploy_has_a_time_of_its_own() {
    let engine = Engine::start().await;
    let component = tokio::task::spawn_blocking(|| guests::component("plugins/sample")).await.unwrap();
    // Enough for a small answer, and not for compiling a plugin.
    let hasty = engine.client_config().request_timeout(std::time::Duration::from_millis(1));
    let client = Client::connect(hasty).await.unwrap();
    assert_eq!(client.deploy_plugin("p", component, None).await.unwrap().version, 1);
}
