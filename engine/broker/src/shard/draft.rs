//! The commit that is being made: its operations, and what becomes visible with it.

use levada_protocol::ids::CommitIndex;
use levada_store::{Op, commit::COMMIT_HEADER_BYTES};

use super::announcement::Announcement;

/// A commit in the making. It knows how long it is encoded, what is held back by the tables included.
#[derive(Debug)]
pub(super) struct Draft {
    index: CommitIndex,
    ops: Vec<Op>,
    encoded_len: usize,
    announcements: Vec<Announcement>,
}

impl Draft {
    /// An empty commit that will have this index.
    pub(super) fn new(index: CommitIndex) -> Self {
        Self { index, ops: Vec::new(), encoded_len: COMMIT_HEADER_BYTES, announcements: Vec::new() }
    }

    pub(super) fn index(&self) -> CommitIndex {
        self.index
    }

    /// Adds an operation.
    pub(super) fn push(&mut self, op: Op) {
        self.encoded_len += op.encoded_len();
        self.ops.push(op);
    }

    /// Adds an operation whose bytes were counted by [`Draft::reserve`].
    pub(super) fn push_reserved(&mut self, op: Op) {
        self.ops.push(op);
    }

    /// Counts bytes of operations that will be added at the end.
    pub(super) fn reserve(&mut self, bytes: usize) {
        self.encoded_len += bytes;
    }

    /// Adds something that becomes visible once the commit is durable.
    pub(super) fn announce(&mut self, announcement: Announcement) {
        self.announcements.push(announcement);
    }

    /// How many bytes the commit has encoded, as it is now.
    pub(super) fn encoded_len(&self) -> usize {
        self.encoded_len
    }

    /// True if it changes nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.encoded_len == COMMIT_HEADER_BYTES
    }

    /// Takes the operations.
    pub(super) fn take_ops(&mut self) -> Vec<Op> {
        std::mem::take(&mut self.ops)
    }

    /// What becomes visible.
    pub(super) fn take_announcements(&mut self) -> Vec<Announcement> {
        std::mem::take(&mut self.announcements)
    }

    /// The operations of a draft, without the rest.
    #[cfg(test)]
    pub(super) fn into_ops(self) -> Vec<Op> {
        self.ops
    }
}
