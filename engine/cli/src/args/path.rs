//! Which subscription or transaction is meant, as it is typed.

use std::{fmt, str::FromStr};

use clap::{ArgMatches, Command, FromArgMatches, error::ErrorKind};
use levada_protocol::ids::{GroupName, SubscriptionName, TopicName, TransactionId};

use super::values::parse_any_topic;

/// A subscription of a topic: `TOPIC/SUBSCRIPTION`, or `TOPIC -s SUBSCRIPTION`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SubscriptionPath {
    pub(crate) topic: TopicName,
    pub(crate) name: SubscriptionName,
}

/// The arguments in which it is typed.
#[derive(Debug, clap::Args)]
struct Typed {
    /// The subscription: TOPIC/SUBSCRIPTION, or TOPIC with --subscription
    #[arg(value_name = "TOPIC/SUBSCRIPTION")]
    path: TypedPath,
    /// The subscription's name, if only the topic is given before: up to 63 of a-z 0-9 _ - beginning with a letter or
    /// digit
    #[arg(long, short, value_name = "S")]
    subscription: Option<SubscriptionName>,
}

#[derive(Debug, Clone)]
struct TypedPath {
    topic: TopicName,
    name: Option<SubscriptionName>,
}

impl FromStr for TypedPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (topic, name) = match text.split_once('/') {
            None => (text, None),
            Some((topic, name)) => (topic, Some(name.parse().map_err(|error| format!("{error}"))?)),
        };
        Ok(Self { topic: parse_any_topic(topic)?, name })
    }
}

impl FromArgMatches for SubscriptionPath {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let Typed { path: TypedPath { topic, name }, subscription } = Typed::from_arg_matches(matches)?;
        match (name, subscription) {
            (Some(name), None) | (None, Some(name)) => Ok(Self { topic, name }),
            (Some(name), Some(flag)) if name == flag => Ok(Self { topic, name }),
            (Some(name), Some(flag)) => Err(clap::Error::raw(
                ErrorKind::ArgumentConflict,
                format!("expected one subscription, got {topic}/{name} and --subscription {flag}\n"),
            )),
            (None, None) => Err(clap::Error::raw(
                ErrorKind::MissingRequiredArgument,
                format!(
                    "expected TOPIC/SUBSCRIPTION, or TOPIC with --subscription, got only the topic {topic}\n"
                ),
            )),
        }
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for SubscriptionPath {
    fn augment_args(command: Command) -> Command {
        Typed::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Typed::augment_args_for_update(command)
    }
}

/// A transaction of a producer group: `GROUP/ID`. The id may hold a slash, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TransactionPath {
    pub(crate) group: GroupName,
    pub(crate) id: TransactionId,
}

impl FromStr for TransactionPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (group, id) = text
            .split_once('/')
            .ok_or_else(|| format!("expected GROUP/ID, such as shop/order-42, got {text:?}"))?;
        let group = group.parse().map_err(|error| format!("{error}"))?;
        Ok(Self { group, id: id.parse().map_err(|error| format!("{error}"))? })
    }
}

impl TransactionPath {
    /// As it is typed in a shell.
    pub(crate) fn typed(&self) -> String {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@+,=".contains(&byte);
        let text = self.to_string();
        if text.bytes().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
    }
}

impl fmt::Display for TransactionPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.group, self.id)
    }
}
