//! What a subscription has read and may still send, kept in memory within a budget: events that wait for credit, and those
//! in flight, so that sending them again needs no read.
//!
//! It must not know why something is needed: whoever adds says what is.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use levada_protocol::ids::{Offset, PartitionId, Timestamp};

use super::slices::Slices;
use crate::error::Error;

/// Stretches that follow each other become one up to this many bytes.
const MERGED_BYTES_MAX: usize = 64 * 1024;
/// Stretches that are looked at to find one that is not needed.
const LOOKS_MAX: usize = 16;

/// The memory that all subscriptions may use together.
#[derive(Debug)]
pub(crate) struct RetainBudget {
    bytes_max: usize,
    /// Subscriptions that hold anything: each may hold an equal share.
    holders: AtomicUsize,
}

impl RetainBudget {
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, holders: AtomicUsize::new(0) })
    }

    fn share(&self) -> usize {
        self.bytes_max / self.holders.load(Ordering::Relaxed).max(1)
    }
}

/// One subscription's part.
#[derive(Debug)]
pub(super) struct Retained {
    budget: Arc<RetainBudget>,
    /// Entries of each partition, by their first offsets.
    partitions: Vec<VecDeque<Entry>>,
    /// Partition and first offset of each entry, the one that was added first in front.
    order: BTreeMap<u64, (usize, Offset)>,
    added: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    slices: Box<Slices>,
    bytes: usize,
    /// Its place in `order`.
    added: u64,
}

impl Retained {
    /// Nothing yet, of a topic of so many partitions, and of a queue behind them, whose stretches are never joined.
    pub(super) fn new(partitions: usize, budget: Arc<RetainBudget>) -> Self {
        let partitions = (0..=partitions).map(|_| VecDeque::new()).collect();
        Self { budget, partitions, order: BTreeMap::new(), added: 0, bytes: 0 }
    }

    /// The stretch that holds an offset.
    pub(super) fn find(&self, partition: PartitionId, offset: Offset) -> Option<&Slices> {
        let position = self.holding(partition, offset)?;
        Some(&self.partitions[index(partition)][position].slices)
    }

    /// Fails what has outlived its time to live in the stretch that holds an offset. What that takes in memory counts when
    /// the next stretch is added.
    pub(super) fn expire(&mut self, partition: PartitionId, offset: Offset, now: Timestamp) {
        if let Some(position) = self.holding(partition, offset) {
            let entry = &mut self.partitions[index(partition)][position];
            if entry.slices.expire(now) {
                let bytes = entry.slices.bytes();
                self.bytes = self.bytes - entry.bytes + bytes;
                entry.bytes = bytes;
            }
        }
    }

    /// As [`Retained::find`], with the keys of its events. Their memory counts when the next stretch is added.
    ///
    /// # Errors
    /// If a batch is damaged.
    pub(super) fn find_keyed(
        &mut self,
        partition: PartitionId,
        offset: Offset,
    ) -> Result<Option<&Slices>, Error> {
        let Some(position) = self.holding(partition, offset) else { return Ok(None) };
        let entry = &mut self.partitions[index(partition)][position];
        let bytes = entry.slices.load_keys()?;
        entry.bytes += bytes;
        self.bytes += bytes;
        Ok(Some(&entry.slices))
    }

    /// Adds a stretch. If that is over the budget, others go: what is no longer `needed` first, then what was added first.
    pub(super) fn add(
        &mut self,
        partition: PartitionId,
        slices: Slices,
        needed: impl Fn(PartitionId, &Range<Offset>) -> bool,
    ) {
        let (range, bytes) = (slices.range(), slices.bytes());
        if self.order.is_empty() {
            self.budget.holders.fetch_add(1, Ordering::Relaxed);
        }
        self.bytes += bytes;
        let is_log = index(partition) + 1 < self.partitions.len();
        let entries = &mut self.partitions[index(partition)];
        let newest = match entries.back_mut() {
            Some(last)
                if is_log
                    && last.slices.range().end == range.start
                    && last.slices.keeps_keys_of(&slices)
                    && last.bytes + bytes <= MERGED_BYTES_MAX =>
            {
                last.slices.append(slices);
                last.bytes += bytes;
                last.added
            }
            _ => {
                self.added += 1;
                let position = behind(entries, range.start);
                entries.insert(position, Entry { slices: Box::new(slices), bytes, added: self.added });
                self.order.insert(self.added, (index(partition), range.start));
                // What begins at the same offset is replaced.
                let before =
                    position.checked_sub(1).filter(|it| entries[*it].slices.range().start == range.start);
                if let Some(entry) = before.and_then(|position| entries.remove(position)) {
                    self.forget(&entry);
                }
                self.added
            }
        };
        self.shrink(newest, needed);
    }

    /// Lets go of what is below a floor.
    pub(super) fn settle(&mut self, partition: PartitionId, floor: Offset) {
        let settled = |entry: &mut Entry| entry.slices.range().end <= floor;
        while let Some(entry) = self.partitions[index(partition)].pop_front_if(settled) {
            self.forget(&entry);
        }
    }

    /// Lets go of everything.
    pub(super) fn clear(&mut self) {
        if !self.order.is_empty() {
            self.budget.holders.fetch_sub(1, Ordering::Relaxed);
        }
        self.partitions.iter_mut().for_each(VecDeque::clear);
        self.order.clear();
        self.bytes = 0;
    }

    fn shrink(&mut self, newest: u64, needed: impl Fn(PartitionId, &Range<Offset>) -> bool) {
        let share = self.budget.share();
        while self.bytes > share {
            let candidates = || self.order.iter().filter(|(added, _)| **added != newest);
            let is_needed = |(partition, from): &(usize, Offset)| {
                let entry =
                    self.position(*partition, *from).map(|position| &self.partitions[*partition][position]);
                entry.is_some_and(|entry| needed(number(*partition), &entry.slices.range()))
            };
            let useless = candidates().take(LOOKS_MAX).find(|(_, key)| !is_needed(key));
            let Some((_, (partition, from))) = useless.or_else(|| candidates().next()) else { return };
            let (partition, from) = (*partition, *from);
            let Some(position) = self.position(partition, from) else { return };
            if let Some(entry) = self.partitions[partition].remove(position) {
                self.forget(&entry);
            }
        }
    }

    /// Where the entry is that holds an offset.
    fn holding(&self, partition: PartitionId, offset: Offset) -> Option<usize> {
        let entries = &self.partitions[index(partition)];
        let position = behind(entries, offset).checked_sub(1)?;
        entries[position].slices.range().contains(&offset).then_some(position)
    }

    /// Where the entry is that begins at an offset.
    fn position(&self, partition: usize, from: Offset) -> Option<usize> {
        let entries = &self.partitions[partition];
        let position = behind(entries, from).checked_sub(1)?;
        (entries[position].slices.range().start == from).then_some(position)
    }

    fn forget(&mut self, entry: &Entry) {
        self.order.remove(&entry.added);
        self.bytes -= entry.bytes;
        if self.order.is_empty() {
            self.budget.holders.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Retained {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The position behind all entries that begin at an offset or before.
fn behind(entries: &VecDeque<Entry>, offset: Offset) -> usize {
    // Most often it is the last one.
    if entries.back().is_none_or(|last| last.slices.range().start <= offset) {
        return entries.len();
    }
    entries.partition_point(|entry| entry.slices.range().start <= offset)
}

fn index(partition: PartitionId) -> usize {
    usize::from(partition.0)
}

fn number(index: usize) -> PartitionId {
    PartitionId(u16::try_from(index).expect("a topic has at most 1,024 partitions"))
}

#[cfg(test)]
mod tests {
    use levada_chain::{Filtered, Progress};
    use levada_delivery::subscription::EventKey;

    use super::{
        super::slices::tests::{key, keyed_piece, piece},
        *,
    };

    const P0: PartitionId = PartitionId(0);

    fn slices(offsets: &[u64]) -> Slices {
        Slices::stored(Offset(offsets[0]), vec![piece(offsets)]).unwrap()
    }

    fn all(_: PartitionId, _: &Range<Offset>) -> bool {
        true
    }

    fn held(retained: &Retained) -> Vec<u64> {
        (0..100).filter(|offset| retained.find(P0, Offset(*offset)).is_some()).collect()
    }

    #[test]
    fn stretches_that_follow_each_other_become_one_and_go_when_the_floor_passes() {
        let budget = RetainBudget::new(1 << 20);
        let mut retained = Retained::new(1, Arc::clone(&budget));
        for at in [0, 2, 4] {
            retained.add(P0, slices(&[at, at + 1]), all);
        }
        retained.add(P0, slices(&[10, 11]), all);
        assert_eq!((retained.order.len(), held(&retained)), (2, vec![0, 1, 2, 3, 4, 5, 10, 11]));
        assert_eq!(retained.find(P0, Offset(3)).unwrap().range(), Offset(0)..Offset(6));
        retained.settle(P0, Offset(5));
        assert_eq!(held(&retained).len(), 8, "one event of the first is above the floor");
        retained.settle(P0, Offset(6));
        assert_eq!(held(&retained), [10, 11]);
        retained.settle(P0, Offset(99));
        assert_eq!((retained.bytes, budget.holders.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn stretches_of_a_queue_are_never_joined() {
        let mut retained = Retained::new(1, RetainBudget::new(1 << 20));
        let queue = PartitionId(1);
        for at in 0..3 {
            retained.add(queue, slices(&[at]), all);
        }
        let range = |at| retained.find(queue, Offset(at)).map(Slices::range);
        assert_eq!((range(1), range(3)), (Some(Offset(1)..Offset(2)), None));
    }

    #[test]
    fn stretches_are_not_joined_where_keys_that_a_chain_changed_would_be_lost() {
        let passed = |at: u64, made: &'static str| Filtered {
            progress: Progress { reached: Offset(at + 1), ..Progress::default() },
            passed: vec![keyed_piece(&[(at, Some(made))])],
            ..Filtered::default()
        };
        let mut retained = Retained::new(1, RetainBudget::new(1 << 20));
        retained.add(P0, Slices::filtered(Offset(0), passed(0, "a"), None, Vec::new()).unwrap(), all);
        let stored = key(1, Some("a"));
        let changed = Slices::filtered(Offset(1), passed(1, "x"), Some(vec![stored]), Vec::new()).unwrap();
        retained.add(P0, changed, all);
        for offset in [0, 1] {
            let slices = retained.find_keyed(P0, Offset(offset)).unwrap().unwrap();
            let keys = slices.fetched(Offset(offset), true).keys.unwrap();
            assert_eq!(keys[0], key(offset, Some("a")));
        }
    }

    #[test]
    fn keys_count_once_in_the_memory_that_goes_with_their_stretch() {
        let mut retained = Retained::new(1, RetainBudget::new(1 << 20));
        retained.add(P0, slices(&[0, 1]), all);
        let bytes = retained.bytes;
        let keys = |retained: &mut Retained, at| {
            let slices = retained.find_keyed(P0, Offset(at)).unwrap()?;
            slices.fetched(Offset(at), true).keys.map(<[_]>::len)
        };
        assert_eq!(
            (keys(&mut retained, 0), keys(&mut retained, 1), keys(&mut retained, 2)),
            (Some(2), Some(1), None)
        );
        assert_eq!(retained.bytes, bytes + 2 * size_of::<EventKey>());
        retained.add(P0, slices(&[2]), all);
        assert_eq!(keys(&mut retained, 1), Some(2));
        retained.settle(P0, Offset(3));
        assert_eq!(retained.bytes, 0);
    }

    #[test]
    fn over_the_budget_the_useless_goes_first_then_the_oldest_and_never_the_newest() {
        let one = slices(&[10]).bytes();
        let budget = RetainBudget::new(one * 3);
        let mut retained = Retained::new(1, Arc::clone(&budget));
        // Gaps keep them apart.
        for at in [10, 20, 30] {
            retained.add(P0, slices(&[at]), all);
        }
        retained.add(P0, slices(&[40]), |_, range| range.start != Offset(20));
        assert_eq!(held(&retained), [10, 30, 40]);
        retained.add(P0, slices(&[50]), all);
        assert_eq!(held(&retained), [30, 40, 50]);
        let other = {
            let mut other = Retained::new(1, budget);
            other.add(P0, slices(&[10]), all);
            other
        };
        retained.add(P0, slices(&[60]), all);
        assert_eq!(held(&retained), [60], "two share what one had");
        drop(other);
        retained.add(P0, slices(&[70]), all);
        retained.add(P0, slices(&[80]), all);
        assert_eq!(held(&retained), [60, 70, 80]);
    }
}
