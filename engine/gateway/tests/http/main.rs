//! The gateway over real sockets.
#![expect(clippy::unwrap_used, reason = "a test's helper fails the test by panicking")]

mod entry;
mod hostile;
mod identities;
mod openapi;
mod publish;
mod push;
mod read;
mod stream;
mod support;
