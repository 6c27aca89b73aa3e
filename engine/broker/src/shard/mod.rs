//! The shard: the one commit path. Whatever changes state is decided, written and made durable here, in order.
//!
//! Two threads: the writer takes what has queued, decides it against the state that it owns and writes one
//! commit; the syncer makes written commits durable and only then publishes the state and notifies anyone. While the
//! disk syncs one group the writer collects the next.
//!
//! ```text
//!  publishes, changes, ...   --> commands --> +--------+  Commit   +-------+
//!  acknowledgements (urgent) --> commands --> | writer | --------> | store |
//!  acknowledgements --> piggyback queue ----> | State  |           +-------+
//!                                             +--------+               ^ sync
//!                                                 | Group              |
//!                                                 v                    |
//!                                             +--------+ --------------+
//!                                             | syncer | --> live topics, catalogue, events
//!                                             +--------+ --> notifier --> who waits, who asked
//! ```
//!
//! `State` and its tables decide without a thread, a clock or a queue. A group is refused as a whole if its commit
//! fails, and what was decided after it too: it rests on state that is void.

mod announcement;
mod command;
mod draft;
mod due;
mod fail_stop;
mod group;
mod notifier;
mod piggyback;
mod proposal;
mod reply;
mod rewritten;
mod room;
mod state;
mod syncer;
mod tables;
mod transact;
mod view;
mod writer;

use std::{
    sync::{Arc, mpsc as std_mpsc},
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use levada_protocol::{
    error::ErrorCode,
    ids::{ProducerId, ProducerName, SubscriptionId, Timestamp, TopicId, TopicName},
    request::OpenedProducer,
};
use levada_store::{
    Store,
    commit::{AppliedRow, Term},
};
use tokio::sync::{mpsc, oneshot};

pub(crate) use self::{
    command::{Append, Command, Expire, Forget, Idle, Trim},
    command::{CancelScheduled, MoveDue, OpenProducer},
    due::already_due,
    proposal::{
        AppendRequest, AppendTarget, Condition, Proposal, ProposalRefused, Queued, QueuedEvents,
        RedrivenBatch, StateChange,
    },
    reply::{AckDispatcher, AckPermit, Slot},
    rewritten::Rewritten,
    tables::{DueBatch, DuePart, Generation, NameKey, ProducerKey, RedriveRevision},
    transact::{Found, Transact, TransactBatch, Transacted, transaction_exists, transaction_not_found},
    view::{Closed, ShardView, SyncTimes},
};
use self::{
    fail_stop::FailStopGuard,
    notifier::Notifier,
    piggyback::PiggybackQueue,
    state::{Limits, Live, State},
    tables::{TableLimits, Tables},
    transact::{Ask, Decide, ForgetTransactions},
    writer::{Identity, Inbox, Writer},
};
use crate::{
    actor::Actor,
    catalogue::{Catalogue, Change},
    check_times::CheckTimes,
    config::BrokerConfig,
    error::Error,
    guard::Guard,
    queue_ends::QueueEnds,
    quotas::Admitted,
    rows::{EngineId, Place, TransactionKey, Undecided},
    tasks::Tasks,
    topic::Topic,
    topics::Topics,
};

/// The threads' names.
const WRITER: &str = "shard-writer";
const SYNCER: &str = "shard-syncer";

/// A cheap handle of the shard.
#[derive(Debug, Clone)]
pub(crate) struct ShardHandle {
    commands: mpsc::Sender<Command>,
    /// Proposals that ride with the next commit, or make one after a short while.
    piggyback: Arc<PiggybackQueue>,
    progress_delay: Duration,
    tasks: Tasks,
    view: Arc<ShardView>,
    engine_id: EngineId,
}

/// Refuses commits of another shard.
fn check_shard(last: &AppliedRow, shard: u16) -> Result<(), Error> {
    if last.index.0 == 0 || last.shard == shard {
        return Ok(());
    }
    let message = format!("the data directory holds shard {}, expected shard {shard}", last.shard);
    Err(Error::Store { code: ErrorCode::StorageDiverged, message })
}

/// Loads the state as a start does, from a store that takes no writes.
pub(crate) fn inspect(store: &dyn Store) -> Result<Catalogue, Error> {
    let catalogue = Catalogue::load(store)?;
    Tables::load(store, &catalogue, TableLimits { producers_max: 0, dedup_ids_max: 0 }, 0)?;
    Ok(catalogue)
}

/// The shard's threads.
#[derive(Debug)]
pub(crate) struct Shard {
    writer: JoinHandle<()>,
    syncer: JoinHandle<()>,
    /// The task that sends the notices.
    notifying: tokio::task::JoinHandle<()>,
}

impl Shard {
    /// Loads the state from the store and starts both threads.
    pub(crate) fn start(
        config: &BrokerConfig,
        store: &Arc<dyn Store>,
        guard: &Arc<Guard>,
        tasks: &Tasks,
    ) -> Result<(Self, ShardHandle), Error> {
        let topics = Arc::new(Topics::new(config.tail_bytes_max));
        let checks = Arc::<CheckTimes>::default();
        let (producers_max, dedup_ids_max) = (config.producers_max, config.dedup_ids_max);
        let tables = TableLimits { producers_max, dedup_ids_max };
        let limits = Limits { records_max: config.catalogue_records_max, tables };
        let queues = Arc::<QueueEnds>::default();
        let live =
            Live { topics: Arc::clone(&topics), checks: Arc::clone(&checks), queues: Arc::clone(&queues) };
        let state = State::open(Arc::clone(store), Arc::clone(guard), live, limits, 0)?;
        check_shard(state.last(), config.shard)?;
        let view = Arc::new(ShardView::new(state.catalogue().clone(), topics, checks, queues));
        let (commands, receiver) = mpsc::channel(config.writer_queue_max);
        let (groups, synced) = std_mpsc::sync_channel(config.groups_unsynced_max);
        let piggyback = Arc::<PiggybackQueue>::default();
        let (notifier, notifying) = Notifier::start(tasks);
        let durable = syncer::Durable::new(Arc::clone(store), Arc::clone(&view), notifier);
        let fail_stop = FailStopGuard::new(&view, SYNCER, None);
        let syncer = syncer::Syncer::new(Arc::clone(&durable), synced, fail_stop);
        let mut writer = Writer {
            _fail_stop: FailStopGuard::new(&view, WRITER, Some(&piggyback)),
            inbox: Inbox::new(receiver, Arc::clone(&piggyback)),
            identity: Identity { shard: config.shard, term: Term(state.last().term.0 + 1) },
            state,
            store: Arc::clone(store),
            guard: Arc::clone(guard),
            view: Arc::clone(&view),
            groups,
            durable,
            commit_bytes_max: config.commit_bytes_max,
            reopened: None,
            clock: config.clock.clone(),
        };
        let engine_id = writer.begin()?;
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(|error| Error::Store {
                code: ErrorCode::Internal,
                message: format!("cannot start the {name} thread: {error}"),
            })
        };
        let syncer = spawn(SYNCER, Box::new(move || syncer.run()))?;
        let writer = spawn(WRITER, Box::new(move || writer.run()))?;
        let handle = ShardHandle {
            commands,
            piggyback,
            progress_delay: config.progress_delay,
            tasks: tasks.clone(),
            view,
            engine_id,
        };
        Ok((Self { writer, syncer, notifying }, handle))
    }

    /// Waits for both threads, once [`ShardHandle::stop`] was called, and until all were notified.
    pub(crate) async fn join(self) {
        let Self { writer, syncer, notifying } = self;
        let threads = tokio::task::spawn_blocking(move || {
            for thread in [writer, syncer] {
                // A panic was reported by its hook.
                let _ = thread.join();
            }
        });
        // Neither fails: they do not panic, and they are never aborted.
        let _ = threads.await;
        let _ = notifying.await;
    }
}

/// Something is read from the store that may not be durable yet.
#[derive(Debug)]
pub(crate) struct Reading<'a> {
    shard: &'a ShardHandle,
    /// How often the store had been opened again when the reading began.
    reopened: u64,
}

impl Reading<'_> {
    /// Waits until everything is durable that the store has shown since the reading began.
    ///
    /// # Errors
    /// Why the shard takes no writes, or `OUTCOME_UNKNOWN` if the store was opened again meanwhile: what it showed may be
    /// void then.
    pub(crate) async fn confirm(self) -> Result<(), Error> {
        let Self { shard, reopened } = self;
        let (reply, answer) = oneshot::channel();
        shard.ask(Command::Barrier { reply }, answer).await?;
        if shard.view.reopened() == reopened { Ok(()) } else { Err(Error::unanswered()) }
    }
}

impl ShardHandle {
    /// The newest durable catalogue.
    pub(crate) fn catalogue(&self) -> Arc<Catalogue> {
        self.view.catalogue()
    }

    /// The live topic of this name.
    ///
    /// # Errors
    /// `TOPIC_NOT_FOUND`.
    pub(crate) fn topic(&self, name: &TopicName) -> Result<Arc<Topic>, Error> {
        self.view.topic(name)
    }

    /// The shared view of the shard.
    pub(crate) fn view(&self) -> &ShardView {
        &self.view
    }

    /// The data directory's identity.
    pub(crate) fn engine_id(&self) -> EngineId {
        self.engine_id
    }

    /// Why writes are refused, if they are.
    pub(crate) fn closed(&self) -> Option<Closed> {
        self.view.closed()
    }

    /// The error for commands to a writer that has ended.
    fn gone(&self) -> Error {
        self.closed().map_or(Error::ShuttingDown, |closed| closed.error())
    }

    /// Sends a command to the writer. If that has ended the command is refused, and so is certain to have no effect.
    async fn send(&self, command: Command) -> Result<(), Error> {
        self.commands.send(command).await.map_err(|mpsc::error::SendError(command)| {
            let error = self.gone();
            command.refuse(&error);
            error
        })
    }

    /// Sends a command to the writer and waits for its reply.
    async fn ask(&self, command: Command, answer: oneshot::Receiver<Result<(), Error>>) -> Result<(), Error> {
        self.send(command).await?;
        answer.await.unwrap_or_else(|_| Err(Error::unanswered()))
    }

    /// Queues an append, which holds the slot for its acknowledgement. Cancel safe: it is queued or it is not.
    pub(crate) async fn append(&self, append: Append) -> Result<(), Error> {
        self.send(Command::Append(append)).await
    }

    /// Decides and stores a change of the catalogue; completes once it is durable.
    pub(crate) async fn change(&self, by: Actor, change: Change) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Change { change: Box::new(change), by, reply }, answer).await
    }

    /// Moves a partition's log start, and drops what is before it; completes once that is durable.
    pub(crate) async fn trim(
        &self,
        trim: impl FnOnce(oneshot::Sender<Result<(), Error>>) -> Trim,
    ) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Trim(trim(reply)), answer).await
    }

    /// Deletes a subscription that has had no consumer since then, if its option still says that it expires after so long and
    /// the time has come; completes once that is durable. Whether it was deleted the catalogue tells.
    pub(crate) async fn expire(
        &self,
        subscription: SubscriptionId,
        since: Timestamp,
        after_ms: u64,
    ) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Expire(Expire { subscription, since, after_ms, reply }), answer).await
    }

    /// Lets a new owner take a producer's name over, under the id `fresh` if the name is new; completes once that is durable.
    /// What owners before it had under way is decided by then, and later batches of theirs are refused.
    ///
    /// # Errors
    /// `TOPIC_NOT_FOUND`, `LIMIT_EXCEEDED`, or why the shard takes no writes.
    pub(crate) async fn open_producer(
        &self,
        topic: Arc<Topic>,
        name: ProducerName,
        fresh: ProducerId,
    ) -> Result<OpenedProducer, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::OpenProducer(OpenProducer { topic, name, fresh, reply })).await?;
        answer.await.unwrap_or_else(|_| Err(Error::unanswered()))
    }

    /// Forgets producers and names that were last used before a time; completes once that is durable.
    pub(crate) async fn forget(&self, idle: Idle, before: Timestamp) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Forget(Forget { idle, before, reply }), answer).await
    }

    /// Removes the notes of dropped rows whose space was reclaimed; completes once that is durable.
    pub(crate) async fn reclaimed(&self, notes: Vec<Bytes>) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Reclaimed { notes, reply }, answer).await
    }

    /// Appends delayed batches that are due and have not changed since they were read; completes once that is durable.
    pub(crate) async fn move_due(&self, revision: u64, parts: Vec<DuePart>) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::MoveDue(MoveDue { revision, parts, reply }), answer).await
    }

    /// Takes back the delayed event with this id, whose batch was found at a place; completes once that is durable.
    ///
    /// # Errors
    /// `ALREADY_DUE`, `TOPIC_NOT_FOUND`, or why the shard takes no writes.
    pub(crate) async fn cancel(&self, topic: TopicId, place: Place, id: u64) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Cancel(CancelScheduled { topic, place, id, reply }), answer).await
    }

    /// Stores events of any topics all or none, at once or to be decided about; completes once that is durable.
    ///
    /// # Errors
    /// If nothing was stored, or the outcome is unknown.
    pub(crate) async fn transact(
        &self,
        transact: impl FnOnce(oneshot::Sender<Result<Transacted, Error>>) -> Transact,
    ) -> Result<Transacted, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Transact(transact(reply))).await?;
        answer.await.unwrap_or_else(|_| Err(Error::unanswered()))
    }

    /// Decides a prepared transaction, whose batches were read; completes once that is durable.
    ///
    /// # Errors
    /// `TRANSACTION_NOT_FOUND`, `ALREADY_DECIDED`, or why the shard takes no writes.
    pub(crate) async fn decide(
        &self,
        by: Actor,
        (key, commit): (TransactionKey, bool),
        found: Found,
        admitted: Admitted,
    ) -> Result<Transacted, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Decide(Decide { key, commit, by, found, admitted, reply })).await?;
        answer.await.unwrap_or_else(|_| Err(Error::unanswered()))
    }

    /// Notes that groups are asked about transactions now; completes once that is durable. Returns, for each, how it waits
    /// from now on; `None` if it is decided or parked.
    ///
    /// # Errors
    /// Why the shard takes no writes.
    pub(crate) async fn ask_about(
        &self,
        keys: Vec<TransactionKey>,
        interval_ms: u64,
        checks_max: u16,
    ) -> Result<Vec<Option<Undecided>>, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Ask(Ask { keys, interval_ms, checks_max, reply })).await?;
        answer.await.unwrap_or_else(|_| Err(Error::unanswered()))
    }

    /// Forgets decided transactions whose time is over; completes once that is durable.
    pub(crate) async fn forget_transactions(
        &self,
        ends: Vec<(Timestamp, TransactionKey)>,
    ) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::ForgetTransactions(ForgetTransactions { ends, reply }), answer).await
    }

    /// What is read from the store after this call is durable once [`Reading::confirm`] returns.
    pub(crate) fn reading(&self) -> Reading<'_> {
        Reading { shard: self, reopened: self.view.reopened() }
    }

    /// Checks whether the clock was set back, for partitions to which nothing is appended.
    pub(crate) async fn check_clock(&self) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::CheckClock { reply }, answer).await
    }

    /// How long progress may wait for others to share its commit.
    pub(crate) fn progress_delay(&self) -> Duration {
        self.progress_delay
    }

    /// Lets a new owner take over a subscription: proposals under way of the owners before it are applied or refused by
    /// then, and later ones are refused.
    ///
    /// # Errors
    /// `SUBSCRIPTION_NOT_FOUND`, or why the shard takes no writes.
    pub(crate) async fn take_over(&self, subscription: SubscriptionId) -> Result<Generation, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::TakeOver { subscription, reply }).await?;
        answer.await.unwrap_or_else(|_| Err(Error::unanswered()))
    }

    /// How often the dead letters of a topic were redriven or dropped. What was noted of them by then is durable, and
    /// can be read.
    ///
    /// # Errors
    /// Why the shard takes no writes.
    pub(crate) async fn redrive_revision(&self, topic: TopicId) -> Result<RedriveRevision, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Redrives { topic, reply }).await?;
        answer.await.unwrap_or_else(|_| Err(Error::unanswered()))
    }

    /// Makes a commit of a proposal; completes once it is durable, or refused.
    ///
    /// # Errors
    /// If it was refused, or its outcome is unknown.
    pub(crate) async fn commit(
        &self,
        conditions: Vec<Condition>,
        changes: Vec<StateChange>,
        appends: Vec<AppendRequest>,
    ) -> Result<(), ProposalRefused> {
        let (reply, outcome) = oneshot::channel();
        let proposal = Proposal { conditions, changes, appends, reply };
        self.propose(proposal).await.map_err(ProposalRefused::Failed)?;
        outcome.await.unwrap_or_else(|_| Err(ProposalRefused::unanswered()))
    }

    /// Queues a proposal for the next commit.
    pub(crate) async fn propose(&self, proposal: Proposal) -> Result<(), Error> {
        self.send(Command::Propose(proposal)).await
    }

    /// Queues a proposal for the next commit; if there is none within a short while, one is made.
    ///
    /// Each owner has at most one proposal about progress and one about attendance under way, which bounds what waits here.
    pub(crate) fn propose_with_next_commit(&self, proposal: Proposal) {
        if self.piggyback.push(proposal) {
            let (handle, delay) = (self.clone(), self.progress_delay);
            self.tasks.spawn(tracing::Span::none(), async move {
                let wake = async {
                    tokio::time::sleep(delay).await;
                    handle.wake().await;
                };
                // At the end the writer takes what waits before it stops.
                handle.tasks.cancelled().run_until_cancelled(wake).await;
            });
        }
    }

    /// Makes the writer check whether it can work again.
    pub(crate) async fn wake(&self) {
        // A writer that is gone needs no waking.
        let _ = self.commands.send(Command::Wake).await;
    }

    /// Ends the writer after what is queued. The threads end once everything written is durable.
    pub(crate) async fn stop(&self) {
        // A writer that is gone has stopped already.
        let _ = self.commands.send(Command::Stop).await;
    }
}
