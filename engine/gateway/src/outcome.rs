//! What became of each event of a publish.

use std::sync::Arc;

use levada_protocol::{
    duplicates::{Duplicates, Placed},
    error::{ErrorCode, Refusal},
    ids::PartitionId,
    publish::AckOutcome,
    request::TransactionBatch,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::problem::Problem;

/// What became of one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Published {
    /// The partition.
    #[schema(example = 0)]
    partition: u16,
    /// The event's offset; of a duplicate that of the first event of its id, if that is known. Absent while it is scheduled.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 17)]
    offset: Option<u64>,
    /// What became of it.
    outcome: Outcome,
    /// The schedule id of a delayed event.
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule_id: Option<u64>,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    /// It is stored.
    Stored,
    /// It was not stored: the topic's dedup window holds an event of the same id.
    Duplicate,
    /// It is stored, and is appended when it is due.
    Scheduled,
}

impl Published {
    const fn new(partition: PartitionId, outcome: Outcome, offset: Option<u64>) -> Self {
        Self { partition: partition.0, offset, outcome, schedule_id: None }
    }
}

/// The outcomes of a batch's events, in order.
pub(crate) fn of_ack(
    partition: PartitionId,
    count: usize,
    outcome: AckOutcome,
) -> Result<Vec<Published>, Problem> {
    let indexes = 0..u32::try_from(count).unwrap_or(u32::MAX);
    Ok(match outcome {
        AckOutcome::Appended { base, duplicates, .. } => {
            let base = base.map(|base| base.0);
            indexes.map(|index| appended(partition, base, duplicates.as_ref(), index)).collect()
        }
        AckOutcome::Scheduled { first, .. } => {
            let scheduled = |index| Published {
                schedule_id: first.map(|first| first + u64::from(index)),
                ..Published::new(partition, Outcome::Scheduled, None)
            };
            indexes.map(scheduled).collect()
        }
        AckOutcome::OffsetMismatch { message, .. } => {
            return Err(Problem::of(Refusal::new(ErrorCode::OffsetMismatch, message)));
        }
        AckOutcome::Refused(refusal) => return Err(Problem::of(refusal)),
    })
}

fn appended(
    partition: PartitionId,
    base: Option<u64>,
    duplicates: Option<&Arc<Duplicates>>,
    index: u32,
) -> Published {
    match duplicates.map_or(Placed::Stored(index), |duplicates| duplicates.placed(index)) {
        Placed::Stored(behind) => {
            Published::new(partition, Outcome::Stored, base.map(|base| base + u64::from(behind)))
        }
        Placed::Duplicate(first) => Published::new(partition, Outcome::Duplicate, first.map(|first| first.0)),
    }
}

/// The outcomes of the events of a transaction's batch, in order.
pub(crate) fn of_transaction(batch: &TransactionBatch) -> Vec<Published> {
    let partition = PartitionId(batch.partition);
    let mut duplicates = batch.duplicates.iter().peekable();
    let mut next = batch.offset;
    let outcome = |index| match duplicates.next_if(|duplicate| duplicate.index == index) {
        Some(duplicate) => Published::new(partition, Outcome::Duplicate, duplicate.offset),
        None => {
            let offset = next;
            next = next.map(|next| next + 1);
            Published::new(partition, Outcome::Stored, offset)
        }
    };
    (0..batch.events).map(outcome).collect()
}
