//! Retention: rounds over every partition, which ask the rules what may be dropped and have the shard drop it.
//!
//! Events are dropped by whole segments, never one by one. The rules themselves are `levada_delivery::retention`.

use std::{sync::Arc, time::Duration};

use levada_delivery::retention::{self, Rules, Stored};
use levada_protocol::{
    ids::{Offset, PartitionId, Timestamp},
    request::Retain,
};
use levada_store::Store;

use crate::{
    clock::Clock,
    error::Error,
    guard::Guard,
    idle::IdleProducers,
    log::{Log, blocking},
    rows::{self, Segment},
    running::OwnerTasks,
    setback::Setbacks,
    shard::{ShardHandle, Trim},
    topic::Topic,
    transaction_ends::TransactionEnds,
};

/// Runs retention.
pub(crate) struct Retention {
    store: Arc<dyn Store>,
    shard: ShardHandle,
    owner_tasks: Arc<OwnerTasks>,
    idle: IdleProducers,
    ended: TransactionEnds,
}

impl Retention {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        shard: ShardHandle,
        owner_tasks: Arc<OwnerTasks>,
        idle: IdleProducers,
    ) -> Self {
        let ended = TransactionEnds::new(Arc::clone(&store), shard.clone());
        Self { store, shard, owner_tasks, idle, ended }
    }

    /// Runs a round each `interval`, and when disk space gets low. Never ends; may be dropped at any await.
    pub(crate) async fn run(&self, interval: Duration, clock: &Clock, guard: &Guard) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                // What may be dropped is to be dropped now.
                () = guard.got_low() => {}
            }
            if let Err(error) = self.round(clock.now()).await {
                tracing::warn!(%error, "a retention round ended early; the next one continues");
            }
        }
    }

    /// One round as if it were `now`: over every partition, the producers and the decided transactions.
    ///
    /// # Errors
    /// If the store fails; what was dropped until then stays dropped.
    pub(crate) async fn round(&self, now: Timestamp) -> Result<(), Error> {
        let checked = self.shard.check_clock().await;
        let trimmed = self.trim_all(now).await;
        let forgotten = self.idle.forget(now).await;
        let ended = self.ended.forget(now).await;
        checked.and(trimmed).and(forgotten).and(ended)
    }

    async fn trim_all(&self, now: Timestamp) -> Result<(), Error> {
        let catalogue = self.shard.catalogue();
        for record in catalogue.topics.values() {
            let Some(topic) = self.shard.view().topics().get(record.id()) else { continue };
            let rules = Rules::new(&topic.settings());
            if rules.retain == Retain::Compact {
                continue;
            }
            let (floors, readers) = self.owner_tasks.floors_of(topic.id);
            for number in topic.partition_ids() {
                let lowest = floors.iter().map(|floors| floors.floor(usize::from(number.0)));
                self.trim((&topic, number), rules, (lowest, readers), now).await?;
            }
        }
        Ok(())
    }

    /// Drops what the rules allow of a partition, whose subscriptions and routes have come so far.
    async fn trim(
        &self,
        (topic, number): (&Arc<Topic>, PartitionId),
        rules: Rules,
        (floors, readers): (impl Iterator<Item = Offset>, u64),
        now: Timestamp,
    ) -> Result<(), Error> {
        let partition = topic.partition(number)?;
        let dropped_bytes = partition.dropped_bytes();
        let log = retention::Log { start: partition.start(), end: partition.end(), bytes: partition.bytes() };
        let bytes = (dropped_bytes, partition.appended_bytes());
        if log.start == log.end {
            return Ok(());
        }
        let reading = Log::new(Arc::clone(&self.store), Arc::clone(topic), number)?;
        let newest = reading.append_time(Offset(log.end.0 - 1)).await.unwrap_or(Timestamp(u64::MAX));
        let segments = {
            let (store, topic) = (Arc::clone(&self.store), Arc::clone(topic));
            blocking(move || segments(store.as_ref(), &topic, number, (log, bytes), newest)).await?
        };
        let decided = retention::trim(&rules, now, log, floors, segments);
        if decided.log_start <= log.start {
            return Ok(());
        }
        tracing::debug!(topic = %topic.name, partition = %number, start = %decided.log_start, "log start moves");
        let dropped_bytes = dropped_bytes + decided.bytes;
        let trim = self.shard.trim(|reply| Trim {
            topic: topic.id,
            partition: number,
            start: decided.log_start,
            dropped_bytes,
            rules,
            readers,
            reply,
        });
        trim.await
    }
}

/// The partition's segments from its start; each is as old as its newest event, which is at most as old as the
/// beginning of the next one. [`crate::reclaim`] gives the space of what is dropped back.
fn segments(
    store: &dyn Store,
    topic: &Topic,
    number: PartitionId,
    (log, (dropped_bytes, appended_bytes)): (retention::Log, (u64, u64)),
    newest: Timestamp,
) -> Result<Vec<Stored>, Error> {
    let rows = rows::scan::<Segment>(store, Segment::below(topic.id, number, log.end))?;
    let setbacks = Setbacks::load(store, topic.id, number)?;
    // The log's start need not have a row: the segment that began there may have been dropped whole.
    let mut edges = vec![(log.start, Timestamp::default(), dropped_bytes)];
    let begun = rows.into_iter().map(|((_, _, base), row)| (base, row.append_time, row.bytes_before));
    edges.extend(begun.filter(|(base, ..)| *base > log.start));
    // What is stored may be less than was appended: of what was compacted the size is not known.
    edges.push((log.end, newest, appended_bytes));
    let stretches = edges.iter().zip(edges.iter().skip(1));
    Ok(stretches
        .map(|(begin, end)| Stored {
            base: begin.0,
            append_time: setbacks.time(Offset(end.0.0.saturating_sub(1)), end.1),
            bytes: end.2.saturating_sub(begin.2),
        })
        .collect())
}
