//! How several consumers share a subscription: one type for each way.
//!
//! A policy chooses what to read next, which consumer gets what was read, and what a failed event means for others. It
//! changes nothing but the order of consumers and its own state: the ledger does everything else.

mod exclusive;
mod free;
mod keyed;
mod policy;

use levada_protocol::request::Order;

#[cfg(test)]
pub(super) use self::exclusive::HANDOVER_AFTER_MS;
pub(super) use self::policy::{Choice, Policy};
use self::{exclusive::Exclusive, free::Free, keyed::Keyed};

/// The way in which consumers share a subscription.
#[derive(Debug)]
pub(super) enum Sharing {
    /// One consumer is active, and gets each partition in order.
    Exclusive(Exclusive),
    /// The events of a key go to one consumer at a time, in order.
    Keyed(Keyed),
    /// Any consumer gets any event.
    Free(Free),
}

impl Sharing {
    pub(super) fn new(order: Order) -> Self {
        match order {
            Order::Partition => Self::Exclusive(Exclusive::default()),
            Order::Key => Self::Keyed(Keyed::default()),
            Order::None => Self::Free(Free),
        }
    }

    pub(super) fn policy(&self) -> &dyn Policy {
        match self {
            Self::Exclusive(exclusive) => exclusive,
            Self::Keyed(keyed) => keyed.policy(),
            Self::Free(free) => free,
        }
    }

    pub(super) fn policy_mut(&mut self) -> &mut dyn Policy {
        match self {
            Self::Exclusive(exclusive) => exclusive,
            Self::Keyed(keyed) => keyed.policy_mut(),
            Self::Free(free) => free,
        }
    }
}
