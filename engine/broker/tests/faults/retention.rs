//! Those who read while retention drops what they have not had yet.

use levada_broker::{Consumer, Principal, Told};
use levada_protocol::{
    error::ErrorCode,
    request::{LostEvents, Notice, Read, Request, Retain, Start, SubscriptionOptions, TopicSettings},
    verbs::Credit,
};
use tokio::time::timeout;

use crate::support::{Engine, PLENTY, SOON, delivery};

/// Every event is one byte too many: each round drops all there is.
fn dropping() -> TopicSettings {
    TopicSettings { retain: Retain::TimeAndSize, max_bytes: 1, ..TopicSettings::default() }
}

async fn drop_all(engine: &Engine) {
    engine.broker.run_retention().await.unwrap();
}

#[tokio::test]
async fn retention_drops_what_follows_a_log_that_was_emptied() {
    let engine = Engine::start();
    engine.topic("orders", dropping()).await;
    for published in 1..4 {
        engine.publish("orders", 10).await;
        drop_all(&engine).await;
        let partition = engine.partition("orders").await;
        assert_eq!((partition.start, partition.end, partition.bytes), (published * 10, published * 10, 0));
    }
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_reader_behind_retention_ends_and_says_where_the_log_begins() {
    let engine = Engine::start();
    engine.topic("orders", dropping()).await;
    engine.publish("orders", 10).await;
    for from in [Start::Earliest, Start::Offset(0)] {
        let start = engine.partition("orders").await.start;
        let from = if from == Start::Earliest { from } else { Start::Offset(start) };
        let read = Read { from, follow: true, ..Read::new("orders".parse().unwrap()) };
        let mut reader = engine.broker.read(&Principal::Local, read).await.unwrap();
        reader.credit.grant(Credit { events: 10, bytes: 1 << 20 }).await.unwrap();
        assert_eq!(delivery(&mut reader.outgoing).await.1, (start..start + 10).collect::<Vec<_>>());
        engine.publish("orders", 10).await;
        drop_all(&engine).await;
        engine.publish("orders", 10).await;
        reader.credit.grant(PLENTY).await.unwrap();
        let ended = timeout(SOON, reader.outgoing.recv()).await.unwrap().unwrap().unwrap_err();
        assert_eq!(ended.code(), ErrorCode::OffsetOutOfRange);
        let (next, earliest) = (start + 10, start + 20);
        let expected = format!("its next offset is {next}, the earliest one now is {earliest}");
        assert!(ended.to_string().ends_with(&expected), "{ended}");
    }
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_reader_of_the_oldest_event_begins_with_the_oldest_there_is_when_it_begins() {
    let engine = Engine::start();
    engine.topic("orders", dropping()).await;
    engine.publish("orders", 10).await;
    let open = async |from| {
        let read = Read { from, follow: true, ..Read::new("orders".parse().unwrap()) };
        engine.broker.read(&Principal::Local, read).await.unwrap()
    };
    let (mut oldest, mut fixed) = (open(Start::Earliest).await, open(Start::Offset(0)).await);
    drop_all(&engine).await;
    engine.publish("orders", 2).await;
    oldest.credit.grant(PLENTY).await.unwrap();
    assert_eq!(delivery(&mut oldest.outgoing).await.1, [10, 11]);
    fixed.credit.grant(PLENTY).await.unwrap();
    let ended = timeout(SOON, fixed.outgoing.recv()).await.unwrap().unwrap().unwrap_err();
    assert_eq!(ended.code(), ErrorCode::OffsetOutOfRange);
    engine.broker.shutdown().await;
}

/// What the consumer is told next, and then is known to have been told.
async fn lost(consumer: &mut Consumer) -> (u64, u64) {
    let (range, told) = unconfirmed(consumer).await;
    told.confirm();
    range
}

async fn unconfirmed(consumer: &mut Consumer) -> ((u64, u64), Told) {
    let notice = timeout(SOON, consumer.notices.recv()).await.expect("it is notified").unwrap();
    let (notice, told) = notice.into_parts();
    match notice {
        Notice::EventsLost { topic, subscription, partition: 0, first, last } => {
            assert_eq!((topic.as_str(), subscription.as_str()), ("orders", "payment"));
            ((first, last), told)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_subscription_tells_every_consumer_what_retention_took() {
    let engine = Engine::start();
    engine.topic("orders", dropping()).await;
    let mut first = engine.subscribe(SubscriptionOptions::default()).await;
    let mut second = engine.subscribe(SubscriptionOptions::default()).await;
    for published in 0..3 {
        engine.publish("orders", 10).await;
        drop_all(&engine).await;
        let range = (published * 10, published * 10 + 9);
        assert_eq!((lost(&mut first).await, lost(&mut second).await), (range, range));
    }
    assert_eq!(engine.info().await.events_lost, 30);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_consumer_hears_of_what_was_lost_while_nobody_was_there() {
    let engine = Engine::start();
    engine.topic("orders", dropping()).await;
    let (topic, name) = ("orders".parse().unwrap(), "payment".parse().unwrap());
    let options = SubscriptionOptions::default();
    engine.ask(Request::CreateSubscription { topic, name, options, from: Start::Earliest }).await;
    for rounds in 1..4 {
        engine.publish("orders", 10).await;
        drop_all(&engine).await;
        engine.until_info(|info| info.events_lost == rounds * 10).await;
    }
    let mut consumer = engine.subscribe(SubscriptionOptions::default()).await;
    // One range for all of it.
    assert_eq!(lost(&mut consumer).await, (0, 29));
    // The next one is notified of new losses, and not of the same again.
    drop(consumer);
    let mut consumer = engine.subscribe(SubscriptionOptions::default()).await;
    engine.publish("orders", 1).await;
    drop_all(&engine).await;
    assert_eq!(lost(&mut consumer).await, (30, 30));
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_loss_is_told_after_a_crash_until_a_consumer_was_told_of_it_and_counts_for_good() {
    let engine = Engine::start();
    engine.topic("orders", dropping()).await;
    let consumer = engine.subscribe(SubscriptionOptions::default()).await;
    drop(consumer);
    engine.publish("orders", 10).await;
    drop_all(&engine).await;
    let loss = |first, last, events| LostEvents { partition: 0, first, last, events, earlier: 0 };
    engine.until_info(|info| info.lost == [loss(0, 9, 10)]).await;
    // Nobody was there, then somebody who was gone before it could be told.
    let mut engine = engine.restart().await;
    for _ in 0..2 {
        let mut consumer = engine.subscribe(SubscriptionOptions::default()).await;
        let (range, told) = unconfirmed(&mut consumer).await;
        assert_eq!(range, (0, 9));
        drop((told, consumer));
        engine = engine.restart().await;
    }
    engine.publish("orders", 5).await;
    drop_all(&engine).await;
    engine.until_info(|info| (info.events_lost, &info.lost[..]) == (15, &[loss(0, 14, 15)])).await;
    let mut consumer = engine.subscribe(SubscriptionOptions::default()).await;
    assert_eq!(lost(&mut consumer).await, (0, 14));
    drop(consumer);
    // That it was told is stored as soon as progress is.
    engine.publish("orders", 1).await;
    let mut consumer = engine.subscribe(SubscriptionOptions::default()).await;
    consumer.control.credit(PLENTY).await.unwrap();
    let (token, offsets) = delivery(&mut consumer.outgoing).await;
    engine.ack(&consumer, 1, token, offsets[0]..=offsets[0]).await;
    engine.until_info(|info| info.lag == 0).await;
    let engine = engine.restart().await;
    let mut consumer = engine.subscribe(SubscriptionOptions::default()).await;
    engine.publish("orders", 1).await;
    drop_all(&engine).await;
    assert_eq!(lost(&mut consumer).await, (16, 16), "what was told is told no more");
    let of_new = LostEvents { partition: 0, first: 16, last: 16, events: 16, earlier: 15 };
    engine.until_info(|info| (info.events_lost, &info.lost[..]) == (16, &[of_new])).await;
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_seek_leaves_what_was_lost_and_is_told_and_a_subscription_of_the_same_name_begins_anew() {
    let engine = Engine::start();
    engine.topic("orders", dropping()).await;
    let [topic, name] = ["orders", "payment"];
    let create = || Request::CreateSubscription {
        topic: topic.parse().unwrap(),
        name: name.parse().unwrap(),
        options: SubscriptionOptions::default(),
        from: Start::Earliest,
    };
    engine.ask(create()).await;
    engine.publish("orders", 10).await;
    drop_all(&engine).await;
    engine.until_info(|info| info.events_lost == 10).await;
    let (of, called) = (topic.parse().unwrap(), name.parse().unwrap());
    let seek =
        Request::SeekSubscription { topic: of, name: called, to: Start::Latest, partitions: Vec::new() };
    engine.ask(seek).await;
    let mut consumer = engine.subscribe(SubscriptionOptions::default()).await;
    assert_eq!(lost(&mut consumer).await, (0, 9));
    assert_eq!(engine.info().await.events_lost, 10);
    drop(consumer);
    let (topic, name) = (topic.parse().unwrap(), name.parse().unwrap());
    engine.ask(Request::DeleteSubscription { topic, name, force: true, with_dead_letters: false }).await;
    engine.ask(create()).await;
    let info = engine.info().await;
    assert_eq!((info.events_lost, info.lost), (0, Vec::new()));
    let engine = engine.restart().await;
    assert_eq!(engine.info().await.events_lost, 0);
    engine.broker.shutdown().await;
}
