//! Events that can be told apart, and what came of them.

use std::collections::BTreeMap;

use bytes::Bytes;
use levada_client::{
    Client, Error, Event, Offset, PartitionId, Publisher, PublisherOptions, ReadOptions, Reader, Receipt,
    Start, SubscribeOptions, Subscriber, SubscriptionOptions, Timestamp, TopicSettings,
};

use super::{rng::Rng, within};

/// Events by partition, in order of their offsets.
pub(crate) type Log = BTreeMap<u16, Vec<(u64, Event)>>;

/// An event of everything: key, headers, time, id, payload, all of random size.
pub(crate) fn random_event(rng: &mut Rng, number: u64) -> Event {
    let payload_len = rng.pick(&[0, 1, 10, 100, 100, 100, 1_000]);
    let mut payload = number.to_le_bytes().to_vec();
    payload.extend(rng.bytes(payload_len));
    let mut event = Event::new(payload).at(Timestamp(1_700_000_000_000 + rng.within(0..1_000_000)));
    if rng.within(0..2) == 0 {
        event.key = Some(Bytes::from(format!("key-{}", rng.within(0..50))));
    }
    for header in 0..rng.within(0..3) {
        event = event.with_header(format!("header-{header}"), rng.bytes(12));
    }
    if rng.within(0..8) == 0 {
        event.id = Some(format!("id-{number}").into());
    }
    event
}

/// An event with a number as text for its payload.
pub(crate) fn numbered(number: u64) -> Event {
    Event::new(number.to_string()).at(Timestamp(1_700_000_000_000))
}

/// The number in a payload of [`numbered`].
pub(crate) fn number_of(payload: &[u8]) -> u64 {
    std::str::from_utf8(payload).expect("numbers are text").parse().expect("the payload is a number")
}

/// Settings with so many partitions.
pub(crate) fn partitions(partitions: u16) -> TopicSettings {
    TopicSettings { partitions, ..TopicSettings::default() }
}

/// Makes a topic of one partition.
pub(crate) async fn topic(client: &Client, name: &str) {
    client.create_topic(name, TopicSettings::default()).await.expect("the topic can be made");
}

pub(crate) async fn publisher(client: &Client, topic: &str) -> Publisher {
    client.publisher(topic, PublisherOptions::default()).await.expect("the topic takes publishers")
}

/// Publishes and waits for every acknowledgement.
pub(crate) async fn publish(
    client: &Client,
    topic: &str,
    events: impl IntoIterator<Item = Event>,
) -> Vec<Receipt> {
    let publisher = publisher(client, topic).await;
    let mut tickets = Vec::new();
    for event in events {
        tickets.push(publisher.publish(event).await.expect("the publisher takes events"));
    }
    let mut receipts = Vec::new();
    for ticket in tickets {
        receipts.push(within("an acknowledgement", ticket).await.expect("the event is stored"));
    }
    receipts
}

/// Publishes the numbers of a range as text, one event a number, to one partition.
pub(crate) async fn publish_numbers(client: &Client, topic: &str, numbers: std::ops::Range<u64>) {
    let publisher = publisher(client, topic).await;
    for number in numbers {
        let ticket = publisher.publish_to(PartitionId(0), numbered(number)).await;
        drop(ticket.expect("the publisher takes events"));
    }
    within("the flush", publisher.flush()).await.expect("every event is stored");
}

/// Everything that a topic holds.
pub(crate) async fn read_all(client: &Client, topic: &str) -> Log {
    let reader = client.read(ReadOptions::new(topic)).await.expect("the topic can be read");
    drain(reader).await
}

/// Everything that a reader brings until its end.
pub(crate) async fn drain(mut reader: Reader) -> Log {
    let mut log = Log::new();
    while let Some(delivery) = within("the next events", reader.next()).await.expect("events are whole") {
        let partition = log.entry(delivery.partition().0).or_default();
        partition.extend(delivery.to_events().map(|(offset, event)| (offset.0, event)));
    }
    log
}

/// Payloads of one partition as text.
pub(crate) fn texts(log: &Log, partition: u16) -> Vec<String> {
    let events = log.get(&partition).into_iter().flatten();
    events.map(|(_, event)| String::from_utf8_lossy(payload(event)).into_owned()).collect()
}

pub(crate) fn payload(event: &Event) -> &[u8] {
    event.payload.as_deref().unwrap_or_default()
}

/// The value of an event's header as text.
pub(crate) fn header(event: &Event, name: &str) -> Option<String> {
    let value = &event.headers.iter().find(|(found, _)| found == name)?.1;
    Some(String::from_utf8_lossy(value).into_owned())
}

/// Subscription options that make the subscription at the earliest event.
pub(crate) fn earliest(topic: &str, name: &str, options: SubscriptionOptions) -> SubscribeOptions {
    SubscribeOptions { options: Some(options), from: Start::Earliest, ..SubscribeOptions::new(topic, name) }
}

/// Attaches to a subscription, made at the earliest event with default options if it is absent.
pub(crate) async fn subscribe(client: &Client, topic: &str, name: &str) -> Subscriber {
    let options = earliest(topic, name, SubscriptionOptions::default());
    client.subscribe(options).await.expect("the subscription can be had")
}

/// One event of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) partition: u16,
    pub(crate) offset: u64,
    pub(crate) attempt: u8,
    pub(crate) event: Event,
}

/// Takes deliveries until there are `count` events, acknowledges each, and waits until that holds.
pub(crate) async fn consume(subscriber: &mut Subscriber, count: usize) -> Vec<Got> {
    let got = take(subscriber, count, |delivery| delivery.ack()).await;
    within("the confirmation", subscriber.confirmed()).await.expect("acknowledgements hold");
    got
}

/// Takes deliveries until there are `count` events, and does something with each delivery.
pub(crate) async fn take(
    subscriber: &mut Subscriber,
    count: usize,
    mut with: impl FnMut(&levada_client::Delivery),
) -> Vec<Got> {
    let mut got = Vec::new();
    while got.len() < count {
        let delivery = next(subscriber).await;
        let (partition, attempt) = (delivery.partition().0, delivery.attempt());
        let events = delivery.to_events();
        got.extend(events.map(|(offset, event)| Got { partition, offset: offset.0, attempt, event }));
        with(&delivery);
    }
    got
}

/// The next delivery.
pub(crate) async fn next(subscriber: &mut Subscriber) -> levada_client::Delivery {
    let next = within("a delivery", subscriber.next_delivery()).await;
    next.expect("deliveries are whole").expect("the client is open")
}

/// Offsets from 0 on, one for each.
pub(crate) fn assert_dense(log: &[(u64, Event)], from: u64) {
    for (place, (offset, _)) in (from..).zip(log) {
        assert_eq!(*offset, place, "offsets are dense");
    }
}

/// The offset of a receipt that has one.
pub(crate) fn offset(receipt: &Receipt) -> u64 {
    receipt.offset.map(|Offset(offset)| offset).expect("the engine knows the offset")
}

/// The code of a refusal.
pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> levada_client::ErrorCode {
    result.expect_err("it is refused").code()
}

/// Attaches to a subscription that exists.
pub(crate) async fn subscribe_existing(client: &Client, topic: &str, name: &str) -> Subscriber {
    client.subscribe(SubscribeOptions::new(topic, name)).await.expect("the subscription exists")
}
