//! Events of one stretch of a partition that were read and have passed the chain: what is sent to consumers is cut from
//! these.

use levada_chain::Filtered;
use std::ops::Range;

use levada_delivery::subscription::{Chunk, Failed, Fetched, Reason};
use levada_protocol::{deliver::RUN_HEADER_BYTES, event::Event, ids::Offset};

use crate::{
    error::Error,
    frames::{LogSlice, SliceBatches},
};

/// A stretch of a partition.
#[derive(Debug)]
pub(super) struct Slices {
    from: Offset,
    /// Everything below is decided: in a piece, filtered or failed.
    reached: Offset,
    pieces: Vec<LogSlice>,
    /// What the rules of delivery know of each piece.
    chunks: Vec<Chunk>,
    filtered: Vec<Range<Offset>>,
    failed: Vec<Failed>,
}

impl Slices {
    /// Stored pieces from `from` on, where there is no chain.
    pub(super) fn stored(from: Offset, pieces: Vec<LogSlice>) -> Result<Self, Error> {
        let reached = pieces.last().map_or(from, LogSlice::end);
        let mut filtered = Vec::new();
        for piece in pieces.iter().filter(|piece| piece.events < piece.span) {
            add_gaps(piece, &mut filtered)?;
        }
        Ok(Self::new(from, reached, pieces, filtered, Vec::new()))
    }

    /// What a chain made of the events from `from` on.
    pub(super) fn filtered(from: Offset, filtered: Filtered) -> Self {
        let dead_letters = filtered.progress.dead_letters.iter();
        let failed =
            dead_letters.map(|it| Failed { first: it.offset, last: it.offset, reason: reason(it) }).collect();
        let pieces = filtered.passed;
        Self::new(from, filtered.progress.reached, pieces, filtered.dropped, failed)
    }

    fn new(
        from: Offset,
        reached: Offset,
        pieces: Vec<LogSlice>,
        filtered: Vec<Range<Offset>>,
        failed: Vec<Failed>,
    ) -> Self {
        let chunk = |piece: &LogSlice| Chunk {
            range: piece.run.base..piece.end(),
            bytes: (RUN_HEADER_BYTES + piece.run.batches.len()) as u64,
        };
        let chunks = pieces.iter().map(chunk).collect();
        Self { from, reached, pieces, chunks, filtered, failed }
    }

    /// From the first offset to behind the last one that is decided.
    pub(super) fn range(&self) -> Range<Offset> {
        self.from..self.reached
    }

    /// Bytes that it takes in memory: the batches, and what is known of events that are in none.
    pub(super) fn bytes(&self) -> usize {
        let batches = self.pieces.iter().map(|piece| piece.run.batches.len()).sum::<usize>();
        let failed = self.failed.iter().map(|failed| size_of::<Failed>() + failed.reason.text_len());
        batches + self.filtered.len() * size_of::<Range<Offset>>() + failed.sum::<usize>()
    }

    /// Adds what follows directly.
    pub(super) fn append(&mut self, more: Self) {
        self.reached = more.reached;
        self.pieces.extend(more.pieces);
        self.chunks.extend(more.chunks);
        self.filtered.extend(more.filtered);
        self.failed.extend(more.failed);
    }

    /// What is here from `at` on, for the rules of delivery.
    pub(super) fn fetched(&self, at: Offset) -> Fetched<'_> {
        let filtered = self.filtered.partition_point(|range| range.end <= at);
        let failed = self.failed.partition_point(|it| it.last < at);
        Fetched {
            reached: self.reached,
            chunks: &self.chunks[self.at(at)..],
            filtered: &self.filtered[filtered..],
            failed: &self.failed[failed..],
        }
    }

    /// The events of these offsets, in as few pieces as it takes: whole batches are shared, one that is cut is built
    /// again.
    pub(super) fn select(&self, offsets: &[Range<Offset>]) -> Result<Vec<LogSlice>, Error> {
        let mut selected = Vec::new();
        for range in offsets {
            let overlapping = self.pieces[self.at(range.start)..].iter();
            for piece in overlapping.take_while(|piece| piece.run.base < range.end) {
                selected.extend(piece.cut(range, u64::MAX)?);
            }
        }
        Ok(selected)
    }

    /// The event at an offset as it is stored; `None` if it is not here, or if a chain may have changed it.
    pub(super) fn event(&self, offset: Offset) -> Option<Event> {
        let piece = self.pieces.get(self.at(offset)).filter(|piece| !piece.built)?;
        event_in(piece, offset).ok().flatten()
    }

    fn at(&self, offset: Offset) -> usize {
        self.chunks.partition_point(|chunk| chunk.range.end <= offset)
    }
}

/// The event at an offset of a piece.
pub(super) fn event_in(piece: &LogSlice, offset: Offset) -> Result<Option<Event>, Error> {
    for batch in SliceBatches::new(&piece.run, false) {
        let (base, batch) = batch?;
        if offset < base {
            break;
        }
        if let Some(event) = batch.events().find(|event| event.offset(base) == offset) {
            return Ok(Some(event.to_event(&batch)));
        }
    }
    Ok(None)
}

/// Adds the offsets of a piece that hold no event.
fn add_gaps(piece: &LogSlice, gaps: &mut Vec<Range<Offset>>) -> Result<(), Error> {
    let mut next = piece.run.base;
    for batch in SliceBatches::new(&piece.run, false) {
        let (base, batch) = batch?;
        for event in batch.events() {
            let offset = event.offset(base);
            if next < offset {
                gaps.push(next..offset);
            }
            next = offset.plus(1);
        }
    }
    if next < piece.end() {
        gaps.push(next..piece.end());
    }
    Ok(())
}

fn reason(dead_letter: &levada_chain::DeadLetter) -> Reason {
    match dead_letter.reason {
        levada_chain::DeadReason::Rejected => Reason::Rejected { reason: dead_letter.error.clone() },
        levada_chain::DeadReason::PluginError | levada_chain::DeadReason::Loop => Reason::PluginError {
            plugin: dead_letter.plugin.clone().unwrap_or_default(),
            error: dead_letter.error.clone(),
        },
    }
}

#[cfg(test)]
pub(super) mod tests {
    use levada_protocol::{
        batch::{BatchBuilder, Stamp},
        deliver::Run,
        ids::Timestamp,
    };

    use super::*;

    /// A piece of one batch with these events, by their offsets.
    pub(in crate::subscription) fn piece(offsets: &[u64]) -> LogSlice {
        let base = offsets[0];
        let mut builder = BatchBuilder::selection();
        for offset in offsets {
            let delta = u32::try_from(offset - base).unwrap();
            let mut own = BatchBuilder::new();
            own.push(&Event::new(offset.to_string())).unwrap();
            let own = own.finish(Stamp::ENGINE);
            builder.push_ref(delta, &own.events().next().unwrap()).unwrap();
        }
        let batch = builder.finish(Stamp::ENGINE);
        let run =
            Run { base: Offset(base), append_time: Timestamp(0), hops: 0, batches: batch.bytes().clone() };
        LogSlice { run, events: batch.count(), span: batch.span(), built: false }
    }

    fn offsets(range: Range<u64>) -> Range<Offset> {
        Offset(range.start)..Offset(range.end)
    }

    #[test]
    fn offsets_that_the_log_does_not_hold_are_filtered() {
        let slices = Slices::stored(Offset(3), vec![piece(&[3, 4]), piece(&[5, 8, 9])]).unwrap();
        assert_eq!(slices.range(), offsets(3..10));
        let fetched = slices.fetched(Offset(4));
        assert_eq!((fetched.reached, fetched.chunks.len()), (Offset(10), 2));
        assert_eq!(fetched.filtered, [offsets(6..8)]);
        assert_eq!(slices.fetched(Offset(8)).filtered, []);
        assert_eq!(slices.fetched(Offset(5)).chunks.len(), 1);
    }

    #[test]
    fn whole_pieces_are_shared_and_others_are_cut() {
        let slices = Slices::stored(Offset(0), vec![piece(&[0, 1, 2]), piece(&[3, 4])]).unwrap();
        let selected = slices.select(&[offsets(1..2), offsets(2..5)]).unwrap();
        let shape: Vec<_> = selected.iter().map(|it| (it.run.base.0, it.events, it.built)).collect();
        assert_eq!(shape, [(1, 1, true), (2, 1, true), (3, 2, false)]);
        assert_eq!(selected[2].run.batches.as_ptr(), slices.pieces[1].run.batches.as_ptr());
    }

    #[test]
    fn an_event_is_found_by_its_offset() {
        let slices = Slices::stored(Offset(0), vec![piece(&[0, 2]), piece(&[3])]).unwrap();
        let payload = |offset| slices.event(Offset(offset)).and_then(|event| event.payload);
        assert_eq!(payload(2).as_deref(), Some(&b"2"[..]));
        assert_eq!((payload(1), payload(4)), (None, None));
    }
}
