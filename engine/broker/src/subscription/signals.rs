//! What reaches a subscription's owner without room in its queue: consumers that left, and which losses clients were told
//! of.

use std::sync::{Mutex, PoisonError};

use levada_protocol::ids::{Offset, PartitionId};
use tokio::sync::Notify;

/// A partition, and the first and last offset of it that a client was told are lost.
pub(super) type ToldRange = (PartitionId, (Offset, Offset));

/// Set by whoever has something to say, taken by the owner, which each of them wakes.
#[derive(Debug, Default)]
pub(super) struct Signals {
    consumers: Mutex<Vec<u64>>,
    /// No more than there were notices under way.
    told: Mutex<Vec<ToldRange>>,
    notify: Notify,
}

impl Signals {
    pub(super) fn add(&self, consumer: u64) {
        self.consumers.lock().unwrap_or_else(PoisonError::into_inner).push(consumer);
        self.wake();
    }

    /// A client was told that these offsets are lost.
    pub(super) fn told(&self, partition: PartitionId, range: (Offset, Offset)) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).push((partition, range));
        self.wake();
    }

    /// Wakes the owner.
    pub(super) fn wake(&self) {
        self.notify.notify_one();
    }

    /// Waits until the owner is woken. Cancel safe.
    pub(super) async fn woken(&self) {
        self.notify.notified().await;
    }

    /// Which losses clients were told of since the last call.
    pub(super) fn take_told(&self) -> Vec<ToldRange> {
        std::mem::take(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn take(&self) -> Vec<u64> {
        std::mem::take(&mut self.consumers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
