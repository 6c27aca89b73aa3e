//! Delayed events, as the writer decides about them. They are on the disk alone; in memory are a few numbers for each topic
//! that has had some, and what the commit under way has changed.
//!
//! What is due is read by a task ([`crate::scheduler`]) and handed over, so that the writer reads nothing for it. Between
//! that reading and the decision a batch may have changed: `touched` holds those that were, and they stay for the next
//! reading. One reading is under way at a time and begins after the decision of the one before is durable, so that
//! it sees whatever was decided before that; the set need only hold what came after.

use std::collections::{HashMap, HashSet};

use levada_delivery::backlog::Charge;
use levada_protocol::{
    batch::Batch,
    ids::{PartitionId, Timestamp, TopicId},
};
use levada_store::{Family, Store, commit::OP_HEADER_BYTES};

use crate::{
    catalogue::Catalogue,
    error::Error,
    rows::{
        self, Cancelled, DedupIds, PastCancels, Place, Row, ScheduleBegin, ScheduleBytes, ScheduleIndex,
        ScheduleSummary, Scheduled,
    },
    shard::{announcement::Announcement, draft::Draft},
};

/// Batches of which it is remembered that they were changed since the last reading. With more every batch counts as
/// changed, once.
const TOUCHED_MAX: usize = 10_000;
/// The first id of an engine's first topic.
const FIRST_ID: u64 = 1;
/// Bytes that cancelling an event adds to a commit, at most: a bit for each event of the largest batch, an emptied batch,
/// and the summary.
pub(in crate::shard) const CANCEL_LEN_MAX: usize = 1_536;

/// The schedules of all topics.
#[derive(Debug)]
pub(in crate::shard) struct Schedule {
    topics: HashMap<TopicId, TopicSchedule>,
    /// Where the ids of a topic begin that has had none.
    begin: u64,
    /// Topics whose summary the commit rewrites.
    dirty: HashSet<TopicId>,
    touched: Touched,
    /// What the commit under way has changed and the store does not show yet.
    changed: HashMap<(TopicId, u64), Changed>,
    /// Counts what was moved, and how often all was read again: what was read under another one is void.
    revision: u64,
    /// The commit moves something.
    moved: bool,
}

#[derive(Debug)]
struct TopicSchedule {
    summary: ScheduleSummary,
    /// Bytes of the batches that wait.
    bytes: u64,
    /// The first place that was filled since the last reading of the topic.
    newer: Option<Place>,
}

#[derive(Debug)]
enum Touched {
    Some(HashSet<(TopicId, u64)>),
    TooMany,
}

#[derive(Debug)]
enum Changed {
    /// With what had been cancelled of it before.
    Moved(Cancelled),
    Cancelled(Cancelled),
}

/// What became of an attempt to cancel an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::shard) enum Cancel {
    /// It will not be appended; now or since an earlier attempt.
    Done,
    /// It was appended, or will be by the same commit.
    TooLate,
}

impl Cancel {
    /// What becomes of it once its batch was moved without those that were cancelled before.
    fn after(before: &Cancelled, index: u32) -> Self {
        if before.holds(index) { Self::Done } else { Self::TooLate }
    }
}

/// A delayed batch whose time has come, as it was read.
#[derive(Debug)]
pub(crate) struct DueBatch {
    pub(crate) place: Place,
    pub(crate) partition: PartitionId,
    /// The events that were not cancelled; `None` if all were.
    pub(crate) batch: Option<Batch>,
    /// What was cancelled of it; `None` if there is no row that says so.
    pub(crate) cancelled: Option<PastCancels>,
    /// How many bytes it has as it is stored, cancelled events included.
    pub(crate) stored_bytes: u64,
}

/// What was read as due of one topic.
#[derive(Debug)]
pub(crate) struct DuePart {
    pub(crate) topic: TopicId,
    /// In the order of their places.
    pub(crate) batches: Vec<DueBatch>,
    /// No batch that was there when they were read is between the last of them and this place; `None` if there is none
    /// behind them.
    pub(crate) next: Option<Place>,
    /// There are past cancels of the topic that are old enough to be forgotten.
    pub(crate) forgets: bool,
}

impl DuePart {
    /// How many bytes moving it adds to a commit, at most.
    pub(in crate::shard) fn encoded_len_max(&self) -> usize {
        const FORGETTING_BYTES_MAX: usize = 256;
        FORGETTING_BYTES_MAX + self.batches.iter().map(DueBatch::encoded_len_max).sum::<usize>()
    }
}

impl DueBatch {
    /// How many bytes moving it adds to a commit, at most: a record of the log, the event ids of a dedup window, and the
    /// deletion of its rows, or what is left of them.
    pub(in crate::shard) fn encoded_len_max(&self) -> usize {
        const ROWS_BYTES_MAX: usize = 512;
        let appended = |batch: &Batch| batch.bytes().len() + batch.count() as usize * DedupIds::ID_BYTES_MAX;
        let cancelled = self.cancelled.as_ref().map_or(0, Row::len);
        ROWS_BYTES_MAX + cancelled + self.batch.as_ref().map_or(0, appended)
    }
}

impl Schedule {
    /// Reads the summaries; this is the first revision, or the one after what was read before. Blocks on the disk.
    pub(in crate::shard) fn load(
        store: &dyn Store,
        catalogue: &Catalogue,
        revision: u64,
    ) -> Result<Self, Error> {
        let begin = rows::get::<ScheduleBegin>(store, &())?.map_or(FIRST_ID, |begin| begin.0);
        let mut topics = HashMap::new();
        for record in catalogue.topics.values() {
            if let Some(summary) = rows::get::<ScheduleSummary>(store, &record.id())? {
                let bytes = rows::get::<ScheduleBytes>(store, &record.id())?.unwrap_or_default().0;
                topics.insert(record.id(), TopicSchedule { summary, bytes, newer: None });
            }
        }
        let touched = Touched::Some(HashSet::new());
        let (dirty, changed) = (HashSet::new(), HashMap::new());
        Ok(Self { topics, begin, dirty, touched, changed, revision, moved: false })
    }

    /// What is read now may be decided about under this revision alone.
    pub(in crate::shard) fn revision(&self) -> u64 {
        self.revision
    }

    /// What of a topic waits for its time.
    pub(in crate::shard) fn pending(&self, id: TopicId) -> Charge {
        let topic = self.topics.get(&id);
        topic.map_or_else(Charge::default, |topic| Charge {
            events: topic.summary.pending,
            bytes: topic.bytes,
        })
    }

    /// The summaries of all topics that have one.
    pub(in crate::shard) fn summaries(&self) -> impl Iterator<Item = (TopicId, ScheduleSummary)> {
        self.topics.iter().map(|(id, topic)| (*id, topic.summary))
    }

    /// Stores a batch that is due at a time; returns the id of its first event.
    pub(in crate::shard) fn add(
        &mut self,
        id: TopicId,
        partition: PartitionId,
        due: Timestamp,
        batch: &Batch,
        draft: &mut Draft,
    ) -> u64 {
        let begin = self.begin;
        let topic = self.topics.entry(id).or_insert_with(|| {
            let summary = ScheduleSummary { begin, next: begin, pending: 0, head: None };
            TopicSchedule { summary, bytes: 0, newer: None }
        });
        let summary = &mut topic.summary;
        let (first, count) = (summary.next, batch.count());
        let place = Place { due, first };
        summary.next += u64::from(count);
        summary.pending += u64::from(count);
        summary.head = earliest(summary.head, Some(place));
        topic.newer = earliest(topic.newer, Some(place));
        topic.bytes += batch.bytes().len() as u64;
        draft.push(Scheduled { partition, batch: batch.bytes().clone() }.put(&(id, place)));
        draft.push(ScheduleIndex { due, count }.put(&(id, first)));
        self.mark_dirty(id, draft);
        first
    }

    fn mark_dirty(&mut self, id: TopicId, draft: &mut Draft) {
        if self.dirty.insert(id) {
            draft.reserve(summary_len());
        }
    }

    /// Cancels the event with this index in the batch at a place, which was found in the store.
    pub(in crate::shard) fn cancel(
        &mut self,
        store: &dyn Store,
        (id, place): (TopicId, Place),
        index: u32,
        draft: &mut Draft,
    ) -> Result<Cancel, Error> {
        let mut cancelled = match self.changed.get(&(id, place.first)) {
            Some(Changed::Moved(before)) => return Ok(Cancel::after(before, index)),
            Some(Changed::Cancelled(cancelled)) => cancelled.clone(),
            None => rows::get::<Cancelled>(store, &(id, place))?.unwrap_or_default(),
        };
        let row = rows::get::<ScheduleIndex>(store, &(id, place.first))?;
        let Some(row) = row.filter(|row| row.due == place.due) else {
            let key = (id, rows::day_of(place.due), place.first);
            let past = rows::get::<PastCancels>(store, &key)?.map(|past| past.cancelled).unwrap_or_default();
            return Ok(Cancel::after(&past, index));
        };
        if cancelled.add(index) {
            draft.push(cancelled.put(&(id, place)));
            let mut freed = 0;
            if cancelled.count() == row.count {
                let stored = rows::get::<Scheduled>(store, &(id, place))?;
                freed = stored.map_or(0, |stored| stored.batch.len() as u64);
                // Nothing of it will be needed; its place stays, so that a repeat still is told what has happened.
                draft.push(
                    Scheduled { partition: PartitionId(0), batch: [].as_slice().into() }.put(&(id, place)),
                );
            }
            if let Some(topic) = self.topics.get_mut(&id) {
                topic.summary.pending = topic.summary.pending.saturating_sub(1);
                topic.bytes = topic.bytes.saturating_sub(freed);
            }
            self.touched.add((id, place.first));
            self.mark_dirty(id, draft);
            self.changed.insert((id, place.first), Changed::Cancelled(cancelled));
        }
        Ok(Cancel::Done)
    }

    /// Decides about what was read as due under the present revision: takes out what is to be appended now, in order, and
    /// moves the heads to where the reading ended.
    pub(in crate::shard) fn take_due(
        &mut self,
        read: Vec<DuePart>,
        now: Timestamp,
        draft: &mut Draft,
    ) -> Vec<(TopicId, PartitionId, Batch)> {
        let touched = std::mem::replace(&mut self.touched, Touched::Some(HashSet::new()));
        (self.revision, self.moved) = (self.revision + 1, true);
        let mut taken = Vec::new();
        for part in read {
            self.take_part(part, &touched, now, draft, &mut taken);
        }
        taken
    }

    fn take_part(
        &mut self,
        part: DuePart,
        touched: &Touched,
        now: Timestamp,
        draft: &mut Draft,
        taken: &mut Vec<(TopicId, PartitionId, Batch)>,
    ) {
        let DuePart { topic: id, batches, next, forgets } = part;
        let Some(topic) = self.topics.get_mut(&id) else { return };
        let mut head = next;
        for due in batches {
            let DueBatch { place, partition, batch, cancelled, stored_bytes } = due;
            // The clock may have been set back since. What is behind waits too: order is that of due times.
            if touched.holds((id, place.first)) || place.due > now {
                head = Some(place);
                break;
            }
            draft.push(Scheduled::delete(&(id, place)));
            draft.push(ScheduleIndex::delete(&(id, place.first)));
            if let Some(past) = &cancelled {
                draft.push(Cancelled::delete(&(id, place)));
                draft.push(past.put(&(id, rows::day_of(place.due), place.first)));
            }
            let cancelled = cancelled.map(|past| past.cancelled).unwrap_or_default();
            self.changed.insert((id, place.first), Changed::Moved(cancelled));
            topic.bytes = topic.bytes.saturating_sub(stored_bytes);
            if let Some(batch) = batch {
                topic.summary.pending = topic.summary.pending.saturating_sub(batch.count().into());
                taken.push((id, partition, batch));
            }
        }
        if forgets {
            draft.push(PastCancels::delete_range(rows::forgotten_cancels(id, now)));
        }
        topic.summary.head = earliest(head, topic.newer.take());
        self.mark_dirty(id, draft);
    }

    /// Adds the summaries that the commit has changed.
    pub(in crate::shard) fn flush(&mut self, draft: &mut Draft) {
        self.changed.clear();
        for id in std::mem::take(&mut self.dirty) {
            let Some(topic) = self.topics.get(&id) else { continue };
            draft.push_reserved(topic.summary.put(&id));
            draft.push_reserved(ScheduleBytes(topic.bytes).put(&id));
            draft.announce(Announcement::Schedule { topic: id, summary: topic.summary });
        }
        if std::mem::take(&mut self.moved) {
            draft.announce(Announcement::DueMoved { revision: self.revision });
        }
    }

    /// Drops what a topic that was deleted has scheduled.
    pub(in crate::shard) fn forget_topic(&mut self, id: TopicId, draft: &mut Draft) {
        let Some(topic) = self.topics.remove(&id) else { return };
        self.dirty.remove(&id);
        self.begin = self.begin.max(topic.summary.next);
        draft.push(ScheduleBegin(self.begin).put(&()));
        draft.push(ScheduleSummary::delete(&id));
        draft.push(ScheduleBytes::delete(&id));
        rows::drop_rows(|op| draft.push(op), Family::Schedule, rows::scheduled_of_topic(id));
        rows::drop_rows(|op| draft.push(op), Family::Schedule, rows::schedule_index_of_topic(id));
        rows::drop_rows(|op| draft.push(op), Family::Schedule, rows::past_cancels_of_topic(id));
    }
}

impl Touched {
    fn add(&mut self, batch: (TopicId, u64)) {
        if let Self::Some(batches) = self {
            batches.insert(batch);
            if batches.len() > TOUCHED_MAX {
                *self = Self::TooMany;
            }
        }
    }

    fn holds(&self, batch: (TopicId, u64)) -> bool {
        match self {
            Self::Some(batches) => batches.contains(&batch),
            Self::TooMany => true,
        }
    }
}

/// Bytes of the operations that write a summary, and the bytes of what waits.
fn summary_len() -> usize {
    const KEYS_AND_VALUES: usize = 5 + 41 + 5 + 9;
    2 * OP_HEADER_BYTES + KEYS_AND_VALUES
}

/// The first of two places, either of which may be none.
fn earliest(one: Option<Place>, other: Option<Place>) -> Option<Place> {
    one.into_iter().chain(other).min()
}

#[cfg(test)]
mod tests;
