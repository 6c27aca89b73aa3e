//! Dead letters: how their topics and headers are named, and what the headers say.

use std::{fmt, str::FromStr};

use crate::{
    batch::EventRef,
    ids::{InvalidName, TopicName},
};

/// The prefix of the headers that a dead letter has in addition to its event's.
pub const DEAD_LETTER_HEADER_PREFIX: &str = "lv-dlq-";
/// The header that counts how often an event was redriven. It travels with the event, and so is on the dead letter that
/// it may become again.
pub const REDRIVES_HEADER: &str = "lv-redrives";

/// How the names of all dead-letter topics begin.
const TOPIC_PREFIX: &str = "dlq.";

/// Whose dead letters: those of a subscription, `TOPIC/SUBSCRIPTION`, or of a route, `TOPIC/route-ROUTE`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeadLettersOf {
    topic: TopicName,
    /// Where the topic's name ends in the dead-letter topic's name.
    dot: usize,
}

impl DeadLettersOf {
    /// Those of the subscription `name` of a topic, or of a route from it if `name` is `route-ROUTE`.
    ///
    /// # Errors
    /// If no topic can have the name that results.
    pub fn new(topic: &str, name: &str) -> Result<Self, InvalidName> {
        let made = TopicName::parse_any(&format!("{TOPIC_PREFIX}{topic}.{name}"))?;
        let unlike = || InvalidName {
            kind: "subscription",
            got: name.chars().take(80).collect(),
            expected: "a subscription's name, or route- and a route's name",
        };
        Self::of(&made).filter(|of| of.topic() == topic).ok_or_else(unlike)
    }

    /// Those in this topic; `None` if it is no dead-letter topic.
    pub fn of(topic: &TopicName) -> Option<Self> {
        let rest = topic.as_str().strip_prefix(TOPIC_PREFIX)?;
        // Topics may have dots in their names; subscriptions and routes have none.
        let (source, name) = rest.rsplit_once('.')?;
        if source.is_empty() || name.is_empty() {
            return None;
        }
        Some(Self { topic: topic.clone(), dot: TOPIC_PREFIX.len() + source.len() })
    }

    /// The topic that holds them, `dlq.TOPIC.NAME`.
    pub fn dead_letter_topic(&self) -> &TopicName {
        &self.topic
    }

    /// The topic that the events were in.
    pub fn topic(&self) -> &str {
        &self.topic.as_str()[TOPIC_PREFIX.len()..self.dot]
    }

    /// The subscription, or `route-` and the route.
    pub fn name(&self) -> &str {
        &self.topic.as_str()[self.dot + 1..]
    }

    /// The route, if they are those of one.
    pub fn route(&self) -> Option<&str> {
        self.name().strip_prefix("route-")
    }
}

impl fmt::Display for DeadLettersOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic(), self.name())
    }
}

impl FromStr for DeadLettersOf {
    type Err = InvalidName;

    /// Reads `TOPIC/SUBSCRIPTION`, `TOPIC/route-ROUTE`, or the name of a dead-letter topic.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match text.split_once('/') {
            Some((topic, name)) => Self::new(topic, name),
            None => {
                let unlike = || InvalidName {
                    kind: "dead-letter topic",
                    got: text.chars().take(80).collect(),
                    expected: "TOPIC/SUBSCRIPTION, TOPIC/route-ROUTE, or a topic's name that begins with dlq.",
                };
                TopicName::parse_any(text).ok().and_then(|topic| Self::of(&topic)).ok_or_else(unlike)
            }
        }
    }
}

/// What the headers of a dead letter say. Those that are missing or no text are empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeadLetter<'a> {
    /// Why: `rejected`, `undecodable`, `max_attempts`, `plugin_error`, `loop`, `consumer_lost`, `push_failed`, `expired`. Others may come.
    pub reason: &'a str,
    /// What happened, for a person.
    pub error: &'a str,
    /// The plugin and its version, if one refused or failed.
    pub plugin: Option<&'a str>,
    /// The topic that the event was in.
    pub topic: &'a str,
    /// The partition that it was in.
    pub partition: Option<u16>,
    /// Its offset there.
    pub offset: Option<u64>,
    /// The subscription's or route's name.
    pub subscription: &'a str,
    /// How many deliveries failed.
    pub attempts: Option<u32>,
    /// When the first one failed, in milliseconds since the Unix epoch.
    pub first_failure_ms: Option<u64>,
    /// When the last one failed.
    pub last_failure_ms: Option<u64>,
    /// What had to be left out of the event, if anything.
    pub missing: Option<&'a str>,
    /// How often the event was redriven before it became this dead letter.
    pub redrives: u32,
}

impl<'a> DeadLetter<'a> {
    /// Reads the headers of an event. One that is no dead letter has no reason.
    pub fn of(event: &EventRef<'a>) -> Self {
        let mut found = Self::default();
        for (name, value) in event.headers() {
            let Ok(text) = str::from_utf8(value) else { continue };
            let Some(name) = name.strip_prefix(DEAD_LETTER_HEADER_PREFIX.as_bytes()) else {
                if name == REDRIVES_HEADER.as_bytes() {
                    found.redrives = text.parse().unwrap_or(0);
                }
                continue;
            };
            match name {
                b"reason" => found.reason = text,
                b"error" => found.error = text,
                b"plugin" => found.plugin = Some(text),
                b"topic" => found.topic = text,
                b"partition" => found.partition = text.parse().ok(),
                b"offset" => found.offset = text.parse().ok(),
                b"subscription" => found.subscription = text,
                b"attempts" => found.attempts = text.parse().ok(),
                b"first-failure" => found.first_failure_ms = text.parse().ok(),
                b"last-failure" => found.last_failure_ms = text.parse().ok(),
                b"missing" => found.missing = Some(text),
                _ => {}
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        batch::{BatchBuilder, Stamp},
        event::Event,
    };

    #[test]
    fn dead_letters_are_named_by_topic_and_subscription_and_found_by_their_topic() {
        for (typed, topic, name, stored) in [
            ("orders/payment", "orders", "payment", "dlq.orders.payment"),
            ("orders.v1/payment", "orders.v1", "payment", "dlq.orders.v1.payment"),
            ("orders/route-big", "orders", "route-big", "dlq.orders.route-big"),
            ("dlq.orders.payment", "orders", "payment", "dlq.orders.payment"),
            ("dlq.orders.payment/again", "dlq.orders.payment", "again", "dlq.dlq.orders.payment.again"),
        ] {
            let of: DeadLettersOf = typed.parse().unwrap();
            assert_eq!((of.topic(), of.name()), (topic, name), "{typed}");
            assert_eq!(of.dead_letter_topic().as_str(), stored);
            assert_eq!(of.to_string().parse::<DeadLettersOf>().unwrap(), of);
        }
        for wrong in ["orders", "orders/", "/payment", "orders/pay.ment", "dlq.orders", "Orders/payment", ""]
        {
            assert!(wrong.parse::<DeadLettersOf>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_headers_of_a_dead_letter_are_read_and_what_is_no_number_is_none() {
        let event = Event::new("x")
            .with_header("own", "1")
            .with_header("lv-dlq-reason", "rejected")
            .with_header("lv-dlq-offset", "7")
            .with_header("lv-dlq-attempts", "many")
            .with_header("lv-dlq-plugin", "filter@2")
            .with_header("lv-redrives", "3");
        let mut builder = BatchBuilder::of_engine();
        builder.push(&event).unwrap();
        let batch = builder.finish(Stamp::ENGINE);
        let read = DeadLetter::of(&batch.events().next().unwrap());
        let expected = DeadLetter {
            reason: "rejected",
            offset: Some(7),
            plugin: Some("filter@2"),
            redrives: 3,
            ..DeadLetter::default()
        };
        assert_eq!(read, expected);
    }
}
