//! Check-backs: producer groups are asked whether their prepared transactions are committed.
//!
//! A producer that prepares a transaction, does its own work and dies in between leaves it undecided. Any live member of
//! its group is asked then; it answers with a decision, or not at all if it does not know. Who is asked and how often is
//! RocketMQ's way of transactional messages. That a check was made is durable before it is sent: after a crash nobody is
//! asked more often than was said.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use levada_protocol::{
    ids::{GroupName, Timestamp},
    request::CheckBack,
};
use tokio::sync::{Notify, mpsc};

use crate::{clock::Clock, config::CheckBackConfig, error::Error, rows::TransactionKey, shard::ShardHandle};

/// Longest wait before the time of day is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Questions that one commit notes, at most.
const CHECKS_PER_ROUND: usize = 256;
/// Questions for each member of a group that may wait for an answer: a group that answers slowly is not asked about
/// everything at once, and again before it comes to it.
const UNANSWERED_MAX: usize = 64;

/// The members of all groups, and what asks them.
pub(crate) struct CheckBacks {
    shard: ShardHandle,
    clock: Clock,
    config: CheckBackConfig,
    members: Mutex<HashMap<GroupName, Vec<Member>>>,
    joined: Notify,
    next_member: AtomicU64,
    /// Held by the one round that is under way.
    round: tokio::sync::Mutex<()>,
}

/// A stream that takes the checks of a group.
struct Member {
    number: u64,
    checks: mpsc::Sender<CheckBack>,
}

/// A member of a producer group. It is asked until this is dropped.
pub struct GroupMember {
    /// What it is asked. Ends when the engine ends.
    pub checks: mpsc::Receiver<CheckBack>,
    _registration: Registration,
}

/// Takes its member out of the group when it is dropped.
struct Registration {
    check_backs: Arc<CheckBacks>,
    group: GroupName,
    number: u64,
}

impl GroupMember {
    /// The next check; `None` when the engine ends. Cancel safe.
    pub async fn next(&mut self) -> Option<CheckBack> {
        self.checks.recv().await
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut members = self.check_backs.lock();
        if let Some(of_group) = members.get_mut(&self.group) {
            of_group.retain(|member| member.number != self.number);
            if of_group.is_empty() {
                members.remove(&self.group);
            }
        }
    }
}

impl CheckBacks {
    pub(crate) fn new(shard: ShardHandle, clock: Clock, config: CheckBackConfig) -> Self {
        let (members, joined, next_member) = (Mutex::default(), Notify::new(), AtomicU64::new(0));
        Self { shard, clock, config, members, joined, next_member, round: tokio::sync::Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<GroupName, Vec<Member>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a member to a group.
    pub(crate) fn join(self: &Arc<Self>, group: GroupName) -> GroupMember {
        let (sender, checks) = mpsc::channel(UNANSWERED_MAX);
        let number = self.next_member.fetch_add(1, Ordering::Relaxed);
        self.lock().entry(group.clone()).or_default().push(Member { number, checks: sender });
        self.joined.notify_one();
        GroupMember { checks, _registration: Registration { check_backs: Arc::clone(self), group, number } }
    }

    /// Ends all members' streams of questions.
    pub(crate) fn close(&self) {
        self.lock().clear();
    }

    /// In how many milliseconds a group is asked first if its transaction does not say.
    pub(crate) fn first_after_ms(&self) -> u64 {
        milliseconds(self.config.after)
    }

    /// Asks whenever it is time. Never ends; may be dropped at any await.
    pub(crate) async fn run(&self) {
        loop {
            self.something_due().await;
            let pause = match self.round().await {
                Ok(asked) => asked == 0,
                Err(error) => {
                    tracing::warn!(%error, "producer groups could not be asked about their transactions yet");
                    true
                }
            };
            if pause {
                // Nobody takes checks now.
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }

    async fn something_due(&self) {
        let times = self.shard.view().checks();
        loop {
            let (changed, joined) = (times.changed(), self.joined.notified());
            let now = self.clock.now();
            let next = times.next(self.lock().keys(), now);
            let left = next.map(|next| Duration::from_millis(next.0.saturating_sub(now.0)).min(LOOK_EVERY));
            if left == Some(Duration::ZERO) {
                return;
            }
            let time = async {
                match left {
                    Some(left) => tokio::time::sleep(left).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = changed => {}
                () = joined => {}
                () = time => {}
            }
        }
    }

    /// Asks what is due; returns how many checks were sent.
    ///
    /// # Errors
    /// If the shard takes no writes; nobody is asked then.
    pub(crate) async fn round(&self) -> Result<usize, Error> {
        let _round = self.round.lock().await;
        let due = self.due(self.clock.now());
        if due.is_empty() {
            return Ok(0);
        }
        let keys = due.iter().map(|(key, _)| key.clone()).collect();
        let interval_ms = milliseconds(self.config.interval);
        let waiting = self.shard.ask_about(keys, interval_ms, self.config.checks_max).await?;
        let mut asked = 0;
        for ((key, permit), undecided) in due.into_iter().zip(waiting) {
            let Some(undecided) = undecided else { continue };
            if undecided.next_check.is_none() {
                tracing::warn!(transaction = %key, checks = undecided.checks, "a prepared transaction is parked after its last check");
            }
            permit.send(CheckBack {
                id: key.id,
                prepared_ms: undecided.prepared.0,
                check: undecided.checks.into(),
                checks_max: self.config.checks_max.into(),
            });
            asked += 1;
        }
        Ok(asked)
    }

    /// What is due, each with a member that takes it.
    fn due(&self, now: Timestamp) -> Vec<(TransactionKey, mpsc::OwnedPermit<CheckBack>)> {
        let times = self.shard.view().checks();
        let mut due = Vec::new();
        for (group, members) in &mut *self.lock() {
            let unanswered_max = UNANSWERED_MAX.saturating_mul(members.len());
            for key in times.due(group, now, unanswered_max) {
                if due.len() >= CHECKS_PER_ROUND {
                    return due;
                }
                // Each in turn; one that takes nothing is passed over.
                let free = members.iter().find_map(|member| {
                    let permit = member.checks.clone().try_reserve_owned().ok()?;
                    Some((member.number, permit))
                });
                let Some((number, permit)) = free else { break };
                let taken = members.iter().position(|member| member.number == number).unwrap_or(0);
                members.rotate_left(taken + 1);
                due.push((key, permit));
            }
        }
        due
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
