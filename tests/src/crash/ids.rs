//! Two publishers that give the same event ids within a dedup window: each id is stored once, and every acknowledgement
//! names its one place.

use std::{cell::RefCell, collections::BTreeMap, convert::Infallible};

use levada_client::{Client, Error, Event, PublisherOptions, Receipt, TopicSettings};

use super::gone;
use crate::support::{
    events::{self, payload},
    rng::Rng,
};

const TOPIC: &str = "once";
/// Longer than any run of the test.
const WINDOW_MS: u64 = 24 * 3_600_000;
/// How far back the ids go that are published again.
const BACK: u64 = 60;

#[derive(Default)]
pub(super) struct Ids {
    next: u64,
    /// Where the engine said that an id is.
    places: BTreeMap<u64, (u16, u64)>,
    duplicates: u64,
}

pub(super) async fn prepare(client: &Client) {
    let settings = TopicSettings { partitions: 2, dedup_window_ms: WINDOW_MS, ..TopicSettings::default() };
    client.create_topic(TOPIC, settings).await.unwrap();
}

impl Ids {
    pub(super) async fn work(&mut self, clients: [&Client; 2], rng: &mut Rng) -> Infallible {
        let ids = RefCell::new(self);
        let (mut first, mut second) = (rng.fork(), rng.fork());
        let one = async |client, rng| gone(publish(client, rng, &ids).await).await;
        tokio::join!(one(clients[0], &mut first), one(clients[1], &mut second)).0
    }

    /// An id that is new, or was given not long ago.
    fn choose(&mut self, rng: &mut Rng) -> u64 {
        let id = (self.next + 2).saturating_sub(rng.within(1..BACK));
        self.next = self.next.max(id + 1);
        id
    }

    fn note(&mut self, id: u64, receipt: Receipt) {
        self.duplicates += u64::from(receipt.same_id);
        // A resend of long ago has no offset to tell.
        let Some(offset) = receipt.offset else { return };
        let place = (receipt.partition.0, offset.0);
        let told = *self.places.entry(id).or_insert(place);
        assert_eq!(told, place, "id {id} was told two places");
    }

    pub(super) async fn check(&self, round: u64, client: &Client) {
        let mut found = BTreeMap::new();
        for (partition, events) in events::read_all(client, TOPIC).await {
            events::assert_dense(&events, 0);
            for (offset, event) in &events {
                let id = events::number_of(payload(event));
                let twice = found.insert(id, (partition, *offset));
                assert_eq!(
                    twice, None,
                    "round {round}: id {id} is there twice, also at {partition}/{offset}"
                );
            }
        }
        for (id, place) in &self.places {
            assert_eq!(found.get(id), Some(place), "round {round}: acknowledged id {id}");
        }
    }

    pub(super) fn tell(&self) {
        eprintln!("{} ids, {} of their events were duplicates", self.next, self.duplicates);
        assert!(self.duplicates > 0 && !self.places.is_empty());
    }
}

/// One publisher, until its engine is gone.
async fn publish(client: &Client, rng: &mut Rng, ids: &RefCell<&mut Ids>) -> Error {
    let publisher = match client.publisher(TOPIC, PublisherOptions::default()).await {
        Ok(publisher) => publisher,
        Err(error) => return error,
    };
    loop {
        let mut tickets = Vec::new();
        for _ in 0..rng.within(1..20) {
            let id = ids.borrow_mut().choose(rng);
            let event = Event { id: Some(id.to_string().into()), ..events::numbered(id) };
            match publisher.publish(event).await {
                Ok(ticket) => tickets.push((id, ticket)),
                Err(error) => return error,
            }
        }
        for (id, ticket) in tickets {
            match ticket.await {
                Ok(receipt) => ids.borrow_mut().note(id, receipt),
                Err(error) => return error,
            }
        }
    }
}
