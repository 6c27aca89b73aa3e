//! The owner's side of attendance: it says since when there is no consumer, and has that stored.

use std::{future::pending, sync::Arc};

use levada_protocol::ids::{SubscriptionId, Timestamp};
use tokio::{
    sync::oneshot,
    time::{Duration, Instant},
};

use super::attendance::Attendance;
use crate::shard::{Condition, Generation, Proposal, ProposalRefused, ShardHandle, StateChange};

/// How long nothing is stored after that failed.
const RETRY: Duration = Duration::from_millis(500);

/// Whether the owner has consumers, and what is stored of that.
#[derive(Debug)]
pub(super) struct Attending {
    attendance: Arc<Attendance>,
    subscription: SubscriptionId,
    shard: ShardHandle,
    generation: Generation,
    /// What is durable; `None` if that is unknown.
    stored: Option<Option<Timestamp>>,
    under_way: Option<UnderWay>,
    /// Nothing is stored before.
    after: Option<Instant>,
    /// Another owner stores it, or nobody.
    ended: bool,
}

/// What is being stored, and how that ends.
#[derive(Debug)]
struct UnderWay {
    since: Option<Timestamp>,
    outcome: oneshot::Receiver<Result<(), ProposalRefused>>,
}

impl Attending {
    /// That of an owner which begins without consumers; `stored` is what its row says.
    pub(super) fn new(
        attendance: Arc<Attendance>,
        subscription: SubscriptionId,
        (shard, generation): (ShardHandle, Generation),
        stored: Option<Timestamp>,
    ) -> Self {
        let stored = Some(stored);
        Self {
            attendance,
            subscription,
            shard,
            generation,
            stored,
            under_way: None,
            after: None,
            ended: false,
        }
    }

    /// A consumer was attached.
    pub(super) fn begin(&self) {
        self.attendance.set_since(None);
    }

    /// The last consumer has left.
    pub(super) fn end(&self, now: Timestamp) {
        self.attendance.set_since(Some(now));
    }

    /// Proposes to store since when there is no consumer, with whichever commit comes next, unless that is stored or under way.
    pub(super) fn store(&mut self, at: Instant) {
        self.after.take_if(|after| *after <= at);
        let since = self.attendance.since();
        if self.ended || self.under_way.is_some() || self.after.is_some() || self.stored == Some(since) {
            return;
        }
        let (subscription, generation) = (self.subscription, self.generation);
        let (reply, outcome) = oneshot::channel();
        let proposal = Proposal {
            conditions: vec![Condition::Owner { subscription, generation }],
            changes: vec![StateChange::Attendance { subscription, unattended_since: since }],
            appends: Vec::new(),
            reply,
        };
        self.shard.propose_with_next_commit(proposal);
        self.under_way = Some(UnderWay { since, outcome });
    }

    /// When it is tried again to store what is so, if that has failed.
    pub(super) fn ready_at(&self) -> Option<Instant> {
        self.after
    }

    /// Waits until what is under way is stored, or could not be; for ever if nothing is. Cancel safe.
    pub(super) async fn stored(&mut self) {
        let Some(UnderWay { since, outcome }) = &mut self.under_way else { return pending().await };
        let outcome = outcome.await.unwrap_or_else(|_| Err(ProposalRefused::unanswered()));
        self.stored = outcome.is_ok().then_some(*since);
        self.under_way = None;
        match outcome {
            Ok(()) => {}
            Err(ProposalRefused::Gone | ProposalRefused::Stale { .. }) => self.ended = true,
            // A store that takes no writes says so itself.
            Err(_) => self.after = Some(Instant::now() + RETRY),
        }
    }
}
