//! The broker's owners when something goes wrong around them: callers that give up, syncs that hang or fail, disks
//! that fill up, plugins that change.
#![expect(clippy::unwrap_used, reason = "a test's helper fails the test by panicking")]

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use levada_broker::{
    Broker, BrokerConfig, Consumer, Principal, Reader,
    stage::{
        AttachError, AttachSpec, BoxFuture, CallError, CallInput, Figures, Inspected, Interface, Plugins,
        Stage,
    },
};
use levada_protocol::{
    batch::{BatchBuilder, Stamp},
    deliver::{DeliverHeader, checked_batches},
    error::ErrorCode,
    event::Event,
    frame::FRAME_HEADER_BYTES,
    ids::{CommitIndex, DeliveryToken, Offset, PartitionId},
    publish::{AckOutcome, PublishHeader},
    request::{
        PartitionInfo, Read, Request, Response, Retain, RouteSpec, StageSpec, Start, Subscribe,
        SubscriptionInfo, SubscriptionOptions, TopicSettings,
    },
    verbs::{Credit, Verb, VerbKind, Verbs},
};
use levada_store::{Commit, Error as StoreError, Family, MemoryStore, Op, ScanLimit, Store, StoreStats};
use tempfile::TempDir;
use tokio::{sync::Notify, time::timeout};

const PLENTY: Credit = Credit { events: 1_000_000, bytes: 1 << 30 };
const SOON: Duration = Duration::from_secs(20);

/// A memory store whose syncs can be held up or find the disk full.
#[derive(Default)]
struct FaultyStore {
    inner: MemoryStore,
    held: Mutex<bool>,
    released: Condvar,
    /// A sync began while syncs are held up.
    entered: Notify,
    /// The next step of a route finds no room when it is synced.
    fill_at_route_step: AtomicBool,
    fill_at_sync: AtomicBool,
}

impl FaultyStore {
    fn hold(&self, held: bool) {
        *self.held.lock().unwrap() = held;
        self.released.notify_all();
    }
}

impl Store for FaultyStore {
    fn applied(&self) -> CommitIndex {
        self.inner.applied()
    }

    fn apply(&self, commit: &Commit) -> Result<(), StoreError> {
        let has =
            |wanted| commit.ops.iter().any(|op| matches!(op, Op::Put { family, .. } if *family == wanted));
        self.inner.apply(commit)?;
        if has(Family::Log) && has(Family::Cursors) && self.fill_at_route_step.swap(false, Ordering::AcqRel) {
            self.fill_at_sync.store(true, Ordering::Release);
        }
        Ok(())
    }

    fn sync(&self) -> Result<CommitIndex, StoreError> {
        let mut held = self.held.lock().unwrap();
        while *held {
            self.entered.notify_one();
            held = self.released.wait(held).unwrap();
        }
        if self.fill_at_sync.swap(false, Ordering::AcqRel) {
            self.inner.set_full(true);
            return Err(StoreError::Full { reason: "the test wants it so".to_owned() });
        }
        self.inner.sync()
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.inner.get(family, key)
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
        limit: ScanLimit,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.inner.scan(family, from, to, limit)
    }

    fn last_before(
        &self,
        family: Family,
        from: &[u8],
        below: &[u8],
    ) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        self.inner.last_before(family, from, below)
    }

    fn compact(&self, family: Family, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        self.inner.compact(family, from, to)
    }

    fn reopen(&self) -> Result<(), StoreError> {
        self.inner.reopen()
    }

    fn stats(&self) -> StoreStats {
        self.inner.stats()
    }

    fn close(&self) -> Result<(), StoreError> {
        self.inner.close()
    }
}

/// Plugins that keep every event, and remember which version was attached last.
#[derive(Default)]
struct KeepAll {
    attached: AtomicUsize,
}

struct Keep;

impl Plugins for KeepAll {
    fn inspect(&self, artefact: Bytes) -> BoxFuture<Result<Inspected, AttachError>> {
        let mut sha256 = [0; 32];
        sha256[..artefact.len()].copy_from_slice(&artefact);
        Box::pin(async move { Ok(Inspected { interface: Interface::Batch, sha256 }) })
    }

    fn attach(&self, spec: AttachSpec) -> BoxFuture<Result<Arc<dyn Stage>, AttachError>> {
        self.attached.store(spec.version as usize, Ordering::Release);
        Box::pin(async { Ok(Arc::new(Keep) as Arc<dyn Stage>) })
    }
}

impl Stage for Keep {
    fn call(&self, input: CallInput) -> BoxFuture<Result<Bytes, CallError>> {
        let mut answer = levada_protocol::verdict::VerdictWriter::new();
        (0..input.events).for_each(|_| answer.keep());
        Box::pin(async move { Ok(answer.finish().into()) })
    }

    fn figures(&self) -> Figures {
        Figures::default()
    }
}

struct Engine {
    broker: Broker,
    store: Arc<FaultyStore>,
    plugins: Arc<KeepAll>,
    _dir: TempDir,
}

impl Engine {
    fn start() -> Self {
        let (store, plugins) = (Arc::<FaultyStore>::default(), Arc::<KeepAll>::default());
        let dir = tempfile::tempdir().unwrap();
        let config = BrokerConfig { disk_reserve_bytes: 0, ..BrokerConfig::new(dir.path()) };
        let broker =
            Broker::start(config, Arc::clone(&store) as _, Arc::clone(&plugins) as Arc<dyn Plugins>).unwrap();
        Self { broker, store, plugins, _dir: dir }
    }

    async fn ask(&self, request: Request) -> Response {
        self.broker.request(&Principal::Local, request, None).await.unwrap()
    }

    async fn topic(&self, name: &str, settings: TopicSettings) {
        self.ask(Request::CreateTopic { name: name.into(), settings }).await;
    }

    async fn publish(&self, topic: &str, count: usize) {
        let mut builder = BatchBuilder::new();
        (0..count).for_each(|number| builder.push(&Event::new(number.to_string())).unwrap());
        let mut stream = self.broker.open_publish(&Principal::Local, topic).unwrap();
        let header = PublishHeader {
            correlation: 1,
            partition: PartitionId(0),
            durability: None,
            expect_offset: None,
        };
        stream.submitter().submit(header, builder.finish(Stamp::ENGINE)).await.unwrap();
        let ack = timeout(SOON, stream.acks.recv()).await.unwrap().unwrap();
        assert!(matches!(ack.outcome, AckOutcome::Appended { .. }), "{ack:?}");
    }

    fn wanted(options: Option<SubscriptionOptions>) -> Subscribe {
        Subscribe {
            topic: "orders".into(),
            subscription: "payment".into(),
            consumer: "test".into(),
            options,
            from: Start::Earliest,
        }
    }

    async fn subscribe(&self, options: SubscriptionOptions) -> Consumer {
        let subscribing = self.broker.subscribe(&Principal::Local, Self::wanted(Some(options)));
        timeout(SOON, subscribing).await.unwrap().unwrap()
    }

    async fn info(&self) -> SubscriptionInfo {
        let request = Request::DescribeSubscription { topic: "orders".into(), name: "payment".into() };
        let Response::Subscription(info) = self.ask(request).await else { panic!("no subscription") };
        info
    }

    async fn partition(&self, topic: &str) -> PartitionInfo {
        let Response::Topic(info) = self.ask(Request::DescribeTopic { name: topic.into() }).await else {
            panic!("no topic")
        };
        info.partitions[0]
    }

    async fn reader(&self, topic: &str) -> Reader {
        let read = Read { topic: topic.into(), from: Start::Earliest, follow: true, ..Read::default() };
        let reader = self.broker.read(&Principal::Local, read).await.unwrap();
        reader.credit.grant(PLENTY).await.unwrap();
        reader
    }
}

/// A delivery's token and the offsets of its events.
async fn delivery(
    frames: &mut tokio::sync::mpsc::Receiver<Result<levada_broker::OutFrame, levada_broker::Error>>,
) -> (DeliveryToken, Vec<u64>) {
    let frame = timeout(SOON, frames.recv()).await.expect("a frame comes").unwrap().unwrap();
    let mut payload = Bytes::from(frame.chunks.concat()).slice(FRAME_HEADER_BYTES..);
    let header = DeliverHeader::read(&mut payload).unwrap();
    let batches = checked_batches(payload).unwrap();
    let events = batches.iter().flat_map(|placed| placed.batch.events().map(|it| it.offset(placed.base).0));
    (header.token, events.collect())
}

/// Polls a future once, for whoever would give it up.
async fn poll_once<T>(future: &mut (impl Future<Output = T> + Unpin)) -> bool {
    poll_fn(|context| Poll::Ready(pin!(&mut *future).poll(context).is_ready())).await
}

#[tokio::test]
async fn a_subscription_whose_creator_goes_before_the_sync_works() {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    engine.publish("orders", 3).await;
    engine.store.hold(true);
    {
        let wanted = Engine::wanted(Some(SubscriptionOptions::default()));
        let subscribing = engine.broker.subscribe(&Principal::Local, wanted);
        tokio::select! {
            _ = subscribing => panic!("it is not durable yet"),
            () = engine.store.entered.notified() => {}
        }
    }
    engine.store.hold(false);
    let mut consumer = engine.subscribe(SubscriptionOptions::default()).await;
    consumer.control.credit(PLENTY).await.unwrap();
    assert_eq!(delivery(&mut consumer.frames).await.1, [0, 1, 2]);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_consumer_that_gives_up_while_it_is_attached_holds_nothing() {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    engine.publish("orders", 3).await;
    drop(engine.subscribe(SubscriptionOptions::default()).await);
    for polls in 1..6 {
        let mut subscribing = Box::pin(engine.broker.subscribe(&Principal::Local, Engine::wanted(None)));
        for _ in 0..polls {
            if poll_once(&mut subscribing).await {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(subscribing);
    }
    let mut consumer = engine.subscribe(SubscriptionOptions::default()).await;
    consumer.control.credit(PLENTY).await.unwrap();
    assert_eq!(delivery(&mut consumer.frames).await.1, [0, 1, 2]);
    assert_eq!(engine.info().await.consumers.len(), 1);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_consumer_that_goes_while_its_owner_is_busy_is_detached() {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    engine.publish("orders", 3).await;
    let first = engine.subscribe(SubscriptionOptions::default()).await;
    let mut second = engine.subscribe(SubscriptionOptions::default()).await;
    second.control.credit(PLENTY).await.unwrap();
    // Without an await that waits, the owner's queue fills up.
    while poll_once(&mut Box::pin(second.control.credit(Credit { events: 0, bytes: 0 }))).await {}
    drop(first);
    assert_eq!(delivery(&mut second.frames).await.1, [0, 1, 2]);
    assert_eq!(engine.info().await.consumers.len(), 1);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn an_owner_sleeps_while_its_commit_waits_for_the_disk() {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    engine.publish("orders", 3).await;
    let mut consumer = engine.subscribe(SubscriptionOptions::default()).await;
    consumer.control.credit(PLENTY).await.unwrap();
    let (token, _) = delivery(&mut consumer.frames).await;
    engine.store.hold(true);
    let verb =
        Verb { kind: VerbKind::Ack, partition: PartitionId(0), token, first: Offset(0), last: Offset(2) };
    consumer.control.verbs(Verbs { sequence: 1, verbs: vec![verb] }).await.unwrap();
    engine.store.entered.notified().await;
    let busy = || tokio::runtime::Handle::current().metrics().worker_total_busy_duration(0);
    // The figure is brought up to date when the runtime goes to sleep; one that never does brings none.
    let parks = || tokio::runtime::Handle::current().metrics().worker_park_count(0);
    let (busy_before, parked_before) = (busy(), parks());
    // The time in which it would have spun: long against what the rest of the engine does in it.
    let waited = Duration::from_millis(300);
    assert!(timeout(waited, consumer.frames.recv()).await.is_err(), "nothing is confirmed yet");
    assert!(parks() > parked_before, "the runtime never slept");
    assert!(busy() - busy_before < waited / 2, "{:?} of {waited:?}", busy() - busy_before);
    engine.store.hold(false);
    assert!(timeout(SOON, consumer.frames.recv()).await.unwrap().unwrap().is_ok());
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_route_whose_step_a_full_disk_took_back_makes_it_again_once() {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    engine.topic("copies", TopicSettings::default()).await;
    engine.publish("orders", 5).await;
    engine.store.fill_at_route_step.store(true, Ordering::Release);
    let spec = RouteSpec {
        name: "copy".into(),
        from: "orders".into(),
        to: vec!["copies".into()],
        start: Start::Earliest,
        ..RouteSpec::default()
    };
    engine.ask(Request::CreateRoute(spec)).await;
    let mut reader = engine.reader("copies").await;
    let refused = timeout(SOON, async {
        while engine.broker.health().ready {
            tokio::task::yield_now().await;
        }
    });
    refused.await.expect("the route's step finds the disk full");
    engine.store.inner.set_full(false);
    assert_eq!(delivery(&mut reader.frames).await.1, [0, 1, 2, 3, 4]);
    engine.publish("orders", 1).await;
    assert_eq!(delivery(&mut reader.frames).await.1, [5]);
    assert_eq!(engine.partition("copies").await.end, 6);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn retention_drops_what_follows_a_log_that_was_emptied() {
    let engine = Engine::start();
    // Every event is one byte too many: each pass drops all there is.
    let settings = TopicSettings { retain: Retain::TimeAndSize, max_bytes: 1, ..TopicSettings::default() };
    engine.topic("orders", settings).await;
    for published in 1..4 {
        engine.publish("orders", 10).await;
        engine.broker.run_retention().await.unwrap();
        let partition = engine.partition("orders").await;
        assert_eq!((partition.start, partition.end, partition.bytes), (published * 10, published * 10, 0));
    }
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_busy_subscription_takes_the_newest_version_of_its_plugin() {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    let deploy = |artefact: &'static [u8]| {
        let size = artefact.len() as u64;
        let request = Request::DeployPlugin { name: "keep".into(), size, config: None };
        engine.broker.request(&Principal::Local, request, Some(Bytes::from_static(artefact)))
    };
    deploy(b"one").await.unwrap();
    let chain = vec![StageSpec { plugin: "keep".into(), ..StageSpec::default() }];
    let mut consumer =
        engine.subscribe(SubscriptionOptions { chain, ..SubscriptionOptions::default() }).await;
    consumer.control.credit(PLENTY).await.unwrap();
    engine.publish("orders", 1).await;
    assert_eq!(delivery(&mut consumer.frames).await.1, [0]);
    {
        let mut deploying = Box::pin(deploy(b"two"));
        // Its queue is full whenever the deployment goes on.
        while !poll_once(&mut deploying).await {
            while poll_once(&mut Box::pin(consumer.control.credit(Credit { events: 0, bytes: 0 }))).await {}
            tokio::task::yield_now().await;
        }
    }
    engine.publish("orders", 1).await;
    assert_eq!(delivery(&mut consumer.frames).await.1, [1]);
    assert_eq!(engine.plugins.attached.load(Ordering::Acquire), 2);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_deleted_subscription_tells_its_consumers_so() {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    let mut consumer = engine.subscribe(SubscriptionOptions::default()).await;
    engine.ask(Request::DeleteSubscription { topic: "orders".into(), name: "payment".into() }).await;
    let ended = timeout(SOON, consumer.frames.recv()).await.unwrap().unwrap();
    assert_eq!(ended.unwrap_err().code(), ErrorCode::SubscriptionNotFound);
    engine.broker.shutdown().await;
}
