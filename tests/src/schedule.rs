//! Delayed events, end to end: published by the client, cancelled, and delivered when due, across a kill of the engine.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use levada_broker::Clock;
use levada_client::{Due, Durability, ErrorCode, Event, PublisherOptions, ReadOptions, Timestamp};
use levada_protocol::publish::AckOutcome;
use tempfile::TempDir;

use crate::support::{
    engine::Engine,
    events::{self, code, texts},
    machine::{Machine, Powered},
    process::Process,
    raw, until, within,
};

const HOUR: Duration = Duration::from_secs(3_600);
const HOUR_MS: u64 = 3_600_000;
/// 2026-01-01T00:00:00Z.
const NOW: u64 = 1_767_225_600_000;

#[tokio::test]
async fn a_delayed_event_is_delivered_when_it_is_due_and_a_cancelled_one_never() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    let publisher = client.publisher("orders", PublisherOptions::default()).await.unwrap();
    let kept = publisher.schedule(Event::new("kept"), HOUR).await.unwrap().await.unwrap();
    let gone = publisher.schedule(Event::new("gone"), HOUR).await.unwrap().await.unwrap();
    let (kept, gone) = (kept.id.unwrap(), gone.id.unwrap());
    let soon = publisher.schedule(Event::new("soon"), Duration::from_millis(1)).await.unwrap().await.unwrap();
    let past = publisher.schedule(Event::new("past"), Timestamp(1)).await.unwrap().await.unwrap();
    client.cancel_scheduled("orders", gone).await.unwrap();
    client.cancel_scheduled("orders", gone).await.unwrap();

    let mut consumer = client.subscribe(events::earliest("orders", "s", Default::default())).await.unwrap();
    let got = within("both", events::consume(&mut consumer, 2)).await;
    assert_eq!(got.len(), 2);
    let log = events::read_all(&client, "orders").await;
    let mut delivered = texts(&log, 0);
    delivered.sort_unstable();
    assert_eq!(delivered, ["past", "soon"]);
    let late = client.cancel_scheduled("orders", soon.id.unwrap()).await;
    assert_eq!(code(late), ErrorCode::AlreadyDue);
    let never = client.cancel_scheduled("orders", past.id.unwrap() + 1).await;
    assert_eq!(code(never), ErrorCode::ScheduleNotFound);
    let waiting = client.list_scheduled("orders", 10).await.unwrap();
    assert_eq!(waiting.iter().map(|event| event.id).collect::<Vec<_>>(), [kept]);
    assert_eq!(client.describe_topic("orders").await.unwrap().scheduled, 1);
    assert_eq!(client.describe_scheduled("orders", kept).await.unwrap().payload_bytes, 4);
}

/// How many delayed events wait, here and on a disk in memory.
fn count() -> u64 {
    let count = std::env::var("LEVADA_DELAYS").ok().and_then(|count| count.parse().ok());
    count.unwrap_or(20_000)
}

/// A fifth of the events is due in an hour, and the others soon.
fn delay(number: u64) -> Duration {
    // Events that follow on each other are due alike, as their batches are then.
    match number / 100 % 10 {
        0 | 5 => HOUR,
        step => Duration::from_millis(step * 150),
    }
}

#[tokio::test]
async fn very_many_delayed_events_survive_kills_and_come_once_each_and_none_early() {
    let dir = TempDir::new().unwrap();
    let mut engine = Process::start(dir.path()).await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    let publisher = client.publisher("orders", PublisherOptions::default()).await.unwrap();
    let mut tickets = Vec::new();
    for number in 0..count() {
        tickets.push(publisher.schedule(Event::new(number.to_string()), delay(number)).await.unwrap());
    }
    for ticket in tickets {
        within("a ticket", ticket).await.unwrap();
    }
    client.close().await;
    let waits = (0..count()).filter(|number| delay(*number) == HOUR).count() as u64;
    for kill in (0..3).rev() {
        let client = engine.connect().await;
        // While they come, and at last when all have.
        until("more of them", async || {
            let left = client.describe_topic("orders").await.unwrap().scheduled - waits;
            (left <= (count() - waits) * kill / 3).then_some(())
        })
        .await;
        client.close().await;
        engine.kill().await;
        engine = Process::start(dir.path()).await;
    }
    let client = engine.connect().await;
    let mut come = BTreeSet::new();
    let mut reader = client.read(ReadOptions::new("orders")).await.unwrap();
    while let Some(delivery) = within("the next events", reader.next()).await.unwrap() {
        for (_, appended, event) in delivery.events() {
            let number = events::number_of(event.payload().unwrap());
            assert!(come.insert(number), "{number} came twice");
            let waited = Duration::from_millis(appended.0 - event.time().0);
            assert!(waited >= delay(number), "{number} came after {waited:?}");
        }
    }
    assert!(come.into_iter().eq((0..count()).filter(|number| delay(*number) < HOUR)), "all that were due");
    assert_eq!(client.describe_topic("orders").await.unwrap().scheduled, waits);
    engine.stop().await;
}

/// A disk with very many delayed events, and what it holds may differ from what should have been moved by a power cut.
struct Many {
    machine: Machine,
    now: Arc<AtomicU64>,
    /// The latest times at which everything was moved that was due, and at which the engine ran at all.
    moved: u64,
    reached: u64,
    /// How often a part of what was due was found to be moved.
    halves: usize,
}

/// So many events share a batch.
const BATCH: u64 = 20;

/// After how many milliseconds an event is due: within six hours, and neighbouring batches at distant times.
fn due(number: u64) -> u64 {
    (number / BATCH * 7_919 + 1) * 1_000 % (6 * HOUR_MS)
}

/// An event that says its number: so long that what is due in an hour takes several commits.
fn long(number: u64) -> Event {
    let width = usize::try_from(10_000_000 / count()).unwrap();
    Event { payload: Some(format!("{number:0>width$}").into()), ..events::numbered(number) }
}

impl Many {
    async fn new() -> Self {
        let (machine, now) = (Machine::new(), Arc::new(AtomicU64::new(NOW)));
        let many = Self { machine, now, moved: 0, reached: 0, halves: 0 };
        let powered = many.start();
        powered.create("orders", Durability::Sync).await;
        let mut publishing = powered.publisher("orders");
        for first in (0..count()).step_by(20) {
            let events: Vec<Event> = (first..count().min(first + BATCH)).map(long).collect();
            let outcome = publishing.schedule(Due::After(due(first)), &raw::batch(0, 0, 0, &events)).await;
            assert!(matches!(outcome, AckOutcome::Scheduled { .. }), "{outcome:?}");
        }
        powered.cut().await;
        many
    }

    fn start(&self) -> Powered {
        let now = Arc::clone(&self.now);
        self.machine.start_with(Clock::of(move || Timestamp(now.load(Ordering::SeqCst))))
    }

    /// Lets the clock jump and what is due come: all of it, after which the clock goes back, or until the power goes with a
    /// sync.
    async fn run(&mut self, at: u64, cut_after: Option<u64>) {
        let powered = self.start();
        if let Some(syncs) = cut_after {
            powered.store.cut_after(syncs);
        }
        self.now.store(NOW + at, Ordering::SeqCst);
        self.reached = self.reached.max(at);
        let moved = within("the move", powered.broker.move_due()).await;
        self.now.store(NOW, Ordering::SeqCst);
        if cut_after.is_none() {
            moved.unwrap();
            self.moved = self.moved.max(at);
            within("a move of nothing", powered.broker.move_due()).await.unwrap();
        }
        powered.cut().await;
    }

    /// What is in the log: as much as was moved for certain, nothing that was never due, and nothing twice.
    async fn check(&mut self, step: usize) {
        let powered = self.start();
        let log = powered.read_all("orders").await;
        let numbers: BTreeSet<u64> = log.iter().map(|(_, number)| *number).collect();
        assert_eq!(numbers.len(), log.len(), "step {step}: none is there twice");
        let due_until = |until| (0..count()).filter(|number| due(*number) <= until).count();
        self.halves += usize::from(log.len() > due_until(self.moved) && log.len() < due_until(self.reached));
        for number in 0..count() {
            let due = due(number);
            let is_there = numbers.contains(&number);
            assert!(is_there || due > self.moved, "step {step}: {number} was due at {due}, and is lost");
            assert!(
                !is_there || due <= self.reached,
                "step {step}: {number} is due at {due}, and came early"
            );
        }
        let waits = powered.describe("orders").await.scheduled;
        assert_eq!(waits + log.len() as u64, count(), "step {step}: each is there or waits");
        powered.cut().await;
    }
}

#[tokio::test]
async fn of_very_many_delayed_events_none_is_lost_early_or_twice_whatever_the_clock_and_the_power_do() {
    let mut many = Many::new().await;
    // An hour forward and back each time, and on; some moves are cut before they are whole.
    let steps = [
        (0, None),
        (60, Some(1)),
        (60, Some(0)),
        (60, Some(2)),
        (60, None),
        (61, Some(1)),
        (121, Some(2)),
        (61, None),
        (181, None),
        (241, Some(1)),
        (301, Some(2)),
        (241, None),
        (360, Some(3)),
        (360, None),
    ];
    for (step, (minutes, cut_after)) in steps.into_iter().enumerate() {
        many.run(minutes * 60_000, cut_after).await;
        many.check(step).await;
    }
    assert_eq!(many.moved, 6 * HOUR_MS, "all of them were due");
    assert!(many.halves > 0, "some moves were cut in the middle: else nothing was tested");
}
