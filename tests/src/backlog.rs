//! Quotas of a topic's backlog, from the client over QUIC.

use levada_client::{
    Client, Delivery, ErrorCode, OnFull, Publisher, PublisherOptions, Pull, PullSubscriber, Start,
    SubscribeOptions, SubscriptionOptions, TopicChanges, TopicSettings, WhenFull,
};

use crate::support::{
    engine::Engine,
    events::{self, code, numbered},
    until, within,
};

const MAX: u64 = 50;

/// A topic with a subscription from its beginning, and a publisher of single events.
async fn limited(client: &Client, on_full: OnFull, when_full: WhenFull) -> Publisher {
    let settings = TopicSettings { backlog_max_events: MAX, on_full, ..TopicSettings::default() };
    client.create_topic("orders", settings).await.unwrap();
    let options = SubscriptionOptions::default();
    client.create_subscription("orders", "s", options, Start::Earliest).await.unwrap();
    open(client, when_full).await
}

async fn open(client: &Client, when_full: WhenFull) -> Publisher {
    let options = PublisherOptions { batch_bytes: 1, when_full, ..PublisherOptions::default() };
    client.publisher("orders", options).await.unwrap()
}

/// Takes and acknowledges up to so many events; how many it got.
async fn work(subscriber: &mut PullSubscriber, max: u64) -> u32 {
    let pull = Pull { max, wait: std::time::Duration::from_secs(20), ..Pull::default() };
    let got = within("some events", subscriber.pull(pull)).await.unwrap();
    got.iter().for_each(Delivery::ack);
    within("its acknowledgements", subscriber.confirmed()).await.unwrap();
    got.iter().map(Delivery::count).sum()
}

#[tokio::test]
async fn a_publisher_that_waits_goes_on_in_order_as_the_subscription_makes_room() {
    const EVENTS: u64 = 300;
    let engine = Engine::start().await;
    let client = engine.connect().await;
    let publisher = limited(&client, OnFull::Reject, WhenFull::Wait).await;
    let mut tickets = Vec::new();
    for number in 0..EVENTS {
        tickets.push(publisher.publish(numbered(number)).await.unwrap());
    }
    let refused = async || publisher.refusal().filter(|refusal| refusal.code == ErrorCode::BacklogFull);
    let refusal = until("a refusal", refused).await;
    assert!(refusal.message.contains("subscription orders/s has 50 events"), "{refusal}");
    let end = client.describe_topic("orders").await.unwrap().partitions[0].end;
    assert_eq!(end, MAX, "not one more than the quota");
    let mut subscriber = client.subscribe_pull(SubscribeOptions::new("orders", "s")).await.unwrap();
    let mut done = 0;
    while done < EVENTS {
        done += u64::from(work(&mut subscriber, 20).await);
        let backlog = client.describe_topic("orders").await.unwrap().backlog.unwrap();
        assert!(backlog.events <= MAX, "{backlog:?}");
    }
    for (number, ticket) in (0..).zip(tickets) {
        assert_eq!(
            within("a ticket", ticket).await.unwrap().offset.unwrap().0,
            number,
            "in order, each once"
        );
    }
    let log = events::read_all(&client, "orders").await;
    assert!(events::texts(&log, 0).iter().map(|text| text.parse::<u64>().unwrap()).eq(0..EVENTS));
    let backlog = client.describe_topic("orders").await.unwrap().backlog.unwrap();
    assert_eq!((backlog.events, backlog.bytes, backlog.oldest_age_ms), (0, 0, 0));
    assert!(backlog.refused > 0);
}

#[tokio::test]
async fn a_publisher_that_does_not_wait_is_told_at_once_and_nothing_is_stored() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    let publisher = limited(&client, OnFull::Reject, WhenFull::Fail).await;
    let publish = async |number| {
        let ticket = publisher.publish(numbered(number)).await.unwrap();
        within("a ticket", ticket).await
    };
    for number in 0..MAX {
        publish(number).await.unwrap();
    }
    for number in 0..5 {
        let error = publish(number).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::BacklogFull);
        assert!(error.is_retryable() && error.has_no_side_effects(), "{error}");
    }
    // All at once, so that most are on their way behind one that is refused.
    let mut tickets = Vec::new();
    for number in 0..40 {
        tickets.push(publisher.publish(numbered(number)).await.unwrap());
    }
    for ticket in tickets {
        assert_eq!(code(within("a ticket", ticket).await), ErrorCode::BacklogFull);
    }
    let engine = engine.restart().await;
    let client = engine.connect().await;
    let publisher = open(&client, WhenFull::Fail).await;
    let full = within("a ticket", publisher.publish(numbered(0)).await.unwrap()).await;
    assert_eq!(code(full), ErrorCode::BacklogFull, "also after a restart");
    let mut subscriber = client.subscribe_pull(SubscribeOptions::new("orders", "s")).await.unwrap();
    assert_eq!(work(&mut subscriber, 1).await, 1);
    let stored = within("a ticket", publisher.publish(numbered(MAX)).await.unwrap()).await.unwrap();
    assert_eq!(stored.offset.unwrap().0, MAX);
    let lift = TopicChanges { backlog_max_events: Some(0), ..TopicChanges::default() };
    assert_eq!(client.set_topic("orders", lift).await.unwrap().backlog, None);
    within("a ticket", publisher.publish(numbered(MAX + 1)).await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_subscription_whose_oldest_events_are_dropped_is_told_and_gets_the_newest() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    let publisher = limited(&client, OnFull::DropOldest, WhenFull::Fail).await;
    for number in 0..2 * MAX {
        within("a ticket", publisher.publish(numbered(number)).await.unwrap()).await.unwrap();
    }
    let topic = client.describe_topic("orders").await.unwrap();
    assert_eq!((topic.partitions[0].start, topic.partitions[0].end), (MAX, 2 * MAX));
    assert_eq!(topic.backlog.unwrap().dropped, MAX);
    let told = async || {
        let lost = client.describe_subscription("orders", "s").await.unwrap().events_lost;
        (lost == MAX).then_some(())
    };
    until("its losses", told).await;
    let mut subscriber = client.subscribe_pull(SubscribeOptions::new("orders", "s")).await.unwrap();
    let mut left = 0;
    while u64::from(left) < MAX {
        left += work(&mut subscriber, MAX).await;
    }
    let info = client.describe_subscription("orders", "s").await.unwrap();
    assert_eq!((info.lag, info.events_lost), (0, MAX));
}
