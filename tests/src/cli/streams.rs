//! Commands that go on for a while: what they say while nothing moves, and how they end.

use std::process::Stdio;

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdout},
};

use super::engine;
use crate::support::{
    process::{Process, interrupt},
    until, within,
};

/// The lines that a child prints, each as it comes.
pub(super) fn stdout(child: &mut Child) -> Lines<BufReader<ChildStdout>> {
    BufReader::new(child.stdout.take().unwrap()).lines()
}

pub(super) fn stderr(child: &mut Child) -> Lines<BufReader<ChildStderr>> {
    BufReader::new(child.stderr.take().unwrap()).lines()
}

#[tokio::test]
async fn a_publish_that_is_refused_for_a_while_says_why_it_waits_and_gives_up_in_time() {
    let dir = TempDir::new().unwrap();
    // No volume has so much room: publishes are refused as on a full disk.
    let full = [("LEVADA_STORE_DISK_RESERVE", "1000PiB")];
    let engine = Process::start_with(&dir.path().join("data"), &full).await;
    engine.text(&["topic", "create", "orders"]).await;
    let refused = engine.run(&["publish", "orders", "--raw", "--timeout", "4s"], "x\n").await;
    refused.failed(1, "STORAGE_FULL");
    let waiting = refused.stderr.lines().filter(|line| line.starts_with("waiting: STORAGE_FULL: ")).count();
    assert_eq!(waiting, 1, "said once in so short a time: {refused:?}");
    assert!(refused.stderr.contains("tried again for 4s"), "{refused:?}");
    let quiet = engine.run(&["publish", "orders", "--raw", "--timeout", "2s", "--quiet"], "x\n").await;
    assert_eq!(quiet.stderr.lines().filter(|line| line.starts_with("waiting")).count(), 0, "{quiet:?}");
    engine.stop().await;
}

#[tokio::test]
async fn a_subscriber_gives_events_back_rejects_them_and_stops_with_so_many_bytes() {
    let (_dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders"]).await;
    engine.text(&["subscription", "create", "orders/s", "--from", "earliest", "--backoff", "none"]).await;
    let publish = ["publish", "orders", "--raw", "--durability", "os"];
    engine.run(&publish, "12345\n").await.done();
    let subscribe = async |flags: &[&str]| {
        let line = [&["subscribe", "orders/s", "--wait", "1h"][..], flags].concat();
        engine.run(&line, "").await.done()
    };
    assert_eq!(subscribe(&["--payload", "--max", "1", "--nack"]).await, "12345\n");
    let again = subscribe(&["--max", "1", "--nack", "1ms"]).await;
    assert!(again.contains(r#""attempt":2"#), "{again}");
    assert_eq!(subscribe(&["--payload", "--max", "1", "--reject", "no such product"]).await, "12345\n");
    let letter = engine.text(&["dlq", "show", "orders/s"]).await;
    assert!(letter.contains("no such product"), "{letter}");
    engine.run(&publish, "678\n90\n1\n").await.done();
    assert_eq!(subscribe(&["--payload", "--max-bytes", "4"]).await, "678\n90\n");
    assert_eq!(subscribe(&["--payload", "--max", "1"]).await, "1\n", "what was not printed is still to come");
    engine.stop().await;
}

#[tokio::test]
async fn a_subscriber_that_pulls_ends_with_its_events_or_its_time() {
    let (_dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders"]).await;
    engine.run(&["publish", "orders", "--raw"], "1\n2\n3\n").await.done();
    let pull = ["subscribe", "orders/s", "--from", "earliest", "--max", "2", "--wait", "1h", "--payload"];
    assert_eq!(engine.run(&pull, "").await.done(), "1\n2\n");
    let nothing = engine.run(&["subscribe", "orders/other", "--wait", "10ms", "--payload"], "").await;
    assert_eq!(nothing.done(), "", "its time was over");
    let rest = ["subscribe", "orders/s", "--max", "1", "--payload"];
    assert_eq!(engine.run(&rest, "").await.done(), "3\n", "what was pulled is acknowledged");
    engine.stop().await;
}

#[tokio::test]
async fn a_paused_subscription_says_so_and_is_not_called_resumed() {
    let (_dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders"]).await;
    engine.text(&["plugin", "deploy", "--bundled"]).await;
    let filter = r#"json-filter:{"where": "amount > 0"}"#;
    let options = ["--ack-timeout", "90s", "--max-attempts", "3", "--max-in-flight", "7"];
    let chain =
        ["--plugin", filter, "--on-error", "pause", "--retries", "0", "--deadline", "2s", "--memory", "8MiB"];
    let create = ["subscription", "create", "orders/s", "--from", "earliest"];
    engine.text(&[&create[..], &options[..], &chain[..]].concat()).await;
    engine.text(&["topic", "create", "target"]).await;
    let route = ["route", "create", "r", "--from", "orders", "--to", "target", "--start", "earliest"];
    engine.text(&[&route[..], &chain[..]].concat()).await;
    engine.run(&["publish", "orders", "--raw"], "no JSON\n").await.done();

    // Waiting for input or a stop: the pause comes while it is attached.
    let mut consumer = engine.spawn(&["subscribe", "orders", "-s", "s"]);
    let mut lines = stderr(&mut consumer);
    let line = within("why nothing comes", lines.next_line()).await.unwrap().unwrap();
    let why = "subscription orders/s is paused: plugin json-filter@1 pauses the chain at offset 0";
    assert!(line.starts_with(why) && line.contains("`levada subscription resume orders/s`"), "{line}");
    let resumed = engine.run(&["subscription", "resume", "orders/s"], "").await;
    resumed.failed(1, "CHAIN_PAUSED");
    assert!(resumed.stderr.contains("pauses the chain at offset 0"), "{resumed:?}");
    engine.run(&["route", "resume", "r"], "").await.failed(1, "CHAIN_PAUSED");

    let listed = engine.run(&["subscription", "list"], "").await;
    assert!(listed.stderr.contains("`levada subscription describe"), "{listed:?}");
    assert_eq!(listed.stdout.lines().count(), 2, "a heading and a line: {listed:?}");
    assert!(listed.stdout.contains("paused: plugin json-filter@1 pauses") && listed.stdout.contains('…'));
    let described = engine.text(&["subscription", "describe", "orders/s"]).await;
    let whole = engine.json(&["subscription", "describe", "orders/s"]).await;
    for part in [
        whole[0]["state"]["reason"]["message"].as_str().unwrap(),
        filter,
        "on error pause, 0 retries, deadline 2s, memory 8.0 MiB",
        "ack timeout     1m30s",
        "max attempts    3",
        "max in flight   7",
    ] {
        assert!(described.contains(part), "{part} is not in {described}");
    }

    interrupt(&consumer);
    assert!(within("its end", consumer.wait()).await.unwrap().success());
    engine.stop().await;
}

#[tokio::test]
async fn a_reader_of_the_output_that_goes_away_ends_a_command_quietly() {
    let (_dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders"]).await;
    let lines: String = (0..50_000).map(|number| format!("{{\"payload\":{number}}}\n")).collect();
    engine.run(&["publish", "orders"], &lines).await.done();
    let read = ["read", "orders"];
    for arguments in [&read[..], &["subscribe", "orders", "-s", "s", "--from", "earliest", "--quiet"]] {
        let mut child = engine.spawn(arguments);
        let (mut printed, mut errors) = (stdout(&mut child), stderr(&mut child));
        within("a line", printed.next_line()).await.unwrap().unwrap();
        drop(printed);
        assert_eq!(within("its end", errors.next_line()).await.unwrap(), None, "{arguments:?}");
        assert!(within("its end", child.wait()).await.unwrap().success(), "{arguments:?}");
    }
    engine.stop().await;
}

#[tokio::test]
async fn a_command_that_waits_ends_with_the_reader_of_its_output() {
    let (_dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders"]).await;
    engine.run(&["publish", "orders", "--raw"], "1\n").await.done();
    for arguments in [
        &["read", "orders", "--follow"][..],
        &["subscribe", "orders", "-s", "s", "--from", "earliest", "--quiet"],
    ] {
        let mut child = engine.spawn(arguments);
        let mut printed = stdout(&mut child);
        within("a line", printed.next_line()).await.unwrap().unwrap();
        drop(printed);
        // No further event comes that it could fail to print.
        assert!(within("its end", child.wait()).await.unwrap().success(), "{arguments:?}");
    }
    engine.stop().await;
}

#[tokio::test]
async fn commands_that_go_on_end_in_order_when_they_are_interrupted() {
    let (_dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders"]).await;
    engine.run(&["publish", "orders", "--raw"], "1\n").await.done();
    let consume = ["subscribe", "orders", "-s", "s", "--from", "earliest"];
    for arguments in [&["read", "orders", "--follow"][..], &consume] {
        let mut child = engine.spawn(arguments);
        within("a line", stdout(&mut child).next_line()).await.unwrap().unwrap();
        interrupt(&child);
        assert!(within("its end", child.wait()).await.unwrap().success(), "{arguments:?}");
    }
    let lag = engine.json(&["subscription", "describe", "orders/s"]).await[0]["lag"].clone();
    assert_eq!(lag, 0, "what was printed is acknowledged");

    let mut publish = engine.spawn_with(&["publish", "orders", "--raw"], Stdio::piped());
    let mut input = publish.stdin.take().unwrap();
    within("the input", tokio::io::AsyncWriteExt::write_all(&mut input, b"2\n")).await.unwrap();
    until("the event", async || (engine.json(&["read", "orders"]).await.len() == 2).then_some(())).await;
    interrupt(&publish);
    let ended = within("its end", publish.wait_with_output()).await.unwrap();
    assert_eq!(ended.status.code(), Some(130));
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(said, "1 event stored, then: interrupted\n");
    engine.stop().await;
}
