//! `kill -9` of a publishing engine at random moments, again and again, on one data directory.
//!
//! After each restart every acknowledged event is there once, at its offset, in order; every other one once or not
//! at all; and what a route has made of them matches them exactly.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use levada_client::{
    Client, Durability, Error, Event, PublisherOptions, Receipt, RouteSpec, Start, Ticket, Timestamp,
};
use tempfile::TempDir;

use crate::support::{
    events::{self, Log, payload},
    guests::{self, stage},
    process::Process,
    rng::Rng,
    until, within,
};

const ROUNDS_DEFAULT: u64 = 30;

/// What is known of every event that was handed to a publisher, by its number.
#[derive(Default)]
struct Ledger {
    /// Where the engine said that it is.
    stored: BTreeMap<u64, (u16, u64)>,
    next: u64,
}

/// An event that says which it is, and how long it should be.
fn event(rng: &mut Rng, number: u64) -> Event {
    let filler = usize::try_from(rng.pick(&[0, 10, 80, 80, 80, 3_000])).unwrap();
    let mut payload = number.to_le_bytes().to_vec();
    payload.extend(std::iter::repeat_n(b'.', filler));
    let event = Event::new(payload).at(Timestamp(1_700_000_000_000));
    match rng.within(0..3) {
        0 => event,
        _ => Event { key: Some(Bytes::from(format!("k{}", rng.within(0..40)))), ..event },
    }
}

fn number_of(payload: &[u8]) -> u64 {
    u64::from_le_bytes(*payload.first_chunk().expect("a payload begins with its number"))
}

impl Ledger {
    fn note(&mut self, number: u64, receipt: Receipt) {
        // A resend of long ago has no offset to tell; it counts as not known.
        if let Some(offset) = receipt.offset {
            self.stored.insert(number, (receipt.partition.0, offset.0));
        }
    }

    /// Holds everything that is known against what is there.
    fn check(&self, round: u64, from: &Log) {
        let mut found = BTreeMap::new();
        for (partition, events) in from {
            events::assert_dense(events, 0);
            let mut last = BTreeMap::new();
            for (offset, event) in events {
                let number = number_of(payload(event));
                let twice = found.insert(number, (*partition, *offset));
                assert_eq!(
                    twice, None,
                    "round {round}: event {number} is there twice, also at {partition}/{offset}"
                );
                // Numbers of one key were published in order.
                if let Some(key) = &event.key {
                    let before = last.insert(key.clone(), number);
                    assert!(
                        before < Some(number),
                        "round {round}: key {key:?} is out of order at {partition}/{offset}"
                    );
                }
                assert!(number < self.next, "round {round}: event {number} was never published");
            }
        }
        for (number, place) in &self.stored {
            assert_eq!(found.get(number), Some(place), "round {round}: acknowledged event {number}");
        }
    }
}

/// Compares a route's outputs with its inputs: the same events, in order, each once, their payloads reversed.
fn check_route(round: u64, from: &Log, to: &Log) {
    for (partition, sources) in from {
        let outputs = to.get(partition).map_or(&[][..], Vec::as_slice);
        events::assert_dense(outputs, 0);
        assert_eq!(outputs.len(), sources.len(), "round {round}: outputs of partition {partition}");
        for ((_, source), (offset, output)) in sources.iter().zip(outputs) {
            assert!(
                payload(source).iter().rev().eq(payload(output)),
                "round {round}: output {partition}/{offset}"
            );
            assert_eq!((&source.key, source.time), (&output.key, output.time));
        }
    }
}

async fn prepare(client: &Client) {
    client.create_topic("from", events::partitions(3)).await.unwrap();
    client.create_topic("to", events::partitions(3)).await.unwrap();
    guests::deploy(client, "sample", "plugins/sample").await;
    let route = RouteSpec {
        name: "r".parse().unwrap(),
        from: "from".parse().unwrap(),
        to: vec!["to".parse().unwrap()],
        chain: vec![stage("sample", r#"{"transform": "reverse"}"#)],
        start: Start::Earliest,
    };
    client.create_route(route).await.unwrap();
}

/// Publishes a burst every millisecond, for so many of them; returns the tickets.
async fn publish(client: &Client, rng: &mut Rng, ledger: &mut Ledger, bursts: u64) -> Vec<(u64, Ticket)> {
    let options = PublisherOptions {
        batch_bytes: rng.pick(&[500, 8_000, 64_000]),
        in_flight: rng.pick(&[1, 8, 64]),
        durability: rng.pick(&[None, Some(Durability::Sync)]),
        ..PublisherOptions::default()
    };
    let publisher = client.publisher("from", options).await.unwrap();
    let mut pace = tokio::time::interval(Duration::from_millis(1));
    let mut tickets = Vec::new();
    for _ in 0..bursts {
        pace.tick().await;
        for _ in 0..rng.within(1..100) {
            let event = event(rng, ledger.next);
            tickets.push((ledger.next, publisher.publish(event).await.expect("the publisher takes events")));
            ledger.next += 1;
        }
    }
    tickets
}

/// Kills the engine while it works, and starts it again; returns the new one.
async fn round(round: u64, engine: Process, dir: &TempDir, rng: &mut Rng, ledger: &mut Ledger) -> Process {
    let client = engine.connect().await;
    let bursts = rng.within(1..150);
    let survives = rng.within(0..2) == 0;
    let tickets = publish(&client, rng, ledger, bursts).await;
    let address = engine.quic.clone();
    engine.kill().await;
    if !survives {
        // The publisher dies with the engine: what it was not told is not known.
        client.close().await;
    }
    if rng.within(0..5) == 0 {
        // A crash while it recovers from the crash.
        Process::start_and_kill(dir.path(), Duration::from_millis(rng.within(5..150))).await;
    }
    let engine = Process::start_at(dir.path(), &address).await;
    for (number, ticket) in tickets {
        match within("a ticket", ticket).await {
            Ok(receipt) => ledger.note(number, receipt),
            Err(Error::Closed | Error::ConnectionLost { .. }) if !survives => {}
            Err(error) => panic!("round {round}: event {number}: {error}"),
        }
    }
    let reader = engine.connect().await;
    let from = events::read_all(&reader, "from").await;
    ledger.check(round, &from);
    if survives {
        let there: usize = from.values().map(Vec::len).sum();
        assert!(there >= ledger.stored.len());
    }
    client.close().await;
    reader.close().await;
    engine
}

#[tokio::test]
async fn a_killed_engine_keeps_its_promises() {
    let rounds = std::env::var("LEVADA_CRASH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let mut rng = Rng::for_test("a_killed_engine_keeps_its_promises");
    let dir = TempDir::new().unwrap();
    let mut ledger = Ledger::default();
    let mut engine = Process::start(dir.path()).await;
    let client = engine.connect().await;
    prepare(&client).await;
    client.close().await;
    for number in 0..rounds.unwrap_or(ROUNDS_DEFAULT) {
        engine = round(number, engine, &dir, &mut rng, &mut ledger).await;
        if number % 5 == 4 {
            let client = engine.connect().await;
            caught_up(&client).await;
            let (from, to) = (events::read_all(&client, "from").await, events::read_all(&client, "to").await);
            check_route(number, &from, &to);
            client.close().await;
        }
    }
    let client = engine.connect().await;
    caught_up(&client).await;
    let (from, to) = (events::read_all(&client, "from").await, events::read_all(&client, "to").await);
    check_route(u64::MAX, &from, &to);
    let there: usize = from.values().map(Vec::len).sum();
    eprintln!("{} published, {} acknowledged, {there} there", ledger.next, ledger.stored.len());
    assert!(!ledger.stored.is_empty());
    // An ordered end changes nothing, and the data opens again.
    client.close().await;
    engine.stop().await;
    let engine = Process::start(dir.path()).await;
    let client = engine.connect().await;
    assert_eq!(events::read_all(&client, "from").await, from);
    assert_eq!(events::read_all(&client, "to").await, to);
    client.close().await;
    engine.stop().await;
}

async fn caught_up(client: &Client) {
    until("the route's end", async || {
        let routes = client.list_routes().await.unwrap();
        (routes[0].lag == 0).then_some(())
    })
    .await;
}
