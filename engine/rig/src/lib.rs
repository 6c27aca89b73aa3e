//! What the demo and the bench stand on: an engine as a child process, and accounts of what arrived and how late.

pub mod arrivals;
pub mod latencies;
pub mod stall;

mod child;

pub use child::{Engine, Sandbox};
