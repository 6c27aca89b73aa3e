//! The settle cycle: what is decided goes into a commit, and the commit's outcome ends it.
//!
//! Owns the queue of what is to settle, the one commit under way, and how to take a failed one back. It must not know
//! how a commit is made.

use std::{collections::BTreeSet, ops::Range};

use levada_protocol::ids::{Offset, PartitionId, Timestamp};

use super::{
    ConsumerId, Subscription,
    partition::{Flight, Submitted},
    waiting::Wait,
};
use crate::{
    now::Now,
    progress::{History, RowChange},
};

/// What one commit must write. Hand its outcome to [`Subscription::settled`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settling {
    /// Names this commit.
    pub id: u64,
    /// The commit holds only if this is still the subscription's generation (decision 5).
    pub generation: u64,
    /// Rows of progress that change, by partition.
    pub rows: Vec<(PartitionId, Vec<RowChange>)>,
    /// Events to append to the dead-letter topic in the same commit.
    pub dead_letters: Vec<DeadLetter>,
}

/// Events whose delivery ended without success, alike in everything said here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The partition.
    pub partition: PartitionId,
    /// The first offset.
    pub first: Offset,
    /// The last offset, included; every offset between is a dead letter.
    pub last: Offset,
    /// Deliveries that failed, this one included.
    pub attempts: u16,
    /// Why it ended.
    pub reason: Reason,
    /// When the first one failed.
    pub first_failure: Timestamp,
    /// When the last one failed.
    pub last_failure: Timestamp,
}

/// Why an event became a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It failed as often as the subscription allows.
    MaxAttempts,
    /// A consumer rejected it.
    Rejected {
        /// In the consumer's words.
        reason: String,
    },
    /// Its last attempt ended with its consumer's connection, as several before.
    ConsumerLost,
    /// The chain failed on it.
    PluginError {
        /// Which plugin.
        plugin: String,
        /// What it said.
        error: String,
    },
}

impl Reason {
    /// The word in the dead letter's `lv-dlq-reason` header.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::MaxAttempts => "max_attempts",
            Self::Rejected { .. } => "rejected",
            Self::ConsumerLost => "consumer_lost",
            Self::PluginError { .. } => "plugin_error",
        }
    }
}

/// Offsets whose ack or reject could not be committed: the verb is void, and they are in flight again with their
/// token, or wait for redelivery if their consumer is gone or has given the active place up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CameBack {
    /// Whose verb it was.
    pub consumer: ConsumerId,
    /// The partition.
    pub partition: PartitionId,
    /// The first offset.
    pub first: Offset,
    /// The last offset, included.
    pub last: Offset,
}

/// A part in the queue or in the commit under way.
#[derive(Debug)]
pub(super) struct Settle {
    ticket: u64,
    partition: usize,
    range: Range<u64>,
    outcome: Outcome,
}

#[derive(Debug)]
pub(super) enum Outcome {
    /// By its consumer.
    Acked { token: u64 },
    /// By its consumer, into the dead-letter topic.
    Rejected { token: u64, letter: DeadLetter },
    /// Into the dead-letter topic without its consumer.
    Dead { letter: DeadLetter },
    /// Filtered or lost.
    Dropped,
}

/// The commit under way.
#[derive(Debug)]
pub(super) struct Pending {
    id: u64,
    through: u64,
    runs: Vec<Settle>,
    partitions: BTreeSet<usize>,
}

impl Subscription {
    /// Everything for the next commit; `None` if there is nothing, or while a commit is under way.
    pub fn take_settling(&mut self) -> Option<Settling> {
        if self.pending.is_some() || (self.queue.is_empty() && self.touched.is_empty()) {
            return None;
        }
        let runs = self.drain_queue();
        let mut partitions = std::mem::take(&mut self.touched);
        partitions.extend(runs.iter().map(|run| run.partition));
        for partition in &partitions {
            let part = &mut self.partitions[*partition];
            let floor = part.progress.floor().0;
            part.submitted = Some(Submitted { floor, offsets: 0, forgotten: Vec::new(), chunks: Vec::new() });
        }
        for run in &runs {
            let part = &mut self.partitions[run.partition];
            let forgotten = part.progress.settle(&run.range);
            if let Some(submitted) = &mut part.submitted {
                submitted.forgotten.extend(forgotten);
                submitted.offsets += run.range.end - run.range.start;
            }
        }
        let rows = partitions.iter().map(|partition| (partition_id(*partition), self.take_rows(*partition)));
        let rows: Vec<_> = rows.collect();
        self.commits += 1;
        let through = self.queue.front().map_or(self.ticket, |next| next.ticket.saturating_sub(1));
        let dead_letters = runs.iter().filter_map(|run| run.outcome.letter().cloned()).collect();
        let generation = self.partitions.first().map_or(0, |part| part.progress.generation());
        self.pending = Some(Pending { id: self.commits, through, runs, partitions });
        Some(Settling { id: self.commits, generation, rows, dead_letters })
    }

    /// Ends the commit `id`. If it was refused, what consumers settled is theirs again with a new deadline, and is
    /// answered; everything else goes into the next commit.
    ///
    /// # Panics
    /// If `id` is not the commit under way.
    pub fn settled(&mut self, id: u64, ok: bool, now: Now) -> Vec<CameBack> {
        let pending = self.pending.take().filter(|pending| pending.id == id);
        let pending = pending.expect("the commit under way is ended once");
        if ok {
            self.commit(pending);
            return Vec::new();
        }
        self.take_back(pending, now)
    }

    pub(super) fn queue(&mut self, partition: usize, range: Range<u64>, outcome: Outcome) {
        if let (Outcome::Dropped, Some(last)) = (&outcome, self.queue.back_mut())
            && matches!(last.outcome, Outcome::Dropped)
            && (last.partition, last.range.end) == (partition, range.start)
        {
            last.range.end = range.end;
            return;
        }
        self.queue.push_back(Settle { ticket: self.ticket, partition, range, outcome });
    }

    /// Queues a dead letter, in pieces that fit into a commit. With a token it comes back to flight if that fails.
    pub(super) fn queue_dead(&mut self, letter: DeadLetter, token: Option<u64>) {
        let partition = usize::from(letter.partition.0);
        let (mut first, end) = (letter.first.0, letter.last.0 + 1);
        while first < end {
            let range = first..end.min(first.saturating_add(self.options.dead_letters_max.max(1)));
            first = range.end;
            let letter =
                DeadLetter { first: Offset(range.start), last: Offset(range.end - 1), ..letter.clone() };
            let outcome = match token {
                Some(token) => {
                    self.hold_for_settling(token);
                    Outcome::Rejected { token, letter }
                }
                None => Outcome::Dead { letter },
            };
            self.queue(partition, range, outcome);
        }
    }

    pub(super) fn hold_for_settling(&mut self, token: u64) {
        if let Some(delivery) = self.deliveries.get_mut(&token) {
            delivery.settling += 1;
        }
    }

    pub(super) fn end_settling(&mut self, token: u64) {
        if let Some(delivery) = self.deliveries.get_mut(&token) {
            delivery.settling -= 1;
            if delivery.settling == 0 && delivery.events == 0 {
                self.deliveries.remove(&token);
            }
        }
    }

    /// From the front, as far as the dead letters fit.
    fn drain_queue(&mut self) -> Vec<Settle> {
        let mut letters = 0;
        let fits = |run: &&Settle| {
            letters += run.outcome.letter().map_or(0, |_| run.range.end - run.range.start);
            letters <= self.options.dead_letters_max.max(1)
        };
        let count = self.queue.iter().take_while(fits).count();
        self.queue.drain(..count).collect()
    }

    fn take_rows(&mut self, partition: usize) -> Vec<RowChange> {
        let part = &mut self.partitions[partition];
        let rows = part.progress.take_dirty();
        if let Some(submitted) = &mut part.submitted {
            submitted.chunks = rows.iter().filter_map(RowChange::chunk).collect();
        }
        rows
    }

    fn commit(&mut self, pending: Pending) {
        self.confirmed = pending.through;
        for partition in pending.partitions {
            self.partitions[partition].submitted = None;
        }
        for run in pending.runs {
            self.partitions[run.partition].dropped.remove(run.range.clone());
            match run.outcome {
                Outcome::Acked { token } => self.end_settling(token),
                Outcome::Rejected { token, .. } => {
                    self.totals.dead_lettered += run.range.end - run.range.start;
                    self.end_settling(token);
                }
                Outcome::Dead { .. } => self.totals.dead_lettered += run.range.end - run.range.start,
                Outcome::Dropped => {}
            }
        }
    }

    fn take_back(&mut self, pending: Pending, now: Now) -> Vec<CameBack> {
        for partition in &pending.partitions {
            let part = &mut self.partitions[*partition];
            if let Some(submitted) = part.submitted.take() {
                let ranges =
                    pending.runs.iter().filter(|run| run.partition == *partition).map(|run| &run.range);
                part.progress.unsettle(submitted.floor, ranges, submitted.forgotten, &submitted.chunks);
            }
            self.touched.insert(*partition);
        }
        let (mut back, mut again) = (Vec::new(), Vec::new());
        for run in pending.runs {
            match run.outcome {
                Outcome::Acked { token } | Outcome::Rejected { token, .. } => {
                    back.extend(self.fly_again(now, run.partition, run.range, token));
                }
                Outcome::Dead { .. } | Outcome::Dropped => again.push(run),
            }
        }
        again.into_iter().rev().for_each(|run| self.queue.push_front(run));
        for partition in pending.partitions {
            // Retention may have passed what came back; then it is lost after all.
            let log_start = std::mem::take(&mut self.partitions[partition].log_start);
            self.lost(partition_id(partition), Offset(log_start));
        }
        back
    }

    /// Puts a part that could not be settled back in flight, or lets it wait if its consumer is gone or, where order
    /// matters, is no longer the active one or something before it waits.
    fn fly_again(&mut self, now: Now, partition: usize, range: Range<u64>, token: u64) -> Option<CameBack> {
        let consumer = self.deliveries.get(&token)?.consumer;
        let part = &self.partitions[partition];
        let behind = part.waiting.first().filter(|(run, _)| self.is_ordered() && run.start < range.start);
        let place = self.place_of(consumer).filter(|place| behind.is_none() && *place < self.active());
        if let Some(place) = place {
            let events = part.events_in(&range);
            let deadline = now.after(self.options.ack_timeout_ms);
            let (holder, delivery) = (&mut self.consumers[place], self.deliveries.get_mut(&token)?);
            if delivery.events == 0 {
                holder.in_flight_bytes += delivery.bytes;
                holder.alone |= delivery.alone;
                delivery.timer = deadline;
                self.timers.insert((deadline, token));
            }
            holder.in_flight += events;
            delivery.events += events;
            self.partitions[partition].flights.insert(range.clone(), Flight { token, deadline });
        } else {
            let wait = Wait { due: behind.map_or(now.mono_ms, |(_, wait)| wait.due), by: None };
            for events in self.drop_filtered(partition, &range) {
                self.partitions[partition].waiting.add(events, wait);
            }
            self.note_waiting(partition);
        }
        self.end_settling(token);
        let (first, last) = (Offset(range.start), Offset(range.end - 1));
        Some(CameBack { consumer, partition: partition_id(partition), first, last })
    }
}

impl DeadLetter {
    /// A letter for events whose last delivery fails now.
    pub(super) fn new(
        now: Timestamp,
        partition: usize,
        range: &Range<u64>,
        history: History,
        reason: Reason,
    ) -> Self {
        let first_failure_ms = if history.attempts == 0 { now.0 } else { history.first_failure_ms };
        Self {
            partition: partition_id(partition),
            first: Offset(range.start),
            last: Offset(range.end - 1),
            attempts: history.attempts.saturating_add(1),
            reason,
            first_failure: Timestamp(first_failure_ms),
            last_failure: now,
        }
    }
}

#[cfg(test)]
impl Settle {
    pub(super) fn partition(&self) -> usize {
        self.partition
    }

    pub(super) fn range(&self) -> &Range<u64> {
        &self.range
    }
}

impl Outcome {
    fn letter(&self) -> Option<&DeadLetter> {
        match self {
            Self::Rejected { letter, .. } | Self::Dead { letter } => Some(letter),
            Self::Acked { .. } | Self::Dropped => None,
        }
    }
}

fn partition_id(partition: usize) -> PartitionId {
    PartitionId(u16::try_from(partition).expect("a topic has at most 1,024 partitions"))
}
