//! The live topics, with their newest batches and their listeners. They follow the catalogue: the shard creates and
//! ends them when a change of it is durable.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use levada_delivery::backlog::Charge;
use levada_protocol::ids::TopicId;

use crate::{
    catalogue::Catalogue,
    due_times::DueTimes,
    rows::{ScheduleSummary, TopicRecord},
    tail::TailBudget,
    topic::{Extent, Extents, Topic},
};

/// All live topics.
#[derive(Debug)]
pub(crate) struct Topics {
    live: RwLock<HashMap<TopicId, Arc<Topic>>>,
    budget: Arc<TailBudget>,
    due_times: DueTimes,
}

impl Topics {
    /// None yet; the newest batches of all together may take `tail_bytes_max` bytes of memory.
    pub(crate) fn new(tail_bytes_max: usize) -> Self {
        Self {
            live: RwLock::default(),
            budget: TailBudget::new(tail_bytes_max),
            due_times: DueTimes::default(),
        }
    }

    pub(crate) fn get(&self, id: TopicId) -> Option<Arc<Topic>> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Begins a topic that has no events yet.
    pub(crate) fn create(&self, record: &TopicRecord) {
        self.begin(record, &vec![Extent::default(); usize::from(record.settings.partitions)]);
    }

    fn begin(&self, record: &TopicRecord, extents: &[Extent]) {
        let (id, name) = (record.id(), record.name.clone());
        let topic = Arc::new(Topic::new(id, name, record.settings.clone(), extents, &self.budget));
        self.live.write().unwrap_or_else(PoisonError::into_inner).insert(id, topic);
    }

    /// When topics have something due.
    pub(crate) fn due_times(&self) -> &DueTimes {
        &self.due_times
    }

    /// Shows a topic's schedule.
    pub(crate) fn set_schedule(&self, id: TopicId, summary: ScheduleSummary) {
        if let Some(topic) = self.get(id) {
            topic.set_schedule(summary);
            self.due_times.set(id, summary.head);
        }
    }

    /// Shows the schedules that the store was found to hold, and no others.
    pub(crate) fn recover_schedules(
        &self,
        summaries: impl Iterator<Item = (TopicId, ScheduleSummary)>,
        revision: u64,
    ) {
        self.due_times.reset(revision);
        for topic in self.live.read().unwrap_or_else(PoisonError::into_inner).values() {
            topic.clear_schedule();
        }
        summaries.for_each(|(id, summary)| self.set_schedule(id, summary));
    }

    /// Shows what is prepared for a topic.
    pub(crate) fn set_prepared(&self, id: TopicId, prepared: Charge) {
        if let Some(topic) = self.get(id) {
            topic.set_prepared(prepared);
        }
    }

    /// Shows what the store was found to hold prepared for each topic.
    pub(crate) fn recover_prepared(&self, prepared: impl Fn(TopicId) -> Charge) {
        for (id, topic) in self.live.read().unwrap_or_else(PoisonError::into_inner).iter() {
            topic.set_prepared(prepared(*id));
        }
    }

    /// Ends a topic: its users get an error that it was deleted.
    pub(crate) fn delete(&self, id: TopicId) {
        self.due_times.set(id, None);
        if let Some(topic) = self.live.write().unwrap_or_else(PoisonError::into_inner).remove(&id) {
            topic.deleted.cancel();
        }
    }

    /// Wakes all listeners of all topics.
    pub(crate) fn wake_all(&self) {
        for topic in self.live.read().unwrap_or_else(PoisonError::into_inner).values() {
            topic.changes.note_all();
            topic.wake();
        }
    }

    /// Matches the topics with a catalogue and the extents that the store was found to hold. Those that exist already
    /// keep their identity, so that their users are not interrupted.
    pub(crate) fn recover(&self, catalogue: &Catalogue, extents: Extents) {
        let live: Vec<TopicId> =
            self.live.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect();
        live.into_iter().filter(|id| !catalogue.topics.has_id(*id)).for_each(|id| self.delete(id));
        for (id, extents) in extents {
            let Some(record) = catalogue.topics.by_id(id) else { continue };
            match self.get(id) {
                Some(topic) => topic.recover(record.settings.clone(), extents),
                None => self.begin(record, &extents),
            }
        }
    }
}
