//! A store in memory for tests: it forgets at a crash what was not synced, and fails on demand.
//! It must not know files.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use levada_protocol::ids::CommitIndex;

use crate::{
    Commit, Deleted, Error, Family, Op, ScanLimit, Store, StoreStats,
    commit::{APPLIED_KEY, AppliedRow, CommitHash},
    follow,
};

/// Keeps every row in memory, and apart from it what a power cut would leave.
///
/// A reopen forgets the commits that no sync confirmed, as a crash does: the least that the contract allows.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    current: Tables,
    durable: Tables,
    /// Applied and not synced: the difference between `durable` and `current`.
    tail: Vec<Commit>,
    failure: Option<Error>,
    closed: bool,
    fail_next_apply: bool,
    fail_next_sync: bool,
    full: bool,
    stats: StoreStats,
}

#[derive(Debug, Default, Clone)]
struct Tables {
    last: AppliedRow,
    /// Of every commit.
    hashes: BTreeMap<CommitIndex, CommitHash>,
    families: [BTreeMap<Bytes, Bytes>; Family::ALL.len()],
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// A power cut and a new start: what was not synced is gone, and so are failures and arms.
    pub fn crash(&self) {
        let mut state = self.lock();
        state.forget_tail();
        (state.failure, state.closed) = (None, false);
        (state.fail_next_apply, state.fail_next_sync, state.full) = (false, false, false);
    }

    /// Lets the next apply fail as a write error would, for good.
    pub fn fail_next_apply(&self) {
        self.lock().fail_next_apply = true;
    }

    /// Lets the next sync fail as a disk error would, for good.
    pub fn fail_next_sync(&self) {
        self.lock().fail_next_sync = true;
    }

    /// Lets the store have no room, or room again. Room alone heals nothing: that takes a reopen.
    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// The index of the last commit that a crash would leave.
    pub fn durable(&self) -> CommitIndex {
        self.lock().durable.last.index
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn last(&self) -> AppliedRow {
        self.lock().current.last
    }

    fn apply(&self, commit: &Commit) -> Result<(), Error> {
        let mut state = self.lock();
        state.writable()?;
        let known = |index| Ok(state.current.hashes.get(&index).copied());
        if follow::check(commit, &state.current.last, known)?.is_none() {
            return Ok(());
        }
        if state.full {
            return Err(state.fail(Error::Full { reason: "the memory store fails on demand".to_owned() }));
        }
        if std::mem::take(&mut state.fail_next_apply) {
            return Err(
                state.fail(Error::Failed { reason: "apply: the memory store fails on demand".to_owned() })
            );
        }
        state.current.apply(commit);
        state.stats.wal_bytes += u64::try_from(commit.encoded_len()).unwrap_or(u64::MAX);
        state.tail.push(commit.clone());
        Ok(())
    }

    fn sync(&self) -> Result<CommitIndex, Error> {
        let mut state = self.lock();
        state.writable()?;
        if std::mem::take(&mut state.fail_next_sync) {
            return Err(
                state.fail(Error::Failed { reason: "sync: the memory store fails on demand".to_owned() })
            );
        }
        state.sync();
        Ok(state.durable.last.index)
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let state = self.lock();
        state.readable()?;
        Ok(state.current.family(family).get(key).cloned())
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
        limit: ScanLimit,
    ) -> Result<Vec<(Bytes, Bytes)>, Error> {
        let state = self.lock();
        state.readable()?;
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for (key, value) in state.current.range(family, from, to) {
            bytes += key.len() + value.len();
            rows.push((key.clone(), value.clone()));
            if limit.is_reached(rows.len(), bytes) {
                break;
            }
        }
        Ok(rows)
    }

    fn last_before(
        &self,
        family: Family,
        from: &[u8],
        below: &[u8],
    ) -> Result<Option<(Bytes, Bytes)>, Error> {
        let state = self.lock();
        state.readable()?;
        let last = state.current.range(family, from, below).next_back();
        Ok(last.map(|(key, value)| (key.clone(), value.clone())))
    }

    fn compact(&self, _family: Family, _from: &[u8], _to: &[u8], _deleted: Deleted) -> Result<(), Error> {
        self.lock().writable()
    }

    fn flush(&self) -> Result<(), Error> {
        self.lock().writable()
    }

    fn reopen(&self) -> Result<(), Error> {
        let mut state = self.lock();
        state.readable()?;
        state.forget_tail();
        state.failure = None;
        if state.full {
            return Err(state.fail(Error::Full { reason: "the memory store fails on demand".to_owned() }));
        }
        Ok(())
    }

    fn stats(&self) -> StoreStats {
        let state = self.lock();
        let size = |family| -> u64 {
            let rows = state.current.family(family).iter();
            rows.map(|(key, value)| u64::try_from(key.len() + value.len()).unwrap_or(u64::MAX)).sum()
        };
        let others = Family::ALL.into_iter().filter(|family| *family != Family::Log);
        StoreStats { log_bytes: size(Family::Log), other_bytes: others.map(size).sum(), ..state.stats }
    }

    fn close(&self) -> Result<(), Error> {
        let mut state = self.lock();
        state.readable()?;
        if state.failure.is_none() {
            state.sync();
        }
        state.closed = true;
        Ok(())
    }
}

impl State {
    fn readable(&self) -> Result<(), Error> {
        if self.closed { Err(Error::Closed) } else { Ok(()) }
    }

    fn writable(&self) -> Result<(), Error> {
        self.readable()?;
        self.failure.clone().map_or(Ok(()), Err)
    }

    fn fail(&mut self, error: Error) -> Error {
        self.failure.insert(error).clone()
    }

    fn sync(&mut self) {
        for commit in std::mem::take(&mut self.tail) {
            self.durable.apply(&commit);
        }
        self.stats.wal_syncs += 1;
    }

    fn forget_tail(&mut self) {
        self.tail.clear();
        self.current = self.durable.clone();
    }
}

impl Tables {
    fn family(&self, family: Family) -> &BTreeMap<Bytes, Bytes> {
        &self.families[usize::from(family.number())]
    }

    fn family_mut(&mut self, family: Family) -> &mut BTreeMap<Bytes, Bytes> {
        &mut self.families[usize::from(family.number())]
    }

    fn range(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
    ) -> impl DoubleEndedIterator<Item = (&Bytes, &Bytes)> {
        // A range that is turned round would panic in the map; an empty one at `from` holds nothing.
        let to = to.max(from);
        self.family(family).range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)))
    }

    fn apply(&mut self, commit: &Commit) {
        for op in &commit.ops {
            match op {
                Op::Put { family, key, value } => {
                    self.family_mut(*family).insert(key.clone(), value.clone());
                }
                Op::Delete { family, key } => {
                    self.family_mut(*family).remove(key);
                }
                Op::DeleteRange { family, from, to } => {
                    let gone: Vec<Bytes> =
                        self.range(*family, from, to).map(|(key, _)| key.clone()).collect();
                    let rows = self.family_mut(*family);
                    for key in gone {
                        rows.remove(&key);
                    }
                }
            }
        }
        self.last = commit.applied_row();
        self.hashes.insert(commit.index, self.last.hash);
        let row = Bytes::copy_from_slice(&self.last.encode());
        self.family_mut(Family::Meta).insert(Bytes::from_static(APPLIED_KEY), row);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashMap,
        sync::{Arc, Mutex},
    };

    use levada_protocol::ids::Timestamp;

    use super::*;
    use crate::{commit::Term, conformance};

    /// The next commit, which must be of this index.
    fn commit(store: &MemoryStore, index: u64) -> Commit {
        let key = Bytes::copy_from_slice(&index.to_be_bytes());
        let ops = vec![Op::Put { family: Family::Log, key, value: Bytes::from_static(b"\x01") }];
        let next = Commit::after(&store.last(), Term(1), Timestamp(index), ops);
        assert_eq!(next.index, CommitIndex(index));
        next
    }

    fn rows(store: &MemoryStore) -> usize {
        store.scan(Family::Log, &[], &[0xff], ScanLimit::NONE).unwrap().len()
    }

    #[test]
    fn conforms() {
        let stores: Mutex<HashMap<String, Arc<MemoryStore>>> = Mutex::default();
        conformance::run(&|name| {
            let store = Arc::clone(stores.lock().unwrap().entry(name.to_owned()).or_default());
            store.crash();
            store
        });
    }

    #[test]
    fn a_crash_forgets_what_was_not_synced_and_nothing_else() {
        let store = MemoryStore::new();
        store.apply(&commit(&store, 1)).unwrap();
        assert_eq!(store.sync().unwrap(), CommitIndex(1));
        store.apply(&commit(&store, 2)).unwrap();
        assert_eq!((rows(&store), store.durable()), (2, CommitIndex(1)));
        store.crash();
        assert_eq!((rows(&store), store.applied()), (1, CommitIndex(1)));
        store.apply(&commit(&store, 2)).unwrap();
        assert_eq!(rows(&store), 2);
    }

    #[test]
    fn a_failed_sync_closes_it_for_writes_and_confirms_nothing() {
        let store = MemoryStore::new();
        store.apply(&commit(&store, 1)).unwrap();
        store.fail_next_sync();
        let failed = store.sync().unwrap_err();
        assert!(matches!(failed, Error::Failed { .. }));
        assert_eq!(store.sync().unwrap_err(), failed);
        assert_eq!(store.apply(&commit(&store, 2)).unwrap_err(), failed);
        assert_eq!((rows(&store), store.durable()), (1, CommitIndex(0)));
        store.crash();
        assert_eq!((rows(&store), store.applied()), (0, CommitIndex(0)));
        store.apply(&commit(&store, 1)).unwrap();
    }

    #[test]
    fn a_failed_apply_changes_nothing_and_closes_it_for_writes() {
        let store = MemoryStore::new();
        store.fail_next_apply();
        let failed = store.apply(&commit(&store, 1)).unwrap_err();
        assert_eq!(store.sync().unwrap_err(), failed);
        assert_eq!((rows(&store), store.applied()), (0, CommitIndex(0)));
    }

    #[test]
    fn a_full_store_takes_commits_again_once_it_has_room_and_was_reopened() {
        let store = MemoryStore::new();
        store.apply(&commit(&store, 1)).unwrap();
        store.sync().unwrap();
        store.set_full(true);
        assert!(matches!(store.apply(&commit(&store, 2)), Err(Error::Full { .. })));
        assert!(matches!(store.reopen(), Err(Error::Full { .. })));
        store.set_full(false);
        assert!(matches!(store.apply(&commit(&store, 2)), Err(Error::Full { .. })));
        assert_eq!(rows(&store), 1);
        store.reopen().unwrap();
        store.apply(&commit(&store, 2)).unwrap();
        assert_eq!(store.sync().unwrap(), CommitIndex(2));
    }
}
