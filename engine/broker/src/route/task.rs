//! One source partition of a route: it reads events, runs the chain, and waits when it must.
//!
//! It owns the position in its partition. Its output is committed by `commit.rs`.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError},
    time::Duration,
};

use levada_chain::{Input, LogSlice, SliceError, Source, Target};
use levada_protocol::{
    error::ErrorCode,
    ids::{Offset, PartitionId, TopicId, TopicName},
    request::{PauseReason, RunState},
};
use levada_stage::AttachmentPoint;
use tokio::sync::watch;

use super::{
    RouteContext, Shared,
    commit::{Settled, UnderWay},
};
use crate::{
    chains::Attached,
    changes::Listener,
    error::Error,
    log::{Log, ReadOutcome},
    pause,
    rows::RouteRecord,
};

/// Source bytes that one round takes.
const ROUND_BYTES: usize = 256 * 1024;
/// Proposals that may be under way.
const PROPOSALS_MAX: usize = 4;
/// The first and the longest wait before a blocked route tries again.
pub(super) const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// One source partition of a route.
pub(crate) struct RouteTask {
    pub(super) record: Arc<RouteRecord>,
    pub(super) shared: Arc<Shared>,
    pub(super) context: RouteContext,
    pub(super) number: PartitionId,
    /// Hears of changes of this partition.
    pub(super) appended: Listener,
    /// The cursor that is known to be committed.
    pub(super) committed: Offset,
    /// The next source offset to take; ahead of what is committed by what is under way.
    pub(super) cursor: Offset,
    pub(super) under_way: VecDeque<UnderWay>,
    pub(super) retry: Duration,
    /// Changes when the newest version of a plugin does.
    pub(super) plugins: watch::Receiver<u64>,
}

/// Why a route's partition has stopped.
pub(super) enum Stop {
    /// Until it is resumed, or `retry_after` has elapsed.
    Paused { reason: PauseReason, retry_after: Option<Duration> },
    /// A target cannot take events.
    Blocked { target: Option<TopicName>, code: ErrorCode },
    /// The store failed, or the source is damaged.
    Failed(Error),
    /// The committed cursor differed from the expected one; it is known now.
    Moved,
    /// Its route or its topic was deleted, or the engine stops.
    Ended,
}

impl RouteTask {
    /// Runs until the route, its topic or the engine ends.
    pub(crate) async fn run(mut self) {
        let stop = self.context.cancelled.clone();
        // Dropping the work at any await is safe: only proposals change state, and they are applied whole.
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
        loop {
            // Before the catalogue is read: a version that is deployed or removed later is seen as a change.
            self.plugins.mark_unchanged();
            let (attached, targets) = match self.attach().await {
                Ok(attached) => attached,
                Err(error) => {
                    return Stop::Paused { reason: pause::of_attach(&error), retry_after: Some(RETRY_MAX) };
                }
            };
            loop {
                if let Err(stop) = self.round(&attached, &targets).await {
                    return stop;
                }
                if self.plugins.has_changed().unwrap_or(false) {
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
            let record = catalogue.topic(name)?;
            let partitions = record.settings.partitions;
            targets.push((record.id(), Target { topic: name.clone(), partitions }));
        }
        let chains = &self.context.chains;
        let attached = chains
            .attach(&catalogue, &spec.chain, spec.from.as_str(), AttachmentPoint::Route, self.record.id)
            .await?;
        self.shared.costs.attach(self.number.0, attached.stages());
        Ok((attached, targets))
    }

    /// One round: some events in, one proposal out; or a wait for events.
    async fn round(&mut self, attached: &Attached, targets: &[(TopicId, Target)]) -> Result<(), Stop> {
        while self.under_way.len() >= PROPOSALS_MAX {
            self.settle_one().await?;
        }
        self.appended.forget();
        let log = Log::new(Arc::clone(&self.context.store), Arc::clone(&self.shared.source), self.number);
        let log = log.map_err(Stop::Failed)?;
        match log.read(self.cursor, ROUND_BYTES).await.map_err(Stop::Failed)? {
            ReadOutcome::Pieces(pieces) => {
                let end = pieces.last().map_or(self.cursor, |piece| piece.end());
                let (sources, expired) = self.live(pieces).map_err(|error| Stop::Failed(error.into()))?;
                let input = Input { partition: self.number, offsets: self.cursor..end, sources: &sources };
                let declared: Vec<Target> = targets.iter().map(|(_, target)| target.clone()).collect();
                let routed = attached.chain.route(input, &declared, &[]).await;
                self.submit(routed, targets, expired).await
            }
            ReadOutcome::Dropped(start) => self.step(start, Vec::new(), Settled::default()).await,
            ReadOutcome::End if !self.under_way.is_empty() => self.settle_one().await,
            ReadOutcome::End => {
                self.show(None);
                tokio::select! {
                    biased;
                    () = self.shared.source.deleted.cancelled() => Err(Stop::Ended),
                    _ = self.plugins.changed() => {
                        self.plugins.mark_changed();
                        Ok(())
                    }
                    () = self.appended.changed() => Ok(()),
                }
            }
        }
    }

    /// What is to be given to the chain: without the events whose time to live is over, and where these are.
    fn live(&self, pieces: Vec<LogSlice>) -> Result<(Vec<Source>, Vec<Offset>), SliceError> {
        let (mut sources, mut expired) = (Vec::with_capacity(pieces.len()), Vec::new());
        for piece in pieces {
            if !piece.has_ttls {
                sources.push(Source::of(piece)?);
                continue;
            }
            let live = piece.live_at(self.context.clock.now())?;
            expired.extend(live.expired.into_iter().filter(|offset| *offset >= self.cursor));
            for slice in live.slices {
                sources.push(Source::of(slice)?);
            }
        }
        Ok((sources, expired))
    }

    /// Waits until the next try.
    async fn wait(&mut self, stop: Stop) {
        let retry_after = match stop {
            Stop::Ended | Stop::Moved => return,
            // The deletion of its source is under way, and ends the route.
            Stop::Failed(_) if self.shared.source.is_deleting() => Some(self.retry),
            Stop::Paused { reason, retry_after } => {
                tracing::warn!(route = %self.record.spec.name, partition = %self.number, why = %reason, "route paused");
                self.show(Some(RunState::Paused { reason }));
                retry_after
            }
            Stop::Blocked { target, code } => {
                let state = RunState::Blocked { target, code };
                tracing::warn!(route = %self.record.spec.name, partition = %self.number, why = %state, "route blocked");
                self.show(Some(state));
                Some(self.retry)
            }
            Stop::Failed(error) => {
                tracing::error!(route = %self.record.spec.name, partition = %self.number, %error, "route failed");
                self.show(Some(RunState::Blocked { target: None, code: error.code() }));
                Some(self.retry)
            }
        };
        self.retry = (self.retry * 2).min(RETRY_MAX);
        // A route that waits to be resumed does so even if its plugins change.
        let by_itself = retry_after.is_some();
        let pause = async {
            match retry_after {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.shared.resume.notified() => {}
            _ = self.plugins.changed(), if by_itself => {
                // The reason for the wait was about other versions of the plugins.
                self.show(None);
                self.retry = RETRY_MIN;
            }
            () = pause => {}
        }
    }

    pub(super) fn show(&self, state: Option<RunState>) {
        let mut stopped = self.shared.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        stopped[usize::from(self.number.0)] = state;
    }
}
