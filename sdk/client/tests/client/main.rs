//! The client against a small engine over real QUIC on loopback.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod connection;
mod credentials;
mod named;
mod publisher;
mod pull;
mod reader;
mod subscriber;
mod support;
mod transactions;
