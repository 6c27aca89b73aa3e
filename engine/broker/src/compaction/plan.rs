//! Whether a partition is to be compacted, and how far.

use std::{sync::Arc, time::Duration};

use levada_delivery::compaction::{self, Edge};
use levada_protocol::ids::{Offset, PartitionId, Timestamp};
use levada_store::Store;

use crate::{
    config::CompactionConfig,
    error::Error,
    rows::{self, Segment},
    setback::Setbacks,
    topic::Topic,
};

/// What a pass is about.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) topic: Arc<Topic>,
    pub(super) number: PartitionId,
    /// Where the log begins, and how many bytes were appended before.
    pub(super) start: Offset,
    pub(super) dropped_bytes: u64,
    /// How often the topic's subscriptions had been moved when it was planned.
    pub(super) moves: u64,
    /// From here on keys are collected.
    pub(super) dirty_from: Offset,
    /// What is from here on stays as it is.
    pub(super) bound: Offset,
    /// Bytes appended before that.
    pub(super) appended_bytes: u64,
    /// Tombstones from before this go.
    pub(super) tombstones_from: Timestamp,
}

/// Decides whether a partition is to be compacted, and how far. Blocks on the disk.
pub(super) fn plan(
    store: &dyn Store,
    (topic, number): (Arc<Topic>, PartitionId),
    (floors, moves): (&[Offset], u64),
    now: Timestamp,
    config: &CompactionConfig,
) -> Result<Option<Plan>, Error> {
    let ago =
        |time: Duration| Timestamp(now.0.saturating_sub(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)));
    let partition = topic.partition(number)?;
    let (start, end) = (partition.start(), partition.end());
    let (dropped_bytes, compacted) = (partition.dropped_bytes(), partition.compacted());
    let dirty_from = start.max(compacted.until);
    let rows = rows::scan::<Segment>(store, Segment::between(topic.id, number, dirty_from, end))?;
    let setbacks = Setbacks::load(store, topic.id, number)?;
    let edge = |((_, _, base), row): ((_, _, Offset), Segment)| Edge {
        base,
        append_time: setbacks.time(base, row.append_time),
        bytes_before: row.bytes_before,
    };
    let edges: Vec<Edge> = rows.into_iter().map(edge).collect();
    let found = compaction::bound(&edges, floors.iter().copied(), ago(config.age_min));
    let clean = compacted.stored_at_least(dropped_bytes, compacted.appended_bytes);
    let dirty = |edge: &Edge| edge.bytes_before.saturating_sub(compacted.appended_bytes.max(dropped_bytes));
    let plan = |bound, appended_bytes| Plan {
        topic: Arc::clone(&topic),
        number,
        start,
        dropped_bytes,
        moves,
        dirty_from,
        bound,
        appended_bytes,
        tombstones_from: ago(config.tombstones_for),
    };
    if let Some(edge) = found.filter(|edge| compaction::is_worth(dirty(edge), clean)) {
        return Ok(Some(plan(edge.base, edge.bytes_before)));
    }
    // The tombstones that go are then at least so old, so the next pass for their sake is as long away.
    let overdue = compacted.oldest_tombstone.is_some_and(|oldest| oldest < ago(config.tombstones_for * 2));
    let is_free = floors.iter().all(|floor| *floor >= compacted.until);
    let is_due = overdue && is_free && compacted.until > start;
    Ok(is_due.then(|| plan(compacted.until, compacted.appended_bytes)))
}
