//! No order: any consumer gets any event, in turn; a failed event waits by itself.

use super::policy::{Choice, Policy, RUN_OFFSETS_MAX, RunPolicy, least_loaded};
use crate::subscription::{
    consumer::{Consumer, Room},
    ledger::Ledger,
    partition::Run,
};

/// Sharing without order.
#[derive(Debug)]
pub(in crate::subscription) struct Free;

impl Free {
    /// The consumers that may get something, the one whose turn it is first.
    fn takers<'a>(&self, ledger: &'a Ledger) -> impl Iterator<Item = (usize, Room)> + 'a {
        let consumers = &ledger.consumers;
        let passing = consumers.somebody_responds();
        consumers.with_room().filter(move |(place, _)| !(passing && consumers.list()[*place].is_silent()))
    }

    fn idle(&self, ledger: &Ledger) -> Option<(usize, Room)> {
        self.takers(ledger).find(|(place, _)| ledger.consumers.list()[*place].is_idle())
    }

    /// An event that is due and must be its consumer's only one.
    fn alone_due(&self, ledger: &Ledger, now: u64) -> Option<Choice> {
        ledger.partitions.retrying().find_map(|(partition, it)| {
            let run = it.longest_due(now, 1).filter(Run::is_alone)?;
            Some(Choice { partition, run })
        })
    }

    /// The consumer that is kept for an event that must be its only one: an idle one, or the one that will be so first.
    fn reserved(&self, ledger: &Ledger) -> Option<usize> {
        let idle = self.idle(ledger).map(|(place, _)| place);
        let passing = ledger.consumers.somebody_responds();
        let may = |consumer: &Consumer| !(passing && consumer.is_silent());
        idle.or_else(|| least_loaded(ledger.consumers.list(), may))
    }
}

impl Policy for Free {
    fn choose(&self, ledger: &Ledger, now: u64) -> Option<Choice> {
        let mut reserved = None;
        if let Some(choice) = self.alone_due(ledger, now) {
            let fetching = ledger.partitions.get(choice.partition).is_fetching(true);
            if !fetching && self.idle(ledger).is_some() {
                return Some(choice);
            }
            reserved = self.reserved(ledger);
        }
        self.takers(ledger).find(|(place, _)| Some(*place) != reserved)?;
        let waiting = ledger.partitions.retrying().filter(|(_, it)| !it.is_fetching(true));
        let mut due = waiting.filter_map(|(partition, it)| {
            let run = it.longest_due(now, RUN_OFFSETS_MAX)?;
            (!run.is_alone()).then_some(Choice { partition, run })
        });
        due.next().or_else(|| {
            let unread = ledger.partitions.readable().filter(|(_, it)| !it.is_fetching(false));
            unread.filter_map(|(partition, it)| Some(Choice { partition, run: it.fresh()? })).next()
        })
    }
}

impl RunPolicy for Free {
    fn run_at(&self, ledger: &Ledger, partition: usize, at: u64, now: u64) -> Option<Run> {
        let partition = ledger.partitions.get(partition);
        let fresh = || partition.fresh().filter(|run| run.range.start == at);
        partition.due_at(at, now, RUN_OFFSETS_MAX).or_else(fresh)
    }

    fn taker(&self, ledger: &Ledger, run: &Run, now: u64) -> Option<(usize, Room)> {
        if run.is_alone() {
            return self.idle(ledger);
        }
        let reserved = self.alone_due(ledger, now).and_then(|_| self.reserved(ledger));
        let mut own = None;
        for (place, room) in self.takers(ledger).filter(|(place, _)| Some(*place) != reserved) {
            if Some(ledger.consumers.list()[place].id()) != run.by() {
                return Some((place, room));
            }
            own = Some((place, room));
        }
        own
    }
}
