//! What a publisher gets back: one ticket an event, all tickets of a batch on one shared outcome.
//!
//! Owns who waits for what. Must not know how the outcome came about.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    task::{Context, Poll, Waker},
};

use levada_protocol::{
    duplicates::{Duplicates, Placed},
    ids::{Offset, PartitionId},
};

use crate::error::Error;

/// Where an event was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The partition.
    pub partition: PartitionId,
    /// The event's offset; if `same_id`, that of the first event with its id. `None` if the engine no longer knows it:
    /// it stored the event long ago, and this was a resend; or its answer had no room for the offsets of all duplicates.
    pub offset: Option<Offset>,
    /// True if the event had been stored before: by an earlier send of the same batch, or under the same id.
    pub duplicate: bool,
    /// True if the event was not stored because the topic's dedup window holds one of the same id.
    pub same_id: bool,
}

/// An event on its way: a future that resolves once the event is stored as durably as was asked for.
///
/// Dropping a ticket (`drop(ticket)`) does not take the event back. Tickets may be awaited in any order.
/// Cancel safe: it may be polled on after its wait was dropped, and by another task.
#[derive(Debug)]
#[must_use = "a ticket tells whether the event was stored; drop it only if nobody needs to know"]
pub struct Ticket {
    outcome: Arc<BatchOutcome>,
    index: u32,
    /// Where the outcome keeps this ticket's waker, or [`NO_SLOT`].
    slot: u32,
}

/// The slot of a ticket that nobody has awaited. A batch has far fewer events, and no ticket has two slots.
const NO_SLOT: u32 = u32::MAX;

impl Ticket {
    #[inline]
    pub(super) fn new(outcome: Arc<BatchOutcome>, index: u32) -> Self {
        Self { outcome, index, slot: NO_SLOT }
    }

    /// How it ended, if it has.
    pub fn try_receipt(&self) -> Option<Result<Receipt, Error>> {
        let result = self.outcome.result.get()?;
        Some(result.as_ref().map_err(Error::clone).map(|stored| {
            let (offset, same_id) = stored.placed(self.index);
            let duplicate = stored.duplicate || same_id;
            Receipt { partition: self.outcome.partition, offset, duplicate, same_id }
        }))
    }
}

impl Future for Ticket {
    type Output = Result<Receipt, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(result) = this.try_receipt() {
            return Poll::Ready(result);
        }
        let mut wakers = this.outcome.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        if this.outcome.result.get().is_none() {
            match wakers.get_mut(this.slot as usize) {
                Some(waker) => waker.clone_from(context.waker()),
                None => {
                    this.slot = u32::try_from(wakers.len()).unwrap_or(NO_SLOT);
                    wakers.push(context.waker().clone());
                }
            }
            return Poll::Pending;
        }
        drop(wakers);
        this.try_receipt().map_or(Poll::Pending, Poll::Ready)
    }
}

/// What became of a whole batch.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    /// The first stored event's offset, if those of the others follow from it; of delayed events the first schedule id.
    pub(super) base: Option<Offset>,
    pub(super) duplicate: bool,
    /// The events that were not stored because of their ids.
    pub(super) duplicates: Option<Arc<Duplicates>>,
}

impl Stored {
    /// An event's offset, and whether that is the one of another event with its id.
    fn placed(&self, index: u32) -> (Option<Offset>, bool) {
        let placed = self.duplicates.as_ref().map(|duplicates| duplicates.placed(index));
        match placed.unwrap_or(Placed::Stored(index)) {
            Placed::Stored(nth) => (self.base.map(|base| base.plus(u64::from(nth))), false),
            Placed::Duplicate(first) => (first, true),
        }
    }
}

/// The outcome of one batch, shared by the tickets of its events.
#[derive(Debug)]
pub(super) struct BatchOutcome {
    partition: PartitionId,
    result: OnceLock<Result<Stored, Error>>,
    wakers: Mutex<Vec<Waker>>,
}

impl BatchOutcome {
    pub(super) fn new(partition: PartitionId) -> Arc<Self> {
        Arc::new(Self { partition, result: OnceLock::new(), wakers: Mutex::new(Vec::new()) })
    }

    /// Sets the outcome and wakes who waits for it. The first outcome stays.
    pub(super) fn settle(&self, result: Result<Stored, Error>) {
        // A ticket that registers late looks at the result again under the lock: none is forgotten.
        let _ = self.result.set(result);
        let wakers = std::mem::take(&mut *self.wakers.lock().unwrap_or_else(PoisonError::into_inner));
        for waker in wakers {
            waker.wake();
        }
    }
}
