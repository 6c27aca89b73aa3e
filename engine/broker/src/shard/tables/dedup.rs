//! Which event ids the partitions of topics with a dedup window have seen.
//!
//! All ids within their windows are in memory, so that deciding an append reads nothing. The engine remembers a bounded
//! number of them: beyond it the partition with the most forgets its oldest, which its topic's description and metrics
//! say (`engine/adr/0010-event-ids.md`). What is stored is one row per commit and partition, deleted by range once its
//! ids are forgotten.

use std::{collections::HashMap, sync::Arc};

use levada_delivery::dedup::Ids;
use levada_protocol::{
    batch::Batch,
    duplicates::Duplicates,
    ids::{Offset, PartitionId, Timestamp, TopicId},
    request::{DedupInfo, TopicSettings},
};
use levada_store::{Family, Store, commit::OP_HEADER_BYTES};

use crate::{
    catalogue::Catalogue,
    error::Error,
    event_id, identity,
    rows::{self, DedupIds, Row},
    shard::{announcement::Announcement, draft::Draft},
};

/// Rows of forgotten ids are deleted as often as this part of the window.
const DELETIONS_PER_WINDOW: u64 = 16;
/// Forgotten ids from which on the space of their rows is reclaimed at once, and not when RocksDB comes to it.
const RECLAIMED_IDS: u64 = 1 << 20;
/// Beyond the bound so much more is forgotten, so that not every commit has to.
const ROOM_PART: u64 = 256;
/// Ids that were forgotten early are reported in the log once in so many milliseconds at most.
const WARNING_INTERVAL_MS: u64 = 60_000;

/// The ids of all topics with a window.
#[derive(Debug)]
pub(in crate::shard) struct Dedup {
    topics: HashMap<TopicId, TopicIds>,
    /// Those that the commit has changed.
    dirty: Vec<(TopicId, PartitionId)>,
    /// How many ids there are, over all topics.
    held: u64,
    max: u64,
    seed: [u64; 2],
    /// Of the batch that is looked at: the hash of each event with an id.
    hashes: Vec<Option<u128>>,
    /// When ids were last reported as forgotten early.
    warned: Timestamp,
}

#[derive(Debug)]
struct TopicIds {
    window_ms: u64,
    header: Box<str>,
    partitions: Vec<Partition>,
    /// Since the last announcement.
    duplicates: u64,
    forgotten_early: u64,
}

#[derive(Debug)]
struct Partition {
    ids: Ids,
    is_dirty: bool,
    /// What the commit adds, with the offset of its first event.
    row: Option<(Offset, DedupIds)>,
    /// There are no rows of ids before.
    rows_from: Offset,
    /// Ids whose rows are to be deleted.
    to_delete: u64,
    /// When rows were last deleted.
    deleted: Timestamp,
}

/// What is left of a batch.
#[derive(Debug)]
pub(in crate::shard) struct Unique {
    /// `None` if all of its events are duplicates.
    pub(in crate::shard) batch: Option<Batch>,
    /// Which of them are, if some are.
    pub(in crate::shard) duplicates: Option<Arc<Duplicates>>,
}

impl Dedup {
    /// Reads what is remembered; at most `max` ids are. Blocks on the disk.
    pub(in crate::shard) fn load(
        store: &dyn Store,
        catalogue: &Catalogue,
        max: usize,
    ) -> Result<Self, Error> {
        let mut dedup = Self {
            topics: HashMap::new(),
            dirty: Vec::new(),
            held: 0,
            max: max as u64,
            seed: identity::new_seed()?,
            hashes: Vec::new(),
            warned: Timestamp::default(),
        };
        for record in catalogue.topics.values() {
            dedup.begin_topic(record.id(), &record.settings);
            for number in (0..record.settings.partitions).map(PartitionId) {
                dedup.load_partition(store, record.id(), number)?;
            }
        }
        Ok(dedup)
    }

    fn load_partition(
        &mut self,
        store: &dyn Store,
        topic: TopicId,
        number: PartitionId,
    ) -> Result<(), Error> {
        let Some(topic_ids) = self.topics.get(&topic) else { return Ok(()) };
        let window_ms = topic_ids.window_ms;
        let mut is_first = true;
        rows::for_each::<DedupIds>(store, DedupIds::of_partition(topic, number), |(_, _, base), row| {
            let topic_ids = self.topics.get_mut(&topic);
            let partition = topic_ids.and_then(|topic| topic.partitions.get_mut(usize::from(number.0)));
            let Some(partition) = partition else { return };
            if std::mem::take(&mut is_first) {
                partition.rows_from = base;
            }
            let before = partition.ids.held();
            for (hash, delta) in row.ids() {
                let offset = base.plus(u64::from(delta));
                partition.ids.restore(hash, offset, row.append_time, window_ms);
            }
            partition.ids.restore_complete_since(row.complete_since);
            // What had expired by then no longer counts against the bound.
            partition.expire(row.append_time, window_ms);
            self.held = self.held + partition.ids.held() - before;
            self.keep_bounded(Timestamp::default());
        })
    }

    /// What is remembered of each topic with a window.
    pub(in crate::shard) fn infos(&self) -> impl Iterator<Item = (TopicId, DedupInfo)> {
        self.topics.iter().map(|(id, topic)| (*id, topic.info(Timestamp(u64::MAX))))
    }

    /// Begins to remember ids of a topic, if it has a window.
    pub(in crate::shard) fn begin_topic(&mut self, id: TopicId, settings: &TopicSettings) {
        if settings.dedup_window_ms == 0 {
            return;
        }
        let partition = || Partition {
            ids: Ids::new(self.seed),
            is_dirty: false,
            row: None,
            rows_from: Offset(0),
            to_delete: 0,
            deleted: Timestamp::default(),
        };
        let topic = TopicIds {
            window_ms: settings.dedup_window_ms,
            header: settings.dedup_header.as_str().into(),
            partitions: (0..settings.partitions).map(|_| partition()).collect(),
            duplicates: 0,
            forgotten_early: 0,
        };
        self.topics.insert(id, topic);
    }

    /// Follows a change of a topic's settings. Without a window, and if ids have another meaning, all are forgotten.
    pub(in crate::shard) fn change_topic(
        &mut self,
        id: TopicId,
        settings: &TopicSettings,
        draft: &mut Draft,
    ) {
        if let Some(topic) = self.topics.get_mut(&id) {
            if settings.dedup_window_ms > 0 && *topic.header == *settings.dedup_header {
                topic.window_ms = settings.dedup_window_ms;
                return;
            }
            self.forget_topic(id, draft);
        }
        self.begin_topic(id, settings);
    }

    /// Drops what is remembered of a topic.
    pub(in crate::shard) fn forget_topic(&mut self, id: TopicId, draft: &mut Draft) {
        let Some(topic) = self.topics.remove(&id) else { return };
        self.held -= topic.partitions.iter().map(|partition| partition.ids.held()).sum::<u64>();
        self.dirty.retain(|(topic, _)| *topic != id);
        rows::drop_rows(|op| draft.push(op), Family::Dedup, DedupIds::of_topic(id));
        let nothing = DedupInfo { window_ms: u64::MAX, ..DedupInfo::default() };
        draft.announce(Announcement::Dedup { topic: id, info: nothing });
    }

    /// Takes the duplicates out of a published batch whose first event would get the offset `next`, and remembers the ids
    /// of the others.
    pub(in crate::shard) fn take(
        &mut self,
        (topic, number): (TopicId, PartitionId),
        batch: Batch,
        next: Offset,
        time: Timestamp,
        draft: &mut Draft,
    ) -> Unique {
        let unchanged = |batch| Unique { batch: Some(batch), duplicates: None };
        if !batch.header().has_ids() {
            return unchanged(batch);
        }
        let Some(topic_ids) = self.topics.get_mut(&topic) else { return unchanged(batch) };
        let Some(partition) = topic_ids.partitions.get_mut(usize::from(number.0)) else {
            return unchanged(batch);
        };
        if !std::mem::replace(&mut partition.is_dirty, true) {
            self.dirty.push((topic, number));
        }
        let held = partition.ids.held();
        partition.expire(time, topic_ids.window_ms);
        let mut duplicates = None;
        let mut offset = next;
        self.hashes.clear();
        self.hashes.extend(batch.events().map(|event| event_id::hash(&event, &topic_ids.header)));
        partition.ids.touch(self.hashes.iter().copied().flatten());
        for (index, hash) in (0..).zip(&self.hashes) {
            if let Some(hash) = *hash {
                match partition.ids.find_or_add(hash, offset, time, topic_ids.window_ms) {
                    Some(first) => {
                        Duplicates::note(&mut duplicates, index, first);
                        continue;
                    }
                    None => partition.add_to_row(hash, offset, time, draft),
                }
            }
            offset = offset.plus(1);
        }
        self.held = self.held + partition.ids.held() - held;
        let Some(duplicates) = duplicates else { return unchanged(batch) };
        topic_ids.duplicates += u64::from(duplicates.count());
        Unique {
            batch: batch.without(|index| duplicates.contains(index)),
            duplicates: Some(Arc::new(duplicates)),
        }
    }

    /// Forgets ids whose window has passed in partitions to which nothing is published.
    pub(in crate::shard) fn expire_all(&mut self, times: impl Fn(TopicId, PartitionId) -> Option<Timestamp>) {
        for (id, topic) in &mut self.topics {
            for (number, partition) in (0..).map(PartitionId).zip(&mut topic.partitions) {
                let Some(time) = times(*id, number) else { continue };
                let held = partition.ids.held();
                partition.expire(time, topic.window_ms);
                partition.ids.tidy();
                self.held = self.held + partition.ids.held() - held;
                if !std::mem::replace(&mut partition.is_dirty, true) {
                    self.dirty.push((*id, number));
                }
            }
        }
    }

    /// Adds what the commit has changed, within the bound.
    pub(in crate::shard) fn flush(&mut self, now: Timestamp, draft: &mut Draft) {
        if self.dirty.is_empty() {
            return;
        }
        self.keep_bounded(now);
        let mut announced: Option<TopicId> = None;
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.sort_unstable();
        for (id, number) in &dirty {
            let Some(topic) = self.topics.get_mut(id) else { continue };
            let window_ms = topic.window_ms;
            let Some(partition) = topic.partitions.get_mut(usize::from(number.0)) else { continue };
            partition.flush((*id, *number), now, window_ms, draft);
            if announced != Some(*id) {
                announced = Some(*id);
                draft.announce(Announcement::Dedup { topic: *id, info: topic.info(now) });
                (topic.duplicates, topic.forgotten_early) = (0, 0);
            }
        }
    }

    /// Has the partition with the most ids forget its oldest while there are too many.
    fn keep_bounded(&mut self, now: Timestamp) {
        if self.held <= self.max {
            return;
        }
        let most = self.max - self.max / ROOM_PART;
        while self.held > most {
            let Some((id, number)) = self.largest() else { return };
            let Some(topic) = self.topics.get_mut(&id) else { return };
            let Some(partition) = topic.partitions.get_mut(usize::from(number.0)) else { return };
            let forgotten = partition.forget_early(self.held - most);
            topic.forgotten_early += forgotten;
            self.held -= forgotten;
            if !std::mem::replace(&mut partition.is_dirty, true) {
                self.dirty.push((id, number));
            }
            if now.0.saturating_sub(self.warned.0) >= WARNING_INTERVAL_MS {
                self.warned = now;
                tracing::warn!(
                    topic = %id,
                    partition = %number,
                    dedup_ids_max = self.max,
                    "there are more event ids than publish.dedup_ids_max: the oldest are forgotten before their dedup \
                     window has passed"
                );
            }
        }
    }

    /// The partition with the most ids.
    fn largest(&self) -> Option<(TopicId, PartitionId)> {
        let partitions = self.topics.iter().flat_map(|(id, topic)| {
            (0..).map(PartitionId).zip(&topic.partitions).map(|(number, partition)| (*id, number, partition))
        });
        let largest = partitions.max_by_key(|(.., partition)| partition.ids.held());
        largest.map(|(id, number, _)| (id, number))
    }
}

impl TopicIds {
    /// What there is to say of it, the counts since it was last asked.
    fn info(&self, now: Timestamp) -> DedupInfo {
        let kept = |partition: &Partition| now.0.saturating_sub(partition.ids.complete_since().0);
        DedupInfo {
            ids: self.partitions.iter().map(|partition| partition.ids.held()).sum(),
            duplicates: self.duplicates,
            forgotten_early: self.forgotten_early,
            window_ms: self.partitions.iter().map(kept).min().unwrap_or(u64::MAX),
        }
    }
}

impl Partition {
    fn expire(&mut self, time: Timestamp, window_ms: u64) {
        let held = self.ids.held();
        self.ids.expire(time, window_ms);
        self.to_delete += held - self.ids.held();
    }

    /// Forgets at least `goal` ids, if there are so many; returns how many.
    fn forget_early(&mut self, goal: u64) -> u64 {
        let mut forgotten = 0;
        while forgotten < goal && self.ids.held() > 0 {
            forgotten += self.ids.forget_oldest();
        }
        self.ids.tidy();
        self.to_delete += forgotten;
        forgotten
    }

    #[inline]
    fn add_to_row(&mut self, hash: u128, offset: Offset, time: Timestamp, draft: &mut Draft) {
        let (base, row) = self.row.get_or_insert_with(|| {
            let row = DedupIds::new(time, Timestamp::default());
            draft.reserve(OP_HEADER_BYTES + DedupIds::KEY_BYTES + 1 + row.len());
            (offset, row)
        });
        draft.reserve(DedupIds::ID_BYTES_MAX);
        row.push(hash, u32::try_from(offset.0 - base.0).expect("a commit has less than 2^32 events"));
    }

    fn flush(
        &mut self,
        (topic, number): (TopicId, PartitionId),
        now: Timestamp,
        window_ms: u64,
        draft: &mut Draft,
    ) {
        self.is_dirty = false;
        if let Some((base, mut row)) = self.row.take() {
            row.complete_since = self.ids.complete_since();
            draft.push_reserved(row.put(&(topic, number, base)));
        }
        let is_much = self.to_delete >= RECLAIMED_IDS;
        let is_due = now.0.saturating_sub(self.deleted.0) >= window_ms / DELETIONS_PER_WINDOW;
        if self.to_delete == 0 || !(is_due || is_much) {
            return;
        }
        let key = |offset| DedupIds::key(&(topic, number, offset));
        let range = (key(self.rows_from), key(self.ids.floor()));
        if is_much {
            rows::drop_rows(|op| draft.push(op), Family::Dedup, range);
        } else {
            draft.push(DedupIds::delete_range(range));
        }
        (self.rows_from, self.deleted, self.to_delete) = (self.ids.floor(), now, 0);
    }
}
