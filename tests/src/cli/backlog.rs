//! Quotas of a topic's backlog from the command line.

use serde_json::json;

use super::{alone, engine};

#[tokio::test]
async fn a_full_topic_refuses_or_lets_wait_and_is_described() {
    let (_dir, engine) = engine().await;
    let create = ["topic", "create", "orders", "--backlog-max-events", "2", "--backlog-max-age", "1h"];
    let made = engine.text(&create).await;
    assert!(made.contains("backlog of at most 2 events and 1h, then rejects"), "{made}");
    let other = engine.run(&["topic", "create", "orders", "--backlog-max-events", "3"], "").await;
    other.failed(1, "TOPIC_EXISTS");
    assert!(other.stderr.contains("backlog_max_events 2, expected 3"), "{other:?}");
    let nobody = engine.text(&["topic", "describe", "orders"]).await;
    assert!(nobody.contains("backlog: none, as the topic has no subscription and no route"), "{nobody}");
    engine.text(&["subscription", "create", "orders/s", "--from", "earliest"]).await;
    engine.run(&["publish", "orders", "--raw"], "a\nb\n").await.done();

    let refused = engine.run(&["publish", "orders", "--raw", "--no-wait"], "c\n").await;
    refused.failed(1, "BACKLOG_FULL");
    let said = "topic orders is full: subscription orders/s has 2 events to acknowledge";
    assert!(refused.stderr.contains(said), "{refused:?}");
    assert!(refused.stderr.contains("hint: `levada topic describe TOPIC` shows its backlog"), "{refused:?}");
    let waited = engine.run(&["publish", "orders", "--raw", "--timeout", "2s"], "c\n").await;
    waited.failed(1, "BACKLOG_FULL");
    assert!(waited.stderr.contains("waiting: BACKLOG_FULL: topic orders is full"), "{waited:?}");

    let described = engine.text(&["topic", "describe", "orders"]).await;
    assert!(described.contains("the most: subscription orders/s; "), "{described}");
    let info = &engine.json(&["topic", "describe", "orders"]).await[0]["backlog"];
    assert_eq!((&info["events"], &info["slowest"]), (&json!(2), &json!("subscription orders/s")));
    let listed = engine.text(&["topic", "list"]).await;
    assert!(listed.lines().next().unwrap().ends_with("BACKLOG"), "{listed}");
    assert_eq!(engine.json(&["topic", "list"]).await[0]["backlog"]["events"], 2);

    engine.run(&["subscribe", "orders", "--subscription", "s", "--max", "1"], "").await.done();
    engine.run(&["publish", "orders", "--raw", "--no-wait"], "c\n").await.done();
    let set = ["topic", "set", "orders", "--backlog-max-bytes", "1MiB", "--on-full", "drop-oldest"];
    let set = engine.text(&set).await;
    assert!(set.contains("backlog of at most 2 events and 1.0 MiB and 1h, then drops the oldest"), "{set}");
    engine.run(&["publish", "orders", "--raw", "--no-wait"], "d\n").await.done();
    let described = engine.text(&["topic", "describe", "orders"]).await;
    assert!(described.contains("1 dropped since the engine's start"), "{described}");
    let limits = ["--backlog-max-events", "0", "--backlog-max-bytes", "0", "--backlog-max-age", "off"];
    let lifted = engine.text(&[&["topic", "set", "orders"], &limits[..]].concat()).await;
    assert!(!lifted.contains("backlog"), "{lifted}");
    engine.stop().await;
}

#[tokio::test]
async fn wrong_limits_unknown_topics_and_a_dead_engine_get_their_codes() {
    let (_dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders"]).await;
    for (arguments, exit, code) in [
        (&["topic", "create", "x", "--backlog-max-events", "many"][..], 2, "INVALID_ARGUMENT"),
        (&["topic", "create", "x", "--backlog-max-bytes", "-1"], 2, "INVALID_ARGUMENT"),
        (&["topic", "create", "x", "--backlog-max-age", "old"], 2, "INVALID_ARGUMENT"),
        (&["topic", "create", "x", "--on-full", "drop-oldest"], 2, "INVALID_ARGUMENT"),
        (&["topic", "set", "orders", "--on-full", "drop-oldest"], 2, "INVALID_ARGUMENT"),
        (&["topic", "set", "orders", "--on-full", "explode"], 2, "INVALID_ARGUMENT"),
        (&["topic", "set", "absent", "--backlog-max-events", "1"], 1, "TOPIC_NOT_FOUND"),
        (&["publish", "absent", "--no-wait"], 1, "TOPIC_NOT_FOUND"),
    ] {
        engine.run(arguments, "").await.failed(exit, code);
    }
    let (address, ca) = (engine.quic.clone(), engine.ca.to_str().unwrap().to_owned());
    engine.stop().await;
    let reach = ["--addr", &address, "--ca", &ca];
    for arguments in
        [&["publish", "orders", "--no-wait"][..], &["topic", "set", "orders", "--backlog-max-age", "1h"]]
    {
        alone(&[arguments, &reach].concat()).await.failed(1, "CONNECT_FAILED");
    }
}
