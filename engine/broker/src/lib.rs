//! The broker: topics, partitions, subscriptions and routes, and the one commit path that changes them.
//!
//! It owns every task that holds state, and is the one entry for QUIC, HTTP and the CLI. It must know neither
//! sockets nor RocksDB nor wasmtime: it sees a `Store` and a `Plugins`.

mod broker;

mod access;
mod artefacts;
mod catalogue;
mod chains;
mod clock;
mod config;
mod dead_letters;
mod error;
mod floors;
mod frames;
mod guard;
mod identity;
mod idle;
mod keys;
mod log;
mod metrics;
mod outbound;
mod owners;
mod places;
mod publish;
mod reader;
mod requests;
mod retention;
mod route;
mod shard;
pub mod stage;
mod subscription;
mod tail;
mod tasks;
mod topic;

pub use access::Principal;
pub use broker::{Broker, Health};
pub use config::BrokerConfig;
pub use error::Error;
pub use frames::OutFrame;
pub use publish::{PublishStream, Submitter};
pub use reader::{CreditSender, Reader};
pub use subscription::{Consumer, ConsumerControl};
