//! Pushes over real sockets, to receivers that do what a test wants.
#![expect(clippy::unwrap_used, reason = "a test's helper fails the test by panicking")]

mod addresses;
mod failures;
mod hostile;
mod order;
mod receiver;
mod signatures;
mod support;
mod tls;
