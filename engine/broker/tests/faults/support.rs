//! An engine whose store can be told to fail, and what the tests do with it.

use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    ops::RangeInclusive,
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
    Broker, BrokerConfig, Consumer, Content, Delivery, Error, Outgoing, Principal, Reader, metrics::Sample,
};
use levada_protocol::{
    batch::{Batch, BatchBuilder, Stamp},
    deliver::{Run, checked_batches},
    error::ErrorCode,
    event::Event,
    ids::{CommitIndex, DeliveryToken, Offset, PartitionId},
    publish::{AckOutcome, PublishHeader},
    request::{
        PartitionInfo, PluginInfo, Read, Request, Response, Start, Subscribe, SubscriptionInfo,
        SubscriptionOptions, TopicSettings,
    },
    verbs::{Credit, Verb, VerbKind, Verbs},
    verdict::{Change, Output, VerdictWriter},
};
use levada_stage::{
    Artefact, AttachError, AttachSpec, AttachmentPoint, BoxFuture, CallError, CallInput, CallOutcome,
    CallOutput, Inspected, Interface, Plugins, Stage, StageStats,
};
use levada_store::{
    Commit, Deleted, Error as StoreError, Family, MemoryStore, Op, ScanLimit, Store, StoreStats,
    commit::AppliedRow,
};
use tempfile::TempDir;
use tokio::{sync::Notify, time::timeout};

pub(crate) const PLENTY: Credit = Credit { events: 1_000_000, bytes: 1 << 30 };
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A memory store whose syncs can be held up or find the disk full, and which can panic.
#[derive(Default)]
pub(crate) struct FaultyStore {
    pub(crate) inner: MemoryStore,
    held: Mutex<bool>,
    released: Condvar,
    /// What looks of this kind find is not handed out.
    held_looks: Mutex<Option<Look>>,
    released_looks: Condvar,
    /// Something was found that is not handed out.
    pub(crate) looked: Notify,
    /// A sync began while syncs are held up.
    pub(crate) entered: Notify,
    /// The next step of a route finds no room when it is synced.
    pub(crate) fill_at_route_step: AtomicBool,
    /// The next redrive finds no room when it is synced.
    pub(crate) fill_at_redrive: AtomicBool,
    /// The next transaction that is prepared finds no room when it is synced.
    pub(crate) fill_at_transaction: AtomicBool,
    fill_at_sync: AtomicBool,
    /// How often the log was read.
    pub(crate) log_reads: AtomicUsize,
    /// How often what was redriven was read.
    pub(crate) side_reads: AtomicUsize,
    /// The next commit, or the next sync, panics.
    pub(crate) panic_at_apply: AtomicBool,
    pub(crate) panic_at_sync: AtomicBool,
    /// How long each commit was, encoded.
    pub(crate) commits: Mutex<Vec<usize>>,
    /// The ranges whose space was given back, and whether as if all of it were deleted.
    pub(crate) compactions: Mutex<Vec<(Bytes, Bytes, Deleted)>>,
    /// The key of a row of the log whose last byte is read as another.
    pub(crate) damaged: Mutex<Option<Bytes>>,
}

impl FaultyStore {
    pub(crate) fn hold(&self, held: bool) {
        *self.held.lock().unwrap() = held;
        self.released.notify_all();
    }

    /// Has looks of a kind be held up, or none.
    pub(crate) fn hold_looks(&self, held: Option<Look>) {
        *self.held_looks.lock().unwrap() = held;
        self.released_looks.notify_all();
    }

    fn look(&self, look: Look) {
        let mut held = self.held_looks.lock().unwrap();
        while *held == Some(look) {
            self.looked.notify_one();
            held = self.released_looks.wait(held).unwrap();
        }
    }
}

/// A read that can be held up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Of the last row in a stretch of the log.
    Last,
    /// Of where segments begin.
    Segments,
}

impl Store for FaultyStore {
    fn last(&self) -> AppliedRow {
        self.inner.last()
    }

    fn apply(&self, commit: &Commit) -> Result<(), StoreError> {
        assert!(!self.panic_at_apply.swap(false, Ordering::AcqRel), "the test wants it so");
        let has =
            |wanted| commit.ops.iter().any(|op| matches!(op, Op::Put { family, .. } if *family == wanted));
        self.inner.apply(commit)?;
        self.commits.lock().unwrap().push(commit.encoded_len());
        if has(Family::Log) && has(Family::Cursors) && self.fill_at_route_step.swap(false, Ordering::AcqRel) {
            self.fill_at_sync.store(true, Ordering::Release);
        }
        if has(Family::Prepared) && self.fill_at_transaction.swap(false, Ordering::AcqRel) {
            self.fill_at_sync.store(true, Ordering::Release);
        }
        if has(Family::Side) && self.fill_at_redrive.swap(false, Ordering::AcqRel) {
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
        drop(held);
        assert!(!self.panic_at_sync.swap(false, Ordering::AcqRel), "the test wants it so");
        if self.fill_at_sync.swap(false, Ordering::AcqRel) {
            self.inner.set_full(true);
            return Err(StoreError::Full { reason: "the test wants it so".to_owned() });
        }
        self.inner.sync()
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.side_reads.fetch_add(usize::from(family == Family::Side), Ordering::AcqRel);
        self.inner.get(family, key)
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
        limit: ScanLimit,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.log_reads.fetch_add(usize::from(family == Family::Log), Ordering::AcqRel);
        self.side_reads.fetch_add(usize::from(family == Family::Side), Ordering::AcqRel);
        let mut rows = self.inner.scan(family, from, to, limit)?;
        if family == Family::Meta && from.first() == Some(&0x11) {
            self.look(Look::Segments);
        }
        if let Some(damaged) = self.damaged.lock().unwrap().as_ref().filter(|_| family == Family::Log) {
            for (_, value) in rows.iter_mut().filter(|(key, _)| key == damaged) {
                let mut bytes = value.to_vec();
                bytes.last_mut().into_iter().for_each(|byte| *byte ^= 1);
                *value = bytes.into();
            }
        }
        Ok(rows)
    }

    fn last_before(
        &self,
        family: Family,
        from: &[u8],
        below: &[u8],
    ) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        self.log_reads.fetch_add(usize::from(family == Family::Log), Ordering::AcqRel);
        let found = self.inner.last_before(family, from, below);
        if family == Family::Log {
            self.look(Look::Last);
        }
        found
    }

    fn compact(&self, family: Family, from: &[u8], to: &[u8], deleted: Deleted) -> Result<(), StoreError> {
        let range = (Bytes::copy_from_slice(from), Bytes::copy_from_slice(to), deleted);
        self.compactions.lock().unwrap().push(range);
        self.inner.compact(family, from, to, deleted)
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.inner.flush()
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

/// A configuration that is never done being tried.
pub(crate) const TRIED: &str = r#"{"tried": true}"#;

/// A configuration with which the plugin keeps state.
pub(crate) const STATEFUL: &str = r#"{"state": true}"#;

/// A configuration with which the plugin writes [`HIDDEN`] over each payload.
pub(crate) const HIDE: &str = r#"{"hide": true}"#;

/// The payload of events that the plugin hides.
pub(crate) const HIDDEN: &str = "hidden";

/// A configuration with which the plugin drops the second of three events of a call, and rejects the third, and so on.
pub(crate) const PICK: &str = r#"{"pick": true}"#;

/// A configuration with which the plugin rejects the events of odd offsets.
pub(crate) const EVEN: &str = r#"{"even": true}"#;

/// A configuration with which the plugin fails.
pub(crate) const FAIL: &str = r#"{"fail": true}"#;

/// A configuration with which the plugin fails, and says that it took its whole time.
pub(crate) const WASTE: &str = r#"{"waste": true}"#;

/// Plugins that keep every event, and remember which version was attached last.
#[derive(Default)]
pub(crate) struct KeepAll {
    pub(crate) attached: AtomicUsize,
    /// The version that refuses its configuration; 0 for none.
    pub(crate) refusing: AtomicUsize,
    /// The identities of the attachments that try a configuration, none of which ends.
    pub(crate) trials: Mutex<Vec<u64>>,
    /// Where it was attached, in order.
    pub(crate) points: Mutex<Vec<AttachmentPoint>>,
    /// Where it refuses its configuration.
    pub(crate) refusing_at: Mutex<Option<AttachmentPoint>>,
    /// Whether what is attached keeps state.
    pub(crate) keeping_state: AtomicBool,
    pub(crate) gate: Arc<Gate>,
}

/// Holds plugin calls up while it is shut.
#[derive(Default)]
pub(crate) struct Gate {
    shut: tokio::sync::watch::Sender<bool>,
    /// Calls that came while it was shut.
    pub(crate) held: AtomicUsize,
}

impl Gate {
    pub(crate) fn shut(&self, shut: bool) {
        self.shut.send_replace(shut);
    }

    async fn pass(&self) {
        let mut shut = self.shut.subscribe();
        self.held.fetch_add(usize::from(*shut.borrow()), Ordering::AcqRel);
        shut.wait_for(|shut| !shut).await.unwrap();
    }
}

struct Keep {
    gate: Arc<Gate>,
    config: String,
    keeps_state: bool,
}

impl Plugins for KeepAll {
    fn inspect(&self, artefact: Bytes) -> BoxFuture<Result<Inspected, AttachError>> {
        let mut sha256 = [0; 32];
        sha256[..artefact.len()].copy_from_slice(&artefact);
        Box::pin(async move { Ok(Inspected { interface: Interface::Batch, sha256 }) })
    }

    fn attach(
        &self,
        _artefact: Artefact,
        spec: AttachSpec,
    ) -> BoxFuture<Result<Arc<dyn Stage>, AttachError>> {
        let version = spec.version as usize;
        let refuses = (self.refusing.load(Ordering::Acquire) == version && version > 0)
            || *self.refusing_at.lock().unwrap() == Some(spec.point);
        self.points.lock().unwrap().push(spec.point);
        let keeps_state = spec.config == STATEFUL || self.keeping_state.load(Ordering::Acquire);
        self.attached.store(version, Ordering::Release);
        let tries = spec.config == TRIED;
        let gate = Arc::clone(&self.gate);
        if tries {
            self.trials.lock().unwrap().push(spec.point_id);
        }
        Box::pin(async move {
            if tries {
                std::future::pending::<()>().await;
            }
            if refuses {
                Err(AttachError::new(ErrorCode::PluginInitRefused, "not this one"))
            } else {
                Ok(Arc::new(Keep { gate, config: spec.config, keeps_state }) as _)
            }
        })
    }
}

impl Stage for Keep {
    fn call(&self, input: CallInput) -> BoxFuture<CallOutcome> {
        let mut answer = VerdictWriter::new();
        let placed = checked_batches(input.runs.clone()).unwrap();
        let offsets = placed.iter().flat_map(|it| it.batch.events().map(|event| event.offset(it.base).0));
        for (index, offset) in (0..input.events).zip(offsets) {
            match (self.config.as_str(), index % 3) {
                (EVEN, _) if offset % 2 == 1 => answer.reject("an odd one"),
                (HIDE, _) => {
                    let payload = Change::Set(HIDDEN.as_bytes());
                    answer.emit(&[Output { payload, ..Output::default() }]);
                }
                (PICK, 1) => answer.drop_event(),
                (PICK, 2) => answer.reject("not this one"),
                _ => answer.keep(),
            }
        }
        let result = match self.config.as_str() {
            FAIL | WASTE => Err(CallError::Trap("the test wants it so".to_owned())),
            _ => Ok(CallOutput::stateless(answer.finish())),
        };
        let time_spent = if self.config == WASTE { Duration::from_secs(60) } else { Duration::ZERO };
        let gate = Arc::clone(&self.gate);
        Box::pin(async move {
            gate.pass().await;
            CallOutcome { result, time_spent }
        })
    }

    fn is_stateful(&self) -> bool {
        self.keeps_state
    }

    fn stats(&self) -> StageStats {
        StageStats::default()
    }
}

pub(crate) struct Engine {
    pub(crate) broker: Broker,
    pub(crate) store: Arc<FaultyStore>,
    pub(crate) plugins: Arc<KeepAll>,
    pub(crate) dir: TempDir,
}

impl Engine {
    pub(crate) fn start() -> Self {
        Self::with(|_| {})
    }

    /// Starts with a configuration that is changed a little.
    pub(crate) fn with(change: impl FnOnce(&mut BrokerConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = BrokerConfig { disk_reserve_bytes: 0, ..BrokerConfig::new(dir.path()) };
        change(&mut config);
        Self::on(Arc::default(), Arc::default(), dir, config)
    }

    fn on(store: Arc<FaultyStore>, plugins: Arc<KeepAll>, dir: TempDir, config: BrokerConfig) -> Self {
        let broker =
            Broker::start(config, Arc::clone(&store) as _, Arc::clone(&plugins) as Arc<dyn Plugins>).unwrap();
        Self { broker, store, plugins, dir }
    }

    /// The same store after a crash.
    pub(crate) async fn restart(self) -> Self {
        self.restart_with(|_| {}).await
    }

    /// The same with a configuration that is changed a little.
    pub(crate) async fn restart_with(self, change: impl FnOnce(&mut BrokerConfig)) -> Self {
        // What was answered and is not durable is gone; what is committed from here on is nobody's.
        self.store.inner.crash();
        self.broker.shutdown().await;
        self.store.inner.crash();
        let mut config = BrokerConfig { disk_reserve_bytes: 0, ..BrokerConfig::new(self.dir.path()) };
        change(&mut config);
        Self::on(self.store, self.plugins, self.dir, config)
    }

    pub(crate) async fn ask(&self, request: Request) -> Response {
        self.broker.request(&Principal::Local, request, None).await.unwrap()
    }

    /// Deploys a plugin that keeps every event, under the name `keep`.
    pub(crate) async fn deploy(&self, artefact: &'static [u8]) -> PluginInfo {
        match self.try_deploy(&Principal::Local, artefact).await.unwrap() {
            Response::Plugin(plugin) => plugin,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn try_deploy(
        &self,
        by: &Principal,
        artefact: &'static [u8],
    ) -> Result<Response, Error> {
        let size = artefact.len() as u64;
        let request = Request::DeployPlugin { name: "keep".parse().unwrap(), size, config: None };
        self.broker.request(by, request, Some(Bytes::from_static(artefact))).await
    }

    pub(crate) async fn topic(&self, name: &str, settings: TopicSettings) {
        self.ask(Request::CreateTopic { name: name.parse().unwrap(), settings }).await;
    }

    /// A topic with three events, all delivered to a consumer that has acknowledged none.
    pub(crate) async fn delivered_three(&self) -> (Consumer, DeliveryToken) {
        self.topic("orders", TopicSettings::default()).await;
        self.publish("orders", 3).await;
        let mut consumer = self.subscribe(SubscriptionOptions::default()).await;
        consumer.control.credit(PLENTY).await.unwrap();
        let (token, _) = delivery(&mut consumer.outgoing).await;
        (consumer, token)
    }

    pub(crate) async fn publish(&self, topic: &str, count: usize) {
        self.publish_to(topic, PartitionId(0), count).await;
    }

    pub(crate) async fn publish_to(&self, topic: &str, partition: PartitionId, count: usize) {
        self.publish_by(&Principal::Local, topic, partition, count).await;
    }

    /// Publishes events whose payloads are their numbers in the batch.
    pub(crate) async fn publish_by(&self, by: &Principal, topic: &str, partition: PartitionId, count: usize) {
        let events = (0..count).map(|number| Event::new(number.to_string()));
        self.publish_events(by, (topic, partition), events).await;
    }

    pub(crate) async fn publish_events(
        &self,
        by: &Principal,
        (topic, partition): (&str, PartitionId),
        events: impl Iterator<Item = Event>,
    ) {
        let mut builder = BatchBuilder::new();
        events.for_each(|event| builder.push(&event).unwrap());
        let mut stream = self.broker.open_publish(by, &topic.parse().unwrap()).unwrap();
        let header =
            PublishHeader { correlation: 1, partition, durability: None, expect_offset: None, due: None };
        stream.submitter().submit(header, builder.finish(Stamp::ENGINE)).await.unwrap();
        let ack = timeout(SOON, stream.acks.recv()).await.unwrap().unwrap();
        assert!(matches!(ack.outcome, AckOutcome::Appended { .. }), "{ack:?}");
    }

    pub(crate) fn wanted(options: Option<SubscriptionOptions>) -> Subscribe {
        Subscribe {
            consumer: "test".into(),
            options,
            from: Start::Earliest,
            ..Subscribe::new("orders".parse().unwrap(), "payment".parse().unwrap())
        }
    }

    pub(crate) async fn subscribe(&self, options: SubscriptionOptions) -> Consumer {
        let subscribing = self.broker.subscribe(&Principal::Local, Self::wanted(Some(options)));
        timeout(SOON, subscribing).await.unwrap().unwrap()
    }

    /// Says that these events of a delivery are done.
    pub(crate) async fn ack(
        &self,
        consumer: &Consumer,
        sequence: u64,
        token: DeliveryToken,
        offsets: RangeInclusive<u64>,
    ) {
        let (first, last) = (Offset(*offsets.start()), Offset(*offsets.end()));
        let verb = Verb { kind: VerbKind::Ack, partition: PartitionId(0), token, first, last };
        consumer.control.verbs(Verbs { sequence, verbs: vec![verb] }).await.unwrap();
    }

    pub(crate) async fn info(&self) -> SubscriptionInfo {
        let request = Request::DescribeSubscription {
            topic: "orders".parse().unwrap(),
            name: "payment".parse().unwrap(),
        };
        let Response::Subscription(info) = self.ask(request).await else { panic!("no subscription") };
        *info
    }

    /// Waits until the subscription is described as `is_so` wants it.
    pub(crate) async fn until_info(&self, is_so: impl Fn(&SubscriptionInfo) -> bool) {
        let waiting = async {
            while !is_so(&self.info().await) {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, waiting).await.expect("it comes to be so");
    }

    /// The only consumer leaves; returns once the subscription has nothing to commit by itself.
    pub(crate) async fn leave(&self, consumer: Consumer) {
        drop(consumer);
        self.until_info(|info| info.consumers.is_empty()).await;
        self.attendance_is_stored().await;
    }

    /// Waits until it is durable which subscriptions have no consumer.
    pub(crate) async fn attendance_is_stored(&self) {
        let request = Request::ListSubscriptions { topic: None, limit: 0, after: None };
        let Response::Subscriptions { subscriptions, .. } = self.ask(request).await else {
            panic!("no list")
        };
        for info in subscriptions {
            let key = [&[4][..], &info.id.to_be_bytes()].concat();
            let row = info.unattended_since_ms.map(|since| [&[1][..], &since.to_le_bytes()].concat());
            let is_written = || self.store.get(Family::Cursors, &key).unwrap().as_deref() == row.as_deref();
            until(|| is_written() && self.store.inner.durable() == self.store.last().index).await;
        }
    }

    pub(crate) async fn partition(&self, topic: &str) -> PartitionInfo {
        let Response::Topic(info) = self.ask(Request::DescribeTopic { name: topic.parse().unwrap() }).await
        else {
            panic!("no topic")
        };
        info.partitions[0]
    }

    /// The values of a metric by the values of their labels, with a space between these.
    pub(crate) async fn metric(&self, name: &str) -> BTreeMap<String, f64> {
        let series = self.broker.observe().await.into_iter().filter(|series| series.name == name);
        let label = |sample: &Sample| {
            let values = sample.labels.iter().map(|(_, value)| value.as_str());
            values.collect::<Vec<_>>().join(" ")
        };
        series.flat_map(|series| series.samples).map(|sample| (label(&sample), sample.value)).collect()
    }

    pub(crate) async fn reader(&self, topic: &str) -> Reader {
        let read = Read { from: Start::Earliest, follow: true, ..Read::new(topic.parse().unwrap()) };
        let reader = self.broker.read(&Principal::Local, read).await.unwrap();
        reader.credit.grant(PLENTY).await.unwrap();
        reader
    }
}

/// A delivery's token and the offsets of its events.
pub(crate) async fn delivery(
    outgoing: &mut tokio::sync::mpsc::Receiver<Result<Outgoing, Error>>,
) -> (DeliveryToken, Vec<u64>) {
    let next = timeout(SOON, outgoing.recv()).await.expect("a delivery comes").unwrap().unwrap();
    let Content::Delivery(Delivery { header, runs }) = next.content() else {
        panic!("expected a delivery, got {:?}", next.content())
    };
    let batches = runs.iter().flat_map(Run::batches).map(Result::unwrap);
    let offsets =
        |(base, batch): (Offset, Batch)| batch.events().map(|event| event.offset(base).0).collect::<Vec<_>>();
    (header.token, batches.flat_map(offsets).collect())
}

/// The next `count` events, whatever else comes before, each with the verb that says that it is done.
pub(crate) async fn take(
    outgoing: &mut tokio::sync::mpsc::Receiver<Result<Outgoing, Error>>,
    count: usize,
) -> Vec<Verb> {
    let mut taken: Vec<Verb> = Vec::new();
    while taken.len() < count {
        let Ok(next) = timeout(SOON, outgoing.recv()).await else {
            panic!("expected {count} events, got {} and then no more", taken.len())
        };
        let next = next.unwrap().unwrap();
        let Content::Delivery(Delivery { header, runs }) = next.content() else { continue };
        for (base, batch) in runs.iter().flat_map(Run::batches).map(Result::unwrap) {
            taken.extend(batch.events().map(|event| event.offset(base)).map(|offset| Verb {
                kind: VerbKind::Ack,
                partition: header.partition,
                token: header.token,
                first: offset,
                last: offset,
            }));
        }
    }
    assert_eq!(taken.len(), count, "{taken:?}");
    taken
}

/// Waits until something is so, and lets everything else run meanwhile.
pub(crate) async fn until(is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, waiting).await.expect("it comes to be so");
}

/// Polls a future once, for whoever would give it up.
pub(crate) async fn poll_once<T>(future: &mut (impl Future<Output = T> + Unpin)) -> bool {
    poll_fn(|context| Poll::Ready(pin!(&mut *future).poll(context).is_ready())).await
}

/// Publishes events of so many bytes, each in a batch of its own.
pub(crate) async fn publish_bytes(engine: &Engine, count: u64, bytes: usize) {
    use levada_protocol::{
        batch::{BatchBuilder, Stamp},
        event::Event,
        publish::PublishHeader,
    };
    let mut stream = engine.broker.open_publish(&Principal::Local, &"orders".parse().unwrap()).unwrap();
    for _ in 0..count {
        let mut builder = BatchBuilder::new();
        builder.push(&Event::new(vec![b'x'; bytes])).unwrap();
        let header = PublishHeader {
            correlation: 1,
            partition: PartitionId(0),
            durability: None,
            expect_offset: None,
            due: None,
        };
        stream.submitter().submit(header, builder.finish(Stamp::ENGINE)).await.unwrap();
        timeout(SOON, stream.acks.recv()).await.unwrap().unwrap();
    }
}
