//! The gateway over real sockets.
#![expect(clippy::unwrap_used, reason = "a test's helper fails the test by panicking")]

mod admin;
mod entry;
mod hostile;
mod identities;
mod office;
mod openapi;
mod publish;
mod pull;
mod push;
mod read;
mod stream;
mod support;
