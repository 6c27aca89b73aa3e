//! One partition's place in a subscription: cursor, deliveries in flight, what waits, what settles.
//!
//! Owns the offsets' states. It must not know consumers or their credit.

use std::ops::Range;

use super::{
    ConsumerId,
    waiting::{Wait, Waiting},
};
use crate::{
    now::Now,
    progress::{FAILURE_RUNS_MAX, Histories, History, Progress, WINDOW_OFFSETS},
    ranges::{RangeSet, RunMap},
};

#[derive(Debug)]
pub(super) struct Partition {
    /// Runs ahead of what is durable by the commit under way.
    pub(super) progress: Progress,
    /// The first offset that was never delivered since the start.
    pub(super) cursor: u64,
    pub(super) end: u64,
    pub(super) log_start: u64,
    pub(super) flights: RunMap<Flight>,
    pub(super) waiting: Waiting,
    /// Filtered or lost offsets that are not committed yet: between the events of a delivery, or in the settle queue.
    pub(super) dropped: RangeSet,
    /// The read under way for this partition.
    pub(super) reading: Option<u64>,
    /// What the commit under way settles here.
    pub(super) submitted: Option<Submitted>,
}

/// A run in flight. Filtered offsets within it are in [`Partition::dropped`]; at least one offset is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flight {
    pub(super) token: u64,
    /// On the monotonic clock.
    pub(super) deadline: u64,
}

/// How to take a partition's part of a commit back.
#[derive(Debug)]
pub(super) struct Submitted {
    pub(super) floor: u64,
    pub(super) offsets: u64,
    pub(super) forgotten: Histories,
    pub(super) chunks: Vec<u64>,
}

/// A run that is due again and can go out as one delivery.
#[derive(Debug)]
pub(super) struct DueRun {
    pub(super) range: Range<u64>,
    pub(super) attempts: u16,
    pub(super) alone: bool,
    /// Whose delivery of it failed last.
    pub(super) by: Option<ConsumerId>,
}

/// The first offset of such a run.
#[derive(Debug)]
pub(super) struct DueLead {
    start: u64,
    /// Whose delivery of it failed last.
    pub(super) by: Option<ConsumerId>,
    pub(super) history: History,
}

impl Partition {
    pub(super) fn new(progress: Progress, now: Now) -> Self {
        let cursor = progress.known_end();
        let mut waiting = Waiting::default();
        for open in progress.open_parts(&(0..cursor)) {
            for (piece, history) in progress.histories(&open) {
                let due = now.after(history.waits_ms(now.wall));
                waiting.add(piece, Wait { due, by: None });
            }
        }
        Self {
            progress,
            cursor,
            end: cursor,
            log_start: 0,
            flights: RunMap::default(),
            waiting,
            dropped: RangeSet::default(),
            reading: None,
            submitted: None,
        }
    }

    /// The floor that is durable.
    pub(super) fn floor(&self) -> u64 {
        self.submitted.as_ref().map_or_else(|| self.progress.floor().0, |submitted| submitted.floor)
    }

    /// Events among the offsets of a part in flight.
    pub(super) fn events_in(&self, range: &Range<u64>) -> u64 {
        range.end - range.start - self.dropped.count_in(range)
    }

    /// What may be delivered for the first time; `None` at the end, at the window's edge, or with too many failures.
    pub(super) fn fresh(&self) -> Option<Range<u64>> {
        let edge = self.floor().saturating_add(WINDOW_OFFSETS);
        let fresh = self.cursor..self.end.min(edge);
        (!fresh.is_empty() && self.progress.failure_runs() < FAILURE_RUNS_MAX).then_some(fresh)
    }

    /// The lowest unsettled offset, if it is what keeps fresh ones from being delivered.
    pub(super) fn stuck(&self) -> Option<u64> {
        if self.fresh().is_some() || self.cursor >= self.end {
            return None;
        }
        let in_flight = self.flights.first().map(|(run, _)| run.start);
        in_flight.into_iter().chain(self.waiting.first().map(|(run, _)| run.start)).min()
    }

    /// True if what is due at `now` must be given alone.
    pub(super) fn leads_alone(&self, now: u64, ordered: bool) -> bool {
        self.due_lead(now, ordered).is_some_and(|lead| lead.history.is_alone())
    }

    /// A run that is due at `now`: the lowest of all where order matters, else the one due for longest. It goes on
    /// over neighbours that are due as well and have failed as often, last with the same consumer.
    pub(super) fn due(&self, now: u64, ordered: bool, offsets_max: u64) -> Option<DueRun> {
        let DueLead { start, by, history: lead } = self.due_lead(now, ordered)?;
        if lead.is_alone() {
            return Some(DueRun { range: start..start + 1, attempts: lead.attempts, alone: true, by });
        }
        let (mut end, limit) = (start, start.saturating_add(offsets_max));
        'runs: while end < limit
            && let Some((run, _)) =
                self.waiting.rest_at(end).filter(|(_, wait)| wait.due <= now && wait.by == by)
        {
            for (piece, history) in self.progress.histories(&(run.start..run.end.min(limit))) {
                if history.attempts != lead.attempts || history.is_alone() {
                    break 'runs;
                }
                end = piece.end;
            }
        }
        Some(DueRun { range: start..end, attempts: lead.attempts, alone: false, by })
    }

    /// Where the run begins that is given next of what is due at `now`.
    pub(super) fn due_lead(&self, now: u64, ordered: bool) -> Option<DueLead> {
        let (run, wait) = if ordered {
            self.waiting.first().filter(|(_, wait)| wait.due <= now)?
        } else {
            self.waiting.rest_at(self.waiting.longest_due(now)?)?
        };
        Some(DueLead { start: run.start, by: wait.by, history: self.progress.history_of(run.start) })
    }

    /// Widens a range within a delivery over filtered offsets at its edges, so that none are left without an event.
    pub(super) fn widen(&self, range: &Range<u64>, within: &Range<u64>) -> Range<u64> {
        let before = range.start.checked_sub(1).and_then(|at| self.dropped.run_at(at));
        let start = before.map_or(range.start, |run| run.start.max(within.start));
        let after = self.dropped.run_at(range.end);
        start.min(range.start)..after.map_or(range.end, |run| run.end.min(within.end)).max(range.end)
    }
}
