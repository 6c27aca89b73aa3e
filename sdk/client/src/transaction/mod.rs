//! Transactions: events of any topics that are stored all or none, at once, or when the program has decided.

mod acked;
mod check_backs;
mod group;
mod layout;
mod prepared;
mod producer_group;
mod sending;

pub use self::{
    check_backs::{Check, CheckBacks},
    prepared::Prepared,
    producer_group::ProducerGroup,
    sending::Transaction,
};
