//! Compaction: rounds over the partitions of topics that keep the last event of each key.
//!
//! A pass over a partition first collects the keys of what was never compacted, then rewrites all records before a bound
//! without the events that later ones have superseded, as commits that hold only if the log still begins where it did and
//! no subscription was moved (engine/adr/0017-compaction.md). Which events stay is `levada_delivery::compaction`.

mod pass;
mod plan;
mod record;

use std::{sync::Arc, time::Duration};

use levada_protocol::{
    ids::{Offset, PartitionId, Timestamp},
    request::Retain,
};
use levada_store::Store;

use self::{
    pass::Pass,
    plan::{Plan, plan},
};
use crate::{
    clock::Clock,
    config::CompactionConfig,
    error::Error,
    guard::Guard,
    log::blocking,
    running::OwnerTasks,
    shard::{Condition, ProposalRefused, ShardHandle, StateChange},
    topic::Topic,
};

/// Compacts logs.
pub(crate) struct Compactor {
    store: Arc<dyn Store>,
    shard: ShardHandle,
    owner_tasks: Arc<OwnerTasks>,
    guard: Arc<Guard>,
    config: CompactionConfig,
    /// One pass at a time: each holds the keys of a stretch.
    passing: tokio::sync::Mutex<()>,
}

impl Compactor {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        shard: ShardHandle,
        owner_tasks: Arc<OwnerTasks>,
        guard: Arc<Guard>,
        config: CompactionConfig,
    ) -> Self {
        Self { store, shard, owner_tasks, guard, config, passing: tokio::sync::Mutex::default() }
    }

    /// Runs a round each `interval`. Never ends; may be dropped at any await.
    pub(crate) async fn run(&self, interval: Duration, clock: &Clock) {
        loop {
            tokio::time::sleep(interval).await;
            if let Err(error) = self.round(clock.now()).await {
                tracing::warn!(%error, "a compaction round ended early; the next one continues");
            }
        }
    }

    /// One round as if it were `now`: every partition that it is worth for, one after the other.
    ///
    /// # Errors
    /// The first error of a partition; it keeps no other from its pass.
    pub(crate) async fn round(&self, now: Timestamp) -> Result<(), Error> {
        let _passing = self.passing.lock().await;
        let catalogue = self.shard.catalogue();
        let mut done = Ok(());
        for record in catalogue.topics.values().filter(|record| record.settings.retain == Retain::Compact) {
            let Some(topic) = self.shard.view().topics().get(record.id()) else { continue };
            for number in topic.partition_ids() {
                // Until its end a pass takes more room than it gives back.
                if self.guard.refusal().is_some() {
                    return done;
                }
                done = done.and(self.compact(&topic, number, now).await);
            }
        }
        done
    }

    /// Compacts a partition, if that is worth it.
    async fn compact(&self, topic: &Arc<Topic>, number: PartitionId, now: Timestamp) -> Result<(), Error> {
        let (floors, moves) = self.owner_tasks.floors_of(topic.id);
        let floors: Vec<Offset> = floors.iter().map(|it| it.floor(usize::from(number.0))).collect();
        let (store, of, config) = (Arc::clone(&self.store), Arc::clone(topic), self.config);
        let planned = blocking(move || plan(store.as_ref(), (of, number), (&floors, moves), now, &config));
        let Some(plan) = planned.await? else { return Ok(()) };
        match self.pass(plan).await {
            Ok(()) => Ok(()),
            // The next round decides anew.
            Err(ProposalRefused::Gone | ProposalRefused::Shifted) => Ok(()),
            // Its rows went with it.
            Err(_) if topic.is_deleting() => Ok(()),
            Err(refused) => Err(refused.error()),
        }
    }

    /// Carries a pass out. What it has rewritten when it ends early is right as it is.
    async fn pass(&self, plan: Plan) -> Result<(), ProposalRefused> {
        let (topic, partition) = (Arc::clone(&plan.topic), plan.number);
        let start = Condition::Start { topic: topic.id, partition, at: plan.start, moves: plan.moves };
        let mut pass = Pass::new(plan, self.config);
        loop {
            let store = Arc::clone(&self.store);
            let stepped = blocking(move || pass.step(store.as_ref()).map(|step| (pass, step))).await;
            let (after, step) = stepped.map_err(ProposalRefused::Failed)?;
            pass = after;
            if !step.records.is_empty() {
                let rewrite = StateChange::Rewrite { topic: topic.id, partition, records: step.records };
                self.shard.commit(vec![start], vec![rewrite], Vec::new()).await?;
                topic.counters.add_superseded(step.saved_bytes);
            }
            if step.is_last {
                break;
            }
        }
        let compacted = pass.compacted();
        tracing::debug!(topic = %topic.name, %partition, until = %compacted.until, "a log is compacted");
        let done = StateChange::Compacted { topic: topic.id, partition, compacted };
        self.shard.commit(vec![start], vec![done], Vec::new()).await
    }
}
