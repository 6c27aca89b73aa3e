//! The verbs of a consumer that are not sent yet.
//!
//! Pure: no I/O, no clock. Owns the coalescing of verbs and the count of what the engine has confirmed.

use std::collections::VecDeque;

use bytes::Bytes;
use levada_protocol::{
    ids::{Offset, PartitionId},
    limits::{REASON_BYTES_MAX, REQUEST_BYTES_MAX, VERBS_MAX},
    verbs::{RefusedVerb, Settled, Verb, VerbKind, Verbs},
};

/// Bytes of a verb without its reason.
const VERB_BYTES: usize = 34;
/// `in_progress` verbs beyond this many waiting ones are left out: they can be repeated.
const WAITING_MAX: usize = 64 * 1024;

/// A verbs frame that is not confirmed.
#[derive(Debug)]
struct Unconfirmed {
    sequence: u64,
    /// `queued` as it was at its end.
    queued: u64,
    /// The verbs in it that the application wants to be sure of.
    words: u64,
    /// What the client extended by itself: its outcome does not matter.
    kept: Vec<(PartitionId, Offset, Offset)>,
}

#[derive(Debug)]
pub(super) struct Outbox {
    /// Each with whether the client made it by itself.
    verbs: VecDeque<(Verb, bool)>,
    /// The number of the last verbs frame.
    sequence: u64,
    /// Number of verbs queued so far; a verb that was joined to another counts as part of that one.
    queued: u64,
    /// How many of them the engine has confirmed.
    confirmed: u64,
    /// How many of them were lost with a stream.
    lost: u64,
    /// Verbs that were lost since the last query.
    lost_words: u64,
    unconfirmed: VecDeque<Unconfirmed>,
    refused: Option<(RefusedVerb, u64)>,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self {
            verbs: VecDeque::new(),
            sequence: 0,
            queued: 0,
            confirmed: 0,
            lost: 0,
            lost_words: 0,
            unconfirmed: VecDeque::new(),
            refused: None,
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.verbs.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.verbs.is_empty()
    }

    /// Puts a verb of the application behind the others, or joins it to the last one if both are the same for
    /// neighbouring offsets.
    pub(super) fn push(&mut self, verb: Verb) {
        if let Some((last, false)) = self.verbs.back_mut()
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
        self.verbs.push_back((verb, false));
        self.queued += 1;
    }

    /// Queues a verb by which the client extends a delivery by itself.
    pub(super) fn keep(&mut self, verb: Verb) {
        if self.verbs.len() < WAITING_MAX {
            self.verbs.push_back((verb, true));
        }
    }

    /// Everything that is queued, as frames.
    pub(super) fn take(&mut self, out: &mut Vec<Bytes>) {
        while !self.verbs.is_empty() {
            let mut bytes = 8;
            let mut verbs = Vec::with_capacity(self.verbs.len().min(VERBS_MAX));
            let (mut words, mut kept) = (0, Vec::new());
            while let Some((verb, by_itself)) = self.verbs.front() {
                bytes += VERB_BYTES
                    + match &verb.kind {
                        VerbKind::Reject { reason, .. } => reason.len().min(REASON_BYTES_MAX),
                        VerbKind::Ack | VerbKind::Nack { .. } | VerbKind::InProgress => 0,
                    };
                if verbs.len() == VERBS_MAX || bytes > REQUEST_BYTES_MAX {
                    break;
                }
                if *by_itself {
                    kept.push((verb.partition, verb.first, verb.last));
                } else {
                    words += u64::from(is_word(verb));
                }
                verbs.extend(self.verbs.pop_front().map(|(verb, _)| verb));
            }
            self.sequence += 1;
            let queued = self.queued - number(self.verbs.iter().filter(|(_, by_itself)| !by_itself).count());
            self.unconfirmed.push_back(Unconfirmed { sequence: self.sequence, queued, words, kept });
            out.push(Verbs { sequence: self.sequence, verbs }.frame());
        }
    }

    /// The engine has confirmed some frames.
    pub(super) fn settled(&mut self, settled: &Settled) {
        for refused in &settled.refused {
            let range = (refused.partition, refused.first, refused.last);
            let kept = self.unconfirmed.iter_mut().find_map(|frame| {
                let at = frame.kept.iter().position(|kept| *kept == range)?;
                Some(frame.kept.swap_remove(at))
            });
            if kept.is_none() {
                self.refused.get_or_insert((*refused, 0)).1 += 1;
            }
        }
        while let Some(frame) = self.unconfirmed.pop_front_if(|frame| frame.sequence <= settled.sequence) {
            self.confirmed = frame.queued;
        }
    }

    /// The stream is gone: what is queued or not confirmed never will be. The next one numbers its frames
    /// from 1.
    pub(super) fn lose(&mut self) {
        let waiting = self.verbs.drain(..).filter(|(verb, by_itself)| !by_itself && is_word(verb)).count();
        let sent: u64 = self.unconfirmed.drain(..).map(|frame| frame.words).sum();
        self.lost_words += number(waiting) + sent;
        self.sequence = 0;
        self.lost = self.queued;
    }

    /// A verb about a delivery of a stream that is gone.
    pub(super) fn lose_word(&mut self) {
        self.lost_words += 1;
    }

    /// How many verbs were put in: what a confirmation waits for.
    pub(super) fn queued(&self) -> u64 {
        self.queued
    }

    /// True if the engine has answered the first `queued` verbs, or never will.
    pub(super) fn is_decided(&self, queued: u64) -> bool {
        self.confirmed.max(self.lost) >= queued
    }

    /// Verbs lost with their stream since the last call: whether they took effect is unknown.
    pub(super) fn take_lost_words(&mut self) -> u64 {
        std::mem::take(&mut self.lost_words)
    }

    /// The first refused verb since this was last asked, and how many there were.
    pub(super) fn take_refused(&mut self) -> Option<(RefusedVerb, u64)> {
        self.refused.take()
    }
}

/// A verb that changes what becomes of events.
fn is_word(verb: &Verb) -> bool {
    verb.kind != VerbKind::InProgress
}

fn number(count: usize) -> u64 {
    u64::try_from(count).expect("a count fits 64 bits")
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
            outbox.push(verb(VerbKind::reject(reason), 1, offset * 2, offset * 2));
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
        assert!(!outbox.is_decided(1));
        outbox.settled(&Settled { sequence: 1, refused: Vec::new() });
        assert!(outbox.is_decided(1) && !outbox.is_decided(2));
        outbox.lose();
        assert!(outbox.is_decided(2));
        assert_eq!(outbox.take_lost_words(), 1);
        assert_eq!(outbox.take_lost_words(), 0, "it was queued once");
    }

    #[test]
    fn a_word_that_was_lost_is_not_covered_by_later_ones() {
        let mut outbox = Outbox::new();
        outbox.push(verb(VerbKind::Ack, 1, 0, 0));
        taken(&mut outbox);
        outbox.lose();
        outbox.push(verb(VerbKind::Ack, 2, 0, 0));
        taken(&mut outbox);
        outbox.settled(&Settled { sequence: 1, refused: Vec::new() });
        assert!(outbox.is_decided(outbox.queued()));
        assert_eq!(outbox.take_lost_words(), 1);
    }

    #[test]
    fn what_becomes_of_an_extension_concerns_nobody() {
        let mut outbox = Outbox::new();
        outbox.keep(verb(VerbKind::InProgress, 1, 0, 9));
        outbox.push(verb(VerbKind::Ack, 1, 0, 9));
        assert_eq!(outbox.queued(), 1);
        taken(&mut outbox);
        let refused = RefusedVerb {
            partition: PartitionId(0),
            first: Offset(0),
            last: Offset(9),
            code: levada_protocol::error::ErrorCode::DeliveryExpired,
        };
        outbox.settled(&Settled { sequence: 1, refused: vec![refused, refused] });
        assert_eq!(outbox.take_refused(), Some((refused, 1)), "the acknowledgement's refusal stays");
        outbox.keep(verb(VerbKind::InProgress, 1, 0, 9));
        taken(&mut outbox);
        outbox.lose();
        assert_eq!(outbox.take_lost_words(), 0);
    }
}
