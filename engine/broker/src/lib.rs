//! The broker: topics, partitions, subscriptions and routes, and the one commit path that changes them.
//!
//! It owns every task that holds state, and is the one entry for QUIC, HTTP and the CLI. It must know neither
//! sockets nor RocksDB nor wasmtime: it sees a `Store` and a `Plugins`.

mod broker;

mod access;
mod artefacts;
mod authentication;
mod catalogue;
mod chains;
mod changes;
mod check_backs;
mod check_times;
mod clock;
mod compaction;
mod config;
mod dead_letter_topics;
mod dead_letters;
mod depth;
mod due_times;
mod error;
mod event_id;
mod expiry;
mod floors;
mod frames;
mod guard;
mod identity;
mod idle;
mod inspection;
mod log;
pub mod metrics;
mod outbound;
mod outgoing;
mod owners;
mod pause;
mod publish;
mod push;
mod pushing;
mod queue_ends;
mod reader;
mod reclaim;
mod redrive;
mod requests;
mod retention;
mod route;
mod rows;
mod running;
mod scheduler;
mod search;
mod setback;
mod shard;
mod starts;
mod subscription;
mod tail;
mod tasks;
mod topic;
mod topics;
mod transaction_ends;
mod words;

pub use access::{Known, Principal, Proof};
pub use authentication::{Credentials, IdentityChanges};
pub use broker::{Broker, Health};
pub use check_backs::GroupMember;
pub use clock::Clock;
pub use config::{BrokerConfig, CheckBackConfig, CompactionConfig};
pub use error::Error;
pub use inspection::Inspection;
pub use levada_delivery::subscription::Bounds;
pub use outgoing::{Content, Delivery, Outgoing, Unwritten};
pub use publish::{PublishStream, Submitter};
pub use push::{PushOutcome, PushRules, PushStanding, PushTarget, PushUrls};
pub use pushing::{PushChanges, Pushing};
pub use reader::{CreditSender, Reader};
pub use subscription::{Consumer, ConsumerControl, LossNotice, Told};
