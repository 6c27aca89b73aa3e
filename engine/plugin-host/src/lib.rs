//! Runs plugins: WebAssembly components that are handed a call's events and answer with verdicts.
//!
//! A [`Host`] compiles components once and keeps the compiled form on disk ([`Host::load`]). [`Host::attach`] configures one for a
//! place; [`Attachment::call`] runs it on the host's own worker threads, under a deadline and a memory cap, with
//! nothing to import but a log and a clock. Whatever a plugin does wrong costs its call and nothing else.
//!
//! One call in, checked verdict bytes or a [`CallError`] out: what becomes of a failing call (finding the guilty
//! event, retries, dead letters, pausing) is the broker's to decide. This crate must not know topics, offsets or
//! the store; it is the only one that knows wasmtime.

mod answer;
mod attachment;
mod bindings;
mod cache;
mod config;
mod engine;
mod error;
mod events;
mod host;
mod instance;
mod limits;
mod pool;
mod registry;
mod service;

pub use attachment::{Answered, Attachment, CallFuture, CallInput, Figures};
pub use config::{AttachSpec, HostConfig, Place};
pub use error::{CallError, Error};
pub use registry::{Artefact, Inspected, Interface, Loaded};
pub use service::Host;
