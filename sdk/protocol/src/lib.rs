//! The one definition of the protocol between Levada's parts: ids, events, batch bytes, frames, requests,
//! error codes and limits.
//!
//! This crate is types and codecs. It must not know tokio, sockets, files or a clock; time is an argument.
//! `sdk/PROTOCOL.md` describes the same bytes for people who write a client in another language.

pub mod access;
pub mod ids;

mod base62;
pub mod batch;
pub mod certificate_name;
pub mod dead_letters;
pub mod deliver;
pub mod duplicates;
pub mod error;
pub mod event;
pub mod frame;
pub mod limits;
pub mod mask;
pub mod partition;
pub mod permission;
pub mod progress;
pub mod publish;
pub mod push_secret;
pub mod request;
pub mod schedule;
pub mod token;
pub mod trace;
pub mod verbs;
pub mod verdict;
pub mod version;
mod wire;
