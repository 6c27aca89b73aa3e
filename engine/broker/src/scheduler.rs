//! The clock of delayed events: it knows when each topic's next one is due, reads what is due and hands it to the shard's
//! writer, which appends it.
//!
//! The time of day decides. It may jump, so a wait is never longer than [`LOOK_EVERY`]: after a jump forward events are
//! at most that late, and after one back they wait for their time. Events never come twice: the writer takes each out of the
//! schedule in the commit that appends it.

use std::{collections::HashSet, sync::Arc, time::Duration};

use levada_protocol::{
    batch::Batch,
    ids::{Timestamp, TopicId},
};
use levada_store::{Family, ScanLimit, Store};

use crate::{
    clock::Clock,
    due_times::DueTimes,
    error::Error,
    log::blocking,
    rows::{self, Cancelled, PastCancels, Place, Row, ScheduleIndex, Scheduled},
    shard::{DueBatch, DuePart, ShardHandle},
};

/// Longest wait before the time of day is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Batches that are moved to the log by one commit, at most.
const DUE_BATCHES_MAX: usize = 2_500;
/// Bytes of them, at most, unless there is a single one.
const DUE_BYTES_MAX: usize = 512 * 1024;
/// A batch has two rows if some of its events were cancelled, and a row of those is shorter than this.
const SHARE_MIN: ScanLimit = ScanLimit { rows: 2, bytes: 4 * 1024 };
/// Commits after which a topic that could not be read is tried again, while others have something due.
const ROUNDS_MAX: usize = 100;
/// How long the store is left alone after it has failed.
const RETRY: Duration = Duration::from_millis(500);

/// What moves delayed events to the log.
pub(crate) struct Scheduler {
    store: Arc<dyn Store>,
    shard: ShardHandle,
    clock: Clock,
    /// Held by the one round that is under way: the topic that it served last.
    round: tokio::sync::Mutex<TopicId>,
}

impl Scheduler {
    pub(crate) fn new(store: Arc<dyn Store>, shard: ShardHandle, clock: Clock) -> Self {
        Self { store, shard, clock, round: tokio::sync::Mutex::new(TopicId(0)) }
    }

    fn times(&self) -> &DueTimes {
        self.shard.view().topics().due_times()
    }

    /// Moves events whenever some are due. Never ends; may be dropped at any await.
    pub(crate) async fn run(&self) {
        loop {
            self.something_due().await;
            if let Err(error) = self.move_all().await {
                tracing::warn!(%error, retry = ?RETRY, "delayed events could not be moved to the log yet");
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    async fn something_due(&self) {
        loop {
            let changed = self.times().changed();
            let Some(due) = self.times().next() else {
                changed.await;
                continue;
            };
            let now = self.clock.now();
            if due <= now {
                return;
            }
            let left = Duration::from_millis(due.0 - now.0).min(LOOK_EVERY);
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(left) => {}
            }
        }
    }

    /// Moves everything that is due now. Topics share each commit, and take turns where they are many.
    ///
    /// # Errors
    /// The first failure. What it was about stays in the schedule; if it was one topic that could not be read, the others
    /// are served.
    pub(crate) async fn move_all(&self) -> Result<(), Error> {
        let mut last = self.round.lock().await;
        let (mut unreadable, mut result) = (HashSet::new(), Ok(()));
        for _ in 0..ROUNDS_MAX {
            let now = self.clock.now();
            let (revision, mut due) = self.times().due(now);
            due.retain(|(topic, _)| !unreadable.contains(topic));
            if due.is_empty() {
                break;
            }
            let first = due.partition_point(|(topic, _)| *topic <= *last);
            let topics = due.len();
            due.rotate_left(first % topics);
            let store = Arc::clone(&self.store);
            let read = blocking(move || Ok(Reading::of(store.as_ref(), due, now))).await?;
            *last = read.last.unwrap_or(*last);
            for (topic, error) in read.failed {
                let name = self.shard.view().topics().get(topic).map(|topic| topic.name.to_string());
                tracing::warn!(topic = name, %error, "the delayed events of a topic cannot be read");
                unreadable.insert(topic);
                result = result.and(Err(error));
            }
            if !read.parts.is_empty() {
                self.shard.move_due(revision, read.parts).await?;
            }
        }
        result
    }
}

/// What was read of all topics for one commit.
struct Reading {
    parts: Vec<DuePart>,
    /// Topics that could not be read.
    failed: Vec<(TopicId, Error)>,
    /// The last topic of which something was read.
    last: Option<TopicId>,
}

impl Reading {
    /// Reads what is due of these topics, each its share of a commit at least. Blocks on the disk.
    fn of(store: &dyn Store, due: Vec<(TopicId, Place)>, now: Timestamp) -> Self {
        let mut reading = Self { parts: Vec::new(), failed: Vec::new(), last: None };
        let (mut rows, mut bytes) = (DUE_BATCHES_MAX, DUE_BYTES_MAX);
        let topics = due.len();
        for (index, (topic, from)) in due.into_iter().enumerate() {
            let share = |left: usize, min: usize| (left / (topics - index)).max(min);
            let limit = ScanLimit { rows: share(rows, SHARE_MIN.rows), bytes: share(bytes, SHARE_MIN.bytes) };
            match read_due(store, topic, from, now, limit) {
                Ok((part, read)) => {
                    if read > bytes && !reading.parts.is_empty() {
                        break;
                    }
                    rows = rows.saturating_sub(part.batches.len().max(1));
                    bytes = bytes.saturating_sub(read);
                    reading.last = Some(topic);
                    reading.parts.push(part);
                }
                Err(error) => reading.failed.push((topic, error)),
            }
            if rows == 0 || bytes == 0 {
                break;
            }
        }
        reading
    }
}

/// Reads the first batches of a topic from a place on that are due, and how many bytes their rows have. Blocks on the disk.
pub(crate) fn read_due(
    store: &dyn Store,
    topic: TopicId,
    from: Place,
    now: Timestamp,
    limit: ScanLimit,
) -> Result<(DuePart, usize), Error> {
    let end = Timestamp(now.0.saturating_add(1));
    let (from, to) = rows::scheduled_between(topic, from, Some(end));
    let rows = store.scan(Family::Schedule, &from, &to, limit)?;
    let (mut bytes, mut is_part) = (0, rows.len() >= limit.rows);
    let (mut batches, mut cancelled, mut next) = (Vec::with_capacity(rows.len()), None, None);
    for (key, value) in rows {
        bytes += key.len() + value.len();
        is_part |= bytes >= limit.bytes;
        if let Some((_, place)) = Cancelled::parse_key(&key) {
            cancelled = Some((place, Cancelled::decode(&value)?));
            // Its batch may be in the next part.
            next = Some(place);
            continue;
        }
        let ((_, place), row) = rows::decode_pair::<Scheduled>(&key, &value)?;
        if bytes > limit.bytes && !batches.is_empty() {
            next = Some(place);
            break;
        }
        let cancelled = cancelled.take().filter(|(of, _)| *of == place).map(|(_, cancelled)| cancelled);
        let (partition, stored_bytes) = (row.partition, row.batch.len() as u64);
        let batch = row.checked(place)?;
        // Without a batch all of it was cancelled.
        let count = |cancelled: &Cancelled| batch.as_ref().map_or_else(|| cancelled.count(), Batch::count);
        let cancelled = cancelled.map(|cancelled| PastCancels { count: count(&cancelled), cancelled });
        let batch = match &cancelled {
            Some(past) => batch.and_then(|batch| batch.without(|index| past.cancelled.holds(index))),
            None => batch,
        };
        batches.push(DueBatch { place, partition, batch, cancelled, stored_bytes });
        next = Some(place.next());
    }
    if !is_part {
        let first = Place { due: end, first: 0 };
        next = places(store, topic, first, ScanLimit::rows(1))?.first().copied();
    }
    let (from, to) = rows::forgotten_cancels(topic, now);
    let forgets = !store.scan(Family::Schedule, &from, &to, ScanLimit::rows(1))?.is_empty();
    Ok((DuePart { topic, batches, next, forgets }, bytes))
}

/// Places from one on, as many as a scan reads.
fn places(store: &dyn Store, topic: TopicId, from: Place, limit: ScanLimit) -> Result<Vec<Place>, Error> {
    let (from, to) = rows::scheduled_between(topic, from, None);
    let rows = store.scan(Family::Schedule, &from, &to, limit)?;
    let place = |(key, _): &(bytes::Bytes, bytes::Bytes)| {
        Cancelled::parse_key(key).or_else(|| Scheduled::parse_key(key)).map(|(_, place)| place)
    };
    Ok(rows.iter().filter_map(place).collect())
}

/// A batch of a topic's schedule, with what of it was cancelled.
pub(crate) struct Waiting {
    pub(crate) place: Place,
    pub(crate) row: Scheduled,
    pub(crate) cancelled: Cancelled,
}

/// The batch that an id was given out in, if it still waits. Blocks on the disk.
pub(crate) fn place_of(store: &dyn Store, topic: TopicId, id: u64) -> Result<Option<Place>, Error> {
    let found = rows::last::<ScheduleIndex>(store, &rows::schedule_index_of(topic, id))?;
    Ok(found.and_then(|((_, first), row)| {
        let holds = id - first < u64::from(row.count);
        holds.then_some(Place { due: row.due, first })
    }))
}

/// True if the event with this id was cancelled and its time has come since, at most a week ago. Blocks on the disk.
pub(crate) fn was_cancelled(
    store: &dyn Store,
    topic: TopicId,
    id: u64,
    now: Timestamp,
) -> Result<bool, Error> {
    for day in rows::days_of_past_cancels(now).rev() {
        let found = rows::last::<PastCancels>(store, &rows::past_cancels_of(topic, day, id))?;
        if let Some(((_, _, first), past)) = found
            && id - first < u64::from(past.count)
        {
            return Ok(past.cancelled.holds(u32::try_from(id - first).expect("a batch has few events")));
        }
    }
    Ok(false)
}

/// Batches from a place on, and where the next ones begin if there may be more. Blocks on the disk.
pub(crate) fn read_from(
    store: &dyn Store,
    topic: TopicId,
    from: Place,
    limit: ScanLimit,
) -> Result<(Vec<Waiting>, Option<Place>), Error> {
    let (from, to) = rows::scheduled_between(topic, from, None);
    let rows = store.scan(Family::Schedule, &from, &to, limit)?;
    let bytes: usize = rows.iter().map(|(key, value)| key.len() + value.len()).sum();
    let is_part = rows.len() >= limit.rows || bytes >= limit.bytes;
    let (mut found, mut cancelled, mut next) = (Vec::new(), None, None);
    for (key, value) in rows {
        if let Some((_, place)) = Cancelled::parse_key(&key) {
            (cancelled, next) = (Some((place, Cancelled::decode(&value)?)), Some(place));
            continue;
        }
        let ((_, place), row) = rows::decode_pair::<Scheduled>(&key, &value)?;
        let of_it = cancelled.take().filter(|(of, _)| *of == place);
        let cancelled = of_it.map(|(_, cancelled)| cancelled).unwrap_or_default();
        found.push(Waiting { place, row, cancelled });
        next = Some(place.next());
    }
    Ok((found, next.filter(|_| is_part)))
}
