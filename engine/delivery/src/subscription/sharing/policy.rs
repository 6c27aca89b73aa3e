//! What every way of sharing decides.

use std::{fmt, ops::Range};

use crate::subscription::{
    consumer::{Consumer, ConsumerId, Room},
    ledger::Ledger,
    partition::Run,
};

/// Most offsets of one redelivery.
pub(super) const RUN_OFFSETS_MAX: u64 = 16_384;

/// A stretch to read.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::subscription) struct Choice {
    pub(in crate::subscription) partition: usize,
    pub(in crate::subscription) run: Run,
}

/// What each way decides. Times are on the monotonic clock.
pub(in crate::subscription) trait Policy: fmt::Debug {
    /// Changes the order of consumers if it is time to, before something is chosen or assigned.
    fn prepare(&mut self, _ledger: &mut Ledger, _now: u64) {}

    /// What to read next, of what is not being fetched: something that a consumer has room for, or of which the keys have to
    /// be known.
    fn choose(&self, ledger: &Ledger, now: u64) -> Option<Choice>;

    /// Whether a consumer keeps what it could not settle, with its place in the list; if not, when that is due again. Whoever
    /// is attached keeps it, if nothing else is said.
    fn keeps(
        &self,
        ledger: &Ledger,
        _partition: usize,
        _range: &Range<u64>,
        consumer: ConsumerId,
        now: u64,
    ) -> Result<usize, u64> {
        ledger.consumers.index_of(consumer).ok_or(now)
    }

    /// When the policy itself changes something after `now`, if nothing else happens.
    fn next_deadline(&self, _now: u64) -> Option<u64> {
        None
    }
}

/// What a way decides that gives events in runs, whatever their keys are.
pub(in crate::subscription) trait RunPolicy: Policy {
    /// What may be sent of a partition from the offset `at` on, as things are now.
    fn run_at(&self, ledger: &Ledger, partition: usize, at: u64, now: u64) -> Option<Run>;

    /// Which consumer gets a run now, by its place in the list, and how much of it.
    fn taker(&self, ledger: &Ledger, run: &Run, now: u64) -> Option<(usize, Room)>;

    /// After the events of a partition from `from` on that failed are due at `due`: takes back what must follow them.
    fn failed(&self, _ledger: &mut Ledger, _partition: usize, _from: u64, _due: u64) {}
}

/// The consumer that is kept from new deliveries until it is idle, so that an event can be its only one. Its load cannot
/// grow, so its turn comes. One that is idle already lacks credit, and is not waited for.
pub(super) fn least_loaded(consumers: &[Consumer], may: impl Fn(&Consumer) -> bool) -> Option<usize> {
    let busy = consumers.iter().enumerate();
    let busy = busy.filter(|(_, consumer)| !consumer.is_alone() && !consumer.is_idle() && may(consumer));
    busy.min_by_key(|(_, consumer)| consumer.in_flight()).map(|(place, _)| place)
}
