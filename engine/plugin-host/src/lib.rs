//! Runs plugins: WebAssembly components that are handed a call's events and answer with verdicts.
//!
//! A [`Host`] implements [`levada_stage::Plugins`]: it compiles components once, keeps the compiled form on disk
//! ([`Host::load`]) and attaches one at a point of the engine ([`Host::attach_loaded`]). An [`Attachment`] is a
//! [`levada_stage::Stage`]: its calls run on the host's own worker threads, under a deadline and a memory cap, with
//! nothing to import but a log and a clock. Whatever a plugin does wrong costs its call and nothing else.
//!
//! A call returns answer bytes within the limits of lengths, or a [`levada_stage::CallError`]. Whether the bytes are
//! verdicts and what becomes of a failing call (bisecting, retries, dead letters, pausing) is decided by the caller.
//! This crate must not know topics, offsets or the store; it is the only one that knows wasmtime.

mod attachment;
mod bindings;
mod cache;
mod config;
mod engine;
mod error;
mod events;
mod host;
mod instance;
mod lengths;
mod limits;
mod plugins;
mod pool;
mod registry;
mod service;

pub use attachment::Attachment;
pub use config::HostConfig;
pub use error::Error;
pub use registry::Loaded;
pub use service::Host;
