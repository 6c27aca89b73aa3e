//! Events of one partition that were read and have passed the chain, waiting for a consumer with credit.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
};

use levada_chain::{DeadLetter, DeadReason, Filtered};
use levada_delivery::subscription::{Failed, Reason};
use levada_protocol::ids::{Offset, PartitionId};

use crate::{
    error::Error,
    frames::{DELIVER_BYTES_TARGET, Piece, take},
};

/// What is ready from `next` on.
#[derive(Debug, Default)]
pub(super) struct Ready {
    next: Offset,
    /// Everything below is decided: in `pieces`, dropped or failed.
    reached: Offset,
    pieces: VecDeque<Piece>,
    dropped: VecDeque<Range<Offset>>,
    failed: VecDeque<Failed>,
}

/// A part of what was ready, for one frame.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) pieces: Vec<Piece>,
    /// The last offset that this covers; `None` if nothing is ready.
    pub(super) last: Option<Offset>,
    pub(super) dropped: Vec<Range<Offset>>,
    pub(super) failed: Vec<Failed>,
}

impl Ready {
    /// Whole stored pieces from `from` on, where there is no chain.
    pub(super) fn stored(from: Offset, pieces: Vec<Piece>) -> Self {
        let reached = pieces.last().map_or(from, Piece::end);
        Self { next: from, reached, pieces: pieces.into(), ..Self::default() }
    }

    /// What a chain made of the events from `from` on. Its dead letters go into `letters`.
    pub(super) fn filtered(
        from: Offset,
        partition: PartitionId,
        filtered: Filtered,
        letters: &mut BTreeMap<(PartitionId, Offset), DeadLetter>,
    ) -> Self {
        let failed = filtered
            .progress
            .dead_letters
            .iter()
            .map(|letter| Failed { first: letter.offset, last: letter.offset, reason: reason(letter) })
            .collect();
        for letter in filtered.progress.dead_letters {
            letters.insert((partition, letter.offset), letter);
        }
        Self {
            next: from,
            reached: filtered.progress.reached,
            pieces: filtered.passed.into(),
            dropped: filtered.dropped.into(),
            failed,
        }
    }

    /// True if something from `from` on is ready.
    pub(super) fn is_from(&self, from: Offset) -> bool {
        self.next == from && self.reached > from
    }

    /// Bytes of what is ready.
    pub(super) fn bytes(&self) -> usize {
        self.pieces.iter().map(|piece| piece.run.batches.len()).sum()
    }

    /// Bytes that the next frame holds at least, however little it may hold.
    pub(super) fn least(&self) -> usize {
        self.pieces.front().map_or(0, |piece| piece.run.batches.len())
    }

    /// Takes events for one frame, none at or beyond `until`.
    pub(super) fn take(&mut self, until: Offset, events_max: u64, bytes_max: u64) -> Result<Taken, Error> {
        let until = until.min(self.reached);
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX).min(DELIVER_BYTES_TARGET);
        let pieces = take(&mut self.pieces, self.next..until, events_max, bytes_max)?;
        let covered = match (pieces.last(), self.pieces.front()) {
            (Some(last), Some(_)) => last.end(),
            // What is left, if anything is, holds no event below `until`.
            _ => until,
        };
        let mut dropped = Vec::new();
        while let Some(mut range) = self.dropped.pop_front_if(|range| range.start < covered) {
            if range.end > covered {
                self.dropped.push_front(covered..range.end);
                range.end = covered;
            }
            dropped.push(range);
        }
        let mut failed = Vec::new();
        while let Some(one) = self.failed.pop_front_if(|one| one.first < covered) {
            failed.push(one);
        }
        let last = (covered > self.next).then(|| Offset(covered.0 - 1));
        self.next = covered;
        Ok(Taken { pieces, last, dropped, failed })
    }
}

fn reason(letter: &DeadLetter) -> Reason {
    match letter.reason {
        DeadReason::Rejected => Reason::Rejected { reason: letter.error.clone() },
        DeadReason::PluginError | DeadReason::Loop => Reason::PluginError {
            plugin: letter.plugin.clone().unwrap_or_default(),
            error: letter.error.clone(),
        },
    }
}
