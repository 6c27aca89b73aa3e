//! Requests: each has one response.

mod backlog;
mod dead_letters;
mod deleting;
mod mismatch;
mod pages;
mod plugins;
mod principals;
mod producers;
mod purge;
mod push;
mod quotes;
mod routes;
mod schedule;
mod subscriptions;
mod transactions;

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use bytes::Bytes;
use levada_protocol::{
    access::{Requires, Scope},
    ids::{Offset, SubscriptionId, TopicName},
    request::{EngineInfo, PurgeTopic, Request, Response, StageSpec, Start, TopicChanges, TopicSettings},
};
use levada_stage::{AttachmentPoint, StageStats};

use self::{
    backlog::BacklogRequests, pages::Page, principals::IdentityRequests, purge::Purging, push::PushRequests,
    schedule::ScheduleRequests, subscriptions::described,
};
use crate::{
    access::{Principal, Viewer},
    broker::Broker,
    catalogue::{Catalogue, Change, Root},
    error::Error,
    log::Log,
    metrics::{Collected, Series},
    noted::Noted,
    shard::SyncTimes,
    starts,
    topic::Topic,
};

impl Broker {
    /// Executes a request. `artefact` goes with `DeployPlugin`.
    ///
    /// Not cancel safe for requests that change something: a call that is given up may still take effect.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`; or what the request's own rules say. Nothing has changed then, unless the code says
    /// otherwise.
    pub async fn request(
        &self,
        principal: &Principal,
        request: Request,
        artefact: Option<Bytes>,
    ) -> Result<Response, Error> {
        self.admit_request(principal, &request).await?;
        let catalogue = self.inner.shard.catalogue();
        let viewer = self.viewer(principal, &catalogue);
        match request {
            Request::Info => Ok(Response::Info(Box::new(self.info()))),
            Request::CreateTopic { name, settings } => self.create_topic(principal, name, settings).await,
            Request::ListTopics { limit, after } => self.list_topics(&viewer, limit, after.as_deref()).await,
            Request::DescribeTopic { name } => self.describe_topic(principal, &name).await,
            Request::SetTopic { name, settings } => self.set_topic(principal, name, settings).await,
            Request::DeleteTopic { name, force, with_dead_letters } => {
                self.delete(principal, Root::Topic(name), force, with_dead_letters).await
            }
            Request::CreateSubscription { topic, name, options, from } => {
                let record = self.create_subscription(principal, topic, name, options, from).await?;
                self.describe_subscription(&record).await.map(described)
            }
            Request::ListSubscriptions { topic, limit, after } => {
                self.list_subscriptions(&viewer, topic, Page::new(limit), after.as_deref()).await
            }
            Request::DescribeSubscription { topic, name } => {
                let record = catalogue.subscription(&topic, &name)?;
                let info = self.describe_subscription(record).await?;
                let info =
                    if quotes::shows_events(&viewer, &info) { self.with_key(info).await? } else { info };
                Ok(described(quotes::of_subscription(&viewer, info)))
            }
            Request::DeleteSubscription { topic, name, force, with_dead_letters } => {
                self.delete(principal, Root::Subscription(topic, name), force, with_dead_letters).await
            }
            Request::SetSubscription { topic, name, options } => {
                self.set_subscription(principal, topic, name, options).await
            }
            Request::SeekSubscription { topic, name, to, partitions } => {
                self.seek_subscription(principal, (topic, name), to, partitions).await
            }
            Request::PauseSubscription { topic, name } => {
                self.set_paused(principal.actor(), (&topic, &name), true, None).await
            }
            Request::ResumeSubscription { topic, name } => {
                self.resume_subscription(principal, &catalogue, (&topic, &name)).await
            }
            Request::DeployPlugin { name, size, config } => {
                self.deploy_plugin(principal, name, size, config, artefact).await
            }
            Request::ListPlugins { limit, after } => self.list_plugins(&viewer, limit, after.as_deref()),
            Request::RemovePlugin { name, version } => self.remove_plugin(principal, name, version).await,
            Request::CreateRoute(spec) => self.create_route(principal, spec).await,
            Request::ListRoutes { limit, after } => self.list_routes(&viewer, limit, after.as_deref()),
            Request::DeleteRoute { name, force, with_dead_letters } => {
                self.delete(principal, Root::Route(name), force, with_dead_letters).await
            }
            Request::ResumeRoute { name } => self.resume_route(&catalogue, &name),
            other => self.request_of_events(principal, viewer, other).await,
        }
    }

    /// Executes a request about events, transactions or producers; else one about identities.
    async fn request_of_events(
        &self,
        principal: &Principal,
        viewer: Viewer,
        request: Request,
    ) -> Result<Response, Error> {
        match request {
            Request::ListScheduled { topic, limit, after } => {
                self.schedule().list(&topic, limit, after.as_deref()).await
            }
            Request::DescribeScheduled { topic, id } => self.schedule().describe(&topic, id).await,
            Request::CancelScheduled { topic, id } => self.schedule().cancel(&topic, id).await,
            Request::ListDeadLetters { topic, limit, after } => {
                self.list_dead_letters(&viewer, topic, Page::new(limit), after.as_deref()).await
            }
            Request::GroupDeadLetters(asked) => self.group_dead_letters(asked).await,
            Request::ListRedrives { topic, from, until } => self.list_redrives(&topic, from, until).await,
            Request::Redrive(asked) => self.redrive(asked).await,
            Request::PurgeDeadLetters(asked) => self.purge_dead_letters(asked).await,
            Request::PurgeTopic(asked) => self.purge_topic(asked).await,
            Request::Transact(_) => Err(transactions::without_batches()),
            Request::DecideTransaction(asked) => self.decide_transaction(principal, asked).await,
            Request::ListTransactions(asked) => self.list_transactions(viewer, asked).await,
            Request::DescribeTransaction { group, id } => self.describe_transaction(group, id).await,
            Request::OpenProducer { topic, name } => producers::open(self, &topic, name).await,
            other => self.push_or_identity(principal, other).await,
        }
    }

    async fn push_or_identity(&self, principal: &Principal, request: Request) -> Result<Response, Error> {
        match request {
            Request::SetPush(set) => self.push_requests().set(principal, set).await,
            Request::RemovePush { topic, name } => self.push_requests().remove(principal, topic, name).await,
            other => self.identity_requests().answer(principal, other).await,
        }
    }

    pub(crate) fn identity_requests(&self) -> IdentityRequests<'_> {
        let (shard, chains, clock) = (&self.inner.shard, &self.inner.chains, &self.inner.config.clock);
        IdentityRequests { shard, chains, clock }
    }

    /// Checks whether the caller may make the request, and notes what no commit tells of.
    async fn admit_request(&self, principal: &Principal, request: &Request) -> Result<(), Error> {
        self.check(principal, &request.required())?;
        self.begin_request(principal).await?;
        let Some(noted) = Noted::of(request) else { return Ok(()) };
        let catalogue = self.inner.shard.catalogue();
        // What is not there is told to its caller alone.
        let is_there = match request {
            Request::Redrive(asked) => catalogue.topic(&asked.topic).is_ok(),
            Request::PurgeDeadLetters(asked) => catalogue.topic(&asked.topic).is_ok(),
            Request::PurgeTopic(asked) => catalogue.topic(&asked.topic).is_ok(),
            Request::ResumeRoute { name } => catalogue.route(name).is_ok(),
            _ => true,
        };
        if !is_there {
            return Ok(());
        }
        self.note(principal, noted).await
    }

    /// Notes in the audit topic what is no change of the catalogue, before it is done. Without principals nothing is noted.
    async fn note(&self, principal: &Principal, noted: Noted) -> Result<(), Error> {
        if !self.has_principals() {
            return Ok(());
        }
        self.inner.shard.change(principal.actor(), Change::Noted(noted)).await
    }

    pub(crate) fn push_requests(&self) -> PushRequests<'_> {
        let inner = &self.inner;
        let urls = inner.config.push_urls.as_deref();
        PushRequests { shard: &inner.shard, clock: &inner.config.clock, board: &inner.pushes, urls }
    }

    fn viewer(&self, principal: &Principal, catalogue: &Arc<Catalogue>) -> Viewer {
        Viewer::new(principal, catalogue, self.inner.config.clock.now())
    }

    fn schedule(&self) -> ScheduleRequests<'_> {
        let inner = &self.inner;
        ScheduleRequests { shard: &inner.shard, store: &inner.store, clock: &inner.config.clock }
    }

    async fn purge_topic(&self, asked: PurgeTopic) -> Result<Response, Error> {
        let purging = Purging { broker: self.clone() };
        self.to_the_end(async move { purging.purge(asked).await }).await.map(Response::TopicPurged)
    }

    fn backlogs(&self) -> BacklogRequests<'_> {
        let inner = &self.inner;
        BacklogRequests { owners: &inner.owner_tasks, store: &inner.store, clock: &inner.config.clock }
    }

    /// The metrics of everything that exists now.
    pub async fn observe(&self) -> Vec<Series> {
        let catalogue = self.inner.shard.catalogue();
        let mut collected = Collected::new();
        for record in catalogue.topics.values() {
            if let Some(topic) = self.inner.shard.view().topics().get(record.id()) {
                let window_ms = record.settings.dedup_window_ms;
                let dedup = (window_ms > 0).then(|| topic.dedup.info(window_ms));
                collected.topic(record.name.as_str(), &topic.counters, dedup, topic.scheduled());
                if topic.is_compacted() {
                    collected.compacted(record.name.as_str(), &topic.counters);
                }
                if record.settings.has_backlog_quota()
                    && let Ok(backlog) = self.backlogs().backlog(&topic, |_| true).await
                {
                    collected.backlog(record.name.as_str(), &backlog);
                }
            }
        }
        for record in catalogue.subscriptions.values() {
            let Some(handle) = self.inner.owner_tasks.subscription(SubscriptionId(record.id)) else {
                continue;
            };
            if let Ok(info) = self.describe_running(&handle).await {
                let name = format!("{}/{}", record.topic, record.name);
                if catalogue.pushes.contains_key(&SubscriptionId(record.id)) {
                    collected.push(&name, &self.inner.pushes.of(SubscriptionId(record.id)));
                }
                collected.subscription(&name, handle.delivered(), &info, self.inner.config.clock.now());
            }
        }
        for route in self.inner.owner_tasks.routes() {
            collected.route(&route.info());
            let attachment = format!("route {}", route.record().spec.name);
            observe_plugins(&mut collected, &catalogue, &attachment, route.costs().read());
        }
        for subscription in self.inner.owner_tasks.subscriptions() {
            let record = subscription.record();
            let attachment = format!("{}/{}", record.topic, record.name);
            observe_plugins(&mut collected, &catalogue, &attachment, subscription.costs().read());
        }
        observe_plugins(&mut collected, &catalogue, "read", self.inner.masks.costs());
        collected.withheld_events(self.inner.masks.withheld());
        if let Some(left) = self.inner.authentication.administrators_end_in() {
            collected.administrators_end(left);
        }
        let compaction_bytes = self.inner.store.stats().compaction_bytes;
        for (reason, count) in self.inner.authentication.refused() {
            collected.refused_calls(reason, count);
        }
        collected.expired_subscriptions(self.inner.expiry.expired());
        collected.transactions(self.inner.shard.view().checks().counts());
        collected.engine(self.inner.guard.free_bytes(), self.health().ready, compaction_bytes);
        collected.finish()
    }

    fn info(&self) -> EngineInfo {
        let inner = &self.inner;
        let stats = inner.store.stats();
        let SyncTimes { count: syncs, p50_us: sync_p50_us, p99_us: sync_p99_us } =
            inner.shard.view().sync_times();
        EngineInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            engine_id: inner.engine_id.clone(),
            start_id: inner.start_id.clone(),
            uptime_ms: u64::try_from(inner.config.clock.uptime().as_millis()).unwrap_or(u64::MAX),
            disk_free_bytes: inner.guard.free_bytes(),
            compaction_bytes: stats.compaction_bytes,
            flush_bytes: stats.flush_bytes,
            stall_seconds: std::time::Duration::from_micros(stats.stall_micros).as_secs_f64(),
            syncs,
            sync_p50_us,
            sync_p99_us,
            read_only: self.health().reason,
            ..EngineInfo::default()
        }
    }

    async fn create_topic(
        &self,
        principal: &Principal,
        name: TopicName,
        settings: TopicSettings,
    ) -> Result<Response, Error> {
        name.check_free()?;
        let by = principal.actor();
        let owner = by.principal.clone();
        self.inner.shard.change(by, Change::CreateTopic { name: name.clone(), settings, owner }).await?;
        self.describe_topic(principal, &name).await
    }

    async fn describe_topic(&self, principal: &Principal, name: &TopicName) -> Result<Response, Error> {
        let catalogue = self.inner.shard.catalogue();
        let (record, viewer) = (catalogue.topic(name)?, self.viewer(principal, &catalogue));
        let topic = self.inner.shard.topic(name)?;
        Ok(Response::Topic(self.backlogs().topic_info(&viewer, &topic, record).await))
    }

    async fn list_topics(&self, viewer: &Viewer, limit: u32, after: Option<&str>) -> Result<Response, Error> {
        let catalogue = viewer.catalogue();
        let after = after.map(TopicName::parse_any).transpose()?;
        let mut page = Page::new(limit);
        for (name, record) in catalogue.topics.range((pages::behind(after.as_ref()), Bound::Unbounded)) {
            if !viewer.sees(&Scope::Topic(name.clone())) {
                continue;
            }
            // A missing one was deleted since the catalogue was read.
            let Some(topic) = self.inner.shard.view().topics().get(record.id()) else { continue };
            if !page.add(name, self.backlogs().topic_info(viewer, &topic, record).await) {
                break;
            }
        }
        let (topics, next) = page.finish();
        Ok(Response::Topics { topics, next })
    }

    async fn set_topic(
        &self,
        principal: &Principal,
        name: TopicName,
        changes: TopicChanges,
    ) -> Result<Response, Error> {
        let (broker, of, by) = (self.clone(), name.clone(), principal.actor());
        self.to_the_end(async move {
            // One change at a time: each is checked against the settings in force.
            let _changing = broker.inner.changing.lock().await;
            broker.inner.shard.change(by, Change::SetTopic { name: of, changes }).await
        })
        .await?;
        self.describe_topic(principal, &name).await
    }

    /// Runs a task to its end even if the caller is cancelled: it must not be left half done.
    async fn to_the_end<T: Send + 'static>(
        &self,
        task: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        self.inner.tasks.run(tracing::debug_span!("change"), task).await
    }

    /// Attaches a chain and drops it: what its plugins refuse is refused before anything is stored.
    async fn try_chain(
        &self,
        catalogue: &Catalogue,
        specs: &[StageSpec],
        topic: &TopicName,
        point: AttachmentPoint,
    ) -> Result<(), Error> {
        let chains = &self.inner.chains;
        chains.attach(catalogue, specs, topic.as_str(), point, chains.trial()).await.map(drop)
    }

    /// The offset that a start resolves to now, per partition.
    async fn positions(&self, topic: &Arc<Topic>, from: Start) -> Result<Vec<Offset>, Error> {
        starts::check(topic, from, self.inner.config.clock.now())?;
        let mut positions = Vec::with_capacity(topic.partitions.len());
        for number in topic.partition_ids() {
            let log = Log::new(Arc::clone(&self.inner.store), Arc::clone(topic), number)?;
            positions.push(log.position(from).await?);
        }
        Ok(positions)
    }
}

/// Collects the statistics of the plugins at one attachment; a plugin with several stages there is summed.
fn observe_plugins(
    collected: &mut Collected,
    catalogue: &Catalogue,
    attachment: &str,
    costs: BTreeMap<u64, StageStats>,
) {
    for (plugin, stats) in costs {
        if let Some(record) = catalogue.plugins.by_id(plugin) {
            collected.plugin(&format!("{}@{}", record.name, record.version), attachment, &stats);
        }
    }
}
