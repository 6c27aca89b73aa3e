//! How far subscriptions have come. The owners know it; the writer stores what they propose, and keeps of it what backlogs
//! are counted from.

use levada_delivery::progress::{Chunk, Failures, Head, RowChange};
use levada_protocol::ids::{Offset, PartitionId, SubscriptionId};
use levada_store::Op;

use super::backlogs::{Backlogs, Holder};
use crate::{
    rows::{self, Row, SubscriptionLoss},
    shard::draft::Draft,
};

/// Stores how far a subscription has come in a partition.
pub(super) fn change(
    id: SubscriptionId,
    number: PartitionId,
    rows: Vec<RowChange>,
    backlogs: &mut Backlogs,
    draft: &mut Draft,
) {
    for row in rows {
        draft.push(match row {
            RowChange::Head(head) => {
                backlogs.raise(Holder::Subscription(id), number, Offset(head.floor()));
                head.put(&(id, number))
            }
            RowChange::Chunk { index, chunk } => {
                let (key, value) = (Chunk::key(&(id, number, index)), chunk.encode());
                backlogs.set_chunk(id, number, index, Some(value.clone()));
                Op::Put { family: Chunk::FAMILY, key, value }
            }
            RowChange::DropChunk { index } => {
                backlogs.set_chunk(id, number, index, None);
                Chunk::delete(&(id, number, index))
            }
            RowChange::Failures { index, failures } => failures.put(&(id, number, index)),
            RowChange::DropFailures { index } => Failures::delete(&(id, number, index)),
        });
    }
}

/// Drops all that is stored of a subscription's progress in one partition.
pub(super) fn forget_partition(id: SubscriptionId, number: PartitionId, draft: &mut Draft) {
    draft.push(Head::delete(&(id, number)));
    draft.push(Chunk::delete_range(rows::chunks_of_partition(id, number)));
    draft.push(Failures::delete_range(rows::failures_of_partition(id, number)));
}

/// Drops all that is stored of a subscription's progress, and of what it has lost.
pub(super) fn forget(id: SubscriptionId, draft: &mut Draft) {
    draft.push(Head::delete_range(rows::progress_of_subscription(id)));
    draft.push(SubscriptionLoss::delete_range(SubscriptionLoss::of_subscription(id)));
}
