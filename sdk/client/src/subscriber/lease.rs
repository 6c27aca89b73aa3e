//! What a consumer still owes the engine for one delivery: a word about each event, and the credit it took.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use levada_protocol::{
    ids::Offset,
    verbs::{Credit, Verb, VerbKind},
};

use super::Shared;
use crate::delivery::{Delivery, Incoming};

/// Held by a delivery; when it goes, so does its claim on the credit.
pub(crate) struct Lease {
    shared: Arc<Shared>,
    /// The stream that the delivery came on: on another its token means nothing.
    stream: u64,
    owed: Mutex<Owed>,
}

struct Owed {
    credit: Credit,
    spoken: Ranges,
}

impl Lease {
    pub(super) fn new(shared: Arc<Shared>, stream: u64, incoming: &Incoming) -> Self {
        let credit = Credit { events: u64::from(incoming.header.count), bytes: incoming.bytes };
        Self { shared, stream, owed: Mutex::new(Owed { credit, spoken: Ranges::default() }) }
    }

    /// Says something about the offsets from `first` to `last` that were not settled before.
    pub(crate) fn say(&self, delivery: &Delivery, first: Offset, last: Offset, kind: VerbKind) {
        let verb = |first, last| Verb {
            kind: kind.clone(),
            partition: delivery.partition(),
            token: delivery.token(),
            first,
            last,
        };
        let mut owed = self.owed();
        let mut verbs = Vec::new();
        let mut back = Credit { events: 0, bytes: 0 };
        if kind == VerbKind::InProgress {
            owed.spoken.gaps(first, last, |first, last| verbs.push(verb(first, last)));
        } else {
            let mut events = 0;
            owed.spoken.gaps(first, last, |first, last| {
                events += delivery.count_between(first, last);
                verbs.push(verb(first, last));
            });
            owed.spoken.add(first, last);
            back.events = events.min(owed.credit.events);
            owed.credit.events -= back.events;
            if owed.credit.events == 0 {
                back.bytes = std::mem::take(&mut owed.credit.bytes);
            }
        }
        drop(owed);
        self.shared.say(self.stream, verbs, back);
    }

    fn owed(&self) -> MutexGuard<'_, Owed> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Events about which nothing can be said any more hold no memory here, so they hold no credit either; the
/// engine still counts them as in flight until their time is out.
impl Drop for Lease {
    fn drop(&mut self) {
        let back = self.owed().credit;
        if back != (Credit { events: 0, bytes: 0 }) {
            self.shared.say(self.stream, Vec::new(), back);
        }
    }
}

/// Ranges of offsets, in order, apart from each other, ends included.
#[derive(Debug, Default)]
struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// The parts of `first` to `last` that are in no range.
    fn gaps(&self, first: Offset, last: Offset, mut gap: impl FnMut(Offset, Offset)) {
        let mut from = first.0;
        for &(start, end) in self.0.iter().filter(|(start, end)| *end >= first.0 && *start <= last.0) {
            if start > from {
                gap(Offset(from), Offset(start - 1));
            }
            from = end.saturating_add(1);
        }
        if from <= last.0 {
            gap(Offset(from), last);
        }
    }

    fn add(&mut self, first: Offset, last: Offset) {
        let (mut first, mut last) = (first.0, last.0);
        // Those that touch the new one, its neighbours included, become one with it.
        let from = self.0.partition_point(|(_, end)| end.saturating_add(1) < first);
        let to = self.0.partition_point(|(start, _)| *start <= last.saturating_add(1));
        for &(start, end) in &self.0[from..to] {
            (first, last) = (first.min(start), last.max(end));
        }
        self.0.splice(from..to, [(first, last)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps(ranges: &Ranges, first: u64, last: u64) -> Vec<(u64, u64)> {
        let mut found = Vec::new();
        ranges.gaps(Offset(first), Offset(last), |first, last| found.push((first.0, last.0)));
        found
    }

    #[test]
    fn ranges_grow_together_and_leave_gaps() {
        let mut ranges = Ranges::default();
        for (first, last) in [(10, 12), (20, 25), (13, 14), (30, 30)] {
            ranges.add(Offset(first), Offset(last));
        }
        assert_eq!(ranges.0, [(10, 14), (20, 25), (30, 30)]);
        assert_eq!(gaps(&ranges, 0, 40), [(0, 9), (15, 19), (26, 29), (31, 40)]);
        assert_eq!(gaps(&ranges, 12, 22), [(15, 19)]);
        assert_eq!(gaps(&ranges, 21, 24), []);
        ranges.add(Offset(11), Offset(29));
        assert_eq!(ranges.0, [(10, 30)]);
    }
}
