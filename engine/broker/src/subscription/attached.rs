//! An attached consumer, as the owner keeps it: its frames and their room, the verbs that are not confirmed yet, and the
//! losses that it was not told of.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use levada_delivery::subscription::Wanted;
use levada_protocol::{
    ids::{Offset, PartitionId},
    verbs::RefusedVerb,
};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{refusals::Refusals, untold::Untold};
use crate::{
    error::Error,
    frames::DELIVER_BYTES_TARGET,
    outbound::{Held, Window},
    outgoing::{Content, Outgoing, Receipt},
    rows::SubscriptionRecord,
};

/// Bytes of a `Settled` frame up to which it is not counted as unread.
const SETTLED_SMALL: usize = 1_024;
/// A frame is not made for less room than this, unless it needs less.
const ROOM_MIN: usize = 16 * 1024;
/// What a consumer without room waits for, unless it wants less.
const ROOM_WAITED: usize = 64 * 1024;

/// One consumer.
#[derive(Debug)]
pub(super) struct Attached {
    name: String,
    outgoing: mpsc::Sender<Result<Outgoing, Error>>,
    /// How many of its delivery frames its stream has taken.
    taken: Arc<AtomicU64>,
    untold: Untold,
    /// Verbs frames, in order.
    unconfirmed: VecDeque<Unconfirmed>,
    refusals: Refusals,
    /// The last frame that is confirmed and not told yet.
    confirmed: Option<Confirmed>,
    /// What its stream may leave untaken.
    window: Arc<Window>,
    room: Room,
    /// Its stream takes nothing.
    stuck: bool,
    /// It gets nothing more, and ends once nothing of it is under way.
    finish: Option<Finish>,
}

/// Why a consumer gets nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finish {
    /// It has what it wanted.
    Sufficed,
    /// The engine goes away: it is told so, and comes back.
    SentAway,
}

/// Verbs frames that one ticket confirms: the sequence of the last, and what they take of the verbs that may be unconfirmed.
#[derive(Debug)]
struct Unconfirmed {
    ticket: u64,
    sequence: u64,
    verbs: OwnedSemaphorePermit,
}

/// The same once they are confirmed.
#[derive(Debug)]
struct Confirmed {
    sequence: u64,
    verbs: OwnedSemaphorePermit,
}

/// Whether a consumer waits for room for a frame.
#[derive(Debug, Default)]
struct Room {
    /// Room that it waited for and has now, until the end of the turn.
    found: Option<Held>,
    waits: bool,
    /// What it waited for last; 0 once it got a frame.
    waited_for: usize,
}

impl Attached {
    pub(super) fn new(
        name: String,
        outgoing: mpsc::Sender<Result<Outgoing, Error>>,
        untold: Untold,
        window: Arc<Window>,
    ) -> Self {
        Self {
            name,
            outgoing,
            taken: Arc::default(),
            untold,
            unconfirmed: VecDeque::new(),
            refusals: Refusals::default(),
            confirmed: None,
            window,
            room: Room::default(),
            stuck: false,
            finish: None,
        }
    }

    /// True if it is to get nothing for now.
    pub(super) fn is_held(&self) -> bool {
        self.room.waits || self.stuck || self.finish.is_some()
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// It gets nothing more, and ends once nothing of it is under way.
    pub(super) fn finish(&mut self, finish: Finish) {
        self.finish = Some(finish);
    }

    /// True if it was told to end, as the engine goes away.
    pub(super) fn is_sent_away(&self) -> bool {
        self.finish == Some(Finish::SentAway)
    }

    /// True if it is to end and every verb is confirmed.
    pub(super) fn may_end(&self) -> bool {
        self.finish.is_some() && self.unconfirmed.is_empty() && self.confirmed.is_none()
    }

    /// Bytes that its next frame may have, set aside; `None` if it has to wait for them.
    pub(super) fn take_room(&mut self, wanted: Wanted) -> Option<Held> {
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let (least, most) = (bytes(wanted.least), bytes(wanted.most).min(DELIVER_BYTES_TARGET));
        let held = match self.room.found.take() {
            Some(held) => held,
            None => {
                let bytes = most.min(self.window.room()).max(most.min(ROOM_MIN));
                let Some(held) = self.window.try_hold(bytes) else {
                    self.wait_for_room(most.min(ROOM_WAITED));
                    return None;
                };
                held
            }
        };
        self.enlarge(held, least)
    }

    /// The same bytes, or more if the smallest delivery needs them; `None` if it has to wait for those.
    fn enlarge(&mut self, mut held: Held, least: usize) -> Option<Held> {
        let Some(more) = least.checked_sub(held.bytes()).filter(|more| *more > 0) else { return Some(held) };
        match self.window.try_hold(more) {
            Some(more) => held.merge(more),
            // It has waited for so much and got all that there can be.
            None if self.room.waited_for >= least => {}
            None => {
                drop(held);
                // All of the window, if nothing is untaken.
                let all = self.window.try_hold(least);
                if all.is_none() {
                    self.wait_for_room(least);
                }
                return all;
            }
        }
        Some(held)
    }

    /// Gives back room that was not used.
    pub(super) fn leave_room(&mut self) {
        self.room.found = None;
    }

    /// It waits until so many bytes may be untaken.
    fn wait_for_room(&mut self, bytes: usize) {
        self.room.waits = true;
        self.room.waited_for = bytes;
        self.window.want(bytes);
    }

    /// It has room again.
    pub(super) fn found_room(&mut self, held: Held) {
        self.room.waits = false;
        self.room.found = Some(held);
    }

    /// Notes whether its stream has taken nothing for so long; true if that has changed.
    pub(super) fn refresh(&mut self, stuck_after: Duration) -> bool {
        let stuck = self.window.is_stuck(stuck_after);
        std::mem::replace(&mut self.stuck, stuck) != stuck
    }

    /// Adds a loss to be told.
    pub(super) fn add_loss(&mut self, partition: PartitionId, range: (Offset, Offset)) {
        self.untold.add(partition, range);
    }

    /// Tells of losses.
    pub(super) fn tell_losses(&mut self, record: &SubscriptionRecord) {
        self.untold.tell(record);
    }

    /// How many of its deliveries its stream has taken, in the order in which they were made.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Acquire)
    }

    /// Hands a delivery to the consumer's stream; false if the consumer is gone or has stopped taking frames that it
    /// gave credit for.
    pub(super) fn send(&mut self, delivery: Outgoing) -> bool {
        self.room.waited_for = 0;
        let delivery = delivery.with_receipt(Receipt::new(&self.taken));
        self.outgoing.try_send(Ok(delivery)).is_ok()
    }

    /// Tells the consumer why it gets nothing more.
    pub(super) fn end(&self, error: Error) {
        // A consumer that is gone needs no reason.
        let _ = self.outgoing.try_send(Err(error));
    }

    /// Notes a verbs frame: it is confirmed once `ticket` is, with those before it that wait for the same. What it takes of the
    /// verbs that may be unconfirmed is given back once the consumer was told.
    pub(super) fn note(&mut self, sequence: u64, ticket: u64, mut verbs: OwnedSemaphorePermit) {
        if let Some(last) = self.unconfirmed.pop_back_if(|last| last.ticket == ticket) {
            verbs.merge(last.verbs);
        }
        self.unconfirmed.push_back(Unconfirmed { ticket, sequence, verbs });
    }

    /// Notes a verb of the frame that is noted next, which took no effect.
    pub(super) fn refuse(&mut self, sequence: u64, refused: RefusedVerb) {
        self.refusals.add(sequence, refused);
    }

    /// Notes a verb that took no effect after all.
    pub(super) fn refuse_earlier(&mut self, refused: RefusedVerb) {
        self.refusals.add_earlier(refused);
    }

    /// True if it could not be told of all that is confirmed.
    pub(super) fn has_untold_verbs(&self) -> bool {
        self.confirmed.is_some()
    }

    /// Tells what is confirmed up to `ticket`; what cannot be told now is told with the next.
    pub(super) fn confirm(&mut self, ticket: u64) {
        while let Some(Unconfirmed { sequence, mut verbs, .. }) =
            self.unconfirmed.pop_front_if(|first| first.ticket <= ticket)
        {
            if let Some(before) = self.confirmed.take() {
                verbs.merge(before.verbs);
            }
            self.confirmed = Some(Confirmed { sequence, verbs });
        }
        while let Some(Confirmed { sequence, .. }) = &self.confirmed {
            let Ok(permit) = self.outgoing.try_reserve() else { return };
            let len = self.refusals.next_len();
            let held = if len > SETTLED_SMALL {
                let Some(held) = self.room.found.take().or_else(|| self.window.try_hold(len)) else {
                    self.window.want(len);
                    return;
                };
                Some(held)
            } else {
                None
            };
            let settled = self.refusals.next(*sequence);
            if settled.sequence == *sequence {
                self.confirmed = None;
            }
            let outgoing = Outgoing::new(Content::Settled(settled));
            permit.send(Ok(match held {
                Some(held) => outgoing.counted(held),
                None => outgoing,
            }));
        }
    }
}
