//! Which events of stored batches match. Pure: no store, no clock, no task.

use std::ops::Range;

use bytes::Bytes;
use levada_expression::Condition;
use levada_protocol::{
    batch::{Batch, EventRef},
    error::ErrorCode,
    ids::Offset,
    limits::KEY_BYTES_MAX,
    progress::Scanned,
    request::Search,
};

use crate::{
    error::Error,
    frames::{LogSlice, SliceBatches},
};

/// What an event must be like.
#[derive(Debug)]
pub(crate) struct Matcher {
    key: Option<Bytes>,
    condition: Option<Condition>,
}

/// Whether one event matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Matches,
    Differs,
    /// The condition names a field, and the payload is no JSON.
    Undecodable,
}

impl Matcher {
    /// What a search asks for.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a condition with a mistake, with its column, and for a key that no event can have.
    pub(crate) fn new(search: &Search) -> Result<Self, Error> {
        let refused = |message: String| Error::refused(ErrorCode::InvalidArgument, message);
        let key = search.key.as_ref().map(|key| key.0.clone());
        if let Some(key) = key.as_ref().filter(|key| key.len() > KEY_BYTES_MAX) {
            return Err(refused(format!(
                "expected a key of at most {KEY_BYTES_MAX} bytes, got {}",
                key.len()
            )));
        }
        let condition = search.condition.as_deref().map(Condition::parse).transpose();
        let condition = condition.map_err(|error| refused(format!("where: {error}")))?;
        Ok(Self { key, condition })
    }

    /// Appends the ranges of `within` whose events match to `found`, ascending and disjoint, and counts what was looked at.
    pub(crate) fn matching(
        &mut self,
        (base, batch): (Offset, &Batch),
        within: &Range<Offset>,
        found: &mut Vec<Range<Offset>>,
        scanned: &mut Scanned,
    ) {
        let end = base.plus(u64::from(batch.span()));
        // A range covers the offsets without events around its own, so that a batch that matches as a whole stays one.
        let mut next = base.max(within.start);
        let mut open: Option<Range<Offset>> = None;
        for event in batch.events() {
            let offset = event.offset(base);
            if !within.contains(&offset) {
                continue;
            }
            scanned.events += 1;
            match self.verdict(&event) {
                Verdict::Matches => {
                    scanned.matched += 1;
                    open.get_or_insert(next..next).end = offset.plus(1);
                }
                other => {
                    scanned.undecodable += u64::from(other == Verdict::Undecodable);
                    found.extend(open.take());
                }
            }
            next = offset.plus(1);
        }
        found.extend(open.map(|range| range.start..end.min(within.end)));
        scanned.bytes += batch.bytes().len() as u64;
    }

    /// The events of these pieces that match, in few slices, with what was looked at; `give_up` ends it early.
    pub(crate) fn cut(
        &mut self,
        pieces: &[LogSlice],
        within: &Range<Offset>,
        give_up: impl Fn() -> bool,
    ) -> Result<(Vec<LogSlice>, Scanned), Error> {
        let (mut slices, mut scanned, mut found) = (Vec::new(), Scanned::default(), Vec::new());
        for piece in pieces {
            found.clear();
            for batch in SliceBatches::new(&piece.run, false) {
                if give_up() {
                    return Err(Error::ShuttingDown);
                }
                let (base, batch) = batch?;
                if base < within.end && base.plus(u64::from(batch.span())) > within.start {
                    self.matching((base, &batch), within, &mut found, &mut scanned);
                }
            }
            if !found.is_empty() {
                slices.extend(piece.cut(&found, u64::MAX)?);
            }
        }
        Ok((slices, scanned))
    }

    fn verdict(&mut self, event: &EventRef<'_>) -> Verdict {
        if self.key.as_deref().is_some_and(|key| event.key() != Some(key)) {
            return Verdict::Differs;
        }
        match self.condition.as_mut().map_or(Ok(true), |condition| condition.holds(event)) {
            Ok(true) => Verdict::Matches,
            Ok(false) => Verdict::Differs,
            Err(_) => Verdict::Undecodable,
        }
    }
}

#[cfg(test)]
mod tests {
    use levada_protocol::{
        batch::{BatchBuilder, Stamp},
        deliver::Run,
        event::Event,
        ids::Timestamp,
        request::SearchKey,
    };
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn matcher(condition: &str) -> Matcher {
        let condition = (!condition.is_empty()).then(|| condition.to_owned());
        Matcher::new(&Search { condition, ..Search::default() }).unwrap()
    }

    /// Batches of these payloads from offset 10 on.
    fn piece(batches: &[Vec<String>]) -> LogSlice {
        let mut builder = BatchBuilder::new();
        let mut bytes = Vec::new();
        for batch in batches {
            batch
                .iter()
                .for_each(|payload| builder.push(&Event::new(payload.clone()).with_key("k")).unwrap());
            bytes.extend_from_slice(builder.finish(Stamp::ENGINE).bytes());
        }
        let run = Run { base: Offset(10), append_time: Timestamp(1), hops: 0, batches: bytes.into() };
        LogSlice::of(run, true).unwrap()
    }

    fn offsets(slices: &[LogSlice]) -> Vec<u64> {
        let batches = slices.iter().flat_map(|slice| SliceBatches::new(&slice.run, true).map(Result::unwrap));
        let events = |(base, batch): (Offset, Batch)| {
            batch.events().map(|event| event.offset(base).0).collect::<Vec<_>>()
        };
        batches.flat_map(events).collect()
    }

    fn all() -> Range<Offset> {
        Offset(0)..Offset(u64::MAX)
    }

    #[test]
    fn a_batch_of_which_all_events_match_is_shared_and_others_are_cut() {
        let payloads = |numbers: &[u32]| numbers.iter().map(|n| format!("{{\"n\":{n}}}")).collect::<Vec<_>>();
        let piece = piece(&[payloads(&[1, 9, 2]), payloads(&[7, 8]), payloads(&[3])]);
        let (slices, scanned) = matcher("n > 5").cut(&[piece], &all(), || false).unwrap();
        assert_eq!(offsets(&slices), [11, 13, 14]);
        assert_eq!(slices.iter().map(|slice| slice.built).collect::<Vec<_>>(), [true, false]);
        assert_eq!((scanned.events, scanned.matched, scanned.undecodable), (6, 3, 0));
    }

    #[test]
    fn a_payload_that_is_no_json_is_counted_if_a_field_is_asked_for() {
        let piece = piece(&[vec!["plain".to_owned(), "{\"n\":1}".to_owned()]]);
        let (slices, scanned) = matcher("n = 1").cut(std::slice::from_ref(&piece), &all(), || false).unwrap();
        assert_eq!((offsets(&slices), scanned.undecodable), (vec![11], 1));
        let (slices, scanned) = matcher("key = \"k\"").cut(&[piece], &all(), || false).unwrap();
        assert_eq!((offsets(&slices), scanned.undecodable), (vec![10, 11], 0));
    }

    #[test]
    fn a_key_is_compared_byte_by_byte() {
        let of = |key: &[u8]| {
            let key = Some(SearchKey(Bytes::copy_from_slice(key)));
            Matcher::new(&Search { key, ..Search::default() })
        };
        let piece = piece(&[vec!["1".to_owned()]]);
        for (key, matched) in [(&b"k"[..], 1), (b"K", 0), (b"", 0), (b"k\0", 0)] {
            let cut = of(key).unwrap().cut(std::slice::from_ref(&piece), &all(), || false);
            assert_eq!(cut.unwrap().1.matched, matched, "{key:?}");
        }
        assert!(of(&vec![b'k'; KEY_BYTES_MAX]).is_ok());
        assert_eq!(of(&vec![b'k'; KEY_BYTES_MAX + 1]).unwrap_err().code(), ErrorCode::InvalidArgument);
    }

    #[test]
    fn a_mistake_in_the_condition_is_refused_with_its_column() {
        let search = Search { condition: Some("n >".to_owned()), ..Search::default() };
        let error = Matcher::new(&search).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
        assert!(
            error.to_string().contains("where: column 4: expected a field, a header or a value"),
            "{error}"
        );
    }

    #[test]
    fn it_ends_early_when_nobody_waits_for_it() {
        let piece = piece(&[vec!["1".to_owned()]]);
        assert!(matcher("").cut(&[piece], &all(), || true).is_err());
    }

    proptest! {
        #[test]
        fn exactly_the_events_within_that_match_are_found(
            batches in vec(vec(0u32..4, 1..6), 1..5), from in 8u64..30, len in 0u64..20,
        ) {
            let payloads: Vec<Vec<String>> = batches
                .iter()
                .map(|batch| batch.iter().map(|n| if *n == 3 { "x".to_owned() } else { format!("{{\"n\":{n}}}") }).collect())
                .collect();
            let numbers = (10u64..).zip(batches.iter().flatten().copied());
            let within: Vec<(u64, u32)> = numbers.filter(|(at, _)| (from..from + len).contains(at)).collect();
            let range = Offset(from)..Offset(from + len);
            let (slices, scanned) = matcher("n < 2").cut(&[piece(&payloads)], &range, || false).unwrap();
            let expected: Vec<u64> = within.iter().filter(|(_, n)| *n < 2).map(|(at, _)| *at).collect();
            prop_assert_eq!(scanned.matched, expected.len() as u64);
            prop_assert_eq!(offsets(&slices), expected);
            prop_assert_eq!(scanned.events, within.len() as u64);
            prop_assert_eq!(scanned.undecodable, within.iter().filter(|(_, n)| *n == 3).count() as u64);
        }
    }
}
