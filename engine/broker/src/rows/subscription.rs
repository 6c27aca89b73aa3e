//! A subscription: its record under its id.

use levada_protocol::{
    ids::{SubscriptionId, SubscriptionName, TopicName},
    request::{PauseReason, SubscriptionOptions},
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
    /// Where each partition began, or where it was moved to.
    pub(crate) positions: Vec<u64>,
    pub(crate) created_ms: u64,
    pub(crate) owner: String,
    /// It delivers nothing until somebody resumes it.
    #[serde(default)]
    pub(crate) paused: bool,
    /// How often it was moved since it was created; `positions` are those of the last time.
    #[serde(default)]
    pub(crate) moves: u64,
    /// What the receiver of its pushes said, if that has paused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) push_refusal: Option<String>,
}

impl SubscriptionRecord {
    /// Why it is paused until somebody resumes it, if it is.
    pub(crate) fn pause(&self) -> Option<PauseReason> {
        self.paused.then(|| match &self.push_refusal {
            Some(message) => PauseReason::Push { message: message.clone() },
            None => PauseReason::Requested,
        })
    }

    /// True if what its owner knows and what its consumers have no longer fits once the record is `next`: it was moved, has
    /// another order, a shorter timeout for acknowledgements, of which consumers were told, or lets more be in flight, for
    /// which their streams have room.
    pub(crate) fn begins_anew_with(&self, next: &Self) -> bool {
        let (now, then) = (&self.options, &next.options);
        self.moves != next.moves
            || now.order() != then.order()
            || then.ack_timeout_ms() < now.ack_timeout_ms()
            || then.max_in_flight() > now.max_in_flight()
    }
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
    use crate::rows::{Row as _, check};

    #[test]
    fn the_bytes_are_these() {
        let options = SubscriptionOptions {
            order: Some(Order::Partition),
            chain: Some(vec![StageSpec { plugin: "p@1".to_owned(), ..StageSpec::default() }]),
            ack_timeout_ms: Some(5),
            max_attempts: Some(6),
            max_in_flight: None,
            backoff_ms: Some(vec![8, 9]),
            rate: Some(10),
            dead_letter_expired: Some(true),
            expire_after_ms: Some(60_000),
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
            paused: true,
            moves: 11,
            push_refusal: None,
        };
        let expected = "018aa2696402a8746f7069635f696401a5746f706963a66f7264657273a46e616d65a77061796d656e74a76f \
            7074696f6e7389a56f72646572a9706172746974696f6ea5636861696e9186a6706c7567696ea3704031a663 \
            6f6e666967a27b7da86f6e5f6572726f72c0a772657472696573c0ab646561646c696e655f6d73c0b06d656d \
            6f72795f62797465735f6d6178c0ae61636b5f74696d656f75745f6d7305ac6d61785f617474656d70747306 \
            ad6d61785f696e5f666c69676874c0aa6261636b6f66665f6d73920809a4726174650a \
            b3646561645f6c65747465725f65787069726564c3 \
            af6578706972655f61667465725f6d73cdea60 \
            a9706f736974696f6e73920304aa637265617465645f6d7307a56f776e6572a26d65 \
            a6706175736564c3a56d6f7665730b";
        check::bytes(&SubscriptionId(2), &subscription, "02 0000000000000002", expected);
    }

    #[test]
    fn a_record_that_was_written_before_subscriptions_could_be_paused_moved_or_expire_opens() {
        let mut stored = vec![1];
        let map = serde_json::json!({
            "id": 2, "topic_id": 1, "topic": "orders", "name": "payment",
            "options": {"order": "none", "max_attempts": 6},
            "positions": [3], "created_ms": 7, "owner": "me",
        });
        stored.extend(rmp_serde::to_vec_named(&map).unwrap());
        let record = SubscriptionRecord::decode(&stored).unwrap();
        assert_eq!((record.paused, record.moves, record.options.rate()), (false, 0, None));
        assert_eq!((record.options.backoff_ms()[0], record.options.expire_after_ms()), (1_000, None));
    }

    proptest! {
        #[test]
        fn it_comes_back(
            (id, topic_id, created_ms) in any::<(u64, u32, u64)>(), topic in "[a-z0-9._-]{0,20}", name in "[a-z0-9_-]{0,20}", owner in ".{0,20}",
            positions in prop::collection::vec(any::<u64>(), 0..8), plugins in prop::collection::vec(".{0,9}", 0..3),
            (ack_timeout_ms, max_attempts, max_in_flight) in any::<(Option<u32>, Option<u16>, Option<u32>)>(),
            (backoff_ms, rate, dead_letter_expired, paused, moves) in any::<(Option<Vec<u32>>, Option<u32>, Option<bool>, bool, u64)>(),
            expire_after_ms: Option<u64>, push_refusal: Option<String>,
        ) {
            let chain = plugins.into_iter().map(|plugin| StageSpec { plugin, ..StageSpec::default() });
            let options = SubscriptionOptions {
                order: None, chain: Some(chain.collect()), ack_timeout_ms, max_attempts, max_in_flight,
                backoff_ms, rate, dead_letter_expired, expire_after_ms,
            };
            let (topic, name) = (format!("t{topic}").parse().unwrap(), format!("s{name}").parse().unwrap());
            let record = SubscriptionRecord {
                id, topic_id, topic, name, options, positions, created_ms, owner, paused, moves, push_refusal,
            };
            check::comes_back(&SubscriptionId(id), &record);
        }
    }
}
