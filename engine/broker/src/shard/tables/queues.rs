//! The queues of subscriptions: what was redriven to one of them alone. The rows hold the events; the writer keeps where each
//! queue ends, so that no number is given twice.

use std::{collections::HashMap, ops::Range};

use levada_protocol::ids::{Offset, SubscriptionId};
use levada_store::Store;

use crate::{
    error::Error,
    rows::{self, QueueEnd, QueuedEvent, Row},
    shard::{announcement::Announcement, draft::Draft},
};

/// The ends of the queues to which anything was ever redriven.
#[derive(Debug, Default)]
pub(in crate::shard) struct Queues(HashMap<SubscriptionId, u64>);

impl Queues {
    /// Reads where the queues end. Blocks on the disk.
    pub(super) fn load(store: &dyn Store) -> Result<Self, Error> {
        let ends = rows::scan::<QueueEnd>(store, QueueEnd::all())?;
        Ok(Self(ends.into_iter().map(|(id, QueueEnd(end))| (id, end)).collect()))
    }

    /// Where each queue ends.
    pub(in crate::shard) fn ends(&self) -> impl Iterator<Item = (SubscriptionId, u64)> {
        self.0.iter().map(|(id, end)| (*id, *end))
    }

    /// Adds events behind what a queue holds.
    pub(in crate::shard) fn add(
        &mut self,
        id: SubscriptionId,
        events: impl Iterator<Item = QueuedEvent>,
        draft: &mut Draft,
    ) {
        let end = self.0.entry(id).or_default();
        for event in events {
            draft.push(event.put(&(id, *end)));
            *end += 1;
        }
        draft.push(QueueEnd(*end).put(&id));
        draft.announce(Announcement::Queued { subscription: id, end: *end });
    }

    /// Forgets the queue of a subscription that is deleted.
    pub(super) fn forget(&mut self, id: SubscriptionId, draft: &mut Draft) {
        if self.0.remove(&id).is_some() {
            draft.push(QueuedEvent::delete_range(QueuedEvent::of_subscription(id)));
            draft.push(QueueEnd::delete(&id));
        }
    }
}

/// Deletes events that came to their end. One by one: ranges of deleted rows would slow down whoever reads behind them.
pub(super) fn remove(id: SubscriptionId, events: &[Range<Offset>], draft: &mut Draft) {
    for number in events.iter().flat_map(|range| range.start.0..range.end.0) {
        draft.push(QueuedEvent::delete(&(id, number)));
    }
}
