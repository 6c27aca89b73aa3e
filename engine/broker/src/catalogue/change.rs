//! Changes of the catalogue: decided by the shard's writer against the newest snapshot, one at a time.

use std::sync::Arc;

use levada_delivery::progress::Head;
use levada_protocol::{
    error::ErrorCode,
    ids::{
        Offset, PartitionId, PluginName, RouteId, RouteName, SubscriptionId, SubscriptionName, Timestamp,
        TopicId, TopicName,
    },
    limits::PARTITIONS_MAX,
    publish::Durability,
    request::{RouteSpec, SubscriptionOptions, TopicChanges, TopicSettings},
};
use levada_store::{Family, Op, record::LogRange};

use super::{Catalogue, Removal, Root, listed};
use crate::{
    dead_letters,
    error::Error,
    reclaim,
    rows::{
        self, LogStart, NextId, PluginNumbers, PluginRecord, RouteCursor, RouteRecord, Row, Segment, Setback,
        SubscriptionRecord, TopicRecord,
    },
    tail::TailBudget,
    topic::{Extent, Topic},
};

/// How many removed plugins have their last number remembered, so that none is given twice.
const PLUGIN_NUMBERS_MAX: usize = 100_000;

/// A change that somebody asked for. Names and options were parsed; whether it is possible is decided here.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    CreateTopic {
        name: TopicName,
        settings: TopicSettings,
        owner: String,
    },
    SetTopic {
        name: TopicName,
        changes: TopicChanges,
    },
    Delete {
        root: Root,
        /// Also if it takes something along, or something needs it.
        force: bool,
        with_dead_letters: bool,
    },
    CreateSubscription {
        topic: TopicName,
        name: SubscriptionName,
        options: SubscriptionOptions,
        positions: Vec<Offset>,
        owner: String,
    },
    DeployPlugin {
        name: PluginName,
        sha256: String,
        size: u64,
        interface: String,
        owner: String,
    },
    RemovePlugin {
        name: PluginName,
        version: Option<u32>,
    },
    CreateRoute {
        spec: RouteSpec,
        name: RouteName,
        positions: Vec<Offset>,
        owner: String,
    },
}

/// A change that was found possible: what to store, and what exists once that is durable.
#[derive(Debug)]
pub(crate) struct Decided {
    pub(crate) ops: Vec<Op>,
    pub(crate) next: Catalogue,
    /// Topics that were made or are no more, for the writer's own tables.
    pub(crate) topics: Vec<TopicChange>,
}

/// What a change means for the writer's own tables.
#[derive(Debug, Clone)]
pub(crate) enum TopicChange {
    Created(Arc<Topic>),
    Deleted(Arc<Topic>),
    Settings(Arc<Topic>, TopicSettings),
}

impl Change {
    /// Decides the change against `catalogue` as it stands in the writer.
    pub(crate) fn decide(
        &self,
        catalogue: &Catalogue,
        now: Timestamp,
        budget: &Arc<TailBudget>,
        records_max: usize,
    ) -> Result<Decided, Error> {
        let mut edit = Edit { next: catalogue.clone(), ops: Vec::new(), topics: Vec::new(), now };
        let grows = !matches!(self, Self::SetTopic { .. } | Self::Delete { .. } | Self::RemovePlugin { .. });
        if grows && catalogue.len() >= records_max {
            let message = format!("the catalogue holds {records_max} records, the most it may");
            return Err(Error::refused(ErrorCode::LimitExceeded, message));
        }
        match self {
            Self::CreateTopic { name, settings, owner } => {
                edit.create_topic(name, settings, owner, budget)?
            }
            Self::SetTopic { name, changes } => edit.set_topic(name, changes)?,
            Self::Delete { root, force, with_dead_letters } => {
                edit.delete(root, *force, *with_dead_letters)?;
            }
            Self::CreateSubscription { topic, name, options, positions, owner } => {
                edit.create_subscription(topic, name, options, positions, owner)?;
            }
            Self::DeployPlugin { name, sha256, size, interface, owner } => {
                edit.deploy_plugin(name, sha256, *size, interface, owner)?;
            }
            Self::RemovePlugin { name, version } => edit.remove_plugin(name, *version)?,
            Self::CreateRoute { spec, name, positions, owner } => {
                edit.create_route(spec, name, positions, owner)?;
            }
        }
        Ok(Decided { ops: edit.ops, next: edit.next, topics: edit.topics })
    }
}

/// The next snapshot in the making.
struct Edit {
    next: Catalogue,
    ops: Vec<Op>,
    topics: Vec<TopicChange>,
    now: Timestamp,
}

impl Edit {
    fn take_id(&mut self) -> u64 {
        let id = self.next.next_id.max(1);
        self.next.next_id = id + 1;
        self.ops.push(NextId(id + 1).put(&()));
        id
    }

    fn create_topic(
        &mut self,
        name: &TopicName,
        settings: &TopicSettings,
        owner: &str,
        budget: &Arc<TailBudget>,
    ) -> Result<(), Error> {
        if self.next.topics.contains_key(name) {
            return Err(Error::refused(ErrorCode::TopicExists, format!("topic {name} exists")));
        }
        check_settings(settings)?;
        let id = u32::try_from(self.take_id()).map(TopicId).map_err(|_| {
            Error::refused(ErrorCode::LimitExceeded, "the engine has given out all of its 2^32 topic ids")
        })?;
        let record = TopicRecord {
            id: id.0,
            name: name.to_string(),
            settings: settings.clone(),
            created_ms: self.now.0,
            owner: owner.to_owned(),
        };
        self.ops.push(record.put(&id));
        let extents = vec![Extent::default(); usize::from(settings.partitions)];
        let topic = Arc::new(Topic::new(
            id,
            name.clone(),
            settings.clone(),
            self.now,
            owner.to_owned(),
            &extents,
            budget,
        ));
        self.next.topics.insert(name.clone(), Arc::clone(&topic));
        self.topics.push(TopicChange::Created(topic));
        Ok(())
    }

    fn set_topic(&mut self, name: &TopicName, changes: &TopicChanges) -> Result<(), Error> {
        let topic = Arc::clone(self.next.topic(name)?);
        let settings = changes.of(&topic.settings());
        check_settings(&settings)?;
        if usize::from(settings.partitions) != topic.partitions.len() {
            let message = format!(
                "topic {name} has {} partitions, got {}; their number cannot be changed",
                topic.partitions.len(),
                settings.partitions
            );
            return Err(Error::refused(ErrorCode::InvalidArgument, message));
        }
        let record = TopicRecord {
            id: topic.id.0,
            name: name.to_string(),
            settings: settings.clone(),
            created_ms: topic.created.0,
            owner: topic.owner.clone(),
        };
        self.ops.push(record.put(&topic.id));
        self.topics.push(TopicChange::Settings(topic, settings));
        Ok(())
    }

    /// Deletes what was asked for with what goes along.
    fn delete(&mut self, root: &Root, force: bool, with_dead_letters: bool) -> Result<(), Error> {
        let removal = Removal::of(&self.next, root, with_dead_letters)?;
        if !force {
            removal.check(&self.next, root)?;
        }
        for (topic, name) in &removal.subscriptions {
            self.delete_subscription(topic, name)?;
        }
        for name in &removal.routes {
            self.delete_route(name)?;
        }
        for name in &removal.topics {
            self.delete_topic(name)?;
        }
        Ok(())
    }

    fn delete_topic(&mut self, name: &TopicName) -> Result<(), Error> {
        let topic = Arc::clone(self.next.topic(name)?);
        self.ops.push(TopicRecord::delete(&topic.id));
        let log = LogRange::topic(topic.id);
        reclaim::drop_rows(&mut self.ops, Family::Log, (log.from, log.to));
        reclaim::drop_rows(&mut self.ops, Family::Producers, rows::producers_of_topic(topic.id));
        self.ops.push(LogStart::delete_range(LogStart::of_topic(topic.id)));
        self.ops.push(Setback::delete_range(Setback::of_topic(topic.id)));
        self.ops.push(Segment::delete_range(Segment::of_topic(topic.id)));
        self.next.topics.remove(name);
        self.topics.push(TopicChange::Deleted(topic));
        Ok(())
    }

    fn create_subscription(
        &mut self,
        topic: &TopicName,
        name: &SubscriptionName,
        options: &SubscriptionOptions,
        positions: &[Offset],
        owner: &str,
    ) -> Result<(), Error> {
        let topic_id = self.next.topic(topic)?.id;
        let key = (topic.clone(), name.clone());
        if self.next.subscriptions.contains_key(&key) {
            let message = format!("topic {topic} has a subscription {name}");
            return Err(Error::refused(ErrorCode::SubscriptionExists, message));
        }
        dead_letters::of_subscription(topic.as_str(), name.as_str())?;
        for stage in options.chain() {
            self.next.plugin(&stage.plugin)?;
        }
        let id = SubscriptionId(self.take_id());
        let record = SubscriptionRecord {
            id: id.0,
            topic_id: topic_id.0,
            topic: topic.clone(),
            name: name.clone(),
            options: options.clone(),
            positions: positions.iter().map(|offset| offset.0).collect(),
            created_ms: self.now.0,
            owner: owner.to_owned(),
        };
        self.ops.push(record.put(&id));
        self.next.subscriptions.insert(key, Arc::new(record));
        Ok(())
    }

    fn delete_subscription(&mut self, topic: &TopicName, name: &SubscriptionName) -> Result<(), Error> {
        let id = SubscriptionId(self.next.subscription(topic, name)?.id);
        self.ops.push(SubscriptionRecord::delete(&id));
        self.ops.push(Head::delete_range(rows::progress_of_subscription(id)));
        self.next.subscriptions.remove(&(topic.clone(), name.clone()));
        Ok(())
    }

    fn deploy_plugin(
        &mut self,
        name: &PluginName,
        sha256: &str,
        size: u64,
        interface: &str,
        owner: &str,
    ) -> Result<(), Error> {
        let last = self.last_version(name);
        if last == 0 && self.next.plugin_numbers.len() >= PLUGIN_NUMBERS_MAX {
            let message = format!(
                "{PLUGIN_NUMBERS_MAX} plugins were removed, whose names the engine must remember: deploy under a name that was used before"
            );
            return Err(Error::refused(ErrorCode::LimitExceeded, message));
        }
        let version = last.saturating_add(1);
        let id = self.take_id();
        let record = PluginRecord {
            id,
            name: name.clone(),
            version,
            sha256: sha256.to_owned(),
            size,
            interface: interface.to_owned(),
            created_ms: self.now.0,
            owner: owner.to_owned(),
        };
        self.ops.push(record.put(&id));
        self.next.plugins.insert((name.clone(), version), Arc::new(record));
        Ok(())
    }

    /// The last number that was given to a version of the plugin, 0 if none was.
    fn last_version(&self, name: &PluginName) -> u32 {
        let newest = self.next.plugins.range((name.clone(), 0)..=(name.clone(), u32::MAX)).next_back();
        let newest = newest.map_or(0, |((_, version), _)| *version);
        self.next.plugin_numbers.get(name).map_or(newest, |last| newest.max(*last))
    }

    fn remove_plugin(&mut self, name: &PluginName, version: Option<u32>) -> Result<(), Error> {
        let chosen: Vec<Arc<PluginRecord>> = self
            .next
            .plugins
            .range((name.clone(), 0)..=(name.clone(), u32::MAX))
            .filter(|((_, found), _)| version.is_none_or(|version| version == *found))
            .map(|(_, record)| Arc::clone(record))
            .collect();
        if chosen.is_empty() {
            let version = version.map_or(String::new(), |version| format!("@{version}"));
            let message = format!("there is no plugin {name}{version}");
            return Err(Error::refused(ErrorCode::PluginNotFound, message));
        }
        let stranded = self.next.stranded_by(name.as_str(), &chosen);
        if !stranded.is_empty() {
            let places = listed("place", stranded);
            let message =
                format!("plugin {name} is in use: {places} would be left without it; delete those first");
            return Err(Error::refused(ErrorCode::PluginInUse, message));
        }
        let last = self.last_version(name);
        if chosen.iter().any(|record| record.version == last) {
            let numbers = PluginNumbers { name: name.to_string(), last };
            self.ops.push(numbers.put(&numbers.name));
            self.next.plugin_numbers.insert(name.clone(), last);
        }
        for record in chosen {
            self.ops.push(PluginRecord::delete(&record.id));
            self.next.plugins.remove(&(name.clone(), record.version));
        }
        Ok(())
    }

    fn create_route(
        &mut self,
        spec: &RouteSpec,
        name: &RouteName,
        positions: &[Offset],
        owner: &str,
    ) -> Result<(), Error> {
        if self.next.routes.contains_key(name) {
            return Err(Error::refused(ErrorCode::RouteExists, format!("route {name} exists")));
        }
        let source_id = self.next.topic(&spec.from)?.id;
        dead_letters::of_route(spec.from.as_str(), name.as_str())?;
        for target in &spec.to {
            self.next.topic(target)?;
            if let Some(path) = self.path(target, &spec.from) {
                let message = format!("route {name} would close a circle: {} -> {path}", spec.from);
                return Err(Error::refused(ErrorCode::RouteCycle, message));
            }
        }
        for stage in &spec.chain {
            self.next.plugin(&stage.plugin)?;
        }
        let id = RouteId(self.take_id());
        let record = RouteRecord {
            id: id.0,
            source_id: source_id.0,
            spec: spec.clone(),
            positions: positions.iter().map(|offset| offset.0).collect(),
            created_ms: self.now.0,
            owner: owner.to_owned(),
        };
        self.ops.push(record.put(&id));
        for (number, offset) in (0..).zip(positions) {
            self.ops.push(RouteCursor(*offset).put(&(id, PartitionId(number))));
        }
        self.next.routes.insert(name.clone(), Arc::new(record));
        Ok(())
    }

    /// The topics that routes lead through from `from` to `to`, if they do.
    fn path(&self, from: &TopicName, to: &TopicName) -> Option<String> {
        let mut open = vec![vec![from.clone()]];
        let mut seen = std::collections::HashSet::new();
        while let Some(path) = open.pop() {
            let last = path.last().expect("a path begins with its first topic").clone();
            if last == *to {
                let names: Vec<&str> = path.iter().map(TopicName::as_str).collect();
                return Some(names.join(" -> "));
            }
            if seen.insert(last.clone()) {
                let routes = self.next.routes.values().filter(|route| route.spec.from == last);
                for target in routes.flat_map(|route| &route.spec.to) {
                    let mut longer = path.clone();
                    longer.push(target.clone());
                    open.push(longer);
                }
            }
        }
        None
    }

    fn delete_route(&mut self, name: &RouteName) -> Result<(), Error> {
        let id = RouteId(self.next.route(name)?.id);
        self.ops.push(RouteRecord::delete(&id));
        self.ops.push(RouteCursor::delete_range(RouteCursor::of_route(id)));
        self.next.routes.remove(name);
        Ok(())
    }
}

fn check_settings(settings: &TopicSettings) -> Result<(), Error> {
    let invalid = |message: String| Err(Error::refused(ErrorCode::InvalidArgument, message));
    if settings.partitions == 0 || settings.partitions > PARTITIONS_MAX {
        return invalid(format!("partitions are {}, expected 1 to {PARTITIONS_MAX}", settings.partitions));
    }
    if settings.durability == Durability::Unknown {
        return invalid("durability is not known to this engine, expected sync or os".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use levada_protocol::{ids::Timestamp, limits::TOPIC_NAME_BYTES_MAX};

    use super::*;

    fn decide(catalogue: &Catalogue, change: &Change) -> Result<Catalogue, Error> {
        let decided = change.decide(catalogue, Timestamp(1), &TailBudget::new(1), 100)?;
        Ok(decided.next)
    }

    #[test]
    fn a_place_whose_dead_letters_could_have_no_topic_is_refused_and_others_can_go() {
        let owner = || "somebody".to_owned();
        let longest = "t".repeat(TOPIC_NAME_BYTES_MAX);
        let source = TopicName::parse_any(&format!("dlq.{longest}.{}", "s".repeat(63))).unwrap();
        let topic =
            Change::CreateTopic { name: source.clone(), settings: TopicSettings::default(), owner: owner() };
        let catalogue = decide(&Catalogue::default(), &topic).unwrap();
        let subscription = |name: &str| Change::CreateSubscription {
            topic: source.clone(),
            name: name.parse().unwrap(),
            options: SubscriptionOptions::default(),
            positions: vec![Offset(0)],
            owner: owner(),
        };
        let refused = decide(&catalogue, &subscription(&"s".repeat(63))).unwrap_err();
        assert_eq!(refused.code(), ErrorCode::InvalidName);
        assert!(refused.to_string().contains("choose a shorter name"), "{refused}");
        let route = Change::CreateRoute {
            spec: RouteSpec::new("r".repeat(63).parse().unwrap(), source.clone(), []),
            name: "r".repeat(63).parse().unwrap(),
            positions: vec![Offset(0)],
            owner: owner(),
        };
        assert_eq!(decide(&catalogue, &route).unwrap_err().code(), ErrorCode::InvalidName);
        let with_short = decide(&catalogue, &subscription("s")).unwrap();
        let delete =
            Change::Delete { root: Root::Topic(source.clone()), force: true, with_dead_letters: true };
        assert!(decide(&with_short, &delete).unwrap().topics.is_empty());
    }
}
