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

/// Events of one partition that are one batch.
#[derive(Debug, Clone)]
pub(crate) struct Share {
    pub(crate) partition: PartitionId,
    pub(crate) batch: Batch,
    /// Which events of the request they are, in order.
    pub(crate) indexes: Vec<usize>,
}

/// The batch of a partition that is being filled, and the indexes of its events.
type Open = (PartitionId, BatchBuilder, Vec<usize>);

/// Divides events by the hash of their keys, or of their ids. Those without either all go to one partition: that of the next
/// `turn`, which is asked for once, and only for them. With `fixed`, all go there.
///
/// Shares are in the order of their partitions. A partition has several if its events do not fit one batch, as when their times
/// are months apart.
pub(crate) fn place(
    events: &[Event],
    partitions: u16,
    fixed: Option<u16>,
    turn: impl FnOnce() -> u64,
) -> Result<Vec<Share>, Problem> {
    let turn = LazyCell::new(turn);
    // By their places in a list: a request of one event needs no map of its builders, which are large.
    let (mut open, mut places, mut shares) = (Vec::<Open>::new(), BTreeMap::new(), Vec::new());
    for (index, event) in events.iter().enumerate() {
        let partition = fixed.map_or_else(|| partition_for(event, partitions, || *turn), PartitionId);
        let place = *places.entry(partition).or_insert(open.len());
        if place == open.len() {
            open.push((partition, BatchBuilder::new(), Vec::new()));
        }
        let (_, builder, indexes) = &mut open[place];
        let mut pushed = builder.push(event);
        if pushed == Err(BatchFull::Full) && !indexes.is_empty() {
            shares.push(closed(partition, builder, std::mem::take(indexes)));
            pushed = builder.push(event);
        }
        pushed.map_err(|error| refused(&error, index))?;
        indexes.push(index);
    }
    shares.extend(
        open.into_iter().map(|(partition, mut builder, indexes)| closed(partition, &mut builder, indexes)),
    );
    // Stable: batches of a partition stay in order.
    shares.sort_by_key(|share| share.partition);
    Ok(shares)
}

fn closed(partition: PartitionId, builder: &mut BatchBuilder, indexes: Vec<usize>) -> Share {
    Share { partition, batch: builder.finish(Stamp::ENGINE), indexes }
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
