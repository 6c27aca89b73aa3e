//! Owners that are replaced while they have something under way.

use levada_stage::{Artefact, AttachError, AttachSpec, BoxFuture, Inspected, Plugins, Stage};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use levada_protocol::{
    batch::{BatchBuilder, Stamp},
    error::ErrorCode,
    event::Event,
    ids::{DeliveryToken, Offset, PartitionId, SubscriptionId, Timestamp},
    publish::PublishHeader,
    request::{Request, Response, Start, Subscribe, SubscriptionInfo, SubscriptionOptions, TopicSettings},
    verbs::{Credit, Verb, VerbKind, Verbs},
};
use levada_store::{Commit, Family, MemoryStore, ScanLimit, Store, commit::Term};
use tokio::time::timeout;

use crate::{
    Broker, BrokerConfig, Consumer, Content, Principal,
    rows::{NextId, Row, SubscriptionRecord, TopicRecord, UnattendedSince},
};

const SOON: Duration = Duration::from_secs(20);

/// An engine without plugins.
struct NoPlugins;

impl Plugins for NoPlugins {
    fn inspect(&self, _artefact: Bytes) -> BoxFuture<Result<Inspected, AttachError>> {
        Box::pin(async { Err(AttachError::new(ErrorCode::PluginInvalid, "there are no plugins")) })
    }

    fn attach(
        &self,
        _artefact: Artefact,
        _spec: AttachSpec,
    ) -> BoxFuture<Result<Arc<dyn Stage>, AttachError>> {
        Box::pin(async { Err(AttachError::new(ErrorCode::PluginNotFound, "there are no plugins")) })
    }
}

struct Engine {
    broker: Broker,
    _dir: tempfile::TempDir,
}

impl Engine {
    /// An engine with three events in `orders`.
    async fn start() -> Self {
        Self::on(Arc::new(MemoryStore::new())).await
    }

    /// The same on a store that may hold other things.
    async fn on(store: Arc<dyn Store>) -> Self {
        Self::with(store, |_| {}).await
    }

    /// The same with a configuration that is changed a little.
    async fn with(store: Arc<dyn Store>, change: impl FnOnce(&mut BrokerConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = BrokerConfig { disk_reserve_bytes: 0, ..BrokerConfig::new(dir.path()) };
        change(&mut config);
        let broker = Broker::start(config, store, Arc::new(NoPlugins)).unwrap();
        let create =
            Request::CreateTopic { name: "orders".parse().unwrap(), settings: TopicSettings::default() };
        broker.request(&Principal::Local, create, None).await.unwrap();
        let mut builder = BatchBuilder::new();
        (0..3).for_each(|number: u8| builder.push(&Event::new(number.to_string())).unwrap());
        let mut stream = broker.open_publish(&Principal::Local, &"orders".parse().unwrap()).unwrap();
        let (partition, correlation) = (PartitionId(0), 1);
        let header =
            PublishHeader { correlation, partition, durability: None, expect_offset: None, due: None };
        stream.submitter().submit(header, builder.finish(Stamp::ENGINE)).await.unwrap();
        timeout(SOON, stream.acks.recv()).await.unwrap().unwrap();
        Self { broker, _dir: dir }
    }

    async fn subscribe(&self) -> Consumer {
        let subscribe = Subscribe {
            consumer: "test".into(),
            options: Some(SubscriptionOptions::default()),
            from: Start::Earliest,
            ..Subscribe::new("orders".parse().unwrap(), "payment".parse().unwrap())
        };
        let consumer = timeout(SOON, self.broker.subscribe(&Principal::Local, subscribe)).await;
        let consumer = consumer.unwrap().unwrap();
        consumer.control.credit(Credit { events: 100, bytes: 1 << 20 }).await.unwrap();
        consumer
    }

    fn subscription(&self) -> SubscriptionId {
        let catalogue = self.broker.inner.shard.catalogue();
        let record = catalogue.subscription(&"orders".parse().unwrap(), &"payment".parse().unwrap());
        SubscriptionId(record.unwrap().id)
    }

    /// Starts another owner of the subscription beside the one that runs.
    async fn replace_owner(&self) {
        let _changing = self.broker.inner.changing.lock().await;
        self.broker.replace_owner(self.subscription()).await.unwrap();
    }

    async fn describe(&self) -> SubscriptionInfo {
        let request = Request::DescribeSubscription {
            topic: "orders".parse().unwrap(),
            name: "payment".parse().unwrap(),
        };
        match self.broker.request(&Principal::Local, request, None).await.unwrap() {
            Response::Subscription(info) => *info,
            other => panic!("{other:?}"),
        }
    }
}

/// The token of a delivery of all three events.
async fn delivery(consumer: &mut Consumer) -> DeliveryToken {
    let next = timeout(SOON, consumer.outgoing.recv()).await.unwrap().unwrap().unwrap();
    let Content::Delivery(delivery) = next.content() else { panic!("expected a delivery: {next:?}") };
    assert_eq!(delivery.header.span, 3);
    delivery.header.token
}

async fn ack(consumer: &Consumer, token: DeliveryToken) {
    let (kind, partition) = (VerbKind::Ack, PartitionId(0));
    let verb = Verb { kind, partition, token, first: Offset(0), last: Offset(2) };
    // An owner that has ended says so on the stream as well.
    let _ = consumer.control.verbs(Verbs { sequence: 1, verbs: vec![verb] }).await;
}

#[tokio::test]
async fn an_owner_that_was_replaced_commits_nothing_any_more() {
    let engine = Engine::start().await;
    let mut consumer = engine.subscribe().await;
    let token = delivery(&mut consumer).await;
    // The owner of this consumer runs on, and does not know.
    engine.replace_owner().await;
    ack(&consumer, token).await;
    let end = timeout(SOON, consumer.outgoing.recv()).await.unwrap().unwrap().unwrap_err();
    assert_eq!(end.code(), ErrorCode::SubscriptionMoved, "{end}");
    assert!(end.is_retryable());
    assert_eq!(engine.describe().await.lag, 3);
    let mut consumer = engine.subscribe().await;
    let token = delivery(&mut consumer).await;
    ack(&consumer, token).await;
    timeout(SOON, consumer.outgoing.recv())
        .await
        .unwrap()
        .unwrap()
        .expect("the acknowledgement is confirmed");
    assert_eq!(engine.describe().await.lag, 0);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_subscription_whose_owner_has_ended_gets_another_one() {
    let engine = Engine::start().await;
    let mut consumer = engine.subscribe().await;
    delivery(&mut consumer).await;
    let handle = engine.broker.inner.owner_tasks.subscription(engine.subscription()).unwrap();
    handle.stop();
    let end = timeout(SOON, consumer.outgoing.recv()).await.unwrap().unwrap();
    assert!(end.is_err());
    let mut consumer = engine.subscribe().await;
    let token = delivery(&mut consumer).await;
    ack(&consumer, token).await;
    timeout(SOON, consumer.outgoing.recv())
        .await
        .unwrap()
        .unwrap()
        .expect("the acknowledgement is confirmed");
    assert_eq!(engine.describe().await.lag, 0);
    engine.broker.shutdown().await;
}

/// A store with so many subscriptions of a topic that is not `orders`, none of which has had a consumer since 1970.
fn store_with(subscriptions: u64, options: &SubscriptionOptions) -> MemoryStore {
    let topic = TopicRecord {
        id: 1,
        name: "crowded".parse().unwrap(),
        settings: TopicSettings::default(),
        created_ms: 0,
        owner: "test".to_owned(),
    };
    let subscription = |id| SubscriptionRecord {
        id,
        topic_id: 1,
        topic: "crowded".parse().unwrap(),
        name: format!("s{id}").parse().unwrap(),
        options: options.clone(),
        positions: vec![0],
        created_ms: 0,
        owner: "test".to_owned(),
        paused: false,
        push_refusal: None,
        moves: 0,
    };
    let mut ops = vec![topic.put(&topic.id()), NextId(subscriptions + 2).put(&())];
    for id in 2..subscriptions + 2 {
        let id = SubscriptionId(id);
        ops.extend([subscription(id.0).put(&id), UnattendedSince(Timestamp(0)).put(&id)]);
    }
    let store = MemoryStore::new();
    store.apply(&Commit::after(&store.last(), Term(1), Timestamp(0), ops)).unwrap();
    store.sync().unwrap();
    store
}

/// Every row of a store.
fn rows(store: &MemoryStore) -> BTreeMap<(Family, Bytes), Bytes> {
    let all = |family| {
        let rows = store.scan(family, &[], &[0xff; 64], ScanLimit::NONE).unwrap();
        rows.into_iter().map(move |(key, value)| ((family, key), value))
    };
    Family::ALL.into_iter().flat_map(all).collect()
}

#[tokio::test]
async fn an_acknowledgement_among_10_000_subscriptions_writes_what_it_does_alone() {
    let mut written = Vec::new();
    for subscriptions in [0, 10_000] {
        let store = Arc::new(store_with(subscriptions, &SubscriptionOptions::default()));
        let engine = Engine::on(Arc::clone(&store) as Arc<dyn Store>).await;
        let mut consumer = engine.subscribe().await;
        let token = delivery(&mut consumer).await;
        let before = rows(&store);
        ack(&consumer, token).await;
        let confirmed = timeout(SOON, consumer.outgoing.recv()).await.unwrap().unwrap();
        confirmed.expect("the acknowledgement is confirmed");
        let after = rows(&store);
        let changed = after.iter().filter(|(key, value)| before.get(*key) != Some(*value));
        let sizes: Vec<_> = changed.map(|((family, key), value)| (*family, key.len(), value.len())).collect();
        assert!(!sizes.is_empty(), "progress is a row");
        written.push(sizes);
        assert_eq!(engine.describe().await.lag, 0);
        engine.broker.shutdown().await;
    }
    assert_eq!(written[0], written[1]);
}

#[tokio::test]
async fn a_subscription_expires_only_if_what_was_seen_of_it_still_holds_when_that_is_decided() {
    const AFTER_MS: u64 = 60_000;
    const NEVER_DUE: u64 = u64::MAX / 2;
    for (option, since, after_ms, expires) in [
        (AFTER_MS, 1, AFTER_MS, false),
        (AFTER_MS, 0, 2 * AFTER_MS, false),
        (0, 0, AFTER_MS, false),
        (NEVER_DUE, 0, NEVER_DUE, false),
        (AFTER_MS, 0, AFTER_MS, true),
    ] {
        let options = SubscriptionOptions { expire_after_ms: Some(option), ..SubscriptionOptions::default() };
        let engine = Engine::on(Arc::new(store_with(1, &options))).await;
        let (shard, id) = (&engine.broker.inner.shard, SubscriptionId(2));
        shard.expire(id, Timestamp(since), after_ms).await.unwrap();
        let gone = !shard.catalogue().subscriptions.has_id(id);
        assert_eq!(gone, expires, "option {option}, seen {since} and {after_ms}");
        engine.broker.shutdown().await;
    }
}

#[tokio::test]
async fn an_expiry_that_had_to_wait_for_another_owner_sees_who_has_attached_to_that_one() {
    let options = SubscriptionOptions { expire_after_ms: Some(60_000), ..SubscriptionOptions::default() };
    let id = SubscriptionId(2);
    let engine = Engine::with(Arc::new(store_with(1, &options)), |config| {
        config.expire_after_start = Duration::ZERO;
        // That there is a consumer is not stored soon.
        config.progress_delay = Duration::from_secs(3_600);
    })
    .await;
    let changing = engine.broker.inner.changing.lock().await;
    let mut expiring = Box::pin(engine.broker.expire_subscriptions());
    tokio::select! {
        biased;
        ended = &mut expiring => panic!("it has to wait: {ended:?}"),
        () = tokio::task::yield_now() => {}
    }
    engine.broker.replace_owner(id).await.unwrap();
    let subscribe = Subscribe::new("crowded".parse().unwrap(), "s2".parse().unwrap());
    let consumer = timeout(SOON, engine.broker.subscribe(&Principal::Local, subscribe)).await;
    let consumer = consumer.unwrap().unwrap();
    drop(changing);
    timeout(SOON, expiring).await.unwrap().unwrap();
    assert!(engine.broker.inner.shard.catalogue().subscriptions.has_id(id));
    drop(consumer);
    engine.broker.shutdown().await;
}
