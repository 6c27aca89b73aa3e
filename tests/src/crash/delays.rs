//! Delayed events: each that was accepted and not cancelled comes once, and none before its time.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    time::Duration,
};

use levada_client::{
    Client, Error, ErrorCode, Event, Publisher, PublisherOptions, ReadOptions, ScheduleReceipt,
};

use super::gone;
use crate::support::{events, rng::Rng, until, within};

const TOPIC: &str = "later";
const HOUR: Duration = Duration::from_secs(3_600);
/// The key of those that wait an hour.
const LONG: &str = "long";

/// When each event that has come was published, and when it was appended.
type Come = BTreeMap<usize, (u64, u64)>;

/// What is known of an event that was handed to the publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It may be stored.
    Sent,
    /// It is, under this id.
    Waits(u64),
    /// It may be cancelled.
    Cancelling(u64),
    /// It waits under this id no more, and does not come.
    Cancelled(u64),
}

/// An event, and how long it is to wait.
#[derive(Debug)]
struct Delayed {
    delay: Duration,
    state: State,
}

#[derive(Default)]
pub(super) struct Delays {
    events: Vec<Delayed>,
    cancelled: u64,
    moved: usize,
}

pub(super) async fn prepare(client: &Client) {
    client.create_topic(TOPIC, events::partitions(2)).await.unwrap();
}

impl Delays {
    pub(super) async fn work(&mut self, client: &Client, rng: &mut Rng) -> Infallible {
        let error = match client.publisher(TOPIC, PublisherOptions::default()).await {
            Ok(publisher) => loop {
                if let Err(error) = self.step(client, &publisher, rng).await {
                    break error;
                }
            },
            Err(error) => error,
        };
        gone(error).await
    }

    /// Schedules a few, and cancels one of them.
    async fn step(&mut self, client: &Client, publisher: &Publisher, rng: &mut Rng) -> Result<(), Error> {
        let first = self.events.len();
        let mut tickets = Vec::new();
        for _ in 0..rng.within(1..20) {
            let (delay, kind) = match rng.within(0..5) {
                0 => (HOUR, LONG),
                _ => (Duration::from_millis(rng.within(0..400)), "short"),
            };
            // Without a time of its own it gets the present one.
            let event = Event::new(self.events.len().to_string()).with_key(kind);
            self.events.push(Delayed { delay, state: State::Sent });
            tickets.push(publisher.schedule(event, delay).await?);
        }
        for (number, ticket) in (first..).zip(tickets) {
            let ScheduleReceipt { id, .. } = ticket.await?;
            self.events[number].state = State::Waits(id.expect("it was stored just now"));
        }
        let chosen = first + usize::try_from(rng.within(0..20)).expect("it is small");
        match self.events.get(chosen).map(|event| event.state) {
            Some(State::Waits(id)) => self.cancel(client, chosen, id).await,
            _ => Ok(()),
        }
    }

    async fn cancel(&mut self, client: &Client, number: usize, id: u64) -> Result<(), Error> {
        self.events[number].state = State::Cancelling(id);
        match client.cancel_scheduled(TOPIC, id).await {
            Ok(()) => {
                self.events[number].state = State::Cancelled(id);
                self.cancelled += 1;
                Ok(())
            }
            Err(error) if error.code() == ErrorCode::AlreadyDue => {
                self.events[number].state = State::Waits(id);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Holds what is known against what waits and what has come.
    pub(super) async fn check(&mut self, round: u64, client: &Client) {
        let waiting = client.list_scheduled(TOPIC, usize::MAX).await.unwrap();
        let waiting: BTreeSet<u64> = waiting.iter().map(|event| event.id).collect();
        for (number, delayed) in self.events.iter().enumerate() {
            let is_left = matches!(delayed.state, State::Cancelled(id) if waiting.contains(&id));
            assert!(!is_left, "round {round}: {number} was cancelled, and waits: {delayed:?}");
        }
        let is_missing = |delayed: &Delayed, number: usize, come: &Come| {
            let left = |id| !waiting.contains(&id) && !come.contains_key(&number);
            matches!(delayed.state, State::Waits(id) if left(id))
        };
        // What was taken out of the schedule just before it was listed is in the log in a moment.
        let come = until("every event that does not wait any more", async || {
            let come = come(round, client).await;
            let mut missing = (0..).zip(&self.events).filter(|(at, it)| is_missing(it, *at, &come));
            missing.next().is_none().then_some(come)
        })
        .await;
        self.moved = come.len();
        for (number, (published, appended)) in come {
            let delayed = &self.events[number];
            let is_cancelled = matches!(delayed.state, State::Cancelled(_));
            assert!(!is_cancelled, "round {round}: {number} was cancelled, and came: {delayed:?}");
            let waited = Duration::from_millis(appended - published);
            assert!(waited >= delayed.delay, "round {round}: {number} came after {waited:?}: {delayed:?}");
        }
    }

    /// Waits until only those are left that are due in an hour.
    pub(super) async fn finish(&mut self, client: &Client) {
        until("what is due", async || {
            let waiting = client.list_scheduled(TOPIC, usize::MAX).await.unwrap();
            waiting.iter().all(|event| event.key.as_deref() == Some(LONG)).then_some(())
        })
        .await;
        self.check(u64::MAX, client).await;
    }

    pub(super) fn tell(&self) {
        let (scheduled, cancelled, moved) = (self.events.len(), self.cancelled, self.moved);
        eprintln!("{scheduled} scheduled, {moved} came, {cancelled} cancelled");
        assert!(moved > 0 && cancelled > 0 && scheduled > moved);
    }
}

/// What has come, each once.
async fn come(round: u64, client: &Client) -> Come {
    let mut come = Come::new();
    let mut reader = client.read(ReadOptions::new(TOPIC)).await.unwrap();
    while let Some(delivery) = within("the next events", reader.next()).await.unwrap() {
        for (offset, appended, event) in delivery.events() {
            let number = events::number_of(event.payload().unwrap());
            let number = usize::try_from(number).unwrap();
            let twice = come.insert(number, (event.time().0, appended.0));
            assert_eq!(twice, None, "round {round}: {number} came twice, also at {offset}");
        }
    }
    come
}
