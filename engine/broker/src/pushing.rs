//! What whoever pushes deliveries has of the broker: what is to be pushed, and a consumer's place at each subscription.

use std::sync::Arc;

use levada_protocol::{
    error::ErrorCode,
    ids::{SubscriptionId, Timestamp, TopicId},
};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::Duration,
};

use crate::{
    actor::Actor,
    broker::Broker,
    catalogue::CatalogueEvent,
    error::Error,
    push::{PushRules, PushTarget},
    rows::{PushRecord, SubscriptionRecord},
    subscription::Consumer,
};

/// The name of the consumer that a push is.
const CONSUMER: &str = "push";

/// The broker, as who pushes sees it. Whether somebody may have deliveries pushed was checked when that was asked for.
#[derive(Clone)]
pub struct Pushing {
    broker: Broker,
}

/// Tells when what is to be pushed may have changed.
#[derive(Debug)]
pub struct PushChanges {
    events: Receiver<CatalogueEvent>,
}

impl PushChanges {
    /// Waits for the next change; false when the engine ends. Cancel safe.
    pub async fn next(&mut self) -> bool {
        loop {
            match self.events.recv().await {
                Ok(
                    CatalogueEvent::PushChanged(_)
                    | CatalogueEvent::SubscriptionChanged(_)
                    | CatalogueEvent::Reloaded,
                )
                | Err(RecvError::Lagged(_)) => return true,
                Ok(_) => {}
                Err(RecvError::Closed) => return false,
            }
        }
    }
}

impl Pushing {
    /// For this broker.
    #[must_use]
    pub fn new(broker: Broker) -> Self {
        Self { broker }
    }

    /// Follows what is to be pushed from now on.
    pub fn follow(&self) -> PushChanges {
        PushChanges { events: self.broker.inner.shard.view().follow() }
    }

    /// The time of day.
    pub fn now(&self) -> Timestamp {
        self.broker.inner.config.clock.now()
    }

    /// Everything that is to be pushed now: not of subscriptions that are paused until somebody resumes them.
    pub fn targets(&self) -> Vec<PushTarget> {
        let catalogue = self.broker.inner.shard.catalogue();
        let board = &self.broker.inner.pushes;
        board.retain(|id| catalogue.pushes.contains_key(&id));
        let targets = catalogue.pushes.iter().filter_map(|(id, push)| {
            let record = catalogue.subscriptions.by_id(*id)?;
            let standing = board.of(*id);
            if record.paused {
                standing.set_pushing(false);
                return None;
            }
            let (topic, subscription) = (record.topic.clone(), record.name.clone());
            let rules = rules(push, record);
            Some(PushTarget {
                id: *id,
                topic,
                topic_id: TopicId(record.topic_id),
                subscription,
                rules,
                standing,
            })
        });
        targets.collect()
    }

    /// Attaches a consumer to the subscription of a target.
    ///
    /// # Errors
    /// `SUBSCRIPTION_NOT_FOUND`, `PLUGIN_…`, as for any consumer.
    pub async fn attach(&self, target: &PushTarget) -> Result<Consumer, Error> {
        let catalogue = self.broker.inner.shard.catalogue();
        let record = Arc::clone(catalogue.subscription(&target.topic, &target.subscription)?);
        if SubscriptionId(record.id) != target.id {
            let message = "the subscription was deleted, and another has its name";
            return Err(Error::refused(ErrorCode::SubscriptionNotFound, message));
        }
        self.broker.for_connection().attach(&record, CONSUMER.to_owned(), false).await
    }

    /// Pauses the subscription of a target until somebody resumes it, because its receiver wants no more; nothing happens if
    /// its deliveries are pushed elsewhere by now.
    ///
    /// # Errors
    /// If that cannot be stored.
    pub async fn pause(&self, target: &PushTarget, message: String) -> Result<(), Error> {
        let catalogue = self.broker.inner.shard.catalogue();
        let is_same = |push: &Arc<PushRecord>| push.url == target.rules.url;
        // Another subscription of the name has another id, and its own push.
        if !catalogue.pushes.get(&target.id).is_some_and(is_same) {
            return Ok(());
        }
        let of = (&target.topic, &target.subscription);
        self.broker.set_paused(Actor::engine(), of, true, Some(message)).await.map(drop)
    }
}

fn rules(push: &PushRecord, record: &SubscriptionRecord) -> PushRules {
    let previous = push.previous.as_ref();
    PushRules {
        url: push.url.clone(),
        secret: push.secret.clone(),
        previous: previous.map(|it| (it.secret.clone(), Timestamp(it.until_ms))),
        max_in_flight: push.max_in_flight,
        timeout: Duration::from_millis(push.timeout_ms.into()),
        order: record.options.order(),
        max_attempts: record.options.max_attempts(),
        ack_timeout: Duration::from_millis(record.options.ack_timeout_ms().into()),
    }
}

impl std::fmt::Debug for Pushing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pushing").finish_non_exhaustive()
    }
}
