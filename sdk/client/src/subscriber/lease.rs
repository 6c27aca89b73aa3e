//! The claim of a delivery, and of the events taken from it, on what is kept for it.
//!
//! Owns nothing but the name; the account is in `held.rs`.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use levada_protocol::{
    ids::{DeliveryToken, Offset, PartitionId},
    verbs::{Verb, VerbKind},
};

use super::{Of, Shared, held::HeldId};
use crate::clock::Instant;

/// Held by a delivery and the events taken from it; with the last of them the delivery is kept no more.
#[derive(Debug)]
pub(crate) struct Lease {
    shared: Arc<Shared>,
    /// The stream that the delivery came on: on another its token means nothing.
    stream: u64,
    id: HeldId,
    /// The application took all of it; otherwise it takes event by event.
    all_at_once: AtomicBool,
}

impl Lease {
    pub(super) fn new(shared: Arc<Shared>, stream: u64, id: HeldId, all_at_once: bool) -> Self {
        Self { shared, stream, id, all_at_once: AtomicBool::new(all_at_once) }
    }

    /// The application takes one more event. False if it must not: the process stood still for too long, or the
    /// connection was lost, and another consumer gets it.
    pub(crate) fn take_event(&self) -> bool {
        self.shared.take_events(self.stream, self.id, 1)
    }

    /// The application takes all the events that it has not taken yet. False as for one.
    pub(crate) fn take_rest(&self, events: u64) -> bool {
        self.all_at_once.store(true, Ordering::Relaxed);
        self.shared.take_events(self.stream, self.id, events)
    }

    /// When all of it should be handed out at the latest.
    pub(super) fn hand_out_at(&self) -> Option<Instant> {
        self.shared.lock().held.hand_out_at(self.id)
    }

    /// The events of a range are not handed to the application.
    pub(crate) fn skip(&self, range: (Offset, Offset), events: u64) {
        self.shared.say(self.stream, false, |state, now| {
            let mut events = Some(events);
            let freed = state.held.say(self.id, range, true, now, |_, _, _| events.take().unwrap_or(0));
            state.pace.skipped(freed.events);
            state.said(freed.bytes, now)
        });
    }

    /// Sends a verb about the events of `range` that were not settled before; `count` returns the number of events
    /// between two offsets.
    pub(crate) fn say(
        &self,
        range: (Offset, Offset),
        kind: &VerbKind,
        mut count: impl FnMut(Offset, Offset) -> u64,
    ) {
        let last_word = *kind != VerbKind::InProgress;
        self.shared.say(self.stream, last_word, |state, now| {
            let outbox = &mut state.outbox;
            let freed = state.held.say(self.id, range, last_word, now, |names, first, last| {
                let (partition, token) = (names.partition, names.token);
                let events = count(first, last);
                // The engine refuses a verb about offsets that hold no event of the delivery.
                if events > 0 {
                    outbox.push(Verb { kind: kind.clone(), partition, token, first, last });
                }
                events
            });
            state.pace.settled(freed.events);
            state.said(freed.bytes, now)
        });
    }

    /// The application has its own copy of one more event. False if that was settled or set aside before, or was lost with its
    /// connection.
    pub(crate) fn set_aside(&self, offset: Offset) -> bool {
        let mut is_open = false;
        self.shared.say(self.stream, false, |state, now| {
            let freed = state.held.set_aside(self.id, offset);
            is_open = freed.is_some();
            state.said(freed.unwrap_or(0), now)
        });
        is_open
    }

    /// Which subscription the delivery is of.
    pub(crate) fn of(&self) -> &Of {
        &self.shared.of
    }

    /// How the engine knows the delivery; `None` if it cannot be acknowledged any more.
    pub(crate) fn names(&self) -> Option<(PartitionId, DeliveryToken)> {
        let state = self.shared.lock();
        let is_current = state.stream == self.stream && state.failed.is_none();
        is_current.then(|| state.held.names(self.id)).flatten()
    }

    /// The events of `range` that were not settled before are: a transaction has acknowledged them.
    pub(crate) fn settle(&self, range: (Offset, Offset), mut count: impl FnMut(Offset, Offset) -> u64) {
        self.shared.say(self.stream, false, |state, now| {
            let freed = state.held.say(self.id, range, true, now, |_, first, last| count(first, last));
            state.pace.settled(freed.events);
            state.said(freed.bytes, now)
        });
    }

    /// There will be no verb for an event: it is no longer extended and holds no credit; the engine counts it as in
    /// flight until its timeout.
    pub(crate) fn drop_event(&self, range: (Offset, Offset)) {
        self.shared.say(self.stream, false, |state, now| {
            let freed = state.held.say(self.id, range, true, now, |_, _, _| 1);
            state.pace.dropped(freed.events);
            state.said(freed.bytes, now)
        });
    }
}

/// As [`Lease::drop_event`], for all events that were not settled.
impl Drop for Lease {
    fn drop(&mut self) {
        let all_at_once = *self.all_at_once.get_mut();
        self.shared.say(self.stream, false, |state, now| {
            let freed = state.held.release(self.id);
            if all_at_once {
                state.pace.dropped(freed.events);
            } else {
                // Each event that was taken has said its last word: these were not.
                state.pace.skipped(freed.events);
            }
            state.said(freed.bytes, now)
        });
    }
}
