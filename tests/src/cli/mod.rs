//! The binary from a user's side: every command, as text and as JSON, its exit codes, and what bad input gets.

mod backlog;
mod commands;
mod compact;
mod contexts;
mod dead_letters;
mod dedup;
mod dying;
mod events;
mod failures;
mod forward;
mod named;
mod playing;
mod principals;
mod purge;
mod schedule;
mod search;
mod streams;
mod subscriptions;
mod transactions;
mod ttl;

use std::{fs::File, io::Read as _};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{
    guests,
    process::{Process, Ran, command, run},
    within,
};

async fn engine() -> (TempDir, Process) {
    let dir = TempDir::new().unwrap();
    let engine = Process::start(&dir.path().join("data")).await;
    (dir, engine)
}

/// Runs a command of its own, without an engine to talk to.
async fn alone(arguments: &[&str]) -> Ran {
    let mut command = command();
    command.args(arguments);
    run(command, "").await
}

/// Waits until a question is asked on a terminal, which is returned for the answer.
async fn asked(mut terminal: File) -> File {
    let reading = tokio::task::spawn_blocking(move || {
        let mut shown = Vec::new();
        while !shown.ends_with(b"[y/N] ") {
            let mut byte = [0];
            terminal.read_exact(&mut byte).unwrap();
            shown.push(byte[0]);
        }
        terminal
    });
    within("the question", reading).await.unwrap()
}

/// The commands that a help lists, without `help` itself.
fn subcommands(help: &str) -> Vec<String> {
    let Some((_, listed)) = help.split_once("Commands:\n") else { return Vec::new() };
    let is_name = |line: &&str| line.starts_with("  ") && !line.starts_with("   ");
    let listed = listed.lines().take_while(|line| !line.is_empty()).filter(is_name);
    let names = listed.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

impl Process {
    /// Runs a command that must work, and returns its output as text.
    async fn text(&self, arguments: &[&str]) -> String {
        self.run(arguments, "").await.done()
    }

    /// Runs a command that must work with `--output json`, and returns its lines.
    async fn json(&self, arguments: &[&str]) -> Vec<Value> {
        self.run(&[arguments, &["--output", "json"]].concat(), "").await.json()
    }
}

#[tokio::test]
async fn shells_get_completions_that_name_every_command() {
    let help = alone(&["--help"]).await.done();
    let commands = subcommands(&help);
    assert!(commands.len() > 10, "{help}");
    for shell in ["bash", "zsh", "fish"] {
        let script = alone(&["completion", shell]).await.done();
        // fish names long options without their dashes.
        let words = commands.iter().map(String::as_str).chain(["max-in-flight", "payload"]);
        for word in words {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}

#[tokio::test]
async fn topics_from_the_command_line() {
    let (_dir, engine) = engine().await;
    let made = engine.text(&["topic", "create", "orders", "--partitions", "2", "--retain-for", "7d"]).await;
    assert!(
        made.contains("orders")
            && made.contains("2 partitions")
            && made.contains("retain time-and-acked for 7d,"),
        "{made}"
    );
    let bills = [
        "topic",
        "create",
        "bills",
        "--durability",
        "os",
        "--retain",
        "time-and-size",
        "--max-bytes",
        "10GiB",
    ];
    let made = engine.json(&bills).await;
    assert_eq!(made[0]["settings"]["durability"], "os");
    assert_eq!(made[0]["settings"]["max_bytes"], 10_u64 << 30);
    let again = engine.json(&bills).await;
    assert_eq!((&again[0]["created"], &made[0]["created"]), (&json!(false), &json!(true)));
    let other = engine.run(&["topic", "create", "bills"], "").await;
    other.failed(1, "TOPIC_EXISTS");
    assert!(other.stderr.contains("topic bills exists with --durability os, expected sync"), "{other:?}");
    let listed = engine.text(&["topic", "list"]).await;
    assert_eq!(listed.lines().count(), 3, "a heading and two topics: {listed}");
    let listed = engine.json(&["topic", "list"]).await;
    assert_eq!((&listed[0]["name"], &listed[1]["name"]), (&json!("bills"), &json!("orders")));
    engine.text(&["topic", "set", "orders", "--retain", "time-and-size", "--max-bytes", "1MiB"]).await;
    let described = engine.json(&["topic", "describe", "orders"]).await;
    assert_eq!(described[0]["settings"]["retain"], "time_and_size");
    assert_eq!(described[0]["settings"]["retain_for_ms"], 7 * 86_400_000, "what is not named stays");
    assert_eq!(described[0]["partitions"].as_array().unwrap().len(), 2);
    let described = engine.text(&["topic", "describe", "orders"]).await;
    assert!(described.contains("NEXT OFFSET"), "{described}");
    assert_eq!(engine.text(&["topic", "delete", "bills", "--quiet"]).await, "");
    let gone = engine.run(&["topic", "describe", "bills"], "").await;
    gone.failed(1, "TOPIC_NOT_FOUND");
    assert!(gone.stderr.contains("hint: "), "{gone:?}");
    engine.stop().await;
}

#[tokio::test]
async fn what_is_published_is_read_and_consumed_as_it_was() {
    let (dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders"]).await;
    let lines = concat!(
        r#"{"key":"a","headers":{"x":"1","y":["2","3"]},"payload":{"n":1,"s":"ü"},"id":"one"}"#,
        "\n",
        r#"{"payload":"text","time":"2026-01-31T12:00:00Z"}"#,
        "\n",
        "\n",
        r#"{"payload_base64":"AP8="}"#,
        "\n",
    );
    let published =
        engine.run(&["publish", "orders", "--key", "k", "--header", "all=yes"], lines).await.done();
    assert!(
        published.contains("published 3 events to orders") && published.contains("offset 2"),
        "{published}"
    );
    let raw = engine.run(&["publish", "orders", "--raw", "--output", "json"], "plain\nlines\n").await.json();
    assert_eq!(raw[0]["published"], 2);
    let file = dir.path().join("events.ndjson");
    std::fs::write(&file, "{\"payload\":5}\n").unwrap();
    engine.text(&["publish", "orders", "--file", file.to_str().unwrap()]).await;

    let read = engine.run(&["read", "orders"], "").await.json();
    assert_eq!(read.len(), 6);
    assert_eq!((&read[0]["key"], &read[0]["payload"]), (&json!("a"), &json!({"n": 1, "s": "ü"})));
    assert_eq!(read[0]["headers"], json!({"all": "yes", "x": "1", "y": ["2", "3"]}));
    assert_eq!(
        (&read[0]["id"], &read[0]["offset"], &read[0]["topic"]),
        (&json!("one"), &json!(0), &json!("orders"))
    );
    assert_eq!((&read[1]["key"], &read[1]["time"]), (&json!("k"), &json!("2026-01-31T12:00:00Z")));
    assert_eq!(read[2]["payload_base64"], "AP8=");
    assert_eq!(read[5]["payload"], 5);
    assert_eq!(engine.run(&["read", "orders", "--from", "3", "--max", "2"], "").await.json().len(), 2);

    let consume = ["subscribe", "orders", "--subscription", "s", "--from", "earliest", "--max"];
    let none = engine.run(&[&consume[..], &["2", "--no-ack"]].concat(), "").await.json();
    let first = engine.run(&[&consume[..], &["4"]].concat(), "").await.json();
    let second = engine.run(&[&consume[..], &["2"]].concat(), "").await.json();
    let offsets =
        |lines: &[Value]| lines.iter().map(|line| line["offset"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(offsets(&none), [0, 1]);
    assert_eq!((offsets(&first), offsets(&second)), (vec![0, 1, 2, 3], vec![4, 5]));
    assert_eq!(first[0]["delivery"], "orders/s/0/0");
    // What was printed is what can be published.
    let again: String = read.iter().map(|line| format!("{line}\n")).collect();
    engine.run(&["publish", "orders"], &again).await.done();
    let copied = engine.run(&["read", "orders", "--from", "6"], "").await.json();
    for (copy, original) in copied.iter().zip(&read) {
        for field in ["key", "headers", "payload", "id", "time"] {
            assert_eq!(copy[field], original[field], "{field}");
        }
    }
    engine.stop().await;
}

#[tokio::test]
async fn subscriptions_plugins_and_routes_from_the_command_line() {
    let (dir, engine) = engine().await;
    for topic in ["orders", "eu", "us"] {
        engine.text(&["topic", "create", topic]).await;
    }
    let bundled = engine.json(&["plugin", "deploy", "--bundled"]).await;
    assert_eq!(bundled.len(), 4, "{bundled:?}");
    assert!(bundled.iter().all(|plugin| plugin["deployed"] == true), "{bundled:?}");
    let again = engine.text(&["plugin", "deploy", "--bundled"]).await;
    assert!(again.lines().all(|line| line.starts_with("already deployed as ")), "{again}");
    let file = dir.path().join("plugin.wasm");
    std::fs::write(&file, guests::component("plugins/sample")).unwrap();
    let deployed = engine.text(&["plugin", "deploy", "mine", file.to_str().unwrap(), "--config", "{}"]).await;
    assert!(deployed.contains("mine@1"), "{deployed}");
    let again = engine.json(&["plugin", "deploy", "mine", file.to_str().unwrap()]).await;
    assert_eq!((&again[0]["version"], &again[0]["already_deployed"]), (&json!(1), &json!(true)));
    let listed = engine.text(&["plugin", "list"]).await;
    assert!(listed.contains("json-filter@1") && listed.contains("mine@1"), "{listed}");

    let router = r#"content-router:{"field":"region","routes":{"us":"us"},"default":"eu"}"#;
    let create =
        ["route", "create", "split", "--from", "orders", "--to", "eu", "--to", "us", "--plugin", router];
    let made = engine.text(&[&create[..], &["--start", "earliest"]].concat()).await;
    assert!(made.contains("created route split: orders -> eu, us"), "{made}");
    let again = engine.json(&[&create[..], &["--start", "earliest"]].concat()).await;
    assert_eq!(again[0]["created"], false, "a route that is there as it was to be");
    let other = engine.run(&create[..create.len() - 2], "").await;
    other.failed(1, "ROUTE_EXISTS");
    assert!(
        other.stderr.contains("route split exists with chain [content-router], expected []"),
        "{other:?}"
    );
    let filter = r#"json-filter:{"where":"amount > 1"}"#;
    let subscribe =
        ["subscribe", "orders", "-s", "rich", "--from", "earliest", "--plugin", filter, "--max", "2"];
    let orders: String = (0..4)
        .map(|amount| {
            format!("{{\"payload\":{{\"amount\":{amount},\"region\":\"{}\"}}}}\n", ["eu", "us"][amount % 2])
        })
        .collect();
    engine.run(&["publish", "orders"], &orders).await.done();
    let rich = engine.run(&subscribe, "").await.json();
    assert_eq!((&rich[0]["offset"], &rich[1]["offset"]), (&json!(2), &json!(3)));
    let eu = engine.run(&["subscribe", "eu", "-s", "s", "--from", "earliest", "--max", "2"], "").await.json();
    assert_eq!((&eu[0]["payload"]["amount"], &eu[1]["payload"]["amount"]), (&json!(0), &json!(2)));

    let listed = engine.json(&["subscription", "list", "orders"]).await;
    assert_eq!((&listed[0]["name"], &listed[0]["lag"]), (&json!("rich"), &json!(0)));
    let described = engine.text(&["subscription", "describe", "orders/rich"]).await;
    assert!(described.contains("json-filter") && described.contains("running"), "{described}");
    let resumed = engine.text(&["subscription", "resume", "orders/rich"]).await;
    assert!(resumed.contains("was not paused"), "{resumed}");
    let routes = engine.text(&["route", "list"]).await;
    assert!(routes.contains("split") && routes.contains("running"), "{routes}");
    let route = engine.text(&["route", "describe", "split"]).await;
    assert!(route.contains("deadline 100ms") && route.contains(router), "{route}");
    engine.run(&["plugin", "remove", "json-filter"], "").await.failed(1, "PLUGIN_IN_USE");
    engine.text(&["subscription", "delete", "orders/rich"]).await;
    engine.text(&["plugin", "remove", "json-filter@1"]).await;
    engine.text(&["route", "resume", "split"]).await;
    engine.text(&["route", "delete", "split"]).await;
    assert_eq!(engine.json(&["route", "list"]).await, Vec::<Value>::new());
    engine.run(&["subscription", "describe", "orders/rich"], "").await.failed(1, "SUBSCRIPTION_NOT_FOUND");
    engine.stop().await;
}

#[tokio::test]
async fn health_and_metrics_say_how_things_stand() {
    let (_dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders"]).await;
    engine.run(&["publish", "orders", "--raw"], "a\nb\n").await.done();
    engine.text(&["subscribe", "orders", "-s", "s", "--from", "earliest", "--max", "1"]).await;
    assert!(get(&engine, "/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(get(&engine, "/readyz").await.starts_with("HTTP/1.1 200"));
    assert!(get(&engine, "/absent").await.contains("\"code\""));
    let metrics = get(&engine, "/metrics").await;
    for name in [
        "levada_published_events_total{topic=\"orders\"} 2",
        "levada_delivered_events_total",
        "levada_lag_events",
        "levada_oldest_unacked_seconds",
        "levada_subscription_lost_events_total{subscription=\"orders/s\"} 0",
        "levada_subscription_consumers{subscription=\"orders/s\"}",
        "levada_subscription_in_flight_events{subscription=\"orders/s\"}",
        "levada_subscription_arriving_events_per_second{subscription=\"orders/s\"}",
        "levada_subscription_settling_events_per_second{subscription=\"orders/s\"}",
        "levada_sync_seconds",
        "levada_disk_free_bytes",
        "levada_writable 1",
    ] {
        assert!(metrics.contains(name), "{name} is not among the metrics:\n{metrics}");
    }
    engine.stop().await;
}

/// What the engine's HTTP answers, headers and all.
async fn get(engine: &Process, path: &str) -> String {
    let mut stream = TcpStream::connect(&engine.http).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: levada\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within("an HTTP answer", stream.read_to_string(&mut answer)).await.unwrap();
    answer
}
