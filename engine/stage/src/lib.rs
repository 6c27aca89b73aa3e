//! The contract between a chain of plugins and whatever runs the plugins.
//!
//! [`Plugins`] loads artefacts and attaches them; a [`Stage`] is one attached plugin that is called with events.
//! The engine's WebAssembly host implements both, tests implement them in Rust, and a chain only knows the traits.
//! Every type that crosses this line is defined here and nowhere else. This crate holds no logic: it must not know
//! how plugins run, nor what happens to their answers.

mod attach;
mod call;
mod contract;
mod state;
mod stats;

pub use self::{
    attach::{Artefact, AttachError, AttachSpec, AttachmentPoint, Inspected, Interface},
    call::{CallError, CallInput, CallOutcome, CallOutput},
    contract::{BoxFuture, Plugins, Stage},
    state::{StateView, StateWrite},
    stats::{LastError, StageStats},
};
