//! What consumers have granted and not got yet, and how much their streams were given.

use std::collections::BTreeMap;

use super::{super::ConsumerId, events::Events};

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
    /// Events and bytes of each delivery, by its token.
    sizes: BTreeMap<u64, (u64, u64)>,
}

impl Credits {
    pub(super) fn of(&self, consumer: ConsumerId) -> Credit {
        self.of.get(&consumer).copied().unwrap_or_default()
    }

    pub(super) fn grant(&mut self, consumer: ConsumerId, events: u64, bytes: u64) {
        let credit = self.of.entry(consumer).or_default();
        (credit.events, credit.bytes) = (credit.events + events, credit.bytes + bytes as i64);
    }

    /// What is in flight at a consumer, by the events' shares of their deliveries.
    pub(super) fn bytes_in_flight(&self, events: &Events, consumer: ConsumerId) -> u64 {
        let mut in_flight = BTreeMap::new();
        for event in events.iter().filter(|event| event.at.holder() == Some(consumer)) {
            *in_flight.entry(event.at.token().expect("it is in flight")).or_insert(0) += 1;
        }
        let share = |(token, count): (u64, u64)| self.sizes[&token].1 * count / self.sizes[&token].0;
        in_flight.into_iter().map(share).sum()
    }

    /// Charges a delivery, for which there must be credit.
    pub(super) fn charge(&mut self, consumer: ConsumerId, token: u64, events: u64, bytes: u64) {
        self.sizes.insert(token, (events, bytes));
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
