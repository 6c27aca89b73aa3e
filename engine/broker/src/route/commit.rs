//! The commits of a route: the outputs and dead letters of a round, and the cursor, in one proposal.
//!
//! It owns the proposals under way and what their outcomes say about the cursor.

use std::sync::atomic::Ordering;

use levada_chain::{Routed, Target};
use levada_protocol::ids::{Offset, RouteId, TopicId};
use tokio::sync::oneshot;

use super::task::{RETRY_MIN, RouteTask, Stop};
use crate::{
    dead_letter_topics,
    dead_letters::{DeadLetters, Origin, Reason},
    pause,
    shard::{AppendRequest, AppendTarget, Condition, Proposal, ProposalRefused, StateChange},
};

/// What comes to its end with a proposal, and is in no target.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Settled {
    pub(super) dead_letters: u64,
    /// Their time to live is over.
    pub(super) expired: u64,
}

/// A proposal that is not decided yet.
pub(super) struct UnderWay {
    to: Offset,
    settled: Settled,
    outcome: oneshot::Receiver<Result<(), ProposalRefused>>,
}

impl RouteTask {
    /// Commits the output of a round, of which these events have expired. An error says that the route must stop behind it.
    pub(super) async fn submit(
        &mut self,
        routed: Routed,
        targets: &[(TopicId, Target)],
        mut expired: Vec<Offset>,
    ) -> Result<(), Stop> {
        let progress = routed.progress;
        let mut appends: Vec<AppendRequest> = routed
            .batches
            .into_iter()
            .map(|batch| AppendRequest {
                target: AppendTarget::Topic(targets[batch.target].0),
                partition: batch.partition,
                batch: batch.batch,
                hops: batch.hops,
                redrives: None,
            })
            .collect();
        let dead_letters = progress.dead_letters.len() as u64;
        if dead_letters > 0 {
            let target = dead_letter_topics::of_route(
                self.shared.source.name.as_str(),
                self.record.spec.name.as_str(),
            )
            .map_err(Stop::Failed)?;
            let name = format!("route-{}", self.record.spec.name);
            let mut collected = DeadLetters::new(target);
            let origin = Origin { topic: &self.shared.source.name, partition: self.number, name: &name };
            let now = self.context.clock.now();
            for dead_letter in progress.dead_letters {
                let reason = Reason {
                    word: dead_letter.reason.as_str(),
                    error: dead_letter.error,
                    plugin: dead_letter.plugin,
                    attempts: 1,
                    first_failure: now,
                    last_failure: now,
                };
                collected.push(&origin, dead_letter.offset, dead_letter.event, &reason);
            }
            appends.extend(collected.into_appends());
        }
        if progress.reached > self.cursor {
            // The chain may have stopped before the others.
            expired.retain(|offset| *offset < progress.reached);
            let settled = Settled { dead_letters, expired: expired.len() as u64 };
            self.step(progress.reached, appends, settled).await?;
        }
        match progress.paused {
            None => Ok(()),
            Some(paused) => {
                while !self.under_way.is_empty() {
                    self.settle_one().await?;
                }
                let retry_after = paused.retry_after;
                Err(Stop::Paused { reason: pause::of_chain(paused), retry_after })
            }
        }
    }

    /// Queues a proposal that moves the cursor to `to`.
    pub(super) async fn step(
        &mut self,
        to: Offset,
        appends: Vec<AppendRequest>,
        settled: Settled,
    ) -> Result<(), Stop> {
        let (reply, outcome) = oneshot::channel();
        let (route, partition) = (RouteId(self.record.id), self.number);
        let proposal = Proposal {
            conditions: vec![Condition::RouteCursor { route, partition, at: self.cursor }],
            changes: vec![StateChange::RouteCursor { route, partition, to }],
            appends,
            reply,
        };
        self.context.shard.propose(proposal).await.map_err(Stop::Failed)?;
        self.cursor = to;
        self.under_way.push_back(UnderWay { to, settled, outcome });
        Ok(())
    }

    /// Waits for the oldest proposal under way.
    pub(super) async fn settle_one(&mut self) -> Result<(), Stop> {
        let Some(oldest) = self.under_way.front_mut() else { return Ok(()) };
        let outcome = (&mut oldest.outcome).await.unwrap_or_else(|_| Err(ProposalRefused::unanswered()));
        let under_way = self.under_way.pop_front().expect("the queue is not empty");
        self.note(&outcome, under_way.to, under_way.settled);
        match outcome {
            Ok(()) => {
                self.retry = RETRY_MIN;
                self.show(None);
                Ok(())
            }
            Err(ProposalRefused::Gone | ProposalRefused::Stale { .. }) => Err(Stop::Ended),
            Err(ProposalRefused::Moved { .. }) => Err(Stop::Moved),
            Err(ProposalRefused::Blocked { target, error }) => {
                Err(Stop::Blocked { target, code: error.code() })
            }
            Err(
                ProposalRefused::End { .. }
                | ProposalRefused::Overtaken
                | ProposalRefused::Shifted
                | ProposalRefused::OtherReaders,
            ) => Err(Stop::Moved),
            Err(ProposalRefused::Failed(error)) => Err(Stop::Failed(error)),
        }
    }

    /// Updates the committed cursor from an outcome.
    fn note(&mut self, outcome: &Result<(), ProposalRefused>, to: Offset, settled: Settled) {
        self.committed = match outcome {
            Ok(()) => {
                self.shared.dead_lettered.fetch_add(settled.dead_letters, Ordering::Relaxed);
                self.shared.expired.fetch_add(settled.expired, Ordering::Relaxed);
                to
            }
            Err(ProposalRefused::Moved { cursor }) => *cursor,
            Err(_) => return,
        };
        self.shared.floors.set(usize::from(self.number.0), self.committed);
    }

    /// Goes back to the committed cursor after waiting for the proposals under way.
    ///
    /// A proposal that failed with the store may still be found when the store is opened again; the writer then refuses
    /// the next proposal and returns the cursor.
    pub(super) async fn reset(&mut self) {
        while let Some(under_way) = self.under_way.pop_front() {
            let outcome = under_way.outcome.await.unwrap_or_else(|_| Err(ProposalRefused::unanswered()));
            self.note(&outcome, under_way.to, under_way.settled);
        }
        self.cursor = self.committed;
    }
}
