//! What one consumer is yet to be told of losses, and how its session says that it was.

use std::{collections::BTreeMap, sync::Arc};

use levada_protocol::{
    ids::{Offset, PartitionId},
    request::Notice,
};
use tokio::sync::mpsc;

use super::signals::Signals;
use crate::rows::SubscriptionRecord;

/// What a client is to be told on its control stream: events that it will not get.
#[derive(Debug)]
pub struct LossNotice {
    notice: Notice,
    told: Told,
}

/// To be confirmed once the client is known to have got the notice. One that is dropped is told to another consumer.
#[derive(Debug)]
pub struct Told {
    partition: PartitionId,
    range: (Offset, Offset),
    owner: Arc<Signals>,
}

impl LossNotice {
    /// The notice, and what to do once the client has it.
    pub fn into_parts(self) -> (Notice, Told) {
        (self.notice, self.told)
    }
}

impl Told {
    /// The client was told: nobody else needs to be.
    pub fn confirm(self) {
        self.owner.told(self.partition, self.range);
    }
}

/// Losses that a consumer was not told of yet: at most one range for each partition, which covers all of them.
#[derive(Debug)]
pub(super) struct Untold {
    ranges: BTreeMap<PartitionId, (Offset, Offset)>,
    notices: mpsc::Sender<LossNotice>,
    owner: Arc<Signals>,
}

impl Untold {
    /// Nothing; to be told this way, and confirmed to this owner.
    pub(super) fn new(notices: mpsc::Sender<LossNotice>, owner: Arc<Signals>) -> Self {
        Self { ranges: BTreeMap::new(), notices, owner }
    }

    /// Adds a loss.
    pub(super) fn add(&mut self, partition: PartitionId, (first, last): (Offset, Offset)) {
        let range = self.ranges.entry(partition).or_insert((first, last));
        *range = (range.0.min(first), range.1.max(last));
    }

    /// Tells as much as there is room for. What is left is told another time.
    pub(super) fn tell(&mut self, record: &SubscriptionRecord) {
        while let Some(entry) = self.ranges.first_entry() {
            let Ok(room) = self.notices.try_reserve() else { return };
            let (partition, range) = entry.remove_entry();
            let notice = Notice::EventsLost {
                topic: record.topic.clone(),
                subscription: record.name.clone(),
                partition: partition.0,
                first: range.0.0,
                last: range.1.0,
            };
            room.send(LossNotice { notice, told: Told { partition, range, owner: Arc::clone(&self.owner) } });
        }
    }
}
