//! Partition order: one consumer is active and gets each partition in order, the others stand by.
//!
//! When an event fails, it and everything in flight after it in its partition come back in offset order; what follows
//! waits until they are sent again. A delivery that failed goes to another consumer next, whenever one has credit: the
//! active place changes hands for it, as it does when the active consumer takes nothing or does not respond.

use std::ops::Range;

use super::policy::{Choice, Policy, RUN_OFFSETS_MAX, RunPolicy};
use crate::subscription::{
    consumer::{ConsumerId, Room},
    ledger::Ledger,
    partition::{Partition, Run},
};

/// Milliseconds for which an active consumer may take nothing while another could: then the other is active.
pub(in crate::subscription) const HANDOVER_AFTER_MS: u64 = 1_000;

/// Sharing by turns: the first of the list is active.
#[derive(Debug, Default)]
pub(in crate::subscription) struct Exclusive {
    /// Since when the active consumer has taken nothing of what another could have.
    starving_since: Option<u64>,
}

impl Exclusive {
    /// True if only the active consumer holds any of a partition: one that was active before may not be done.
    fn is_free(&self, ledger: &Ledger, partition: usize) -> bool {
        let active = ledger.consumers.list().first().map(|consumer| consumer.id());
        ledger.holder(partition).is_none_or(|holder| active == Some(holder))
    }

    /// The lowest run that waits in each partition, where it is due; at most `offsets_max` offsets of it.
    fn due<'a>(
        &'a self,
        ledger: &'a Ledger,
        now: u64,
        offsets_max: u64,
    ) -> impl Iterator<Item = (Choice, &'a Partition)> {
        let free = ledger.partitions.retrying().filter(|(partition, _)| self.is_free(ledger, *partition));
        free.filter_map(move |(partition, it)| {
            Some((Choice { partition, run: it.lowest_due(now, offsets_max)? }, it))
        })
    }

    /// An event that is due and must be its consumer's only one.
    fn alone_due(&self, ledger: &Ledger, now: u64) -> Option<Choice> {
        self.due(ledger, now, 1).map(|(choice, _)| choice).find(|choice| choice.run.is_alone())
    }

    /// A run that is due, rather one that did not fail with the active consumer.
    fn due_run(&self, ledger: &Ledger, now: u64, may: impl Fn(&Partition) -> bool) -> Option<Choice> {
        let active = ledger.consumers.list().first()?.id();
        let mut own = None;
        for (choice, partition) in self.due(ledger, now, RUN_OFFSETS_MAX) {
            if choice.run.is_alone() || !may(partition) {
                continue;
            }
            if choice.run.by() != Some(active) {
                return Some(choice);
            }
            own.get_or_insert(choice);
        }
        own
    }

    /// True for what the active consumer let fail itself, while something else is due: after that, another may be active.
    fn comes_last(&self, ledger: &Ledger, run: &Run, now: u64) -> bool {
        let consumers = ledger.consumers.list();
        let own = run.again.is_some() && run.by() == consumers.first().map(|active| active.id());
        let other = || self.due_run(ledger, now, |_| true).is_some_and(|it| it.run.by() != run.by());
        own && consumers.len() > 1 && other()
    }

    fn fresh_run(&self, ledger: &Ledger, may: impl Fn(&Partition) -> bool) -> Option<Choice> {
        ledger.partitions.readable().find_map(|(partition, it)| {
            let held = it.has_waiting() || !may(it) || !self.is_free(ledger, partition);
            if held { None } else { Some(Choice { partition, run: it.fresh()? }) }
        })
    }

    /// Whether what a consumer would get again, were it the active one, is what it let fail itself; `None` if nothing is
    /// due that it could get.
    fn gets_own_failure(&self, ledger: &Ledger, consumer: ConsumerId, now: u64) -> Option<bool> {
        let mut own = None;
        for (partition, it) in ledger.partitions.retrying() {
            let held = ledger.holder(partition).is_some_and(|holder| holder != consumer);
            let Some(run) = it.lowest_due(now, 1).filter(|_| !held) else { continue };
            let is_own = run.by() == Some(consumer);
            if run.is_alone() {
                return Some(is_own);
            }
            own = Some(is_own && own.unwrap_or(true));
        }
        own
    }

    /// Gives the active place to another consumer that could take something: if all that is due failed with the active
    /// one last, if that one is silent, or if it takes nothing for a while.
    fn pass_place_on(&mut self, ledger: &mut Ledger, now: u64) {
        let since = self.starving_since.take();
        let consumers = &ledger.consumers;
        let Some(active) = consumers.list().first().filter(|_| consumers.list().len() > 1) else { return };
        let failed = self.gets_own_failure(ledger, active.id(), now) == Some(true);
        let starves = consumers.room(0).is_none() && active.is_idle();
        if !failed && !starves && !active.is_silent() {
            return;
        }
        let heirs = || (1..consumers.list().len()).filter(|place| consumers.room(*place).is_some());
        let own_failure = |place: usize| self.gets_own_failure(ledger, consumers.list()[place].id(), now);
        let responding = heirs().filter(|place| !consumers.list()[*place].is_silent());
        let sound = responding.min_by_key(|place| match own_failure(*place) {
            Some(false) => 0,
            None => 1,
            Some(true) => 2,
        });
        let now_silent = active.is_silent() && sound.is_some();
        // One that is silent is no better than an active one that only fails.
        let silent_may = starves || (failed && active.is_silent());
        let Some(heir) = sound.or_else(|| heirs().next().filter(|_| silent_may)) else { return };
        // Nothing is gained by an heir that would get its own failures in turn.
        let failed = failed && own_failure(heir) != Some(true);
        if !failed && !now_silent {
            let any = |_: &Partition| true;
            let work = self.alone_due(ledger, now).is_some()
                || self.due_run(ledger, now, any).is_some()
                || self.fresh_run(ledger, any).is_some();
            let since = since.unwrap_or(now);
            if !starves || !work || now < since.saturating_add(HANDOVER_AFTER_MS) {
                self.starving_since = (starves && work).then_some(since);
                return;
            }
        }
        ledger.consumers.make_first(heir);
    }
}

impl Policy for Exclusive {
    fn prepare(&mut self, ledger: &mut Ledger, now: u64) {
        self.pass_place_on(ledger, now);
    }

    fn choose(&self, ledger: &Ledger, now: u64) -> Option<Choice> {
        let active = ledger.consumers.list().first()?;
        ledger.consumers.room(0)?;
        if let Some(choice) = self.alone_due(ledger, now) {
            let fetching = ledger.partitions.get(choice.partition).is_fetching(true);
            return (active.is_idle() && !fetching).then_some(choice);
        }
        let due = self.due_run(ledger, now, |it| !it.is_fetching(true));
        let due = due.filter(|choice| !self.comes_last(ledger, &choice.run, now));
        due.or_else(|| self.fresh_run(ledger, |it| !it.is_fetching(false)))
    }

    /// Not if something before it waits, or if its consumer is no longer the active one.
    fn keeps(
        &self,
        ledger: &Ledger,
        partition: usize,
        range: &Range<u64>,
        consumer: ConsumerId,
        now: u64,
    ) -> Result<usize, u64> {
        let waiting = ledger.partitions.get(partition).first_waiting();
        if let Some((_, wait)) = waiting.filter(|(run, _)| run.start < range.start) {
            return Err(wait.due);
        }
        ledger.consumers.index_of(consumer).filter(|place| *place == 0).ok_or(now)
    }

    fn next_deadline(&self, now: u64) -> Option<u64> {
        let handed = self.starving_since.map(|since| since.saturating_add(HANDOVER_AFTER_MS));
        handed.filter(|at| *at > now)
    }
}

impl RunPolicy for Exclusive {
    fn run_at(&self, ledger: &Ledger, partition: usize, at: u64, now: u64) -> Option<Run> {
        if !self.is_free(ledger, partition) {
            return None;
        }
        let partition = ledger.partitions.get(partition);
        let run = match partition.first_waiting() {
            Some(_) => partition.lowest_due(now, RUN_OFFSETS_MAX),
            None => partition.fresh(),
        };
        run.filter(|run| run.range.start == at)
    }

    fn taker(&self, ledger: &Ledger, run: &Run, now: u64) -> Option<(usize, Room)> {
        let active = ledger.consumers.list().first()?;
        let room = ledger.consumers.room(0)?;
        let may = if run.is_alone() {
            active.is_idle()
        } else {
            self.alone_due(ledger, now).is_none() && !self.comes_last(ledger, run, now)
        };
        may.then_some((0, room))
    }

    /// Not their own failure, so it counts nothing.
    fn failed(&self, ledger: &mut Ledger, partition: usize, from: u64, due: u64) {
        for (range, token) in
            ledger.partitions.update(partition, |it| it.take_all_in_flight(&(from..u64::MAX)))
        {
            ledger.take_back(partition, &range, token, due);
        }
    }
}
