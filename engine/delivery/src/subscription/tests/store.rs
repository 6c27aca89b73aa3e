//! A store of progress rows, as a commit would write them.

use std::collections::BTreeMap;

use crate::progress::{Chunk, Head, Progress, RowChange};

#[derive(Debug, Clone, Default)]
pub(super) struct Rows {
    head: Option<Head>,
    chunks: BTreeMap<u64, Chunk>,
}

impl Rows {
    pub(super) fn apply(&mut self, changes: &[RowChange]) {
        for change in changes {
            match change {
                RowChange::Head(head) => self.head = Some(head.clone()),
                RowChange::Chunk { index, chunk } => drop(self.chunks.insert(*index, chunk.clone())),
                RowChange::DropChunk { index } => drop(self.chunks.remove(index)),
            }
        }
    }

    pub(super) fn restore(&self) -> Progress {
        let chunks = self.chunks.iter().map(|(index, chunk)| (*index, chunk.clone()));
        Progress::restore(self.head.clone().expect("a head was written"), chunks).unwrap()
    }
}
