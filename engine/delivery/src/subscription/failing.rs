//! Deliveries that did not end well: what they count, when they come again, and what comes back with them.
//!
//! Owns attempts, returns, backoff and the rewind of ordered partitions. It must not know how the failure came to be
//! known.

use std::ops::Range;

use levada_protocol::ids::Timestamp;

use super::{
    Reason, Subscription,
    settle::{DeadLetter, Outcome},
};
use crate::progress::{History, RETURNS_MAX};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The consumer gave it back, perhaps for a time of its choice.
    Nack { delay_ms: Option<u32> },
    /// Nothing was heard in time.
    Timeout,
    /// The consumer's connection ended.
    ConsumerLost,
}

impl Subscription {
    /// Fails parts that were taken out of flight, each with its partition and token; answers how many events.
    pub(super) fn fail(
        &mut self,
        now: Timestamp,
        mut parts: Vec<(usize, Range<u64>, u64)>,
        cause: Cause,
        seed: u64,
    ) -> u64 {
        parts.sort_unstable_by_key(|(partition, range, _)| (*partition, range.start));
        let mut events = 0;
        for (partition, range, token) in parts {
            events += self.release(partition, &range, token);
            self.fail_part(now, partition, &range, cause, seed);
        }
        events
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

    fn fail_part(&mut self, now: Timestamp, partition: usize, range: &Range<u64>, cause: Cause, seed: u64) {
        let mut first_back = None;
        for events in self.drop_filtered(partition, range) {
            for (piece, history) in self.partitions[partition].progress.histories(&events) {
                if let Some(due) = self.fail_events(now, partition, &piece, history, cause, seed) {
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
        now: Timestamp,
        partition: usize,
        range: &Range<u64>,
        history: History,
        cause: Cause,
        seed: u64,
    ) -> Option<u64> {
        let counts = cause != Cause::ConsumerLost || history.is_alone();
        let attempts = history.attempts.saturating_add(u16::from(counts));
        if counts && attempts >= self.options.max_attempts {
            let reason =
                if cause == Cause::ConsumerLost { Reason::ConsumerLost } else { Reason::MaxAttempts };
            self.queue_dead(DeadLetter::new(now, partition, range, history, reason), None);
            return None;
        }
        let wait = match cause {
            Cause::Nack { delay_ms: Some(delay) } => u64::from(delay),
            _ if counts => self.options.backoff.delay_ms(attempts, seed ^ range.start),
            _ => 0,
        };
        let due = now.0.saturating_add(wait);
        let returned = match cause {
            Cause::ConsumerLost => (history.returned + 1).min(RETURNS_MAX),
            Cause::Nack { .. } | Cause::Timeout => 0,
        };
        let part = &mut self.partitions[partition];
        let failed = History {
            attempts,
            returned,
            first_failure_ms: history.first_failure_ms,
            not_before_ms: due,
            ..history
        };
        let failed = match (counts, history.attempts) {
            (true, 0) => History { first_failure_ms: now.0, last_failure_ms: now.0, ..failed },
            (true, _) => History { last_failure_ms: now.0, ..failed },
            (false, _) => failed,
        };
        part.progress.set_history(range, failed);
        part.waiting.add(range.clone(), due);
        self.touched.insert(partition);
        Some(due)
    }

    /// Takes everything in flight from an offset on back, for it must follow an event that failed. Not its own
    /// failure, so it counts nothing.
    fn rewind(&mut self, partition: usize, from: u64, due: u64) {
        for (range, flight) in self.partitions[partition].flights.take(&(from..u64::MAX), |_| true) {
            self.release(partition, &range, flight.token);
            for events in self.drop_filtered(partition, &range) {
                self.partitions[partition].waiting.add(events, due);
            }
        }
    }
}
