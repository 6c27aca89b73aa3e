//! Records of one kind, found by name and by id.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, HashMap, btree_map},
    hash::Hash,
    ops::RangeBounds,
    sync::Arc,
};

/// Records of one kind: each has a name and an id, and is found by either. Copies share everything until one of them
/// changes; then that copy pays for both indexes once.
#[derive(Debug)]
pub(crate) struct Names<N, I, R> {
    by_name: Arc<BTreeMap<N, Arc<R>>>,
    by_id: Arc<HashMap<I, Arc<R>>>,
}

impl<N, I, R> Clone for Names<N, I, R> {
    fn clone(&self) -> Self {
        Self { by_name: Arc::clone(&self.by_name), by_id: Arc::clone(&self.by_id) }
    }
}

impl<N, I, R> Default for Names<N, I, R> {
    fn default() -> Self {
        Self { by_name: Arc::default(), by_id: Arc::default() }
    }
}

impl<N: Ord + Clone, I: Eq + Hash + Copy, R> Names<N, I, R> {
    /// Adds a record, or replaces the one of this name and id.
    pub(crate) fn insert(&mut self, name: N, id: I, record: Arc<R>) {
        Arc::make_mut(&mut self.by_name).insert(name, Arc::clone(&record));
        Arc::make_mut(&mut self.by_id).insert(id, record);
    }

    /// Removes the record of this name and id.
    pub(crate) fn remove(&mut self, name: &N, id: I) {
        Arc::make_mut(&mut self.by_name).remove(name);
        Arc::make_mut(&mut self.by_id).remove(&id);
    }

    pub(crate) fn get<Q: Ord + ?Sized>(&self, name: &Q) -> Option<&Arc<R>>
    where
        N: Borrow<Q>,
    {
        self.by_name.get(name)
    }

    pub(crate) fn contains(&self, name: &N) -> bool {
        self.by_name.contains_key(name)
    }

    pub(crate) fn by_id(&self, id: I) -> Option<&Arc<R>> {
        self.by_id.get(&id)
    }

    pub(crate) fn has_id(&self, id: I) -> bool {
        self.by_id.contains_key(&id)
    }

    /// All records, in the order of their names.
    pub(crate) fn iter(&self) -> btree_map::Iter<'_, N, Arc<R>> {
        self.by_name.iter()
    }

    /// The records alone, in the order of their names.
    pub(crate) fn values(&self) -> btree_map::Values<'_, N, Arc<R>> {
        self.by_name.values()
    }

    /// The records whose names are in a range, in their order.
    pub(crate) fn range(&self, names: impl RangeBounds<N>) -> btree_map::Range<'_, N, Arc<R>> {
        self.by_name.range(names)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn both_indexes_hold_the_same_records_and_a_copy_stays_as_it_was(
            steps in vec((any::<bool>(), 0u8..6), 0..40), copied_at in 0usize..40,
        ) {
            let (mut names, mut next_id, mut model) = (Names::default(), 0u32, BTreeMap::new());
            let mut copy = (Names::default(), BTreeMap::new());
            for (step, (adds, name)) in steps.into_iter().enumerate() {
                if step == copied_at {
                    copy = (names.clone(), model.clone());
                }
                if let Some(id) = model.remove(&name) {
                    names.remove(&name, id);
                }
                if adds {
                    next_id += 1;
                    names.insert(name, next_id, Arc::new((name, next_id)));
                    model.insert(name, next_id);
                }
            }
            for (names, model) in [(names, model), copy] {
                let found: Vec<_> = names.values().map(|record| **record).collect();
                prop_assert_eq!(names.len(), model.len());
                prop_assert_eq!(names.by_id.len(), model.len());
                prop_assert_eq!(found, model.clone().into_iter().collect::<Vec<_>>());
                for (name, id) in model {
                    prop_assert!(Arc::ptr_eq(names.by_id(id).unwrap(), names.get(&name).unwrap()));
                }
            }
        }
    }
}
