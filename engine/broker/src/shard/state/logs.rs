//! Where logs begin, and what of them may be dropped or rewritten.

use levada_delivery::retention::Rules;
use levada_protocol::{
    dead_letters::DeadLettersOf,
    ids::{Offset, PartitionId, TopicId},
    request::Retain,
};

use super::State;
use crate::shard::{
    command::Trim,
    group::{Group, Reply},
    proposal::ProposalRefused,
};

/// Drops what retention has decided on, unless what it was decided by is another since: the next round decides then.
pub(super) fn trim(state: &mut State, trim: Trim, group: &mut Group) {
    let Trim { topic: id, partition, start, dropped_bytes, rules, readers, reply } = trim;
    let settings = state.catalogue.topics.by_id(id).map(|record| &record.settings);
    let is_so = settings.is_some_and(|settings| Rules::new(settings) == rules);
    if is_so && state.catalogue.readers.of(id) == readers {
        drop_before(state, (id, partition), start, dropped_bytes, group);
    }
    group.reply(Reply::Done { reply, result: Ok(()) });
}

/// Checks that a partition which begins at `start` is still to be compacted, and that the same read its topic.
pub(super) fn check_compacts(
    state: &State,
    place: (TopicId, PartitionId),
    start: Offset,
    readers: u64,
) -> Result<(), ProposalRefused> {
    let record = state.catalogue.topics.by_id(place.0).ok_or(ProposalRefused::Gone)?;
    let begins = beginning(state, place).ok_or(ProposalRefused::Gone)?;
    if begins != start || record.settings.retain != Retain::Compact {
        Err(ProposalRefused::Shifted)
    } else if state.catalogue.readers.of(place.0) != readers {
        Err(ProposalRefused::OtherReaders)
    } else {
        Ok(())
    }
}

/// Where a partition begins; `None` if there is none.
fn beginning(state: &State, (id, partition): (TopicId, PartitionId)) -> Option<Offset> {
    let topic = state.live.topics.get(id).filter(|_| state.catalogue.topics.has_id(id))?;
    let live = topic.partition(partition).ok()?;
    Some(live.start().max(state.tables.backlogs.start((id, partition))))
}

/// Drops what a partition holds before `start`, unless it begins there or later already.
pub(super) fn drop_before(
    state: &mut State,
    (id, partition): (TopicId, PartitionId),
    start: Offset,
    dropped_bytes: u64,
    group: &mut Group,
) {
    if let Some(topic) = state.live.topics.get(id).filter(|_| state.catalogue.topics.has_id(id))
        && let Ok(live) = topic.partition(partition)
        && start > live.start().max(state.tables.backlogs.start((id, partition)))
    {
        // A reader must not read events that the commit takes away before it is announced.
        live.hide_before(start);
        state.tables.trim((id, partition), start, dropped_bytes, &mut group.draft);
        if DeadLettersOf::of(&topic.name).is_some() {
            state.redrives.forget_before((id, partition), start, &mut group.draft);
        }
    }
}
