//! Events through a pipe: what `read` and `subscribe` print and `publish` reads.

use serde_json::{Value, json};

use super::{engine, streams::stdout};
use crate::support::{
    process::{Process, interrupt},
    until, within,
};

/// A printed event without what only its place says.
fn content(mut line: Value) -> Value {
    let fields = line.as_object_mut().unwrap();
    for place in ["topic", "partition", "offset"] {
        fields.remove(place);
    }
    line
}

/// Publishes what `read` prints of `from` to `to`, through the text alone, and returns both as they are read.
async fn copied(engine: &Process, from: &str, to: &str) -> (Vec<Value>, Vec<Value>) {
    let printed = engine.text(&["read", from]).await;
    engine.run(&["publish", to], &printed).await.done();
    let read =
        async |topic: &str| engine.json(&["read", topic]).await.into_iter().map(content).collect::<Vec<_>>();
    (read(from).await, read(to).await)
}

#[tokio::test]
async fn every_kind_of_event_survives_a_pipe() {
    let (_dir, engine) = engine().await;
    engine.text(&["topic", "create", "source"]).await;
    engine.text(&["topic", "create", "copy"]).await;
    let lines = [
        r#"{"key":"gone","tombstone":true}"#,
        r#"{"payload":1,"time":0}"#,
        r#"{"payload":1,"time":1769860800000000000}"#,
        r#"{"payload":1,"time":"9999-12-31T23:59:59Z"}"#,
        r#"{"payload":1,"headers":[["a","1"],["b","2"],["a","3"]]}"#,
        r#"{"payload":{"base64":"AA=="}}"#,
        r#"{"payload_text":"{\n\"a\": 1}\n"}"#,
        r#"{"payload_base64":"AP8=","key_base64":"/w=="}"#,
        r#"{"payload":null}"#,
    ];
    engine.run(&["publish", "source"], &lines.join("\n")).await.done();
    engine.run(&["publish", "source", "--raw"], "hello\n").await.done();
    let (source, copy) = copied(&engine, "source", "copy").await;
    assert_eq!(source.len(), lines.len() + 1);
    assert_eq!(source, copy);
    assert_eq!(source[0]["tombstone"], true);
    assert_eq!(source[1]["time"], "1970-01-01T00:00:00Z");
    assert_eq!(source[2]["time"], 1_769_860_800_000_000_000_u64);
    assert_eq!(source[9]["payload_text"], "hello");
    let mut bare = engine.command(&["read", "source", "--payload", "--from", "6"]);
    let bare = within("the payloads", bare.output()).await.unwrap().stdout;
    assert_eq!(bare, b"{\n\"a\": 1}\n\n\0\xff\nnull\nhello\n");
    engine.stop().await;
}

#[tokio::test]
async fn a_dead_letter_that_is_published_again_is_the_event_without_the_engines_headers() {
    let (_dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders"]).await;
    engine.text(&["plugin", "deploy", "--bundled"]).await;
    engine.run(&["publish", "orders", "--raw", "--header", "own=1"], "no JSON\n").await.done();
    let filter = r#"json-filter:{"where":"a > 1"}"#;
    engine.text(&["subscription", "create", "orders/s", "--from", "earliest", "--plugin", filter]).await;
    let mut consumer = engine.spawn(&["subscribe", "orders/s", "--quiet"]);
    until("the dead letter", async || {
        (engine.run(&["topic", "describe", "dlq.orders.s"], "").await.code == 0).then_some(())
    })
    .await;
    let dead_letter = engine.text(&["read", "dlq.orders.s", "--follow", "--max", "1"]).await;
    interrupt(&consumer);
    within("its end", consumer.wait()).await.unwrap();
    assert!(dead_letter.contains("lv-dlq-"), "{dead_letter}");
    engine.run(&["publish", "orders"], &dead_letter).await.done();
    let again = engine.json(&["read", "orders", "--last", "1"]).await.remove(0);
    assert_eq!((&again["headers"], &again["payload_text"]), (&json!({"own": "1"}), &json!("no JSON")));
    engine.stop().await;
}

#[tokio::test]
async fn the_last_events_are_those_of_all_partitions_together() {
    let (_dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders", "--partitions", "3"]).await;
    for number in 0..6 {
        let line = format!("{{\"payload\":{number},\"key\":\"{number}\"}}\n");
        engine.run(&["publish", "orders"], &line).await.done();
    }
    for arguments in [&["read", "orders", "--last", "4"][..], &["read", "orders", "--from", "-4"]] {
        let last: Vec<Value> =
            engine.json(arguments).await.iter().map(|event| event["payload"].clone()).collect();
        assert_eq!(last, [2, 3, 4, 5]);
    }
    assert_eq!(engine.json(&["read", "orders", "--last", "100"]).await.len(), 6);
    assert_eq!(engine.text(&["read", "orders", "--last", "3", "--max", "1", "--payload"]).await, "3\n");
    let mut following =
        engine.spawn(&["read", "orders", "--last", "1", "--follow", "--max", "2", "--payload"]);
    let mut printed = stdout(&mut following);
    let mut next = async || within("a line", printed.next_line()).await.unwrap().unwrap();
    assert_eq!(next().await, "5");
    engine.run(&["publish", "orders", "--raw"], "6\n").await.done();
    assert_eq!(next().await, "6");
    assert!(within("its end", following.wait()).await.unwrap().success());
    assert_eq!(engine.text(&["read", "orders", "--from", "-1h", "--payload"]).await.lines().count(), 7);
    engine.stop().await;
}
