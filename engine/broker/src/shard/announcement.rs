//! What becomes visible once a commit is durable.

use levada_protocol::ids::{Offset, PartitionId, TopicId};

use crate::{catalogue::CatalogueEvent, frames::LogSlice};

/// Something that becomes visible with a commit.
#[derive(Debug)]
pub(super) enum Announcement {
    /// Events were appended to a partition.
    Appended { topic: TopicId, partition: PartitionId, piece: LogSlice },
    /// Events before `start` were dropped.
    Trimmed { topic: TopicId, partition: PartitionId, start: Offset, dropped_bytes: u64 },
    /// The catalogue changed.
    Catalogue(CatalogueEvent),
}
