//! The one entry: every call is checked against what its principal may do, then acts. Starts and stops everything that
//! the broker runs.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use levada_delivery::trend;
use levada_protocol::{
    access::{self, Requirement, Requires},
    error::ErrorCode,
    ids::{
        GroupName, PartitionId, PrincipalName, SubscriptionId, SubscriptionName, Timestamp, TopicId,
        TopicName,
    },
    request::{Position, Read, Search, Subscribe},
    token::Token,
    verbs::VerbKind,
};
use levada_stage::Plugins;
use levada_store::Store;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Duration,
};

use crate::{
    access::{Conditions, Principal, View},
    artefacts::Artefacts,
    authentication::{Authentication, Credentials, IdentityChanges},
    chains::Chains,
    check_backs::{CheckBacks, GroupMember},
    compaction::Compactor,
    config::BrokerConfig,
    error::Error,
    expiry::Expiry,
    guard::Guard,
    identity,
    idle::IdleProducers,
    log::{Log, blocking},
    masks::Masks,
    metrics,
    outbound::Outbound,
    publish::PublishStream,
    pulls::{Attached, Keeper, Pull, Pulled, PulledEvent, Pulls},
    push::PushBoard,
    quotas::{Admitted, Connection},
    reader::{self, Reader},
    reclaim::Reclaimer,
    retention::Retention,
    rows::SubscriptionRecord,
    running::OwnerTasks,
    scheduler::Scheduler,
    screen::Screen,
    search::{Matcher, Scanner, Scans, Tally},
    shard::{Shard, ShardHandle},
    starts,
    subscription::{self, Consumer, RetainBudget},
    tasks::Tasks,
    topic::Topic,
};

/// Steps through dead letters that may be under way at once, over all clients; others wait. Each takes about a MiB.
const DEAD_LETTER_STEPS_MAX: usize = 4;
/// The name of the consumers that pulls are.
const PULL_CONSUMER: &str = "pull";
/// How often a consumer is attached whose subscription is moved meanwhile.
const ATTACH_TRIES: usize = 4;

/// The broker. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Broker {
    pub(crate) inner: Arc<Inner>,
    /// What the connection that uses this may leave unread.
    outbound: Outbound,
}

/// A broker that may be gone.
pub(crate) struct WeakBroker {
    inner: Weak<Inner>,
    outbound: Outbound,
}

impl WeakBroker {
    /// The broker, unless all clones of it are gone.
    pub(crate) fn upgrade(self) -> Option<Broker> {
        Some(Broker { inner: self.inner.upgrade()?, outbound: self.outbound })
    }
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
    pub(crate) admission: Arc<Semaphore>,
    pub(crate) owner_tasks: Arc<OwnerTasks>,
    retention: Retention,
    pub(crate) compactor: Compactor,
    scans: Scans,
    pub(crate) masks: Arc<Masks>,
    scheduler: Scheduler,
    pub(crate) check_backs: Arc<CheckBacks>,
    pub(crate) expiry: Expiry,
    /// The steps of redrives, purges and counts that may be under way at once: each holds a stretch of dead letters.
    dead_letter_steps: Arc<Semaphore>,
    /// The memory for what subscriptions have read and may send again.
    pub(crate) retained: Arc<RetainBudget>,
    /// Held while something with a task of its own is made or removed, so that tasks match the catalogue.
    pub(crate) changing: Arc<tokio::sync::Mutex<()>>,
    pub(crate) authentication: Arc<Authentication>,
    pulls: Arc<Pulls>,
    /// How the pushes of subscriptions get on.
    pub(crate) pushes: PushBoard,
    pub(crate) engine_id: String,
    pub(crate) start_id: String,
}

impl Inner {
    /// Notes how far all subscriptions are, again and again: their rates are made of that.
    async fn note_trends(&self) {
        let interval = Duration::from_millis(trend::INTERVAL_MS);
        loop {
            let now = self.config.clock.moment().mono_ms;
            for subscription in self.owner_tasks.subscriptions() {
                subscription.status().note_moment(now);
            }
            tokio::time::sleep(interval).await;
        }
    }
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
        let (threads, shard) = Shard::start(&config, &store, &guard, &tasks)?;
        let (catalogue, engine_id) = (shard.catalogue(), shard.engine_id().to_string());
        let artefacts = Artefacts::open(&config.data_dir)?;
        let admission = Arc::new(Semaphore::new(config.publish_bytes_max));
        let outbound = Outbound::new(config.unread_bytes_max, config.connection_unread_bytes_max);
        let owner_tasks = Arc::<OwnerTasks>::default();
        let idle = IdleProducers::new(Arc::clone(&store), shard.clone(), config.producers_idle);
        let retention = Retention::new(Arc::clone(&store), shard.clone(), Arc::clone(&owner_tasks), idle);
        let changing = Arc::<tokio::sync::Mutex<()>>::default();
        let compactor = Compactor::new(
            Arc::clone(&store),
            shard.clone(),
            Arc::clone(&owner_tasks),
            Arc::clone(&guard),
            Arc::clone(&changing),
            (config.clock.clone(), config.compaction),
        );
        let expiry = Expiry::new(
            shard.clone(),
            Arc::clone(&owner_tasks),
            Arc::clone(&changing),
            config.clock.clone(),
            config.expire_after_start,
        );
        let authentication = Authentication::new(shard.clone(), config.clock.clone(), tasks.clone());
        let chains = Chains::new(plugins, artefacts);
        let masks = Masks::new(shard.clone(), chains.clone(), tasks.clone());
        let broker = Self {
            outbound,
            inner: Arc::new(Inner {
                retention,
                compactor,
                expiry,
                scans: Scans::new(),
                scheduler: Scheduler::new(Arc::clone(&store), shard.clone(), config.clock.clone()),
                check_backs: Arc::new(CheckBacks::new(
                    shard.clone(),
                    config.clock.clone(),
                    config.check_back,
                )),
                dead_letter_steps: Arc::new(Semaphore::new(DEAD_LETTER_STEPS_MAX)),
                store,
                shard,
                threads: Mutex::new(Some(threads)),
                chains,
                masks,
                guard,
                tasks,
                admission,
                owner_tasks,
                retained: RetainBudget::new(config.retained_bytes_max),
                changing,
                authentication,
                pulls: Pulls::new(identity::new_seed()?[0]),
                pushes: PushBoard::default(),
                engine_id,
                start_id: identity::new_start_id()?,
                config,
            }),
        };
        broker.match_owners(&catalogue)?;
        broker.start_guard();
        broker.follow_catalogue_events();
        broker.start_background();
        Ok(broker)
    }

    /// Starts what runs by itself until the end.
    fn start_background(&self) {
        let inner = &self.inner;
        let reclaimer = Reclaimer {
            store: Arc::clone(&inner.store),
            shard: inner.shard.clone(),
            guard: Arc::clone(&inner.guard),
        };
        let cancelled = inner.tasks.cancelled().clone();
        inner.tasks.spawn(tracing::info_span!("reclaim"), async move {
            cancelled.run_until_cancelled(reclaimer.run()).await;
        });
        let (watched, cancelled) = (Arc::clone(&inner.authentication), inner.tasks.cancelled().clone());
        inner.tasks.spawn(tracing::info_span!("administrators"), async move {
            cancelled.run_until_cancelled(watched.watch_administrators()).await;
        });
        let (rated, cancelled) = (Arc::clone(inner), inner.tasks.cancelled().clone());
        inner.tasks.spawn(tracing::info_span!("trends"), async move {
            cancelled.run_until_cancelled(rated.note_trends()).await;
        });
        let (scheduling, cancelled) = (Arc::clone(inner), inner.tasks.cancelled().clone());
        inner.tasks.spawn(tracing::info_span!("schedule"), async move {
            cancelled.run_until_cancelled(scheduling.scheduler.run()).await;
        });
        let (check_backs, cancelled) = (Arc::clone(&inner.check_backs), inner.tasks.cancelled().clone());
        inner.tasks.spawn(tracing::info_span!("check-backs"), async move {
            cancelled.run_until_cancelled(check_backs.run()).await;
        });
        let (expiring, cancelled) = (Arc::clone(inner), inner.tasks.cancelled().clone());
        inner.tasks.spawn(tracing::info_span!("expiry"), async move {
            cancelled.run_until_cancelled(expiring.expiry.run()).await;
        });
        let (compacting, cancelled) = (Arc::clone(inner), inner.tasks.cancelled().clone());
        inner.tasks.spawn(tracing::info_span!("compaction"), async move {
            let run = compacting.compactor.run(compacting.config.retention_interval);
            cancelled.run_until_cancelled(run).await;
        });
        let (inner, cancelled) = (Arc::clone(inner), inner.tasks.cancelled().clone());
        self.inner.tasks.spawn(tracing::info_span!("retention"), async move {
            let run = inner.retention.run(inner.config.retention_interval, &inner.config.clock, &inner.guard);
            cancelled.run_until_cancelled(run).await;
        });
    }

    /// One retention round now, beside those that run by themselves: over every partition, the producers and the decided
    /// transactions; then one of compaction.
    ///
    /// # Errors
    /// If the store fails; what was dropped until then stays dropped.
    pub async fn run_retention(&self) -> Result<(), Error> {
        self.run_retention_at(self.inner.config.clock.now()).await
    }

    /// One retention round as if it were `now`.
    ///
    /// # Errors
    /// If the store fails; what was dropped until then stays dropped.
    pub async fn run_retention_at(&self, now: Timestamp) -> Result<(), Error> {
        let trimmed = self.inner.retention.round(now).await;
        trimmed.and(self.inner.compactor.round(now).await)
    }

    /// Moves the delayed events that are due by the broker's clock to the log, beside what does so by itself.
    ///
    /// # Errors
    /// If the store fails; what could not be moved stays in the schedule.
    pub async fn move_due(&self) -> Result<(), Error> {
        self.inner.scheduler.move_all().await
    }

    /// Looks at how long subscriptions have had no consumer: the log says of which that has become an alarm, and those that
    /// expire by the broker's clock are deleted; beside what does so by itself.
    ///
    /// # Errors
    /// If one could not be deleted, or whether it was is unknown.
    pub async fn expire_subscriptions(&self) -> Result<(), Error> {
        self.inner.expiry.round().await
    }

    /// For what is to run only as long as somebody has the broker.
    pub(crate) fn downgrade(&self) -> WeakBroker {
        WeakBroker { inner: Arc::downgrade(&self.inner), outbound: self.outbound.clone() }
    }

    /// The same broker for another connection, with a budget of its own for what its client leaves unread.
    pub fn for_connection(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), outbound: self.outbound.connection() }
    }

    /// True if the connection that uses this, or all of them together, leave about as much unread as they may.
    pub fn is_short_of_room(&self) -> bool {
        self.outbound.is_short()
    }

    /// Checks that a principal may do all that a call requires, as every call does at its entry.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` if the principal is gone, or its token or certificate does not hold any more; `PERMISSION_DENIED`, or
    /// that there is no such thing.
    pub fn check(&self, principal: &Principal, required: &[Requirement]) -> Result<(), Error> {
        self.inner.authentication.check(principal, required)
    }

    /// Checks that a principal may browse whatever there is, as metrics name it.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` as [`Self::check`]; `PERMISSION_DENIED`.
    pub fn check_browses_all(&self, principal: &Principal) -> Result<(), Error> {
        self.inner.authentication.check_browses_all(principal)
    }

    /// Finds out on whose behalf a caller's calls are made. Without principals every caller is
    /// [`Principal::Local`], whatever it shows: who may connect at all is the listener's decision.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`: nothing was shown, or what was shown is unknown, expired or revoked; the latter three look alike, also
    /// in the time that they take.
    pub fn authenticate(&self, shown: &Credentials) -> Result<Principal, Error> {
        self.inner.authentication.authenticate(shown)
    }

    /// True if there are principals: nobody is served any more who shows nothing.
    pub fn has_principals(&self) -> bool {
        self.inner.authentication.has_principals()
    }

    /// Follows the changes of principals from now on.
    pub fn follow_identities(&self) -> IdentityChanges {
        self.inner.authentication.follow_identities()
    }

    /// Checks that what goes on may go on.
    ///
    /// # Errors
    /// As [`Self::check`]; `VIEW_CHANGED` if it shows events through other plugins than would be used now.
    pub fn check_conditions(&self, principal: &Principal, conditions: &Conditions) -> Result<(), Error> {
        self.inner.authentication.check_conditions(principal, conditions)
    }

    /// Waits until that which goes on may not go on any more; returns why. Cancel safe.
    pub async fn until_denied(&self, principal: &Principal, conditions: &Conditions) -> Error {
        self.inner.authentication.until_denied(principal, conditions).await
    }

    /// Waits until principals, permissions or tokens have changed, or the principal's own proof may have ended by itself. Never
    /// when the engine ends. Cancel safe.
    pub async fn identities_may_differ(&self, principal: &Principal, changes: &mut IdentityChanges) {
        self.inner.authentication.identities_may_differ(principal, changes).await;
    }

    /// How long until the principal's proof ends by itself, in milliseconds of the time of day; `None`: never.
    pub fn proof_ends_in_ms(&self, principal: &Principal) -> Option<u64> {
        self.inner.authentication.proof_ends_in_ms(principal)
    }

    /// Makes a token for an administrator of this name, whoever there is already: for the first start, and for an engine whose
    /// administrators have lost theirs. For whoever owns the data directory; nobody else can ask for it.
    ///
    /// # Errors
    /// If it cannot be stored.
    pub async fn create_administrator(&self, name: PrincipalName) -> Result<Token, Error> {
        self.identity_requests().create_administrator(name).await
    }

    /// Takes a connection of the principal, which counts until what is returned is dropped.
    ///
    /// # Errors
    /// `QUOTA` if it has as many as it may.
    pub fn connect(&self, principal: &Principal) -> Result<Connection, Error> {
        let metered = self.inner.authentication.metered(principal);
        let connected = metered.map(|metered| metered.connect()).transpose()?;
        Ok(Connection { _connected: connected })
    }

    /// Takes one of the principal's requests, once it may have one: for what is no call of a `Request`, a subscription or a reader.
    /// Cancel safe.
    ///
    /// # Errors
    /// `QUOTA` if it would have to wait for more than a second.
    pub async fn begin_request(&self, principal: &Principal) -> Result<(), Error> {
        self.inner.authentication.begin_request(principal).await
    }

    /// Opens a stream of publishes to a topic.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`, `TOPIC_NOT_FOUND`; or `INVALID_ARGUMENT` for a topic of the engine's own.
    pub fn open_publish(&self, principal: &Principal, topic: &TopicName) -> Result<PublishStream, Error> {
        self.check(principal, &[access::publishing(topic)])?;
        let topic = self.publishable(topic)?;
        let config = &self.inner.config;
        let admission = (Arc::clone(&self.inner.admission), config.publish_bytes_max);
        let quotas = self.inner.authentication.metered(principal);
        let shard = self.inner.shard.clone();
        Ok(PublishStream::new(topic, shard, admission, quotas, config.stream_in_flight_max))
    }

    /// A topic that may be published to.
    pub(crate) fn publishable(&self, topic: &TopicName) -> Result<Arc<Topic>, Error> {
        if topic.is_internal() {
            let message = format!("topic {topic} is the engine's own: it can be read, not published to");
            return Err(Error::refused(ErrorCode::InvalidArgument, message));
        }
        self.inner.shard.topic(topic)
    }

    /// A share of the bytes that may wait for their commit; waits until there is one.
    pub(crate) async fn admit(&self, bytes: usize) -> Result<Admitted, Error> {
        let bytes = bytes.min(self.inner.config.publish_bytes_max);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let admission = Arc::clone(&self.inner.admission).acquire_many_owned(bytes);
        let of_engine = admission.await.map_err(|_| Error::ShuttingDown)?;
        Ok(Admitted { _of_engine: of_engine, of_principal: None })
    }

    /// Makes the caller a member of a producer group: it is asked about the group's prepared transactions.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`.
    pub fn join_group(&self, principal: &Principal, group: GroupName) -> Result<GroupMember, Error> {
        self.check(principal, &[access::deciding(&group)])?;
        Ok(self.inner.check_backs.join(group))
    }

    /// Asks producer groups about the transactions that are due by the broker's clock, beside what does so by itself.
    /// Returns how many checks were sent.
    ///
    /// # Errors
    /// If no writes are taken; nobody is asked then.
    pub async fn check_transactions(&self) -> Result<usize, Error> {
        self.inner.check_backs.round().await
    }

    /// Attaches a consumer to a subscription, which is made if that was asked for.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`, `TOPIC_NOT_FOUND`, `SUBSCRIPTION_NOT_FOUND`, `SUBSCRIPTION_MISMATCH` naming the field,
    /// `PLUGIN_…`.
    pub async fn subscribe(&self, principal: &Principal, subscribe: Subscribe) -> Result<Consumer, Error> {
        self.check(principal, &subscribe.required())?;
        self.begin_request(principal).await?;
        let (record, created) = self.subscription_for(principal, &subscribe).await?;
        self.attach(&record, subscribe.consumer, created).await
    }

    /// Attaches a consumer of this name to a subscription, which was just made or was there.
    pub(crate) async fn attach(
        &self,
        record: &Arc<SubscriptionRecord>,
        name: String,
        created: bool,
    ) -> Result<Consumer, Error> {
        for _ in 1..ATTACH_TRIES {
            let handle = self.owner_of(record).await?;
            let consumer = name.clone();
            match subscription::attach(&handle, consumer, created, self.outbound.window()).await {
                // It was moved in this moment, and has another owner.
                Err(error) if error.code() == ErrorCode::SubscriptionMoved => {}
                attached => return attached,
            }
        }
        let handle = self.owner_of(record).await?;
        subscription::attach(&handle, name, created, self.outbound.window()).await
    }

    /// Pulls events of a subscription: they stay out until they are settled, or until its acknowledgement timeout, whatever
    /// becomes of the caller. A call that is given up gives back what it has. Cancel safe.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`, also if it is lost meanwhile; `TOPIC_NOT_FOUND`, `SUBSCRIPTION_NOT_FOUND`; `LIMIT_EXCEEDED` if of as
    /// many pulls as there may be something is in flight.
    pub async fn pull(&self, principal: &Principal, pull: Pull) -> Result<Pulled, Error> {
        let Pull { topic, subscription, credit, wait } = pull;
        let consumer = PULL_CONSUMER.to_owned();
        let subscribe = Subscribe { consumer, ..Subscribe::new(topic, subscription) };
        let conditions = Conditions::from(subscribe.required());
        self.check_conditions(principal, &conditions)?;
        let record =
            self.inner.shard.catalogue().subscription(&subscribe.topic, &subscribe.subscription)?.clone();
        let place = self.inner.pulls.enter(SubscriptionId(record.id), principal)?;
        let collecting = async {
            let mut attached = Attached::new(self.for_connection().subscribe(principal, subscribe).await?);
            let deliveries = attached.collect(credit, wait).await?;
            Ok::<_, Error>((attached, deliveries))
        };
        let (attached, deliveries) = tokio::select! {
            biased;
            collected = collecting => collected?,
            refused = self.until_denied(principal, &conditions) => return Err(refused),
        };
        let pulled = Pulled { topic: TopicId(record.topic_id), pull: place.id(), deliveries };
        if !pulled.deliveries.is_empty() {
            let (authentication, cancelled) =
                (Arc::clone(&self.inner.authentication), self.inner.tasks.cancelled().clone());
            let keeping =
                Keeper::new(place).run(attached, authentication, (principal.clone(), conditions), cancelled);
            self.inner.tasks.spawn(tracing::debug_span!("pull", subscription = %record.name), keeping);
        }
        Ok(pulled)
    }

    /// Says what became of pulled events. Returns, once that is durable, what became of each of them in order: the code says why
    /// what was said took no effect, such as `DELIVERY_EXPIRED`. Any principal that may be the subscription's consumer may say
    /// it.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`, `TOPIC_NOT_FOUND`, `SUBSCRIPTION_NOT_FOUND`.
    pub async fn settle(
        &self,
        principal: &Principal,
        (topic, subscription): (&TopicName, &SubscriptionName),
        events: &[PulledEvent],
        kind: &VerbKind,
    ) -> Result<Vec<Result<(), ErrorCode>>, Error> {
        self.check(principal, &Subscribe::new(topic.clone(), subscription.clone()).required())?;
        let id = SubscriptionId(self.inner.shard.catalogue().subscription(topic, subscription)?.id);
        let refused = self.inner.pulls.settle(id, events, kind).await;
        Ok(events.iter().map(|event| refused.get(event).map_or(Ok(()), |code| Err(*code))).collect())
    }

    /// Opens a reader, which leaves no trace.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`, `TOPIC_NOT_FOUND`, `PARTITION_NOT_FOUND`, `OFFSET_OUT_OF_RANGE`; or `INVALID_ARGUMENT` for
    /// a partition that is named twice, a position of one that is not read, and a search that cannot be done.
    pub async fn read(&self, principal: &Principal, read: Read) -> Result<Reader, Error> {
        self.check(principal, &read.required())?;
        self.begin_request(principal).await?;
        let name = &read.topic;
        let topic = self.inner.shard.topic(name)?;
        let numbers = topic.partitions_named(&read.partitions)?;
        let mut named: HashSet<PartitionId> = numbers.iter().copied().collect();
        for Position { partition, .. } in &read.positions {
            if !named.remove(&PartitionId(*partition)) {
                let message = format!(
                    "the position of partition {partition} is of none that is read, or given more than once"
                );
                return Err(Error::refused(ErrorCode::InvalidArgument, message));
            }
        }
        if read.positions.len() < numbers.len() {
            starts::check(&topic, read.from, self.inner.config.clock.now())?;
        }
        let mut logs = Vec::with_capacity(numbers.len());
        for number in numbers {
            let log = Log::new(Arc::clone(&self.inner.store), Arc::clone(&topic), number)?;
            let position = log.position(reader::start_of(&read, number)).await?;
            logs.push((number, log, position));
        }
        let cancelled = self.inner.tasks.cancelled().child_token();
        let view = self.inner.authentication.view(principal, name)?;
        let conditions = Conditions::reading(name, &view);
        let screened = (self.screen(&read, view).await?, conditions);
        let (reader, task) = reader::open(&topic, logs, &read, screened, cancelled, self.outbound.window());
        self.inner.tasks.spawn(tracing::debug_span!("reader", topic = %name), task.run());
        Ok(reader)
    }

    /// What events pass before a reader gets them, if there is something.
    async fn screen(&self, read: &Read, view: View) -> Result<Option<Screen>, Error> {
        let inner = &self.inner;
        let masking = match view {
            View::Stored => None,
            View::Masked(stages) => Some(inner.masks.of(&read.topic, stages).await?),
        };
        let (scanner, tally) = match &read.search {
            None if masking.is_none() => return Ok(None),
            None => (None, Tally::unbounded()),
            Some(search) => {
                let tally = Tally::new(search, read.follow, inner.config.scan_bytes_max)?;
                (Some(self.scanner(search)?), tally)
            }
        };
        Ok(Some(Screen { masking, scanner, tally }))
    }

    /// What finds the events that a search is for.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for what no event can be like.
    pub(crate) fn scanner(&self, search: &Search) -> Result<Scanner, Error> {
        Ok(Scanner::new(Matcher::new(search)?, self.inner.scans.clone()))
    }

    /// A turn to step through dead letters, for as long as it is held.
    pub(crate) async fn dead_letter_turn(&self) -> Result<OwnedSemaphorePermit, Error> {
        let steps = Arc::clone(&self.inner.dead_letter_steps);
        steps.acquire_owned().await.map_err(|_| Error::ShuttingDown)
    }

    /// Whether publishes are taken, and why not.
    pub fn health(&self) -> Health {
        let closed = self.inner.shard.closed().map(|closed| format!("{}: {}", closed.code, closed.reason));
        let full = self.inner.guard.refusal().map(|refusal| refusal.to_string());
        let reason = closed.or(full);
        Health { ready: reason.is_none(), reason }
    }

    /// The id of the data directory, for good, and of this start.
    pub fn ids(&self) -> (&str, &str) {
        (&self.inner.engine_id, &self.inner.start_id)
    }

    /// Ends everything in order: owners, then the writer with what is queued, then the store.
    pub async fn shutdown(&self) {
        self.inner.admission.close();
        self.inner.check_backs.close();
        self.inner.tasks.stop().await;
        self.inner.shard.stop().await;
        let threads = self.inner.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(threads) = threads {
            threads.join().await;
        }
        let store = Arc::clone(&self.inner.store);
        let closed = blocking(move || store.close().map_err(Error::from));
        if let Err(error) = closed.await {
            tracing::error!(%error, "the store did not close cleanly; the next start recovers");
        }
    }
}
