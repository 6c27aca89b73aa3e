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
    /// Counts streams; a delivery of an earlier one can no longer be acknowledged.
    pub(super) stream: u64,
    queue: VecDeque<Incoming>,
    queued_bytes: u64,
    pub(super) outbox: Outbox,
    /// When what waits in the outbox goes out at the latest.
    due: Option<Instant>,
    /// The driver sleeps until it is woken.
    parked: bool,
    pub(super) closing: bool,
    pub(super) failed: Option<Error>,
}

impl State {
    pub(super) fn new(granted: Credit) -> Self {
        Self {
            granted,
            stream: 0,
            queue: VecDeque::new(),
            queued_bytes: 0,
            outbox: Outbox::new(),
            due: None,
            parked: false,
            closing: false,
            failed: None,
        }
    }

    /// A stream stands: nothing was delivered on it, and all credit is to be given.
    pub(super) fn attached(&mut self) {
        self.detached();
        self.stream += 1;
        self.outbox.credit = self.granted;
    }

    /// The stream is gone: what came on it and was not taken comes again on the next.
    pub(super) fn detached(&mut self) {
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
        let hurry = next.is_none() || self.owes_much();
        if hurry && !self.outbox.is_empty() {
            self.due = Some(now);
        }
        let wake = (self.parked && hurry && !self.outbox.is_empty()) || (clogged && !self.is_clogged());
        self.parked &= !wake;
        (next, wake)
    }

    fn owes_much(&self) -> bool {
        let owed = self.outbox.credit;
        owed.events >= (self.granted.events / 4).max(1) || owed.bytes >= (self.granted.bytes / 4).max(1)
    }

    /// Puts verbs and credit into the outbox; answers whether to wake the driver.
    pub(super) fn say(&mut self, verbs: Vec<Verb>, back: Credit, now: Instant) -> bool {
        let was_empty = self.outbox.is_empty();
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
            self.outbox.take(out);
        }
        self.parked = out.is_empty();
        self.due
    }
}
