//! The wasmtime engine, and the clock that cuts calls into slices and ends them.
//!
//! Compiled code checks the engine's epoch at every loop and call. A thread raises the epoch every tick while
//! anything runs, and sleeps while nothing does. At each tick a running call is put aside, so that others have their
//! turn, or ended if its deadline has passed.

use std::{
    cell::Cell,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle, Thread},
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use wasmtime::{Config, Engine, EngineWeak};

use crate::{Error, limits::STACK_BYTES};

/// Ticks without anything running after which the ticker sleeps until it is woken.
const IDLE_TICKS: u32 = 100;
/// How many deadlines a call may run on the clock if its thread does not get the processor: beside six busy threads on
/// two cores, one that gives way as workers for long calls do has a tenth of a core.
const CLOCK_DEADLINES: u32 = 30;
/// Native stack of a call: what a plugin may use, and as much again for the host's own frames.
const CALL_STACK_BYTES: usize = 2 * STACK_BYTES;

/// An engine for untrusted components. Instances live long (one per attachment and worker), so that each has its
/// own memory mapping instead of a slot of a pool that would have to be sized beforehand.
pub(crate) fn new() -> Result<Engine, Error> {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .epoch_interruption(true)
        .max_wasm_stack(STACK_BYTES)
        .async_stack_size(CALL_STACK_BYTES)
        .concurrency_support(false)
        // One thread compiles, and gives way to all others: see `registry`.
        .parallel_compilation(false)
        .wasm_backtrace_max_frames(None::<NonZeroUsize>)
        .generate_address_map(false);
    Engine::new(&config).map_err(|error| Error::Unavailable(format!("{error:#}")))
}

/// Lets the engine's other threads go before this one, by so much as of nice(2). Where a process has one priority and
/// not each thread its own, nothing changes.
pub(crate) fn give_way(niceness: i32) {
    if cfg!(target_os = "linux") {
        // Where this is not allowed, others only have to share more.
        let _niceness = rustix::process::nice(niceness);
    }
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
    shared: Arc<Shared>,
    woken: Thread,
}

impl Deadlines {
    /// Lets the epoch rise for as long as the answer's first part lives, and goes on counting `deadline`, of which so
    /// much was used before. What is used is added to `meter`, in nanoseconds.
    pub(crate) fn start(
        &self,
        deadline: Duration,
        used: Spent,
        meter: Option<Arc<AtomicU64>>,
    ) -> (Running, Budget) {
        if self.shared.running.fetch_add(1, Ordering::AcqRel) == 0 {
            self.woken.unpark();
        }
        begin_slice();
        (Running(self.shared.clone()), Budget { deadline, used, meter })
    }
}

/// What is left of a deadline. It is processor time that a plugin is charged for, as it has nothing to wait on: on a
/// busy machine an honest one is not stopped because others ran in its stead. The time during which it is put aside
/// is not charged at all.
#[derive(Debug)]
pub(crate) struct Budget {
    deadline: Duration,
    /// What earlier slices took.
    used: Spent,
    /// Where their processor time is added up.
    meter: Option<Arc<AtomicU64>>,
}

impl Budget {
    /// A budget of nothing, for an instance that runs nothing yet.
    pub(crate) fn spent() -> Self {
        Self { deadline: Duration::ZERO, used: Spent::default(), meter: None }
    }

    /// What was used so far.
    pub(crate) fn used(&self) -> Spent {
        self.used
    }

    /// Ends a slice. False if nothing is left: the processor's time is used up, or ten times as much has passed on the
    /// clock while the call had its turn.
    pub(crate) fn end_slice(&mut self) -> bool {
        let now = Moment::now();
        // What runs on next on this thread has a slice of its own.
        let slice = SLICE.replace(Some(now)).map(|begun| now.since(begun)).unwrap_or_default();
        LONGEST.set(LONGEST.get().max(slice.processor));
        self.used.processor += slice.processor;
        self.used.clock += slice.clock;
        if let Some(meter) = &self.meter {
            meter.fetch_add(u64::try_from(slice.processor.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        self.used.processor < self.deadline && self.used.clock < self.deadline * CLOCK_DEADLINES
    }
}

/// How much time something took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Spent {
    pub(crate) processor: Duration,
    clock: Duration,
}

/// A moment of this thread.
#[derive(Debug, Clone, Copy)]
struct Moment {
    processor: Duration,
    clock: Instant,
}

impl Moment {
    fn now() -> Self {
        Self { processor: thread_time(), clock: Instant::now() }
    }

    fn since(self, earlier: Self) -> Spent {
        Spent {
            processor: self.processor.saturating_sub(earlier.processor),
            clock: self.clock.saturating_duration_since(earlier.clock),
        }
    }
}

thread_local! {
    /// When the slice began that this thread is in.
    static SLICE: Cell<Option<Moment>> = const { Cell::new(None) };
    /// The processor time of the longest slice that ended on this thread since the last call.
    static LONGEST: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// The processor time of the longest slice that ended on this thread since this was last asked.
pub(crate) fn take_longest_slice() -> Duration {
    LONGEST.take()
}

/// Counts the running call's time on this thread from now on. A call that was put aside may continue on another thread.
pub(crate) fn begin_slice() {
    SLICE.set(Some(Moment::now()));
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
        Ok(Self { deadlines: Deadlines { shared, woken }, thread: Some(thread) })
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
            // The thread cannot panic; if it did, nothing waits for it.
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
            // A call that starts wakes this thread after counting itself in, so no start is missed.
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

    #[test]
    fn a_thread_that_ran_gets_no_more() {
        let mut running = Budget { deadline: Duration::from_millis(5), ..Budget::spent() };
        begin_slice();
        let begun = thread_time();
        while thread_time() < begun + running.deadline {
            std::hint::spin_loop();
        }
        assert!(!running.end_slice());
        assert!(!Budget::spent().end_slice());
    }

    #[test]
    fn slices_add_up_and_the_time_between_them_does_not() {
        let mut sliced = Budget { deadline: Duration::from_millis(20), ..Budget::spent() };
        let mut slices = 0;
        let mut went_on = true;
        while went_on {
            begin_slice();
            let begun = thread_time();
            while thread_time() < begun + Duration::from_millis(2) {
                std::hint::spin_loop();
            }
            went_on = sliced.end_slice();
            slices += 1;
            // Others have their turn.
            thread::park_timeout(Duration::from_millis(30));
        }
        assert!((2..=10).contains(&slices), "{slices} slices of 2 ms or more");
    }

    #[test]
    fn a_thread_that_does_not_get_the_processor_goes_on_but_not_for_ever() {
        let deadline = Duration::from_millis(50);
        let used = |clock| Budget { deadline, used: Spent { processor: Duration::ZERO, clock }, meter: None };
        begin_slice();
        assert!(used(deadline * 2).end_slice());
        assert!(!used(deadline * CLOCK_DEADLINES).end_slice());
    }
}
