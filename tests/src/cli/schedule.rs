//! `levada publish --delay` and `levada schedule`.

use serde_json::json;

use super::engine;
use crate::support::process::{command, run};

#[tokio::test]
async fn a_delayed_event_is_listed_shown_and_cancelled() {
    let (_dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders"]).await;
    let published = engine.run(&["publish", "orders", "--raw", "--delay", "30m"], "unpaid\n").await.done();
    assert_eq!(published.trim(), "published 1 event to orders, scheduled under id 1");
    let at = ["publish", "orders", "--raw", "--key", "k", "--deliver-at", "2999-01-01T00:00:00Z"];
    engine.run(&at, "x\n").await.failed(1, "DELAY_TOO_LONG");
    let list = engine.text(&["schedule", "list", "orders"]).await;
    assert!(list.contains("DUE") && list.lines().count() == 2, "{list}");
    let shown = engine.json(&["schedule", "show", "orders", "1"]).await;
    assert_eq!((&shown[0]["id"], &shown[0]["payload_bytes"]), (&json!(1), &json!(6)));
    let described = engine.text(&["topic", "describe", "orders"]).await;
    assert!(described.contains("waiting for their time: 1 delayed"), "{described}");
    let cancelled = engine.text(&["schedule", "cancel", "orders", "1"]).await;
    assert_eq!(cancelled.trim(), "cancelled event 1 of orders: it will not be delivered");
    engine.run(&["schedule", "show", "orders", "1"], "").await.failed(1, "SCHEDULE_NOT_FOUND");
    engine.run(&["schedule", "cancel", "orders", "2"], "").await.failed(1, "SCHEDULE_NOT_FOUND");
    engine.run(&["schedule", "list", "absent"], "").await.failed(1, "TOPIC_NOT_FOUND");
    for wrong in [
        &["publish", "orders", "--delay", "366d"][..],
        &["publish", "orders", "--delay", "soon"],
        &["publish", "orders", "--delay", "-5s"],
        &["publish", "orders", "--delay", "1m", "--deliver-at", "2026-01-31T12:00:00Z"],
        &["publish", "orders", "--deliver-at", "tomorrow"],
        &["schedule", "cancel", "orders", "x"],
        &["schedule", "list", "orders", "--max", "0"],
    ] {
        engine.run(wrong, "x\n").await.failed(2, "INVALID_ARGUMENT");
    }
    engine.stop().await;
}

#[tokio::test]
async fn without_an_engine_the_schedule_says_so() {
    let (_dir, engine) = engine().await;
    let (address, ca) = (engine.quic.clone(), engine.ca.clone());
    engine.stop().await;
    for action in [&["list", "orders"][..], &["show", "orders", "1"], &["cancel", "orders", "1"]] {
        let mut without = command();
        without.arg("schedule").args(action).args(["--addr", &address]).arg("--ca").arg(&ca);
        run(without, "").await.failed(1, "CONNECT_FAILED");
    }
}
