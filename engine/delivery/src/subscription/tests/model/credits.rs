//! What consumers have granted and not got yet, and how much their streams were given.

use std::collections::BTreeMap;

use super::super::ConsumerId;

/// Of one consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Credit {
    pub(super) events: u64,
    pub(super) bytes: i64,
    /// Deliveries that its stream was given.
    pub(super) streamed: u64,
}

#[derive(Debug, Default)]
pub(super) struct Credits {
    of: BTreeMap<ConsumerId, Credit>,
}

impl Credits {
    pub(super) fn of(&self, consumer: ConsumerId) -> Credit {
        self.of.get(&consumer).copied().unwrap_or_default()
    }

    pub(super) fn grant(&mut self, consumer: ConsumerId, events: u64, bytes: u64) {
        let credit = self.of.entry(consumer).or_default();
        (credit.events, credit.bytes) = (credit.events + events, credit.bytes + bytes as i64);
    }

    /// Charges a delivery, for which there must be credit.
    pub(super) fn charge(&mut self, consumer: ConsumerId, events: u64, bytes: u64) {
        let credit = self.of.entry(consumer).or_default();
        assert!(credit.events >= events && credit.bytes > 0, "{credit:?} for {events} events");
        (credit.events, credit.bytes) = (credit.events - events, credit.bytes - bytes as i64);
        credit.streamed += 1;
    }

    /// A delivery that was charged did not get into the stream.
    pub(super) fn restore(&mut self, consumer: ConsumerId, events: u64, bytes: u64) {
        self.grant(consumer, events, bytes);
        self.of.entry(consumer).or_default().streamed -= 1;
    }
}
