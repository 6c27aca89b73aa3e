//! The deletion of a subscription that nobody consumes.

use levada_protocol::ids::Timestamp;

use super::{State, audit};
use crate::{
    actor::Actor,
    catalogue::{Change, Root},
    error::Error,
    shard::{command::Expire, group::Group},
};

/// Deletes a subscription if what was seen of it still holds; its dead-letter topic stays.
pub(super) fn expire(
    state: &mut State,
    seen: &Expire,
    group: &mut Group,
    now: Timestamp,
) -> Result<(), Error> {
    let Expire { subscription, since, after_ms, reply: _ } = seen;
    let Some(record) = state.catalogue.subscriptions.by_id(*subscription) else { return Ok(()) };
    let is_unattended = state.tables.unattended.since(*subscription) == Some(*since);
    let is_wanted = record.options.expire_after_ms() == Some(*after_ms);
    let is_due = now.0.saturating_sub(since.0) >= *after_ms;
    if !(is_unattended && is_wanted && is_due) {
        return Ok(());
    }
    let root = Root::Subscription(record.topic.clone(), record.name.clone());
    let change = Change::Delete { root, force: true, with_dead_letters: false };
    audit::change(state, &change, &Actor::engine(), group, now)
}
