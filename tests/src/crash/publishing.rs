//! Publishing, and a route that goes over it: every acknowledged event is there once, at its offset, in order; every
//! other one once or not at all; and what the route has made of them matches them exactly.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use levada_client::{
    Client, Durability, Error, Event, PublisherOptions, Receipt, RouteSpec, Start, Ticket, Timestamp,
};

use crate::support::{
    events::{self, Log, payload},
    guests::{self, stage},
    rng::Rng,
    until, within,
};

pub(super) const TOPIC: &str = "from";

/// What is known of every event that was handed to a publisher, by its number.
#[derive(Default)]
pub(super) struct Publishing {
    /// Where the engine said that it is.
    stored: BTreeMap<u64, (u16, u64)>,
    next: u64,
    /// What nobody has asked about yet.
    tickets: Vec<(u64, Ticket)>,
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

pub(super) fn number_of(payload: &[u8]) -> u64 {
    u64::from_le_bytes(*payload.first_chunk().expect("a payload begins with its number"))
}

impl Publishing {
    /// Publishes a burst every millisecond, for some of them.
    pub(super) async fn publish(&mut self, client: &Client, rng: &mut Rng) {
        let options = PublisherOptions {
            batch_bytes: rng.pick(&[500, 8_000, 64_000]),
            in_flight: rng.pick(&[1, 8, 64]),
            durability: rng.pick(&[None, Some(Durability::Sync)]),
            ..PublisherOptions::default()
        };
        let publisher = client.publisher(TOPIC, options).await.unwrap();
        let mut pace = tokio::time::interval(Duration::from_millis(1));
        for _ in 0..rng.within(1..150) {
            pace.tick().await;
            for _ in 0..rng.within(1..100) {
                let event = event(rng, self.next);
                let ticket = publisher.publish(event).await.expect("the publisher takes events");
                self.tickets.push((self.next, ticket));
                self.next += 1;
            }
        }
    }

    /// Waits for what the tickets tell; all of them tell a place if the publisher survived the engine.
    pub(super) async fn learn(&mut self, round: u64, survived: bool) {
        for (number, ticket) in std::mem::take(&mut self.tickets) {
            match within("a ticket", ticket).await {
                Ok(receipt) => self.note(number, receipt),
                Err(Error::Closed | Error::ConnectionLost { .. }) if !survived => {}
                Err(error) => panic!("round {round}: event {number}: {error}"),
            }
        }
    }

    fn note(&mut self, number: u64, receipt: Receipt) {
        // A resend of long ago has no offset to tell; it counts as not known.
        if let Some(offset) = receipt.offset {
            self.stored.insert(number, (receipt.partition.0, offset.0));
        }
    }

    /// Holds everything that is known against what is there.
    pub(super) async fn check(&self, round: u64, client: &Client) {
        let from = events::read_all(client, TOPIC).await;
        let mut found = BTreeMap::new();
        for (partition, events) in &from {
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

    /// Says how much there was to go wrong, and that it was something.
    pub(super) fn tell(&self) {
        eprintln!("{} published, {} of them acknowledged", self.next, self.stored.len());
        assert!(!self.stored.is_empty());
    }
}

/// Compares a route's outputs with its inputs: the same events, in order, each once, their payloads reversed.
pub(super) async fn check_route(round: u64, client: &Client) {
    until("the route's end", async || {
        let routes = client.list_routes().await.unwrap();
        (routes[0].lag == 0).then_some(())
    })
    .await;
    let [from, to] = logs(client).await;
    for (partition, sources) in &from {
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

pub(super) async fn prepare(client: &Client) {
    client.create_topic(TOPIC, events::partitions(3)).await.unwrap();
    client.create_topic("to", events::partitions(3)).await.unwrap();
    guests::deploy(client, "sample", "plugins/sample").await;
    let route = RouteSpec {
        name: "r".parse().unwrap(),
        from: TOPIC.parse().unwrap(),
        to: vec!["to".parse().unwrap()],
        chain: vec![stage("sample", r#"{"transform": "reverse"}"#)],
        start: Start::Earliest,
    };
    client.create_route(route).await.unwrap();
}

/// What is published, and what the route has made of it.
pub(super) async fn logs(client: &Client) -> [Log; 2] {
    [events::read_all(client, TOPIC).await, events::read_all(client, "to").await]
}
