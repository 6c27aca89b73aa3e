//! Whether a partition is to be compacted, and how far.

use std::sync::Arc;

use levada_delivery::compaction::{self, Bound, Edge};
use levada_protocol::ids::{Offset, PartitionId, Timestamp};
use levada_store::Store;

use crate::{
    config::CompactionConfig,
    error::Error,
    rows::{self, Compacted, Segment},
    setback::Setbacks,
    shard::Condition,
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
    /// Who reads the topic, as the number in [`crate::catalogue::readers`]: all of them have come to the bound.
    pub(super) readers: u64,
    /// The last pass.
    pub(super) before: Compacted,
    /// What is from here on stays as it is.
    pub(super) bound: Offset,
    /// Bytes appended before that.
    pub(super) appended_bytes: u64,
    /// Tombstones before this go.
    pub(super) tombstones_until: Offset,
}

impl Plan {
    /// Under which condition a part of the pass may be committed.
    pub(super) fn holds(&self) -> Condition {
        let Self { start, readers, .. } = *self;
        Condition::Compacts { topic: self.topic.id, partition: self.number, start, readers }
    }

    /// From here on keys are collected.
    pub(super) fn dirty_from(&self) -> Offset {
        self.start.max(self.before.until)
    }

    /// True if what was never compacted before a bound with so many bytes before it is worth a pass.
    pub(super) fn is_worth(&self, appended_bytes: u64) -> bool {
        let Self { before, dropped_bytes, .. } = self;
        let clean = before.clean_bytes(*dropped_bytes);
        let dirty = appended_bytes.saturating_sub(before.appended_bytes.max(*dropped_bytes));
        compaction::is_worth(dirty, clean)
    }
}

/// Decides whether a partition is to be compacted, and how far. Blocks on the disk.
pub(super) fn plan(
    store: &dyn Store,
    (topic, number): (Arc<Topic>, PartitionId),
    (floors, readers): (&[Offset], u64),
    now: Timestamp,
    config: &CompactionConfig,
) -> Result<Option<Plan>, Error> {
    let partition = topic.partition(number)?;
    let (start, end, before) = (partition.start(), partition.end(), partition.compacted());
    let dropped_bytes = partition.dropped_bytes();
    let plan = Plan {
        topic: Arc::clone(&topic),
        number,
        start,
        dropped_bytes,
        readers,
        before,
        bound: before.until,
        appended_bytes: before.appended_bytes,
        tombstones_until: before.passes().tombstones_until(config.tombstones_for_ms(), now),
    };
    let setbacks = Setbacks::load(store, topic.id, number)?;
    let mut bound = Bound::new(floors.iter().copied(), config.appended_before(now));
    let segments = Segment::between(topic.id, number, plan.dirty_from(), end);
    rows::for_each::<Segment>(store, segments, |(_, _, base), row| {
        let append_time = setbacks.time(base, row.append_time);
        bound.see(Edge { base, append_time, bytes_before: row.bytes_before });
    })?;
    if let Some(edge) = bound.found().filter(|edge| plan.is_worth(edge.bytes_before)) {
        return Ok(Some(Plan { bound: edge.base, appended_bytes: edge.bytes_before, ..plan }));
    }
    // None of them is left then, so the next pass for their sake is as far away as they stay.
    let is_due = before.first_tombstone.is_some_and(|first| first < plan.tombstones_until);
    let is_free = floors.iter().all(|floor| *floor >= before.until);
    Ok((is_due && is_free && before.until > start).then_some(plan))
}
