//! A broker on a disk in memory, and what it takes to publish to it and to watch it, without a network.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use levada_broker::{Broker, BrokerConfig, Clock, Content, Outgoing, Principal, PublishStream, Submitter};
use levada_client::{ErrorCode, PartitionId, Start, TopicSettings};
use levada_protocol::{
    batch::Batch,
    deliver::Run,
    publish::{Ack, AckOutcome, Durability, PublishHeader},
    request::{Read, Request, Response, Subscribe, SubscriptionOptions, TopicInfo},
    schedule::Due,
    verbs::Credit,
};
use levada_stage::{Artefact, AttachError, AttachSpec, BoxFuture, Inspected, Plugins, Stage};
use levada_store::MemoryStore;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::{
    cut_store::CutStore,
    events::{number_of, payload},
    within,
};

pub(crate) const ME: Principal = Principal::Local;

/// A machine: a disk that outlives its power cuts.
pub(crate) struct Machine {
    pub(crate) disk: Arc<MemoryStore>,
    dir: TempDir,
}

/// The machine while it has power.
pub(crate) struct Powered {
    pub(crate) broker: Broker,
    pub(crate) store: Arc<CutStore>,
}

/// No plugins: the routes here copy.
struct NoPlugins;

impl Plugins for NoPlugins {
    fn inspect(&self, _: Bytes) -> BoxFuture<Result<Inspected, AttachError>> {
        Box::pin(async { Err(AttachError::new(ErrorCode::PluginInvalid, "there are no plugins here")) })
    }

    fn attach(&self, _: Artefact, _: AttachSpec) -> BoxFuture<Result<Arc<dyn Stage>, AttachError>> {
        Box::pin(async { Err(AttachError::new(ErrorCode::PluginInvalid, "there are no plugins here")) })
    }
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self { disk: Arc::new(MemoryStore::new()), dir: TempDir::new().unwrap() }
    }

    pub(crate) fn start(&self) -> Powered {
        self.start_with(Clock::system())
    }

    /// Starts it where the time of day is what this clock says.
    pub(crate) fn start_with(&self, clock: Clock) -> Powered {
        let store = CutStore::new(Arc::clone(&self.disk));
        let config = BrokerConfig {
            clock,
            disk_reserve_bytes: 0,
            disk_check_interval: Duration::from_millis(5),
            progress_delay: Duration::from_millis(1),
            ..BrokerConfig::new(self.dir.path())
        };
        let broker = Broker::start(config, Arc::clone(&store) as _, Arc::new(NoPlugins)).unwrap();
        Powered { broker, store }
    }
}

impl Powered {
    /// The power goes, and so does everything that was running.
    pub(crate) async fn cut(self) {
        self.store.cut();
        within("the end after the cut", self.broker.shutdown()).await;
    }

    pub(crate) async fn ask(&self, request: Request) -> Response {
        within("an answer", self.broker.request(&ME, request, None)).await.unwrap()
    }

    pub(crate) async fn create(&self, name: &str, durability: Durability) {
        let settings = TopicSettings { durability, ..TopicSettings::default() };
        self.ask(Request::CreateTopic { name: name.parse().unwrap(), settings }).await;
    }

    pub(crate) async fn describe(&self, name: &str) -> TopicInfo {
        match self.ask(Request::DescribeTopic { name: name.parse().unwrap() }).await {
            Response::Topic(topic) => topic,
            other => panic!("expected a topic, got {other:?}"),
        }
    }

    pub(crate) async fn end(&self, name: &str) -> u64 {
        self.describe(name).await.partitions[0].end
    }

    pub(crate) fn publisher(&self, topic: &str) -> Publishing {
        let stream = self.broker.open_publish(&ME, &topic.parse().unwrap()).unwrap();
        let submitter = stream.submitter();
        Publishing { stream, submitter, correlation: 0 }
    }

    /// A reader from the first event on, with all the credit it may want.
    pub(crate) async fn reader(&self, topic: &str, follow: bool) -> Reading {
        let read = Read { from: Start::Earliest, follow, ..Read::new(topic.parse().unwrap()) };
        let reader = self.broker.read(&ME, read).await.unwrap();
        reader.credit.grant(Credit { events: 1 << 40, bytes: 1 << 40 }).await.unwrap();
        Reading { outgoing: reader.outgoing, seen: Vec::new(), _held: Box::new(reader.credit) }
    }

    /// A consumer that never says anything.
    pub(crate) async fn consumer(&self, topic: &str) -> Reading {
        let options = SubscriptionOptions {
            max_in_flight: Some(1_000_000),
            // So that nothing comes again.
            ack_timeout_ms: Some(24 * 3_600_000),
            ..SubscriptionOptions::default()
        };
        let subscribe = Subscribe {
            options: Some(options),
            from: Start::Earliest,
            ..Subscribe::new(topic.parse().unwrap(), "watcher".parse().unwrap())
        };
        let consumer = self.broker.subscribe(&ME, subscribe).await.unwrap();
        consumer.control.credit(Credit { events: 1 << 40, bytes: 1 << 40 }).await.unwrap();
        Reading { outgoing: consumer.outgoing, seen: Vec::new(), _held: Box::new(consumer.control) }
    }

    /// Everything that a topic holds now.
    pub(crate) async fn read_all(&self, topic: &str) -> Vec<(u64, u64)> {
        let mut reading = self.reader(topic, false).await;
        while within("the rest", reading.next()).await {}
        reading.seen
    }
}

/// A publish stream.
pub(crate) struct Publishing {
    stream: PublishStream,
    pub(crate) submitter: Submitter,
    correlation: u32,
}

impl Publishing {
    pub(crate) async fn submit(&mut self, durability: Option<Durability>, batch: &Batch) {
        self.send(durability, None, batch).await;
    }

    /// Publishes a batch that is appended when it is due.
    pub(crate) async fn schedule(&mut self, due: Due, batch: &Batch) -> AckOutcome {
        self.send(None, Some(due), batch).await;
        self.ack().await.outcome
    }

    async fn send(&mut self, durability: Option<Durability>, due: Option<Due>, batch: &Batch) {
        self.correlation += 1;
        let (correlation, partition) = (self.correlation, PartitionId(0));
        let header = PublishHeader { correlation, partition, durability, expect_offset: None, due };
        within("admission", self.submitter.submit(header, batch.clone())).await.unwrap();
    }

    pub(crate) async fn ack(&mut self) -> Ack {
        within("an acknowledgement", self.stream.acks.recv()).await.unwrap()
    }

    pub(crate) async fn publish(&mut self, batch: &Batch) -> AckOutcome {
        self.submit(None, batch).await;
        self.ack().await.outcome
    }

    /// The outcomes that are there.
    pub(crate) fn ready(&mut self) -> Vec<Ack> {
        std::iter::from_fn(|| self.stream.acks.try_recv().ok()).collect()
    }
}

/// Somebody who sees events: offsets with the numbers in them.
pub(crate) struct Reading {
    outgoing: mpsc::Receiver<Result<Outgoing, levada_broker::Error>>,
    pub(crate) seen: Vec<(u64, u64)>,
    _held: Box<dyn std::any::Any + Send>,
}

impl Reading {
    /// Waits for a frame; false at the end.
    pub(crate) async fn next(&mut self) -> bool {
        match self.outgoing.recv().await {
            Some(Ok(frame)) => self.take(&frame),
            Some(Err(_)) | None => false,
        }
    }

    /// Takes what is there.
    pub(crate) fn look(&mut self) {
        while let Ok(Ok(frame)) = self.outgoing.try_recv() {
            self.take(&frame);
        }
    }

    fn take(&mut self, outgoing: &Outgoing) -> bool {
        let runs = match outgoing.content() {
            Content::Delivery(delivery) => &delivery.runs,
            Content::Settled(_) => return true,
            Content::End(_) | Content::Progress(_) => return false,
        };
        for (base, batch) in runs.iter().flat_map(Run::batches).map(Result::unwrap) {
            for event in batch.events() {
                let number = number_of(payload(&event.to_event(&batch)));
                self.seen.push((event.offset(base).0, number));
            }
        }
        true
    }
}
