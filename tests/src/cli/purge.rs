//! `levada topic purge`.

use serde_json::json;

use super::engine;
use crate::support::until;

#[tokio::test]
async fn a_topic_is_purged_up_to_where_it_is_told_and_not_past_a_subscription() {
    let (_dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders", "--partitions", "2"]).await;
    for (partition, line) in [("0", "a\n"), ("0", "b\n"), ("1", "c\n")] {
        engine.run(&["publish", "orders", "--raw", "--partition", partition], line).await.done();
    }
    let purged = engine.text(&["topic", "purge", "orders", "--partition", "0", "--until", "1"]).await;
    assert_eq!(purged.trim(), "purged 1 event of orders, which begins at 0:1");
    engine.text(&["subscription", "create", "orders/s", "--from", "earliest"]).await;
    let refused = engine.run(&["topic", "purge", "orders", "--all"], "").await;
    refused.failed(1, "TOPIC_IN_USE");
    assert!(refused.stderr.contains("hint: --force purges it all the same\n"), "{refused:?}");
    assert!(
        refused.stderr.contains("events that would be purged: subscription orders/s (2); let"),
        "{refused:?}"
    );
    let purged = engine.json(&["topic", "purge", "orders", "--before", "0s", "--force"]).await.remove(0);
    assert_eq!((&purged["topic"], &purged["purged"]), (&json!("orders"), &json!(2)));
    assert_eq!(purged["positions"][1], json!({"partition": 1, "offset": 1}));
    until("the loss", async || {
        let described = engine.text(&["subscription", "describe", "orders/s"]).await;
        described.contains("events lost     2: partition 0, offset 1; partition 1, offset 0").then_some(())
    })
    .await;
    engine.stop().await;
}

#[tokio::test]
async fn bounds_outside_of_the_topic_purge_nothing() {
    let (_dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders", "--partitions", "2"]).await;
    let far = ["topic", "purge", "orders", "--until", "1", "--partition", "0"];
    engine.run(&far, "").await.failed(1, "OFFSET_OUT_OF_RANGE");
    let beyond = ["topic", "purge", "orders", "--all", "--partition", "2"];
    engine.run(&beyond, "").await.failed(1, "PARTITION_NOT_FOUND");
    engine.stop().await;
}
