//! Keeps what others see of a subscription true, with as little work as what has changed.

use std::sync::Arc;

use levada_delivery::{
    now::Now,
    subscription::{ConsumerId, Subscription},
};
use levada_protocol::{
    ids::{Offset, PartitionId},
    request::{LostEvents, PauseReason, Position},
};
use tokio::time::{Duration, Instant};

use super::{
    consumers::Consumers,
    queue::Queue,
    status::{Members, Status},
    waiting,
};

/// The owner's side of a [`Status`].
#[derive(Debug)]
pub(super) struct Publisher {
    status: Arc<Status>,
    /// What the published list of consumers is of.
    version: Option<u64>,
    passed_over: Vec<ConsumerId>,
    /// When it was found out last what the subscription waits for, and whether it was published since that this may be
    /// another thing now.
    explained: Option<Instant>,
    explain_again: bool,
}

/// How long what a subscription waits for may be out of date: to find it out costs a look at every partition.
const EXPLAIN_INTERVAL: Duration = Duration::from_millis(200);

impl Publisher {
    pub(super) fn new(status: Arc<Status>) -> Self {
        Self { status, version: None, passed_over: Vec::new(), explained: None, explain_again: false }
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

    /// Publishes what the subscription waits for, unless that was done a moment ago: then [`Publisher::explain_at`] says
    /// when it is time.
    pub(super) fn explain(
        &mut self,
        state: &Subscription,
        consumers: &Consumers,
        queue: &Queue,
        now: Now,
        at: Instant,
    ) {
        self.explain_again = self.explained.is_some_and(|last| at < last + EXPLAIN_INTERVAL);
        if self.explain_again {
            return;
        }
        self.explained = Some(at);
        let name = |consumer| consumers.names(std::iter::once(consumer)).pop().unwrap_or_default();
        let waits = waiting::of_rules(state.waits_for(now), now, consumers.len() as u64, name, queue);
        self.status.publish_waiting(waits);
    }

    /// When what the subscription waits for should be published again; `None` if it is up to date.
    pub(super) fn explain_at(&self) -> Option<Instant> {
        self.explained.filter(|_| self.explain_again).map(|last| last + EXPLAIN_INTERVAL)
    }

    /// Publishes what was lost.
    pub(super) fn lost(&self, lost: Vec<LostEvents>) {
        self.status.publish_lost(lost);
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
