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

use rustix::time::{ClockId, clock_gettime};
use wasmtime::{Config, Engine, EngineWeak};

use crate::{Error, limits::STACK_BYTES};

/// Ticks without anything running after which the ticker sleeps until it is woken.
const IDLE_TICKS: u32 = 100;
/// How often a call whose thread did not get the processor is given more time.
const EXTENSIONS_MAX: u32 = 9;

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
    /// Lets the epoch rise for as long as the answer's first part lives, and starts counting `deadline`.
    pub(crate) fn start(&self, deadline: Duration) -> (Running, Budget) {
        if self.shared.running.fetch_add(1, Ordering::AcqRel) == 0 {
            self.woken.unpark();
        }
        let budget = Budget { deadline, tick: self.tick, begun: thread_time(), extensions: 0 };
        (Running(self.shared.clone()), budget)
    }
}

/// What is left of a deadline. It is processor time that a plugin is charged for, as it has nothing to wait on: on a
/// busy machine an honest one is not stopped because others ran in its stead.
#[derive(Debug)]
pub(crate) struct Budget {
    deadline: Duration,
    tick: Duration,
    /// What the thread had used up when the call began.
    begun: Duration,
    extensions: u32,
}

impl Budget {
    /// A budget of nothing, for an instance that runs nothing yet.
    pub(crate) fn spent() -> Self {
        Self {
            deadline: Duration::ZERO,
            tick: Duration::ZERO,
            begun: Duration::ZERO,
            extensions: EXTENSIONS_MAX,
        }
    }

    /// Ticks after which to look at the budget first.
    pub(crate) fn ticks(&self) -> u64 {
        self.ticks_of(self.deadline)
    }

    /// When its ticks are over: some more, if the thread did not get the processor in all of them; `None` if the
    /// call ends here, which it does after ten deadlines whatever the reason.
    pub(crate) fn extend(&mut self) -> Option<u64> {
        let left = self.deadline.saturating_sub(thread_time().saturating_sub(self.begun));
        if left.is_zero() || self.extensions == EXTENSIONS_MAX {
            return None;
        }
        self.extensions += 1;
        Some(self.ticks_of(left))
    }

    /// One more than fit into `time`, as the next tick is at any moment.
    fn ticks_of(&self, time: Duration) -> u64 {
        let ticks = time.as_nanos().div_ceil(self.tick.as_nanos().max(1)) + 1;
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }
}

/// How much processor time this thread has used up.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(deadline: Duration) -> Budget {
        Budget { deadline, tick: Duration::from_millis(1), begun: thread_time(), extensions: 0 }
    }

    #[test]
    fn a_thread_that_did_not_run_gets_more_time_but_not_for_ever() {
        let mut waiting = budget(Duration::from_secs(3_600));
        assert_eq!(waiting.ticks(), 3_600_001);
        for _ in 0..EXTENSIONS_MAX {
            assert!(waiting.extend().is_some());
        }
        assert_eq!(waiting.extend(), None);
    }

    #[test]
    fn a_thread_that_ran_gets_no_more() {
        let mut running = budget(Duration::from_millis(5));
        while thread_time() < running.begun + running.deadline {
            std::hint::spin_loop();
        }
        assert_eq!(running.extend(), None);
        assert_eq!(Budget::spent().extend(), None);
    }
}
