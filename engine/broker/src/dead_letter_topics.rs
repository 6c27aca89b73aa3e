//! The names of the topics that take dead letters: `dlq.TOPIC.SUBSCRIPTION` and `dlq.TOPIC.route-ROUTE`.

use levada_protocol::{
    dead_letters::DeadLettersOf, error::ErrorCode, ids::TopicName, limits::TOPIC_NAME_BYTES_MAX_INTERNAL,
};

use crate::error::Error;

/// The topic that takes the dead letters of a subscription.
///
/// # Errors
/// `INVALID_NAME` if no topic can have such a name: of a subscription of a dead-letter topic it may be too long.
pub(crate) fn of_subscription(topic: &str, name: &str) -> Result<TopicName, Error> {
    named(topic, name)
}

/// The topic that takes the dead letters of a route from a topic.
///
/// # Errors
/// As [`of_subscription`].
pub(crate) fn of_route(from: &str, name: &str) -> Result<TopicName, Error> {
    named(from, &format!("route-{name}"))
}

fn named(topic: &str, name: &str) -> Result<TopicName, Error> {
    let made = DeadLettersOf::new(topic, name).map(|of| of.dead_letter_topic().clone());
    made.map_err(|_| {
        let name = format!("dlq.{topic}.{name}");
        let (len, limit) = (name.len(), TOPIC_NAME_BYTES_MAX_INTERNAL);
        let message =
            format!("its dead letters would go to {name}, whose {len} bytes are over the limit of {limit}");
        Error::refused(ErrorCode::InvalidName, format!("{message}; choose a shorter name"))
    })
}
