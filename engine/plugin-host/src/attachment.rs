//! An attached plugin: what callers hold, and what its calls share.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use levada_stage::{
    AttachSpec, BoxFuture, CallError, CallInput, CallOutcome, CallOutput, Interface, Stage, StageStats,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::{
    engine::{Deadlines, Spent},
    host::log::LogGate,
    instance::Instance,
    pool::{Pool, Share, answering},
    registry::Compiled,
};

/// A plugin that is attached. Cheap to clone; its instances are dropped with the last clone.
#[derive(Clone)]
pub struct Attachment {
    shared: Arc<Shared>,
    pool: Arc<Pool>,
}

impl Attachment {
    /// The interface that the plugin exports.
    pub fn interface(&self) -> Interface {
        self.shared.compiled.interface
    }

    /// The configuration and limits that it was attached with.
    pub fn spec(&self) -> &AttachSpec {
        &self.shared.spec
    }

    pub(crate) fn new(shared: Arc<Shared>, pool: Arc<Pool>) -> Self {
        Self { shared, pool }
    }

    fn queue(&self, input: CallInput, room: OwnedSemaphorePermit) -> oneshot::Receiver<CallOutcome> {
        let (answer, outcome) = oneshot::channel();
        let shared = self.shared.clone();
        let call = async move {
            // It has left the queue.
            drop(room);
            shared.run(input).await
        };
        let panicked = || failed(CallError::Trap("the plugin host failed".to_owned()));
        self.pool.push(&self.shared.share, answering(call, answer, panicked));
        outcome
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment").field("spec", &self.shared.spec).finish_non_exhaustive()
    }
}

impl Stage for Attachment {
    /// Hands the events over: the call runs on the host's threads, slice by slice, whether or not the future is
    /// polled, and is given up at the end of a slice if the future is dropped.
    ///
    /// While [`crate::HostConfig::queue_calls_max`] calls of this attachment wait, further ones wait in their
    /// futures: those begin when they are polled.
    fn call(&self, input: CallInput) -> BoxFuture<CallOutcome> {
        match self.shared.room.clone().try_acquire_owned() {
            Ok(room) => {
                let outcome = self.queue(input, room);
                Box::pin(async move { outcome.await.unwrap_or_else(|_| shut_down()) })
            }
            Err(_) => {
                let this = self.clone();
                Box::pin(async move {
                    match this.shared.room.clone().acquire_owned().await {
                        Ok(room) => this.queue(input, room).await.unwrap_or_else(|_| shut_down()),
                        Err(_) => shut_down(),
                    }
                })
            }
        }
    }

    fn stats(&self) -> StageStats {
        self.shared.counters.read()
    }
}

/// A call that cost the plugin nothing.
fn failed(error: CallError) -> CallOutcome {
    CallOutcome { result: Err(error), time_spent: Duration::ZERO }
}

fn shut_down() -> CallOutcome {
    failed(CallError::Retry("the plugin host shut down".to_owned()))
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
        counters.memory_bytes_peak.store(first.memory_bytes(), Ordering::Relaxed);
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
    async fn run(&self, input: CallInput) -> CallOutcome {
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
        CallOutcome { result: answer.map(CallOutput::stateless), time_spent: used.processor + starting }
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
        self.counters.memory_bytes_peak.fetch_max(instance.memory_bytes(), Ordering::Relaxed);
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
    memory_bytes_peak: AtomicU64,
}

impl Counters {
    fn count(&self, events: u32, failed: bool) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.events.fetch_add(u64::from(events), Ordering::Relaxed);
        self.errors.fetch_add(u64::from(failed), Ordering::Relaxed);
    }

    fn read(&self) -> StageStats {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StageStats {
            last_error: None,
            calls: of(&self.calls),
            events: of(&self.events),
            errors: of(&self.errors),
            restarts: of(&self.restarts),
            memory_restarts: of(&self.memory_restarts),
            busy: Duration::from_nanos(of(&self.busy_nanos)),
            memory_bytes_peak: of(&self.memory_bytes_peak),
        }
    }
}
