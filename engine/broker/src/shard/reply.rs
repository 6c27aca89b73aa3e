//! A reserved slot for one acknowledgement; dropping it unused sends `OUTCOME_UNKNOWN`. So every publish gets one.

use levada_protocol::{
    ids::PartitionId,
    publish::{Ack, AckOutcome, PublishHeader},
};
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};

use crate::{error::Error, tasks};

/// Acknowledgements that may wait for the dispatcher's task; with more, callers are woken from here, one by one.
const QUEUED_MAX: usize = 4_096;

/// The way to callers who wait for one acknowledgement each, on a runtime of their own: a task there wakes them. Waking a task of
/// another runtime costs a system call each time; this costs one for all that are acknowledged together.
#[derive(Debug, Clone)]
pub(crate) struct AckDispatcher {
    queue: mpsc::Sender<(oneshot::Sender<AckOutcome>, AckOutcome)>,
}

impl AckDispatcher {
    /// Starts the task on the runtime that this is called in. It ends with the last clone.
    pub(crate) fn start() -> Self {
        let (sender, mut queue) = mpsc::channel::<(oneshot::Sender<AckOutcome>, AckOutcome)>(QUEUED_MAX);
        tasks::spawn_here(async move {
            while let Some((caller, outcome)) = queue.recv().await {
                // Whoever waited may have given up.
                let _ = caller.send(outcome);
            }
        });
        Self { queue: sender }
    }

    fn send(&self, caller: oneshot::Sender<AckOutcome>, outcome: AckOutcome) {
        if let Err(TrySendError::Full((caller, outcome)) | TrySendError::Closed((caller, outcome))) =
            self.queue.try_send((caller, outcome))
        {
            // Whoever waited may have given up.
            let _ = caller.send(outcome);
        }
    }
}

/// Where an acknowledgement goes. Dropped unused, as by a call that is given up before its publish is queued, it sends nothing.
#[derive(Debug)]
pub(crate) enum Slot {
    /// Among those of a stream.
    Stream(mpsc::OwnedPermit<Ack>),
    /// To the one who waits for it alone.
    Once(oneshot::Sender<AckOutcome>, AckDispatcher),
}

/// A reserved slot for one acknowledgement. Dropped unused, it sends that the outcome is unknown: its holder has
/// panicked or given up, and the publisher must not wait for ever.
#[derive(Debug)]
pub(crate) struct AckPermit {
    /// `None` once it is used.
    slot: Option<Slot>,
    correlation: u32,
    partition: PartitionId,
}

impl AckPermit {
    /// The slot for the acknowledgement of the publish with this header.
    pub(crate) fn new(slot: Slot, header: &PublishHeader) -> Self {
        Self { slot: Some(slot), correlation: header.correlation, partition: header.partition }
    }

    /// True if a thread may send it without waking anybody by itself.
    pub(super) fn is_dispatched(&self) -> bool {
        matches!(self.slot, Some(Slot::Once(..)))
    }

    /// Sends the acknowledgement.
    pub(crate) fn send(mut self, ack: Ack) {
        if let Some(slot) = self.slot.take() {
            slot.send(ack);
        }
    }

    /// Sends that the publish was refused.
    pub(crate) fn refuse(self, error: &Error) {
        let outcome = AckOutcome::Refused(error.refusal());
        let (correlation, partition) = (self.correlation, self.partition);
        self.send(Ack { correlation, partition, outcome });
    }
}

impl Slot {
    fn send(self, ack: Ack) {
        match self {
            Self::Stream(permit) => drop(permit.send(ack)),
            Self::Once(caller, dispatcher) => dispatcher.send(caller, ack.outcome),
        }
    }
}

impl Drop for AckPermit {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            let outcome = AckOutcome::Refused(Error::unanswered().refusal());
            slot.send(Ack { correlation: self.correlation, partition: self.partition, outcome });
        }
    }
}
