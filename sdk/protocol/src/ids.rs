//! Names and numbers that identify things, each its own type, parsed once at the edge.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    base62,
    error::ErrorCode,
    limits::{NAME_BYTES_MAX, TOPIC_NAME_BYTES_MAX, TOPIC_NAME_BYTES_MAX_INTERNAL, TRANSACTION_ID_BYTES_MAX},
};

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
    /// An event's index in its partition, dense from 0 when appended.
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
    /// A principal's id, never reused.
    PrincipalId(u64)
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
    /// A commit's index in its shard's history, dense from 1.
    CommitIndex(u64)
}

impl Offset {
    /// The offset `count` events further on; at most the largest there is, for a peer may claim any base.
    #[must_use]
    pub fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }
}

/// One publisher object's identity: random, it survives reconnects and makes resends harmless. That of a named producer is
/// the engine's choice but for its low 32 bits, see [`ProducerId::base`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProducerId(pub u128);

impl ProducerId {
    /// The bits that the owner of a producer's name chooses.
    const OWN: u128 = u32::MAX as u128;

    /// The same with its low 32 bits 0: what all ids under one name have in common.
    #[must_use]
    pub fn base(self) -> Self {
        Self(self.0 & !Self::OWN)
    }

    /// The next id of the same base; the first one again after the last.
    #[must_use]
    pub fn next_of_base(self) -> Self {
        Self(self.base().0 | (self.0.wrapping_add(1) & Self::OWN))
    }
}

impl fmt::Display for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A token's id: random, unique in an engine, and no secret. Its text is 11 digits of base 62.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub u64);

impl TokenId {
    /// Digits of its text.
    pub(crate) const DIGITS: usize = 11;
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&base62::encode(&self.0.to_be_bytes(), Self::DIGITS))
    }
}

/// Why a text is no token's id. It does not quote the text, which may be a whole token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not the id of a token: expected {} of 0-9 A-Z a-z, the part between lv1_ and the next _",
    TokenId::DIGITS
)]
pub struct InvalidTokenId;

impl FromStr for TokenId {
    type Err = InvalidTokenId;

    fn from_str(id: &str) -> Result<Self, InvalidTokenId> {
        let number = (id.len() == Self::DIGITS).then(|| base62::decode(id)).flatten();
        number.map(|number| Self(u64::from_be_bytes(number))).ok_or(InvalidTokenId)
    }
}

impl Serialize for TokenId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TokenId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error| de::Error::custom(format_args!("{}: {error}", ErrorCode::InvalidName)))
    }
}

/// Why a text is not a name. Its code is `INVALID_NAME`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} name {got:?} is invalid: expected {expected}")]
pub struct InvalidName {
    /// What was to be named: `topic`, `subscription`, `route`, `plugin`, `principal`, `producer group`, `producer`
    /// or `transaction`.
    pub kind: &'static str,
    /// The first 80 characters of the text.
    pub got: String,
    /// The grammar, in words.
    pub expected: &'static str,
}

impl InvalidName {
    fn new(kind: &'static str, got: &str, expected: &'static str) -> Self {
        Self { kind, got: got.chars().take(80).collect(), expected }
    }
}

/// Serialises a name as text, and parses it when it is deserialised: a value of the type is the proof that it was parsed.
///
/// The error of a text that is no name begins with its code, `INVALID_NAME: `, by which
/// [`crate::frame::read_message`] knows it.
macro_rules! text {
    ($name:ident, $parse:expr) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                *self.0 == *other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                *self.0 == **other
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                $parse(&text).map_err(|error: InvalidName| {
                    de::Error::custom(format_args!("{}: {error}", ErrorCode::InvalidName))
                })
            }
        }
    };
}

/// A topic's name: `[a-z0-9][a-z0-9._-]{0,127}`.
///
/// Names that begin with `_` or `dlq.` are the engine's own, see [`TopicName::is_internal`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName(Arc<str>);

const TOPIC_GRAMMAR: &str = "1 to 128 of a-z 0-9 . _ - beginning with a letter or digit";

text!(TopicName, TopicName::parse_any);

impl TopicName {
    /// Parses a name of any kind, the engine's own included. Messages are decoded with it; who makes topics calls
    /// [`Self::check_free`] too.
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

    /// Checks that a user may make a topic of this name.
    ///
    /// # Errors
    /// If the name is the engine's own.
    pub fn check_free(&self) -> Result<(), InvalidName> {
        if self.is_internal() {
            let expected = "a name that begins neither with _ nor with dlq. (the engine's own)";
            return Err(InvalidName::new("topic", &self.0, expected));
        }
        Ok(())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TopicName {
    type Err = InvalidName;

    /// As [`TopicName::parse_any`].
    fn from_str(name: &str) -> Result<Self, InvalidName> {
        Self::parse_any(name)
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const NAME_GRAMMAR: &str = "1 to 63 of a-z 0-9 _ - beginning with a letter or digit";

/// Parses a name of the usual grammar, `[a-z0-9][a-z0-9_-]{0,62}`; `kind` says in the error what was to be named.
///
/// # Errors
/// If it does not obey the grammar.
pub fn parse_name(kind: &'static str, name: &str) -> Result<Arc<str>, InvalidName> {
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

        text!($name, str::parse::<$name>);

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

name! {
    /// A producer group's name: `[a-z0-9][a-z0-9_-]{0,62}`. Its members are asked about the transactions of each other.
    GroupName
}

name! {
    /// A principal's name: `[a-z0-9][a-z0-9_-]{0,62}`. One who may use the engine: a service, or a person.
    PrincipalName
}

impl FromStr for PrincipalName {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<Self, InvalidName> {
        parse_name("principal", name).map(Self)
    }
}

name! {
    /// A producer's name: `[a-z0-9][a-z0-9_-]{0,62}`. Of all that publish to a topic under it, the newest alone may.
    ProducerName
}

impl FromStr for ProducerName {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<Self, InvalidName> {
        parse_name("producer", name).map(Self)
    }
}

impl FromStr for GroupName {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<Self, InvalidName> {
        parse_name("producer group", name).map(Self)
    }
}

/// A transaction's id: 1 to 128 visible characters of ASCII. Its producer chooses it, unique in its group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransactionId(Arc<str>);

text!(TransactionId, str::parse::<TransactionId>);

impl TransactionId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TransactionId {
    type Err = InvalidName;

    fn from_str(id: &str) -> Result<Self, InvalidName> {
        if id.is_empty()
            || id.len() > TRANSACTION_ID_BYTES_MAX
            || !id.bytes().all(|byte| byte.is_ascii_graphic())
        {
            let expected = "1 to 128 visible characters of ASCII, without blanks";
            return Err(InvalidName::new("transaction", id, expected));
        }
        Ok(Self(id.into()))
    }
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
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
        for bad in ["", "Orders", ".orders", "-a", "a b", "é", "a/b", &"a".repeat(129)] {
            assert!(bad.parse::<TopicName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_of_the_engines_own_topics_are_names_but_not_free() {
        for own in ["dlq.orders.payment", "_own", &format!("dlq.{}", "a".repeat(251))] {
            let name: TopicName = own.parse().unwrap();
            assert!(name.is_internal() && name.check_free().is_err(), "{own}");
        }
        assert!(format!("dlq.{}", "a".repeat(252)).parse::<TopicName>().is_err());
        assert!("orders".parse::<TopicName>().unwrap().check_free().is_ok());
    }

    #[test]
    fn names_have_63_bytes_at_most() {
        fn lengths<N: FromStr>() -> Vec<usize> {
            (0..=100).filter(|len| "a".repeat(*len).parse::<N>().is_ok()).collect()
        }
        let all: Vec<usize> = (1..=63).collect();
        assert_eq!(lengths::<SubscriptionName>(), all);
        assert_eq!(lengths::<RouteName>(), all);
        assert_eq!(lengths::<PluginName>(), all);
        assert_eq!(lengths::<GroupName>(), all);
        assert_eq!(lengths::<ProducerName>(), all);
        assert_eq!(lengths::<PrincipalName>(), all);
    }

    #[test]
    fn names_are_texts_that_are_parsed_when_they_are_read() {
        let name: TopicName = serde_json::from_str("\"dlq.orders.payment\"").unwrap();
        assert_eq!(serde_json::to_string(&name).unwrap(), "\"dlq.orders.payment\"");
        assert!(name.check_free().is_err());
        let escaped: PluginName = serde_json::from_str(r#""json\u002dfilter""#).unwrap();
        assert_eq!(escaped.as_str(), "json-filter", "a text that had to be unescaped");
        for bad in ["\"Big\"", "\"\""] {
            let said = serde_json::from_str::<RouteName>(bad).unwrap_err().to_string();
            assert!(said.starts_with("INVALID_NAME: route name "), "{said}");
        }
        let said = serde_json::from_str::<SubscriptionName>("\"publish\"").unwrap_err().to_string();
        assert!(said.starts_with("INVALID_NAME: subscription name "), "{said}");
    }

    #[test]
    fn a_transaction_s_id_is_visible_ascii() {
        for good in ["order-42", "a/b", "~", &"a".repeat(128)] {
            assert!(good.parse::<TransactionId>().is_ok(), "{good}");
        }
        for bad in ["", "a b", "\0", "\u{e9}", &"a".repeat(129)] {
            assert!(bad.parse::<TransactionId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_s_ids_differ_in_their_low_32_bits() {
        let (base, last) = (ProducerId(7 << 32), ProducerId(7 << 32 | u128::from(u32::MAX)));
        assert_eq!(base.next_of_base(), ProducerId(7 << 32 | 1));
        assert_eq!(last.next_of_base(), base);
        assert_eq!((base.base(), base.next_of_base().base(), last.base()), (base, base, base));
    }

    #[test]
    fn a_token_s_id_is_11_digits_of_base_62() {
        for (id, text) in [(0, "00000000000"), (62, "00000000010"), (u64::MAX, "LygHa16AHYF")] {
            assert_eq!(TokenId(id).to_string(), text);
            assert_eq!(text.parse(), Ok(TokenId(id)));
        }
        for bad in ["", "0", "0000000000-", "LygHa16AHYG", "000000000000", "lv1_0000000"] {
            assert_eq!(bad.parse::<TokenId>(), Err(InvalidTokenId), "{bad}");
        }
    }

    #[test]
    fn names_that_dead_letter_topics_use_are_no_subscriptions() {
        assert!("publish".parse::<SubscriptionName>().is_err());
        assert!("route-x".parse::<SubscriptionName>().is_err());
        assert!("payment".parse::<SubscriptionName>().is_ok());
        assert!("pay.ment".parse::<SubscriptionName>().is_err());
    }
}
