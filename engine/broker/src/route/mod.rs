//! A route: from one topic through a chain into others, exactly once.
//!
//! One task per source partition. The outputs and dead letters of some source events and the cursor behind them are
//! one proposal; after a crash all of it is stored or nothing.

mod commit;
mod task;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use levada_chain::Costs;
use levada_protocol::{
    ids::{Offset, PartitionId, TopicId},
    request::{Position, RouteInfo, RunState},
};
use levada_store::Store;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::task::{RETRY_MIN, RouteTask};
use crate::{
    chains::Chains, changes::Hears, clock::Clock, floors::Floors, rows::RouteRecord, shard::ShardHandle,
    topic::Topic,
};

/// A running route, as others reach it.
#[derive(Debug, Clone)]
pub(crate) struct RouteHandle {
    record: Arc<RouteRecord>,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

/// The state that a route's tasks share with its handle.
#[derive(Debug)]
struct Shared {
    source: Arc<Topic>,
    floors: Arc<Floors>,
    /// Per source partition: why it has stopped, if it has.
    stopped: Mutex<Vec<Option<RunState>>>,
    dead_lettered: AtomicU64,
    expired: AtomicU64,
    resume: Notify,
    /// Counts changes of its plugins' newest versions.
    plugins: tokio::sync::watch::Sender<u64>,
    costs: Costs,
}

impl RouteHandle {
    pub(crate) fn topic_id(&self) -> TopicId {
        self.shared.source.id
    }

    pub(crate) fn floors(&self) -> &Arc<Floors> {
        &self.shared.floors
    }

    /// Ends the route's tasks. Returns false, for use in `retain`.
    pub(crate) fn stop(&self) -> bool {
        self.stop.cancel();
        false
    }

    /// Resumes a paused route.
    pub(crate) fn resume(&self) {
        self.shared.resume.notify_waiters();
    }

    /// Attaches the chain again: the newest version of a plugin has changed.
    pub(crate) fn reattach(&self) {
        self.shared.plugins.send_modify(|count| *count += 1);
    }

    pub(crate) fn record(&self) -> &Arc<RouteRecord> {
        &self.record
    }

    /// What its plugins have cost, over all partitions.
    pub(crate) fn costs(&self) -> &Costs {
        &self.shared.costs
    }

    /// Its description for the wire.
    pub(crate) fn info(&self) -> RouteInfo {
        let numbers = self.shared.source.partition_ids();
        let positions: Vec<Position> = numbers
            .map(|number| Position {
                partition: number.0,
                offset: self.shared.floors.floor(usize::from(number.0)).0,
            })
            .collect();
        let ends = self.shared.source.partitions.iter().map(|partition| partition.end().0);
        let lag = ends.zip(&positions).map(|(end, position)| end.saturating_sub(position.offset)).sum();
        let stopped = self.shared.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let state = stopped.iter().flatten().next().cloned().unwrap_or_default();
        RouteInfo {
            spec: self.record.spec.clone(),
            id: self.record.id,
            created_ms: self.record.created_ms,
            positions,
            lag,
            dead_lettered: self.shared.dead_lettered.load(Ordering::Relaxed),
            events_expired: self.shared.expired.load(Ordering::Relaxed),
            state,
        }
    }
}

/// What a route's tasks need.
#[derive(Clone)]
pub(crate) struct RouteContext {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) shard: ShardHandle,
    pub(crate) chains: Chains,
    pub(crate) clock: Clock,
    pub(crate) cancelled: CancellationToken,
}

/// Makes a route's handle and the tasks that run it, one per source partition.
pub(crate) fn open(
    record: &Arc<RouteRecord>,
    source: &Arc<Topic>,
    cursors: &[Offset],
    context: &RouteContext,
) -> (RouteHandle, Vec<RouteTask>) {
    let partitions = source.partitions.len();
    let shared = Arc::new(Shared {
        source: Arc::clone(source),
        floors: Floors::new(cursors.iter().copied()),
        stopped: Mutex::new(vec![None; partitions]),
        dead_lettered: AtomicU64::new(0),
        expired: AtomicU64::new(0),
        resume: Notify::new(),
        plugins: tokio::sync::watch::channel(0).0,
        costs: Costs::default(),
    });
    let handle = RouteHandle {
        record: Arc::clone(record),
        shared: Arc::clone(&shared),
        stop: context.cancelled.child_token(),
    };
    let task = |number: PartitionId| RouteTask {
        record: Arc::clone(record),
        shared: Arc::clone(&shared),
        context: RouteContext { cancelled: handle.stop.clone(), ..context.clone() },
        number,
        appended: shared.source.listen(Hears::Some(&[number])),
        committed: shared.floors.floor(usize::from(number.0)),
        cursor: shared.floors.floor(usize::from(number.0)),
        under_way: VecDeque::new(),
        retry: RETRY_MIN,
        plugins: shared.plugins.subscribe(),
    };
    let tasks = source.partition_ids().map(task).collect();
    (handle, tasks)
}
