//! How several consumers share a subscription: one type for each way.
//!
//! A policy chooses what to read next, which consumer gets what was read, and what a failed event means for others. It
//! changes nothing but the order of consumers and its own state: the ledger does everything else.

mod drain;
mod exclusive;
mod free;
mod key;
mod key_pages;
mod key_table;
mod keyed;
mod policy;
mod shares;

use std::ops::Range;

use levada_protocol::request::Order;

#[cfg(test)]
pub(super) use self::exclusive::HANDOVER_AFTER_MS;
use self::{exclusive::Exclusive, free::Free, keyed::Keyed};
pub(super) use self::{
    keyed::{ByKey, Stretch},
    policy::{Choice, Policy, RunPolicy},
};
use super::{ledger::Ledger, options::Options};

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
    pub(super) fn new(options: &Options, ledger: &Ledger) -> Self {
        match options.order {
            Order::Partition => Self::Exclusive(Exclusive::default()),
            Order::Key => Self::Keyed(Keyed::new(ledger, options.waiting_bytes_max)),
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

    fn policy_mut(&mut self) -> &mut dyn Policy {
        match self {
            Self::Exclusive(exclusive) => exclusive,
            Self::Keyed(keyed) => keyed.policy_mut(),
            Self::Free(free) => free,
        }
    }

    /// Brings the way of sharing up to date before something is chosen or assigned.
    pub(super) fn prepare(&mut self, ledger: &mut Ledger, now: u64) {
        if let Self::Keyed(keyed) = self {
            keyed.prepare(ledger);
        }
        self.policy_mut().prepare(ledger, now);
    }

    /// What gives events in runs; `None` if each goes by its key now.
    pub(super) fn by_runs(&self) -> Option<&dyn RunPolicy> {
        match self {
            Self::Exclusive(exclusive) => Some(exclusive),
            Self::Keyed(keyed) => keyed.by_runs(),
            Self::Free(free) => Some(free),
        }
    }

    /// What gives events by their keys; `None` if keys do not matter now.
    pub(super) fn by_key(&mut self) -> Option<&mut ByKey> {
        match self {
            Self::Keyed(keyed) => keyed.by_key(),
            Self::Exclusive(_) | Self::Free(_) => None,
        }
    }

    /// How many events wait for earlier ones of their keys, if no more may.
    pub(super) fn keys_full(&self, ledger: &Ledger) -> Option<u64> {
        match self {
            Self::Keyed(keyed) => keyed.keys_full(ledger),
            Self::Exclusive(_) | Self::Free(_) => None,
        }
    }

    /// After events of a partition from `range.start` on have failed, of which the first waits until `due`: takes back what
    /// must follow them; by key, [`Sharing::left`] does that, which comes next.
    pub(super) fn failed(&mut self, ledger: &mut Ledger, partition: usize, range: &Range<u64>, due: u64) {
        match self {
            Self::Keyed(keyed) => keyed.look_at_keys(ledger).failed(),
            Self::Exclusive(exclusive) => exclusive.failed(ledger, partition, range.start, due),
            Self::Free(free) => free.failed(ledger, partition, range.start, due),
        }
    }

    /// True if no key of what is in flight or waits has to be read.
    #[cfg(test)]
    pub(super) fn knows_keys(&mut self, partition: usize) -> bool {
        self.by_key().is_some_and(|by_key| by_key.knows_keys(partition))
    }

    /// After events of a partition have left flight, or what waited was lost.
    pub(super) fn left(&mut self, ledger: &mut Ledger, partition: usize, range: &Range<u64>) {
        if let Some(by_key) = self.by_key() {
            by_key.update(ledger, partition, range);
        }
    }

    /// After events of a partition that had settled are open again.
    pub(super) fn reopened(&mut self, ledger: &Ledger, partition: usize, range: &Range<u64>) {
        if let Some(by_key) = self.by_key() {
            by_key.reopened(ledger, partition, range);
        }
    }
}
