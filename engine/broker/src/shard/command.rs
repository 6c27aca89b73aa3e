//! Everything that the shard's writer can be asked to do.

use std::sync::Arc;

use bytes::Bytes;
use levada_delivery::retention::Rules;
use levada_protocol::{
    batch::Batch,
    ids::{Offset, PartitionId, ProducerId, ProducerName, SubscriptionId, Timestamp, TopicId},
    publish::{Ack, AckOutcome, PublishHeader},
    request::OpenedProducer,
};
use tokio::sync::oneshot;

use super::{
    group::Reply,
    proposal::{Proposal, ProposalRefused},
    reply::AckPermit,
    tables::{self, DuePart, Generation, NameKey, NamedProducers, ProducerKey, RedriveRevision},
    transact::{Ask, Decide, ForgetTransactions, Transact},
};
use crate::{
    actor::Actor, audit, catalogue::Change, error::Error, quotas::Admitted, rows::Place, topic::Topic,
};

/// How soon a publisher may try again that was refused because the store takes no writes.
const RETRY_AFTER_MS: u32 = 500;

/// The closed list of commands to a shard.
#[derive(Debug)]
pub(crate) enum Command {
    Append(Append),
    Propose(Proposal),
    Change {
        change: Box<Change>,
        by: Actor,
        reply: oneshot::Sender<Result<(), Error>>,
    },
    /// A new owner takes over a subscription.
    TakeOver {
        subscription: SubscriptionId,
        reply: oneshot::Sender<Result<Generation, Error>>,
    },
    /// How often the dead letters of a topic were redriven or dropped.
    Redrives {
        topic: TopicId,
        reply: oneshot::Sender<Result<RedriveRevision, Error>>,
    },
    OpenProducer(OpenProducer),
    Trim(Trim),
    Expire(Expire),
    Forget(Forget),
    /// The space of dropped rows was reclaimed: their notes are removed.
    Reclaimed {
        notes: Vec<Bytes>,
        reply: oneshot::Sender<Result<(), Error>>,
    },
    MoveDue(MoveDue),
    Cancel(CancelScheduled),
    Transact(Transact),
    Decide(Decide),
    Ask(Ask),
    ForgetTransactions(ForgetTransactions),
    /// Nothing: what was decided before is durable once it is answered.
    Barrier {
        reply: oneshot::Sender<Result<(), Error>>,
    },
    /// Check whether the clock was set back.
    CheckClock {
        reply: oneshot::Sender<Result<(), Error>>,
    },
    /// Make a commit of the proposals that wait for one.
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
    /// The reserved slot for the acknowledgement.
    pub(crate) reply: AckPermit,
    /// The batch's share of the bytes that may wait; given back once the commit is durable.
    pub(crate) admitted: Admitted,
}

/// Takes a producer's name over for a new owner.
#[derive(Debug)]
pub(crate) struct OpenProducer {
    pub(crate) topic: Arc<Topic>,
    pub(crate) name: ProducerName,
    /// Its id, if the name is new.
    pub(crate) fresh: ProducerId,
    pub(crate) reply: oneshot::Sender<Result<OpenedProducer, Error>>,
}

/// What was found idle, to be forgotten unless it was used since.
#[derive(Debug)]
pub(crate) struct Forget {
    pub(crate) idle: Idle,
    /// Those last used before are idle.
    pub(crate) before: Timestamp,
    pub(crate) reply: oneshot::Sender<Result<(), Error>>,
}

/// Producers that publish no more.
#[derive(Debug, Clone, Default)]
pub(crate) struct Idle {
    pub(crate) producers: Vec<ProducerKey>,
    /// Those without the row of any producer.
    pub(crate) names: Vec<NameKey>,
}

/// What retention decided for one partition.
#[derive(Debug)]
pub(crate) struct Trim {
    pub(crate) topic: TopicId,
    pub(crate) partition: PartitionId,
    /// The new log start.
    pub(crate) start: Offset,
    /// Bytes of batches before it, since the topic was created.
    pub(crate) dropped_bytes: u64,
    /// The topic's rules by which it was decided: by others it might stay.
    pub(crate) rules: Rules,
    /// The number of those who read the topic when it was decided, [`crate::catalogue::readers`]: one that came or was moved
    /// back since may need what would be dropped.
    pub(crate) readers: u64,
    pub(crate) reply: oneshot::Sender<Result<(), Error>>,
}

/// A subscription that was found to have had no consumer for as long as it may.
#[derive(Debug)]
pub(crate) struct Expire {
    pub(crate) subscription: SubscriptionId,
    /// Since when it was seen without one.
    pub(crate) since: Timestamp,
    /// Its option by which it is due.
    pub(crate) after_ms: u64,
    pub(crate) reply: oneshot::Sender<Result<(), Error>>,
}

/// Delayed batches that are due, to be appended unless they have changed since they were read.
#[derive(Debug)]
pub(crate) struct MoveDue {
    /// That of the schedules when they were read.
    pub(crate) revision: u64,
    pub(crate) parts: Vec<DuePart>,
    pub(crate) reply: oneshot::Sender<Result<(), Error>>,
}

/// A delayed event that is to be taken back.
#[derive(Debug)]
pub(crate) struct CancelScheduled {
    pub(crate) topic: TopicId,
    /// Where its batch was found.
    pub(crate) place: Place,
    pub(crate) id: u64,
    pub(crate) reply: oneshot::Sender<Result<(), Error>>,
}

impl Command {
    /// How many bytes it adds to a commit, at most; 0 for what is small, rare or of unknown size.
    pub(super) fn encoded_len_max(&self) -> usize {
        match self {
            Self::Append(append) if append.topic.has_dedup_window() => {
                tables::append_unique_len_max(&append.batch)
            }
            Self::Append(append) => tables::append_len_max(&append.batch),
            Self::Propose(proposal) => proposal.encoded_len_max(),
            Self::MoveDue(due) => due.parts.iter().map(DuePart::encoded_len_max).sum(),
            Self::Cancel(_) => tables::CANCEL_LEN_MAX,
            Self::OpenProducer(_) => NamedProducers::OPEN_LEN_MAX,
            Self::Transact(transact) => transact.encoded_len_max(),
            Self::Decide(decide) => decide.encoded_len_max(),
            Self::Ask(ask) => ask.encoded_len_max(),
            Self::ForgetTransactions(forget) => forget.encoded_len_max(),
            // What is told of it; its own rows are few.
            Self::Change { .. } => audit::EVENT_LEN_MAX,
            Self::TakeOver { .. }
            | Self::Redrives { .. }
            | Self::Trim(_)
            | Self::Expire(_)
            | Self::Forget(_)
            | Self::Reclaimed { .. }
            | Self::Barrier { .. }
            | Self::CheckClock { .. }
            | Self::Wake
            | Self::Stop => 0,
        }
    }

    /// True if it may say how long something waits from when the command is taken.
    pub(super) fn begins_a_wait(&self) -> bool {
        match self {
            Self::Append(append) => append.header.due.is_some(),
            Self::Transact(transact) => transact.check_after_ms.is_some(),
            _ => false,
        }
    }

    /// Replies that nothing was done.
    pub(super) fn refuse(self, error: &Error) {
        match self {
            Self::Append(append) => {
                let (correlation, partition) = (append.header.correlation, append.header.partition);
                let refusal = error.refusal().retry_after(RETRY_AFTER_MS);
                let ack = Ack { correlation, partition, outcome: AckOutcome::Refused(refusal) };
                Reply::Ack { permit: append.reply, ack, when_written: false }.send();
            }
            Self::Propose(proposal) => {
                let result = Err(ProposalRefused::Failed(error.clone()));
                Reply::Proposal { reply: proposal.reply, result }.send();
            }
            Self::TakeOver { reply, .. } => {
                Reply::TakenOver { reply, result: Err(error.clone()) }.send();
            }
            Self::OpenProducer(OpenProducer { reply, .. }) => {
                Reply::ProducerOpened { reply, result: Err(error.clone()) }.send();
            }
            Self::Redrives { reply, .. } => {
                Reply::Redrives { reply, result: Err(error.clone()) }.send();
            }
            Self::Transact(Transact { reply, .. }) | Self::Decide(Decide { reply, .. }) => {
                Reply::Transacted { reply, result: Err(error.clone()) }.send();
            }
            Self::Ask(ask) => Reply::Asked { reply: ask.reply, result: Err(error.clone()) }.send(),
            Self::Change { reply, .. }
            | Self::Trim(Trim { reply, .. })
            | Self::Expire(Expire { reply, .. })
            | Self::Forget(Forget { reply, .. })
            | Self::Reclaimed { reply, .. }
            | Self::MoveDue(MoveDue { reply, .. })
            | Self::Cancel(CancelScheduled { reply, .. })
            | Self::ForgetTransactions(ForgetTransactions { reply, .. })
            | Self::Barrier { reply }
            | Self::CheckClock { reply } => Reply::Done { reply, result: Err(error.clone()) }.send(),
            Self::Wake | Self::Stop => {}
        }
    }
}
