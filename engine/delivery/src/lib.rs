//! The rules of delivery as pure state machines: which consumer receives which event, how each delivery ended, and what
//! is kept.
//!
//! Time, a seed for random numbers and stored rows are arguments; effects are returned as values. This crate must not
//! know tokio, sockets, a store or a clock; the broker calls it and carries out what it returns.
//!
//! - [`subscription::Subscription`] is the heart: consumers, credit, deliveries in flight, verbs, redelivery, and
//!   the cycle that makes progress durable.
//! - [`progress::Progress`] is what of one partition is settled, and the rows that keep it.
//! - [`producer::Producer`] makes a publisher's resends harmless.
//! - [`dedup::Ids`] are the event ids that one partition has seen within a window of time.
//! - [`retention`] says how far a partition's log may be dropped.
//! - [`compaction`] says which events of a log that keeps the last of each key survive.
//! - [`backlog`] says whether a topic's quota has room.
//! - [`trend`] says how fast a backlog grows and shrinks.

pub mod subscription;

pub mod backlog;
pub mod backoff;
pub mod compaction;
pub mod dedup;
pub mod now;
pub mod producer;
pub mod progress;
pub mod ranges;
pub mod retention;
pub mod trend;

mod pace;
mod rng;
