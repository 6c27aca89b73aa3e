//! A live topic: its settings in force, and each partition's durable extent and tail.
//!
//! Only the shard changes it: what is durable is announced, and what is about to be deleted is hidden before.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use arc_swap::{ArcSwap, ArcSwapOption};
use levada_delivery::backlog::Charge;
use levada_protocol::{
    batch::Batch,
    error::{ErrorCode, Refusal},
    ids::{Offset, PartitionId, TopicId, TopicName},
    publish::{Durability, PublishHeader},
    request::{PartitionInfo, Retain, TopicInfo, TopicSettings},
};
use tokio_util::sync::CancellationToken;

use crate::{
    changes::{Changes, Hears, Listener},
    error::Error,
    frames::LogSlice,
    metrics,
    rows::{Compacted, ScheduleSummary, TopicRecord},
    tail::{Tail, TailBudget},
};

/// A topic.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) id: TopicId,
    pub(crate) name: TopicName,
    settings: ArcSwap<TopicSettings>,
    pub(crate) partitions: Vec<Partition>,
    /// Listeners for changes of its partitions.
    pub(crate) changes: Arc<Changes>,
    pub(crate) counters: metrics::Appended,
    /// What is remembered of event ids.
    pub(crate) dedup: metrics::Dedup,
    /// What became of publishes to a full backlog.
    pub(crate) backlog: metrics::FullBacklog,
    /// The delayed events, if there ever were some.
    schedule: ArcSwapOption<ScheduleSummary>,
    /// What transactions that nobody has decided hold for it.
    prepared: ArcSwap<Charge>,
    /// Cancelled when the topic is deleted.
    pub(crate) deleted: CancellationToken,
    /// Set when its deletion is decided: its rows may be deleted before that is durable.
    deleting: AtomicBool,
}

/// A partition's durable extent and its tail.
#[derive(Debug)]
pub(crate) struct Partition {
    start: AtomicU64,
    end: AtomicU64,
    /// Bytes of batches ever appended, and of those already dropped.
    appended_bytes: AtomicU64,
    dropped_bytes: AtomicU64,
    compacted: Mutex<Compacted>,
    pub(crate) tail: Tail,
}

/// The state of a partition when it is opened.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Extent {
    pub(crate) start: Offset,
    pub(crate) end: Offset,
    pub(crate) appended_bytes: u64,
    pub(crate) dropped_bytes: u64,
    pub(crate) compacted: Compacted,
}

/// The extents of all partitions, by topic.
pub(crate) type Extents = Vec<(TopicId, Vec<Extent>)>;

impl Topic {
    pub(crate) fn new(
        id: TopicId,
        name: TopicName,
        settings: TopicSettings,
        extents: &[Extent],
        budget: &Arc<TailBudget>,
    ) -> Self {
        let partitions = extents.iter().map(|extent| Partition::new(*extent, budget)).collect();
        Self {
            id,
            name,
            settings: ArcSwap::from_pointee(settings),
            partitions,
            changes: Changes::new(extents.len()),
            counters: metrics::Appended::default(),
            dedup: metrics::Dedup::default(),
            backlog: metrics::FullBacklog::default(),
            schedule: ArcSwapOption::empty(),
            prepared: ArcSwap::default(),
            deleted: CancellationToken::new(),
            deleting: AtomicBool::new(false),
        }
    }

    /// Notes that a commit which deletes the topic is about to be written, or that it was taken back.
    pub(crate) fn set_deleting(&self, deleting: bool) {
        self.deleting.store(deleting, Ordering::Release);
    }

    /// True if its rows may be deleted: a missing one is no damage then.
    pub(crate) fn is_deleting(&self) -> bool {
        self.deleting.load(Ordering::Acquire) || self.deleted.is_cancelled()
    }

    /// The error for users of a deleted topic.
    pub(crate) fn deleted_error(&self) -> Error {
        Error::refused(ErrorCode::TopicNotFound, format!("topic {} was deleted", self.name))
    }

    /// Takes what was found in the store after it was opened again.
    pub(crate) fn recover(&self, settings: TopicSettings, extents: Vec<Extent>) {
        for (partition, extent) in self.partitions.iter().zip(extents) {
            partition.recover(extent);
        }
        self.set_settings(settings);
        self.set_deleting(false);
    }

    /// What waits for its time; `None` if nothing ever did.
    pub(crate) fn schedule(&self) -> Option<ScheduleSummary> {
        self.schedule.load().as_deref().copied()
    }

    /// Events that wait for their time.
    pub(crate) fn scheduled(&self) -> u64 {
        self.schedule().map_or(0, |schedule| schedule.pending)
    }

    /// Shows what waits for its time.
    pub(crate) fn set_schedule(&self, summary: ScheduleSummary) {
        self.schedule.store(Some(Arc::new(summary)));
    }

    /// Shows that nothing does.
    pub(crate) fn clear_schedule(&self) {
        self.schedule.store(None);
    }

    /// What transactions that nobody has decided hold for it.
    pub(crate) fn prepared(&self) -> Charge {
        **self.prepared.load()
    }

    /// Shows that.
    pub(crate) fn set_prepared(&self, prepared: Charge) {
        self.prepared.store(Arc::new(prepared));
    }

    /// The settings in force.
    pub(crate) fn settings(&self) -> Arc<TopicSettings> {
        self.settings.load_full()
    }

    /// Puts changed settings in force.
    pub(crate) fn set_settings(&self, settings: TopicSettings) {
        self.settings.store(Arc::new(settings));
    }

    /// What an acknowledgement means here unless a publish asks for more.
    pub(crate) fn durability(&self) -> Durability {
        self.settings.load().durability
    }

    /// True if repeated event ids are looked for.
    pub(crate) fn has_dedup_window(&self) -> bool {
        self.settings.load().dedup_window_ms > 0
    }

    /// True if the last event of each key is kept.
    pub(crate) fn is_compacted(&self) -> bool {
        self.settings.load().retain == Retain::Compact
    }

    /// What of a publish can be refused without asking the shard.
    ///
    /// # Errors
    /// `PARTITION_NOT_FOUND`, `BATCH_INVALID`, `INVALID_ARGUMENT`, `UNSUPPORTED`.
    pub(crate) fn check_publishable(&self, header: &PublishHeader, batch: &Batch) -> Result<(), Error> {
        self.partition(header.partition)?;
        if batch.header().is_selection() {
            let message = "a published batch must not be a selection";
            return Err(Error::refused(ErrorCode::BatchInvalid, message));
        }
        if header.due.is_some() && header.expect_offset.is_some() {
            let message = "expect_offset and deliver_at contradict each other: a delayed event gets its offset when it is \
                           due; give one of them";
            return Err(Error::refused(ErrorCode::InvalidArgument, message));
        }
        if self.is_compacted()
            && let Some(index) = batch.events().position(|event| event.key().is_none())
        {
            return Err(Error::Refused(self.keyless(&format!("event {index} of the batch"))));
        }
        Ok(())
    }

    /// The refusal of an event without a key.
    pub(crate) fn keyless(&self, event: &str) -> Refusal {
        let message = format!(
            "{event} has no key, expected one: topic {} keeps the last event of each key; give it a key, or change the topic \
             (`levada topic set {} --retain time-and-acked`)",
            self.name, self.name
        );
        Refusal::new(ErrorCode::InvalidArgument, message)
    }

    /// The partition with this number.
    pub(crate) fn partition(&self, partition: PartitionId) -> Result<&Partition, Error> {
        self.partitions.get(usize::from(partition.0)).ok_or_else(|| {
            let has = match self.partitions.len() {
                1 => "one partition, 0".to_owned(),
                more => format!("partitions 0 to {}", more.saturating_sub(1)),
            };
            let message = format!("topic {} has {has}, got partition {partition}", self.name);
            Error::refused(ErrorCode::PartitionNotFound, message)
        })
    }

    /// All partition numbers, in order.
    pub(crate) fn partition_ids(&self) -> impl Iterator<Item = PartitionId> + use<> {
        (0..u16::try_from(self.partitions.len()).unwrap_or(u16::MAX)).map(PartitionId)
    }

    /// The partitions with these numbers, in the order given; all if none is given.
    ///
    /// # Errors
    /// `PARTITION_NOT_FOUND`; `INVALID_ARGUMENT` for one that is named twice.
    pub(crate) fn partitions_named(&self, numbers: &[u16]) -> Result<Vec<PartitionId>, Error> {
        if numbers.is_empty() {
            return Ok(self.partition_ids().collect());
        }
        let mut named = HashSet::with_capacity(self.partitions.len());
        for number in numbers.iter().copied().map(PartitionId) {
            self.partition(number)?;
            if !named.insert(number) {
                let message = format!("partition {number} is named more than once, expected each one once");
                return Err(Error::refused(ErrorCode::InvalidArgument, message));
            }
        }
        Ok(numbers.iter().copied().map(PartitionId).collect())
    }

    /// Listens for changes of partitions.
    pub(crate) fn listen(&self, hears: Hears<'_>) -> Listener {
        self.changes.listen(hears)
    }

    /// Wakes all that wait for a noted change. Called after the partitions' ends have moved.
    pub(crate) fn wake(&self) {
        self.changes.wake();
    }

    /// Its description for the wire, without its backlog.
    pub(crate) fn info(&self, record: &TopicRecord) -> TopicInfo {
        let describe = |(number, partition): (PartitionId, &Partition)| PartitionInfo {
            partition: number.0,
            start: partition.start().0,
            end: partition.end().0,
            bytes: partition.bytes(),
        };
        TopicInfo {
            name: record.name.clone(),
            id: record.id,
            settings: record.settings.clone(),
            created_ms: record.created_ms,
            partitions: self.partition_ids().zip(&self.partitions).map(describe).collect(),
            dedup: self.dedup.info(record.settings.dedup_window_ms),
            scheduled: self.scheduled(),
            backlog: None,
        }
    }
}

impl Partition {
    fn new(extent: Extent, budget: &Arc<TailBudget>) -> Self {
        Self {
            start: AtomicU64::new(extent.start.0),
            end: AtomicU64::new(extent.end.0),
            appended_bytes: AtomicU64::new(extent.appended_bytes),
            dropped_bytes: AtomicU64::new(extent.dropped_bytes),
            compacted: Mutex::new(extent.compacted),
            tail: Tail::new(Arc::clone(budget)),
        }
    }

    /// The oldest offset that may be read.
    pub(crate) fn start(&self) -> Offset {
        Offset(self.start.load(Ordering::Acquire))
    }

    /// The offset behind the last event that a crash can no longer take back.
    pub(crate) fn end(&self) -> Offset {
        Offset(self.end.load(Ordering::Acquire))
    }

    /// Bytes of batches ever appended.
    pub(crate) fn appended_bytes(&self) -> u64 {
        self.appended_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of batches that are stored; a few less if the log's start has moved within what is compacted.
    pub(crate) fn bytes(&self) -> u64 {
        self.compacted().stored_at_least(self.dropped_bytes(), self.appended_bytes())
    }

    /// Bytes of batches that are stored behind so many that were appended, at most.
    pub(crate) fn bytes_behind(&self, before: u64) -> u64 {
        self.compacted().stored_between(before, self.appended_bytes())
    }

    /// How far it is compacted.
    pub(crate) fn compacted(&self) -> Compacted {
        *self.compacted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows that.
    pub(crate) fn set_compacted(&self, compacted: Compacted) {
        *self.compacted.lock().unwrap_or_else(PoisonError::into_inner) = compacted;
    }

    /// Bytes of batches that retention has dropped.
    pub(crate) fn dropped_bytes(&self) -> u64 {
        self.dropped_bytes.load(Ordering::Relaxed)
    }

    /// Makes durable batches visible.
    pub(crate) fn announce(&self, piece: LogSlice) {
        let end = piece.end();
        self.appended_bytes.fetch_add(piece.run.batches.len() as u64, Ordering::Relaxed);
        self.tail.push(piece);
        self.end.store(end.0, Ordering::Release);
    }

    /// Moves the start before the events before it are dropped.
    pub(crate) fn hide_before(&self, start: Offset) {
        self.start.fetch_max(start.0, Ordering::AcqRel);
    }

    /// Moves the start: the events before it were dropped.
    pub(crate) fn trim(&self, start: Offset, dropped_bytes: u64) {
        self.dropped_bytes.store(dropped_bytes, Ordering::Relaxed);
        self.start.fetch_max(start.0, Ordering::AcqRel);
    }

    /// Takes the extent that was found in the store after it was opened again.
    pub(crate) fn recover(&self, extent: Extent) {
        self.tail.clear();
        self.appended_bytes.store(extent.appended_bytes, Ordering::Relaxed);
        self.dropped_bytes.store(extent.dropped_bytes, Ordering::Relaxed);
        self.set_compacted(extent.compacted);
        self.start.store(extent.start.0, Ordering::Release);
        self.end.fetch_max(extent.end.0, Ordering::AcqRel);
    }
}
