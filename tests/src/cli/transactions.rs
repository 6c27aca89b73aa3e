//! `levada publish --prepare`, `levada transaction publish`, and decisions about what is prepared.

use serde_json::json;
use tempfile::TempDir;

use super::engine;
use crate::support::process::Process;

#[tokio::test]
async fn a_prepared_transaction_is_listed_described_committed_and_rolled_back() {
    let (_dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders"]).await;
    let prepare = |id: &'static str| ["publish", "orders", "--raw", "--prepare", id, "--check-after", "1h"];
    let prepared = engine.run(&prepare("shop/order-1"), "paid\nsent\n").await.done();
    assert!(
        prepared.starts_with("prepared 2 events for orders as shop/order-1: `levada transaction commit"),
        "{prepared}"
    );
    engine.run(&prepare("shop/order-2"), "paid\n").await.done();
    assert_eq!(engine.text(&["read", "orders"]).await, "", "nothing is visible");
    let list = engine.text(&["transaction", "list"]).await;
    assert!(
        list.contains("shop/order-1") && list.contains("prepared") && list.lines().count() == 3,
        "{list}"
    );
    let described = engine.text(&["transaction", "describe", "shop/order-1"]).await;
    assert!(described.contains("state") && described.contains("orders"), "{described}");
    let committed = engine.text(&["transaction", "commit", "shop/order-1"]).await;
    assert_eq!(committed.trim(), "committed shop/order-1: 2 events stored");
    let again = engine.text(&["transaction", "commit", "shop/order-1"]).await;
    assert!(again.starts_with("shop/order-1 was committed before: 20"), "{again}");
    let rolled_back = engine.json(&["transaction", "rollback", "shop/order-2"]).await;
    assert_eq!((&rolled_back[0]["state"], &rolled_back[0]["repeat"]), (&json!("rolled_back"), &json!(false)));
    assert_eq!(engine.text(&["read", "orders", "--payload"]).await, "paid\nsent\n");
    engine.run(&prepare("shop/order-1"), "paid\nsent\n").await.failed(1, "ALREADY_DECIDED");
    engine.run(&prepare("shop/order-1"), "other\n").await.failed(1, "TRANSACTION_EXISTS");
    assert_eq!(engine.text(&["transaction", "list", "--output", "json"]).await, "");
    let all = engine.text(&["transaction", "list", "--group", "shop", "--all"]).await;
    assert!(all.contains("rolled back") && all.contains("committed"), "{all}");
    engine.run(&["transaction", "rollback", "shop/order-1"], "").await.failed(1, "ALREADY_DECIDED");
    let nothing = engine.run(&["publish", "orders", "--raw", "--prepare", "shop/1"], "").await;
    nothing.failed(1, "INVALID_ARGUMENT");
    assert!(nothing.stderr.contains("expected at least one event to prepare, got none"), "{nothing:?}");
    engine.stop().await;
}

#[tokio::test]
async fn a_group_that_nobody_has_used_has_no_transactions() {
    let (_dir, engine) = engine().await;
    let list = ["transaction", "list", "--group", "absent", "--all"];
    assert!(engine.json(&list).await.is_empty());
    let text = engine.text(&list).await;
    assert_eq!((text.lines().count(), text.split_whitespace().next()), (1, Some("TRANSACTION")), "{text}");
    engine.stop().await;
}

/// An engine with topics orders, of two partitions, and invoices.
async fn with_topics() -> (TempDir, Process) {
    let (dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders", "--partitions", "2"]).await;
    engine.text(&["topic", "create", "invoices"]).await;
    (dir, engine)
}

const PUBLISH: [&str; 2] = ["transaction", "publish"];

#[tokio::test]
async fn lines_for_many_topics_are_published_as_one_transaction() {
    let (dir, engine) = with_topics().await;
    let lines = concat!(
        r#"{"topic":"orders","partition":1,"key":"a","headers":{"x":"1"},"payload":1,"id":"one"}"#,
        "\n\n",
        r#"{"topic":"invoices","payload_text":"bill"}"#,
        "\n",
        r#"{"partition":1,"payload":2,"topic":"orders","ttl_ms":60000}"#,
        "\n",
    );
    let flags = ["--header", "all=yes", "--key", "k", "--ttl", "1h"];
    let published = engine.run(&[&PUBLISH[..], &flags].concat(), lines).await.done();
    let mut said = published.lines();
    assert_eq!(said.next(), Some("published 3 events as one transaction"));
    let table: Vec<Vec<&str>> = said.map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        table[1..],
        [vec!["invoices", "0", "1", "0", "0", "0"], vec!["orders", "1", "2", "0", "1", "0"]]
    );
    let orders = engine.json(&["read", "orders"]).await;
    assert_eq!(
        (&orders[0]["key"], &orders[0]["headers"], &orders[0]["id"], &orders[0]["ttl_ms"]),
        (&json!("a"), &json!({"all": "yes", "x": "1"}), &json!("one"), &json!(3_600_000))
    );
    assert_eq!((&orders[1]["key"], &orders[1]["ttl_ms"]), (&json!("k"), &json!(60_000)));
    assert_eq!(engine.json(&["read", "invoices"]).await[0]["payload_text"], "bill");

    // What was read is what can be published: to the same topic, into the same partition.
    let file = dir.path().join("events.ndjson");
    std::fs::write(&file, orders.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    engine.text(&["topic", "set", "orders", "--dedup-window", "1h"]).await;
    let again = [&PUBLISH[..], &["shop/copy", "--file", file.to_str().unwrap()]].concat();
    let again = &engine.json(&again).await[0];
    assert_eq!(
        (&again["group"], &again["id"], &again["repeat"]),
        (&json!("shop"), &json!("copy"), &json!(false))
    );
    assert_eq!(again["batches"][0]["partition"], 1);
    assert_eq!((&again["batches"][0]["offset"], &again["batches"][0]["last_offset"]), (&json!(2), &json!(3)));
    let third = &engine.run(&[&PUBLISH[..], &["--output", "json"]].concat(), lines).await.json()[0];
    assert_eq!(
        (&third["group"], &third["published"], &third["duplicates"]),
        (&json!("default"), &json!(2), &json!(1))
    );
    let orders = &third["batches"][1];
    assert_eq!((&orders["events"], &orders["offset"]), (&json!(2), &json!(4)));
    assert_eq!(orders["duplicates"], json!([{"line": 1, "offset": 2}]));
    engine.stop().await;
}

#[tokio::test]
async fn one_line_that_cannot_be_stored_leaves_nothing_of_a_transaction() {
    let (_dir, engine) = with_topics().await;
    let good = r#"{"topic":"invoices","payload":1}"#;
    for (line, code, said) in [
        (
            "{\"payload\":2}",
            "INVALID_ARGUMENT",
            "line 2: expected a field `topic`, got none\nhint: nothing was published",
        ),
        ("nonsense", "INVALID_ARGUMENT", "line 2: expected a JSON object"),
        ("{\"topic\":\"orders\",\"amount\":2}", "INVALID_ARGUMENT", "jq -c '{topic: \"TOPIC\", payload: .}'"),
        (
            "{\"topics\":\"orders\",\"payload\":2}",
            "INVALID_ARGUMENT",
            "got a field `topics`\nhint: besides these `topic` and `partition` say where the event goes; nothing was",
        ),
        (
            "{\"topic\":\"Orders\",\"payload\":2}",
            "INVALID_ARGUMENT",
            "line 2: topic name \"Orders\" is invalid",
        ),
        (
            "{\"topic\":\"ordres\",\"payload\":2}",
            "TOPIC_NOT_FOUND",
            "line 2: there is no topic ordres\nhint: the nearest name is orders; ",
        ),
        (
            "{\"topic\":\"orders\",\"partition\":2,\"payload\":2}",
            "PARTITION_NOT_FOUND",
            "line 2: topic orders has partitions 0 to 1, got partition 2",
        ),
    ] {
        let refused =
            engine.run(&[&PUBLISH[..], &["shop/1"]].concat(), &format!("{good}\n{line}\n{good}\n")).await;
        refused.failed(1, code);
        assert!(refused.stderr.contains(said), "{refused:?}");
    }
    for command in [&PUBLISH[..], &[&PUBLISH[..], &["shop/2"]].concat()] {
        let nothing = engine.run(command, "\n").await.done();
        assert_eq!(nothing, "published 0 events: there were none in the input\n");
    }
    engine.run(&["transaction", "describe", "shop/2"], "").await.failed(1, "TRANSACTION_NOT_FOUND");
    assert_eq!(engine.text(&["read", "invoices"]).await, "", "nothing of any of them is stored");
    engine.stop().await;
}

#[tokio::test]
async fn a_transaction_beyond_a_limit_or_for_a_full_topic_leaves_nothing_and_says_why() {
    let (_dir, engine) = with_topics().await;
    let good = r#"{"topic":"invoices","payload":1}"#;
    let limits = [
        (format!("{good}\n").repeat(10_001), "line 10001 is one event too many: the limit is 10000"),
        (
            (0..1_001)
                .map(|partition| {
                    good.replace("payload", &format!("partition\":{partition},\"payload")) + "\n"
                })
                .collect(),
            "line 1001 is one batch too many: the limit is 1000",
        ),
        (
            format!("{}\n", good.replace('1', &format!("\"{}\"", "x".repeat(1_000_000)))).repeat(5),
            "line 5: the transaction would have 5 events of 5000010 bytes, at most 10000 of 4194304 bytes fit",
        ),
    ];
    for (lines, said) in limits {
        let refused = engine.run(&PUBLISH, &lines).await;
        refused.failed(1, "TRANSACTION_TOO_LARGE");
        assert!(refused.stderr.contains(said), "{said}: {}", refused.stderr);
    }

    engine.text(&["topic", "create", "full", "--backlog-max-events", "1"]).await;
    engine.text(&["subscription", "create", "full/s"]).await;
    engine.run(&["publish", "full", "--raw"], "1\n").await.done();
    let full = format!("{good}\n{}\n", good.replace("invoices", "full"));
    let refused = engine.run(&[&PUBLISH[..], &["--timeout", "4s"]].concat(), &full).await;
    refused.failed(1, "BACKLOG_FULL");
    assert!(refused.stderr.contains("topic full is full: subscription full/s has 1 event"), "{refused:?}");
    let waiting = "waiting: BACKLOG_FULL: topic full is full: subscription full/s has 1 event";
    assert!(refused.stderr.contains(waiting), "{refused:?}");
    assert!(refused.stderr.contains("; the transaction is tried again for 4s (--timeout)"), "{refused:?}");
    assert_eq!(engine.text(&["read", "invoices"]).await, "", "nothing of any of them is stored");
    engine.stop().await;
}

#[tokio::test]
async fn a_transaction_that_is_published_again_under_its_name_is_stored_once() {
    let (_dir, engine) = with_topics().await;
    let lines = "{\"topic\":\"orders\",\"payload\":1}\n{\"topic\":\"invoices\",\"payload\":2}\n";
    let named = [&PUBLISH[..], &["shop/order-42"]].concat();
    let first = engine.run(&named, lines).await.done();
    assert!(first.starts_with("published 2 events as shop/order-42\n"), "{first}");
    let again = engine.run(&named, lines).await.done();
    assert!(
        again.starts_with("shop/order-42 was committed before: nothing was stored now, its 2 events are"),
        "{again}"
    );
    assert_eq!(again.split_once('\n').unwrap().1, first.split_once('\n').unwrap().1, "the same places");
    let again = engine.run(&[&named[..], &["--output", "json"]].concat(), lines).await.json();
    assert_eq!((&again[0]["repeat"], &again[0]["published"]), (&json!(true), &json!(2)));
    let stored =
        engine.json(&["read", "orders"]).await.len() + engine.json(&["read", "invoices"]).await.len();
    assert_eq!(stored, 2);
    let other = engine.run(&named, &lines.replace('2', "3")).await;
    other.failed(1, "TRANSACTION_EXISTS");
    let hint = "`levada transaction describe shop/order-42` shows it";
    assert_eq!(other.stderr.matches(hint).count(), 1, "{other:?}");
    for _ in 0..2 {
        engine.run(&PUBLISH, lines).await.done();
    }
    assert_eq!(engine.json(&["read", "invoices"]).await.len(), 3, "without a name each is another");
    engine.stop().await;
}

#[tokio::test]
async fn a_transaction_for_many_topics_waits_for_its_commit_if_it_is_only_prepared() {
    let (_dir, engine) = with_topics().await;
    let lines = "{\"topic\":\"orders\",\"payload\":1}\n{\"topic\":\"invoices\",\"payload\":2}\n";
    let prepare = [&PUBLISH[..], &["shop/order-42", "--prepare", "--check-after", "1h"]].concat();
    let prepared = engine.run(&prepare, lines).await.done();
    let said =
        "prepared 2 events for invoices, orders as shop/order-42: `levada transaction commit shop/order-42`";
    assert!(prepared.starts_with(said), "{prepared}");
    let again = engine.run(&prepare, lines).await.done();
    assert!(again.starts_with("had prepared 2 events"), "{again}");
    let stored = async || {
        engine.text(&["read", "orders", "--payload"]).await
            + &engine.text(&["read", "invoices", "--payload"]).await
    };
    assert_eq!(stored().await, "", "nothing is visible");
    let info = &engine.json(&["transaction", "describe", "shop/order-42"]).await[0];
    let until_check = info["next_check_ms"].as_u64().unwrap() - info["prepared_ms"].as_u64().unwrap();
    assert_eq!((&info["state"], until_check), (&json!("prepared"), 3_600_000));
    engine.run(&[&PUBLISH[..], &["shop/order-42"]].concat(), lines).await.failed(1, "TRANSACTION_EXISTS");
    engine.text(&["transaction", "commit", "shop/order-42"]).await;
    assert_eq!(stored().await, "1\n2\n");
    engine.stop().await;
}
