//! The wasmtime engine, and the clock that ends calls.
//!
//! Compiled code compares the engine's epoch with its deadline at every loop and call. A thread raises the epoch
//! every tick while anything runs, and sleeps while nothing does.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle, Thread},
    time::Duration,
};

use wasmtime::{Config, Engine, EngineWeak};

use crate::{Error, limits::STACK_BYTES};

/// Ticks without anything running after which the ticker sleeps until it is woken.
const IDLE_TICKS: u32 = 100;

/// An engine for untrusted components. Instances live long (one per attachment and worker), so that each has its
/// own memory mapping instead of a slot of a pool that would have to be sized beforehand.
pub(crate) fn new() -> Result<Engine, Error> {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .epoch_interruption(true)
        .max_wasm_stack(STACK_BYTES)
        .concurrency_support(false)
        .wasm_backtrace_max_frames(None::<NonZeroUsize>)
        .generate_address_map(false);
    Engine::new(&config).map_err(|error| Error::Unavailable(format!("{error:#}")))
}

/// Raises the epoch while plugins run.
#[derive(Debug)]
pub(crate) struct Ticker {
    deadlines: Deadlines,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    running: AtomicUsize,
    stopped: AtomicBool,
}

/// While one of these lives the epoch rises.
#[derive(Debug)]
pub(crate) struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Release);
    }
}

/// What is needed to run something under a deadline.
#[derive(Debug, Clone)]
pub(crate) struct Deadlines {
    tick: Duration,
    shared: Arc<Shared>,
    woken: Thread,
}

impl Deadlines {
    /// Lets the epoch rise, and says how many ticks `deadline` is: one more than fit into it, as the next tick is
    /// at any moment.
    pub(crate) fn start(&self, deadline: Duration) -> (Running, u64) {
        if self.shared.running.fetch_add(1, Ordering::AcqRel) == 0 {
            self.woken.unpark();
        }
        let ticks = deadline.as_nanos().div_ceil(self.tick.as_nanos().max(1)) + 1;
        (Running(self.shared.clone()), u64::try_from(ticks).unwrap_or(u64::MAX))
    }
}

impl Ticker {
    /// Starts the ticker's thread.
    pub(crate) fn start(engine: &Engine, tick: Duration) -> Result<Self, Error> {
        let shared = Arc::new(Shared { running: AtomicUsize::new(0), stopped: AtomicBool::new(false) });
        let (theirs, weak) = (shared.clone(), engine.weak());
        let thread = thread::Builder::new()
            .name("levada-epoch".to_owned())
            .spawn(move || run(&theirs, &weak, tick))
            .map_err(|error| Error::Unavailable(error.to_string()))?;
        let woken = thread.thread().clone();
        Ok(Self { deadlines: Deadlines { tick, shared, woken }, thread: Some(thread) })
    }

    /// A handle for those who run plugins.
    pub(crate) fn deadlines(&self) -> Deadlines {
        self.deadlines.clone()
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.deadlines.shared.stopped.store(true, Ordering::Release);
        self.deadlines.woken.unpark();
        if let Some(thread) = self.thread.take() {
            // The thread cannot panic; if it did, there is nobody left to tell.
            let _ended = thread.join();
        }
    }
}

fn run(shared: &Shared, engine: &EngineWeak, tick: Duration) {
    let mut idle = 0;
    while !shared.stopped.load(Ordering::Acquire) {
        if shared.running.load(Ordering::Acquire) > 0 {
            idle = 0;
        } else if idle < IDLE_TICKS {
            idle += 1;
        } else {
            // Whoever starts something wakes this thread after counting itself in, so no start is missed.
            thread::park();
            idle = 0;
            continue;
        }
        thread::sleep(tick);
        match engine.upgrade() {
            Some(engine) => engine.increment_epoch(),
            None => return,
        }
    }
}
