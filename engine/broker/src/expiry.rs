//! Subscriptions that nobody consumes: the log says when that has lasted for a day, and those that say after how long they
//! expire are deleted then.
//!
//! The time of day decides, as it does in the rows; it may jump, so it is looked at again and again. A deletion holds off those
//! who attach until it is durable, or was refused; the shard's writer decides it against what is stored.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use levada_protocol::ids::{SubscriptionId, Timestamp};
use tokio::time::Instant;

use crate::{
    clock::Clock,
    error::Error,
    running::OwnerTasks,
    shard::ShardHandle,
    subscription::{SubscriptionHandle, UNATTENDED_ALARM_MS},
};

/// How often the time of day is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Looks at how long subscriptions have had no consumer.
pub(crate) struct Expiry {
    shard: ShardHandle,
    owner_tasks: Arc<OwnerTasks>,
    /// The broker's, held while something with a task of its own is made or removed.
    changing: Arc<tokio::sync::Mutex<()>>,
    clock: Clock,
    /// Nothing is deleted before.
    begins: Instant,
    expired: AtomicU64,
}

impl Expiry {
    /// Nothing is deleted for so long `after_start`.
    pub(crate) fn new(
        shard: ShardHandle,
        owner_tasks: Arc<OwnerTasks>,
        changing: Arc<tokio::sync::Mutex<()>>,
        clock: Clock,
        after_start: Duration,
    ) -> Self {
        let (begins, expired) = (Instant::now() + after_start, AtomicU64::new(0));
        Self { shard, owner_tasks, changing, clock, begins, expired }
    }

    /// How many subscriptions were deleted since the start.
    pub(crate) fn expired(&self) -> u64 {
        self.expired.load(Ordering::Relaxed)
    }

    /// A round every few seconds. Never ends; may be dropped at any await.
    pub(crate) async fn run(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            // Nothing can be deleted while no writes are taken, and that is known.
            if let Err(error) = self.round().await
                && self.shard.closed().is_none()
            {
                tracing::warn!(%error, "a subscription that nobody consumes could not be deleted yet");
            }
        }
    }

    /// Looks at every subscription once.
    ///
    /// # Errors
    /// If one could not be deleted, or whether it was is unknown.
    pub(crate) async fn round(&self) -> Result<(), Error> {
        let mut done = Ok(());
        for handle in self.owner_tasks.subscriptions() {
            let Some(since) = handle.attendance().since() else { continue };
            let for_ms = self.clock.now().0.saturating_sub(since.0);
            if for_ms >= UNATTENDED_ALARM_MS && handle.attendance().begins_alarm() {
                warn(&handle, since);
            }
            let expire_after_ms = handle.record().options.expire_after_ms();
            if expire_after_ms.is_some_and(|after| for_ms >= after) && Instant::now() >= self.begins {
                done = done.and(self.expire(SubscriptionId(handle.record().id)).await);
            }
        }
        done
    }

    /// Deletes a subscription unless somebody attaches first, or it is not due any more.
    async fn expire(&self, id: SubscriptionId) -> Result<(), Error> {
        let _changing = self.changing.lock().await;
        // Another owner may have begun, to which consumers attach.
        let Some(handle) = self.owner_tasks.subscription(id) else { return Ok(()) };
        let (record, shard) = (handle.record(), &self.shard);
        let Some(after_ms) = record.options.expire_after_ms() else { return Ok(()) };
        let Some(hold) = handle.attendance().hold() else { return Ok(()) };
        shard.expire(id, hold.since, after_ms).await?;
        let catalogue = shard.catalogue();
        if catalogue.subscriptions.has_id(id) {
            return Ok(());
        }
        hold.shut();
        self.owner_tasks.retain(|id| catalogue.subscriptions.has_id(id), |id| catalogue.routes.has_id(id));
        self.expired.fetch_add(1, Ordering::Relaxed);
        tracing::info!(
            topic = %record.topic,
            name = %record.name,
            expire_after_ms = after_ms,
            "the subscription was deleted: it had no consumer for as long as its expire_after_ms says"
        );
        Ok(())
    }
}

fn warn(handle: &SubscriptionHandle, since: Timestamp) {
    let record = handle.record();
    tracing::warn!(
        topic = %record.topic,
        name = %record.name,
        since_ms = since.0,
        "nobody has consumed the subscription for a day: it holds back what its topic would drop; delete it if nobody needs it, \
         or set its expire_after_ms"
    );
}
