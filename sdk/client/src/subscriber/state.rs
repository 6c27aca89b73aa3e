//! A subscriber's state: deliveries that came and were not taken, and what is to be said.
//!
//! Owns who is woken when. Must not know streams; time is an argument.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use levada_protocol::{
    limits::FRAME_BYTES_MAX,
    verbs::{Credit, Verb},
};

use super::outbox::Outbox;
use crate::{clock::Instant, delivery::Incoming, error::Error};

/// How long a verb waits for others, if the program does not ask for more deliveries meanwhile.
const GATHER: Duration = Duration::from_millis(1);
/// So many waiting verbs go out at once.
const VERBS_ENOUGH: usize = 256;

#[derive(Debug)]
pub(super) struct State {
    granted: Credit,
    /// So many events at most are delivered and not settled, as far as this side knows.
    in_flight_max: u64,
    /// Counts streams; a delivery of an earlier one can no longer be acknowledged.
    pub(super) stream: u64,
    queue: VecDeque<Incoming>,
    queued_bytes: u64,
    pub(super) outbox: Outbox,
    /// What was said last was about a delivery of an earlier stream, and so without effect.
    pub(super) last_word_lost: bool,
    /// When what waits in the outbox goes out at the latest.
    due: Option<Instant>,
    /// When something went out last.
    sent: Option<Instant>,
    /// The driver sleeps until it is woken.
    parked: bool,
    pub(super) closing: bool,
    pub(super) failed: Option<Error>,
    /// Why there is no stream, while there is none.
    pub(super) interruption: Option<Error>,
}

impl State {
    pub(super) fn new(granted: Credit, in_flight_max: u64) -> Self {
        Self {
            granted,
            in_flight_max: in_flight_max.min(granted.events),
            stream: 0,
            queue: VecDeque::new(),
            queued_bytes: 0,
            outbox: Outbox::new(),
            last_word_lost: false,
            due: None,
            sent: None,
            parked: false,
            closing: false,
            failed: None,
            interruption: None,
        }
    }

    /// A stream stands: nothing was delivered on it, and all credit is to be given.
    pub(super) fn attached(&mut self) {
        self.forget();
        self.stream += 1;
        self.outbox.credit = self.granted;
        self.interruption = None;
    }

    /// The stream is gone: what came on it and was not taken comes again on the next.
    pub(super) fn detached(&mut self, why: Error) {
        self.forget();
        self.interruption = Some(why);
    }

    fn forget(&mut self) {
        self.queue.clear();
        self.queued_bytes = 0;
        self.outbox.lose();
        self.due = None;
        self.parked = false;
    }

    pub(super) fn arrived(&mut self, incoming: Incoming) {
        self.queued_bytes += incoming.bytes;
        self.queue.push_back(incoming);
    }

    /// True if more lies here than the credit allows: the engine has to wait until some of it was taken.
    pub(super) fn is_clogged(&self) -> bool {
        let one_frame = u64::try_from(FRAME_BYTES_MAX).expect("a constant fits 64 bits");
        self.queued_bytes > self.granted.bytes.saturating_add(one_frame)
    }

    /// The next delivery, and whether to wake the driver: the program comes back for more, so what it said
    /// meanwhile goes out, unless more is at hand and the engine has plenty of credit left.
    pub(super) fn take(&mut self, now: Instant) -> (Option<Incoming>, bool) {
        let clogged = self.is_clogged();
        let next = self.queue.pop_front();
        if let Some(next) = &next {
            self.queued_bytes -= next.bytes;
        }
        let hurry = self.owes_much() || (next.is_none() && self.is_rested(now));
        if hurry && !self.outbox.is_empty() {
            self.due = Some(now);
        }
        let wake = (self.parked && hurry && !self.outbox.is_empty()) || (clogged && !self.is_clogged());
        self.parked &= !wake;
        (next, wake)
    }

    /// True if nothing went out lately: a lone verb need not wait, and of many not each costs a packet.
    fn is_rested(&self, now: Instant) -> bool {
        self.sent.is_none_or(|sent| now >= sent + GATHER)
    }

    fn owes_much(&self) -> bool {
        let owed = self.outbox.credit;
        owed.events >= (self.in_flight_max / 4).max(1) || owed.bytes >= (self.granted.bytes / 4).max(1)
    }

    /// Puts verbs and credit into the outbox; answers whether to wake the driver.
    pub(super) fn say(&mut self, verbs: Vec<Verb>, back: Credit, now: Instant) -> bool {
        let was_empty = self.outbox.is_empty();
        self.last_word_lost &= verbs.is_empty();
        for verb in verbs {
            self.outbox.push(verb);
        }
        self.outbox.credit.events += back.events;
        self.outbox.credit.bytes += back.bytes;
        let full = self.outbox.waiting() >= VERBS_ENOUGH;
        if full {
            self.due = Some(now);
        } else if was_empty {
            self.due = Some(now + GATHER);
        }
        let wake = self.parked && (was_empty || full);
        self.parked &= !wake;
        wake
    }

    /// What waits goes out now; answers whether to wake the driver.
    pub(super) fn hurry(&mut self, now: Instant) -> bool {
        self.due = Some(now);
        std::mem::take(&mut self.parked)
    }

    /// Takes what is due; with nothing to send, the driver counts as asleep from here on. Answers when to
    /// come back.
    pub(super) fn turn(&mut self, now: Instant, out: &mut Vec<Bytes>) -> Option<Instant> {
        if self.due.is_some_and(|due| due <= now) {
            self.due = None;
            self.sent = Some(now);
            self.outbox.take(out);
        }
        self.parked = out.is_empty();
        self.due
    }
}
