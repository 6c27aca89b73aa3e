//! Producers: who has published which sequences. Read from the store when one publishes, evicted from memory when there
//! are many, and forgotten when one was idle for long, in order with its publishes, so that memory and disk agree.
//! [`crate::idle`] finds the idle ones.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use levada_delivery::producer::{Check, Producer};
use levada_protocol::duplicates::Duplicates;
use levada_protocol::ids::{Epoch, Offset, PartitionId, ProducerId, Sequence, Timestamp, TopicId};
use levada_store::{Family, Store, commit::OP_HEADER_BYTES};

use crate::{
    error::Error,
    rows::{self, Row},
    shard::draft::Draft,
};

/// Bytes of memory that the duplicates of all producers may take before the half that was used least recently is evicted:
/// 64 MiB.
const DUPLICATES_MEMORY_MAX: usize = 64 * 1024 * 1024;

/// Which producer in which partition: what one row of the producers is about.
pub(crate) type ProducerKey = (TopicId, PartitionId, ProducerId);

/// What is known of producers.
#[derive(Debug)]
pub(in crate::shard) struct Producers {
    known: HashMap<ProducerKey, Producer>,
    /// Those whose rows the commit rewrites.
    dirty: HashSet<ProducerKey>,
    /// How many are kept in memory.
    max: usize,
    /// Bytes that the duplicates of those in memory take.
    duplicates_bytes: usize,
    duplicates_bytes_max: usize,
}

impl Producers {
    /// Knows none yet; at most `max` are kept in memory, unless one commit changes more.
    pub(in crate::shard) fn new(max: usize) -> Self {
        Self {
            known: HashMap::new(),
            dirty: HashSet::new(),
            max,
            duplicates_bytes: 0,
            duplicates_bytes_max: DUPLICATES_MEMORY_MAX,
        }
    }

    /// Classifies the producer's next batch of `sequences` from `first` on. Reads the producer from the store if it is
    /// not in memory.
    pub(in crate::shard) fn check(
        &mut self,
        store: &dyn Store,
        key: ProducerKey,
        (epoch, first): (Epoch, Sequence),
        sequences: u32,
    ) -> Result<Check, Error> {
        if let Some(producer) = self.known.get(&key) {
            return Ok(producer.check(epoch, first, sequences));
        }
        let producer = rows::get::<Producer>(store, &key)?.unwrap_or_default();
        let check = producer.check(epoch, first, sequences);
        if self.known.len() >= self.max || self.duplicates_bytes >= self.duplicates_bytes_max {
            self.evict();
        }
        self.duplicates_bytes += producer.duplicates_bytes();
        self.known.insert(key, producer);
        Ok(check)
    }

    /// Notes that `sequences` from `first` on were stored as so many events from an offset on, the others being
    /// duplicates.
    pub(in crate::shard) fn record(
        &mut self,
        key: ProducerKey,
        now: Timestamp,
        (epoch, first): (Epoch, Sequence),
        sequences: u32,
        stored: (Offset, u32, Option<Arc<Duplicates>>),
        draft: &mut Draft,
    ) {
        self.change(key, draft, |producer| producer.record(now, epoch, first, sequences, stored));
    }

    /// Notes that `sequences` from `first` on were scheduled, their first event under an id.
    pub(in crate::shard) fn record_scheduled(
        &mut self,
        key: ProducerKey,
        now: Timestamp,
        (epoch, first): (Epoch, Sequence),
        sequences: u32,
        id: u64,
        draft: &mut Draft,
    ) {
        self.change(key, draft, |producer| producer.record_scheduled(now, epoch, first, sequences, id));
    }

    fn change(&mut self, key: ProducerKey, draft: &mut Draft, change: impl FnOnce(&mut Producer)) {
        let producer = self.known.entry(key).or_default();
        let (before, duplicates_before) = (producer.len(), producer.duplicates_bytes());
        change(producer);
        let after = producer.len();
        self.duplicates_bytes = self.duplicates_bytes + producer.duplicates_bytes() - duplicates_before;
        if self.dirty.insert(key) {
            draft.reserve(OP_HEADER_BYTES + Producer::key(&key).len() + 1 + after);
        } else {
            draft.reserve(after.saturating_sub(before));
        }
    }

    /// Evicts the half that was used least recently. Their rows are written already, except those of this commit.
    fn evict(&mut self) {
        let mut used: Vec<Timestamp> = self.known.values().map(Producer::last_used).collect();
        used.sort_unstable();
        let middle = used.get(used.len() / 2).copied().unwrap_or_default();
        let dirty = &self.dirty;
        self.known.retain(|key, producer| producer.last_used() > middle || dirty.contains(key));
        self.count_duplicates();
    }

    fn count_duplicates(&mut self) {
        self.duplicates_bytes = self.known.values().map(Producer::duplicates_bytes).sum();
    }

    /// Forgets a producer that was last used before a time: its row is deleted by the commit.
    pub(in crate::shard) fn forget_if_idle(
        &mut self,
        store: &dyn Store,
        key: ProducerKey,
        before: Timestamp,
        draft: &mut Draft,
    ) -> Result<(), Error> {
        let last_used = match self.known.get(&key) {
            Some(producer) => Some(producer.last_used()),
            None => rows::get::<Producer>(store, &key)?.map(|producer| producer.last_used()),
        };
        if last_used.is_some_and(|last_used| last_used < before) {
            // Unknown from here on, also to a publish of the same commit: the store still has the row for now.
            let forgotten = self.known.insert(key, Producer::default());
            self.duplicates_bytes -= forgotten.map_or(0, |producer| producer.duplicates_bytes());
            if self.dirty.insert(key) {
                // As much as it takes if it publishes again within the commit.
                draft.reserve(OP_HEADER_BYTES + Producer::key(&key).len() + 1 + Producer::default().len());
            }
        }
        Ok(())
    }

    /// Adds the rows of those that the commit has changed.
    pub(in crate::shard) fn flush(&mut self, draft: &mut Draft) {
        for key in std::mem::take(&mut self.dirty) {
            let Some(producer) = self.known.get(&key) else { continue };
            if producer.is_unknown() {
                self.known.remove(&key);
                draft.push_reserved(Producer::delete(&key));
            } else {
                draft.push_reserved(producer.put(&key));
            }
        }
    }

    /// Drops the producers of a topic that was deleted.
    pub(in crate::shard) fn forget_topic(&mut self, id: TopicId, draft: &mut Draft) {
        self.known.retain(|(topic, ..), _| *topic != id);
        self.count_duplicates();
        self.dirty.retain(|(topic, ..)| *topic != id);
        rows::drop_rows(|op| draft.push(op), Family::Producers, rows::producers_of_topic(id));
    }
}

#[cfg(test)]
mod tests {
    use levada_protocol::ids::CommitIndex;
    use levada_store::{Commit, MemoryStore, commit::Term};

    use super::*;

    const TOPIC: TopicId = TopicId(1);

    fn key(producer: u128) -> ProducerKey {
        (TOPIC, PartitionId(0), ProducerId(producer))
    }

    /// Publishes one event; returns what it was found to be.
    fn publish(
        producers: &mut Producers,
        store: &MemoryStore,
        draft: &mut Draft,
        producer: u128,
        (sequence, now): (u64, u64),
    ) -> Check {
        let id = (Epoch(0), Sequence(sequence));
        let check = producers.check(store, key(producer), id, 1).unwrap();
        if check == Check::Append {
            producers.record(key(producer), Timestamp(now), id, 1, (Offset(sequence), 1, None), draft);
        }
        check
    }

    fn commit(producers: &mut Producers, store: &MemoryStore, mut draft: Draft) {
        producers.flush(&mut draft);
        let expected = draft.encoded_len();
        let commit = Commit::after(&store.last(), Term(1), Timestamp(0), draft.into_ops());
        assert!(commit.encoded_len() <= expected, "what was counted is enough");
        store.apply(&commit).unwrap();
    }

    fn draft(store: &MemoryStore) -> Draft {
        Draft::new(CommitIndex(store.last().index.0 + 1))
    }

    #[test]
    fn one_that_was_let_go_is_known_again_from_its_row() {
        let (store, mut producers) = (MemoryStore::new(), Producers::new(4));
        for producer in 0..20 {
            let mut draft = draft(&store);
            let time = 1 + u64::try_from(producer).unwrap();
            assert_eq!(publish(&mut producers, &store, &mut draft, producer, (0, time)), Check::Append);
            commit(&mut producers, &store, draft);
            assert!(producers.known.len() <= 5);
        }
        let mut draft = draft(&store);
        for producer in 0..20 {
            let repeat = publish(&mut producers, &store, &mut draft, producer, (0, 30));
            assert!(matches!(repeat, Check::Duplicate { .. }), "producer {producer}: {repeat:?}");
        }
    }

    #[test]
    fn those_with_many_duplicates_are_let_go_when_they_take_too_much_memory() {
        let (store, mut producers) = (MemoryStore::new(), Producers::new(1_000));
        let mut duplicates = None;
        (0..1_000).for_each(|index| Duplicates::note(&mut duplicates, index * 2, Offset(index.into())));
        let duplicates = duplicates.map(Arc::new);
        let one = duplicates.as_ref().unwrap().encoded_len();
        producers.duplicates_bytes_max = 10 * one;
        for producer in 0..100 {
            let (mut draft, key, id) = (draft(&store), key(producer), (Epoch(0), Sequence(0)));
            assert_eq!(producers.check(&store, key, id, 2_000).unwrap(), Check::Append);
            let now = Timestamp(1 + u64::try_from(producer).unwrap());
            producers.record(key, now, id, 2_000, (Offset(0), 1_000, duplicates.clone()), &mut draft);
            commit(&mut producers, &store, draft);
            let bytes: usize = producers.known.values().map(Producer::duplicates_bytes).sum();
            assert_eq!(bytes, producers.duplicates_bytes);
            assert!(bytes <= 10 * one, "{bytes}");
        }
        let repeat = producers.check(&store, key(0), (Epoch(0), Sequence(0)), 2_000).unwrap();
        assert_eq!(repeat, Check::Duplicate { base: Some(Offset(0)), events: 1_000, duplicates });
    }

    #[test]
    fn those_of_the_commit_under_way_are_not_let_go() {
        let (store, mut producers) = (MemoryStore::new(), Producers::new(2));
        let mut draft = draft(&store);
        for producer in 0..10 {
            assert_eq!(publish(&mut producers, &store, &mut draft, producer, (0, 1)), Check::Append);
        }
        for producer in 0..10 {
            let repeat = publish(&mut producers, &store, &mut draft, producer, (0, 1));
            assert!(matches!(repeat, Check::Duplicate { .. }), "producer {producer}: {repeat:?}");
        }
    }

    #[test]
    fn an_idle_one_is_forgotten_for_the_rest_of_the_commit_and_for_good() {
        let (store, mut producers) = (MemoryStore::new(), Producers::new(4));
        let mut first = draft(&store);
        publish(&mut producers, &store, &mut first, 1, (0, 5));
        publish(&mut producers, &store, &mut first, 2, (0, 9));
        commit(&mut producers, &store, first);
        let mut second = draft(&store);
        for producer in [1, 2] {
            producers.forget_if_idle(&store, key(producer), Timestamp(7), &mut second).unwrap();
        }
        let gone = publish(&mut producers, &store, &mut second, 1, (1, 10));
        assert_eq!(gone, Check::Unknown);
        assert_eq!(publish(&mut producers, &store, &mut second, 2, (1, 10)), Check::Append);
        commit(&mut producers, &store, second);
        assert!(rows::get::<Producer>(&store, &key(1)).unwrap().is_none());
        assert!(rows::get::<Producer>(&store, &key(2)).unwrap().is_some());
    }

    #[test]
    fn a_deleted_topics_producers_are_not_written_any_more() {
        let (store, mut producers) = (MemoryStore::new(), Producers::new(4));
        let mut draft = draft(&store);
        publish(&mut producers, &store, &mut draft, 1, (0, 5));
        producers.forget_topic(TOPIC, &mut draft);
        commit(&mut producers, &store, draft);
        assert!(rows::get::<Producer>(&store, &key(1)).unwrap().is_none());
        assert!(producers.known.is_empty());
    }
}
