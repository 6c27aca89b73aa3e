//! What exists: topics, subscriptions, routes, plugin versions. Records alone, without anything that lives: the shard's
//! writer decides the next catalogue from the one before, and publishes it once it is durable. What lives beside
//! it, such as a topic's newest batches, follows its events.

mod change;
mod event;
pub(crate) mod identities;
mod identity_change;
mod names;
mod plugins;
mod push_change;
pub(crate) mod readers;
mod removal;

use std::{collections::BTreeMap, sync::Arc};

use levada_protocol::{
    access::Scope,
    error::ErrorCode,
    ids::{PluginName, RouteId, RouteName, SubscriptionId, SubscriptionName, TopicId, TopicName},
};
use levada_store::Store;

pub(crate) use self::{
    change::{Change, Decided},
    event::CatalogueEvent,
    identities::Identities,
    identity_change::{DrawnToken, IdentityChange},
    push_change::PushChange,
    removal::{Removal, Root},
};
use self::{names::Names, plugins::Plugins, readers::Readers};
use crate::{
    error::Error,
    rows::{
        self, CatalogueRow, NextId, PluginRecord, PushRecord, RouteRecord, SubscriptionRecord, TopicRecord,
    },
    words::counted,
};

/// Everything that has a name. A copy is cheap; one that is changed pays for the kind of records that changes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Catalogue {
    pub(crate) topics: Names<TopicName, TopicId, TopicRecord>,
    pub(crate) subscriptions: Names<(TopicName, SubscriptionName), SubscriptionId, SubscriptionRecord>,
    pub(crate) routes: Names<RouteName, RouteId, RouteRecord>,
    pub(crate) plugins: Plugins,
    pub(crate) identities: Identities,
    /// Where deliveries are pushed, by the id of their subscription.
    pub(crate) pushes: Arc<BTreeMap<SubscriptionId, Arc<PushRecord>>>,
    /// Who reads which topic.
    pub(crate) readers: Readers,
    /// The id that is given out next.
    next_id: u64,
}

impl Catalogue {
    /// Reads the stored catalogue. Blocks on the disk.
    ///
    /// # Errors
    /// If a record is damaged or of a later release.
    pub(crate) fn load(store: &dyn Store) -> Result<Self, Error> {
        let next_id = rows::get::<NextId>(store, &())?.map_or(1, |next| next.0);
        let mut catalogue = Self { next_id, ..Self::default() };
        for row in rows::scan_catalogue(store)? {
            match row {
                CatalogueRow::Topic(record) => {
                    catalogue.topics.insert(record.name.clone(), record.id(), Arc::new(record));
                }
                CatalogueRow::Subscription(record) => {
                    let name = (record.topic.clone(), record.name.clone());
                    catalogue.readers.toggle_subscription(&record);
                    catalogue.subscriptions.insert(name, SubscriptionId(record.id), Arc::new(record));
                }
                CatalogueRow::Plugin(record) => catalogue.plugins.restore_version(record),
                CatalogueRow::PluginLine(record) => catalogue.plugins.restore_line(record),
                CatalogueRow::Principal(record) => catalogue.identities.put_principal(Arc::new(record)),
                CatalogueRow::Push(record) => {
                    let id = SubscriptionId(record.subscription);
                    Arc::make_mut(&mut catalogue.pushes).insert(id, Arc::new(record));
                }
                CatalogueRow::Token(record) => catalogue.identities.put_token(Arc::new(record)),
                CatalogueRow::Route(record) => {
                    catalogue.readers.toggle_route(&record);
                    catalogue.routes.insert(record.spec.name.clone(), RouteId(record.id), Arc::new(record));
                }
            }
        }
        Ok(catalogue)
    }

    /// The topic of this name.
    pub(crate) fn topic(&self, name: &TopicName) -> Result<&Arc<TopicRecord>, Error> {
        self.topics.get(name).ok_or_else(|| no_topic(name))
    }

    /// The subscription of this name.
    pub(crate) fn subscription(
        &self,
        topic: &TopicName,
        name: &SubscriptionName,
    ) -> Result<&Arc<SubscriptionRecord>, Error> {
        self.topic(topic)?;
        self.subscriptions.get(&(topic.clone(), name.clone())).ok_or_else(|| no_subscription(topic, name))
    }

    /// Whose dead letters go to this topic.
    pub(crate) fn dead_letters_from(&self, topic: &TopicName) -> Option<Root> {
        let (source, origin) = topic.as_str().strip_prefix("dlq.")?.rsplit_once('.')?;
        match origin.strip_prefix("route-") {
            Some(name) => {
                let name: RouteName = name.parse().ok()?;
                let found = self.routes.get(&name).filter(|route| route.spec.from == source)?;
                Some(Root::Route(found.spec.name.clone()))
            }
            None => {
                let key = (TopicName::parse_any(source).ok()?, origin.parse().ok()?);
                self.subscriptions.contains(&key).then_some(Root::Subscription(key.0, key.1))
            }
        }
    }

    /// The route of this name.
    pub(crate) fn route(&self, name: &RouteName) -> Result<&Arc<RouteRecord>, Error> {
        self.routes.get(name).ok_or_else(|| no_route(name))
    }

    /// The subscriptions and routes whose chains use this version: by its number, or as the active one.
    pub(crate) fn users_of(&self, plugin: &PluginRecord, may_see: impl Fn(&Scope) -> bool) -> Vec<String> {
        let mut all = self.scopes_of(plugin, self.plugins.is_active(plugin));
        all.retain(may_see);
        all.iter().map(named).collect()
    }

    /// The versions of a plugin that go with this one, or with all, if nothing needs them.
    ///
    /// # Errors
    /// `PLUGIN_NOT_FOUND`; `PLUGIN_IN_USE`, which names what needs it that `sees` is true for.
    pub(crate) fn removable(
        &self,
        name: &PluginName,
        version: Option<u32>,
        sees: impl Fn(&Scope) -> bool,
    ) -> Result<Vec<Arc<PluginRecord>>, Error> {
        let is_chosen = |record: &&Arc<PluginRecord>| version.is_none_or(|version| version == record.version);
        let chosen: Vec<Arc<PluginRecord>> = self.plugins.versions(name).filter(is_chosen).cloned().collect();
        if chosen.is_empty() {
            let version = version.map_or(String::new(), |version| format!("@{version}"));
            let message = format!("there is no plugin {name}{version}");
            return Err(Error::refused(ErrorCode::PluginNotFound, message));
        }
        // Attachments that follow the active version continue with the newest that is left, if there is one.
        let all = chosen.len() == self.plugins.versions(name).count();
        let attached: Vec<Scope> = chosen.iter().flat_map(|record| self.scopes_of(record, all)).collect();
        let masked = chosen.iter().map(|record| self.identities.masked_by(record, all)).sum::<usize>();
        let mut stranded = Vec::new();
        if !attached.is_empty() {
            stranded.push(removal::listed_to("attachment", &attached, sees, named));
        }
        if masked > 0 {
            // Their names are for administrators alone.
            stranded.push(format!("what {} may read", counted(masked as u64, "principal")));
        }
        if stranded.is_empty() {
            return Ok(chosen);
        }
        let message = format!(
            "plugin {name} is in use: {} would be left without it; delete those first",
            stranded.join(" and ")
        );
        Err(Error::refused(ErrorCode::PluginInUse, message))
    }

    /// The subscriptions and routes that name this version, or with `unpinned` the plugin without a version.
    fn scopes_of(&self, plugin: &PluginRecord, unpinned: bool) -> Vec<Scope> {
        let pinned = format!("{}@{}", plugin.name, plugin.version);
        let uses = |chain: &[levada_protocol::request::StageSpec]| {
            chain
                .iter()
                .any(|stage| stage.plugin == pinned || (unpinned && plugin.name == stage.plugin.as_str()))
        };
        let subscriptions = self.subscriptions.values().filter(|record| uses(record.options.chain()));
        let routes = self.routes.values().filter(|record| uses(&record.spec.chain));
        subscriptions
            .map(|record| Scope::Subscription(record.topic.clone(), record.name.clone()))
            .chain(routes.map(|record| Scope::Route(record.spec.name.clone())))
            .collect()
    }

    /// How many records there are; plugins without a version and principals have limits of their own.
    pub(crate) fn len(&self) -> usize {
        self.topics.len() + self.subscriptions.len() + self.routes.len() + self.plugins.len()
    }
}

/// An attachment point as refusals and descriptions name it.
fn named(attachment: &Scope) -> String {
    match attachment {
        Scope::Subscription(topic, name) => format!("{topic}/{name}"),
        other => other.to_string(),
    }
}

/// What is said of a thing that does not exist, or that the caller may not browse; `None` for what has no record of its own.
pub(crate) fn absent(scope: &Scope, may_browse: impl Fn(&Scope) -> bool) -> Option<Error> {
    match scope {
        Scope::Topic(name) => Some(no_topic(name)),
        Scope::Subscription(topic, name) if may_browse(&Scope::Topic(topic.clone())) => {
            Some(no_subscription(topic, name))
        }
        Scope::Subscription(topic, _) => Some(no_topic(topic)),
        Scope::Route(name) => Some(no_route(name)),
        Scope::Engine | Scope::Plugin(_) | Scope::Group(_) => None,
    }
}

fn no_topic(name: &TopicName) -> Error {
    Error::refused(ErrorCode::TopicNotFound, format!("there is no topic {name}"))
}

fn no_subscription(topic: &TopicName, name: &SubscriptionName) -> Error {
    let message = format!("topic {topic} has no subscription {name}");
    Error::refused(ErrorCode::SubscriptionNotFound, message)
}

fn no_route(name: &RouteName) -> Error {
    Error::refused(ErrorCode::RouteNotFound, format!("there is no route {name}"))
}

#[cfg(test)]
mod tests;
