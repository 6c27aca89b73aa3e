//! A route: from one topic through a chain into others, exactly once.
//!
//! One task per source partition. What a chain made of some source events, the dead letters among them and the
//! cursor behind them are one fragment of one commit; a crash finds all of it or nothing.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use levada_protocol::{
    error::ErrorCode,
    ids::{Offset, PartitionId, RouteId, TopicId, TopicName},
    request::{Position, RouteInfo},
};
use levada_store::Store;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    catalogue::RouteRecord,
    chains::{Attached, Chains},
    clock,
    dead_letters::{Letters, Origin, Reason},
    error::Error,
    log::{Found, Log},
    places::Floors,
    shard::{AppendTarget, Fragment, FragmentAppend, FragmentRefused, Owner, RouteStep, ShardHandle},
    stage::{Input, Place, Routed, Source, Target},
    topic::Topic,
};

/// Source bytes that one pass takes.
const PASS_BYTES: usize = 256 * 1024;
/// Fragments that may be on their way to the disk.
const FRAGMENTS_MAX: usize = 4;
/// The first and the longest wait before a blocked route tries again.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// A running route, as others reach it.
#[derive(Debug, Clone)]
pub(crate) struct RouteHandle {
    record: Arc<RouteRecord>,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

/// What a route's tasks show.
#[derive(Debug)]
struct Shared {
    source: Arc<Topic>,
    floors: Arc<Floors>,
    /// Per source partition: why it does not go on, if it does not.
    stopped: Mutex<Vec<Option<String>>>,
    dead_lettered: AtomicU64,
    resume: Notify,
    /// Counts changes of what its plugins' newest versions are.
    plugins: tokio::sync::watch::Sender<u64>,
    figures: Mutex<Vec<Vec<(u64, crate::stage::Figures)>>>,
}

impl RouteHandle {
    pub(crate) fn topic_id(&self) -> TopicId {
        self.shared.source.id
    }

    pub(crate) fn floors(&self) -> &Arc<Floors> {
        &self.shared.floors
    }

    /// Ends the route's tasks. Answers false, for use in `retain`.
    pub(crate) fn stop(&self) -> bool {
        self.stop.cancel();
        false
    }

    /// Lets a paused route go on.
    pub(crate) fn resume(&self) {
        self.shared.resume.notify_waiters();
    }

    /// Attaches the chain anew: a plugin has a newer version.
    pub(crate) fn rechain(&self) {
        self.shared.plugins.send_modify(|count| *count += 1);
    }

    pub(crate) fn record(&self) -> &Arc<RouteRecord> {
        &self.record
    }

    /// Each stage's plugin version id and figures, over all partitions.
    pub(crate) fn figures(&self) -> Vec<(u64, crate::stage::Figures)> {
        self.shared.figures.lock().unwrap_or_else(PoisonError::into_inner).iter().flatten().copied().collect()
    }

    /// As the wire describes it.
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
        let state = stopped.iter().flatten().next().cloned().unwrap_or_else(|| "running".to_owned());
        RouteInfo {
            spec: self.record.spec.clone(),
            id: self.record.id,
            created_ms: self.record.created_ms,
            positions,
            lag,
            dead_lettered: self.shared.dead_lettered.load(Ordering::Relaxed),
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
        resume: Notify::new(),
        plugins: tokio::sync::watch::channel(0).0,
        figures: Mutex::new(vec![Vec::new(); partitions]),
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
        committed: shared.floors.floor(usize::from(number.0)),
        cursor: shared.floors.floor(usize::from(number.0)),
        under_way: VecDeque::new(),
        retry: RETRY_MIN,
    };
    let tasks = source.partition_ids().map(task).collect();
    (handle, tasks)
}

/// One source partition of a route.
pub(crate) struct RouteTask {
    record: Arc<RouteRecord>,
    shared: Arc<Shared>,
    context: RouteContext,
    number: PartitionId,
    /// The cursor that is known to be committed.
    committed: Offset,
    /// The next source offset to take; ahead of what is committed by what is under way.
    cursor: Offset,
    under_way: VecDeque<UnderWay>,
    retry: Duration,
}

/// A fragment on its way to the disk.
struct UnderWay {
    to: Offset,
    dead_letters: u64,
    outcome: oneshot::Receiver<Result<(), FragmentRefused>>,
}

/// Why a route's partition does not go on by itself.
enum Stop {
    /// Until somebody resumes it, or a while has passed.
    Paused { why: String, retry_after: Option<Duration> },
    /// A target cannot take events.
    Blocked { why: String },
    /// The store failed, or the source is damaged.
    Failed(Error),
    /// The committed cursor is not where it was thought to be; it is known now.
    Moved,
    /// Its route or its topic is gone, or the engine goes.
    Ended,
}

impl RouteTask {
    /// Runs until the route, its topic or the engine ends.
    pub(crate) async fn run(mut self) {
        let stop = self.context.cancelled.clone();
        // Dropping the work at any await is safe: only fragments change state, and they are applied whole.
        let work = async {
            loop {
                match self.work().await {
                    Stop::Ended => return,
                    Stop::Moved => {}
                    stopped => self.wait(stopped).await,
                }
                self.reset().await;
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = work => {}
        }
    }

    /// Attaches the chain and takes events until something stops it.
    async fn work(&mut self) -> Stop {
        let mut plugins = self.shared.plugins.subscribe();
        loop {
            // Before the catalogue is looked at: a version that comes later is seen as a change.
            plugins.mark_unchanged();
            let (attached, targets) = match self.attach().await {
                Ok(attached) => attached,
                Err(error) => {
                    return Stop::Paused { why: error.to_string(), retry_after: Some(RETRY_MAX) };
                }
            };
            loop {
                if let Err(stop) = self.pass(&attached, &targets, &mut plugins).await {
                    return stop;
                }
                self.shared.figures.lock().unwrap_or_else(PoisonError::into_inner)
                    [usize::from(self.number.0)] = attached.figures().collect();
                if plugins.has_changed().unwrap_or(false) {
                    break;
                }
            }
        }
    }

    async fn attach(&self) -> Result<(Attached, Vec<(TopicId, Target)>), Error> {
        let catalogue = self.context.shard.catalogue();
        let spec = &self.record.spec;
        let mut targets = Vec::with_capacity(spec.to.len());
        for name in &spec.to {
            let topic = catalogue.topic(&TopicName::parse_any(name)?)?;
            let partitions = u16::try_from(topic.partitions.len()).unwrap_or(u16::MAX);
            targets.push((topic.id, Target { topic: topic.name.clone(), partitions }));
        }
        let chains = &self.context.chains;
        let attached =
            chains.attach(&catalogue, &spec.chain, &spec.from, Place::Route, self.record.id).await?;
        Ok((attached, targets))
    }

    /// One pass: some events in, one fragment out; or a wait for events.
    async fn pass(
        &mut self,
        attached: &Attached,
        targets: &[(TopicId, Target)],
        plugins: &mut tokio::sync::watch::Receiver<u64>,
    ) -> Result<(), Stop> {
        while self.under_way.len() >= FRAGMENTS_MAX {
            self.settle_one().await?;
        }
        let mut appended = self.shared.source.appended();
        let log = Log::new(Arc::clone(&self.context.store), Arc::clone(&self.shared.source), self.number);
        let log = log.map_err(Stop::Failed)?;
        match log.read(self.cursor, PASS_BYTES).await.map_err(Stop::Failed)? {
            Found::Pieces(pieces) => {
                let end = pieces.last().map_or(self.cursor, |piece| piece.end());
                let sources = pieces
                    .into_iter()
                    .map(|piece| Source::check(piece.run))
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(|error| {
                        Stop::Failed(Error::refused(ErrorCode::StorageCorrupt, error.to_string()))
                    })?;
                let input = Input { partition: self.number, offsets: self.cursor..end, sources: &sources };
                let declared: Vec<Target> = targets.iter().map(|(_, target)| target.clone()).collect();
                let routed = attached.chain.route(input, &declared).await;
                self.submit(routed, targets).await
            }
            Found::Dropped(start) => self.step(start, Vec::new(), 0).await,
            Found::End if !self.under_way.is_empty() => self.settle_one().await,
            Found::End => {
                self.show(None);
                tokio::select! {
                    biased;
                    () = self.shared.source.deleted.cancelled() => Err(Stop::Ended),
                    _ = plugins.changed() => {
                        plugins.mark_changed();
                        Ok(())
                    }
                    _ = appended.changed() => Ok(()),
                }
            }
        }
    }

    /// Commits what a pass made, and says if the place must stop behind it.
    async fn submit(&mut self, routed: Routed, targets: &[(TopicId, Target)]) -> Result<(), Stop> {
        let progress = routed.progress;
        let mut appends: Vec<FragmentAppend> = routed
            .batches
            .into_iter()
            .map(|batch| FragmentAppend {
                target: AppendTarget::Topic(targets[batch.target].0),
                partition: batch.partition,
                batch: batch.batch,
                hops: batch.hops,
            })
            .collect();
        let letters = progress.dead_letters.len() as u64;
        if letters > 0 {
            let name = format!("dlq.{}.route-{}", self.shared.source.name, self.record.spec.name);
            let place = format!("route-{}", self.record.spec.name);
            let mut dead = Letters::new(TopicName::internal(&name));
            let origin = Origin { topic: &self.shared.source.name, partition: self.number, place: &place };
            let now = clock::now();
            for letter in progress.dead_letters {
                let reason = Reason {
                    word: letter.reason.as_str(),
                    error: letter.error,
                    plugin: letter.plugin,
                    attempts: 1,
                    first_failure: now,
                    last_failure: now,
                };
                dead.push(&origin, letter.offset, letter.event, &reason);
            }
            appends.extend(dead.into_appends());
        }
        if progress.reached > self.cursor {
            self.step(progress.reached, appends, letters).await?;
        }
        match progress.paused {
            None => Ok(()),
            Some(paused) => {
                while !self.under_way.is_empty() {
                    self.settle_one().await?;
                }
                Err(Stop::Paused { why: paused.why, retry_after: paused.retry_after })
            }
        }
    }

    /// Queues a fragment that moves the cursor to `to`.
    async fn step(
        &mut self,
        to: Offset,
        appends: Vec<FragmentAppend>,
        dead_letters: u64,
    ) -> Result<(), Stop> {
        let (reply, outcome) = oneshot::channel();
        let fragment = Fragment {
            owner: Owner::Route(RouteId(self.record.id), self.number),
            rows: Vec::new(),
            step: Some(RouteStep { from: self.cursor, to }),
            appends,
            reply,
        };
        self.context.shard.fragment(fragment).await.map_err(|_| Stop::Ended)?;
        self.cursor = to;
        self.under_way.push_back(UnderWay { to, dead_letters, outcome });
        Ok(())
    }

    /// Waits for the oldest fragment under way.
    async fn settle_one(&mut self) -> Result<(), Stop> {
        let Some(oldest) = self.under_way.front_mut() else { return Ok(()) };
        let outcome =
            (&mut oldest.outcome).await.unwrap_or(Err(FragmentRefused::Failed(Error::ShuttingDown)));
        let settled = self.under_way.pop_front().expect("it was just looked at");
        self.note(&outcome, settled.to, settled.dead_letters);
        match outcome {
            Ok(()) => {
                self.retry = RETRY_MIN;
                self.show(None);
                Ok(())
            }
            Err(FragmentRefused::Gone) => Err(Stop::Ended),
            Err(FragmentRefused::Moved { .. }) => Err(Stop::Moved),
            Err(FragmentRefused::Blocked { target, error }) => {
                Err(Stop::Blocked { why: format!("blocked: {target} {}", error.code()) })
            }
            Err(FragmentRefused::Failed(error)) => Err(Stop::Failed(error)),
        }
    }

    /// Waits until it makes sense to try again.
    async fn wait(&mut self, stop: Stop) {
        let retry_after = match stop {
            Stop::Ended | Stop::Moved => return,
            Stop::Paused { why, retry_after } => {
                tracing::warn!(route = self.record.spec.name, partition = %self.number, why, "route paused");
                self.show(Some(format!("paused: {why}")));
                retry_after
            }
            Stop::Blocked { why } => {
                tracing::warn!(route = self.record.spec.name, partition = %self.number, why, "route blocked");
                self.show(Some(why));
                Some(self.retry)
            }
            Stop::Failed(error) => {
                tracing::error!(route = self.record.spec.name, partition = %self.number, %error, "route failed");
                self.show(Some(format!("blocked: {}", error.code())));
                Some(self.retry)
            }
        };
        self.retry = (self.retry * 2).min(RETRY_MAX);
        let pause = async {
            match retry_after {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.shared.resume.notified() => {}
            () = pause => {}
        }
    }

    /// Notes what an outcome says about the committed cursor.
    fn note(&mut self, outcome: &Result<(), FragmentRefused>, to: Offset, dead_letters: u64) {
        self.committed = match outcome {
            Ok(()) => {
                self.shared.dead_lettered.fetch_add(dead_letters, Ordering::Relaxed);
                to
            }
            Err(FragmentRefused::Moved { cursor }) => *cursor,
            Err(FragmentRefused::Gone | FragmentRefused::Blocked { .. } | FragmentRefused::Failed(_)) => {
                return;
            }
        };
        self.shared.floors.set(usize::from(self.number.0), self.committed);
    }

    /// Goes back to what is committed: what was under way has failed or ended.
    ///
    /// Whether a failed fragment is found after the store was opened again is not known here, and the store cannot
    /// say before; if it is, the writer answers the next fragment with the cursor.
    async fn reset(&mut self) {
        while let Some(under_way) = self.under_way.pop_front() {
            let outcome =
                under_way.outcome.await.unwrap_or(Err(FragmentRefused::Failed(Error::ShuttingDown)));
            self.note(&outcome, under_way.to, under_way.dead_letters);
        }
        self.cursor = self.committed;
    }

    fn show(&self, state: Option<String>) {
        let mut stopped = self.shared.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        stopped[usize::from(self.number.0)] = state;
    }
}
