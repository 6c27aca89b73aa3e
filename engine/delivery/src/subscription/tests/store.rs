//! A store of progress rows, as a commit would write them.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::progress::{Progress, RowChange};

#[derive(Debug, Clone, Default)]
pub(super) struct Rows {
    head: Bytes,
    chunks: BTreeMap<u64, Bytes>,
}

impl Rows {
    pub(super) fn apply(&mut self, changes: &[RowChange]) {
        for change in changes {
            match change {
                RowChange::Head(bytes) => self.head = bytes.clone(),
                RowChange::Chunk { index, bytes } => drop(self.chunks.insert(*index, bytes.clone())),
                RowChange::DropChunk { index } => drop(self.chunks.remove(index)),
            }
        }
    }

    pub(super) fn restore(&self) -> Progress {
        Progress::restore(&self.head, self.chunks.iter().map(|(index, row)| (*index, row))).unwrap()
    }
}
