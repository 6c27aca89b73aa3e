//! Times to live, end to end.

use std::time::Duration;

use levada_client::{Client, Event, ReadOptions, SubscriptionOptions};

use crate::support::{
    engine::Engine,
    events::{self, earliest, header, numbered},
    until, within,
};

/// When the newest event of a topic was appended, by the engine's clock in milliseconds.
async fn newest(client: &Client, topic: &str) -> u64 {
    let mut reader = client.read(ReadOptions::new(topic)).await.unwrap();
    let mut newest = 0;
    while let Some(delivery) = within("the next events", reader.next()).await.unwrap() {
        newest = delivery.events().map(|(_, appended, _)| appended.0).fold(newest, u64::max);
    }
    newest
}

#[tokio::test]
async fn an_event_that_waited_too_long_is_a_dead_letter_of_one_subscription_and_passed_over_by_another() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    let mortal = numbered(0).with_ttl(Duration::from_millis(1));
    events::publish(&client, "orders", [mortal, numbered(1)]).await;
    events::topic(&client, "clock").await;
    let end = newest(&client, "orders").await + 2;
    until("the end of its time", async || {
        events::publish(&client, "clock", [numbered(0)]).await;
        (newest(&client, "clock").await >= end).then_some(())
    })
    .await;
    for (name, dead_letters) in [("strict", true), ("easy", false)] {
        let options =
            SubscriptionOptions { dead_letter_expired: Some(dead_letters), ..SubscriptionOptions::default() };
        let mut consumer = client.subscribe(earliest("orders", name, options)).await.unwrap();
        let got = events::consume(&mut consumer, 1).await;
        assert_eq!((got.len(), got[0].offset, got[0].attempt), (1, 1, 1));
    }
    until("the dead letter", async || {
        let info = client.describe_subscription("orders", "strict").await.unwrap();
        ((info.events_expired, info.dead_lettered) == (1, 1)).then_some(())
    })
    .await;
    let easy = client.describe_subscription("orders", "easy").await.unwrap();
    assert_eq!((easy.events_expired, easy.dead_lettered), (1, 0));
    let dead = events::read_all(&client, "dlq.orders.strict").await;
    let letter: &Event = &dead[&0][0].1;
    assert_eq!(header(letter, "lv-dlq-reason").as_deref(), Some("expired"));
    assert_eq!(header(letter, "lv-dlq-attempts").as_deref(), Some("0"));
    assert_eq!(events::read_all(&client, "orders").await[&0].len(), 2, "readers see it");
}
