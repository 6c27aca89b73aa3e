//! When each topic's first delayed event is due, for the task that waits for it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use levada_protocol::ids::{Timestamp, TopicId};
use tokio::sync::Notify;

use crate::rows::Place;

/// When each topic's next delayed event is due at the earliest, as far as that is durable.
#[derive(Debug, Default)]
pub(crate) struct DueTimes {
    heads: Mutex<Heads>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Heads {
    places: HashMap<TopicId, Place>,
    /// Counts what was moved, and how often all was read again, as far as that is durable: what is read now is
    /// decided about only if nothing of the kind has happened since.
    revision: u64,
    /// What the clock waits for; `None` if it waits for nothing.
    awaited: Option<Timestamp>,
}

impl DueTimes {
    fn lock(&self) -> MutexGuard<'_, Heads> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes where a topic's schedule begins now; `None`: it is empty, or the topic is gone.
    pub(crate) fn set(&self, topic: TopicId, head: Option<Place>) {
        let mut heads = self.lock();
        match head {
            Some(place) => {
                heads.places.insert(topic, place);
                if heads.awaited.is_none_or(|awaited| place.due < awaited) {
                    self.changed.notify_one();
                }
            }
            None => drop(heads.places.remove(&topic)),
        }
    }

    /// Waits until something may be due earlier than what [`DueTimes::next`] returned last. For one who waits at a time.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Everything that was decided up to this revision is in the store.
    pub(crate) fn set_revision(&self, revision: u64) {
        let mut heads = self.lock();
        heads.revision = heads.revision.max(revision);
    }

    /// Forgets all, as it is read again.
    pub(crate) fn reset(&self, revision: u64) {
        let mut heads = self.lock();
        heads.places.clear();
        heads.revision = revision;
    }

    /// When the first of all is due, which is waited for from now on.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        let mut heads = self.lock();
        heads.awaited = heads.places.values().map(|place| place.due).min();
        heads.awaited
    }

    /// The topics that have something due, and from where on, in the order of their ids; and the revision of all that.
    pub(crate) fn due(&self, now: Timestamp) -> (u64, Vec<(TopicId, Place)>) {
        let heads = self.lock();
        let is_due = |(_, place): &(&TopicId, &Place)| place.due <= now;
        let mut due: Vec<_> = heads.places.iter().filter(is_due).map(|(id, place)| (*id, *place)).collect();
        due.sort_unstable_by_key(|(id, _)| *id);
        (heads.revision, due)
    }
}
