//! What exists: topics, subscriptions, routes, plugin versions. An immutable snapshot that everybody shares;
//! the shard's writer makes the next one and shows it once it is durable.

mod change;
mod removal;

use std::{collections::BTreeMap, sync::Arc};

use levada_protocol::{
    error::ErrorCode,
    ids::{PluginName, RouteName, SubscriptionName, TopicName},
};

pub(crate) use self::{
    change::{Change, Decided, TopicChange},
    removal::{Removal, Root, listed},
};
use crate::{
    error::Error,
    rows::{PluginRecord, RouteRecord, SubscriptionRecord},
    topic::Topic,
};

/// A snapshot of everything that has a name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Catalogue {
    pub(crate) topics: BTreeMap<TopicName, Arc<Topic>>,
    pub(crate) subscriptions: BTreeMap<(TopicName, SubscriptionName), Arc<SubscriptionRecord>>,
    pub(crate) routes: BTreeMap<RouteName, Arc<RouteRecord>>,
    pub(crate) plugins: BTreeMap<(PluginName, u32), Arc<PluginRecord>>,
    /// The last version number of plugins whose newest version was removed.
    pub(crate) plugin_numbers: BTreeMap<PluginName, u32>,
    pub(crate) next_id: u64,
}

impl Catalogue {
    /// The topic of this name.
    pub(crate) fn topic(&self, name: &TopicName) -> Result<&Arc<Topic>, Error> {
        self.topics
            .get(name)
            .ok_or_else(|| Error::refused(ErrorCode::TopicNotFound, format!("there is no topic {name}")))
    }

    /// The subscription of this name.
    pub(crate) fn subscription(
        &self,
        topic: &TopicName,
        name: &SubscriptionName,
    ) -> Result<&Arc<SubscriptionRecord>, Error> {
        self.topic(topic)?;
        self.subscriptions.get(&(topic.clone(), name.clone())).ok_or_else(|| {
            let message = format!("topic {topic} has no subscription {name}");
            Error::refused(ErrorCode::SubscriptionNotFound, message)
        })
    }

    /// Whose dead letters go to this topic.
    pub(crate) fn dead_letters_from(&self, topic: &TopicName) -> Option<Root> {
        let (source, place) = topic.as_str().strip_prefix("dlq.")?.rsplit_once('.')?;
        match place.strip_prefix("route-") {
            Some(name) => {
                let name: RouteName = name.parse().ok()?;
                let found = self.routes.get(&name).filter(|route| route.spec.from == source)?;
                Some(Root::Route(found.spec.name.clone()))
            }
            None => {
                let key = (TopicName::parse_any(source).ok()?, place.parse().ok()?);
                self.subscriptions.contains_key(&key).then_some(Root::Subscription(key.0, key.1))
            }
        }
    }

    /// The route of this name.
    pub(crate) fn route(&self, name: &RouteName) -> Result<&Arc<RouteRecord>, Error> {
        self.routes
            .get(name)
            .ok_or_else(|| Error::refused(ErrorCode::RouteNotFound, format!("there is no route {name}")))
    }

    /// The plugin that `name` (the newest version) or `name@version` means.
    pub(crate) fn plugin(&self, reference: &str) -> Result<&Arc<PluginRecord>, Error> {
        let not_found = |message| Error::refused(ErrorCode::PluginNotFound, message);
        let (name, version) = match reference.split_once('@') {
            None => (reference, None),
            Some((name, version)) => {
                let version = version.parse::<u32>().map_err(|_| {
                    let message = format!("plugin reference {reference:?}: expected name or name@version");
                    Error::refused(ErrorCode::InvalidArgument, message)
                })?;
                (name, Some(version))
            }
        };
        let name: PluginName = name.parse()?;
        let mut versions = self.plugins.range((name.clone(), 0)..=(name.clone(), u32::MAX));
        match version {
            None => versions.next_back().ok_or_else(|| not_found(format!("there is no plugin {name}"))),
            Some(version) => versions
                .find(|((_, found), _)| *found == version)
                .ok_or_else(|| not_found(format!("plugin {name} has no version {version}"))),
        }
        .map(|(_, record)| record)
    }

    /// The newest version of a plugin whose artefact has this hash.
    pub(crate) fn plugin_of_bytes(&self, name: &PluginName, sha256: &str) -> Option<&Arc<PluginRecord>> {
        let mut versions = self.plugins.range((name.clone(), 0)..=(name.clone(), u32::MAX));
        versions.rfind(|(_, record)| record.sha256 == sha256).map(|(_, record)| record)
    }

    /// The places whose chains use this version: by its number, or as the newest.
    pub(crate) fn users_of(&self, plugin: &PluginRecord) -> Vec<String> {
        let newest = self.plugin(plugin.name.as_str()).is_ok_and(|newest| newest.id == plugin.id);
        self.places_with(plugin, newest)
    }

    /// The places whose chains would be left without a plugin if these versions went. Those that follow the newest
    /// go back to the one before it, as long as there is one.
    pub(crate) fn stranded_by(&self, name: &str, removed: &[Arc<PluginRecord>]) -> Vec<String> {
        let left = self
            .plugins
            .values()
            .any(|record| record.name == name && !removed.iter().any(|removed| removed.id == record.id));
        removed.iter().flat_map(|record| self.places_with(record, !left)).collect()
    }

    /// The places that name this version, or with `unpinned` the plugin without a version.
    fn places_with(&self, plugin: &PluginRecord, unpinned: bool) -> Vec<String> {
        let pinned = format!("{}@{}", plugin.name, plugin.version);
        let uses = |chain: &[levada_protocol::request::StageSpec]| {
            chain
                .iter()
                .any(|stage| stage.plugin == pinned || (unpinned && plugin.name == stage.plugin.as_str()))
        };
        let subscriptions = self.subscriptions.values().filter(|record| uses(record.options.chain()));
        let routes = self.routes.values().filter(|record| uses(&record.spec.chain));
        subscriptions
            .map(|record| format!("{}/{}", record.topic, record.name))
            .chain(routes.map(|record| format!("route {}", record.spec.name)))
            .collect()
    }

    /// How many records there are; the numbers of removed plugins have a limit of their own.
    pub(crate) fn len(&self) -> usize {
        self.topics.len() + self.subscriptions.len() + self.routes.len() + self.plugins.len()
    }
}
