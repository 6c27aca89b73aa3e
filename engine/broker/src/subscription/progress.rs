//! A subscription's progress, read from the store when its owner starts.

use levada_delivery::progress::{Chunk, Head, Progress};
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

fn load_one(
    store: &dyn Store,
    id: SubscriptionId,
    number: PartitionId,
    begin: u64,
) -> Result<Progress, Error> {
    let Some(head) = rows::get::<Head>(store, &(id, number))? else {
        return Ok(Progress::new(Offset(begin), 0));
    };
    let chunks = rows::scan::<Chunk>(store, rows::chunks_of_partition(id, number))?;
    let chunks = chunks.into_iter().map(|((_, _, index), chunk)| (index, chunk));
    Progress::restore(head, chunks).ok_or_else(|| Error::Store {
        code: ErrorCode::StorageCorrupt,
        message: format!("a chunk of subscription {id} in partition {number} lies past the last offset"),
    })
}
