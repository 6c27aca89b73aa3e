//! The attached consumers, as the owner keeps them: their frames, the verbs that are not confirmed yet, and the losses
//! that they were not told of.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use levada_protocol::{
    request::Notice,
    verbs::{RefusedVerb, Settled},
};
use tokio::sync::mpsc;

use super::lost::Untold;
use crate::{
    catalogue::SubscriptionRecord,
    error::Error,
    frames::{OutFrame, Receipt},
};

/// Refused verbs that one consumer may leave unread; more say nothing new.
const REFUSED_MAX: usize = 4_096;

/// One consumer.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) name: String,
    frames: mpsc::Sender<Result<OutFrame, Error>>,
    /// How many of its delivery frames its stream has taken.
    taken: Arc<AtomicU64>,
    notices: mpsc::Sender<Notice>,
    pub(super) untold: Untold,
    /// Verbs frames by their sequence, with the ticket that confirms them.
    unconfirmed: VecDeque<(u64, u64)>,
    refused: Vec<RefusedVerb>,
    /// The last sequence that is confirmed and not told yet.
    confirmed: Option<u64>,
}

/// All consumers by their number.
pub(super) type Consumers = BTreeMap<u64, Attached>;

impl Attached {
    pub(super) fn new(
        name: String,
        frames: mpsc::Sender<Result<OutFrame, Error>>,
        notices: mpsc::Sender<Notice>,
        untold: Untold,
    ) -> Self {
        Self {
            name,
            frames,
            taken: Arc::default(),
            notices,
            untold,
            unconfirmed: VecDeque::new(),
            refused: Vec::new(),
            confirmed: None,
        }
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
    pub(super) fn send(&self, mut frame: OutFrame) -> bool {
        frame.receipt = Some(Receipt::new(&self.taken));
        self.frames.try_send(Ok(frame)).is_ok()
    }

    /// Tells the consumer why it gets nothing more.
    pub(super) fn end(&self, error: Error) {
        // A consumer that is gone needs no reason.
        let _ = self.frames.try_send(Err(error));
    }

    /// Notes a verbs frame: it is confirmed once `ticket` is, with those before it that wait for the same.
    pub(super) fn note(&mut self, sequence: u64, ticket: u64) {
        self.unconfirmed.pop_back_if(|(_, needs)| *needs == ticket);
        self.unconfirmed.push_back((sequence, ticket));
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
        let Ok(permit) = self.frames.try_reserve() else { return };
        let settled = Settled { sequence, refused: std::mem::take(&mut self.refused) };
        permit.send(Ok(OutFrame { chunks: vec![settled.frame()], receipt: None }));
        self.confirmed = None;
    }
}
