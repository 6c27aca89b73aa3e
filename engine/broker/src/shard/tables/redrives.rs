//! Which dead letters were redriven. The rows say it; the writer keeps of each dead-letter topic how often it changed,
//! so that who decided on rows that it read is refused if they have changed since.

use std::collections::HashMap;

use levada_protocol::ids::{Offset, PartitionId, Timestamp, TopicId, TopicName};

use crate::{
    rows::{Redriven, Row},
    shard::draft::Draft,
};

/// How often the dead letters of a topic were redriven or dropped since the engine's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RedriveRevision(u64);

/// The revisions of dead-letter topics, deleted ones included: a deletion may be taken back, and no id is given twice.
/// They live as long as the process, as those who ask for them do.
#[derive(Debug, Default)]
pub(in crate::shard) struct Redrives(HashMap<TopicId, RedriveRevision>);

impl Redrives {
    pub(in crate::shard) fn revision(&self, topic: TopicId) -> RedriveRevision {
        self.0.get(&topic).copied().unwrap_or_default()
    }

    fn advance(&mut self, topic: TopicId) {
        self.0.entry(topic).or_default().0 += 1;
    }

    /// Notes that the dead letter at `key` was redriven.
    pub(in crate::shard) fn note(
        &mut self,
        key: (TopicId, PartitionId, Offset),
        redriven: &Redriven,
        draft: &mut Draft,
    ) {
        self.advance(key.0);
        draft.push(redriven.put(&key));
    }

    /// Forgets what was noted of dead letters before `start`, which are dropped.
    pub(in crate::shard) fn forget_before(
        &mut self,
        (topic, partition): (TopicId, PartitionId),
        start: Offset,
        draft: &mut Draft,
    ) {
        self.advance(topic);
        draft.push(Redriven::delete_range(Redriven::between(topic, partition, Offset(0), start)));
    }
}

/// Forgets what was noted of a topic's dead letters.
pub(super) fn forget_topic(topic: TopicId, draft: &mut Draft) {
    draft.push(Redriven::delete_range(Redriven::of_topic(topic)));
}

/// Where dead letters went, all at once.
#[derive(Debug)]
pub(in crate::shard) struct Destination<'a> {
    pub(in crate::shard) to: &'a TopicName,
    pub(in crate::shard) partition: PartitionId,
    pub(in crate::shard) base: Offset,
    pub(in crate::shard) time: Timestamp,
}

impl Destination<'_> {
    /// The row of the dead letter whose event is the batch's `index`th, redriven so often.
    pub(in crate::shard) fn row(&self, index: u64, times: u32) -> Redriven {
        Redriven {
            times,
            time: self.time,
            alone: false,
            to: self.to.clone(),
            to_partition: self.partition,
            to_offset: self.base.plus(index),
        }
    }
}

#[cfg(test)]
mod tests {
    use levada_protocol::ids::CommitIndex;
    use levada_store::Op;

    use super::*;

    #[test]
    fn every_redrive_and_every_drop_changes_the_revision_of_its_topic_alone() {
        let (mut redrives, mut draft) = (Redrives::default(), Draft::new(CommitIndex(1)));
        let (topic, other, partition) = (TopicId(1), TopicId(2), PartitionId(0));
        let to = "orders".parse().unwrap();
        let destination = Destination { to: &to, partition, base: Offset(7), time: Timestamp(9) };
        let mut seen = vec![redrives.revision(topic)];
        redrives.note((topic, partition, Offset(3)), &destination.row(2, 1), &mut draft);
        seen.push(redrives.revision(topic));
        redrives.forget_before((topic, partition), Offset(4), &mut draft);
        seen.push(redrives.revision(topic));
        assert!(seen.windows(2).all(|pair| pair[0] != pair[1]), "{seen:?}");
        assert_eq!(redrives.revision(other), RedriveRevision::default());
        let ops = draft.into_ops();
        assert_eq!(ops[0], destination.row(2, 1).put(&(topic, partition, Offset(3))));
        assert_eq!(destination.row(2, 1).to_offset, Offset(9));
        let (from, to) = Redriven::between(topic, partition, Offset(0), Offset(4));
        assert!(matches!(&ops[1], Op::DeleteRange { from: f, to: t, .. } if (f, t) == (&from, &to)));
    }
}
