//! Events that are gone before a subscription has acknowledged them: who is told, and where it is shown, also after
//! `kill -9`.

use levada_client::{
    Client, LostEvents, Notice, PurgeOptions, Start, Subscriber, SubscriptionInfo, SubscriptionOptions,
};
use serde_json::json;
use tempfile::TempDir;

use crate::support::{
    events::{self, publish_numbers},
    process::Process,
    until, within,
};

/// Drops all that is stored.
async fn purge(client: &Client) {
    let purge = PurgeOptions { force: true, ..PurgeOptions::all() };
    client.purge_topic("orders", purge).await.unwrap();
}

/// The subscription once it has lost so many events.
async fn lost(client: &Client, events: u64) -> SubscriptionInfo {
    until("the loss", async || {
        let info = client.describe_subscription("orders", "s").await.unwrap();
        (info.events_lost == events).then_some(info)
    })
    .await
}

/// A consumer on a connection of its own.
async fn consumer(engine: &Process) -> (Client, Subscriber, tokio::sync::broadcast::Receiver<Notice>) {
    let client = engine.connect().await;
    let notices = client.notices();
    let subscriber = events::subscribe_existing(&client, "orders", "s").await;
    (client, subscriber, notices)
}

async fn told(notices: &mut tokio::sync::broadcast::Receiver<Notice>) -> (u64, u64) {
    match within("a notice", notices.recv()).await.unwrap() {
        Notice::EventsLost { topic, subscription, partition: 0, first, last } => {
            assert_eq!((topic.as_str(), subscription.as_str()), ("orders", "s"));
            (first, last)
        }
        other => panic!("unexpected: {other:?}"),
    }
}

#[tokio::test]
async fn a_loss_before_a_kill_is_told_to_the_next_consumer_with_its_range_and_counts_for_good() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let engine = Process::start(&data).await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    let options = SubscriptionOptions::default();
    client.create_subscription("orders", "s", options, Start::Earliest).await.unwrap();
    publish_numbers(&client, "orders", 0..100).await;
    purge(&client).await;
    let range = LostEvents { partition: 0, first: 0, last: 99, events: 100, earlier: 0 };
    assert_eq!(lost(&client, 100).await.lost, [range]);
    engine.kill().await;
    client.close().await;

    let engine = Process::start(&data).await;
    let described = engine.run(&["subscription", "describe", "orders/s"], "").await.done();
    let line = described.lines().find(|line| line.starts_with("events lost")).unwrap();
    assert!(line.ends_with("  100: partition 0, offsets 0 to 99"), "{described}");
    let json = engine.run(&["subscription", "describe", "orders/s", "--output", "json"], "").await.json();
    let range = json!([{"partition": 0, "first": 0, "last": 99, "events": 100, "earlier": 0}]);
    assert_eq!((&json[0]["events_lost"], &json[0]["lost"]), (&json!(100), &range));
    let (_, metrics) = engine.get("/metrics").await;
    let line = "levada_subscription_lost_events_total{subscription=\"orders/s\"} 100\n";
    assert!(metrics.contains(line), "{metrics}");
    let (client, subscriber, mut notices) = consumer(&engine).await;
    assert_eq!(told(&mut notices).await, (0, 99));
    drop(subscriber);

    // Once a client has it, the next one hears of what came later alone.
    let mut next = 100;
    until("what was told is told no more", async || {
        let (client, subscriber, mut notices) = consumer(&engine).await;
        publish_numbers(&client, "orders", next..next + 1).await;
        purge(&client).await;
        next += 1;
        let (first, _) = told(&mut notices).await;
        drop(subscriber);
        client.close().await;
        (first > 0).then_some(())
    })
    .await;
    client.close().await;
    engine.kill().await;
}
