//! Deliveries that did not end well: what they count, when they come again, and what comes back with them.
//!
//! Owns attempts, returns, backoff and the rewind of ordered partitions. It must not know how the failure came to be
//! known.

use std::ops::Range;

use super::{
    ConsumerId, Reason, Subscription,
    settle::{DeadLetter, Outcome},
    waiting::Wait,
};
use crate::{
    now::Now,
    progress::{History, RETURNS_MAX},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The consumer gave it back, perhaps for a time of its choice.
    Nack { delay_ms: Option<u32> },
    /// Nothing was heard in time.
    Timeout,
    /// The consumer's connection ended.
    ConsumerLost,
    /// One of the last two, and the consumer's stream had not even taken the delivery: that says nothing of the event.
    Untaken,
}

/// How a delivery failed.
#[derive(Debug, Clone, Copy)]
struct Failure {
    cause: Cause,
    /// Who had it, if it is still there.
    by: Option<ConsumerId>,
    seed: u64,
}

impl Subscription {
    /// Fails parts that were taken out of flight, each with its partition and token; answers how many events.
    pub(super) fn fail(
        &mut self,
        now: Now,
        mut parts: Vec<(usize, Range<u64>, u64)>,
        cause: Cause,
        seed: u64,
    ) -> u64 {
        parts.sort_unstable_by_key(|(partition, range, _)| (*partition, range.start));
        let mut events = 0;
        for (partition, range, token) in parts {
            let failure = self.failure(token, cause, seed);
            events += self.release(partition, &range, token);
            self.fail_part(now, partition, &range, failure);
        }
        events
    }

    fn failure(&self, token: u64, cause: Cause, seed: u64) -> Failure {
        let delivery = self.deliveries.get(&token).expect("what is in flight has a delivery");
        let holder = self.consumers.iter().find(|it| it.id == delivery.consumer);
        let untaken = holder.is_some_and(|it| !it.has_taken(delivery.number));
        let by = (cause != Cause::ConsumerLost).then_some(delivery.consumer);
        let cause = match cause {
            Cause::Timeout | Cause::ConsumerLost if untaken => Cause::Untaken,
            _ => cause,
        };
        Failure { cause, by, seed }
    }

    /// Settles the filtered offsets of a part that leaves flight; answers its events.
    pub(super) fn drop_filtered(&mut self, partition: usize, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut events = Vec::new();
        for (piece, filtered) in self.partitions[partition].dropped.pieces(range) {
            if filtered {
                self.queue(partition, piece, Outcome::Dropped);
            } else {
                events.push(piece);
            }
        }
        events
    }

    fn fail_part(&mut self, now: Now, partition: usize, range: &Range<u64>, failure: Failure) {
        let mut first_back = None;
        for events in self.drop_filtered(partition, range) {
            for (piece, history) in self.partitions[partition].progress.histories(&events) {
                if let Some(due) = self.fail_events(now, partition, &piece, history, failure) {
                    first_back.get_or_insert((piece.start, due));
                }
            }
        }
        if let Some((from, due)) = first_back.filter(|_| self.is_ordered()) {
            self.rewind(partition, from, due);
        }
        self.note_waiting(partition);
    }

    /// Gives events another try, or up; answers when they are due again.
    fn fail_events(
        &mut self,
        now: Now,
        partition: usize,
        range: &Range<u64>,
        history: History,
        Failure { cause, by, seed }: Failure,
    ) -> Option<u64> {
        let counts = match cause {
            Cause::Nack { .. } | Cause::Timeout => true,
            Cause::ConsumerLost => history.is_alone(),
            Cause::Untaken => {
                self.partitions[partition].waiting.add(range.clone(), Wait { due: now.mono_ms, by });
                return Some(now.mono_ms);
            }
        };
        let attempts = history.attempts.saturating_add(u16::from(counts));
        if counts && attempts >= self.options.max_attempts {
            let reason =
                if cause == Cause::ConsumerLost { Reason::ConsumerLost } else { Reason::MaxAttempts };
            self.queue_dead(DeadLetter::new(now.wall, partition, range, history, reason), None);
            return None;
        }
        let wait = match cause {
            Cause::Nack { delay_ms: Some(delay) } => u64::from(delay),
            // The timeout was the wait.
            Cause::Timeout => 0,
            _ if counts => self.options.backoff.delay_ms(attempts, seed ^ range.start),
            _ => 0,
        };
        let due = now.after(wait);
        let returned = if cause == Cause::ConsumerLost { (history.returned + 1).min(RETURNS_MAX) } else { 0 };
        let part = &mut self.partitions[partition];
        let failed = History {
            attempts,
            returned,
            first_failure_ms: history.first_failure_ms,
            not_before_ms: if wait == 0 { 0 } else { now.wall.0.saturating_add(wait) },
            ..history
        };
        let failed = match (counts, history.attempts) {
            (true, 0) => History { first_failure_ms: now.wall.0, last_failure_ms: now.wall.0, ..failed },
            (true, _) => History { last_failure_ms: now.wall.0, ..failed },
            (false, _) => failed,
        };
        part.progress.set_history(range, failed);
        part.waiting.add(range.clone(), Wait { due, by });
        self.touched.insert(partition);
        Some(due)
    }

    /// Takes everything in flight from an offset on back, for it must follow an event that failed. Not its own
    /// failure, so it counts nothing.
    fn rewind(&mut self, partition: usize, from: u64, due: u64) {
        for (range, flight) in self.partitions[partition].flights.take(&(from..u64::MAX), |_| true) {
            self.release(partition, &range, flight.token);
            for events in self.drop_filtered(partition, &range) {
                self.partitions[partition].waiting.add(events, Wait { due, by: None });
            }
        }
    }
}
