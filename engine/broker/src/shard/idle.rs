//! How the writer forgets producers that were idle for long: in order with what they publish, so that memory and disk
//! agree. Finding them is `crate::idle`'s.

use levada_delivery::producer::Producer;

use super::{command::Forget, group::Group, writer::Writer};
use crate::error::Error;

impl Writer {
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
