//! The trait that a plugin implements, and the walk from a call's bytes to its verdicts.

use levada_protocol::{batch::BatchRef, deliver::RunRef, verdict::VerdictWriter};

use crate::{Answer, Answered, Incoming};

/// A plugin: configured once, then asked about one event after the other.
pub trait Plugin: Sized + 'static {
    /// Reads the configuration. An error text refuses it, and is returned to the caller who deploys or attaches the
    /// plugin.
    fn init(setup: &Setup) -> Result<Self, String>;

    /// Gives one event its verdict: exactly one of the methods of [`Answer`] returns an [`Answered`].
    ///
    /// # Errors
    /// A failure ends the whole call: none of its verdicts count.
    fn process(&mut self, event: &Incoming<'_>, answer: Answer<'_>) -> Result<Answered, Failure>;
}

/// What a plugin gets before its first event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Setup {
    /// The configuration: JSON text; empty if none was given.
    pub config: String,
    /// Named facts: `plugin`, `version`, `topic`, `attachment-point`, `batch-layout`; more may come.
    pub attributes: Vec<(String, String)>,
}

impl Setup {
    /// A setup with this configuration and no attributes: what unit tests use.
    pub fn with_config(config: impl Into<String>) -> Self {
        Self { config: config.into(), attributes: Vec::new() }
    }

    /// The attribute of this name.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// Why a whole call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The same events are to be retried later.
    #[error("try again: {0}")]
    Retry(String),
    /// These events cannot be processed.
    #[error("rejected: {0}")]
    Reject(String),
}

/// Asks `plugin` about every event of `runs` and writes its verdicts: what the exported `process` does, for unit
/// tests that run natively.
///
/// # Errors
/// The first failure of the plugin's.
///
/// # Panics
/// If `runs` are not runs of batches; the engine checked them.
pub fn answer_runs<P: Plugin>(plugin: &mut P, mut runs: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut verdicts = VerdictWriter::new();
    while !runs.is_empty() {
        let run = RunRef::split_first(&mut runs).expect("the engine hands over whole runs");
        let (mut base, mut batches) = (run.header.base, run.batches);
        while !batches.is_empty() {
            let batch = BatchRef::split_first(&mut batches).expect("a run holds whole batches");
            for event in batch.events() {
                let incoming = Incoming::new(event, base, run.header.append_time);
                let _given: Answered = plugin.process(&incoming, Answer::new(&mut verdicts))?;
            }
            base = base.plus(u64::from(batch.header().span));
        }
    }
    Ok(verdicts.finish())
}
