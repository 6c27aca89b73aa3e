//! A subscription's progress, read from the store when its owner starts.

use levada_delivery::progress::{Chunk, Failures, Head, Progress};
use levada_protocol::{
    error::ErrorCode,
    ids::{Offset, PartitionId, SubscriptionId},
};
use levada_store::Store;

use crate::{
    error::Error,
    rows::{self, SubscriptionRecord},
};

/// Reads the progress of all partitions; one that has none yet begins where the subscription did.
pub(super) fn load(store: &dyn Store, record: &SubscriptionRecord) -> Result<Vec<Progress>, Error> {
    let id = SubscriptionId(record.id);
    (0..)
        .map(PartitionId)
        .zip(&record.positions)
        .map(|(number, begin)| load_one(store, id, number, *begin))
        .collect()
}

/// Reads the progress in the queue of a subscription to which something was redriven, or none.
pub(super) fn load_queue(store: &dyn Store, id: SubscriptionId, is_used: bool) -> Result<Progress, Error> {
    let stored = if is_used { rows::get::<Head>(store, &(id, rows::QUEUE))? } else { None };
    // Where nothing was settled there is nothing to write.
    let head = stored.or_else(|| Head::new(0, 0, Vec::new())).expect("no failures are in order");
    restore(store, id, rows::QUEUE, head)
}

fn load_one(
    store: &dyn Store,
    id: SubscriptionId,
    number: PartitionId,
    begin: u64,
) -> Result<Progress, Error> {
    let Some(head) = rows::get::<Head>(store, &(id, number))? else {
        return Ok(Progress::new(Offset(begin), 0));
    };
    restore(store, id, number, head)
}

fn restore(
    store: &dyn Store,
    id: SubscriptionId,
    number: PartitionId,
    head: Head,
) -> Result<Progress, Error> {
    let chunks = rows::scan::<Chunk>(store, rows::chunks_of_partition(id, number))?;
    let chunks = chunks.into_iter().map(|((_, _, index), chunk)| (index, chunk));
    let failures = rows::scan::<Failures>(store, rows::failures_of_partition(id, number))?;
    let failures = failures.into_iter().map(|((_, _, index), row)| (index, row));
    Progress::restore(head, chunks, failures).ok_or_else(|| Error::Store {
        code: ErrorCode::StorageCorrupt,
        message: format!("a row of subscription {id} in partition {number} lies past the last offset"),
    })
}
