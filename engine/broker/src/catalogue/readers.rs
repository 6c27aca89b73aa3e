//! Who reads each topic, as one number: it is another whenever a subscription or route of the topic is created, moved or
//! deleted. What is decided by how far all of them have come holds while it is the same.

use std::{collections::HashMap, sync::Arc};

use levada_protocol::ids::TopicId;
use xxhash_rust::xxh3::xxh3_64;

use crate::rows::{RouteRecord, SubscriptionRecord};

/// The numbers of all topics; 0 where nobody reads. They follow from the records alone, so that they are the same after
/// these were read again.
#[derive(Debug, Clone, Default)]
pub(crate) struct Readers(Arc<HashMap<TopicId, u64>>);

impl Readers {
    /// That of a topic.
    pub(crate) fn of(&self, topic: TopicId) -> u64 {
        self.0.get(&topic).copied().unwrap_or(0)
    }

    /// A subscription came, or went. One that is moved goes and comes.
    pub(super) fn toggle_subscription(&mut self, record: &SubscriptionRecord) {
        self.toggle(TopicId(record.topic_id), of_subscription(record));
    }

    /// A route came, or went.
    pub(super) fn toggle_route(&mut self, record: &RouteRecord) {
        self.toggle(TopicId(record.source_id), of_route(record));
    }

    fn toggle(&mut self, topic: TopicId, reader: u64) {
        let all = Arc::make_mut(&mut self.0);
        let of_topic = all.entry(topic).or_default();
        *of_topic ^= reader;
        if *of_topic == 0 {
            all.remove(&topic);
        }
    }
}

/// What a subscription adds to its topic's number, by exclusive or.
pub(crate) fn of_subscription(record: &SubscriptionRecord) -> u64 {
    of_reader(record.id, record.moves)
}

/// What a route adds to its source's number, by exclusive or.
pub(crate) fn of_route(record: &RouteRecord) -> u64 {
    of_reader(record.id, 0)
}

/// Ids are given to subscriptions and routes alike, and never again.
fn of_reader(id: u64, moves: u64) -> u64 {
    xxh3_64(&[id.to_le_bytes(), moves.to_le_bytes()].concat())
}
