//! The events that a transaction acknowledges, held until its outcome is known.

use levada_protocol::{
    error::{ErrorCode, Refusal},
    limits::TRANSACTION_ACKS_MAX,
    request::{AckedDelivery, TransactionAcks},
};

use crate::{delivered::DeliveredEvent, delivery::Delivery, error::Error, subscriber::Of};

/// Events of one subscription that are acknowledged together.
#[derive(Debug, Default)]
pub(super) struct AckedEvents {
    of: Option<Of>,
    events: Vec<DeliveredEvent>,
    deliveries: Vec<Delivery>,
    told: Vec<AckedDelivery>,
}

impl AckedEvents {
    pub(super) fn add(&mut self, event: DeliveredEvent) -> Result<(), Error> {
        self.note(Some(event.of().clone()), event.acked())?;
        self.events.push(event);
        Ok(())
    }

    pub(super) fn add_delivery(&mut self, delivery: Delivery) -> Result<(), Error> {
        self.note(delivery.of().cloned(), delivery.acked())?;
        self.deliveries.push(delivery);
        Ok(())
    }

    fn note(&mut self, of: Option<Of>, acked: Option<AckedDelivery>) -> Result<(), Error> {
        let Some(of) = of else {
            let what = "expected a delivery of a subscriber to acknowledge, got one of a reader".to_owned();
            return Err(Error::Config { what });
        };
        let expected = self.of.get_or_insert_with(|| of.clone());
        if *expected != of {
            let what = format!(
                "expected an event of subscription {}/{}, as those before, got one of {}/{}: a transaction acknowledges events of \
                 one subscription",
                expected.topic, expected.subscription, of.topic, of.subscription
            );
            return Err(Error::Config { what });
        }
        let gone = || Refusal::new(ErrorCode::DeliveryExpired, "the event is no longer this consumer's");
        tell(&mut self.told, acked.ok_or_else(gone)?)?;
        Ok(())
    }

    /// What the engine is told; `None` if nothing is acknowledged.
    pub(super) fn told(&self) -> Option<TransactionAcks> {
        let Of { topic, subscription } = self.of.clone()?;
        (!self.told.is_empty()).then(|| TransactionAcks {
            topic,
            subscription,
            deliveries: self.told.clone(),
        })
    }

    /// They are acknowledged.
    pub(super) fn settle(self) {
        self.events.into_iter().for_each(DeliveredEvent::settle);
        self.deliveries.iter().for_each(Delivery::settle);
    }

    /// They are delivered again, after the subscription's backoff.
    pub(super) fn give_back(self) {
        self.events.into_iter().for_each(|event| event.nack(None));
        self.deliveries.iter().for_each(|delivery| delivery.nack(delivery.range(), None));
    }
}

/// Adds what is acknowledged; what follows on the last one in the same delivery becomes one with it.
fn tell(told: &mut Vec<AckedDelivery>, acked: AckedDelivery) -> Result<(), Refusal> {
    if let Some(last) = told.last_mut()
        && (last.partition, last.token) == (acked.partition, acked.token)
        && last.last.checked_add(1) == Some(acked.first)
    {
        last.last = acked.last;
        last.events += acked.events;
        return Ok(());
    }
    if told.len() == TRANSACTION_ACKS_MAX {
        let message = format!(
            "expected at most {TRANSACTION_ACKS_MAX} deliveries or parts of them that the transaction acknowledges, got one \
             more: commit it, and go on with another"
        );
        return Err(Refusal::new(ErrorCode::TransactionTooLarge, message));
    }
    told.push(acked);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acked(token: u64, first: u64, last: u64) -> AckedDelivery {
        AckedDelivery { partition: 0, token, first, last, events: last - first + 1 }
    }

    #[test]
    fn neighbours_of_one_delivery_are_told_as_one_and_there_is_a_limit_of_them() {
        let mut told = Vec::new();
        for (token, first, last) in [(1, 0, 0), (1, 1, 4), (1, 6, 6), (2, 7, 7), (2, 8, 8)] {
            tell(&mut told, acked(token, first, last)).unwrap();
        }
        assert_eq!(told, [acked(1, 0, 4), acked(1, 6, 6), acked(2, 7, 8)]);
        for token in 3.. {
            if told.len() == TRANSACTION_ACKS_MAX {
                break;
            }
            tell(&mut told, acked(token, 0, 0)).unwrap();
        }
        let last = *told.last().unwrap();
        tell(&mut told, AckedDelivery { first: last.last + 1, last: last.last + 1, ..last }).unwrap();
        assert_eq!(tell(&mut told, acked(9_999, 0, 0)).unwrap_err().code, ErrorCode::TransactionTooLarge);
        assert_eq!(told.len(), TRANSACTION_ACKS_MAX);
    }
}
