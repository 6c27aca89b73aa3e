//! The sink that keeps the positions of events: for subscriptions, and between the stages of any chain.
//!
//! A batch of which every event is forwarded unchanged is passed as it is; all else is copied into selections.

use std::ops::Range;

use levada_protocol::{
    batch::{BatchBuilder, EventRef, Stamp},
    deliver::Run,
    ids::{Offset, Timestamp},
    limits::{BATCH_BYTES_TARGET, CALL_OUTPUT_BYTES_MAX},
    verdict::Change,
};

use crate::{
    batches::ChainBatch,
    forward::Sink,
    outputs::OutputRef,
    position::{Origin, Position},
    slice::LogSlice,
    source::Source,
    walk::EventReader,
    window::Failure,
};

/// Collects events as batches in which they keep their positions.
#[derive(Debug)]
pub(crate) struct Selector {
    done: Vec<ChainBatch>,
    /// A batch whose first events are all forwarded: it may still turn out that all of them are.
    held: Option<Held>,
    builder: BatchBuilder,
    /// What the batch in `builder` has in common with the batches that it is built of.
    open: Option<Open>,
    built_bytes: usize,
}

#[derive(Debug)]
struct Held {
    batch: ChainBatch,
    kept: u32,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    base: Position,
    next: Position,
    append_time: Timestamp,
    hops: u8,
    rekeyed: bool,
}

impl Selector {
    pub(crate) fn new() -> Self {
        Self { done: Vec::new(), held: None, builder: BatchBuilder::selection(), open: None, built_bytes: 0 }
    }

    /// The batches, in order.
    pub(crate) fn finish(mut self) -> Vec<ChainBatch> {
        self.release();
        self.flush();
        self.done
    }

    /// Copies what is held: not all of its batch is forwarded.
    fn release(&mut self) {
        if let Some(Held { batch, kept }) = self.held.take() {
            let mut reader = EventReader::new(&batch.batch);
            for index in 0..kept {
                self.copy(&batch, &reader.get(index));
            }
        }
    }

    fn flush(&mut self) {
        if let Some(Open { base, append_time, hops, rekeyed, .. }) = self.open.take() {
            let batch = self.builder.finish(Stamp::ENGINE);
            self.built_bytes += batch.bytes().len();
            self.done.push(ChainBatch { base, append_time, hops, batch, stored: None, rekeyed });
        }
    }

    fn pass_whole(&mut self, batch: ChainBatch) {
        self.flush();
        self.done.push(batch);
    }

    fn copy(&mut self, from: &ChainBatch, event: &EventRef<'_>) {
        let position = from.base.plus(event.offset_delta().into());
        self.push(from, position, event.record().len(), |builder, delta| {
            builder.push_ref(delta, event).is_ok()
        });
    }

    /// Pushes one event of about `len` bytes, to a new batch if it does not fit the open one.
    fn push(
        &mut self,
        from: &ChainBatch,
        position: Position,
        len: usize,
        mut add: impl FnMut(&mut BatchBuilder, u32) -> bool,
    ) {
        for _ in 0..2 {
            let open = match self.open {
                Some(open)
                    if open.takes(from, position) && self.builder.len() + len <= BATCH_BYTES_TARGET =>
                {
                    open
                }
                _ => {
                    self.flush();
                    let (append_time, hops) = (from.append_time, from.hops);
                    Open { base: position, next: position, append_time, hops, rekeyed: false }
                }
            };
            let delta = u32::try_from(position.0 - open.base.0).expect("checked against the open batch");
            if add(&mut self.builder, delta) {
                let rekeyed = open.rekeyed || from.rekeyed;
                self.open = Some(Open { next: position.plus(1), rekeyed, ..open });
                return;
            }
            self.flush();
        }
        unreachable!(
            "an event that was measured, or is smaller than the batch it came in, fits an empty batch"
        );
    }
}

impl Open {
    /// Whether an event of `from` at `position` may follow in the same batch.
    fn takes(&self, from: &ChainBatch, position: Position) -> bool {
        self.append_time == from.append_time
            && self.hops == from.hops
            && position >= self.next
            && position.0 - self.base.0 < u64::from(u32::MAX)
    }
}

impl Sink for Selector {
    fn keep(&mut self, from: &ChainBatch, first: u32, count: u32, reader: &mut EventReader<'_>) {
        let continues = |held: &Held| {
            held.kept == first && held.batch.batch.bytes().as_ptr() == from.batch.bytes().as_ptr()
        };
        let kept = match self.held.take_if(|held| continues(held)) {
            Some(held) => held.kept + count,
            None if first == 0 => {
                self.release();
                count
            }
            None => {
                self.release();
                for index in first..first + count {
                    self.copy(from, &reader.get(index));
                }
                return;
            }
        };
        if kept == from.batch.count() {
            self.pass_whole(from.clone());
        } else {
            self.held = Some(Held { batch: from.clone(), kept });
        }
    }

    fn emit<'a>(&mut self, from: &ChainBatch, event: &EventRef<'a>, output: OutputRef<'a>) {
        self.release();
        let (parts, headers) = (output.parts(event), output.headers(event));
        let len = parts.payload.map_or(0, <[u8]>::len);
        let position = from.base.plus(event.offset_delta().into());
        self.push(from, position, len, |builder, delta| {
            builder.push_parts(delta, &parts, headers.clone()).is_ok()
        });
        if let Some(open) = &mut self.open {
            open.rekeyed |= !matches!(output.key_len(), Change::Keep);
        }
    }

    fn is_full(&self) -> bool {
        self.built_bytes >= CALL_OUTPUT_BYTES_MAX
    }
}

/// What a subscription delivers: neighbouring stored batches as one slice that shares their source's bytes.
pub(crate) fn passed_slices(batches: &[ChainBatch], sources: &[Source], origin: Origin) -> Vec<LogSlice> {
    let mut passed: Vec<LogSlice> = Vec::with_capacity(batches.len());
    let mut last: Option<(usize, Range<usize>)> = None;
    for from in batches {
        let len = from.batch.bytes().len();
        let stored = from.stored.map(|(source, start)| (source, start..start + len));
        if let (Some((last_source, last_bytes)), Some((source, bytes)), Some(before)) =
            (&mut last, &stored, passed.last_mut())
            && last_source == source
            && last_bytes.end == bytes.start
        {
            last_bytes.end = bytes.end;
            before.run.batches = sources[*source].run().batches.slice(last_bytes.clone());
            before.events += from.batch.count();
            before.span += from.batch.span();
            before.has_ttls |= from.batch.has_ttls();
            continue;
        }
        let (base, batches) = (origin.offset(from.base), from.batch.bytes().clone());
        passed.push(LogSlice {
            run: Run { base, append_time: from.append_time, hops: from.hops, batches },
            events: from.batch.count(),
            span: from.batch.span(),
            built: stored.as_ref().is_none_or(|(source, _)| sources[*source].is_built()),
            has_ttls: from.batch.has_ttls(),
        });
        last = stored;
    }
    passed
}

/// The offsets of `within` that neither passed nor are dead letters.
pub(crate) fn dropped(
    batches: &[ChainBatch],
    dead: &[Failure],
    within: Range<Position>,
    origin: Origin,
) -> Vec<Range<Offset>> {
    let mut gaps = Gaps { next: within.start, origin, ranges: Vec::new() };
    let mut dead = dead.iter().map(|failure| failure.position).peekable();
    for from in batches {
        let mut take = |range: Range<Position>| {
            while let Some(position) = dead.next_if(|position| *position < range.start) {
                gaps.take(position..position.plus(1));
            }
            gaps.take(range);
        };
        if from.batch.header().is_selection() {
            let positions = from.batch.events().map(|event| from.base.plus(event.offset_delta().into()));
            positions.for_each(|at| take(at..at.plus(1)));
        } else {
            take(from.base..from.end());
        }
    }
    dead.for_each(|position| gaps.take(position..position.plus(1)));
    gaps.take(within.end..within.end);
    gaps.ranges
}

/// What is between ranges that are taken in ascending order.
struct Gaps {
    next: Position,
    origin: Origin,
    ranges: Vec<Range<Offset>>,
}

impl Gaps {
    fn take(&mut self, range: Range<Position>) {
        if self.next < range.start {
            self.ranges.push(self.origin.offset(self.next)..self.origin.offset(range.start));
        }
        self.next = range.end;
    }
}
