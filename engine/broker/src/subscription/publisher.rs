//! Keeps what others see of a subscription true, with as little work as what has changed.

use std::sync::Arc;

use levada_delivery::subscription::{ConsumerId, Subscription};
use levada_protocol::{
    ids::{Offset, PartitionId},
    request::{PauseReason, Position},
};

use super::{
    consumers::Consumers,
    status::{Members, Status},
};

/// The owner's side of a [`Status`].
#[derive(Debug)]
pub(super) struct Publisher {
    status: Arc<Status>,
    /// What the published list of consumers is of.
    version: Option<u64>,
    passed_over: Vec<ConsumerId>,
}

impl Publisher {
    pub(super) fn new(status: Arc<Status>) -> Self {
        Self { status, version: None, passed_over: Vec::new() }
    }

    /// Publishes what has changed; `settled` is called with the durable floor of each partition that was updated.
    pub(super) fn publish(
        &mut self,
        state: &mut Subscription,
        consumers: &Consumers,
        paused: Option<&PauseReason>,
        mut settled: impl FnMut(PartitionId, Offset),
    ) {
        for partition in state.take_changed() {
            let stats = state.partition(partition);
            self.status.publish_partition(partition, &stats);
            settled(partition, stats.floor);
        }
        self.status.publish(&state.stats());
        self.status.publish_paused(paused);
        let version = state.consumers_version();
        let passed_over: Vec<ConsumerId> = state.passed_over().collect();
        if self.version != Some(version) || self.passed_over != passed_over {
            let attached = consumers.names(state.consumers());
            let names = consumers.names(passed_over.iter().copied());
            self.status.publish_members(Members { attached, passed_over: names });
            (self.version, self.passed_over) = (Some(version), passed_over);
        }
    }

    /// Counts events that were sent.
    pub(super) fn delivered(&self, events: u64) {
        self.status.delivered().increment(events);
    }

    /// How far the subscription has come in each partition, durably.
    pub(super) fn positions(&self) -> Vec<Position> {
        self.status.positions()
    }
}
