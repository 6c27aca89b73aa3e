//! Verbs of one consumer that took no effect and that it was not told of, by the frames that they came in.
//!
//! A frame counts as settled for its consumer only once each of its refused verbs was named, however many frames that takes.
//! Whoever adds bounds how many there are. It must not know streams.

use std::collections::VecDeque;

use levada_protocol::verbs::{RefusedVerb, Settled};

/// Refused verbs that one `Settled` names.
const NAMED_MAX: usize = 4_096;

/// What was refused, in order.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// The sequence of the frame of each; 0 where that is not known, before all others.
    untold: VecDeque<(u64, RefusedVerb)>,
    /// The last sequence that was told.
    told: u64,
}

impl Refusals {
    /// Adds a verb of the last frame that came.
    pub(super) fn add(&mut self, sequence: u64, refused: RefusedVerb) {
        self.untold.push_back((sequence, refused));
    }

    /// Adds a verb of some earlier frame.
    pub(super) fn add_earlier(&mut self, refused: RefusedVerb) {
        self.untold.push_front((0, refused));
    }

    /// Bytes of the frame that [`Refusals::next`] returns.
    pub(super) fn next_len(&self) -> usize {
        Settled::frame_len_of(self.untold.len().min(NAMED_MAX))
    }

    /// What to tell next if the frames up to `confirmed` have taken effect: the sequence is lower than that while refused
    /// verbs of those frames are left.
    pub(super) fn next(&mut self, confirmed: u64) -> Settled {
        let named = self.untold.len().min(NAMED_MAX);
        let refused = self.untold.drain(..named).map(|(_, refused)| refused).collect();
        if self.untold.is_empty() {
            self.untold = VecDeque::new();
        }
        let before_next = |(sequence, _): &(u64, RefusedVerb)| confirmed.min(sequence.saturating_sub(1));
        self.told = self.untold.front().map_or(confirmed, before_next).max(self.told);
        Settled { sequence: self.told, refused }
    }
}

#[cfg(test)]
mod tests {
    use levada_protocol::{
        error::ErrorCode,
        ids::{Offset, PartitionId},
    };

    use super::*;

    fn verb(offset: u64) -> RefusedVerb {
        let (first, last) = (Offset(offset), Offset(offset));
        RefusedVerb { partition: PartitionId(0), first, last, code: ErrorCode::DeliveryExpired }
    }

    fn named(settled: &Settled) -> Vec<u64> {
        settled.refused.iter().map(|refused| refused.first.0).collect()
    }

    #[test]
    fn a_frame_is_settled_once_all_its_refused_verbs_are_named() {
        let (mut refusals, many) = (Refusals::default(), NAMED_MAX as u64 + 10);
        (0..many).for_each(|offset| refusals.add(7, verb(offset)));
        refusals.add(8, verb(many));
        assert_eq!(refusals.next_len(), Settled::frame_len_of(NAMED_MAX));
        let first = refusals.next(8);
        assert_eq!((first.sequence, first.refused.len()), (6, NAMED_MAX));
        let second = refusals.next(8);
        assert_eq!((second.sequence, second.refused.len()), (8, 11));
        assert_eq!([named(&first), named(&second)].concat(), (0..=many).collect::<Vec<_>>());
        assert_eq!(refusals.next(9), Settled { sequence: 9, refused: Vec::new() });
    }

    #[test]
    fn what_is_refused_after_all_is_named_first_and_no_sequence_goes_back() {
        let mut refusals = Refusals::default();
        assert_eq!(refusals.next(5).sequence, 5);
        (0..NAMED_MAX as u64).for_each(|offset| refusals.add(9, verb(offset)));
        (0..2).for_each(|_| refusals.add_earlier(verb(1_000_000)));
        let told = refusals.next(9);
        assert_eq!((told.sequence, &named(&told)[..3]), (8, &[1_000_000, 1_000_000, 0][..]));
        (0..=NAMED_MAX).for_each(|_| refusals.add_earlier(verb(2_000_000)));
        assert_eq!(refusals.next(9).sequence, 8, "some of unknown frames are left");
        assert_eq!(refusals.next(9).sequence, 9);
    }
}
