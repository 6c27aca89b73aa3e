//! Keeps account of what arrived: every expected event once, in order. The bench's word `complete` comes from here.

use std::ops::Range;

use levada_protocol::ids::PartitionId;
use levada_rig::arrivals::{Rising, Seen};
use serde::Serialize;

use crate::stamp::Stamp;

/// Sequences above this are not ours: more than any run publishes.
const SEQUENCES_MAX: u64 = 1 << 32;

/// Lanes from this on are not ours.
const LANES_MAX: u64 = 1 << 20;

/// What arrived at one place.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    lanes: Vec<Lane>,
    order: Ordered,
    received: u64,
    twice: u64,
    disordered: u64,
    foreign: u64,
}

/// The events of one publishing task, in whichever partitions.
#[derive(Debug, Clone, Default)]
struct Lane {
    seen: Seen,
    /// For each partition or key, as the order is.
    rising: Vec<Rising>,
}

/// Events of one lane and place that follow on each other.
struct Row {
    lane: u64,
    place: usize,
    sequences: Range<u64>,
}

/// Which events of a lane must arrive in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ordered {
    /// Those of a partition, of so many.
    ByPartition(u16),
    /// Those of a key, of so many, which a lane gives its events in turn.
    ByKey(u32),
}

impl Ordered {
    fn places(self) -> usize {
        match self {
            Self::ByPartition(partitions) => usize::from(partitions),
            Self::ByKey(keys) => keys as usize,
        }
    }

    #[inline]
    fn place(self, partition: PartitionId, sequence: u64) -> usize {
        match self {
            Self::ByPartition(_) => usize::from(partition.0),
            Self::ByKey(keys) => usize::try_from(sequence % u64::from(keys.max(1))).unwrap_or(0),
        }
    }
}

/// What is wrong with what arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Verdict {
    /// Expected and not there.
    pub(crate) lost: u64,
    /// There again.
    pub(crate) twice: u64,
    /// There after a later one of the same lane and partition.
    pub(crate) disordered: u64,
    /// There and not expected, or not ours at all.
    pub(crate) unexpected: u64,
}

impl Verdict {
    /// True if every expected event arrived once and in order, and nothing else.
    pub(crate) fn is_complete(&self) -> bool {
        *self == Self::default()
    }

    /// The verdict over two places.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            lost: self.lost + other.lost,
            twice: self.twice + other.twice,
            disordered: self.disordered + other.disordered,
            unexpected: self.unexpected + other.unexpected,
        }
    }
}

impl Ledger {
    /// Nothing has arrived.
    pub(crate) fn new(order: Ordered) -> Self {
        Self { lanes: Vec::new(), order, received: 0, twice: 0, disordered: 0, foreign: 0 }
    }

    /// Events that arrived, each counted once.
    pub(crate) fn distinct(&self) -> u64 {
        self.received - self.twice - self.foreign
    }

    /// Enters the events of one delivery, in its order; `None` is a payload that is no stamp.
    #[inline]
    pub(crate) fn enter(&mut self, partition: PartitionId, stamps: impl Iterator<Item = Option<Stamp>>) {
        // Most often one lane's events follow on each other, and are one entry.
        let mut row = Row { lane: 0, place: 0, sequences: 0..0 };
        for stamp in stamps {
            self.received += 1;
            let Some(stamp) = stamp.filter(|it| it.sequence < SEQUENCES_MAX && it.lane < LANES_MAX) else {
                self.foreign += 1;
                continue;
            };
            let place = self.order.place(partition, stamp.sequence);
            if stamp.lane == row.lane && place == row.place && stamp.sequence == row.sequences.end {
                row.sequences.end += 1;
            } else {
                self.enter_row(&row);
                row = Row { lane: stamp.lane, place, sequences: stamp.sequence..stamp.sequence + 1 };
            }
        }
        self.enter_row(&row);
    }

    fn enter_row(&mut self, row: &Row) {
        let (Ok(index), sequences) = (usize::try_from(row.lane), row.sequences.clone()) else { return };
        if sequences.is_empty() {
            return;
        }
        if index >= self.lanes.len() {
            self.lanes.resize_with(index + 1, Lane::default);
        }
        let lane = &mut self.lanes[index];
        if row.place >= lane.rising.len() {
            lane.rising.resize(self.order.places().max(row.place + 1), Rising::default());
        }
        let rising = &mut lane.rising[row.place];
        if sequences.end - sequences.start > 1 && lane.seen.mark_range(sequences.clone()) {
            self.disordered += rising.late_of(sequences);
            return;
        }
        for sequence in sequences {
            // One that is there again says nothing about the order.
            if lane.seen.mark(sequence) {
                self.twice += 1;
            } else {
                self.disordered += u64::from(rising.is_late(sequence));
            }
        }
    }

    /// Takes in what another consumer of the same subscription got. Between consumers there is no order.
    pub(crate) fn absorb(&mut self, other: &Self) {
        self.received += other.received;
        self.twice += other.twice;
        self.disordered += other.disordered;
        self.foreign += other.foreign;
        if self.lanes.len() < other.lanes.len() {
            self.lanes.resize_with(other.lanes.len(), Lane::default);
        }
        for (lane, more) in self.lanes.iter_mut().zip(&other.lanes) {
            self.twice += lane.seen.absorb(&more.seen);
        }
    }

    /// Holds what arrived against what had to: in each lane the sequences below its count that `expected` names.
    pub(crate) fn verdict(&self, sent: &[u64], expected: impl Fn(u64) -> bool) -> Verdict {
        let (mut lost, mut unexpected) = (0, self.foreign);
        let nothing = Lane::default();
        for index in 0..self.lanes.len().max(sent.len()) {
            let lane = self.lanes.get(index).unwrap_or(&nothing);
            let sent = sent.get(index).copied().unwrap_or(0);
            for sequence in 0..sent.max(lane.seen.end()) {
                match (lane.seen.has(sequence), sequence < sent && expected(sequence)) {
                    (false, true) => lost += 1,
                    (true, false) => unexpected += 1,
                    _ => {}
                }
            }
        }
        Verdict { lost, twice: self.twice, disordered: self.disordered, unexpected }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(entries: &[(u16, u64, u64)]) -> Ledger {
        let mut ledger = Ledger::new(Ordered::ByPartition(2));
        for &(partition, lane, sequence) in entries {
            let stamp = Stamp { lane, sequence, sent: 0 };
            ledger.enter(PartitionId(partition), [Some(stamp)].into_iter());
        }
        ledger
    }

    #[test]
    fn all_once_and_in_order_is_complete() {
        let arrived = ledger(&[(0, 0, 0), (1, 0, 1), (0, 0, 3), (1, 0, 2), (0, 1, 0)]);
        assert!(arrived.verdict(&[4, 1], |_| true).is_complete());
        assert_eq!(arrived.distinct(), 5);
    }

    #[test]
    fn what_is_missing_repeated_or_late_is_counted() {
        let arrived = ledger(&[(0, 0, 0), (0, 0, 2), (0, 0, 1), (0, 0, 2)]);
        let verdict = arrived.verdict(&[4], |_| true);
        assert_eq!(verdict, Verdict { lost: 1, twice: 1, disordered: 1, unexpected: 0 });
    }

    #[test]
    fn by_key_only_the_events_of_a_key_have_an_order() {
        let mut arrived = Ledger::new(Ordered::ByKey(3));
        for sequence in [1, 0, 4, 2, 3, 8, 5] {
            let stamp = Stamp { lane: 0, sequence, sent: 0 };
            arrived.enter(PartitionId(0), [Some(stamp)].into_iter());
        }
        let verdict = arrived.verdict(&[9], |sequence| sequence < 6 || sequence == 8);
        assert_eq!(verdict, Verdict { disordered: 1, ..Verdict::default() }, "5 after 8");
    }

    #[test]
    fn what_nobody_sent_is_unexpected() {
        let mut arrived = ledger(&[(0, 0, 0), (0, 0, 9), (0, 5, 0), (0, 0, u64::MAX)]);
        arrived.enter(PartitionId(0), [None].into_iter());
        let verdict = arrived.verdict(&[1], |_| true);
        assert_eq!(verdict, Verdict { unexpected: 4, ..Verdict::default() });
        let filtered = ledger(&[(0, 0, 0), (0, 0, 2)]).verdict(&[4], |sequence| sequence % 2 == 0);
        assert!(filtered.is_complete());
        let leaked = ledger(&[(0, 0, 0), (0, 0, 1), (0, 0, 2)]).verdict(&[4], |sequence| sequence % 2 == 0);
        assert_eq!(leaked.unexpected, 1);
    }

    #[test]
    fn a_delivery_is_entered_as_its_events_are_one_by_one() {
        let stamp = |lane, sequence| Some(Stamp { lane, sequence, sent: 0 });
        let orders: [&[(u64, u64)]; 5] = [
            &[(0, 0), (0, 1), (0, 2), (1, 0), (0, 3)],
            &[(0, 2), (0, 3), (0, 0), (0, 1), (0, 2), (0, 4)],
            &[(1, 0), (0, 1), (1, 1), (0, 2), (1, 2)],
            &[(0, 0), (LANES_MAX, 1), (0, 1), (0, SEQUENCES_MAX)],
            &[],
        ];
        for order in orders {
            let mut whole = Ledger::new(Ordered::ByPartition(1));
            let stamps = order.iter().map(|(lane, sequence)| stamp(*lane, *sequence));
            whole.enter(PartitionId(0), stamps.chain([None]));
            let mut single = ledger(&order.iter().map(|(lane, at)| (0, *lane, *at)).collect::<Vec<_>>());
            single.enter(PartitionId(0), [None].into_iter());
            let verdict = |ledger: &Ledger| (ledger.distinct(), ledger.verdict(&[5, 3], |_| true));
            assert_eq!(verdict(&whole), verdict(&single), "{order:?}");
        }
    }

    #[test]
    fn consumers_of_one_subscription_share_an_account() {
        let mut arrived = ledger(&[(0, 0, 0), (0, 0, 1)]);
        arrived.absorb(&ledger(&[(0, 0, 2), (0, 0, 1), (0, 1, 0)]));
        let verdict = arrived.verdict(&[3, 1], |_| true);
        assert_eq!(verdict, Verdict { twice: 1, disordered: 1, ..Verdict::default() });
        assert_eq!(arrived.distinct(), 4);
    }
}
