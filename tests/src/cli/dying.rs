//! An engine that dies under a command that goes on for a while: the command waits for it, or ends and says why.

use std::{
    io::{Read as _, Write as _},
    process::Stdio,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStdin},
};

use super::{
    asked, engine,
    streams::{stderr, stdout},
};
use crate::support::{
    process::{Process, interrupt},
    until, within,
};

const CONSUME: [&str; 4] = ["subscribe", "orders/s", "--from", "earliest"];
const FOLLOW: [&str; 3] = ["read", "orders", "--follow"];
const PULL: [&str; 6] = ["subscribe", "orders/pull", "--from", "earliest", "--wait", "10s"];

/// An engine with an event in topic orders.
async fn with_an_event() -> (TempDir, Process) {
    let (dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders"]).await;
    engine.run(&["publish", "orders", "--raw"], "1\n").await.done();
    (dir, engine)
}

#[tokio::test]
async fn consuming_and_following_wait_for_an_engine_that_was_killed_and_go_on() {
    let (dir, engine) = with_an_event().await;
    let mut waiting = Vec::new();
    for arguments in [&CONSUME[..], &FOLLOW] {
        let mut child = engine.spawn(&[arguments, &["--payload"]].concat());
        let (mut printed, said) = (stdout(&mut child), stderr(&mut child));
        assert_eq!(within("an event", printed.next_line()).await.unwrap().unwrap(), "1");
        waiting.push((child, printed, said));
    }
    let address = engine.quic.clone();
    engine.kill().await;
    for (_, _, said) in &mut waiting {
        // Before that a subscriber says that it has created its subscription.
        while let Some(line) = within("why nothing comes", said.next_line()).await.unwrap() {
            if line.contains(&address) {
                assert!(line.contains("waiting for it") || line.contains("trying again"), "{line}");
                break;
            }
        }
    }
    let engine = Process::start_at(&dir.path().join("data"), &address).await;
    engine.run(&["publish", "orders", "--raw"], "2\n").await.done();
    for (mut child, mut printed, mut said) in waiting {
        // What was printed, and not known to be acknowledged, may come again.
        while within("the next event", printed.next_line()).await.unwrap().unwrap() != "2" {}
        interrupt(&child);
        assert!(within("its end", child.wait()).await.unwrap().success());
        while let Some(line) = within("the rest", said.next_line()).await.unwrap() {
            assert!(!line.contains("error: ") && !line.contains("panicked"), "{line}");
        }
    }
    engine.stop().await;
}

#[tokio::test]
async fn consuming_and_following_end_in_order_while_the_engine_is_gone() {
    let (_dir, engine) = with_an_event().await;
    let mut waiting = Vec::new();
    for (arguments, ends) in [(&CONSUME[..], false), (&FOLLOW, false), (&PULL, true)] {
        let mut child = engine.spawn(arguments);
        let mut printed = stdout(&mut child);
        within("an event", printed.next_line()).await.unwrap().unwrap();
        waiting.push((child, printed, ends));
    }
    engine.kill().await;
    for (mut child, mut printed, ends) in waiting {
        if !ends {
            interrupt(&child);
        }
        assert!(within("its end", child.wait()).await.unwrap().success());
        assert_eq!(within("the end", printed.next_line()).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_read_that_would_have_come_to_an_end_says_that_it_was_interrupted_and_a_following_one_ends_well() {
    let (_dir, engine) = with_an_event().await;
    // More than is on its way at once: it waits for whoever reads what it prints.
    let lines = format!("{}\n", "x".repeat(500_000)).repeat(32);
    engine.run(&["publish", "orders", "--raw", "--key", "k"], &lines).await.done();
    let read = ["read", "orders", "--payload"];
    for (arguments, code) in [
        (&read[..], 130),
        (&[&read[..], &["--key", "k"]].concat(), 130),
        (&[&read[..], &["--follow"]].concat(), 0),
        (&[&read[..], &["--key", "k", "--follow"]].concat(), 0),
        (&[&read[..], &["--follow", "--max", "1000"]].concat(), 130),
        (&[&read[..], &["--key", "k", "--follow", "--max", "1000"]].concat(), 130),
    ] {
        let mut child = engine.spawn(arguments);
        let mut printed = child.stdout.take().unwrap();
        within("its first byte", printed.read_u8()).await.unwrap();
        interrupt(&child);
        within("the rest", printed.read_to_end(&mut Vec::new())).await.unwrap();
        let ended = within("its end", child.wait()).await.unwrap();
        assert_eq!(ended.code(), Some(code), "{arguments:?}");
    }
    engine.stop().await;
}

/// A publish that is fed line by line, and has been given its first one.
async fn fed(engine: &Process, arguments: &[&str]) -> (Child, ChildStdin) {
    let publish = [&["publish", "orders", "--raw", "--timeout", "5s"], arguments].concat();
    let mut child = engine.spawn_with(&publish, Stdio::piped());
    let mut input = child.stdin.take().unwrap();
    within("the input", input.write_all(b"first\n")).await.unwrap();
    (child, input)
}

#[tokio::test]
async fn a_publish_whose_engine_was_killed_ends_in_its_time_and_says_what_is_stored() {
    let (_dir, engine) = with_an_event().await;
    let mut publishing = Vec::new();
    for (arguments, stored) in [
        (&[][..], "1 event stored, then: line 2: "),
        (&["--no-wait"][..], "1 event stored, then: line 2: "),
        (&["--delay", "1h"][..], "1 event stored, then: line 2: "),
        (&["--expect-offset", "1"][..], ""),
    ] {
        let (child, input) = fed(&engine, arguments).await;
        publishing.push((child, input, arguments, stored));
    }
    // Three have stored their first line; the last one waits for all of its lines.
    until("the first lines", async || {
        let described = engine.json(&["topic", "describe", "orders"]).await;
        let (stored, delayed) = (&described[0]["partitions"][0]["end"], &described[0]["scheduled"]);
        (*stored == 3 && *delayed == 1).then_some(())
    })
    .await;
    engine.kill().await;
    for (child, mut input, arguments, stored) in publishing {
        within("the input", input.write_all(b"second\n")).await.unwrap();
        drop(input);
        let ended = within("its end", child.wait_with_output()).await.unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{arguments:?}: {said}");
        let error = format!("error: DEADLINE_EXCEEDED: {stored}no success within 5s");
        assert!(said.lines().any(|line| line.starts_with(&error)), "{arguments:?}: {said}");
        assert!(ended.stdout.is_empty() && !said.contains("panicked"), "{arguments:?}: {said}");
    }
}

#[tokio::test]
async fn a_command_ends_and_says_so_if_the_engine_is_frozen() {
    let (_dir, engine) = with_an_event().await;
    engine.freeze();
    let ended = async |arguments: &[&str]| {
        let ran = engine.run(arguments, "2\n").await;
        ran.failed(1, "CONNECT_FAILED");
        let said = format!("cannot connect to {}: no answer within 5s", engine.quic);
        assert!(ran.stderr.contains(&said), "{arguments:?}: {ran:?}");
    };
    tokio::join!(
        ended(&["topic", "list"]),
        ended(&["publish", "orders", "--raw"]),
        ended(&["plugin", "deploy", "--bundled"]),
        ended(&["read", "orders"]),
        ended(&CONSUME),
    );
    engine.kill().await;
}

#[tokio::test]
async fn a_command_ends_and_says_so_if_the_engine_dies_between_two_of_its_requests() {
    let (_dir, engine) = with_an_event().await;
    engine.text(&["subscription", "create", "orders/s"]).await;
    let (child, terminal) = engine.spawn_on_terminal(&["topic", "delete", "orders"]);
    let mut terminal = asked(terminal).await;
    engine.kill().await;
    let answered = tokio::task::spawn_blocking(move || {
        terminal.write_all(b"y\n").unwrap();
        let mut shown = Vec::new();
        // Ends with an error once nobody has the other end.
        let _ = terminal.read_to_end(&mut shown);
        String::from_utf8_lossy(&shown).into_owned()
    });
    let ended = within("its end", child.wait_with_output()).await.unwrap();
    let said = within("what it says", answered).await.unwrap();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(ended.stdout.is_empty() && said.contains("error: CONNECTION_LOST: "), "{said}");
}
