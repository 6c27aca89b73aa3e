//! A clock that ran ahead and was set right: what was stored meanwhile does not count as of the future for long.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use levada_broker::{Broker, Clock, Principal};
use levada_protocol::{
    error::ErrorCode,
    ids::Timestamp,
    request::{Read, Request, Retain, Start, SubscriptionOptions, TopicSettings},
};
use levada_store::Store;

use crate::support::Engine;

const MINUTE: u64 = 60_000;
const DAY: u64 = 24 * 60 * MINUTE;
/// 2026-01-01T00:00:00Z.
const NOW: u64 = 1_767_225_600_000;

/// An engine whose clock says what it is told.
struct Scene {
    engine: Engine,
    now: Arc<AtomicU64>,
}

impl Scene {
    async fn at(now: u64) -> Self {
        let now = Arc::new(AtomicU64::new(now));
        let says = Arc::clone(&now);
        let clock = Clock::of(move || Timestamp(says.load(Ordering::SeqCst)));
        let engine = Engine::with(|config| config.clock = clock);
        let retain_for_ms = 2_000;
        let settings =
            TopicSettings { retain: Retain::TimeAndSize, retain_for_ms, ..TopicSettings::default() };
        engine.topic("orders", settings).await;
        Self { engine, now }
    }

    fn set(&self, now: u64) {
        self.now.store(now, Ordering::SeqCst);
    }

    async fn publish(&self, count: usize) {
        self.engine.publish("orders", count).await;
    }

    /// The offset at which reading from a time begins.
    async fn from(&self, time: u64) -> u64 {
        let read = Read { from: Start::Time(time), ..Read::new("orders".parse().unwrap()) };
        let reader = self.engine.broker.read(&Principal::Local, read).await.unwrap();
        reader.positions[0].offset
    }

    /// Where the log begins after a retention round at a time.
    async fn trimmed(&self, time: u64) -> u64 {
        self.set(time);
        self.engine.broker.run_retention_at(Timestamp(time)).await.unwrap();
        self.engine.partition("orders").await.start
    }
}

#[tokio::test]
async fn reading_from_tomorrow_finds_nothing_that_was_stored_before_the_clock_was_set_right() {
    let scene = Scene::at(NOW + 30 * DAY).await;
    scene.publish(3).await;
    scene.set(NOW);
    scene.publish(3).await;
    assert_eq!(scene.from(NOW + MINUTE).await, 6, "neither what was stored then nor what is stored now");
    assert_eq!(scene.from(NOW - DAY).await, 0);
    scene.set(NOW + MINUTE);
    scene.publish(2).await;
    assert_eq!(scene.from(NOW + 1).await, 6, "times go on from there");
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn retention_goes_on_when_the_clock_was_set_right_whether_or_not_more_is_stored() {
    let scene = Scene::at(NOW + 30 * DAY).await;
    scene.publish(3).await;
    assert_eq!(scene.trimmed(NOW).await, 0, "they count as appended at this moment");
    assert_eq!(scene.from(NOW + MINUTE).await, 3);
    assert_eq!(scene.trimmed(NOW + 2_001).await, 3);
    scene.publish(3).await;
    assert_eq!(scene.trimmed(NOW + 5_000).await, 6, "and so it does for what came later");
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_restart_with_the_right_clock_sees_that_it_ran_ahead() {
    let scene = Scene::at(NOW + 30 * DAY).await;
    scene.publish(3).await;
    scene.engine.broker.shutdown().await;
    scene.engine.store.inner.crash();
    scene.set(NOW);
    let Scene { engine, now } = scene;
    let broker = Broker::start(
        levada_broker::BrokerConfig {
            disk_reserve_bytes: 0,
            clock: Clock::of({
                let now = Arc::clone(&now);
                move || Timestamp(now.load(Ordering::SeqCst))
            }),
            ..levada_broker::BrokerConfig::new(engine.dir.path())
        },
        Arc::clone(&engine.store) as Arc<dyn Store>,
        Arc::clone(&engine.plugins) as _,
    )
    .unwrap();
    let scene = Scene { engine: Engine { broker, ..engine }, now };
    scene.publish(1).await;
    assert_eq!(scene.from(NOW + MINUTE).await, 4);
    assert_eq!(scene.trimmed(NOW + 3_000).await, 4);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_clock_that_goes_back_a_little_stands_still_for_appends() {
    let scene = Scene::at(NOW + MINUTE).await;
    scene.publish(1).await;
    scene.set(NOW);
    scene.publish(1).await;
    assert_eq!(scene.from(NOW + MINUTE).await, 0, "the second counts as of the first one's time");
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_time_that_has_not_come_is_no_start_and_one_after_the_last_event_is_the_end() {
    let scene = Scene::at(NOW).await;
    let later = |time| Read { from: Start::Time(time), ..Read::new("orders".parse().unwrap()) };
    let refused = async |time| {
        let error = scene.engine.broker.read(&Principal::Local, later(time)).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::OffsetOutOfRange);
        error.to_string()
    };
    assert!(refused(NOW + DAY).await.contains("topic orders holds no event"));
    scene.publish(3).await;
    scene.set(NOW + DAY);
    assert_eq!(scene.from(NOW + 1).await, 3);
    let said = refused(NOW + 2 * DAY).await;
    let expected = "got 2026-01-03T00:00:00Z: the engine's clock says 2026-01-02T00:00:00Z, the newest event of topic \
                    orders is of 2026-01-01T00:00:00Z; `latest` begins with what comes from now on";
    assert!(said.contains(expected), "{said}");
    let (topic, name) = ("orders".parse().unwrap(), "s".parse().unwrap());
    let create = Request::CreateSubscription {
        topic,
        name,
        options: SubscriptionOptions::default(),
        from: Start::Time(NOW + 2 * DAY),
    };
    let created = scene.engine.broker.request(&Principal::Local, create, None).await;
    assert_eq!(created.unwrap_err().code(), ErrorCode::OffsetOutOfRange);
    scene.engine.broker.shutdown().await;
}
