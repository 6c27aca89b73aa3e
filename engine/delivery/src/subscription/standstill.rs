//! Why a subscription delivers nothing more for now.

use levada_protocol::ids::{Offset, PartitionId};

use super::{
    consumer::ConsumerId, ledger::Ledger, partition::Partition, partitions::partition_id, sharing::Sharing,
};
use crate::now::Now;

/// What has to happen before a subscription delivers more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitsFor {
    /// Nothing: it delivers, reads or commits.
    Nothing,
    /// New events: all there are have come to their end.
    Events,
    /// A consumer: none is attached.
    Consumer,
    /// Credit: no consumer asks for events, and none has any.
    Credit,
    /// The streams of its consumers, which take nothing.
    Streams,
    /// Acknowledgements: consumers have everything they may have.
    Acknowledgements {
        /// How many events they have.
        events: u64,
        /// The oldest, and who has it.
        oldest: Option<(PartitionId, Offset, ConsumerId)>,
    },
    /// The next attempt of events that failed.
    Retry(Retry),
    /// Events that failed: as many are to be delivered again as may.
    Failures {
        /// How many runs of them there are.
        runs: u64,
        /// The next attempt of one of them.
        retry: Option<Retry>,
    },
    /// The oldest unacknowledged offset of a partition, above which the window is full.
    Window {
        /// The partition.
        partition: PartitionId,
        /// The oldest offset.
        offset: Offset,
        /// Its next attempt, if it failed.
        retry: Option<Retry>,
    },
    /// Earlier events of their keys: as many events wait for those as may.
    Keys {
        /// How many wait.
        events: u64,
        /// What was delivered first of what is not acknowledged, and who has it.
        oldest: Option<(PartitionId, Offset, ConsumerId)>,
        /// The next attempt of one of those earlier events, if one failed.
        retry: Option<Retry>,
    },
    /// The rate.
    Rate {
        /// Events a second.
        per_second: u64,
    },
}

/// An event that failed, and when it is due again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Its partition.
    pub partition: PartitionId,
    /// Its offset.
    pub offset: Offset,
    /// How many of its deliveries failed.
    pub attempts: u16,
    /// Milliseconds until it is due; 0 if it is.
    pub wait_ms: u64,
}

/// Finds out what has to happen; `rate` is the one that keeps events from being delivered now.
pub(super) fn find(ledger: &Ledger, sharing: &Sharing, rate: Option<u64>, now: Now) -> WaitsFor {
    let consumers = &ledger.consumers;
    if ledger.partitions.iter().all(|partition| partition.lag() == 0) {
        return WaitsFor::Events;
    }
    if consumers.list().is_empty() {
        return WaitsFor::Consumer;
    }
    if let Some(per_second) = rate {
        return WaitsFor::Rate { per_second };
    }
    let is_read = |partition: &Partition| partition.is_fetching(true) || partition.is_fetching(false);
    if sharing.policy().choose(ledger, now.mono_ms).is_some() || ledger.partitions.iter().any(is_read) {
        return WaitsFor::Nothing;
    }
    if consumers.with_room().next().is_none() && consumers.in_flight() == 0 {
        let held = consumers.list().iter().all(|consumer| consumer.is_held());
        return if held { WaitsFor::Streams } else { WaitsFor::Credit };
    }
    let retry = next_retry(ledger, now);
    let lacks_room = consumers.with_room().next().is_none();
    if let Some(events) = sharing.keys_full(ledger).filter(|_| !lacks_room) {
        return WaitsFor::Keys { events, oldest: oldest_in_flight(ledger), retry };
    }
    if let Some(runs) = ledger.partitions.held_by_failures().filter(|_| !lacks_room) {
        return WaitsFor::Failures { runs, retry };
    }
    if let Some((partition, offset)) = stuck(ledger).filter(|_| !lacks_room) {
        return WaitsFor::Window { partition, offset, retry: retry_of(ledger, partition, offset, now) };
    }
    match retry.filter(|_| !lacks_room) {
        Some(retry) => WaitsFor::Retry(retry),
        None if consumers.in_flight() > 0 => {
            WaitsFor::Acknowledgements { events: consumers.in_flight(), oldest: oldest_in_flight(ledger) }
        }
        None => WaitsFor::Nothing,
    }
}

fn stuck(ledger: &Ledger) -> Option<(PartitionId, Offset)> {
    let mut stuck = ledger.partitions.unread().filter_map(|(index, it)| Some((index, it.stuck()?)));
    stuck.next().map(|(index, offset)| (partition_id(index), Offset(offset)))
}

/// The event that is due first of those that are not yet.
fn next_retry(ledger: &Ledger, now: Now) -> Option<Retry> {
    let next = ledger.partitions.retrying();
    let next = next.filter_map(|(index, it)| it.next_due(now.mono_ms).map(|(due, at)| (due, index, at)));
    let (due, index, offset) = next.min()?;
    Some(Retry {
        partition: partition_id(index),
        offset: Offset(offset),
        attempts: ledger.partitions.get(index).history_of(offset).attempts,
        wait_ms: due.saturating_sub(now.mono_ms),
    })
}

fn retry_of(ledger: &Ledger, partition: PartitionId, offset: Offset, now: Now) -> Option<Retry> {
    let it = ledger.partitions.get(usize::from(partition.0));
    let (run, wait) = it.first_waiting().filter(|(run, _)| run.contains(&offset.0))?;
    let attempts = it.history_of(run.start).attempts;
    Some(Retry { partition, offset, attempts, wait_ms: wait.due.saturating_sub(now.mono_ms) })
}

/// The lowest offset in flight of the partition that has had one for longest.
fn oldest_in_flight(ledger: &Ledger) -> Option<(PartitionId, Offset, ConsumerId)> {
    let firsts = ledger.partitions.iter().enumerate().filter_map(|(index, it)| {
        let (offset, token) = it.first_in_flight()?;
        let delivery = ledger.deliveries.get(token)?;
        Some((delivery.sent_at(), index, offset, delivery.consumer()))
    });
    let (_, index, offset, consumer) = firsts.min_by_key(|(sent_at, index, ..)| (*sent_at, *index))?;
    Some((partition_id(index), Offset(offset), consumer))
}
