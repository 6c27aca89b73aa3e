//! A subscription: its record under its id.

use levada_protocol::{
    ids::{SubscriptionId, SubscriptionName, TopicName},
    request::SubscriptionOptions,
};
use serde::{Deserialize, Serialize};

use super::{record::Record, tag};

/// A subscription, as stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SubscriptionRecord {
    pub(crate) id: u64,
    pub(crate) topic_id: u32,
    pub(crate) topic: TopicName,
    pub(crate) name: SubscriptionName,
    pub(crate) options: SubscriptionOptions,
    /// Where each partition began.
    pub(crate) positions: Vec<u64>,
    pub(crate) created_ms: u64,
    pub(crate) owner: String,
}

impl Record for SubscriptionRecord {
    const NAME: &'static str = "subscription";
    const TAG: u8 = tag::CATALOGUE_SUBSCRIPTION;
    type Key = SubscriptionId;
}

#[cfg(test)]
mod tests {
    use levada_protocol::request::{Order, StageSpec};
    use proptest::prelude::*;

    use super::*;
    use crate::rows::check;

    #[test]
    fn the_bytes_are_these() {
        let options = SubscriptionOptions {
            order: Some(Order::Partition),
            chain: Some(vec![StageSpec { plugin: "p@1".to_owned(), ..StageSpec::default() }]),
            ack_timeout_ms: Some(5),
            max_attempts: Some(6),
            max_in_flight: None,
        };
        let subscription = SubscriptionRecord {
            id: 2,
            topic_id: 1,
            topic: "orders".parse().unwrap(),
            name: "payment".parse().unwrap(),
            options,
            positions: vec![3, 4],
            created_ms: 7,
            owner: "me".to_owned(),
        };
        let expected = "0188a2696402a8746f7069635f696401a5746f706963a66f7264657273a46e616d65a77061796d656e74a76f \
            7074696f6e7385a56f72646572a9706172746974696f6ea5636861696e9186a6706c7567696ea3704031a663 \
            6f6e666967a27b7da86f6e5f6572726f72c0a772657472696573c0ab646561646c696e655f6d73c0b06d656d \
            6f72795f62797465735f6d6178c0ae61636b5f74696d656f75745f6d7305ac6d61785f617474656d70747306 \
            ad6d61785f696e5f666c69676874c0a9706f736974696f6e73920304aa637265617465645f6d7307a56f776e \
            6572a26d65";
        check::bytes(&SubscriptionId(2), &subscription, "02 0000000000000002", expected);
    }

    proptest! {
        #[test]
        fn it_comes_back(
            (id, topic_id, created_ms) in any::<(u64, u32, u64)>(), topic in "[a-z0-9._-]{0,20}", name in "[a-z0-9_-]{0,20}", owner in ".{0,20}",
            positions in prop::collection::vec(any::<u64>(), 0..8), plugins in prop::collection::vec(".{0,9}", 0..3),
            (ack_timeout_ms, max_attempts, max_in_flight) in any::<(Option<u32>, Option<u16>, Option<u32>)>(),
        ) {
            let chain = plugins.into_iter().map(|plugin| StageSpec { plugin, ..StageSpec::default() });
            let options = SubscriptionOptions {
                order: None, chain: Some(chain.collect()), ack_timeout_ms, max_attempts, max_in_flight,
            };
            let (topic, name) = (format!("t{topic}").parse().unwrap(), format!("s{name}").parse().unwrap());
            let record = SubscriptionRecord { id, topic_id, topic, name, options, positions, created_ms, owner };
            check::comes_back(&SubscriptionId(id), &record);
        }
    }
}
