//! A group: what is decided together, written as one commit and made durable by one sync.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use levada_protocol::{
    batch::Batch,
    error::ErrorCode,
    ids::{CommitIndex, Offset, PartitionId, ProducerId, Timestamp, TopicId},
    publish::{Ack, AckOutcome},
};
use levada_store::Op;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{command::FragmentRefused, reply::AckPermit};
use crate::{
    catalogue::{Catalogue, TopicChange},
    error::Error,
    frames::Piece,
    topic::Topic,
};

/// Bytes of batches that lie under one key at most, unless one batch is larger.
pub(crate) const RECORD_BYTES_MAX: usize = 64 * 1024;

/// A group in the making, and then on its way to the disk.
#[derive(Debug, Default)]
pub(crate) struct Group {
    /// `None` if the group only answers: nothing is written for it.
    pub(crate) index: Option<CommitIndex>,
    pub(crate) ops: Vec<Op>,
    pub(crate) bytes: usize,
    /// Batches not yet laid under a key, per partition.
    pub(crate) open: HashMap<(TopicId, PartitionId), OpenRecord>,
    /// Producers whose rows the group rewrites.
    pub(crate) producers: HashSet<(TopicId, PartitionId, ProducerId)>,
    /// What becomes visible once the group is durable, in order.
    pub(crate) announcements: Vec<Announcement>,
    pub(crate) replies: Vec<Reply>,
    pub(crate) admitted: Vec<OwnedSemaphorePermit>,
    /// A new catalogue, if the group changes it.
    pub(crate) catalogue: Option<Arc<Catalogue>>,
}

/// Batches of one partition that will lie under one key.
#[derive(Debug)]
pub(crate) struct OpenRecord {
    pub(crate) topic: Arc<Topic>,
    pub(crate) base: Offset,
    pub(crate) append_time: Timestamp,
    /// Bytes appended to the partition before it.
    pub(crate) bytes_before: u64,
    pub(crate) hops: u8,
    pub(crate) batches: Vec<Batch>,
    pub(crate) bytes: usize,
    pub(crate) events: u32,
    pub(crate) span: u32,
}

/// Something that becomes visible with a group.
#[derive(Debug)]
pub(crate) enum Announcement {
    Appended { topic: Arc<Topic>, partition: PartitionId, piece: Piece },
    Trimmed { topic: Arc<Topic>, partition: PartitionId, start: Offset, dropped_bytes: u64 },
    Topic(TopicChange),
}

/// An answer that waits for its group.
#[derive(Debug)]
pub(crate) enum Reply {
    Ack { permit: AckPermit, ack: Ack, when_written: bool },
    Done { reply: oneshot::Sender<Result<(), Error>>, result: Result<(), Error> },
    Fragment { reply: oneshot::Sender<Result<(), FragmentRefused>>, result: Result<(), FragmentRefused> },
}

impl Reply {
    /// Tells what was decided. Whoever no longer listens has lost interest.
    pub(crate) fn send(self) {
        match self {
            Self::Ack { permit, ack, .. } => permit.send(ack),
            Self::Done { reply, result } => drop(reply.send(result)),
            Self::Fragment { reply, result } => drop(reply.send(result)),
        }
    }

    /// Tells that the store failed, whatever was decided.
    pub(crate) fn fail(self, error: &Error) {
        match self {
            Self::Ack { permit, ack, .. } => {
                let outcome = AckOutcome::Refused(error.refusal());
                permit.send(Ack { outcome, ..ack });
            }
            Self::Done { reply, .. } => drop(reply.send(Err(error.clone()))),
            Self::Fragment { reply, .. } => drop(reply.send(Err(FragmentRefused::Failed(error.clone())))),
        }
    }
}

impl Group {
    /// True if there is nothing to write and nobody to tell.
    pub(crate) fn is_empty(&self) -> bool {
        self.ops.is_empty()
            && self.open.is_empty()
            && self.replies.is_empty()
            && self.announcements.is_empty()
    }

    /// Answers every waiter with a failure.
    pub(crate) fn fail(self, code: ErrorCode, reason: &str) {
        let error = Error::Store { code, message: reason.to_owned() };
        for reply in self.replies {
            reply.fail(&error);
        }
    }

    /// Takes the answers that need not wait for the sync.
    pub(crate) fn take_written(&mut self) -> Vec<Reply> {
        let is_now = |reply: &Reply| matches!(reply, Reply::Ack { when_written: true, .. });
        if !self.replies.iter().any(is_now) {
            return Vec::new();
        }
        let (now, later) = std::mem::take(&mut self.replies).into_iter().partition(is_now);
        self.replies = later;
        now
    }
}
