//! Power cuts, failing syncs and full disks, in small: the broker on a disk in memory that forgets what no sync
//! confirmed.
//!
//! A killed process keeps the page cache, so only this tests what an acknowledgement promises.

use std::time::Duration;

use levada_client::{ErrorCode, Event, PartitionId, Start, TopicSettings};
use levada_protocol::{
    batch::Batch,
    publish::{AckOutcome, Durability, PublishHeader},
    request::{Request, RouteSpec},
};

use crate::support::{
    cut_store::Call,
    events::numbered,
    machine::{ME, Machine, Powered, Reading},
    raw::{batch, refused, stored},
    rng::Rng,
    until, within,
};

/// A payload of the usual size, and one that alone makes a group which the writer leaves to the syncer.
const WIDTHS: [usize; 2] = [1, 20_000];

/// A batch of `count` numbers from `first` on, each of at least `width` digits.
fn numbers(producer: u128, sequence: u64, first: u64, count: u64, width: usize) -> Batch {
    let event =
        |number: u64| Event { payload: Some(format!("{number:0>width$}").into()), ..numbered(number) };
    let events: Vec<Event> = (first..first + count).map(event).collect();
    batch(producer, 0, sequence, &events)
}

#[tokio::test]
async fn nobody_is_told_or_shown_anything_before_its_sync_returned() {
    for width in WIDTHS {
        let machine = Machine::new();
        let powered = machine.start();
        powered.create("sync", Durability::Sync).await;
        powered.create("os", Durability::Os).await;
        let mut watcher = powered.reader("os", true).await;
        let (mut safe, mut quick) = (powered.publisher("sync"), powered.publisher("os"));
        powered.store.hold_syncs(true);
        quick.submit(None, &numbers(1, 0, 0, 3, width)).await;
        assert_eq!(quick.ack().await.outcome, stored(0, 3, false), "`os` waits for no sync");
        safe.submit(None, &numbers(2, 0, 0, 1, width)).await;
        quick.submit(Some(Durability::Sync), &numbers(1, 3, 3, 1, width)).await;
        until("a sync's begin", async || powered.store.is_syncing().then_some(())).await;
        // The broker is alive, and shows and tells nothing.
        for _ in 0..20 {
            assert_eq!((powered.end("sync").await, powered.end("os").await), (0, 0));
        }
        assert_eq!((safe.ready(), quick.ready()), (vec![], vec![]));
        watcher.look();
        assert_eq!(watcher.seen, []);
        powered.store.note(1);
        powered.store.hold_syncs(false);
        assert_eq!(safe.ack().await.outcome, stored(0, 1, false));
        powered.store.note(2);
        assert_eq!(quick.ack().await.outcome, stored(3, 1, false));
        let calls = powered.store.calls();
        let place = |call: Call| calls.iter().position(|it| *it == call).unwrap();
        let between = &calls[place(Call::Noted(1))..place(Call::Noted(2))];
        assert!(
            between.iter().any(|call| matches!(call, Call::Synced(_))),
            "no acknowledgement without: {calls:?}"
        );
        while watcher.seen.len() < 4 {
            assert!(within("the events", watcher.next()).await);
        }
        within("the shutdown", powered.broker.shutdown()).await;
    }
}

#[tokio::test]
async fn an_answer_that_rests_on_what_is_not_durable_falls_with_it() {
    // Whether an answer is decided before its sync fails is up to the scheduler: often enough it is.
    let (mut decided, mut rounds) = (0, 0);
    while rounds < 10 || (decided == 0 && rounds < 1_000) {
        rounds += 1;
        let machine = Machine::new();
        let powered = machine.start();
        powered.create("orders", Durability::Sync).await;
        let mut publishing = powered.publisher("orders");
        powered.store.hold_syncs(true);
        let batch = numbers(1, 0, 0, 2, WIDTHS[1]);
        publishing.submit(None, &batch).await;
        until("the sync's begin", async || powered.store.is_syncing().then_some(())).await;
        // Mostly decided while the first one syncs: a repeat of it, and a gap behind it.
        publishing.submit(None, &batch).await;
        publishing.submit(None, &numbers(1, 9, 9, 1, 1)).await;
        for _ in 0..20 {
            assert_eq!(powered.end("orders").await, 0);
        }
        assert_eq!(publishing.ready(), []);
        machine.disk.fail_next_sync();
        powered.store.hold_syncs(false);
        assert_eq!(refused(&publishing.ack().await.outcome), ErrorCode::OutcomeUnknown);
        for what in ["its repeat", "the gap behind it"] {
            let outcome = publishing.ack().await.outcome;
            match refused(&outcome) {
                ErrorCode::OutcomeUnknown => decided += 1,
                // It came too late to be decided at all.
                ErrorCode::StorageFailed => {}
                _ => panic!("{what}: {outcome:?}"),
            }
        }
        powered.cut().await;
        let powered = machine.start();
        assert_eq!(powered.end("orders").await, 0);
        let mut publishing = powered.publisher("orders");
        assert_eq!(publishing.publish(&batch).await, stored(0, 2, false), "sent again, it is stored once");
        assert_eq!(publishing.publish(&batch).await, stored(0, 2, true));
        within("the shutdown", powered.broker.shutdown()).await;
    }
    assert!(decided > 0, "some answers rested on the sync that failed: else nothing was tested");
}

#[tokio::test]
async fn a_failed_sync_closes_the_writer_and_reading_goes_on() {
    let machine = Machine::new();
    let powered = machine.start();
    powered.create("orders", Durability::Sync).await;
    let mut publishing = powered.publisher("orders");
    assert_eq!(publishing.publish(&numbers(1, 0, 0, 5, 1)).await, stored(0, 5, false));
    let mut watcher = powered.reader("orders", true).await;
    assert!(powered.broker.health().ready);
    machine.disk.fail_next_sync();
    let lost = numbers(1, 5, 5, 1, 1);
    assert_eq!(refused(&publishing.publish(&lost).await), ErrorCode::OutcomeUnknown);
    for _ in 0..3 {
        assert_eq!(
            refused(&publishing.publish(&lost).await),
            ErrorCode::StorageFailed,
            "never as if it had worked"
        );
    }
    let health = powered.broker.health();
    assert!(!health.ready && health.reason.unwrap().contains("STORAGE_FAILED"));
    let settings = TopicSettings::default();
    let made = powered
        .broker
        .request(&ME, Request::CreateTopic { name: "more".parse().unwrap(), settings }, None)
        .await;
    assert_eq!(made.unwrap_err().code(), ErrorCode::StorageFailed);
    assert_eq!(powered.read_all("orders").await.len(), 5);
    assert!(within("the events", watcher.next()).await);
    assert_eq!(watcher.seen.len(), 5);
    powered.cut().await;
    let powered = machine.start();
    assert_eq!(powered.publisher("orders").publish(&lost).await, stored(5, 1, false));
    within("the shutdown", powered.broker.shutdown()).await;
}

#[tokio::test]
async fn a_full_store_refuses_and_goes_on_once_there_is_room() {
    let machine = Machine::new();
    let powered = machine.start();
    powered.create("orders", Durability::Sync).await;
    let mut publishing = powered.publisher("orders");
    assert_eq!(publishing.publish(&numbers(1, 0, 0, 5, 1)).await, stored(0, 5, false));
    machine.disk.set_full(true);
    let next = numbers(1, 5, 5, 2, 1);
    for _ in 0..3 {
        let refused = refused(&publishing.publish(&next).await);
        assert!(matches!(refused, ErrorCode::StorageFull), "{refused}");
        assert_eq!(powered.read_all("orders").await.len(), 5, "reading goes on");
    }
    assert!(!powered.broker.health().ready);
    machine.disk.set_full(false);
    until("the recovery", async || powered.broker.health().ready.then_some(())).await;
    assert_eq!(publishing.publish(&next).await, stored(5, 2, false), "nothing refused was stored");
    assert_eq!(publishing.publish(&next).await, stored(5, 2, true));
    let expected: Vec<(u64, u64)> = (0..7).map(|number| (number, number)).collect();
    assert_eq!(powered.read_all("orders").await, expected);
    within("the shutdown", powered.broker.shutdown()).await;
}

#[tokio::test]
async fn a_slow_disk_pushes_back_and_memory_stays_bounded() {
    let machine = Machine::new();
    let powered = machine.start();
    powered.create("orders", Durability::Sync).await;
    let mut publishing = powered.publisher("orders");
    powered.store.hold_syncs(true);
    let large = Event::new(vec![b'1'; 1_000_000]);
    let mut admitted = 0;
    loop {
        let batch = batch(0, 0, 0, std::slice::from_ref(&large));
        let header = PublishHeader {
            correlation: admitted,
            partition: PartitionId(0),
            durability: None,
            expect_offset: None,
            due: None,
        };
        let submitted = publishing.submitter.submit(header, batch);
        if tokio::time::timeout(Duration::from_millis(200), submitted).await.is_err() {
            break;
        }
        admitted += 1;
        assert!(admitted < 100, "32 MiB may wait, not {admitted} MB");
    }
    assert!(admitted >= 30, "{admitted}");
    powered.store.hold_syncs(false);
    for _ in 0..admitted {
        assert!(matches!(publishing.ack().await.outcome, AckOutcome::Appended { .. }));
    }
    within("the shutdown", powered.broker.shutdown()).await;
}

/// A batch that was acknowledged: its first offset, its first number, its count.
type Acknowledged = (u64, u64, u64);

/// Publishes with syncs held and let go at random, until the power goes; returns what was acknowledged.
async fn publish_until_the_cut(
    rng: &mut Rng,
    powered: &Powered,
    producer: u128,
    watchers: &mut [Reading],
    next: &mut u64,
) -> Vec<Acknowledged> {
    let mut publishing = powered.publisher("from");
    let mut sent = Vec::new();
    let mut sequence = 0;
    for _ in 0..rng.within(1..60) {
        let count = rng.within(1..20);
        publishing
            .submit(None, &numbers(producer, sequence, *next, count, rng.pick(&[1, 1, 1, 2_000])))
            .await;
        sent.push((*next, count));
        sequence += count;
        *next += count;
        match rng.within(0..6) {
            0 => powered.store.hold_syncs(true),
            1 | 2 => powered.store.hold_syncs(false),
            3 => watchers.iter_mut().for_each(Reading::look),
            _ => tokio::task::yield_now().await,
        }
    }
    powered.store.cut();
    watchers.iter_mut().for_each(Reading::look);
    let acknowledged = publishing.ready().into_iter().filter_map(|ack| {
        let (first, sent) = sent[usize::try_from(ack.correlation).unwrap() - 1];
        match ack.outcome {
            AckOutcome::Appended { base, count, duplicate: false, .. } => {
                assert_eq!(u64::from(count), sent);
                Some((base.unwrap().0, first, sent))
            }
            AckOutcome::Appended { .. } => panic!("nothing was sent twice"),
            AckOutcome::Scheduled { .. } => panic!("nothing was delayed"),
            AckOutcome::Refused(_) | AckOutcome::OffsetMismatch { .. } => None,
        }
    });
    acknowledged.collect()
}

#[tokio::test]
async fn a_power_cut_takes_back_nothing_that_was_acknowledged_or_seen() {
    let mut rng = Rng::for_test("a_power_cut_takes_back_nothing_that_was_acknowledged_or_seen");
    let machine = Machine::new();
    let powered = machine.start();
    powered.create("from", Durability::Sync).await;
    powered.create("to", Durability::Sync).await;
    let spec = RouteSpec::new("copy".parse().unwrap(), "from".parse().unwrap(), ["to".parse().unwrap()]);
    powered.ask(Request::CreateRoute(RouteSpec { start: Start::Earliest, ..spec })).await;
    within("the shutdown", powered.broker.shutdown()).await;

    let (mut acknowledged, mut lost, mut next) = (Vec::new(), 0, 0);
    for round in 0..150_u128 {
        machine.disk.crash();
        let powered = machine.start();
        let (reader, consumer) = (powered.reader("from", true).await, powered.consumer("from").await);
        let mut watchers = [reader, consumer, powered.reader("to", true).await];
        let told = publish_until_the_cut(&mut rng, &powered, round + 1, &mut watchers, &mut next).await;
        acknowledged.extend(told);
        let seen = watchers.map(|watcher| watcher.seen);
        powered.cut().await;

        let powered = machine.start();
        let (from, to) = (powered.read_all("from").await, powered.read_all("to").await);
        for (who, watcher, log) in
            [("a reader", 0, &from), ("a consumer", 1, &from), ("a target's reader", 2, &to)]
        {
            assert!(log.starts_with(&seen[watcher]), "round {round}: {who} saw what is gone");
        }
        for (base, first, count) in &acknowledged {
            let range = usize::try_from(*base).unwrap()..usize::try_from(base + count).unwrap();
            let stored = from.get(range).unwrap_or_default().iter().map(|(_, number)| *number);
            assert!(
                stored.eq(*first..first + count),
                "round {round}: an acknowledged event is gone or elsewhere"
            );
        }
        assert!(from.is_sorted_by(|one, next| one.1 < next.1), "round {round}: once each, in order");
        let end = u64::try_from(from.len()).unwrap();
        lost = next - end;
        Box::pin(until("the route's end", async || (powered.end("to").await == end).then_some(()))).await;
        let copied = powered.read_all("to").await;
        assert_eq!(copied, from, "round {round}: a route's outputs are exactly its inputs");
        within("the shutdown", powered.broker.shutdown()).await;
    }
    assert!(
        !acknowledged.is_empty() && lost > 0,
        "some was acknowledged, and some was lost: else nothing was tested"
    );
}
