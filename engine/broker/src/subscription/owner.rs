//! The owner of one subscription: reads ahead, runs the chain, sends what the rules say to whom, commits progress.
//!
//! The rules are `levada_delivery`'s; this is the shell around them. Nobody else touches the subscription's state.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use levada_chain::{Costs, DeadLetter};
use levada_delivery::{
    now::Now,
    subscription::{ConsumerId, Subscription},
};
use levada_protocol::{
    error::ErrorCode,
    ids::{Offset, PartitionId, TopicName},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Command, Context, Described, Left,
    consumers::{Attached, Consumers},
    describe::Asked,
    lost::{self, Untold},
    ready::Ready,
};
use crate::{
    chains, error::Error, floors::Floors, log::Log, rows::SubscriptionRecord, shard::FragmentRefused,
    topic::Topic,
};

/// Deliveries after which commands have their turn.
const DELIVERIES_PER_TURN: usize = 32;
/// A consumer's stream that takes nothing for so long gets nothing more until it does.
const STUCK: Duration = Duration::from_secs(1);
/// How long the owner waits after a read or a commit failed.
pub(super) const RETRY: Duration = Duration::from_millis(500);

/// The owner's state.
pub(crate) struct OwnerTask {
    pub(super) record: Arc<SubscriptionRecord>,
    pub(super) topic: Arc<Topic>,
    pub(super) context: Context,
    pub(super) stop: CancellationToken,
    pub(super) outdated: Arc<AtomicBool>,
    pub(super) left: Arc<Left>,
    pub(super) rules: Subscription,
    pub(super) logs: Vec<Log>,
    pub(super) consumers: Consumers,
    /// Losses that no consumer was there to be told of.
    pub(super) untold: Untold,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) asked: Asked,
    pub(super) ready: Vec<Ready>,
    /// Bytes that were read into `ready` since it was last cleared.
    pub(super) ready_bytes: usize,
    /// Events that the chain failed on, until their commit.
    pub(super) letters: BTreeMap<(PartitionId, Offset), DeadLetter>,
    pub(super) dead_letters: TopicName,
    pub(super) chain: Option<chains::Attached>,
    pub(super) paused: Option<Paused>,
    /// The last turn ended before everything that could be delivered was.
    pub(super) more: bool,
    pub(super) commit: Option<UnderWay>,
    /// No commit is made before: the last one failed, or is young.
    pub(super) commit_after: Option<Instant>,
    /// The last commit failed, and that was said.
    pub(super) commit_failing: bool,
    /// How far the topic's changes were looked at.
    pub(super) seen: Option<u64>,
    pub(super) floors: Arc<Floors>,
    pub(super) costs: Arc<Costs>,
    pub(super) delivered: crate::metrics::Delivered,
    pub(super) seed: u64,
}

/// The commit under way.
pub(super) struct UnderWay {
    pub(super) id: u64,
    pub(super) outcome: oneshot::Receiver<Result<(), FragmentRefused>>,
}

/// Why nothing is delivered, and when to try again by itself.
pub(super) struct Paused {
    pub(super) why: String,
    pub(super) until: Option<Instant>,
}

/// What woke the owner.
enum Woken {
    Command(Option<Command>),
    Asked(oneshot::Sender<Described>),
    Left,
    Committed(Result<(), FragmentRefused>),
    Time,
}

impl OwnerTask {
    /// Runs until the subscription, its topic or the engine ends.
    pub(crate) async fn run(mut self) {
        let (stop, topic) = (self.stop.clone(), Arc::clone(&self.topic));
        // Dropping the work at any await is safe: what is not committed is delivered again.
        let error = tokio::select! {
            biased;
            () = stop.cancelled() => deleted(),
            () = topic.deleted.cancelled() => deleted(),
            error = self.serve() => error,
        };
        // Several of these may be true at once; the consumers hear of the one that is behind the others.
        let error = if self.context.cancelled.is_cancelled() {
            Error::ShuttingDown
        } else if topic.deleted.is_cancelled() {
            topic.deleted_error()
        } else {
            error
        };
        for consumer in self.consumers.values() {
            consumer.end(error.clone());
        }
    }

    /// Serves until it must end, and says why.
    async fn serve(&mut self) -> Error {
        let topic = Arc::clone(&self.topic);
        let mut appended = topic.appended();
        loop {
            appended.mark_unchanged();
            let now = self.context.clock.moment();
            self.look(now);
            if let Err(error) = self.turn(now).await {
                // A topic that is about to be gone is no fault; this ends once its deletion is durable.
                if !self.topic.is_going() {
                    tracing::error!(%error, "subscription cannot go on for now");
                }
                self.pause(error.to_string(), Some(RETRY));
            }
            match self.wait(now, &mut appended).await {
                Woken::Command(None) => return deleted(),
                Woken::Command(Some(command)) => self.take_commands(command),
                Woken::Asked(reply) => self.answer(reply),
                Woken::Left => self.take_left(),
                Woken::Committed(outcome) => {
                    if let Err(error) = self.committed(outcome) {
                        return error;
                    }
                }
                Woken::Time => {}
            }
        }
    }

    /// Looks how far the topic has come.
    pub(super) fn look(&mut self, now: Now) {
        let changed = self.topic.changes.since(&mut self.seen);
        for number in changed.unwrap_or_else(|| self.topic.partition_ids().collect()) {
            let partition = &self.topic.partitions[usize::from(number.0)];
            self.rules.end(number, partition.end());
            if let Some(lost) = self.rules.lost(number, partition.start()) {
                lost::note(lost, &mut self.consumers, &mut self.untold);
            }
        }
        let stuck_after =
            STUCK.min(Duration::from_millis(u64::from(self.record.options.ack_timeout_ms()) / 2));
        for (id, consumer) in &mut self.consumers {
            if consumer.look(stuck_after) {
                self.rules.hold(ConsumerId(*id), consumer.is_held());
            }
        }
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let consumers = &self.consumers;
        let taken = |id: ConsumerId| consumers.get(&id.0).map_or(0, Attached::taken);
        self.rules.on_time(now, taken);
    }

    /// Delivers what can be delivered, commits what can be committed, confirms what is.
    async fn turn(&mut self, now: Now) -> Result<(), Error> {
        if self.may_deliver().await? {
            self.more = true;
            for _ in 0..DELIVERIES_PER_TURN {
                let Some(wanted) = self.rules.next(now) else {
                    self.more = false;
                    break;
                };
                self.deliver(now, wanted).await?;
                if self.paused.is_some() || !self.commands.is_empty() {
                    break;
                }
            }
        }
        if self.commit.is_none() && self.commit_after.is_none_or(|after| after <= Instant::now()) {
            self.commit_after = None;
            if self.submit().await? {
                // What is acknowledged meanwhile goes together: one commit and one answer instead of many.
                self.commit_after = Some(Instant::now() + self.context.shard.progress_delay());
            }
        }
        let confirmed = self.rules.confirmed();
        let mut finished = Vec::new();
        for (id, consumer) in &mut self.consumers {
            consumer.confirm(confirmed);
            consumer.tell_losses(&self.record);
            // Room that was not used goes to others.
            consumer.room = None;
            if consumer.finishing && consumer.is_confirmed() && self.rules.in_flight(ConsumerId(*id)) == 0 {
                consumer.end(Error::ShuttingDown);
                finished.push(*id);
            }
        }
        finished.into_iter().for_each(|id| self.detach(now, id));
        Ok(())
    }

    pub(super) fn pause(&mut self, why: String, retry_after: Option<Duration>) {
        if self.paused.is_none() {
            tracing::warn!(why, "subscription paused");
        }
        self.paused = Some(Paused { why, until: retry_after.map(|pause| Instant::now() + pause) });
    }

    /// Waits for something to do.
    async fn wait(&mut self, now: Now, appended: &mut tokio::sync::watch::Receiver<u64>) -> Woken {
        let more = self.paused.is_none() && self.more;
        // Nobody is there to get what is new: whoever attaches or asks looks first.
        let listens = !self.consumers.is_empty();
        let alarm = [
            self.rules.next_deadline(now).map(|at| Duration::from_millis(at.saturating_sub(now.mono_ms))),
            self.paused
                .as_ref()
                .and_then(|paused| paused.until)
                .map(|until| until - Instant::now().min(until)),
            // A commit under way wakes the owner when it ends.
            self.commit_after
                .filter(|_| self.commit.is_none())
                .map(|after| after - Instant::now().min(after)),
            more.then_some(Duration::ZERO),
        ];
        let alarm = alarm.into_iter().flatten().min();
        let time = async {
            match alarm {
                // Let others have the thread once; then go on.
                Some(Duration::ZERO) => tokio::task::yield_now().await,
                Some(alarm) => tokio::time::sleep(alarm).await,
                None => std::future::pending().await,
            }
        };
        let commit = async {
            match &mut self.commit {
                Some(under_way) => (&mut under_way.outcome).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            // First what is rare: commands may never end.
            outcome = commit => {
                Woken::Committed(outcome.unwrap_or_else(|_| Err(FragmentRefused::unanswered())))
            }
            () = self.left.notify.notified() => Woken::Left,
            // The handle holds the sending side as long as anybody can ask.
            Some(reply) = self.asked.recv() => Woken::Asked(reply),
            command = self.commands.recv() => Woken::Command(command),
            // The topic outlives the owner: it holds the sending side.
            _ = appended.changed(), if listens => Woken::Time,
            () = time => Woken::Time,
        }
    }
}

/// What consumers of a subscription that is gone are told.
pub(super) fn deleted() -> Error {
    Error::refused(ErrorCode::SubscriptionNotFound, "the subscription was deleted")
}
