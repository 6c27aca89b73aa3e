//! What a consumer has to say and has not said yet: verbs, and credit to give back.
//!
//! Pure: no I/O, no clock. Owns the coalescing of verbs and the count of what the engine has confirmed.

use std::collections::VecDeque;

use bytes::Bytes;
use levada_protocol::{
    ids::Offset,
    limits::{REASON_BYTES_MAX, REQUEST_BYTES_MAX, VERBS_MAX},
    verbs::{Credit, RefusedVerb, Settled, Verb, VerbKind, Verbs},
};

/// Bytes of a verb without its reason.
const VERB_BYTES: usize = 34;
/// `in_progress` verbs beyond this many waiting ones are left out: they can be said again.
const WAITING_MAX: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Outbox {
    verbs: VecDeque<Verb>,
    pub(super) credit: Credit,
    /// The number of the last verbs frame.
    sequence: u64,
    /// How many verbs were ever put in; a verb that was joined to another counts as part of that one.
    said: u64,
    /// How many of them the engine has confirmed.
    confirmed: u64,
    /// How many of them were said, or were to be said, on a stream that is gone.
    lost: u64,
    /// Frames that are not confirmed: their number, and `said` as it was at their end.
    unconfirmed: VecDeque<(u64, u64)>,
    refused: Option<(RefusedVerb, u64)>,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self {
            verbs: VecDeque::new(),
            credit: Credit { events: 0, bytes: 0 },
            sequence: 0,
            said: 0,
            confirmed: 0,
            lost: 0,
            unconfirmed: VecDeque::new(),
            refused: None,
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.verbs.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.verbs.is_empty() && self.credit == Credit { events: 0, bytes: 0 }
    }

    /// Puts a verb behind the others, or joins it to the last one if both say the same of neighbouring
    /// offsets.
    pub(super) fn push(&mut self, verb: Verb) {
        if let Some(last) = self.verbs.back_mut()
            && last.kind == verb.kind
            && last.token == verb.token
            && last.partition == verb.partition
            && verb.first >= last.first
            && verb.first.0 <= last.last.0.saturating_add(1)
        {
            last.last = Offset(last.last.0.max(verb.last.0));
            return;
        }
        if verb.kind == VerbKind::InProgress && self.verbs.len() >= WAITING_MAX {
            return;
        }
        self.verbs.push_back(verb);
        self.said += 1;
    }

    /// Everything that waits, as frames. Verbs go first, so that the engine counts their events as free.
    pub(super) fn take(&mut self, out: &mut Vec<Bytes>) {
        while !self.verbs.is_empty() {
            let mut bytes = 8;
            let mut verbs = Vec::with_capacity(self.verbs.len().min(VERBS_MAX));
            while let Some(verb) = self.verbs.front() {
                bytes += VERB_BYTES
                    + match &verb.kind {
                        VerbKind::Reject { reason } => reason.len().min(REASON_BYTES_MAX),
                        VerbKind::Ack | VerbKind::Nack { .. } | VerbKind::InProgress => 0,
                    };
                if verbs.len() == VERBS_MAX || bytes > REQUEST_BYTES_MAX {
                    break;
                }
                verbs.extend(self.verbs.pop_front());
            }
            self.sequence += 1;
            let still_waiting = u64::try_from(self.verbs.len()).expect("a length fits 64 bits");
            self.unconfirmed.push_back((self.sequence, self.said - still_waiting));
            out.push(Verbs { sequence: self.sequence, verbs }.frame());
        }
        if !self.is_empty() {
            out.push(self.credit.frame());
            self.credit = Credit { events: 0, bytes: 0 };
        }
    }

    /// The engine has confirmed some frames.
    pub(super) fn settled(&mut self, settled: &Settled) {
        while let Some(&(sequence, said)) = self.unconfirmed.front()
            && sequence <= settled.sequence
        {
            self.unconfirmed.pop_front();
            self.confirmed = said;
        }
        if let Some(&first) = settled.refused.first() {
            let count = u64::try_from(settled.refused.len()).expect("a length fits 64 bits");
            self.refused.get_or_insert((first, 0)).1 += count;
        }
    }

    /// The stream is gone: what waits or is not confirmed never will be. The next one numbers its frames
    /// anew.
    pub(super) fn lose(&mut self) {
        self.verbs.clear();
        self.unconfirmed.clear();
        self.credit = Credit { events: 0, bytes: 0 };
        self.sequence = 0;
        self.lost = self.said;
    }

    /// How many verbs were put in: what a confirmation waits for.
    pub(super) fn said(&self) -> u64 {
        self.said
    }

    /// Whether the first `said` verbs are confirmed, or cannot be any more; `None` while that is open.
    pub(super) fn verdict(&self, said: u64) -> Option<bool> {
        if self.confirmed >= said {
            return Some(true);
        }
        (self.lost >= said).then_some(false)
    }

    /// The first refused verb since this was last asked, and how many there were.
    pub(super) fn take_refused(&mut self) -> Option<(RefusedVerb, u64)> {
        self.refused.take()
    }
}

#[cfg(test)]
mod tests {
    use levada_protocol::{
        frame::FRAME_HEADER_BYTES,
        ids::{DeliveryToken, PartitionId},
    };

    use super::*;

    fn verb(kind: VerbKind, token: u64, first: u64, last: u64) -> Verb {
        Verb {
            kind,
            partition: PartitionId(0),
            token: DeliveryToken(token),
            first: Offset(first),
            last: Offset(last),
        }
    }

    fn taken(outbox: &mut Outbox) -> Vec<Verbs> {
        let mut out = Vec::new();
        outbox.take(&mut out);
        out.iter().map(|frame| Verbs::read(&frame[FRAME_HEADER_BYTES..]).unwrap()).collect()
    }

    #[test]
    fn neighbouring_acks_of_one_delivery_become_one_range() {
        let mut outbox = Outbox::new();
        for offset in 10..20 {
            outbox.push(verb(VerbKind::Ack, 7, offset, offset));
        }
        outbox.push(verb(VerbKind::Ack, 8, 20, 20));
        outbox.push(verb(VerbKind::Ack, 8, 22, 22));
        outbox.push(verb(VerbKind::Nack { delay_ms: None }, 8, 23, 23));
        let frames = taken(&mut outbox);
        assert_eq!(frames.len(), 1);
        let ranges: Vec<_> = frames[0].verbs.iter().map(|verb| (verb.first.0, verb.last.0)).collect();
        assert_eq!(ranges, [(10, 19), (20, 20), (22, 22), (23, 23)]);
    }

    #[test]
    fn many_long_reasons_are_split_over_frames_within_the_limit() {
        let mut outbox = Outbox::new();
        for offset in 0..1_000 {
            let reason = format!("{offset}{}", "x".repeat(2_000));
            outbox.push(verb(VerbKind::Reject { reason }, 1, offset * 2, offset * 2));
        }
        let frames = taken(&mut outbox);
        assert!(frames.len() > 1);
        assert_eq!(frames.iter().map(|frame| frame.verbs.len()).sum::<usize>(), 1_000);
        let sequences: Vec<_> = frames.iter().map(|frame| frame.sequence).collect();
        assert!(sequences.is_sorted_by(|a, b| a + 1 == *b));
    }

    #[test]
    fn verbs_count_as_confirmed_with_their_frame_and_as_lost_with_their_stream() {
        let mut outbox = Outbox::new();
        outbox.push(verb(VerbKind::Ack, 1, 0, 0));
        assert_eq!(taken(&mut outbox)[0].sequence, 1);
        outbox.push(verb(VerbKind::Ack, 1, 5, 5));
        assert_eq!(taken(&mut outbox)[0].sequence, 2);
        assert_eq!(outbox.verdict(1), None);
        outbox.settled(&Settled { sequence: 1, refused: Vec::new() });
        assert_eq!((outbox.verdict(1), outbox.verdict(2)), (Some(true), None));
        outbox.lose();
        assert_eq!((outbox.verdict(1), outbox.verdict(2)), (Some(true), Some(false)));
    }
}
