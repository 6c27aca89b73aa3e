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
    fn prepare(&mut self, ledger: &mut Ledger, now: u64);

    /// What to read next: a run that some consumer has room for, and that is not being fetched.
    fn choose(&self, ledger: &Ledger, now: u64) -> Option<Choice>;

    /// What may be sent of a partition from the offset `at` on, as things are now.
    fn run_at(&self, ledger: &Ledger, partition: usize, at: u64, now: u64) -> Option<Run>;

    /// Which consumer gets a run now, by its place in the list, and how much of it.
    fn taker(&self, ledger: &Ledger, run: &Run, now: u64) -> Option<(usize, Room)>;

    /// After the events of a partition from `from` on that failed are due at `due`: takes back what must follow them.
    fn failed(&self, ledger: &mut Ledger, partition: usize, from: u64, due: u64);

    /// Whether a consumer keeps what it could not settle, with its place in the list; if not, when that is due again.
    fn keeps(
        &self,
        ledger: &Ledger,
        partition: usize,
        range: &Range<u64>,
        consumer: ConsumerId,
        now: u64,
    ) -> Result<usize, u64>;

    /// When the policy itself changes something after `now`, if nothing else happens.
    fn next_deadline(&self, now: u64) -> Option<u64>;
}

/// The consumer that is kept from new deliveries until it is idle, so that an event can be its only one. Its load cannot
/// grow, so its turn comes. One that is idle already lacks credit, and is not waited for.
pub(super) fn least_loaded(consumers: &[Consumer], may: impl Fn(&Consumer) -> bool) -> Option<usize> {
    let busy = consumers.iter().enumerate();
    let busy = busy.filter(|(_, consumer)| !consumer.is_alone() && !consumer.is_idle() && may(consumer));
    busy.min_by_key(|(_, consumer)| consumer.in_flight()).map(|(place, _)| place)
}
