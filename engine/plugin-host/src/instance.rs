//! One instance of a plugin: started, called, and thrown away when it traps.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use bytes::Bytes;
use levada_protocol::{
    batch::BATCH_VERSION,
    limits::{CALL_OUTPUT_BYTES_MAX, REASON_BYTES_MAX},
};
use levada_stage::{AttachSpec, CallError, CallInput, Interface};
use wasmtime::{
    Store, Trap, UpdateDeadline,
    component::{ComponentExportIndex, Func, Instance as Component},
};

use crate::{
    Error,
    bindings::{Event, Failure, Interest, Setup, Verdict},
    engine::{Budget, Deadlines, Running, Spent},
    error::clip,
    events,
    host::{GuestState, log::LogGate},
    lengths,
    registry::Compiled,
};

/// Most that the host copies out of a guest for one answer or log line. Records take more room than bytes do.
const fn copied_bytes_max(interface: Interface) -> usize {
    match interface {
        Interface::Batch => CALL_OUTPUT_BYTES_MAX + 64 * 1024,
        Interface::Events => 4 * CALL_OUTPUT_BYTES_MAX,
    }
}

/// From here on a 32-bit guest's address was below zero before it wrapped: guests keep their stack at the bottom of
/// their memory, so that one which runs over ends there.
const BELOW_ZERO: u64 = 0xff00_0000;

/// Ticks after which a slice ends. The first one is at any moment, so that a slice lasts for one tick at least.
const SLICE_TICKS: u64 = 2;

/// A plugin that was initialised.
pub(crate) struct Instance {
    store: Store<GuestState>,
    process: Func,
    interface: Interface,
    interest: Interest,
    deadline: Duration,
}

/// What a call came to, and whether the instance can be called again.
pub(crate) struct Outcome {
    pub(crate) answer: Result<Bytes, CallError>,
    pub(crate) usable: bool,
    /// What was used of the deadline so far.
    pub(crate) used: Spent,
}

impl Instance {
    /// Instantiates and initialises `compiled`, both under `init_deadline`, in slices as [`Instance::call`]. The
    /// processor time is added to `meter`, in nanoseconds.
    pub(crate) async fn start(
        compiled: &Compiled,
        spec: &AttachSpec,
        log: Arc<LogGate>,
        deadlines: &Deadlines,
        init_deadline: Duration,
        meter: Option<Arc<AtomicU64>>,
    ) -> Result<Self, Error> {
        let state = GuestState::new(spec.memory_bytes_max, log);
        let mut store = Store::new(compiled.pre.engine(), state);
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(copied_bytes_max(compiled.interface));
        store.epoch_deadline_callback(|mut context| {
            let goes_on = context.data_mut().budget.end_slice();
            Ok(if goes_on { UpdateDeadline::Yield(SLICE_TICKS) } else { UpdateDeadline::Interrupt })
        });
        let _running = arm(&mut store, deadlines.start(init_deadline, Spent::default(), meter));
        let started = match compiled.pre.instantiate_async(&mut store).await {
            Ok(component) => init(&mut store, &component, compiled, spec).await,
            Err(error) => Err(error),
        };
        store.data_mut().budget.end_slice();
        let (interest, process) = match started {
            Ok(Ok(initialised)) => initialised,
            Ok(Err(reason)) => return Err(Error::InitRefused(clip(&reason, REASON_BYTES_MAX).to_owned())),
            Err(error) => return Err(Error::InitFailed(failed(&mut store, &error))),
        };
        if let Some(milliseconds) = interest.tick_ms {
            return Err(Error::InitRefused(format!(
                "it wants to be called every {milliseconds} ms, and this engine serves no ticks"
            )));
        }
        Ok(Self { store, process, interface: compiled.interface, interest, deadline: spec.deadline })
    }

    /// Calls the plugin once, in slices: the future is pending at the end of each, and goes on whenever it is polled
    /// after [`crate::engine::begin_slice`]. `used` is what an earlier attempt used of the deadline. The processor time
    /// is added to `meter`, in nanoseconds.
    pub(crate) async fn call(
        &mut self,
        input: &CallInput,
        deadlines: &Deadlines,
        used: Spent,
        meter: &Arc<AtomicU64>,
    ) -> Outcome {
        let state = self.store.data_mut();
        (state.now, state.last_error, state.last_line) = (input.now, None, None);
        let _running = arm(&mut self.store, deadlines.start(self.deadline, used, Some(Arc::clone(meter))));
        let answered = match self.interface {
            Interface::Batch => self.call_batch(&input.runs).await,
            Interface::Events => self.call_events(&input.runs, input.events).await,
        };
        let state = self.store.data_mut();
        state.budget.end_slice();
        let used = state.budget.used();
        let usable = |answer| Outcome { answer, usable: true, used };
        match answered {
            Ok(Ok(Answer::Bytes(answer))) => usable(match lengths::check_answer(answer.len()) {
                Ok(()) => Ok(answer.into()),
                Err(reason) => Err(CallError::Output(reason)),
            }),
            Ok(Ok(Answer::Verdicts(verdicts))) => usable(match events::lift(&verdicts) {
                Ok(answer) => Ok(answer.into()),
                Err(reason) => Err(CallError::Output(reason)),
            }),
            Ok(Err(Failure::Retry(reason))) => usable(Err(CallError::Retry(short(&reason)))),
            Ok(Err(Failure::Reject(reason))) => usable(Err(CallError::Reject(short(&reason)))),
            Err(error) => Outcome { answer: Err(failed(&mut self.store, &error)), usable: false, used },
        }
    }

    /// How much memory the instance has.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.store.data().memory.bytes()
    }

    // The functions' types are checked again in each call, for less than a microsecond: a typed function's
    // parameters can not borrow for longer than they live.

    async fn call_batch(&mut self, runs: &[u8]) -> wasmtime::Result<Result<Answer, Failure>> {
        let process = self.process.typed::<(&[u8],), (Result<Vec<u8>, Failure>,)>(&self.store)?;
        let (answer,) = process.call_async(&mut self.store, (runs,)).await?;
        Ok(answer.map(Answer::Bytes))
    }

    async fn call_events(&mut self, runs: &[u8], count: u32) -> wasmtime::Result<Result<Answer, Failure>> {
        let events = events::lower(runs, count, &self.interest);
        let process = self.process.typed::<(&[Event<'_>],), (Result<Vec<Verdict>, Failure>,)>(&self.store)?;
        let (answer,) = process.call_async(&mut self.store, (&events,)).await?;
        Ok(answer.map(Answer::Verdicts))
    }
}

/// What a plugin returned, before it is checked.
enum Answer {
    Bytes(Vec<u8>),
    Verdicts(Vec<Verdict>),
}

/// Puts a budget in force for what runs next; the epoch rises while the answer lives.
fn arm(store: &mut Store<GuestState>, (running, budget): (Running, Budget)) -> Running {
    store.set_epoch_deadline(SLICE_TICKS);
    store.data_mut().budget = budget;
    running
}

type Initialised = Result<(Interest, Func), String>;

async fn init(
    store: &mut Store<GuestState>,
    component: &Component,
    compiled: &Compiled,
    spec: &AttachSpec,
) -> wasmtime::Result<Initialised> {
    let version = spec.version.to_string();
    let layout = BATCH_VERSION.to_string();
    let attributes = [
        ("plugin", spec.plugin.as_str()),
        ("version", &version),
        ("topic", &spec.topic),
        ("attachment-point", spec.point.as_str()),
        ("batch-layout", &layout),
    ];
    let setup = Setup { config: &spec.config, attributes: &attributes };
    let init = function(store, component, &compiled.init)?;
    let init = init.typed::<(Setup<'_>,), (Result<Interest, String>,)>(&*store)?;
    let (answer,) = init.call_async(&mut *store, (setup,)).await?;
    let process = function(store, component, &compiled.process)?;
    Ok(answer.map(|interest| (interest, process)))
}

fn function(
    store: &mut Store<GuestState>,
    component: &Component,
    index: &ComponentExportIndex,
) -> wasmtime::Result<Func> {
    let function = component.get_func(store, index);
    Ok(function.expect("the export was found when the component was accepted"))
}

/// What a failed call is called.
fn failed(store: &mut Store<GuestState>, error: &wasmtime::Error) -> CallError {
    let state = store.data_mut();
    if state.memory.is_exceeded() {
        return CallError::Memory;
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => CallError::Deadline,
        Some(Trap::StackOverflow) => CallError::Stack,
        Some(Trap::MemoryOutOfBounds) if fault_address(error).is_some_and(|at| at >= BELOW_ZERO) => {
            CallError::Stack
        }
        Some(trap) => {
            if let Some(said) = state.last_error.take() {
                return CallError::Trap(format!("{trap}: {said}"));
            }
            let mut why = unsaid(trap);
            if let Some(said) = state.last_line.take() {
                why.push_str(&format!("; the last line that it logged: {said}"));
            }
            // The plugin itself has said nothing that an operator would see as an error.
            state.log.trapped(&why);
            CallError::Trap(why)
        }
        None => CallError::Output(format!("it could not be read: {}", short(&format!("{error:#}")))),
    }
}

/// What is known of a trap that the plugin did not explain.
fn unsaid(trap: &Trap) -> String {
    match trap {
        Trap::UnreachableCodeReached => {
            "it gave up at an `unreachable` instruction without an error line, as language runtimes do after an uncaught \
             exception: catch exceptions around the whole of `process` and write them to levada:plugin/log"
                .to_owned()
        }
        other => other.to_string(),
    }
}

/// Which of the guest's addresses a memory fault was at. wasmtime says so only in the text of the error.
fn fault_address(error: &wasmtime::Error) -> Option<u64> {
    let text = format!("{error:#}");
    let (_, address) = text.split_once("wasm address 0x")?;
    let digits = address.find(|character: char| !character.is_ascii_hexdigit()).unwrap_or(address.len());
    u64::from_str_radix(&address[..digits], 16).ok()
}

fn short(reason: &str) -> String {
    clip(reason, REASON_BYTES_MAX).to_owned()
}
