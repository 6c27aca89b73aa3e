//! `levada publish --ttl`, and what becomes of expired events.

use serde_json::json;

use super::engine;
use crate::support::until;

#[tokio::test]
async fn a_time_to_live_is_given_by_the_command_or_by_the_event_and_shown() {
    let (_dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders"]).await;
    let lines = "{\"payload\": 1}\n{\"payload\": 2, \"ttl_ms\": 7000}\n";
    engine.run(&["publish", "orders", "--ttl", "1h"], lines).await.done();
    engine.run(&["publish", "orders", "--raw"], "3\n").await.done();
    let read = engine.json(&["read", "orders"]).await;
    assert_eq!([&read[0]["ttl_ms"], &read[1]["ttl_ms"]], [&json!(3_600_000), &json!(7_000)]);
    assert!(read[2].get("ttl_ms").is_none(), "{read:?}");
    let wrong = engine.run(&["publish", "orders"], "{\"payload\": 1, \"ttl_ms\": 0}\n").await;
    wrong.failed(1, "INVALID_ARGUMENT");
    let expected = "line 1: expected milliseconds from 1 to 4294967295 as `ttl_ms`, got the number 0";
    assert!(wrong.stderr.contains(expected), "{wrong:?}");
    engine.stop().await;
}

#[tokio::test]
async fn a_subscription_says_what_becomes_of_the_expired_and_how_many_there_were() {
    let (_dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders"]).await;
    engine.text(&["subscription", "create", "orders/s", "--from", "earliest", "--dead-letter-expired"]).await;
    let described = engine.text(&["subscription", "describe", "orders/s"]).await;
    assert!(described.contains("expired         dead letters"), "{described}");
    engine.text(&["subscription", "set", "orders/s", "--dead-letter-expired", "false"]).await;
    let described = engine.text(&["subscription", "describe", "orders/s"]).await;
    assert!(described.contains("expired         passed over"), "{described}");
    engine.text(&["subscription", "set", "orders/s", "--dead-letter-expired", "true"]).await;
    engine.run(&["publish", "orders", "--raw", "--ttl", "1ms"], "gone\n").await.done();
    until("the end of its time", async || {
        engine.run(&["subscribe", "orders/s", "--wait", "1ms", "--no-ack"], "").await.done();
        let described = engine.text(&["subscription", "describe", "orders/s"]).await;
        described.contains("events expired  1").then_some(())
    })
    .await;
    let letters = engine.text(&["dlq", "list", "orders/s"]).await;
    assert!(letters.contains("expired"), "{letters}");
    engine.stop().await;
}
