//! Stored batches of one partition that follow on each other, and parts of them.
//!
//! Must not know where they were read or who gets them.

use std::ops::Range;

use bytes::Bytes;
use levada_protocol::{
    batch::{Batch, BatchBuilder, BatchError, BatchFull, EventRef, Stamp},
    deliver::Run,
    ids::Offset,
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
        let (mut events, mut span) = (0, 0);
        for batch in SliceBatches::new(&run, verify) {
            let (_, batch) = batch?;
            events += batch.count();
            span += batch.span();
        }
        Ok(Self { run, events, span, built: false })
    }

    /// The offset behind the last one that it covers.
    pub fn end(&self) -> Offset {
        self.run.base.plus(u64::from(self.span))
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
        self.done.push(LogSlice { run, events: batch.count(), span: batch.span(), built });
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
