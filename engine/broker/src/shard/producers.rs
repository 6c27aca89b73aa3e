//! What the writer knows of producers: read from the store when one comes, let go when there are many, and forgotten
//! when one was idle for long, in order with what it publishes, so that memory and disk agree. Finding the idle ones
//! is `crate::idle`'s.

use levada_delivery::producer::Producer;
use levada_protocol::ids::Timestamp;

use super::{
    command::{Forget, ProducerKey},
    group::Group,
    writer::Writer,
};
use crate::{error::Error, rows};

impl Writer {
    /// What is known of a producer, from memory or from the store.
    pub(super) fn producer(&mut self, key: ProducerKey, group: &Group) -> Result<&mut Producer, Error> {
        if !self.state.producers.contains_key(&key) {
            let producer = self.stored_producer(key)?.unwrap_or_default();
            if self.state.producers.len() >= self.producers_max {
                self.forget_producers(group);
            }
            self.state.producers.insert(key, producer);
        }
        Ok(self.state.producers.get_mut(&key).expect("it was found or inserted above"))
    }

    /// A producer's row in the store.
    fn stored_producer(&self, key: ProducerKey) -> Result<Option<Producer>, Error> {
        rows::get(self.store.as_ref(), &key)
    }

    /// Lets go of the half that was used least recently. Their rows are written already, but for those of this group.
    fn forget_producers(&mut self, group: &Group) {
        let mut used: Vec<Timestamp> = self.state.producers.values().map(Producer::last_used).collect();
        used.sort_unstable();
        let middle = used.get(used.len() / 2).copied().unwrap_or_default();
        self.state
            .producers
            .retain(|key, producer| producer.last_used() > middle || group.producers.contains(key));
    }

    /// Forgets those that still are idle: their rows go with the group.
    pub(super) fn forget_idle(&mut self, forget: &Forget, group: &mut Group) -> Result<(), Error> {
        for key in &forget.producers {
            if !self.state.topics.contains_key(&key.0) {
                continue;
            }
            let last_used = match self.state.producers.get(key) {
                Some(producer) => Some(producer.last_used()),
                None => self.stored_producer(*key)?.map(|producer| producer.last_used()),
            };
            if last_used.is_some_and(|last_used| last_used < forget.before) {
                // Unknown from here on, also to a publish of the same group: the store still has the row for now.
                self.state.producers.insert(*key, Producer::default());
                group.producers.insert(*key);
            }
        }
        Ok(())
    }
}
