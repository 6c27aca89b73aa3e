//! The one entry: every call checks who asks, then acts. Starts and stops everything that the broker runs.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use levada_protocol::{
    error::ErrorCode,
    ids::{PartitionId, RouteId, SubscriptionId, Timestamp, TopicName},
    request::{Read, Subscribe},
};
use levada_store::{Family, Store};
use tokio::sync::Semaphore;

use crate::{
    access::Principal,
    artefacts::Artefacts,
    catalogue::{Catalogue, RouteRecord, SubscriptionRecord},
    chains::Chains,
    clock,
    config::BrokerConfig,
    error::Error,
    guard::Guard,
    keys,
    log::{Log, blocking},
    metrics,
    places::Places,
    publish::PublishStream,
    reader::{self, Reader},
    retention, route,
    shard::{Shard, ShardHandle},
    stage::Plugins,
    subscription::{self, Consumer, SubscriptionHandle},
    tasks::Tasks,
    topic::Topic,
};

/// The broker. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Broker {
    pub(crate) inner: Arc<Inner>,
}

/// What all clones share.
pub(crate) struct Inner {
    pub(crate) config: BrokerConfig,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) shard: ShardHandle,
    threads: Mutex<Option<Shard>>,
    pub(crate) chains: Chains,
    pub(crate) guard: Arc<Guard>,
    pub(crate) tasks: Tasks,
    admission: Arc<Semaphore>,
    pub(crate) places: Places,
    /// Held while something with a task of its own is made or removed, so that tasks match the catalogue.
    pub(crate) changing: tokio::sync::Mutex<()>,
    pub(crate) engine_id: String,
    pub(crate) start_id: String,
    pub(crate) started: Timestamp,
}

/// Whether the engine can do its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// True if publishes are taken.
    pub ready: bool,
    /// Why not.
    pub reason: Option<String>,
}

impl Broker {
    /// Loads everything from the store and starts all tasks. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// If the store cannot be read or holds something damaged.
    pub fn start(
        config: BrokerConfig,
        store: Arc<dyn Store>,
        plugins: Arc<dyn Plugins>,
    ) -> Result<Self, Error> {
        metrics::describe();
        let tasks = Tasks::new();
        let guard = Arc::new(Guard::new(config.data_dir.clone(), config.disk_reserve_bytes));
        let engine_id = load_engine_id(store.as_ref())?;
        let (threads, shard) = Shard::start(&config, &store, &guard, &tasks)?;
        let catalogue = shard.catalogue();
        let named: HashSet<String> = catalogue.plugins.values().map(|plugin| plugin.sha256.clone()).collect();
        let artefacts = Artefacts::open(&config.data_dir, &named)?;
        let admission = Arc::new(Semaphore::new(config.publish_bytes_max));
        let broker = Self {
            inner: Arc::new(Inner {
                store,
                shard,
                threads: Mutex::new(Some(threads)),
                chains: Chains::new(plugins, artefacts),
                guard,
                tasks,
                admission,
                places: Places::default(),
                changing: tokio::sync::Mutex::new(()),
                engine_id,
                start_id: random_id()?,
                started: clock::now(),
                config,
            }),
        };
        broker.match_places(&catalogue)?;
        broker.start_guard(catalogue);
        retention::start(&broker);
        Ok(broker)
    }

    /// Opens a stream of publishes to a topic.
    ///
    /// # Errors
    /// `TOPIC_NOT_FOUND`, `INVALID_NAME`; or `INVALID_ARGUMENT` for a topic of the engine's own.
    pub fn open_publish(&self, _principal: &Principal, topic: &str) -> Result<PublishStream, Error> {
        let name = TopicName::parse_any(topic)?;
        if name.is_internal() {
            let message = format!("topic {name} is the engine's own: it can be read, not published to");
            return Err(Error::refused(ErrorCode::InvalidArgument, message));
        }
        let topic = Arc::clone(self.inner.shard.catalogue().topic(&name)?);
        let config = &self.inner.config;
        let admission = Arc::clone(&self.inner.admission);
        let admission_max = config.publish_bytes_max;
        let shard = self.inner.shard.clone();
        Ok(PublishStream::new(topic, shard, admission, admission_max, config.stream_in_flight_max))
    }

    /// Attaches a consumer to a subscription, which is made if that was asked for.
    ///
    /// # Errors
    /// `TOPIC_NOT_FOUND`, `SUBSCRIPTION_NOT_FOUND`, `SUBSCRIPTION_MISMATCH` naming the field, `PLUGIN_…`.
    pub async fn subscribe(&self, principal: &Principal, subscribe: Subscribe) -> Result<Consumer, Error> {
        let (record, created) = self.subscription_for(principal, &subscribe).await?;
        let handle = self.owner_of(&record).await?;
        subscription::attach(&handle, subscribe.consumer, created).await
    }

    /// Opens a reader, which leaves no trace.
    ///
    /// # Errors
    /// `TOPIC_NOT_FOUND`, `PARTITION_NOT_FOUND`, `OFFSET_OUT_OF_RANGE`.
    pub async fn read(&self, _principal: &Principal, read: Read) -> Result<Reader, Error> {
        let name = TopicName::parse_any(&read.topic)?;
        let topic = Arc::clone(self.inner.shard.catalogue().topic(&name)?);
        let numbers: Vec<PartitionId> = if read.partitions.is_empty() {
            topic.partition_ids().collect()
        } else {
            read.partitions.iter().copied().map(PartitionId).collect()
        };
        let mut logs = Vec::with_capacity(numbers.len());
        for number in numbers {
            let log = Log::new(Arc::clone(&self.inner.store), Arc::clone(&topic), number)?;
            let position = log.position(read.from).await?;
            logs.push((number, log, position));
        }
        let cancelled = self.inner.tasks.cancelled().child_token();
        let (reader, task) = reader::open(&topic, logs, read.follow, cancelled);
        self.inner.tasks.spawn(tracing::debug_span!("reader", topic = %name), task.run());
        Ok(reader)
    }

    /// Whether publishes are taken, and why not.
    pub fn health(&self) -> Health {
        let closed = self.inner.shard.closed().map(|closed| format!("{}: {}", closed.code, closed.reason));
        let full = self.inner.guard.refusal().map(|refusal| refusal.to_string());
        let reason = closed.or(full);
        Health { ready: reason.is_none(), reason }
    }

    /// The version of the data directory's identity, and of this start.
    pub fn ids(&self) -> (&str, &str) {
        (&self.inner.engine_id, &self.inner.start_id)
    }

    /// Ends everything in order: owners, then the writer with what is queued, then the store.
    pub async fn shutdown(&self) {
        self.inner.admission.close();
        self.inner.tasks.stop().await;
        self.inner.shard.stop().await;
        let threads = self.inner.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
        let store = Arc::clone(&self.inner.store);
        let closed = blocking(move || {
            if let Some(threads) = threads {
                threads.join();
            }
            store.close().map_err(Error::from)
        });
        if let Err(error) = closed.await {
            tracing::error!(%error, "the store did not close cleanly; the next start recovers");
        }
    }

    /// How to reach a subscription's owner. One that was made a moment ago may be about to start.
    pub(crate) async fn owner_of(&self, record: &SubscriptionRecord) -> Result<SubscriptionHandle, Error> {
        let id = SubscriptionId(record.id);
        if let Some(handle) = self.inner.places.subscription(id) {
            return Ok(handle);
        }
        let _changing = self.inner.changing.lock().await;
        self.inner.places.subscription(id).ok_or_else(|| {
            let message = format!("subscription {}/{} was deleted", record.topic, record.name);
            Error::refused(ErrorCode::SubscriptionNotFound, message)
        })
    }

    /// Matches the places with the newest catalogue. The caller holds `changing`.
    pub(crate) async fn follow_catalogue(&self) -> Result<(), Error> {
        let broker = self.clone();
        blocking(move || broker.match_places(&broker.inner.shard.catalogue())).await
    }

    /// Starts the places that the catalogue holds and ends those that it no longer does. Blocks on the disk; what
    /// calls it holds `changing`, or nothing else runs yet.
    pub(crate) fn match_places(&self, catalogue: &Catalogue) -> Result<(), Error> {
        let places = &self.inner.places;
        let subscriptions: HashSet<u64> = catalogue.subscriptions.values().map(|record| record.id).collect();
        let routes: HashSet<u64> = catalogue.routes.values().map(|record| record.id).collect();
        places.retain(|id| subscriptions.contains(&id.0), |id| routes.contains(&id.0));
        for record in catalogue.subscriptions.values() {
            if places.subscription(SubscriptionId(record.id)).is_none() {
                self.start_subscription(catalogue, record)?;
            }
        }
        for record in catalogue.routes.values() {
            if places.route(RouteId(record.id)).is_none() {
                self.start_route(catalogue, record)?;
            }
        }
        Ok(())
    }

    /// Starts the owner of a subscription.
    fn start_subscription(
        &self,
        catalogue: &Catalogue,
        record: &Arc<SubscriptionRecord>,
    ) -> Result<(), Error> {
        let topic = Arc::clone(catalogue.topic(&TopicName::parse_any(&record.topic)?)?);
        let context = subscription::Context {
            store: Arc::clone(&self.inner.store),
            shard: self.inner.shard.clone(),
            chains: self.inner.chains.clone(),
            cancelled: self.inner.tasks.cancelled().clone(),
        };
        let (handle, task) = subscription::open(record, &topic, &context)?;
        self.inner.places.add_subscription(SubscriptionId(record.id), handle);
        let span = tracing::info_span!("subscription", topic = record.topic, name = record.name);
        self.inner.tasks.spawn(span, task.run());
        Ok(())
    }

    /// Starts the owners of a route.
    fn start_route(&self, catalogue: &Catalogue, record: &Arc<RouteRecord>) -> Result<(), Error> {
        let source = Arc::clone(catalogue.topic(&TopicName::parse_any(&record.spec.from)?)?);
        let context = route::RouteContext {
            store: Arc::clone(&self.inner.store),
            shard: self.inner.shard.clone(),
            chains: self.inner.chains.clone(),
            cancelled: self.inner.tasks.cancelled().clone(),
        };
        let cursors = self.route_cursors(record, &source)?;
        let (handle, tasks) = route::open(record, &source, &cursors, &context);
        self.inner.places.add_route(RouteId(record.id), handle);
        for task in tasks {
            self.inner.tasks.spawn(tracing::info_span!("route", name = record.spec.name), task.run());
        }
        Ok(())
    }

    fn route_cursors(
        &self,
        record: &RouteRecord,
        source: &Topic,
    ) -> Result<Vec<levada_protocol::ids::Offset>, Error> {
        let cursor = |number| {
            let key = keys::route_cursor(RouteId(record.id), number);
            let stored = self.inner.store.get(Family::Cursors, &key)?.ok_or_else(|| Error::Store {
                code: ErrorCode::StorageCorrupt,
                message: format!("route {} has no cursor for partition {number}", record.spec.name),
            })?;
            crate::catalogue::read_cursor(&stored)
        };
        source.partition_ids().map(cursor).collect()
    }

    /// Measures free space again and again; wakes the writer when a full store has room. What the store then turns
    /// out to hold may differ from what was answered, so the places are matched with the catalogue here as well.
    fn start_guard(&self, mut matched: Arc<Catalogue>) {
        let (broker, inner) = (self.clone(), Arc::clone(&self.inner));
        let cancelled = self.inner.tasks.cancelled().clone();
        self.inner.tasks.spawn(tracing::info_span!("disk_guard"), async move {
            loop {
                tokio::select! {
                    biased;
                    () = cancelled.cancelled() => return,
                    () = tokio::time::sleep(inner.config.disk_check_interval) => {}
                }
                let low = inner.guard.measure_is_low();
                if !low && inner.shard.closed().is_some_and(|closed| closed.code == ErrorCode::StorageFull) {
                    inner.shard.wake().await;
                }
                let catalogue = inner.shard.catalogue();
                if !Arc::ptr_eq(&catalogue, &matched) {
                    let _changing = inner.changing.lock().await;
                    match broker.follow_catalogue().await {
                        Ok(()) => matched = catalogue,
                        Err(error) => tracing::warn!(%error, "places could not be started yet"),
                    }
                }
            }
        });
    }
}

fn load_engine_id(store: &dyn Store) -> Result<String, Error> {
    match store.get(Family::Meta, &keys::engine_id())? {
        Some(value) => Ok(String::from_utf8_lossy(&value).into_owned()),
        None => {
            let id = random_id()?;
            let commit = levada_store::Commit {
                shard: 0,
                index: levada_protocol::ids::CommitIndex(store.applied().0 + 1),
                previous: store.applied(),
                time: clock::now(),
                ops: vec![levada_store::Op::Put {
                    family: Family::Meta,
                    key: keys::engine_id(),
                    value: id.clone().into(),
                }],
            };
            store.apply(&commit)?;
            store.sync()?;
            Ok(id)
        }
    }
}

fn random_id() -> Result<String, Error> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| {
        Error::refused(ErrorCode::Internal, format!("the system gives no random numbers: {error}"))
    })?;
    Ok(crate::artefacts::hex(&bytes))
}
