//! Transactions: events of any topics that are stored all or none, at once, or when the program has decided.

mod acked;
mod check_backs;
mod group;
mod last_refusal;
mod layout;
mod prepared;
mod producer_group;
mod sending;

pub use self::{
    check_backs::{Check, CheckBacks},
    last_refusal::LastRefusal,
    prepared::Prepared,
    producer_group::ProducerGroup,
    sending::Transaction,
};
