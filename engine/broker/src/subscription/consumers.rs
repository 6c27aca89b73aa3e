//! The attached consumers, as the owner keeps them: their frames, the verbs that are not confirmed yet, and the losses
//! that they were not told of.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use levada_protocol::{
    request::Notice,
    verbs::{RefusedVerb, Settled},
};
use tokio::sync::mpsc;

use super::lost::Untold;
use crate::{
    error::Error,
    outbound::{Held, Window},
    outgoing::{Content, Outgoing, Receipt},
    rows::SubscriptionRecord,
};

/// Refused verbs that one consumer may leave unread; more say nothing new.
const REFUSED_MAX: usize = 4_096;
/// Bytes of a `Settled` frame up to which it is not counted as unread.
const SETTLED_SMALL: usize = 1_024;

/// One consumer.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) name: String,
    outgoing: mpsc::Sender<Result<Outgoing, Error>>,
    /// How many of its delivery frames its stream has taken.
    taken: Arc<AtomicU64>,
    notices: mpsc::Sender<Notice>,
    pub(super) untold: Untold,
    /// Verbs frames by their sequence, with the ticket that confirms them.
    unconfirmed: VecDeque<(u64, u64)>,
    refused: Vec<RefusedVerb>,
    /// The last sequence that is confirmed and not told yet.
    confirmed: Option<u64>,
    /// What its stream may leave untaken.
    pub(super) window: Arc<Window>,
    /// Room that it waited for and has now, until the end of the turn.
    pub(super) room: Option<Held>,
    /// It waits for room.
    full: bool,
    /// What it waited for last; 0 once it got a frame.
    pub(super) waited_for: usize,
    /// Its stream takes nothing.
    stuck: bool,
    /// It gets nothing more, and ends once nothing of it is under way.
    pub(super) finishing: bool,
}

/// All consumers by their number.
pub(super) type Consumers = BTreeMap<u64, Attached>;

impl Attached {
    pub(super) fn new(
        name: String,
        outgoing: mpsc::Sender<Result<Outgoing, Error>>,
        notices: mpsc::Sender<Notice>,
        untold: Untold,
        window: Arc<Window>,
    ) -> Self {
        Self {
            name,
            outgoing,
            taken: Arc::default(),
            notices,
            untold,
            unconfirmed: VecDeque::new(),
            refused: Vec::new(),
            confirmed: None,
            window,
            room: None,
            full: false,
            waited_for: 0,
            stuck: false,
            finishing: false,
        }
    }

    /// True if it is to get nothing for now.
    pub(super) fn is_held(&self) -> bool {
        self.full || self.stuck || self.finishing
    }

    /// It waits until so many bytes may be untaken.
    pub(super) fn wait_for_room(&mut self, bytes: usize) {
        self.full = true;
        self.waited_for = bytes;
        self.window.want(bytes);
    }

    /// It has room again.
    pub(super) fn found_room(&mut self, held: Held) {
        self.full = false;
        self.room = Some(held);
    }

    /// Looks whether its stream has taken nothing for so long; true if that has changed.
    pub(super) fn look(&mut self, stuck_after: Duration) -> bool {
        let stuck = self.window.is_stuck(stuck_after);
        std::mem::replace(&mut self.stuck, stuck) != stuck
    }

    /// Tells of losses.
    pub(super) fn tell_losses(&mut self, record: &SubscriptionRecord) {
        self.untold.tell(record, &self.notices);
    }

    /// How many of its deliveries its stream has taken, in the order in which they were made.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Acquire)
    }

    /// Hands a delivery to the consumer's stream; false if the consumer is gone or has stopped taking frames that it
    /// gave credit for.
    pub(super) fn send(&mut self, delivery: Outgoing) -> bool {
        self.waited_for = 0;
        let delivery = delivery.with_receipt(Receipt::new(&self.taken));
        self.outgoing.try_send(Ok(delivery)).is_ok()
    }

    /// Tells the consumer why it gets nothing more.
    pub(super) fn end(&self, error: Error) {
        // A consumer that is gone needs no reason.
        let _ = self.outgoing.try_send(Err(error));
    }

    /// Notes a verbs frame: it is confirmed once `ticket` is, with those before it that wait for the same.
    pub(super) fn note(&mut self, sequence: u64, ticket: u64) {
        self.unconfirmed.pop_back_if(|(_, needs)| *needs == ticket);
        self.unconfirmed.push_back((sequence, ticket));
    }

    /// True if every verb is confirmed, and that was told.
    pub(super) fn is_confirmed(&self) -> bool {
        self.unconfirmed.is_empty() && self.confirmed.is_none()
    }

    /// Notes a verb that took no effect.
    pub(super) fn refuse(&mut self, refused: RefusedVerb) {
        if self.refused.len() < REFUSED_MAX {
            self.refused.push(refused);
        }
    }

    /// Tells what is confirmed up to `ticket`; what cannot be told now is told with the next.
    pub(super) fn confirm(&mut self, ticket: u64) {
        while let Some((sequence, _)) = self.unconfirmed.pop_front_if(|(_, needs)| *needs <= ticket) {
            self.confirmed = Some(sequence);
        }
        let Some(sequence) = self.confirmed else { return };
        let Ok(permit) = self.outgoing.try_reserve() else { return };
        let settled = Settled { sequence, refused: std::mem::take(&mut self.refused) };
        let len = settled.frame_len();
        let held = if len > SETTLED_SMALL {
            let Some(held) = self.room.take().or_else(|| self.window.try_hold(len)) else {
                self.refused = settled.refused;
                self.window.want(len);
                return;
            };
            Some(held)
        } else {
            None
        };
        let outgoing = Outgoing::new(Content::Settled(settled));
        permit.send(Ok(match held {
            Some(held) => outgoing.counted(held),
            None => outgoing,
        }));
        self.confirmed = None;
    }
}
