//! Which partitions of a topic changed lately, so that whoever waits for news looks at those alone.
//!
//! It owns the list. What changed about them, whoever is told looks up.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use levada_protocol::ids::PartitionId;

/// Changes that are remembered; whoever has missed more looks at every partition.
const REMEMBERED_MAX: usize = 1_024;

/// The latest changes, counted from the topic's opening on.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    recent: Mutex<Recent>,
}

#[derive(Debug, Default)]
struct Recent {
    /// The number of the oldest change that is remembered.
    first: u64,
    partitions: VecDeque<PartitionId>,
}

impl Changes {
    /// Notes that a partition's end or start moved. Called after it did.
    pub(crate) fn note(&self, partition: PartitionId) {
        let mut recent = self.lock();
        if recent.partitions.len() == REMEMBERED_MAX {
            recent.partitions.pop_front();
            recent.first += 1;
        }
        recent.partitions.push_back(partition);
    }

    /// Notes that any partition may have changed.
    pub(crate) fn note_all(&self) {
        let mut recent = self.lock();
        recent.first += recent.partitions.len() as u64 + 1;
        recent.partitions.clear();
    }

    /// The partitions that changed since `seen`, which moves on; `None` if it may be any.
    pub(crate) fn since(&self, seen: &mut Option<u64>) -> Option<Vec<PartitionId>> {
        let recent = self.lock();
        let end = recent.first + recent.partitions.len() as u64;
        let known = seen.replace(end).filter(|seen| *seen >= recent.first)?;
        let skipped = usize::try_from(known - recent.first).unwrap_or(usize::MAX);
        let mut changed: Vec<PartitionId> = recent.partitions.iter().skip(skipped).copied().collect();
        drop(recent);
        changed.sort_unstable();
        changed.dedup();
        Some(changed)
    }

    fn lock(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_told_once_and_too_many_mean_any() {
        let changes = Changes::default();
        let mut seen = None;
        assert_eq!(changes.since(&mut seen), None, "whoever is new looks at all");
        assert_eq!(changes.since(&mut seen), Some(Vec::new()));
        [5, 3, 5].into_iter().for_each(|number| changes.note(PartitionId(number)));
        assert_eq!(changes.since(&mut seen), Some(vec![PartitionId(3), PartitionId(5)]));
        assert_eq!(changes.since(&mut seen), Some(Vec::new()));
        (0..REMEMBERED_MAX).for_each(|_| changes.note(PartitionId(7)));
        assert_eq!(changes.since(&mut seen.clone()), Some(vec![PartitionId(7)]));
        changes.note(PartitionId(8));
        assert_eq!(changes.since(&mut seen), None, "one was forgotten");
        changes.note_all();
        assert_eq!(changes.since(&mut seen), None);
        assert_eq!(changes.since(&mut seen), Some(Vec::new()));
    }
}
