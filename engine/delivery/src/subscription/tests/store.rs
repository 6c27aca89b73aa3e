//! A store of progress rows, as a commit would write them.

use std::collections::BTreeMap;

use crate::progress::{Chunk, Failures, Head, Progress, RowChange};

#[derive(Debug, Clone, Default)]
pub(super) struct Rows {
    head: Option<Head>,
    chunks: BTreeMap<u64, Chunk>,
    failures: BTreeMap<u64, Failures>,
}

impl Rows {
    pub(super) fn apply(&mut self, changes: &[RowChange]) {
        for change in changes {
            match change {
                RowChange::Head(head) => self.head = Some(head.clone()),
                RowChange::Chunk { index, chunk } => drop(self.chunks.insert(*index, chunk.clone())),
                RowChange::DropChunk { index } => drop(self.chunks.remove(index)),
                RowChange::Failures { index, failures } => {
                    drop(self.failures.insert(*index, failures.clone()));
                }
                RowChange::DropFailures { index } => drop(self.failures.remove(index)),
            }
        }
    }

    pub(super) fn restore(&self) -> Progress {
        self.restore_or(|| panic!("a head was written"))
    }

    /// What the rows say, or this if there are none.
    pub(super) fn restore_or(&self, none: impl FnOnce() -> Progress) -> Progress {
        let Some(head) = self.head.clone() else { return none() };
        Progress::restore(head, self.chunks.clone(), self.failures.clone()).unwrap()
    }
}
