//! How plugins are applied to events: chains of stages with their policies.
//!
//! Owns the rules by which a plugin's answer becomes events, dead letters, state or a pause. Must not know
//! WebAssembly, the store, topics or who waits for the result; time comes in through a clock.
//!
//! ```text
//!  input    one partition's stored batches      |  0 .. 511  | 512 .. 1023 | 1024 ..    |
//!                                                  window 0     window 1     window 2
//!  ahead    up to 4 windows run ahead           stage 0 ──► stage 1 ──► … while nothing is to be decided
//!  decide   the oldest window, at each stage
//!
//!             call [0..511]  fails                    a call with a valid answer decides all its events;
//!               call [0..255]  answers  ✓✓✓✓          a failing one is bisected, left half first, until the
//!               call [256..511]  fails                events that fail are alone and were retried: then the
//!                 call [256..383]  fails …            stage's policy ends, skips, keeps or pauses at each
//!
//!  cut      the window ends before event k: the stage pauses at k, the breaker opens, or the outputs fill a commit
//!
//!             [0 .. k)  counts: forwarded, dropped or dead letters      [k .. 511]  is given again by a later run
//!
//!  forward  what the last stage lets pass goes into a sink: `Selector` keeps positions, for a subscription and
//!           between stages; `Router` makes batches for a route's targets
//! ```
//!
//! - A **window** is what one call of the first stage takes: at most 512 events and 256 KiB. Windows are decided
//!   strictly in order, so who fails, when the breaker opens and where a run ends do not depend on timing.
//! - An answer is validated once, into a `Validated` that keeps the bytes and is followed later.
//! - An event is identified by its `Position` in the input; offsets exist only at the edge.
//! - A chain with a **stateful** stage calls it one at a time and in order. If a window is cut, nothing of it counts;
//!   the events before the cut are decided again, from the state as it was before the window.

mod ahead;
mod batches;
mod breaker;
mod call;
mod chain;
mod costs;
mod decide;
mod emit;
mod forward;
mod outcome;
mod outputs;
mod pipeline;
mod policy;
mod position;
mod route;
mod run;
mod select;
mod slice;
mod source;
mod stages;
mod state;
mod validate;
mod walk;
mod window;

pub use self::{
    chain::Chain,
    costs::{Costs, Counted},
    outcome::{DeadLetter, DeadReason, Filtered, Paused, Progress, RouteBatch, Routed, StageWrite, Target},
    slice::{Live, LogSlice, SliceBatches, SliceError, subtract},
    source::{Input, Source},
    stages::{ChainStage, Clock},
};

#[cfg(test)]
mod tests;
