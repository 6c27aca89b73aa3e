//! Names and numbers that identify things, each its own type, parsed once at the edge.

use std::{fmt, str::FromStr, sync::Arc};

use crate::limits::{NAME_BYTES_MAX, TOPIC_NAME_BYTES_MAX, TOPIC_NAME_BYTES_MAX_INTERNAL};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A topic's id: from the engine's one counter, never reused. The first part of every log key.
    TopicId(u32)
}
number! {
    /// A partition of a topic, from 0.
    PartitionId(u16)
}
number! {
    /// An event's place in its partition, dense from 0 when appended.
    Offset(u64)
}
number! {
    /// A subscription's id, never reused.
    SubscriptionId(u64)
}
number! {
    /// A route's id, never reused.
    RouteId(u64)
}
number! {
    /// A producer's fencing epoch; a newer one shuts an older one out.
    Epoch(u32)
}
number! {
    /// A producer's event count in one partition; the engine accepts each number once.
    Sequence(u64)
}
number! {
    /// Names one delivery of some events to one consumer; a verb without the right token is refused.
    DeliveryToken(u64)
}
number! {
    /// Milliseconds since the Unix epoch.
    Timestamp(u64)
}
number! {
    /// A commit's place in its shard's history, dense from 1.
    CommitIndex(u64)
}

impl Offset {
    /// The offset `count` events further on; at most the largest there is, for a peer may claim any base.
    #[must_use]
    pub fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }
}

/// One publisher object's identity: random, it survives reconnects and makes resends harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProducerId(pub u128);

impl fmt::Display for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} name {got:?} is invalid: expected {expected}")]
pub struct InvalidName {
    /// What was being named.
    pub kind: &'static str,
    /// What came, cut to a readable length.
    pub got: String,
    /// The grammar.
    pub expected: &'static str,
}

impl InvalidName {
    fn new(kind: &'static str, got: &str, expected: &'static str) -> Self {
        Self { kind, got: got.chars().take(80).collect(), expected }
    }
}

/// A topic's name: `[a-z0-9][a-z0-9._-]{0,127}`.
///
/// Names that begin with `_` or `dlq.` are the engine's own, see [`TopicName::is_internal`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName(Arc<str>);

const TOPIC_GRAMMAR: &str = "1 to 128 of a-z 0-9 . _ - beginning with a letter or digit";

impl TopicName {
    /// Parses a name of any kind, the engine's own included: what reading and subscribing accept.
    pub fn parse_any(name: &str) -> Result<Self, InvalidName> {
        let own = name.starts_with('_') || name.starts_with("dlq.");
        let limit = if own { TOPIC_NAME_BYTES_MAX_INTERNAL } else { TOPIC_NAME_BYTES_MAX };
        let first = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || (own && byte == b'_');
        let rest = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        let bytes = name.as_bytes();
        if bytes.is_empty() || bytes.len() > limit || !first(bytes[0]) || !bytes.iter().copied().all(rest) {
            return Err(InvalidName::new("topic", name, TOPIC_GRAMMAR));
        }
        Ok(Self(name.into()))
    }

    /// True for `_` and `dlq.` topics, which users may read, change and delete but neither create nor publish to.
    pub fn is_internal(&self) -> bool {
        self.0.starts_with('_') || self.0.starts_with("dlq.")
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TopicName {
    type Err = InvalidName;

    /// Parses a name that a user may give to a topic.
    fn from_str(name: &str) -> Result<Self, InvalidName> {
        let parsed = Self::parse_any(name)?;
        if parsed.is_internal() {
            return Err(InvalidName::new(
                "topic",
                name,
                "a name that begins neither with _ nor with dlq. (the engine's own)",
            ));
        }
        Ok(parsed)
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const NAME_GRAMMAR: &str = "1 to 63 of a-z 0-9 _ - beginning with a letter or digit";

fn parse_name(kind: &'static str, name: &str) -> Result<Arc<str>, InvalidName> {
    let bytes = name.as_bytes();
    let first = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let rest = |byte: u8| first(byte) || b"_-".contains(&byte);
    if bytes.is_empty()
        || bytes.len() > NAME_BYTES_MAX
        || !first(bytes[0])
        || !bytes.iter().copied().all(rest)
    {
        return Err(InvalidName::new(kind, name, NAME_GRAMMAR));
    }
    Ok(name.into())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// A subscription's name: `[a-z0-9][a-z0-9_-]{0,62}`, but not `publish` nor `route-…`, which dead-letter topics use.
    SubscriptionName
}
name! {
    /// A route's name: `[a-z0-9][a-z0-9_-]{0,62}`.
    RouteName
}
name! {
    /// A plugin's name: `[a-z0-9][a-z0-9_-]{0,62}`.
    PluginName
}

impl FromStr for SubscriptionName {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<Self, InvalidName> {
        if name == "publish" || name.starts_with("route-") {
            return Err(InvalidName::new(
                "subscription",
                name,
                "a name that is not `publish` and does not begin with `route-`",
            ));
        }
        parse_name("subscription", name).map(Self)
    }
}

impl FromStr for RouteName {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<Self, InvalidName> {
        parse_name("route", name).map(Self)
    }
}

impl FromStr for PluginName {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<Self, InvalidName> {
        parse_name("plugin", name).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_obey_the_grammar() {
        for good in ["orders", "a", "0", "orders.v1_x-y", &"a".repeat(128)] {
            assert!(good.parse::<TopicName>().is_ok(), "{good}");
        }
        for bad in ["", "Orders", ".orders", "-a", "a b", "é", "_own", "dlq.x", "a/b", &"a".repeat(129)] {
            assert!(bad.parse::<TopicName>().is_err(), "{bad}");
        }
        assert!(TopicName::parse_any("dlq.orders.payment").is_ok_and(|name| name.is_internal()));
    }

    #[test]
    fn names_that_dead_letter_topics_use_are_no_subscriptions() {
        assert!("publish".parse::<SubscriptionName>().is_err());
        assert!("route-x".parse::<SubscriptionName>().is_err());
        assert!("payment".parse::<SubscriptionName>().is_ok());
        assert!("pay.ment".parse::<SubscriptionName>().is_err());
    }
}
