//! Reading a partition: from its tail while the position is there, from the store in long runs otherwise.
//!
//! Never shows what is not durable yet. It must not know what the events are read for.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use levada_protocol::{
    deliver::Run,
    error::ErrorCode,
    ids::{Offset, PartitionId, Timestamp},
    request::Start,
};
use levada_store::{
    Family, ScanLimit, Store,
    record::{self, LogKey},
};

use crate::{
    error::Error,
    frames::{LogSlice, slice_of},
    setback::Setbacks,
    topic::{Partition, Topic},
};

/// Bytes that one scan of the store returns at most, unless one record is larger.
const STORE_READ_BYTES: usize = 1 << 20;

/// A partition that can be read.
#[derive(Clone)]
pub(crate) struct Log {
    store: Arc<dyn Store>,
    topic: Arc<Topic>,
    number: PartitionId,
}

/// The result of a read at a position.
#[derive(Debug)]
pub(crate) enum ReadOutcome {
    /// Pieces, the first of which holds the position.
    Pieces(Vec<LogSlice>),
    /// The position is the durable end: nothing is there yet.
    End,
    /// Retention has dropped the position; the log begins here now.
    Dropped(Offset),
}

impl Log {
    pub(crate) fn new(store: Arc<dyn Store>, topic: Arc<Topic>, number: PartitionId) -> Result<Self, Error> {
        topic.partition(number)?;
        Ok(Self { store, topic, number })
    }

    pub(crate) fn partition(&self) -> &Partition {
        &self.topic.partitions[usize::from(self.number.0)]
    }

    /// Reads from `from`, about `bytes_max` bytes, never beyond the durable end.
    ///
    /// Cancel safe: a read that is given up has no effect.
    pub(crate) async fn read(&self, from: Offset, bytes_max: usize) -> Result<ReadOutcome, Error> {
        self.read_range(from..Offset(u64::MAX), bytes_max).await
    }

    /// What a read of `range` finds in memory; `None` if the store has to be asked.
    pub(crate) fn read_now(&self, range: &Range<Offset>, bytes_max: usize) -> Option<ReadOutcome> {
        let partition = self.partition();
        if range.start < partition.start() {
            return Some(ReadOutcome::Dropped(partition.start()));
        }
        if range.start >= partition.end() {
            return Some(ReadOutcome::End);
        }
        let mut pieces = partition.tail.read(range.start, bytes_max)?;
        pieces.truncate(pieces.partition_point(|piece| piece.run.base < range.end));
        Some(ReadOutcome::Pieces(pieces))
    }

    /// Reads the events of `range`, as [`Log::read`] does; pieces that hold one of them are whole. Cancel safe.
    pub(crate) async fn read_range(
        &self,
        range: Range<Offset>,
        bytes_max: usize,
    ) -> Result<ReadOutcome, Error> {
        if let Some(found) = self.read_now(&range, bytes_max) {
            return Ok(found);
        }
        let partition = self.partition();
        // What the tail holds needs no disk: the next read finds it there.
        let tail = partition.tail.start().filter(|start| *start > range.start);
        let (from, end) = (range.start, partition.end().min(range.end).min(tail.unwrap_or(Offset(u64::MAX))));
        let bytes_max = bytes_max.min(STORE_READ_BYTES);
        let log = self.clone();
        let read = blocking(move || log.read_store(from, end, bytes_max)).await;
        let error = match read {
            Ok(mut pieces) if pieces.first().is_some_and(|first| first.run.base <= from) => {
                let read: usize = pieces.iter().map(|piece| piece.run.batches.len()).sum();
                let reached = pieces.last().map(LogSlice::end).filter(|reached| *reached < range.end);
                // With what the tail has behind it, where there is room for that.
                if let (Some(reached), Some(room)) =
                    (reached, bytes_max.checked_sub(read).filter(|it| *it > 0))
                {
                    let more = partition.tail.read(reached, room).unwrap_or_default();
                    pieces.extend(more.into_iter().filter(|piece| piece.run.base < range.end));
                }
                return Ok(ReadOutcome::Pieces(pieces));
            }
            // Retention may have moved while the store was read.
            _ if from < partition.start() => return Ok(ReadOutcome::Dropped(partition.start())),
            Ok(_) => self.missing(from),
            Err(error) => error,
        };
        // So may the whole topic have gone, and then nothing is damaged.
        Err(if self.topic.is_deleting() { self.topic.deleted_error() } else { error })
    }

    /// Pieces from the record that holds `from`. Blocks on the disk.
    fn read_store(&self, from: Offset, end: Offset, bytes_max: usize) -> Result<Vec<LogSlice>, Error> {
        let key = |base| LogKey { topic: self.topic.id, partition: self.number, base }.encode();
        let limit = ScanLimit { rows: usize::MAX, bytes: bytes_max };
        let damaged = |error| self.damaged(from, error);
        let mut rows = self.store.scan(Family::Log, &key(from), &key(end), limit).map_err(damaged)?;
        if rows.first().is_none_or(|(found, _)| found[..] != key(from)) {
            // The position is inside a record: begin with that one.
            let below = key(from.plus(1));
            if let Some(row) =
                self.store.last_before(Family::Log, &key(Offset(0)), &below).map_err(damaged)?
            {
                rows.insert(0, row);
            }
        }
        let mut pieces: Vec<LogSlice> = Vec::with_capacity(rows.len());
        for (key, value) in rows {
            let piece = self.piece(&key, value)?;
            match pieces.last().map_or(piece.run.base, LogSlice::end) {
                reached if reached == piece.run.base => pieces.push(piece),
                // It was read before, and the record in front after its events were superseded.
                reached if reached > piece.run.base => {}
                missing => return Err(self.missing(missing)),
            }
        }
        let durable = self.partition().end();
        pieces.retain(|piece| piece.end() > from && piece.run.base < end && piece.end() <= durable);
        if pieces.first().is_none_or(|first| first.run.base > from)
            && let Some(gap) = self.gap_from(from)?
        {
            pieces.retain(|piece| piece.run.base >= gap.end());
            pieces.insert(0, gap);
        }
        Ok(pieces)
    }

    /// The offsets from `from` to the first record, where a log that is compacted begins without events: it was cut within
    /// a record that lost them. `None` if it does not. Blocks on the disk.
    fn gap_from(&self, from: Offset) -> Result<Option<LogSlice>, Error> {
        let is_compacted = self.topic.is_compacted() || self.partition().compacted().until > from;
        if !is_compacted || from < self.partition().start() {
            return Ok(None);
        }
        let key = |base| LogKey { topic: self.topic.id, partition: self.number, base }.encode();
        let (start, below) = (key(self.partition().start()), key(from.plus(1)));
        let damaged = |error| self.damaged(from, error);
        if self.store.last_before(Family::Log, &start, &below).map_err(damaged)?.is_some() {
            return Ok(None);
        }
        let next = self.store.scan(Family::Log, &below, &key(Offset(u64::MAX)), ScanLimit::rows(1));
        let Some((key, value)) = next.map_err(damaged)?.into_iter().next() else { return Ok(None) };
        let next = self.piece(&key, value)?;
        let span = u32::try_from(next.run.base.0 - from.0).unwrap_or(u32::MAX);
        let run = Run { base: from, batches: Bytes::new(), ..next.run };
        Ok(Some(LogSlice { run, events: 0, span, built: true, has_ttls: false }))
    }

    fn piece(&self, key: &[u8], value: Bytes) -> Result<LogSlice, Error> {
        let damaged = |what: String| Error::Store {
            code: ErrorCode::StorageCorrupt,
            message: format!("topic {} partition {}: {what}", self.topic.name, self.number),
        };
        let record = record::check(key, value).map_err(|error| damaged(error.to_string()))?;
        slice_of(&record).map_err(|error| damaged(error.to_string()))
    }

    /// The store's error of a read at `offset`, with the topic's name where events are damaged.
    fn damaged(&self, offset: Offset, error: levada_store::Error) -> Error {
        match error {
            levada_store::Error::Events { what, .. } => Error::Store {
                code: ErrorCode::StorageCorrupt,
                message: format!(
                    "topic {} partition {}: the events from offset {offset} on are damaged: {what}",
                    self.topic.name, self.number
                ),
            },
            other => other.into(),
        }
    }

    fn missing(&self, offset: Offset) -> Error {
        Error::Store {
            code: ErrorCode::StorageCorrupt,
            message: format!(
                "topic {} partition {}: offset {offset} is missing",
                self.topic.name, self.number
            ),
        }
    }

    /// The offset that a start means now.
    pub(crate) async fn position(&self, start: Start) -> Result<Offset, Error> {
        let partition = self.partition();
        let (first, end) = (partition.start(), partition.end());
        match start {
            Start::Earliest => Ok(first),
            Start::Latest => Ok(end),
            Start::Offset(offset) if (first.0..=end.0).contains(&offset) => Ok(Offset(offset)),
            Start::Offset(offset) => {
                let message = format!(
                    "topic {} partition {} holds offsets {first} to {end} (the next one), got {offset}",
                    self.topic.name, self.number
                );
                Err(Error::refused(ErrorCode::OffsetOutOfRange, message))
            }
            Start::Time(time) => {
                let log = self.clone();
                blocking(move || log.find_time(first, end, Timestamp(time))).await
            }
        }
    }

    /// The first record appended at or after `time`: a binary search in the stretch where append times never go back.
    fn find_time(&self, first: Offset, end: Offset, time: Timestamp) -> Result<Offset, Error> {
        let key = |base| LogKey { topic: self.topic.id, partition: self.number, base }.encode();
        let setbacks = Setbacks::load(self.store.as_ref(), self.topic.id, self.number)?;
        let (mut low, mut high) = setbacks.stretch(first, end, time);
        while low < high {
            let middle = Offset(low.0 + (high.0 - low.0) / 2);
            let row = self
                .store
                .last_before(Family::Log, &key(Offset(0)), &key(middle.plus(1)))
                .map_err(|error| self.damaged(middle, error))?;
            let Some((found, value)) = row else {
                // Dropped by retention meanwhile.
                low = middle.plus(1);
                continue;
            };
            let piece = self.piece(&found, value)?;
            if piece.run.append_time >= time {
                high = piece.run.base.min(middle);
            } else {
                low = piece.end();
            }
        }
        Ok(low.clamp(first, end))
    }

    /// When the event at this offset was appended, if it is still there; no later than a clock said that was set back behind
    /// it.
    pub(crate) async fn append_time(&self, offset: Offset) -> Option<Timestamp> {
        let Ok(ReadOutcome::Pieces(pieces)) = self.read(offset, 1).await else { return None };
        let stored = pieces.first()?.run.append_time;
        let (store, topic, number) = (Arc::clone(&self.store), self.topic.id, self.number);
        blocking(move || Ok(Setbacks::load(&*store, topic, number)?.time(offset, stored))).await.ok()
    }

    /// The key of the event at this offset, as text, if it is still there and has one.
    pub(crate) async fn key_text(&self, offset: Offset) -> Option<String> {
        let ReadOutcome::Pieces(pieces) = self.read(offset, 1).await.ok()? else { return None };
        let alone = pieces.first()?.cut(&[offset..offset.plus(1)], 1).ok()?;
        let (_, batch) = alone.first()?.run.batches().next()?.ok()?;
        batch.events().next().and_then(|event| Some(String::from_utf8_lossy(event.key()?).into_owned()))
    }
}

/// Runs something that may wait for the disk on a blocking thread.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_cancelled() => Err(Error::ShuttingDown),
        Err(error) => Err(Error::refused(ErrorCode::Internal, format!("a storage task panicked: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use levada_protocol::{
        batch::{BatchBuilder, Stamp},
        event::Event,
        ids::{CommitIndex, TopicId},
        request::{Retain, TopicSettings},
    };
    use levada_store::{Commit, MemoryStore, Op, commit::Term, record::Prefix};

    use super::*;
    use crate::{depth::Depth, tail::TailBudget, topic::Extent};

    const PLACE: (TopicId, PartitionId) = (TopicId(7), PartitionId(0));

    /// A log that begins at offset 5, within a record from 0 to 9 that has lost its events behind 2.
    fn log(retain: Retain) -> (Arc<dyn Store>, Log) {
        let (store, (topic, partition)) = (MemoryStore::new(), PLACE);
        let ops = [(10, 200), (14, 264)].map(|(base, bytes_before)| {
            let mut builder = BatchBuilder::new();
            (0..4).for_each(|_| builder.push(&Event::new("x").with_key("k")).unwrap());
            let batch = builder.finish(Stamp::ENGINE);
            let key = LogKey { topic, partition, base: Offset(base) };
            let (hops, append_time, commit_index) = (0, Timestamp(9), CommitIndex(1));
            let prefix = Prefix { hops, append_time, commit_index, bytes_before, span: 4 };
            let value = record::encode(&key, &prefix, &[&batch]);
            Op::Put { family: Family::Log, key: Bytes::copy_from_slice(&key.encode()), value }
        });
        store.apply(&Commit::after(&store.last(), Term(1), Timestamp(0), ops.to_vec())).unwrap();
        let extent = Extent { start: Offset(5), end: Offset(18), ..Extent::default() };
        let settings = TopicSettings { retain, ..TopicSettings::default() };
        let topic = Topic::new(topic, "t".parse().unwrap(), settings, &[extent], &TailBudget::new(0));
        let store: Arc<dyn Store> = Arc::new(store);
        (Arc::clone(&store), Log::new(store, Arc::new(topic), partition).unwrap())
    }

    async fn read(log: &Log, from: u64) -> Vec<(u64, u64, u32)> {
        match log.read(Offset(from), 1 << 20).await.unwrap() {
            ReadOutcome::Pieces(pieces) => {
                pieces.iter().map(|piece| (piece.run.base.0, piece.end().0, piece.events)).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_log_that_begins_within_a_record_that_was_compacted_begins_with_a_gap() {
        let (store, compacted) = log(Retain::Compact);
        assert_eq!(read(&compacted, 5).await, [(5, 10, 0), (10, 14, 4), (14, 18, 4)]);
        assert_eq!(read(&compacted, 8).await, [(8, 10, 0), (10, 14, 4), (14, 18, 4)]);
        assert_eq!(read(&compacted, 12).await, [(10, 14, 4), (14, 18, 4)]);
        let depth = Depth::find(store.as_ref(), PLACE, Offset(6)).unwrap().unwrap();
        let expected =
            Depth { bytes_before: 200, time: Timestamp(9), record_end: Offset(10), bytes_to_end: 200 };
        assert_eq!(depth, expected);
        assert_eq!(Depth::find(store.as_ref(), PLACE, Offset(18)).unwrap(), None);
    }

    #[tokio::test]
    async fn anywhere_else_a_missing_record_is_damage() {
        let (_, other) = log(Retain::default());
        let damaged = other.read(Offset(5), 1 << 20).await.unwrap_err();
        assert_eq!(damaged.code(), ErrorCode::StorageCorrupt);
        assert!(damaged.to_string().ends_with("offset 5 is missing"), "{damaged}");
        let (store, compacted) = log(Retain::Compact);
        let key = LogKey { topic: PLACE.0, partition: PLACE.1, base: Offset(10) };
        let gone = Op::Delete { family: Family::Log, key: Bytes::copy_from_slice(&key.encode()) };
        let put = |base: u64| {
            let key = LogKey { base: Offset(base), ..key };
            let mut builder = BatchBuilder::new();
            builder.push(&Event::new("x").with_key("k")).unwrap();
            let (hops, append_time, commit_index) = (0, Timestamp(9), CommitIndex(2));
            let prefix = Prefix { hops, append_time, commit_index, bytes_before: 0, span: 1 };
            let value = record::encode(&key, &prefix, &[&builder.finish(Stamp::ENGINE)]);
            Op::Put { family: Family::Log, key: Bytes::copy_from_slice(&key.encode()), value }
        };
        let ops = vec![gone, put(5)];
        store.apply(&Commit::after(&store.last(), Term(1), Timestamp(0), ops)).unwrap();
        let damaged = compacted.read(Offset(7), 1 << 20).await.unwrap_err();
        assert!(damaged.to_string().ends_with("offset 6 is missing"), "{damaged}");
    }
}
