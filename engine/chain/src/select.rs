//! The sink that keeps the source's offsets: for subscriptions, and between the stages of any chain.
//!
//! A batch of which every event goes on unchanged is passed as it is; all else is copied into selections.

use std::ops::Range;

use levada_protocol::{
    batch::{BatchBuilder, EventParts, EventRef, Stamp},
    deliver::Run,
    ids::{Offset, Timestamp},
    limits::{BATCH_BYTES_TARGET, CALL_OUTPUT_BYTES_MAX},
    verdict::Output,
};

use crate::{
    cut::{Flat, Source},
    emit,
    outcome::{DeadLetter, PassedRun},
    walk::Forward,
    write::Sink,
};

/// Collects events as batches that keep their offsets.
#[derive(Debug)]
pub(crate) struct Selector {
    done: Vec<Flat>,
    /// A batch whose first events all go on: it may still turn out to go on as a whole.
    held: Option<Held>,
    builder: BatchBuilder,
    /// Where the batch in `builder` belongs.
    open: Option<Open>,
    built_bytes: usize,
}

#[derive(Debug)]
struct Held {
    flat: Flat,
    kept: u32,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    base: Offset,
    next: Offset,
    append_time: Timestamp,
    hops: u8,
}

impl Selector {
    pub(crate) fn new() -> Self {
        Self { done: Vec::new(), held: None, builder: BatchBuilder::selection(), open: None, built_bytes: 0 }
    }

    /// The batches, in order.
    pub(crate) fn finish(mut self) -> Vec<Flat> {
        self.release();
        self.flush();
        self.done
    }

    /// Copies what is held: its batch does not go on as a whole.
    fn release(&mut self) {
        if let Some(Held { flat, kept }) = self.held.take() {
            let mut forward = Forward::new(&flat.batch);
            for index in 0..kept {
                self.copy(&flat, &forward.get(index));
            }
        }
    }

    fn flush(&mut self) {
        if let Some(Open { base, append_time, hops, .. }) = self.open.take() {
            let batch = self.builder.finish(Stamp::ENGINE);
            self.built_bytes += batch.bytes().len();
            self.done.push(Flat { base, append_time, hops, batch, stored: None });
        }
    }

    fn pass_whole(&mut self, flat: Flat) {
        self.flush();
        self.done.push(flat);
    }

    fn copy(&mut self, flat: &Flat, event: &EventRef<'_>) {
        self.push(flat, event.offset(flat.base), event.record().len(), |builder, delta| {
            builder.push_ref(delta, event).is_ok()
        });
    }

    /// Pushes one event of about `len` bytes, to a new batch if it does not go into the open one.
    fn push(
        &mut self,
        flat: &Flat,
        offset: Offset,
        len: usize,
        mut add: impl FnMut(&mut BatchBuilder, u32) -> bool,
    ) {
        for _ in 0..2 {
            let open = match self.open {
                Some(open) if open.takes(flat, offset) && self.builder.len() + len <= BATCH_BYTES_TARGET => {
                    open
                }
                _ => {
                    self.flush();
                    Open { base: offset, next: offset, append_time: flat.append_time, hops: flat.hops }
                }
            };
            let delta = u32::try_from(offset.0 - open.base.0).expect("checked against the open batch");
            if add(&mut self.builder, delta) {
                self.open = Some(Open { next: offset.plus(1), ..open });
                return;
            }
            self.flush();
        }
        unreachable!(
            "an event that was judged, or is smaller than the batch it came in, fits an empty batch"
        );
    }
}

impl Open {
    /// Whether an event of `flat` at `offset` may follow in the same batch.
    fn takes(&self, flat: &Flat, offset: Offset) -> bool {
        self.append_time == flat.append_time
            && self.hops == flat.hops
            && offset >= self.next
            && offset.0 - self.base.0 < u64::from(u32::MAX)
    }
}

impl Sink for Selector {
    fn keep(&mut self, flat: &Flat, first: u32, count: u32, forward: &mut Forward<'_>) {
        let continues = |held: &Held| {
            held.kept == first && held.flat.batch.bytes().as_ptr() == flat.batch.bytes().as_ptr()
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
                    self.copy(flat, &forward.get(index));
                }
                return;
            }
        };
        if kept == flat.batch.count() {
            self.pass_whole(flat.clone());
        } else {
            self.held = Some(Held { flat: flat.clone(), kept });
        }
    }

    fn emit(&mut self, flat: &Flat, event: &EventRef<'_>, output: &Output<'_>) {
        self.release();
        let parts: EventParts<'_> = emit::parts_of(event, output);
        let headers = emit::headers_of(event, output);
        let len = parts.payload.map_or(0, <[u8]>::len);
        self.push(flat, event.offset(flat.base), len, |builder, delta| {
            builder.push_parts(delta, &parts, headers.clone()).is_ok()
        });
    }

    fn is_full(&self) -> bool {
        self.built_bytes >= CALL_OUTPUT_BYTES_MAX
    }
}

/// What a subscription delivers: neighbouring stored batches as one run that shares their source's bytes.
pub(crate) fn passed_runs(flats: &[Flat], sources: &[Source]) -> Vec<PassedRun> {
    let mut passed: Vec<PassedRun> = Vec::with_capacity(flats.len());
    let mut last: Option<(usize, Range<usize>)> = None;
    for flat in flats {
        let len = flat.batch.bytes().len();
        let place = flat.stored.map(|(source, start)| (source, start..start + len));
        if let (Some((last_source, last_bytes)), Some((source, bytes)), Some(before)) =
            (&mut last, &place, passed.last_mut())
            && last_source == source
            && last_bytes.end == bytes.start
        {
            last_bytes.end = bytes.end;
            before.run.batches = sources[*source].run().batches.slice(last_bytes.clone());
            before.count += flat.batch.count();
            before.span += flat.batch.span();
            continue;
        }
        let batches = flat.batch.bytes().clone();
        passed.push(PassedRun {
            run: Run { base: flat.base, append_time: flat.append_time, hops: flat.hops, batches },
            count: flat.batch.count(),
            span: flat.batch.span(),
            built: place.is_none(),
        });
        last = place;
    }
    passed
}

/// The offsets of `within` that neither passed nor are dead letters.
pub(crate) fn dropped(flats: &[Flat], dead: &[DeadLetter], within: Range<Offset>) -> Vec<Range<Offset>> {
    let mut gaps = Gaps { next: within.start, ranges: Vec::new() };
    let mut dead = dead.iter().map(|letter| letter.offset).peekable();
    for flat in flats {
        let mut take = |range: Range<Offset>| {
            while let Some(offset) = dead.next_if(|offset| *offset < range.start) {
                gaps.take(offset..offset.plus(1));
            }
            gaps.take(range);
        };
        if flat.batch.header().is_selection() {
            flat.batch.events().map(|event| event.offset(flat.base)).for_each(|at| take(at..at.plus(1)));
        } else {
            take(flat.base..flat.end());
        }
    }
    dead.for_each(|offset| gaps.take(offset..offset.plus(1)));
    gaps.take(within.end..within.end);
    gaps.ranges
}

/// What lies between ranges that are taken in ascending order.
struct Gaps {
    next: Offset,
    ranges: Vec<Range<Offset>>,
}

impl Gaps {
    fn take(&mut self, range: Range<Offset>) {
        if self.next < range.start {
            self.ranges.push(self.next..range.start);
        }
        self.next = range.end;
    }
}
