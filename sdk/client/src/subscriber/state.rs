//! A subscriber's state: deliveries that were received and not taken, and verbs to send.
//!
//! Decides when the driver is woken. Must not know streams; time is an argument.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use levada_protocol::{ids::Offset, limits::FRAME_BYTES_MAX, verbs::Credit};

use super::{
    held::{Held, HeldId, Names},
    outbox::Outbox,
    pace::Pace,
};
use crate::{clock::Instant, delivery::Incoming, error::Error};

/// How long a verb waits for others, if the program does not ask for more deliveries meanwhile.
const GATHER: Duration = Duration::from_millis(1);
/// A driver that was not run for this long is late.
const LATE: Duration = Duration::from_millis(50);
/// Queued verbs of this number are sent at once.
const VERBS_ENOUGH: usize = 256;

/// What is to become of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Keep,
    /// It ends, and another takes its place: what was delivered on it and not settled comes again.
    Replace,
    /// It ends for good, after what is queued was sent.
    Close,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) pace: Pace,
    pub(super) held: Held,
    /// Most bytes that are delivered and not settled, give or take a frame.
    bytes_max: u64,
    /// Bytes to grant.
    bytes_to_grant: u64,
    /// Counts streams and the times between them; a delivery of an earlier one can no longer be acknowledged.
    pub(super) stream: u64,
    queue: VecDeque<(HeldId, Incoming)>,
    queued_bytes: u64,
    pub(super) outbox: Outbox,
    /// When queued verbs are sent at the latest.
    due: Option<Instant>,
    /// When something was sent last.
    sent: Option<Instant>,
    /// The driver sleeps until it is woken.
    asleep: bool,
    pub(super) wish: Wish,
    pub(super) failed: Option<Error>,
    /// Why there is no stream, while there is none.
    pub(super) interruption: Option<Error>,
}

impl State {
    pub(super) fn new(pace: Pace, held: Held, bytes_max: u64) -> Self {
        Self {
            pace,
            held,
            bytes_max,
            bytes_to_grant: 0,
            stream: 0,
            queue: VecDeque::new(),
            queued_bytes: 0,
            outbox: Outbox::new(),
            due: None,
            sent: None,
            asleep: false,
            wish: Wish::Keep,
            failed: None,
            interruption: None,
        }
    }

    /// A stream was opened: nothing was delivered on it, and all credit is to be given.
    pub(super) fn attached(&mut self, ack_timeout: Duration) {
        self.forget();
        if self.wish == Wish::Replace {
            self.wish = Wish::Keep;
        }
        self.held.keep_within(ack_timeout);
        self.pace.attached();
        self.bytes_to_grant = self.bytes_max;
        self.interruption = None;
    }

    /// The stream is gone: deliveries that were not taken are received again on the next one, and later verbs about
    /// those that were taken have no effect.
    pub(super) fn detached(&mut self, why: Option<Error>) {
        self.forget();
        self.interruption = why;
    }

    /// The stream is to be replaced: from now on as if it were gone.
    pub(super) fn rewind(&mut self) {
        self.forget();
        self.wish = Wish::Replace;
    }

    fn forget(&mut self) {
        self.stream += 1;
        self.queue.clear();
        self.queued_bytes = 0;
        self.outbox.lose();
        self.held.clear();
        self.bytes_to_grant = 0;
        self.due = None;
        self.asleep = false;
    }

    pub(super) fn arrived(&mut self, incoming: Incoming, now: Instant) {
        if self.wish == Wish::Replace {
            // It comes again on the next stream.
            return;
        }
        let events = u64::from(incoming.header.count);
        let Some((first, next)) = incoming.span() else {
            // Nothing to hand out.
            self.bytes_to_grant += incoming.bytes;
            return;
        };
        let (partition, token) = (incoming.header.partition, incoming.header.token);
        let last = Offset(next.0.saturating_sub(1).max(first.0));
        let names = Names { partition, token, first, last };
        let id = self.held.arrived(names, events, incoming.bytes, now);
        self.pace.arrived(events);
        self.queued_bytes += incoming.bytes;
        self.queue.push_back((id, incoming));
    }

    /// True if more is queued than the credit allows: reading stops until some of it was taken.
    pub(super) fn is_over_limit(&self) -> bool {
        let one_frame = u64::try_from(FRAME_BYTES_MAX).expect("a constant fits 64 bits");
        self.queued_bytes > self.bytes_max.saturating_add(one_frame)
    }

    /// Drops what was lost while the process stood still, or did not ask for it.
    pub(super) fn drop_lost(&mut self, now: Instant) {
        let queue = std::mem::take(&mut self.queue);
        for (id, incoming) in queue {
            if !self.held.is_lost(id, now) {
                self.queue.push_back((id, incoming));
                continue;
            }
            self.queued_bytes -= incoming.bytes;
            let freed = self.held.release(id);
            self.pace.skipped(freed.events);
            self.bytes_to_grant += freed.bytes;
        }
    }

    /// Events of the next delivery.
    pub(super) fn next_events(&self) -> Option<u64> {
        self.queue.front().map(|(_, incoming)| u64::from(incoming.header.count))
    }

    /// True if there is as much as a pull waits for, `held` bytes of which it has already, or nothing more comes before something
    /// is settled.
    pub(super) fn is_enough(&self, events: u64, bytes: u64, held: u64) -> bool {
        let queued = self.pace.queued();
        queued >= events
            || self.queued_bytes >= bytes.min(self.bytes_max).saturating_sub(held)
            || (queued > 0 && self.pace.is_spent())
            || self.failed.is_some()
    }

    /// When the delivery that came first must be handed out.
    pub(super) fn hand_out_at(&self) -> Option<Instant> {
        self.queue.front().and_then(|(id, _)| self.held.hand_out_at(*id))
    }

    /// The next delivery that was not lost while the process stood still.
    pub(super) fn take(&mut self, now: Instant) -> Option<(HeldId, Incoming)> {
        while let Some((id, next)) = self.queue.pop_front() {
            self.queued_bytes -= next.bytes;
            if self.held.take(id, now) {
                return Some((id, next));
            }
            let freed = self.held.release(id);
            self.pace.skipped(freed.events);
            self.bytes_to_grant += freed.bytes;
        }
        None
    }

    /// After a take, `found` or not: whether to wake the driver. The program asks for more, so its verbs
    /// are sent, unless more is queued and the engine has plenty of credit left.
    pub(super) fn took(&mut self, found: bool, was_over_limit: bool, now: Instant) -> bool {
        let flush = self.has_much_credit() || (!found && self.is_rested(now));
        if flush && self.has_anything_to_send() {
            self.due = Some(now);
        }
        let wake = (self.asleep && flush && self.has_anything_to_send())
            || (was_over_limit && !self.is_over_limit());
        self.asleep &= !wake;
        wake
    }

    /// True if the driver did not get its turn when it was due: a program that never waits must leave it one.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due + LATE < now) || self.held.due_at().is_some_and(|at| at < now)
    }

    /// True if nothing was sent lately: a lone verb need not wait, and many share a packet.
    fn is_rested(&self, now: Instant) -> bool {
        self.sent.is_none_or(|sent| now >= sent + GATHER)
    }

    fn has_much_credit(&self) -> bool {
        self.pace.to_request() >= self.pace.worth_a_frame()
            || self.bytes_to_grant >= (self.bytes_max / 4).max(1)
    }

    /// True if there is anything to send.
    pub(super) fn has_anything_to_send(&self) -> bool {
        !self.outbox.is_empty() || self.bytes_to_grant > 0 || self.pace.to_request() > 0
    }

    /// Verbs were queued, or bytes of the credit are free again; returns whether to wake the driver.
    pub(super) fn said(&mut self, bytes: u64, now: Instant) -> bool {
        self.bytes_to_grant += bytes;
        let full = self.outbox.waiting() >= VERBS_ENOUGH;
        let fresh = self.due.is_none() && self.has_anything_to_send();
        if full {
            self.due = Some(now);
        } else if fresh {
            self.due = Some(now + GATHER);
        }
        let wake = self.asleep && (fresh || full);
        self.asleep &= !wake;
        wake
    }

    /// Sends what is queued now; returns whether to wake the driver.
    pub(super) fn flush(&mut self, now: Instant) -> bool {
        self.due = Some(now);
        std::mem::take(&mut self.asleep)
    }

    /// Takes the frames that are due; if there are none, marks the driver asleep. Returns when to
    /// come back.
    pub(super) fn turn(&mut self, now: Instant, out: &mut Vec<Bytes>) -> Option<Instant> {
        let outbox = &mut self.outbox;
        let waiting = outbox.waiting();
        self.held.extend(now, |verb| outbox.keep(verb));
        if outbox.waiting() > waiting || self.due.is_some_and(|due| due <= now) {
            self.due = None;
            self.sent = Some(now);
            self.outbox.take(out);
            let credit = Credit { events: self.pace.to_request(), bytes: self.bytes_to_grant };
            if credit.events > 0 || credit.bytes > 0 {
                self.pace.ask(credit.events);
                self.bytes_to_grant = 0;
                out.push(credit.frame());
            }
        }
        self.asleep = out.is_empty();
        self.next_due()
    }

    fn next_due(&self) -> Option<Instant> {
        [self.due, self.held.due_at()].into_iter().flatten().min()
    }
}
