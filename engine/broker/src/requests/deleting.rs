//! Requests that delete: topics, subscriptions and routes, with what goes along.

use levada_protocol::{
    access::{Action, Requirement, Scope, source_of_dead_letters},
    error::ErrorCode,
    ids::SubscriptionId,
    request::{Deleted, Response},
};

use crate::{
    access::Principal,
    broker::Broker,
    catalogue::{Catalogue, Change, Removal, Root},
    error::Error,
};

/// Names of one kind that a response holds at most.
const NAMED_MAX: usize = 1_000;

impl Broker {
    /// Deletes, ends the owner tasks of what was deleted, and returns its names.
    ///
    /// What goes along that its permission does not cover needs one of its own: the routes from a topic, and dead letters.
    pub(super) async fn delete(
        &self,
        principal: &Principal,
        root: Root,
        force: bool,
        with_dead_letters: bool,
    ) -> Result<Response, Error> {
        let (broker, principal) = (self.clone(), principal.clone());
        self.to_the_end(async move {
            let _changing = broker.inner.changing.lock().await;
            let removal = Removal::of(&broker.inner.shard.catalogue(), &root, with_dead_letters)?;
            broker.check(&principal, &along(&removal, &root))?;
            // Nothing else deletes meanwhile: what is missing afterwards was deleted by this request.
            let before = broker.inner.shard.catalogue();
            if !force {
                let viewer = broker.viewer(&principal, &before);
                removal.check(&before, &root, |scope| viewer.sees(scope))?;
            }
            if !force && let Root::Subscription(topic, name) = &root {
                let id = SubscriptionId(before.subscription(topic, name)?.id);
                broker.check_unattached(id, &root)?;
                broker.check_nothing_redriven(id, &root)?;
            }
            broker
                .inner
                .shard
                .change(principal.actor(), Change::Delete { root, force, with_dead_letters })
                .await?;
            broker.follow_catalogue().await?;
            Ok(Response::Deleted(gone(&before, &broker.inner.shard.catalogue())))
        })
        .await
    }

    fn check_unattached(&self, id: SubscriptionId, root: &Root) -> Result<(), Error> {
        match self.inner.owner_tasks.subscription(id).map_or(0, |handle| handle.attached()) {
            0 => Ok(()),
            attached => {
                let consumers = if attached == 1 { "consumer is" } else { "consumers are" };
                let message =
                    format!("{root} is in use: {attached} {consumers} attached; end them first, or force");
                Err(Error::refused(ErrorCode::SubscriptionInUse, message))
            }
        }
    }

    /// Refuses to lose what was redriven to a subscription, which its dead letters no longer count as open.
    fn check_nothing_redriven(&self, id: SubscriptionId, root: &Root) -> Result<(), Error> {
        match self.inner.owner_tasks.subscription(id).map_or(0, |handle| handle.redriven()) {
            0 => Ok(()),
            redriven => {
                let events = if redriven == 1 { "event that was" } else { "events that were" };
                let message = format!(
                    "{root} is in use: it has yet to acknowledge {redriven} {events} redriven to it, and these would be lost; \
                     let it, or force"
                );
                Err(Error::refused(ErrorCode::SubscriptionInUse, message))
            }
        }
    }
}

/// What deleting that takes beyond deleting its root.
fn along(removal: &Removal, root: &Root) -> Vec<Requirement> {
    let routes = removal.routes.iter().filter(|name| !matches!(root, Root::Route(of) if of == *name));
    let routes = routes.map(|name| (Action::Manage, Scope::Route(name.clone())));
    let topics = removal.topics.iter().filter(|name| !matches!(root, Root::Topic(of) if of == *name));
    let dead_letters = topics.map(|name| match source_of_dead_letters(name) {
        Some(source) => (Action::Redrive, source),
        None => (Action::Manage, Scope::Topic(name.clone())),
    });
    routes.chain(dead_letters).collect()
}

/// What `before` holds and `after` does not.
pub(super) fn gone(before: &Catalogue, after: &Catalogue) -> Deleted {
    let topic = |name| after.topics.get(name).map(|topic| topic.id);
    let topics = before.topics.iter().filter(|(name, had)| topic(*name) != Some(had.id));
    let subscription = |key| after.subscriptions.get(key).map(|record| record.id);
    let subscriptions = before.subscriptions.iter().filter(|(key, had)| subscription(*key) != Some(had.id));
    let route = |name| after.routes.get(name).map(|record| record.id);
    let routes = before.routes.iter().filter(|(name, had)| route(*name) != Some(had.id));
    let removal = Removal {
        topics: topics.map(|(name, _)| name.clone()).collect(),
        subscriptions: subscriptions.map(|(key, _)| key.clone()).collect(),
        routes: routes.map(|(name, _)| name.clone()).collect(),
    };
    let plugins: Vec<String> = before
        .plugins
        .after(None)
        .filter(|(_, record)| after.plugins.by_id(record.id).is_none())
        .map(|(name, record)| format!("{name}@{}", record.version))
        .collect();
    let kept = removal.dead_letters_kept(before, after);
    let count = removal.topics.len() + removal.subscriptions.len() + removal.routes.len() + plugins.len();
    Deleted {
        topics: removal.topics.iter().take(NAMED_MAX).map(ToString::to_string).collect(),
        subscriptions: removal
            .subscriptions
            .iter()
            .take(NAMED_MAX)
            .map(|(topic, name)| format!("{topic}/{name}"))
            .collect(),
        routes: removal.routes.iter().take(NAMED_MAX).map(ToString::to_string).collect(),
        plugins: plugins.into_iter().take(NAMED_MAX).collect(),
        dead_letters_kept: kept.into_iter().take(NAMED_MAX).map(|name| name.to_string()).collect(),
        count: count as u64,
    }
}
