//! An engine whose clock says what it is told, with a topic that keeps the last event of each key.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
};

use levada_broker::{Broker, BrokerConfig, Clock, CompactionConfig, Content, Delivery, Principal};
use levada_protocol::{
    batch::{BatchBuilder, Stamp},
    event::Event,
    ids::{PartitionId, Timestamp},
    publish::{AckOutcome, PublishHeader},
    request::{
        PartitionInfo, PurgeTopic, Read, Request, Response, Retain, Search, Start, SubscriptionOptions,
        TopicChanges, TopicSettings,
    },
    schedule::Due,
    verbs::Credit,
};
use levada_store::{
    Commit, Family, MemoryStore, Op, ScanLimit, Store,
    commit::Term,
    record::{LogRange, RECORD_PREFIX_BYTES},
};
use tokio::time::timeout;

use crate::support::{Engine, Look, SOON, until};

pub(super) const MINUTE: u64 = 60_000;
pub(super) const DAY: u64 = 24 * 60 * MINUTE;
const NOW: u64 = 1_767_225_600_000;

/// An event as it is read: offset, key and payload.
pub(super) type Seen = (u64, Option<String>, Option<String>);

pub(super) struct Scene {
    pub(super) engine: Engine,
    now: Arc<AtomicU64>,
    config: CompactionConfig,
}

/// Settings of a topic that keeps the last event of each key.
pub(super) fn compacted() -> TopicSettings {
    TopicSettings { retain: Retain::Compact, ..TopicSettings::default() }
}

/// Notes that the space of what was replaced in the log is to be given back, in a store that no engine has.
pub(super) fn note_replaced(store: &MemoryStore) {
    let key = [vec![0x12, 0x82, 14], vec![0; 14], vec![0xff; 14]].concat();
    let put = Op::Put { family: Family::Meta, key: key.into(), value: vec![1].into() };
    store.apply(&Commit::after(&store.last(), Term(1), Timestamp(0), vec![put])).unwrap();
    store.sync().unwrap();
}

fn clock(now: &Arc<AtomicU64>) -> Clock {
    let now = Arc::clone(now);
    Clock::of(move || Timestamp(now.load(Ordering::SeqCst)))
}

impl Scene {
    pub(super) async fn new() -> Self {
        Self::with(compacted()).await
    }

    pub(super) async fn with(settings: TopicSettings) -> Self {
        Self::configured(settings, |_| {}).await
    }

    pub(super) async fn configured(
        settings: TopicSettings,
        change: impl FnOnce(&mut CompactionConfig),
    ) -> Self {
        let now = Arc::new(AtomicU64::new(NOW));
        let mut config = CompactionConfig::default();
        change(&mut config);
        let clock = clock(&now);
        let engine = Engine::with(|all| (all.clock, all.compaction) = (clock, config));
        engine.topic("orders", settings).await;
        Self { engine, now, config }
    }

    /// After a crash.
    pub(super) async fn restart(self) -> Self {
        self.restart_with(|_, _| {}).await
    }

    /// After a crash, with a configuration or a store that is changed a little.
    pub(super) async fn restart_with(self, change: impl FnOnce(&mut BrokerConfig, &MemoryStore)) -> Self {
        let Self { engine, now, config: compaction } = self;
        // What was answered and is not durable is gone; what is committed from here on is nobody's.
        engine.store.inner.crash();
        engine.broker.shutdown().await;
        engine.store.inner.crash();
        let clock = clock(&now);
        let mut config =
            BrokerConfig { disk_reserve_bytes: 0, clock, compaction, ..BrokerConfig::new(engine.dir.path()) };
        change(&mut config, &engine.store.inner);
        let (store, plugins) = (Arc::clone(&engine.store), Arc::clone(&engine.plugins));
        let broker = Broker::start(config, store as _, plugins as _).unwrap();
        Self { engine: Engine { broker, ..engine }, now, config: compaction }
    }

    pub(super) fn later(&self, by: u64) {
        self.now.fetch_add(by, Ordering::SeqCst);
    }

    pub(super) fn now(&self) -> u64 {
        self.now.load(Ordering::SeqCst)
    }

    /// What is published from now on lies in another segment than what was; ten minutes later that is old enough.
    pub(super) fn next_segment(&self) {
        self.later(10 * MINUTE);
    }

    /// Publishes events of these keys and payloads as one batch.
    pub(super) async fn publish(&self, events: &[(&str, Option<&str>)]) {
        let mut builder = BatchBuilder::new();
        for (key, payload) in events {
            let payload = payload.map(|payload| payload.to_owned().into());
            builder.push(&Event { payload, ..Event::default() }.with_key((*key).to_owned())).unwrap();
        }
        let outcome = self.submit(None, builder).await;
        assert!(matches!(outcome, AckOutcome::Appended { .. }), "{outcome:?}");
    }

    /// Tries to publish events of these keys, which need not have one.
    pub(super) async fn try_publish(&self, due: Option<Due>, events: &[(Option<&str>, &str)]) -> AckOutcome {
        let mut builder = BatchBuilder::new();
        for (key, payload) in events {
            let key = key.map(|key| key.to_owned().into());
            builder.push(&Event { key, ..Event::new((*payload).to_owned()) }).unwrap();
        }
        self.submit(due, builder).await
    }

    async fn submit(&self, due: Option<Due>, mut builder: BatchBuilder) -> AckOutcome {
        let (partition, durability, expect_offset) = (PartitionId(0), None, None);
        let header = PublishHeader { correlation: 1, partition, durability, expect_offset, due };
        let topic = "orders".parse().unwrap();
        let mut stream = self.engine.broker.open_publish(&Principal::Local, &topic).unwrap();
        stream.submitter().submit(header, builder.finish(Stamp::ENGINE)).await.unwrap();
        timeout(SOON, stream.acks.recv()).await.unwrap().unwrap().outcome
    }

    /// A round of retention and compaction ten minutes later: what is closed by now is old enough.
    pub(super) async fn pass(&self) {
        self.later(10 * MINUTE);
        self.round().await;
    }

    /// A round of retention and compaction.
    pub(super) async fn round(&self) {
        self.engine.broker.run_retention_at(Timestamp(self.now())).await.unwrap();
    }

    /// A pass that is given up once so many records became part of others.
    pub(super) async fn cut_pass(&self, records: usize) {
        self.later(10 * MINUTE);
        let mut pass = pin!(self.engine.broker.run_retention_at(Timestamp(self.now())));
        self.polled(records, pass.as_mut()).await;
    }

    /// A pass with something that happens once so many records became part of others.
    pub(super) async fn pass_with(&self, records: usize, between: impl AsyncFnOnce(&Self)) {
        self.later(10 * MINUTE);
        let mut pass = pin!(self.engine.broker.run_retention_at(Timestamp(self.now())));
        assert!(!self.polled(records, pass.as_mut()).await, "the pass goes on");
        between(self).await;
        pass.await.unwrap();
    }

    /// A pass that is purged up to an offset once so many records became part of others. It goes on once the purge has found
    /// where to cut the log, as far as it can; then the log is cut.
    pub(super) async fn pass_purged(&self, records: usize, purge: PurgeTopic) {
        self.later(10 * MINUTE);
        let mut pass = pin!(self.engine.broker.run_retention_at(Timestamp(self.now())));
        assert!(!self.polled(records, pass.as_mut()).await, "the pass goes on");
        let store = &self.engine.store;
        store.hold_looks(Some(Look::Last));
        let mut purged = pin!(self.engine.ask(Request::PurgeTopic(purge)));
        tokio::select! {
            biased;
            _ = purged.as_mut() => panic!("it is held up"),
            () = store.looked.notified() => {}
            _ = pass.as_mut() => panic!("the pass goes on"),
        }
        let mut turns = 2_000;
        let passed = poll_fn(|context| match pass.as_mut().poll(context) {
            Poll::Ready(passed) => Poll::Ready(Some(passed)),
            Poll::Pending if turns == 0 => Poll::Ready(None),
            Poll::Pending => {
                turns -= 1;
                context.waker().wake_by_ref();
                Poll::Pending
            }
        })
        .await;
        store.hold_looks(None);
        match passed {
            Some(passed) => drop((passed.unwrap(), purged.await)),
            None => drop(tokio::join!(purged, async { pass.await.unwrap() })),
        }
    }

    /// A pass that is given up as soon as something is so.
    pub(super) async fn cut_pass_when(&self, is_so: impl Fn() -> bool) {
        self.later(10 * MINUTE);
        let mut pass = pin!(self.engine.broker.run_retention_at(Timestamp(self.now())));
        poll_fn(|context| {
            if is_so() {
                return Poll::Ready(());
            }
            assert!(pass.as_mut().poll(context).is_pending(), "it is so before the pass has ended");
            Poll::Pending
        })
        .await;
    }

    /// Polls until so many records became part of others; true if it has ended.
    async fn polled<T>(&self, records: usize, mut pass: Pin<&mut impl Future<Output = T>>) -> bool {
        let before = self.keys_stored();
        let merged = || before - self.keys_stored();
        poll_fn(|context| match pass.as_mut().poll(context) {
            Poll::Ready(_) => Poll::Ready(true),
            Poll::Pending if merged() >= records => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    pub(super) async fn partition(&self) -> PartitionInfo {
        self.engine.partition("orders").await
    }

    /// Waits until the route has come to an offset.
    pub(super) async fn until_routed(&self, offset: u64) {
        let waiting = async {
            loop {
                let request = Request::ListRoutes { limit: 1, after: None };
                let Response::Routes { routes, .. } = self.engine.ask(request).await else {
                    panic!("no routes")
                };
                if routes[0].positions[0].offset >= offset {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, waiting).await.expect("it comes there");
    }

    /// Waits until another topic has so many events.
    pub(super) async fn until_end(&self, topic: &str, end: u64) {
        let waiting = async {
            while self.engine.partition(topic).await.end < end {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, waiting).await.expect("it comes there");
    }

    /// The subscription, made anew where it is to begin.
    pub(super) async fn subscription(&self, from: Start) {
        self.subscription_with(from, SubscriptionOptions::default()).await;
    }

    pub(super) async fn subscription_with(&self, from: Start, options: SubscriptionOptions) {
        let (topic, name) = ("orders".parse().unwrap(), "payment".parse().unwrap());
        let delete = Request::DeleteSubscription { topic, name, force: true, with_dead_letters: false };
        // There may be none yet.
        let _ = self.engine.broker.request(&Principal::Local, delete, None).await;
        let (topic, name) = ("orders".parse().unwrap(), "payment".parse().unwrap());
        self.engine.ask(Request::CreateSubscription { topic, name, options, from }).await;
        self.engine.until_info(|_| true).await;
    }

    pub(super) async fn seek(&self, to: Start) {
        let (topic, name) = ("orders".parse().unwrap(), "payment".parse().unwrap());
        self.engine.ask(Request::SeekSubscription { topic, name, partitions: Vec::new(), to }).await;
    }

    /// Everything that a reader finds.
    pub(super) async fn read_log(&self) -> Vec<Seen> {
        let start = self.partition().await.start;
        self.read(start, u64::MAX, None).await
    }

    /// Everything from an offset on, so many events at a time.
    async fn read(&self, from: u64, events: u64, search: Option<Search>) -> Vec<Seen> {
        let read =
            Read { from: Start::Offset(from), follow: false, search, ..Read::new("orders".parse().unwrap()) };
        let mut reader = self.engine.broker.read(&Principal::Local, read).await.unwrap();
        let credit = Credit { events, bytes: 1 << 40 };
        reader.credit.grant(credit).await.unwrap();
        let mut seen: Vec<Seen> = Vec::new();
        loop {
            let next = timeout(SOON, reader.outgoing.recv()).await.expect("it goes on").unwrap().unwrap();
            match next.content() {
                Content::Delivery(Delivery { runs, header }) => {
                    for run in runs {
                        assert!(!run.batches.is_empty(), "no run is empty");
                        for (base, batch) in run.batches().map(Result::unwrap) {
                            let text = |it: &[u8]| String::from_utf8(it.to_vec()).unwrap();
                            seen.extend(
                                batch.events().map(|it| {
                                    (it.offset(base).0, it.key().map(text), it.payload().map(text))
                                }),
                            );
                        }
                    }
                    assert!(seen.last().unwrap().0 < runs[0].base.0 + u64::from(header.span));
                    // The next ones are asked for one by one.
                    let _ = reader.credit.grant(Credit { bytes: 0, ..credit }).await;
                }
                Content::End(ends) => {
                    assert_eq!(ends[0].next.0, self.partition().await.end);
                    assert!(seen.is_sorted_by(|one, other| one.0 < other.0), "{seen:?}");
                    return seen;
                }
                _ => {}
            }
        }
    }

    pub(super) async fn offsets(&self) -> Vec<u64> {
        self.read_log().await.into_iter().map(|(offset, ..)| offset).collect()
    }

    pub(super) async fn offsets_from(&self, from: u64, events: u64) -> Vec<u64> {
        self.read(from, events, None).await.into_iter().map(|(offset, ..)| offset).collect()
    }

    /// The offsets of what a search finds.
    pub(super) async fn found(&self, condition: &str) -> Vec<u64> {
        let search = Search { condition: Some(condition.to_owned()), ..Search::default() };
        self.read(0, u64::MAX, Some(search)).await.into_iter().map(|(offset, ..)| offset).collect()
    }

    /// Offsets, keys and payloads, that of a tombstone empty.
    pub(super) async fn texts(&self) -> Vec<String> {
        let seen = self.read_log().await.into_iter();
        let text = |(offset, key, payload): Seen| {
            format!("{offset} {}={}", key.unwrap_or_default(), payload.unwrap_or_default())
        };
        seen.map(text).collect()
    }

    fn rows(&self, family: Family, from: &[u8], to: &[u8]) -> Vec<(bytes::Bytes, bytes::Bytes)> {
        self.engine.store.scan(family, from, to, ScanLimit::NONE).unwrap()
    }

    /// The keys of the log.
    pub(super) fn keys_stored(&self) -> usize {
        self.rows(Family::Log, &[], &[0xff; 14]).len()
    }

    /// The rows that say how far partitions are compacted.
    pub(super) fn rows_of_compaction(&self) -> usize {
        self.rows(Family::Meta, &[0x14], &[0x15]).len()
    }

    /// Up to where the topic's only partition is compacted, as it is stored.
    pub(super) fn compacted_until(&self) -> u64 {
        let rows = self.rows(Family::Meta, &[0x14], &[0x15]);
        rows.first().map_or(0, |(_, value)| u64::from_le_bytes(value[1..9].try_into().unwrap()))
    }

    /// The rows that say where segments begin.
    pub(super) fn segments(&self) -> usize {
        self.rows(Family::Meta, &[0x11], &[0x12]).len()
    }

    /// Sets what the topic retains.
    pub(super) async fn set(&self, retain: Retain) {
        let settings = TopicChanges { retain: Some(retain), ..TopicChanges::default() };
        self.engine.ask(Request::SetTopic { name: "orders".parse().unwrap(), settings }).await;
    }

    /// Has the record that begins at an offset be read as damaged, or none.
    pub(super) fn damage(&self, base: Option<u64>) {
        let row = |(key, _): &(bytes::Bytes, bytes::Bytes)| {
            base.is_some_and(|base| key.ends_with(&base.to_be_bytes()))
        };
        let found = self.rows(Family::Log, &[], &[0xff; 14]).into_iter().find(row);
        assert_eq!(found.is_some(), base.is_some(), "a record begins there");
        *self.engine.store.damaged.lock().unwrap() = found.map(|(key, _)| key);
    }

    /// Bytes of batches in the log.
    pub(super) fn bytes_stored(&self) -> u64 {
        let log = LogRange { from: bytes::Bytes::new(), to: bytes::Bytes::from_static(&[0xff; 14]) };
        let rows = self.rows(Family::Log, &log.from, &log.to);
        rows.iter().map(|(_, value)| (value.len() - RECORD_PREFIX_BYTES) as u64).sum()
    }

    /// The metric of what compaction has dropped.
    pub(super) async fn compacted_bytes(&self) -> Option<f64> {
        let series = self.engine.broker.observe().await;
        let found = series.iter().find(|series| series.name == "levada_compacted_bytes_total")?;
        Some(found.samples[0].value)
    }

    /// Waits until the space of what was dropped was given back.
    pub(super) async fn until_reclaimed(&self) {
        until(|| self.rows(Family::Meta, &[0x12], &[0x13]).is_empty()).await;
    }

    /// How many notes there are of ranges of which rows live, and how many of others.
    pub(super) fn notes(&self) -> (usize, usize) {
        let count = |from, to| self.rows(Family::Meta, &[0x12, from], &[0x12, to]).len();
        (count(0x80, 0xff), count(0, 0x80))
    }
}
