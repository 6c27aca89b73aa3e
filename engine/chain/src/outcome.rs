//! What comes out of a chain: plain data for the owners of routes and subscriptions.
//!
//! Must not know how calls are made or answers are read.

use std::{ops::Range, time::Duration};

use levada_protocol::{
    batch::Batch,
    event::Event,
    ids::{Offset, PartitionId, TopicName},
};
use levada_stage::StateWrite;

use crate::slice::LogSlice;

/// How far a chain got, and what became of events that did not pass it.
#[derive(Debug, Default)]
pub struct Progress {
    /// Every event below this offset is decided: passed, dropped or a dead letter. None from it on is.
    ///
    /// It is below the end of what was asked for if the attachment pauses, or if the result has grown to the size that
    /// should be committed at once: then the caller gives the rest again.
    pub reached: Offset,
    /// Why the attachment must stop here; the event at `reached` is the first that was not decided.
    pub paused: Option<Paused>,
    /// Events to append to the dead-letter topic, ascending, at most one for each source event.
    pub dead_letters: Vec<DeadLetter>,
    /// How many failing events were dropped, as `on_error = "skip"` asks.
    pub skipped: u64,
    /// How many failing events were forwarded unchanged, as `on_error = "pass"` asks.
    pub passed_unchanged: u64,
}

/// Why an attachment stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paused {
    /// One sentence for people: which plugin, which offset, what happened.
    pub why: String,
    /// When to run the chain again by itself (the breaker probes); `None` waits until a person resumes the attachment.
    pub retry_after: Option<Duration>,
}

/// A source event that did not pass, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The event's offset in the source partition.
    pub offset: Offset,
    /// The source event, never a stage's output for it.
    pub event: Event,
    /// What ended it.
    pub reason: DeadReason,
    /// The plugin with its version, such as `json-filter@3`; `None` if no plugin had a part in it.
    pub plugin: Option<String>,
    /// What happened, at most 1 KiB.
    pub error: String,
}

/// Why an event became a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadReason {
    /// The plugin failed on it, or answered what it may not.
    PluginError,
    /// The plugin rejected it.
    Rejected,
    /// The plugin could not decode it.
    Undecodable,
    /// It has passed as many routes as an event may.
    Loop,
}

impl DeadReason {
    /// The word in the dead letter's headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PluginError => "plugin_error",
            Self::Rejected => "rejected",
            Self::Undecodable => "undecodable",
            Self::Loop => "loop",
        }
    }
}

/// What passed a subscription's chain.
#[derive(Debug, Default)]
pub struct Filtered {
    /// How far it got.
    pub progress: Progress,
    /// What to deliver, ascending.
    pub passed: Vec<LogSlice>,
    /// Offsets below `progress.reached` that are neither in `passed` nor dead letters, ascending and merged.
    pub dropped: Vec<Range<Offset>>,
    /// A stage may have changed the key of an event that passed.
    pub rekeyed: bool,
}

/// A topic that a route may append to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub topic: TopicName,
    /// How many partitions it has.
    pub partitions: u16,
}

/// What passed a route's chain.
#[derive(Debug, Default)]
pub struct Routed {
    /// How far it got.
    pub progress: Progress,
    /// What to append, in order within each target and partition.
    pub batches: Vec<RouteBatch>,
    /// What the stateful stages have written, by stage and key. It belongs to the events below `progress.reached` and
    /// must be committed with them or not at all.
    pub writes: Vec<StageWrite>,
}

/// A change of one stage's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageWrite {
    /// The stage's index in the chain.
    pub stage: usize,
    /// The key and its new value.
    pub write: StateWrite,
}

/// A batch to append to one partition of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteBatch {
    /// The target's index in the list that was given.
    pub target: usize,
    /// Its partition.
    pub partition: PartitionId,
    /// How many routes the events have passed, this one included.
    pub hops: u8,
    /// The events.
    pub batch: Batch,
}
