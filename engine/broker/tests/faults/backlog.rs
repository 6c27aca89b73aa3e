//! Quotas of a topic's backlog: both sides of every limit, and who is told what.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use levada_broker::{Broker, BrokerConfig, Clock, Consumer, Content, Delivery, Error, Principal};
use levada_protocol::{
    batch::{Batch, BatchBuilder, Stamp},
    deliver::Run,
    error::{ErrorCode, Refusal},
    event::Event,
    ids::{DeliveryToken, Epoch, Offset, PartitionId, ProducerId, Sequence, Timestamp},
    publish::{AckOutcome, PublishHeader},
    request::{
        BacklogInfo, DeadLetterSelection, Notice, OnFull, Redrive, RedriveOutcome, Request, Response,
        RouteSpec, RunState, Start, SubscriptionOptions, TopicChanges, TopicInfo, TopicSettings,
    },
    schedule::Due,
    verbs::{Credit, Verb, VerbKind, Verbs},
};
use tokio::time::timeout;

use crate::support::{Engine, PLENTY, SOON};

const NOW: u64 = 1_767_225_600_000;

/// An engine whose clock says what it is told.
struct Scene {
    engine: Engine,
    now: Arc<AtomicU64>,
}

fn events(max: u64) -> TopicSettings {
    TopicSettings { backlog_max_events: max, ..TopicSettings::default() }
}

fn batch(count: u32) -> Batch {
    stamped(count, Stamp::ENGINE)
}

fn stamped(count: u32, stamp: Stamp) -> Batch {
    let mut builder = BatchBuilder::new();
    (0..count).for_each(|number| builder.push(&Event::new(format!("{number:04}"))).unwrap());
    builder.finish(stamp)
}

fn clock(now: &Arc<AtomicU64>) -> Clock {
    let now = Arc::clone(now);
    Clock::of(move || Timestamp(now.load(Ordering::SeqCst)))
}

/// The next delivery's token and the offsets of its events, whatever else comes before.
async fn delivery(consumer: &mut Consumer) -> (DeliveryToken, Vec<u64>) {
    loop {
        let next = timeout(SOON, consumer.outgoing.recv()).await.expect("a delivery comes").unwrap().unwrap();
        let Content::Delivery(Delivery { header, runs }) = next.content() else { continue };
        let batches = runs.iter().flat_map(Run::batches).map(Result::unwrap);
        let offsets = batches
            .flat_map(|(base, batch)| batch.events().map(|event| event.offset(base).0).collect::<Vec<_>>());
        return (header.token, offsets.collect());
    }
}

/// What a publish to a full topic is told.
fn full(outcome: AckOutcome) -> Refusal {
    let AckOutcome::Refused(refusal) = outcome else { panic!("{outcome:?} is no refusal") };
    assert_eq!(refusal.code, ErrorCode::BacklogFull, "{refusal}");
    assert!(refusal.code.is_retryable() && refusal.code.has_no_side_effects());
    assert!(refusal.retry_after_ms.is_some_and(|wait| wait > 0));
    refusal
}

fn stored(outcome: &AckOutcome) -> u64 {
    match outcome {
        AckOutcome::Appended { base: Some(base), .. } => base.0,
        AckOutcome::Scheduled { first: Some(first), .. } => *first,
        other => panic!("{other:?} is not stored"),
    }
}

impl Scene {
    fn new() -> Self {
        let now = Arc::new(AtomicU64::new(NOW));
        let clock = clock(&now);
        Self { engine: Engine::with(|config| config.clock = clock), now }
    }

    /// A topic with a subscription from its beginning.
    async fn with(settings: TopicSettings) -> Self {
        let scene = Self::new();
        scene.engine.topic("orders", settings).await;
        scene.create("payment", Start::Earliest).await;
        scene
    }

    async fn restart(self) -> Self {
        let Self { engine, now } = self;
        // What was answered and is not durable is gone; what is committed from here on is nobody's.
        engine.store.inner.crash();
        engine.broker.shutdown().await;
        engine.store.inner.crash();
        let config = BrokerConfig {
            disk_reserve_bytes: 0,
            clock: clock(&now),
            ..BrokerConfig::new(engine.dir.path())
        };
        let (store, plugins) = (Arc::clone(&engine.store), Arc::clone(&engine.plugins));
        let broker = Broker::start(config, store as _, plugins as _).unwrap();
        Self { engine: Engine { broker, ..engine }, now }
    }

    async fn create(&self, name: &str, from: Start) {
        self.create_of("orders", name, from).await;
    }

    async fn create_of(&self, topic: &str, name: &str, from: Start) {
        let (topic, name) = (topic.parse().unwrap(), name.parse().unwrap());
        let options = SubscriptionOptions::default();
        self.engine.ask(Request::CreateSubscription { topic, name, options, from }).await;
    }

    async fn delete(&self, name: &str) {
        let (topic, name) = ("orders".parse().unwrap(), name.parse().unwrap());
        let request = Request::DeleteSubscription { topic, name, force: true, with_dead_letters: false };
        self.engine.ask(request).await;
    }

    async fn send(&self, topic: &str, batch: Batch, due: Option<Due>) -> AckOutcome {
        let partition = PartitionId(0);
        let header = PublishHeader { correlation: 1, partition, durability: None, expect_offset: None, due };
        let mut stream = self.engine.broker.open_publish(&Principal::Local, &topic.parse().unwrap()).unwrap();
        stream.submitter().submit(header, batch).await.unwrap();
        timeout(SOON, stream.acks.recv()).await.unwrap().unwrap().outcome
    }

    async fn publish(&self, count: u32) -> AckOutcome {
        self.send("orders", batch(count), None).await
    }

    /// Publishes so many events, each in a batch and a commit of its own.
    async fn publish_each(&self, count: u64) {
        for _ in 0..count {
            stored(&self.publish(1).await);
        }
    }

    async fn topic(&self, name: &str) -> TopicInfo {
        match self.engine.ask(Request::DescribeTopic { name: name.parse().unwrap() }).await {
            Response::Topic(topic) => topic,
            other => panic!("{other:?}"),
        }
    }

    async fn backlog(&self) -> BacklogInfo {
        self.topic("orders").await.backlog.unwrap()
    }

    async fn set(&self, changes: TopicChanges) -> Result<Response, Error> {
        let request = Request::SetTopic { name: "orders".parse().unwrap(), settings: changes };
        self.engine.broker.request(&Principal::Local, request, None).await
    }

    async fn worker(&self) -> Worker {
        Worker { consumer: self.engine.subscribe(SubscriptionOptions::default()).await, sequence: 0 }
    }
}

/// A consumer that takes one event at a time.
struct Worker {
    consumer: Consumer,
    sequence: u64,
}

impl Worker {
    /// Takes and acknowledges so many events, and waits until so many are left.
    async fn ack(&mut self, scene: &Scene, count: u64, left: u64) {
        for _ in 0..count {
            self.consumer.control.credit(Credit { events: 1, bytes: 1 << 20 }).await.unwrap();
            let (token, offsets) = delivery(&mut self.consumer).await;
            let (first, last) = (Offset(offsets[0]), Offset(*offsets.last().unwrap()));
            let verb = Verb { kind: VerbKind::Ack, partition: PartitionId(0), token, first, last };
            self.sequence += 1;
            let verbs = Verbs { sequence: self.sequence, verbs: vec![verb] };
            self.consumer.control.verbs(verbs).await.unwrap();
        }
        scene.engine.until_info(|info| info.lag == left).await;
    }
}

#[tokio::test]
async fn the_last_event_of_the_quota_is_taken_the_next_one_refused_and_an_ack_makes_room() {
    let scene = Scene::with(events(3)).await;
    scene.publish_each(2).await;
    full(scene.publish(2).await);
    scene.publish_each(1).await;
    let refusal = full(scene.publish(1).await);
    for word in ["orders", "subscription orders/payment", "3 events", "at most 3", "--backlog-max-events"] {
        assert!(refusal.message.contains(word), "{word}: {refusal}");
    }
    assert_eq!(scene.topic("orders").await.partitions[0].end, 3, "nothing of what was refused is stored");
    let mut worker = scene.worker().await;
    worker.ack(&scene, 1, 2).await;
    assert_eq!(stored(&scene.publish(1).await), 3);
    full(scene.publish(1).await);
    let BacklogInfo { events, slowest, refused, dropped, .. } = scene.backlog().await;
    assert_eq!((events, slowest.as_str(), refused, dropped), (3, "subscription orders/payment", 4, 0));
}

#[tokio::test]
async fn the_last_byte_of_the_quota_is_taken_and_the_next_one_refused() {
    let len = batch(1).bytes().len() as u64;
    for (max, fit) in [(3 * len, 3), (3 * len - 1, 2), (4 * len - 1, 3)] {
        let settings = TopicSettings { backlog_max_bytes: max, ..TopicSettings::default() };
        let scene = Scene::with(settings).await;
        scene.publish_each(fit).await;
        let refusal = full(scene.publish(1).await);
        assert!(refusal.message.contains(&format!("{} bytes", fit * len)), "{refusal}");
        assert_eq!(scene.backlog().await.bytes, fit * len);
        scene.worker().await.ack(&scene, 1, fit - 1).await;
        stored(&scene.publish(1).await);
        full(scene.publish(1).await);
    }
}

#[tokio::test]
async fn an_event_may_wait_as_long_as_the_quota_says_and_no_longer() {
    let settings = TopicSettings { backlog_max_age_ms: 10_000, ..TopicSettings::default() };
    let scene = Scene::with(settings).await;
    let at = |after: u64| scene.now.store(NOW + after, Ordering::SeqCst);
    stored(&scene.publish(1).await);
    at(4_000);
    stored(&scene.publish(1).await);
    at(10_000);
    stored(&scene.publish(1).await);
    at(10_001);
    let refusal = full(scene.publish(1).await);
    assert!(refusal.message.contains("10001 ms old, of at most 10000 ms"), "{refusal}");
    assert_eq!(scene.backlog().await.oldest_age_ms, 10_001);
    scene.worker().await.ack(&scene, 1, 2).await;
    stored(&scene.publish(1).await);
    at(14_001);
    full(scene.publish(1).await);
}

#[tokio::test]
async fn a_clock_that_is_set_back_an_hour_lets_events_wait_no_longer_than_the_quota_says_from_then_on() {
    const HOUR: u64 = 3_600_000;
    let settings = TopicSettings { backlog_max_age_ms: 10_000, ..TopicSettings::default() };
    let scene = Scene::with(settings).await;
    let at = |time: u64| scene.now.store(time, Ordering::SeqCst);
    at(NOW + HOUR);
    stored(&scene.publish(1).await);
    at(NOW);
    stored(&scene.publish(1).await);
    assert_eq!(scene.backlog().await.oldest_age_ms, 0, "what ran ahead counts as appended now");
    at(NOW + 10_000);
    stored(&scene.publish(1).await);
    at(NOW + 10_001);
    full(scene.publish(1).await);
    at(NOW + HOUR);
    full(scene.publish(1).await);
}

#[tokio::test]
async fn a_topic_that_nobody_reads_durably_has_no_backlog_and_an_old_one_begins_with_all_of_it() {
    let scene = Scene::new();
    scene.engine.topic("orders", events(3)).await;
    scene.publish_each(10).await;
    assert_eq!(scene.backlog().await, BacklogInfo::default());
    scene.create("later", Start::Latest).await;
    scene.publish_each(3).await;
    full(scene.publish(1).await);
    scene.delete("later").await;
    stored(&scene.publish(1).await);
    scene.create("payment", Start::Earliest).await;
    full(scene.publish(1).await);
    assert_eq!(scene.backlog().await.events, 14);
    let mut worker = scene.worker().await;
    worker.ack(&scene, 11, 3).await;
    full(scene.publish(1).await);
    worker.ack(&scene, 1, 2).await;
    stored(&scene.publish(1).await);
}

#[tokio::test]
async fn events_acknowledged_behind_one_that_is_not_count_neither_now_nor_after_a_restart() {
    let scene = Scene::with(events(4)).await;
    scene.publish_each(4).await;
    let mut consumer = scene.engine.subscribe(SubscriptionOptions::default()).await;
    consumer.control.credit(PLENTY).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let (token, offsets) = delivery(&mut consumer).await;
        seen.extend(offsets.into_iter().map(|offset| (token, offset)));
    }
    for (sequence, (token, offset)) in (1..).zip(seen.into_iter().skip(1)) {
        scene.engine.ack(&consumer, sequence, token, offset..=offset).await;
    }
    scene.engine.until_info(|info| info.lag == 1).await;
    stored(&scene.publish(2).await);
    full(scene.publish(2).await);
    let scene = scene.restart().await;
    full(scene.publish(2).await);
    scene.engine.until_info(|info| info.lag == 3).await;
    stored(&scene.publish(1).await);
    full(scene.publish(1).await);
}

#[tokio::test]
async fn delayed_events_count_from_when_they_are_taken_and_are_never_refused_when_due() {
    let scene = Scene::with(events(3)).await;
    let later = |due: u64| Some(Due::After(due));
    stored(&scene.publish(1).await);
    let id = stored(&scene.send("orders", batch(2), later(1_000)).await);
    full(scene.publish(1).await);
    full(scene.send("orders", batch(1), later(1_000)).await);
    assert_eq!(scene.backlog().await.events, 3);
    let cancel = Request::CancelScheduled { topic: "orders".parse().unwrap(), id };
    scene.engine.ask(cancel).await;
    stored(&scene.send("orders", batch(1), later(1_000)).await);
    let scene = scene.restart().await;
    full(scene.publish(1).await);
    // Another limit leaves no room at all for what was taken before it.
    scene.set(TopicChanges { backlog_max_events: Some(1), ..TopicChanges::default() }).await.unwrap();
    scene.now.store(NOW + 1_000, Ordering::SeqCst);
    scene.engine.broker.move_due().await.unwrap();
    assert_eq!(scene.topic("orders").await.partitions[0].end, 3);
    full(scene.publish(1).await);
    scene.worker().await.ack(&scene, 3, 0).await;
    stored(&scene.publish(1).await);
}

#[tokio::test]
async fn bytes_of_delayed_events_count_until_they_are_moved_or_cancelled() {
    let len = batch(1).bytes().len() as u64;
    let settings = TopicSettings { backlog_max_bytes: 2 * len, ..TopicSettings::default() };
    let scene = Scene::with(settings).await;
    let later = Some(Due::After(1_000));
    let id = stored(&scene.send("orders", batch(1), later).await);
    stored(&scene.send("orders", batch(1), later).await);
    full(scene.publish(1).await);
    let scene = scene.restart().await;
    full(scene.publish(1).await);
    scene.engine.ask(Request::CancelScheduled { topic: "orders".parse().unwrap(), id }).await;
    stored(&scene.publish(1).await);
    full(scene.publish(1).await);
    assert_eq!(scene.backlog().await.bytes, 2 * len);
    scene.now.store(NOW + 1_000, Ordering::SeqCst);
    scene.engine.broker.move_due().await.unwrap();
    assert_eq!(scene.backlog().await.bytes, 2 * len);
    full(scene.publish(1).await);
    scene.worker().await.ack(&scene, 1, 1).await;
    stored(&scene.publish(1).await);
}

#[tokio::test]
async fn a_batch_larger_than_the_quota_is_taken_when_nothing_else_is_there() {
    let scene = Scene::with(events(3)).await;
    assert_eq!(stored(&scene.publish(5).await), 0);
    full(scene.publish(1).await);
    let mut worker = scene.worker().await;
    worker.ack(&scene, 4, 1).await;
    full(scene.publish(4).await);
    worker.ack(&scene, 1, 0).await;
    stored(&scene.publish(4).await);
}

#[tokio::test]
async fn a_refusal_takes_no_sequence_and_a_repeat_is_acknowledged_while_the_topic_is_full() {
    let scene = Scene::with(events(1)).await;
    let send = async |sequence: u64| {
        let (producer_id, epoch) = (ProducerId(7), Epoch(0));
        let stamp = Stamp { producer_id, epoch, first_sequence: Sequence(sequence) };
        scene.send("orders", stamped(1, stamp), None).await
    };
    assert_eq!(stored(&send(0).await), 0);
    full(send(1).await);
    let repeat = send(0).await;
    assert!(matches!(repeat, AckOutcome::Appended { duplicate: true, .. }), "{repeat:?}");
    scene.worker().await.ack(&scene, 1, 0).await;
    let AckOutcome::Appended { base, duplicate: false, .. } = send(1).await else { panic!("it is stored") };
    assert_eq!(base, Some(Offset(1)));
}

#[tokio::test]
async fn a_quota_can_be_set_changed_and_lifted() {
    let scene = Scene::with(TopicSettings::default()).await;
    scene.publish_each(5).await;
    assert_eq!(scene.topic("orders").await.backlog, None);
    let limit = |max: u64| TopicChanges { backlog_max_events: Some(max), ..TopicChanges::default() };
    scene.set(limit(5)).await.unwrap();
    full(scene.publish(1).await);
    scene.set(limit(6)).await.unwrap();
    stored(&scene.publish(1).await);
    full(scene.publish(1).await);
    scene.set(limit(0)).await.unwrap();
    scene.publish_each(5).await;
    let unknown = TopicChanges { on_full: Some(OnFull::Unknown), ..TopicChanges::default() };
    assert_eq!(scene.set(unknown).await.unwrap_err().code(), ErrorCode::InvalidArgument);
}

fn dropping(max: u64) -> TopicSettings {
    TopicSettings { on_full: OnFull::DropOldest, ..events(max) }
}

#[tokio::test]
async fn where_the_oldest_are_dropped_subscriptions_are_told_what_they_lost() {
    let scene = Scene::with(dropping(3)).await;
    let mut consumer = scene.engine.subscribe(SubscriptionOptions::default()).await;
    for number in 0..5 {
        assert_eq!(stored(&scene.publish(1).await), number);
        let lost = (number + 1).saturating_sub(3);
        scene.engine.until_info(|info| (info.lag, info.events_lost) == (number + 1 - lost, lost)).await;
    }
    for lost in 0..2 {
        match timeout(SOON, consumer.notices.recv()).await.unwrap().unwrap().into_parts().0 {
            Notice::EventsLost { first, last, .. } => assert_eq!((first, last), (lost, lost)),
            other => panic!("{other:?}"),
        }
    }
    let partition = scene.topic("orders").await.partitions[0];
    assert_eq!((partition.start, partition.end), (2, 5));
    assert_eq!(scene.engine.info().await.events_lost, 2);
    assert_eq!((scene.backlog().await.events, scene.backlog().await.dropped), (3, 2));
    let scene = scene.restart().await;
    let partition = scene.topic("orders").await.partitions[0];
    assert_eq!((partition.start, partition.end), (2, 5));
    stored(&scene.publish(1).await);
    assert_eq!(scene.topic("orders").await.partitions[0].start, 3);
}

#[tokio::test]
async fn nothing_is_dropped_where_what_waits_fills_the_topic_alone() {
    let scene = Scene::with(dropping(3)).await;
    let later = Some(Due::After(1_000));
    stored(&scene.publish(1).await);
    stored(&scene.send("orders", batch(2), later).await);
    // Its oldest event makes room for this one, and then there is none left to drop.
    stored(&scene.send("orders", batch(1), later).await);
    full(scene.publish(1).await);
    full(scene.send("orders", batch(1), later).await);
    let backlog = scene.backlog().await;
    assert_eq!((backlog.events, backlog.dropped, backlog.refused), (3, 1, 2));
    scene.now.store(NOW + 1_000, Ordering::SeqCst);
    scene.engine.broker.move_due().await.unwrap();
    // They came into the log in one commit, as one record, and go as one.
    stored(&scene.publish(1).await);
    assert_eq!((scene.backlog().await.events, scene.backlog().await.dropped), (1, 4));
}

#[tokio::test]
async fn the_oldest_are_dropped_of_the_commit_that_is_being_made_too() {
    let scene = Scene::with(dropping(3)).await;
    let topic = "orders".parse().unwrap();
    let mut stream = scene.engine.broker.open_publish(&Principal::Local, &topic).unwrap();
    scene.engine.store.hold(true);
    stored_later(&mut stream, 20).await;
    scene.engine.store.hold(false);
    for number in 0..20 {
        let ack = timeout(SOON, stream.acks.recv()).await.unwrap().unwrap();
        assert_eq!(stored(&ack.outcome), number);
    }
    let partition = scene.topic("orders").await.partitions[0];
    assert_eq!(partition.end, 20);
    assert!((17..20).contains(&partition.start), "{partition:?}");
    let scene = scene.restart().await;
    assert_eq!(scene.topic("orders").await.partitions[0], partition);
    let mut worker = scene.worker().await;
    worker.ack(&scene, 20 - partition.start, 0).await;
}

/// Submits so many batches of one event.
async fn stored_later(stream: &mut levada_broker::PublishStream, count: u32) {
    for correlation in 0..count {
        let (partition, durability) = (PartitionId(0), None);
        let header = PublishHeader { correlation, partition, durability, expect_offset: None, due: None };
        stream.submitter().submit(header, batch(1)).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_too_old_is_dropped_and_a_lowered_limit_is_reached_step_by_step() {
    let settings =
        TopicSettings { backlog_max_age_ms: 1_000, on_full: OnFull::DropOldest, ..TopicSettings::default() };
    let scene = Scene::with(settings).await;
    scene.publish_each(3).await;
    scene.now.store(NOW + 1_001, Ordering::SeqCst);
    stored(&scene.publish(1).await);
    let partition = scene.topic("orders").await.partitions[0];
    assert_eq!((partition.start, partition.end), (3, 4));
    scene.set(TopicChanges { backlog_max_age_ms: Some(0), ..TopicChanges::default() }).await.unwrap();
    scene.publish_each(150).await;
    let on_full = Some(OnFull::DropOldest);
    let limit = TopicChanges { backlog_max_events: Some(2), on_full, ..TopicChanges::default() };
    scene.set(limit).await.unwrap();
    let mut starts = Vec::new();
    for _ in 0..4 {
        stored(&scene.publish(1).await);
        starts.push(scene.topic("orders").await.partitions[0].start);
    }
    assert_eq!(starts, [67, 131, 155, 156]);
}

#[tokio::test]
async fn a_route_whose_target_is_full_stops_and_goes_on_without_loss_or_repeats() {
    let scene = Scene::new();
    scene.engine.topic("placed", events(4)).await;
    scene.engine.topic("orders", events(2)).await;
    scene.create("payment", Start::Earliest).await;
    let spec =
        RouteSpec::new("copy".parse().unwrap(), "placed".parse().unwrap(), ["orders".parse().unwrap()]);
    scene.engine.ask(Request::CreateRoute(spec)).await;
    let state = async || match scene.engine.ask(Request::ListRoutes { limit: 0, after: None }).await {
        Response::Routes { routes, .. } => (routes[0].state.clone(), routes[0].lag),
        other => panic!("{other:?}"),
    };
    for number in 0..2 {
        stored(&scene.send("placed", batch(1), None).await);
        scene.engine.until_info(|info| info.lag == number + 1).await;
    }
    stored(&scene.send("placed", batch(1), None).await);
    let blocked = RunState::Blocked { target: Some("orders".parse().unwrap()), code: ErrorCode::BacklogFull };
    let waiting = async {
        while state().await.0 != blocked {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, waiting).await.unwrap();
    assert_eq!(state().await.1, 1);
    // Pressure ends at the publishers of the source, whose backlog the route is.
    for _ in 0..3 {
        stored(&scene.send("placed", batch(1), None).await);
    }
    let refusal = full(scene.send("placed", batch(1), None).await);
    assert!(refusal.message.contains("route copy"), "{refusal}");
    let mut worker = scene.worker().await;
    let acking = async {
        let mut acked = 0;
        while acked < 6 {
            worker.consumer.control.credit(Credit { events: 1, bytes: 1 << 20 }).await.unwrap();
            let (token, offsets) = delivery(&mut worker.consumer).await;
            assert_eq!(offsets, [acked], "each once, in order");
            scene.engine.ack(&worker.consumer, acked + 1, token, acked..=acked).await;
            acked += 1;
        }
    };
    timeout(SOON, acking).await.unwrap();
    scene.engine.until_info(|info| info.lag == 0).await;
    assert_eq!(scene.topic("orders").await.partitions[0].end, 6);
    assert_eq!(state().await, (RunState::Running, 0));
}

#[tokio::test]
async fn dead_letter_topics_take_no_quota_and_a_redrive_stops_where_its_target_is_full() {
    let scene = Scene::with(TopicSettings::default()).await;
    scene.publish_each(2).await;
    let mut consumer = scene.engine.subscribe(SubscriptionOptions::default()).await;
    consumer.control.credit(PLENTY).await.unwrap();
    let mut rejected = 0;
    while rejected < 2 {
        let (token, offsets) = delivery(&mut consumer).await;
        let (first, last) = (Offset(offsets[0]), Offset(*offsets.last().unwrap()));
        let kind = VerbKind::reject("no");
        let verb = Verb { kind, partition: PartitionId(0), token, first, last };
        consumer.control.verbs(Verbs { sequence: rejected + 1, verbs: vec![verb] }).await.unwrap();
        rejected += offsets.len() as u64;
    }
    scene.engine.until_info(|info| info.dead_lettered == 2).await;
    let dead = "dlq.orders.payment";
    let settings = TopicChanges { backlog_max_events: Some(1), ..TopicChanges::default() };
    let request = Request::SetTopic { name: dead.parse().unwrap(), settings };
    let error = scene.engine.broker.request(&Principal::Local, request, None).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidArgument);
    assert!(error.to_string().contains("dead-letter topic"), "{error}");

    scene.engine.topic("repaired", events(1)).await;
    scene.create_of("repaired", "all", Start::Earliest).await;
    stored(&scene.send("repaired", batch(1), None).await);
    let redrive = || {
        Request::Redrive(Redrive {
            topic: dead.parse().unwrap(),
            to: Some("repaired".parse().unwrap()),
            select: DeadLetterSelection::All,
            from: 0,
            until: None,
            force: false,
        })
    };
    let error = scene.engine.broker.request(&Principal::Local, redrive(), None).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::BacklogFull);
    assert_eq!(scene.topic("repaired").await.partitions[0].end, 1);
    // The step can be repeated once there is room.
    let lift = TopicChanges { backlog_max_events: Some(0), ..TopicChanges::default() };
    scene.engine.ask(Request::SetTopic { name: "repaired".parse().unwrap(), settings: lift }).await;
    let Response::Redriven(step) = scene.engine.ask(redrive()).await else { panic!("a redrive") };
    assert!(step.outcomes.iter().all(|it| matches!(it, RedriveOutcome::Redriven(_))), "{:?}", step.outcomes);
}

#[tokio::test]
async fn a_quota_has_its_figures_and_a_topic_without_one_has_none() {
    let scene = Scene::with(events(2)).await;
    scene.engine.topic("plain", TopicSettings::default()).await;
    scene.publish_each(2).await;
    full(scene.publish(1).await);
    let series = scene.engine.broker.observe().await;
    let samples = |name: &str| -> Vec<(String, f64)> {
        let found = series.iter().find(|series| series.name == name).unwrap();
        found.samples.iter().map(|sample| (sample.labels[0].1.clone(), sample.value)).collect()
    };
    assert_eq!(samples("levada_backlog_events"), [("orders".to_owned(), 2.0)]);
    assert_eq!(samples("levada_backlog_refused_events_total"), [("orders".to_owned(), 1.0)]);
    assert_eq!(samples("levada_backlog_dropped_events_total"), [("orders".to_owned(), 0.0)]);
    assert!(samples("levada_backlog_bytes")[0].1 > 0.0);
}
