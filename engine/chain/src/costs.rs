//! What the plugins of an attachment point have cost and their last errors. It can be read while they run.
//!
//! Must not know what an error leads to.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use levada_stage::{BoxFuture, CallError, CallInput, CallOutcome, LastError, Stage, StageStats};

/// An attached stage, with what the stage itself cannot count: answers that are not valid.
pub struct Counted {
    stage: Arc<dyn Stage>,
    /// Answers that were not valid, and events whose verdict is not allowed at the attachment point.
    invalid: AtomicU64,
    last_error: Mutex<Option<LastError>>,
}

impl Counted {
    /// Counts for a stage that was just attached.
    pub fn new(stage: Arc<dyn Stage>) -> Arc<Self> {
        Arc::new(Self { stage, invalid: AtomicU64::new(0), last_error: Mutex::default() })
    }

    /// Hands events to the plugin.
    pub(crate) fn call(&self, input: CallInput) -> BoxFuture<CallOutcome> {
        self.stage.call(input)
    }

    /// Whether the stage keeps state.
    pub(crate) fn is_stateful(&self) -> bool {
        self.stage.is_stateful()
    }

    /// Notes a call that failed. The stage has counted it.
    pub(crate) fn failed(&self, why: &CallError) {
        self.note(&why.to_string());
    }

    /// Counts an answer or a verdict that is not valid.
    pub(crate) fn invalid(&self, why: &str) {
        self.invalid.fetch_add(1, Ordering::Relaxed);
        self.note(why);
    }

    /// What the stage has cost, with all its errors.
    pub fn stats(&self) -> StageStats {
        let mut stats = self.stage.stats();
        stats.errors += self.invalid.load(Ordering::Relaxed);
        let last_error = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        stats.last_error = last_error.clone().or(stats.last_error);
        stats
    }

    fn note(&self, why: &str) {
        let error = LastError { at: Instant::now(), text: why.into() };
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counted").field("invalid", &self.invalid).finish_non_exhaustive()
    }
}

/// What all plugins that were ever attached at one point have cost, by the id of their version.
#[derive(Debug, Default)]
pub struct Costs(Mutex<Parts>);

#[derive(Debug, Default)]
struct Parts {
    /// The stages that are attached now, by the part of the point, such as a partition of a route.
    attached: BTreeMap<u16, Vec<(u64, Arc<Counted>)>>,
    /// Those that were attached before.
    before: BTreeMap<u64, StageStats>,
}

impl Costs {
    /// Notes which stages are attached at one part of the point from now on.
    pub fn attach(&self, part: u16, stages: impl Iterator<Item = (u64, Arc<Counted>)>) {
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (plugin, stage) in parts.attached.insert(part, stages.collect()).unwrap_or_default() {
            parts.before.entry(plugin).or_default().add(&stage.stats());
        }
    }

    /// What each plugin version has cost so far.
    pub fn read(&self) -> BTreeMap<u64, StageStats> {
        let parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sums = parts.before.clone();
        for (plugin, stage) in parts.attached.values().flatten() {
            sums.entry(*plugin).or_default().add(&stage.stats());
        }
        sums
    }
}
