//! What a Levada plugin in Rust is written with.
//!
//! A plugin is a type with an `init` that reads its configuration and a `process` that gives each event a verdict:
//!
//! ```
//! use levada_plugin::{Answer, Answered, Failure, Incoming, Plugin, Setup};
//!
//! /// Passes events whose header `region` is the configured one.
//! struct Region(String);
//!
//! impl Plugin for Region {
//!     fn init(setup: &Setup) -> Result<Self, String> {
//!         match setup.config.trim().trim_matches('"') {
//!             "" => Err("expected a region, got nothing".to_owned()),
//!             region => Ok(Self(region.to_owned())),
//!         }
//!     }
//!
//!     fn process(&mut self, event: &Incoming<'_>, answer: Answer<'_>) -> Result<Answered, Failure> {
//!         let here = event.header("region") == Some(self.0.as_bytes());
//!         Ok(if here { answer.keep() } else { answer.drop() })
//!     }
//! }
//!
//! levada_plugin::export!(Region);
//! ```
//!
//! The crate is a `cdylib` for `wasm32-unknown-unknown`, made into a component; `levada-plugin-build` does both.
//! Memory that a plugin keeps between calls is a cache, never state: the engine drops instances when it likes.
//! A panic is a trap: the engine logs its message, drops the instance, and finds out which event failed.
//!
//! This crate must not know the engine; it shares the bytes of events and verdicts with it through
//! `levada-protocol`.

mod answer;
#[doc(hidden)]
pub mod bindings;
mod event;
mod export;
pub mod log;
mod plugin;

pub use answer::{Answer, Answered};
pub use event::Incoming;
#[doc(hidden)]
pub use export::exported;
pub use levada_expression::json;
pub use levada_protocol::verdict::{Change, HeadersChange, Output};
pub use plugin::{Failure, Plugin, Setup, answer_runs};
