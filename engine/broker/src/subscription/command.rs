//! What can happen to a subscription from outside, and what its owner needs.

use std::sync::Arc;

use levada_delivery::subscription::{Acked, Bounds};
use levada_protocol::{
    request::Subscribed,
    verbs::{Credit, Verbs},
};
use levada_store::Store;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{attached::Finish, retained::RetainBudget, untold::LossNotice};
use crate::{
    chains::Chains,
    clock::Clock,
    error::Error,
    outbound::{Held, Window},
    outgoing::Outgoing,
    shard::{ShardHandle, Transact},
};

/// What a subscription's owner needs.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) shard: ShardHandle,
    pub(crate) chains: Chains,
    pub(crate) cancelled: CancellationToken,
    pub(crate) clock: Clock,
    /// The memory for what was read and may be sent again.
    pub(crate) retained: Arc<RetainBudget>,
    /// What deliveries may take otherwise.
    pub(crate) bounds: Bounds,
}

/// The closed list of what can happen to a subscription from outside.
#[derive(Debug)]
pub(crate) enum Command {
    Attach {
        consumer: u64,
        name: String,
        created: bool,
        window: Arc<Window>,
        reply: oneshot::Sender<Attached>,
    },
    Detach {
        consumer: u64,
    },
    /// A consumer that waited for room has it.
    Room {
        consumer: u64,
        held: Held,
    },
    /// A consumer gets nothing more, and ends once nothing of it is under way.
    Finish {
        consumer: u64,
        finish: Finish,
    },
    Credit {
        consumer: u64,
        credit: Credit,
    },
    Verbs {
        consumer: u64,
        verbs: Verbs,
        /// What they take of the verbs that the consumer may have unconfirmed.
        room: OwnedSemaphorePermit,
    },
    /// Acknowledges events and stores others in one commit.
    Transact(Box<AckingTransact>),
    Resume,
}

/// A transaction that acknowledges events.
#[derive(Debug)]
pub(crate) struct AckingTransact {
    pub(crate) acked: Vec<Acked>,
    pub(crate) transact: Transact,
}

/// The owner's answer to an attach.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(super) subscribed: Subscribed,
    pub(super) outgoing: mpsc::Receiver<Result<Outgoing, Error>>,
    pub(super) notices: mpsc::Receiver<LossNotice>,
}
