//! Changes of the catalogue: decided against a catalogue, one at a time. Deciding is pure: it neither reads nor makes
//! anything but records.

use std::sync::Arc;

use levada_protocol::{
    dead_letters::DeadLettersOf,
    error::ErrorCode,
    event::is_engine_header,
    ids::{
        Offset, PartitionId, PluginName, RouteId, RouteName, SubscriptionId, SubscriptionName, Timestamp,
        TopicId, TopicName,
    },
    limits::{DEDUP_WINDOW_MS_MAX, HEADER_NAME_BYTES_MAX, PARTITIONS_MAX},
    mask::Mask,
    permission::Permission,
    publish::Durability,
    request::{OnFull, Retain, RouteSpec, SubscriptionOptions, TopicChanges, TopicSettings},
};
use levada_store::Op;

use super::{Catalogue, CatalogueEvent, IdentityChange, PushChange, Removal, Root};
use crate::{
    dead_letter_topics,
    error::Error,
    noted::Noted,
    rows::{NextId, PluginRecord, PushRecord, RouteRecord, Row, SubscriptionRecord, TopicRecord},
};

/// How many removed plugins have their last number remembered, so that none is given twice.
const REMOVED_PLUGINS_MAX: usize = 100_000;

/// A requested change. Names and options were parsed; whether it is possible is decided here.
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
    /// Changes the options that are given.
    SetSubscription {
        topic: TopicName,
        name: SubscriptionName,
        options: SubscriptionOptions,
    },
    PauseSubscription {
        topic: TopicName,
        name: SubscriptionName,
        paused: bool,
        /// What the receiver of its pushes said, if that is why.
        push_refusal: Option<String>,
    },
    MoveSubscription {
        topic: TopicName,
        name: SubscriptionName,
        /// The partitions that move, and where to.
        to: Vec<(PartitionId, Offset)>,
    },
    SetPush(PushChange),
    RemovePush {
        topic: TopicName,
        name: SubscriptionName,
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
    Identity(IdentityChange),
    /// Nothing of the catalogue: what is told of it is all there is.
    Noted(Noted),
}

/// A change that was found possible: the catalogue after it, the rows that say so, and what happened.
#[derive(Debug)]
pub(crate) struct Decided {
    pub(crate) next: Catalogue,
    /// The catalogue's own rows; those of what a topic, subscription or route has elsewhere follow from the events.
    pub(crate) ops: Vec<Op>,
    pub(crate) events: Vec<CatalogueEvent>,
}

impl Change {
    /// Decides the change against `catalogue`, which may hold `records_max` records.
    ///
    /// # Errors
    /// Why it is not possible.
    pub(crate) fn decide(
        &self,
        catalogue: &Catalogue,
        now: Timestamp,
        records_max: usize,
    ) -> Result<Decided, Error> {
        let mut edit = Edit { next: catalogue.clone(), ops: Vec::new(), events: Vec::new(), now };
        if self.grows() && catalogue.len() >= records_max {
            let message = format!("the catalogue holds {records_max} records, the most it may");
            return Err(Error::refused(ErrorCode::LimitExceeded, message));
        }
        match self {
            Self::CreateTopic { name, settings, owner } => edit.create_topic(name, settings, owner)?,
            Self::SetTopic { name, changes } => edit.set_topic(name, changes)?,
            Self::Delete { root, force, with_dead_letters } => {
                edit.delete(root, *force, *with_dead_letters)?;
            }
            Self::CreateSubscription { topic, name, options, positions, owner } => {
                edit.create_subscription(topic, name, options, positions, owner)?;
            }
            Self::SetSubscription { topic, name, options } => {
                edit.set_subscription(topic, name, options)?;
            }
            Self::PauseSubscription { topic, name, paused, push_refusal } => {
                edit.pause_subscription(topic, name, *paused, push_refusal.as_deref())?;
            }
            Self::MoveSubscription { topic, name, to } => edit.move_subscription(topic, name, to)?,
            Self::SetPush(change) => edit.set_push(change)?,
            Self::RemovePush { topic, name } => edit.remove_push(topic, name)?,
            Self::DeployPlugin { name, sha256, size, interface, owner } => {
                edit.deploy_plugin(name, sha256, *size, interface, owner)?;
            }
            Self::RemovePlugin { name, version } => edit.remove_plugin(name, *version)?,
            Self::CreateRoute { spec, name, positions, owner } => {
                edit.create_route(spec, name, positions, owner)?;
            }
            Self::Identity(change) => edit.change_identities(change)?,
            Self::Noted(_) => {}
        }
        Ok(Decided { next: edit.next, ops: edit.ops, events: edit.events })
    }

    /// True if there is one record more after it.
    fn grows(&self) -> bool {
        match self {
            Self::CreateTopic { .. }
            | Self::CreateSubscription { .. }
            | Self::DeployPlugin { .. }
            | Self::CreateRoute { .. } => true,
            Self::SetTopic { .. }
            | Self::Delete { .. }
            | Self::SetSubscription { .. }
            | Self::PauseSubscription { .. }
            | Self::MoveSubscription { .. }
            | Self::SetPush(_)
            | Self::RemovePush { .. }
            | Self::RemovePlugin { .. }
            | Self::Identity(_)
            | Self::Noted(_) => false,
        }
    }
}

/// The next catalogue in the making.
struct Edit {
    next: Catalogue,
    ops: Vec<Op>,
    events: Vec<CatalogueEvent>,
    now: Timestamp,
}

impl Edit {
    fn take_id(&mut self) -> u64 {
        let id = self.next.next_id.max(1);
        self.next.next_id = id + 1;
        self.ops.push(NextId(id + 1).put(&()));
        id
    }

    fn create_topic(&mut self, name: &TopicName, settings: &TopicSettings, owner: &str) -> Result<(), Error> {
        if self.next.topics.contains(name) {
            return Err(Error::refused(ErrorCode::TopicExists, format!("topic {name} exists")));
        }
        check_settings(name, settings)?;
        let default_for_ms = TopicSettings::default().retain_for_ms;
        let retain_for_ms = Some(settings.retain_for_ms).filter(|given| *given != default_for_ms);
        check_bounds(Some(settings.max_bytes), retain_for_ms, settings.retain)?;
        let id = u32::try_from(self.take_id()).map(TopicId).map_err(|_| {
            Error::refused(ErrorCode::LimitExceeded, "the engine has given out all of its 2^32 topic ids")
        })?;
        let record = TopicRecord {
            id: id.0,
            name: name.clone(),
            settings: settings.clone(),
            created_ms: self.now.0,
            owner: owner.to_owned(),
        };
        let record = self.put_topic(name, record);
        self.events.push(CatalogueEvent::TopicCreated(record));
        Ok(())
    }

    fn put_topic(&mut self, name: &TopicName, record: TopicRecord) -> Arc<TopicRecord> {
        let id = TopicId(record.id);
        self.ops.push(record.put(&id));
        let record = Arc::new(record);
        self.next.topics.insert(name.clone(), id, Arc::clone(&record));
        record
    }

    fn set_topic(&mut self, name: &TopicName, changes: &TopicChanges) -> Result<(), Error> {
        let record = TopicRecord::clone(self.next.topic(name)?);
        let settings = changes.of(&record.settings);
        check_settings(name, &settings)?;
        check_bounds(changes.max_bytes, changes.retain_for_ms, settings.retain)?;
        if settings.partitions != record.settings.partitions {
            let message = format!(
                "the number of partitions of topic {name} is {}, got {}; it cannot be changed",
                record.settings.partitions, settings.partitions
            );
            return Err(Error::refused(ErrorCode::InvalidArgument, message));
        }
        let record = self.put_topic(name, TopicRecord { settings, ..record });
        self.events.push(CatalogueEvent::TopicChanged(record));
        Ok(())
    }

    /// Deletes what was asked for with what goes along.
    fn delete(&mut self, root: &Root, force: bool, with_dead_letters: bool) -> Result<(), Error> {
        let removal = Removal::of(&self.next, root, with_dead_letters)?;
        if !force {
            // Who asks was told what they may see before.
            removal.check(&self.next, root, |_| false)?;
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
        let id = TopicId(self.next.topic(name)?.id);
        self.ops.push(TopicRecord::delete(&id));
        self.next.topics.remove(name, id);
        self.events.push(CatalogueEvent::TopicDeleted(id));
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
        if self.next.subscriptions.contains(&key) {
            let message = format!("topic {topic} has a subscription {name}");
            return Err(Error::refused(ErrorCode::SubscriptionExists, message));
        }
        dead_letter_topics::of_subscription(topic.as_str(), name.as_str())?;
        for stage in options.chain() {
            self.next.plugins.resolve(&stage.plugin)?;
        }
        let id = SubscriptionId(self.take_id());
        let record = SubscriptionRecord {
            id: id.0,
            topic_id,
            topic: topic.clone(),
            name: name.clone(),
            options: options.clone(),
            positions: positions.iter().map(|offset| offset.0).collect(),
            created_ms: self.now.0,
            owner: owner.to_owned(),
            paused: false,
            moves: 0,
            push_refusal: None,
        };
        let record = self.put_subscription(record);
        self.next.readers.toggle_subscription(&record);
        self.events.push(CatalogueEvent::SubscriptionCreated(record));
        Ok(())
    }

    fn put_subscription(&mut self, record: SubscriptionRecord) -> Arc<SubscriptionRecord> {
        let (id, key) = (SubscriptionId(record.id), (record.topic.clone(), record.name.clone()));
        self.ops.push(record.put(&id));
        let record = Arc::new(record);
        self.next.subscriptions.insert(key, id, Arc::clone(&record));
        record
    }

    fn set_subscription(
        &mut self,
        topic: &TopicName,
        name: &SubscriptionName,
        options: &SubscriptionOptions,
    ) -> Result<(), Error> {
        let record = SubscriptionRecord::clone(self.next.subscription(topic, name)?);
        for stage in options.chain() {
            self.next.plugins.resolve(&stage.plugin)?;
        }
        let options = options.clone().or(&record.options).with_defaults();
        let record = self.put_subscription(SubscriptionRecord { options, ..record });
        self.events.push(CatalogueEvent::SubscriptionChanged(record));
        Ok(())
    }

    fn pause_subscription(
        &mut self,
        topic: &TopicName,
        name: &SubscriptionName,
        paused: bool,
        push_refusal: Option<&str>,
    ) -> Result<(), Error> {
        let record = SubscriptionRecord::clone(self.next.subscription(topic, name)?);
        let push_refusal = push_refusal.filter(|_| paused).map(str::to_owned);
        let record = self.put_subscription(SubscriptionRecord { paused, push_refusal, ..record });
        self.events.push(CatalogueEvent::SubscriptionChanged(record));
        Ok(())
    }

    fn move_subscription(
        &mut self,
        topic: &TopicName,
        name: &SubscriptionName,
        to: &[(PartitionId, Offset)],
    ) -> Result<(), Error> {
        let mut record = SubscriptionRecord::clone(self.next.subscription(topic, name)?);
        for (partition, offset) in to {
            let position = record.positions.get_mut(usize::from(partition.0)).ok_or_else(|| {
                let message = format!("topic {topic} has no partition {partition}");
                Error::refused(ErrorCode::PartitionNotFound, message)
            })?;
            *position = offset.0;
        }
        self.next.readers.toggle_subscription(&record);
        record.moves += 1;
        let record = self.put_subscription(record);
        self.next.readers.toggle_subscription(&record);
        let partitions = to.iter().map(|(partition, _)| *partition).collect();
        self.events.push(CatalogueEvent::SubscriptionMoved(record, partitions));
        Ok(())
    }

    fn delete_subscription(&mut self, topic: &TopicName, name: &SubscriptionName) -> Result<(), Error> {
        let record = Arc::clone(self.next.subscription(topic, name)?);
        let id = SubscriptionId(record.id);
        self.ops.push(SubscriptionRecord::delete(&id));
        self.forget_push(id);
        self.next.readers.toggle_subscription(&record);
        self.next.subscriptions.remove(&(topic.clone(), name.clone()), id);
        self.events.push(CatalogueEvent::SubscriptionDeleted(id));
        Ok(())
    }

    fn set_push(&mut self, change: &PushChange) -> Result<(), Error> {
        let id = SubscriptionId(self.next.subscription(&change.set.topic, &change.set.name)?.id);
        let record = change.decide(id, self.next.pushes.get(&id).map(AsRef::as_ref), self.now)?;
        self.ops.push(record.put(&id));
        Arc::make_mut(&mut self.next.pushes).insert(id, Arc::new(record));
        self.events.push(CatalogueEvent::PushChanged(id));
        Ok(())
    }

    fn remove_push(&mut self, topic: &TopicName, name: &SubscriptionName) -> Result<(), Error> {
        let id = SubscriptionId(self.next.subscription(topic, name)?.id);
        if self.forget_push(id) {
            return Ok(());
        }
        let message = format!("subscription {topic}/{name} has no push");
        Err(Error::refused(ErrorCode::PushNotFound, message))
    }

    /// Removes the push of a subscription; false if it has none.
    fn forget_push(&mut self, id: SubscriptionId) -> bool {
        let had = self.next.pushes.contains_key(&id);
        if had {
            self.ops.push(PushRecord::delete(&id));
            Arc::make_mut(&mut self.next.pushes).remove(&id);
            self.events.push(CatalogueEvent::PushChanged(id));
        }
        had
    }

    fn deploy_plugin(
        &mut self,
        name: &PluginName,
        sha256: &str,
        size: u64,
        interface: &str,
        owner: &str,
    ) -> Result<(), Error> {
        let last = self.next.plugins.last_version(name);
        if last == 0 && self.next.plugins.removed() >= REMOVED_PLUGINS_MAX {
            let message = format!(
                "{REMOVED_PLUGINS_MAX} plugins were removed, whose names the engine must remember: deploy under a name that was used before"
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
        let line = self.next.plugins.deploy(record);
        self.ops.push(line.put(&line.name));
        self.events.push(CatalogueEvent::PluginChanged(name.clone()));
        Ok(())
    }

    fn remove_plugin(&mut self, name: &PluginName, version: Option<u32>) -> Result<(), Error> {
        // Who asks was told what they may see before.
        let chosen = self.next.removable(name, version, |_| false)?;
        for record in chosen {
            self.ops.push(PluginRecord::delete(&record.id));
            if let Some(line) = self.next.plugins.remove(name, record.version) {
                self.ops.push(line.put(&line.name));
            }
        }
        self.events.push(CatalogueEvent::PluginChanged(name.clone()));
        Ok(())
    }

    fn create_route(
        &mut self,
        spec: &RouteSpec,
        name: &RouteName,
        positions: &[Offset],
        owner: &str,
    ) -> Result<(), Error> {
        if self.next.routes.contains(name) {
            return Err(Error::refused(ErrorCode::RouteExists, format!("route {name} exists")));
        }
        let source_id = self.next.topic(&spec.from)?.id;
        dead_letter_topics::of_route(spec.from.as_str(), name.as_str())?;
        for target in &spec.to {
            self.next.topic(target)?;
            if let Some(path) = self.path(target, &spec.from) {
                let message = format!("route {name} would close a circle: {} -> {path}", spec.from);
                return Err(Error::refused(ErrorCode::RouteCycle, message));
            }
        }
        for stage in &spec.chain {
            self.next.plugins.resolve(&stage.plugin)?;
        }
        let id = RouteId(self.take_id());
        let record = RouteRecord {
            id: id.0,
            source_id,
            spec: spec.clone(),
            positions: positions.iter().map(|offset| offset.0).collect(),
            created_ms: self.now.0,
            owner: owner.to_owned(),
        };
        self.ops.push(record.put(&id));
        let record = Arc::new(record);
        self.next.readers.toggle_route(&record);
        self.next.routes.insert(name.clone(), id, Arc::clone(&record));
        self.events.push(CatalogueEvent::RouteCreated(record));
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

    fn change_identities(&mut self, change: &IdentityChange) -> Result<(), Error> {
        for stage in change.granted().iter().filter_map(Permission::mask).flat_map(Mask::stages) {
            self.next.plugins.resolve(&stage.plugin)?;
        }
        let identities = self.next.identities.clone();
        let decided = change.decide(&identities, self.now, || self.take_id())?;
        self.next.identities = decided.next;
        self.ops.extend(decided.ops);
        if change.changes_access() {
            self.events.push(CatalogueEvent::IdentitiesChanged);
        }
        Ok(())
    }

    fn delete_route(&mut self, name: &RouteName) -> Result<(), Error> {
        let record = Arc::clone(self.next.route(name)?);
        let id = RouteId(record.id);
        self.ops.push(RouteRecord::delete(&id));
        self.next.readers.toggle_route(&record);
        self.next.routes.remove(name, id);
        self.events.push(CatalogueEvent::RouteDeleted(id));
        Ok(())
    }
}

fn check_settings(name: &TopicName, settings: &TopicSettings) -> Result<(), Error> {
    let invalid = |message: String| Err(Error::refused(ErrorCode::InvalidArgument, message));
    if settings.partitions == 0 || settings.partitions > PARTITIONS_MAX {
        return invalid(format!("partitions are {}, expected 1 to {PARTITIONS_MAX}", settings.partitions));
    }
    if settings.durability == Durability::Unknown {
        return invalid("durability is not known to this engine, expected sync or os".to_owned());
    }
    if settings.dedup_window_ms > DEDUP_WINDOW_MS_MAX {
        let got = settings.dedup_window_ms;
        return invalid(format!(
            "dedup_window_ms is {got}, expected 0 (off) to {DEDUP_WINDOW_MS_MAX} (7 days)"
        ));
    }
    if settings.dedup_header.len() > HEADER_NAME_BYTES_MAX {
        let got = settings.dedup_header.len();
        return invalid(format!("dedup_header has {got} bytes, expected up to {HEADER_NAME_BYTES_MAX}"));
    }
    if is_engine_header(settings.dedup_header.as_bytes()) {
        let got = &settings.dedup_header;
        return invalid(format!("dedup_header is {got:?}, expected a header that publishers may give"));
    }
    if settings.on_full == OnFull::Unknown {
        return invalid("on_full is not known to this engine, expected reject or drop_oldest".to_owned());
    }
    if settings.retain == Retain::Compact && DeadLettersOf::of(name).is_some() {
        return invalid(format!(
            "{name} is a dead-letter topic, which does not take retain compact: dead letters of a key do not supersede each \
             other, expected time_and_acked, time_and_size or until_acked"
        ));
    }
    let is_own = name.as_str().starts_with('_');
    if is_own && (settings.retain == Retain::Compact || settings.has_backlog_quota()) {
        return invalid(format!(
            "{name} is a topic of the engine's own, which takes neither retain compact nor a limit of its backlog: nothing of it is \
             superseded or refused; bound it by retain_for_ms or max_bytes"
        ));
    }
    check_together(settings).or_else(invalid)?;
    if settings.has_backlog_quota() && DeadLettersOf::of(name).is_some() {
        return invalid(format!(
            "{name} is a dead-letter topic, which takes no backlog_max_events, backlog_max_bytes or \
             backlog_max_age_ms: a dead letter is never refused; bound it by retain_for_ms or `levada dlq purge`"
        ));
    }
    Ok(())
}

/// Refuses bounds that are given and that retention would ignore.
fn check_bounds(max_bytes: Option<u64>, retain_for_ms: Option<u64>, retain: Retain) -> Result<(), Error> {
    let refused = |message| Err(Error::refused(ErrorCode::InvalidArgument, message));
    if let Some(max_bytes) = max_bytes.filter(|bytes| *bytes > 0 && retain != Retain::TimeAndSize) {
        let retain = retain.as_str();
        return refused(format!(
            "max_bytes {max_bytes} has no effect with retain {retain}: expected retain time_and_size as well, or max_bytes 0"
        ));
    }
    if let Some(retain_for_ms) = retain_for_ms.filter(|_| retain == Retain::Compact) {
        return refused(format!(
            "retain_for_ms {retain_for_ms} has no effect with retain compact, which keeps the last event of each key however \
             old: leave it out, or choose another retain"
        ));
    }
    Ok(())
}

/// Refuses settings of which one contradicts another, or has no effect without it. Both are named.
fn check_together(settings: &TopicSettings) -> Result<(), String> {
    let drops = settings.on_full == OnFull::DropOldest;
    if settings.retain == Retain::Compact && drops {
        return Err("retain compact and on_full drop_oldest contradict each other: one keeps the last event of each key, the \
                    other drops the oldest events; give one of them"
            .to_owned());
    }
    if drops && !settings.has_backlog_quota() {
        return Err(
            "on_full drop_oldest has no effect without a limit of the backlog: expected backlog_max_events, \
                    backlog_max_bytes or backlog_max_age_ms above 0 as well, or on_full reject"
                .to_owned(),
        );
    }
    if !settings.dedup_header.is_empty() && settings.dedup_window_ms == 0 {
        return Err(format!(
            "dedup_header {:?} has no effect without a window: expected dedup_window_ms above 0 as well, or an empty \
             dedup_header",
            settings.dedup_header
        ));
    }
    Ok(())
}
