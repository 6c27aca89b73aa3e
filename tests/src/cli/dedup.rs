//! Duplicates and expected offsets from the command line.

use serde_json::json;

use super::{alone, engine};

const LINES: &str = concat!(
    r#"{"id":"a","payload":1}"#,
    "\n",
    r#"{"id":"b","payload":2}"#,
    "\n\n",
    r#"{"id":"a","payload":3}"#,
    "\n",
    r#"{"payload":4}"#,
    "\n",
);

#[tokio::test]
async fn publish_says_how_many_events_were_duplicates_and_as_json_which() {
    let (_dir, engine) = engine().await;
    let made = engine.text(&["topic", "create", "orders", "--dedup-window"]).await;
    assert!(made.contains("dedup window 2m by id"), "{made}");
    let published = engine.run(&["publish", "orders"], LINES).await.done();
    assert_eq!(published, "published 3 events to orders and left out 1 duplicate, last offset 2\n");
    let again = engine.run(&["publish", "orders", "--output", "json"], LINES).await.json();
    let duplicate =
        |line: u64, offset: u64| json!({ "line": line, "duplicate": true, "partition": 0, "offset": offset });
    assert_eq!(again[..3], [duplicate(1, 0), duplicate(2, 1), duplicate(4, 0)]);
    let last = json!([{ "partition": 0, "offset": 3 }]);
    assert_eq!(again[3], json!({ "topic": "orders", "published": 1, "duplicates": 3, "last": last }));
    let described = engine.text(&["topic", "describe", "orders"]).await;
    assert!(described.contains("dedup: 2 ids held, 4 duplicates since the engine's start"), "{described}");

    let set =
        engine.text(&["topic", "set", "orders", "--dedup-window", "1h", "--dedup-header", "source"]).await;
    assert!(set.contains("dedup window 1h by id and header source"), "{set}");
    let other = engine.run(&["publish", "orders", "--header", "source=web"], LINES).await.done();
    assert!(other.contains("left out 1 duplicate"), "the ids mean something else now: {other}");
    let off = engine.text(&["topic", "set", "orders", "--dedup-window", "off"]).await;
    assert!(!off.contains("dedup"), "{off}");
    let plain = engine.run(&["publish", "orders"], LINES).await.done();
    assert!(plain.starts_with("published 4 events to orders, last offset "), "{plain}");
    let described = engine.json(&["topic", "describe", "orders"]).await;
    assert_eq!(described[0]["settings"]["dedup_window_ms"], 0);
    engine.stop().await;
}

#[tokio::test]
async fn lines_are_appended_at_the_expected_offset_as_one_batch_or_not_at_all() {
    let (_dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders"]).await;
    engine.text(&["topic", "create", "many", "--partitions", "3"]).await;
    let expecting = async |offset: &str, lines: &str| {
        engine.run(&["publish", "orders", "--raw", "--expect-offset", offset], lines).await
    };
    let first = expecting("0", "a\nb\n").await.done();
    assert_eq!(first, "published 2 events to orders, last offset 1\n");
    let late = expecting("1", "c\n").await;
    late.failed(1, "OFFSET_MISMATCH");
    let said = "the next offset of partition 0 is 2, expected 1";
    let hint = "`levada read orders --partition 0 --from 1` shows what has come since";
    assert!(late.stderr.contains(said) && late.stderr.contains(hint), "{late:?}");
    let early = expecting("3", "c\n").await;
    early.failed(1, "OFFSET_MISMATCH");
    assert!(early.stderr.contains("the partition ends there: --expect-offset 2 appends"), "{early:?}");
    expecting("2", &"x\n".repeat(10_001)).await.failed(1, "EVENT_TOO_LARGE");
    expecting("2", "c\n").await.done();
    assert_eq!(expecting("9", "").await.done(), "published 0 events to orders\n");
    assert_eq!(engine.json(&["read", "orders"]).await.len(), 3);

    let where_to = engine.run(&["publish", "many", "--raw", "--expect-offset", "0"], "a\n").await;
    where_to.failed(2, "INVALID_ARGUMENT");
    assert!(where_to.stderr.contains("--partition 0 to 2 says whose offset it is"), "{where_to:?}");
    let partitioned = ["publish", "many", "--raw", "--partition", "2"];
    engine.run(&[&partitioned[..], &["--expect-offset", "0"]].concat(), "a\n").await.done();
    let published = engine.run(&[&partitioned[..], &["--key", "k"]].concat(), "b\n").await.done();
    assert!(published.contains("last offset 1 in partition 2"), "{published}");
    engine
        .run(&["publish", "many", "--raw", "--partition", "3"], "c\n")
        .await
        .failed(1, "PARTITION_NOT_FOUND");
    engine.stop().await;
}

#[tokio::test]
async fn wrong_windows_unknown_topics_and_a_dead_engine_get_their_codes() {
    let (_dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders"]).await;
    for (arguments, exit, code) in [
        (&["topic", "create", "x", "--dedup-window", "soon"][..], 2, "INVALID_ARGUMENT"),
        (&["topic", "create", "x", "--dedup-window", "8d"], 2, "INVALID_ARGUMENT"),
        (&["topic", "create", "x", "--dedup-header", "source"], 2, "INVALID_ARGUMENT"),
        (&["topic", "set", "orders", "--dedup-header", "source"], 2, "INVALID_ARGUMENT"),
        (&["topic", "set", "orders", "--dedup-header", "lv-attempt"], 2, "INVALID_ARGUMENT"),
        (&["topic", "set", "absent", "--dedup-window"], 1, "TOPIC_NOT_FOUND"),
        (&["publish", "absent", "--expect-offset", "0"], 1, "TOPIC_NOT_FOUND"),
        (&["publish", "orders", "--expect-offset", "first"], 2, "INVALID_ARGUMENT"),
        (&["publish", "orders", "--expect-offset", "0", "--rate", "1"], 2, "INVALID_ARGUMENT"),
    ] {
        engine.run(arguments, "").await.failed(exit, code);
    }
    let (address, ca) = (engine.quic.clone(), engine.ca.to_str().unwrap().to_owned());
    engine.stop().await;
    let reach = ["--addr", &address, "--ca", &ca];
    let publish = ["publish", "orders", "--expect-offset", "0"];
    for arguments in [&publish[..], &["topic", "set", "orders", "--dedup-window"]] {
        alone(&[arguments, &reach].concat()).await.failed(1, "CONNECT_FAILED");
    }
}
