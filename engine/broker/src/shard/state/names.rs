//! Who may publish under a producer's name.

use levada_protocol::{
    error::Refusal,
    ids::{Epoch, Timestamp},
    request::OpenedProducer,
};

use super::State;
use crate::{
    error::Error,
    shard::{
        command::{Idle, OpenProducer},
        group::Group,
        tables::ProducerKey,
    },
};

/// Lets a new owner take a name over: what is decided from here on is refused to those before it.
pub(super) fn open(
    state: &mut State,
    open: &OpenProducer,
    group: &mut Group,
    now: Timestamp,
) -> Result<OpenedProducer, Error> {
    let OpenProducer { topic, name, fresh, reply: _ } = open;
    if !state.catalogue.topics.has_id(topic.id) {
        return Err(topic.deleted_error());
    }
    let key = (topic.id, name.clone());
    Ok(state.tables.names.open(key, *fresh, now, &mut group.draft)?)
}

/// Checks that a batch is of nobody with a name, which epoch 0 says, or of a name's owner.
pub(super) fn check(
    state: &mut State,
    (topic, _, producer): ProducerKey,
    epoch: Epoch,
    now: Timestamp,
) -> Result<(), Refusal> {
    if epoch.0 == 0 {
        return Ok(());
    }
    state.tables.names.check(topic, (producer, epoch), now)
}

/// Forgets the producers and names that still are idle: their rows go with the group.
pub(super) fn forget_idle(
    state: &mut State,
    idle: &Idle,
    before: Timestamp,
    group: &mut Group,
) -> Result<(), Error> {
    let (tables, draft) = (&mut state.tables, &mut group.draft);
    for key in idle.producers.iter().filter(|(topic, ..)| state.catalogue.topics.has_id(*topic)) {
        tables.producers.forget_if_idle(state.store.as_ref(), *key, before, draft)?;
    }
    for key in &idle.names {
        tables.names.forget_if_idle(key, before, draft);
    }
    Ok(())
}
