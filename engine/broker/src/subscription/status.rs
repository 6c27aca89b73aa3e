//! What a subscription shows to others: written by its owner as it goes on, read without asking it.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use levada_delivery::subscription::{PartitionStats, Stats};
use levada_protocol::{
    ids::{Offset, PartitionId, Timestamp},
    request::{PauseReason, Position, RunState, SubscriptionInfo},
};

use crate::{floors::Floors, metrics::Delivered, rows::SubscriptionRecord, topic::Topic};

/// In place of an offset: none.
const NONE: u64 = u64::MAX;

/// The published state.
#[derive(Debug)]
pub(crate) struct Status {
    topic: Arc<Topic>,
    floors: Arc<Floors>,
    partitions: Vec<Counted>,
    in_flight: AtomicU64,
    redelivered: AtomicU64,
    dead_lettered: AtomicU64,
    lost: AtomicU64,
    delivered: Delivered,
    members: ArcSwap<Members>,
    paused: ArcSwapOption<PauseReason>,
}

/// One partition.
#[derive(Debug)]
struct Counted {
    /// The topic's end less this is the lag: an owner that nobody makes look at the end need not know it.
    done: AtomicU64,
    /// The offset that keeps new ones from being delivered, or [`NONE`].
    stuck: AtomicU64,
    /// When the event at an earlier floor was appended, as somebody has found out.
    appended: Mutex<Option<(Offset, Timestamp)>>,
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

impl Status {
    /// The state of a subscription that begins at these floors.
    pub(super) fn new(topic: Arc<Topic>, floors: impl Iterator<Item = Offset>) -> Arc<Self> {
        let floors = Floors::new(floors);
        let counted = |number: PartitionId| Counted {
            done: AtomicU64::new(floors.floor(usize::from(number.0)).0),
            stuck: AtomicU64::new(NONE),
            appended: Mutex::default(),
        };
        let partitions = topic.partition_ids().map(counted).collect();
        Arc::new(Self {
            partitions,
            floors,
            topic,
            in_flight: AtomicU64::new(0),
            redelivered: AtomicU64::new(0),
            dead_lettered: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            delivered: Delivered::default(),
            members: ArcSwap::default(),
            paused: ArcSwapOption::empty(),
        })
    }

    pub(super) fn publish_partition(&self, partition: PartitionId, stats: &PartitionStats) {
        let index = usize::from(partition.0);
        self.floors.set(index, stats.floor);
        let counted = &self.partitions[index];
        counted.done.store(stats.end.0.saturating_sub(stats.lag), Ordering::Release);
        counted.stuck.store(stats.stuck.map_or(NONE, |offset| offset.0), Ordering::Release);
    }

    pub(super) fn publish(&self, stats: &Stats) {
        self.in_flight.store(stats.in_flight, Ordering::Release);
        self.redelivered.store(stats.redelivered, Ordering::Release);
        self.dead_lettered.store(stats.dead_lettered, Ordering::Release);
        self.lost.store(stats.lost, Ordering::Release);
    }

    pub(super) fn publish_members(&self, members: Members) {
        self.members.store(Arc::new(members));
    }

    pub(super) fn publish_paused(&self, reason: Option<&PauseReason>) {
        if self.paused.load().as_deref() != reason {
            self.paused.store(reason.map(|reason| Arc::new(reason.clone())));
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

    /// Everything that is shown, of the subscription of this record.
    pub(crate) fn describe(&self, record: &SubscriptionRecord) -> Described {
        let (mut lag, mut stuck, mut oldest) = (0, None, Vec::new());
        for ((number, log), counted) in
            self.topic.partition_ids().zip(&self.topic.partitions).zip(&self.partitions)
        {
            let floor = self.floors.floor(usize::from(number.0));
            let behind = log.end().0.saturating_sub(counted.done.load(Ordering::Acquire));
            lag += behind;
            if behind > 0 {
                oldest.push((number, floor));
            }
            let offset = counted.stuck.load(Ordering::Acquire);
            stuck = stuck.or_else(|| (offset != NONE).then_some((number, offset)));
        }
        let stuck = stuck.map(|(number, offset)| PauseReason::WindowFull { partition: number.0, offset });
        let paused = self.paused.load().as_deref().cloned().or(stuck);
        let state = paused.map_or(RunState::Running, |reason| RunState::Paused { reason });
        let members = self.members.load();
        let info = SubscriptionInfo {
            topic: record.topic.clone(),
            name: record.name.clone(),
            id: record.id,
            options: record.options.clone(),
            created_ms: record.created_ms,
            consumers: members.attached.clone(),
            passed_over: members.passed_over.clone(),
            positions: self.positions(),
            lag,
            oldest_unacked_age_ms: 0,
            in_flight: self.in_flight.load(Ordering::Acquire),
            redelivered: self.redelivered.load(Ordering::Acquire),
            dead_lettered: self.dead_lettered.load(Ordering::Acquire),
            events_lost: self.lost.load(Ordering::Acquire),
            state,
        };
        Described { info, oldest }
    }
}
