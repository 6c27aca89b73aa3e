//! Everything that the shard's writer can be asked to do.

use std::sync::Arc;

use bytes::Bytes;
use levada_protocol::{
    batch::Batch,
    ids::{Offset, PartitionId, ProducerId, RouteId, SubscriptionId, Timestamp, TopicId, TopicName},
    publish::PublishHeader,
};
use levada_store::Op;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::reply::AckPermit;
use crate::{catalogue::Change, error::Error, topic::Topic};

/// The closed list of what can happen to a shard.
#[derive(Debug)]
pub(crate) enum Command {
    Append(Append),
    Fragment(Fragment),
    Change {
        change: Box<Change>,
        reply: oneshot::Sender<Result<(), Error>>,
    },
    Trim(Trim),
    Forget(Forget),
    /// The space of dropped rows was given back: the notes of it go.
    Reclaimed {
        notes: Vec<Bytes>,
        reply: oneshot::Sender<Result<(), Error>>,
    },
    /// Look whether the clock was set back.
    CheckClock {
        reply: oneshot::Sender<Result<(), Error>>,
    },
    /// Take the fragments that wait for a group.
    Wake,
    Stop,
}

/// A publish: one batch for one partition.
#[derive(Debug)]
pub(crate) struct Append {
    pub(crate) topic: Arc<Topic>,
    pub(crate) header: PublishHeader,
    pub(crate) batch: Batch,
    /// True if the acknowledgement need not wait for the sync.
    pub(crate) ack_written: bool,
    /// The reserved place for the acknowledgement.
    pub(crate) reply: AckPermit,
    /// The batch's share of the bytes that may wait; given back once the group has ended.
    pub(crate) admitted: OwnedSemaphorePermit,
}

/// Whose state a fragment changes. Ids are never reused: a fragment of a deleted owner is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    Subscription(SubscriptionId),
    Route(RouteId, PartitionId),
}

/// A part of a commit that a subscription or route has decided by itself: it is applied whole or not at all.
#[derive(Debug)]
pub(crate) struct Fragment {
    pub(crate) owner: Owner,
    /// Progress rows.
    pub(crate) rows: Vec<Op>,
    /// For a route: from which cursor to which.
    pub(crate) step: Option<RouteStep>,
    /// Events to append, targets and dead letters alike.
    pub(crate) appends: Vec<FragmentAppend>,
    pub(crate) reply: oneshot::Sender<Result<(), FragmentRefused>>,
}

/// A route's cursor before and after a fragment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RouteStep {
    pub(crate) from: Offset,
    pub(crate) to: Offset,
}

/// A batch that a fragment appends.
#[derive(Debug)]
pub(crate) struct FragmentAppend {
    pub(crate) target: AppendTarget,
    pub(crate) partition: PartitionId,
    pub(crate) batch: Batch,
    pub(crate) hops: u8,
}

/// Where a fragment appends.
#[derive(Debug, Clone)]
pub(crate) enum AppendTarget {
    /// A topic that exists.
    Topic(TopicId),
    /// A dead-letter topic; made in the same commit if it is the first letter.
    DeadLetters(TopicName),
}

/// Why a fragment was not applied.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum FragmentRefused {
    /// The owner does not exist any more.
    #[error("the owner of this state was deleted")]
    Gone,
    /// The route's cursor stands elsewhere: a fragment before this one was not applied.
    #[error("the route's cursor stands at {cursor}")]
    Moved { cursor: Offset },
    /// A target cannot take events now; nothing was applied, try again.
    #[error("{target} cannot take events: {error}")]
    Blocked { target: String, error: Error },
    /// The store failed; whether the fragment will be found after a restart is unknown.
    #[error("{0}")]
    Failed(Error),
}

impl FragmentRefused {
    /// The outcome of a fragment that the writer may have taken, and never answered.
    pub(crate) fn unanswered() -> Self {
        Self::Failed(Error::unanswered())
    }
}

/// Which producer in which partition: what one row of the producers is about.
pub(crate) type ProducerKey = (TopicId, PartitionId, ProducerId);

/// Producers that were found idle, to be forgotten unless they have published since.
#[derive(Debug)]
pub(crate) struct Forget {
    pub(crate) producers: Vec<ProducerKey>,
    /// Those last used before are idle.
    pub(crate) before: Timestamp,
    pub(crate) reply: oneshot::Sender<Result<(), Error>>,
}

/// What retention decided for one partition.
#[derive(Debug)]
pub(crate) struct Trim {
    pub(crate) topic: Arc<Topic>,
    pub(crate) partition: PartitionId,
    /// The new log start.
    pub(crate) start: Offset,
    /// Bytes of batches that lay before it, since the topic was made.
    pub(crate) dropped_bytes: u64,
    pub(crate) reply: oneshot::Sender<Result<(), Error>>,
}
