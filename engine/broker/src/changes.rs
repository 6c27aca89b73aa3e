//! Listeners for changes of a topic's partitions, and which partitions changed.
//!
//! A change is noted first and notified later, so that one commit group wakes each listener once. A listener is
//! notified of its own partitions alone, and learns which of them changed; what changed about them, it reads itself.
//! One that waits for no events is notified of dropped ones alone. It must not know who listens.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use levada_protocol::ids::PartitionId;
use tokio::sync::Notify;

/// A topic's listeners, and the changes that they were not notified of yet.
#[derive(Debug)]
pub(crate) struct Changes {
    partitions: usize,
    noted: Mutex<Noted>,
    listeners: Mutex<Listeners>,
}

#[derive(Debug, Default)]
struct Noted {
    changed: PartitionSet,
    /// Those of `changed` whose start moved.
    dropped: PartitionSet,
}

#[derive(Debug, Default)]
struct Listeners {
    to_all: Vec<Arc<Ear>>,
    to_drops: Vec<Arc<Ear>>,
    to_some: BTreeMap<PartitionId, Vec<Arc<Ear>>>,
}

/// What a listener and the topic share.
#[derive(Debug)]
struct Ear {
    changed: Mutex<PartitionSet>,
    notify: Notify,
}

/// What a listener is notified of.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Hears<'a> {
    /// Every change of every partition.
    All,
    /// Every change of these partitions.
    Some(&'a [PartitionId]),
    /// Starts that move, of every partition.
    Drops,
}

/// Is notified of changes from its creation on, when everything counts as changed, until it is dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    changes: Arc<Changes>,
    ear: Arc<Ear>,
}

impl Changes {
    /// No listeners yet, for a topic of this many partitions.
    pub(crate) fn new(partitions: usize) -> Arc<Self> {
        let noted = Mutex::default();
        Arc::new(Self { partitions, noted, listeners: Mutex::default() })
    }

    /// Notes that a partition's end moved. Called after it did.
    pub(crate) fn note(&self, partition: PartitionId) {
        lock(&self.noted).changed.insert(partition);
    }

    /// Notes that a partition's start moved. Called after it did.
    pub(crate) fn note_drop(&self, partition: PartitionId) {
        let mut noted = lock(&self.noted);
        noted.changed.insert(partition);
        noted.dropped.insert(partition);
    }

    /// Notes that any partition may have changed.
    pub(crate) fn note_all(&self) {
        let mut noted = lock(&self.noted);
        for partition in (0..self.partitions).map(number) {
            noted.changed.insert(partition);
            noted.dropped.insert(partition);
        }
    }

    /// Notifies the listeners of what was noted.
    pub(crate) fn wake(&self) {
        let noted = std::mem::take(&mut *lock(&self.noted));
        let listeners = lock(&self.listeners);
        listeners.to_all.iter().for_each(|ear| ear.hear(noted.changed.iter()));
        if !noted.dropped.is_empty() {
            listeners.to_drops.iter().for_each(|ear| ear.hear(noted.dropped.iter()));
        }
        if !listeners.to_some.is_empty() {
            for partition in noted.changed.iter() {
                let ears = listeners.to_some.get(&partition).into_iter().flatten();
                ears.for_each(|ear| ear.hear([partition].into_iter()));
            }
        }
    }

    /// A new listener.
    pub(crate) fn listen(self: &Arc<Self>, hears: Hears<'_>) -> Listener {
        let mut changed = PartitionSet::default();
        let mut listeners = lock(&self.listeners);
        match hears {
            Hears::All | Hears::Drops => (0..self.partitions).for_each(|index| changed.insert(number(index))),
            Hears::Some(partitions) => partitions.iter().for_each(|partition| changed.insert(*partition)),
        }
        let ear = Arc::new(Ear { changed: Mutex::new(changed), notify: Notify::new() });
        match hears {
            Hears::All => listeners.to_all.push(Arc::clone(&ear)),
            Hears::Drops => listeners.to_drops.push(Arc::clone(&ear)),
            Hears::Some(partitions) => {
                for partition in partitions {
                    listeners.to_some.entry(*partition).or_default().push(Arc::clone(&ear));
                }
            }
        }
        drop(listeners);
        Listener { changes: Arc::clone(self), ear }
    }
}

impl Ear {
    fn hear(&self, partitions: impl Iterator<Item = PartitionId>) {
        let mut changed = lock(&self.changed);
        let knew = !changed.is_empty();
        partitions.for_each(|partition| changed.insert(partition));
        if !knew && !changed.is_empty() {
            self.notify.notify_one();
        }
    }
}

impl Listener {
    /// Waits until a partition has changed that was not taken yet. Cancel safe.
    pub(crate) async fn changed(&self) {
        while lock(&self.ear.changed).is_empty() {
            self.ear.notify.notified().await;
        }
    }

    /// The partitions that changed since the last call, in order; at first all. To be called before they are read.
    pub(crate) fn take(&self) -> impl Iterator<Item = PartitionId> + use<> {
        let mut changed = lock(&self.ear.changed);
        let taken = std::mem::take(&mut *changed);
        taken.into_iter()
    }

    /// As [`Listener::take`], for a listener that reads all of its partitions anyway.
    pub(crate) fn forget(&self) {
        lock(&self.ear.changed).clear();
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut listeners = lock(&self.changes.listeners);
        let other = |ear: &Arc<Ear>| !Arc::ptr_eq(ear, &self.ear);
        listeners.to_all.retain(other);
        listeners.to_drops.retain(other);
        listeners.to_some.retain(|_, ears| {
            ears.retain(other);
            !ears.is_empty()
        });
    }
}

/// A set of partitions as bits.
#[derive(Debug, Default)]
struct PartitionSet {
    words: Vec<u64>,
    len: usize,
}

impl PartitionSet {
    fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn insert(&mut self, partition: PartitionId) {
        let (word, bit) = (usize::from(partition.0) / 64, 1 << (partition.0 % 64));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let word = &mut self.words[word];
        self.len += usize::from(*word & bit == 0);
        *word |= bit;
    }

    fn clear(&mut self) {
        if self.len > 0 {
            self.words.fill(0);
            self.len = 0;
        }
    }

    fn iter(&self) -> impl Iterator<Item = PartitionId> {
        bits(self.words.iter().copied())
    }

    fn into_iter(self) -> impl Iterator<Item = PartitionId> {
        bits(self.words.into_iter())
    }
}

fn bits(words: impl Iterator<Item = u64>) -> impl Iterator<Item = PartitionId> {
    words.enumerate().filter(|(_, word)| *word != 0).flat_map(|(at, mut word)| {
        std::iter::from_fn(move || {
            let bit = (word != 0).then(|| word.trailing_zeros() as usize)?;
            word &= word - 1;
            Some(number(at * 64 + bit))
        })
    })
}

fn number(index: usize) -> PartitionId {
    PartitionId(u16::try_from(index).expect("a topic has at most 1,024 partitions"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        sync::atomic::{AtomicUsize, Ordering},
        task::{Context, Wake, Waker},
    };

    use super::*;

    /// Counts how often a task would be woken.
    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn taken(listener: &Listener) -> Vec<u16> {
        listener.take().map(|partition| partition.0).collect()
    }

    #[test]
    fn an_append_wakes_only_those_who_wait_for_its_partition() {
        const PARTITIONS: u16 = 1_000;
        let changes = Changes::new(usize::from(PARTITIONS));
        let wakes: Vec<Arc<Wakes>> = (0..=PARTITIONS).map(|_| Arc::default()).collect();
        let one_each = (0..PARTITIONS).map(|number| changes.listen(Hears::Some(&[PartitionId(number)])));
        let listeners: Vec<Listener> = one_each.chain([changes.listen(Hears::All)]).collect();
        assert_eq!(taken(&listeners[usize::from(PARTITIONS)]).len(), 1_000, "a new listener reads all");
        listeners.iter().for_each(|listener| drop(taken(listener)));
        let mut waiting: Vec<_> = listeners.iter().map(|listener| Box::pin(listener.changed())).collect();
        for (future, wakes) in waiting.iter_mut().zip(&wakes) {
            let waker = Waker::from(Arc::clone(wakes));
            assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        for _ in 0..5 {
            changes.note(PartitionId(617));
            changes.wake();
        }
        let woken: Vec<usize> = wakes.iter().map(|wakes| wakes.0.load(Ordering::Relaxed)).collect();
        let expected = |at: usize| usize::from(at == 617 || at == usize::from(PARTITIONS));
        assert!(woken.iter().enumerate().all(|(at, count)| *count == expected(at)), "{woken:?}");
        drop(waiting);
        assert_eq!(taken(&listeners[usize::from(PARTITIONS)]), [617], "and it reads that one alone");
        assert_eq!(taken(&listeners[617]), [617]);
    }

    #[test]
    fn each_change_is_told_once_and_in_order() {
        let changes = Changes::new(100);
        let listener = changes.listen(Hears::All);
        listener.take().for_each(drop);
        [5, 70, 3, 5].into_iter().for_each(|number| changes.note(PartitionId(number)));
        assert_eq!(taken(&listener), [0; 0], "it is notified when the group is");
        changes.wake();
        assert_eq!(taken(&listener), [3, 5, 70]);
        assert_eq!(taken(&listener), [0; 0]);
        changes.note_all();
        changes.wake();
        assert_eq!(taken(&listener).len(), 100);
    }

    #[test]
    fn who_waits_for_no_events_hears_of_dropped_ones_alone() {
        let changes = Changes::new(3);
        let listener = changes.listen(Hears::Drops);
        assert_eq!(taken(&listener), [0, 1, 2]);
        changes.note(PartitionId(0));
        changes.note_drop(PartitionId(2));
        changes.wake();
        assert_eq!(taken(&listener), [2]);
        changes.note(PartitionId(0));
        changes.wake();
        assert_eq!(taken(&listener), [0; 0]);
    }

    #[test]
    fn what_came_before_the_wait_ends_it_at_once_and_a_dropped_listener_is_forgotten() {
        let changes = Changes::new(2);
        let listener = changes.listen(Hears::Some(&[PartitionId(1)]));
        let poll = |listener: &Listener| {
            pin!(listener.changed()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
        };
        assert!(poll(&listener));
        listener.take().for_each(drop);
        assert!(!poll(&listener));
        changes.note(PartitionId(1));
        changes.wake();
        assert!(poll(&listener) && poll(&listener), "until it is taken");
        drop(listener);
        let listeners = lock(&changes.listeners);
        assert!(listeners.to_all.is_empty() && listeners.to_some.is_empty());
    }
}
