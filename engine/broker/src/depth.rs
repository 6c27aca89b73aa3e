//! Where an event lies in its partition: how many bytes were appended before its batch, and when it was.

use bytes::Bytes;
use levada_protocol::{
    error::ErrorCode,
    ids::{Offset, PartitionId, Timestamp, TopicId},
};
use levada_store::{
    Family, ScanLimit, Store,
    record::{self, LogKey, Record},
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
    /// Finds the event at an offset; where compaction has left none, the place where it was. `None` if nothing is stored at
    /// or behind it. Blocks on the disk.
    ///
    /// # Errors
    /// If the store fails, or the event is damaged.
    pub(crate) fn find(
        store: &dyn Store,
        (topic, partition): (TopicId, PartitionId),
        offset: Offset,
    ) -> Result<Option<Self>, Error> {
        let key = |base| LogKey { topic, partition, base }.encode();
        let row = store.last_before(Family::Log, &key(Offset(0)), &key(offset.plus(1)))?;
        let record = row.map(|(key, value)| check(&key, value)).transpose()?;
        let setbacks = || Setbacks::load(store, topic, partition);
        let Some(record) = record.filter(|record| offset < record.end()) else {
            let next = next_record(store, (topic, partition), offset)?;
            let of_next = |next: Record| {
                Ok(Self {
                    bytes_before: next.bytes_before,
                    time: setbacks()?.time(offset, next.append_time),
                    record_end: next.key.base,
                    bytes_to_end: next.bytes_before,
                })
            };
            return next.map(of_next).transpose();
        };
        let mut bytes_before = record.bytes_before;
        for batch in record.batches() {
            let (base, batch) = batch.map_err(|error| damaged(error.to_string()))?;
            if base.plus(u64::from(batch.span())) > offset {
                break;
            }
            bytes_before += batch.bytes().len() as u64;
        }
        Ok(Some(Self {
            bytes_before,
            time: setbacks()?.time(offset, record.append_time),
            record_end: record.end(),
            bytes_to_end: bytes_to_end(store, &record)?,
        }))
    }
}

/// Bytes of batches appended to a record's partition before the record's end. What is left in one that was compacted is
/// fewer; then the record behind it knows.
pub(crate) fn bytes_to_end(store: &dyn Store, record: &Record) -> Result<u64, Error> {
    let own = record.bytes_before + record.bytes.len() as u64;
    if record.count == u64::from(record.span) {
        return Ok(own);
    }
    let next = next_record(store, (record.key.topic, record.key.partition), record.end())?;
    Ok(next.map_or(own, |next| next.bytes_before))
}

/// The first record that begins at an offset or behind it.
fn next_record(
    store: &dyn Store,
    (topic, partition): (TopicId, PartitionId),
    from: Offset,
) -> Result<Option<Record>, Error> {
    let key = |base| LogKey { topic, partition, base }.encode();
    let rows = store.scan(Family::Log, &key(from), &key(Offset(u64::MAX)), ScanLimit::rows(1))?;
    rows.into_iter().next().map(|(key, value)| check(&key, value)).transpose()
}

fn check(key: &[u8], value: Bytes) -> Result<Record, Error> {
    record::check(key, value).map_err(|error| damaged(error.to_string()))
}

fn damaged(message: String) -> Error {
    Error::Store { code: ErrorCode::StorageCorrupt, message }
}
