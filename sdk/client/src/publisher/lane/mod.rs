//! One partition of one publisher: events in, numbered batches out, answers in, in order whatever happens.
//!
//! Pure: no I/O, no clock. A batch is *open* (still taking events), then *unacked*: waiting, then sent, then
//! answered. A retryable refusal halts the lane: nothing more is sent, the answers that are still out are
//! waited for, and then everything unacked goes out again in order, so that no later batch overtakes an
//! earlier one.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use levada_protocol::{
    batch::{Batch, BatchBuilder, BatchFull, EventParts, Stamp, record_bytes},
    error::{ErrorCode, Refusal},
    event::{Event, EventTooLarge},
    ids::{Offset, PartitionId, Sequence},
    limits::{BATCH_BODY_BYTES_MAX, BATCH_EVENTS_MAX},
    publish::AckOutcome,
};

use super::{
    after_failure::AfterFailure,
    placement::Placement,
    producer_ids::{Identity, ProducerIds},
    ticket::{BatchOutcome, Stored, Ticket},
    when_full::WhenFull,
};
use crate::{clock::Instant, error::Error, retry::Backoff};

const BACKOFF_FIRST: Duration = Duration::from_millis(5);
const BACKOFF_LAST: Duration = Duration::from_secs(1);

/// What all lanes of a publisher obey.
#[derive(Debug, Clone)]
pub(super) struct LaneOptions {
    /// Bytes at which a batch is full.
    pub(super) batch_bytes: usize,
    /// How long an open batch waits to become full.
    pub(super) linger: Duration,
    /// Most batches sent and unanswered.
    pub(super) in_flight: usize,
    /// A batch that is not full goes out only while fewer than this many are unanswered.
    pub(super) in_flight_partial: usize,
    /// Age at which an event's ticket fails.
    pub(super) delivery_timeout: Duration,
    /// What becomes of a batch that the engine refuses because the topic's backlog is full.
    pub(super) when_full: WhenFull,
    /// What becomes of those behind one that failed.
    pub(super) after_failure: AfterFailure,
    /// What a batch of several events may have.
    pub(super) limits: BatchLimits,
}

/// What a batch of several events may have, beside its own limits: a topic's quota admits what fits, to the event, only of
/// batches that are no larger than the quota itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchLimits {
    events: u64,
    bytes: usize,
}

impl BatchLimits {
    /// None.
    pub(super) const NONE: Self = Self { events: u64::MAX, bytes: usize::MAX };

    /// Those of a topic whose backlog has these limits; 0 is none.
    pub(super) fn of_backlog(events: u64, bytes: u64) -> Self {
        let limit = |number: u64| if number == 0 { u64::MAX } else { number };
        Self { events: limit(events), bytes: usize::try_from(limit(bytes)).unwrap_or(usize::MAX) }
    }
}

/// A batch that was ended: tell its tickets, after the lock is released, and give its bytes back.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) outcome: Arc<BatchOutcome>,
    pub(super) result: Result<Stored, Error>,
    pub(super) bytes: usize,
}

#[derive(Debug)]
struct Unacked {
    batch: Batch,
    outcome: Arc<BatchOutcome>,
    /// What it was charged for, and gives back: its length may differ from that by a little.
    bytes: usize,
    born: Instant,
    correlation: u32,
    /// The answer of this round, if it was to try again.
    refusal: Option<Refusal>,
    /// What stood in its way last, in this round or an earlier one: its own refusal, or that of the batch whose
    /// absence made a gap. For people, and for the error when time runs out.
    cause: Option<Refusal>,
    /// Sent earlier, and whether that stored it is unknown.
    in_doubt: bool,
    placement: Placement,
    /// See [`Lane::mark_spread`].
    spread: bool,
    /// It was closed because it could go out, and not because it was full.
    partial: bool,
}

#[derive(Debug)]
struct Open {
    outcome: Arc<BatchOutcome>,
    born: Instant,
    /// By how many bytes its events have made the lane grow.
    charged: usize,
    placement: Placement,
    /// See [`Lane::mark_spread`].
    spread: bool,
}

/// See the file's head.
#[derive(Debug)]
pub(super) struct Lane {
    partition: PartitionId,
    identity: Identity,
    next_sequence: u64,
    builder: BatchBuilder,
    open: Option<Open>,
    /// The open batch need not linger any more.
    due: bool,
    unacked: VecDeque<Unacked>,
    /// How many of `unacked`, from the front, were sent in this round.
    sent: usize,
    /// How many of those were not answered.
    unanswered: usize,
    halted: bool,
    /// Nothing new goes out: this is what an event before it met.
    stopped: Option<Error>,
    retry_at: Option<Instant>,
    backoff: Backoff,
    /// True while the core's queue of lanes with a closed batch holds this one.
    pub(super) queued: bool,
    /// True while the core's queue of lanes with an open batch does.
    pub(super) queued_partial: bool,
}

impl Lane {
    pub(super) fn new(partition: PartitionId, identity: Identity) -> Self {
        Self {
            partition,
            identity,
            next_sequence: 0,
            builder: BatchBuilder::new(),
            open: None,
            due: false,
            unacked: VecDeque::new(),
            sent: 0,
            unanswered: 0,
            halted: false,
            stopped: None,
            retry_at: None,
            backoff: Backoff::new(BACKOFF_FIRST, BACKOFF_LAST),
            queued: false,
            queued_partial: false,
        }
    }

    pub(super) fn has_open_batch(&self) -> bool {
        self.open.is_some()
    }

    /// True if the open batch, of which there must be one, takes this event too.
    #[inline]
    pub(super) fn has_room_for(&self, event: &Event, lane_options: &LaneOptions) -> bool {
        let BatchLimits { events, bytes } = lane_options.limits;
        self.open.is_some()
            && self.builder.len() + record_bytes(event) <= lane_options.batch_bytes.min(bytes)
            && u64::from(self.builder.count()) < events
    }

    /// The open batch has events whose partition was the publisher's choice.
    #[inline]
    pub(super) fn mark_spread(&mut self) {
        if let Some(open) = &mut self.open {
            open.spread = true;
        }
    }

    /// Batches that were sent before they were full and are not answered.
    pub(super) fn partial_unanswered(&self) -> usize {
        let sent = self.unacked.iter().take(self.sent);
        sent.filter(|entry| entry.partial && entry.refusal.is_none()).count()
    }

    /// Batches with such events that were sent and not answered.
    pub(super) fn spread_unanswered(&self) -> usize {
        let sent = self.unacked.iter().take(self.sent);
        sent.filter(|entry| entry.spread && entry.refusal.is_none()).count()
    }

    /// Everything that was published and has not ended.
    pub(super) fn outcomes(&self) -> impl Iterator<Item = &Arc<BatchOutcome>> {
        let unacked = self.unacked.iter().map(|entry| &entry.outcome);
        unacked.chain(self.open.iter().map(|open| &open.outcome))
    }

    /// Adds an event; returns by how many bytes the lane has grown. Its ticket is [`Lane::last_ticket`].
    #[inline]
    pub(super) fn push(
        &mut self,
        (event, placement): (&Event, Placement),
        lane_options: &LaneOptions,
        now: impl FnOnce() -> Instant,
    ) -> Result<usize, Box<Error>> {
        let is_other = self.open.as_ref().is_some_and(|open| open.placement != placement);
        if is_other || self.open.is_some() && !self.has_room_for(event, lane_options) {
            self.seal();
        }
        let mut before = if self.open.is_some() { self.builder.len() } else { 0 };
        if let Err(error) = self.builder.push(event) {
            self.make_room_for(event, error)?;
            before = 0;
        }
        let outcome = || BatchOutcome::new(self.partition);
        let open = self.open.get_or_insert_with(|| Open {
            outcome: outcome(),
            born: now(),
            charged: 0,
            placement,
            spread: false,
        });
        let grown = self.builder.len() - before;
        open.charged += grown;
        Ok(grown)
    }

    /// The ticket of the event that was added last, whose batch is still open.
    #[inline]
    pub(super) fn last_ticket(&self) -> Option<Ticket> {
        let open = self.open.as_ref()?;
        Some(Ticket::new(Arc::clone(&open.outcome), self.builder.count().saturating_sub(1)))
    }

    /// Adds an event that the open batch did not take to the next one.
    #[cold]
    fn make_room_for(&mut self, event: &Event, refused: BatchFull) -> Result<(), Box<Error>> {
        let refused = match refused {
            BatchFull::Full => {
                self.seal();
                match self.builder.push(event) {
                    Ok(()) => return Ok(()),
                    Err(refused) => refused,
                }
            }
            refused => refused,
        };
        Err(Box::new(match refused {
            BatchFull::TooLarge(error) => error.into(),
            BatchFull::HeaderReserved(error) => error.into(),
            BatchFull::Full => unreachable!("an event within its limits fits an empty batch"),
        }))
    }

    /// Closes the open batch, if there is one.
    pub(super) fn seal(&mut self) {
        let Some(open) = self.open.take() else { return };
        self.due = false;
        let batch = self.builder.finish(self.stamp());
        self.next_sequence += u64::from(batch.count());
        self.unacked.push_back(Unacked {
            bytes: open.charged,
            batch,
            outcome: open.outcome,
            born: open.born,
            correlation: 0,
            refusal: None,
            cause: None,
            in_doubt: false,
            placement: open.placement,
            spread: open.spread,
            partial: false,
        });
    }

    /// Adds events as one batch of their own, to be appended only where the partition's next offset is the expected one.
    /// Returns their tickets, and by how many bytes the lane has grown.
    ///
    /// # Errors
    /// If they do not fit into one batch, or one of them fits into none; nothing was added then.
    pub(super) fn push_expecting(
        &mut self,
        events: &[Event],
        expected: Offset,
        now: Instant,
    ) -> Result<(Vec<Ticket>, usize), Box<Error>> {
        self.seal();
        for event in events {
            if let Err(full) = self.builder.push(event) {
                let bytes = self.builder.len() + record_bytes(event);
                self.builder = BatchBuilder::new();
                return Err(Box::new(match full {
                    BatchFull::Full if events.len() > BATCH_EVENTS_MAX => too_many(events.len()),
                    BatchFull::Full => Error::RequestTooLarge { bytes, max: BATCH_BODY_BYTES_MAX },
                    BatchFull::TooLarge(error) => error.into(),
                    BatchFull::HeaderReserved(error) => error.into(),
                }));
            }
        }
        let (bytes, outcome) = (self.builder.len(), BatchOutcome::new(self.partition));
        let tickets =
            (0..self.builder.count()).map(|index| Ticket::new(Arc::clone(&outcome), index)).collect();
        let placement = Placement::At(expected);
        self.open = Some(Open { outcome, born: now, charged: bytes, placement, spread: false });
        self.seal();
        Ok((tickets, bytes))
    }

    fn stamp(&self) -> Stamp {
        let Identity { producer: producer_id, epoch } = self.identity;
        Stamp { producer_id, epoch, first_sequence: Sequence(self.next_sequence) }
    }

    /// True if there is a batch that may go out now; one that is not full only if it `may_be_partial`.
    #[inline]
    pub(super) fn sendable(&self, lane_options: &LaneOptions, may_be_partial: bool) -> bool {
        if self.halted || self.retry_at.is_some() || self.unanswered >= lane_options.in_flight {
            return false;
        }
        let may_seal = self.open.is_some()
            && may_be_partial
            && self.unanswered < lane_options.in_flight_partial
            && (self.due || lane_options.linger.is_zero());
        self.sent < self.unacked.len() || may_seal
    }

    /// The next batch to send, under this number, and where it is to be appended.
    pub(super) fn send_next(
        &mut self,
        lane_options: &LaneOptions,
        may_be_partial: bool,
        correlation: u32,
    ) -> Option<(Batch, Placement)> {
        if !self.sendable(lane_options, may_be_partial) {
            return None;
        }
        let partial = self.sent == self.unacked.len();
        if partial {
            self.seal();
        }
        let entry = self.unacked.get_mut(self.sent)?;
        (entry.correlation, entry.partial) = (correlation, partial);
        self.sent += 1;
        self.unanswered += 1;
        Some((entry.batch.clone(), entry.placement))
    }

    /// The open batch's waiting time is over, or somebody flushes.
    pub(super) fn make_due(&mut self) {
        self.due = self.open.is_some();
    }

    /// When the open batch has lingered long enough.
    pub(super) fn due_at(&self, lane_options: &LaneOptions) -> Option<Instant> {
        self.open.as_ref().map(|open| open.born + lane_options.linger)
    }

    /// When to go on after a refusal, if the lane is waiting for that.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Goes on after a refusal.
    pub(super) fn retry(&mut self) {
        self.retry_at = None;
    }

    /// The engine's answer to a batch of this round. An answer to anything else changes nothing.
    pub(super) fn answer(
        &mut self,
        correlation: u32,
        outcome: AckOutcome,
        (lane_options, now): (&LaneOptions, Instant),
        producer_ids: &mut ProducerIds,
        ended: &mut Vec<Ended>,
    ) {
        let found = self
            .unacked
            .iter()
            .take(self.sent)
            .position(|entry| entry.correlation == correlation && entry.refusal.is_none());
        let Some(index) = found else { return };
        self.unanswered -= 1;
        match outcome {
            AckOutcome::Scheduled { .. } if self.unacked[index].placement.due().is_none() => {
                self.end(index, Err(Error::bad_answer("a publish without a delay was scheduled")), ended);
            }
            AckOutcome::Appended { .. } if self.unacked[index].placement.due().is_some() => {
                self.end(index, Err(Error::bad_answer("a delayed publish was appended at once")), ended);
            }
            AckOutcome::Scheduled { first, count, duplicate } => {
                self.backoff.reset();
                let whole = count == self.unacked[index].batch.count();
                let first = first.filter(|_| whole).map(Offset);
                self.end(index, Ok(Stored { base: first, duplicate, duplicates: None }), ended);
            }
            AckOutcome::Appended { base, count, duplicate, duplicates } => {
                self.backoff.reset();
                // Where events are missing without a word, nothing is known about the offsets of the others.
                let left_out = duplicates.as_ref().map_or(0, |duplicates| duplicates.count());
                let whole = count.checked_add(left_out) == Some(self.unacked[index].batch.count());
                self.end(index, Ok(Stored { base: base.filter(|_| whole), duplicate, duplicates }), ended);
            }
            AckOutcome::OffsetMismatch { next, .. } => self.end_mismatch(index, next, ended),
            // It is refused whether or not it was stored when it was sent before.
            AckOutcome::Refused(refusal) if refusal.code == ErrorCode::ProducerFenced => {
                let in_doubt = self.unacked[index].in_doubt;
                self.end(index, Err(Error::Fenced { refusal, in_doubt }), ended);
            }
            AckOutcome::Refused(refusal) if self.stopped.is_some() => {
                let follows = matches!(refusal.code, ErrorCode::SequenceGap | ErrorCode::ProducerUnknown);
                let because = self.stopped.clone().filter(|_| follows);
                let error = match because {
                    None if self.unacked[index].in_doubt => Error::lost(refusal),
                    None => refusal.into(),
                    Some(because) => because,
                };
                self.end(index, Err(error), ended);
            }
            AckOutcome::Refused(refusal) if self.fails(index, refusal.code, lane_options.when_full) => {
                self.give_sequences_back(index);
                self.end(index, Err(refusal.into()), ended);
            }
            AckOutcome::Refused(refusal) if calls_for_resend(refusal.code) => {
                let cause = if refusal.code == ErrorCode::SequenceGap { self.cause(index) } else { None };
                self.unacked[index].cause = cause.or_else(|| Some(refusal.clone()));
                self.unacked[index].refusal = Some(refusal);
                self.halted = true;
            }
            AckOutcome::Refused(refusal) => self.end(index, Err(refusal.into()), ended),
        }
        if self.halted && self.unanswered == 0 {
            self.requeue(now, producer_ids, ended);
        }
    }

    /// True if a batch's tickets are told of a full backlog at once. One that was sent on an earlier stream, too, is tried
    /// again: that copy may still be decided.
    fn fails(&self, index: usize, code: ErrorCode, when_full: WhenFull) -> bool {
        code == ErrorCode::BacklogFull && when_full == WhenFull::Fail && !self.unacked[index].in_doubt
    }

    /// Lets the next batch have the sequences of one that was refused for good, if nothing was numbered behind it. Not if it
    /// was sent on an earlier stream, too: that copy may still be decided, and what has its sequences then counts as its
    /// repeat.
    fn give_sequences_back(&mut self, index: usize) {
        let entry = &self.unacked[index];
        if index + 1 == self.unacked.len() && !entry.in_doubt {
            self.next_sequence = entry.batch.header().first_sequence;
        }
    }

    /// A batch was not appended because the partition's next offset was another one.
    fn end_mismatch(&mut self, index: usize, found: Offset, ended: &mut Vec<Ended>) {
        let expected = self.unacked[index].placement.expected().unwrap_or_default();
        self.give_sequences_back(index);
        let error = Error::OffsetMismatch { partition: self.partition, expected, found };
        self.end(index, Err(error), ended);
    }

    /// Why a batch meets a gap: one before it was refused, and that one's refusal says what is wrong.
    fn cause(&self, index: usize) -> Option<Refusal> {
        self.unacked.iter().take(index).rev().find_map(|entry| entry.cause.clone())
    }

    /// All answers of a round with a refusal are in: everything unacked goes out again.
    fn requeue(&mut self, now: Instant, producer_ids: &mut ProducerIds, ended: &mut Vec<Ended>) {
        self.halted = false;
        let head = self.unacked.front().and_then(|entry| entry.refusal.clone());
        self.begin_round();
        let Some(head) = head else { return };
        if matches!(head.code, ErrorCode::SequenceGap | ErrorCode::ProducerUnknown) {
            // The engine expects another sequence than the oldest one unacked, so it has stored none of these
            // batches: under a new identity they cannot become duplicates.
            if self.unacked.front().is_some_and(|entry| entry.batch.header().first_sequence == 0) {
                // It refuses even the beginning of an identity: trying again would go on for ever.
                self.end(0, Err(head.into()), ended);
            }
            self.begin_anew(producer_ids.fresh(), ended);
            return;
        }
        let hint = Duration::from_millis(u64::from(head.retry_after_ms.unwrap_or(0)));
        self.retry_at = Some(now + self.backoff.next().max(hint));
    }

    /// The stream is gone: what was sent and not answered is in doubt, and goes out again on the next.
    pub(super) fn disconnected(&mut self) {
        for entry in self.unacked.iter_mut().take(self.sent) {
            entry.in_doubt |= entry.refusal.is_none();
        }
        self.halted = false;
        self.retry_at = None;
        self.begin_round();
    }

    fn begin_round(&mut self) {
        for entry in self.unacked.iter_mut().take(self.sent) {
            if let Some(refusal) = entry.refusal.take() {
                entry.in_doubt |= !refusal.code.has_no_side_effects();
            }
        }
        (self.sent, self.unanswered) = (0, 0);
    }

    /// Numbers everything unacked from 0 under another identity.
    fn begin_anew(&mut self, identity: Identity, ended: &mut Vec<Ended>) {
        (self.identity, self.next_sequence) = (identity, 0);
        let mut index = 0;
        while let Some(entry) = self.unacked.get(index) {
            match stamped(&entry.batch, self.stamp()) {
                Ok(batch) => {
                    self.next_sequence += u64::from(batch.count());
                    let entry = &mut self.unacked[index];
                    (entry.batch, entry.in_doubt) = (batch, false);
                    index += 1;
                }
                Err(error) => {
                    let what = format!("a batch cannot be numbered anew: {error}");
                    self.end(index, Err(Refusal::new(ErrorCode::ProducerUnknown, what).into()), ended);
                }
            }
        }
    }

    /// What the oldest unacknowledged batch was last told, if that was to try again.
    pub(super) fn refusal(&self) -> Option<&Refusal> {
        self.unacked.front()?.cause.as_ref()
    }

    /// Fails what is older than the delivery timeout.
    ///
    /// Batches behind it that were sent and are in doubt fail too: their sequences follow on the one that is
    /// given up, and a new identity could store them twice. The rest goes on under a new identity.
    pub(super) fn expire(
        &mut self,
        lane_options: &LaneOptions,
        now: Instant,
        producer_ids: &mut ProducerIds,
        ended: &mut Vec<Ended>,
    ) {
        let too_old = |born: Instant| now.saturating_duration_since(born) >= lane_options.delivery_timeout;
        if self.open.as_ref().is_some_and(|open| too_old(open.born)) {
            self.seal();
        }
        let old = self.unacked.iter().take_while(|entry| too_old(entry.born)).count();
        if old == 0 {
            return;
        }
        let sent = self.sent;
        let open_question =
            |(index, entry): (usize, &Unacked)| entry.in_doubt || (index < sent && entry.refusal.is_none());
        let doubtful = self.unacked.iter().enumerate().filter(|entry| open_question(*entry));
        let given_up = doubtful.map(|(index, _)| index + 1).max().unwrap_or(0).max(old);
        for index in 0..given_up {
            let in_doubt = open_question((index, &self.unacked[index]));
            let entry = &mut self.unacked[index];
            let last = entry.cause.take();
            let error = Error::TimedOut { waited: lane_options.delivery_timeout, in_doubt, last };
            ended.push(Ended { outcome: entry.outcome.clone(), result: Err(error), bytes: entry.bytes });
        }
        self.unacked.drain(..given_up);
        self.sent = self.sent.saturating_sub(given_up);
        self.begin_round();
        self.halted = false;
        self.retry_at = None;
        self.begin_anew(producer_ids.fresh(), ended);
    }

    /// Fails what was not sent, or was refused for a while. What may be stored waits for its answer, and goes out again after
    /// a lost connection; but whatever is refused from now on fails as well. Where a copy may be stored all the same, the error
    /// says so.
    pub(super) fn stop(&mut self, error: &Error, ended: &mut Vec<Ended>) {
        self.seal();
        self.stopped = Some(error.clone());
        (self.halted, self.retry_at) = (false, None);
        let mut index = 0;
        while let Some(entry) = self.unacked.get(index) {
            let ended_by = match &entry.refusal {
                None if entry.in_doubt || index < self.sent => {
                    index += 1;
                    continue;
                }
                Some(refusal) if entry.in_doubt => Error::lost(refusal.clone()),
                Some(refusal) if !refusal.code.has_no_side_effects() => refusal.clone().into(),
                _ => error.clone(),
            };
            self.end(index, Err(ended_by), ended);
        }
    }

    /// Fails everything.
    pub(super) fn fail(&mut self, error: &Error, ended: &mut Vec<Ended>) {
        self.seal();
        self.disconnected();
        for entry in self.unacked.drain(..) {
            // Closing says that nothing was sent, which is not true of these.
            let in_doubt = entry.in_doubt && matches!(error, Error::Closed);
            let result = Err(if in_doubt { Error::lost(error.clone()) } else { error.clone() });
            ended.push(Ended { outcome: entry.outcome, result, bytes: entry.bytes });
        }
    }

    /// Takes a batch out.
    fn end(&mut self, index: usize, result: Result<Stored, Error>, ended: &mut Vec<Ended>) {
        if let Some(entry) = self.unacked.remove(index) {
            if index < self.sent {
                self.sent -= 1;
            }
            ended.push(Ended { outcome: entry.outcome, result, bytes: entry.bytes });
        }
    }
}

fn too_many(events: usize) -> Error {
    EventTooLarge { part: "batch", got: events, limit: BATCH_EVENTS_MAX, unit: "events" }.into()
}

/// True for refusals that are answered by sending the same events again.
fn calls_for_resend(code: ErrorCode) -> bool {
    code.is_retryable() || matches!(code, ErrorCode::SequenceGap | ErrorCode::ProducerUnknown)
}

/// The same events under another stamp.
fn stamped(batch: &Batch, stamp: Stamp) -> Result<Batch, BatchFull> {
    let mut builder = BatchBuilder::new();
    for event in batch.events() {
        let parts = EventParts {
            key: event.key(),
            payload: event.payload(),
            time: event.time(),
            id: event.id(),
            ttl_ms: event.ttl_ms(),
        };
        builder.push_parts(event.offset_delta(), &parts, event.headers())?;
    }
    Ok(builder.finish(stamp))
}

#[cfg(test)]
mod tests;
