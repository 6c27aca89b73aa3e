//! What a subscription shows to others: written by its owner as it goes on, read without asking it.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use levada_delivery::{
    subscription::{PartitionStats, Stats},
    trend::{Moment, Rates, Trend},
};
use levada_protocol::{
    ids::{Offset, PartitionId, Timestamp},
    request::{LostEvents, PauseReason, Position, RunState, SubscriptionInfo, WaitingFor},
};

use super::waiting;
use crate::{
    floors::Floors, metrics::Delivered, queue_ends::QueueEnd, rows::SubscriptionRecord, topic::Topic,
};

/// The published state.
#[derive(Debug)]
pub(crate) struct Status {
    topic: Arc<Topic>,
    floors: Arc<Floors>,
    partitions: Vec<Counted>,
    queue: Queue,
    in_flight: AtomicU64,
    counts: Counting,
    /// What was lost since the subscription was made.
    lost: ArcSwap<Vec<LostEvents>>,
    delivered: Delivered,
    members: ArcSwap<Members>,
    paused: ArcSwapOption<PauseReason>,
    waiting: ArcSwap<WaitingFor>,
    trend: Mutex<Trend>,
}

/// What owners before this one counted since the engine's start, and all of them together.
#[derive(Debug)]
struct Counting {
    before: Counts,
    all: ArcSwap<Counts>,
}

/// What was counted since the engine's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Counts {
    redelivered: u64,
    dead_lettered: u64,
    ttl_expired: u64,
}

/// One partition.
#[derive(Debug)]
struct Counted {
    /// The topic's end less this is the lag: an owner that nobody makes look at the end need not know it.
    done: AtomicU64,
    /// When the event at an earlier floor was appended, as somebody has found out.
    appended: Mutex<Option<(Offset, Timestamp)>>,
}

/// The queue of what was redriven to the subscription alone.
#[derive(Debug)]
struct Queue {
    end: Arc<QueueEnd>,
    /// How many of its events have come to their end.
    done: AtomicU64,
}

/// The names of the attached consumers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Members {
    /// The first is the active one where order matters.
    pub(super) attached: Vec<String>,
    pub(super) passed_over: Vec<String>,
}

/// What is known of a subscription.
#[derive(Debug)]
pub(crate) struct Described {
    /// As the wire describes it, but for the age of the oldest unacknowledged event.
    pub(crate) info: SubscriptionInfo,
    /// The oldest unacknowledged offset of every partition that has one.
    pub(crate) oldest: Vec<(PartitionId, Offset)>,
}

/// How many events were lost, over all partitions.
fn events_in(lost: &[LostEvents]) -> u64 {
    lost.iter().fold(0, |sum, it| sum.saturating_add(it.events))
}

impl Status {
    /// The state of a subscription that begins at these floors, the last of which is that in its queue. Its counts go on where those of an owner before it ended.
    pub(super) fn new(
        topic: Arc<Topic>,
        floors: impl Iterator<Item = Offset>,
        queue: Arc<QueueEnd>,
        before: Option<&Self>,
    ) -> Arc<Self> {
        let mut floors: Vec<Offset> = floors.collect();
        let queue = Queue { end: queue, done: AtomicU64::new(floors.pop().map_or(0, |floor| floor.0)) };
        let floors = Floors::new(floors);
        let counted = |number: PartitionId| Counted {
            done: AtomicU64::new(floors.floor(usize::from(number.0)).0),
            appended: Mutex::default(),
        };
        let partitions = topic.partition_ids().map(counted).collect();
        let (before, delivered) = match before {
            Some(before) => (**before.counts.all.load(), before.delivered.clone()),
            None => (Counts::default(), Delivered::default()),
        };
        Arc::new(Self {
            partitions,
            queue,
            floors,
            topic,
            in_flight: AtomicU64::new(0),
            counts: Counting { before, all: ArcSwap::from_pointee(before) },
            lost: ArcSwap::default(),
            delivered,
            members: ArcSwap::default(),
            paused: ArcSwapOption::empty(),
            waiting: ArcSwap::default(),
            trend: Mutex::default(),
        })
    }

    /// How many events of the queue have not come to their end.
    pub(super) fn redriven(&self) -> u64 {
        self.queue.end.get().saturating_sub(self.queue.done.load(Ordering::Acquire))
    }

    /// Shows how things are in a partition, or in the queue, which is behind them.
    pub(super) fn publish_partition(&self, partition: PartitionId, stats: &PartitionStats) {
        let (index, done) = (usize::from(partition.0), stats.end.0.saturating_sub(stats.lag));
        let Some(counted) = self.partitions.get(index) else {
            self.queue.done.store(done, Ordering::Release);
            return;
        };
        self.floors.set(index, stats.floor);
        counted.done.store(done, Ordering::Release);
    }

    pub(super) fn publish(&self, stats: &Stats) {
        self.in_flight.store(stats.in_flight, Ordering::Release);
        let counts = Counts {
            redelivered: self.counts.before.redelivered + stats.redelivered,
            dead_lettered: self.counts.before.dead_lettered + stats.dead_lettered,
            ttl_expired: self.counts.before.ttl_expired + stats.ttl_expired,
        };
        if **self.counts.all.load() != counts {
            self.counts.all.store(Arc::new(counts));
        }
    }

    pub(super) fn publish_lost(&self, lost: Vec<LostEvents>) {
        self.lost.store(Arc::new(lost));
    }

    pub(super) fn publish_members(&self, members: Members) {
        self.members.store(Arc::new(members));
    }

    pub(super) fn publish_paused(&self, reason: Option<&PauseReason>) {
        if self.paused.load().as_deref() != reason {
            self.paused.store(reason.map(|reason| Arc::new(reason.clone())));
        }
    }

    pub(super) fn publish_waiting(&self, waiting: WaitingFor) {
        if **self.waiting.load() != waiting {
            self.waiting.store(Arc::new(waiting));
        }
    }

    /// How much was appended, has come to its end, and was lost, at this moment of the monotonic clock.
    fn moment(&self, at_ms: u64) -> Moment {
        let (mut appended, mut settled) = (0, 0);
        for (log, counted) in self.topic.partitions.iter().zip(&self.partitions) {
            appended += log.end().0;
            settled += counted.done.load(Ordering::Acquire);
        }
        Moment { at_ms, appended, settled, lost: events_in(&self.lost.load()) }
    }

    /// Notes how things are, for the rates; to be called every [`levada_delivery::trend::INTERVAL_MS`].
    pub(crate) fn note_moment(&self, at_ms: u64) {
        let moment = self.moment(at_ms);
        self.trend.lock().unwrap_or_else(PoisonError::into_inner).note(moment);
    }

    /// How fast its backlog grows and shrinks.
    fn rates(&self, at_ms: u64) -> Rates {
        let moment = self.moment(at_ms);
        self.trend.lock().unwrap_or_else(PoisonError::into_inner).rates(moment)
    }

    /// What it waits for. What the owner has published may be older than the newest events.
    fn waiting_for(&self, unsettled: u64, paused: Option<&PauseReason>) -> WaitingFor {
        if let Some(reason) = paused {
            return waiting::of_pause(reason);
        }
        if unsettled == 0 {
            return WaitingFor::Events;
        }
        if self.members.load().attached.is_empty() {
            return WaitingFor::Consumer;
        }
        match &**self.waiting.load() {
            WaitingFor::Events | WaitingFor::Consumer => WaitingFor::Nothing,
            waiting => waiting.clone(),
        }
    }

    /// How far the subscription has come in each partition, durably.
    pub(crate) fn floors(&self) -> &Arc<Floors> {
        &self.floors
    }

    /// The same as the wire shows it.
    pub(super) fn positions(&self) -> Vec<Position> {
        let floor = |number: PartitionId| self.floors.floor(usize::from(number.0)).0;
        let position = |number: PartitionId| Position { partition: number.0, offset: floor(number) };
        self.topic.partition_ids().map(position).collect()
    }

    /// How many events its consumers were sent since the start.
    pub(crate) fn delivered(&self) -> &Delivered {
        &self.delivered
    }

    /// When the event at a partition's floor was appended, if that is known.
    pub(crate) fn appended(&self, partition: PartitionId, floor: Offset) -> Option<Timestamp> {
        let (of, time) = (*self.counted(partition))?;
        (of == floor).then_some(time)
    }

    /// Keeps what was found out about a floor, for others who ask.
    pub(crate) fn keep_appended(&self, partition: PartitionId, floor: Offset, time: Timestamp) {
        *self.counted(partition) = Some((floor, time));
    }

    fn counted(&self, partition: PartitionId) -> MutexGuard<'_, Option<(Offset, Timestamp)>> {
        let counted = &self.partitions[usize::from(partition.0)];
        counted.appended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that is shown, of the subscription of this record, at this moment of the monotonic clock.
    pub(crate) fn describe(&self, record: &SubscriptionRecord, at_ms: u64) -> Described {
        let (mut lag, mut oldest) = (0, Vec::new());
        for ((number, log), counted) in
            self.topic.partition_ids().zip(&self.topic.partitions).zip(&self.partitions)
        {
            let floor = self.floors.floor(usize::from(number.0));
            let behind = log.end().0.saturating_sub(counted.done.load(Ordering::Acquire));
            lag += behind;
            if behind > 0 {
                oldest.push((number, floor));
            }
        }
        // The record is newer than what the owner has published.
        let published = self.paused.load().as_deref().cloned();
        let published =
            published.filter(|it| !matches!(it, PauseReason::Requested | PauseReason::Push { .. }));
        let paused = record.pause().or(published);
        let redriven = self.redriven();
        let waiting_for = self.waiting_for(lag + redriven, paused.as_ref());
        let (rates, counts) = (self.rates(at_ms), **self.counts.all.load());
        let state = paused.map_or(RunState::Running, |reason| RunState::Paused { reason });
        let (members, lost) = (self.members.load(), Vec::clone(&self.lost.load()));
        let info = SubscriptionInfo {
            topic: record.topic.clone(),
            name: record.name.clone(),
            id: record.id,
            options: record.options.clone(),
            created_ms: record.created_ms,
            consumers: members.attached.clone(),
            passed_over: members.passed_over.clone(),
            unattended_since_ms: None,
            unattended_for_ms: None,
            alarms: Vec::new(),
            positions: self.positions(),
            lag,
            redriven,
            oldest_unacked_age_ms: 0,
            in_flight: self.in_flight.load(Ordering::Acquire),
            redelivered: counts.redelivered,
            dead_lettered: counts.dead_lettered,
            events_lost: events_in(&lost),
            lost,
            events_expired: counts.ttl_expired,
            state,
            waiting_for,
            waiting_for_key: None,
            arriving_per_s: rates.arriving,
            settling_per_s: rates.settling,
            clears_in_ms: rates.clears_in_ms(lag, !members.attached.is_empty()),
            push: None,
        };
        Described { info, oldest }
    }
}
