//! Times to live: what has outlived its own is delivered to nobody, and is told of.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use levada_broker::{Broker, BrokerConfig, Clock, Consumer, Content, Delivery, Principal};
use levada_protocol::{
    batch::{BatchBuilder, Stamp},
    event::Event,
    ids::{Offset, PartitionId, Timestamp},
    publish::{AckOutcome, PublishHeader},
    request::{
        Order, Request, Response, RouteInfo, RouteSpec, StageSpec, SubscriptionOptions, TopicSettings,
    },
    schedule::Due,
    verbs::{Credit, Verb, VerbKind, Verbs},
};
use tokio::time::timeout;

use crate::support::{Engine, PLENTY, SOON};

const NOW: u64 = 1_767_225_600_000;

/// An engine whose clock says what it is told, with a topic.
struct Scene {
    engine: Engine,
    now: Arc<AtomicU64>,
}

/// An event of a reader: offset, payload, what is left of its time, and why it is a dead letter.
type Seen = (u64, String, Option<u32>, Option<String>);

fn clock(now: &Arc<AtomicU64>) -> Clock {
    let now = Arc::clone(now);
    Clock::of(move || Timestamp(now.load(Ordering::SeqCst)))
}

fn expired(dead_letter_expired: bool) -> SubscriptionOptions {
    SubscriptionOptions {
        order: Some(Order::None),
        backoff_ms: Some(Vec::new()),
        dead_letter_expired: Some(dead_letter_expired),
        ..SubscriptionOptions::default()
    }
}

impl Scene {
    async fn new() -> Self {
        let now = Arc::new(AtomicU64::new(NOW));
        let clock = clock(&now);
        let engine = Engine::with(|config| config.clock = clock);
        engine.topic("orders", TopicSettings::default()).await;
        Self { engine, now }
    }

    /// After a crash.
    async fn restart(self) -> Self {
        let Self { engine, now } = self;
        // What was answered and is not durable is gone; what is committed from here on is nobody's.
        engine.store.inner.crash();
        engine.broker.shutdown().await;
        engine.store.inner.crash();
        let clock = clock(&now);
        let config = BrokerConfig { disk_reserve_bytes: 0, clock, ..BrokerConfig::new(engine.dir.path()) };
        let (store, plugins) = (Arc::clone(&engine.store), Arc::clone(&engine.plugins));
        let broker = Broker::start(config, store as _, plugins as _).unwrap();
        Self { engine: Engine { broker, ..engine }, now }
    }

    /// Lets it be so many milliseconds after the start.
    fn at(&self, after: u64) {
        self.now.store(NOW + after, Ordering::SeqCst);
    }

    /// Publishes events of these payloads and times to live as one batch, of one key.
    async fn publish(&self, due: Option<Due>, events: &[(&str, Option<u32>)]) {
        let of = |(payload, ttl_ms): &(&str, Option<u32>)| Event {
            ttl_ms: *ttl_ms,
            ..Event::new((*payload).to_owned()).with_key("k")
        };
        self.publish_events(due, &events.iter().map(of).collect::<Vec<_>>()).await;
    }

    async fn publish_events(&self, due: Option<Due>, events: &[Event]) {
        let mut builder = BatchBuilder::new();
        events.iter().for_each(|event| builder.push(event).unwrap());
        let header = PublishHeader {
            correlation: 1,
            partition: PartitionId(0),
            durability: None,
            expect_offset: None,
            due,
        };
        let topic = "orders".parse().unwrap();
        let mut stream = self.engine.broker.open_publish(&Principal::Local, &topic).unwrap();
        stream.submitter().submit(header, builder.finish(Stamp::ENGINE)).await.unwrap();
        let outcome = timeout(SOON, stream.acks.recv()).await.unwrap().unwrap().outcome;
        assert!(!matches!(outcome, AckOutcome::Refused(_)), "{outcome:?}");
    }

    async fn subscribe(&self, options: SubscriptionOptions) -> Consumer {
        let consumer = self.engine.subscribe(options).await;
        consumer.control.credit(PLENTY).await.unwrap();
        consumer
    }

    /// What a reader of the whole log finds.
    async fn read(&self, topic: &str) -> Vec<Seen> {
        let end = self.engine.partition(topic).await.end;
        let mut reader = self.engine.reader(topic).await;
        let mut seen: Vec<Seen> = Vec::new();
        while seen.last().map_or(0, |(offset, ..)| offset + 1) < end {
            let next = timeout(SOON, reader.outgoing.recv()).await.unwrap().unwrap().unwrap();
            let Content::Delivery(Delivery { runs, .. }) = next.content() else { continue };
            for (base, batch) in runs.iter().flat_map(|run| run.batches()).map(Result::unwrap) {
                seen.extend(batch.events().map(|event| {
                    let reason =
                        event.header("lv-dlq-reason").map(|it| String::from_utf8(it.to_vec()).unwrap());
                    let payload = String::from_utf8(event.payload().unwrap().to_vec()).unwrap();
                    (event.offset(base).0, payload, event.ttl_ms(), reason)
                }));
            }
        }
        seen
    }

    async fn route(&self) -> RouteInfo {
        let request = Request::ListRoutes { limit: 1, after: None };
        let Response::Routes { routes, .. } = self.engine.ask(request).await else { panic!("no routes") };
        routes.into_iter().next().expect("there is one")
    }
}

/// The offsets of the next delivery, which its stream takes, and the attempt.
async fn next(consumer: &mut Consumer) -> (Vec<u64>, u8, levada_protocol::ids::DeliveryToken) {
    let next = timeout(SOON, consumer.outgoing.recv()).await.expect("a delivery comes").unwrap().unwrap();
    let (content, unwritten) = next.into_parts();
    unwritten.written();
    let Content::Delivery(Delivery { header, runs }) = content else { panic!("expected a delivery") };
    let batches = runs.iter().flat_map(|run| run.batches()).map(Result::unwrap);
    let offsets = batches
        .flat_map(|(base, batch)| batch.events().map(|event| event.offset(base).0).collect::<Vec<_>>());
    (offsets.collect(), header.attempt, header.token)
}

#[tokio::test]
async fn an_event_that_waited_too_long_is_passed_over_and_counted_and_still_read() {
    let scene = Scene::new().await;
    scene.publish(None, &[("short", Some(1_000)), ("long", Some(3_000)), ("ever", None)]).await;
    let mut consumer = scene.engine.subscribe(expired(false)).await;
    scene.at(1_000);
    consumer.control.credit(PLENTY).await.unwrap();
    let (offsets, _, token) = next(&mut consumer).await;
    assert_eq!(offsets, [1, 2]);
    scene.engine.ack(&consumer, 1, token, 1..=2).await;
    scene.engine.until_info(|info| info.lag == 0).await;
    let info = scene.engine.info().await;
    assert_eq!((info.events_expired, info.dead_lettered, info.positions[0].offset), (1, 0, 3));
    let read = scene.read("orders").await;
    assert_eq!(read[0], (0, "short".to_owned(), Some(1_000), None), "the log has it while it is retained");
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn where_the_subscription_says_so_it_becomes_a_dead_letter_once_also_over_a_crash() {
    let scene = Scene::new().await;
    scene.publish(None, &[("a", Some(5)), ("b", Some(5)), ("c", None)]).await;
    scene.at(5);
    let mut consumer = scene.subscribe(expired(true)).await;
    assert_eq!(next(&mut consumer).await.0, [2]);
    scene.engine.until_info(|info| info.dead_lettered == 2).await;
    let scene = scene.restart().await;
    let mut consumer = scene.subscribe(expired(true)).await;
    assert_eq!(next(&mut consumer).await.0, [2]);
    let dead = scene.read("dlq.orders.payment").await;
    let reason = Some("expired".to_owned());
    assert_eq!(dead, [(0, "a".to_owned(), None, reason.clone()), (1, "b".to_owned(), None, reason)]);
    assert_eq!(scene.engine.info().await.events_expired, 0, "counted since the start");
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn an_event_that_is_given_back_is_not_delivered_again_behind_its_time() {
    for order in [Order::None, Order::Partition, Order::Key] {
        let scene = Scene::new().await;
        scene.publish(None, &[("a", Some(5)), ("b", None), ("c", Some(9))]).await;
        let options = SubscriptionOptions { order: Some(order), ..expired(false) };
        let mut consumer = scene.subscribe(options).await;
        let (offsets, _, token) = next(&mut consumer).await;
        assert_eq!(offsets, [0, 1, 2]);
        scene.at(8);
        let (kind, partition) = (VerbKind::Nack { delay_ms: Some(0) }, PartitionId(0));
        let nack = Verb { kind, partition, token, first: Offset(0), last: Offset(2) };
        consumer.control.verbs(Verbs { sequence: 1, verbs: vec![nack] }).await.unwrap();
        let mut again = Vec::new();
        while again.len() < 2 {
            let (offsets, attempt, token) = next(&mut consumer).await;
            assert_eq!(attempt, 2, "{order:?}");
            let (first, last) = (offsets[0], *offsets.last().unwrap());
            again.extend(offsets);
            scene.engine.ack(&consumer, 2 + first, token, first..=last).await;
        }
        assert_eq!(again, [1, 2], "{order:?}");
        scene.engine.until_info(|info| info.lag == 0).await;
        assert_eq!(scene.engine.info().await.events_expired, 1, "{order:?}");
        scene.engine.broker.shutdown().await;
    }
}

#[tokio::test]
async fn an_event_in_flight_holds_its_key_also_when_its_time_is_over() {
    let scene = Scene::new().await;
    scene.publish(None, &[("a", Some(5))]).await;
    let options = SubscriptionOptions { order: Some(Order::Key), ..expired(false) };
    let mut first = scene.engine.subscribe(options.clone()).await;
    first.control.credit(Credit { events: 1, ..PLENTY }).await.unwrap();
    let (offsets, _, token) = next(&mut first).await;
    assert_eq!(offsets, [0]);
    scene.at(8);
    let mut second = scene.subscribe(options).await;
    let other = Event::new("c").with_key("other");
    scene.publish_events(None, &[Event::new("b").with_key("k"), other]).await;
    let (offsets, _, other) = next(&mut second).await;
    assert_eq!(offsets, [2], "the second of the key waits for the first");
    scene.engine.ack(&first, 1, token, 0..=0).await;
    let (offsets, _, last) = next(&mut second).await;
    assert_eq!(offsets, [1]);
    scene.engine.ack(&second, 1, other, 2..=2).await;
    scene.engine.ack(&second, 2, last, 1..=1).await;
    scene.engine.until_info(|info| info.lag == 0).await;
    assert_eq!(scene.engine.info().await.events_expired, 0, "it was acknowledged");
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn the_time_of_a_delayed_event_begins_when_it_is_due() {
    let scene = Scene::new().await;
    scene.publish(Some(Due::After(100)), &[("delayed", Some(10))]).await;
    scene.at(100);
    scene.engine.broker.move_due().await.unwrap();
    scene.at(109);
    let mut consumer = scene.subscribe(expired(false)).await;
    assert_eq!(next(&mut consumer).await.0, [0]);
    scene.at(110);
    drop(consumer);
    let consumer = scene.subscribe(expired(false)).await;
    scene.engine.until_info(|info| info.events_expired == 1 && info.lag == 0).await;
    drop(consumer);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn what_passes_plugins_keeps_its_time() {
    let scene = Scene::new().await;
    scene.engine.deploy(b"keep").await;
    scene.publish(None, &[("a", Some(5)), ("b", None), ("c", Some(5))]).await;
    scene.publish(None, &[("d", Some(5))]).await;
    let stage = StageSpec { plugin: "keep".to_owned(), ..StageSpec::default() };
    let options = SubscriptionOptions { chain: Some(vec![stage]), ..expired(false) };
    scene.at(5);
    let mut consumer = scene.subscribe(options).await;
    assert_eq!(next(&mut consumer).await.0, [1]);
    scene.engine.until_info(|info| info.events_expired == 3).await;
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_clock_that_is_set_back_lets_events_live_longer_and_the_longest_time_never_ends() {
    let scene = Scene::new().await;
    scene.at(3_600_000);
    scene.publish(None, &[("a", Some(1_000)), ("b", Some(u32::MAX))]).await;
    scene.at(0);
    let mut consumer = scene.subscribe(expired(false)).await;
    assert_eq!(next(&mut consumer).await.0, [0, 1]);
    drop(consumer);
    scene.at(3_601_000);
    let mut consumer = scene.subscribe(expired(false)).await;
    assert_eq!(next(&mut consumer).await.0, [1]);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_route_passes_on_what_is_left_of_the_time_and_nothing_that_is_over() {
    let scene = Scene::new().await;
    scene.engine.topic("copies", TopicSettings::default()).await;
    scene.publish(None, &[("over", Some(5)), ("left", Some(9)), ("ever", None), ("last", Some(5))]).await;
    scene.publish(None, &[("over too", Some(1))]).await;
    scene.at(5);
    let (name, from, to) = ("copy".parse().unwrap(), "orders".parse().unwrap(), "copies".parse().unwrap());
    let start = levada_protocol::request::Start::Earliest;
    let spec = RouteSpec { start, ..RouteSpec::new(name, from, [to]) };
    scene.engine.ask(Request::CreateRoute(spec)).await;
    let routed = async {
        while scene.route().await.lag > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, routed).await.expect("the route takes all of it");
    let copies = scene.read("copies").await;
    assert_eq!(copies, [(0, "left".to_owned(), Some(4), None), (1, "ever".to_owned(), None, None)]);
    assert_eq!(scene.route().await.events_expired, 3);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_live_subscription_can_be_told_what_becomes_of_the_expired() {
    let scene = Scene::new().await;
    let mut consumer = scene.subscribe(expired(false)).await;
    let options = SubscriptionOptions { dead_letter_expired: Some(true), ..SubscriptionOptions::default() };
    let (topic, name) = ("orders".parse().unwrap(), "payment".parse().unwrap());
    scene.engine.ask(Request::SetSubscription { topic, name, options }).await;
    scene.publish(None, &[("first", None)]).await;
    assert_eq!(next(&mut consumer).await.0, [0], "it goes on with the same consumer");
    drop(consumer);
    scene.publish(None, &[("a", Some(5))]).await;
    scene.at(5);
    let _consumer = scene.subscribe(SubscriptionOptions::default()).await;
    scene.engine.until_info(|info| info.dead_lettered == 1).await;
    scene.engine.broker.shutdown().await;
}
