//! Consumers that die or freeze in the middle of a batch and wake up too late, and one key that cannot be processed: what
//! they hold comes again once, and nobody else waits.

use std::{collections::BTreeMap, time::Duration};

use levada_client::{
    Client, Delivery, ErrorCode, Event, Offset, Order, PartitionId, Start, SubscribeOptions, Subscriber,
    SubscriptionOptions, WaitingFor,
};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use crate::support::{
    engine::Engine,
    events::{self, earliest, header, next, number_of, numbered, payload},
    process::{Process, signal},
    until, within,
};

/// Events of a batch; each is so large that no pipe takes all of them.
const BATCH: u64 = 5;
const EVENT_BYTES: usize = 60_000;

/// Stores the batch.
async fn publish(client: &Client) {
    events::topic(client, "orders").await;
    let publisher = events::publisher(client, "orders").await;
    let batch = (0..BATCH).map(|_| Event::new(vec![b'x'; EVENT_BYTES])).collect();
    publisher.append_at(PartitionId(0), Offset(0), batch).await.unwrap();
}

fn options() -> SubscriptionOptions {
    SubscriptionOptions { ack_timeout_ms: Some(200), ..SubscriptionOptions::default() }
}

#[tokio::test]
async fn a_consumer_s_name_has_256_bytes_at_most() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    let named = |bytes: usize| SubscribeOptions {
        consumer: "x".repeat(bytes),
        ..earliest("orders", "s", SubscriptionOptions::default())
    };
    let refused = client.subscribe(named(257)).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::InvalidArgument);
    assert!(refused.to_string().contains("the consumer's name is 257 bytes, the limit is 256"), "{refused}");
    drop(client.subscribe(named(256)).await.unwrap());
}

#[tokio::test]
async fn what_a_consumer_held_that_died_or_froze_comes_again_once_and_its_late_word_is_refused() {
    for freezes in [false, true] {
        let dir = TempDir::new().unwrap();
        // A consumer that is frozen keeps its connection.
        let engine = Process::start_with(dir.path(), &[("LEVADA_LISTEN_IDLE_TIMEOUT", "60s")]).await;
        let client = engine.connect().await;
        publish(&client).await;
        let arguments = ["subscribe", "orders", "-s", "s", "--from", "earliest", "--ack-timeout", "200ms"];
        let mut doomed = engine.spawn(&[&arguments[..], &["--max", "5"]].concat());
        let mut printed = BufReader::new(doomed.stdout.take().unwrap());
        let mut first = String::new();
        within("its first event", printed.read_line(&mut first)).await.unwrap();
        // It is printing the others, and acknowledges when it is done with all.
        signal(&doomed, if freezes { "STOP" } else { "KILL" });
        let described = client.describe_subscription("orders", "s").await.unwrap();
        assert_eq!(described.lag, BATCH, "it has settled none");

        let mut healthy = client.subscribe(earliest("orders", "s", options())).await.unwrap();
        let again = events::consume(&mut healthy, usize::try_from(BATCH).unwrap()).await;
        assert!(again.iter().map(|got| got.offset).eq(0..BATCH), "in order, each once");
        assert!(again.iter().all(|got| got.attempt == 2), "the time that ran out was an attempt");
        if freezes {
            signal(&doomed, "CONT");
        }
        let mut rest = String::new();
        within("what it printed", printed.read_to_string(&mut rest)).await.unwrap();
        let ended = within("its end", doomed.wait_with_output()).await.unwrap();
        if freezes {
            assert_eq!(rest.lines().count() + 1, 5, "it woke up and went on where it was");
            let stderr = String::from_utf8(ended.stderr).unwrap();
            assert!(stderr.contains("error: DELIVERY_EXPIRED: "), "its word is refused: {stderr}");
        }
        assert!(!ended.status.success());

        events::publish(&client, "orders", [numbered(BATCH)]).await;
        let behind = events::consume(&mut healthy, 1).await;
        assert_eq!((behind[0].offset, behind[0].attempt), (BATCH, 1), "nothing came a third time");
        let described = client.describe_subscription("orders", "s").await.unwrap();
        assert_eq!((described.lag, described.redelivered, described.dead_lettered), (0, BATCH, 0));
        client.close().await;
        engine.stop().await;
    }
}

const KEYS: u64 = 1_000;
const EVENTS: u64 = 5 * KEYS;
/// The key that cannot be processed, and its first event.
const POISONED: u64 = 500;

/// What two consumers do together, and what of it the poisoned key holds up.
#[derive(Default)]
struct Together {
    /// The next event of each key.
    next: BTreeMap<u64, u64>,
    settled: u64,
    /// Deliveries that hold events of the poisoned key, which nobody has settled.
    held: Vec<Delivery>,
}

impl Together {
    /// Settles the events of the other keys, each of which is to be the next one of its key.
    fn handle(&mut self, delivery: Delivery) {
        let mut is_held = false;
        for (offset, event) in delivery.to_events() {
            let number = number_of(payload(&event));
            if number % KEYS == POISONED {
                is_held = true;
                continue;
            }
            let expected = self.next.entry(number % KEYS).or_insert(number % KEYS);
            assert_eq!(number, *expected, "the events of a key come in order and once");
            *expected += KEYS;
            delivery.ack_range(offset..=offset);
            self.settled += 1;
        }
        if is_held {
            self.held.push(delivery);
        }
    }
}

/// The next delivery of either.
async fn either(one: &mut Subscriber, other: &mut Subscriber) -> Delivery {
    tokio::select! {
        delivery = next(one) => delivery,
        delivery = next(other) => delivery,
    }
}

#[tokio::test]
async fn of_a_thousand_keys_the_poisoned_one_alone_waits() {
    let engine = Engine::start().await;
    let (client, other) = (engine.connect().await, engine.connect().await);
    events::topic(&client, "orders").await;
    let keyed = (0..EVENTS).map(|number| numbered(number).with_key((number % KEYS).to_string()));
    events::publish(&client, "orders", keyed.collect::<Vec<_>>()).await;
    let options = SubscriptionOptions { max_attempts: Some(3), ..SubscriptionOptions::default() };
    let mut one = client.subscribe(earliest("orders", "s", options.clone())).await.unwrap();
    let mut two = other.subscribe(earliest("orders", "s", options)).await.unwrap();
    let mut together = Together::default();
    while together.settled < EVENTS - EVENTS / KEYS {
        together.handle(either(&mut one, &mut two).await);
    }
    for subscriber in [&one, &two] {
        within("the verbs", subscriber.confirmed()).await.unwrap();
    }
    let described = client.describe_subscription("orders", "s").await.unwrap();
    assert_eq!((described.lag, described.redelivered), (EVENTS / KEYS, 0), "those of one key");

    // It fails each time, until it is given up: then the others of its key come, in order.
    let first = Offset(POISONED);
    let poison = together.held.iter().find(|held| held.range().contains(&first)).expect("it was delivered");
    poison.nack(first..=first, Some(Duration::ZERO));
    let (mut attempts, mut since, mut rest) = (1, None, Vec::new());
    while rest.len() < 4 {
        let delivery = either(&mut one, &mut two).await;
        let is_late = |since: u64| delivery.token().0.wrapping_sub(since).cast_signed() < 0;
        // What was delivered before the first failure was taken back with it.
        if since.is_none_or(is_late) && delivery.attempt() == 1 {
            continue;
        }
        for (offset, event) in delivery.to_events() {
            if offset == first {
                attempts += 1;
                assert_eq!((delivery.attempt(), rest.len()), (attempts, 0), "none passes it");
                since.get_or_insert_with(|| delivery.token().0);
                delivery.nack(offset..=offset, Some(Duration::ZERO));
            } else {
                assert_eq!(attempts, 3, "none comes before it is given up");
                rest.push(number_of(payload(&event)));
                delivery.ack_range(offset..=offset);
            }
        }
    }
    assert!(rest.into_iter().eq((1..5).map(|step| POISONED + step * KEYS)));
    until("nothing to be left", async || {
        let described = client.describe_subscription("orders", "s").await.unwrap();
        (described.lag == 0 && described.dead_lettered == 1).then_some(())
    })
    .await;
    let dead = events::read_all(&client, "dlq.orders.s").await;
    assert_eq!(events::texts(&dead, 0), [POISONED.to_string()]);
}

#[tokio::test]
async fn an_event_that_ends_every_consumer_it_comes_to_is_a_dead_letter_and_its_neighbours_go_on() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    events::publish(&client, "orders", (0..10).map(numbered)).await;
    let options = SubscriptionOptions {
        order: Some(Order::None),
        max_attempts: Some(2),
        backoff_ms: Some(vec![0]),
        ..SubscriptionOptions::default()
    };
    client.create_subscription("orders", "s", options, Start::Earliest).await.unwrap();
    let mut ended = 0;
    loop {
        let client = engine.connect().await;
        let mut subscriber = events::subscribe_existing(&client, "orders", "s").await;
        let done = until("a delivery, or nothing left", async || {
            let described = client.describe_subscription("orders", "s").await.unwrap();
            (described.lag == 0 || described.in_flight > 0).then_some(described.lag == 0)
        });
        if done.await {
            break;
        }
        let delivery = next(&mut subscriber).await;
        for (offset, event) in delivery.to_events() {
            match number_of(payload(&event)) {
                // The process is gone before it says a word about it.
                5 => ended += 1,
                _ => delivery.ack_range(offset..=offset),
            }
        }
        if ended > 0 {
            // What was acknowledged is confirmed, and the connection ends with the rest.
            within("the confirmation", subscriber.confirmed()).await.unwrap();
        }
        drop((delivery, subscriber));
        client.close().await;
        assert!(ended < 20, "it comes to its end");
    }
    let dead = events::read_all(&client, "dlq.orders.s").await;
    assert_eq!(events::texts(&dead, 0), ["5"], "its neighbours went on");
    let reason = header(&dead[&0][0].1, "lv-dlq-reason");
    assert_eq!(reason.as_deref(), Some("consumer_lost"));
    assert!(ended > 3, "three returns are no failed attempts: {ended}");
}

#[tokio::test]
async fn thousands_of_events_that_failed_one_by_one_stop_no_others_and_wait_on_after_a_kill() {
    const FAILED: u64 = 5_000;
    let dir = TempDir::new().unwrap();
    let engine = Process::start(dir.path()).await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    events::publish(&client, "orders", (0..FAILED).map(numbered)).await;
    let options = SubscriptionOptions { order: Some(Order::None), ..SubscriptionOptions::default() };
    let mut subscriber = client.subscribe(earliest("orders", "s", options)).await.unwrap();
    let hour = Duration::from_secs(3_600);
    for number in 0..FAILED {
        let event = within("an event", subscriber.next()).await.unwrap().unwrap();
        assert_eq!((event.offset(), event.attempt()), (Offset(number), 1));
        // Each waits for another time, so that no two of them are alike.
        event.nack(Some(hour + Duration::from_millis(number)));
    }
    within("the confirmation", subscriber.confirmed()).await.unwrap();
    engine.kill().await;
    client.close().await;
    let engine = Process::start(dir.path()).await;
    let client = engine.connect().await;
    events::publish(&client, "orders", [numbered(FAILED)]).await;
    let mut subscriber = events::subscribe_existing(&client, "orders", "s").await;
    let event = within("an event", subscriber.next()).await.unwrap().unwrap();
    assert_eq!((event.offset(), event.attempt()), (Offset(FAILED), 1), "those that failed still wait");
    event.ack();
    within("the confirmation", subscriber.confirmed()).await.unwrap();
    let retry = until("what it waits for", async || {
        let described = client.describe_subscription("orders", "s").await.unwrap();
        assert_eq!((described.lag, described.in_flight), (FAILED, 0));
        if let WaitingFor::Retry(retry) = described.waiting_for { Some(retry) } else { None }
    })
    .await;
    assert_eq!((retry.offset, retry.attempts), (0, 1));
    client.close().await;
    engine.stop().await;
}
