//! What consumers say about their deliveries.
//!
//! Owns the check of token and consumer, and what each verb does. It must not know frames; the refusals it answers
//! become their entries.

use std::ops::Range;

use levada_protocol::{
    error::ErrorCode,
    verbs::{Verb, VerbKind},
};

use super::{
    ConsumerId, Reason, Subscription,
    failing::Cause,
    partition::Flight,
    settle::{DeadLetter, Outcome},
};
use crate::now::Now;

/// A verb that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// How many events it was about.
    pub events: u64,
    /// It has taken effect durably once [`Subscription::confirmed`] reaches this.
    pub ticket: u64,
}

impl Subscription {
    /// Applies a verb. Offsets of its range that are not in flight with its token do not matter, as long as one
    /// event is. `seed` scatters the wait of a nack without delay.
    ///
    /// # Errors
    /// `DeliveryExpired` if no event of the range is in flight with this token at this consumer: it timed out, was
    /// given back or was settled before. No delivery is changed.
    pub fn verb(
        &mut self,
        now: Now,
        consumer: ConsumerId,
        verb: &Verb,
        seed: u64,
    ) -> Result<Applied, ErrorCode> {
        // Late or not, whoever says what became of a delivery is alive and works.
        if verb.kind != VerbKind::InProgress
            && let Some(place) = self.place_of(consumer)
        {
            self.consumers[place].heard();
        }
        let token = verb.token.0;
        let delivery = self.deliveries.get(&token).filter(|delivery| {
            delivery.consumer == consumer && delivery.partition == usize::from(verb.partition.0)
        });
        let delivery = delivery.ok_or(ErrorCode::DeliveryExpired)?;
        let (partition, within) = (delivery.partition, delivery.range.clone());
        let range = verb.first.0.max(within.start)..verb.last.0.saturating_add(1).min(within.end);
        if range.is_empty() {
            return Err(ErrorCode::DeliveryExpired);
        }
        let part = &mut self.partitions[partition];
        let range = part.widen(&range, &within);
        let own = |flight: &Flight| flight.token == token;
        let named = part.flights.parts_in(&range).filter(|(_, flight)| own(flight));
        let events = named.map(|(range, _)| part.events_in(&range)).sum();
        if events == 0 {
            return Err(ErrorCode::DeliveryExpired);
        }
        let taken = part.flights.take(&range, own);
        let (taken, filtered): (Vec<_>, Vec<_>) =
            taken.into_iter().partition(|(range, _)| part.events_in(range) > 0);
        if verb.kind == VerbKind::InProgress {
            let deadline = now.after(self.options.ack_timeout_ms);
            for (range, _) in taken {
                part.flights.insert(range, Flight { token, deadline });
            }
            filtered.into_iter().for_each(|(range, _)| self.queue(partition, range, Outcome::Dropped));
            return Ok(Applied { events, ticket: self.ticket });
        }
        self.ticket += 1;
        filtered.into_iter().for_each(|(range, _)| self.queue(partition, range, Outcome::Dropped));
        match &verb.kind {
            VerbKind::Ack => self.ack(partition, taken, token),
            VerbKind::Reject { reason } => self.reject(now, partition, taken, token, reason),
            VerbKind::Nack { delay_ms } => {
                let parts = taken.into_iter().map(|(range, _)| (partition, range, token)).collect();
                self.fail(now, parts, Cause::Nack { delay_ms: *delay_ms }, seed);
                self.touched.insert(partition);
            }
            VerbKind::InProgress => {}
        }
        Ok(Applied { events, ticket: self.ticket })
    }

    /// Every verb with a ticket up to this one has taken effect durably.
    pub fn confirmed(&self) -> u64 {
        self.confirmed
    }

    fn ack(&mut self, partition: usize, parts: Vec<(Range<u64>, Flight)>, token: u64) {
        for (range, _) in parts {
            self.hold_for_settling(token);
            self.release(partition, &range, token);
            self.queue(partition, range, Outcome::Acked { token });
        }
    }

    fn reject(
        &mut self,
        now: Now,
        partition: usize,
        parts: Vec<(Range<u64>, Flight)>,
        token: u64,
        reason: &str,
    ) {
        for (range, _) in parts {
            // The delivery outlives its release until what it rejects is queued.
            self.hold_for_settling(token);
            self.release(partition, &range, token);
            for events in self.drop_filtered(partition, &range) {
                for (piece, history) in self.partitions[partition].progress.histories(&events) {
                    let reason = Reason::Rejected { reason: reason.to_owned() };
                    self.queue_dead(
                        DeadLetter::new(now.wall, partition, &piece, history, reason),
                        Some(token),
                    );
                }
            }
            self.end_settling(token);
        }
    }
}
