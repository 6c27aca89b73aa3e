//! A subscription's progress in the store: read when the owner starts, written by its fragments.

use bytes::Bytes;
use levada_delivery::progress::{Progress, RowChange};
use levada_protocol::{
    error::ErrorCode,
    ids::{Offset, PartitionId, SubscriptionId},
};
use levada_store::{Family, Op, Store};

use crate::{catalogue::SubscriptionRecord, error::Error, keys, shard::scan_all};

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
    let Some(head) = store.get(Family::Cursors, &keys::progress_head(id, number))? else {
        return Ok(Progress::new(Offset(begin), 0));
    };
    let rows = scan_all(store, Family::Cursors, keys::progress_chunks(id, number))?;
    let chunks: Vec<(u64, Bytes)> = rows
        .into_iter()
        .filter_map(|(key, value)| Some((keys::progress_chunk_number(&key)?, value)))
        .collect();
    Progress::restore(&head, chunks).map_err(|error| Error::Store {
        code: ErrorCode::StorageCorrupt,
        message: format!("the progress of subscription {id} in partition {number} does not decode: {error}"),
    })
}

/// A row's change as the store takes it.
pub(super) fn op(id: SubscriptionId, number: PartitionId, change: RowChange) -> Op {
    let family = Family::Cursors;
    match change {
        RowChange::Head(value) => Op::Put { family, key: keys::progress_head(id, number), value },
        RowChange::Chunk { index, bytes } => {
            Op::Put { family, key: keys::progress_chunk(id, number, index), value: bytes }
        }
        RowChange::DropChunk { index } => Op::Delete { family, key: keys::progress_chunk(id, number, index) },
    }
}
