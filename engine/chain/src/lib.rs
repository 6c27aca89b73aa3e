//! How plugins are applied to events: chains of stages with their policies.
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

pub use self::{
    chain::{Chain, ChainStage, Clock},
    costs::{Costs, Counted},
    cut::Source,
    outcome::{
        DeadLetter, DeadReason, Filtered, Input, PassedRun, Paused, Progress, RouteBatch, Routed, Target,
    },
};

#[cfg(test)]
mod tests;
