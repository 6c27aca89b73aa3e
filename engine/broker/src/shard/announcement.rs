//! What becomes visible once a commit is durable.

use levada_delivery::backlog::Charge;
use levada_protocol::{
    ids::{Offset, PartitionId, SubscriptionId, TopicId},
    request::DedupInfo,
};

use crate::{
    catalogue::CatalogueEvent,
    frames::LogSlice,
    rows::{Compacted, ScheduleSummary, TransactionKey, Undecided},
};

/// Something that becomes visible with a commit.
#[derive(Debug)]
pub(super) enum Announcement {
    /// Events were appended to a partition.
    Appended { topic: TopicId, partition: PartitionId, piece: LogSlice },
    /// Events before `start` were dropped.
    Trimmed { topic: TopicId, partition: PartitionId, start: Offset, dropped_bytes: u64 },
    /// Records before `until` lost events that were superseded.
    Rewritten { topic: TopicId, partition: PartitionId, until: Offset },
    /// The space of rows that were replaced is to be given back.
    Superseded,
    /// A partition is compacted so far.
    Compacted { topic: TopicId, partition: PartitionId, compacted: Compacted },
    /// What is remembered of a topic's event ids; its counts are what has come since the announcement before.
    Dedup { topic: TopicId, info: DedupInfo },
    /// A topic's schedule changed.
    Schedule { topic: TopicId, summary: ScheduleSummary },
    /// Delayed events were moved: what is read from now on shows it.
    DueMoved { revision: u64 },
    /// A transaction waits for its decision, or does not any more.
    Undecided { key: TransactionKey, undecided: Option<Undecided> },
    /// What is prepared for a topic changed.
    Prepared { topic: TopicId, prepared: Charge },
    /// Events were redriven to a subscription alone: its queue ends here.
    Queued { subscription: SubscriptionId, end: u64 },
    /// The catalogue changed.
    Catalogue(CatalogueEvent),
}
