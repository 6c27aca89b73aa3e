//! A reserved slot for one acknowledgement; dropping it unused sends `OUTCOME_UNKNOWN`. So every publish gets one.

use levada_protocol::{
    ids::PartitionId,
    publish::{Ack, AckOutcome, PublishHeader},
};
use tokio::sync::mpsc;

use crate::error::Error;

/// A reserved slot for one acknowledgement. Dropped unused, it sends that the outcome is unknown: its holder has
/// panicked or given up, and the publisher must not wait for ever.
#[derive(Debug)]
pub(crate) struct AckPermit {
    /// `None` once it is used.
    permit: Option<mpsc::OwnedPermit<Ack>>,
    correlation: u32,
    partition: PartitionId,
}

impl AckPermit {
    /// The slot for the acknowledgement of the publish with this header.
    pub(crate) fn new(permit: mpsc::OwnedPermit<Ack>, header: &PublishHeader) -> Self {
        Self { permit: Some(permit), correlation: header.correlation, partition: header.partition }
    }

    /// Sends the acknowledgement.
    pub(crate) fn send(mut self, ack: Ack) {
        if let Some(permit) = self.permit.take() {
            permit.send(ack);
        }
    }
}

impl Drop for AckPermit {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            let outcome = AckOutcome::Refused(Error::unanswered().refusal());
            permit.send(Ack { correlation: self.correlation, partition: self.partition, outcome });
        }
    }
}
