//! A store over a disk in memory that notes the order of calls, can hold its syncs back, and can lose its power.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use levada_protocol::ids::CommitIndex;
use levada_store::{
    Commit, Deleted, Error, Family, MemoryStore, ScanLimit, Store, StoreStats, commit::AppliedRow,
};

/// What happened, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Applied(CommitIndex),
    SyncBegan,
    Synced(CommitIndex),
    /// Something that the test itself noted.
    Noted(u64),
}

/// The store as a broker holds it; the disk outlives it.
#[derive(Debug)]
pub(crate) struct CutStore {
    disk: Arc<MemoryStore>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    calls: Vec<Call>,
    held: bool,
    /// Syncs until the power goes, if it does.
    syncs_left: Option<u64>,
    cut: bool,
}

impl CutStore {
    pub(crate) fn new(disk: Arc<MemoryStore>) -> Arc<Self> {
        Arc::new(Self { disk, state: Mutex::default(), changed: Condvar::new() })
    }

    /// From now on syncs wait, or no longer.
    pub(crate) fn hold_syncs(&self, held: bool) {
        self.lock().held = held;
        self.changed.notify_all();
    }

    /// The power goes: nothing is written any more, and what was not synced is lost.
    pub(crate) fn cut(&self) {
        let mut state = self.lock();
        state.cut = true;
        self.changed.notify_all();
        self.disk.crash();
    }

    /// The power is to go with the sync that comes after so many others.
    pub(crate) fn cut_after(&self, syncs: u64) {
        self.lock().syncs_left = Some(syncs);
    }

    /// True while a sync is under way.
    pub(crate) fn is_syncing(&self) -> bool {
        let calls = self.calls();
        let count = |is: fn(&Call) -> bool| calls.iter().filter(|call| is(call)).count();
        count(|call| *call == Call::SyncBegan) > count(|call| matches!(call, Call::Synced(_)))
    }

    pub(crate) fn note(&self, what: u64) {
        self.lock().calls.push(Call::Noted(what));
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, if there is power.
    fn powered(&self) -> Result<MutexGuard<'_, State>, Error> {
        let state = self.lock();
        if state.cut { Err(Error::Failed { reason: "the power is gone".to_owned() }) } else { Ok(state) }
    }
}

impl Store for CutStore {
    fn last(&self) -> AppliedRow {
        self.disk.last()
    }

    fn apply(&self, commit: &Commit) -> Result<(), Error> {
        let mut state = self.powered()?;
        self.disk.apply(commit)?;
        state.calls.push(Call::Applied(commit.index));
        Ok(())
    }

    fn sync(&self) -> Result<CommitIndex, Error> {
        let mut state = self.powered()?;
        state.calls.push(Call::SyncBegan);
        while state.held && !state.cut {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.syncs_left == Some(0) {
            state.cut = true;
            self.disk.crash();
        }
        state.syncs_left = state.syncs_left.map(|left| left.saturating_sub(1));
        drop(state);
        let mut state = self.powered()?;
        let synced = self.disk.sync()?;
        state.calls.push(Call::Synced(synced));
        Ok(synced)
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.disk.get(family, key)
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
        limit: ScanLimit,
    ) -> Result<Vec<(Bytes, Bytes)>, Error> {
        self.disk.scan(family, from, to, limit)
    }

    fn last_before(
        &self,
        family: Family,
        from: &[u8],
        below: &[u8],
    ) -> Result<Option<(Bytes, Bytes)>, Error> {
        self.disk.last_before(family, from, below)
    }

    fn compact(&self, family: Family, from: &[u8], to: &[u8], deleted: Deleted) -> Result<(), Error> {
        drop(self.powered()?);
        self.disk.compact(family, from, to, deleted)
    }

    fn flush(&self) -> Result<(), Error> {
        drop(self.powered()?);
        self.disk.flush()
    }

    fn reopen(&self) -> Result<(), Error> {
        drop(self.powered()?);
        self.disk.reopen()
    }

    fn stats(&self) -> StoreStats {
        self.disk.stats()
    }

    fn close(&self) -> Result<(), Error> {
        drop(self.powered()?);
        self.disk.close()
    }
}
