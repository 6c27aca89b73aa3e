//! `levada publish --producer`.

use std::process::Stdio;

use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use super::engine;
use crate::support::{until, within};

#[tokio::test]
async fn a_publish_under_a_name_ends_one_that_is_under_way() {
    let (_dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders"]).await;
    let publish = ["publish", "orders", "--raw", "--producer", "importer"];
    let mut first = engine.spawn_with(&publish, Stdio::piped());
    let mut input = first.stdin.take().unwrap();
    input.write_all(b"one\n").await.unwrap();
    until("the first line", async || {
        let stored = engine.text(&["read", "orders", "--payload"]).await;
        (stored == "one\n").then_some(())
    })
    .await;
    let second = engine.run(&[&publish[..], &["--output", "json"]].concat(), "two\n").await;
    let remark = json!({"remark": "took over from an earlier producer of this name (epoch 2)"});
    assert_eq!(second.stderr, format!("{remark}\n"));
    assert_eq!(second.json()[0]["epoch"], 2);
    input.write_all(b"three\n").await.unwrap();
    drop(input);
    let ended = within("the first command", first.wait_with_output()).await.unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(!said.contains("took over"), "{said}");
    assert!(said.contains("error: PRODUCER_FENCED: 1 event stored, then: line 2: "), "{said}");
    assert!(said.contains("another publisher has taken over this name"), "{said}");
    assert!(said.contains("hint: another publisher of that name has begun since"), "{said}");
    // Whoever has another name, or none, is nobody's successor.
    let other = engine.run(&["publish", "orders", "--raw", "--producer", "other"], "four\n").await;
    assert_eq!((other.code, other.stderr.as_str()), (0, ""));
    let bare = engine.run(&["publish", "orders", "--raw", "--output", "json"], "five\n").await.json();
    assert_eq!(bare[0].get("epoch"), None);
    assert_eq!(engine.text(&["read", "orders", "--payload"]).await, "one\ntwo\nfour\nfive\n");
    engine.stop().await;
}

#[tokio::test]
async fn a_name_goes_with_an_expected_offset_and_with_a_delay() {
    let (_dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders"]).await;
    let publish = ["publish", "orders", "--raw", "--producer", "importer"];
    let expecting = |offset| [&publish[..], &["--expect-offset", offset]].concat();
    engine.run(&expecting("0"), "one\ntwo\n").await.done();
    engine.run(&expecting("0"), "three\n").await.failed(1, "OFFSET_MISMATCH");
    engine.run(&expecting("2"), "three\n").await.done();
    let later = [&publish[..], &["--delay", "1h"]].concat();
    let scheduled = engine.run(&later, "four\n").await.done();
    assert!(scheduled.contains("scheduled under id"), "{scheduled}");
    assert_eq!(engine.text(&["read", "orders", "--payload"]).await, "one\ntwo\nthree\n");
    engine.stop().await;
}
