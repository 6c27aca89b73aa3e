//! The events that a transaction acknowledges, held until its outcome is known.

use levada_protocol::{
    error::{ErrorCode, Refusal},
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
        self.told.push(acked.ok_or_else(gone)?);
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
