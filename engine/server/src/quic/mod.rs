//! QUIC: the listener, sessions, and one file per kind of stream.
//!
//! It owns everything between a UDP packet and a call into the broker. Nothing outside knows quinn.

mod check_backs;
mod deliver;
mod frames;
mod inbound;
pub(crate) mod listener;
mod notices;
mod peer;
mod permits;
mod publish;
mod read;
mod requests;
mod session;
mod stream;
mod subscribe;
