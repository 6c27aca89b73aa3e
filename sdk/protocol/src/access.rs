//! The permissions that a call requires, derived from stream openings and requests, and only here.
//!
//! The engine decides who has them.

use std::fmt;

use crate::{
    dead_letters::DeadLettersOf,
    ids::{GroupName, PluginName, RouteName, SubscriptionName, TopicName},
    request::{Open, Read, Redrive, Request, Subscribe, Transact, TransactionAcks},
};

/// An action that needs a permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Append events to a topic.
    Publish,
    /// Be a consumer of a subscription, which is created if that is requested.
    Subscribe,
    /// Read stored events, payloads among them, without a subscription: as they are stored, or as the plugins of the caller's
    /// permission leave them.
    Read,
    /// Read stored events as they are stored. No permission names it: those to read that name no plugins allow it.
    ReadUnmasked,
    /// See names, settings and statistics; no events.
    Browse,
    /// Create, change, move, pause, resume, purge and delete topics, subscriptions and routes.
    Manage,
    /// Read, redrive and purge the dead letters of a subscription or a route.
    Redrive,
    /// Deploy and remove plugins.
    Deploy,
    /// Everything, and alone: create, change and delete principals and their tokens.
    Admin,
}

impl Action {
    /// All actions.
    pub const ALL: [Self; 9] = [
        Self::Publish,
        Self::Subscribe,
        Self::Read,
        Self::ReadUnmasked,
        Self::Browse,
        Self::Manage,
        Self::Redrive,
        Self::Deploy,
        Self::Admin,
    ];

    /// Those that permissions name.
    pub const VERBS: [Self; 8] = [
        Self::Publish,
        Self::Subscribe,
        Self::Read,
        Self::Browse,
        Self::Manage,
        Self::Redrive,
        Self::Deploy,
        Self::Admin,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Read => "read",
            Self::ReadUnmasked => "read unmasked",
            Self::Browse => "browse",
            Self::Manage => "manage",
            Self::Redrive => "redrive",
            Self::Deploy => "deploy",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The resource of an action.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The engine as a whole: its state, and lists of everything.
    Engine,
    /// A topic.
    Topic(TopicName),
    /// A subscription of a topic.
    Subscription(TopicName, SubscriptionName),
    /// A route.
    Route(RouteName),
    /// A plugin, in all versions.
    Plugin(PluginName),
    /// A producer group, with its transactions.
    Group(GroupName),
}

impl Scope {
    /// The kind of thing.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::Topic(_) => "topic",
            Self::Subscription(..) => "subscription",
            Self::Route(_) => "route",
            Self::Plugin(_) => "plugin",
            Self::Group(_) => "group",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine => f.write_str("the engine"),
            Self::Topic(name) => write!(f, "topic {name}"),
            Self::Subscription(topic, name) => write!(f, "subscription {topic}/{name}"),
            Self::Route(name) => write!(f, "route {name}"),
            Self::Plugin(name) => write!(f, "plugin {name}"),
            Self::Group(name) => write!(f, "producer group {name}"),
        }
    }
}

/// One thing that a caller must be allowed to do.
pub type Requirement = (Action, Scope);

/// A call of the engine.
pub trait Requires {
    /// All that the caller must be allowed to do. Empty for what the engine does not know, and for the hello.
    fn required(&self) -> Vec<Requirement>;
}

impl Requires for Open {
    fn required(&self) -> Vec<Requirement> {
        match self {
            Self::Publish { topic, .. } => vec![publishing(topic)],
            Self::Subscribe(subscribe) => subscribe.required(),
            Self::Read(read) => read.required(),
            Self::Request(envelope) => envelope.request.required(),
            Self::CheckBacks { group, .. } => vec![deciding(group)],
            Self::Hello(_) | Self::Unknown => Vec::new(),
        }
    }
}

impl Requires for Redrive {
    fn required(&self) -> Vec<Requirement> {
        let to = self.to.iter().map(publishing);
        [redriving(&self.topic)].into_iter().chain(to).collect()
    }
}

impl Requires for Subscribe {
    fn required(&self) -> Vec<Requirement> {
        vec![(Action::Subscribe, Scope::Subscription(self.topic.clone(), self.subscription.clone()))]
    }
}

impl Requires for Read {
    fn required(&self) -> Vec<Requirement> {
        vec![(Action::Read, Scope::Topic(self.topic.clone()))]
    }
}

impl Requires for Transact {
    fn required(&self) -> Vec<Requirement> {
        let acking = |acks: &TransactionAcks| {
            let (topic, name) = (acks.topic.clone(), acks.subscription.clone());
            (Action::Subscribe, Scope::Subscription(topic, name))
        };
        let published = self.topics.iter().map(publishing);
        published.chain([deciding(&self.group)]).chain(self.acks.iter().map(acking)).collect()
    }
}

impl Requires for Request {
    fn required(&self) -> Vec<Requirement> {
        let topic = |action, name: &TopicName| vec![(action, Scope::Topic(name.clone()))];
        let subscription = |action, topic: &TopicName, name: &SubscriptionName| {
            vec![(action, Scope::Subscription(topic.clone(), name.clone()))]
        };
        let route = |name: &RouteName| (Action::Manage, Scope::Route(name.clone()));
        match self {
            Self::Info | Self::ListTopics { .. } | Self::ListPlugins { .. } | Self::ListRoutes { .. } => {
                vec![(Action::Browse, Scope::Engine)]
            }
            Self::ListSubscriptions { topic: None, .. } => vec![(Action::Browse, Scope::Engine)],
            Self::ListSubscriptions { topic: Some(name), .. } | Self::DescribeTopic { name } => {
                topic(Action::Browse, name)
            }
            Self::CreateTopic { name, .. } | Self::SetTopic { name, .. } | Self::DeleteTopic { name, .. } => {
                topic(Action::Manage, name)
            }
            Self::DescribeSubscription { topic, name } => subscription(Action::Browse, topic, name),
            Self::CreateSubscription { topic, name, .. }
            | Self::DeleteSubscription { topic, name, .. }
            | Self::SetSubscription { topic, name, .. }
            | Self::SeekSubscription { topic, name, .. }
            | Self::PauseSubscription { topic, name }
            | Self::ResumeSubscription { topic, name }
            | Self::RemovePush { topic, name } => subscription(Action::Manage, topic, name),
            // It sends events where its maker says, who must be allowed to read them by hand.
            Self::SetPush(set) => vec![
                (Action::Manage, Scope::Subscription(set.topic.clone(), set.name.clone())),
                (Action::Subscribe, Scope::Subscription(set.topic.clone(), set.name.clone())),
            ],
            // Keys and ids are shown, which are part of events.
            Self::ListScheduled { topic, .. } | Self::DescribeScheduled { topic, .. } => {
                vec![reading_unmasked(topic)]
            }
            // Who may publish an event may take it back.
            Self::CancelScheduled { topic, .. } => vec![publishing(topic)],
            Self::DeployPlugin { name, .. } | Self::RemovePlugin { name, .. } => {
                vec![(Action::Deploy, Scope::Plugin(name.clone()))]
            }
            // It moves events for its maker, who must be allowed to do so by hand.
            Self::CreateRoute(spec) => [route(&spec.name), reading_unmasked(&spec.from)]
                .into_iter()
                .chain(spec.to.iter().map(publishing))
                .collect(),
            Self::DeleteRoute { name, .. } | Self::ResumeRoute { name } => vec![route(name)],
            Self::ListDeadLetters { topic: None, .. } => vec![(Action::Browse, Scope::Engine)],
            Self::ListDeadLetters { topic: Some(name), .. } => topic(Action::Browse, name),
            // The errors in it may quote payloads.
            Self::GroupDeadLetters(group) => vec![reading_unmasked(&group.topic)],
            // It names offsets of other topics.
            Self::ListRedrives { topic, .. } => vec![reading_unmasked(topic)],
            Self::Redrive(redrive) => redrive.required(),
            Self::PurgeDeadLetters(purge) => vec![redriving(&purge.topic)],
            Self::PurgeTopic(purge) => topic(Action::Manage, &purge.topic),
            Self::Transact(transact) => transact.required(),
            // Who prepared it was allowed to publish its events.
            Self::DecideTransaction(decide) => vec![deciding(&decide.group)],
            Self::ListTransactions(list) => {
                vec![(Action::Browse, list.group.clone().map_or(Scope::Engine, Scope::Group))]
            }
            Self::DescribeTransaction { group, .. } => vec![(Action::Browse, Scope::Group(group.clone()))],
            // Who takes a name over shuts its owner out, as whoever may publish could.
            Self::OpenProducer { topic, .. } => vec![publishing(topic)],
            Self::CreatePrincipal(_)
            | Self::ChangePrincipal(_)
            | Self::DeletePrincipal { .. }
            | Self::ListPrincipals { .. }
            | Self::DescribePrincipal { name: Some(_) }
            | Self::CreateToken(_)
            | Self::ListTokens { .. }
            | Self::RevokeToken { .. } => vec![(Action::Admin, Scope::Engine)],
            // Of the caller.
            Self::DescribePrincipal { name: None } => vec![(Action::Browse, Scope::Engine)],
            Self::Unknown => Vec::new(),
        }
    }
}

/// What a stream of publishes to a topic requires.
pub fn publishing(topic: &TopicName) -> Requirement {
    (Action::Publish, Scope::Topic(topic.clone()))
}

/// What answering for a producer group requires: to make its transactions, to decide them, and to be asked about them.
pub fn deciding(group: &GroupName) -> Requirement {
    (Action::Publish, Scope::Group(group.clone()))
}

/// What handling the dead letters in a topic requires.
fn redriving(topic: &TopicName) -> Requirement {
    (Action::Redrive, source_of_dead_letters(topic).unwrap_or_else(|| Scope::Topic(topic.clone())))
}

/// The subscription or route whose dead letters a topic holds; `None` if it is no dead-letter topic.
pub fn source_of_dead_letters(topic: &TopicName) -> Option<Scope> {
    let of = DeadLettersOf::of(topic)?;
    match of.route() {
        Some(route) => Some(Scope::Route(route.parse().ok()?)),
        None => Some(Scope::Subscription(TopicName::parse_any(of.topic()).ok()?, of.name().parse().ok()?)),
    }
}

/// What seeing a topic's events as they are stored requires.
pub fn reading_unmasked(topic: &TopicName) -> Requirement {
    (Action::ReadUnmasked, Scope::Topic(topic.clone()))
}
