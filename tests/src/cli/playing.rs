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
