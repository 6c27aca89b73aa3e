//! How many partitions topics have, as a client remembers it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use levada_protocol::ids::TopicName;

/// How many partitions topics have, as far as it is known.
#[derive(Debug, Clone, Default)]
pub(crate) struct PartitionCounts(Arc<Mutex<HashMap<TopicName, u16>>>);

impl PartitionCounts {
    pub(crate) fn get(&self, topic: &TopicName) -> Option<u16> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(topic).copied()
    }

    pub(crate) fn set(&self, topic: &TopicName, count: u16) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(topic.clone(), count);
    }

    /// Forgets topics, which may have been made anew with other counts; false if none of them was known.
    pub(crate) fn forget(&self, topics: &[TopicName]) -> bool {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        topics.iter().filter(|topic| counts.remove(*topic).is_some()).count() > 0
    }
}
