//! One partition of a subscription: the state of each of its offsets.
//!
//! An offset below the end is fresh (at or above the cursor), in flight, waiting, or settled as far as `progress` knows;
//! what is on its way from one of the first three to the last is in the settle queue. It must not know consumers' credit.

use std::ops::Range;

use levada_protocol::ids::Offset;

use super::{
    consumer::ConsumerId,
    waiting::{Wait, Waiting},
};
use crate::{
    now::Now,
    progress::{Histories, History, Progress, RowChange, RowId, WINDOW_OFFSETS},
    ranges::{RangeSet, RunMap},
};

/// One partition.
#[derive(Debug)]
pub(super) struct Partition {
    /// Runs ahead of what is durable by the commit under way.
    progress: Progress,
    /// The first offset that was never delivered since the start.
    cursor: u64,
    end: u64,
    log_start: u64,
    in_flight: RunMap<InFlight>,
    waiting: Waiting,
    /// Filtered or lost offsets that are not committed yet: between the events of a delivery, or in the settle queue.
    dropped: RangeSet,
    fetching: Fetching,
    /// What the commit under way settles here.
    submitted: Option<Submitted>,
}

/// A run in flight. It may span filtered offsets; at least one of its offsets holds an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InFlight {
    pub(super) token: u64,
    /// On the monotonic clock.
    pub(super) deadline: u64,
}

/// Where an offset stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    InFlight {
        token: u64,
    },
    Waiting {
        wait: Wait,
    },
    /// Fresh, settling or settled.
    Elsewhere,
}

/// Which fetches are under way: at most one of fresh offsets and one of waiting ones.
#[derive(Debug, Default)]
struct Fetching {
    fresh: bool,
    waiting: bool,
}

/// How to take back a partition's part of a commit.
#[derive(Debug)]
struct Submitted {
    floor: u64,
    offsets: u64,
    forgotten: Histories,
    rows: Vec<RowId>,
}

/// Offsets that can be sent as one delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) range: Range<u64>,
    /// What is known of earlier deliveries; `None` if it is fresh.
    pub(super) again: Option<Again>,
}

/// What is known of earlier deliveries of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Again {
    /// How many failed.
    pub(super) attempts: u16,
    /// It is one offset, and nothing else may be in flight at its consumer.
    pub(super) alone: bool,
    /// Whose delivery of it failed last.
    pub(super) by: Option<ConsumerId>,
}

impl Run {
    pub(super) fn is_alone(&self) -> bool {
        self.again.is_some_and(|again| again.alone)
    }

    /// Whose delivery of it failed last.
    pub(super) fn by(&self) -> Option<ConsumerId> {
        self.again?.by
    }
}

impl Partition {
    /// What a run that waits takes in memory, in bytes.
    pub(super) const WAITING_RUN_BYTES: usize = Waiting::RUN_BYTES;

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
            in_flight: RunMap::default(),
            waiting,
            dropped: RangeSet::default(),
            fetching: Fetching::default(),
            submitted: None,
        }
    }

    /// The floor that is durable.
    pub(super) fn floor(&self) -> u64 {
        self.submitted.as_ref().map_or_else(|| self.progress.floor().0, |submitted| submitted.floor)
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Offsets below the end whose end is not durable, filtered and lost ones left out.
    pub(super) fn lag(&self) -> u64 {
        let under_way = self.submitted.as_ref().map_or(0, |submitted| submitted.offsets);
        (self.progress.unsettled(Offset(self.end)) + under_way).saturating_sub(self.dropped.len())
    }

    /// The lowest unsettled offset, if it keeps fresh ones from being delivered.
    pub(super) fn stuck(&self) -> Option<u64> {
        if self.fresh().is_some() || !self.is_behind() {
            return None;
        }
        let in_flight = self.in_flight.first().map(|(run, _)| run.start);
        in_flight.into_iter().chain(self.waiting.first().map(|(run, _)| run.start)).min()
    }

    /// True if there are fresh offsets, deliverable or not.
    pub(super) fn is_behind(&self) -> bool {
        self.cursor < self.end
    }

    /// True if the offset is neither settled nor lost, so that it may be wanted.
    pub(super) fn needs(&self, range: &Range<u64>) -> bool {
        range.end > self.cursor
            || self.in_flight.parts_in(range).next().is_some()
            || self.waiting.overlaps(range)
    }

    /// Moves the end forward.
    pub(super) fn extend(&mut self, end: u64) {
        self.end = self.end.max(end);
    }

    /// What may be delivered for the first time; `None` at the end, or at the window's edge.
    pub(super) fn fresh(&self) -> Option<Run> {
        let edge = self.floor().saturating_add(WINDOW_OFFSETS);
        let range = self.cursor..self.end.min(edge);
        (!range.is_empty()).then_some(Run { range, again: None })
    }

    /// How many runs of offsets have failed and are not settled.
    pub(super) fn failed_runs(&self) -> usize {
        self.progress.failed_runs()
    }

    /// The lowest run that waits, if it is due; it has at most `offsets_max` offsets.
    pub(super) fn lowest_due(&self, now: u64, offsets_max: u64) -> Option<Run> {
        let (run, _) = self.waiting.first()?;
        self.due_at(run.start, now, offsets_max)
    }

    /// The run that has been due for longest.
    pub(super) fn longest_due(&self, now: u64, offsets_max: u64) -> Option<Run> {
        self.due_at(self.waiting.longest_due(now)?, now, offsets_max)
    }

    /// The run from `start` on, if that waits and is due: it continues over neighbours that are due as well and have failed
    /// as often, last at the same consumer.
    pub(super) fn due_at(&self, start: u64, now: u64, offsets_max: u64) -> Option<Run> {
        let (_, lead) = self.waiting.rest_at(start).filter(|(_, wait)| wait.due <= now)?;
        let history = self.progress.history_of(start);
        let again = Again { attempts: history.attempts, alone: history.is_alone(), by: lead.by };
        if again.alone {
            return Some(Run { range: start..start + 1, again: Some(again) });
        }
        let (mut end, limit) = (start, start.saturating_add(offsets_max));
        'runs: while end < limit
            && let Some((run, _)) =
                self.waiting.rest_at(end).filter(|(_, wait)| wait.due <= now && wait.by == lead.by)
        {
            for (piece, history) in self.progress.histories(&(run.start..run.end.min(limit))) {
                if history.attempts != again.attempts || history.is_alone() {
                    break 'runs;
                }
                end = piece.end;
            }
        }
        Some(Run { range: start..end, again: Some(again) })
    }

    /// The lowest run that waits, due or not, and for what.
    pub(super) fn first_waiting(&self) -> Option<(Range<u64>, Wait)> {
        self.waiting.first()
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// When the next run becomes due after `now`, and where it begins.
    pub(super) fn next_due(&self, now: u64) -> Option<(u64, u64)> {
        self.waiting.next_due(now)
    }

    /// Where an offset stands.
    pub(super) fn place_of(&self, offset: u64) -> Place {
        if let Some((_, run)) = self.in_flight.at(offset) {
            return Place::InFlight { token: run.token };
        }
        let waits = self.waiting.rest_at(offset);
        waits.map_or(Place::Elsewhere, |(_, wait)| Place::Waiting { wait })
    }

    /// The parts of a range that are in flight or wait; in no order.
    pub(super) fn open_parts(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let in_flight = self.in_flight.parts_in(range).map(|(part, _)| part);
        in_flight.chain(self.waiting.parts_in(range)).collect()
    }

    pub(super) fn history_of(&self, offset: u64) -> History {
        self.progress.history_of(offset)
    }

    /// The lowest offset in flight, with its token.
    pub(super) fn first_in_flight(&self) -> Option<(u64, u64)> {
        self.in_flight.first().map(|(range, run)| (range.start, run.token))
    }

    /// True if a fetch of fresh offsets, or of waiting ones, is under way.
    pub(super) fn is_fetching(&self, again: bool) -> bool {
        if again { self.fetching.waiting } else { self.fetching.fresh }
    }

    pub(super) fn set_fetching(&mut self, again: bool, fetching: bool) {
        let slot = if again { &mut self.fetching.waiting } else { &mut self.fetching.fresh };
        debug_assert_ne!(*slot, fetching, "one fetch of a kind is under way at a time");
        *slot = fetching;
    }

    /// Takes a run that may be sent out of the fresh or waiting offsets.
    pub(super) fn take_run(&mut self, range: &Range<u64>, fresh: bool) {
        if fresh {
            debug_assert_eq!(self.cursor, range.start, "fresh offsets are taken in order");
            self.cursor = range.end;
        } else {
            drop(self.waiting.take(range));
        }
    }

    pub(super) fn put_in_flight(&mut self, range: Range<u64>, token: u64, deadline: u64) {
        self.in_flight.insert(range, InFlight { token, deadline });
    }

    /// Takes the parts of `range` that are in flight with this token and are past `late`.
    pub(super) fn take_in_flight(&mut self, range: &Range<u64>, token: u64, late: u64) -> Vec<Range<u64>> {
        let own = |run: &InFlight| run.token == token && run.deadline <= late;
        self.in_flight.take(range, own).into_iter().map(|(part, _)| part).collect()
    }

    /// Takes everything of a range that is in flight, with the tokens.
    pub(super) fn take_all_in_flight(&mut self, range: &Range<u64>) -> Vec<(Range<u64>, u64)> {
        let parts = self.in_flight.take(range, |_| true);
        parts.into_iter().map(|(part, run)| (part, run.token)).collect()
    }

    /// The earliest deadline of what is in flight with this token.
    pub(super) fn next_deadline(&self, range: &Range<u64>, token: u64) -> Option<u64> {
        let own = self.in_flight.parts_in(range).filter(|(_, run)| run.token == token);
        own.map(|(_, run)| run.deadline).min()
    }

    /// Events among `range` that are in flight with this token.
    pub(super) fn events_in_flight(&self, range: &Range<u64>, token: u64) -> u64 {
        let own = self.in_flight.parts_in(range).filter(|(_, run)| run.token == token);
        own.map(|(part, _)| self.events_in(&part)).sum()
    }

    /// Lets offsets wait that are in no other state.
    pub(super) fn wait(&mut self, range: Range<u64>, wait: Wait) {
        self.waiting.add(range, wait);
    }

    /// What its waiting runs take in memory, in bytes.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting.bytes()
    }

    /// Notes filtered offsets of a run that was taken.
    pub(super) fn drop_offsets(&mut self, range: Range<u64>) {
        self.dropped.insert(range);
    }

    /// Cuts a range into filtered (`true`) and other pieces.
    pub(super) fn split_dropped(&self, range: &Range<u64>) -> Vec<(Range<u64>, bool)> {
        self.dropped.pieces(range)
    }

    /// Events among the offsets of a part in flight.
    pub(super) fn events_in(&self, range: &Range<u64>) -> u64 {
        range.end - range.start - self.dropped.count_in(range)
    }

    /// Widens a range within a delivery over filtered offsets at its edges, so that none are left without an event.
    pub(super) fn widen(&self, range: &Range<u64>, within: &Range<u64>) -> Range<u64> {
        let before = range.start.checked_sub(1).and_then(|at| self.dropped.run_at(at));
        let start = before.map_or(range.start, |run| run.start.max(within.start));
        let after = self.dropped.run_at(range.end);
        start.min(range.start)..after.map_or(range.end, |run| run.end.min(within.end)).max(range.end)
    }

    /// Moves the log's start forward; false if it lies there already.
    pub(super) fn move_start(&mut self, log_start: u64) -> bool {
        let moves = log_start > self.log_start;
        self.log_start = self.log_start.max(log_start);
        moves
    }

    /// Takes what lies before the log's start out of the waiting and fresh offsets.
    pub(super) fn take_lost(&mut self) -> Vec<Range<u64>> {
        let mut lost = self.waiting.take(&(0..self.log_start));
        if self.cursor < self.log_start {
            lost.push(self.cursor..self.log_start);
            self.cursor = self.log_start;
            self.end = self.end.max(self.log_start);
        }
        lost
    }

    /// Where the log starts; forgotten, so that [`Partition::move_start`] moves again.
    pub(super) fn take_start(&mut self) -> u64 {
        std::mem::take(&mut self.log_start)
    }

    pub(super) fn histories(&self, range: &Range<u64>) -> Histories {
        self.progress.histories(range)
    }

    pub(super) fn set_history(&mut self, range: &Range<u64>, history: History) {
        self.progress.set_history(range, history);
    }

    pub(super) fn generation(&self) -> u64 {
        self.progress.generation()
    }

    /// True if rows changed since the last commit.
    pub(super) fn is_dirty(&self) -> bool {
        self.progress.is_dirty()
    }

    /// Begins this partition's part of a commit.
    pub(super) fn begin_commit(&mut self) {
        let floor = self.progress.floor().0;
        self.submitted = Some(Submitted { floor, offsets: 0, forgotten: Vec::new(), rows: Vec::new() });
    }

    /// Settles a run in the commit that has begun.
    pub(super) fn settle(&mut self, range: &Range<u64>) {
        let forgotten = self.progress.settle(range);
        if let Some(submitted) = &mut self.submitted {
            submitted.forgotten.extend(forgotten);
            submitted.offsets += range.end - range.start;
        }
    }

    /// The rows that the commit writes.
    pub(super) fn take_rows(&mut self) -> Vec<RowChange> {
        let rows = self.progress.take_dirty();
        if let Some(submitted) = &mut self.submitted {
            submitted.rows = rows.iter().map(RowChange::id).collect();
        }
        rows
    }

    /// The commit is durable.
    pub(super) fn end_commit(&mut self) {
        self.submitted = None;
    }

    /// The dropped offsets of a run are durably settled.
    pub(super) fn forget_dropped(&mut self, range: Range<u64>) {
        self.dropped.remove(range);
    }

    /// The commit that settled these runs of the partition failed.
    pub(super) fn undo_commit<'a>(&mut self, runs: impl Iterator<Item = &'a Range<u64>>) {
        if let Some(submitted) = self.submitted.take() {
            self.progress.unsettle(submitted.floor, runs, submitted.forgotten, &submitted.rows);
        }
    }
}

/// What the model compares with.
#[cfg(test)]
#[derive(Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) in_flight: Option<(u64, u64)>,
    pub(super) waits: bool,
    pub(super) settled: bool,
    pub(super) fresh: bool,
    pub(super) dropped: bool,
}

#[cfg(test)]
impl Partition {
    pub(super) fn waiting_len(&self) -> u64 {
        self.waiting.len()
    }

    pub(super) fn state_of(&self, offset: u64) -> State {
        State {
            in_flight: self.in_flight.at(offset).map(|(_, run)| (run.token, run.deadline)),
            waits: self.waiting.covers(&(offset..offset + 1)),
            settled: self.progress.is_settled(Offset(offset)),
            fresh: offset >= self.cursor,
            dropped: self.dropped.contains(offset),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Now = Now { mono_ms: 0, wall: levada_protocol::ids::Timestamp(0) };

    fn partition(end: u64) -> Partition {
        let mut partition = Partition::new(Progress::new(Offset(0), 1), NOW);
        partition.extend(end);
        partition
    }

    #[test]
    fn a_due_run_ends_where_neighbours_failed_more_often_or_elsewhere() {
        let mut partition = partition(20);
        partition.take_run(&(0..20), true);
        let by = |id| Some(ConsumerId(id));
        partition.wait(0..5, Wait { due: 10, by: by(1) });
        partition.wait(5..9, Wait { due: 20, by: by(1) });
        partition.wait(9..20, Wait { due: 20, by: by(2) });
        partition.set_history(&(3..5), History { attempts: 1, ..History::default() });
        let range = |run: Option<Run>| run.map(|run| run.range);
        assert_eq!(range(partition.lowest_due(9, 100)), None);
        assert_eq!(range(partition.lowest_due(20, 100)), Some(0..3));
        assert_eq!(range(partition.due_at(3, 20, 100)), Some(3..5), "attempts differ behind");
        assert_eq!(range(partition.due_at(6, 20, 100)), Some(6..9));
        assert_eq!(range(partition.due_at(9, 20, 4)), Some(9..13), "it is bounded");
        assert_eq!(range(partition.longest_due(20, 100)), Some(0..3));
    }

    #[test]
    fn an_offset_is_needed_until_it_is_on_its_way_to_be_settled() {
        let mut partition = partition(10);
        assert!(partition.needs(&(9..10)));
        partition.take_run(&(0..10), true);
        partition.put_in_flight(0..4, 1, 100);
        partition.wait(6..7, Wait { due: 0, by: None });
        let needed: Vec<u64> = (0..10).filter(|at| partition.needs(&(*at..at + 1))).collect();
        assert_eq!(needed, [0, 1, 2, 3, 6]);
    }

    #[test]
    fn a_commit_that_failed_leaves_everything_as_it_was() {
        let mut partition = partition(10);
        partition.take_run(&(0..10), true);
        partition.begin_commit();
        partition.settle(&(0..3));
        assert!(!partition.take_rows().is_empty());
        assert_eq!((partition.floor(), partition.lag()), (0, 10));
        partition.undo_commit(std::iter::once(&(0..3)));
        assert_eq!((partition.floor(), partition.lag(), partition.is_dirty()), (0, 10, true));
        partition.begin_commit();
        partition.settle(&(0..3));
        partition.take_rows();
        partition.end_commit();
        assert_eq!((partition.floor(), partition.lag()), (3, 7));
    }
}
