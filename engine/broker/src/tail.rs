//! The newest batches of every partition, in memory, bounded in bytes over all of them.
//!
//! Subscribers at the tail share these bytes: fan-out reads nothing and copies nothing. It must not know who reads.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use levada_protocol::ids::Offset;

use crate::frames::LogSlice;

/// The memory that all tails may use together.
#[derive(Debug)]
pub(crate) struct TailBudget {
    bytes_max: usize,
    /// Partitions that hold anything: each may hold an equal share.
    holders: AtomicUsize,
}

impl TailBudget {
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, holders: AtomicUsize::new(0) })
    }

    fn share(&self) -> usize {
        self.bytes_max / self.holders.load(Ordering::Relaxed).max(1)
    }
}

/// One partition's newest batches, without gaps, ending at its durable end.
#[derive(Debug)]
pub(crate) struct Tail {
    budget: Arc<TailBudget>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    pieces: VecDeque<LogSlice>,
    bytes: usize,
}

impl Tail {
    pub(crate) fn new(budget: Arc<TailBudget>) -> Self {
        Self { budget, inner: Mutex::default() }
    }

    /// Adds what was just made durable, and drops the oldest beyond this partition's share.
    pub(crate) fn push(&self, piece: LogSlice) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.pieces.back().is_some_and(|last| last.end() != piece.run.base) {
            inner.clear(&self.budget);
        }
        if inner.pieces.is_empty() {
            self.budget.holders.fetch_add(1, Ordering::Relaxed);
        }
        inner.bytes += piece.run.batches.len();
        inner.pieces.push_back(piece);
        let share = self.budget.share();
        while inner.bytes > share && inner.pieces.len() > 1 {
            if let Some(oldest) = inner.pieces.pop_front() {
                inner.bytes -= oldest.run.batches.len();
            }
        }
    }

    /// Slices from the one that holds `from`, until `bytes_max` is reached; `None` if `from` is no longer here.
    pub(crate) fn read(&self, from: Offset, bytes_max: usize) -> Option<Vec<LogSlice>> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.pieces.front().is_none_or(|oldest| oldest.run.base > from) {
            return None;
        }
        let first = inner.pieces.partition_point(|piece| piece.end() <= from);
        let mut bytes = 0;
        let mut pieces = Vec::new();
        for piece in inner.pieces.range(first..) {
            bytes += piece.run.batches.len();
            pieces.push(piece.clone());
            if bytes >= bytes_max {
                break;
            }
        }
        Some(pieces)
    }

    /// The first offset that is here; `None` if nothing is.
    pub(crate) fn start(&self) -> Option<Offset> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.pieces.front().map(|oldest| oldest.run.base)
    }

    /// Drops what begins before an offset: it is stored otherwise now.
    pub(crate) fn forget_before(&self, offset: Offset) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        while inner.pieces.front().is_some_and(|oldest| oldest.run.base < offset) {
            if inner.pieces.len() == 1 {
                inner.clear(&self.budget);
                break;
            }
            if let Some(oldest) = inner.pieces.pop_front() {
                inner.bytes -= oldest.run.batches.len();
            }
        }
    }

    /// Drops everything.
    pub(crate) fn clear(&self) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).clear(&self.budget);
    }
}

impl Inner {
    fn clear(&mut self, budget: &TailBudget) {
        if !self.pieces.is_empty() {
            budget.holders.fetch_sub(1, Ordering::Relaxed);
        }
        self.pieces.clear();
        self.bytes = 0;
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.clear();
    }
}
