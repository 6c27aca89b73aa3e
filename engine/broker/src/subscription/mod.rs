//! Durable subscriptions: one owner task each, reached through a handle.
//!
//! The rules of delivery are `levada_delivery`; the owner reads, runs the chain, sends, and commits progress. What others
//! want to know of a subscription they read from its status, without asking the owner.

mod owner;

mod attached;
mod attendance;
mod attending;
mod chain;
mod command;
mod committer;
mod consumer;
mod consumers;
mod handle;
mod inbox;
mod lifetimes;
mod losses;
mod open;
mod pause;
mod progress;
mod publisher;
mod queue;
mod reads;
mod refusals;
mod retained;
mod signals;
mod slices;
mod status;
mod untold;
mod waiting;

pub(crate) use self::{
    attendance::UNATTENDED_ALARM_MS,
    command::{AckingTransact, Context},
    consumer::attach,
    handle::SubscriptionHandle,
    open::open,
    retained::RetainBudget,
    status::Described,
};
pub use self::{
    consumer::{Consumer, ConsumerControl},
    untold::{LossNotice, Told},
};
