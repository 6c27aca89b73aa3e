//! Under which ids a publisher's partitions publish: random ones, or those of a name that it has taken over.

use levada_protocol::{
    ids::{Epoch, ProducerId},
    request::OpenedProducer,
};

use crate::{clock, error::Error};

/// Whose batches they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) producer: ProducerId,
    /// 0 without a name.
    pub(super) epoch: Epoch,
}

/// Identities that nobody else has: one, and those after it.
#[derive(Debug, Clone)]
pub(crate) struct ProducerIds {
    next: Identity,
}

impl ProducerIds {
    /// Begins at a random identity.
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub(crate) fn random() -> Result<Self, Error> {
        clock::producer_id().map(Self::from)
    }

    /// Those of a name, as the engine has given them.
    ///
    /// # Errors
    /// If they are of no name.
    pub(crate) fn of_name(opened: OpenedProducer) -> Result<Self, Error> {
        let OpenedProducer { producer_id: producer, epoch } = opened;
        if epoch == 0 {
            return Err(Error::bad_answer("a producer's name was opened with epoch 0, expected 1 or more"));
        }
        Ok(Self { next: Identity { producer, epoch: Epoch(epoch) } })
    }

    /// True if another publisher may take the name over.
    pub(super) fn are_of_a_name(&self) -> bool {
        self.next.epoch.0 > 0
    }

    /// How often the name was taken, this time included; `None` without a name.
    pub(super) fn epoch(&self) -> Option<u32> {
        self.are_of_a_name().then_some(self.next.epoch.0)
    }

    /// One that was never used.
    pub(super) fn fresh(&mut self) -> Identity {
        let fresh = self.next;
        self.next.producer = if self.are_of_a_name() {
            fresh.producer.next_of_base()
        } else {
            ProducerId(fresh.producer.0.wrapping_add(1).max(1))
        };
        fresh
    }
}

impl From<ProducerId> for ProducerIds {
    fn from(first: ProducerId) -> Self {
        Self { next: Identity { producer: first, epoch: Epoch(0) } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_of_a_name_stay_within_it_and_random_ones_are_never_0() {
        let last = ProducerId(7 << 32 | u128::from(u32::MAX));
        let opened = OpenedProducer { producer_id: last, epoch: 3 };
        let mut named = ProducerIds::of_name(opened).unwrap();
        assert_eq!(named.fresh(), Identity { producer: last, epoch: Epoch(3) });
        assert_eq!(named.fresh(), Identity { producer: ProducerId(7 << 32), epoch: Epoch(3) });
        assert_eq!(named.epoch(), Some(3));
        assert!(ProducerIds::of_name(OpenedProducer { epoch: 0, ..opened }).is_err());
        let mut random = ProducerIds::from(ProducerId(u128::MAX));
        assert_eq!(random.epoch(), None);
        assert_eq!(random.fresh().producer, ProducerId(u128::MAX));
        assert_eq!(random.fresh(), Identity { producer: ProducerId(1), epoch: Epoch(0) });
    }
}
