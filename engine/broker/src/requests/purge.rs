//! Dropping what a topic holds up to some offsets, as retention does, because somebody asked for it.

use std::{collections::BTreeSet, ops::Range, sync::Arc};

use levada_protocol::{
    dead_letters::DeadLettersOf,
    error::ErrorCode,
    ids::{Offset, PartitionId, TopicId},
    request::{Position, PurgeTopic, PurgedTopic, Response, Start},
};
use levada_store::{
    Family, Store,
    record::{self, LogKey},
};

use crate::{
    error::Error,
    log::{Log, blocking},
    running::OwnerTasks,
    shard::{ProposalRefused, ShardHandle, StateChange},
    topic::Topic,
};

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
        Cut { start: record.end(), dropped_bytes: record.bytes_before + record.bytes.len() as u64 }
    } else {
        Cut { start: record.key.base, dropped_bytes: record.bytes_before }
    };
    Ok((cut.start > range.start).then_some(cut))
}

/// What answers requests to purge topics.
pub(super) struct PurgeRequests<'a> {
    pub(super) shard: &'a ShardHandle,
    pub(super) store: &'a Arc<dyn Store>,
    pub(super) owners: &'a OwnerTasks,
}

impl PurgeRequests<'_> {
    /// Drops the events of a topic before the offsets that are given, or all that are stored now.
    pub(super) async fn purge(&self, asked: PurgeTopic) -> Result<Response, Error> {
        let topic = self.shard.topic(&asked.topic)?;
        if DeadLettersOf::of(&topic.name).is_some() {
            let message = format!(
                "{} holds dead letters, expected a topic of events: a purge of dead letters asks whether they were redriven",
                topic.name
            );
            return Err(Error::refused(ErrorCode::InvalidArgument, message));
        }
        let before = asked.before_ms.map_or(Start::Latest, Start::Time);
        let mut purged = PurgedTopic::default();
        let mut trims = Vec::new();
        for (partition, until) in bounds(&topic, &asked.until)? {
            let log = Log::new(Arc::clone(self.store), Arc::clone(&topic), partition)?;
            let start = log.partition().start();
            let until = log.position(before).await?.min(until);
            let (store, id) = (Arc::clone(self.store), topic.id);
            let found = blocking(move || cut_within(store.as_ref(), (id, partition), start..until)).await?;
            let begins = found.map_or(start, |cut| cut.start);
            purged.purged += begins.0.saturating_sub(start.0);
            purged.positions.push(Position { partition: partition.0, offset: begins.0 });
            if let Some(Cut { start, dropped_bytes }) = found {
                if !asked.force {
                    self.check_read(&topic, partition, start)?;
                }
                trims.push(StateChange::Trim { topic: topic.id, partition, start, dropped_bytes });
            }
        }
        if !trims.is_empty() {
            self.shard.commit(Vec::new(), trims, Vec::new()).await.map_err(|refused| match refused {
                ProposalRefused::Gone => topic.deleted_error(),
                refused => refused.error(),
            })?;
        }
        Ok(Response::TopicPurged(purged))
    }

    /// Refuses to drop what somebody has yet to acknowledge.
    fn check_read(&self, topic: &Topic, partition: PartitionId, start: Offset) -> Result<(), Error> {
        let Some((who, at)) = self.owners.furthest_behind(topic.id, partition, start) else { return Ok(()) };
        let message = format!(
            "{who} has come to offset {at} of those before {start} of partition {partition} that would be purged: let it \
             catch up, move or delete it, or force"
        );
        Err(Error::refused(ErrorCode::TopicInUse, message))
    }
}

/// Each partition that is purged, and the offset up to which it is.
fn bounds(topic: &Topic, until: &[Position]) -> Result<Vec<(PartitionId, Offset)>, Error> {
    if until.is_empty() {
        return Ok(topic.partition_ids().map(|number| (number, Offset(u64::MAX))).collect());
    }
    let mut named = BTreeSet::new();
    let bound = |position: &Position| {
        let number = PartitionId(position.partition);
        topic.partition(number)?;
        if !named.insert(number) {
            let message = format!("expected one offset for each partition, got two for partition {number}");
            return Err(Error::refused(ErrorCode::InvalidArgument, message));
        }
        Ok((number, Offset(position.offset)))
    };
    until.iter().map(bound).collect()
}
