//! A plugin at its place: what callers hold, and what its calls share.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use levada_protocol::ids::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::{
    AttachSpec, CallError, Interface,
    engine::{Deadlines, Spent},
    host::log::LogGate,
    instance::Instance,
    pool::{Pool, Share, answering},
    registry::Compiled,
};

/// A plugin that was configured for a place. Cheap to clone; its instances go with the last clone.
#[derive(Clone)]
pub struct Attachment {
    shared: Arc<Shared>,
    pool: Arc<Pool>,
}

/// What one call is about.
#[derive(Debug, Clone)]
pub struct CallInput {
    /// Runs as of [`levada_protocol::deliver`], whose batches were checked before.
    pub runs: Bytes,
    /// How many events the runs hold.
    pub events: u32,
    /// What the plugin's clock answers: the append time of the last event.
    pub now: Timestamp,
    /// What randomness given to the plugin is drawn from. No interface that is granted gives any.
    pub seed: u64,
}

/// What an attachment did so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Calls that ended.
    pub calls: u64,
    /// Events that were handed over in them.
    pub events: u64,
    /// Calls that ended in an error.
    pub errors: u64,
    /// Instances that were made after the first.
    pub restarts: u64,
    /// Those of them that were made because earlier calls had left no memory for the next one, which was then repeated.
    pub memory_restarts: u64,
    /// How much processor time its calls took, those under way included; neither waiting nor making instances is in it.
    pub busy: Duration,
    /// Most memory in bytes that an instance had after a call.
    pub memory_bytes_high: u64,
}

impl Attachment {
    /// Hands the events over: the call runs on the host's threads, slice by slice, whether or not the future is
    /// polled, and is given up at the end of a slice if the future is dropped.
    ///
    /// While [`crate::HostConfig::queue_calls_max`] calls of this attachment wait, further ones wait in their
    /// futures: those begin when they are polled.
    pub fn call(&self, input: CallInput) -> CallFuture {
        match self.shared.room.clone().try_acquire_owned() {
            Ok(room) => CallFuture(State::Queued(self.queue(input, room))),
            Err(_) => {
                let this = self.clone();
                CallFuture(State::Waiting(Box::pin(async move {
                    match this.shared.room.clone().acquire_owned().await {
                        Ok(room) => this.queue(input, room).await.unwrap_or_else(|_| shut_down()),
                        Err(_) => shut_down(),
                    }
                })))
            }
        }
    }

    /// What it did so far.
    pub fn figures(&self) -> Figures {
        self.shared.counters.read()
    }

    /// How the plugin is called.
    pub fn interface(&self) -> Interface {
        self.shared.compiled.interface
    }

    /// What it was attached with.
    pub fn spec(&self) -> &AttachSpec {
        &self.shared.spec
    }

    pub(crate) fn new(shared: Arc<Shared>, pool: Arc<Pool>) -> Self {
        Self { shared, pool }
    }

    fn queue(&self, input: CallInput, room: OwnedSemaphorePermit) -> oneshot::Receiver<Answered> {
        let (answer, answered) = oneshot::channel();
        let shared = self.shared.clone();
        let call = async move {
            // It has left the queue.
            drop(room);
            shared.run(input).await
        };
        let panicked = || Answered::free(CallError::Trap("the plugin host failed".to_owned()));
        self.pool.push(&self.shared.share, answering(call, answer, panicked));
        answered
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment").field("spec", &self.shared.spec).finish_non_exhaustive()
    }
}

/// A call on its way. Cancel safe: it may be polled again after any other future.
#[must_use = "the call's answer comes out of it"]
pub struct CallFuture(State);

enum State {
    Queued(oneshot::Receiver<Answered>),
    Waiting(Pin<Box<dyn Future<Output = Answered> + Send>>),
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// Verdict bytes as of [`levada_protocol::verdict`], checked, or why there are none.
    pub answer: Result<Bytes, CallError>,
    /// How much processor time the call took, with the making of an instance if it needed one.
    pub spent: Duration,
}

impl Answered {
    /// An error that cost the plugin nothing.
    fn free(error: CallError) -> Self {
        Self { answer: Err(error), spent: Duration::ZERO }
    }
}

impl Future for CallFuture {
    type Output = Answered;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answered> {
        match &mut self.0 {
            State::Queued(answered) => {
                let answer = ready!(Pin::new(answered).poll(context));
                Poll::Ready(answer.unwrap_or_else(|_| shut_down()))
            }
            State::Waiting(future) => future.as_mut().poll(context),
        }
    }
}

impl fmt::Debug for CallFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallFuture").finish_non_exhaustive()
    }
}

fn shut_down() -> Answered {
    Answered::free(CallError::Retry("the plugin host shut down".to_owned()))
}

/// What all calls of an attachment share.
pub(crate) struct Shared {
    spec: AttachSpec,
    compiled: Arc<Compiled>,
    log: Arc<LogGate>,
    deadlines: Deadlines,
    init_deadline: Duration,
    share: Arc<Share>,
    /// Instances that are in no call. There are no more of them than calls that were under way at once.
    idle: Mutex<Vec<Instance>>,
    room: Arc<Semaphore>,
    counters: Counters,
}

impl Shared {
    /// `first` is the instance that proved that the plugin accepts its configuration.
    pub(crate) fn new(
        spec: AttachSpec,
        compiled: Arc<Compiled>,
        log: Arc<LogGate>,
        deadlines: Deadlines,
        limits: Limits,
        share: Arc<Share>,
        first: Instance,
    ) -> Self {
        let counters = Counters::default();
        counters.memory_bytes_high.store(first.memory_bytes(), Ordering::Relaxed);
        Self {
            spec,
            compiled,
            log,
            deadlines,
            init_deadline: limits.init_deadline,
            share,
            idle: Mutex::new(vec![first]),
            room: Arc::new(Semaphore::new(limits.queue_calls_max)),
            counters,
        }
    }

    /// Runs one call, in slices as [`Instance::call`].
    async fn run(&self, input: CallInput) -> Answered {
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let worn = kept.is_some();
        let (mut used, mut starting) = (Spent::default(), Duration::ZERO);
        let mut answer = self.attempt(kept, &input, &mut used, &mut starting).await;
        if worn && answer == Err(CallError::Memory) {
            // What earlier calls left behind may have filled the memory: a new instance has all of it, and the call what
            // is left of its deadline.
            answer = self.attempt(None, &input, &mut used, &mut starting).await;
            let helped = answer != Err(CallError::Memory);
            self.counters.memory_restarts.fetch_add(u64::from(helped), Ordering::Relaxed);
        }
        self.counters.count(input.events, answer.is_err());
        Answered { answer, spent: used.processor + starting }
    }

    /// Calls the kept instance or a new one, and keeps it if it can be called again. Adds what the call used of its
    /// deadline to `used`, and what a new instance took to `starting`.
    async fn attempt(
        &self,
        kept: Option<Instance>,
        input: &CallInput,
        used: &mut Spent,
        starting: &mut Duration,
    ) -> Result<Bytes, CallError> {
        let mut instance = match kept {
            Some(instance) => instance,
            None => self.restart(starting).await?,
        };
        let outcome = instance.call(input, &self.deadlines, *used, &self.counters.busy_nanos).await;
        *used = outcome.used;
        self.counters.memory_bytes_high.fetch_max(instance.memory_bytes(), Ordering::Relaxed);
        if outcome.usable {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(instance);
        }
        outcome.answer
    }

    async fn restart(&self, took: &mut Duration) -> Result<Instance, CallError> {
        self.counters.restarts.fetch_add(1, Ordering::Relaxed);
        let (log, meter) = (self.log.clone(), Arc::<AtomicU64>::default());
        let metered = Some(Arc::clone(&meter));
        let started =
            Instance::start(&self.compiled, &self.spec, log, &self.deadlines, self.init_deadline, metered)
                .await;
        *took += Duration::from_nanos(meter.load(Ordering::Relaxed));
        started.map_err(|error| match error {
            crate::Error::InitFailed(error) => error,
            other => CallError::Trap(format!("it did not start again: {other}")),
        })
    }
}

/// What the host's configuration says about attachments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) queue_calls_max: usize,
    pub(crate) init_deadline: Duration,
}

#[derive(Debug, Default)]
struct Counters {
    calls: AtomicU64,
    events: AtomicU64,
    errors: AtomicU64,
    restarts: AtomicU64,
    memory_restarts: AtomicU64,
    busy_nanos: Arc<AtomicU64>,
    memory_bytes_high: AtomicU64,
}

impl Counters {
    fn count(&self, events: u32, failed: bool) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.events.fetch_add(u64::from(events), Ordering::Relaxed);
        self.errors.fetch_add(u64::from(failed), Ordering::Relaxed);
    }

    fn read(&self) -> Figures {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Figures {
            calls: of(&self.calls),
            events: of(&self.events),
            errors: of(&self.errors),
            restarts: of(&self.restarts),
            memory_restarts: of(&self.memory_restarts),
            busy: Duration::from_nanos(of(&self.busy_nanos)),
            memory_bytes_high: of(&self.memory_bytes_high),
        }
    }
}
