//! Idempotence of one producer in one partition: each sequence number is accepted once (decision 7).
//!
//! Owns the rule. It must not know batches, commits, or how its state is stored.
//!
//! Sequences and stored events are counted apart: a producer counts what it sends, and a plugin at the publish
//! attachment point or a repeated event id may have the engine store fewer.

use std::{collections::VecDeque, sync::Arc};

use levada_protocol::{
    duplicates::Duplicates,
    ids::{Epoch, Offset, Sequence, Timestamp},
    limits::PRODUCER_IN_FLIGHT_MAX,
};

/// Bytes of duplicates that are remembered of one producer and partition; beyond, the oldest outcomes are forgotten. It
/// is far more than the batches in flight take unless most of their events are scattered duplicates.
pub const DUPLICATES_BYTES_MAX: usize = 32 * 1024;

/// What is known of one producer in one partition. The default is a producer that nothing is known of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Producer {
    epoch: u32,
    next_sequence: u64,
    last_used: u64,
    /// The last 64 outcomes or more: as many as may be in flight, so that every resend finds its own. Those that
    /// follow on each other in the log too are one entry, so that a producer that is alone has a short row.
    outcomes: VecDeque<Appended>,
    /// Bytes that the duplicates of all of them take.
    duplicates_bytes: usize,
}

/// What became of a run of sequences: one batch, or several that follow on each other in sequence and in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// The first sequence of the run.
    pub first_sequence: u64,
    /// How many sequences the run has, at least 1.
    pub sequences: u32,
    /// The offset of the first stored event; without one, where it would be.
    pub base: u64,
    /// How many events were stored, at most one a sequence. The run is one batch if they are fewer.
    pub events: u32,
    /// The events are delayed: `base` is the first one's schedule id, not an offset.
    pub scheduled: bool,
    /// Which events of the batch were duplicates, if some were.
    pub duplicates: Option<Arc<Duplicates>>,
}

impl Appended {
    /// The sequence after the last one of the run; `None` if there is none.
    fn end(&self) -> Option<u64> {
        self.first_sequence.checked_add(u64::from(self.sequences))
    }

    /// True if every sequence has its event, so that offsets can be counted off.
    fn is_dense(&self) -> bool {
        self.sequences == self.events
    }

    /// Both as one, if every sequence has its event and `next` follows on this in sequence and in the log.
    fn followed_by(&self, next: &Self) -> Option<Self> {
        let follows = self.scheduled == next.scheduled
            && self.is_dense()
            && next.is_dense()
            && self.end() == Some(next.first_sequence)
            && self.base.checked_add(u64::from(self.events)) == Some(next.base);
        let sequences = self.sequences.checked_add(next.sequences).filter(|_| follows)?;
        Some(Self { sequences, events: sequences, ..self.clone() })
    }

    /// Bytes that its duplicates take.
    fn duplicates_bytes(&self) -> usize {
        self.duplicates.as_ref().map_or(0, |duplicates| duplicates.encoded_len())
    }

    /// True if its numbers fit each other.
    fn is_sound(&self) -> bool {
        let left_out = self.duplicates.as_ref().map_or(0, |duplicates| duplicates.count());
        let counted = self.events.checked_add(left_out);
        self.sequences > 0
            && counted.is_some_and(|counted| counted <= self.sequences)
            && self.base.checked_add(u64::from(self.events)).is_some()
    }

    /// What of the run are the sequences `first..end`; `None` if that is not known.
    fn part(&self, first: u64, end: u64) -> Option<Self> {
        let run_end = self.end()?;
        if first < self.first_sequence || end > run_end {
            return None;
        }
        if self.is_dense() {
            let (base, events) =
                (self.base + (first - self.first_sequence), u32::try_from(end - first).ok()?);
            return Some(Self { first_sequence: first, sequences: events, base, events, ..self.clone() });
        }
        ((first, end) == (self.first_sequence, run_end)).then(|| self.clone())
    }
}

/// What to do with a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// It is the next one: append it, then [`Producer::record`] it.
    Append,
    /// All of it was appended before.
    Duplicate {
        /// Where its first stored event is; `None` if that is no longer remembered, or none was stored.
        base: Option<Offset>,
        /// How many of its events were stored; if that is no longer remembered, how many the repeat holds.
        events: u32,
        /// Which of its events were duplicates by their ids, if some were and that is remembered.
        duplicates: Option<Arc<Duplicates>>,
    },
    /// All of it was scheduled before.
    Scheduled {
        /// The schedule id of its first event.
        first: u64,
        /// How many events.
        events: u32,
    },
    /// It does not begin at the producer's next sequence: events before it were never seen, or it repeats some and adds
    /// others. A producer resends batches as they were, so the second is as wrong as the first.
    Gap {
        /// The sequence that is accepted next.
        expected: Sequence,
    },
    /// A newer epoch of the producer exists.
    Fenced {
        /// The newest epoch.
        epoch: Epoch,
    },
    /// Nothing is known of this producer, and it does not begin at 0.
    Unknown,
}

impl Producer {
    /// Compares a batch of `sequences` events from `first` on with what was accepted so far; changes nothing.
    pub fn check(&self, epoch: Epoch, first: Sequence, sequences: u32) -> Check {
        if self.is_unknown() {
            return if first.0 == 0 { Check::Append } else { Check::Unknown };
        }
        if epoch.0 < self.epoch {
            return Check::Fenced { epoch: Epoch(self.epoch) };
        }
        let next = if epoch.0 > self.epoch { 0 } else { self.next_sequence };
        if first.0 == next {
            return Check::Append;
        }
        match first.0.checked_add(u64::from(sequences)) {
            Some(end) if end <= next => match self.stored(first.0, end) {
                Some(Appended { base, events, scheduled: true, .. }) => {
                    Check::Scheduled { first: base, events }
                }
                Some(Appended { base, events, duplicates, .. }) => {
                    Check::Duplicate { base: (events > 0).then_some(Offset(base)), events, duplicates }
                }
                None => Check::Duplicate { base: None, events: sequences, duplicates: None },
            },
            _ => Check::Gap { expected: Sequence(next) },
        }
    }

    /// Remembers what became of a batch which [`Producer::check`] let through: of its `sequences` events `events` were
    /// stored, from `base` on, and `duplicates` were not because of their ids.
    pub fn record(
        &mut self,
        now: Timestamp,
        epoch: Epoch,
        first: Sequence,
        sequences: u32,
        (base, events, duplicates): (Offset, u32, Option<Arc<Duplicates>>),
    ) {
        let (first_sequence, base) = (first.0, base.0);
        let appended = Appended { first_sequence, sequences, base, events, scheduled: false, duplicates };
        self.push(now, epoch, appended);
    }

    /// Remembers that a batch which [`Producer::check`] let through was scheduled: its events have the ids from `id` on.
    pub fn record_scheduled(
        &mut self,
        now: Timestamp,
        epoch: Epoch,
        first: Sequence,
        sequences: u32,
        id: u64,
    ) {
        let (first_sequence, base, events) = (first.0, id, sequences);
        let scheduled =
            Appended { first_sequence, sequences, base, events, scheduled: true, duplicates: None };
        self.push(now, epoch, scheduled);
    }

    fn push(&mut self, now: Timestamp, epoch: Epoch, appended: Appended) {
        if epoch.0 != self.epoch {
            self.outcomes.clear();
            self.duplicates_bytes = 0;
            self.epoch = epoch.0;
        }
        self.next_sequence = appended.first_sequence.saturating_add(u64::from(appended.sequences));
        self.last_used = now.0;
        let grown = self.outcomes.back().and_then(|last| last.followed_by(&appended));
        if let (Some(grown), Some(last)) = (grown, self.outcomes.back_mut()) {
            *last = grown;
        } else {
            let more = appended.duplicates_bytes();
            while self.outcomes.len() == PRODUCER_IN_FLIGHT_MAX
                || self.duplicates_bytes + more > DUPLICATES_BYTES_MAX
            {
                let Some(oldest) = self.outcomes.pop_front() else { break };
                self.duplicates_bytes -= oldest.duplicates_bytes();
            }
            self.duplicates_bytes += more;
            self.outcomes.push_back(appended);
        }
    }

    /// A producer as it was stored: the counterpart of its accessors. `None` if it could not have come to be so:
    /// outcomes are in the order of their sequences, no more than 64 and with no more duplicates than are remembered,
    /// the last ends at `next_sequence`, and none has more events than sequences.
    pub fn restore(
        epoch: Epoch,
        next_sequence: Sequence,
        last_used: Timestamp,
        outcomes: impl IntoIterator<Item = Appended>,
    ) -> Option<Self> {
        let outcomes: VecDeque<Appended> = outcomes.into_iter().collect();
        let mut end = None;
        for outcome in &outcomes {
            let fits = end.is_none_or(|end| end == outcome.first_sequence);
            if !fits || !outcome.is_sound() {
                return None;
            }
            end = Some(outcome.end()?);
        }
        let ends = end.is_none_or(|end| end == next_sequence.0);
        let duplicates_bytes = outcomes.iter().map(Appended::duplicates_bytes).sum();
        let bounded = outcomes.len() <= PRODUCER_IN_FLIGHT_MAX && duplicates_bytes <= DUPLICATES_BYTES_MAX;
        (ends && bounded).then_some(Self {
            epoch: epoch.0,
            next_sequence: next_sequence.0,
            last_used: last_used.0,
            outcomes,
            duplicates_bytes,
        })
    }

    /// The newest epoch that published.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch)
    }

    /// Bytes that the duplicates of the remembered outcomes take.
    pub fn duplicates_bytes(&self) -> usize {
        self.duplicates_bytes
    }

    /// The remembered outcomes, oldest first.
    pub fn outcomes(&self) -> impl ExactSizeIterator<Item = &Appended> {
        self.outcomes.iter()
    }

    /// True if nothing is known of it: as if it had never been seen, and without need of a row.
    pub fn is_unknown(&self) -> bool {
        self.next_sequence == 0 && self.outcomes.is_empty()
    }

    /// When something was last recorded; rows that are idle for long may be deleted.
    pub fn last_used(&self) -> Timestamp {
        Timestamp(self.last_used)
    }

    /// The sequence accepted next in the current epoch.
    pub fn next_sequence(&self) -> Sequence {
        Sequence(self.next_sequence)
    }

    /// What became of the sequences `first..end`, if one remembered run holds them all.
    fn stored(&self, first: u64, end: u64) -> Option<Appended> {
        let newest_first = self.outcomes.iter().rev();
        newest_first.into_iter().find(|outcome| outcome.first_sequence <= first)?.part(first, end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const E0: Epoch = Epoch(0);
    const NOW: Timestamp = Timestamp(1);

    fn with_two_batches() -> Producer {
        let mut producer = Producer::default();
        producer.record(NOW, E0, Sequence(0), 10, (Offset(100), 10, None));
        producer.record(NOW, E0, Sequence(10), 5, (Offset(200), 5, None));
        producer
    }

    #[test]
    fn an_unknown_producer_begins_at_zero() {
        let producer = Producer::default();
        assert_eq!(producer.check(Epoch(3), Sequence(0), 1), Check::Append);
        assert_eq!(producer.check(E0, Sequence(1), 1), Check::Unknown);
    }

    #[test]
    fn a_repeat_is_answered_with_its_first_offsets() {
        let producer = with_two_batches();
        let duplicate =
            |base: u64, events| Check::Duplicate { base: Some(Offset(base)), events, duplicates: None };
        assert_eq!(producer.check(E0, Sequence(0), 10), duplicate(100, 10));
        assert_eq!(producer.check(E0, Sequence(10), 5), duplicate(200, 5));
        assert_eq!(producer.check(E0, Sequence(12), 2), duplicate(202, 2));
        assert_eq!(
            producer.check(E0, Sequence(8), 4),
            Check::Duplicate { base: None, events: 4, duplicates: None }
        );
    }

    #[test]
    fn gaps_and_partly_new_batches_are_refused() {
        let producer = with_two_batches();
        let gap = Check::Gap { expected: Sequence(15) };
        assert_eq!(producer.check(E0, Sequence(16), 1), gap);
        assert_eq!(producer.check(E0, Sequence(14), 2), gap);
        assert_eq!(producer.check(E0, Sequence(u64::MAX), 2), gap);
        assert_eq!(producer.check(E0, Sequence(15), 2), Check::Append);
    }

    #[test]
    fn a_newer_epoch_begins_at_zero_and_fences_the_older() {
        let mut producer = with_two_batches();
        assert_eq!(producer.check(Epoch(2), Sequence(15), 1), Check::Gap { expected: Sequence(0) });
        assert_eq!(producer.check(Epoch(2), Sequence(0), 1), Check::Append);
        producer.record(NOW, Epoch(2), Sequence(0), 1, (Offset(300), 1, None));
        assert_eq!(producer.check(E0, Sequence(15), 1), Check::Fenced { epoch: Epoch(2) });
        let again = Check::Duplicate { base: Some(Offset(300)), events: 1, duplicates: None };
        assert_eq!(producer.check(Epoch(2), Sequence(0), 1), again);
    }

    #[test]
    fn a_repeat_older_than_the_ring_is_a_duplicate_without_offset() {
        let mut producer = Producer::default();
        for batch in 0..=PRODUCER_IN_FLIGHT_MAX as u64 {
            producer.record(NOW, E0, Sequence(batch), 1, (Offset(batch * 2), 1, None));
        }
        assert_eq!(
            producer.check(E0, Sequence(0), 1),
            Check::Duplicate { base: None, events: 1, duplicates: None }
        );
        let oldest = Check::Duplicate { base: Some(Offset(2)), events: 1, duplicates: None };
        assert_eq!(producer.check(E0, Sequence(1), 1), oldest);
        assert_eq!(producer.outcomes().len(), 64);
    }

    #[test]
    fn a_producer_that_is_alone_has_one_entry() {
        let mut producer = Producer::default();
        for batch in 0..1_000 {
            producer.record(NOW, E0, Sequence(batch * 3), 3, (Offset(7 + batch * 3), 3, None));
        }
        assert_eq!(producer.outcomes().len(), 1);
        let found = Check::Duplicate { base: Some(Offset(7 + 300)), events: 3, duplicates: None };
        assert_eq!(producer.check(E0, Sequence(300), 3), found);
        // An event of another producer is between them.
        producer.record(NOW, E0, Sequence(3_000), 1, (Offset(3_008), 1, None));
        assert_eq!(producer.outcomes().len(), 2);
        let last = Check::Duplicate { base: Some(Offset(3_008)), events: 1, duplicates: None };
        assert_eq!(producer.check(E0, Sequence(3_000), 1), last);
    }

    #[test]
    fn a_repeat_of_a_batch_of_which_fewer_were_stored_gets_the_same_answer() {
        let mut producer = Producer::default();
        producer.record(NOW, E0, Sequence(0), 10, (Offset(100), 10, None));
        producer.record(NOW, E0, Sequence(10), 10, (Offset(110), 7, None));
        producer.record(NOW, E0, Sequence(20), 5, (Offset(117), 0, None));
        producer.record(NOW, E0, Sequence(25), 5, (Offset(117), 5, None));
        let duplicate =
            |base: Option<u64>, events| Check::Duplicate { base: base.map(Offset), events, duplicates: None };
        assert_eq!(producer.check(E0, Sequence(10), 10), duplicate(Some(110), 7));
        assert_eq!(producer.check(E0, Sequence(20), 5), duplicate(None, 0));
        assert_eq!(producer.check(E0, Sequence(27), 3), duplicate(Some(119), 3));
        let part = producer.check(E0, Sequence(12), 3);
        assert_eq!(part, duplicate(None, 3), "which of them were stored is not known");
        assert_eq!(producer.check(E0, Sequence(30), 1), Check::Append, "sequences count what was sent");
    }

    fn scattered(events: u32) -> Option<Arc<Duplicates>> {
        let mut found = None;
        (0..events)
            .filter(|at| at % 2 == 0)
            .for_each(|at| Duplicates::note(&mut found, at, Offset(at.into())));
        found.map(Arc::new)
    }

    #[test]
    fn a_repeat_of_a_batch_with_duplicates_gets_the_same_answer_event_by_event() {
        let mut producer = Producer::default();
        producer.record(NOW, E0, Sequence(0), 10, (Offset(100), 5, scattered(10)));
        producer.record(NOW, E0, Sequence(10), 1, (Offset(105), 0, scattered(1)));
        let again = Check::Duplicate { base: Some(Offset(100)), events: 5, duplicates: scattered(10) };
        assert_eq!(producer.check(E0, Sequence(0), 10), again);
        let all = Check::Duplicate { base: None, events: 0, duplicates: scattered(1) };
        assert_eq!(producer.check(E0, Sequence(10), 1), all);
    }

    #[test]
    fn duplicates_are_remembered_within_their_bound_and_the_oldest_forgotten_beyond() {
        let (mut producer, mut sequence) = (Producer::default(), 0);
        let batch = scattered(1_000).unwrap();
        let kept = DUPLICATES_BYTES_MAX / batch.encoded_len();
        for recorded in 1..=kept + 3 {
            producer.record(NOW, E0, Sequence(sequence), 1_000, (Offset(sequence), 500, Some(batch.clone())));
            sequence += 1_000;
            assert_eq!(producer.outcomes().len(), recorded.min(kept));
            assert!(producer.duplicates_bytes() <= DUPLICATES_BYTES_MAX);
        }
        let oldest = producer.check(E0, Sequence(0), 1_000);
        assert_eq!(oldest, Check::Duplicate { base: None, events: 1_000, duplicates: None });
        let newest = producer.check(E0, Sequence(sequence - 1_000), 1_000);
        let base = Some(Offset(sequence - 1_000));
        assert_eq!(newest, Check::Duplicate { base, events: 500, duplicates: Some(batch) });
        producer.record(NOW, Epoch(1), Sequence(0), 1, (Offset(sequence), 1, None));
        assert_eq!(producer.duplicates_bytes(), 0, "a new epoch forgets what was");
    }

    #[test]
    fn a_repeat_of_delayed_events_gets_the_ids_of_the_first_time() {
        let mut producer = Producer::default();
        producer.record(NOW, E0, Sequence(0), 10, (Offset(0), 10, None));
        producer.record_scheduled(NOW, E0, Sequence(10), 3, 10);
        producer.record_scheduled(NOW, E0, Sequence(13), 2, 13);
        assert_eq!(producer.outcomes().len(), 2, "an id is no offset, though it follows on one");
        assert_eq!(producer.check(E0, Sequence(13), 2), Check::Scheduled { first: 13, events: 2 });
        let offset = Check::Duplicate { base: Some(Offset(5)), events: 5, duplicates: None };
        assert_eq!(producer.check(E0, Sequence(5), 5), offset);
        assert_eq!(
            producer.check(E0, Sequence(9), 2),
            Check::Duplicate { base: None, events: 2, duplicates: None },
            "both kinds"
        );
    }

    #[test]
    fn what_could_not_have_come_to_be_is_not_restored() {
        let restore = |next: u64, outcomes: &[(u64, u32, u64, u32)]| {
            let outcomes = outcomes.iter().map(|&(first_sequence, sequences, base, events)| Appended {
                first_sequence,
                sequences,
                base,
                events,
                scheduled: false,
                duplicates: None,
            });
            Producer::restore(E0, Sequence(next), NOW, outcomes)
        };
        assert!(restore(15, &[(0, 10, 100, 10), (10, 5, 200, 2)]).is_some());
        assert!(restore(16, &[(0, 10, 100, 10), (10, 5, 200, 2)]).is_none(), "it ends elsewhere");
        assert!(restore(15, &[(0, 9, 100, 9), (10, 5, 200, 2)]).is_none(), "a sequence is missing");
        assert!(restore(5, &[(0, 5, 100, 6)]).is_none(), "more events than sequences");
        assert!(restore(0, &[(0, 0, 100, 0)]).is_none(), "a run of nothing");
        assert!(restore(5, &[(0, 5, u64::MAX, 5)]).is_none(), "past the last offset");
        let many: Vec<_> = (0..65).map(|at| (at, 1, at * 2, 1)).collect();
        assert!(restore(65, &many).is_none(), "more than are remembered");
    }

    proptest! {
        #[test]
        fn any_sequence_of_resends_stores_each_event_once(
            sizes in vec(1u32..20, 1..100),
            jumps in vec((any::<u16>(), 1u8..10), 0..60),
            restarts in vec(any::<bool>(), 16),
        ) {
            let mut starts = vec![0u64];
            sizes.iter().for_each(|size| starts.push(starts[starts.len() - 1] + u64::from(*size)));
            let (mut producer, mut log) = (Producer::default(), Vec::<u64>::new());
            // Wherever the producer jumps to, it sends on from there; at last it sends everything.
            let rounds = jumps.iter().map(|(at, many)| (usize::from(*at) % sizes.len(), usize::from(*many)));
            for (round, (from, many)) in rounds.chain([(0, sizes.len())]).enumerate() {
                for batch in from..(from + many).min(sizes.len()) {
                    let (first, count) = (starts[batch], sizes[batch]);
                    match producer.check(E0, Sequence(first), count) {
                        Check::Append => {
                            let base = Offset(log.len() as u64);
                            log.extend(first..first + u64::from(count));
                            producer.record(NOW, E0, Sequence(first), count, (base, count, None));
                        }
                        Check::Duplicate { base: Some(base), events: again, .. } => {
                            prop_assert_eq!(again, count);
                            prop_assert_eq!(log[base.0 as usize], first);
                        }
                        Check::Duplicate { base: None, .. } => prop_assert!(first < log.len() as u64),
                        Check::Gap { expected } => {
                            prop_assert_eq!(expected.0, log.len() as u64);
                            prop_assert!(first > expected.0);
                        }
                        Check::Unknown => prop_assert!(log.is_empty() && first > 0),
                        Check::Fenced { .. } => prop_assert!(false, "there is one epoch"),
                        Check::Scheduled { .. } => prop_assert!(false, "nothing is delayed"),
                    }
                }
                if restarts[round % restarts.len()] {
                    let outcomes = producer.outcomes().cloned();
                    let (epoch, next, used) = (producer.epoch(), producer.next_sequence(), producer.last_used());
                    producer = Producer::restore(epoch, next, used, outcomes).unwrap();
                }
            }
            prop_assert_eq!(log, (0..starts[sizes.len()]).collect::<Vec<_>>());
        }
    }
}
