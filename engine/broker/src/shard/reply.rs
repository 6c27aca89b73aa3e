//! The place of a publish's acknowledgement: whatever becomes of the publish, it is answered.
//!
//! It owns nothing but the duty. It must not know what is decided.

use levada_protocol::{
    ids::PartitionId,
    publish::{Ack, AckOutcome, PublishHeader},
};
use tokio::sync::mpsc;

use crate::error::Error;

/// A reserved place for one acknowledgement. One that is dropped unused says that the outcome is unknown: whoever
/// held it has panicked or given up, and the publisher must not wait for ever.
#[derive(Debug)]
pub(crate) struct AckPermit {
    /// Taken when it is used.
    permit: Option<mpsc::OwnedPermit<Ack>>,
    correlation: u32,
    partition: PartitionId,
}

impl AckPermit {
    /// The place of the acknowledgement for the publish with this header.
    pub(crate) fn new(permit: mpsc::OwnedPermit<Ack>, header: &PublishHeader) -> Self {
        Self { permit: Some(permit), correlation: header.correlation, partition: header.partition }
    }

    /// Answers the publish.
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
