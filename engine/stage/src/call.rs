//! One call: what goes in, what comes out, and how it can fail.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use levada_protocol::ids::Timestamp;

use crate::{StateView, StateWrite};

/// Events for one call.
#[derive(Debug, Clone)]
pub struct CallInput {
    /// The events as runs of checked batches, in the layout of [`levada_protocol::deliver`].
    pub runs: Bytes,
    /// How many events the runs hold, at least 1; the answer has one verdict for each.
    pub events: u32,
    /// What the plugin's clock shows: the append time of the last event.
    pub now: Timestamp,
    /// What the plugin's random numbers are derived from; the same events get the same seed.
    pub seed: u64,
    /// The state that the call may read; only a stateful stage gets one.
    pub state: Option<Arc<dyn StateView>>,
}

/// What a call returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallOutput {
    /// The verdicts in the layout of [`levada_protocol::verdict`], not validated.
    pub answer: Bytes,
    /// What the call changes in the stage's state, in order; a stateless stage returns none.
    pub writes: Vec<StateWrite>,
}

impl CallOutput {
    /// An answer that writes no state.
    pub fn stateless(answer: impl Into<Bytes>) -> Self {
        Self { answer: answer.into(), writes: Vec::new() }
    }
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallOutcome {
    /// What it returned, or why it returned nothing.
    pub result: Result<CallOutput, CallError>,
    /// The processor time of the call, including that of a new instance if it needed one; waiting is not included.
    pub time_spent: Duration,
}

/// Why a call returned no answer that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It took longer than its deadline and was stopped.
    #[error("the plugin's call went past its deadline")]
    Deadline,
    /// It needed more memory than its limit.
    #[error("the plugin wanted more memory than its limit")]
    Memory,
    /// It used up its stack.
    #[error("the plugin's stack overflowed")]
    Stack,
    /// It trapped: a panic, whose message is included, an invalid access or an illegal operation.
    #[error("the plugin trapped: {0}")]
    Trap(String),
    /// The plugin asks for the same events again, later.
    #[error("the plugin asked for a retry: {0}")]
    Retry(String),
    /// The plugin refuses these events for good.
    #[error("the plugin refused the events: {0}")]
    Reject(String),
    /// It answered, but not with valid verdicts on these events.
    #[error("the plugin's answer is invalid: {0}")]
    Output(String),
}
