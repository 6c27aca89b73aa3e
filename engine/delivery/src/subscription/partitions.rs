//! All partitions of a subscription, and which of them need a look.
//!
//! Whatever changes a partition goes through [`Partitions::update`], which keeps the indexes true.

use levada_protocol::ids::PartitionId;

use super::{index_set::IndexSet, partition::Partition};

/// The partitions, by index.
#[derive(Debug)]
pub(super) struct Partitions {
    list: Vec<Partition>,
    /// Those where something waits for redelivery.
    retrying: IndexSet,
    /// Those whose cursor is not at their end.
    unread: IndexSet,
    /// Those whose rows changed without anything settling.
    touched: IndexSet,
    /// Those that were updated since somebody asked.
    changed: IndexSet,
    /// Runs of failed offsets, over all of them.
    failed_runs: usize,
    failed_runs_max: usize,
    /// Which one is looked at first.
    next: usize,
}

impl Partitions {
    /// With as many failed runs as this nothing fresh is read.
    pub(super) fn new(list: Vec<Partition>, failed_runs_max: usize) -> Self {
        let mut partitions = Self {
            retrying: IndexSet::default(),
            unread: IndexSet::default(),
            touched: IndexSet::default(),
            changed: IndexSet::default(),
            failed_runs: list.iter().map(Partition::failed_runs).sum(),
            failed_runs_max,
            next: 0,
            list,
        };
        for index in 0..partitions.list.len() {
            partitions.update(index, |_| ());
            partitions.touched.set(index, partitions.list[index].is_dirty());
        }
        partitions
    }

    pub(super) fn get(&self, index: usize) -> &Partition {
        &self.list[index]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Partition> {
        self.list.iter()
    }

    /// Changes a partition.
    pub(super) fn update<R>(&mut self, index: usize, change: impl FnOnce(&mut Partition) -> R) -> R {
        let partition = &mut self.list[index];
        let failed_before = partition.failed_runs();
        let result = change(partition);
        self.failed_runs = self.failed_runs - failed_before + partition.failed_runs();
        self.retrying.set(index, partition.has_waiting());
        self.unread.set(index, partition.is_behind());
        self.changed.set(index, true);
        result
    }

    /// Notes that a partition has rows to write.
    pub(super) fn touch(&mut self, index: usize) {
        self.touched.set(index, true);
    }

    pub(super) fn is_touched(&self) -> bool {
        !self.touched.is_empty()
    }

    /// Takes the partitions that have rows to write without anything settling.
    pub(super) fn take_touched(&mut self) -> Vec<usize> {
        self.touched.take()
    }

    /// Takes the partitions that were updated since the last call.
    pub(super) fn take_changed(&mut self) -> Vec<usize> {
        self.changed.take()
    }

    /// Partitions where something waits, the one whose turn it is first.
    pub(super) fn retrying(&self) -> impl Iterator<Item = (usize, &Partition)> {
        self.in_turn(&self.retrying)
    }

    /// Partitions with fresh offsets, the one whose turn it is first.
    pub(super) fn unread(&self) -> impl Iterator<Item = (usize, &Partition)> {
        self.in_turn(&self.unread)
    }

    /// The same as long as fresh offsets may be delivered: none while as many runs have failed as may.
    pub(super) fn readable(&self) -> impl Iterator<Item = (usize, &Partition)> {
        self.unread().take_while(|_| self.failures().is_none())
    }

    /// How many runs of offsets have failed, if that is as many as may.
    pub(super) fn failures(&self) -> Option<u64> {
        (self.failed_runs >= self.failed_runs_max).then_some(self.failed_runs as u64)
    }

    /// The same if they hold back anything.
    pub(super) fn held_by_failures(&self) -> Option<u64> {
        self.failures().filter(|_| self.unread().next().is_some())
    }

    #[cfg(test)]
    pub(super) fn failed_runs(&self) -> usize {
        self.failed_runs
    }

    /// Says which partition has its turn next.
    pub(super) fn set_next(&mut self, index: usize) {
        self.next = index % self.list.len();
    }

    fn in_turn<'a>(&'a self, set: &'a IndexSet) -> impl Iterator<Item = (usize, &'a Partition)> {
        set.iter_from(self.next).map(|index| (index, &self.list[index]))
    }
}

/// The number of the partition at an index.
pub(super) fn partition_id(index: usize) -> PartitionId {
    PartitionId(u16::try_from(index).expect("a topic has at most 1,024 partitions"))
}

/// The index of the partition with this number.
pub(super) fn index(partition: PartitionId) -> usize {
    usize::from(partition.0)
}

#[cfg(test)]
mod tests {
    use levada_protocol::ids::{Offset, Timestamp};

    use super::{super::waiting::Wait, *};
    use crate::{now::Now, progress::Progress};

    fn three() -> Partitions {
        let now = Now { mono_ms: 0, wall: Timestamp(0) };
        let mut progress = Progress::new(Offset(0), 1);
        progress.take_dirty();
        let list = (0..3).map(|_| Partition::new(progress.clone(), now)).collect();
        Partitions::new(list, usize::MAX)
    }

    fn indexes<'a>(turn: impl Iterator<Item = (usize, &'a Partition)>) -> Vec<usize> {
        turn.map(|(index, _)| index).collect()
    }

    #[test]
    fn indexes_follow_updates_and_turns_go_round() {
        let mut partitions = three();
        assert_eq!(partitions.take_changed().len(), 3, "whoever is new looks at all");
        for index in [0, 2] {
            partitions.update(index, |it| it.extend(5));
        }
        partitions.set_next(1);
        assert_eq!(indexes(partitions.unread()), [2, 0]);
        partitions.update(2, |it| it.take_run(&(0..5), true));
        partitions.update(2, |it| it.wait(1..2, Wait { due: 0, by: None }));
        assert_eq!((indexes(partitions.unread()), indexes(partitions.retrying())), (vec![0], vec![2]));
        assert_eq!(partitions.take_changed(), [0, 2]);
        assert!(partitions.take_changed().is_empty());
    }
}
