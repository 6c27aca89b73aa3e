//! What the writer has decided, table by table: each is ahead of the durable rows by the commits under way.
//!
//! A table owns its part of the state and the rows that it is stored in. It checks without changing anything, changes
//! itself and adds the rows to the commit that is being made ([`Draft`]), loads them at a start, and forgets what belongs
//! to something that was deleted. A new table is a file here, a field of [`Tables`], and what the compiler then asks for.

mod dedup;
mod generations;
mod partitions;
mod producers;
mod progress;
mod redrives;
mod route_cursors;
mod schedule;
mod transactions;

use levada_delivery::{producer::DUPLICATES_BYTES_MAX, progress::RowChange};
use levada_protocol::{
    batch::Batch,
    duplicates::Duplicates,
    ids::{PartitionId, RouteId, SubscriptionId, Timestamp, TopicId},
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
    dedup::{Dedup, Unique},
    generations::Generations,
    partitions::{NewBatch, Partitions},
    producers::Producers,
    redrives::{Destination, Redrives},
    route_cursors::RouteCursors,
    schedule::{CANCEL_LEN_MAX, Cancel, Schedule},
    transactions::Transactions,
};
pub(crate) use self::{
    generations::Generation,
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
    pub(super) routes: RouteCursors,
    pub(super) dedup: Dedup,
    pub(super) schedule: Schedule,
    pub(super) transactions: Transactions,
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
        let producers = Producers::new(limits.producers_max);
        Ok((Self { partitions, producers, routes, dedup, schedule, transactions }, extents))
    }

    /// Adds to the commit what the tables have held back until its end.
    pub(super) fn flush(&mut self, now: Timestamp, draft: &mut Draft) {
        let Self { partitions, producers, routes: _, dedup, schedule, transactions } = self;
        partitions.flush(draft);
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
            }
            CatalogueEvent::TopicChanged(record) => {
                self.dedup.change_topic(record.id(), &record.settings, draft);
            }
            CatalogueEvent::TopicDeleted(id) => self.forget_topic(*id, draft),
            CatalogueEvent::SubscriptionMoved(record, partitions) => {
                let id = SubscriptionId(record.id);
                partitions.iter().for_each(|number| progress::forget_partition(id, *number, draft));
            }
            CatalogueEvent::SubscriptionDeleted(id) => progress::forget(*id, draft),
            CatalogueEvent::RouteCreated(record) => {
                self.routes.create(RouteId(record.id), &record.positions, draft);
            }
            CatalogueEvent::RouteDeleted(id) => self.routes.forget(*id, draft),
            CatalogueEvent::SubscriptionCreated(_)
            | CatalogueEvent::SubscriptionChanged(_)
            | CatalogueEvent::PluginChanged(_)
            | CatalogueEvent::Reloaded => {}
        }
    }

    fn forget_topic(&mut self, id: TopicId, draft: &mut Draft) {
        // What is prepared for it is dropped by the decision.
        let Self { partitions, producers, routes: _, dedup, schedule, transactions: _ } = self;
        partitions.forget_topic(id, draft);
        producers.forget_topic(id, draft);
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
        subscription: SubscriptionId,
        partition: PartitionId,
        rows: Vec<RowChange>,
        draft: &mut Draft,
    ) {
        progress::change(subscription, partition, rows, draft);
    }
}
