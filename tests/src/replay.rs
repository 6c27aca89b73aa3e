//! Reading everything again, across every boundary at which events could be lost: batches, records, the tail and
//! the store, partitions, credit, retention's edge, restarts.

use std::{collections::BTreeMap, time::Duration};

use bytesize::ByteSize;
use levada_client::{
    Client, DeleteOptions, ErrorCode, Event, Notice, Offset, PartitionId, PublisherOptions, ReadOptions,
    Retain, Start, SubscriptionOptions, TopicSettings,
};
use levada_protocol::ids::Timestamp;

use crate::support::{
    engine::Engine,
    events::{self, Log, code, consume, earliest, next, number_of, payload, publish_numbers},
    raw::{self, Ask, PublishStream, batch},
    rng::Rng,
    until, within,
};

/// What was published, by partition.
type Model = BTreeMap<u16, Vec<Event>>;

/// Sizes of batches: one event, few, as many as there may be, and what lies around the boundaries of records and calls.
const BATCH_COUNTS: [u64; 11] = [1, 1, 1, 2, 7, 64, 511, 512, 513, 2_000, 10_000];

/// Publishes `batches` batches by hand, each of a size of its own, to random partitions; keeps the model.
async fn publish_batches(engine: &Engine, rng: &mut Rng, partitions: u16, batches: usize, model: &mut Model) {
    let (connection, _control, _) = raw::greet(engine.started.quic, &engine.started.ca_pem_path).await;
    let mut stream = PublishStream::open(&connection, "orders").await;
    for _ in 0..batches {
        let partition = u16::try_from(rng.within(0..u64::from(partitions))).unwrap();
        let count = rng.pick(&BATCH_COUNTS);
        let stored = model.entry(partition).or_default();
        let before = u64::try_from(stored.len()).unwrap();
        let large = rng.within(0..10) == 0;
        let event = |number: u64| {
            // A few numbers to know it by, and now and then a payload that does not fit a usual batch.
            let filler = if large && count < 8 { 100_000 } else { number % 40 };
            let payload = format!("{partition}/{number}/{}", "x".repeat(usize::try_from(filler).unwrap()));
            Event::new(payload).at(Timestamp(1_700_000_000_000 + number))
        };
        let events: Vec<Event> = (before..before + count).map(event).collect();
        let ask = Ask { partition, ..Ask::default() };
        let outcome = stream.publish(ask, batch(0, 0, 0, &events).bytes()).await;
        assert_eq!(outcome, raw::stored(before, u32::try_from(count).unwrap(), false));
        stored.extend(events);
    }
}

/// Compares what was read with the model, event by event, from one offset on.
fn assert_same(what: &str, log: &Log, model: &Model, from: impl Fn(u16) -> u64) {
    for (partition, events) in model {
        let from = from(*partition);
        let read = log.get(partition).map_or(&[][..], Vec::as_slice);
        let expected = &events[usize::try_from(from).unwrap()..];
        for (place, ((offset, event), published)) in read.iter().zip(expected).enumerate() {
            let at = from + u64::try_from(place).unwrap();
            assert_eq!(*offset, at, "{what}: partition {partition}");
            assert_eq!(event, published, "{what}: partition {partition}, offset {at}");
        }
        assert_eq!(read.len(), expected.len(), "{what}: partition {partition} from {from}");
    }
}

async fn read(client: &Client, change: impl FnOnce(&mut ReadOptions)) -> Log {
    let mut options = ReadOptions::new("orders");
    change(&mut options);
    events::drain(client.read(options).await.unwrap()).await
}

/// Everything, by a durable subscription with this much credit.
async fn subscribed(client: &Client, name: &str, credit_events: u64, count: usize) -> Log {
    let ask = earliest("orders", name, SubscriptionOptions::default());
    let ask = levada_client::SubscribeOptions { credit_events, ..ask };
    let mut subscriber = client.subscribe(ask).await.unwrap();
    let mut log = Log::new();
    for got in consume(&mut subscriber, count).await {
        assert_eq!(got.attempt, 1);
        log.entry(got.partition).or_default().push((got.offset, got.event));
    }
    let described = client.describe_subscription("orders", name).await.unwrap();
    assert_eq!((described.lag, described.redelivered), (0, 0));
    log
}

async fn replay(partitions: u16, tail: ByteSize, rng: &mut Rng) {
    let mut engine = Engine::with(|config| config.subscribe.tail_bytes_max = tail).await;
    let client = engine.connect().await;
    client.create_topic("orders", events::partitions(partitions)).await.unwrap();
    // A follower and a subscriber from the beginning on, who live through everything.
    let mut follower = client.read(ReadOptions { follow: true, ..ReadOptions::new("orders") }).await.unwrap();
    let mut model = Model::new();
    for round in 0..3 {
        publish_batches(&engine, rng, partitions, 15, &mut model).await;
        let client = engine.connect().await;
        let count: usize = model.values().map(Vec::len).sum();
        let log = read(&client, |_| {}).await;
        assert_same("a reader", &log, &model, |_| 0);
        let bytes = read(&client, |options| options.credit_bytes = 1).await;
        assert_same("a reader with one byte of credit", &bytes, &model, |_| 0);
        let name = format!("s-{round}");
        assert_same("a subscriber", &subscribed(&client, &name, 1_000, count).await, &model, |_| 0);
        for _ in 0..6 {
            let partition = u16::try_from(rng.within(0..u64::from(partitions))).unwrap();
            let Some(events) = model.get(&partition) else { continue };
            let from = rng.within(0..u64::try_from(events.len()).unwrap() + 1);
            let of_one = |options: &mut ReadOptions| {
                options.partitions = vec![partition];
                options.from = Start::Offset(from);
                options.credit_events = 3_000;
            };
            let only = Model::from([(partition, events.clone())]);
            assert_same("a reader from within", &read(&client, of_one).await, &only, |_| from);
        }
        engine = engine.restart().await;
    }
    let mut followed = Log::new();
    let count: usize = model.values().map(Vec::len).sum();
    while followed.values().map(Vec::len).sum::<usize>() < count {
        let delivery = within("what follows", follower.next()).await.unwrap().unwrap();
        let partition = followed.entry(delivery.partition().0).or_default();
        partition.extend(delivery.to_events().map(|(offset, event)| (offset.0, event)));
    }
    assert_same("a follower across restarts", &followed, &model, |_| 0);
}

#[tokio::test]
async fn nothing_is_lost_between_batches_and_partitions_in_the_tail() {
    let mut rng = Rng::for_test("nothing_is_lost_between_batches_and_partitions_in_the_tail");
    for partitions in [1, 4] {
        replay(partitions, ByteSize::mib(64), &mut rng).await;
    }
}

#[tokio::test]
async fn nothing_is_lost_between_the_store_and_a_tail_that_holds_next_to_nothing() {
    let mut rng = Rng::for_test("nothing_is_lost_between_the_store_and_a_tail_that_holds_next_to_nothing");
    for (partitions, tail) in [(2, ByteSize::b(1)), (3, ByteSize::kib(200))] {
        replay(partitions, tail, &mut rng).await;
    }
}

#[tokio::test]
async fn tiny_credit_cuts_batches_and_loses_nothing() {
    let mut rng = Rng::for_test("tiny_credit_cuts_batches_and_loses_nothing");
    for tail in [ByteSize::b(1), ByteSize::mib(64)] {
        let engine = Engine::with(|config| config.subscribe.tail_bytes_max = tail).await;
        let client = engine.connect().await;
        client.create_topic("orders", events::partitions(2)).await.unwrap();
        let mut model = Model::new();
        while model.values().map(Vec::len).sum::<usize>() < 1_200 {
            let counts = [1, 3, 7, 8, 50, 400];
            let partition = u16::try_from(rng.within(0..2)).unwrap();
            let stored = model.entry(partition).or_default();
            let before = u64::try_from(stored.len()).unwrap();
            let events: Vec<Event> = (before..before + rng.pick(&counts))
                .map(|number| events::random_event(&mut rng.clone(), number))
                .collect();
            let publisher = client.publisher("orders", PublisherOptions::default()).await.unwrap();
            for event in &events {
                drop(publisher.publish_to(PartitionId(partition), event.clone()).await.unwrap());
            }
            publisher.flush().await.unwrap();
            stored.extend(events);
        }
        let count = model.values().map(Vec::len).sum();
        for credit in [1, 2, 7] {
            let log = read(&client, |options| options.credit_events = credit).await;
            assert_same(&format!("a reader with credit {credit}"), &log, &model, |_| 0);
            let log = subscribed(&client, &format!("credit-{credit}"), credit, count).await;
            assert_same(&format!("a subscriber with credit {credit}"), &log, &model, |_| 0);
        }
    }
}

#[tokio::test]
async fn readers_begin_at_offsets_and_times_and_end_with_what_is_stored() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    client.create_topic("orders", events::partitions(2)).await.unwrap();
    for (partition, numbers) in [(0, 0..100), (1, 0..50)] {
        let publisher = events::publisher(&client, "orders").await;
        for number in numbers {
            drop(publisher.publish_to(PartitionId(partition), events::numbered(number)).await.unwrap());
        }
        publisher.flush().await.unwrap();
    }
    let lens = |log: &Log| [0, 1].map(|partition| log.get(&partition).map_or(0, Vec::len));
    assert_eq!(lens(&read(&client, |_| {}).await), [100, 50]);
    assert_eq!(lens(&read(&client, |options| options.partitions = vec![1]).await), [0, 50]);
    assert_eq!(lens(&read(&client, |options| options.from = Start::Offset(50)).await), [50, 0]);
    assert_eq!(lens(&read(&client, |options| options.from = Start::Latest).await), [0, 0]);
    assert_eq!(lens(&read(&client, |options| options.from = Start::Time(0)).await), [100, 50]);
    let mut reader = client.read(ReadOptions::new("orders")).await.unwrap();
    let delivery = reader.next().await.unwrap().unwrap();
    let soon = delivery.events().next().unwrap().1.0 + 30_000;
    assert_eq!(lens(&read(&client, |options| options.from = Start::Time(soon)).await), [0, 0]);
    let refused = async |change: fn(&mut ReadOptions)| {
        let mut options = ReadOptions::new("orders");
        change(&mut options);
        code(client.read(options).await)
    };
    assert_eq!(refused(|options| options.from = Start::Offset(51)).await, ErrorCode::OffsetOutOfRange);
    assert_eq!(refused(|options| options.from = Start::Time(u64::MAX)).await, ErrorCode::OffsetOutOfRange);
    assert_eq!(refused(|options| options.partitions = vec![2]).await, ErrorCode::PartitionNotFound);
    assert_eq!(refused(|options| options.topic = "absent".into()).await, ErrorCode::TopicNotFound);

    let mut follower = client
        .read(ReadOptions { follow: true, from: Start::Latest, ..ReadOptions::new("orders") })
        .await
        .unwrap();
    publish_numbers(&client, "orders", 100..101).await;
    let delivery = within("what follows", follower.next()).await.unwrap().unwrap();
    assert_eq!((delivery.partition().0, delivery.first(), delivery.count()), (0, Offset(100), 1));
    client.delete_topic("orders", DeleteOptions::default()).await.unwrap();
    assert_eq!(code(within("the end", follower.next()).await), ErrorCode::TopicNotFound);
}

/// Settings that let events go after a few milliseconds.
fn short(retain: Retain) -> TopicSettings {
    TopicSettings { retain, retain_for_ms: 8, ..TopicSettings::default() }
}

async fn start_of(client: &Client) -> u64 {
    client.describe_topic("orders").await.unwrap().partitions[0].start
}

async fn eager() -> (Engine, Client) {
    let engine = Engine::with(|config| config.store.retention_interval = Duration::from_millis(3)).await;
    let client = engine.connect().await;
    (engine, client)
}

#[tokio::test]
async fn retention_drops_nothing_that_a_subscription_has_not_acknowledged() {
    for retain in [Retain::TimeAndAcked, Retain::UntilAcked] {
        let (engine, client) = eager().await;
        client.create_topic("orders", short(retain)).await.unwrap();
        let options = SubscriptionOptions::default();
        let ask = levada_client::SubscribeOptions { credit_events: 50, ..earliest("orders", "s", options) };
        let mut subscriber = client.subscribe(ask).await.unwrap();
        let mut expected = 0;
        let mut moved = false;
        for first in (0..3_000).step_by(100) {
            publish_numbers(&client, "orders", first..first + 100).await;
            // At most half as fast as what is published, so that what is old is mostly not acknowledged.
            let delivery = next(&mut subscriber).await;
            for (offset, event) in delivery.to_events() {
                assert_eq!((offset.0, number_of(payload(&event))), (expected, expected), "{retain:?}");
                expected += 1;
            }
            delivery.ack();
            let start = start_of(&client).await;
            assert!(start <= expected, "{retain:?}: {start} was dropped, {expected} was taken");
            moved |= start > 0;
        }
        while expected < 3_000 {
            let delivery = next(&mut subscriber).await;
            assert_eq!(delivery.first().0, expected, "{retain:?}");
            expected = delivery.last().0 + 1;
            delivery.ack();
        }
        within("the confirmation", subscriber.confirmed()).await.unwrap();
        until("retention", async || (moved || start_of(&client).await > 0).then_some(())).await;
        assert_eq!(client.describe_subscription("orders", "s").await.unwrap().events_lost, 0);
        drop(engine);
    }
}

#[tokio::test]
async fn a_consumer_is_told_which_events_retention_took() {
    let (engine, client) = eager().await;
    client.create_topic("orders", short(Retain::TimeAndSize)).await.unwrap();
    let mut notices = client.notices();
    // It acknowledges nothing.
    let subscriber = client.subscribe(earliest("orders", "s", SubscriptionOptions::default())).await.unwrap();
    publish_numbers(&client, "orders", 0..500).await;
    let mut lost = 0;
    while lost < 500 {
        match within("a notice", notices.recv()).await.unwrap() {
            Notice::EventsLost { topic, subscription, partition, first, last } => {
                assert_eq!((topic.as_str(), subscription.as_str(), partition), ("orders", "s", 0));
                assert_eq!(first, lost, "each once, in order");
                lost = last + 1;
            }
            other => panic!("unexpected: {other:?}"),
        }
    }
    assert_eq!(client.describe_subscription("orders", "s").await.unwrap().events_lost, 500);
    drop((subscriber, engine));
}

#[tokio::test]
async fn retention_moves_the_start_and_what_is_left_stays_whole() {
    let (engine, client) = eager().await;
    client.create_topic("orders", short(Retain::TimeAndSize)).await.unwrap();
    for first in (0..2_000).step_by(100) {
        publish_numbers(&client, "orders", first..first + 100).await;
        // Whoever begins now meets the edge while it moves.
        let mut reader = client.read(ReadOptions::new("orders")).await.unwrap();
        let mut expected = None;
        let ended = loop {
            match within("the next events", reader.next()).await {
                Ok(Some(delivery)) => {
                    for (offset, event) in delivery.to_events() {
                        assert_eq!(number_of(payload(&event)), offset.0, "no event is another one");
                        assert_eq!(offset.0, *expected.get_or_insert(offset.0), "in order, none left out");
                        expected = Some(offset.0 + 1);
                    }
                }
                Ok(None) => break None,
                Err(error) => break Some(error.code()),
            }
        };
        // One that the edge overtakes is told so.
        assert!(matches!(ended, None | Some(ErrorCode::OffsetOutOfRange)), "{ended:?}");
    }
    until("retention", async || (start_of(&client).await > 1_000).then_some(())).await;
    let start = start_of(&client).await;
    let before =
        code(client.read(ReadOptions { from: Start::Offset(0), ..ReadOptions::new("orders") }).await);
    assert_eq!(before, ErrorCode::OffsetOutOfRange);
    // The extent survives a restart, and offsets go on where they were.
    let slow = |config: &mut levada_server::ServerConfig| {
        config.store.retention_interval = Duration::from_secs(3_600)
    };
    let engine = engine.restart_with(slow).await;
    let client = engine.connect().await;
    assert!(start_of(&client).await >= start);
    publish_numbers(&client, "orders", 2_000..2_100).await;
    let log = read(&client, |_| {}).await;
    events::assert_dense(&log[&0], start_of(&client).await);
    assert_eq!(log[&0].last().unwrap().0, 2_099);
    assert!(log[&0].iter().all(|(offset, event)| number_of(payload(event)) == *offset));
}

#[tokio::test]
async fn a_subscription_behind_retention_is_told_what_it_lost() {
    let (_engine, client) = eager().await;
    client.create_topic("orders", short(Retain::TimeAndSize)).await.unwrap();
    let options = SubscriptionOptions::default();
    client.create_subscription("orders", "s", options, Start::Earliest).await.unwrap();
    publish_numbers(&client, "orders", 0..500).await;
    until("retention", async || (start_of(&client).await == 500).then_some(())).await;
    publish_numbers(&client, "orders", 500..501).await;
    // It counts with the commit that passes over it.
    let lost = async || client.describe_subscription("orders", "s").await.unwrap().events_lost;
    until("the loss", async || (lost().await >= 500).then_some(())).await;
    // The position is the committed one.
    let position = async || client.describe_subscription("orders", "s").await.unwrap().positions[0].offset;
    until("the position", async || (position().await >= 500).then_some(())).await;
}
