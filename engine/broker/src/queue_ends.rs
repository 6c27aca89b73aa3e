//! Where the queues of subscriptions end, as far as that is durable: what was redriven to a subscription alone is in its queue.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use levada_protocol::ids::SubscriptionId;

/// The ends of all queues.
#[derive(Debug, Default)]
pub(crate) struct QueueEnds {
    ends: Mutex<HashMap<SubscriptionId, Arc<QueueEnd>>>,
}

/// Where one queue ends: the number of the next event that is redriven to its subscription.
#[derive(Debug, Default)]
pub(crate) struct QueueEnd(AtomicU64);

impl QueueEnd {
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

impl QueueEnds {
    fn lock(&self) -> MutexGuard<'_, HashMap<SubscriptionId, Arc<QueueEnd>>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of a subscription's queue, now and later. It is the same for every owner of the subscription.
    pub(crate) fn of(&self, id: SubscriptionId) -> Arc<QueueEnd> {
        Arc::clone(self.lock().entry(id).or_default())
    }

    /// Shows where a queue ends now.
    pub(crate) fn set(&self, id: SubscriptionId, end: u64) {
        self.of(id).0.store(end, Ordering::Release);
    }

    /// Forgets the queue of a subscription that was deleted.
    pub(crate) fn forget(&self, id: SubscriptionId) {
        self.lock().remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_a_queues_end_sees_it_move() {
        let (ends, id) = (QueueEnds::default(), SubscriptionId(1));
        let end = ends.of(id);
        assert_eq!(end.get(), 0);
        ends.set(id, 5);
        assert_eq!((end.get(), ends.of(id).get(), ends.of(SubscriptionId(2)).get()), (5, 5, 0));
        ends.forget(id);
        assert_eq!(ends.of(id).get(), 0);
    }
}
