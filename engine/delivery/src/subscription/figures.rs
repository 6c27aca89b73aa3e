//! What an operator wants to know about a subscription.
//!
//! Owns the counters and how figures follow from the state. It must not know metrics or their names.

use levada_protocol::ids::{Offset, PartitionId};

use super::Subscription;

/// Figures over all partitions. Counts are since the engine started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Events whose end is not durable: neither acknowledged nor filtered nor lost nor dead letters.
    pub lag: u64,
    /// Events delivered and not answered yet.
    pub in_flight: u64,
    /// Events that wait for redelivery.
    pub waiting: u64,
    /// Events delivered when they, or what stood before them, had been delivered before; after a restart, when they
    /// may have been.
    pub redelivered: u64,
    /// Events whose consumer was not heard of in time.
    pub expired: u64,
    /// Events that went to the dead-letter topic, durably.
    pub dead_lettered: u64,
    /// Events that retention took first.
    pub lost: u64,
}

/// Figures of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionFigures {
    /// The oldest offset that is not durably settled.
    pub floor: Offset,
    /// One past the last durable offset.
    pub end: Offset,
    /// As in [`Figures::lag`].
    pub lag: u64,
    /// The offset that keeps new ones from being delivered: the window above the floor is full, or too many runs of
    /// offsets have failed. Shown as `WINDOW_FULL`.
    pub stuck: Option<Offset>,
}

#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) redelivered: u64,
    pub(super) expired: u64,
    pub(super) dead_lettered: u64,
    pub(super) lost: u64,
}

impl Subscription {
    /// How the subscription stands.
    pub fn figures(&self) -> Figures {
        Figures {
            lag: (0..self.partitions.len()).map(|partition| self.lag(partition)).sum(),
            in_flight: self.consumers.iter().map(|consumer| consumer.in_flight).sum(),
            waiting: self.partitions.iter().map(|part| part.waiting.len()).sum(),
            redelivered: self.totals.redelivered,
            expired: self.totals.expired,
            dead_lettered: self.totals.dead_lettered,
            lost: self.totals.lost,
        }
    }

    /// How one partition stands.
    ///
    /// # Panics
    /// If there is no such partition.
    pub fn partition(&self, partition: PartitionId) -> PartitionFigures {
        let place = usize::from(partition.0);
        let part = &self.partitions[place];
        PartitionFigures {
            floor: Offset(part.floor()),
            end: Offset(part.end),
            lag: self.lag(place),
            stuck: part.stuck().map(Offset),
        }
    }

    /// The durable floors of all partitions, in order: what retention must keep.
    pub fn floors(&self) -> impl Iterator<Item = Offset> {
        self.partitions.iter().map(|part| Offset(part.floor()))
    }

    fn lag(&self, partition: usize) -> u64 {
        let part = &self.partitions[partition];
        let under_way = part.submitted.as_ref().map_or(0, |submitted| submitted.offsets);
        (part.progress.unsettled(Offset(part.end)) + under_way).saturating_sub(part.dropped.len())
    }
}
