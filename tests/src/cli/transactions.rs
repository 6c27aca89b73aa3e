//! `levada publish --prepare` and `levada transaction`.

use serde_json::json;

use super::engine;

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
    nothing.failed(2, "INVALID_ARGUMENT");
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
