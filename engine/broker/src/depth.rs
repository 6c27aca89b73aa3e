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
        let bytes_to_end = bytes_to_end(store, &record)?;
        let mut bytes_before = record.bytes_before;
        for batch in record.batches() {
            let (base, batch) = batch.map_err(|error| damaged(error.to_string()))?;
            if base.plus(u64::from(batch.span())) > offset {
                break;
            }
            bytes_before += batch.bytes().len() as u64;
        }
        Ok(Some(Self {
            // What is left of a record can be longer than it was: selections say where their events were.
            bytes_before: bytes_before.min(bytes_to_end),
            time: setbacks()?.time(offset, record.append_time),
            record_end: record.end(),
            bytes_to_end,
        }))
    }
}

/// Bytes of batches appended to a record's partition before the record's end. What is left in one that was compacted are
/// others; then the record behind it knows.
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

#[cfg(test)]
mod tests {
    use levada_protocol::{
        batch::{BatchBuilder, EventParts, Stamp},
        ids::CommitIndex,
    };
    use levada_store::{Commit, MemoryStore, Op, commit::Term, record::Prefix};

    use super::*;

    #[test]
    fn no_event_lies_deeper_than_the_record_behind_its_own_though_what_is_left_of_that_is_longer() {
        let (topic, partition) = (TopicId(1), PartitionId(0));
        let parts = EventParts { key: Some(b"k"), ..EventParts::default() };
        // Of a hundred and one events the last one is superseded, and each of the others takes four bytes more.
        let (mut all, mut left) = (BatchBuilder::new(), BatchBuilder::selection());
        (0..101).for_each(|delta| all.push_parts(delta, &parts, std::iter::empty()).unwrap());
        (0..100).for_each(|delta| left.push_parts(delta, &parts, std::iter::empty()).unwrap());
        let (all, left) = (all.finish(Stamp::ENGINE), left.finish(Stamp::ENGINE));
        let appended = all.bytes().len() as u64;
        assert!(left.bytes().len() as u64 > appended);
        let put = |base, bytes_before, batch| {
            let key = LogKey { topic, partition, base: Offset(base) };
            let (hops, append_time, commit_index) = (0, Timestamp(9), CommitIndex(1));
            let prefix = Prefix { hops, append_time, commit_index, bytes_before, span: 101 };
            let value = record::encode(&key, &prefix, &[batch]);
            Op::Put { family: Family::Log, key: Bytes::copy_from_slice(&key.encode()), value }
        };
        let ops = vec![put(0, 0, &left), put(101, appended, &all)];
        let store = MemoryStore::new();
        store.apply(&Commit::after(&store.last(), Term(1), Timestamp(0), ops)).unwrap();
        let bytes_before =
            |offset| Depth::find(&store, (topic, partition), Offset(offset)).unwrap().unwrap().bytes_before;
        assert_eq!([0, 99, 100, 101].map(bytes_before), [0, 0, appended, appended]);
    }
}
