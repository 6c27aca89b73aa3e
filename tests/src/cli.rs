//! The binary from a user's side: every command, as text and as JSON, its exit codes, and what bad input gets.

use std::path::Path;

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

impl Process {
    /// Runs a command that must work, and answers its output as text.
    async fn text(&self, arguments: &[&str]) -> String {
        self.run(arguments, "").await.done()
    }

    /// Runs a command that must work with `--output json`, and answers its lines.
    async fn json(&self, arguments: &[&str]) -> Vec<Value> {
        self.run(&[arguments, &["--output", "json"]].concat(), "").await.json()
    }
}

#[tokio::test]
async fn topics_from_the_command_line() {
    let (_dir, engine) = engine().await;
    let made = engine.text(&["topic", "create", "orders", "--partitions", "2", "--retain-for", "7d"]).await;
    assert!(made.contains("orders") && made.contains("2 partitions") && made.contains("7days"), "{made}");
    let made = engine.json(&["topic", "create", "bills", "--durability", "os", "--max-bytes", "10GiB"]).await;
    assert_eq!(made[0]["settings"]["durability"], "os");
    assert_eq!(made[0]["settings"]["max_bytes"], 10_u64 << 30);
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
        r#"{"payload":{"base64":"AP8="}}"#,
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
    assert_eq!(read[2]["payload"], json!({"base64": "AP8="}));
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
    let file = dir.path().join("plugin.wasm");
    std::fs::write(&file, guests::component("plugins/sample")).unwrap();
    let deployed = engine.text(&["plugin", "deploy", "mine", file.to_str().unwrap(), "--config", "{}"]).await;
    assert!(deployed.contains("mine@1"), "{deployed}");
    let listed = engine.text(&["plugin", "list"]).await;
    assert!(listed.contains("json-filter@1") && listed.contains("mine@1"), "{listed}");

    let router = r#"content-router:{"field":"region","routes":{"us":"us"},"default":"eu"}"#;
    let create =
        ["route", "create", "split", "--from", "orders", "--to", "eu", "--to", "us", "--plugin", router];
    let made = engine.text(&[&create[..], &["--start", "earliest"]].concat()).await;
    assert!(made.contains("orders -> eu, us"), "{made}");
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
    engine.text(&["subscription", "resume", "orders/rich"]).await;
    let routes = engine.text(&["route", "list"]).await;
    assert!(routes.contains("split") && routes.contains("running"), "{routes}");
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
async fn bad_input_gets_its_code_on_stderr_and_its_exit_code() {
    let (dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders"]).await;
    let text = dir.path().join("text.wasm");
    std::fs::write(&text, "no component").unwrap();
    let no_export = dir.path().join("no-export.wasm");
    std::fs::write(&no_export, guests::component("tests/guests/no-export")).unwrap();
    let filter = dir.path().join("filter.wasm");
    std::fs::write(&filter, guests::component("plugins/json-filter")).unwrap();
    let path = |file: &Path| file.to_str().unwrap().to_owned();
    let (text, no_export, filter) = (path(&text), path(&no_export), path(&filter));
    for (arguments, exit, code) in [
        (vec!["publish", "absent"], 1, "TOPIC_NOT_FOUND"),
        (vec!["read", "absent"], 1, "TOPIC_NOT_FOUND"),
        (vec!["topic", "create", "orders"], 1, "TOPIC_EXISTS"),
        (vec!["topic", "create", "No Name"], 2, "INVALID_ARGUMENT"),
        (vec!["topic", "create", "x", "--partitions", "0"], 2, "INVALID_ARGUMENT"),
        (vec!["topic", "create", "x", "--retain-for", "soon"], 2, "INVALID_ARGUMENT"),
        (vec!["read", "orders", "--from", "1"], 1, "OFFSET_OUT_OF_RANGE"),
        (vec!["read", "orders", "--from", "tomorrow"], 2, "INVALID_ARGUMENT"),
        (vec!["read", "orders", "--partition", "1"], 1, "PARTITION_NOT_FOUND"),
        (vec!["subscribe", "orders", "-s", "publish"], 2, "INVALID_ARGUMENT"),
        (vec!["subscribe", "orders", "-s", "s", "--plugin", "absent"], 1, "PLUGIN_NOT_FOUND"),
        (vec!["plugin", "deploy", "p", &text], 1, "PLUGIN_INVALID"),
        (vec!["plugin", "deploy", "p", &no_export], 1, "PLUGIN_EXPORT_MISSING"),
        (vec!["plugin", "deploy", "p", &filter, "--config", r#"{"where":"("}"#], 1, "PLUGIN_INIT_REFUSED"),
        (vec!["plugin", "deploy", "p", &filter, "--config", "{"], 2, "INVALID_ARGUMENT"),
        (vec!["plugin", "deploy", "p", "absent.wasm"], 1, "INVALID_ARGUMENT"),
        (vec!["plugin", "remove", "absent"], 1, "PLUGIN_NOT_FOUND"),
        (vec!["route", "create", "r", "--from", "orders", "--to", "absent"], 1, "TOPIC_NOT_FOUND"),
        (vec!["route", "create", "r", "--from", "orders", "--to", "orders"], 1, "ROUTE_CYCLE"),
        (vec!["route", "delete", "absent"], 1, "ROUTE_NOT_FOUND"),
        (vec!["nonsense"], 2, "INVALID_ARGUMENT"),
        (vec!["topic"], 2, ""),
    ] {
        let ran = engine.run(&arguments, "").await;
        match code {
            "" => assert_eq!(ran.code, exit, "{ran:?}"),
            code => ran.failed(exit, code),
        }
    }
    let broken =
        engine.run(&["publish", "orders"], "{\"payload\":1}\n{\"payload\":}\n{\"payload\":3}\n").await;
    broken.failed(1, "INVALID_ARGUMENT");
    assert!(broken.stderr.contains("line 2"), "{broken:?}");
    assert_eq!(engine.run(&["read", "orders"], "").await.json().len(), 1, "up to the wrong line");
    engine.stop().await;
}

#[tokio::test]
async fn an_engine_that_cannot_start_says_why() {
    let (dir, engine) = engine().await;
    let data = dir.path().join("data");
    let other = dir.path().join("other");
    let serve = async |data: &Path, more: &[&str]| {
        let mut arguments = vec!["serve", "--data-dir", data.to_str().unwrap()];
        arguments.extend(more);
        alone(&arguments).await
    };
    let any = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    serve(&data, &any).await.failed(1, "STORAGE_IN_USE");
    serve(&other, &["--listen", &engine.quic, "--http", "127.0.0.1:0"]).await.failed(1, "ADDRESS_IN_USE");
    serve(&other, &["--listen", "127.0.0.1:0", "--http", &engine.http]).await.failed(1, "ADDRESS_IN_USE");
    serve(&other, &["--listen", "0.0.0.0:0", "--http", "127.0.0.1:0"]).await.failed(1, "CONFIG_INVALID");
    serve(&other, &["--listen", "nowhere"]).await.failed(2, "INVALID_ARGUMENT");
    let config = dir.path().join("levada.toml");
    std::fs::write(&config, "listen = \"127.0.0.1:0\"\nretention_intervall = \"1s\"\n").unwrap();
    let wrong = serve(&other, &["--config", config.to_str().unwrap()]).await;
    wrong.failed(1, "CONFIG_INVALID");
    assert!(wrong.stderr.contains("line 2") && wrong.stderr.contains("retention_intervall"), "{wrong:?}");
    serve(&other, &["--config", "absent.toml"]).await.failed(1, "CONFIG_INVALID");
    engine.stop().await;

    std::fs::write(data.join("format"), "levada data format 2\n").unwrap();
    serve(&data, &any).await.failed(1, "STORAGE_NEWER");
    std::fs::write(data.join("format"), "nothing of the kind\n").unwrap();
    serve(&data, &any).await.failed(1, "STORAGE_CORRUPT");
    std::fs::write(data.join("format"), "levada data format 1\n").unwrap();
    Process::start(&data).await.stop().await;
}

#[tokio::test]
async fn an_engine_that_is_not_trusted_or_not_there_is_said_so() {
    let (dir, engine) = engine().await;
    let (_other_dir, other) = self::engine().await;
    let list = async |addr: &str, ca: &Path| {
        let mut command = command();
        command.args(["topic", "list", "--addr", addr, "--ca"]).arg(ca).current_dir(dir.path());
        run(command, "").await
    };
    let foreign = list(&engine.quic, &other.ca).await;
    foreign.failed(1, "TLS_FAILED");
    assert!(foreign.stderr.contains("not signed by the given CA"), "{foreign:?}");
    let garbage = dir.path().join("garbage.pem");
    std::fs::write(&garbage, "no certificate").unwrap();
    list(&engine.quic, &garbage).await.failed(1, "CONFIG_INVALID");
    list(&engine.quic, &dir.path().join("absent.pem")).await.failed(1, "CONFIG_INVALID");
    let mut without = command();
    without.args(["topic", "list", "--addr", &engine.quic]).current_dir(dir.path());
    run(without, "").await.failed(1, "CONFIG_INVALID");
    let address = engine.quic.clone();
    let ca = engine.ca.clone();
    engine.stop().await;
    list(&address, &ca).await.failed(1, "CONNECT_FAILED");
    other.stop().await;
}

#[tokio::test]
async fn an_expired_certificate_is_said_so() {
    let dir = TempDir::new().unwrap();
    let tls = dir.path().join("data/tls");
    std::fs::create_dir_all(&tls).unwrap();
    let expire = |params: &mut rcgen::CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    };
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    expire(&mut params);
    let ca = params.self_signed(&ca_key).unwrap().pem();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&ca, ca_key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    expire(&mut params);
    let server = params.signed_by(&key, &issuer).unwrap().pem();
    // Without the CA's key the files are somebody else's: served as they are.
    for (name, content) in [("ca.pem", ca), ("server.pem", server), ("server.key", key.serialize_pem())] {
        std::fs::write(tls.join(name), content).unwrap();
    }
    let engine = Process::start(&dir.path().join("data")).await;
    let refused = engine.run(&["topic", "list"], "").await;
    refused.failed(1, "TLS_FAILED");
    assert!(refused.stderr.contains("expired"), "{refused:?}");
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

#[tokio::test]
async fn the_configuration_in_force_can_be_printed_and_read_back() {
    let dir = TempDir::new().unwrap();
    let mut print = command();
    print.args(["serve", "--print-config", "--data-dir", "here"]).env("LEVADA_RETENTION_INTERVAL", "7s");
    let printed = run(print, "").await.done();
    assert!(
        printed.contains("data_dir = \"here\"") && printed.contains("retention_interval = \"7s\""),
        "{printed}"
    );
    let file = dir.path().join("levada.toml");
    std::fs::write(&file, &printed).unwrap();
    let again = alone(&["serve", "--print-config", "--config", file.to_str().unwrap()]).await.done();
    assert_eq!(again, printed);
}

#[tokio::test]
async fn the_demo_proves_what_each_subscriber_received_and_keeps_its_data() {
    let dir = TempDir::new().unwrap();
    let keep = dir.path().join("kept");
    let demo =
        ["demo", "--events", "200", "--rate", "0", "--output", "json", "--keep", keep.to_str().unwrap()];
    let report = alone(&demo).await.json();
    assert_eq!((&report[0]["correct"], &report[0]["orders"]), (&json!(true), &json!(200)), "{report:?}");
    assert_eq!(report[0]["subscribers"].as_array().unwrap().len(), 3);
    alone(&demo).await.failed(1, "INVALID_ARGUMENT");
    let engine = Process::start(&keep).await;
    let events: u64 = engine
        .json(&["topic", "list"])
        .await
        .iter()
        .flat_map(|topic| topic["partitions"].as_array().unwrap().clone())
        .map(|partition| partition["end"].as_u64().unwrap())
        .sum();
    assert!(events >= 1_000, "{events}");
    engine.stop().await;
    let table = alone(&["demo", "--events", "20", "--rate", "0"]).await.done();
    for who in ["payment", "inventory", "logistics"] {
        assert!(table.contains(who), "{table}");
    }
}

#[tokio::test]
async fn every_bench_accounts_for_every_event() {
    for workload in [
        vec!["publish", "--events", "20000"],
        vec!["latency", "--events", "200"],
        vec!["fanout", "--events", "20000", "--subscribers", "2"],
        vec!["catchup", "--events", "20000"],
        vec!["plugin", "--events", "20000", "--plugin", "trivial"],
        vec!["plugin", "--events", "20000", "--plugin", "route"],
    ] {
        let report = alone(&[&["bench"], &workload[..], &["--output", "json"]].concat()).await.json();
        let report = report.last().unwrap();
        assert_eq!(report["complete"], true, "{workload:?}: {report}");
        for field in [
            "workload",
            "size",
            "events",
            "durability",
            "events_per_second",
            "mb_per_second",
            "p50_us",
            "p99_us",
            "p999_us",
            "max_us",
            "engine_cpu_seconds",
            "client_cpu_seconds",
            "engine_peak_rss_mib",
            "version",
        ] {
            assert!(report.get(field).is_some(), "{workload:?}: {field} is not in {report}");
        }
    }
}
