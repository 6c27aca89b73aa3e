//! The client against a small engine over real QUIC on loopback.

mod connection;
mod publisher;
mod reader;
mod subscriber;
mod support;
