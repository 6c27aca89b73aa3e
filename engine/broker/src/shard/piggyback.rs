//! Proposals that ride with whichever commit comes next: owners leave them here, the writer takes them.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::proposal::Proposal;

/// The proposals that wait for a commit. Each owner has at most two under way, which bounds the queue.
#[derive(Debug, Default)]
pub(super) struct PiggybackQueue {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    proposals: VecDeque<Proposal>,
    /// There is no writer any more.
    closed: bool,
}

impl PiggybackQueue {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a proposal; true if it is the first, and so the caller must see to it that a commit comes. Without a writer
    /// it is dropped, which its owner notices.
    pub(super) fn push(&self, proposal: Proposal) -> bool {
        let mut inner = self.lock();
        if inner.closed {
            return false;
        }
        inner.proposals.push_back(proposal);
        inner.proposals.len() == 1
    }

    /// Takes the oldest, if `fits` says so of it.
    pub(super) fn pop_if(&self, fits: impl FnOnce(&Proposal) -> bool) -> Option<Proposal> {
        let mut inner = self.lock();
        inner.proposals.front().is_some_and(fits).then(|| inner.proposals.pop_front()).flatten()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().proposals.is_empty()
    }

    /// Drops what is queued and what will be: it is not taken any more.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        // Dropped outside of the lock.
        let dropped = std::mem::take(&mut inner.proposals);
        drop(inner);
        drop(dropped);
    }
}
