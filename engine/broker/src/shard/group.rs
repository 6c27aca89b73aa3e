//! A group: what is decided together, written as one commit and made durable by one sync, and who waits for it.

use std::sync::Arc;

use levada_protocol::{
    error::ErrorCode,
    ids::CommitIndex,
    publish::{Ack, AckOutcome},
    request::OpenedProducer,
};
use levada_store::Op;
use tokio::sync::oneshot;

use super::{
    announcement::Announcement,
    draft::Draft,
    proposal::ProposalRefused,
    reply::AckPermit,
    tables::{Generation, RedriveRevision},
    transact::Transacted,
};
use crate::{catalogue::Catalogue, error::Error, quotas::Admitted, rows::Undecided};

/// A group in the making, and then being written and synced.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) draft: Draft,
    is_written: bool,
    replies: Vec<Reply>,
    /// Dropped with the group.
    admitted: Vec<Admitted>,
    /// A new catalogue, if the group changes it.
    catalogue: Option<Arc<Catalogue>>,
}

/// What is left to do for a durable group.
#[derive(Debug)]
pub(super) struct DurableGroup {
    pub(super) announcements: Vec<Announcement>,
    pub(super) replies: Vec<Reply>,
    pub(super) catalogue: Option<Arc<Catalogue>>,
}

/// A reply that waits for its group.
#[derive(Debug)]
pub(super) enum Reply {
    Ack {
        permit: AckPermit,
        ack: Ack,
        when_written: bool,
    },
    Done {
        reply: oneshot::Sender<Result<(), Error>>,
        result: Result<(), Error>,
    },
    TakenOver {
        reply: oneshot::Sender<Result<Generation, Error>>,
        result: Result<Generation, Error>,
    },
    ProducerOpened {
        reply: oneshot::Sender<Result<OpenedProducer, Error>>,
        result: Result<OpenedProducer, Error>,
    },
    Redrives {
        reply: oneshot::Sender<Result<RedriveRevision, Error>>,
        result: Result<RedriveRevision, Error>,
    },
    Proposal {
        reply: oneshot::Sender<Result<(), ProposalRefused>>,
        result: Result<(), ProposalRefused>,
    },
    Transacted {
        reply: oneshot::Sender<Result<Transacted, Error>>,
        result: Result<Transacted, Error>,
    },
    Asked {
        reply: oneshot::Sender<Result<Vec<Option<Undecided>>, Error>>,
        result: Result<Vec<Option<Undecided>>, Error>,
    },
}

impl Reply {
    /// True if it is an acknowledgement with a way of its own.
    pub(super) fn is_dispatched(&self) -> bool {
        matches!(self, Self::Ack { permit, .. } if permit.is_dispatched())
    }

    /// Sends the decision. A dropped receiver is ignored.
    pub(super) fn send(self) {
        match self {
            Self::Ack { permit, ack, .. } => permit.send(ack),
            Self::Done { reply, result } => drop(reply.send(result)),
            Self::TakenOver { reply, result } => drop(reply.send(result)),
            Self::ProducerOpened { reply, result } => drop(reply.send(result)),
            Self::Redrives { reply, result } => drop(reply.send(result)),
            Self::Proposal { reply, result } => drop(reply.send(result)),
            Self::Transacted { reply, result } => drop(reply.send(result)),
            Self::Asked { reply, result } => drop(reply.send(result)),
        }
    }

    /// Says that the store failed, whatever was decided.
    fn fail(self, error: &Error) {
        match self {
            Self::Ack { permit, ack, .. } => {
                let outcome = AckOutcome::Refused(error.refusal());
                permit.send(Ack { outcome, ..ack });
            }
            Self::Done { reply, .. } => drop(reply.send(Err(error.clone()))),
            Self::TakenOver { reply, .. } => drop(reply.send(Err(error.clone()))),
            Self::ProducerOpened { reply, .. } => drop(reply.send(Err(error.clone()))),
            Self::Redrives { reply, .. } => drop(reply.send(Err(error.clone()))),
            Self::Proposal { reply, .. } => drop(reply.send(Err(ProposalRefused::Failed(error.clone())))),
            Self::Transacted { reply, .. } => drop(reply.send(Err(error.clone()))),
            Self::Asked { reply, .. } => drop(reply.send(Err(error.clone()))),
        }
    }
}

impl Group {
    /// An empty group whose commit will have this index.
    pub(super) fn new(index: CommitIndex) -> Self {
        Self {
            draft: Draft::new(index),
            is_written: false,
            replies: Vec::new(),
            admitted: Vec::new(),
            catalogue: None,
        }
    }

    /// Adds a reply that is sent once the group is durable.
    pub(super) fn reply(&mut self, reply: Reply) {
        self.replies.push(reply);
    }

    /// Holds a share of the bytes that may wait until the group is durable or has failed.
    pub(super) fn hold(&mut self, admitted: Admitted) {
        self.admitted.push(admitted);
    }

    /// Sets the catalogue that is shown once the group is durable.
    pub(super) fn set_catalogue(&mut self, catalogue: Catalogue) {
        self.catalogue = Some(Arc::new(catalogue));
    }

    /// True if there is nothing to write and no reply to send.
    pub(super) fn is_empty(&self) -> bool {
        self.draft.is_empty() && self.replies.is_empty()
    }

    /// Takes the operations to write.
    pub(super) fn take_ops(&mut self) -> Vec<Op> {
        self.draft.take_ops()
    }

    /// Notes that its commit was written and needs a sync.
    pub(super) fn set_written(&mut self) {
        self.is_written = true;
    }

    /// True if its commit was written; a group with replies alone has none.
    pub(super) fn is_written(&self) -> bool {
        self.is_written
    }

    /// Sends an error to all that wait.
    pub(super) fn fail(self, code: ErrorCode, reason: &str) {
        let error = Error::Store { code, message: reason.to_owned() };
        for reply in self.replies {
            reply.fail(&error);
        }
    }

    /// Takes the replies that need not wait for the sync.
    pub(super) fn take_written(&mut self) -> Vec<Reply> {
        let is_now = |reply: &Reply| matches!(reply, Reply::Ack { when_written: true, .. });
        if !self.replies.iter().any(is_now) {
            return Vec::new();
        }
        let (now, later) = std::mem::take(&mut self.replies).into_iter().partition(is_now);
        self.replies = later;
        now
    }

    /// What is left to do once it is durable.
    pub(super) fn into_durable(mut self) -> DurableGroup {
        let announcements = self.draft.take_announcements();
        DurableGroup { announcements, replies: self.replies, catalogue: self.catalogue }
    }
}
