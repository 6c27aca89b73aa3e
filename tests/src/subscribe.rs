//! Durable subscriptions: where they begin, what comes again and when, who gets it, where it ends.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use levada_client::{
    DeleteOptions, DeliveredEvent, Delivery, ErrorCode, Offset, Order, PartitionId, Start, SubscribeOptions,
    SubscriptionOptions, TopicSettings,
};

use tokio::{
    sync::{Barrier, watch},
    task::JoinSet,
};

use crate::support::{
    engine::Engine,
    events::{
        self, code, consume, earliest, header, next, number_of, numbered, payload, publish_numbers, take,
    },
    guests, until, within,
};

/// The numbers in the payloads of what was got.
fn numbers(got: &[events::Got]) -> Vec<u64> {
    got.iter().map(|got| number_of(payload(&got.event))).collect()
}

fn offsets(delivery: &Delivery) -> Vec<u64> {
    delivery.events().map(|(offset, ..)| offset.0).collect()
}

#[tokio::test]
async fn a_subscription_begins_where_it_was_asked_to() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    publish_numbers(&client, "orders", 0..10).await;
    let before = client.info().await.unwrap().uptime_ms + client.hello().await.unwrap().server_time_ms;
    // The clock must move on between the two halves.
    until("the next millisecond", async || {
        let info = client.info().await.unwrap();
        let hello = client.hello().await.unwrap();
        (info.uptime_ms + hello.server_time_ms > before).then_some(())
    })
    .await;
    publish_numbers(&client, "orders", 10..20).await;
    let mut reader = client.read(levada_client::ReadOptions::new("orders")).await.unwrap();
    let mut appended = Vec::new();
    while let Some(delivery) = within("a delivery", reader.next()).await.unwrap() {
        appended.extend(delivery.events().map(|(_, time, _)| time.0));
    }
    let second_half = appended[10];
    assert!(appended[9] < second_half);
    for (name, from, expected, stored_before) in [
        ("earliest", Start::Earliest, 0, 0),
        ("offset", Start::Offset(7), 7, 7),
        ("time", Start::Time(second_half), 10, 10),
        ("latest", Start::Latest, 20, 20),
    ] {
        let options = Some(SubscriptionOptions::default());
        let ask = SubscribeOptions { options, from, ..SubscribeOptions::new("orders", name) };
        let mut subscriber = client.subscribe(ask.clone()).await.unwrap();
        let subscribed = subscriber.subscribed();
        assert_eq!((subscribed.created, subscribed.standby), (true, false));
        assert_eq!(subscribed.positions[0].offset, expected, "{name}");
        assert_eq!(subscribed.stored_before, stored_before, "{name}");
        if expected < 20 {
            let got = take(&mut subscriber, usize::try_from(20 - expected).unwrap(), |_| {}).await;
            assert!(numbers(&got).into_iter().eq(expected..20), "{name}");
        }
        assert!(!client.subscribe(ask).await.unwrap().subscribed().created, "{name}");
    }
    let beyond = SubscribeOptions {
        options: Some(SubscriptionOptions::default()),
        from: Start::Offset(21),
        ..SubscribeOptions::new("orders", "beyond")
    };
    assert_eq!(code(client.subscribe(beyond).await), ErrorCode::OffsetOutOfRange);
    assert_eq!(
        code(client.subscribe(SubscribeOptions::new("orders", "absent")).await),
        ErrorCode::SubscriptionNotFound
    );
}

#[tokio::test]
async fn what_is_acknowledged_never_comes_again() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    publish_numbers(&client, "orders", 0..100).await;
    let mut subscriber = events::subscribe(&client, "orders", "s").await;
    let first = next(&mut subscriber).await;
    assert_eq!(first.attempt(), 1);
    // With gaps: 3 to 5 and 8 stay open.
    let first_last = first.last();
    first.ack_range(Offset(0)..=Offset(2));
    first.ack_range(Offset(6)..=Offset(7));
    first.ack_range(Offset(9)..=first_last);
    if first_last.0 < 99 {
        take(&mut subscriber, usize::try_from(99 - first_last.0).unwrap(), |delivery| delivery.ack()).await;
    }
    within("the confirmation", subscriber.confirmed()).await.unwrap();
    drop((first, subscriber));
    let engine = engine.restart().await;
    let client = engine.connect().await;
    let mut subscriber = events::subscribe(&client, "orders", "s").await;
    assert_eq!(subscriber.subscribed().positions[0].offset, 3);
    let again = consume(&mut subscriber, 4).await;
    assert_eq!(numbers(&again), [3, 4, 5, 8]);
    publish_numbers(&client, "orders", 100..101).await;
    assert_eq!(numbers(&consume(&mut subscriber, 1).await), [100], "nothing else was left");
    let described = client.describe_subscription("orders", "s").await.unwrap();
    assert_eq!((described.lag, described.in_flight, described.positions[0].offset), (0, 0, 101));
}

#[tokio::test]
async fn an_event_that_is_set_aside_is_settled_by_its_own_word() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    publish_numbers(&client, "orders", 0..10).await;
    let ack_timeout_ms = Some(2_000);
    let options = SubscriptionOptions { ack_timeout_ms, ..SubscriptionOptions::default() };
    let mut subscriber = client.subscribe(earliest("orders", "s", options)).await.unwrap();
    let (mut seen, mut aside) = (0, Vec::new());
    while seen < 10 {
        let delivery = next(&mut subscriber).await;
        assert!(DeliveredEvent::set_aside(&delivery, Offset(10)).is_none(), "it is in no delivery");
        for offset in offsets(&delivery) {
            match offset {
                3 | 6 => {
                    aside.extend(DeliveredEvent::set_aside(&delivery, Offset(offset)));
                    assert!(DeliveredEvent::set_aside(&delivery, Offset(offset)).is_none(), "once");
                }
                _ => delivery.ack_range(Offset(offset)..=Offset(offset)),
            }
            seen += 1;
        }
    }
    let taken: Vec<_> = aside.iter().map(|it| (it.offset().0, number_of(payload(it.event())))).collect();
    assert_eq!(taken, [(3, 3), (6, 6)], "with what it holds");
    let dropped = aside.pop();
    for event in aside {
        event.ack();
    }
    within("the confirmation", subscriber.confirmed()).await.unwrap();
    let described = client.describe_subscription("orders", "s").await.unwrap();
    assert_eq!((described.redelivered, described.in_flight), (0, 1), "its delivery is gone, and it is held");
    drop(dropped);
    assert_eq!(
        numbers(&consume(&mut subscriber, 1).await),
        [6],
        "what was dropped without a word comes again"
    );
}

#[tokio::test]
async fn the_key_that_a_subscription_waits_for_is_named() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    let publisher = events::publisher(&client, "orders").await;
    for (number, key) in ["order-16", "order-17"].into_iter().enumerate() {
        let event = numbered(number as u64).with_key(key);
        drop(publisher.publish_to(PartitionId(0), event).await.unwrap());
    }
    within("the flush", publisher.flush()).await.unwrap();
    let mut subscriber = events::subscribe(&client, "orders", "s").await;
    let waits_for = async |offset| {
        until("what it waits for", async || {
            let described = client.describe_subscription("orders", "s").await.unwrap();
            (described.waiting_for.event() == Some((0, offset))).then_some(described.waiting_for_key)
        })
        .await
    };
    let mut seen = 0;
    while seen < 2 {
        let delivery = next(&mut subscriber).await;
        if offsets(&delivery).contains(&1) {
            delivery.nack(Offset(1)..=Offset(1), Some(Duration::from_secs(3_600)));
        }
        delivery.ack_range(Offset(0)..=Offset(0));
        seen += offsets(&delivery).len();
    }
    assert_eq!(waits_for(1).await.as_deref(), Some("order-17"));
}

#[tokio::test]
async fn a_nack_brings_events_back_in_order_with_the_next_attempt() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    publish_numbers(&client, "orders", 0..10).await;
    let options = SubscriptionOptions { order: Some(Order::Partition), ..SubscriptionOptions::default() };
    let mut subscriber = client.subscribe(earliest("orders", "s", options)).await.unwrap();
    let mut first = Vec::new();
    while first.len() < 10 {
        let delivery = next(&mut subscriber).await;
        first.extend(offsets(&delivery));
        delivery.ack_range(Offset(0)..=Offset(3));
        delivery.nack(Offset(4)..=Offset(4), Some(Duration::ZERO));
    }
    let again = consume(&mut subscriber, 6).await;
    assert_eq!(numbers(&again), [4, 5, 6, 7, 8, 9], "what follows in order comes back with it");
    let attempts: Vec<u8> = again.iter().map(|got| got.attempt).collect();
    assert_eq!(attempts, [2, 1, 1, 1, 1, 1], "only the failed one has failed");
    let described = client.describe_subscription("orders", "s").await.unwrap();
    assert_eq!((described.redelivered, described.lag), (6, 0));
}

#[tokio::test]
async fn an_unacknowledged_delivery_comes_again_after_its_timeout() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    publish_numbers(&client, "orders", 0..1).await;
    let options = SubscriptionOptions { ack_timeout_ms: Some(20), ..SubscriptionOptions::default() };
    // The client keeps nothing by itself.
    let ask = SubscribeOptions { max_processing: Duration::ZERO, ..earliest("orders", "s", options) };
    let mut subscriber = client.subscribe(ask).await.unwrap();
    let late = next(&mut subscriber).await;
    let again = next(&mut subscriber).await;
    assert_eq!((offsets(&again), again.attempt()), (vec![0], 2));
    assert_ne!(late.token(), again.token());
    late.ack();
    let refused = within("the verdict", subscriber.confirmed()).await;
    assert_eq!(code(refused), ErrorCode::DeliveryExpired, "the late word is refused");
    assert_eq!(client.describe_subscription("orders", "s").await.unwrap().positions[0].offset, 0);
}

#[tokio::test]
async fn in_progress_keeps_a_delivery() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    publish_numbers(&client, "orders", 0..1).await;
    let options = SubscriptionOptions { ack_timeout_ms: Some(400), ..SubscriptionOptions::default() };
    let ask = SubscribeOptions { max_processing: Duration::ZERO, ..earliest("orders", "s", options) };
    let mut subscriber = client.subscribe(ask).await.unwrap();
    let delivery = next(&mut subscriber).await;
    let mut beats = tokio::time::interval(Duration::from_millis(40));
    for _ in 0..25 {
        beats.tick().await;
        delivery.in_progress();
    }
    // A second has passed, more than twice the timeout.
    delivery.ack();
    within("the confirmation", subscriber.confirmed()).await.expect("the delivery was never taken away");
    let described = client.describe_subscription("orders", "s").await.unwrap();
    assert_eq!((described.redelivered, described.positions[0].offset), (0, 1));
}

#[tokio::test]
async fn a_lost_consumer_gives_its_deliveries_back_at_once() {
    let engine = Engine::start().await;
    let (client, doomed) = (engine.connect().await, engine.connect().await);
    events::topic(&client, "orders").await;
    publish_numbers(&client, "orders", 0..5).await;
    // The timeout is half a minute: what comes within the test comes for the disconnect.
    let options = SubscriptionOptions { order: Some(Order::Partition), ..SubscriptionOptions::default() };
    let mut first = doomed.subscribe(earliest("orders", "s", options.clone())).await.unwrap();
    let mut second = client.subscribe(earliest("orders", "s", options)).await.unwrap();
    assert!(!first.subscribed().standby);
    assert!(second.subscribed().standby);
    take(&mut first, 5, |_| {}).await;
    let consumers = client.describe_subscription("orders", "s").await.unwrap();
    assert_eq!((consumers.in_flight, consumers.consumers.len()), (5, 2));
    doomed.close().await;
    let got = consume(&mut second, 5).await;
    assert_eq!(numbers(&got), [0, 1, 2, 3, 4]);
    assert!(got.iter().all(|got| got.attempt == 1), "a disconnect is no failed attempt");
    until("the consumer's end", async || {
        let described = client.describe_subscription("orders", "s").await.unwrap();
        (described.consumers.len() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn where_partitions_are_ordered_one_consumer_is_active_and_the_next_takes_over() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    client.create_topic("orders", events::partitions(2)).await.unwrap();
    let options = SubscriptionOptions { order: Some(Order::Partition), ..SubscriptionOptions::default() };
    let named = |name: &str| SubscribeOptions {
        consumer: name.to_owned(),
        ..earliest("orders", "s", options.clone())
    };
    let mut first = client.subscribe(named("first")).await.unwrap();
    let mut second = client.subscribe(named("second")).await.unwrap();
    let events: Vec<_> =
        (0..200).map(|number| numbered(number).with_key(number.to_le_bytes().to_vec())).collect();
    events::publish(&client, "orders", events.clone()).await;
    let got = consume(&mut first, 200).await;
    assert_eq!(got.len(), 200, "the first gets everything");
    let described = client.describe_subscription("orders", "s").await.unwrap();
    assert_eq!(described.consumers, ["first", "second"]);
    drop(first);
    events::publish(&client, "orders", events).await;
    let got = consume(&mut second, 200).await;
    for partition in 0..2 {
        let of_it: Vec<u64> =
            got.iter().filter(|got| got.partition == partition).map(|got| got.offset).collect();
        assert!(of_it.is_sorted(), "{of_it:?}");
    }
}

/// What several consumers do with the events of keys, seen by all of them together.
#[derive(Default)]
struct Keys {
    /// The number of each key's next event.
    next: HashMap<Vec<u8>, u64>,
    /// Events that failed once, and those that were settled.
    failed: BTreeSet<u64>,
    settled: u64,
    /// The delivery with which each key went on after its last failure; tokens rise with each delivery.
    again: HashMap<Vec<u8>, u64>,
}

impl Keys {
    /// Takes an event; `None` if it was taken back: one of its key before it has failed, and it had been delivered before
    /// that; else whether it is to fail. `step` is the distance of the numbers of one key.
    fn take(&mut self, number: u64, key: &[u8], token: u64, step: u64) -> Option<bool> {
        let next = self.next.entry(key.to_vec()).or_insert(number % step);
        let was_before = |again: &u64| token.wrapping_sub(*again).cast_signed() < 0;
        if self.again.get(key).is_some_and(was_before) {
            return None;
        }
        if number > *next {
            assert!(self.failed.contains(next), "{number} comes before {next}");
            return None;
        }
        assert_eq!(number, *next, "what is settled does not come again");
        if self.failed.contains(&number) {
            self.again.insert(key.to_vec(), token);
        }
        if number.is_multiple_of(7) && self.failed.insert(number) {
            return Some(true);
        }
        *next += step;
        self.settled += 1;
        Some(false)
    }
}

#[tokio::test]
async fn consumers_share_the_keys_and_each_key_stays_in_order_whatever_fails() {
    const EVENTS: u64 = 1_200;
    const KEYS: u64 = 24;
    const CONSUMERS: usize = 4;
    let engine = Engine::start().await;
    let client = engine.connect().await;
    client.create_topic("orders", events::partitions(2)).await.unwrap();
    let events = (0..EVENTS).map(|number| numbered(number).with_key((number % KEYS).to_string()));
    events::publish(&client, "orders", events.collect::<Vec<_>>()).await;
    let (done, _) = watch::channel(false);
    let (keys, mut consumers) = (Arc::new(Mutex::new(Keys::default())), JoinSet::new());
    let start = Arc::new(Barrier::new(CONSUMERS));
    for _ in 0..CONSUMERS {
        let (client, keys, start) = (engine.connect().await, keys.clone(), start.clone());
        let (done, mut all) = (done.clone(), done.subscribe());
        consumers.spawn(async move {
            let few = SubscribeOptions {
                credit_events: 30,
                ..earliest("orders", "s", SubscriptionOptions::default())
            };
            let mut subscriber = client.subscribe(few).await.unwrap();
            assert!(!subscriber.subscribed().standby);
            start.wait().await;
            let mut own = 0;
            loop {
                let next = tokio::select! {
                    next = subscriber.next_delivery() => next,
                    _ = all.wait_for(|all| *all) => break,
                };
                let delivery = next.unwrap().expect("the subscription exists");
                for (offset, event) in delivery.to_events() {
                    let (number, key) = (number_of(payload(&event)), event.key.as_ref().unwrap());
                    let fails = keys.lock().unwrap().take(number, key, delivery.token().0, KEYS);
                    if fails == Some(true) {
                        delivery.nack(offset..=offset, Some(Duration::ZERO));
                    } else {
                        // The engine refuses this of what was taken back.
                        delivery.ack_range(offset..=offset);
                        own += u64::from(fails == Some(false));
                        done.send_replace(keys.lock().unwrap().settled == EVENTS);
                    }
                    tokio::task::yield_now().await;
                }
            }
            // Refused acknowledgements are reported here.
            let _ = subscriber.confirmed().await;
            own
        });
    }
    let own = within("all events", consumers.join_all()).await;
    assert_eq!(own.iter().sum::<u64>(), EVENTS);
    assert!(own.iter().filter(|own| **own > 0).count() > 1, "one got everything: {own:?}");
    until("all to be settled", async || {
        let described = client.describe_subscription("orders", "s").await.unwrap();
        assert_eq!(described.dead_lettered, 0);
        (described.lag == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_order_whoever_has_credit_gets_events() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    publish_numbers(&client, "orders", 0..20).await;
    let options = SubscriptionOptions { order: Some(Order::None), ..SubscriptionOptions::default() };
    let few = || SubscribeOptions { credit_events: 10, ..earliest("orders", "s", options.clone()) };
    let mut first = client.subscribe(few()).await.unwrap();
    let mut second = client.subscribe(few()).await.unwrap();
    assert!(!second.subscribed().standby);
    let mut all = numbers(&take(&mut first, 10, |_| {}).await);
    let others = take(&mut second, 10, |delivery| {
        // One failed event holds nobody else up.
        delivery.nack(delivery.first()..=delivery.first(), Some(Duration::ZERO));
        delivery.ack();
    })
    .await;
    all.extend(numbers(&others));
    all.sort_unstable();
    assert!(all.into_iter().eq(0..20), "each event to one of them");
    assert_eq!(next(&mut second).await.attempt(), 2);
}

#[tokio::test]
async fn credit_is_never_exceeded() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    publish_numbers(&client, "orders", 0..500).await;
    for (name, credit, max_in_flight, expected) in [("credit", 7, 1_000, 7), ("subscription", 1_000, 9, 9)] {
        let options =
            SubscriptionOptions { max_in_flight: Some(max_in_flight), ..SubscriptionOptions::default() };
        let ask = SubscribeOptions { credit_events: credit, ..earliest("orders", name, options) };
        let mut subscriber = client.subscribe(ask).await.unwrap();
        let mut got = Vec::new();
        while got.len() < 500 {
            let held = expected.min(500 - got.len());
            let mut deliveries = Vec::new();
            let batch = async {
                let mut taken = Vec::new();
                while taken.len() < held {
                    let delivery = next(&mut subscriber).await;
                    taken.extend(offsets(&delivery));
                    deliveries.push(delivery);
                }
                taken
            };
            got.extend(batch.await);
            let described = client.describe_subscription("orders", name).await.unwrap();
            assert_eq!(described.in_flight, u64::try_from(held).unwrap(), "{name}");
            deliveries.iter().for_each(Delivery::ack);
        }
        assert!(got.into_iter().eq(0..500), "{name}");
    }
}

#[tokio::test]
async fn an_event_that_fails_too_often_becomes_a_dead_letter() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    let event = numbered(0).with_key("key").with_header("colour", "red");
    events::publish(&client, "orders", [event.clone()]).await;
    let options = SubscriptionOptions { max_attempts: Some(3), ..SubscriptionOptions::default() };
    let mut subscriber = client.subscribe(earliest("orders", "s", options)).await.unwrap();
    let before = client.hello().await.unwrap().server_time_ms;
    for attempt in 1..=3 {
        let delivery = next(&mut subscriber).await;
        assert_eq!((delivery.first(), delivery.attempt()), (Offset(0), attempt));
        delivery.nack(Offset(0)..=Offset(0), Some(Duration::from_millis(100)));
    }
    publish_numbers(&client, "orders", 1..2).await;
    assert_eq!(numbers(&consume(&mut subscriber, 1).await), [1], "it does not come again");
    let dead_letters = events::read_all(&client, "dlq.orders.s").await;
    let (_, dead_letter) = &dead_letters[&0][0];
    assert_eq!(dead_letters[&0].len(), 1);
    assert_eq!((&dead_letter.key, &dead_letter.payload), (&event.key, &event.payload));
    assert_eq!(header(dead_letter, "colour").unwrap(), "red", "its own headers stay");
    for (name, value) in [
        ("reason", "max_attempts"),
        ("topic", "orders"),
        ("partition", "0"),
        ("offset", "0"),
        ("subscription", "s"),
        ("attempts", "3"),
    ] {
        assert_eq!(header(dead_letter, &format!("lv-dlq-{name}")).as_deref(), Some(value), "{name}");
    }
    let time = |name: &str| header(dead_letter, name).unwrap().parse::<u64>().unwrap();
    let (first, last) = (time("lv-dlq-first-failure"), time("lv-dlq-last-failure"));
    let after = engine.connect().await.hello().await.unwrap().server_time_ms;
    assert!(before <= first && last <= after, "{before} <= {first} and {last} <= {after}");
    assert!(last >= first + 2 * 100, "{first} to {last}: it waited twice in between");
    let described = client.describe_subscription("orders", "s").await.unwrap();
    assert_eq!((described.dead_lettered, described.lag), (1, 0));
}

#[tokio::test]
async fn a_rejected_event_is_a_dead_letter_at_once() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    client.create_topic("orders", events::partitions(2)).await.unwrap();
    let publisher = events::publisher(&client, "orders").await;
    for number in 0..5 {
        drop(publisher.publish_to(PartitionId(1), numbered(number)).await.unwrap());
    }
    publisher.flush().await.unwrap();
    let mut subscriber = events::subscribe(&client, "orders", "s").await;
    take(&mut subscriber, 5, |delivery| {
        delivery.reject(Offset(1)..=Offset(2), "no such customer");
        delivery.reject_undecodable(Offset(3)..=Offset(3), "no JSON");
        delivery.ack();
    })
    .await;
    within("the confirmation", subscriber.confirmed()).await.unwrap();
    let dead_letters = events::read_all(&client, "dlq.orders.s").await;
    assert_eq!(events::texts(&dead_letters, 0), ["1", "2", "3"]);
    let rejected = ("rejected", "no such customer");
    let why = [rejected, rejected, ("undecodable", "no JSON")];
    for ((place, (_, dead_letter)), why) in dead_letters[&0].iter().enumerate().zip(why) {
        let said = |name: &str| header(dead_letter, name).unwrap();
        assert_eq!((&*said("lv-dlq-reason"), &*said("lv-dlq-error")), why);
        assert_eq!(header(dead_letter, "lv-dlq-partition").unwrap(), "1");
        assert_eq!(header(dead_letter, "lv-dlq-offset").unwrap(), (place + 1).to_string());
    }
    // Dead letters are the engine's own: they are read, and neither published nor deleted by users.
    let publish = client.publisher("dlq.orders.s", levada_client::PublisherOptions::default()).await;
    assert_eq!(code(publish), ErrorCode::InvalidArgument);
    let mut dead_letters = events::subscribe(&client, "dlq.orders.s", "readers").await;
    assert_eq!(numbers(&consume(&mut dead_letters, 3).await), [1, 2, 3]);
}

#[tokio::test]
async fn other_options_are_refused_with_the_field_that_differs() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    guests::deploy(&client, "sample", "plugins/sample").await;
    let options = SubscriptionOptions::default();
    client.create_subscription("orders", "s", options.clone(), Start::Latest).await.unwrap();
    let chain = vec![guests::stage("sample", "{}")];
    for (field, other) in [
        ("order", SubscriptionOptions { order: Some(Order::None), ..options.clone() }),
        ("chain", SubscriptionOptions { chain: Some(chain), ..options.clone() }),
        ("ack_timeout_ms", SubscriptionOptions { ack_timeout_ms: Some(31_000), ..options.clone() }),
        ("max_attempts", SubscriptionOptions { max_attempts: Some(17), ..options.clone() }),
        ("max_in_flight", SubscriptionOptions { max_in_flight: Some(999), ..options.clone() }),
    ] {
        let refused = client.subscribe(earliest("orders", "s", other)).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::SubscriptionMismatch, "{field}");
        assert!(refused.to_string().contains(field), "{field}: {refused}");
    }
    client.subscribe(earliest("orders", "s", options.clone())).await.unwrap();
    client.subscribe(SubscribeOptions::new("orders", "s")).await.unwrap();
    for (field, wrong) in [
        ("ack_timeout_ms", SubscriptionOptions { ack_timeout_ms: Some(9), ..options.clone() }),
        ("max_attempts", SubscriptionOptions { max_attempts: Some(0), ..options.clone() }),
        ("max_in_flight", SubscriptionOptions { max_in_flight: Some(0), ..options }),
    ] {
        let refused = client.subscribe(earliest("orders", "new", wrong)).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::InvalidArgument, "{field}");
        assert!(refused.to_string().contains(field), "{field}: {refused}");
    }
}

#[tokio::test]
async fn a_subscription_is_made_once_and_stays_as_it_is() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    for topic in ["orders", "payments"] {
        events::topic(&client, topic).await;
    }
    let options = SubscriptionOptions { max_attempts: Some(3), ..SubscriptionOptions::default() };
    client.create_subscription("orders", "s", options.clone(), Start::Earliest).await.unwrap();
    let before = client.describe_subscription("orders", "s").await.unwrap();
    for again in [options, SubscriptionOptions::default()] {
        let refused = client.create_subscription("orders", "s", again, Start::Earliest).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::SubscriptionExists);
        assert!(refused.has_no_side_effects() && !refused.is_retryable(), "{refused}");
        assert!(refused.to_string().contains("topic orders has a subscription s"), "{refused}");
    }
    let after = client.describe_subscription("orders", "s").await.unwrap();
    assert_eq!((after.id, after.options), (before.id, before.options));
    // The name is the topic's own.
    client
        .create_subscription("payments", "s", SubscriptionOptions::default(), Start::Earliest)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_deleted_subscription_ends_its_consumers() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    let mut by_hand = events::subscribe(&client, "orders", "by-hand").await;
    let mut by_topic = events::subscribe(&client, "orders", "by-topic").await;
    let listed: Vec<String> = client
        .list_subscriptions(Some("orders"))
        .await
        .unwrap()
        .into_iter()
        .map(|it| it.name.to_string())
        .collect();
    assert_eq!(listed, ["by-hand", "by-topic"]);
    let unforced = client.delete_subscription("orders", "by-hand", DeleteOptions::default()).await;
    assert_eq!(code(unforced), ErrorCode::SubscriptionInUse);
    client.delete_subscription("orders", "by-hand", DeleteOptions::forced()).await.unwrap();
    let ended = within("the end", by_hand.next()).await;
    assert_eq!(code(ended), ErrorCode::SubscriptionNotFound);
    assert_eq!(code(client.delete_topic("orders", DeleteOptions::default()).await), ErrorCode::TopicInUse);
    client.delete_topic("orders", DeleteOptions::forced()).await.unwrap();
    let ended = code(within("the end", by_topic.next()).await);
    assert!(matches!(ended, ErrorCode::SubscriptionNotFound | ErrorCode::TopicNotFound), "{ended}");
    assert_eq!(client.list_subscriptions(None).await.unwrap(), []);
    // A topic made anew knows nothing of the old one's subscriptions.
    client.create_topic("orders", TopicSettings::default()).await.unwrap();
    let absent = client.subscribe(SubscribeOptions::new("orders", "by-topic")).await;
    assert_eq!(code(absent), ErrorCode::SubscriptionNotFound);
}

#[tokio::test]
async fn a_subscriber_goes_on_across_a_restart() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    publish_numbers(&client, "orders", 0..100).await;
    let mut subscriber = events::subscribe(&client, "orders", "s").await;
    assert_eq!(consume(&mut subscriber, 100).await.len(), 100);
    let engine = engine.restart().await;
    let other = engine.connect().await;
    publish_numbers(&other, "orders", 100..200).await;
    let got = consume(&mut subscriber, 100).await;
    assert!(numbers(&got).into_iter().eq(100..200));
}

#[tokio::test]
async fn one_client_holds_more_subscriptions_than_a_connection_has_streams() {
    let engine = Engine::with(|config| config.streams.connection_max = 16).await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    let options = SubscriptionOptions { order: Some(Order::None), ..SubscriptionOptions::default() };
    let mut subscribers = Vec::new();
    for _ in 0..40 {
        let opened = within("a consumer", client.subscribe(earliest("orders", "s", options.clone())));
        subscribers.push(opened.await.unwrap());
    }
    within("a publish", async { publish_numbers(&client, "orders", 0..1).await }).await;
    let described = within("an answer", client.describe_subscription("orders", "s")).await.unwrap();
    assert_eq!(described.consumers.len(), 40);
}
