//! Event ids within a topic's dedup window: an id is stored once, whatever happens around it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use levada_broker::{Broker, BrokerConfig, Clock, Principal, PublishStream};
use levada_protocol::{
    batch::{Batch, BatchBuilder, Stamp},
    duplicates::{Duplicates, Placed},
    error::ErrorCode,
    event::Event,
    ids::{Epoch, Offset, PartitionId, ProducerId, Sequence, Timestamp},
    publish::{AckOutcome, Durability, PublishHeader},
    request::{DedupInfo, Request, Response, TopicChanges, TopicInfo, TopicSettings},
};
use levada_store::{Family, ScanLimit, Store};
use proptest::{collection::vec, prelude::*};
use tokio::time::timeout;

use crate::support::{Engine, SOON};

const WINDOW_MS: u64 = 10_000;
/// 2026-01-01T00:00:00Z.
const NOW: u64 = 1_767_225_600_000;

fn windowed() -> TopicSettings {
    TopicSettings { dedup_window_ms: WINDOW_MS, ..TopicSettings::default() }
}

/// An engine with a topic and a clock that says what it is told.
struct Scene {
    engine: Engine,
    now: Arc<AtomicU64>,
    ids_max: usize,
}

impl Scene {
    async fn with(settings: TopicSettings, ids_max: usize) -> Self {
        let now = Arc::new(AtomicU64::new(NOW));
        let clock = clock(&now);
        let engine = Engine::with(|config| {
            (config.clock, config.dedup_ids_max) = (clock, ids_max);
        });
        engine.topic("orders", settings).await;
        Self { engine, now, ids_max }
    }

    async fn start() -> Self {
        Self::with(windowed(), 1_000_000).await
    }

    fn pass(&self, milliseconds: u64) {
        self.now.fetch_add(milliseconds, Ordering::SeqCst);
    }

    async fn restart(self) -> Self {
        let Self { engine, now, ids_max } = self;
        // What was answered and is not durable is gone; what is committed from here on is nobody's.
        engine.store.inner.crash();
        engine.broker.shutdown().await;
        engine.store.inner.crash();
        let config = BrokerConfig {
            disk_reserve_bytes: 0,
            clock: clock(&now),
            dedup_ids_max: ids_max,
            ..BrokerConfig::new(engine.dir.path())
        };
        let (store, plugins) = (Arc::clone(&engine.store), Arc::clone(&engine.plugins));
        let broker = Broker::start(config, store as Arc<dyn Store>, plugins as _).unwrap();
        Self { engine: Engine { broker, ..engine }, now, ids_max }
    }

    fn stream(&self) -> PublishStream {
        self.engine.broker.open_publish(&Principal::Local, &"orders".parse().unwrap()).unwrap()
    }

    /// Publishes events with these ids; empty for none.
    async fn publish(&self, ids: &[&str]) -> Answer {
        publish(&mut self.stream(), batch(ids, Stamp::ENGINE)).await
    }

    async fn retain(&self) {
        let now = Timestamp(self.now.load(Ordering::SeqCst));
        self.engine.broker.run_retention_at(now).await.unwrap();
    }

    async fn describe(&self) -> TopicInfo {
        let request = Request::DescribeTopic { name: "orders".parse().unwrap() };
        let Response::Topic(info) = self.engine.ask(request).await else { panic!("no topic") };
        info
    }

    async fn set(&self, settings: TopicChanges) {
        self.engine.ask(Request::SetTopic { name: "orders".parse().unwrap(), settings }).await;
    }

    fn rows(&self) -> usize {
        let rows = self.engine.store.inner.scan(Family::Dedup, &[0], &[255], ScanLimit::NONE);
        rows.unwrap().len()
    }
}

fn clock(now: &Arc<AtomicU64>) -> Clock {
    let now = Arc::clone(now);
    Clock::of(move || Timestamp(now.load(Ordering::SeqCst)))
}

fn event(id: &str) -> Event {
    Event { id: (!id.is_empty()).then(|| id.into()), ..Event::new(format!("of {id}")) }
}

fn of_events(events: &[Event], stamp: Stamp) -> Batch {
    let mut builder = BatchBuilder::new();
    events.iter().for_each(|event| builder.push(event).unwrap());
    builder.finish(stamp)
}

fn batch(ids: &[&str], stamp: Stamp) -> Batch {
    of_events(&ids.iter().map(|id| event(id)).collect::<Vec<_>>(), stamp)
}

fn stamp(first: u64) -> Stamp {
    Stamp { producer_id: ProducerId(7), epoch: Epoch(0), first_sequence: Sequence(first) }
}

/// The acknowledgement of a batch, and what it says of each of its events.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    outcome: AckOutcome,
    events: Vec<Said>,
}

impl Answer {
    fn of(outcome: AckOutcome, count: u32) -> Self {
        let AckOutcome::Appended { base, duplicates, .. } = &outcome else { panic!("{outcome:?}") };
        let placed = |index| match duplicates {
            None => Placed::Stored(index),
            Some(duplicates) => duplicates.placed(index),
        };
        let events = (0..count).map(|index| match placed(index) {
            Placed::Stored(nth) => (base.map(|base| base.0 + u64::from(nth)), false),
            Placed::Duplicate(first) => (first.map(|first| first.0), true),
        });
        Self { events: events.collect(), outcome }
    }

    fn is_repeat(&self) -> bool {
        matches!(self.outcome, AckOutcome::Appended { duplicate: true, .. })
    }
}

fn header() -> PublishHeader {
    PublishHeader {
        correlation: 1,
        partition: PartitionId(0),
        durability: None,
        expect_offset: None,
        due: None,
    }
}

async fn publish(stream: &mut PublishStream, batch: Batch) -> Answer {
    let count = batch.count();
    stream.submitter().submit(header(), batch).await.unwrap();
    Answer::of(timeout(SOON, stream.acks.recv()).await.unwrap().unwrap().outcome, count)
}

fn stored(offset: u64) -> Said {
    (Some(offset), false)
}

fn duplicate(offset: u64) -> Said {
    (Some(offset), true)
}

#[tokio::test]
async fn a_clock_that_jumps_forgets_ids_early_or_late_and_stores_none_twice_within_the_window() {
    const HOUR: u64 = 3_600_000;
    let scene = Scene::start().await;
    assert_eq!(scene.publish(&["a"]).await.events, [stored(0)]);
    scene.now.fetch_sub(HOUR, Ordering::SeqCst);
    assert_eq!(scene.publish(&["a", "b"]).await.events, [duplicate(0), stored(1)], "an hour back");
    let scene = scene.restart().await;
    assert_eq!(scene.publish(&["b"]).await.events, [duplicate(1)]);
    scene.pass(WINDOW_MS - 1);
    assert_eq!(scene.publish(&["b"]).await.events, [duplicate(1)], "within the window from then on");
    scene.pass(HOUR);
    assert_eq!(scene.publish(&["a", "b"]).await.events, [stored(2), stored(3)], "an hour forward");
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_repeat_inside_the_window_is_acknowledged_as_a_duplicate_event_by_event() {
    let scene = Scene::start().await;
    assert_eq!(scene.publish(&["a", "b"]).await.events, [stored(0), stored(1)]);
    let mixed = scene.publish(&["b", "c", "", "a", "c", ""]).await;
    let expected = [duplicate(1), stored(2), stored(3), duplicate(0), duplicate(2), stored(4)];
    assert_eq!(mixed.events, expected, "one of another batch, and one of the same");
    assert_eq!(scene.publish(&["a", "c"]).await.events, [duplicate(0), duplicate(2)]);
    assert_eq!(scene.engine.partition("orders").await.end, 5, "offsets have no holes");
    let info = scene.describe().await.dedup;
    let expected = DedupInfo { ids: 3, duplicates: 5, forgotten_early: 0, window_ms: WINDOW_MS };
    assert_eq!(info, expected);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn what_is_stored_and_read_are_the_first_events_of_each_id() {
    let scene = Scene::start().await;
    scene.publish(&["a", "b", "a"]).await;
    scene.publish(&["b", "c", "a", "d"]).await;
    let mut reader = scene.engine.reader("orders").await;
    let mut payloads = Vec::new();
    while payloads.len() < 4 {
        let outgoing = timeout(SOON, reader.outgoing.recv()).await.unwrap().unwrap().unwrap();
        let (levada_broker::Content::Delivery(delivery), _) = outgoing.into_parts() else { continue };
        for run in &delivery.runs {
            for read in run.batches() {
                let (base, batch) = read.unwrap();
                batch.verify().unwrap();
                payloads.extend(batch.events().map(|event| {
                    (event.offset(base).0, String::from_utf8(event.payload().unwrap().to_vec()).unwrap())
                }));
            }
        }
    }
    let expected = [(0, "of a"), (1, "of b"), (2, "of c"), (3, "of d")];
    assert_eq!(payloads, expected.map(|(offset, text)| (offset, text.to_owned())));
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn an_id_is_forgotten_when_its_window_has_passed_and_so_are_its_rows() {
    let scene = Scene::start().await;
    scene.publish(&["a"]).await;
    scene.pass(WINDOW_MS - 1);
    assert_eq!(scene.publish(&["a"]).await.events, [duplicate(0)], "the window counts from the first one");
    scene.pass(1);
    assert_eq!(scene.publish(&["a"]).await.events, [stored(1)]);
    scene.pass(WINDOW_MS);
    assert_eq!(scene.rows(), 1, "that of the newest");
    scene.retain().await;
    assert_eq!((scene.rows(), scene.describe().await.dedup.ids), (0, 0), "also if nothing is published");
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn without_a_window_an_id_may_come_again() {
    let scene = Scene::with(TopicSettings::default(), 1_000).await;
    assert_eq!(scene.publish(&["a", "a"]).await.events, [stored(0), stored(1)]);
    assert_eq!(scene.rows(), 0);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_restart_forgets_nothing_that_was_acknowledged() {
    let scene = Scene::start().await;
    scene.publish(&["a", "", "b"]).await;
    scene.pass(1_000);
    scene.publish(&["b", "c"]).await;
    let scene = scene.restart().await;
    assert_eq!(scene.describe().await.dedup.ids, 3);
    let again = scene.publish(&["c", "b", "a", "d"]).await;
    assert_eq!(again.events, [duplicate(3), duplicate(2), duplicate(0), stored(4)]);
    scene.pass(WINDOW_MS - 1_000);
    let scene = scene.restart().await;
    let later = scene.publish(&["a", "b", "c", "d"]).await;
    assert_eq!(later.events, [stored(5), stored(6), duplicate(3), duplicate(4)]);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn the_answer_to_a_repeat_of_what_is_not_durable_yet_waits_for_it() {
    let scene = Scene::start().await;
    let (mut first, mut second) = (scene.stream(), scene.stream());
    scene.engine.store.hold(true);
    first.submitter().submit(header(), batch(&["a"], Stamp::ENGINE)).await.unwrap();
    scene.engine.store.entered.notified().await;
    second.submitter().submit(header(), batch(&["a", "b"], Stamp::ENGINE)).await.unwrap();
    assert!(first.acks.try_recv().is_err() && second.acks.try_recv().is_err());
    scene.engine.store.hold(false);
    let outcome = timeout(SOON, second.acks.recv()).await.unwrap().unwrap().outcome;
    assert_eq!(Answer::of(outcome, 2).events, [duplicate(0), stored(1)]);
    assert!(first.acks.try_recv().is_ok(), "that was answered before");
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_resend_gets_the_answer_of_the_first_time_also_when_the_window_has_passed() {
    let scene = Scene::start().await;
    scene.publish(&["a", "b"]).await;
    let ids = ["b", "c", "a", "c", "d"];
    let first = publish(&mut scene.stream(), batch(&ids, stamp(0))).await;
    let all = publish(&mut scene.stream(), batch(&["a", "b"], stamp(5))).await;
    let expected = [duplicate(1), stored(2), duplicate(0), duplicate(2), stored(3)];
    assert_eq!(first.events, expected);
    assert_eq!(all.events, [duplicate(0), duplicate(1)]);
    scene.pass(2 * WINDOW_MS);
    scene.retain().await;
    let scene = scene.restart().await;
    for _ in 0..2 {
        let again = publish(&mut scene.stream(), batch(&ids, stamp(0))).await;
        assert!(again.is_repeat() && !first.is_repeat());
        assert_eq!(again.events, first.events);
        assert_eq!(publish(&mut scene.stream(), batch(&["a", "b"], stamp(5))).await.events, all.events);
    }
    let next = publish(&mut scene.stream(), batch(&["a"], stamp(7))).await;
    assert_eq!(next.events, [stored(4)], "sequences count what was sent, offsets what is stored");
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_header_may_belong_to_the_id() {
    let settings = TopicSettings { dedup_header: "source".to_owned(), ..windowed() };
    let scene = Scene::with(settings, 1_000).await;
    let of = |id: &str, source: &str| event(id).with_header("source", source.to_owned());
    let events = [of("1", "web"), of("1", "shop"), event("1"), of("1", "web"), event("1"), of("2", "web")];
    let answer = publish(&mut scene.stream(), of_events(&events, Stamp::ENGINE)).await;
    let expected = [stored(0), stored(1), stored(2), duplicate(0), duplicate(2), stored(3)];
    assert_eq!(answer.events, expected);
    // With another meaning of the id what is remembered is of no use.
    scene.set(TopicChanges { dedup_header: Some(String::new()), ..TopicChanges::default() }).await;
    assert_eq!((scene.rows(), scene.describe().await.dedup.ids), (0, 0));
    let answer = publish(&mut scene.stream(), of_events(&events, Stamp::ENGINE)).await;
    assert_eq!(answer.events[..3], [stored(4), duplicate(4), duplicate(4)]);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_window_that_is_switched_off_or_whose_topic_is_deleted_forgets() {
    let scene = Scene::start().await;
    scene.publish(&["a"]).await;
    let window = |dedup_window_ms| TopicChanges { dedup_window_ms, ..TopicChanges::default() };
    scene.set(window(Some(2 * WINDOW_MS))).await;
    scene.pass(WINDOW_MS + 1);
    assert_eq!(scene.publish(&["a"]).await.events, [duplicate(0)], "a longer window keeps what it has");
    scene.set(window(Some(WINDOW_MS))).await;
    assert_eq!(scene.publish(&["a"]).await.events, [stored(1)], "a shorter one holds at once");
    scene.set(window(Some(0))).await;
    assert_eq!(scene.rows(), 0);
    assert_eq!(scene.publish(&["a"]).await.events, [stored(2)]);
    scene.set(window(Some(WINDOW_MS))).await;
    assert_eq!(scene.publish(&["a", "a"]).await.events, [stored(3), duplicate(3)]);
    let name = "orders".parse().unwrap();
    scene.engine.ask(Request::DeleteTopic { name, force: true, with_dead_letters: false }).await;
    assert_eq!(scene.rows(), 0);
    scene.engine.topic("orders", windowed()).await;
    assert_eq!(scene.publish(&["a"]).await.events, [stored(0)]);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn settings_out_of_bounds_are_refused() {
    let scene = Scene::start().await;
    let week = 7 * 24 * 3_600_000;
    let create = |name: &str, settings| Request::CreateTopic { name: name.parse().unwrap(), settings };
    for settings in [
        TopicSettings { dedup_window_ms: week + 1, ..windowed() },
        TopicSettings { dedup_header: "x".repeat(129), ..windowed() },
        TopicSettings { dedup_header: "lv-attempt".to_owned(), ..windowed() },
    ] {
        let asked = scene.engine.broker.request(&Principal::Local, create("other", settings), None);
        assert_eq!(asked.await.unwrap_err().code(), ErrorCode::InvalidArgument);
    }
    let longest =
        TopicSettings { dedup_window_ms: week, dedup_header: "x".repeat(128), ..TopicSettings::default() };
    scene.engine.topic("other", longest).await;
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn beyond_the_bound_the_oldest_ids_are_forgotten_and_the_topic_says_so() {
    let scene = Scene::with(windowed(), 4).await;
    for id in ["a", "b", "c", "d"] {
        scene.publish(&[id]).await;
        scene.pass(1_000);
    }
    assert_eq!(scene.describe().await.dedup.forgotten_early, 0, "as many as may be");
    scene.publish(&["e"]).await;
    let info = scene.describe().await.dedup;
    assert_eq!((info.ids, info.forgotten_early, info.window_ms), (4, 1, 4_000));
    let again = scene.publish(&["b", "c", "d", "e"]).await;
    assert_eq!(again.events, [duplicate(1), duplicate(2), duplicate(3), duplicate(4)]);
    assert_eq!(scene.publish(&["a"]).await.events, [stored(5)], "it was forgotten early");
    let scene = scene.restart().await;
    assert_eq!(scene.publish(&["c", "b"]).await.events, [duplicate(2), stored(6)], "as before the restart");
    scene.pass(WINDOW_MS);
    scene.publish(&["f"]).await;
    assert_eq!(scene.describe().await.dedup.window_ms, WINDOW_MS, "the window is whole again");
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn an_expected_offset_is_checked_before_ids_and_the_answer_names_the_one_found() {
    let scene = Scene::start().await;
    scene.publish(&["a", "b"]).await;
    let mut stream = scene.stream();
    let mut expecting = async |at: u64, ids: &[&str]| {
        let header = PublishHeader { expect_offset: Some(Offset(at)), ..header() };
        stream.submitter().submit(header, batch(ids, Stamp::ENGINE)).await.unwrap();
        timeout(SOON, stream.acks.recv()).await.unwrap().unwrap().outcome
    };
    let AckOutcome::OffsetMismatch { next, message } = expecting(1, &["a"]).await else { panic!("refused") };
    assert_eq!((next, message.as_str()), (Offset(2), "the partition's next offset is 2, expected 1"));
    assert_eq!(Answer::of(expecting(2, &["a", "c"]).await, 2).events, [duplicate(0), stored(2)]);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn what_a_full_disk_took_back_is_not_remembered() {
    let scene = Scene::start().await;
    scene.publish(&["a"]).await;
    scene.engine.store.inner.set_full(true);
    let mut stream = scene.stream();
    stream.submitter().submit(header(), batch(&["b"], Stamp::ENGINE)).await.unwrap();
    let outcome = timeout(SOON, stream.acks.recv()).await.unwrap().unwrap().outcome;
    assert!(matches!(outcome, AckOutcome::Refused(_)), "{outcome:?}");
    scene.engine.store.inner.set_full(false);
    let answer = async {
        loop {
            let mut stream = scene.stream();
            stream.submitter().submit(header(), batch(&["b", "a"], Stamp::ENGINE)).await.unwrap();
            let outcome = stream.acks.recv().await.unwrap().outcome;
            if matches!(outcome, AckOutcome::Appended { .. }) {
                return Answer::of(outcome, 2);
            }
        }
    };
    assert_eq!(timeout(SOON, answer).await.unwrap().events, [stored(1), duplicate(0)]);
    scene.engine.broker.shutdown().await;
}

/// What may be done to a partition, and to the engine.
#[derive(Debug, Clone)]
enum Step {
    Publish { ids: Vec<u8>, later: u64, durability: bool },
    Resend,
    Restart,
    Window(u64),
    Retain,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let publish = (vec(0..20_u8, 1..12), prop_oneof![Just(0), 0..3_000_u64, 0..25_000_u64], any::<bool>())
        .prop_map(|(ids, later, durability)| Step::Publish { ids, later, durability });
    let step = prop_oneof![
        8 => publish,
        2 => Just(Step::Resend),
        1 => Just(Step::Restart),
        1 => (2_000..15_000_u64).prop_map(Step::Window),
        1 => Just(Step::Retain),
    ];
    vec(step, 1..40)
}

/// When and where an id was last stored.
#[derive(Clone, Copy)]
struct Remembered {
    time: u64,
    offset: u64,
    /// Whether a shorter window has ended for it. Under a longer one it may be forgotten, or be found again at a start
    /// as its row was not deleted yet.
    expired_before: bool,
}

/// The events of one partition as they should be.
#[derive(Default)]
struct Model {
    first: std::collections::HashMap<u8, Remembered>,
    next: u64,
    sequence: u64,
    /// The last batch, with its answer.
    last: Option<(Vec<u8>, u64, Vec<Said>)>,
}

/// An event's offset, and whether it is a duplicate.
type Said = (Option<u64>, bool);

fn text(id: u8) -> String {
    if id == 0 { String::new() } else { format!("id-{id}") }
}

async fn compare(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut scene = Scene::start().await;
    let (mut model, mut window_ms) = (Model::default(), WINDOW_MS);
    for step in steps {
        let now = |scene: &Scene| scene.now.load(Ordering::SeqCst);
        match step {
            Step::Publish { ids, later, durability } => {
                scene.pass(later);
                let now = now(&scene);
                let events: Vec<Event> = ids.iter().map(|id| event(&text(*id))).collect();
                let durability = durability.then_some(Durability::Os);
                let mut stream = scene.stream();
                let batch = of_events(&events, stamp(model.sequence));
                let header = PublishHeader { durability, ..header() };
                stream.submitter().submit(header, batch).await.unwrap();
                let outcome = timeout(SOON, stream.acks.recv()).await.unwrap().unwrap().outcome;
                let answer = Answer::of(outcome, u32::try_from(ids.len()).unwrap());
                for (id, (offset, is_duplicate)) in ids.iter().zip(&answer.events) {
                    let known = model.first.get(id).copied().filter(|_| *id != 0);
                    if *is_duplicate {
                        let is_within = |id: Remembered| now - id.time <= window_ms + window_ms / 1_024;
                        prop_assert!(known.is_some_and(is_within), "{id} at {now}");
                        prop_assert_eq!(*offset, known.map(|known| known.offset));
                        continue;
                    }
                    let may_be_forgotten = |id: Remembered| id.expired_before || now - id.time >= window_ms;
                    prop_assert!(known.is_none_or(may_be_forgotten), "{id} at {now}");
                    prop_assert_eq!(*offset, Some(model.next));
                    let stored = Remembered { time: now, offset: model.next, expired_before: false };
                    model.first.insert(*id, stored);
                    model.next += 1;
                }
                model.last = Some((ids.clone(), model.sequence, answer.events));
                model.sequence += ids.len() as u64;
            }
            Step::Resend => {
                let Some((ids, sequence, events)) = &model.last else { continue };
                let ids: Vec<Event> = ids.iter().map(|id| event(&text(*id))).collect();
                let again = publish(&mut scene.stream(), of_events(&ids, stamp(*sequence))).await;
                prop_assert!(again.is_repeat());
                prop_assert_eq!(&again.events, events);
            }
            Step::Restart => scene = scene.restart().await,
            Step::Window(wanted) => {
                let now = now(&scene);
                scene.retain().await;
                for id in model.first.values_mut() {
                    id.expired_before |= now - id.time >= window_ms;
                }
                window_ms = wanted;
                let dedup_window_ms = Some(wanted);
                scene.set(TopicChanges { dedup_window_ms, ..TopicChanges::default() }).await;
            }
            Step::Retain => scene.retain().await,
        }
        prop_assert_eq!(scene.engine.partition("orders").await.end, model.next);
    }
    scene.engine.broker.shutdown().await;
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn every_answer_is_that_of_a_simple_model(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(compare(steps))?;
    }
}

#[tokio::test]
async fn an_acknowledgement_with_more_scattered_duplicates_than_it_names_says_which_they_are() {
    let scene = Scene::start().await;
    let ids: Vec<String> = (0..1_200).map(|number| format!("id-{number}")).collect();
    let all: Vec<&str> = ids.iter().map(String::as_str).collect();
    scene.publish(&all).await;
    let every_other: Vec<&str> = all.iter().copied().step_by(2).collect();
    let answer = scene.publish(&every_other).await;
    let AckOutcome::Appended { count: 0, base: None, duplicates: Some(duplicates), .. } = &answer.outcome
    else {
        panic!("{:?}", answer.outcome)
    };
    assert!(duplicates.encoded_len() <= Duplicates::BYTES_MAX);
    assert!(answer.events.iter().all(|(_, is_duplicate)| *is_duplicate));
    let named = answer.events.iter().enumerate().take_while(|(_, (offset, _))| offset.is_some());
    assert!(named.clone().all(|(index, (offset, _))| *offset == Some(index as u64 * 2)));
    assert_eq!(named.count(), levada_protocol::limits::DUPLICATE_RUNS_MAX);
    scene.engine.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_stay_below_their_limit_with_the_ids_and_the_duplicates_that_they_bring() {
    const LIMIT: usize = 128 * 1024;
    let engine = Engine::with(|config| config.commit_bytes_max = LIMIT);
    engine.topic("orders", windowed()).await;
    let ids: Vec<String> = (0..400).map(|number| number.to_string()).collect();
    let all: Vec<&str> = ids.iter().map(String::as_str).collect();
    // While this sync is held up the rest queues: new ids, and scattered duplicates of them.
    engine.store.hold(true);
    let mut stream = engine.broker.open_publish(&Principal::Local, &"orders".parse().unwrap()).unwrap();
    let mut sequence = 0;
    for round in 0..120_usize {
        let step = 1 + round % 3;
        let some: Vec<&str> = all.iter().copied().step_by(step).collect();
        stream.submitter().submit(header(), batch(&some, stamp(sequence))).await.unwrap();
        sequence += some.len() as u64;
    }
    engine.store.commits.lock().unwrap().clear();
    engine.store.hold(false);
    for _ in 0..120 {
        let ack = timeout(SOON, stream.acks.recv()).await.unwrap().unwrap();
        assert!(matches!(ack.outcome, AckOutcome::Appended { .. }), "{ack:?}");
    }
    let commits = engine.store.commits.lock().unwrap().clone();
    assert!(commits.iter().all(|len| *len <= LIMIT), "{commits:?}");
    assert_eq!(engine.partition("orders").await.end, 400);
    engine.broker.shutdown().await;
}
