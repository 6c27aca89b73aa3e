//! The server: configuration, TLS files, QUIC sessions, HTTP health and metrics, and the composition of the engine.
//!
//! It owns everything between a socket and a call into the broker. It must not know what events mean, nor how they
//! are stored.

mod run;

mod bare;

pub mod config;
pub mod telemetry;
pub mod tls;

mod clock;
mod descriptors;
mod error;
mod files;
mod http;
mod http_runtime;
mod log_writer;
mod metrics;
mod quic;
mod slots;
mod tasks;
mod units;
mod wire_error;

#[cfg(test)]
mod tests;

pub use bare::{BareEndpoint, bare_endpoint, bare_http};
pub use config::{LogFormat, Overrides, ServerConfig, nearest};
pub use error::Error;
pub use run::{Started, run};
