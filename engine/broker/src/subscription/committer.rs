//! Making progress durable: one commit at a time, with the dead letters that it ends.
//!
//! Nothing here waits: reading dead letters' events and the commit itself are one future whose end its owner is told.

use levada_stage::BoxFuture;
use std::{collections::BTreeMap, fmt, future::pending, sync::Arc};

use levada_delivery::subscription::{DeadLetter, Reason as DeliveryReason, Settling};
use levada_protocol::{
    event::Event,
    ids::{Offset, PartitionId, SubscriptionId, TopicName},
};
use tokio::{
    sync::oneshot,
    time::{Duration, Instant},
};

use super::{
    queue::{self, Place},
    reads::{Reads, read_event},
};
use crate::{
    dead_letters::{DeadLetters, Origin, Reason},
    error::Error,
    log::Log,
    rows::{self, SubscriptionLoss, SubscriptionRecord, TransactionKey},
    shard::{
        AppendRequest, Condition, Generation, Proposal, ProposalRefused, ShardHandle, StateChange, Transact,
    },
    topic::Topic,
};

/// How long no commit is made after one failed.
const RETRY: Duration = Duration::from_millis(500);

/// The commits of one subscription.
pub(super) struct Committer {
    record: Arc<SubscriptionRecord>,
    topic: Arc<Topic>,
    target: TopicName,
    shard: ShardHandle,
    /// The fence: an owner of a higher generation has taken over.
    generation: Generation,
    under_way: Option<UnderWay>,
    /// No commit is made before: the last one failed, or is young.
    after: Option<Instant>,
    /// The last commit failed, and that was logged.
    failing: bool,
    /// Events that the chain failed on, until they are durable dead letters.
    failed: BTreeMap<(PartitionId, Offset), levada_chain::DeadLetter>,
    /// Transactions whose events are acknowledged and not committed yet, by number.
    transactions: BTreeMap<u64, Transact>,
    /// The number of the next one.
    next_transaction: u64,
}

/// The commit under way.
struct UnderWay {
    id: u64,
    outcome: Outcome,
    transaction: Option<TransactionKey>,
}

/// How a commit ended.
pub(super) enum Ended {
    Progress(Result<(), ProposalRefused>),
    /// That of a transaction, whose maker was told.
    Transaction(TransactionOutcome),
}

/// What is certain of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TransactionOutcome {
    Stored,
    /// Nothing has happened.
    Refused,
    Unknown,
}

/// How its outcome comes.
enum Outcome {
    Submitted(oneshot::Receiver<Result<(), ProposalRefused>>),
    /// Its dead letters are to be read first.
    Collecting(BoxFuture<Result<(), ProposalRefused>>),
    Transaction(BoxFuture<TransactionOutcome>),
}

/// An event that becomes a dead letter.
struct Dead {
    source: Source,
    reason: Reason,
    /// `None` if it has to be read.
    event: Option<Event>,
}

/// Where such an event is.
enum Source {
    /// In a log.
    Log(Place),
    /// In the queue, under this number; its place in the topic, if that is known.
    Queue(Offset, Option<Place>),
}

impl Committer {
    /// Commits for the subscription of `record`; dead letters go to `target`.
    pub(super) fn new(
        record: Arc<SubscriptionRecord>,
        topic: Arc<Topic>,
        target: TopicName,
        (shard, generation): (ShardHandle, Generation),
    ) -> Self {
        Self {
            record,
            topic,
            target,
            shard,
            generation,
            under_way: None,
            after: None,
            failing: false,
            failed: BTreeMap::new(),
            transactions: BTreeMap::new(),
            next_transaction: 1,
        }
    }

    /// True if a commit may begin now; ends a wait that is over. Nobody gathers what a transaction waits for.
    pub(super) fn may_submit(&mut self, now: Instant) -> bool {
        self.after.take_if(|after| *after <= now);
        let is_urgent = !self.transactions.is_empty() && !self.failing;
        self.under_way.is_none() && (self.after.is_none() || is_urgent)
    }

    /// The number of the next transaction.
    pub(super) fn transaction_number(&mut self) -> u64 {
        self.next_transaction += 1;
        self.next_transaction
    }

    /// Keeps a transaction whose events were acknowledged under this number.
    pub(super) fn keep_transaction(&mut self, number: u64, transact: Transact) {
        self.transactions.insert(number, transact);
    }

    /// True if a transaction of this name is kept, or its commit is under way.
    pub(super) fn has_transaction(&self, key: &TransactionKey) -> bool {
        let mut kept = self.transactions.values().map(|transact| &transact.key);
        let under_way = self.under_way.as_ref().and_then(|it| it.transaction.as_ref());
        under_way == Some(key) || kept.any(|kept| kept == key)
    }

    /// When a commit may begin, if that is what it waits for.
    pub(super) fn ready_at(&self) -> Option<Instant> {
        // A commit under way wakes the owner when it ends.
        self.after.filter(|_| self.under_way.is_none())
    }

    /// Keeps events that the chain failed on.
    pub(super) fn keep_failed(
        &mut self,
        partition: PartitionId,
        dead_letters: Vec<levada_chain::DeadLetter>,
    ) {
        for dead_letter in dead_letters {
            self.failed.insert((partition, dead_letter.offset), dead_letter);
        }
    }

    /// Lets go of failed events below a partition's durable floor.
    pub(super) fn settle(&mut self, partition: PartitionId, floor: Offset) {
        while let Some((key, _)) = self.failed.range((partition, Offset(0))..(partition, floor)).next() {
            let key = *key;
            self.failed.remove(&key);
        }
    }

    /// Begins a commit. Events of dead letters are taken from what was read, or read.
    pub(super) fn submit(
        &mut self,
        mut settling: Settling,
        losses: Vec<(PartitionId, SubscriptionLoss)>,
        reads: &Reads,
    ) {
        let id = SubscriptionId(self.record.id);
        let mut changes = changes(id, reads.queue().partition(), &mut settling);
        let lost = losses.into_iter();
        changes.extend(lost.map(|(partition, loss)| StateChange::Loss { subscription: id, partition, loss }));
        let owner = Condition::Owner { subscription: id, generation: self.generation };
        // What is acknowledged meanwhile goes together: one commit and one answer instead of many.
        self.after = Some(Instant::now() + self.shard.progress_delay());
        let transact = settling.transaction.and_then(|number| self.transactions.remove(&number));
        if let Some(transact) = transact {
            let transaction = Some(transact.key.clone());
            let transact = Transact { acked: Some((owner, changes)), ..transact };
            let outcome = Outcome::Transaction(commit_transaction(self.shard.clone(), transact));
            self.under_way = Some(UnderWay { id: settling.id, outcome, transaction });
            return;
        }
        let (reply, outcome) = oneshot::channel();
        let proposal = Proposal { conditions: vec![owner], changes, appends: Vec::new(), reply };
        let outcome = if settling.dead_letters.is_empty() {
            self.shard.propose_with_next_commit(proposal);
            Outcome::Submitted(outcome)
        } else {
            let dead_letters = settling.dead_letters.iter();
            let dead = dead_letters.flat_map(|it| self.events_of(it, reads)).collect();
            let collecting = self.collect(dead, reads);
            Outcome::Collecting(commit(self.shard.clone(), proposal, collecting, outcome))
        };
        self.under_way = Some(UnderWay { id: settling.id, outcome, transaction: None });
    }

    /// Waits until the commit under way ends; for ever if there is none. Cancel safe.
    pub(super) async fn ended(&mut self) -> (u64, Ended) {
        let Some(under_way) = &mut self.under_way else { return pending().await };
        let ended = match &mut under_way.outcome {
            Outcome::Submitted(outcome) => {
                Ended::Progress(outcome.await.unwrap_or_else(|_| Err(ProposalRefused::unanswered())))
            }
            Outcome::Collecting(outcome) => Ended::Progress(outcome.await),
            Outcome::Transaction(outcome) => Ended::Transaction(outcome.await),
        };
        let id = under_way.id;
        self.under_way = None;
        if let Ended::Progress(outcome) = &ended {
            self.note(outcome);
        }
        (id, ended)
    }

    fn note(&mut self, outcome: &Result<(), ProposalRefused>) {
        match outcome {
            Ok(()) => self.failing = false,
            Err(ProposalRefused::Gone | ProposalRefused::Stale { .. }) => {}
            Err(error) => {
                // Once: a store that takes no writes says so itself, and may stay that way.
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%error, "progress could not be committed; it is tried again");
                }
                self.after = Some(Instant::now() + RETRY);
            }
        }
    }

    fn events_of(&mut self, dead_letter: &DeadLetter, reads: &Reads) -> Vec<Dead> {
        let partition = dead_letter.partition;
        let offsets = (dead_letter.first.0..=dead_letter.last.0).map(Offset);
        let dead = offsets.map(|offset| {
            let mut reason = reason(dead_letter);
            let event = match self.failed.remove(&(partition, offset)) {
                Some(failed) => {
                    reason.plugin = failed.plugin;
                    Some(failed.event)
                }
                None => reads.event(partition, offset),
            };
            let queue = reads.queue();
            let source = if partition == queue.partition() {
                Source::Queue(offset, queue.place(offset))
            } else {
                Source::Log(Place { partition, offset })
            };
            Dead { source, reason, event }
        });
        dead.collect()
    }

    /// Makes events of a dead-letter topic of them.
    fn collect(&self, dead: Vec<Dead>, reads: &Reads) -> BoxFuture<Result<Vec<AppendRequest>, Error>> {
        let log = |it: &Dead| match it.source {
            Source::Log(Place { partition, .. }) => Some((partition, reads.log(partition).clone())),
            Source::Queue(..) => None,
        };
        let logs: BTreeMap<PartitionId, Log> = dead.iter().filter_map(log).collect();
        let queue = reads.queue().of();
        let (record, topic) = (Arc::clone(&self.record), Arc::clone(&self.topic));
        let mut letters = DeadLetters::new(self.target.clone());
        Box::pin(async move {
            for Dead { source, reason, event } in dead {
                let found = match (source, event) {
                    (Source::Log(place) | Source::Queue(_, Some(place)), Some(event)) => Some((place, event)),
                    (Source::Log(place), None) => {
                        let event = read_event(&logs[&place.partition], place.offset).await?;
                        event.map(|event| (place, event))
                    }
                    (Source::Queue(number, _), _) => queue::read_event(queue.clone(), number).await?,
                };
                let Some((Place { partition, offset }, event)) = found else {
                    tracing::warn!("an event was gone before it became a dead letter");
                    continue;
                };
                let origin = Origin { topic: &topic.name, partition, name: record.name.as_str() };
                letters.push(&origin, offset, event, &reason);
            }
            Ok(letters.into_appends())
        })
    }
}

/// The changes of a commit: of the subscription's progress, and of what its queue holds.
fn changes(id: SubscriptionId, queue: PartitionId, settling: &mut Settling) -> Vec<StateChange> {
    let rows = std::mem::take(&mut settling.rows).into_iter();
    let mut changes: Vec<_> = rows
        .map(|(partition, rows)| {
            let partition = if partition == queue { rows::QUEUE } else { partition };
            StateChange::Progress { subscription: id, partition, rows }
        })
        .collect();
    if !settling.dequeued.is_empty() {
        let events = std::mem::take(&mut settling.dequeued);
        changes.push(StateChange::Dequeue { subscription: id, events });
    }
    changes
}

/// Hands a proposal to the shard once its dead letters are there, and waits for its outcome.
fn commit(
    shard: ShardHandle,
    proposal: Proposal,
    collecting: BoxFuture<Result<Vec<AppendRequest>, Error>>,
    outcome: oneshot::Receiver<Result<(), ProposalRefused>>,
) -> BoxFuture<Result<(), ProposalRefused>> {
    Box::pin(async move {
        let appends = collecting.await.map_err(ProposalRefused::Failed)?;
        shard.propose(Proposal { appends, ..proposal }).await.map_err(ProposalRefused::Failed)?;
        outcome.await.unwrap_or_else(|_| Err(ProposalRefused::unanswered()))
    })
}

/// Hands a transaction to the shard, and tells its maker what became of it.
fn commit_transaction(shard: ShardHandle, transact: Transact) -> BoxFuture<TransactionOutcome> {
    Box::pin(async move {
        let Transact { key, digest, batches, acked, check_after_ms, admitted, reply: maker } = transact;
        let transact = |reply| Transact { key, digest, batches, acked, check_after_ms, admitted, reply };
        let result = shard.transact(transact).await;
        let outcome = match &result {
            Ok(_) => TransactionOutcome::Stored,
            Err(error) if error.has_no_side_effects() => TransactionOutcome::Refused,
            Err(_) => TransactionOutcome::Unknown,
        };
        // Whoever asked may have gone: then a repeat tells.
        let _ = maker.send(result);
        outcome
    })
}

fn failed(deliveries: u16) -> String {
    match deliveries {
        1 => "its only delivery failed".to_owned(),
        more => format!("{more} deliveries failed"),
    }
}

fn reason(dead_letter: &DeadLetter) -> Reason {
    let (error, plugin) = match &dead_letter.reason {
        DeliveryReason::MaxAttempts => (failed(dead_letter.attempts), None),
        DeliveryReason::Rejected { reason: error }
        | DeliveryReason::Undecodable { error }
        | DeliveryReason::PushFailed { error } => (error.clone(), None),
        DeliveryReason::ConsumerLost => {
            ("the consumer was lost with the event, again and again".to_owned(), None)
        }
        DeliveryReason::Expired => ("its time to live ended before it was delivered".to_owned(), None),
        DeliveryReason::PluginError { plugin, error } => (error.clone(), Some(plugin.clone())),
    };
    Reason {
        word: dead_letter.reason.as_str(),
        error,
        plugin,
        attempts: u32::from(dead_letter.attempts),
        first_failure: dead_letter.first_failure,
        last_failure: dead_letter.last_failure,
    }
}

impl fmt::Debug for Committer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let under_way = self.under_way.as_ref().map(|under_way| under_way.id);
        f.debug_struct("Committer").field("under_way", &under_way).finish_non_exhaustive()
    }
}
