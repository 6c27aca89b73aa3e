//! An engine that pushes: a broker on the memory store, and all pushes of its catalogue.

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use levada_broker::{Broker, BrokerConfig, Content, Error, Principal};
use levada_protocol::{
    batch::{BatchBuilder, Stamp},
    dead_letters::DeadLetter,
    error::ErrorCode,
    event::Event,
    ids::PartitionId,
    publish::PublishHeader,
    request::{
        IssuedPush, Read, Request, Response, SetPush, Start, SubscriptionInfo, SubscriptionOptions,
        TopicSettings,
    },
    verbs::Credit,
};
use levada_stage::{Artefact, AttachError, AttachSpec, BoxFuture, Inspected, Plugins, Stage};
use levada_store::MemoryStore;
use levada_webhook::{Allowed, PushConfig, Pushers, Transport, UrlRules};
use tempfile::TempDir;
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::receiver::SOON;

/// The secret of the tests that give one.
pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

struct NoPlugins;

impl Plugins for NoPlugins {
    fn inspect(&self, _artefact: Bytes) -> BoxFuture<Result<Inspected, AttachError>> {
        Box::pin(async { Err(AttachError::new(ErrorCode::PluginInvalid, "no plugins here")) })
    }

    fn attach(
        &self,
        _artefact: Artefact,
        _spec: AttachSpec,
    ) -> BoxFuture<Result<Arc<dyn Stage>, AttachError>> {
        Box::pin(async { Err(AttachError::new(ErrorCode::PluginInvalid, "no plugins here")) })
    }
}

/// What a push is sent by.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) allow: Vec<&'static str>,
    pub(crate) ca: Option<PathBuf>,
}

impl Default for Setup {
    /// Everything on this machine is allowed.
    fn default() -> Self {
        Self { allow: vec!["127.0.0.0/8", "::1"], ca: None }
    }
}

pub(crate) struct Engine {
    pub(crate) broker: Broker,
    store: Arc<MemoryStore>,
    dir: TempDir,
    setup: Setup,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Engine {
    /// An engine with a topic `orders` of one partition and its subscription `payment`.
    pub(crate) async fn start(options: SubscriptionOptions) -> Self {
        Self::with(Setup::default(), options).await
    }

    pub(crate) async fn with(setup: Setup, options: SubscriptionOptions) -> Self {
        let engine = Self::on(Arc::default(), tempfile::tempdir().unwrap(), setup);
        let settings = TopicSettings { partitions: 1, ..TopicSettings::default() };
        engine.ask(Request::CreateTopic { name: "orders".parse().unwrap(), settings }).await;
        let (topic, name) = names();
        engine.ask(Request::CreateSubscription { topic, name, options, from: Start::Earliest }).await;
        engine
    }

    fn on(store: Arc<MemoryStore>, dir: TempDir, setup: Setup) -> Self {
        let allow = Allowed::new(setup.allow.iter().map(|text| text.parse().unwrap()).collect());
        let config = BrokerConfig {
            disk_reserve_bytes: 0,
            push_urls: Some(Arc::new(UrlRules::new(allow.clone()))),
            ..BrokerConfig::new(dir.path())
        };
        let broker = Broker::start(config, Arc::clone(&store) as _, Arc::new(NoPlugins)).unwrap();
        let transport = Transport::new(PushConfig { allow, ca: setup.ca.clone() }).unwrap();
        let pushers = Pushers::new(broker.clone(), transport);
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        tasks.spawn(pushers.run(stop.clone()));
        Self { broker, store, dir, setup, stop, tasks }
    }

    /// Ends the pushes, and then the broker.
    pub(crate) async fn stop(mut self) -> (Arc<MemoryStore>, TempDir, Setup) {
        self.stop.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        timeout(SOON, ended).await.expect("pushes end");
        self.broker.shutdown().await;
        (self.store, self.dir, self.setup)
    }

    /// Another engine on what this one has stored.
    pub(crate) async fn restart(self) -> Self {
        let (store, dir, setup) = self.stop().await;
        store.crash();
        Self::on(store, dir, setup)
    }

    pub(crate) async fn try_ask(&self, request: Request) -> Result<Response, Error> {
        self.broker.request(&Principal::Local, request, None).await
    }

    pub(crate) async fn ask(&self, request: Request) -> Response {
        self.try_ask(request).await.unwrap()
    }

    /// Pushes to this URL.
    pub(crate) async fn push(&self, url: String) -> IssuedPush {
        self.set(SetPush { secret: Some(SECRET.parse().unwrap()), ..to(Some(url)) }).await
    }

    pub(crate) async fn set(&self, set: SetPush) -> IssuedPush {
        match self.ask(Request::SetPush(set)).await {
            Response::Push(issued) => *issued,
            other => panic!("{other:?}"),
        }
    }

    /// Publishes these events, each with a key if one is given, in one batch.
    pub(crate) async fn publish(&self, events: &[(Option<&str>, u64)]) {
        let mut builder = BatchBuilder::new();
        for (key, number) in events {
            let event = Event::new(number.to_string()).with_header("content-type", "application/json");
            builder.push(&Event { key: key.map(|key| key.to_owned().into()), ..event }).unwrap();
        }
        let mut stream = self.broker.open_publish(&Principal::Local, &names().0).unwrap();
        let partition = PartitionId(0);
        let header =
            PublishHeader { correlation: 1, partition, durability: None, expect_offset: None, due: None };
        stream.submitter().submit(header, builder.finish(Stamp::ENGINE)).await.unwrap();
        timeout(SOON, stream.acks.recv()).await.unwrap().unwrap();
    }

    pub(crate) async fn info(&self) -> SubscriptionInfo {
        let (topic, name) = names();
        match self.ask(Request::DescribeSubscription { topic, name }).await {
            Response::Subscription(info) => *info,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until the subscription is described as `is_so` wants it.
    pub(crate) async fn until(&self, is_so: impl Fn(&SubscriptionInfo) -> bool) -> SubscriptionInfo {
        let waiting = async {
            loop {
                let info = self.info().await;
                if is_so(&info) {
                    return info;
                }
                tokio::task::yield_now().await;
            }
        };
        match timeout(SOON, waiting).await {
            Ok(info) => info,
            Err(_) => panic!("it does not come to be so: {:?}", self.info().await),
        }
    }

    /// Waits until everything is acknowledged.
    pub(crate) async fn until_done(&self) -> SubscriptionInfo {
        self.until(|info| info.lag == 0 && info.in_flight == 0).await
    }

    /// Waits until a request has failed, and returns what is said of it.
    pub(crate) async fn failure(&self) -> String {
        let failed =
            |info: &SubscriptionInfo| info.push.as_ref().is_some_and(|push| push.last_failure.is_some());
        self.until(failed).await.push.unwrap().last_failure.unwrap().message
    }

    /// Reason and text of the first dead letter, and how many deliveries failed.
    pub(crate) async fn dead_letter(&self) -> (String, String, Option<u32>) {
        self.until(|info| info.dead_lettered > 0).await;
        let read =
            Read { from: Start::Earliest, follow: true, ..Read::new("dlq.orders.payment".parse().unwrap()) };
        let mut reader = self.broker.read(&Principal::Local, read).await.unwrap();
        reader.credit.grant(Credit { events: 1_000, bytes: 1 << 20 }).await.unwrap();
        let outgoing = timeout(SOON, reader.outgoing.recv()).await.unwrap().unwrap().unwrap();
        let Content::Delivery(delivery) = outgoing.content() else { panic!("{outgoing:?}") };
        let (_, batch) = delivery.runs[0].batches().next().unwrap().unwrap();
        let event = batch.events().next().unwrap();
        let letter = DeadLetter::of(&event);
        (letter.reason.to_owned(), letter.error.to_owned(), letter.attempts)
    }
}

pub(crate) fn names() -> (levada_protocol::ids::TopicName, levada_protocol::ids::SubscriptionName) {
    ("orders".parse().unwrap(), "payment".parse().unwrap())
}

pub(crate) fn to(url: Option<String>) -> SetPush {
    let (topic, name) = names();
    SetPush::new(topic, name, url)
}

/// Options of a subscription whose failed events come again after so many milliseconds.
pub(crate) fn again_after(backoff_ms: u32) -> SubscriptionOptions {
    SubscriptionOptions { backoff_ms: Some(vec![backoff_ms]), ..SubscriptionOptions::default() }
}
