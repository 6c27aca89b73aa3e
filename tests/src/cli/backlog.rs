//! Quotas of a topic's backlog from the command line.

use serde_json::json;

use super::engine;

#[tokio::test]
async fn a_full_topic_refuses_or_lets_wait_and_is_described() {
    let (_dir, engine) = engine().await;
    let create = ["topic", "create", "orders", "--backlog-max-events", "2", "--backlog-max-age", "1h"];
    let made = engine.text(&create).await;
    assert!(made.contains("backlog of at most 2 events and 1h, then rejects"), "{made}");
    let other = engine.run(&["topic", "create", "orders", "--backlog-max-events", "3"], "").await;
    other.failed(1, "TOPIC_EXISTS");
    assert!(
        other.stderr.contains("topic orders exists with --backlog-max-events 2, expected 3"),
        "{other:?}"
    );
    let nobody = engine.text(&["topic", "describe", "orders"]).await;
    assert!(nobody.contains("backlog: none, as the topic has no subscription and no route"), "{nobody}");
    engine.text(&["subscription", "create", "orders/s", "--from", "earliest"]).await;
    engine.run(&["publish", "orders", "--raw"], "a\nb\n").await.done();

    let refused = engine.run(&["publish", "orders", "--raw", "--no-wait"], "c\n").await;
    refused.failed(1, "BACKLOG_FULL");
    let said = "topic orders is full: subscription orders/s has 2 events to acknowledge";
    assert!(refused.stderr.contains(said), "{refused:?}");
    assert!(refused.stderr.contains("hint: `levada topic describe orders` shows its backlog"), "{refused:?}");
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
    let lifted = engine.run(&[&["topic", "set", "orders"], &limits[..]].concat(), "").await;
    assert!(lifted.stderr.contains("--on-full drop-oldest is gone as well"), "{lifted:?}");
    let lifted = lifted.done();
    assert!(!lifted.contains("backlog"), "{lifted}");
    engine.stop().await;
}

#[tokio::test]
async fn a_limit_is_exact_however_many_events_are_published_at_once() {
    let (_dir, engine) = engine().await;
    for (topic, limit, expected) in
        [("few", ["--backlog-max-events", "3"], 3), ("small", ["--backlog-max-bytes", "1KiB"], 0)]
    {
        engine.text(&[&["topic", "create", topic], &limit[..]].concat()).await;
        engine.text(&["subscription", "create", &format!("{topic}/s")]).await;
        let lines = "x\n".repeat(100);
        engine.run(&["publish", topic, "--raw", "--no-wait"], &lines).await.failed(1, "BACKLOG_FULL");
        let backlog = &engine.json(&["topic", "describe", topic]).await[0]["backlog"];
        assert!(backlog["bytes"].as_u64().unwrap() <= 1_024, "{backlog}");
        let events = backlog["events"].as_u64().unwrap();
        assert!(events > 0 && (expected == 0 || events == expected), "{topic}: {backlog}");
    }
    engine.stop().await;
}

#[tokio::test]
async fn a_size_bound_is_shown_only_where_retention_goes_by_it() {
    let (_dir, engine) = engine().await;
    let create = ["topic", "create", "sized", "--retain", "time-and-size", "--max-bytes", "1GiB"];
    let created = engine.text(&create).await;
    assert!(created.contains("at most 1.0 GiB"), "{created}");
    let set = engine.text(&["topic", "set", "sized", "--retain", "until-acked"]).await;
    assert!(set.contains("no size bound"), "{set}");
    let back = engine.text(&["topic", "set", "sized", "--retain", "time-and-size"]).await;
    assert!(back.contains("at most 1.0 GiB"), "what was given stays: {back}");
    engine.stop().await;
}

#[tokio::test]
async fn a_setting_that_contradicts_those_of_the_topic_is_refused() {
    let (_dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders"]).await;
    for (change, both) in [
        (["--on-full", "drop-oldest"], ["--on-full", "--backlog-max-events"]),
        (["--dedup-header", "source"], ["--dedup-header", "--dedup-window"]),
    ] {
        let refused = engine.run(&[&["topic", "set", "orders"], &change[..]].concat(), "").await;
        refused.failed(2, "INVALID_ARGUMENT");
        assert!(both.iter().all(|one| refused.stderr.contains(one)), "{refused:?}");
    }
    engine.stop().await;
}
