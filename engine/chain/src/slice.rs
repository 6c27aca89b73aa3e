//! Stored batches of one partition that follow on each other, and parts of them.
//!
//! Must not know where they were read or who gets them.

use std::ops::Range;

use bytes::Bytes;
use levada_protocol::{
    batch::{Batch, BatchBuilder, BatchError, BatchFull, EventParts, EventRef, Stamp},
    deliver::Run,
    ids::{Offset, Timestamp},
    limits::BATCH_BYTES_TARGET,
};

/// Batches of a partition that follow on each other, with what they hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSlice {
    /// The batches, and the offset at which they begin.
    pub run: Run,
    /// How many events they hold.
    pub events: u32,
    /// How many offsets they cover from the run's base, at least as many as there are events.
    pub span: u32,
    /// True if the engine built the batches of selected or changed events; false if they are stored ones, which share
    /// their bytes.
    pub built: bool,
    /// True if events of them may have a time to live; if false, none has.
    pub has_ttls: bool,
}

/// Why stored batches could not be divided.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SliceError {
    /// A batch is not what was stored.
    #[error("the batch at offset {offset} is damaged: {error}")]
    Damaged {
        /// The batch's first offset.
        offset: Offset,
        /// The mistake.
        error: BatchError,
    },
    /// An event is too large for a batch that holds it alone, which no event that was accepted is.
    #[error("a stored event does not fit a batch of its own: {0}")]
    NoRoom(BatchFull),
}

impl LogSlice {
    /// A slice of whole batches; their checksums are compared if `verify` is set.
    ///
    /// # Errors
    /// If a batch is damaged.
    pub fn of(run: Run, verify: bool) -> Result<Self, SliceError> {
        let (mut events, mut span, mut has_ttls) = (0, 0, false);
        for batch in SliceBatches::new(&run, verify) {
            let (_, batch) = batch?;
            events += batch.count();
            span += batch.span();
            has_ttls |= batch.has_ttls();
        }
        Ok(Self { run, events, span, built: false, has_ttls })
    }

    /// The offset behind the last one that it covers.
    pub fn end(&self) -> Offset {
        self.run.base.plus(u64::from(self.span))
    }

    /// The events whose time to live is not over, each with what is left of it; `None` if there are none. They keep their
    /// offsets.
    ///
    /// # Errors
    /// If a batch is damaged.
    pub fn live_at(&self, now: Timestamp) -> Result<Option<Self>, SliceError> {
        let age_ms = now.0.saturating_sub(self.run.append_time.0);
        let mut builder = BatchBuilder::selection();
        let mut first = None;
        for batch in SliceBatches::new(&self.run, false) {
            let (base, batch) = batch?;
            for event in batch.events() {
                let left_ms = event.ttl_ms().map(|ttl_ms| u64::from(ttl_ms).saturating_sub(age_ms));
                if left_ms == Some(0) {
                    continue;
                }
                let offset = event.offset(base);
                let delta = offset.0 - first.get_or_insert(offset).0;
                let delta = u32::try_from(delta).expect("a slice spans 32 bits of offsets");
                let ttl_ms = left_ms.and_then(|left_ms| u32::try_from(left_ms).ok());
                let parts = EventParts { ttl_ms, ..EventParts::of(&event) };
                builder.push_parts(delta, &parts, event.headers()).map_err(SliceError::NoRoom)?;
            }
        }
        let Some(first) = first else { return Ok(None) };
        let batch = builder.finish(Stamp::ENGINE);
        let run = Run { base: first, batches: batch.bytes().clone(), ..self.run.clone() };
        Ok(Some(Self {
            run,
            events: batch.count(),
            span: batch.span(),
            built: true,
            has_ttls: batch.has_ttls(),
        }))
    }

    /// The events in `offsets`, ascending and disjoint ranges, at most `events_max` of them, in few slices.
    ///
    /// Whole batches are shared; the events of batches that are cut are copied, those of neighbours together.
    ///
    /// # Errors
    /// If a batch is damaged.
    pub fn cut(&self, offsets: &[Range<Offset>], events_max: u64) -> Result<Vec<Self>, SliceError> {
        let all = self.run.base..self.end();
        let offsets = overlapping(offsets, &all);
        if covers(offsets, &all) && u64::from(self.events) <= events_max {
            return Ok(vec![self.clone()]);
        }
        let mut cutting = Cutting::new(self);
        let mut left = events_max;
        for batch in SliceBatches::new(&self.run, false) {
            let (base, batch) = batch?;
            let range = base..base.plus(u64::from(batch.span()));
            let offsets = overlapping(offsets, &range);
            if offsets.is_empty() || left == 0 {
                continue;
            }
            if covers(offsets, &range) && u64::from(batch.count()) <= left {
                left -= u64::from(batch.count());
                cutting.share(base, &batch);
            } else {
                left -= cutting.copy(base, &batch, offsets, left)?;
            }
        }
        Ok(cutting.finish())
    }
}

/// Those of some ascending and disjoint ranges that overlap another one.
fn overlapping<'a>(ranges: &'a [Range<Offset>], other: &Range<Offset>) -> &'a [Range<Offset>] {
    let from = ranges.partition_point(|range| range.end <= other.start);
    let count = ranges[from..].partition_point(|range| range.start < other.end);
    &ranges[from..from + count]
}

/// True if one of the ranges that overlap `other` holds all of it.
fn covers(overlapping: &[Range<Offset>], other: &Range<Offset>) -> bool {
    overlapping.first().is_some_and(|range| range.start <= other.start && other.end <= range.end)
}

/// The parts of a slice that are cut from it, in order.
struct Cutting<'a> {
    of: &'a LogSlice,
    done: Vec<LogSlice>,
    /// Copied events that are not in `done`.
    builder: BatchBuilder,
    /// The offset of the first of them.
    first: Offset,
}

impl<'a> Cutting<'a> {
    fn new(of: &'a LogSlice) -> Self {
        Self { of, done: Vec::new(), builder: BatchBuilder::selection(), first: of.run.base }
    }

    fn finish(mut self) -> Vec<LogSlice> {
        self.flush();
        self.done
    }

    fn share(&mut self, base: Offset, batch: &Batch) {
        self.flush();
        self.push(base, batch, self.of.built);
    }

    /// Copies the events in `offsets`, at most `events_max`; returns how many.
    fn copy(
        &mut self,
        base: Offset,
        batch: &Batch,
        mut offsets: &[Range<Offset>],
        events_max: u64,
    ) -> Result<u64, SliceError> {
        let mut copied = 0;
        for event in batch.events() {
            let offset = event.offset(base);
            while let Some((_, later)) = offsets.split_first().filter(|(range, _)| range.end <= offset) {
                offsets = later;
            }
            let Some(range) = offsets.first().filter(|_| copied < events_max) else { break };
            if !range.contains(&offset) {
                continue;
            }
            self.add(offset, &event)?;
            copied += 1;
        }
        Ok(copied)
    }

    /// Adds a copy of an event, to a new batch if it does not fit the one that is begun.
    fn add(&mut self, offset: Offset, event: &EventRef<'_>) -> Result<(), SliceError> {
        if !self.builder.is_empty() && self.builder.len() + event.record().len() <= BATCH_BYTES_TARGET {
            let delta = u32::try_from(offset.0 - self.first.0).expect("a slice spans 32 bits of offsets");
            if self.builder.push_ref(delta, event).is_ok() {
                return Ok(());
            }
        }
        self.flush();
        self.first = offset;
        self.builder.push_ref(0, event).map_err(SliceError::NoRoom)
    }

    fn flush(&mut self) {
        if !self.builder.is_empty() {
            let batch = self.builder.finish(Stamp::ENGINE);
            self.push(self.first, &batch, true);
        }
    }

    fn push(&mut self, base: Offset, batch: &Batch, built: bool) {
        let run = Run { base, batches: batch.bytes().clone(), ..self.of.run.clone() };
        let (events, span, has_ttls) = (batch.count(), batch.span(), batch.has_ttls());
        self.done.push(LogSlice { run, events, span, built, has_ttls });
    }
}

/// The batches of a run with their base offsets. It ends after an error.
#[derive(Debug)]
pub struct SliceBatches {
    rest: Bytes,
    next: Offset,
    verify: bool,
}

impl SliceBatches {
    /// Walks through a run; checksums are compared if `verify` is set.
    pub fn new(run: &Run, verify: bool) -> Self {
        Self { rest: run.batches.clone(), next: run.base, verify }
    }
}

impl Iterator for SliceBatches {
    type Item = Result<(Offset, Batch), SliceError>;

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
                Err(SliceError::Damaged { offset: self.next, error })
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use levada_protocol::{event::Event, ids::Timestamp};

    use super::*;

    /// Batches of these numbers of events from offset 10 on.
    fn slice(counts: &[u32]) -> LogSlice {
        let mut builder = BatchBuilder::new();
        let mut batches = Vec::new();
        for count in counts {
            (0..*count).for_each(|_| builder.push(&Event::new("x")).unwrap());
            batches.extend_from_slice(builder.finish(Stamp::ENGINE).bytes());
        }
        let run = Run { base: Offset(10), append_time: Timestamp(1), hops: 0, batches: batches.into() };
        LogSlice::of(run, true).unwrap()
    }

    fn offsets(slices: &[LogSlice]) -> Vec<u64> {
        let of = |slice: &LogSlice| {
            let batches = SliceBatches::new(&slice.run, true).map(Result::unwrap);
            let events = |(base, batch): (Offset, Batch)| {
                batch.events().map(|event| event.offset(base).0).collect::<Vec<_>>()
            };
            batches.flat_map(events).collect::<Vec<_>>()
        };
        slices.iter().flat_map(of).collect()
    }

    #[test]
    fn what_is_live_keeps_its_offset_and_what_is_left_of_its_time() {
        let mut builder = BatchBuilder::new();
        let mut batches = Vec::new();
        for ttls in [&[Some(5), None, Some(30)][..], &[None], &[Some(4), Some(20)]] {
            ttls.iter().for_each(|ttl_ms| {
                builder.push(&Event { ttl_ms: *ttl_ms, ..Event::new("x").with_header("h", "v") }).unwrap();
            });
            batches.extend_from_slice(builder.finish(Stamp::ENGINE).bytes());
        }
        let run = Run { base: Offset(10), append_time: Timestamp(100), hops: 2, batches: batches.into() };
        let slice = LogSlice::of(run, true).unwrap();
        assert!(slice.has_ttls);
        let live = |now| {
            let live = slice.live_at(Timestamp(now)).unwrap().unwrap();
            assert_eq!((live.run.append_time, live.run.hops, live.built), (Timestamp(100), 2, true));
            let batches = SliceBatches::new(&live.run, true).map(Result::unwrap);
            let events = |(base, batch): (Offset, Batch)| {
                batch.events().map(|it| (it.offset(base).0, it.ttl_ms())).collect::<Vec<_>>()
            };
            (live.has_ttls, batches.flat_map(events).collect::<Vec<_>>())
        };
        let all = [(10, Some(5)), (11, None), (12, Some(30)), (13, None), (14, Some(4)), (15, Some(20))];
        assert_eq!(live(99), (true, all.to_vec()), "the clock may be behind the append");
        assert_eq!(live(105), (true, vec![(11, None), (12, Some(25)), (13, None), (15, Some(15))]));
        assert_eq!(live(1_000), (false, vec![(11, None), (13, None)]));
        let mortal = slice.cut(&[Offset(14)..Offset(16)], u64::MAX).unwrap();
        assert_eq!(mortal[0].live_at(Timestamp(120)).unwrap(), None);
    }

    #[test]
    fn whole_batches_are_shared_and_cut_ones_are_built() {
        let slice = slice(&[3, 4, 2]);
        assert_eq!((slice.events, slice.span, slice.end()), (9, 9, Offset(19)));
        let all = slice.cut(&[Offset(0)..Offset(99)], u64::MAX).unwrap();
        assert_eq!(all, std::slice::from_ref(&slice));
        let cut = slice.cut(&[Offset(11)..Offset(18)], u64::MAX).unwrap();
        assert_eq!(offsets(&cut), (11..18).collect::<Vec<_>>());
        assert_eq!(cut.iter().map(|part| part.built).collect::<Vec<_>>(), [true, false, true]);
        let few = slice.cut(&[Offset(10)..Offset(19)], 5).unwrap();
        assert_eq!(offsets(&few), (10..15).collect::<Vec<_>>());
    }

    #[test]
    fn events_between_others_are_copied_together_up_to_a_shared_batch() {
        let slice = slice(&[3, 4, 2, 3]);
        let ranges =
            [10..11, 12..14, 15..16, 17..20, 21..40].map(|range| Offset(range.start)..Offset(range.end));
        let cut = slice.cut(&ranges, u64::MAX).unwrap();
        assert_eq!(offsets(&cut), [10, 12, 13, 15, 17, 18, 19, 21]);
        let shape = |part: &LogSlice| (part.run.base.0, part.end().0, part.events, part.built);
        assert_eq!(
            cut.iter().map(shape).collect::<Vec<_>>(),
            [(10, 16, 4, true), (17, 19, 2, false), (19, 22, 2, true)]
        );
        assert_eq!(offsets(&slice.cut(&ranges, 3).unwrap()), [10, 12, 13]);
        assert_eq!(slice.cut(&ranges[..0], u64::MAX).unwrap(), []);
        assert_eq!(slice.cut(&[Offset(0)..Offset(10), Offset(22)..Offset(30)], u64::MAX).unwrap(), []);
    }

    #[test]
    fn copies_that_do_not_fit_a_batch_become_several() {
        let far = u64::from(u32::MAX) + 1;
        let large = BATCH_BYTES_TARGET / 2;
        let mut builder = BatchBuilder::new();
        let mut batches = Vec::new();
        // The times of the first two do not fit a batch together, nor do the bytes of the last two.
        for (time, len) in [(0, 1), (far, 1), (far, large), (far, large)] {
            let event = Event::new(vec![b'x'; len]).at(Timestamp(time));
            (0..2).for_each(|_| builder.push(&event).unwrap());
            batches.extend_from_slice(builder.finish(Stamp::ENGINE).bytes());
        }
        let run = Run { base: Offset(10), append_time: Timestamp(1), hops: 0, batches: batches.into() };
        let ranges = [10, 12, 14, 16].map(|at| Offset(at)..Offset(at + 1));
        let cut = LogSlice::of(run, true).unwrap().cut(&ranges, u64::MAX).unwrap();
        assert_eq!(offsets(&cut), [10, 12, 14, 16]);
        assert_eq!(cut.iter().map(|part| part.events).collect::<Vec<_>>(), [1, 2, 1]);
    }

    #[test]
    fn damage_is_found_where_it_is_if_checksums_are_compared() {
        let mut run = slice(&[1, 1]).run;
        let mut batches = run.batches.to_vec();
        *batches.last_mut().unwrap() ^= 1;
        run.batches = batches.into();
        assert!(LogSlice::of(run.clone(), false).is_ok());
        let error = LogSlice::of(run, true).unwrap_err();
        assert!(matches!(error, SliceError::Damaged { offset: Offset(11), .. }), "{error}");
    }
}
