//! The demo and the bench: what they prove, and that they leave nothing behind.

use std::path::Path;

use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::alone;
use crate::support::{
    process::{Process, command, interrupt},
    until, within,
};

#[tokio::test]
async fn the_demo_proves_what_each_subscriber_received_and_keeps_its_data() {
    let dir = TempDir::new().unwrap();
    let keep = dir.path().join("kept");
    let demo =
        ["demo", "--events", "200", "--rate", "0", "--output", "json", "--keep", keep.to_str().unwrap()];
    let report = alone(&demo).await.json();
    assert_eq!((&report[0]["correct"], &report[0]["orders"]), (&json!(true), &json!(200)), "{report:?}");
    assert_eq!(report[0]["subscribers"].as_array().unwrap().len(), 3);
    alone(&["demo", "--keep", keep.to_str().unwrap()]).await.failed(1, "INVALID_ARGUMENT");
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
    assert!(report[0]["away"]["lag"].as_u64() > Some(0), "inventory had something to catch up: {report:?}");
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
        vec!["dedup", "--events", "20000", "--prefill", "5000"],
        vec!["delivery", "--events", "5000", "--keys", "50", "--consumers", "3", "--failures", "2"],
        vec!["delivery", "--events", "5000", "--keys", "50", "--stuck-keys", "1"],
        vec!["delay", "--events", "2000", "--after", "10ms", "--within", "1s"],
        vec!["prepare", "--events", "100"],
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

#[tokio::test]
async fn what_the_network_adds_is_measured_and_every_event_of_it_comes() {
    let home = TempDir::new().unwrap();
    let place = home.path().to_str().unwrap();
    let line = ["bench", "network", "--share", "0.01", "--dir", place, "--output", "json"];
    let network = alone(&line).await.json();
    assert_eq!(network.len(), 1, "{network:?}");
    for (part, figure) in [
        ("http", "requests_per_second"),
        ("http", "of_empty_handler"),
        ("http", "of_quic"),
        ("sse", "sse_p99_us"),
        ("sse", "quic_p99_us"),
        ("push", "deliveries_per_second"),
        ("connect", "with_token_p50_us"),
        ("connect", "of_events_without_token"),
        ("neighbours", "alone_p99_us"),
        ("neighbours", "http_p99_of_alone"),
        ("neighbours", "metrics_p99_of_alone"),
        ("neighbours", "limited_principal_p99_of_alone"),
    ] {
        assert!(network[0][part][figure].as_f64() > Some(0.0), "{part}.{figure} is not in {}", network[0]);
    }
    assert_eq!(
        (&network[0]["push"]["deliveries"], &network[0]["push"]["repeated"]),
        (&json!(500), &json!(0))
    );
    assert!(is_empty(home.path()));
}

#[tokio::test]
async fn the_limits_of_the_machine_are_measured_without_an_engine() {
    let home = TempDir::new().unwrap();
    let place = home.path().to_str().unwrap();
    let line = ["bench", "limits", "--time", "30ms", "--mtu", "1300", "--dir", place, "--output", "json"];
    let limits = alone(&line).await.json();
    assert_eq!(limits.len(), 1, "{limits:?}");
    for figure in [
        "append_sync_p50_us",
        "overwrite_sync_p99_us",
        "rocksdb_100_events_per_second",
        "rocksdb_1024_synced_events_per_second",
        "quic_up_mb_per_second",
        "quic_down_mb_per_second",
        "quic_round_trip_p50_us",
        "publish_100_events_per_second",
        "publish_1024_events_per_second",
        "one_at_a_time_p50_us",
        "fanout_events_per_second",
        "fanout_paced_p99_us",
    ] {
        assert!(limits[0][figure].as_f64() > Some(0.0), "{figure} is not in {}", limits[0]);
    }
    assert_eq!(limits[0]["mtu"], 1300);
    assert!(is_empty(home.path()));
}

#[tokio::test]
async fn a_bench_shows_its_share_of_the_limit_at_the_packet_size_asked_for() {
    let home = TempDir::new().unwrap();
    let place = home.path().to_str().unwrap();
    for (workload, figure) in [
        (vec!["publish", "--events", "2000"], "events_per_second"),
        (vec!["publish", "--events", "500", "--concurrency", "8", "--connections", "2"], "events_per_second"),
        (vec!["latency", "--events", "100"], "latency_us"),
        (vec!["fanout", "--events", "2000", "--subscribers", "2"], "events_per_second"),
        (vec!["fanout", "--events", "200", "--subscribers", "2", "--rate", "1000"], "latency_us"),
        (vec!["catchup", "--events", "2000"], "events_per_second"),
        (vec!["plugin", "--events", "2000", "--plugin", "route"], "events_per_second"),
    ] {
        let flags = ["--limits", "--mtu", "1300", "--dir", place, "--output", "json"];
        let report = alone(&[&["bench"], &workload[..], &flags[..]].concat()).await.json();
        let report = report.last().unwrap();
        assert!(report["of_limit"].as_f64() > Some(0.0), "{workload:?}: {report}");
        for when in ["before", "after"] {
            assert!(report["limit"][when].get(figure).is_some(), "{workload:?}: {report}");
        }
        assert_eq!((&report["mtu"], &report["complete"]), (&json!(1300), &json!(true)), "{workload:?}");
    }
    assert!(is_empty(home.path()));
}

#[tokio::test]
async fn a_demo_that_is_interrupted_leaves_nothing_behind() {
    let home = TempDir::new().unwrap();
    let mut demo = command();
    demo.args(["demo", "--rate", "100"]).env("TMPDIR", home.path());
    let mut demo = demo.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(demo.stderr.take().unwrap()).lines();
    loop {
        let line = within("a line of the demo", lines.next_line()).await.unwrap().unwrap();
        if line.starts_with("orders ") {
            break;
        }
    }
    interrupt(&demo);
    assert_eq!(within("its end", demo.wait()).await.unwrap().code(), Some(130));
    let mut last = String::new();
    while let Some(line) = within("the rest", lines.next_line()).await.unwrap() {
        last = line;
    }
    assert_eq!(last, "interrupted");
    assert!(is_empty(home.path()));
}

#[tokio::test]
async fn a_bench_that_is_interrupted_leaves_nothing_behind() {
    let home = TempDir::new().unwrap();
    let mut bench = command();
    bench.args(["bench", "publish", "--duration", "50s", "--quiet"]).env("TMPDIR", home.path());
    let mut bench = bench.spawn().unwrap();
    until("an engine's directory", async || (!is_empty(home.path())).then_some(())).await;
    interrupt(&bench);
    assert_eq!(within("its end", bench.wait()).await.unwrap().code(), Some(130));
    assert!(is_empty(home.path()));

    let mut limits = command();
    limits.args(["bench", "limits", "--time", "50s", "--quiet"]).env("TMPDIR", home.path());
    let mut limits = limits.spawn().unwrap();
    until("a directory for files", async || (!is_empty(home.path())).then_some(())).await;
    interrupt(&limits);
    assert_eq!(within("its end", limits.wait()).await.unwrap().code(), Some(130));
    assert!(is_empty(home.path()));

    let engine = Process::start(&home.path().join("data")).await;
    let mut bench = engine.spawn(&["bench", "publish", "--duration", "50s", "--quiet"]);
    until("its topic", async || (!engine.json(&["topic", "list"]).await.is_empty()).then_some(())).await;
    interrupt(&bench);
    assert_eq!(within("its end", bench.wait()).await.unwrap().code(), Some(130));
    assert!(engine.json(&["topic", "list"]).await.is_empty());
    engine.stop().await;
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).unwrap().next().is_none()
}
