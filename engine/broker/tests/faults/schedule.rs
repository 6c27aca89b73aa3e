//! Delayed events: accepted, listed, cancelled, and in the log when their time has come, whatever fails meanwhile.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
    mpsc,
};

use levada_broker::{Broker, BrokerConfig, Clock, Content, Delivery, Error, Principal};
use levada_protocol::{
    batch::{BatchBuilder, Stamp},
    error::ErrorCode,
    event::Event,
    ids::{Epoch, Offset, PartitionId, ProducerId, Sequence, Timestamp},
    limits::DELAY_MS_MAX,
    publish::{AckOutcome, Durability, PublishHeader},
    request::{Read, Request, Response, Start, TopicSettings},
    schedule::{Due, ScheduledInfo},
};
use levada_store::{Family, ScanLimit, Store as _};
use tokio::time::timeout;

use crate::support::{Engine, PLENTY, SOON};

/// 2026-01-01T00:00:00Z.
const NOW: u64 = 1_767_225_600_000;
const HOUR: u64 = 3_600_000;

/// An engine whose clock says what it is told, with a topic.
struct Scene {
    engine: Engine,
    now: Arc<AtomicU64>,
}

impl Scene {
    async fn new() -> Self {
        Self::with(TopicSettings::default()).await
    }

    async fn with(settings: TopicSettings) -> Self {
        let now = Arc::new(AtomicU64::new(NOW));
        let clock = clock(&now);
        let engine = Engine::with(|config| config.clock = clock);
        engine.topic("orders", settings).await;
        Self { engine, now }
    }

    /// After a crash, with so much of the disk kept free.
    async fn restart(self, disk_reserve_bytes: u64) -> Self {
        let Self { engine, now } = self;
        // What was answered and is not durable is gone; what is committed from here on is nobody's.
        engine.store.inner.crash();
        engine.broker.shutdown().await;
        engine.store.inner.crash();
        let clock = clock(&now);
        let config = BrokerConfig { disk_reserve_bytes, clock, ..BrokerConfig::new(engine.dir.path()) };
        let (store, plugins) = (Arc::clone(&engine.store), Arc::clone(&engine.plugins));
        let broker = Broker::start(config, store as _, plugins as _).unwrap();
        Self { engine: Engine { broker, ..engine }, now }
    }

    /// Lets it be so many milliseconds after the start, and moves what is due.
    async fn at(&self, after: u64) {
        self.now.store(NOW + after, Ordering::SeqCst);
        self.engine.broker.move_due().await.unwrap();
    }

    async fn send(&self, header: PublishHeader, producer: u128, events: &[&str]) -> AckOutcome {
        let events: Vec<Event> = events.iter().map(|event| Event::new((*event).to_owned())).collect();
        self.send_events(header, producer, &events).await
    }

    async fn send_events(&self, header: PublishHeader, producer: u128, events: &[Event]) -> AckOutcome {
        let mut builder = BatchBuilder::new();
        events.iter().for_each(|event| builder.push(event).unwrap());
        let stamp = Stamp { producer_id: ProducerId(producer), epoch: Epoch(0), first_sequence: Sequence(0) };
        let topic = "orders".parse().unwrap();
        let mut stream = self.engine.broker.open_publish(&Principal::Local, &topic).unwrap();
        stream.submitter().submit(header, builder.finish(stamp)).await.unwrap();
        stream.acks.recv().await.unwrap().outcome
    }

    async fn publish(&self, due: Option<Due>, events: &[&str]) -> AckOutcome {
        self.send(header(due), 0, events).await
    }

    /// Publishes one to be delivered after a delay; returns its id.
    async fn after(&self, delay: u64, event: &str) -> u64 {
        first(&self.publish(Some(Due::After(delay)), &[event]).await)
    }

    async fn publish_to(&self, topic: &str, due: Option<Due>, events: &[&str]) {
        let mut stream = self.engine.broker.open_publish(&Principal::Local, &topic.parse().unwrap()).unwrap();
        let mut builder = BatchBuilder::new();
        events.iter().for_each(|event| builder.push(&Event::new((*event).to_owned())).unwrap());
        stream.submitter().submit(header(due), builder.finish(Stamp::ENGINE)).await.unwrap();
        first(&stream.acks.recv().await.unwrap().outcome);
    }

    /// The payloads of the log.
    async fn log(&self) -> Vec<String> {
        let mut log = Vec::new();
        let end = Offset(self.end().await);
        let read = Read { from: Start::Earliest, ..Read::new("orders".parse().unwrap()) };
        let mut reader = self.engine.broker.read(&Principal::Local, read).await.unwrap();
        // One that has nothing to read ends at once.
        let granted = reader.credit.grant(PLENTY).await;
        assert!(granted.is_ok() || end.0 == 0, "{granted:?}");
        while log.len() < usize::try_from(end.0).unwrap() {
            let (content, _) = reader.outgoing.recv().await.unwrap().unwrap().into_parts();
            let Content::Delivery(Delivery { runs, .. }) = content else { panic!("events") };
            for (_, batch) in runs.iter().flat_map(|run| run.batches()).map(Result::unwrap) {
                log.extend(
                    batch.events().map(|event| String::from_utf8(event.payload().unwrap().to_vec()).unwrap()),
                );
            }
        }
        log
    }

    async fn end(&self) -> u64 {
        self.engine.partition("orders").await.end
    }

    async fn cancel(&self, id: u64) -> Result<(), Error> {
        let request = Request::CancelScheduled { topic: "orders".parse().unwrap(), id };
        self.engine.broker.request(&Principal::Local, request, None).await.map(drop)
    }

    async fn page(&self, limit: u32, after: Option<String>) -> (Vec<ScheduledInfo>, Option<String>) {
        let request = Request::ListScheduled { topic: "orders".parse().unwrap(), limit, after };
        match self.engine.ask(request).await {
            Response::ScheduledEvents { events, next } => (events, next),
            other => panic!("{other:?}"),
        }
    }

    async fn ids(&self) -> Vec<u64> {
        self.page(0, None).await.0.iter().map(|event| event.id).collect()
    }

    /// How many batches whose time has come are known to have had cancelled events.
    fn past_cancels(&self) -> usize {
        let rows = self.engine.store.inner.scan(Family::Schedule, &[6], &[7], ScanLimit::rows(100));
        rows.unwrap().len()
    }

    async fn count(&self) -> u64 {
        match self.engine.ask(Request::DescribeTopic { name: "orders".parse().unwrap() }).await {
            Response::Topic(topic) => topic.scheduled,
            other => panic!("{other:?}"),
        }
    }
}

fn clock(now: &Arc<AtomicU64>) -> Clock {
    let now = Arc::clone(now);
    Clock::of(move || Timestamp(now.load(Ordering::SeqCst)))
}

fn header(due: Option<Due>) -> PublishHeader {
    let partition = PartitionId(0);
    PublishHeader { correlation: 1, partition, durability: None, expect_offset: None, due }
}

fn first(outcome: &AckOutcome) -> u64 {
    match outcome {
        AckOutcome::Scheduled { first: Some(first), .. } => *first,
        other => panic!("{other:?}"),
    }
}

fn code(outcome: AckOutcome) -> ErrorCode {
    match outcome {
        AckOutcome::Refused(refusal) => refusal.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_event_is_in_the_log_when_it_is_due_and_not_before() {
    let scene = Scene::new().await;
    let id = scene.after(HOUR, "later").await;
    scene.at(HOUR - 1).await;
    assert_eq!((scene.end().await, scene.count().await, scene.ids().await), (0, 1, vec![id]));
    scene.at(HOUR).await;
    assert_eq!((scene.end().await, scene.count().await, scene.ids().await), (1, 0, Vec::new()));
    let past = scene.publish(Some(Due::At(Timestamp(1))), &["past"]).await;
    assert_eq!(first(&past), id + 1);
    scene.at(HOUR).await;
    assert_eq!(scene.end().await, 2, "a time that has passed is due at once");
}

/// Lets a commit begin, and time pass before anything else is taken into it.
struct Begun {
    began: mpsc::Receiver<()>,
    go_on: mpsc::Sender<()>,
}

/// A clock that stops the next commit once it has read the time at which it begins.
fn stopping_clock(now: &Arc<AtomicU64>, armed: &Arc<AtomicBool>) -> (Clock, Begun) {
    let (has_begun, began) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel();
    let (now, armed, goes_on) = (Arc::clone(now), Arc::clone(armed), Mutex::new(goes_on));
    let clock = Clock::of(move || {
        let read = Timestamp(now.load(Ordering::SeqCst));
        if std::thread::current().name() == Some("shard-writer") && armed.swap(false, Ordering::SeqCst) {
            has_begun.send(()).unwrap();
            goes_on.lock().unwrap().recv_timeout(SOON).expect("the test lets it go on");
        }
        read
    });
    (clock, Begun { began, go_on })
}

#[tokio::test]
async fn a_delay_counts_from_when_the_event_came_also_in_a_commit_that_began_before_that() {
    let (now, armed) = (Arc::new(AtomicU64::new(NOW)), Arc::new(AtomicBool::new(false)));
    let (clock, commit) = stopping_clock(&now, &armed);
    let engine = Engine::with(|config| config.clock = clock);
    engine.topic("orders", TopicSettings::default()).await;
    let scene = Scene { engine, now };
    let mut stream = scene.engine.broker.open_publish(&Principal::Local, &"orders".parse().unwrap()).unwrap();
    let one = || {
        let mut builder = BatchBuilder::new();
        builder.push(&Event::new("x")).unwrap();
        builder.finish(Stamp::ENGINE)
    };
    armed.store(true, Ordering::SeqCst);
    stream.submitter().submit(header(None), one()).await.unwrap();
    commit.began.recv_timeout(SOON).expect("the commit begins");
    scene.now.store(NOW + 1_000, Ordering::SeqCst);
    stream.submitter().submit(header(Some(Due::After(10))), one()).await.unwrap();
    commit.go_on.send(()).unwrap();
    for _ in 0..2 {
        stream.acks.recv().await.unwrap();
    }
    let due: Vec<u64> = scene.page(0, None).await.0.iter().map(|event| event.deliver_at_ms).collect();
    assert_eq!(due, [NOW + 1_010]);
}

#[tokio::test]
async fn a_clock_that_jumps_delays_events_or_lets_them_come_and_never_twice() {
    let scene = Scene::new().await;
    for delay in [HOUR / 2, HOUR, 2 * HOUR] {
        scene.after(delay, "x").await;
    }
    scene.at(HOUR).await;
    assert_eq!(scene.end().await, 2, "an hour forward");
    scene.at(0).await;
    scene.at(HOUR).await;
    assert_eq!(scene.end().await, 2, "an hour back, and on");
    scene.at(2 * HOUR).await;
    assert_eq!((scene.end().await, scene.count().await), (3, 0));
}

#[tokio::test]
async fn a_cancel_is_exact_for_each_event_of_a_batch() {
    let scene = Scene::new().await;
    let id = first(&scene.publish(Some(Due::After(HOUR)), &["a", "b", "c"]).await);
    scene.cancel(id + 1).await.unwrap();
    scene.cancel(id + 1).await.unwrap();
    assert_eq!((scene.count().await, scene.ids().await), (2, vec![id, id + 2]));
    let whole = first(&scene.publish(Some(Due::After(HOUR)), &["d", "e"]).await);
    scene.cancel(whole).await.unwrap();
    scene.cancel(whole + 1).await.unwrap();
    scene.cancel(whole + 1).await.unwrap();
    let never = scene.cancel(whole + 2).await.unwrap_err();
    assert_eq!(never.code(), ErrorCode::ScheduleNotFound);
    assert_eq!(scene.cancel(0).await.unwrap_err().code(), ErrorCode::ScheduleNotFound);
    scene.at(HOUR).await;
    assert_eq!((scene.end().await, scene.count().await), (2, 0));
    let scene = scene.restart(0).await;
    for moved in [id, id + 2] {
        assert_eq!(scene.cancel(moved).await.unwrap_err().code(), ErrorCode::AlreadyDue);
    }
    for cancelled in [id + 1, whole, whole + 1] {
        scene.cancel(cancelled).await.expect("a repeat is told what the first one was");
    }
    assert_eq!(scene.past_cancels(), 2, "one row a batch");
    // Whatever moves next in the topic forgets what was due more than a week ago.
    scene.at(HOUR + 9 * 24 * HOUR).await;
    first(&scene.publish(Some(Due::After(0)), &["f"]).await);
    scene.at(HOUR + 9 * 24 * HOUR).await;
    assert_eq!(scene.past_cancels(), 0);
    assert_eq!(scene.cancel(id + 1).await.unwrap_err().code(), ErrorCode::AlreadyDue);
}

#[tokio::test]
async fn the_schedule_is_listed_by_due_time_in_pages() {
    let scene = Scene::new().await;
    let late = first(&scene.publish(Some(Due::After(2 * HOUR)), &["a", "b", "c"]).await);
    let soon = scene.after(HOUR, "soon").await;
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let (events, next) = scene.page(2, after).await;
        seen.extend(events.iter().map(|event| event.id));
        match next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, [soon, late, late + 1, late + 2]);
    let request = Request::DescribeScheduled { topic: "orders".parse().unwrap(), id: soon };
    let Response::Scheduled(event) = scene.engine.ask(request).await else { panic!("no event") };
    assert_eq!((event.id, event.deliver_at_ms, event.payload_bytes), (soon, NOW + HOUR, 4));
    let broken =
        Request::ListScheduled { topic: "orders".parse().unwrap(), limit: 0, after: Some("x".into()) };
    let refused = scene.engine.broker.request(&Principal::Local, broken, None).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::InvalidArgument);
}

#[tokio::test]
async fn a_repeated_sequence_is_told_the_same_id() {
    let scene = Scene::new().await;
    let sent = scene.send(header(Some(Due::After(HOUR))), 7, &["a", "b"]).await;
    let again = scene.send(header(Some(Due::After(HOUR))), 7, &["a", "b"]).await;
    assert_eq!(again, AckOutcome::Scheduled { first: Some(first(&sent)), count: 2, duplicate: true });
    assert_eq!(scene.count().await, 2);
}

#[tokio::test]
async fn a_delay_past_the_limit_and_one_with_an_expected_offset_are_refused() {
    let scene = Scene::new().await;
    scene.after(DELAY_MS_MAX, "in 365 days").await;
    let beyond = scene.publish(Some(Due::After(DELAY_MS_MAX + 1)), &["x"]).await;
    assert_eq!(code(beyond), ErrorCode::DelayTooLong);
    let beyond = scene.publish(Some(Due::At(Timestamp(NOW + DELAY_MS_MAX + 1))), &["x"]).await;
    assert_eq!(code(beyond), ErrorCode::DelayTooLong);
    let both = PublishHeader { expect_offset: Some(Offset(0)), ..header(Some(Due::After(1))) };
    let AckOutcome::Refused(refusal) = scene.send(both, 0, &["x"]).await else { panic!("accepted") };
    assert_eq!(refusal.code, ErrorCode::InvalidArgument);
    assert!(
        refusal.message.contains("expect_offset") && refusal.message.contains("deliver_at"),
        "{refusal:?}"
    );
    assert_eq!(scene.count().await, 1);
}

#[tokio::test]
async fn a_topic_s_schedule_ends_with_it_and_its_ids_are_not_given_again() {
    let scene = Scene::new().await;
    let old = scene.after(HOUR, "x").await;
    let delete =
        Request::DeleteTopic { name: "orders".parse().unwrap(), force: false, with_dead_letters: false };
    scene.engine.ask(delete).await;
    scene.engine.topic("orders", TopicSettings::default()).await;
    assert_eq!((scene.count().await, scene.ids().await), (0, Vec::new()));
    assert_eq!(scene.cancel(old).await.unwrap_err().code(), ErrorCode::ScheduleNotFound);
    assert_eq!(scene.after(HOUR, "y").await, old + 1);
    scene.at(HOUR).await;
    assert_eq!(scene.end().await, 1, "the new topic's event alone");
}

#[tokio::test]
async fn more_than_one_commit_moves_come_all_and_in_order() {
    let scene = Scene::new().await;
    for number in (0..2_500_u64).rev() {
        scene.after(HOUR + number, &number.to_string()).await;
    }
    scene.at(2 * HOUR).await;
    assert_eq!((scene.end().await, scene.count().await), (2_500, 0));
    let expected: Vec<String> = (0..2_500_u64).map(|number| number.to_string()).collect();
    assert_eq!(scene.log().await, expected);
}

#[tokio::test]
async fn topics_that_are_due_together_share_commits() {
    let scene = Scene::new().await;
    for number in 0..700 {
        let name = format!("t{number}");
        scene.engine.topic(&name, TopicSettings::default()).await;
        scene.publish_to(&name, Some(Due::After(HOUR)), &["x"]).await;
    }
    for _ in 0..1_500 {
        scene.after(HOUR, "x").await;
    }
    let before = scene.engine.store.commits.lock().unwrap().len();
    scene.at(HOUR).await;
    assert_eq!(scene.end().await, 1_500);
    for number in 0..700 {
        assert_eq!(scene.engine.partition(&format!("t{number}")).await.end, 1, "topic {number}");
    }
    let commits = scene.engine.store.commits.lock().unwrap().len() - before;
    assert!(commits < 20, "{commits} commits for 701 topics");
}

#[tokio::test]
async fn an_event_can_be_cancelled_as_soon_as_it_is_acknowledged() {
    let scene = Scene::with(TopicSettings { durability: Durability::Os, ..TopicSettings::default() }).await;
    scene.engine.store.hold(true);
    let header = PublishHeader { durability: Some(Durability::Os), ..header(Some(Due::After(HOUR))) };
    let id = first(&scene.send(header, 0, &["x"]).await);
    let (cancelled, ()) = tokio::join!(scene.cancel(id), async {
        scene.engine.store.entered.notified().await;
        scene.engine.store.hold(false);
    });
    cancelled.unwrap();
    scene.at(HOUR).await;
    assert_eq!((scene.end().await, scene.count().await), (0, 0));
}

#[tokio::test]
async fn a_list_passes_what_was_cancelled_and_ends_within_its_bounds() {
    let scene = Scene::new().await;
    for _ in 0..300 {
        let id = scene.after(HOUR, "x").await;
        scene.cancel(id).await.unwrap();
    }
    let last = scene.after(HOUR, "last").await;
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let (events, next) = scene.page(1, after).await;
        seen.extend(events.iter().map(|event| event.id));
        match next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, [last]);
}

#[tokio::test]
async fn an_id_takes_its_place_in_the_log_once_whenever_its_events_are_due() {
    let scene = Scene::with(TopicSettings { dedup_window_ms: 3 * HOUR, ..TopicSettings::default() }).await;
    let of = |id: &str| [Event { id: Some(id.into()), ..Event::new("x") }];
    for delay in [HOUR, HOUR, 2 * HOUR] {
        let scheduled = scene.send_events(header(Some(Due::After(delay))), 0, &of("a")).await;
        assert!(matches!(scheduled, AckOutcome::Scheduled { duplicate: false, .. }), "{scheduled:?}");
    }
    let scheduled = scene.send_events(header(Some(Due::After(HOUR))), 0, &of("b")).await;
    let now = scene.send_events(header(None), 0, &of("b")).await;
    assert!(matches!(now, AckOutcome::Appended { count: 1, .. }), "an event that waits is none of the log's");
    scene.at(HOUR).await;
    assert_eq!((scene.end().await, scene.count().await), (2, 1), "a was stored once, b was stored before");
    let late = scene.cancel(first(&scheduled)).await.unwrap_err();
    assert_eq!(late.code(), ErrorCode::AlreadyDue);
    let scene = scene.restart(0).await;
    scene.at(2 * HOUR).await;
    assert_eq!((scene.end().await, scene.count().await), (2, 0), "also after a restart");
}

#[tokio::test]
async fn what_was_accepted_is_appended_and_cancelled_also_under_the_disk_guard() {
    let scene = Scene::new().await;
    let (kept, gone) = (scene.after(HOUR, "kept").await, scene.after(HOUR, "gone").await);
    let scene = scene.restart(u64::MAX).await;
    let refused = scene.publish(Some(Due::After(HOUR)), &["more"]).await;
    assert_eq!(code(refused), ErrorCode::StorageFull);
    scene.cancel(gone).await.unwrap();
    scene.at(HOUR).await;
    assert_eq!((scene.end().await, scene.ids().await), (1, Vec::new()));
    assert_eq!(scene.cancel(kept).await.unwrap_err().code(), ErrorCode::AlreadyDue);
}

#[tokio::test]
async fn a_full_disk_delays_events_and_neither_loses_nor_repeats_one() {
    let scene = Scene::new().await;
    for _ in 0..20 {
        scene.after(HOUR, "x").await;
    }
    // Full before the clock says so: the engine's own round finds no room either.
    scene.engine.store.inner.set_full(true);
    scene.now.store(NOW + HOUR, Ordering::SeqCst);
    let moved = scene.engine.broker.move_due().await;
    assert!(moved.is_err() && scene.end().await == 0, "{moved:?}");
    scene.engine.store.inner.set_full(false);
    let all = async {
        while scene.engine.broker.move_due().await.is_err() || scene.end().await < 20 {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, all).await.unwrap();
    assert_eq!((scene.end().await, scene.count().await), (20, 0));
    let scene = scene.restart(0).await;
    scene.at(2 * HOUR).await;
    assert_eq!((scene.end().await, scene.count().await), (20, 0), "what was moved stays so");
}

#[tokio::test]
async fn a_cancel_that_races_with_the_clock_tells_what_became_of_the_event() {
    let scene = Scene::new().await;
    let mut ids = Vec::new();
    for number in 0..300 {
        ids.push(scene.after(HOUR + number, &number.to_string()).await);
    }
    let cancels = async {
        let mut cancelled = Vec::new();
        for (number, id) in ids.iter().enumerate().rev() {
            match scene.cancel(*id).await {
                Ok(()) => cancelled.push(number),
                Err(error) => assert_eq!(error.code(), ErrorCode::AlreadyDue),
            }
        }
        cancelled
    };
    let moves = async {
        for number in 0..300 {
            scene.at(HOUR + number).await;
            tokio::task::yield_now().await;
        }
    };
    let (cancelled, ()) = tokio::join!(cancels, moves);
    assert!(!cancelled.is_empty() && cancelled.len() < 300, "{} of 300", cancelled.len());
    let kept = (0..300_usize).filter(|number| !cancelled.contains(number)).map(|number| number.to_string());
    assert_eq!(scene.log().await, kept.collect::<Vec<_>>());
    assert_eq!(scene.count().await, 0);
}
