//! Dropping what a topic holds up to some offsets, as retention does, because somebody asked for it.

use std::{collections::BTreeMap, iter::repeat, ops::Range, sync::Arc};

use levada_protocol::{
    dead_letters::DeadLettersOf,
    error::ErrorCode,
    ids::{Offset, PartitionId, TopicId},
    request::{Position, PurgeTopic, PurgedTopic, Start},
};
use levada_store::{
    Family, Store,
    record::{self, LogKey},
};

use crate::{
    broker::Broker,
    depth::bytes_to_end,
    error::Error,
    log::{Log, blocking},
    shard::StateChange,
    topic::Topic,
};

/// How many subscriptions and routes a refusal names.
const NAMED_MAX: usize = 4;

/// Where a log may begin: at a record, or at its end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    pub(super) start: Offset,
    /// Bytes of batches before that since the topic was created.
    pub(super) dropped_bytes: u64,
}

/// The last place within `range`, or at its end, where the log may begin; `None` if nothing of it would be dropped. Blocks
/// on the disk.
pub(super) fn cut_within(
    store: &dyn Store,
    (topic, partition): (TopicId, PartitionId),
    range: Range<Offset>,
) -> Result<Option<Cut>, Error> {
    if range.is_empty() {
        return Ok(None);
    }
    let key = |base| LogKey { topic, partition, base }.encode();
    let Some((key, value)) = store.last_before(Family::Log, &key(range.start), &key(range.end))? else {
        return Ok(None);
    };
    let record = record::check(&key, value)
        .map_err(|error| Error::Store { code: ErrorCode::StorageCorrupt, message: error.to_string() })?;
    // A record is dropped as a whole or not at all.
    let cut = if record.end() <= range.end {
        Cut { start: record.end(), dropped_bytes: bytes_to_end(store, &record)? }
    } else {
        Cut { start: record.key.base, dropped_bytes: record.bytes_before }
    };
    Ok((cut.start > range.start).then_some(cut))
}

/// What purges topics. It runs to its end, whoever asked.
pub(super) struct Purging {
    pub(super) broker: Broker,
}

impl Purging {
    /// Drops the events of a topic before the offsets that are given, or all that are stored now.
    pub(super) async fn purge(&self, asked: PurgeTopic) -> Result<PurgedTopic, Error> {
        let inner = &self.broker.inner;
        // Nobody who begins earlier may come, and no topic go, between the look at who has yet to come so far and the commit.
        let _changing = inner.changing.lock().await;
        let topic = inner.shard.topic(&asked.topic)?;
        if DeadLettersOf::of(&topic.name).is_some() {
            let message = format!(
                "{} holds dead letters, expected a topic of events: a purge of dead letters asks whether they were redriven",
                topic.name
            );
            return Err(Error::refused(ErrorCode::InvalidArgument, message));
        }
        // Nor may the record at which a log is to begin become part of another.
        let _merges = inner.compactor.hold_merges().await;
        let cuts = self.cuts(&topic, &asked).await?;
        if !asked.force {
            self.check_read(&topic, &cuts)?;
        }
        let mut trims = Vec::with_capacity(cuts.len());
        let mut purged = PurgedTopic::default();
        for (partition, before, cut) in cuts {
            let start = cut.map_or(before, |cut| cut.start);
            purged.purged += start.0.saturating_sub(before.0);
            if let Some(Cut { start, dropped_bytes }) = cut {
                trims.push(StateChange::Trim { topic: topic.id, partition, start, dropped_bytes });
            }
            purged.positions.push(Position { partition: partition.0, offset: start.0 });
        }
        if !trims.is_empty() {
            let committed = inner.shard.commit(Vec::new(), trims, Vec::new()).await;
            committed.map_err(|refused| refused.error())?;
        }
        // Retention may have gone further meanwhile.
        for position in &mut purged.positions {
            position.offset =
                position.offset.max(topic.partition(PartitionId(position.partition))?.start().0);
        }
        Ok(purged)
    }

    /// Each partition to purge, where it begins, and where it would.
    async fn cuts(
        &self,
        topic: &Arc<Topic>,
        asked: &PurgeTopic,
    ) -> Result<Vec<(PartitionId, Offset, Option<Cut>)>, Error> {
        let store = &self.broker.inner.store;
        let before = asked.before_ms.map_or(Start::Latest, Start::Time);
        let numbers: Vec<u16> = asked.until.iter().map(|position| position.partition).collect();
        let bounds = asked.until.iter().map(|position| Offset(position.offset));
        let bounds = bounds.chain(repeat(Offset(u64::MAX)));
        let mut cuts = Vec::new();
        for (partition, bound) in topic.partitions_named(&numbers)?.into_iter().zip(bounds) {
            let log = Log::new(Arc::clone(store), Arc::clone(topic), partition)?;
            let start = log.partition().start();
            let until = log.position(before).await?.min(bound);
            let (store, id) = (Arc::clone(store), topic.id);
            let cut = blocking(move || cut_within(store.as_ref(), (id, partition), start..until)).await?;
            cuts.push((partition, start, cut));
        }
        Ok(cuts)
    }

    /// Refuses to drop what somebody has yet to acknowledge, and names them.
    fn check_read(&self, topic: &Topic, cuts: &[(PartitionId, Offset, Option<Cut>)]) -> Result<(), Error> {
        let mut unread: BTreeMap<String, u64> = BTreeMap::new();
        for (partition, before, cut) in cuts {
            let Some(Cut { start, .. }) = cut else { continue };
            for (who, at) in self.broker.inner.owner_tasks.behind(topic.id, *partition, *start) {
                *unread.entry(who).or_default() += start.0 - at.max(*before).0;
            }
        }
        if unread.is_empty() {
            return Ok(());
        }
        let mut unread: Vec<_> = unread.into_iter().collect();
        unread.sort_by(|(one, events), (other, than)| than.cmp(events).then_with(|| one.cmp(other)));
        let named: Vec<String> =
            unread.iter().take(NAMED_MAX).map(|(who, events)| format!("{who} ({events})")).collect();
        let more = match unread.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let message = format!(
            "some have yet to acknowledge events that would be purged: {}{more}; let them catch up, move or delete them, or \
             force",
            named.join(", ")
        );
        Err(Error::refused(ErrorCode::TopicInUse, message))
    }
}
