//! `levada subscribe --publish-to`: what goes on to another topic is there once, whatever dies when.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{BufReader, Lines},
    process::ChildStderr,
};

use super::{
    engine,
    streams::{stderr, stdout},
};
use crate::support::{
    own_address,
    process::{Process, interrupt},
    until, within,
};

const FORWARD: [&str; 6] = ["subscribe", "orders/s", "--from", "earliest", "--publish-to", "invoices"];
/// Few events a commit, so that there are many of them, and what died with its consumer comes again soon.
const OFTEN: [&str; 4] = ["--max-in-flight", "4", "--ack-timeout", "1s"];
/// Seconds of work, so that some is under way at each kill; and what a dead consumer has held comes again at once.
const SLOWLY: [&str; 4] = ["--rate", "100", "--backoff", "none"];
/// How often something dies.
const KILLS: usize = 4;
/// Events for each kill, and for what is left after the last.
const PORTION: usize = 100;
const EVENTS: usize = PORTION * (KILLS + 1);

/// Makes the topics, and publishes these lines to the first of them.
async fn with_orders(engine: &Process, lines: &str) {
    for topic in ["orders", "invoices"] {
        engine.text(&["topic", "create", topic]).await;
    }
    engine.run(&["publish", "orders"], lines).await.done();
}

/// Publishes one portion of the events, each with a number.
async fn publish_portion(engine: &Process, portion: usize) {
    let numbers = portion * PORTION..(portion + 1) * PORTION;
    let lines: String =
        numbers.map(|number| format!("{{\"key\":\"k{}\",\"payload\":{number}}}\n", number % 7)).collect();
    engine.run(&["publish", "orders"], &lines).await.done();
}

/// Waits until a command says why it waits.
async fn waiting(said: &mut Lines<BufReader<ChildStderr>>) -> String {
    loop {
        let line = within("why it waits", said.next_line()).await.unwrap().unwrap();
        if line.starts_with("waiting: ") {
            return line;
        }
    }
}

/// Which attempts the printed events are.
fn attempts(printed: &[u8]) -> Vec<u64> {
    let events = printed.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    events.map(|line| serde_json::from_slice::<Value>(line).unwrap()["attempt"].as_u64().unwrap()).collect()
}

/// How many events of the numbered ones the second topic has.
async fn forwarded(engine: &Process) -> usize {
    let described = engine.json(&["topic", "describe", "invoices"]).await;
    usize::try_from(described[0]["partitions"][0]["end"].as_u64().unwrap()).unwrap()
}

/// Each numbered event is in the second topic once, those of a key in order; the subscription has nothing left.
async fn check_each_once(engine: &Process) {
    let read = engine.json(&["read", "invoices"]).await;
    let mut by_key = BTreeMap::<&str, Vec<u64>>::new();
    for event in &read {
        by_key.entry(event["key"].as_str().unwrap()).or_default().push(event["payload"].as_u64().unwrap());
    }
    let mut numbers: Vec<u64> = by_key.values().flatten().copied().collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..EVENTS as u64).collect::<Vec<_>>(), "none is missing, none is twice");
    assert!(by_key.values().all(|numbers| numbers.is_sorted()), "{by_key:?}");
    let left = engine.json(&["subscription", "describe", "orders/s"]).await;
    assert_eq!(left[0]["lag"], 0);
}

#[tokio::test]
async fn what_is_forwarded_is_printed_acknowledged_and_as_it_was() {
    let (_dir, engine) = engine().await;
    let lines = concat!(
        r#"{"key":"a","headers":{"x":"1","y":["2","3"]},"id":"one","ttl_ms":3600000,"payload":{"n":1}}"#,
        "\n",
        r#"{"time":"2026-01-31T12:00:00Z","payload_base64":"AP8="}"#,
        "\n",
        r#"{"key":"b","tombstone":true}"#,
        "\n",
        r#"{"payload":4}"#,
        "\n",
    );
    with_orders(&engine, lines).await;
    let ran = engine.run(&[&FORWARD[..], &["--max", "3"]].concat(), "").await;
    assert!(ran.stderr.ends_with("\npublished 3 events to invoices\n"), "{ran:?}");
    let printed = ran.json();
    let orders = engine.json(&["read", "orders"]).await;
    let invoices = engine.json(&["read", "invoices"]).await;
    assert_eq!((printed.len(), invoices.len()), (3, 3));
    for (was, is) in orders.iter().zip(&invoices) {
        for field in ["key", "headers", "id", "time", "payload", "payload_base64", "tombstone"] {
            assert_eq!(is[field], was[field], "{field}");
        }
    }
    let left = invoices[0]["ttl_ms"].as_u64().unwrap();
    assert!((3_000_000..=3_600_000).contains(&left), "{left}");
    assert_eq!((&printed[2]["offset"], &printed[2]["topic"]), (&json!(2), &json!("orders")));

    // What was not printed is still to come; an id that the topic knows is left out.
    engine.text(&["topic", "set", "invoices", "--dedup-window", "1h"]).await;
    engine
        .run(&["publish", "orders"], &r#"{"id":"two","payload":5}\n"#.replace("\\n", "\n").repeat(2))
        .await
        .done();
    let rest = [
        &FORWARD[..4],
        &["--publish-to", "invoices", "--max-bytes", "3", "--output", "json", "--wait", "1h"],
    ]
    .concat();
    let ran = engine.run(&rest, "").await;
    let summary: Value = serde_json::from_str(ran.stderr.lines().last().unwrap()).unwrap();
    assert_eq!(summary, json!({"publish_to": "invoices", "published": 2, "duplicates": 1}));
    assert_eq!(ran.json().len(), 3);
    let nothing = engine.run(&[&FORWARD[..], &["--wait", "100ms"]].concat(), "").await;
    assert!(nothing.stderr.ends_with("\npublished 0 events to invoices\n"), "{nothing:?}");

    // A dead letter goes on without what the engine says of it.
    engine.run(&["publish", "orders"], "{\"headers\":{\"own\":\"1\"},\"payload\":6}\n").await.done();
    engine.text(&["subscribe", "orders/s", "--max", "1", "--reject", "no such product"]).await;
    engine.text(&["topic", "create", "repaired"]).await;
    let dead =
        ["subscribe", "dlq.orders.s/repair", "--from", "earliest", "--publish-to", "repaired", "--max", "1"];
    engine.text(&dead).await;
    assert_eq!(engine.json(&["read", "repaired"]).await[0]["headers"], json!({"own": "1"}));
    engine.stop().await;
}

#[tokio::test]
async fn what_contradicts_forwarding_or_cannot_take_it_is_refused_before_anything_is_consumed() {
    let (_dir, engine) = engine().await;
    with_orders(&engine, "{\"payload\":1}\n").await;
    for verb in [&["--no-ack"][..], &["--nack"], &["--reject", "why"]] {
        let refused = engine.run(&[&FORWARD[..], verb].concat(), "").await;
        refused.failed(2, "INVALID_ARGUMENT");
        assert!(
            refused.stderr.contains("--publish-to <TOPIC>") && refused.stderr.contains(verb[0]),
            "{refused:?}"
        );
    }
    let itself = engine.run(&["subscribe", "orders/s", "--publish-to", "orders"], "").await;
    itself.failed(2, "INVALID_ARGUMENT");
    assert!(itself.stderr.contains("expected another topic than orders for --publish-to"), "{itself:?}");
    let absent = engine.run(&["subscribe", "orders/s", "--publish-to", "invoice"], "").await;
    absent.failed(1, "TOPIC_NOT_FOUND");
    assert!(
        absent.stderr.contains("there is no topic invoice\nhint: the nearest name is invoices"),
        "{absent:?}"
    );
    assert!(engine.json(&["subscription", "list"]).await.is_empty(), "nothing was made");
    engine.stop().await;
}

#[tokio::test]
async fn a_consumer_that_is_killed_again_and_again_forwards_each_event_once() {
    let (_dir, engine) = engine().await;
    with_orders(&engine, "").await;
    for portion in 0..KILLS {
        publish_portion(&engine, portion).await;
    }
    let forward = [&FORWARD[..], &OFTEN, &SLOWLY].concat();
    for kill in 1..=KILLS {
        let mut child = engine.spawn(&forward);
        let mut printed = stdout(&mut child);
        // At a moment that has nothing to do with its commits, once some are done.
        for _ in 0..kill * 8 {
            within("an event", printed.next_line()).await.unwrap().unwrap();
        }
        within("the kill", child.kill()).await.unwrap();
    }
    // There is work left for the last one.
    publish_portion(&engine, KILLS).await;
    let child = engine.spawn(&forward);
    until("all events", async || (forwarded(&engine).await >= EVENTS).then_some(())).await;
    interrupt(&child);
    let ended = within("its end", child.wait_with_output()).await.unwrap();
    assert!(ended.status.success(), "{ended:?}");
    check_each_once(&engine).await;
    engine.stop().await;
}

#[tokio::test]
async fn a_consumer_forwards_each_event_once_through_kills_of_the_engine() {
    let dir = TempDir::new().unwrap();
    let (data, address) = (dir.path().join("data"), own_address().to_string());
    let mut engine = Process::start_at(&data, &address).await;
    with_orders(&engine, "").await;
    let mut child = engine.spawn(&[&FORWARD[..], &OFTEN].concat());
    let mut printed = stdout(&mut child);
    for kill in 0..KILLS {
        publish_portion(&engine, kill).await;
        for _ in 0..PORTION / 8 {
            within("an event", printed.next_line()).await.unwrap().unwrap();
        }
        engine.kill().await;
        engine = Process::start_at(&data, &address).await;
    }
    publish_portion(&engine, KILLS).await;
    while forwarded(&engine).await < EVENTS {
        within("an event", printed.next_line()).await.unwrap().unwrap();
    }
    interrupt(&child);
    let said = within("its end", child.wait_with_output()).await.unwrap();
    let said = String::from_utf8(said.stderr).unwrap();
    assert!(said.ends_with(&format!("\npublished {EVENTS} events to invoices\n")), "{said}");
    check_each_once(&engine).await;
    engine.stop().await;
}

#[tokio::test]
async fn forwarding_waits_for_room_in_its_topic_and_says_so() {
    let (_dir, engine) = engine().await;
    // Events with a time to live are taken anew while they wait.
    with_orders(&engine, &"{\"payload\":1,\"ttl_ms\":3600000}\n".repeat(5)).await;
    engine.text(&["topic", "set", "invoices", "--backlog-max-events", "3"]).await;
    engine.text(&["subscription", "create", "invoices/book"]).await;
    let mut child = engine.spawn(&[&FORWARD[..], &["--max", "5"]].concat());
    let line = waiting(&mut stderr(&mut child)).await;
    assert!(
        line.contains("BACKLOG_FULL: topic invoices is full: subscription invoices/book has 3"),
        "{line}"
    );
    assert_eq!(forwarded(&engine).await, 3, "as many as there is room for");
    engine.text(&["subscribe", "invoices/book", "--max", "3"]).await;
    let ended = within("its end", child.wait_with_output()).await.unwrap();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(attempts(&ended.stdout), [1; 5]);
    let described = engine.json(&["subscription", "describe", "orders/s"]).await;
    assert_eq!(described[0]["lag"], 0, "{described:?}");
    engine.stop().await;
}

#[tokio::test]
async fn a_stop_while_the_topic_is_full_says_why_and_what_comes_again_as_new() {
    let (_dir, engine) = engine().await;
    with_orders(&engine, &"{\"payload\":1}\n".repeat(5)).await;
    engine.text(&["topic", "set", "invoices", "--backlog-max-events", "4"]).await;
    engine.text(&["subscription", "create", "invoices/book"]).await;
    let mut child = engine.spawn(&FORWARD);
    let mut said = stderr(&mut child);
    waiting(&mut said).await;
    interrupt(&child);
    let mut last = Vec::new();
    while let Some(line) = within("its last words", said.next_line()).await.unwrap() {
        last.push(line);
    }
    let ended = within("its end", child.wait()).await.unwrap();
    let [why, summary] = last.as_slice() else { panic!("{last:?}") };
    assert!(why.starts_with("BACKLOG_FULL: topic invoices is full: "), "{why}");
    assert!(why.ends_with("; the last 1 event did not go to invoices, and will come again"), "{why}");
    assert_eq!((summary.as_str(), ended.code()), ("published 4 events to invoices", Some(0)));
    engine.text(&["subscribe", "invoices/book", "--max", "4"]).await;
    let printed = engine.json(&[&FORWARD[..], &["--max", "1"]].concat()).await;
    assert_eq!((&printed[0]["offset"], &printed[0]["attempt"]), (&json!(4), &json!(1)));
    engine.stop().await;
}

#[tokio::test]
async fn events_that_are_taken_away_before_their_commit_come_again_as_new_and_in_order() {
    let (_dir, engine) = engine().await;
    let lines: String = (0..10).map(|number| format!("{{\"key\":\"k\",\"payload\":{number}}}\n")).collect();
    with_orders(&engine, &lines).await;
    engine.text(&["topic", "set", "invoices", "--backlog-max-events", "4"]).await;
    engine.text(&["subscription", "create", "invoices/book"]).await;
    let mut child = engine.spawn(&[&FORWARD[..], &["--max", "9"]].concat());
    let mut said = stderr(&mut child);
    waiting(&mut said).await;
    // Two of four are committed together: the next ones are 4 and 5, of which 4 is passed over.
    engine.text(&["subscription", "seek", "orders/s", "--to", "5"]).await;
    engine.text(&["subscribe", "invoices/book", "--max", "9"]).await;
    let ended = within("its end", child.wait_with_output()).await.unwrap();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(attempts(&ended.stdout), [1; 9]);
    let numbers: Vec<Value> =
        engine.json(&["read", "invoices"]).await.iter().map(|event| event["payload"].clone()).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 5, 6, 7, 8, 9]);
    engine.stop().await;
}
