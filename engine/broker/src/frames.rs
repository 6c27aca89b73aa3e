//! Pieces of the log on their way to a consumer: stored bytes that are shared, or built anew where a batch is cut.

use std::{collections::VecDeque, ops::Range};

use bytes::Bytes;
use levada_protocol::{
    batch::{Batch, BatchBuilder, BatchFull, Stamp},
    deliver::{DELIVER_HEADER_BYTES, RUN_HEADER_BYTES, Run},
    ids::Offset,
};
use levada_store::record::Record;

use crate::error::Error;

/// Payload bytes after which a delivery frame takes no further run.
pub(crate) const DELIVER_BYTES_TARGET: usize = 256 * 1024;

/// Stored batches of one record that are delivered together: a run, and what it holds.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub(crate) run: Run,
    /// How many events.
    pub(crate) events: u32,
    /// How many offsets from the run's base.
    pub(crate) span: u32,
    /// True if the bytes are not the publisher's.
    pub(crate) built: bool,
}

impl Piece {
    /// The offset behind the last one that this covers.
    pub(crate) fn end(&self) -> Offset {
        self.run.base.plus(u64::from(self.span))
    }

    /// A piece of whole batches; their checksums are compared if `verify` is set.
    pub(crate) fn of(run: Run, verify: bool) -> Result<Self, Error> {
        let (mut events, mut span) = (0, 0);
        for batch in Batches::new(&run, verify) {
            let (_, batch) = batch?;
            events += batch.count();
            span += batch.span();
        }
        Ok(Self { run, events, span, built: false })
    }

    /// A stored record; its batches' checksums are compared.
    pub(crate) fn of_record(record: &Record) -> Result<Self, Error> {
        Ok(Self { span: record.span, ..Self::of(record.run(), true)? })
    }

    /// The part of this piece in `offsets`, of at most `events_max` events, in as few pieces as it takes.
    ///
    /// Whole batches are shared; a batch that is cut is built anew.
    pub(crate) fn cut(&self, offsets: &Range<Offset>, events_max: u64) -> Result<Vec<Self>, Error> {
        let inside = offsets.start <= self.run.base && self.end() <= offsets.end;
        if inside && u64::from(self.events) <= events_max {
            return Ok(vec![self.clone()]);
        }
        let mut pieces: Vec<Self> = Vec::new();
        let mut left = events_max;
        for batch in Batches::new(&self.run, false) {
            let (base, batch) = batch?;
            let end = base.plus(u64::from(batch.span()));
            if end <= offsets.start || base >= offsets.end || left == 0 {
                continue;
            }
            if base >= offsets.start && end <= offsets.end && u64::from(batch.count()) <= left {
                left -= u64::from(batch.count());
                pieces.push(self.whole(base, &batch));
            } else if let Some(part) = self.part(base, &batch, offsets, left)? {
                left -= u64::from(part.events);
                pieces.push(part);
            }
        }
        Ok(pieces)
    }

    fn whole(&self, base: Offset, batch: &Batch) -> Self {
        let run = Run { base, batches: batch.bytes().clone(), ..self.run.clone() };
        Self { run, events: batch.count(), span: batch.span(), built: self.built }
    }

    fn part(
        &self,
        base: Offset,
        batch: &Batch,
        offsets: &Range<Offset>,
        events_max: u64,
    ) -> Result<Option<Self>, Error> {
        let chosen = batch.events().filter(|event| offsets.contains(&event.offset(base)));
        let chosen = chosen.take(usize::try_from(events_max).unwrap_or(usize::MAX));
        let mut builder = BatchBuilder::selection();
        let mut first = None;
        for event in chosen {
            let offset = event.offset(base);
            let first = *first.get_or_insert(offset);
            let delta = u32::try_from(offset.0 - first.0).unwrap_or(u32::MAX);
            builder.push_ref(delta, &event).map_err(cannot_rebuild)?;
        }
        let Some(first) = first else { return Ok(None) };
        let (events, built) = (builder.count(), builder.finish(Stamp::ENGINE));
        let run = Run { base: first, batches: built.bytes().clone(), ..self.run.clone() };
        Ok(Some(Self { run, events, span: built.span(), built: true }))
    }
}

fn cannot_rebuild(error: BatchFull) -> Error {
    let message = format!("a stored event does not fit a batch of its own: {error}");
    Error::refused(levada_protocol::error::ErrorCode::Internal, message)
}

/// Stored batches of a run with their base offsets.
pub(crate) struct Batches {
    rest: Bytes,
    next: Offset,
    verify: bool,
}

impl Batches {
    pub(crate) fn new(run: &Run, verify: bool) -> Self {
        Self { rest: run.batches.clone(), next: run.base, verify }
    }
}

impl Iterator for Batches {
    type Item = Result<(Offset, Batch), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let batch = Batch::read_first(&mut self.rest)
            .and_then(|batch| if self.verify { batch.verify().map(|()| batch) } else { Ok(batch) });
        Some(match batch {
            Ok(batch) => {
                let base = self.next;
                self.next = base.plus(u64::from(batch.span()));
                Ok((base, batch))
            }
            Err(error) => {
                self.rest = Bytes::new();
                let message = format!("the batch at offset {} is damaged: {error}", self.next);
                Err(Error::refused(levada_protocol::error::ErrorCode::StorageCorrupt, message))
            }
        })
    }
}

/// Bytes of a delivery frame's payload around these pieces.
pub(crate) fn payload_len(pieces: &[Piece]) -> usize {
    DELIVER_HEADER_BYTES
        + pieces.iter().map(|piece| RUN_HEADER_BYTES + piece.run.batches.len()).sum::<usize>()
}

/// Takes pieces from the front of `queue` for one frame: events in `offsets`, at most `events_max`, and no further
/// piece beyond `bytes_max`. A piece that is not used up stays in front.
pub(crate) fn take(
    queue: &mut VecDeque<Piece>,
    offsets: Range<Offset>,
    events_max: u64,
    bytes_max: usize,
) -> Result<Vec<Piece>, Error> {
    let Range { start: mut from, end: until } = offsets;
    let (mut taken, mut left, mut bytes) = (Vec::new(), events_max, 0);
    while let Some(front) = queue.front() {
        if front.end() <= from {
            queue.pop_front();
            continue;
        }
        let over = bytes > 0 && bytes + front.run.batches.len() > bytes_max;
        if left == 0 || over || front.run.base >= until {
            break;
        }
        let end = front.end();
        for part in front.cut(&(from..until), left)? {
            left -= u64::from(part.events);
            bytes += part.run.batches.len();
            from = part.end();
            taken.push(part);
        }
        if from < end {
            break;
        }
        queue.pop_front();
    }
    Ok(taken)
}
