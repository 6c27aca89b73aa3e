//! Events that retention took before they were acknowledged, until somebody was told.
//!
//! It owns what is not told yet. That events are lost, and how many, `levada_delivery` says.

use std::collections::BTreeMap;

use levada_protocol::{
    ids::{Offset, PartitionId},
    request::Notice,
};
use tokio::sync::mpsc;

use crate::rows::SubscriptionRecord;

/// Losses that are not told yet: at most one range for each partition, which covers all of them.
#[derive(Debug, Default)]
pub(super) struct Losses {
    ranges: BTreeMap<PartitionId, (Offset, Offset)>,
}

impl Losses {
    /// Adds a loss.
    pub(super) fn add(&mut self, partition: PartitionId, first: Offset, last: Offset) {
        let range = self.ranges.entry(partition).or_insert((first, last));
        *range = (range.0.min(first), range.1.max(last));
    }

    /// Adds what somebody else has not been told either.
    pub(super) fn add_all(&mut self, other: Self) {
        other.ranges.into_iter().for_each(|(partition, (first, last))| self.add(partition, first, last));
    }

    /// Tells as much as there is room for. What is left is told another time.
    pub(super) fn tell(&mut self, record: &SubscriptionRecord, notices: &mpsc::Sender<Notice>) {
        while let Some(entry) = self.ranges.first_entry() {
            let (partition, (first, last)) = (*entry.key(), *entry.get());
            let notice = Notice::EventsLost {
                topic: record.topic.clone(),
                subscription: record.name.clone(),
                partition: partition.0,
                first: first.0,
                last: last.0,
            };
            if notices.try_send(notice).is_err() {
                return;
            }
            entry.remove();
        }
    }
}
