//! What the writer has decided, table by table: each is ahead of the durable rows by the commits under way.
//!
//! A table owns its part of the state and the rows that it is stored in. It checks without changing anything, changes
//! itself and adds the rows to the commit that is being made ([`Draft`]), loads them at a start, and forgets what belongs
//! to something that was deleted. A new table is a file here, a field of [`Tables`], and what the compiler then asks for.

mod backlogs;
mod dedup;
mod generations;
mod named_producers;
mod partitions;
mod producers;
mod progress;
mod queues;
mod redrives;
mod route_cursors;
mod schedule;
mod transactions;
mod unattended;

use std::ops::Range;

use levada_delivery::{
    backlog::{Charge, Quota},
    producer::DUPLICATES_BYTES_MAX,
    progress::RowChange,
};
use levada_protocol::{
    batch::Batch,
    duplicates::Duplicates,
    ids::{Offset, PartitionId, RouteId, SubscriptionId, Timestamp, TopicId},
    limits::NAMED_PRODUCERS_MAX,
};
use levada_store::Store;

use super::draft::Draft;
use crate::{
    catalogue::{Catalogue, CatalogueEvent},
    error::Error,
    rows::DedupIds,
    topic::Extents,
};

pub(super) use self::{
    backlogs::{Asked, Backlogs, Full, Holder},
    dedup::{Dedup, Unique},
    generations::Generations,
    named_producers::NamedProducers,
    partitions::{NewBatch, Partitions, retain_for_ms},
    producers::Producers,
    queues::Queues,
    redrives::{Destination, Redrives},
    route_cursors::RouteCursors,
    schedule::{CANCEL_LEN_MAX, Cancel, Schedule},
    transactions::Transactions,
    unattended::Unattended,
};
pub(crate) use self::{
    generations::Generation,
    named_producers::NameKey,
    producers::ProducerKey,
    redrives::RedriveRevision,
    schedule::{DueBatch, DuePart},
};

/// Bytes that appending a batch adds to a commit beside its own, at most: keys, prefixes, and the producer's row.
const APPEND_OVERHEAD_MAX: usize = 4 * 1024;

/// How many bytes appending this batch adds to a commit, at most.
pub(super) fn append_len_max(batch: &Batch) -> usize {
    batch.bytes().len() + APPEND_OVERHEAD_MAX
}

/// How many bytes appending this batch to a topic with a dedup window adds to a commit, at most.
pub(super) fn append_unique_len_max(batch: &Batch) -> usize {
    append_len_max(batch) + DUPLICATES_BYTES_MAX + batch.count() as usize * DedupIds::ID_BYTES_MAX
}

/// How many bytes appending this batch of a transaction, which has no producer, adds to a commit, at most.
pub(super) fn append_transacted_len_max(batch: &Batch) -> usize {
    append_len_max(batch) + Duplicates::BYTES_MAX + batch.count() as usize * DedupIds::ID_BYTES_MAX
}

/// How much the tables may hold in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct TableLimits {
    /// Producers.
    pub(super) producers_max: usize,
    /// Event ids.
    pub(super) dedup_ids_max: usize,
}

/// All tables of a shard.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) partitions: Partitions,
    pub(super) producers: Producers,
    pub(super) names: NamedProducers,
    pub(super) routes: RouteCursors,
    pub(super) dedup: Dedup,
    pub(super) schedule: Schedule,
    pub(super) transactions: Transactions,
    pub(super) queues: Queues,
    pub(super) backlogs: Backlogs,
    pub(super) unattended: Unattended,
}

impl Tables {
    /// Reads all tables, and where each topic's partitions begin and end. Blocks on the disk.
    pub(super) fn load(
        store: &dyn Store,
        catalogue: &Catalogue,
        limits: TableLimits,
        schedule_revision: u64,
    ) -> Result<(Self, Extents), Error> {
        let (partitions, extents) = Partitions::load(store, catalogue)?;
        let routes = RouteCursors::load(store, catalogue)?;
        let dedup = Dedup::load(store, catalogue, limits.dedup_ids_max)?;
        let schedule = Schedule::load(store, catalogue, schedule_revision)?;
        let transactions = Transactions::load(store)?;
        let queues = Queues::load(store)?;
        let producers = Producers::new(limits.producers_max);
        let names = NamedProducers::load(store, NAMED_PRODUCERS_MAX)?;
        let backlogs = Backlogs::load(store, catalogue, &extents, &routes)?;
        let unattended = Unattended::load(store)?;
        let tables = Self {
            partitions,
            producers,
            names,
            routes,
            dedup,
            schedule,
            transactions,
            queues,
            backlogs,
            unattended,
        };
        Ok((tables, extents))
    }

    /// Adds to the commit what the tables have held back until its end.
    pub(super) fn flush(&mut self, now: Timestamp, draft: &mut Draft) {
        let Self {
            partitions,
            producers,
            names: _,
            routes: _,
            dedup,
            schedule,
            transactions,
            queues: _,
            backlogs: _,
            unattended: _,
        } = self;
        partitions.flush(draft);
        partitions.end_commit();
        producers.flush(draft);
        dedup.flush(now, draft);
        schedule.flush(draft);
        transactions.flush();
    }

    /// Begins and ends what belongs to things that were created and deleted.
    pub(super) fn follow(&mut self, event: &CatalogueEvent, draft: &mut Draft) {
        match event {
            CatalogueEvent::TopicCreated(record) => {
                self.partitions.create_topic(TopicId(record.id), record.settings.partitions);
                self.dedup.begin_topic(record.id(), &record.settings);
                self.backlogs.create_topic(record.id(), record.settings.partitions);
            }
            CatalogueEvent::TopicChanged(record) => {
                self.dedup.change_topic(record.id(), &record.settings, draft);
                self.backlogs.change_topic(record.id());
            }
            CatalogueEvent::TopicDeleted(id) => self.forget_topic(*id, draft),
            CatalogueEvent::SubscriptionMoved(record, partitions) => {
                let id = SubscriptionId(record.id);
                partitions.iter().for_each(|number| progress::forget_partition(id, *number, draft));
                let position = |number: &PartitionId| {
                    record.positions.get(usize::from(number.0)).map(|position| (*number, Offset(*position)))
                };
                self.backlogs.move_to(id, partitions.iter().filter_map(position));
            }
            CatalogueEvent::SubscriptionDeleted(id) => {
                progress::forget(*id, draft);
                self.queues.forget(*id, draft);
                self.unattended.forget(*id, draft);
                self.backlogs.forget(Holder::Subscription(*id));
            }
            CatalogueEvent::RouteCreated(record) => {
                let (id, source) = (RouteId(record.id), TopicId(record.source_id));
                self.routes.create(id, &record.positions, draft);
                self.backlogs.create(Holder::Route(id), source, &record.positions);
            }
            CatalogueEvent::RouteDeleted(id) => {
                self.routes.forget(*id, draft);
                self.backlogs.forget(Holder::Route(*id));
            }
            CatalogueEvent::SubscriptionCreated(record) => {
                let (holder, topic) = (Holder::Subscription(SubscriptionId(record.id)), record.topic_id);
                self.backlogs.create(holder, TopicId(topic), &record.positions);
                let made = Some(Timestamp(record.created_ms));
                self.unattended.set(SubscriptionId(record.id), made, draft);
            }
            CatalogueEvent::SubscriptionChanged(_)
            | CatalogueEvent::PluginChanged(_)
            | CatalogueEvent::PushChanged(_)
            | CatalogueEvent::IdentitiesChanged
            | CatalogueEvent::Reloaded => {}
        }
    }

    fn forget_topic(&mut self, id: TopicId, draft: &mut Draft) {
        // What is prepared for it is dropped by the decision.
        let Self {
            partitions,
            producers,
            names,
            routes: _,
            dedup,
            schedule,
            transactions: _,
            queues: _,
            backlogs,
            unattended: _,
        } = self;
        backlogs.forget_topic(id);
        partitions.forget_topic(id, draft);
        producers.forget_topic(id, draft);
        names.forget_topic(id, draft);
        dedup.forget_topic(id, draft);
        schedule.forget_topic(id, draft);
        redrives::forget_topic(id, draft);
    }

    /// Forgets event ids whose time is over, also where nothing is published.
    pub(super) fn expire_ids(&mut self, now: Timestamp) {
        let Self { partitions, dedup, .. } = self;
        dedup.expire_all(|topic, number| partitions.append_time(topic, number, now));
    }

    /// Stores how far a subscription has come in a partition.
    pub(super) fn change_progress(
        &mut self,
        subscription: SubscriptionId,
        partition: PartitionId,
        rows: Vec<RowChange>,
        draft: &mut Draft,
    ) {
        progress::change(subscription, partition, rows, &mut self.backlogs, draft);
    }

    /// Deletes events of a subscription's queue that came to their end.
    pub(super) fn dequeue(&self, subscription: SubscriptionId, events: &[Range<Offset>], draft: &mut Draft) {
        queues::remove(subscription, events, draft);
    }

    /// Moves the cursor of a route that exists.
    pub(super) fn advance_route(&mut self, id: RouteId, number: PartitionId, to: Offset, draft: &mut Draft) {
        self.routes.advance(id, number, to, draft);
        self.backlogs.raise(Holder::Route(id), number, to);
    }

    /// Moves a partition's log start and drops what is before it.
    pub(super) fn trim(
        &mut self,
        place: (TopicId, PartitionId),
        start: Offset,
        dropped_bytes: u64,
        draft: &mut Draft,
    ) {
        self.partitions.trim(place, start, dropped_bytes, draft);
        self.backlogs.trimmed(place, start, dropped_bytes);
    }

    /// Moves a partition's log start and leaves what is before it for a later [`Tables::trim`].
    pub(super) fn advance_start(
        &mut self,
        place: (TopicId, PartitionId),
        start: Offset,
        dropped_bytes: u64,
        draft: &mut Draft,
    ) {
        self.partitions.advance_start(place, start, dropped_bytes, draft);
        self.backlogs.trimmed(place, start, dropped_bytes);
    }

    /// What waits for its time, or for a decision, to be appended to a topic.
    pub(super) fn waiting(&self, topic: TopicId) -> Charge {
        self.schedule.pending(topic).plus(self.transactions.prepared_for(topic))
    }

    /// Takes room in a topic's backlog for what is to be appended, scheduled or prepared.
    ///
    /// # Errors
    /// Who is too far behind, if there is no room; the outer one if the store fails.
    pub(super) fn admit(
        &mut self,
        store: &dyn Store,
        (topic, quota): (TopicId, Quota),
        charge: Charge,
        now: Timestamp,
    ) -> Result<Result<(), Full>, Error> {
        let asked = Asked { topic, quota, waiting: self.waiting(topic), charge };
        self.backlogs.admit((store, &self.partitions), asked, now)
    }
}
