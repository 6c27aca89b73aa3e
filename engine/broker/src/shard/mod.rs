//! The shard: the one commit path. Whatever changes state is decided, written and made durable here, in order.
//!
//! Two threads: the writer takes what has queued, decides it against the state that it owns and writes one
//! commit; the syncer makes written commits durable and only then tells anyone. While the disk syncs one group
//! the writer collects the next.

mod command;
mod fragments;
mod group;
mod load;
mod state;
mod syncer;
mod writer;

use std::{
    sync::{Arc, Mutex, PoisonError, mpsc as std_mpsc},
    thread::JoinHandle,
    time::Duration,
};

use arc_swap::ArcSwap;
use hdrhistogram::Histogram;
use levada_protocol::error::ErrorCode;
use levada_store::Store;
use tokio::sync::{mpsc, oneshot};

pub(crate) use self::command::{
    Append, AppendTarget, Command, Fragment, FragmentAppend, FragmentRefused, Owner, RouteStep, Trim,
};
pub(crate) use self::{load::scan_all, state::read_pair};
use crate::{
    catalogue::{Catalogue, Change},
    config::BrokerConfig,
    error::Error,
    guard::Guard,
    tail::TailBudget,
    tasks::Tasks,
};

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
    waiting: Arc<Mutex<Vec<Fragment>>>,
    progress_delay: Duration,
    tasks: Tasks,
    pub(crate) shown: Arc<Shown>,
}

/// The shard's threads.
#[derive(Debug)]
pub(crate) struct Shard {
    writer: JoinHandle<()>,
    syncer: JoinHandle<()>,
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
        let histogram = Histogram::new(2).expect("two significant figures are a legal precision");
        let shown = Arc::new(Shown {
            catalogue: ArcSwap::from_pointee(state.catalogue.clone()),
            closed: ArcSwap::from_pointee(None),
            sync_micros: Mutex::new(histogram),
        });
        let (commands, receiver) = mpsc::channel(config.writer_queue_max);
        let (groups, synced) = std_mpsc::sync_channel(config.groups_unsynced_max);
        let waiting = Arc::new(Mutex::new(Vec::new()));
        let durable = syncer::Durable::new(Arc::clone(store), Arc::clone(&shown));
        let syncer = syncer::Syncer::new(Arc::clone(&durable), synced);
        let writer = writer::Writer {
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
            reopened: None,
        };
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(|error| Error::Store {
                code: ErrorCode::Internal,
                message: format!("cannot start the {name} thread: {error}"),
            })
        };
        let syncer = spawn("shard-syncer", Box::new(move || syncer.run()))?;
        let writer = spawn("shard-writer", Box::new(move || writer.run()))?;
        let handle = ShardHandle {
            commands,
            waiting,
            progress_delay: config.progress_delay,
            tasks: tasks.clone(),
            shown,
        };
        Ok((Self { writer, syncer }, handle))
    }

    /// Waits for both threads, once [`ShardHandle::stop`] was called.
    pub(crate) fn join(self) {
        for thread in [self.writer, self.syncer] {
            if thread.join().is_err() {
                tracing::error!("a shard thread panicked");
            }
        }
    }
}

impl ShardHandle {
    /// The newest durable catalogue.
    pub(crate) fn catalogue(&self) -> Arc<Catalogue> {
        self.shown.catalogue.load_full()
    }

    /// Why writes are refused, if they are.
    pub(crate) fn closed(&self) -> Option<Closed> {
        (**self.shown.closed.load()).clone()
    }

    /// Queues an append; its acknowledgement goes where the append says. Cancel safe: it is queued or it is not.
    pub(crate) async fn append(&self, append: Append) -> Result<(), Error> {
        self.commands.send(Command::Append(append)).await.map_err(|_| Error::ShuttingDown)
    }

    /// Decides and stores a change of the catalogue; answers once it is durable.
    pub(crate) async fn change(&self, change: Change) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Change { change: Box::new(change), reply };
        self.commands.send(command).await.map_err(|_| Error::ShuttingDown)?;
        answer.await.map_err(|_| Error::ShuttingDown)?
    }

    /// Moves a partition's log start, and drops what lies before.
    pub(crate) async fn trim(&self, trim: Trim) -> Result<(), Error> {
        self.commands.send(Command::Trim(trim)).await.map_err(|_| Error::ShuttingDown)
    }

    /// How long progress may wait for others to share its commit.
    pub(crate) fn progress_delay(&self) -> Duration {
        self.progress_delay
    }

    /// Queues a fragment for the next group.
    pub(crate) async fn fragment(&self, fragment: Fragment) -> Result<(), Error> {
        self.commands.send(Command::Fragment(fragment)).await.map_err(|_| Error::ShuttingDown)
    }

    /// Leaves a fragment for whichever group comes next; if none does within a short while, one is made.
    ///
    /// Each owner has one fragment under way at a time, which bounds what waits here.
    pub(crate) fn fragment_with_next_group(&self, fragment: Fragment) {
        let first = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.push(fragment);
            waiting.len() == 1
        };
        if first {
            let (handle, delay) = (self.clone(), self.progress_delay);
            self.tasks.spawn(tracing::Span::none(), async move {
                tokio::time::sleep(delay).await;
                // A writer that is gone needs no waking.
                let _ = handle.commands.send(Command::Wake).await;
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
