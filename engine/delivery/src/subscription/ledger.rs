//! The books of a subscription: partitions, consumers, deliveries and what is to settle, kept in agreement.
//!
//! Every step of an offset from one state to another is a method here. Which step is to be taken, the policies, the retry
//! rules and the subscription say.

use std::{collections::BTreeMap, ops::Range};

use levada_protocol::ids::{DeliveryToken, Offset, PartitionId};

use super::{
    consumer::ConsumerId,
    consumers::Consumers,
    dead_letter::{DeadLetter, Reason},
    deliveries::{Deliveries, NewDelivery},
    effects::{CameBack, LostRange, Settling},
    fetch::{Assignment, Contents, Cut},
    options::Options,
    partition::{Partition, Run},
    partitions::{Partitions, index, partition_id},
    settlement::{Outcome, Settle, Settlement},
    stats::Totals,
    waiting::Wait,
};
use crate::{now::Now, progress::History, ranges::RangeSet};

/// The books.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) partitions: Partitions,
    pub(super) consumers: Consumers,
    pub(super) deliveries: Deliveries,
    pub(super) settlement: Settlement,
    pub(super) totals: Totals,
    ack_timeout_ms: u64,
    dead_letter_expired: bool,
    /// The partition that is a queue: whoever commits is told what of it has come to its end.
    queue: Option<usize>,
}

/// A delivery of scattered events.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) consumer: ConsumerId,
    /// Ascending and disjoint; every offset is an event.
    pub(super) offsets: Vec<Range<u64>>,
    pub(super) events: u64,
    pub(super) bytes: u64,
    /// What is known of earlier deliveries, alike for all of them as far as it counts.
    pub(super) history: History,
}

impl Ledger {
    pub(super) fn new(
        partitions: Vec<Partition>,
        consumers: Consumers,
        deliveries: Deliveries,
        settlement: Settlement,
        options: &Options,
    ) -> Self {
        Self {
            partitions: Partitions::new(partitions, options.failed_runs_max),
            consumers,
            deliveries,
            settlement,
            totals: Totals::default(),
            ack_timeout_ms: options.ack_timeout_ms,
            dead_letter_expired: options.dead_letter_expired,
            queue: None,
        }
    }

    /// Applies other options from now on; what is in flight keeps its deadline.
    pub(super) fn set(&mut self, options: &Options) {
        self.consumers.set_in_flight_max(options.in_flight_max());
        self.ack_timeout_ms = options.ack_timeout_ms;
        self.dead_letter_expired = options.dead_letter_expired;
    }

    pub(super) fn set_queue(&mut self, queue: usize) {
        self.queue = Some(queue);
    }

    /// The deadline of what is delivered, or extended, now.
    pub(super) fn deadline(&self, now: Now) -> u64 {
        now.after(self.ack_timeout_ms)
    }

    /// Takes what was fetched out of the fresh or waiting offsets: filtered ones settle, failed ones become dead letters, and
    /// what holds events is returned.
    pub(super) fn use_up(
        &mut self,
        now: Now,
        partition: usize,
        range: &Range<u64>,
        fresh: bool,
        contents: &Contents<'_>,
    ) -> Vec<Range<u64>> {
        self.partitions.update(partition, |it| {
            it.take_run(range, fresh);
            contents.filtered(range).for_each(|part| it.drop_offsets(part));
        });
        let mut dead = RangeSet::default();
        for (part, reason) in contents.failed(range) {
            if *reason == Reason::Expired {
                self.totals.ttl_expired += part.end - part.start;
                if !self.dead_letter_expired {
                    self.partitions.update(partition, |it| it.drop_offsets(part));
                    continue;
                }
            }
            dead.insert(part.clone());
            for (piece, history) in self.partitions.get(partition).histories(&part) {
                self.bury(now, partition, &piece, history, reason.clone(), None);
            }
        }
        let mut holding = Vec::new();
        for (piece, _) in dead.pieces(range).into_iter().filter(|(_, dead)| !dead) {
            if self.partitions.get(partition).events_in(&piece) == 0 {
                self.settlement.push(partition, piece, Outcome::Dropped);
            } else {
                holding.push(piece);
            }
        }
        holding
    }

    /// Puts a delivery that was cut from a run in flight at the consumer at `slot` of the list.
    pub(super) fn deliver(
        &mut self,
        now: Now,
        partition: usize,
        run: &Run,
        cut: Cut,
        slot: usize,
        contents: &Contents<'_>,
    ) -> Assignment {
        let range = run.range.start..cut.end;
        let holding = self.use_up(now, partition, &range, run.again.is_none(), contents);
        let deadline = self.deadline(now);
        let alone = run.is_alone();
        let consumer = self.consumers.list()[slot].id();
        let number = self.consumers.deliver(slot, cut.events, cut.bytes, alone);
        let new = NewDelivery {
            consumer,
            number,
            sent_at: now.mono_ms,
            partition,
            range: range.clone(),
            bytes: cut.bytes,
            events: cut.events,
            alone,
        };
        let token = self.deliveries.add(new, deadline);
        self.partitions.update(partition, |it| {
            holding.into_iter().for_each(|part| it.put_in_flight(part, token, deadline));
        });
        if run.again.is_some() {
            self.totals.redelivered += cut.events;
        }
        Assignment {
            consumer,
            partition: partition_id(partition),
            offsets: vec![Offset(range.start)..Offset(range.end)],
            token: DeliveryToken(token),
            attempt: run.again.map_or(1, |again| again.attempts.saturating_add(1)),
            events: cut.events,
        }
    }

    /// Puts a delivery of scattered events in flight, which were taken out of the fresh or waiting ones.
    pub(super) fn deliver_parts(&mut self, now: Now, partition: usize, parts: Parts) -> Assignment {
        let Parts { consumer, offsets, events, bytes, history } = parts;
        let (deadline, alone) = (self.deadline(now), history.is_alone());
        let slot = self.consumers.index_of(consumer).expect("only who is attached is given anything");
        let number = self.consumers.deliver(slot, events, bytes, alone);
        let range = offsets[0].start..offsets[offsets.len() - 1].end;
        let sent_at = now.mono_ms;
        let new = NewDelivery { consumer, number, sent_at, partition, range, bytes, events, alone };
        let token = self.deliveries.add(new, deadline);
        self.partitions.update(partition, |it| {
            offsets.iter().for_each(|part| it.put_in_flight(part.clone(), token, deadline));
        });
        if history != History::default() {
            self.totals.redelivered += events;
        }
        Assignment {
            consumer,
            partition: partition_id(partition),
            offsets: offsets.into_iter().map(|part| Offset(part.start)..Offset(part.end)).collect(),
            token: DeliveryToken(token),
            attempt: history.attempts.saturating_add(1),
            events,
        }
    }

    /// Books a part that was taken out of flight off its delivery and consumer; returns how many events it holds.
    pub(super) fn release(&mut self, partition: usize, range: &Range<u64>, token: u64) -> u64 {
        let events = self.partitions.get(partition).events_in(range);
        if events > 0 {
            let (consumer, share) = self.deliveries.release(token, events);
            self.consumers.release(consumer, share);
        }
        events
    }

    /// Settles the filtered offsets of a part that leaves flight; returns the others.
    pub(super) fn settle_filtered(&mut self, partition: usize, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut events = Vec::new();
        for (piece, filtered) in self.partitions.get(partition).split_dropped(range) {
            if filtered {
                self.settlement.push(partition, piece, Outcome::Dropped);
            } else {
                events.push(piece);
            }
        }
        events
    }

    /// Queues events as dead letters. With a token they return to flight if that fails.
    pub(super) fn bury(
        &mut self,
        now: Now,
        partition: usize,
        range: &Range<u64>,
        history: History,
        reason: Reason,
        token: Option<u64>,
    ) {
        let whole = DeadLetter::new(now.wall, partition, range, history, reason);
        for dead_letter in self.settlement.parts(whole) {
            let range = dead_letter.first.0..dead_letter.last.0 + 1;
            let outcome = match token {
                Some(token) => {
                    self.deliveries.begin_settling(token);
                    Outcome::Rejected { token, dead_letter }
                }
                None => Outcome::Dead { dead_letter },
            };
            self.settlement.push(partition, range, outcome);
        }
    }

    /// Settles a part that its consumer acknowledged.
    pub(super) fn acknowledge(&mut self, partition: usize, range: Range<u64>, token: u64) {
        self.deliveries.begin_settling(token);
        self.release(partition, &range, token);
        self.settlement.push(partition, range, Outcome::Acked { token });
    }

    /// Makes dead letters of a part that its consumer rejected.
    pub(super) fn reject(
        &mut self,
        now: Now,
        partition: usize,
        range: &Range<u64>,
        token: u64,
        reason: &Reason,
    ) {
        // The delivery outlives its release until what it rejects is queued.
        self.deliveries.begin_settling(token);
        self.release(partition, range, token);
        for events in self.settle_filtered(partition, range) {
            for (piece, history) in self.partitions.get(partition).histories(&events) {
                self.bury(now, partition, &piece, history, reason.clone(), Some(token));
            }
        }
        self.deliveries.end_settling(token);
    }

    /// Lets a part wait that was taken out of flight for the sake of another one's failure.
    pub(super) fn take_back(&mut self, partition: usize, range: &Range<u64>, token: u64, due: u64) {
        self.release(partition, range, token);
        let events = self.settle_filtered(partition, range);
        self.partitions.update(partition, |it| {
            events.into_iter().for_each(|part| it.wait(part, Wait { due, by: None }));
        });
    }

    /// Settles what retention took; `None` if nothing was lost.
    pub(super) fn lose(&mut self, partition: PartitionId, log_start: Offset) -> Option<LostRange> {
        let partition_index = index(partition);
        if !self.partitions.update(partition_index, |it| it.move_start(log_start.0)) {
            return None;
        }
        let mut lost = Vec::new();
        // Filtered offsets that follow go along, for what stays in flight must hold an event.
        let in_flight = self.partitions.get(partition_index).widen(&(0..log_start.0), &(0..u64::MAX));
        let parts = self.partitions.update(partition_index, |it| it.take_all_in_flight(&in_flight));
        for (range, token) in parts {
            self.release(partition_index, &range, token);
            lost.extend(self.settle_filtered(partition_index, &range));
        }
        lost.extend(self.partitions.update(partition_index, Partition::take_lost));
        let (first, last) = (lost.iter().map(|it| it.start).min()?, lost.iter().map(|it| it.end - 1).max()?);
        let events = lost.iter().map(|range| range.end - range.start).sum();
        for range in lost {
            self.partitions.update(partition_index, |it| it.drop_offsets(range.clone()));
            self.settlement.push(partition_index, range, Outcome::Lost);
        }
        Some(LostRange { partition, first: Offset(first), last: Offset(last), events })
    }

    /// Begins the next commit; `None` if there is nothing to write, or while one is under way.
    pub(super) fn begin_commit(&mut self) -> Option<Settling> {
        if !self.settlement.may_begin(self.partitions.is_touched()) {
            return None;
        }
        let (transaction, runs) = self.settlement.take_runs();
        let mut partitions = self.partitions.take_touched();
        partitions.extend(runs.iter().map(|run| run.partition));
        partitions.sort_unstable();
        partitions.dedup();
        for partition in &partitions {
            self.partitions.update(*partition, Partition::begin_commit);
        }
        for run in &runs {
            self.partitions.update(run.partition, |it| it.settle(&run.range));
        }
        let rows = partitions
            .iter()
            .map(|partition_index| {
                (
                    partition_id(*partition_index),
                    self.partitions.update(*partition_index, Partition::take_rows),
                )
            })
            .collect();
        let dead_letters = runs.iter().filter_map(|run| run.outcome.dead_letter().cloned()).collect();
        let dequeued = runs.iter().filter(|run| Some(run.partition) == self.queue);
        let dequeued = dequeued.map(|run| Offset(run.range.start)..Offset(run.range.end)).collect();
        let lost = lost_in(&runs);
        let generation = self.partitions.iter().next().map_or(0, Partition::generation);
        let id = self.settlement.begin(runs, partitions);
        Some(Settling { id, generation, rows, dead_letters, lost, dequeued, transaction })
    }

    /// The commit `id` is durable.
    pub(super) fn commit(&mut self, id: u64) {
        let pending = self.settlement.end(id, true);
        for partition in pending.partitions {
            self.partitions.update(partition, Partition::end_commit);
        }
        for Settle { partition, range, outcome, .. } in pending.runs {
            if outcome.dead_letter().is_some() {
                self.totals.dead_lettered += range.end - range.start;
            }
            if let Some(token) = outcome.token() {
                self.deliveries.end_settling(token);
            }
            self.partitions.update(partition, |it| it.forget_dropped(range));
        }
    }

    /// The commit `id` failed: what consumers settled is to be put back and is returned with the token; the rest settles
    /// again.
    pub(super) fn undo_commit(&mut self, id: u64) -> Vec<(usize, Range<u64>, u64)> {
        let pending = self.settlement.end(id, false);
        for partition in &pending.partitions {
            let own = pending.runs.iter().filter(|run| run.partition == *partition).map(|run| &run.range);
            self.partitions.update(*partition, |it| it.undo_commit(own));
            self.partitions.touch(*partition);
        }
        let (mut back, mut again) = (Vec::new(), Vec::new());
        for run in pending.runs {
            match run.outcome.token() {
                Some(token) => back.push((run.partition, run.range, token)),
                None => again.push(run),
            }
        }
        self.settlement.requeue(again);
        back
    }

    /// Puts a part whose settling failed back in flight at its consumer, or lets it wait until `due`.
    pub(super) fn put_back(
        &mut self,
        now: Now,
        partition: usize,
        range: Range<u64>,
        token: u64,
        keeper: Result<usize, u64>,
    ) -> Option<CameBack> {
        let consumer = self.deliveries.get(token)?.consumer();
        match keeper {
            Ok(slot) => {
                let events = self.partitions.get(partition).events_in(&range);
                let deadline = self.deadline(now);
                if let Some(share) = self.deliveries.restore(token, events, deadline) {
                    self.consumers.restore(slot, share);
                }
                self.partitions.update(partition, |it| it.put_in_flight(range.clone(), token, deadline));
            }
            Err(due) => {
                let events = self.settle_filtered(partition, &range);
                self.partitions.update(partition, |it| {
                    events.into_iter().for_each(|part| it.wait(part, Wait { due, by: None }));
                });
            }
        }
        self.deliveries.end_settling(token);
        let (first, last) = (Offset(range.start), Offset(range.end - 1));
        Some(CameBack { consumer, partition: partition_id(partition), first, last })
    }

    /// Who holds the lowest deliveries in flight of a partition.
    pub(super) fn holder(&self, partition: usize) -> Option<ConsumerId> {
        let (_, token) = self.partitions.get(partition).first_in_flight()?;
        self.deliveries.get(token).map(|delivery| delivery.consumer())
    }
}

/// What of these runs was lost: one range for each partition.
fn lost_in(runs: &[Settle]) -> Vec<LostRange> {
    let mut lost = BTreeMap::<usize, LostRange>::new();
    for run in runs.iter().filter(|run| matches!(run.outcome, Outcome::Lost)) {
        let (first, last) = (Offset(run.range.start), Offset(run.range.end - 1));
        let partition = partition_id(run.partition);
        let range = lost.entry(run.partition).or_insert(LostRange { partition, first, last, events: 0 });
        (range.first, range.last) = (range.first.min(first), range.last.max(last));
        range.events += run.range.end - run.range.start;
    }
    lost.into_values().collect()
}
