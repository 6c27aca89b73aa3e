//! Starting, replacing and ending the owners of subscriptions and routes, so that they match the catalogue; and the
//! disk guard's rounds.

use std::sync::Arc;

use levada_protocol::{
    error::ErrorCode,
    ids::{Offset, RouteId, SubscriptionId},
    request::StageSpec,
};

use tokio::sync::broadcast::error::RecvError;

use crate::{
    broker::Broker,
    catalogue::{Catalogue, CatalogueEvent},
    error::Error,
    log::blocking,
    route,
    rows::{self, RouteCursor, RouteRecord, SubscriptionRecord},
    shard::Generation,
    subscription::{self, SubscriptionHandle},
    topic::Topic,
};

impl Broker {
    /// How to reach a subscription's owner. One that was made a moment ago may be about to start; one that has ended,
    /// though its subscription exists, is replaced.
    pub(crate) async fn owner_of(&self, record: &SubscriptionRecord) -> Result<SubscriptionHandle, Error> {
        let id = SubscriptionId(record.id);
        let running = &self.inner.owner_tasks;
        let is_ending = self.inner.tasks.cancelled().is_cancelled();
        let serves = |handle: &SubscriptionHandle| is_ending || !handle.has_ended();
        if let Some(handle) = running.subscription(id).filter(serves) {
            return Ok(handle);
        }
        let _changing = self.inner.changing.lock().await;
        if let Some(handle) = running.subscription(id).filter(serves) {
            return Ok(handle);
        }
        if running.subscription(id).is_some() {
            tracing::warn!(
                topic = %record.topic,
                name = %record.name,
                "the subscription's owner has ended, a new one starts"
            );
            self.replace_owner(id).await?;
        }
        running.subscription(id).ok_or_else(|| {
            let message = format!("subscription {}/{} was deleted", record.topic, record.name);
            Error::refused(ErrorCode::SubscriptionNotFound, message)
        })
    }

    /// Starts another owner of a subscription. What the one before it has not committed by now, it cannot commit any
    /// more. The caller holds `changing`.
    pub(crate) async fn replace_owner(&self, id: SubscriptionId) -> Result<(), Error> {
        let generation = self.inner.shard.take_over(id).await?;
        let broker = self.clone();
        blocking(move || {
            let catalogue = broker.inner.shard.catalogue();
            match catalogue.subscriptions.by_id(id) {
                Some(record) => broker.start_subscription(record, generation),
                None => Ok(()),
            }
        })
        .await
    }

    /// Matches the owner tasks with the newest catalogue. The caller holds `changing`.
    pub(crate) async fn follow_catalogue(&self) -> Result<(), Error> {
        let broker = self.clone();
        blocking(move || broker.match_owners(&broker.inner.shard.catalogue())).await
    }

    /// Starts the owner tasks of the catalogue's subscriptions and routes, and ends those of deleted ones. Blocks on
    /// the disk. The caller holds `changing`, or nothing else runs yet.
    pub(crate) fn match_owners(&self, catalogue: &Catalogue) -> Result<(), Error> {
        let running = &self.inner.owner_tasks;
        running.retain(|id| catalogue.subscriptions.has_id(id), |id| catalogue.routes.has_id(id));
        // One that cannot start does not keep the others from starting.
        let subscriptions = catalogue.subscriptions.values();
        let subscriptions = subscriptions.map(|record| self.match_subscription(catalogue, record));
        let started = subscriptions.fold(Ok(()), Result::and);
        let routes = catalogue.routes.values().map(|record| self.match_route(catalogue, record));
        routes.fold(started, Result::and)
    }

    /// Starts or ends the owner tasks that an event is about.
    async fn follow_event(&self, event: CatalogueEvent) -> Result<(), Error> {
        let _changing = self.inner.changing.lock().await;
        let catalogue = self.inner.shard.catalogue();
        match &event {
            CatalogueEvent::SubscriptionChanged(record) | CatalogueEvent::SubscriptionMoved(record, _) => {
                // It may have changed again since, or be gone.
                if let Some(record) = catalogue.subscriptions.by_id(SubscriptionId(record.id)) {
                    self.follow_subscription(record).await?;
                }
            }
            CatalogueEvent::Reloaded => {
                let mut followed = Ok(());
                for record in catalogue.subscriptions.values() {
                    // One that cannot follow does not keep the others from it.
                    followed = followed.and(self.follow_subscription(record).await);
                }
                followed?;
            }
            _ => {}
        }
        let broker = self.clone();
        blocking(move || {
            let catalogue = broker.inner.shard.catalogue();
            match event {
                CatalogueEvent::SubscriptionCreated(record) => broker.match_subscription(&catalogue, &record),
                CatalogueEvent::RouteCreated(record) => broker.match_route(&catalogue, &record),
                CatalogueEvent::SubscriptionDeleted(_) | CatalogueEvent::RouteDeleted(_) => {
                    broker.match_owners(&catalogue)
                }
                CatalogueEvent::Reloaded => {
                    // A version whose deployment was not known to have succeeded may be there.
                    broker.reattach(|_| true);
                    broker.match_owners(&catalogue)
                }
                CatalogueEvent::SubscriptionChanged(_)
                | CatalogueEvent::SubscriptionMoved(..)
                | CatalogueEvent::TopicCreated(_)
                | CatalogueEvent::TopicChanged(_)
                | CatalogueEvent::TopicDeleted(_)
                | CatalogueEvent::PushChanged(_)
                | CatalogueEvent::IdentitiesChanged => Ok(()),
                // The request that changed it has reattached the chains before its response.
                CatalogueEvent::PluginChanged(name) => {
                    tracing::debug!(plugin = %name, "the versions of a plugin changed");
                    Ok(())
                }
            }
        })
        .await
    }

    /// Reattaches every chain that names one of these plugins, as the active version has changed.
    pub(crate) fn reattach(&self, is_other: impl Fn(&str) -> bool) {
        let follows = |chain: &[StageSpec]| chain.iter().any(|stage| is_other(&stage.plugin));
        for subscription in self.inner.owner_tasks.subscriptions() {
            if follows(subscription.record().options.chain()) {
                subscription.reattach();
            }
        }
        for route in self.inner.owner_tasks.routes() {
            if follows(&route.record().spec.chain) {
                route.reattach();
            }
        }
    }

    /// Starts the owner of a subscription that exists and has none.
    pub(crate) fn match_subscription(
        &self,
        catalogue: &Catalogue,
        record: &Arc<SubscriptionRecord>,
    ) -> Result<(), Error> {
        let id = SubscriptionId(record.id);
        if catalogue.subscriptions.has_id(id) && self.inner.owner_tasks.subscription(id).is_none() {
            self.start_subscription(record, Generation::FIRST)?;
        }
        Ok(())
    }

    /// Lets the owner of a subscription follow its record, which has changed; if another one has to begin, it has begun when
    /// this returns. The caller holds `changing`.
    pub(crate) async fn follow_subscription(&self, record: &Arc<SubscriptionRecord>) -> Result<(), Error> {
        let id = SubscriptionId(record.id);
        let Some(handle) = self.inner.owner_tasks.subscription(id) else { return Ok(()) };
        if handle.begins_anew_with(record) {
            // Before the one before it ends, so that its consumers find it; and a failure is seen and tried again.
            self.replace_owner(id).await?;
        }
        handle.follow(record);
        Ok(())
    }

    /// Starts the owners of a route that exists and has none.
    pub(crate) fn match_route(&self, catalogue: &Catalogue, record: &Arc<RouteRecord>) -> Result<(), Error> {
        let id = RouteId(record.id);
        if catalogue.routes.has_id(id) && self.inner.owner_tasks.route(id).is_none() {
            self.start_route(record)?;
        }
        Ok(())
    }

    /// Starts an owner of a subscription.
    fn start_subscription(
        &self,
        record: &Arc<SubscriptionRecord>,
        generation: Generation,
    ) -> Result<(), Error> {
        let topic = self.inner.shard.topic(&record.topic)?;
        let context = subscription::Context {
            store: Arc::clone(&self.inner.store),
            shard: self.inner.shard.clone(),
            chains: self.inner.chains.clone(),
            cancelled: self.inner.tasks.cancelled().clone(),
            clock: self.inner.config.clock.clone(),
            retained: Arc::clone(&self.inner.retained),
            bounds: self.inner.config.delivery,
        };
        let id = SubscriptionId(record.id);
        let before = self.inner.owner_tasks.subscription(id);
        let (handle, task) = subscription::open(record, &topic, &context, generation, before.as_ref())?;
        self.inner.owner_tasks.add_subscription(id, handle);
        let span = tracing::info_span!("subscription", topic = %record.topic, name = %record.name);
        // Not the broker itself: its end is what ends the task if the engine could not start.
        let broker = self.downgrade();
        self.inner.tasks.spawn(span, async move {
            task.run().await;
            if let Some(broker) = broker.upgrade() {
                broker.owner_ended(id).await;
            }
        });
        Ok(())
    }

    /// Replaces an owner that ended by itself, as after a transaction of which the outcome is unknown: nobody else notes since
    /// when the subscription has had no consumer.
    async fn owner_ended(&self, id: SubscriptionId) {
        let cancelled = self.inner.tasks.cancelled();
        while !cancelled.is_cancelled()
            && let Some(record) = self.inner.shard.catalogue().subscriptions.by_id(id)
            && self.inner.owner_tasks.subscription(id).is_some_and(|handle| handle.has_ended())
        {
            let Err(error) = self.owner_of(record).await else { return };
            if matches!(error.code(), ErrorCode::SubscriptionNotFound | ErrorCode::TopicNotFound) {
                return;
            }
            tracing::warn!(%error, "another owner could not start yet");
            cancelled.run_until_cancelled(tokio::time::sleep(self.inner.config.disk_check_interval)).await;
        }
    }

    /// Starts the owners of a route.
    fn start_route(&self, record: &Arc<RouteRecord>) -> Result<(), Error> {
        let source = self.inner.shard.topic(&record.spec.from)?;
        let context = route::RouteContext {
            store: Arc::clone(&self.inner.store),
            shard: self.inner.shard.clone(),
            chains: self.inner.chains.clone(),
            clock: self.inner.config.clock.clone(),
            cancelled: self.inner.tasks.cancelled().clone(),
        };
        let cursors = self.route_cursors(record, &source)?;
        let (handle, tasks) = route::open(record, &source, &cursors, &context);
        self.inner.owner_tasks.add_route(RouteId(record.id), handle);
        for task in tasks {
            self.inner.tasks.spawn(tracing::info_span!("route", name = %record.spec.name), task.run());
        }
        Ok(())
    }

    fn route_cursors(&self, record: &RouteRecord, source: &Topic) -> Result<Vec<Offset>, Error> {
        let cursor = |number| {
            let key = (RouteId(record.id), number);
            let stored = rows::get::<RouteCursor>(self.inner.store.as_ref(), &key)?;
            let cursor = stored.ok_or_else(|| Error::Store {
                code: ErrorCode::StorageCorrupt,
                message: format!("route {} has no cursor for partition {number}", record.spec.name),
            })?;
            Ok(cursor.0)
        };
        source.partition_ids().map(cursor).collect()
    }

    /// Measures free space again and again; wakes the writer when a full store has room.
    pub(crate) fn start_guard(&self) {
        let inner = Arc::clone(&self.inner);
        let cancelled = self.inner.tasks.cancelled().clone();
        self.inner.tasks.spawn(tracing::info_span!("disk_guard"), async move {
            loop {
                tokio::select! {
                    biased;
                    () = cancelled.cancelled() => return,
                    () = tokio::time::sleep(inner.config.disk_check_interval) => {}
                }
                let low = inner.guard.measure_is_low();
                if !low && inner.shard.closed().is_some_and(|closed| closed.heals()) {
                    cancelled.run_until_cancelled(inner.shard.wake()).await;
                }
            }
        });
    }

    /// Matches the owner tasks with the catalogue whenever it changes. A request that changes it does so itself before
    /// its response; this finds changes without a request, such as what a full store turns out to hold.
    pub(crate) fn follow_catalogue_events(&self) {
        let (broker, mut events) = (self.clone(), self.inner.shard.view().follow());
        let cancelled = self.inner.tasks.cancelled().clone();
        let follow = async move {
            loop {
                let event = match events.recv().await {
                    Ok(event) => event,
                    // What was lost is in the catalogue.
                    Err(RecvError::Lagged(_)) => CatalogueEvent::Reloaded,
                    Err(RecvError::Closed) => return,
                };
                while let Err(error) = broker.follow_event(event.clone()).await {
                    tracing::warn!(%error, "subscriptions or routes could not be started yet");
                    tokio::time::sleep(broker.inner.config.disk_check_interval).await;
                }
            }
        };
        self.inner.tasks.spawn(tracing::info_span!("catalogue"), async move {
            cancelled.run_until_cancelled(follow).await;
        });
    }
}

#[cfg(test)]
mod tests;
