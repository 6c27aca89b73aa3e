//! The backlog of every topic: what its subscriptions and routes have yet to acknowledge, as the writer has decided it.
//!
//! It follows the same commits that store how far they come, so it is exact when a publish is decided, and a start reads
//! it from the same rows. A publish within what was last found to be free costs a comparison; only beyond that is counted
//! again, and the log is read for where an oldest event lies no more than once for each time that it moves. See
//! `engine/adr/0014-backlog-quotas.md`.

mod standing;

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use levada_delivery::backlog::{Charge, Quota, Reached};
use levada_protocol::ids::{Offset, PartitionId, RouteId, SubscriptionId, Timestamp, TopicId};
use levada_store::Store;

use self::standing::{Standing, Start, View};
use super::{partitions::Partitions, route_cursors::RouteCursors};
use crate::{
    catalogue::Catalogue,
    error::Error,
    rows::{self, ProgressRow},
    topic::{Extent, Extents},
};

/// Who has something to acknowledge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::shard) enum Holder {
    Subscription(SubscriptionId),
    Route(RouteId),
}

/// Why a publish finds no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::shard) struct Full {
    /// Who is too far behind.
    pub(in crate::shard) holder: Holder,
    pub(in crate::shard) reached: Reached,
}

/// The backlogs of all topics.
#[derive(Debug, Default)]
pub(in crate::shard) struct Backlogs {
    topics: HashMap<TopicId, Backlog>,
    /// The topic of each.
    holders: HashMap<Holder, TopicId>,
}

#[derive(Debug, Default)]
struct Backlog {
    starts: Vec<Start>,
    standings: BTreeMap<Holder, Standing>,
    room: Room,
}

/// What may be published at least before anything has to be counted again. Acknowledgements only make more room.
#[derive(Debug, Clone, Copy, Default)]
struct Room {
    left: Charge,
    /// No event is too old before this time.
    until: Timestamp,
}

/// What is asked of a quota.
#[derive(Debug, Clone, Copy)]
pub(in crate::shard) struct Asked {
    pub(in crate::shard) topic: TopicId,
    pub(in crate::shard) quota: Quota,
    /// What waits for its time, or for a decision.
    pub(in crate::shard) waiting: Charge,
    /// What is to be added.
    pub(in crate::shard) charge: Charge,
}

impl Backlogs {
    /// Reads how far all have come. Blocks on the disk.
    pub(in crate::shard) fn load(
        store: &dyn Store,
        catalogue: &Catalogue,
        extents: &Extents,
        cursors: &RouteCursors,
    ) -> Result<Self, Error> {
        let mut backlogs = Self::default();
        for (id, extents) in extents {
            let start = |extent: &Extent| Start { offset: extent.start, dropped_bytes: extent.dropped_bytes };
            let starts = extents.iter().map(start).collect();
            backlogs.topics.insert(*id, Backlog { starts, ..Backlog::default() });
        }
        for record in catalogue.subscriptions.values() {
            let id = SubscriptionId(record.id);
            let mut standing = Standing::new(record.positions.iter().copied().map(Offset));
            rows::for_each_progress(store, id, |number, row| match row {
                // It may be below where the subscription began, if that was moved.
                ProgressRow::Head(head) => standing.move_to(number, Offset(head.floor())),
                ProgressRow::Chunk(index, row) => standing.set_chunk(number, index, Some(row)),
            })?;
            backlogs.begin(Holder::Subscription(id), TopicId(record.topic_id), standing);
        }
        for record in catalogue.routes.values() {
            let id = RouteId(record.id);
            let standing = Standing::new(cursors.of_route(id).iter().copied());
            backlogs.begin(Holder::Route(id), TopicId(record.source_id), standing);
        }
        Ok(backlogs)
    }

    pub(in crate::shard) fn create_topic(&mut self, id: TopicId, partitions: u16) {
        let starts = vec![Start::default(); usize::from(partitions)];
        self.topics.insert(id, Backlog { starts, ..Backlog::default() });
    }

    /// The topic's quota is another one.
    pub(in crate::shard) fn change_topic(&mut self, id: TopicId) {
        if let Some(backlog) = self.topics.get_mut(&id) {
            backlog.room = Room::default();
        }
    }

    pub(in crate::shard) fn forget_topic(&mut self, id: TopicId) {
        if let Some(backlog) = self.topics.remove(&id) {
            backlog.standings.keys().for_each(|holder| {
                self.holders.remove(holder);
            });
        }
    }

    /// A subscription or a route was created that begins at these offsets.
    pub(in crate::shard) fn create(&mut self, holder: Holder, topic: TopicId, positions: &[u64]) {
        self.begin(holder, topic, Standing::new(positions.iter().copied().map(Offset)));
    }

    fn begin(&mut self, holder: Holder, topic: TopicId, standing: Standing) {
        let Some(backlog) = self.topics.get_mut(&topic) else { return };
        self.holders.insert(holder, topic);
        backlog.standings.insert(holder, standing);
        backlog.room = Room::default();
    }

    pub(in crate::shard) fn forget(&mut self, holder: Holder) {
        let topic = self.holders.remove(&holder);
        if let Some(backlog) = topic.and_then(|topic| self.topics.get_mut(&topic)) {
            backlog.standings.remove(&holder);
        }
    }

    fn standing(&mut self, holder: Holder) -> Option<&mut Standing> {
        self.topics.get_mut(self.holders.get(&holder)?)?.standings.get_mut(&holder)
    }

    /// A subscription was moved to other offsets, of these partitions.
    pub(in crate::shard) fn move_to(
        &mut self,
        id: SubscriptionId,
        to: impl IntoIterator<Item = (PartitionId, Offset)>,
    ) {
        let holder = Holder::Subscription(id);
        let Some(backlog) = self.holders.get(&holder).and_then(|topic| self.topics.get_mut(topic)) else {
            return;
        };
        backlog.room = Room::default();
        if let Some(standing) = backlog.standings.get_mut(&holder) {
            to.into_iter().for_each(|(number, floor)| standing.move_to(number, floor));
        }
    }

    /// Everything below an offset is acknowledged.
    pub(in crate::shard) fn raise(&mut self, holder: Holder, number: PartitionId, floor: Offset) {
        if let Some(standing) = self.standing(holder) {
            standing.raise(number, floor);
        }
    }

    /// What is acknowledged of a chunk of offsets: the bytes of its row, or nothing.
    pub(in crate::shard) fn set_chunk(
        &mut self,
        id: SubscriptionId,
        number: PartitionId,
        index: u64,
        row: Option<Bytes>,
    ) {
        if let Some(standing) = self.standing(Holder::Subscription(id)) {
            standing.set_chunk(number, index, row);
        }
    }

    /// A partition's log begins later: what is before that is to be acknowledged by nobody.
    pub(in crate::shard) fn trimmed(
        &mut self,
        (topic, number): (TopicId, PartitionId),
        offset: Offset,
        dropped_bytes: u64,
    ) {
        let Some(backlog) = self.topics.get_mut(&topic) else { return };
        if let Some(start) = backlog.starts.get_mut(usize::from(number.0)) {
            *start = Start { offset, dropped_bytes };
        }
        backlog.standings.values_mut().for_each(|standing| standing.trimmed(number));
    }

    /// Where a partition's log begins.
    pub(in crate::shard) fn start(&self, (topic, number): (TopicId, PartitionId)) -> Offset {
        let starts = self.topics.get(&topic).map(|backlog| &backlog.starts);
        starts.and_then(|starts| starts.get(usize::from(number.0))).map_or(Offset(0), |start| start.offset)
    }

    /// Events count as appended at other times than before.
    pub(in crate::shard) fn clock_was_set_back(&mut self) {
        for backlog in self.topics.values_mut() {
            backlog.room = Room::default();
            backlog.standings.values_mut().for_each(Standing::forget_times);
        }
    }

    /// Takes room for what is to be appended, scheduled or prepared; what is admitted and then not appended leaves more room than
    /// is known, until the next count. The log is read only if the answer depends on it.
    ///
    /// # Errors
    /// Who is too far behind, if there is no room; the outer one if the store fails.
    pub(in crate::shard) fn admit(
        &mut self,
        (store, partitions): (&dyn Store, &Partitions),
        asked: Asked,
        now: Timestamp,
    ) -> Result<Result<(), Full>, Error> {
        let Some(backlog) = self.topics.get_mut(&asked.topic) else { return Ok(Ok(())) };
        if backlog.standings.is_empty() || backlog.room.take(asked.charge, now) {
            return Ok(Ok(()));
        }
        backlog.count((store, partitions), asked, now)
    }

    /// The oldest event that this holder has yet to acknowledge, and its partition; `None` if there is none.
    ///
    /// # Errors
    /// If the store fails.
    pub(in crate::shard) fn oldest(
        &mut self,
        (store, partitions): (&dyn Store, &Partitions),
        topic: TopicId,
        holder: Holder,
    ) -> Result<Option<(PartitionId, Offset)>, Error> {
        let Some(Backlog { starts, standings, .. }) = self.topics.get_mut(&topic) else { return Ok(None) };
        let Some(standing) = standings.get_mut(&holder) else { return Ok(None) };
        let view = View { store, partitions, topic, starts, reaches: partitions.reaches(topic) };
        standing.count(view.starts);
        let oldest = standing.oldest(&view, Timestamp(u64::MAX))?.map(|(number, _)| number);
        let number = oldest.or_else(|| standing.any_open(&view));
        Ok(number.map(|number| (number, standing.first(number))))
    }
}

impl Backlog {
    /// Counts everything that the quota limits, and how much room is left.
    fn count(
        &mut self,
        (store, partitions): (&dyn Store, &Partitions),
        asked: Asked,
        now: Timestamp,
    ) -> Result<Result<(), Full>, Error> {
        let Asked { topic, quota, waiting, charge } = asked;
        let Self { starts, standings, room } = self;
        let view = View { store, partitions, topic, starts, reaches: partitions.reaches(topic) };
        let until = quota.age_max_ms.map_or(u64::MAX, |age| now.0.saturating_add(age));
        let mut found = Room { left: Charge { events: u64::MAX, bytes: u64::MAX }, until: Timestamp(until) };
        *room = Room::default();
        for (holder, standing) in standings {
            let full = |reached| Full { holder: *holder, reached };
            standing.count(view.starts);
            let events = standing.events(&view) + waiting.events;
            let mut has = Charge { events, bytes: 0 };
            if quota.bytes_max < u64::MAX {
                let more = charge.bytes + waiting.bytes;
                has.bytes = standing.bytes(&view, quota.bytes_max.saturating_sub(more))? + waiting.bytes;
            }
            if let Err(reached) = quota.check(has, charge) {
                return Ok(Err(full(reached)));
            }
            if let Some(age) = quota.age_max_ms
                && let Some((_, oldest)) = standing.oldest(&view, Timestamp(now.0.saturating_sub(age)))?
            {
                if let Err(reached) = quota.check_age(oldest, now) {
                    return Ok(Err(full(reached)));
                }
                found.until = found.until.min(Timestamp(oldest.0.saturating_add(age)));
            }
            let left = |max: u64, has: u64, more: u64| max.saturating_sub(has).saturating_sub(more);
            found.left.events = found.left.events.min(left(quota.events_max, has.events, charge.events));
            found.left.bytes = found.left.bytes.min(left(quota.bytes_max, has.bytes, charge.bytes));
        }
        *room = found;
        Ok(Ok(()))
    }
}

impl Room {
    /// Takes what is asked for if it is surely there.
    fn take(&mut self, charge: Charge, now: Timestamp) -> bool {
        let left = (self.left.events.checked_sub(charge.events), self.left.bytes.checked_sub(charge.bytes));
        let (Some(events), Some(bytes)) = left else { return false };
        if now > self.until {
            return false;
        }
        self.left = Charge { events, bytes };
        true
    }
}

#[cfg(test)]
mod tests;
