//! Where every partition ends, and the records that the commit under way appends.
//!
//! Consecutive batches of a partition are stored under one key; the record stays open until it is full or the
//! commit ends. Append times never go back, but where the clock was set back by more than a little: see
//! [`crate::setback`].

use std::{
    collections::{BTreeSet, HashMap},
    ops::Range,
};

use levada_protocol::{
    batch::Batch,
    deliver::Run,
    error::ErrorCode,
    ids::{Offset, PartitionId, Timestamp, TopicId, TopicName},
    request::{Retain, TopicSettings},
};
use levada_store::{
    Deleted, Family, Op, ScanLimit, Store,
    commit::OP_HEADER_BYTES,
    record::{self, LOG_KEY_BYTES, LogKey, LogRange, Prefix, RECORD_PREFIX_BYTES},
};

use crate::{
    catalogue::Catalogue,
    error::Error,
    frames::{self, LogSlice},
    rows::{self, Compacted, Dropped, DroppedRange, LogStart, Row, Segment, Setback},
    setback::AHEAD_MS_MAX,
    shard::{announcement::Announcement, draft::Draft, rewritten::Rewritten},
    topic::{Extent, Extents},
};

/// Bytes of batches under one key at most, unless one batch is larger.
const RECORD_BYTES_MAX: usize = 64 * 1024;
/// Bytes appended to a partition after which a new segment begins.
const SEGMENT_BYTES: u64 = 4 << 20;
/// Time after which a new segment begins at the next append, at the latest.
const SEGMENT_MS_MAX: u64 = 10 * 60_000;
const PAGE: ScanLimit = ScanLimit { rows: 1_000, bytes: 4 << 20 };

/// All partitions of the topics that exist.
#[derive(Debug, Default)]
pub(in crate::shard) struct Partitions {
    topics: HashMap<TopicId, Vec<Partition>>,
    /// Those with an open record, in the order in which they were opened.
    open: Vec<(TopicId, PartitionId)>,
    /// Those to which the commit in the making appends.
    unwritten: Vec<(TopicId, PartitionId)>,
}

#[derive(Debug, Default)]
struct Partition {
    end: End,
    open: Option<OpenRecord>,
    /// Where it ended before the commit in the making.
    written: Reach,
    compacted: Compacted,
    /// Bytes of batches before the log's start, since the topic was created.
    dropped_bytes: u64,
    /// Bytes of batches before what is stored, since the topic was created: there may be less before the log's start.
    deleted_bytes: u64,
}

/// How far a partition reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::shard) struct Reach {
    /// The next offset.
    pub(in crate::shard) next: Offset,
    /// Bytes of batches ever appended.
    pub(in crate::shard) bytes: u64,
}

/// A partition's end as the writer has decided it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct End {
    /// The next offset.
    next: Offset,
    /// The newest append time.
    append_time: Timestamp,
    /// Bytes of batches ever appended.
    bytes: u64,
    /// Where the newest segment began; `None` if the next event begins one.
    segment: Option<(Offset, Segment)>,
}

/// Batches of one partition that will be stored under one key.
#[derive(Debug)]
struct OpenRecord {
    base: Offset,
    append_time: Timestamp,
    /// Bytes appended to the partition before it.
    bytes_before: u64,
    hops: u8,
    batches: Vec<Batch>,
    bytes: usize,
    events: u32,
    span: u32,
}

/// A batch that is to be appended.
#[derive(Debug)]
pub(in crate::shard) struct NewBatch {
    pub(in crate::shard) topic: TopicId,
    pub(in crate::shard) partition: PartitionId,
    pub(in crate::shard) batch: Batch,
    /// How many routes its events have passed through.
    pub(in crate::shard) hops: u8,
    /// How long the topic keeps events, as [`retain_for_ms`] has it: short retentions are kept precisely.
    pub(in crate::shard) retain_for_ms: u64,
}

/// After how long events of a topic may be dropped for their age: segments are as short as that needs.
pub(in crate::shard) fn retain_for_ms(settings: &TopicSettings) -> u64 {
    match settings.retain {
        Retain::Compact => u64::MAX,
        _ => settings.retain_for_ms,
    }
}

impl Partitions {
    /// Reads where all partitions begin and end. Blocks on the disk.
    pub(in crate::shard) fn load(store: &dyn Store, catalogue: &Catalogue) -> Result<(Self, Extents), Error> {
        let (mut partitions, mut topics) = (Self::default(), Vec::with_capacity(catalogue.topics.len()));
        for (name, record) in catalogue.topics.iter() {
            let id = TopicId(record.id);
            let (mut ends, mut extents) = (Vec::new(), Vec::new());
            for number in (0..record.settings.partitions).map(PartitionId) {
                let (end, extent) = load_one(store, id, number).map_err(|error| named(name, error))?;
                let Extent { compacted, dropped_bytes, .. } = extent;
                let (written, deleted_bytes) = (end.reach(), dropped_bytes);
                ends.push(Partition { end, open: None, written, compacted, dropped_bytes, deleted_bytes });
                extents.push(extent);
            }
            partitions.topics.insert(id, ends);
            topics.push((id, extents));
        }
        Ok((partitions, topics))
    }

    /// Adds the partitions of a new topic.
    pub(in crate::shard) fn create_topic(&mut self, id: TopicId, partitions: u16) {
        self.topics.insert(id, (0..partitions).map(|_| Partition::default()).collect());
    }

    fn get(&self, topic: TopicId, number: PartitionId) -> Option<&Partition> {
        self.topics.get(&topic)?.get(usize::from(number.0))
    }

    /// The offset that the partition's next event gets; `None` if there is no such partition.
    pub(in crate::shard) fn next(&self, topic: TopicId, number: PartitionId) -> Option<Offset> {
        self.get(topic, number).map(|partition| partition.end.next)
    }

    /// How far each partition of a topic reaches.
    pub(in crate::shard) fn reaches(&self, topic: TopicId) -> Vec<Reach> {
        let partitions = self.topics.get(&topic).into_iter().flatten();
        partitions.map(|partition| partition.end.reach()).collect()
    }

    /// How far a partition reaches.
    pub(in crate::shard) fn reach(&self, (topic, number): (TopicId, PartitionId)) -> Reach {
        self.get(topic, number).map_or_else(Reach::default, |partition| partition.end.reach())
    }

    /// How far a partition reached before the commit in the making.
    pub(in crate::shard) fn written(&self, (topic, number): (TopicId, PartitionId)) -> Reach {
        self.get(topic, number).map_or_else(Reach::default, |partition| partition.written)
    }

    /// Bytes that are stored of a partition behind so many that were appended, at most.
    pub(in crate::shard) fn bytes_behind(&self, (topic, number): (TopicId, PartitionId), before: u64) -> u64 {
        let of = |partition: &Partition| partition.compacted.stored_between(before, partition.end.bytes);
        self.get(topic, number).map_or(0, of)
    }

    /// The append time of an event that is appended at `now`; `None` if there is no such partition.
    pub(in crate::shard) fn append_time(
        &self,
        topic: TopicId,
        number: PartitionId,
        now: Timestamp,
    ) -> Option<Timestamp> {
        self.get(topic, number).map(|partition| partition.end.append_time.max(now))
    }

    /// True if the partition's append times would stand still for too long, as the clock was set back.
    pub(in crate::shard) fn is_ahead_of(&self, topic: TopicId, number: PartitionId, now: Timestamp) -> bool {
        self.get(topic, number).is_some_and(|partition| partition.end.is_ahead_of(now))
    }

    /// Assigns offsets to a batch and adds it to the partition's open record. Returns its first offset; `None` if there
    /// is no such partition.
    pub(in crate::shard) fn append(
        &mut self,
        append: NewBatch,
        now: Timestamp,
        draft: &mut Draft,
    ) -> Option<Offset> {
        let NewBatch { topic, partition: number, batch, hops, retain_for_ms } = append;
        let partition = self.topics.get_mut(&topic)?.get_mut(usize::from(number.0))?;
        let len = batch.bytes().len();
        let key = (topic, number);
        let full = partition.open.take_if(|open| open.hops != hops || !open.fits(len));
        // One that follows on another within the commit is in the list already.
        let is_first = full.is_none();
        if let Some(full) = full {
            full.close(key, draft);
        }
        let end = &mut partition.end;
        let base = end.next;
        end.append_time = end.append_time.max(now);
        if partition.open.is_none() {
            if end.wants_segment(now, retain_for_ms) {
                let segment = Segment { append_time: end.append_time, bytes_before: end.bytes };
                end.segment = Some((base, segment));
                draft.push(segment.put(&(topic, number, base)));
            }
            draft.reserve(OP_HEADER_BYTES + LOG_KEY_BYTES + RECORD_PREFIX_BYTES);
            if is_first {
                self.open.push(key);
                self.unwritten.push(key);
            }
        }
        let open = partition.open.get_or_insert_with(|| OpenRecord {
            base,
            append_time: end.append_time,
            bytes_before: end.bytes,
            hops,
            batches: Vec::new(),
            bytes: 0,
            events: 0,
            span: 0,
        });
        end.next = base.plus(u64::from(batch.span()));
        end.bytes += len as u64;
        draft.reserve(len);
        open.bytes += len;
        open.events += batch.count();
        open.span += batch.span();
        open.batches.push(batch);
        Some(base)
    }

    /// Closes all open records: their batches become part of the commit.
    pub(in crate::shard) fn flush(&mut self, draft: &mut Draft) {
        for (topic, number) in std::mem::take(&mut self.open) {
            if let Some(open) = self.get_mut((topic, number)).and_then(|partition| partition.open.take()) {
                open.close((topic, number), draft);
            }
        }
    }

    /// The commit in the making is complete.
    pub(in crate::shard) fn end_commit(&mut self) {
        for place in std::mem::take(&mut self.unwritten) {
            if let Some(partition) = self.get_mut(place) {
                partition.written = partition.end.reach();
            }
        }
    }

    fn get_mut(&mut self, (topic, number): (TopicId, PartitionId)) -> Option<&mut Partition> {
        self.topics.get_mut(&topic)?.get_mut(usize::from(number.0))
    }

    /// Moves a partition's log start and leaves what is before it for a later [`Partitions::trim`]. A record must begin or
    /// end there, of the commit in the making or an earlier one.
    pub(in crate::shard) fn advance_start(
        &mut self,
        (topic, number): (TopicId, PartitionId),
        start: Offset,
        dropped_bytes: u64,
        draft: &mut Draft,
    ) {
        if let Some(partition) = self.get_mut((topic, number)) {
            partition.dropped_bytes = dropped_bytes;
        }
        draft.push(LogStart { offset: start, dropped_bytes }.put(&(topic, number)));
        draft.announce(Announcement::Trimmed { topic, partition: number, start, dropped_bytes });
    }

    /// True if so much would be stored before a log start that it is worth deleting.
    pub(in crate::shard) fn is_worth_trimming(&self, of: (TopicId, PartitionId), dropped_bytes: u64) -> bool {
        let deleted = self.get(of.0, of.1).map_or(0, |partition| partition.deleted_bytes);
        dropped_bytes.saturating_sub(deleted) >= SEGMENT_BYTES
    }

    /// Moves a partition's log start and drops what is before it, `dropped_bytes` in all since the topic was created.
    pub(in crate::shard) fn trim(
        &mut self,
        (topic, number): (TopicId, PartitionId),
        start: Offset,
        dropped_bytes: u64,
        draft: &mut Draft,
    ) {
        let Some(partition) = self.get_mut((topic, number)) else { return };
        (partition.dropped_bytes, partition.deleted_bytes) = (dropped_bytes, dropped_bytes);
        // The row of a segment that began before is deleted: the next event begins a new one.
        partition.end.segment = partition.end.segment.filter(|(base, _)| *base >= start);
        draft.push(LogStart { offset: start, dropped_bytes }.put(&(topic, number)));
        let log = LogRange::offsets(topic, number, Offset(0), start);
        rows::drop_rows(|op| draft.push(op), Family::Log, (log.from, log.to));
        draft.push(Segment::delete_range(Segment::below(topic, number, start)));
        draft.push(Setback::delete_range(Setback::below(topic, number, start)));
        draft.announce(Announcement::Trimmed { topic, partition: number, start, dropped_bytes });
    }

    /// Has records of a partition lose what was superseded.
    pub(in crate::shard) fn rewrite(
        &mut self,
        of: (TopicId, PartitionId),
        records: &[Rewritten],
        appended_bytes: u64,
        draft: &mut Draft,
    ) {
        let Some(partition) = self.get_mut(of) else { return };
        partition.compacted.add_saved(records.iter().map(|record| record.saved_bytes).sum(), appended_bytes);
        partition.show_compacted(of, draft);
        let index = draft.index();
        records.iter().flat_map(|record| record.ops(of, index)).for_each(|op| draft.push(op));
        if let Some(last) = records.last() {
            let (topic, partition) = of;
            let until = last.base.plus(u64::from(last.span));
            draft.announce(Announcement::Rewritten { topic, partition, until });
        }
    }

    /// Notes that the space of what was replaced in a partition is to be given back.
    pub(in crate::shard) fn note_superseded(
        &self,
        (topic, partition): (TopicId, PartitionId),
        offsets: Range<Offset>,
        draft: &mut Draft,
    ) {
        if self.get(topic, partition).is_some() {
            let LogRange { from, to } = LogRange::offsets(topic, partition, offsets.start, offsets.end);
            let deleted = Deleted::Some;
            draft.push(Dropped.put(&DroppedRange { family: Family::Log, from, to, deleted }));
            draft.announce(Announcement::Superseded);
        }
    }

    /// Notes how far a partition is compacted, where its log begins now.
    pub(in crate::shard) fn note_compacted(
        &mut self,
        of: (TopicId, PartitionId),
        compacted: Compacted,
        draft: &mut Draft,
    ) {
        let Some(partition) = self.get_mut(of) else { return };
        partition.compacted = Compacted { dropped_bytes: partition.dropped_bytes, ..compacted };
        partition.show_compacted(of, draft);
    }

    /// Notes a set-back in every partition whose newest append time is too far ahead of the clock: from the next event
    /// on append times are of `now` again. A new segment begins there, so that retention sees both sides.
    pub(in crate::shard) fn set_back(&mut self, now: Timestamp, draft: &mut Draft) -> SetBack {
        let mut found = SetBack::default();
        for (topic, partitions) in &mut self.topics {
            for (number, partition) in (0..).map(PartitionId).zip(partitions) {
                let end = &mut partition.end;
                if !end.is_ahead_of(now) {
                    continue;
                }
                let setback = Setback { time: now, before: end.append_time };
                draft.push(setback.put(&(*topic, number, end.next)));
                found.topics.insert(*topic);
                found.partitions += 1;
                found.ahead_ms_max = found.ahead_ms_max.max(end.append_time.0 - now.0);
                (end.append_time, end.segment) = (now, None);
            }
        }
        found
    }

    /// Drops all that is stored of a topic's partitions. Its open records must have been closed before.
    pub(in crate::shard) fn forget_topic(&mut self, id: TopicId, draft: &mut Draft) {
        self.topics.remove(&id);
        let log = LogRange::topic(id);
        rows::drop_rows(|op| draft.push(op), Family::Log, (log.from, log.to));
        draft.push(LogStart::delete_range(LogStart::of_topic(id)));
        draft.push(Setback::delete_range(Setback::of_topic(id)));
        draft.push(Compacted::delete_range(Compacted::of_topic(id)));
        draft.push(Segment::delete_range(Segment::of_topic(id)));
    }
}

/// Where the clock was found to be set back.
#[derive(Debug, Default)]
pub(in crate::shard) struct SetBack {
    pub(in crate::shard) topics: BTreeSet<TopicId>,
    pub(in crate::shard) partitions: u64,
    /// By how much append times were ahead, at most.
    pub(in crate::shard) ahead_ms_max: u64,
}

impl Partition {
    fn show_compacted(&self, (topic, partition): (TopicId, PartitionId), draft: &mut Draft) {
        let compacted = self.compacted;
        draft.push(compacted.put(&(topic, partition)));
        draft.announce(Announcement::Compacted { topic, partition, compacted });
    }
}

impl OpenRecord {
    fn fits(&self, len: usize) -> bool {
        self.bytes + len <= RECORD_BYTES_MAX
    }

    /// Makes the record part of the commit, under one key.
    fn close(self, (topic, partition): (TopicId, PartitionId), draft: &mut Draft) {
        let Self { base, append_time, bytes_before, hops, batches, bytes: _, events, span } = self;
        let key = LogKey { topic, partition, base };
        let has_ttls = batches.iter().any(Batch::has_ttls);
        let batches: Vec<&Batch> = batches.iter().collect();
        let prefix = Prefix { hops, append_time, commit_index: draft.index(), bytes_before, span };
        let value = record::encode(&key, &prefix, &batches);
        let stored = value.slice(RECORD_PREFIX_BYTES..);
        let key = bytes::Bytes::copy_from_slice(&key.encode());
        draft.push_reserved(Op::Put { family: Family::Log, key, value });
        let run = Run { base, append_time, hops, batches: stored };
        let piece = LogSlice { run, events, span, built: false, has_ttls };
        draft.announce(Announcement::Appended { topic, partition, piece });
    }
}

impl End {
    fn reach(&self) -> Reach {
        Reach { next: self.next, bytes: self.bytes }
    }

    fn is_ahead_of(&self, now: Timestamp) -> bool {
        self.append_time.0.saturating_sub(now.0) > AHEAD_MS_MAX
    }

    /// True if the next record should begin a segment. `retain_for_ms` keeps short retentions precise.
    fn wants_segment(&self, now: Timestamp, retain_for_ms: u64) -> bool {
        let age_max = SEGMENT_MS_MAX.min(retain_for_ms / 8);
        self.segment.is_none_or(|(_, segment)| {
            self.bytes - segment.bytes_before >= SEGMENT_BYTES
                || now.0.saturating_sub(segment.append_time.0) >= age_max.max(1)
        })
    }
}

/// Finds a partition's end and size by its last record. Records from the last segment on are read, and must be
/// consecutive; each holds the number of bytes before it.
fn load_one(store: &dyn Store, topic: TopicId, partition: PartitionId) -> Result<(End, Extent), Error> {
    let mut start = rows::get::<LogStart>(store, &(topic, partition))?.unwrap_or_default();
    let mut end = End { next: start.offset, bytes: start.dropped_bytes, ..End::default() };
    let segments = Segment::below(topic, partition, Offset(u64::MAX));
    if let Some(((_, _, base), segment)) = rows::last::<Segment>(store, &segments)? {
        (end.next, end.bytes, end.segment) = (base, segment.bytes_before, Some((base, segment)));
    }
    let key = |base| LogKey { topic, partition, base }.encode();
    let mut from = key(end.next);
    let to = key(Offset(u64::MAX));
    let mut is_first = true;
    loop {
        let rows = store.scan(Family::Log, &from, &to, PAGE)?;
        if rows.is_empty() {
            break;
        }
        for (key, value) in rows {
            let record = record::check(&key, value).map_err(|error| corrupt(error.to_string()))?;
            if std::mem::take(&mut is_first) {
                end.bytes = record.bytes_before;
                if record.key.base == start.offset {
                    start.dropped_bytes = record.bytes_before;
                }
            }
            if record.key.base != end.next || record.bytes_before != end.bytes {
                let what = format!(
                    "partition {partition}: events are missing before offset {}: expected a record at offset {} with {} \
                     bytes before it, got one with {}; restore the data directory from a backup",
                    record.key.base, end.next, end.bytes, record.bytes_before
                );
                return Err(corrupt(what));
            }
            end.bytes += record.bytes.len() as u64;
            end.append_time = record.append_time;
            end.next = frames::slice_of(&record)?.end();
        }
        from = key(end.next);
    }
    let setbacks = Setback::below(topic, partition, Offset(u64::MAX));
    if let Some(((_, _, from), setback)) = rows::last::<Setback>(store, &setbacks)?
        && from == end.next
    {
        // Nothing was appended since.
        (end.append_time, end.segment) = (setback.time, None);
    }
    let LogStart { offset: start, dropped_bytes } = start;
    let compacted = rows::get(store, &(topic, partition))?.unwrap_or_default();
    let extent = Extent { start, end: end.next, appended_bytes: end.bytes, dropped_bytes, compacted };
    Ok((end, extent))
}

/// The error of reading a topic's partition, with the topic's name.
fn named(topic: &TopicName, error: Error) -> Error {
    match error {
        Error::Store { code, message } => {
            Error::Store { code, message: format!("topic {topic} cannot be loaded: {message}") }
        }
        other => other,
    }
}

fn corrupt(message: String) -> Error {
    Error::Store { code: ErrorCode::StorageCorrupt, message }
}

#[cfg(test)]
mod tests {
    use levada_protocol::{
        batch::{BatchBuilder, Stamp},
        event::Event,
        ids::CommitIndex,
    };
    use levada_store::{Commit, MemoryStore, commit::Term};
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const TOPIC: TopicId = TopicId(7);

    fn batch(events: u32, bytes: usize) -> Batch {
        let mut builder = BatchBuilder::new();
        (0..events).for_each(|_| builder.push(&Event::new(vec![b'x'; bytes])).unwrap());
        builder.finish(Stamp::ENGINE)
    }

    fn new_batch(partition: u16, batch: Batch, hops: u8) -> NewBatch {
        let partition = PartitionId(partition);
        NewBatch { topic: TOPIC, partition, batch, hops, retain_for_ms: 1_000_000_000 }
    }

    fn partitions(count: u16) -> Partitions {
        let mut partitions = Partitions::default();
        partitions.create_topic(TOPIC, count);
        partitions
    }

    fn catalogue(partitions: u16) -> Catalogue {
        let settings = TopicSettings { partitions, ..Default::default() };
        let record = rows::TopicRecord {
            id: TOPIC.0,
            name: "t".parse().unwrap(),
            settings,
            created_ms: 0,
            owner: String::new(),
        };
        let mut catalogue = Catalogue::default();
        catalogue.topics.insert("t".parse().unwrap(), TOPIC, std::sync::Arc::new(record));
        catalogue
    }

    fn commit(partitions: &mut Partitions, store: &MemoryStore, mut draft: Draft) -> usize {
        partitions.flush(&mut draft);
        let counted = draft.encoded_len();
        let commit = Commit::after(&store.last(), Term(1), Timestamp(0), draft.into_ops());
        store.apply(&commit).unwrap();
        assert_eq!(commit.encoded_len(), counted);
        counted
    }

    fn draft(store: &MemoryStore) -> Draft {
        Draft::new(CommitIndex(store.last().index.0 + 1))
    }

    #[test]
    fn batches_of_one_commit_lie_under_one_key_until_it_is_full_or_the_hops_are_others() {
        let (store, mut all) = (MemoryStore::new(), partitions(1));
        let mut draft = draft(&store);
        for (bytes, hops) in [(10, 0), (20, 0), (10, 1), (RECORD_BYTES_MAX, 1), (10, 1)] {
            all.append(new_batch(0, batch(2, bytes / 2), hops), Timestamp(5), &mut draft).unwrap();
        }
        commit(&mut all, &store, draft);
        let log = LogRange::topic(TOPIC);
        let keys = store.scan(Family::Log, &log.from, &log.to, PAGE).unwrap();
        let bases: Vec<_> = keys.iter().map(|(key, _)| LogKey::decode(key).unwrap().base.0).collect();
        assert_eq!(bases, [0, 4, 6, 8]);
        assert_eq!(all.next(TOPIC, PartitionId(0)), Some(Offset(10)));
        assert_eq!(all.next(TOPIC, PartitionId(1)), None);
        assert_eq!(all.next(TopicId(8), PartitionId(0)), None);
    }

    #[test]
    fn how_much_was_dropped_when_a_pass_ends_is_what_was_decided_until_then() {
        let (store, mut all) = (MemoryStore::new(), partitions(1));
        let of = (TOPIC, PartitionId(0));
        let mut draft = draft(&store);
        all.append(new_batch(0, batch(2, 10), 0), Timestamp(5), &mut draft).unwrap();
        all.advance_start(of, Offset(1), 70, &mut draft);
        all.note_compacted(of, Compacted { until: Offset(2), ..Compacted::default() }, &mut draft);
        commit(&mut all, &store, draft);
        let row: Compacted = rows::get(&store, &of).unwrap().unwrap();
        assert_eq!((row.until, row.dropped_bytes), (Offset(2), 70));
        let mut draft = self::draft(&store);
        all.trim(of, Offset(2), 140, &mut draft);
        all.note_compacted(of, row, &mut draft);
        commit(&mut all, &store, draft);
        assert_eq!(rows::get::<Compacted>(&store, &of).unwrap().unwrap().dropped_bytes, 140);
    }

    #[test]
    fn a_clock_that_was_set_back_begins_anew_in_the_partitions_that_are_ahead() {
        let (store, mut all) = (MemoryStore::new(), partitions(2));
        let mut first = draft(&store);
        let (early, late) = (Timestamp(1_000), Timestamp(1_000 + AHEAD_MS_MAX + 1));
        all.append(new_batch(0, batch(1, 1), 0), early, &mut first).unwrap();
        all.append(new_batch(1, batch(3, 1), 0), late, &mut first).unwrap();
        commit(&mut all, &store, first);
        assert!(!all.is_ahead_of(TOPIC, PartitionId(0), early));
        assert!(all.is_ahead_of(TOPIC, PartitionId(1), early));
        let mut second = draft(&store);
        let found = all.set_back(early, &mut second);
        assert_eq!((found.partitions, found.ahead_ms_max), (1, AHEAD_MS_MAX + 1));
        commit(&mut all, &store, second);
        let setback = rows::get::<Setback>(&store, &(TOPIC, PartitionId(1), Offset(3))).unwrap();
        assert_eq!(setback, Some(Setback { time: early, before: late }));
        assert!(!all.is_ahead_of(TOPIC, PartitionId(1), early));
    }

    proptest! {
        #[test]
        fn what_is_loaded_is_what_was_decided(
            steps in vec((0..3u16, 1..5u32, 0..3_000usize, 0..400_000u64, 0..20u8), 1..40),
        ) {
            let (store, mut all, mut now) = (MemoryStore::new(), partitions(3), 0);
            let mut under_way = draft(&store);
            for (partition, events, bytes, step, what) in steps {
                let number = PartitionId(partition);
                match what {
                    0..=13 => {
                        let hops = what % 2;
                        let new = new_batch(partition, batch(events, bytes), hops);
                        all.append(new, Timestamp(now), &mut under_way).unwrap();
                        continue;
                    }
                    14..=16 => {}
                    _ => {
                        // Retention drops whole segments of what is durable.
                        let full = Segment::below(TOPIC, number, Offset(u64::MAX));
                        let last = rows::last::<Segment>(&store, &full).unwrap();
                        if let Some(((.., base), segment)) = last {
                            all.trim((TOPIC, number), base, segment.bytes_before, &mut under_way);
                        }
                    }
                }
                commit(&mut all, &store, under_way);
                // All of a commit has one append time.
                (under_way, now) = (draft(&store), now + step);
            }
            commit(&mut all, &store, under_way);
            let (loaded, extents) = Partitions::load(&store, &catalogue(3)).unwrap();
            for (number, extent) in (0..3).map(PartitionId).zip(&extents[0].1) {
                let (had, has) = (all.get(TOPIC, number).unwrap(), loaded.get(TOPIC, number).unwrap());
                prop_assert_eq!(had.end.next, has.end.next);
                prop_assert_eq!(had.end.bytes, has.end.bytes);
                if extent.start < extent.end {
                    prop_assert_eq!(had.end, has.end);
                }
                prop_assert_eq!(extent.end, has.end.next);
            }
        }
    }
}
