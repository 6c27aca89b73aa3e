//! How plugins are applied to events: the contract of a plugin host, and chains of stages with their policies.
//!
//! Owns the rules by which a plugin's answer becomes events, dead letters or a paused place. Must not know
//! WebAssembly, the store, topics' owners or who waits for the result; time comes in through a clock.

mod answer;
mod breaker;
mod call;
mod chain;
mod costs;
mod cut;
mod emit;
mod outcome;
mod route;
mod select;
mod settle;
mod walk;
mod window;
mod write;

use std::{
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use levada_protocol::{error::ErrorCode, ids::Timestamp};

pub(crate) use self::{
    chain::{Chain, ChainStage, Clock},
    costs::{Costs, Counted},
    cut::Source,
    outcome::{DeadLetter, DeadReason, Filtered, Input, PassedRun, Paused, Routed, Target},
};

/// A future that can be kept in a struct and sent to another thread.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send + 'static>>;

/// What the broker needs of a plugin host.
///
/// Implemented by the engine's WebAssembly host and, in tests, by stages written in Rust. The contract:
/// - Both methods return at once; the work (compiling can take seconds) happens while the future is awaited, and
///   never on the thread that polls it.
/// - Dropping a future gives the work up; nothing remains of it but caches.
pub trait Plugins: Send + Sync + 'static {
    /// Validates an artefact: is it a component, does it export an interface, can all its imports be granted.
    fn inspect(&self, artefact: Bytes) -> BoxFuture<Result<Inspected, AttachError>>;

    /// Loads an artefact that was inspected before, makes an instance and initialises it.
    fn attach(&self, spec: AttachSpec) -> BoxFuture<Result<Arc<dyn Stage>, AttachError>>;
}

/// A plugin, attached to one place with its configuration.
///
/// The contract:
/// - A call is stateless: the same input may be given again, alone or together with other events, and calls may
///   run at the same time and end in any order.
/// - The answer has the layout of `levada_protocol::verdict`. Its content is not trusted: the chain checks it.
/// - A call ends within the attachment's deadline plus the time in which others have their turn and that of making an
///   instance; it never panics. One that is repeated on a new instance has what is left of its deadline. Places have
///   equal time, whatever their calls do.
/// - Figures can be read at any time, also while a call runs.
/// - Dropping the future gives the call up; its answer is of no interest then.
pub trait Stage: Send + Sync + 'static {
    /// Hands events to the plugin.
    fn call(&self, input: CallInput) -> BoxFuture<Answered>;

    /// What this attachment has cost since it was made.
    fn figures(&self) -> Figures;
}

/// Which of the plugin interfaces an artefact exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interface {
    /// Bytes in, bytes out.
    Batch,
    /// Typed events.
    Events,
}

impl Interface {
    /// The word used on the wire and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Events => "events",
        }
    }
}

/// What is known of a valid artefact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inspected {
    /// What it exports.
    pub interface: Interface,
    /// The hash of its bytes: its identity.
    pub sha256: [u8; 32],
}

/// Where a plugin is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Between a topic and others.
    Route,
    /// In front of one subscription.
    Subscription,
}

/// A plugin's component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Artefact {
    /// In memory.
    Bytes(Bytes),
    /// In a file.
    File {
        /// Where it is stored.
        path: PathBuf,
        /// The hash that its bytes must have.
        sha256: [u8; 32],
    },
}

/// Which plugin to attach, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachSpec {
    /// The plugin's name.
    pub plugin: String,
    /// Its version.
    pub version: u32,
    /// Its component.
    pub artefact: Artefact,
    /// The configuration: JSON text.
    pub config: String,
    /// The topic whose events it will see.
    pub topic: String,
    /// The place.
    pub place: Place,
    /// Which of the places of this kind that is; a trial has a number of its own. A host divides its time by places.
    pub place_id: u64,
    /// How long one call may take.
    pub deadline: Duration,
    /// Bytes of memory of one instance.
    pub memory_bytes_max: u64,
}

/// Events for one call.
#[derive(Debug, Clone)]
pub struct CallInput {
    /// The events as `levada_protocol::deliver` lays out runs.
    pub runs: Bytes,
    /// How many events there are; the answer has one verdict for each.
    pub events: u32,
    /// What the guest's clock says: when the last of the events was appended.
    pub now: Timestamp,
    /// What the guest's random numbers are made of.
    pub seed: u64,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The verdicts.
    pub answer: Result<Bytes, CallError>,
    /// How much processor time it took, with that of a new instance if it needed one; waiting is not in it.
    pub spent: Duration,
}

/// An error, and when it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastError {
    /// The moment.
    pub at: Instant,
    /// One sentence.
    pub text: Arc<str>,
}

/// What an attachment has cost.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Figures {
    /// Calls made.
    pub calls: u64,
    /// Events handed in.
    pub events: u64,
    /// Calls that failed, and events whose verdict could not be followed.
    pub errors: u64,
    /// The last of them.
    pub last_error: Option<LastError>,
    /// Instances that were replaced because earlier calls had left no memory for the next one, which was then repeated:
    /// no errors.
    pub memory_restarts: u64,
    /// Seconds spent in the guest.
    pub seconds: f64,
    /// The largest memory that an instance has had, in bytes.
    pub memory_bytes_peak: u64,
}

impl Figures {
    /// Adds what another attachment has cost.
    pub fn add(&mut self, more: &Self) {
        self.calls += more.calls;
        self.events += more.events;
        self.errors += more.errors;
        let at = |error: &Option<LastError>| error.as_ref().map(|error| error.at);
        if at(&more.last_error) > at(&self.last_error) {
            self.last_error.clone_from(&more.last_error);
        }
        self.memory_restarts += more.memory_restarts;
        self.seconds += more.seconds;
        self.memory_bytes_peak = self.memory_bytes_peak.max(more.memory_bytes_peak);
    }
}

/// Why an artefact was not accepted or not attached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct AttachError {
    /// One of the `PLUGIN_` codes, or why the artefact could not be read.
    pub code: ErrorCode,
    /// What was expected and what came.
    pub message: String,
}

impl AttachError {
    /// An error with this code and sentence.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        self.code
    }
}

/// Why a call gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It took longer than it may.
    #[error("the plugin's call went past its deadline")]
    Deadline,
    /// It wanted more memory than it may have.
    #[error("the plugin wanted more memory than its limit")]
    Memory,
    /// It went deeper than its stack.
    #[error("the plugin's stack overflowed")]
    Stack,
    /// It ended in a trap: a panic, an impossible access, an illegal operation.
    #[error("the plugin trapped: {0}")]
    Trap(String),
    /// The plugin asks for the same events again.
    #[error("the plugin asked for a retry: {0}")]
    Retry(String),
    /// The plugin gives up on these events.
    #[error("the plugin refused the events: {0}")]
    Reject(String),
    /// It answered, but not with verdicts on these events.
    #[error("the plugin's answer is invalid: {0}")]
    Output(String),
}

#[cfg(test)]
mod tests;
