//! Retention: a pass now and then over every partition, which asks the rules what may go and lets the shard drop it.
//!
//! Events go by segments, never one by one. The rules themselves are `levada_delivery::retention`.

use std::sync::Arc;

use levada_delivery::retention::{self, Rules, Stored};
use levada_protocol::ids::{Offset, PartitionId, Timestamp};
use levada_store::Store;

use crate::{
    broker::{Broker, Inner},
    clock,
    error::Error,
    idle,
    log::{Log, blocking},
    rows::{self, Segment},
    setback::Setbacks,
    shard::Trim,
    topic::Topic,
};

/// Starts the passes.
pub(crate) fn start(broker: &Broker) {
    let broker = broker.clone();
    let cancelled = broker.inner.tasks.cancelled().clone();
    let tasks = broker.inner.tasks.clone();
    tasks.spawn(tracing::info_span!("retention"), async move {
        loop {
            tokio::select! {
                biased;
                () = cancelled.cancelled() => return,
                () = tokio::time::sleep(broker.inner.config.retention_interval) => {}
                // What may go is wanted now.
                () = broker.inner.guard.got_low() => {}
            }
            let pass = cancelled.run_until_cancelled(broker.run_retention());
            if let Some(Err(error)) = pass.await {
                tracing::warn!(%error, "a retention pass ended early; the next one goes on");
            }
        }
    });
}

impl Broker {
    /// One pass now, beside the passes that run by themselves: over every partition, and over the producers.
    ///
    /// # Errors
    /// If the store fails; what was dropped until then stays dropped.
    pub async fn run_retention(&self) -> Result<(), Error> {
        self.run_retention_at(clock::now()).await
    }

    /// One pass as if it were `now`.
    ///
    /// # Errors
    /// If the store fails; what was dropped until then stays dropped.
    pub async fn run_retention_at(&self, now: Timestamp) -> Result<(), Error> {
        let checked = self.inner.shard.check_clock().await;
        let trimmed = self.trim_all(now).await;
        let forgotten = idle::forget(&self.inner, now).await;
        checked.and(trimmed).and(forgotten)
    }

    async fn trim_all(&self, now: Timestamp) -> Result<(), Error> {
        let catalogue = self.inner.shard.catalogue();
        for topic in catalogue.topics.values() {
            let floors = self.inner.places.floors_of(topic.id);
            for number in topic.partition_ids() {
                let lowest = floors.iter().map(|floors| floors.floor(usize::from(number.0)));
                trim(&self.inner, topic, number, lowest, now).await?;
            }
        }
        Ok(())
    }
}

async fn trim(
    inner: &Inner,
    topic: &Arc<Topic>,
    number: PartitionId,
    floors: impl Iterator<Item = Offset>,
    now: Timestamp,
) -> Result<(), Error> {
    let partition = topic.partition(number)?;
    let dropped_bytes = partition.dropped_bytes();
    let log = retention::Log { start: partition.start(), end: partition.end(), bytes: partition.bytes() };
    if log.start == log.end {
        return Ok(());
    }
    let reading = Log::new(Arc::clone(&inner.store), Arc::clone(topic), number)?;
    let newest = reading.append_time(Offset(log.end.0 - 1)).await.unwrap_or(Timestamp(u64::MAX));
    let segments = {
        let (store, topic) = (Arc::clone(&inner.store), Arc::clone(topic));
        blocking(move || segments(store.as_ref(), &topic, number, (log, dropped_bytes), newest)).await?
    };
    let rules = Rules::new(&topic.settings());
    let decided = retention::trim(&rules, now, log, floors, segments);
    if decided.log_start <= log.start {
        return Ok(());
    }
    tracing::debug!(topic = %topic.name, partition = %number, start = %decided.log_start, "log start moves");
    let dropped_bytes = dropped_bytes + decided.bytes;
    let trim = inner.shard.trim(|reply| Trim {
        topic: Arc::clone(topic),
        partition: number,
        start: decided.log_start,
        dropped_bytes,
        reply,
    });
    trim.await
}

/// The partition's segments from its start; each is as old as its newest event, which is at most as old as the
/// beginning of the next one. Giving the space of what is dropped back is [`crate::reclaim`]'s.
fn segments(
    store: &dyn Store,
    topic: &Topic,
    number: PartitionId,
    (log, dropped_bytes): (retention::Log, u64),
    newest: Timestamp,
) -> Result<Vec<Stored>, Error> {
    let rows = rows::scan::<Segment>(store, Segment::below(topic.id, number, log.end))?;
    let setbacks = Setbacks::load(store, topic, number)?;
    // The log's start need not have a row: what was the last segment may have gone whole.
    let mut edges = vec![(log.start, Timestamp::default(), dropped_bytes)];
    let begun = rows.into_iter().map(|((_, _, base), row)| (base, row.append_time, row.bytes_before));
    edges.extend(begun.filter(|(base, ..)| *base > log.start));
    edges.push((log.end, newest, dropped_bytes + log.bytes));
    let stretches = edges.iter().zip(edges.iter().skip(1));
    Ok(stretches
        .map(|(begin, end)| Stored {
            base: begin.0,
            append_time: setbacks.time(Offset(end.0.0.saturating_sub(1)), end.1),
            bytes: end.2.saturating_sub(begin.2),
        })
        .collect())
}
