//! `levada publish --delay` and `levada schedule`.

use serde_json::json;

use super::engine;

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
    let again = engine.text(&["schedule", "cancel", "orders", "1"]).await;
    assert_eq!(again.trim(), "event 1 of orders was cancelled already: it will not be delivered");
    let past = ["publish", "orders", "--raw", "--deliver-at", "2020-01-01T00:00:00Z"];
    engine.run(&past, "late\n").await.done();
    engine.text(&["read", "orders", "--follow", "--max", "1"]).await;
    let late = engine.run(&["schedule", "cancel", "orders", "2"], "").await;
    late.failed(1, "ALREADY_DUE");
    assert!(late.stderr.contains("the time of scheduled event 2 has come: it is in the log"), "{late:?}");
    let again = engine.text(&["schedule", "cancel", "orders", "1"]).await;
    assert_eq!(again.trim(), "event 1 of orders was cancelled already: it will not be delivered");
    engine.run(&["publish", "orders", "--raw", "--delay", "30m"], "unpaid\n").await.done();
    for repeat in [false, true] {
        let cancelled = engine.json(&["schedule", "cancel", "orders", "3"]).await;
        assert_eq!(cancelled, [json!({"topic": "orders", "cancelled": 3, "repeat": repeat})]);
    }
    engine.stop().await;
}
