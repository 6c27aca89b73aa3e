//! Subscriptions that nobody consumes: since when, the alarm after a day, and those that expire.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use levada_broker::{BrokerConfig, Clock, Consumer, Principal};
use levada_protocol::{
    error::ErrorCode,
    ids::{Offset, PartitionId, Timestamp},
    request::{
        AckedDelivery, Alarm, Request, Start, SubscriptionInfo, SubscriptionOptions, TopicSettings,
        TransactionAcks,
    },
    verbs::{Verb, VerbKind, Verbs},
};
use levada_store::{Family, Store as _};
use tokio::time::timeout;

use crate::{
    support::{Engine, PLENTY, SOON, delivery, poll_once, until},
    transactions::paying,
};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// 2026-01-01T00:00:00Z.
const NOW: u64 = 1_767_225_600_000;

/// An engine whose clock says what it is told, with the topic `orders` and its subscription `payment`, made without a consumer.
struct Scene {
    engine: Engine,
    now: Arc<AtomicU64>,
}

fn expiring(after_ms: u64) -> SubscriptionOptions {
    SubscriptionOptions { expire_after_ms: Some(after_ms), ..SubscriptionOptions::default() }
}

/// The clock is the test's, and subscriptions may expire from `after_start` on.
fn configured(now: &Arc<AtomicU64>, after_start: Duration) -> impl FnOnce(&mut BrokerConfig) {
    let now = Arc::clone(now);
    move |config| {
        config.clock = Clock::of(move || Timestamp(now.load(Ordering::SeqCst)));
        config.expire_after_start = after_start;
    }
}

impl Scene {
    async fn with(options: SubscriptionOptions) -> Self {
        let now = Arc::new(AtomicU64::new(NOW));
        let engine = Engine::with(configured(&now, Duration::ZERO));
        engine.topic("orders", TopicSettings::default()).await;
        let (topic, name) = ("orders".parse().unwrap(), "payment".parse().unwrap());
        engine.ask(Request::CreateSubscription { topic, name, options, from: Start::Earliest }).await;
        Self { engine, now }
    }

    /// The same store after a crash.
    async fn restart(self, after_start: Duration) -> Self {
        let Self { engine, now } = self;
        Self { engine: engine.restart_with(configured(&now, after_start)).await, now }
    }

    fn set(&self, now: u64) {
        self.now.store(now, Ordering::SeqCst);
    }

    async fn change(&self, options: SubscriptionOptions) {
        let (topic, name) = ("orders".parse().unwrap(), "payment".parse().unwrap());
        self.engine.ask(Request::SetSubscription { topic, name, options }).await;
    }

    async fn attach(&self) -> Consumer {
        let wanted = Engine::wanted(None);
        timeout(SOON, self.engine.broker.subscribe(&Principal::Local, wanted)).await.unwrap().unwrap()
    }

    /// The consumer leaves; returns once its subscription's owner knows.
    async fn leave(&self, consumer: Consumer) {
        drop(consumer);
        self.engine.until_info(|info| info.consumers.is_empty()).await;
    }

    /// Waits until it is stored that there is no consumer since then.
    async fn stored(&self, since: u64) {
        self.engine.attendance_is_stored().await;
        assert_eq!(self.since().await, Some(since));
    }

    async fn since(&self) -> Option<u64> {
        self.engine.info().await.unattended_since_ms
    }

    /// Whether the subscription is there after a round at a time.
    async fn is_there_at(&self, now: u64) -> bool {
        self.set(now);
        self.engine.broker.expire_subscriptions().await.unwrap();
        self.is_there().await
    }

    async fn is_there(&self) -> bool {
        let (topic, name) = ("orders".parse().unwrap(), "payment".parse().unwrap());
        let describe = Request::DescribeSubscription { topic, name };
        match self.engine.broker.request(&Principal::Local, describe, None).await {
            Ok(_) => true,
            Err(error) if error.code() == ErrorCode::SubscriptionNotFound => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// The values of a metric, each with its last label.
    async fn metric(&self, name: &str) -> Vec<(Option<String>, f64)> {
        let series = self.engine.broker.observe().await.into_iter().filter(|series| series.name == name);
        let samples = series.flat_map(|series| series.samples);
        samples.map(|mut it| (it.labels.pop().map(|(_, value)| value), it.value)).collect()
    }
}

#[tokio::test]
async fn a_subscription_whose_owner_ended_by_itself_gets_another_one_and_expires_as_others_do() {
    let scene = Scene::with(expiring(HOUR)).await;
    let engine = &scene.engine;
    engine.topic("payments", TopicSettings::default()).await;
    engine.publish("orders", 1).await;
    let mut consumer = scene.attach().await;
    consumer.control.credit(PLENTY).await.unwrap();
    let (token, _) = delivery(&mut consumer.outgoing).await;
    let (topic, subscription) = ("orders".parse().unwrap(), "payment".parse().unwrap());
    let acked = AckedDelivery { token: token.0, partition: 0, first: 0, last: 0, events: 1 };
    let acks = TransactionAcks { topic, subscription, deliveries: vec![acked] };
    let (transact, batches) = paying("a", acks);
    let left = NOW + 1_000;
    scene.set(left);
    engine.store.fill_at_transaction.store(true, Ordering::Release);
    let outcome = engine.broker.transact(&Principal::Local, transact, batches).await.unwrap_err();
    assert_eq!(outcome.code(), ErrorCode::OutcomeUnknown);
    let ended = async { while consumer.outgoing.recv().await.is_some_and(|next| next.is_ok()) {} };
    timeout(SOON, ended).await.expect("its owner has ended");
    drop(consumer);
    engine.store.inner.set_full(false);
    // The one that has ended shows the last that it knew; what is stored then is another one's.
    engine.until_info(|info| info.consumers.is_empty()).await;
    scene.stored(left).await;
    assert!(scene.is_there_at(left + HOUR - 1).await);
    assert!(!scene.is_there_at(left + HOUR).await);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn it_counts_from_the_creation_or_the_last_consumer_that_left_and_not_while_one_is_attached() {
    let scene = Scene::with(SubscriptionOptions::default()).await;
    let key = [&[4][..], &scene.engine.info().await.id.to_be_bytes()].concat();
    let stored = scene.engine.store.get(Family::Cursors, &key).unwrap();
    assert!(stored.is_some(), "it is stored with the subscription");
    scene.set(NOW + HOUR);
    let info = scene.engine.info().await;
    assert_eq!((info.unattended_since_ms, info.unattended_for_ms), (Some(NOW), Some(HOUR)));
    assert_eq!(scene.metric("levada_subscription_unattended_seconds").await[0].1, 3_600.0);
    // One that asks for nothing is attached all the same.
    let first = scene.attach().await;
    scene.set(NOW + 2 * HOUR);
    let info = scene.engine.info().await;
    assert_eq!((info.unattended_since_ms, info.unattended_for_ms), (None, None));
    assert!(scene.metric("levada_subscription_unattended_seconds").await.is_empty());
    let second = scene.attach().await;
    drop(first);
    scene.engine.until_info(|info| info.consumers.len() == 1).await;
    assert_eq!(scene.since().await, None, "one is left");
    scene.set(NOW + 3 * HOUR);
    scene.leave(second).await;
    scene.set(NOW + 4 * HOUR);
    let info = scene.engine.info().await;
    assert_eq!((info.unattended_since_ms, info.unattended_for_ms), (Some(NOW + 3 * HOUR), Some(HOUR)));
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_day_without_a_consumer_is_an_alarm_until_one_attaches_and_not_earlier() {
    let scene = Scene::with(SubscriptionOptions::default()).await;
    let alarm = async || scene.metric("levada_subscription_alarm").await;
    assert!(scene.is_there_at(NOW + DAY - 1).await);
    assert_eq!((scene.engine.info().await.alarms, alarm().await), (Vec::new(), Vec::new()));
    assert!(scene.is_there_at(NOW + DAY).await);
    let expected = vec![(Some("unattended".to_owned()), 1.0)];
    assert_eq!((scene.engine.info().await.alarms, alarm().await), (vec![Alarm::Unattended], expected));
    assert!(scene.is_there_at(NOW + 400 * DAY).await, "it has no time after which it expires");
    let consumer = scene.attach().await;
    assert_eq!((scene.engine.info().await.alarms, alarm().await), (Vec::new(), Vec::new()));
    scene.leave(consumer).await;
    assert_eq!(scene.engine.info().await.alarms, []);
    scene.engine.broker.shutdown().await;
}

/// Has the first event of the subscription become a dead letter.
async fn reject_one(scene: &Scene) {
    scene.engine.publish("orders", 2).await;
    let mut consumer = scene.attach().await;
    consumer.control.credit(PLENTY).await.unwrap();
    let (token, _) = delivery(&mut consumer.outgoing).await;
    let (first, last) = (Offset(0), Offset(0));
    let verb = Verb { kind: VerbKind::reject("wrong"), partition: PartitionId(0), token, first, last };
    consumer.control.verbs(Verbs { sequence: 1, verbs: vec![verb] }).await.unwrap();
    timeout(SOON, consumer.outgoing.recv()).await.unwrap().unwrap().unwrap();
    scene.leave(consumer).await;
}

#[tokio::test]
async fn it_expires_when_the_time_of_day_says_so_and_its_dead_letters_stay() {
    let scene = Scene::with(expiring(7 * DAY)).await;
    reject_one(&scene).await;
    scene.stored(NOW).await;
    assert!(scene.is_there_at(NOW + HOUR).await, "the clock was set an hour forward");
    assert!(scene.is_there_at(NOW - HOUR).await, "and back");
    assert!(scene.is_there_at(NOW + 7 * DAY - 1).await);
    assert_eq!(scene.metric("levada_expired_subscriptions_total").await, [(None, 0.0)]);
    assert!(!scene.is_there_at(NOW + 7 * DAY).await);
    assert_eq!(scene.metric("levada_expired_subscriptions_total").await, [(None, 1.0)]);
    assert_eq!(scene.engine.partition("dlq.orders.payment").await.end, 1);
    let scene = scene.restart(Duration::ZERO).await;
    assert!(!scene.is_there().await);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn with_a_consumer_it_never_expires() {
    let scene = Scene::with(expiring(MINUTE)).await;
    let mut consumer = scene.attach().await;
    assert!(scene.is_there_at(NOW + 365 * DAY).await);
    scene.engine.publish("orders", 1).await;
    consumer.control.credit(PLENTY).await.unwrap();
    assert_eq!(delivery(&mut consumer.outgoing).await.1, [0]);
    scene.leave(consumer).await;
    scene.stored(NOW + 365 * DAY).await;
    assert!(scene.is_there_at(NOW + 365 * DAY + MINUTE - 1).await, "it counts from when that left");
    assert!(!scene.is_there_at(NOW + 365 * DAY + MINUTE).await);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_time_after_which_it_expires_is_set_and_unset_while_it_counts() {
    let scene = Scene::with(expiring(DAY)).await;
    scene.change(expiring(0)).await;
    assert!(scene.is_there_at(NOW + 30 * DAY).await);
    let options = SubscriptionOptions { rate: Some(5), ..SubscriptionOptions::default() };
    scene.change(options).await;
    assert!(scene.is_there_at(NOW + 30 * DAY).await, "another option leaves it as it is");
    scene.change(expiring(31 * DAY)).await;
    assert!(scene.is_there_at(NOW + 31 * DAY - 1).await);
    scene.change(expiring(30 * DAY)).await;
    assert!(!scene.is_there_at(NOW + 31 * DAY - 1).await, "the time that has passed counts");
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn after_a_crash_it_goes_on_counting() {
    let scene = Scene::with(expiring(7 * DAY)).await;
    let consumer = scene.attach().await;
    scene.set(NOW + HOUR);
    scene.leave(consumer).await;
    scene.stored(NOW + HOUR).await;
    scene.set(NOW + 2 * DAY);
    let scene = scene.restart(Duration::ZERO).await;
    let info = scene.engine.info().await;
    assert_eq!((info.unattended_since_ms, info.alarms), (Some(NOW + HOUR), vec![Alarm::Unattended]));
    assert!(scene.is_there_at(NOW + HOUR + 7 * DAY - 1).await);
    assert!(!scene.is_there_at(NOW + HOUR + 7 * DAY).await);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn one_that_had_consumers_when_the_engine_died_counts_from_the_start_after_that() {
    let scene = Scene::with(expiring(7 * DAY)).await;
    let (consumer, other) = (scene.attach().await, scene.attach().await);
    scene.engine.attendance_is_stored().await;
    drop(other);
    scene.engine.until_info(|info| info.consumers.len() == 1).await;
    // What an owner wants stored rides with a commit such as this.
    scene.engine.topic("other", TopicSettings::default()).await;
    scene.set(NOW + 30 * DAY);
    let scene = scene.restart(Duration::ZERO).await;
    drop(consumer);
    assert_eq!(scene.since().await, Some(NOW + 30 * DAY));
    scene.stored(NOW + 30 * DAY).await;
    // Nor does it count from a later start.
    scene.set(NOW + 31 * DAY);
    let scene = scene.restart(Duration::ZERO).await;
    assert_eq!(scene.since().await, Some(NOW + 30 * DAY));
    assert!(scene.is_there_at(NOW + 37 * DAY - 1).await);
    assert!(!scene.is_there_at(NOW + 37 * DAY).await);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn one_whose_consumers_the_engine_sent_away_counts_from_its_next_start() {
    let scene = Scene::with(expiring(7 * DAY)).await;
    let mut consumer = scene.attach().await;
    consumer.control.finish().await.unwrap();
    let end = timeout(SOON, consumer.outgoing.recv()).await.unwrap().unwrap();
    assert_eq!(end.unwrap_err().code(), ErrorCode::ShuttingDown);
    scene.leave(consumer).await;
    assert_eq!(scene.since().await, None, "nothing is said of that");
    scene.set(NOW + 30 * DAY);
    let scene = scene.restart(Duration::ZERO).await;
    assert_eq!(scene.since().await, Some(NOW + 30 * DAY));
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn nothing_expires_right_after_a_start() {
    let scene = Scene::with(expiring(MINUTE)).await.restart(Duration::from_secs(3_600)).await;
    assert!(scene.is_there_at(NOW + 30 * DAY).await);
    let scene = scene.restart(Duration::ZERO).await;
    assert!(!scene.is_there_at(NOW + 30 * DAY).await);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn one_that_is_moved_counts_on() {
    let scene = Scene::with(expiring(DAY)).await;
    scene.engine.publish("orders", 3).await;
    scene.set(NOW + HOUR);
    let (topic, name) = ("orders".parse().unwrap(), "payment".parse().unwrap());
    scene
        .engine
        .ask(Request::SeekSubscription { topic, name, to: Start::Latest, partitions: Vec::new() })
        .await;
    assert_eq!(scene.since().await, Some(NOW));
    assert!(!scene.is_there_at(NOW + DAY).await);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn when_the_last_consumer_left_is_stored_once_a_full_disk_has_room() {
    let scene = Scene::with(SubscriptionOptions::default()).await;
    let consumer = scene.attach().await;
    scene.engine.store.inner.set_full(true);
    scene.set(NOW + HOUR);
    scene.leave(consumer).await;
    until(|| !scene.engine.broker.health().ready).await;
    assert_eq!(scene.since().await, Some(NOW + HOUR));
    scene.engine.store.inner.set_full(false);
    until(|| scene.engine.broker.health().ready).await;
    scene.stored(NOW + HOUR).await;
    let scene = scene.restart(Duration::ZERO).await;
    assert_eq!(scene.since().await, Some(NOW + HOUR));
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_consumer_that_attaches_just_before_keeps_it() {
    let scene = Scene::with(expiring(DAY)).await;
    scene.engine.publish("orders", 1).await;
    scene.set(NOW + DAY);
    let mut attaching = Box::pin(scene.engine.broker.subscribe(&Principal::Local, Engine::wanted(None)));
    // It is about to be attached: the owner does not know of it yet.
    assert!(!poll_once(&mut attaching).await);
    assert_eq!(scene.since().await, Some(NOW));
    scene.engine.broker.expire_subscriptions().await.unwrap();
    let mut consumer = timeout(SOON, attaching).await.unwrap().unwrap();
    consumer.control.credit(PLENTY).await.unwrap();
    assert_eq!(delivery(&mut consumer.outgoing).await.1, [0]);
    assert!(scene.is_there().await);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_consumer_that_attaches_while_it_is_deleted_is_told_that_it_does_not_exist() {
    let scene = Scene::with(expiring(DAY)).await;
    scene.set(NOW + DAY);
    scene.engine.store.hold(true);
    let mut expiring = Box::pin(scene.engine.broker.expire_subscriptions());
    tokio::select! {
        ended = &mut expiring => panic!("it is not durable yet: {ended:?}"),
        () = scene.engine.store.entered.notified() => {}
    }
    let mut attaching = Box::pin(scene.engine.broker.subscribe(&Principal::Local, Engine::wanted(None)));
    for _ in 0..10 {
        assert!(!poll_once(&mut attaching).await, "it waits");
        tokio::task::yield_now().await;
    }
    scene.engine.store.hold(false);
    timeout(SOON, expiring).await.unwrap().unwrap();
    let refused = timeout(SOON, attaching).await.unwrap().unwrap_err();
    assert_eq!(refused.code(), ErrorCode::SubscriptionNotFound);
    assert!(!scene.is_there().await);
    // One that says what it wants makes it anew.
    let consumer = scene.engine.subscribe(SubscriptionOptions::default()).await;
    assert!(consumer.subscribed.created);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_consumer_that_attaches_while_a_full_disk_refuses_the_deletion_is_attached() {
    let scene = Scene::with(expiring(DAY)).await;
    scene.engine.publish("orders", 1).await;
    scene.set(NOW + DAY);
    scene.engine.store.inner.set_full(true);
    let attaching = scene.engine.broker.subscribe(&Principal::Local, Engine::wanted(None));
    let (expired, attached) =
        timeout(SOON, async { tokio::join!(scene.engine.broker.expire_subscriptions(), attaching) })
            .await
            .unwrap();
    assert_eq!(expired.unwrap_err().code(), ErrorCode::StorageFull);
    let mut consumer = attached.unwrap();
    consumer.control.credit(PLENTY).await.unwrap();
    assert_eq!(delivery(&mut consumer.outgoing).await.1, [0]);
    scene.engine.store.inner.set_full(false);
    until(|| scene.engine.broker.health().ready).await;
    assert!(scene.is_there_at(NOW + 30 * DAY).await);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn times_outside_the_range_are_refused_at_creation_and_change_and_those_at_its_ends_are_taken() {
    let scene = Scene::with(SubscriptionOptions::default()).await;
    let (topic, name) = (|| "orders".parse().unwrap(), |name: &str| name.parse().unwrap());
    for after_ms in [1, MINUTE - 1, 365 * DAY + 1, u64::MAX] {
        let options = expiring(after_ms);
        let set =
            Request::SetSubscription { topic: topic(), name: name("payment"), options: options.clone() };
        let from = Start::Earliest;
        let create = Request::CreateSubscription { topic: topic(), name: name("other"), options, from };
        for request in [set, create] {
            let error = scene.engine.broker.request(&Principal::Local, request, None).await.unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidArgument);
            let expected = format!(
                "expire_after_ms is {after_ms}, expected 60000 (a minute) to 31536000000 (365 days), or 0 for never"
            );
            assert!(error.to_string().contains(&expected), "{error}");
        }
    }
    let taken = async |after_ms| -> SubscriptionInfo {
        scene.change(expiring(after_ms)).await;
        scene.engine.info().await
    };
    for after_ms in [MINUTE, 365 * DAY, 0] {
        assert_eq!(taken(after_ms).await.options.expire_after_ms, Some(after_ms));
    }
    scene.engine.broker.shutdown().await;
}
