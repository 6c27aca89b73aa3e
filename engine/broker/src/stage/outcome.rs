//! What goes into a chain and what comes out of it: plain data that the broker's owners of places work with.
//!
//! Must not know how calls are made or answers are read.

use std::{ops::Range, time::Duration};

use levada_protocol::{
    batch::Batch,
    deliver::Run,
    event::Event,
    ids::{Offset, PartitionId, TopicName},
};

use super::cut::Source;

/// Events of one partition, in offset order.
#[derive(Debug, Clone)]
pub(crate) struct Input<'a> {
    /// The partition that they are from.
    pub(crate) partition: PartitionId,
    /// Which offsets to take; events of the sources outside of it are left alone.
    pub(crate) offsets: Range<Offset>,
    /// The stored batches, ascending.
    pub(crate) sources: &'a [Source],
}

/// How far a chain got, and what became of events that did not pass it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Every event below this offset is decided: passed, dropped or a dead letter. None from it on is.
    ///
    /// It is below the end of what was asked for if the place paused, or if the result has grown to the size that
    /// is good to commit at once: then the rest is given again.
    pub(crate) reached: Offset,
    /// Why the place must stop here; the event at `reached` is the first that was not decided.
    pub(crate) paused: Option<Paused>,
    /// Events to append to the place's dead-letter topic, ascending, at most one per source event.
    pub(crate) dead_letters: Vec<DeadLetter>,
    /// How many failing events were dropped, as `on_error = "skip"` asks.
    pub(crate) skipped: u64,
    /// How many failing events went on unchanged, as `on_error = "pass"` asks.
    pub(crate) passed_unchanged: u64,
}

/// Why a place stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Paused {
    /// One sentence for people: which plugin, which offset, what happened.
    pub(crate) why: String,
    /// When to run the chain again by itself (the breaker probes); `None` waits until a person resumes the place.
    pub(crate) retry_after: Option<Duration>,
}

/// A source event that did not pass, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeadLetter {
    /// Its offset in the source.
    pub(crate) offset: Offset,
    /// The source event, never what a stage made of it.
    pub(crate) event: Event,
    /// What ended it.
    pub(crate) reason: DeadReason,
    /// The plugin with its version, such as `json-filter@3`; `None` if no plugin had a part in it.
    pub(crate) plugin: Option<String>,
    /// What happened, at most 1 KiB.
    pub(crate) error: String,
}

/// What ended a dead letter's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeadReason {
    /// The plugin failed on it, or answered what it may not.
    PluginError,
    /// The plugin rejected it.
    Rejected,
    /// It has passed as many routes as an event may.
    Loop,
}

impl DeadReason {
    /// The word in the dead letter's headers.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::PluginError => "plugin_error",
            Self::Rejected => "rejected",
            Self::Loop => "loop",
        }
    }
}

/// What passed a subscription's chain.
#[derive(Debug, Default)]
pub(crate) struct Filtered {
    /// How far it got.
    pub(crate) progress: Progress,
    /// What to deliver, ascending.
    pub(crate) passed: Vec<PassedRun>,
    /// Offsets below `progress.reached` that are neither in `passed` nor dead letters, ascending and merged.
    pub(crate) dropped: Vec<Range<Offset>>,
}

/// Events to deliver, with the offsets of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PassedRun {
    /// The batches.
    pub(crate) run: Run,
    /// How many events they hold.
    pub(crate) count: u32,
    /// How many offsets they cover from `run.base`.
    pub(crate) span: u32,
    /// True if the engine built the batch (then it is one selection); false if they are stored batches, shared.
    pub(crate) built: bool,
}

/// A topic that a route may append to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// Its name.
    pub(crate) topic: TopicName,
    /// How many partitions it has.
    pub(crate) partitions: u16,
}

/// What passed a route's chain.
#[derive(Debug, Default)]
pub(crate) struct Routed {
    /// How far it got.
    pub(crate) progress: Progress,
    /// What to append, in order within each target and partition.
    pub(crate) batches: Vec<RouteBatch>,
}

/// A batch to append to one partition of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RouteBatch {
    /// The target's place in the list that was given.
    pub(crate) target: usize,
    /// Its partition.
    pub(crate) partition: PartitionId,
    /// How many routes the events have passed, this one included.
    pub(crate) hops: u8,
    /// The events.
    pub(crate) batch: Batch,
}
