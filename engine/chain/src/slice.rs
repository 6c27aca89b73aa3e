//! Stored batches of one partition that follow on each other, and parts of them.
//!
//! Must not know where they were read or who gets them.

use std::ops::Range;

use bytes::Bytes;
use levada_protocol::{
    batch::{Batch, BatchBuilder, BatchError, BatchFull, Stamp},
    deliver::Run,
    ids::Offset,
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

    /// The events in `offsets`, at most `events_max` of them, in as few slices as it takes.
    ///
    /// Whole batches are shared; a batch that is cut is built again.
    ///
    /// # Errors
    /// If a batch is damaged.
    pub fn cut(&self, offsets: &Range<Offset>, events_max: u64) -> Result<Vec<Self>, SliceError> {
        let inside = offsets.start <= self.run.base && self.end() <= offsets.end;
        if inside && u64::from(self.events) <= events_max {
            return Ok(vec![self.clone()]);
        }
        let mut slices: Vec<Self> = Vec::new();
        let mut left = events_max;
        for batch in SliceBatches::new(&self.run, false) {
            let (base, batch) = batch?;
            let end = base.plus(u64::from(batch.span()));
            if end <= offsets.start || base >= offsets.end || left == 0 {
                continue;
            }
            if base >= offsets.start && end <= offsets.end && u64::from(batch.count()) <= left {
                left -= u64::from(batch.count());
                slices.push(self.whole(base, &batch));
            } else if let Some(part) = self.part(base, &batch, offsets, left)? {
                left -= u64::from(part.events);
                slices.push(part);
            }
        }
        Ok(slices)
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
    ) -> Result<Option<Self>, SliceError> {
        let chosen = batch.events().filter(|event| offsets.contains(&event.offset(base)));
        let chosen = chosen.take(usize::try_from(events_max).unwrap_or(usize::MAX));
        let mut builder = BatchBuilder::selection();
        let mut first = None;
        for event in chosen {
            let offset = event.offset(base);
            let first = *first.get_or_insert(offset);
            let delta = u32::try_from(offset.0 - first.0).unwrap_or(u32::MAX);
            builder.push_ref(delta, &event).map_err(SliceError::NoRoom)?;
        }
        let Some(first) = first else { return Ok(None) };
        let (events, built) = (builder.count(), builder.finish(Stamp::ENGINE));
        let run = Run { base: first, batches: built.bytes().clone(), ..self.run.clone() };
        Ok(Some(Self { run, events, span: built.span(), built: true }))
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
        let all = slice.cut(&(Offset(0)..Offset(99)), u64::MAX).unwrap();
        assert_eq!(all, std::slice::from_ref(&slice));
        let cut = slice.cut(&(Offset(11)..Offset(18)), u64::MAX).unwrap();
        assert_eq!(offsets(&cut), (11..18).collect::<Vec<_>>());
        assert_eq!(cut.iter().map(|part| part.built).collect::<Vec<_>>(), [true, false, true]);
        let few = slice.cut(&(Offset(10)..Offset(19)), 5).unwrap();
        assert_eq!(offsets(&few), (10..15).collect::<Vec<_>>());
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
