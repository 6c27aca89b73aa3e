//! What a subscription has lost: to retention, purges and full backlogs, before it was acknowledged.
//!
//! It owns the rows of that, and what of them is to be stored. That events are lost, and how many, `levada_delivery` says;
//! who is told, the consumers. A loss counts from the commit on that passes over it, and a consumer is told of it then.

use std::collections::{BTreeMap, BTreeSet};

use levada_delivery::subscription::LostRange;
use levada_protocol::{
    ids::{Offset, PartitionId, SubscriptionId},
    request::LostEvents,
};
use levada_store::Store;

use crate::{
    error::Error,
    rows::{self, SubscriptionLoss},
};

/// The losses of a subscription, partition by partition.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// As they are stored, but for what consumers were told since.
    rows: BTreeMap<PartitionId, SubscriptionLoss>,
    /// Where consumers were told of more than is stored.
    told: BTreeSet<PartitionId>,
    under_way: UnderWay,
}

/// What the commit under way stores.
#[derive(Debug, Default)]
struct UnderWay {
    lost: Vec<LostRange>,
    told: BTreeSet<PartitionId>,
}

impl Losses {
    /// Reads what is stored of a subscription.
    pub(super) fn load(store: &dyn Store, id: SubscriptionId) -> Result<Self, Error> {
        let rows = rows::scan::<SubscriptionLoss>(store, SubscriptionLoss::of_subscription(id))?;
        let rows = rows.into_iter().map(|((_, partition), loss)| (partition, loss)).collect();
        Ok(Self { rows, ..Self::default() })
    }

    /// Notes what a consumer was told; false if another was told before. If not, that is to be stored.
    pub(super) fn tell(&mut self, partition: PartitionId, range: (Offset, Offset)) -> bool {
        let news = self.rows.get_mut(&partition).is_some_and(|loss| loss.tell(range));
        if news {
            self.told.insert(partition);
        }
        news
    }

    /// The rows that a commit which settles what was lost has to write.
    pub(super) fn begin(&mut self, lost: Vec<LostRange>) -> Vec<(PartitionId, SubscriptionLoss)> {
        let told = std::mem::take(&mut self.told);
        let mut changed: BTreeMap<_, _> =
            told.iter().filter_map(|partition| Some((*partition, *self.rows.get(partition)?))).collect();
        for lost in &lost {
            let loss = changed.get(&lost.partition).or_else(|| self.rows.get(&lost.partition)).copied();
            changed.insert(lost.partition, with(loss, lost));
        }
        self.under_way = UnderWay { lost, told };
        changed.into_iter().collect()
    }

    /// The commit under way has ended. Returns what consumers are to be told now.
    pub(super) fn end(&mut self, durable: bool) -> Vec<LostRange> {
        let UnderWay { lost, mut told } = std::mem::take(&mut self.under_way);
        if !durable {
            self.told.append(&mut told);
            return Vec::new();
        }
        for lost in &lost {
            let loss = with(self.rows.get(&lost.partition).copied(), lost);
            self.rows.insert(lost.partition, loss);
        }
        lost
    }

    /// What no consumer is known to have been told of.
    pub(super) fn untold(&self) -> impl Iterator<Item = (PartitionId, (Offset, Offset))> {
        self.rows.iter().filter_map(|(partition, loss)| Some((*partition, loss.untold()?)))
    }

    /// As the wire shows them.
    pub(super) fn shown(&self) -> Vec<LostEvents> {
        let shown = |(partition, loss): (&PartitionId, &SubscriptionLoss)| {
            let ((first, last), (events, earlier)) = (loss.range(), loss.events());
            LostEvents { partition: partition.0, first: first.0, last: last.0, events, earlier }
        };
        self.rows.iter().map(shown).collect()
    }
}

/// The row with what is lost now.
fn with(before: Option<SubscriptionLoss>, lost: &LostRange) -> SubscriptionLoss {
    let range = (lost.first, lost.last);
    match before {
        None => SubscriptionLoss::new(range, lost.events),
        Some(mut loss) => {
            loss.add(range, lost.events);
            loss
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: PartitionId = PartitionId(3);

    fn lost(first: u64, last: u64) -> LostRange {
        LostRange { partition: P, first: Offset(first), last: Offset(last), events: last - first + 1 }
    }

    fn row(losses: &[(u64, u64)]) -> SubscriptionLoss {
        let row = losses.iter().fold(None, |row, (first, last)| Some(with(row, &lost(*first, *last))));
        row.unwrap()
    }

    #[test]
    fn a_loss_counts_once_its_commit_is_durable_however_often_that_fails() {
        let mut losses = Losses::default();
        for durable in [false, true] {
            assert_eq!(losses.begin(vec![lost(0, 9)]), [(P, row(&[(0, 9)]))]);
            assert!(losses.shown().is_empty());
            assert_eq!(losses.end(durable).len(), usize::from(durable));
        }
        assert_eq!(losses.begin(vec![lost(10, 19)]), [(P, row(&[(0, 9), (10, 19)]))]);
        losses.end(true);
        let shown = LostEvents { partition: 3, first: 0, last: 19, events: 20, earlier: 0 };
        assert_eq!(losses.shown(), [shown]);
    }

    #[test]
    fn what_a_consumer_was_told_is_stored_until_that_succeeds_and_what_is_lost_meanwhile_is_not_told() {
        let mut losses = Losses::default();
        losses.begin(vec![lost(0, 9)]);
        losses.end(true);
        assert!(losses.tell(P, (Offset(0), Offset(9))) && !losses.tell(P, (Offset(0), Offset(9))));
        let mut told = row(&[(0, 9)]);
        told.tell((Offset(0), Offset(9)));
        for durable in [false, true] {
            assert_eq!(losses.begin(Vec::new()), [(P, told)]);
            losses.end(durable);
        }
        assert!(losses.begin(Vec::new()).is_empty(), "it is stored");
        losses.end(true);
        // A consumer is told while the next loss is committed.
        losses.begin(vec![lost(10, 19)]);
        losses.end(true);
        losses.begin(vec![lost(20, 29)]);
        assert!(losses.tell(P, (Offset(10), Offset(19))));
        losses.end(true);
        assert_eq!(losses.untold().collect::<Vec<_>>(), [(P, (Offset(20), Offset(29)))]);
        assert_eq!(losses.begin(Vec::new()).len(), 1);
    }
}
