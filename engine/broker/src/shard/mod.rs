//! The shard: the one commit path. Whatever changes state is decided, written and made durable here, in order.
//!
//! Two threads: the writer takes what has queued, decides it against the state that it owns and writes one
//! commit; the syncer makes written commits durable and only then tells anyone. While the disk syncs one group
//! the writer collects the next.

mod command;
mod ending;
mod fragments;
mod group;
mod load;
mod producers;
mod reopen;
mod reply;
mod setback;
mod state;
mod syncer;
mod teller;
mod waiting;
mod writer;

use std::{
    sync::{Arc, Mutex, mpsc as std_mpsc},
    thread::JoinHandle,
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use hdrhistogram::Histogram;
use levada_protocol::{error::ErrorCode, ids::Timestamp};
use levada_store::{
    Store,
    commit::{AppliedRow, Term},
};
use tokio::sync::{Notify, mpsc, oneshot};

pub(crate) use self::command::{
    Append, AppendTarget, Command, Forget, Fragment, FragmentAppend, FragmentRefused, Owner, ProducerKey,
    RouteStep, Trim,
};
pub(crate) use self::reply::AckPermit;
use self::{ending::Ending, teller::Teller, waiting::Waiting};
use crate::{
    catalogue::{Catalogue, Change},
    config::BrokerConfig,
    error::Error,
    guard::Guard,
    rows::EngineId,
    tail::TailBudget,
    tasks::Tasks,
};

/// Syncs that take longer count as this long: a minute.
const SYNC_MICROS_MAX: u64 = 60_000_000;
/// The threads' names.
const WRITER: &str = "shard-writer";
const SYNCER: &str = "shard-syncer";

/// Why no writes are taken.
#[derive(Debug, Clone)]
pub(crate) struct Closed {
    pub(crate) code: ErrorCode,
    pub(crate) reason: String,
}

impl Closed {
    pub(crate) fn error(&self) -> Error {
        Error::Store { code: self.code, message: self.reason.clone() }
    }

    /// True if writes may be taken again without anybody's help: there was no room, or no file descriptor.
    pub(crate) fn heals(&self) -> bool {
        matches!(self.code, ErrorCode::StorageFull | ErrorCode::LimitExceeded)
    }
}

/// What the shard's threads show to everybody.
#[derive(Debug)]
pub(crate) struct Shown {
    /// The newest durable catalogue.
    pub(crate) catalogue: ArcSwap<Catalogue>,
    /// Why writes are refused, if they are.
    pub(crate) closed: ArcSwap<Option<Closed>>,
    /// How long syncs took, in microseconds.
    pub(crate) sync_micros: Mutex<Histogram<u64>>,
    /// Notified when many rows were dropped for good.
    pub(crate) dropped: Notify,
}

impl Shown {
    fn close(&self, code: ErrorCode, reason: String) {
        self.closed.store(Arc::new(Some(Closed { code, reason })));
    }
}

/// A cheap handle of the shard.
#[derive(Debug, Clone)]
pub(crate) struct ShardHandle {
    commands: mpsc::Sender<Command>,
    /// Fragments that ride in the next group, or make one after a short while.
    waiting: Arc<Waiting>,
    progress_delay: Duration,
    tasks: Tasks,
    pub(crate) shown: Arc<Shown>,
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

/// Reads what a start will load, of a store that takes no writes.
pub(crate) fn look(store: &dyn Store) -> Result<Catalogue, Error> {
    // Nothing is held of the tails: nobody reads them.
    Ok(load::read(store, &TailBudget::new(0), None)?.catalogue)
}

/// The shard's threads.
#[derive(Debug)]
pub(crate) struct Shard {
    writer: JoinHandle<()>,
    syncer: JoinHandle<()>,
    /// The task that tells who waits.
    telling: tokio::task::JoinHandle<()>,
}

impl Shard {
    /// Loads the state from the store and starts both threads.
    pub(crate) fn start(
        config: &BrokerConfig,
        store: &Arc<dyn Store>,
        guard: &Arc<Guard>,
        tasks: &Tasks,
    ) -> Result<(Self, ShardHandle), Error> {
        let budget = TailBudget::new(config.tail_bytes_max);
        let state = load::load(store.as_ref(), &budget, None)?;
        check_shard(&state.last, config.shard)?;
        let histogram = Histogram::new_with_max(SYNC_MICROS_MAX, 2)
            .expect("two significant figures are a legal precision");
        let shown = Arc::new(Shown {
            catalogue: ArcSwap::from_pointee(state.catalogue.clone()),
            closed: ArcSwap::from_pointee(None),
            sync_micros: Mutex::new(histogram),
            dropped: Notify::new(),
        });
        let (commands, receiver) = mpsc::channel(config.writer_queue_max);
        let (groups, synced) = std_mpsc::sync_channel(config.groups_unsynced_max);
        let waiting = Arc::<Waiting>::default();
        let (teller, telling) = Teller::start(tasks);
        let durable = syncer::Durable::new(Arc::clone(store), Arc::clone(&shown), teller);
        let ending = Ending::new(&shown, SYNCER, None);
        let syncer = syncer::Syncer::new(Arc::clone(&durable), synced, ending);
        let mut writer = writer::Writer {
            _ending: Ending::new(&shown, WRITER, Some(&waiting)),
            shard: config.shard,
            term: Term(state.last.term.0 + 1),
            state,
            budget,
            store: Arc::clone(store),
            guard: Arc::clone(guard),
            shown: Arc::clone(&shown),
            commands: receiver,
            waiting: Arc::clone(&waiting),
            groups,
            durable,
            group_bytes_max: config.group_bytes_max,
            producers_max: config.producers_max,
            records_max: config.catalogue_records_max,
            clock: config.clock.clone(),
            reopened: None,
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
            waiting,
            progress_delay: config.progress_delay,
            tasks: tasks.clone(),
            shown,
            engine_id,
        };
        Ok((Self { writer, syncer, telling }, handle))
    }

    /// Waits for both threads, once [`ShardHandle::stop`] was called, and until everybody was told.
    pub(crate) async fn join(self) {
        let Self { writer, syncer, telling } = self;
        let threads = tokio::task::spawn_blocking(move || {
            for thread in [writer, syncer] {
                // One that panicked has said so.
                let _ = thread.join();
            }
        });
        // Neither fails: they do not panic, and nobody aborts them.
        let _ = threads.await;
        let _ = telling.await;
    }
}

impl ShardHandle {
    /// The newest durable catalogue.
    pub(crate) fn catalogue(&self) -> Arc<Catalogue> {
        self.shown.catalogue.load_full()
    }

    /// What the data directory is known by.
    pub(crate) fn engine_id(&self) -> EngineId {
        self.engine_id
    }

    /// Why writes are refused, if they are.
    pub(crate) fn closed(&self) -> Option<Closed> {
        (**self.shown.closed.load()).clone()
    }

    /// Why a writer that is gone takes nothing.
    fn gone(&self) -> Error {
        self.closed().map_or(Error::ShuttingDown, |closed| closed.error())
    }

    /// Hands something to the writer. If that is gone the command is refused, and so is certain to have no effect.
    async fn send(&self, command: Command) -> Result<(), Error> {
        self.commands.send(command).await.map_err(|mpsc::error::SendError(command)| {
            let error = self.gone();
            writer::refuse(command, &error);
            error
        })
    }

    /// Hands something to the writer and waits for what it answers.
    async fn ask(&self, command: Command, answer: oneshot::Receiver<Result<(), Error>>) -> Result<(), Error> {
        self.send(command).await?;
        answer.await.unwrap_or_else(|_| Err(Error::unanswered()))
    }

    /// Queues an append; its acknowledgement goes where the append says. Cancel safe: it is queued or it is not.
    pub(crate) async fn append(&self, append: Append) -> Result<(), Error> {
        self.send(Command::Append(append)).await
    }

    /// Decides and stores a change of the catalogue; answers once it is durable.
    pub(crate) async fn change(&self, change: Change) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Change { change: Box::new(change), reply }, answer).await
    }

    /// Moves a partition's log start, and drops what lies before; answers once that is durable.
    pub(crate) async fn trim(
        &self,
        trim: impl FnOnce(oneshot::Sender<Result<(), Error>>) -> Trim,
    ) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Trim(trim(reply)), answer).await
    }

    /// Forgets producers that were last used before a time; answers once that is durable.
    pub(crate) async fn forget(&self, producers: Vec<ProducerKey>, before: Timestamp) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Forget(Forget { producers, before, reply }), answer).await
    }

    /// Has the notes of dropped rows forgotten whose space was given back; answers once that is durable.
    pub(crate) async fn reclaimed(&self, notes: Vec<Bytes>) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Reclaimed { notes, reply }, answer).await
    }

    /// Looks whether the clock was set back, for partitions to which nothing is appended.
    pub(crate) async fn check_clock(&self) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::CheckClock { reply }, answer).await
    }

    /// How long progress may wait for others to share its commit.
    pub(crate) fn progress_delay(&self) -> Duration {
        self.progress_delay
    }

    /// Queues a fragment for the next group.
    pub(crate) async fn fragment(&self, fragment: Fragment) -> Result<(), Error> {
        self.send(Command::Fragment(fragment)).await
    }

    /// Leaves a fragment for whichever group comes next; if none does within a short while, one is made.
    ///
    /// Each owner has one fragment under way at a time, which bounds what waits here.
    pub(crate) fn fragment_with_next_group(&self, fragment: Fragment) {
        if self.waiting.push(fragment) {
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

    /// Makes the writer look whether it can work again.
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
