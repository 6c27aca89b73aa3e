//! `levada dlq`: what it lists, shows, redrives and purges, and what is wrong with a command of it.

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use super::engine;
use crate::support::{
    process::{Process, interrupt},
    within,
};

const SHOP: &str = "shop/payment";

/// A subscription with two dead letters of a plugin, which let three events through, and one of a route.
async fn with_dead_letters(engine: &Process) {
    for topic in ["shop", "shop.paid", "repaired"] {
        engine.text(&["topic", "create", topic]).await;
    }
    engine.text(&["plugin", "deploy", "--bundled"]).await;
    let lines = "{\"amount\":1}\nno JSON\n{\"amount\":2}\nnor this\n{\"amount\":3}\n";
    engine.run(&["publish", "shop", "--raw", "--key", "k", "--header", "region=eu"], lines).await.done();
    let plugin = r#"json-filter:{"where":"amount > 0"}"#;
    let subscribe = ["subscribe", SHOP, "--from", "earliest", "--plugin", plugin, "--max", "3"];
    engine.run(&subscribe, "").await.done();
}

fn redriven(offset: u64, to_offset: u64) -> String {
    format!("offset {offset}: redriven to topic repaired, partition 0, offset {to_offset}\n")
}

#[tokio::test]
async fn dead_letters_are_listed_counted_shown_redriven_and_purged() {
    let (_dir, engine) = engine().await;
    assert_eq!(engine.json(&["dlq", "list"]).await, Vec::<Value>::new());
    with_dead_letters(&engine).await;
    let listed = engine.text(&["dlq", "list", "shop"]).await;
    assert!(listed.starts_with("OF") && listed.contains("shop/payment             2"), "{listed}");
    let listed = engine.json(&["dlq", "list"]).await;
    assert_eq!((&listed[0]["of"], &listed[0]["name"]), (&json!(SHOP), &json!("dlq.shop.payment")));
    assert_eq!((listed.len(), &listed[0]["count"]), (1, &json!(2)));

    let counted = engine.run(&["dlq", "list", SHOP], "").await;
    assert!(counted.stderr.contains("dead letters: 2"), "{counted:?}");
    let counted = engine.json(&["dlq", "list", SHOP]).await;
    assert_eq!(counted.len(), 1, "{counted:?}");
    let group = &counted[0];
    assert_eq!((&group["reason"], &group["plugin"]), (&json!("undecodable"), &json!("json-filter@1")));
    assert_eq!((&group["count"], &group["redriven"]), (&json!(2), &json!(0)));

    let shown = engine.text(&["dlq", "show", SHOP]).await;
    for part in [
        "reason    undecodable",
        "plugin    json-filter@1",
        "topic shop, partition 0, offset 1",
        "redriven  no",
    ] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    let shown = engine.json(&["dlq", "show", SHOP, "--offset", "1"]).await;
    assert_eq!((shown.len(), &shown[0]["offset"], &shown[0]["source_offset"]), (1, &json!(1), &json!(3)));
    let event = &shown[0]["event"];
    assert_eq!((&event["payload_text"], &event["key"]), (&json!("nor this"), &json!("k")));
    assert_eq!((&event["headers"], &event["topic"]), (&json!({"region": "eu"}), &json!("shop")));
    assert_eq!(shown[0]["redriven"], Value::Null);

    let redrive = ["dlq", "redrive", SHOP, "--to", "repaired"];
    let first = engine.run(&[&redrive[..], &["--offset", "1"]].concat(), "").await;
    assert_eq!((first.code, first.stdout.as_str()), (0, redriven(1, 0).as_str()), "{first:?}");
    assert_eq!(first.stderr, "redriven 1\n");
    let rest = engine
        .run(&[&redrive[..], &["--where", "header.lv-dlq-reason = \"undecodable\""]].concat(), "")
        .await;
    assert!(rest.stdout.starts_with(&redriven(0, 1)), "{rest:?}");
    assert!(rest.stdout.contains("offset 1: left alone, redriven once before, at "), "{rest:?}");
    assert_eq!(rest.stderr, "redriven 1, already redriven before 1\n");
    let again = engine.json(&[&redrive[..], &["--all"]].concat()).await;
    let kinds: Vec<&Value> = again.iter().map(|outcome| &outcome["kind"]).collect();
    assert_eq!(kinds, [&json!("already_redriven"), &json!("already_redriven")]);
    let events = engine.json(&["read", "repaired"]).await;
    assert_eq!(events[1]["payload_text"], json!("no JSON"));
    assert_eq!(events[1]["headers"], json!({"region": "eu", "lv-redrives": "1"}));
    let shown = engine.json(&["dlq", "show", SHOP, "--max", "1"]).await;
    assert_eq!(
        (&shown[0]["redriven"]["to"], &shown[0]["redriven"]["times"]),
        (&json!("repaired"), &json!(1))
    );

    let purged = engine.text(&["dlq", "purge", SHOP, "--all"]).await;
    assert_eq!(purged, "purged 2 dead letters of shop/payment\n", "all had been redriven");
    assert_eq!(engine.json(&["dlq", "show", SHOP]).await, Vec::<Value>::new());
    engine.stop().await;
}

#[tokio::test]
async fn what_was_never_redriven_is_purged_only_if_somebody_says_so() {
    let (_dir, engine) = engine().await;
    with_dead_letters(&engine).await;
    let purge = ["dlq", "purge", SHOP, "--all"];
    let refused = engine.run(&purge, "y\n").await;
    refused.failed(1, "NOT_REDRIVEN");
    assert!(
        refused.stderr.contains("2 of the 2 dead letters of shop/payment")
            && refused.stderr.contains("--force")
    );
    let no = engine.run_typing(&purge, "n\n").await;
    assert!(no.code == 1 && no.stderr.contains("no dead letter of shop/payment was purged"), "{no:?}");
    engine.text(&["dlq", "redrive", SHOP, "--offset", "0", "--to", "repaired"]).await;
    let nothing = engine.text(&["dlq", "purge", SHOP, "--before", "1h"]).await;
    assert_eq!(nothing, "purged 0 dead letters of shop/payment\n");
    let yes = engine.run_typing(&purge, "y\n").await.done();
    assert_eq!(yes, "purged 2 dead letters of shop/payment, of which 1 was never redriven\n");
    engine.stop().await;
}

#[tokio::test]
async fn dead_letters_of_a_route_go_by_its_name() {
    let (_dir, engine) = engine().await;
    with_dead_letters(&engine).await;
    let plugin = r#"json-filter:{"where":"amount > 0"}"#;
    let route = ["route", "create", "big", "--from", "shop", "--to", "shop.paid", "--start", "earliest"];
    engine.text(&[&route[..], &["--plugin", plugin]].concat()).await;
    engine.run(&["read", "shop.paid", "--follow", "--max", "3"], "").await.done();
    let counted = engine.json(&["dlq", "list", "shop/route-big"]).await;
    assert_eq!(counted[0]["count"], json!(2));
    engine.text(&["dlq", "redrive", "shop/route-big", "--all", "--to", "repaired"]).await;
    let listed = engine.json(&["dlq", "list", "shop"]).await;
    let names: Vec<&Value> = listed.iter().map(|topic| &topic["of"]).collect();
    assert_eq!(names, [&json!("shop/payment"), &json!("shop/route-big")]);
    engine.stop().await;
}

#[tokio::test]
async fn dead_letters_go_back_to_their_subscription_alone() {
    let (_dir, engine) = engine().await;
    with_dead_letters(&engine).await;
    engine.text(&["subscription", "set", SHOP, "--no-plugins"]).await;
    let redrive = ["dlq", "redrive", SHOP, "--all"];
    let done = engine.run(&redrive, "").await;
    let sentence = |offset: u64, at: u64| {
        let place = format!("topic shop, partition 0, offset {at}");
        format!("offset {offset}: redriven to the subscription alone, as {place}\n")
    };
    assert_eq!((done.code, done.stdout), (0, sentence(0, 1) + &sentence(1, 3)));
    assert_eq!(done.stderr, "redriven 2\n");
    let described = engine.json(&["subscription", "describe", SHOP]).await;
    assert_eq!((&described[0]["redriven"], &described[0]["lag"]), (&json!(2), &json!(0)));
    let described = engine.text(&["subscription", "describe", SHOP]).await;
    assert!(described.lines().any(|line| line.split_whitespace().eq(["redriven", "2"])), "{described}");
    let got = engine.json(&["subscribe", SHOP, "--max", "2"]).await;
    let places: Vec<_> = got.iter().map(|it| (&it["offset"], &it["payload_text"])).collect();
    assert_eq!(places, [(&json!(1), &json!("no JSON")), (&json!(3), &json!("nor this"))]);
    assert_eq!(got[0]["headers"], json!({"region": "eu", "lv-redrives": "1"}));
    assert_eq!(engine.json(&["read", "shop"]).await.len(), 5, "nothing was appended");
    let again = engine.run(&redrive, "").await;
    assert!(again.stdout.contains("left alone, redriven once before, at "), "{again:?}");
    assert!(again.stdout.contains(" to the subscription alone, as topic shop, "), "{again:?}");
    let shown = engine.json(&["dlq", "show", SHOP, "--offset", "0"]).await;
    assert_eq!((&shown[0]["redriven"]["alone"], &shown[0]["redriven"]["to"]), (&json!(true), &json!("shop")));

    engine.text(&["subscription", "delete", SHOP, "--force"]).await;
    let gone = engine.run(&redrive, "").await;
    gone.failed(1, "SUBSCRIPTION_NOT_FOUND");
    assert!(gone.stderr.contains("there is no subscription shop/payment any more"), "{gone:?}");
    assert!(gone.stderr.contains("--to TOPIC redrives them to a topic"), "{gone:?}");
    engine.stop().await;
}

#[tokio::test]
async fn an_event_that_was_redriven_too_often_is_left_alone_and_the_command_says_so() {
    let (_dir, engine) = engine().await;
    with_dead_letters(&engine).await;
    // Back to where the plugin refuses it again, each time as a new dead letter.
    for number in 0..8 {
        let offset = if number == 0 { "0".to_owned() } else { (number + 1).to_string() };
        engine.text(&["dlq", "redrive", SHOP, "--offset", &offset, "--to", "shop"]).await;
        engine.run(&["publish", "shop", "--raw"], "{\"amount\":9}\n").await.done();
        engine.run(&["subscribe", SHOP, "--max", "1"], "").await.done();
    }
    let guarded = engine.run(&["dlq", "redrive", SHOP, "--offset", "9", "--to", "shop"], "").await;
    assert_eq!(guarded.code, 1, "{guarded:?}");
    assert_eq!(guarded.stdout, "offset 9: left alone, its event was redriven 8 times and failed again\n");
    assert!(guarded.stderr.contains("error: REDRIVE_LOOP: 1 dead letter was not redriven"), "{guarded:?}");
    engine.text(&["dlq", "redrive", SHOP, "--offset", "9", "--to", "shop", "--force"]).await;
    engine.stop().await;
}

#[tokio::test]
async fn a_redrive_that_was_interrupted_says_how_to_go_on_and_does() {
    let (_dir, engine) = engine().await;
    for topic in ["shop", "repaired"] {
        engine.text(&["topic", "create", topic]).await;
    }
    engine.text(&["plugin", "deploy", "--bundled"]).await;
    let lines: String = (0..6_000).map(|number| format!("no JSON {number}\n")).collect();
    engine.run(&["publish", "shop", "--raw"], &format!("{lines}{{\"amount\":1}}\n")).await.done();
    let plugin = r#"json-filter:{"where":"amount > 0"}"#;
    engine.run(&["subscribe", SHOP, "--from", "earliest", "--plugin", plugin, "--max", "1"], "").await.done();

    let redrive = ["dlq", "redrive", SHOP, "--all", "--to", "repaired"];
    let mut child = engine.spawn(&redrive);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    within("the first outcome", stdout.read_line(&mut first)).await.unwrap();
    // It waits until somebody reads on, so that it has not come to its end.
    interrupt(&child);
    let mut rest = String::new();
    within("what it did", stdout.read_to_string(&mut rest)).await.unwrap();
    let ended = within("its end", child.wait_with_output()).await.unwrap();
    assert_eq!(ended.status.code(), Some(130));
    let told = 1 + rest.lines().count();
    let stderr = String::from_utf8(ended.stderr).unwrap();
    let expected = "; to go on: levada dlq redrive shop/payment --all --to=repaired --addr=";
    assert!(told < 6_000 && stderr.contains(expected), "{told}: {stderr}");

    let again = engine.json(&redrive).await;
    let is = |kind: &str| again.iter().filter(|outcome| outcome["kind"] == kind).count();
    assert_eq!((is("already_redriven"), is("redriven")), (told, 6_000 - told), "all that was done was told");
    let mut repaired: Vec<String> =
        engine.text(&["read", "repaired", "--payload"]).await.lines().map(str::to_owned).collect();
    repaired.sort_unstable();
    repaired.dedup();
    assert_eq!(repaired.len(), 6_000);
    assert_eq!(engine.json(&["topic", "describe", "repaired"]).await[0]["partitions"][0]["end"], 6_000);
    engine.stop().await;
}

#[tokio::test]
async fn what_the_engine_refuses_of_a_command_about_dead_letters_is_said() {
    let (_dir, engine) = engine().await;
    with_dead_letters(&engine).await;
    for (arguments, code, part) in [
        (&["list", "shop/paymnet"][..], "SUBSCRIPTION_NOT_FOUND", "the nearest name is payment"),
        (&["show", "shpo/payment"], "TOPIC_NOT_FOUND", "the nearest name is shop"),
        (&["list", SHOP, "--where", "amount >"], "INVALID_ARGUMENT", "where: column 9"),
        (&["show", SHOP, "--offset", "7"], "OFFSET_OUT_OF_RANGE", "offsets 0 to 2"),
        (&["show", SHOP, "--where", "("], "INVALID_ARGUMENT", "where: column"),
        (&["redrive", SHOP, "--all", "--to", "dlq.shop.payment"], "REDRIVE_LOOP", "the engine's own"),
        (&["redrive", SHOP, "--all", "--to", "absent"], "TOPIC_NOT_FOUND", "there is no topic absent"),
        (&["redrive", SHOP, "--all", "--to", "repaire"], "TOPIC_NOT_FOUND", "the nearest name is repaired"),
        (&["redrive", SHOP, "--where", "amount >", "--to", "shop"], "INVALID_ARGUMENT", "where: column 9"),
    ] {
        let refused = engine.run(&[&["dlq"][..], arguments].concat(), "").await;
        refused.failed(1, code);
        assert!(refused.stderr.contains(part), "{part} is not in {refused:?}");
    }
    let gone = engine.run(&["dlq", "redrive", SHOP, "--offset", "7", "--to", "shop"], "").await;
    assert_eq!(gone.code, 1);
    assert!(gone.stdout.starts_with("offset 7: OFFSET_OUT_OF_RANGE: there is no dead letter"), "{gone:?}");
    engine.stop().await;
}

#[tokio::test]
async fn a_subscription_or_route_that_has_none_is_no_failure() {
    let (_dir, engine) = engine().await;
    for topic in ["shop", "shop.paid"] {
        engine.text(&["topic", "create", topic]).await;
    }
    engine.text(&["subscription", "create", SHOP]).await;
    engine.text(&["route", "create", "paid", "--from", "shop", "--to", "shop.paid"]).await;
    for (of, to) in [(SHOP, None), ("shop/route-paid", Some("shop.paid"))] {
        let redrive: Vec<&str> =
            ["dlq", "redrive", of].into_iter().chain(to.iter().flat_map(|to| ["--to", to])).collect();
        let all = [&redrive[..], &["--all"]].concat();
        let none = format!("{of} has no dead letters\n");
        for command in [&["dlq", "list", of][..], &["dlq", "show", of], &all] {
            let ran = engine.run(command, "").await;
            assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{command:?}: {ran:?}");
            assert_eq!(ran.stderr, none, "{command:?}");
        }
        assert_eq!(engine.text(&["dlq", "purge", of, "--all"]).await, none);
        check_json_of_none(&engine, of, &all).await;
        for command in
            [&["dlq", "show", of, "--offset", "7"][..], &[&redrive[..], &["--offset", "7"]].concat()]
        {
            let named = engine.run(command, "").await;
            named.failed(1, "OFFSET_OUT_OF_RANGE");
            assert!(named.stderr.contains(&format!("{of} has no dead letter at offset 7")), "{named:?}");
        }
    }
    let to = ["dlq", "redrive", SHOP, "--all", "--to", "absent"];
    engine.run(&to, "").await.done();
    engine.stop().await;
}

/// As JSON, each command says that there are no dead letters in the form in which it says that there are some.
async fn check_json_of_none(engine: &Process, of: &str, redrive: &[&str]) {
    let json = async |command: &[&str]| {
        let ran = engine.run(&[command, &["--output", "json"]].concat(), "").await;
        assert_eq!(ran.code, 0, "{command:?}: {ran:?}");
        let lines =
            |text: &str| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
        (lines(&ran.stdout), lines(&ran.stderr))
    };
    let counted = json!({"count": {"scanned": 0, "scanned_bytes": 0, "undecodable": 0, "next": null}});
    assert_eq!(json(&["dlq", "list", of]).await, (vec![], vec![counted]));
    assert_eq!(json(&["dlq", "show", of]).await, (vec![], vec![]));
    let tally = json!({"redriven": 0, "already_redriven": 0, "over_limit": 0, "refused": 0, "next": null});
    assert_eq!(json(redrive).await, (vec![], vec![json!({"redrive": tally})]));
    let purged = json!({"of": of, "purged": 0, "not_redriven": 0, "start": 0});
    assert_eq!(json(&["dlq", "purge", of, "--all"]).await, (vec![purged], vec![]));
}

#[tokio::test]
async fn that_all_dead_letters_were_purged_is_said_as_that_there_never_were_any() {
    let (_dir, engine) = engine().await;
    with_dead_letters(&engine).await;
    let matching = ["dlq", "redrive", SHOP, "--where", "amount > 9"];
    let matching = engine.run(&matching, "").await;
    assert_eq!(
        (matching.code, matching.stderr.as_str()),
        (0, "shop/payment has no dead letters that match\n")
    );
    engine.text(&["dlq", "purge", SHOP, "--all", "--force"]).await;
    let none = "shop/payment has no dead letters\n";
    for command in [&["dlq", "list", SHOP][..], &["dlq", "show", SHOP], &["dlq", "redrive", SHOP, "--all"]] {
        let ran = engine.run(command, "").await;
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", none), "{command:?}");
    }
    assert_eq!(engine.text(&["dlq", "purge", SHOP, "--all"]).await, none);
    engine.stop().await;
}
