//! Two consumers of what is published: they acknowledge, let fail and reject.
//!
//! No event comes again whose settling was confirmed, the events of a key come in order, and what is to be a dead letter is
//! one exactly once.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    convert::Infallible,
    time::Duration,
};

use bytes::Bytes;
use levada_client::{Client, Delivery, Error, Offset, SubscribeOptions, Subscriber, SubscriptionOptions};

use super::{
    gone,
    publishing::{TOPIC, number_of},
};
use crate::support::{
    events::{self, earliest, header, payload},
    until,
};

const NAME: &str = "worker";
const DEAD_LETTERS: &str = "dlq.from.worker";
const ATTEMPTS_MAX: u16 = 3;
/// After about so many events a consumer waits until what it said holds.
const CONFIRM_EVERY: usize = 200;

/// Partition and offset.
type Place = (u16, u64);

/// What the consumers did, and what they know to hold.
#[derive(Default)]
pub(super) struct Consuming {
    /// How often each event came.
    deliveries: BTreeMap<Place, u64>,
    confirmed: BTreeSet<Place>,
    /// Those of them that were rejected.
    rejected: BTreeSet<Place>,
    delivered: u64,
    redelivered: u64,
}

/// What becomes of an event, whoever gets it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Acknowledged,
    /// It fails at the first attempt.
    AcknowledgedLater,
    Rejected,
    /// It fails each time.
    GivenUp,
}

impl Fate {
    /// Only events without a key fail and come again: they take no other one along.
    fn of(payload: &[u8], has_key: bool) -> Self {
        match number_of(payload) {
            number if number.is_multiple_of(13) => Self::Rejected,
            number if !has_key && number.is_multiple_of(11) => Self::GivenUp,
            number if !has_key && number.is_multiple_of(7) => Self::AcknowledgedLater,
            _ => Self::Acknowledged,
        }
    }

    /// The reason in the dead letter, for what becomes one.
    fn reason(self) -> Option<&'static str> {
        match self {
            Self::Rejected => Some("rejected"),
            Self::GivenUp => Some("max_attempts"),
            Self::Acknowledged | Self::AcknowledgedLater => None,
        }
    }
}

fn options() -> SubscribeOptions {
    let options = SubscriptionOptions {
        max_attempts: Some(ATTEMPTS_MAX),
        max_in_flight: Some(300),
        ..SubscriptionOptions::default()
    };
    earliest(TOPIC, NAME, options)
}

pub(super) async fn prepare(client: &Client) {
    let options = options();
    client.create_subscription(TOPIC, NAME, options.options.unwrap(), options.from).await.unwrap();
}

/// What one round's consumers have seen together.
struct Session<'a> {
    known: &'a mut Consuming,
    /// The last event of each key.
    last: HashMap<(u16, Bytes), u64>,
}

impl Session<'_> {
    /// Does with a delivery what is to be done; returns what it settled.
    fn handle(&mut self, delivery: &Delivery) -> Vec<(Place, Fate)> {
        let partition = delivery.partition().0;
        let (mut settled, mut done) = (Vec::new(), delivery.first());
        for (offset, event) in delivery.to_events() {
            let place = (partition, offset.0);
            assert!(!self.known.confirmed.contains(&place), "{place:?} was settled, and comes again");
            self.known.delivered += 1;
            *self.known.deliveries.entry(place).or_default() += 1;
            self.known.redelivered += u64::from(delivery.attempt() > 1);
            let fate = Fate::of(payload(&event), event.key.is_some());
            if let Some(key) = event.key {
                let before = self.last.insert((partition, key), offset.0);
                assert!(before < Some(offset.0), "{place:?} comes after {before:?} of the same key");
            }
            let fails = fate == Fate::GivenUp || (fate == Fate::AcknowledgedLater && delivery.attempt() == 1);
            if fails || fate == Fate::Rejected {
                if done < offset {
                    delivery.ack_range(done..=Offset(offset.0 - 1));
                }
                done = Offset(offset.0 + 1);
            }
            match fate {
                _ if fails => delivery.nack(offset..=offset, Some(Duration::ZERO)),
                Fate::Rejected => delivery.reject(offset..=offset, "no such customer"),
                _ => {}
            }
            if !fails {
                settled.push((place, fate));
            }
        }
        if done <= delivery.last() {
            delivery.ack_range(done..=delivery.last());
        }
        settled
    }

    fn confirm(&mut self, settled: &[(Place, Fate)]) {
        self.known.confirmed.extend(settled.iter().map(|(place, _)| *place));
        let rejected = settled.iter().filter(|(_, fate)| *fate == Fate::Rejected);
        self.known.rejected.extend(rejected.map(|(place, _)| *place));
    }
}

/// One consumer, until its engine is gone.
async fn consume(client: &Client, session: &RefCell<Session<'_>>) -> Error {
    let mut subscriber = match client.subscribe(options()).await {
        Ok(subscriber) => subscriber,
        Err(error) => return error,
    };
    let mut said = Vec::new();
    loop {
        let delivery = match next(&mut subscriber, &said).await {
            Ok(Some(delivery)) => delivery,
            Ok(None) => {
                if let Err(error) = subscriber.confirmed().await {
                    return error;
                }
                session.borrow_mut().confirm(&said);
                said.clear();
                continue;
            }
            Err(error) => return error,
        };
        said.extend(session.borrow_mut().handle(&delivery));
    }
}

/// The next delivery; `None` if what was said is to be confirmed first.
async fn next(subscriber: &mut Subscriber, said: &[(Place, Fate)]) -> Result<Option<Delivery>, Error> {
    if said.len() >= CONFIRM_EVERY {
        return Ok(None);
    }
    tokio::select! {
        biased;
        next = subscriber.next_delivery() => next.map(|next| Some(next.expect("the client is open"))),
        // Nothing is there: the time for it.
        () = tokio::task::yield_now(), if !said.is_empty() => Ok(None),
    }
}

impl Consuming {
    pub(super) async fn work(&mut self, clients: [&Client; 2]) -> Infallible {
        let session = Session { known: self, last: HashMap::new() };
        let session = RefCell::new(session);
        let one = async |client| gone(consume(client, &session).await).await;
        tokio::join!(one(clients[0]), one(clients[1])).0
    }

    /// Holds the dead letters against what the consumers know.
    pub(super) async fn check(&self, round: u64, client: &Client) {
        let dead = dead_letters(round, client).await;
        for place in &self.rejected {
            assert!(dead.contains_key(place), "round {round}: {place:?} was rejected, and is no dead letter");
        }
    }

    pub(super) async fn finish(&mut self, client: &Client, consumers: [&Client; 2]) {
        let finished = until("everything to be settled", async || {
            (client.describe_subscription(TOPIC, NAME).await.unwrap().lag == 0).then_some(())
        });
        tokio::select! {
            () = finished => {}
            never = self.work(consumers) => match never {},
        }
        let (mut all, mut dead) = (BTreeSet::new(), BTreeMap::new());
        for (partition, events) in events::read_all(client, TOPIC).await {
            for (offset, event) in events {
                all.insert((partition, offset));
                let fate = Fate::of(payload(&event), event.key.is_some());
                if fate.reason().is_some() {
                    dead.insert((partition, offset), fate);
                }
            }
        }
        assert!(self.deliveries.keys().eq(&all), "everything was delivered, and nothing else");
        let letters = dead_letters(u64::MAX, client).await;
        assert!(letters.keys().eq(dead.keys()), "each that is to be one, and no other");
        let given_up = dead.iter().filter(|(_, fate)| **fate == Fate::GivenUp);
        for (place, attempts) in given_up.map(|(place, _)| (place, letters[place])) {
            assert_eq!(attempts, u64::from(ATTEMPTS_MAX), "the attempts of {place:?}");
            let deliveries = self.deliveries[place];
            assert!(deliveries >= attempts, "{place:?} was given up after {deliveries} deliveries");
        }
    }

    pub(super) fn tell(&self) {
        let (delivered, confirmed) = (self.delivered, self.confirmed.len());
        eprintln!("{delivered} delivered, {} of them again, {confirmed} confirmed", self.redelivered);
        assert!(confirmed > 0 && self.redelivered > 0 && !self.rejected.is_empty());
    }
}

/// The places whose events are dead letters, each once and for its reason, and the attempts that it is told to have had.
async fn dead_letters(round: u64, client: &Client) -> BTreeMap<Place, u64> {
    let topics = client.list_topics().await.unwrap();
    // It is made with the first one.
    if !topics.iter().any(|topic| topic.name.as_str() == DEAD_LETTERS) {
        return BTreeMap::new();
    }
    let mut dead = BTreeMap::new();
    for (_, letter) in events::read_all(client, DEAD_LETTERS).await.into_values().flatten() {
        let number = |name: &str| header(&letter, name).unwrap().parse::<u64>().unwrap();
        let place = (u16::try_from(number("lv-dlq-partition")).unwrap(), number("lv-dlq-offset"));
        let twice = dead.insert(place, number("lv-dlq-attempts"));
        assert_eq!(twice, None, "round {round}: {place:?} is a dead letter twice");
        let fate = Fate::of(payload(&letter), letter.key.is_some());
        let reason = header(&letter, "lv-dlq-reason");
        assert_eq!(reason.as_deref(), fate.reason(), "round {round}: the dead letter of {place:?}");
    }
    dead
}
