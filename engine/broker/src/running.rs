//! The running owner tasks of subscriptions and routes, and how to reach them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use levada_protocol::ids::{Offset, PartitionId, RouteId, SubscriptionId, TopicId};

use crate::{catalogue::readers, floors::Floors, route::RouteHandle, subscription::SubscriptionHandle};

/// The owner tasks of all subscriptions and routes.
#[derive(Debug, Default)]
pub(crate) struct OwnerTasks {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    subscriptions: HashMap<SubscriptionId, SubscriptionHandle>,
    routes: HashMap<RouteId, RouteHandle>,
}

impl OwnerTasks {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add_subscription(&self, id: SubscriptionId, handle: SubscriptionHandle) {
        self.lock().subscriptions.insert(id, handle);
    }

    pub(crate) fn add_route(&self, id: RouteId, handle: RouteHandle) {
        self.lock().routes.insert(id, handle);
    }

    pub(crate) fn subscription(&self, id: SubscriptionId) -> Option<SubscriptionHandle> {
        self.lock().subscriptions.get(&id).cloned()
    }

    pub(crate) fn route(&self, id: RouteId) -> Option<RouteHandle> {
        self.lock().routes.get(&id).cloned()
    }

    /// Ends the tasks of the subscriptions and routes for which this is false.
    pub(crate) fn retain(
        &self,
        subscription: impl Fn(SubscriptionId) -> bool,
        route: impl Fn(RouteId) -> bool,
    ) {
        let mut inner = self.lock();
        inner.subscriptions.retain(|id, handle| subscription(*id) || handle.stop());
        inner.routes.retain(|id, handle| route(*id) || handle.stop());
    }

    pub(crate) fn subscriptions(&self) -> Vec<SubscriptionHandle> {
        self.lock().subscriptions.values().cloned().collect()
    }

    pub(crate) fn routes(&self) -> Vec<RouteHandle> {
        self.lock().routes.values().cloned().collect()
    }

    /// Which of the subscriptions and routes that read this topic have yet to come to `offset` of a partition, and how far
    /// each has come.
    pub(crate) fn behind(
        &self,
        topic: TopicId,
        partition: PartitionId,
        offset: Offset,
    ) -> Vec<(String, Offset)> {
        let inner = self.lock();
        let floor = |floors: &Floors| floors.floor(usize::from(partition.0));
        let subscriptions = inner.subscriptions.values().filter(|handle| handle.topic_id() == topic);
        let subscriptions = subscriptions.map(|handle| {
            let record = handle.record();
            (format!("subscription {}/{}", record.topic, record.name), floor(handle.floors()))
        });
        let routes = inner.routes.values().filter(|handle| handle.topic_id() == topic);
        let routes =
            routes.map(|handle| (format!("route {}", handle.record().spec.name), floor(handle.floors())));
        subscriptions.chain(routes).filter(|(_, at)| *at < offset).collect()
    }

    /// How far each subscription and route that reads this topic has come, and the topic's number in
    /// [`crate::catalogue::readers`], as far as they are those that it is about.
    pub(crate) fn floors_of(&self, topic: TopicId) -> (Vec<Arc<Floors>>, u64) {
        let inner = self.lock();
        let subscriptions = inner.subscriptions.values().filter(|handle| handle.topic_id() == topic);
        let routes = inner.routes.values().filter(|handle| handle.topic_id() == topic);
        let readers = subscriptions.clone().map(|handle| readers::of_subscription(&handle.record()));
        let readers = readers.chain(routes.clone().map(|handle| readers::of_route(handle.record())));
        let readers = readers.fold(0, |all, reader| all ^ reader);
        let floors = subscriptions
            .map(|handle| Arc::clone(handle.floors()))
            .chain(routes.map(|handle| Arc::clone(handle.floors())))
            .collect();
        (floors, readers)
    }
}
