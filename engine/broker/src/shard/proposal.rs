//! Proposals: what the owner of a subscription or a route wants committed as a whole, or not at all.

use std::ops::Range;

use bytes::Bytes;
use levada_delivery::progress::RowChange;
use levada_protocol::{
    batch::Batch,
    error::ErrorCode,
    ids::{Offset, PartitionId, RouteId, SubscriptionId, Timestamp, TopicId, TopicName},
    limits::TOPIC_NAME_BYTES_MAX,
};
use tokio::sync::oneshot;

use super::{
    rewritten::Rewritten,
    tables::{Generation, RedriveRevision},
};
use crate::{
    error::Error,
    rows::{Compacted, QueuedEvent, Redriven, Row, SubscriptionLoss},
};

/// What one commit does as a whole, if all of its conditions hold when it is decided.
#[derive(Debug)]
pub(crate) struct Proposal {
    pub(crate) conditions: Vec<Condition>,
    pub(crate) changes: Vec<StateChange>,
    /// Batches to append, in this order: outputs and dead letters alike.
    pub(crate) appends: Vec<AppendRequest>,
    /// Receives the outcome once the commit is durable, or the proposal is refused. One that is dropped is no refusal:
    /// the outcome is unknown then.
    pub(crate) reply: oneshot::Sender<Result<(), ProposalRefused>>,
}

/// What must hold for a proposal to be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// The subscription exists, and no other owner took it over.
    Owner { subscription: SubscriptionId, generation: Generation },
    /// The route exists, and its cursor is at this offset.
    RouteCursor { route: RouteId, partition: PartitionId, at: Offset },
    /// The partition exists, and its next event gets this offset.
    End { topic: TopicId, partition: PartitionId, at: Offset },
    /// The topic exists and keeps the last event of each key, its partition begins at this offset, and those who read it are
    /// the same, none of them moved.
    Compacts { topic: TopicId, partition: PartitionId, start: Offset, readers: u64 },
    /// The topic exists, and none of its dead letters was redriven or dropped since.
    Redrives { topic: TopicId, at: RedriveRevision },
}

/// A change of state other than an append.
#[derive(Debug)]
pub(crate) enum StateChange {
    /// How far a subscription has come in a partition.
    Progress { subscription: SubscriptionId, partition: PartitionId, rows: Vec<RowChange> },
    /// What a subscription has lost of a partition, and what of that no consumer was told of.
    Loss { subscription: SubscriptionId, partition: PartitionId, loss: SubscriptionLoss },
    /// Since when a subscription has no consumer; `None` if it has one.
    Attendance { subscription: SubscriptionId, unattended_since: Option<Timestamp> },
    /// Events of a subscription's queue came to their end: they are deleted.
    Dequeue { subscription: SubscriptionId, events: Vec<Range<Offset>> },
    /// The events of dead letters go back to their subscription alone, and that is noted of each.
    Queue(Box<QueuedEvents>),
    /// The next offset that a route takes.
    RouteCursor { route: RouteId, partition: PartitionId, to: Offset },
    /// A partition begins at `start`: what is before it is dropped, `dropped_bytes` of batches in all since the topic was
    /// created. A record must begin there.
    Trim { topic: TopicId, partition: PartitionId, start: Offset, dropped_bytes: u64 },
    /// Records of a partition lose events that were superseded. No more than `appended_bytes` were appended before the end
    /// of any of them.
    Rewrite { topic: TopicId, partition: PartitionId, records: Vec<Rewritten>, appended_bytes: u64 },
    /// Records of a partition that begin at these offsets were replaced: their space is to be given back.
    Superseded { topic: TopicId, partition: PartitionId, offsets: Range<Offset> },
    /// A partition is compacted so far. How many bytes are before the log's start the writer knows.
    Compacted { topic: TopicId, partition: PartitionId, compacted: Compacted },
}

/// Events of dead letters for a subscription's queue.
#[derive(Debug)]
pub(crate) struct QueuedEvents {
    pub(crate) subscription: SubscriptionId,
    /// The subscription's topic.
    pub(crate) topic: TopicName,
    /// The topic and partition of the dead letters.
    pub(crate) from: (TopicId, PartitionId),
    pub(crate) events: Vec<Queued>,
    /// Receives the time of the notes once it is decided. It counts if the proposal is applied.
    pub(crate) queued: oneshot::Sender<Timestamp>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Queued {
    /// Its dead letter, and how often that was redriven, this time included.
    pub(crate) dead_letter: Offset,
    pub(crate) times: u32,
    /// Where it was in the subscription's topic.
    pub(crate) partition: PartitionId,
    pub(crate) offset: Offset,
    /// A batch that holds it alone.
    pub(crate) batch: Bytes,
}

impl Queued {
    /// Its row in the queue.
    pub(super) fn row(&self, time: Timestamp) -> QueuedEvent {
        let Self { partition, offset, batch, .. } = self;
        QueuedEvent { partition: *partition, offset: *offset, time, batch: batch.clone() }
    }

    /// What is noted of its dead letter.
    pub(super) fn note(&self, topic: &TopicName, time: Timestamp) -> Redriven {
        Redriven {
            times: self.times,
            time,
            alone: true,
            to: topic.clone(),
            to_partition: self.partition,
            to_offset: self.offset,
        }
    }
}

/// A batch to append.
#[derive(Debug)]
pub(crate) struct AppendRequest {
    pub(crate) target: AppendTarget,
    pub(crate) partition: PartitionId,
    pub(crate) batch: Batch,
    /// How many routes the events have passed through.
    pub(crate) hops: u8,
    /// Set if the events are those of dead letters.
    pub(crate) redrives: Option<Box<RedrivenBatch>>,
}

/// The dead letters whose events a batch holds: that they were redriven is noted with its append.
#[derive(Debug)]
pub(crate) struct RedrivenBatch {
    /// Their topic and partition.
    pub(crate) topic: TopicId,
    pub(crate) partition: PartitionId,
    /// For each event of the batch, its dead letter's offset, and how often that was redriven, this time included.
    pub(crate) dead_letters: Vec<(Offset, u32)>,
    /// Receives the batch's first offset and the time of the note once they are decided. They count if the proposal is
    /// applied.
    pub(crate) appended: oneshot::Sender<(Offset, Timestamp)>,
}

/// Where a batch is appended.
#[derive(Debug, Clone)]
pub(crate) enum AppendTarget {
    /// A topic that exists.
    Topic(TopicId),
    /// A dead-letter topic, created in the same commit if it does not exist.
    DeadLetters(TopicName),
}

/// Why a proposal was not applied.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ProposalRefused {
    /// The subscription or route that it is about does not exist any more.
    #[error("what the proposal is about was deleted")]
    Gone,
    /// Another owner has taken the subscription over.
    #[error("an owner of generation {current} has taken over from generation {proposed}")]
    Stale { proposed: Generation, current: Generation },
    /// The route's cursor is at another offset: a proposal before this one was not applied.
    #[error("the route's cursor is at {cursor}")]
    Moved { cursor: Offset },
    /// The log begins elsewhere since the proposal was made, or is not to be compacted any more.
    #[error("the partition's beginning, or what its topic retains, was changed meanwhile")]
    Shifted,
    /// A subscription or route of the topic was created, moved or deleted since the proposal was made.
    #[error("who reads the topic was changed meanwhile")]
    OtherReaders,
    /// Dead letters of the topic were redriven or dropped since the proposal was made.
    #[error("dead letters of the topic were redriven or dropped meanwhile")]
    Overtaken,
    /// The partition's next offset is another.
    #[error("the partition's next offset is {next}, expected {expected}")]
    End { next: Offset, expected: Offset },
    /// A target cannot take events now; try again.
    #[error("a target cannot take events: {error}")]
    Blocked { target: Option<TopicName>, error: Error },
    /// The store failed; whether the proposal will be found after a restart is unknown.
    #[error("{0}")]
    Failed(Error),
}

impl ProposalRefused {
    /// The outcome of a proposal that the writer may have taken, and never answered.
    pub(crate) fn unanswered() -> Self {
        Self::Failed(Error::unanswered())
    }

    /// The same, as the error for a caller of the broker.
    pub(crate) fn error(self) -> Error {
        let code = match self {
            Self::Failed(error) | Self::Blocked { error, .. } => return error,
            Self::Gone => ErrorCode::TopicNotFound,
            Self::End { .. } => ErrorCode::OffsetMismatch,
            Self::Overtaken | Self::Shifted | Self::OtherReaders => ErrorCode::LimitExceeded,
            // A retry reaches the new owner.
            Self::Stale { .. } | Self::Moved { .. } => ErrorCode::ShuttingDown,
        };
        Error::refused(code, self.to_string())
    }
}

impl Proposal {
    /// How many bytes its operations take in a commit, at most.
    pub(crate) fn encoded_len_max(&self) -> usize {
        let changes = self.changes.iter().map(StateChange::encoded_len_max).sum::<usize>();
        let batch = |append: &AppendRequest| {
            let noted = append.redrives.as_ref().map_or(0, |redrives| redrives.dead_letters.len());
            super::tables::append_len_max(&append.batch)
                + noted * (SMALL_ROW_BYTES_MAX + TOPIC_NAME_BYTES_MAX)
        };
        changes + self.appends.iter().map(batch).sum::<usize>()
    }
}

impl StateChange {
    pub(super) fn encoded_len_max(&self) -> usize {
        match self {
            Self::Progress { rows, .. } => rows.iter().map(row_len_max).sum(),
            Self::Dequeue { events, .. } => {
                let count = events.iter().map(|range| range.end.0 - range.start.0).sum::<u64>();
                usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(SMALL_ROW_BYTES_MAX)
            }
            Self::Queue(queued) => {
                let noted = SMALL_ROW_BYTES_MAX + TOPIC_NAME_BYTES_MAX;
                let rows = queued.events.iter().map(|it| SMALL_ROW_BYTES_MAX + it.batch.len() + noted);
                SMALL_ROW_BYTES_MAX + rows.sum::<usize>()
            }
            Self::RouteCursor { .. } | Self::Attendance { .. } => SMALL_ROW_BYTES_MAX,
            Self::Trim { .. } => TRIM_BYTES_MAX,
            Self::Rewrite { records, .. } => {
                2 * SMALL_ROW_BYTES_MAX + records.iter().map(Rewritten::encoded_len).sum::<usize>()
            }
            Self::Loss { .. } | Self::Superseded { .. } | Self::Compacted { .. } => 2 * SMALL_ROW_BYTES_MAX,
        }
    }
}

/// Bytes of an operation, its key and the fixed part of its value, at most.
const SMALL_ROW_BYTES_MAX: usize = 64;
/// Bytes of the operations that drop what is before an offset: a row, a note, and deletions of ranges.
const TRIM_BYTES_MAX: usize = 8 * SMALL_ROW_BYTES_MAX;

fn row_len_max(change: &RowChange) -> usize {
    let value = match change {
        RowChange::Head(head) => head.len(),
        RowChange::Chunk { chunk, .. } => chunk.len(),
        RowChange::Failures { failures, .. } => failures.len(),
        RowChange::DropChunk { .. } | RowChange::DropFailures { .. } => 0,
    };
    SMALL_ROW_BYTES_MAX + value
}
