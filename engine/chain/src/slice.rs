//! Stored batches of one partition that follow on each other, and parts of them.
//!
//! Must not know where they were read or who gets them.

use std::{collections::BTreeMap, ops::Range};

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

    /// The events whose time to live is not over, each with what is left of it, in slices that cover the same offsets.
    ///
    /// # Errors
    /// If a batch is damaged.
    pub fn live_at(&self, now: Timestamp) -> Result<Live, SliceError> {
        let age_ms = now.0.saturating_sub(self.run.append_time.0);
        let (mut cutting, mut expired) = (Cutting::new(self), Vec::new());
        for batch in SliceBatches::new(&self.run, false) {
            let (base, batch) = batch?;
            for event in batch.events() {
                let left_ms = event.ttl_ms().map(|ttl_ms| u64::from(ttl_ms).saturating_sub(age_ms));
                let offset = event.offset(base);
                if left_ms == Some(0) {
                    expired.push(offset);
                    continue;
                }
                let ttl_ms = left_ms.and_then(|left_ms| u32::try_from(left_ms).ok());
                cutting.add(offset, &EventParts { ttl_ms, ..EventParts::of(&event) }, &event)?;
            }
        }
        Ok(Live { slices: self.covered_by(cutting.finish()), expired })
    }

    /// The events outside of these ranges, ascending and disjoint, in slices that cover the same offsets.
    ///
    /// # Errors
    /// If a batch is damaged.
    pub fn without(&self, out: &[Range<Offset>]) -> Result<Vec<Self>, SliceError> {
        let all = self.run.base..self.end();
        let cut = self.cut(&subtract(std::slice::from_ref(&all), out), u64::MAX)?;
        Ok(self.covered_by(cut))
    }

    /// Parts of it, of which the last one covers all offsets up to its end; one without events if there are none.
    fn covered_by(&self, mut parts: Vec<Self>) -> Vec<Self> {
        if parts.is_empty() {
            let run = Run { batches: Bytes::new(), ..self.run.clone() };
            parts.push(Self { run, events: 0, span: self.span, built: true, has_ttls: false });
        }
        if let Some(last) = parts.last_mut() {
            last.span = narrow_span(self.end().0 - last.run.base.0);
        }
        parts
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

    /// As [`LogSlice::cut`], for several takers: of `parts`, ascending and disjoint, each has the number of who takes it.
    /// Each batch is walked through once. `take` is called with what a taker gets, in the order of offsets.
    ///
    /// # Errors
    /// If a batch is damaged.
    pub fn divide(
        &self,
        parts: &[(Range<Offset>, usize)],
        mut take: impl FnMut(usize, Self),
    ) -> Result<(), SliceError> {
        let mut parts = from_offset(parts, self.run.base);
        if let Some((range, taker)) = parts.first().filter(|(range, _)| range.start <= self.run.base)
            && self.end() <= range.end
        {
            take(*taker, self.clone());
            return Ok(());
        }
        let mut cuttings = BTreeMap::new();
        for batch in SliceBatches::new(&self.run, false) {
            let (base, batch) = batch?;
            let end = base.plus(u64::from(batch.span()));
            parts = from_offset(parts, base);
            match parts.first() {
                Some((range, taker)) if range.start <= base && end <= range.end => {
                    cuttings.entry(*taker).or_insert_with(|| Cutting::new(self)).share(base, &batch);
                }
                Some((range, _)) if range.start < end => {
                    for event in batch.events() {
                        let offset = event.offset(base);
                        parts = from_offset(parts, offset);
                        let Some((range, taker)) = parts.first() else { break };
                        if range.contains(&offset) {
                            let cutting = cuttings.entry(*taker).or_insert_with(|| Cutting::new(self));
                            cutting.add(offset, &EventParts::of(&event), &event)?;
                        }
                    }
                }
                Some(_) => {}
                None => break,
            }
        }
        for (taker, cutting) in cuttings {
            cutting.finish().into_iter().for_each(|slice| take(taker, slice));
        }
        Ok(())
    }
}

/// Those of some ascending ranges that reach beyond what is before an offset.
fn from_offset(mut parts: &[(Range<Offset>, usize)], offset: Offset) -> &[(Range<Offset>, usize)] {
    while let Some((_, later)) = parts.split_first().filter(|((range, _), _)| range.end <= offset) {
        parts = later;
    }
    parts
}

/// What of a slice is live, and what is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// Slices that cover the offsets of the one that they are of.
    pub slices: Vec<LogSlice>,
    /// The events whose time to live is over, ascending.
    pub expired: Vec<Offset>,
}

/// What of some ranges is in none of others; all ascending and disjoint.
pub fn subtract(ranges: &[Range<Offset>], out: &[Range<Offset>]) -> Vec<Range<Offset>> {
    let mut left = Vec::with_capacity(ranges.len());
    for range in ranges {
        let mut start = range.start;
        for hole in overlapping(out, range) {
            if start < hole.start {
                left.push(start..hole.start);
            }
            start = hole.end;
        }
        if start < range.end {
            left.push(start..range.end);
        }
    }
    left
}

fn narrow_span(offsets: u64) -> u32 {
    u32::try_from(offsets).expect("a slice spans 32 bits of offsets")
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
            self.add(offset, &EventParts::of(&event), &event)?;
            copied += 1;
        }
        Ok(copied)
    }

    /// Adds an event of these parts and the headers of `event`, to a new batch if it does not fit the one that is begun.
    fn add(
        &mut self,
        offset: Offset,
        parts: &EventParts<'_>,
        event: &EventRef<'_>,
    ) -> Result<(), SliceError> {
        if !self.builder.is_empty() && self.builder.len() + event.record().len() <= BATCH_BYTES_TARGET {
            let delta = narrow_span(offset.0 - self.first.0);
            if self.builder.push_parts(delta, parts, event.headers()).is_ok() {
                return Ok(());
            }
        }
        self.flush();
        self.first = offset;
        self.builder.push_parts(0, parts, event.headers()).map_err(SliceError::NoRoom)
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
            let Live { slices, expired } = slice.live_at(Timestamp(now)).unwrap();
            assert!(
                slices
                    .iter()
                    .all(|it| (it.run.append_time, it.run.hops, it.built) == (Timestamp(100), 2, true))
            );
            assert_eq!(slices.last().unwrap().end(), slice.end(), "the same offsets are covered");
            let batches = slices.iter().flat_map(|it| SliceBatches::new(&it.run, true).map(Result::unwrap));
            let events = |(base, batch): (Offset, Batch)| {
                batch.events().map(|it| (it.offset(base).0, it.ttl_ms())).collect::<Vec<_>>()
            };
            let expired: Vec<u64> = expired.into_iter().map(|offset| offset.0).collect();
            (batches.flat_map(events).collect::<Vec<_>>(), expired)
        };
        let all = [(10, Some(5)), (11, None), (12, Some(30)), (13, None), (14, Some(4)), (15, Some(20))];
        assert_eq!(live(99), (all.to_vec(), vec![]), "the clock may be behind the append");
        let left = vec![(11, None), (12, Some(25)), (13, None), (15, Some(15))];
        assert_eq!(live(105), (left, vec![10, 14]));
        assert_eq!(live(1_000), (vec![(11, None), (13, None)], vec![10, 12, 14, 15]));
        let mortal = &slice.cut(&[Offset(14)..Offset(16)], u64::MAX).unwrap()[0];
        let Live { slices, expired } = mortal.live_at(Timestamp(120)).unwrap();
        assert_eq!((slices[0].events, slices[0].run.base, slices[0].end()), (0, Offset(14), Offset(16)));
        assert_eq!((slices.len(), expired.len()), (1, 2));
    }

    #[test]
    fn live_events_that_do_not_fit_a_batch_become_several() {
        let mut batches = Vec::new();
        for time in [0, 60 * 24 * 3_600_000] {
            let mut builder = BatchBuilder::new();
            builder.push(&Event { ttl_ms: Some(9), ..Event::new("x").at(Timestamp(time)) }).unwrap();
            batches.extend_from_slice(builder.finish(Stamp::ENGINE).bytes());
        }
        let run = Run { base: Offset(10), append_time: Timestamp(1), hops: 0, batches: batches.into() };
        let live = LogSlice::of(run, true).unwrap().live_at(Timestamp(1)).unwrap();
        assert_eq!(offsets(&live.slices), [10, 11]);
        let mut builder = BatchBuilder::new();
        let mut many = 0;
        while builder.push(&Event { ttl_ms: Some(9), ..Event::new(vec![b'x'; 512]) }).is_ok() {
            many += 1;
        }
        let batches = builder.finish(Stamp::ENGINE).bytes().clone();
        let run = Run { base: Offset(0), append_time: Timestamp(1), hops: 0, batches };
        let live = LogSlice::of(run, true).unwrap().live_at(Timestamp(1)).unwrap();
        assert_eq!(offsets(&live.slices), (0..many).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_left_without_some_ranges_covers_the_same_offsets() {
        let slice = slice(&[3, 4, 2]);
        let out = [Offset(0)..Offset(11), Offset(14)..Offset(15), Offset(17)..Offset(30)];
        let left = slice.without(&out).unwrap();
        assert_eq!(offsets(&left), [11, 12, 13, 15, 16]);
        assert_eq!(left.last().unwrap().end(), slice.end());
        let nothing = slice.without(&[Offset(0)..Offset(99)]).unwrap();
        assert_eq!((nothing.len(), nothing[0].events, nothing[0].end()), (1, 0, slice.end()));
        assert_eq!(slice.without(&[]).unwrap(), [slice]);
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
