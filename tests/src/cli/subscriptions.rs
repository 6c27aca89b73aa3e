//! `levada subscription`: options that change, moves, pauses, and what a subscription says that it waits for.

use serde_json::json;

use super::engine;
use crate::support::until;

const ORDERS: &str = "orders/s";

#[tokio::test]
async fn a_subscription_is_changed_moved_and_paused_from_the_command_line() {
    let (_dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders", "--partitions", "2"]).await;
    let events: String =
        (0..10).map(|number| format!("{{\"key\":\"{number}\",\"payload\":{number}}}\n")).collect();
    engine.run(&["publish", "orders"], &events).await.done();
    let options = ["--rate", "250", "--backoff", "1s,1m", "--from", "earliest"];
    engine.text(&[&["subscription", "create", ORDERS][..], &options[..]].concat()).await;
    let described = engine.text(&["subscription", "describe", ORDERS]).await;
    for part in [
        "waiting for     a consumer: none is attached",
        "backoff         1s, 1m",
        "rate            250 events/s",
        "lag             10 (0/s arrive, 0/s are done with: no consumer is attached)",
    ] {
        assert!(described.contains(part), "{part} is not in {described}");
    }
    let changed = ["subscription", "set", ORDERS, "--rate", "none", "--backoff", "none", "--order", "none"];
    assert!(engine.text(&changed).await.starts_with("changed subscription orders/s"));
    let whole = engine.json(&["subscription", "describe", ORDERS]).await;
    let options = &whole[0]["options"];
    assert_eq!((&options["rate"], &options["backoff_ms"]), (&json!(0), &json!([])));
    assert_eq!((&options["order"], &options["max_attempts"]), (&json!("none"), &json!(16)));
    assert_eq!(whole[0]["waiting_for"], json!({"kind": "consumer"}));

    let moved = engine.text(&["subscription", "seek", ORDERS, "--to", "latest"]).await;
    assert!(moved.contains("moved subscription orders/s to ") && moved.contains("with 0 events"), "{moved}");
    let moved = engine.json(&["subscription", "seek", ORDERS, "--to", "0", "--partition", "1"]).await;
    assert_eq!(moved[0]["positions"][1], json!({"partition": 1, "offset": 0}));
    assert_ne!(moved[0]["positions"][0]["offset"], 0);
    engine.text(&["subscription", "seek", ORDERS, "--to", "-1h"]).await;
    assert_eq!(engine.json(&["subscription", "describe", ORDERS]).await[0]["lag"], 10);

    let paused = engine.text(&["subscription", "pause", ORDERS]).await;
    assert!(
        paused.contains("paused subscription orders/s") && paused.contains("resume orders/s"),
        "{paused}"
    );
    let described = engine.text(&["subscription", "describe", ORDERS]).await;
    assert!(described.contains("paused: on request"), "{described}");
    assert!(described.contains("waiting for     somebody who resumes it: it was paused"), "{described}");
    engine.text(&["subscription", "resume", ORDERS]).await;
    let got = engine.run(&["subscribe", "orders", "-s", "s", "--max", "10"], "").await.json();
    assert_eq!(got.len(), 10);
    engine.stop().await;
}

#[tokio::test]
async fn what_the_engine_refuses_of_a_change_a_move_or_a_pause_is_said() {
    let (_dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders"]).await;
    engine.text(&["subscription", "create", ORDERS]).await;
    engine.text(&["subscription", "create", "orders/payment"]).await;
    for (arguments, part) in [
        (&["set", ORDERS, "--plugin", "absent"][..], "PLUGIN_NOT_FOUND"),
        (&["set", "orders/paymnet", "--rate", "5"], "the nearest name is payment"),
        (&["seek", ORDERS, "--to", "7"], "OFFSET_OUT_OF_RANGE"),
        (
            &["seek", ORDERS, "--to", "2099-01-01"],
            "expected a time that is not in the future, got 2099-01-01T00:00:00Z",
        ),
        (
            &["create", "orders/later", "--from", "2099-01-01"],
            "topic orders holds no event; `latest` begins with",
        ),
        (&["seek", ORDERS, "--to", "earliest", "--partition", "4"], "PARTITION_NOT_FOUND"),
        (&["seek", "orders/paymnet", "--to", "earliest"], "the nearest name is payment"),
        (&["pause", "orders/paymnet"], "the nearest name is payment"),
    ] {
        let refused = engine.run(&[&["subscription"][..], arguments].concat(), "").await;
        assert_eq!(refused.code, 1, "{arguments:?}: {refused:?}");
        assert!(refused.stderr.contains(part), "{part} is not in {refused:?}");
    }
    engine.stop().await;
}

#[tokio::test]
async fn after_how_long_a_subscription_expires_is_given_shown_changed_and_refused_outside_its_limits() {
    let (_dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders"]).await;
    engine.run(&["publish", "orders", "--raw"], "a\n").await.done();
    let options = ["--expire-after", "7d", "--from", "earliest"];
    engine.text(&[&["subscription", "create", ORDERS][..], &options[..]].concat()).await;
    let described = engine.text(&["subscription", "describe", ORDERS]).await;
    for part in [
        "waiting for     a consumer: none is attached, for ",
        "consumers       no consumer is attached, for ",
        "alarms          -",
        ", after 7d without a consumer, unless one attaches",
    ] {
        assert!(described.contains(part), "{part} is not in {described}");
    }
    let info = &engine.json(&["subscription", "describe", ORDERS]).await[0];
    assert_eq!((&info["options"]["expire_after_ms"], &info["alarms"]), (&json!(604_800_000), &json!([])));
    assert_eq!(info["unattended_since_ms"], info["created_ms"], "it was made without a consumer");
    assert!(info["unattended_for_ms"].as_u64().unwrap() < 3_600_000, "{info}");
    let listed = engine.json(&["subscription", "list", "orders"]).await;
    assert_eq!(listed[0]["unattended_since_ms"], info["unattended_since_ms"]);
    let listed = engine.text(&["subscription", "list", "orders"]).await;
    assert!(listed.contains("EXPIRE AFTER") && listed.contains("  7d  "), "{listed}");

    for (given, shown) in [("1m", 60_000_u64), ("365d", 31_536_000_000), ("none", 0)] {
        engine.text(&["subscription", "set", ORDERS, "--expire-after", given]).await;
        let info = &engine.json(&["subscription", "describe", ORDERS]).await[0];
        assert_eq!(info["options"]["expire_after_ms"], shown, "{given}");
    }
    let described = engine.text(&["subscription", "describe", ORDERS]).await;
    assert!(described.contains("expires         -"), "{described}");
    let listed = engine.text(&["subscription", "list", "orders"]).await;
    assert!(!listed.contains("EXPIRE AFTER"), "{listed}");
    for given in ["59s", "366d", "0s", "soon"] {
        let refused = engine.run(&["subscription", "set", ORDERS, "--expire-after", given], "").await;
        assert_eq!(refused.code, 2, "{refused:?}");
        let said = format!("expected none, or a duration from 1m to 365d such as 7d, got {given:?}");
        assert!(refused.stderr.contains(&said), "{said} is not in {refused:?}");
    }
    let other = ["subscribe", "orders", "-s", "s", "--expire-after", "2d", "--max", "1"];
    let refused = engine.run(&other, "").await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("exists with --expire-after none, expected 2d"), "{refused:?}");

    // A consumer that takes one event and leaves: it counts from then on.
    engine.text(&["subscribe", "orders", "-s", "s", "--max", "1"]).await;
    let made = info["created_ms"].as_u64();
    let since = async || {
        let info = &engine.json(&["subscription", "describe", ORDERS]).await[0];
        info["unattended_since_ms"].as_u64().filter(|since| Some(*since) > made)
    };
    until("the consumer's leaving", since).await;
    engine.stop().await;
}
