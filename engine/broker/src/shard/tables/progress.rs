//! How far subscriptions have come. The owners know it; the writer stores what they propose and keeps nothing.

use levada_delivery::progress::{Chunk, Head, RowChange};
use levada_protocol::ids::{PartitionId, SubscriptionId};

use crate::{
    rows::{self, Row},
    shard::draft::Draft,
};

/// Stores how far a subscription has come in a partition.
pub(super) fn change(id: SubscriptionId, number: PartitionId, rows: Vec<RowChange>, draft: &mut Draft) {
    for row in rows {
        draft.push(match row {
            RowChange::Head(head) => head.put(&(id, number)),
            RowChange::Chunk { index, chunk } => chunk.put(&(id, number, index)),
            RowChange::DropChunk { index } => Chunk::delete(&(id, number, index)),
        });
    }
}

/// Drops all that is stored of a subscription's progress in one partition.
pub(super) fn forget_partition(id: SubscriptionId, number: PartitionId, draft: &mut Draft) {
    draft.push(Head::delete(&(id, number)));
    draft.push(Chunk::delete_range(rows::chunks_of_partition(id, number)));
}

/// Drops all that is stored of a subscription's progress.
pub(super) fn forget(id: SubscriptionId, draft: &mut Draft) {
    draft.push(Head::delete_range(rows::progress_of_subscription(id)));
}
