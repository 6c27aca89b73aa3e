//! What became of a read: sent, filtered, failed in the chain, or given up.
//!
//! Owns the step from fresh or waiting to in flight. It must not know events or frames, only their offsets and sizes.

use std::ops::Range;

use levada_protocol::ids::{DeliveryToken, Offset, Timestamp};

use super::{
    Delivery, Reason, Subscription,
    next::{Wanted, WantedKind},
    partition::Flight,
    settle::{DeadLetter, Outcome},
};
use crate::{now::Now, ranges::RangeSet};

/// What the owner is about to send of what was wanted: everything from its first offset to `last` that is neither
/// `filtered` nor `failed`.
#[derive(Debug, Clone, Copy)]
pub struct Sent<'a> {
    /// The last offset that this covers, included.
    pub last: Offset,
    /// Bytes of the frame's payload.
    pub bytes: u64,
    /// Offsets that the chain dropped or that the log does not hold. They count as acknowledged.
    pub filtered: &'a [Range<Offset>],
    /// Offsets that the chain failed on and that become dead letters, disjoint from `filtered`.
    pub failed: &'a [Failed],
}

/// Offsets that become dead letters without having been delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// The first offset.
    pub first: Offset,
    /// The last offset, included.
    pub last: Offset,
    /// Why.
    pub reason: Reason,
}

/// A delivery that is in flight from now on: send it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    /// What verbs about it must carry.
    pub token: DeliveryToken,
    /// Which attempt it is, from 1.
    pub attempt: u16,
    /// How many events.
    pub events: u64,
}

impl Subscription {
    /// Puts what was read in flight. `None` means send nothing: all of it was filtered or failed, or the world has
    /// moved on since it was wanted (its consumer is gone, an earlier event came back, retention took it).
    ///
    /// # Panics
    /// If more is sent than was wanted.
    pub fn delivered(&mut self, now: Now, wanted: Wanted, sent: Sent<'_>) -> Option<Delivered> {
        let place = usize::from(wanted.partition.0);
        if !self.end_read(&wanted) {
            return None;
        }
        assert!(
            wanted.first <= sent.last && sent.last <= wanted.last,
            "what is sent lies within what was wanted"
        );
        let range = wanted.first.0..sent.last.0 + 1;
        let part = &mut self.partitions[place];
        match wanted.kind {
            WantedKind::Fresh => part.cursor = range.end,
            WantedKind::Again { .. } => drop(part.waiting.take(&range)),
        }
        self.note_fresh(place);
        let part = &mut self.partitions[place];
        for filtered in sent.filtered {
            part.dropped.insert(cut(filtered.start.0..filtered.end.0, &range));
        }
        self.note_waiting(place);
        let failed = self.bury_failed(now.wall, place, &range, sent.failed);
        let mut flights = Vec::new();
        let mut events = 0;
        for (piece, _) in failed.pieces(&range).into_iter().filter(|(_, failed)| !failed) {
            match self.partitions[place].events_in(&piece) {
                0 => self.queue(place, piece, Outcome::Dropped),
                some => {
                    events += some;
                    flights.push(piece);
                }
            }
        }
        assert!(events <= wanted.events_max, "{events} events are sent, {} were wanted", wanted.events_max);
        (events > 0).then(|| self.put_in_flight(now, &wanted, range, flights, events, sent.bytes))
    }

    /// Ends a read of which everything up to `last` was filtered.
    pub fn filtered(&mut self, now: Now, wanted: Wanted, last: Offset) {
        let all = [wanted.first..last.plus(1)];
        let sent = self.delivered(now, wanted, Sent { last, bytes: 0, filtered: &all, failed: &[] });
        debug_assert!(sent.is_none(), "what is filtered is not sent");
    }

    /// Ends a read of which nothing came. The same will be wanted again at once: find out why first.
    pub fn abandon(&mut self, wanted: Wanted) {
        self.end_read(&wanted);
    }

    /// Gives back what was set aside for a read; true if it is still wanted.
    fn end_read(&mut self, wanted: &Wanted) -> bool {
        let part = &mut self.partitions[usize::from(wanted.partition.0)];
        let current = part.reading.take() == Some(wanted.read);
        assert!(current, "one read at a time goes on in a partition");
        let Some(consumer) = self.consumers.iter_mut().find(|it| it.id == wanted.consumer) else {
            return false;
        };
        consumer.unreserve(wanted.room());
        consumer.alone &= !wanted.is_alone();
        // A failed commit may have brought acknowledged events back meanwhile.
        let in_flight = consumer.in_flight.saturating_add(wanted.events_max);
        if consumer.alone || in_flight > self.options.max_in_flight {
            return false;
        }
        let idle = consumer.in_flight == 0;
        let ordered = self.is_ordered();
        if ordered && self.consumers.first().is_none_or(|active| active.id != wanted.consumer) {
            return false;
        }
        let part = &self.partitions[usize::from(wanted.partition.0)];
        match wanted.kind {
            WantedKind::Fresh => part.cursor == wanted.first.0 && (part.waiting.is_empty() || !ordered),
            WantedKind::Again { alone, .. } => {
                let leads = part.waiting.first().is_some_and(|(run, _)| run.start == wanted.first.0);
                part.waiting.covers(&(wanted.first.0..wanted.last.0 + 1))
                    && (leads || !ordered)
                    && (idle || !alone)
            }
        }
    }

    /// Makes dead letters of what the chain failed on; answers the offsets.
    fn bury_failed(
        &mut self,
        now: Timestamp,
        partition: usize,
        range: &Range<u64>,
        failed: &[Failed],
    ) -> RangeSet {
        let mut buried = RangeSet::default();
        for failure in failed {
            let offsets = cut(failure.first.0..failure.last.0.saturating_add(1), range);
            buried.insert(offsets.clone());
            for (piece, history) in self.partitions[partition].progress.histories(&offsets) {
                let letter = DeadLetter::new(now, partition, &piece, history, failure.reason.clone());
                self.queue_dead(letter, None);
            }
        }
        buried
    }

    fn put_in_flight(
        &mut self,
        now: Now,
        wanted: &Wanted,
        range: Range<u64>,
        flights: Vec<Range<u64>>,
        events: u64,
        bytes: u64,
    ) -> Delivered {
        let (token, partition) = (self.token(), usize::from(wanted.partition.0));
        let deadline = now.after(self.options.ack_timeout_ms);
        for flight in flights {
            self.partitions[partition].flights.insert(flight, Flight { token: token.0, deadline });
        }
        self.timers.insert((deadline, token.0));
        let alone = wanted.is_alone();
        let consumer = wanted.consumer;
        let place = self.place_of(consumer).expect("a read ends in vain when its consumer is gone");
        let number = self.consumers[place].take(events, bytes);
        self.consumers[place].alone |= alone;
        let (settling, sent_at, timer) = (0, now.mono_ms, deadline);
        let delivery =
            Delivery { consumer, number, sent_at, partition, range, bytes, events, settling, alone, timer };
        self.deliveries.insert(token.0, delivery);
        if wanted.kind != WantedKind::Fresh {
            self.totals.redelivered += events;
        }
        Delivered { token, attempt: wanted.attempt(), events }
    }
}

fn cut(range: Range<u64>, within: &Range<u64>) -> Range<u64> {
    let start = range.start.clamp(within.start, within.end);
    start..range.end.clamp(start, within.end)
}
