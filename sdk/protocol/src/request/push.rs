//! Push: deliveries of a subscription that the engine sends to a URL by itself.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{SubscriptionName, TopicName},
    push_secret::PushSecret,
};

/// Sets where a subscription's deliveries are pushed, or changes that. What is not given stays as it is, and has its default
/// where there was no push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetPush {
    /// The topic.
    pub topic: TopicName,
    /// The subscription on it.
    pub name: SubscriptionName,
    /// Where to: an `https` URL. Required where there is no push.
    #[serde(default)]
    pub url: Option<String>,
    /// The secret that signs from now on. `None`: the one that there is; a new one where there is none.
    #[serde(default)]
    pub secret: Option<PushSecret>,
    /// Draws a new secret, which is in the answer and nowhere else. Not together with `secret`.
    #[serde(default)]
    pub new_secret: bool,
    /// For how long the secret before this one signs as well, in milliseconds, so that receivers can change over; `None` means
    /// a day, 0 not at all. At most 30 days. Of no effect unless the secret changes.
    #[serde(default)]
    pub previous_for_ms: Option<u64>,
    /// Most events that the receiver has at a time. Default 32.
    #[serde(default)]
    pub max_in_flight: Option<u32>,
    /// Milliseconds that the receiver has to respond. Default 15,000.
    #[serde(default)]
    pub timeout_ms: Option<u32>,
}

impl SetPush {
    /// A push to this URL, everything else as it is or by default.
    pub fn new(topic: TopicName, name: SubscriptionName, url: Option<String>) -> Self {
        Self {
            topic,
            name,
            url,
            secret: None,
            new_secret: false,
            previous_for_ms: None,
            max_in_flight: None,
            timeout_ms: None,
        }
    }
}

/// A push that was set, with its secret if the engine has drawn one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedPush {
    /// What is shown of it.
    pub push: PushInfo,
    /// The secret that was drawn; it is not shown again.
    #[serde(default)]
    pub secret: Option<PushSecret>,
}

/// How a push gets on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PushState {
    /// Nothing is sent: the subscription is paused, or the push has not begun yet.
    Idle,
    /// The last request succeeded, or there was none yet.
    Active,
    /// The last request failed.
    Failing,
    /// The receiver asked for a pause.
    Throttled,
    /// A state of a newer version.
    #[default]
    #[serde(other)]
    Unknown,
}

impl PushState {
    /// The word used on the wire and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Active => "active",
            Self::Failing => "failing",
            Self::Throttled => "throttled",
            Self::Unknown => "unknown",
        }
    }
}

/// A request to a receiver that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushFailure {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What happened, for a person.
    #[serde(default)]
    pub message: String,
}

/// The description of a push, without its secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushInfo {
    /// Where to.
    pub url: String,
    /// Most events that the receiver has at a time.
    #[serde(default)]
    pub max_in_flight: u32,
    /// Milliseconds that the receiver has to respond.
    #[serde(default)]
    pub timeout_ms: u32,
    /// Until when the secret before this one signs as well, in milliseconds since the Unix epoch; `None`: it does not.
    #[serde(default)]
    pub previous_until_ms: Option<u64>,
    /// When the push was set first, in milliseconds since the Unix epoch.
    #[serde(default)]
    pub created_ms: u64,
    /// Who set it first.
    #[serde(default)]
    pub created_by: String,
    /// How it gets on.
    #[serde(default)]
    pub state: PushState,
    /// Events that the receiver took, since the engine started.
    #[serde(default)]
    pub delivered: u64,
    /// Requests that did not succeed, since the engine started.
    #[serde(default)]
    pub failed: u64,
    /// The last of them.
    #[serde(default)]
    pub last_failure: Option<PushFailure>,
}

impl PushInfo {
    /// A push that was just set.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            max_in_flight: 0,
            timeout_ms: 0,
            previous_until_ms: None,
            created_ms: 0,
            created_by: String::new(),
            state: PushState::default(),
            delivered: 0,
            failed: 0,
            last_failure: None,
        }
    }
}
