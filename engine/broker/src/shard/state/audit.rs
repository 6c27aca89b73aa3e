//! Changes of the catalogue, and the events that tell of them.

use levada_protocol::{
    batch::{BatchBuilder, Stamp},
    event::Event,
    ids::{PartitionId, Timestamp, TopicName},
    request::{Retain, TopicSettings},
};

use super::State;
use crate::{
    actor::Actor,
    audit,
    catalogue::Change,
    error::Error,
    noted::Noted,
    shard::{
        group::Group,
        tables::{NewBatch, retain_for_ms},
        transact::Decide,
    },
};

/// How long events are kept unless the topic's settings are changed: 365 days.
const RETAIN_FOR_MS: u64 = 365 * 24 * 3_600_000;

/// Decides a change into the group, together with the event that tells of it.
pub(super) fn change(
    state: &mut State,
    change: &Change,
    by: &Actor,
    group: &mut Group,
    now: Timestamp,
) -> Result<(), Error> {
    let decided = change.decide(&state.catalogue, now, state.limits.records_max)?;
    let is_refusal = matches!(change, Change::Noted(noted) if noted.is_refusal());
    let is_told = !is_refusal || state.guard.refusal().is_none();
    let event = if is_told { audit::event(change, by, &state.catalogue, &decided) } else { None };
    // What the group appends to a topic must come before its deletion.
    state.tables.partitions.flush(&mut group.draft);
    state.take_decided(decided, group);
    if let Some(event) = event {
        append(state, &event, group, now);
    }
    Ok(())
}

/// Tells of a transaction that is decided in this group.
pub(super) fn decision(state: &mut State, decide: &Decide, group: &mut Group, now: Timestamp) {
    let name = format!("{}/{}", decide.key.group, decide.key.id);
    if let Some(event) = audit::noted(&Noted::decision(name, decide.commit), &decide.by, &state.catalogue) {
        append(state, &event, group, now);
    }
}

/// Appends an event to the topic, which is made if it is not there. As a dead letter it is part of what was accepted: neither the
/// limit of records nor the disk guard stands in its way.
fn append(state: &mut State, event: &Event, group: &mut Group, now: Timestamp) {
    let Ok(name) = TopicName::parse_any(audit::TOPIC) else { return };
    if !state.catalogue.topics.contains(&name) {
        let settings = TopicSettings {
            retain: Retain::TimeAndSize,
            retain_for_ms: RETAIN_FOR_MS,
            ..TopicSettings::default()
        };
        let owner = Actor::engine().principal;
        let create = Change::CreateTopic { name: name.clone(), settings, owner };
        match create.decide(&state.catalogue, now, usize::MAX) {
            Ok(decided) => state.take_decided(decided, group),
            Err(error) => return tracing::error!(%error, "the topic {name} could not be created"),
        }
    }
    let Some(record) = state.catalogue.topics.get(&name).cloned() else { return };
    let mut builder = BatchBuilder::of_engine();
    if let Err(error) = builder.push(event) {
        return tracing::error!(%error, "an event of {name} is too large");
    }
    let batch = builder.finish(Stamp::ENGINE);
    let retain_for_ms = retain_for_ms(&record.settings);
    let new = NewBatch { topic: record.id(), partition: PartitionId(0), batch, hops: 0, retain_for_ms };
    if state.append_batch(new, group, now).is_none() {
        tracing::error!("the topic {name} has no partition 0");
    }
}
