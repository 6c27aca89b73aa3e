//! Events as batches, one for each partition that they go to.

use std::{cell::LazyCell, collections::BTreeMap};

use levada_protocol::{
    batch::{Batch, BatchBuilder, BatchFull, Stamp},
    error::ErrorCode,
    event::Event,
    ids::PartitionId,
    partition::partition_of,
};

use crate::problem::Problem;

/// The events of one partition.
#[derive(Debug, Clone)]
pub(crate) struct Share {
    pub(crate) partition: PartitionId,
    pub(crate) batch: Batch,
    /// Which events of the request they are, in order.
    pub(crate) indexes: Vec<usize>,
}

/// Divides events by the hash of their keys, or of their ids. Those without either all go to one partition: that of the next
/// `turn`, which is asked for once, and only for them. With `fixed`, all go there.
pub(crate) fn place(
    events: &[Event],
    partitions: u16,
    fixed: Option<u16>,
    turn: impl FnOnce() -> u64,
) -> Result<Vec<Share>, Problem> {
    let turn = LazyCell::new(turn);
    let mut shares = BTreeMap::<PartitionId, (BatchBuilder, Vec<usize>)>::new();
    for (index, event) in events.iter().enumerate() {
        let partition = fixed.map_or_else(|| partition_for(event, partitions, || *turn), PartitionId);
        let (builder, indexes) = shares.entry(partition).or_insert_with(|| (BatchBuilder::new(), Vec::new()));
        builder.push(event).map_err(|error| refused(&error, index))?;
        indexes.push(index);
    }
    let share = |(partition, (mut builder, indexes)): (PartitionId, (BatchBuilder, Vec<usize>))| Share {
        partition,
        batch: builder.finish(Stamp::ENGINE),
        indexes,
    };
    Ok(shares.into_iter().map(share).collect())
}

fn partition_for(event: &Event, partitions: u16, turn: impl FnOnce() -> u64) -> PartitionId {
    let placing = event.key.as_deref().or_else(|| event.id.as_ref().map(|id| id.as_bytes()));
    match placing {
        Some(bytes) => partition_of(bytes, partitions),
        None => PartitionId(u16::try_from(turn() % u64::from(partitions.max(1))).unwrap_or(0)),
    }
}

fn refused(error: &BatchFull, index: usize) -> Problem {
    let code = match error {
        BatchFull::HeaderReserved(_) => ErrorCode::HeaderReserved,
        BatchFull::Full | BatchFull::TooLarge(_) => ErrorCode::EventTooLarge,
    };
    Problem::new(code, format!("event {index} of the request, counted from 0: {error}; nothing was stored"))
        .at(index)
}
