//! Deliveries that are not over: which consumer has which, how large each is, and when to look for timeouts.
//!
//! It must not know which offsets are in flight: the partitions do.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use super::consumer::{ConsumerId, Resized, Room, Share};

/// One delivery, until all its events are settled or given back.
#[derive(Debug)]
pub(super) struct Delivery {
    consumer: ConsumerId,
    /// Its number among its consumer's deliveries, from 1.
    number: u64,
    /// On the monotonic clock.
    sent_at: u64,
    partition: usize,
    /// From its first offset to behind its last; others may have some of those between.
    range: Range<u64>,
    /// Of all its events, of which so many were in flight at first.
    bytes: u64,
    sent: u64,
    /// Events in flight.
    events: u64,
    /// Parts in the settle queue or in the commit under way that would return to flight if that failed.
    settling: usize,
    alone: bool,
    timer: u64,
}

/// What a new delivery is.
#[derive(Debug)]
pub(super) struct NewDelivery {
    pub(super) consumer: ConsumerId,
    pub(super) number: u64,
    pub(super) sent_at: u64,
    pub(super) partition: usize,
    pub(super) range: Range<u64>,
    pub(super) bytes: u64,
    pub(super) events: u64,
    pub(super) alone: bool,
}

impl Delivery {
    /// Bytes of its events in flight, by their share of it.
    fn bytes_in_flight(&self) -> u64 {
        let share = u128::from(self.bytes) * u128::from(self.events) / u128::from(self.sent.max(1));
        u64::try_from(share).unwrap_or(u64::MAX)
    }

    pub(super) fn consumer(&self) -> ConsumerId {
        self.consumer
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn sent_at(&self) -> u64 {
        self.sent_at
    }

    /// True if none of its events is in flight.
    pub(super) fn is_over(&self) -> bool {
        self.events == 0
    }

    /// How many events it had at first.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    pub(super) fn partition(&self) -> usize {
        self.partition
    }

    pub(super) fn range(&self) -> &Range<u64> {
        &self.range
    }
}

/// All deliveries by token, with their timers.
#[derive(Debug)]
pub(super) struct Deliveries {
    by_token: BTreeMap<u64, Delivery>,
    /// Deadline on the monotonic clock, and token. A delivery's entry may be early, never late.
    timers: BTreeSet<(u64, u64)>,
    last_token: u64,
}

impl Deliveries {
    /// None yet; tokens are counted from `token_seed`.
    pub(super) fn new(token_seed: u64) -> Self {
        Self { by_token: BTreeMap::new(), timers: BTreeSet::new(), last_token: token_seed }
    }

    /// The token that the next delivery gets.
    pub(super) fn next_token(&self) -> u64 {
        self.last_token.wrapping_add(1)
    }

    /// Adds a delivery that times out at `deadline`; returns its token.
    pub(super) fn add(&mut self, new: NewDelivery, deadline: u64) -> u64 {
        let token = self.next_token();
        self.last_token = token;
        let NewDelivery { consumer, number, sent_at, partition, range, bytes, events, alone } = new;
        let (settling, timer, sent) = (0, deadline, events);
        let delivery = Delivery {
            consumer,
            number,
            sent_at,
            partition,
            range,
            bytes,
            sent,
            events,
            settling,
            alone,
            timer,
        };
        self.by_token.insert(token, delivery);
        self.timers.insert((deadline, token));
        token
    }

    pub(super) fn get(&self, token: u64) -> Option<&Delivery> {
        self.by_token.get(&token)
    }

    /// All tokens of a consumer's deliveries.
    pub(super) fn of(&self, consumer: ConsumerId) -> Vec<u64> {
        let own = self.by_token.iter().filter(|(_, delivery)| delivery.consumer == consumer);
        own.map(|(token, _)| *token).collect()
    }

    /// Sets a delivery's real size, if it still has events in flight; returns its consumer, and what changes.
    pub(super) fn resize(&mut self, token: u64, bytes: u64) -> Option<(ConsumerId, Resized)> {
        let delivery = self.by_token.get_mut(&token).filter(|delivery| delivery.events > 0)?;
        let (whole, in_flight) = (delivery.bytes, delivery.bytes_in_flight());
        delivery.bytes = bytes;
        let resized = Resized { whole: (whole, bytes), in_flight: (in_flight, delivery.bytes_in_flight()) };
        Some((delivery.consumer, resized))
    }

    /// A delivery did not get into its consumer's stream: those made to it since move up by one there. Returns the consumer,
    /// and what it was charged.
    pub(super) fn unsend(&mut self, token: u64) -> Option<(ConsumerId, Room)> {
        let delivery = self.by_token.get(&token)?;
        let (consumer, number) = (delivery.consumer, delivery.number);
        let charged = Room { events: delivery.sent, bytes: delivery.bytes };
        let later = self.by_token.values_mut().filter(|it| it.consumer == consumer && it.number > number);
        later.for_each(|it| it.number -= 1);
        Some((consumer, charged))
    }

    /// Takes events out of flight; returns the consumer, and what it has less in flight.
    pub(super) fn release(&mut self, token: u64, events: u64) -> (ConsumerId, Share) {
        let delivery = self.by_token.get_mut(&token).expect("what is in flight has a delivery");
        let before = delivery.bytes_in_flight();
        delivery.events -= events;
        let (consumer, ended) = (delivery.consumer, delivery.events == 0);
        let share =
            Share { events, bytes: before - delivery.bytes_in_flight(), alone: ended && delivery.alone };
        if ended {
            self.timers.remove(&(delivery.timer, token));
            if delivery.settling == 0 {
                self.by_token.remove(&token);
            }
        }
        (consumer, share)
    }

    /// Puts events back in flight until `deadline`; returns what its consumer has more in flight.
    pub(super) fn restore(&mut self, token: u64, events: u64, deadline: u64) -> Option<Share> {
        let delivery = self.by_token.get_mut(&token)?;
        let (began, before) = (delivery.events == 0, delivery.bytes_in_flight());
        delivery.events += events;
        let share =
            Share { events, bytes: delivery.bytes_in_flight() - before, alone: began && delivery.alone };
        if began {
            self.set_timer(token, deadline);
        } else {
            self.keep_until(token, deadline);
        }
        Some(share)
    }

    /// A part of a delivery that has a timer is in flight until `deadline`, which may be earlier than that of the others.
    pub(super) fn keep_until(&mut self, token: u64, deadline: u64) {
        if let Some(delivery) = self.by_token.get_mut(&token).filter(|delivery| deadline < delivery.timer) {
            self.timers.remove(&(delivery.timer, token));
            self.set_timer(token, deadline);
        }
    }

    /// Keeps a delivery while a part of it settles.
    pub(super) fn begin_settling(&mut self, token: u64) {
        if let Some(delivery) = self.by_token.get_mut(&token) {
            delivery.settling += 1;
        }
    }

    /// A part of a delivery has settled, or has returned.
    pub(super) fn end_settling(&mut self, token: u64) {
        if let Some(delivery) = self.by_token.get_mut(&token) {
            delivery.settling -= 1;
            if delivery.settling == 0 && delivery.events == 0 {
                self.by_token.remove(&token);
            }
        }
    }

    /// When to look for timeouts next.
    pub(super) fn next_timer(&self) -> Option<u64> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// A delivery whose timer has run out; it needs a new one if something of it stays in flight.
    pub(super) fn pop_timer(&mut self, now: u64) -> Option<u64> {
        let (at, token) = self.timers.first().copied().filter(|(at, _)| *at <= now)?;
        self.timers.remove(&(at, token));
        Some(token)
    }

    pub(super) fn set_timer(&mut self, token: u64, deadline: u64) {
        if let Some(delivery) = self.by_token.get_mut(&token) {
            delivery.timer = deadline;
            self.timers.insert((deadline, token));
        }
    }
}

#[cfg(test)]
impl Deliveries {
    pub(super) fn is_empty(&self) -> bool {
        self.by_token.is_empty()
    }

    /// The tokens that have a timer.
    pub(super) fn timed(&self) -> BTreeSet<u64> {
        self.timers.iter().map(|(_, token)| *token).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(events: u64) -> NewDelivery {
        let (consumer, range) = (ConsumerId(1), 0..events);
        NewDelivery { consumer, number: 1, sent_at: 0, partition: 0, range, bytes: 30, events, alone: false }
    }

    #[test]
    fn a_delivery_lasts_until_nothing_of_it_is_in_flight_or_settles() {
        let mut deliveries = Deliveries::new(7);
        let token = deliveries.add(new(3), 100);
        assert_eq!(token, 8);
        let share = |events, bytes| Share { events, bytes, alone: false };
        let resized = Resized { whole: (30, 40), in_flight: (30, 40) };
        assert_eq!(deliveries.resize(token, 40), Some((ConsumerId(1), resized)));
        deliveries.begin_settling(token);
        assert_eq!(deliveries.release(token, 2), (ConsumerId(1), share(2, 27)));
        assert_eq!(deliveries.release(token, 1), (ConsumerId(1), share(1, 13)));
        assert!(deliveries.get(token).is_some() && deliveries.next_timer().is_none());
        assert_eq!(deliveries.restore(token, 2, 200), Some(share(2, 26)));
        assert_eq!(deliveries.next_timer(), Some(200));
        deliveries.end_settling(token);
        deliveries.release(token, 2);
        assert!(deliveries.is_empty());
    }

    #[test]
    fn timers_run_out_in_order_and_can_be_set_again() {
        let mut deliveries = Deliveries::new(0);
        let (late, early) = (deliveries.add(new(1), 200), deliveries.add(new(1), 100));
        assert_eq!(deliveries.pop_timer(99), None);
        assert_eq!(deliveries.pop_timer(100), Some(early));
        deliveries.set_timer(early, 300);
        assert_eq!(deliveries.pop_timer(1_000), Some(late));
        assert_eq!(deliveries.next_timer(), Some(300));
    }
}
