//! What a subscription lost of one partition: written in the commit that passes over what was lost, and when a consumer
//! was told. No row: nothing was ever lost there. A seek leaves it as it is.
//!
//! ```text
//!  0         1        9         17      25     33
//!  +---------+--------+---------+-------+------+--------+
//!  | version | events | earlier | first | last | untold |
//!  | u8 = 1  | u64    | u64     | u64   | u64  | u64    |
//!  +---------+--------+---------+-------+------+--------+
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use levada_protocol::ids::{Offset, PartitionId, SubscriptionId};
use levada_store::Family;

use super::{
    Row,
    codec::{Damage, Fields},
    key::{KeyBuilder, KeyFields, KeyRange},
    tag,
};

/// The events that retention, purges and full backlogs took from a subscription in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SubscriptionLoss {
    /// Since the subscription was made.
    events: u64,
    /// How many of them are not in the range that follows.
    earlier: u64,
    /// The offsets lost last. Losses that no consumer was told of are one range, which covers all of them.
    first: Offset,
    last: Offset,
    /// The first offset of the range that no consumer was told of; behind the last one if there is none.
    untold: Offset,
}

impl SubscriptionLoss {
    /// The first loss, which nobody was told of.
    pub(crate) fn new((first, last): (Offset, Offset), events: u64) -> Self {
        Self { events, earlier: 0, first, last, untold: first }
    }

    /// All of a subscription.
    pub(crate) fn of_subscription(id: SubscriptionId) -> KeyRange {
        KeyBuilder::new(9).u8(tag::CURSOR_LOSS).u64(id.0).range()
    }

    /// Adds a loss that nobody was told of: to the range that nobody was told of, or as a range of its own.
    pub(crate) fn add(&mut self, (first, last): (Offset, Offset), events: u64) {
        match self.untold() {
            Some((untold, _)) => {
                (self.first, self.last) = (self.first.min(first), self.last.max(last));
                self.untold = untold.min(first);
            }
            None => (self.earlier, self.first, self.last, self.untold) = (self.events, first, last, first),
        }
        self.events = self.events.saturating_add(events);
    }

    /// A consumer was told of this range; false if that was known before.
    pub(crate) fn tell(&mut self, (first, last): (Offset, Offset)) -> bool {
        let Some((untold, _)) = self.untold() else { return false };
        // What is told in parts is told from its beginning on.
        let news = first <= untold && untold <= last;
        if news {
            self.untold = Offset(last.min(self.last).0 + 1);
        }
        news
    }

    /// What no consumer was told of.
    pub(crate) fn untold(&self) -> Option<(Offset, Offset)> {
        (self.untold <= self.last).then_some((self.untold, self.last))
    }

    /// The offsets lost last.
    pub(crate) fn range(&self) -> (Offset, Offset) {
        (self.first, self.last)
    }

    /// How many events were lost since the subscription was made, and how many of them before those of the range.
    pub(crate) fn events(&self) -> (u64, u64) {
        (self.events, self.earlier)
    }
}

impl Row for SubscriptionLoss {
    const NAME: &'static str = "subscription loss";
    const FAMILY: Family = Family::Cursors;
    const VERSION: u8 = 1;
    type Key = (SubscriptionId, PartitionId);

    fn key((id, partition): &Self::Key) -> Bytes {
        KeyBuilder::new(11).u8(tag::CURSOR_LOSS).u64(id.0).u16(partition.0).finish()
    }

    fn parse_key(key: &[u8]) -> Option<Self::Key> {
        let mut fields = KeyFields::after(&[tag::CURSOR_LOSS], key)?;
        let partition = (SubscriptionId(fields.u64()?), PartitionId(fields.u16()?));
        fields.finish(partition)
    }

    fn len(&self) -> usize {
        40
    }

    fn write(&self, out: &mut BytesMut) {
        for field in [self.events, self.earlier, self.first.0, self.last.0, self.untold.0] {
            out.put_u64_le(field);
        }
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        let (events, earlier) = (fields.u64()?, fields.u64()?);
        let (first, last, untold) = (Offset(fields.u64()?), Offset(fields.u64()?), Offset(fields.u64()?));
        if earlier > events {
            return Err("more events were lost before than in all".into());
        }
        let is_within = last.0.checked_add(1).is_some_and(|end| first <= untold && untold.0 <= end);
        if first > last || !is_within {
            return Err("what was not told is not a part of what was lost".into());
        }
        Ok(Self { events, earlier, first, last, untold })
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::rows::check;

    fn range(first: u64, last: u64) -> (Offset, Offset) {
        (Offset(first), Offset(last))
    }

    #[test]
    fn the_bytes_are_these() {
        let mut loss = SubscriptionLoss::new(range(0, 3), 4);
        loss.tell(range(0, 3));
        loss.add(range(16, 258), 200);
        loss.tell(range(16, 31));
        let expected =
            "01 cc00000000000000 0400000000000000 1000000000000000 0201000000000000 2000000000000000";
        check::bytes(&(SubscriptionId(9), PartitionId(2)), &loss, "03 0000000000000009 0002", expected);
    }

    #[test]
    fn what_nobody_was_told_of_is_one_range_and_what_comes_after_it_was_told_another() {
        let mut loss = SubscriptionLoss::new(range(0, 9), 10);
        loss.add(range(20, 29), 5);
        assert_eq!((loss.untold(), loss.range(), loss.events()), (Some(range(0, 29)), range(0, 29), (15, 0)));
        assert!(loss.tell(range(0, 9)) && !loss.tell(range(0, 9)), "told in part");
        assert_eq!(loss.untold(), Some(range(10, 29)));
        assert!(!loss.tell(range(15, 29)), "what is before it is not told yet");
        loss.add(range(5, 6), 2);
        assert_eq!(loss.untold(), Some(range(5, 29)), "it may come below what was told");
        assert!(loss.tell(range(0, 100)));
        assert_eq!((loss.untold(), loss.range(), loss.events()), (None, range(0, 29), (17, 0)));
        assert!(!loss.tell(range(0, 100)));
        loss.add(range(30, 30), 1);
        assert_eq!(
            (loss.untold(), loss.range(), loss.events()),
            (Some(range(30, 30)), range(30, 30), (18, 17))
        );
    }

    proptest! {
        #[test]
        fn it_comes_back(
            id: u64, partition: u16, first in 0..u64::MAX - 1, losses in vec((any::<u32>(), any::<bool>()), 1..5),
        ) {
            let mut loss = SubscriptionLoss::new(range(first, first), 1);
            for (events, told) in losses {
                let last = first.saturating_add(events.into()).min(u64::MAX - 1);
                loss.add(range(first, last), last - first);
                if told {
                    loss.tell(range(first, last));
                }
            }
            let key = (SubscriptionId(id), PartitionId(partition));
            check::comes_back(&key, &loss);
            check::is_within::<SubscriptionLoss>(&key, &SubscriptionLoss::of_subscription(key.0));
        }

        #[test]
        fn garbage_is_refused_or_reads_back_as_it_was(garbage in vec(any::<u8>(), 30..50)) {
            check::garbage::<SubscriptionLoss>(&garbage);
        }
    }
}
