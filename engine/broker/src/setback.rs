//! Set-backs of the clock: offsets in a partition where append times start again, lower than before.
//!
//! Within a partition append times never go back, so that a time is found by a binary search; if the clock goes back
//! a little they stand still. If it goes back by more than [`AHEAD_MS_MAX`], it had run ahead: then a row notes the
//! offset and the time from there on, and **every event before it counts as appended no later than that**, whatever is
//! stored with it. So reading from a time and retention are right again at once (engine/adr/0004).

use levada_protocol::ids::{Offset, PartitionId, Timestamp, TopicId};
use levada_store::Store;

use crate::{
    error::Error,
    rows::{self, Setback},
};

/// By how much append times may be ahead of the clock: a minute, in milliseconds. Clocks that are kept right are
/// corrected by less.
pub(crate) const AHEAD_MS_MAX: u64 = 60_000;

/// The set-backs of one partition, in the order of their offsets.
#[derive(Debug, Default)]
pub(crate) struct Setbacks(Vec<(Offset, Timestamp)>);

impl Setbacks {
    /// Those that are stored. Blocks on the disk.
    pub(crate) fn load(store: &dyn Store, topic: TopicId, number: PartitionId) -> Result<Self, Error> {
        let range = Setback::below(topic, number, Offset(u64::MAX));
        let rows = rows::scan::<Setback>(store, range)?;
        Ok(Self(rows.into_iter().map(|((_, _, from), row)| (from, row.time)).collect()))
    }

    /// Where in `[first, end)` the first event at or after `time` must be, or the end of what is answered: within that
    /// stretch stored times never go back.
    pub(crate) fn stretch(&self, first: Offset, end: Offset, time: Timestamp) -> (Offset, Offset) {
        let after = self.0.iter().rposition(|(_, from)| *from < time).map_or(0, |last| last + 1);
        let low = after.checked_sub(1).map_or(first, |at| self.0[at].0);
        let high = self.0.get(after).map_or(end, |(next, _)| *next);
        let within = |offset: Offset| offset.clamp(first, end);
        (within(low), within(high))
    }

    /// When an event at or before `offset` counts as appended, given what is stored with it.
    pub(crate) fn time(&self, offset: Offset, stored: Timestamp) -> Timestamp {
        let later = self.0.iter().filter(|(at, _)| *at > offset).map(|(_, time)| *time);
        later.chain([stored]).min().unwrap_or(stored)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// One event an offset, its stored time; and where the clock was set back.
    fn partition(steps: &[(u64, bool)]) -> (Vec<Timestamp>, Setbacks) {
        let (mut times, mut setbacks, mut last): (Vec<Timestamp>, _, _) = (Vec::new(), Vec::new(), 0u64);
        for (step, goes_back) in steps {
            if *goes_back {
                last = last.saturating_sub(*step);
                setbacks.push((Offset(times.len() as u64), Timestamp(last)));
            } else {
                last += step;
            }
            times.push(Timestamp(last));
        }
        (times, Setbacks(setbacks))
    }

    proptest! {
        #[test]
        fn the_stretch_holds_the_first_event_that_counts_as_of_the_time_or_later(
            steps in vec((0u64..50, any::<bool>()), 0..40), time in 0u64..300, first in 0usize..40,
        ) {
            let (times, setbacks) = partition(&steps);
            let (end, time) = (times.len(), Timestamp(time));
            let first = first.min(end);
            let counts = |at: usize| setbacks.time(Offset(at as u64), times[at]);
            let expected = (first..end).find(|at| counts(*at) >= time).unwrap_or(end);
            let (low, high) = setbacks.stretch(Offset(first as u64), Offset(end as u64), time);
            let (low, high) = (usize::try_from(low.0).unwrap(), usize::try_from(high.0).unwrap());
            prop_assert!(times[low..high].is_sorted(), "a binary search is right there");
            let found = low + times[low..high].partition_point(|stored| *stored < time);
            prop_assert_eq!(found, expected);
            let all: Vec<_> = (0..end).map(counts).collect();
            prop_assert!(all.is_sorted(), "times that count never go back");
        }
    }
}
