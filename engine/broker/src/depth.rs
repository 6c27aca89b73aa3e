//! Where an event lies in its partition: how many bytes were appended before its batch, and when it was.

use levada_protocol::ids::{Offset, PartitionId, Timestamp, TopicId};
use levada_store::{
    Family, Store,
    record::{self, LogKey},
};

use crate::{error::Error, setback::Setbacks};

/// The place of an event in its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Depth {
    /// Bytes of batches appended to the partition before the event's batch.
    pub(crate) bytes_before: u64,
    /// When the event counts as appended.
    pub(crate) time: Timestamp,
    /// Where its record ends.
    pub(crate) record_end: Offset,
    /// Bytes of batches appended to the partition before that.
    pub(crate) bytes_to_end: u64,
}

impl Depth {
    /// Finds the event at an offset; `None` if it is not stored. Blocks on the disk.
    ///
    /// # Errors
    /// If the store fails, or the event is damaged.
    pub(crate) fn find(
        store: &dyn Store,
        (topic, partition): (TopicId, PartitionId),
        offset: Offset,
    ) -> Result<Option<Self>, Error> {
        let key = |base| LogKey { topic, partition, base }.encode();
        let Some((key, value)) = store.last_before(Family::Log, &key(Offset(0)), &key(offset.plus(1)))?
        else {
            return Ok(None);
        };
        let damaged = |what: String| Error::Store {
            code: levada_protocol::error::ErrorCode::StorageCorrupt,
            message: what,
        };
        let record = record::check(&key, value).map_err(|error| damaged(error.to_string()))?;
        if record.end() <= offset {
            return Ok(None);
        }
        let mut bytes_before = record.bytes_before;
        for batch in record.batches() {
            let (base, batch) = batch.map_err(|error| damaged(error.to_string()))?;
            if base.plus(u64::from(batch.span())) > offset {
                break;
            }
            bytes_before += batch.bytes().len() as u64;
        }
        let setbacks = Setbacks::load(store, topic, partition)?;
        Ok(Some(Self {
            bytes_before,
            time: setbacks.time(offset, record.append_time),
            record_end: record.end(),
            bytes_to_end: record.bytes_before + record.bytes.len() as u64,
        }))
    }
}
