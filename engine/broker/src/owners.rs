//! Starting and ending the owners of subscriptions and routes, so that they match the catalogue; and the disk guard's
//! rounds, after which they may have to be matched anew.

use std::{collections::HashSet, sync::Arc};

use levada_protocol::{
    error::ErrorCode,
    ids::{Offset, RouteId, SubscriptionId, TopicName},
};

use crate::{
    broker::Broker,
    catalogue::Catalogue,
    error::Error,
    log::blocking,
    route,
    rows::{self, RouteCursor, RouteRecord, SubscriptionRecord},
    subscription::{self, SubscriptionHandle},
    topic::Topic,
};

impl Broker {
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
            clock: self.inner.config.clock.clone(),
            retained: Arc::clone(&self.inner.retained),
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

    /// Measures free space again and again; wakes the writer when a full store has room. What the store then turns
    /// out to hold may differ from what was answered, so the places are matched with the catalogue here as well.
    pub(crate) fn start_guard(&self, mut matched: Arc<Catalogue>) {
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
                if !low && inner.shard.closed().is_some_and(|closed| closed.heals()) {
                    cancelled.run_until_cancelled(inner.shard.wake()).await;
                }
                let catalogue = inner.shard.catalogue();
                if !Arc::ptr_eq(&catalogue, &matched) {
                    let changing = cancelled.run_until_cancelled(inner.changing.lock()).await;
                    let Some(_changing) = changing else { return };
                    match broker.follow_catalogue().await {
                        Ok(()) => matched = catalogue,
                        Err(error) => tracing::warn!(%error, "places could not be started yet"),
                    }
                }
            }
        });
    }
}
