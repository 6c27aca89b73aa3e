//! One lane against invented answers and an invented clock.

use levada_protocol::{duplicates::Duplicates, ids::ProducerId};

use super::*;
use crate::clock;

const DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);

struct Bench {
    lane: Lane,
    lane_options: LaneOptions,
    producer_ids: ProducerIds,
    now: Instant,
    tickets: Vec<Ticket>,
    correlation: u32,
}

/// A lane of one event a batch.
fn bench() -> Bench {
    let mut producer_ids = ProducerIds::from(ProducerId(100));
    Bench {
        lane: Lane::new(PartitionId(0), producer_ids.fresh()),
        lane_options: LaneOptions {
            batch_bytes: 1,
            linger: Duration::ZERO,
            in_flight: 4,
            in_flight_partial: 4,
            delivery_timeout: DELIVERY_TIMEOUT,
            when_full: WhenFull::Wait,
            after_failure: AfterFailure::GoOn,
            limits: BatchLimits::NONE,
        },
        producer_ids,
        now: clock::now(),
        tickets: Vec::new(),
        correlation: 0,
    }
}

#[test]
fn a_batch_of_several_events_stays_within_the_limits_of_the_topic() {
    let of = |events, bytes| {
        let mut bench = bench();
        bench.lane_options = LaneOptions {
            batch_bytes: 1 << 20,
            limits: BatchLimits::of_backlog(events, bytes),
            ..bench.lane_options
        };
        let event = Event::new(vec![b'x'; 100]);
        let mut sizes = Vec::new();
        for _ in 0..7 {
            bench.lane.push((&event, Placement::End), &bench.lane_options, || bench.now).unwrap();
        }
        bench.lane.seal();
        while let Some((batch, _)) =
            bench.lane.send_next(&LaneOptions { in_flight: 9, ..bench.lane_options.clone() }, true, 1)
        {
            sizes.push(batch.count());
        }
        sizes
    };
    assert_eq!(of(0, 0), [7]);
    assert_eq!(of(3, 0), [3, 3, 1]);
    assert_eq!(of(1, 0), [1; 7]);
    assert_eq!(of(0, 500), [3, 3, 1]);
    assert_eq!(of(0, 50), [1; 7], "one event goes out alone, however large");
}

impl Bench {
    fn publish(&mut self, payload: &'static str) {
        let now = self.now;
        self.lane.push((&Event::new(payload), Placement::End), &self.lane_options, || now).unwrap();
        self.tickets.extend(self.lane.last_ticket());
    }

    /// Sends all that may go: number, identity, sequence and payload of each batch.
    fn send(&mut self) -> Vec<(u32, u128, u64, String)> {
        let mut sent = Vec::new();
        loop {
            self.correlation += 1;
            let Some((batch, _)) = self.lane.send_next(&self.lane_options, true, self.correlation) else {
                return sent;
            };
            let payload = batch.events().next().unwrap().payload().unwrap().to_vec();
            let header = batch.header();
            sent.push((
                self.correlation,
                header.producer_id,
                header.first_sequence,
                String::from_utf8(payload).unwrap(),
            ));
        }
    }

    fn answer(&mut self, correlation: u32, outcome: AckOutcome) {
        let mut ended = Vec::new();
        let with = (&self.lane_options, self.now);
        self.lane.answer(correlation, outcome, with, &mut self.producer_ids, &mut ended);
        settle(ended);
    }

    fn refuse(&mut self, correlation: u32, code: ErrorCode) {
        self.answer(correlation, AckOutcome::Refused(Refusal::new(code, "").retry_after(1_000)));
    }

    fn store(&mut self, correlation: u32, base: u64) {
        let base = Some(Offset(base));
        self.answer(correlation, AckOutcome::Appended { base, count: 1, duplicate: false, duplicates: None });
    }

    fn expire(&mut self) {
        let mut ended = Vec::new();
        self.lane.expire(&self.lane_options, self.now, &mut self.producer_ids, &mut ended);
        settle(ended);
    }

    fn stop(&mut self) {
        let mut ended = Vec::new();
        self.lane.stop(&Refusal::new(ErrorCode::InvalidArgument, "").into(), &mut ended);
        settle(ended);
    }

    fn code(&self, ticket: usize) -> Option<ErrorCode> {
        self.result(ticket).err().map(|error| error.code())
    }

    fn result(&self, ticket: usize) -> Result<u64, Error> {
        self.tickets[ticket].try_receipt().expect("it has ended").map(|receipt| receipt.offset.unwrap().0)
    }

    fn is_pending(&self, ticket: usize) -> bool {
        self.tickets[ticket].try_receipt().is_none()
    }
}

fn settle(ended: Vec<Ended>) {
    for ended in ended {
        ended.outcome.settle(ended.result);
    }
}

fn sequences(sent: &[(u32, u128, u64, String)]) -> Vec<(u128, u64, &str)> {
    sent.iter().map(|(_, producer, sequence, payload)| (*producer, *sequence, payload.as_str())).collect()
}

#[test]
fn nothing_overtakes_a_batch_that_is_to_be_tried_again() {
    let mut bench = bench();
    for payload in ["a", "b", "c"] {
        bench.publish(payload);
    }
    let sent = bench.send();
    bench.refuse(sent[0].0, ErrorCode::BacklogFull);
    bench.publish("d");
    assert!(bench.send().is_empty(), "the others' answers are waited for");
    bench.refuse(sent[1].0, ErrorCode::SequenceGap);
    bench.refuse(sent[2].0, ErrorCode::SequenceGap);
    assert_eq!(bench.lane.retry_at(), Some(bench.now + Duration::from_secs(1)), "as the engine asked");
    assert!(bench.send().is_empty());
    bench.lane.retry();
    let again = bench.send();
    assert_eq!(sequences(&again), [(100, 0, "a"), (100, 1, "b"), (100, 2, "c"), (100, 3, "d")]);
    bench.store(sent[0].0, 77);
    assert!(bench.is_pending(0), "an answer of an earlier round means nothing");
    for (index, entry) in again.iter().enumerate() {
        bench.store(entry.0, index as u64);
    }
    assert_eq!((bench.result(0).unwrap(), bench.result(3).unwrap()), (0, 3));
}

#[test]
fn whoever_does_not_wait_is_told_of_a_full_backlog_and_what_is_behind_goes_on() {
    let mut bench = bench();
    bench.lane_options.when_full = WhenFull::Fail;
    for payload in ["a", "b"] {
        bench.publish(payload);
    }
    let sent = bench.send();
    bench.refuse(sent[0].0, ErrorCode::BacklogFull);
    let error = bench.result(0).unwrap_err();
    assert_eq!(error.code(), ErrorCode::BacklogFull);
    assert!(error.is_retryable() && error.has_no_side_effects());
    bench.refuse(sent[1].0, ErrorCode::ProducerUnknown);
    let again = bench.send();
    assert_eq!(sequences(&again), [(101, 0, "b")], "under an identity without a gap");
    bench.refuse(again[0].0, ErrorCode::BacklogFull);
    assert_eq!(bench.result(1).unwrap_err().code(), ErrorCode::BacklogFull);
    bench.publish("c");
    let next = bench.send();
    assert_eq!(sequences(&next), [(101, 0, "c")], "the sequences that were not taken are taken now");
    // Other refusals are waited for as ever.
    bench.refuse(next[0].0, ErrorCode::StorageFull);
    assert!(bench.is_pending(2) && bench.lane.retry_at().is_some());
}

#[test]
fn a_lane_that_stops_sends_nothing_new_and_learns_what_was_stored() {
    let mut bench = bench();
    ["a", "b", "c", "d", "e", "f"].into_iter().for_each(|payload| bench.publish(payload));
    let sent: Vec<u32> = bench.send().iter().map(|sent| sent.0).collect();
    bench.refuse(sent[0], ErrorCode::StorageFull);
    bench.stop();
    let stopped = Some(ErrorCode::InvalidArgument);
    assert_eq!([0, 4, 5].map(|ticket| bench.code(ticket)), [stopped; 3], "refused for a while, or not sent");
    bench.refuse(sent[1], ErrorCode::SequenceGap);
    assert_eq!(bench.code(1), stopped, "a gap says nothing");
    bench.store(sent[2], 7);
    assert_eq!(bench.result(2).ok(), Some(7));
    bench.lane.disconnected();
    let again = bench.send();
    assert_eq!(again.iter().map(|sent| sent.3.as_str()).collect::<Vec<_>>(), ["d"], "it may be stored");
    bench.refuse(again[0].0, ErrorCode::StorageFull);
    assert_eq!(bench.code(3), Some(ErrorCode::ConnectionLost), "the first copy may be stored");
    assert_eq!(bench.send(), []);
}

#[test]
fn a_lane_that_stops_leaves_nothing_undecided() {
    let mut bench = bench();
    ["a", "b", "c"].into_iter().for_each(|payload| bench.publish(payload));
    bench.send();
    bench.lane.disconnected();
    let again: Vec<u32> = bench.send().iter().map(|sent| sent.0).collect();
    bench.refuse(again[0], ErrorCode::StorageFull);
    bench.stop();
    assert_eq!(bench.code(0), Some(ErrorCode::ConnectionLost), "refused, and its first copy may be stored");
    bench.refuse(again[1], ErrorCode::SequenceGap);
    bench.refuse(again[2], ErrorCode::StorageFull);
    assert_eq!(bench.code(1), Some(ErrorCode::InvalidArgument));
    assert_eq!(bench.code(2), Some(ErrorCode::ConnectionLost));
}

#[test]
fn a_batch_that_may_be_stored_is_tried_again_even_by_who_does_not_wait() {
    let mut bench = bench();
    bench.lane_options.when_full = WhenFull::Fail;
    bench.publish("a");
    bench.send();
    bench.lane.disconnected();
    let again = bench.send();
    bench.refuse(again[0].0, ErrorCode::BacklogFull);
    assert!(bench.is_pending(0));
    bench.lane.retry();
    let third = bench.send();
    assert_eq!(sequences(&third), [(100, 0, "a")]);
    bench.store(third[0].0, 5);
    assert_eq!(bench.result(0).unwrap(), 5);
}

#[test]
fn after_a_loss_everything_unacked_goes_out_again_in_order() {
    let mut bench = bench();
    for payload in ["a", "b", "c"] {
        bench.publish(payload);
    }
    let sent = bench.send();
    bench.store(sent[1].0, 1);
    bench.lane.disconnected();
    assert_eq!(sequences(&bench.send()), [(100, 0, "a"), (100, 2, "c")]);
}

#[test]
fn an_identity_that_the_engine_forgot_is_replaced() {
    for code in [ErrorCode::ProducerUnknown, ErrorCode::SequenceGap] {
        let mut bench = bench();
        bench.publish("a");
        let sent = bench.send();
        bench.store(sent[0].0, 0);
        bench.publish("b");
        bench.publish("c");
        for entry in bench.send() {
            bench.refuse(entry.0, code);
        }
        let again = bench.send();
        assert_eq!(sequences(&again), [(101, 0, "b"), (101, 1, "c")]);
        bench.publish("d");
        assert_eq!(sequences(&bench.send()), [(101, 2, "d")]);
    }
}

#[test]
fn an_engine_that_refuses_every_identity_ends_the_batch() {
    let mut bench = bench();
    bench.publish("a");
    let sent = bench.send();
    bench.refuse(sent[0].0, ErrorCode::ProducerUnknown);
    assert_eq!(bench.result(0).unwrap_err().code(), ErrorCode::ProducerUnknown);
}

#[test]
fn time_runs_out_for_refused_batches_alone() {
    let mut bench = bench();
    bench.publish("a");
    let sent = bench.send();
    bench.now += DELIVERY_TIMEOUT / 2;
    bench.publish("b");
    bench.refuse(sent[0].0, ErrorCode::StorageFull);
    bench.now += DELIVERY_TIMEOUT / 2;
    bench.expire();
    let error = bench.result(0).unwrap_err();
    assert!(error.has_no_side_effects());
    assert!(
        matches!(error, Error::TimedOut { last: Some(refusal), .. } if refusal.code == ErrorCode::StorageFull)
    );
    assert_eq!(sequences(&bench.send()), [(101, 0, "b")], "under an identity without a gap");
}

#[test]
fn a_batch_in_doubt_takes_those_in_doubt_behind_it_along() {
    let mut bench = bench();
    bench.publish("a");
    bench.now += DELIVERY_TIMEOUT / 2;
    bench.publish("b");
    assert_eq!(bench.send().len(), 2);
    bench.lane.disconnected();
    bench.publish("c");
    bench.now += DELIVERY_TIMEOUT / 2;
    bench.expire();
    for ticket in [0, 1] {
        assert!(!bench.result(ticket).unwrap_err().has_no_side_effects());
    }
    assert!(bench.is_pending(2));
    assert_eq!(sequences(&bench.send()), [(101, 0, "c")]);
}

#[test]
fn an_open_batch_waits_until_it_is_ripe_or_full() {
    let mut bench = bench();
    bench.lane_options.linger = Duration::from_secs(1);
    bench.lane_options.batch_bytes = 250;
    bench.publish("a");
    assert!(bench.send().is_empty());
    assert_eq!(bench.lane.due_at(&bench.lane_options), Some(bench.now + bench.lane_options.linger));
    bench.lane.make_due();
    assert_eq!(bench.send().len(), 1);
    for _ in 0..20 {
        bench.publish("0123456789");
    }
    let sent = bench.send();
    assert!(!sent.is_empty(), "full batches do not wait");
    assert!(bench.lane.has_open_batch(), "the last one does");
}

#[test]
fn a_batch_that_is_not_full_waits_while_the_pipe_is_busy() {
    let mut bench = bench();
    bench.lane_options.in_flight_partial = 1;
    bench.lane_options.batch_bytes = 64 * 1024;
    bench.publish("a");
    let sent = bench.send();
    bench.publish("b");
    bench.publish("c");
    assert!(bench.send().is_empty());
    bench.store(sent[0].0, 0);
    assert_eq!(bench.send().len(), 1, "what gathered meanwhile goes out together");
}

#[test]
fn a_gap_that_follows_from_a_refusal_shows_that_refusal() {
    let mut bench = bench();
    for payload in ["a", "b", "c"] {
        bench.publish(payload);
    }
    let sent = bench.send();
    bench.refuse(sent[0].0, ErrorCode::StorageFull);
    bench.refuse(sent[1].0, ErrorCode::SequenceGap);
    bench.refuse(sent[2].0, ErrorCode::SequenceGap);
    bench.lane.retry();
    let again = bench.send();
    bench.store(again[0].0, 0);
    let shown = |bench: &Bench| bench.lane.refusal().map(|refusal| refusal.code);
    assert_eq!(shown(&bench), Some(ErrorCode::StorageFull), "the next one waits for the same reason");
    bench.now += DELIVERY_TIMEOUT;
    bench.expire();
    for ticket in 1..3 {
        assert_eq!(bench.result(ticket).unwrap_err().code(), ErrorCode::DeadlineExceeded);
        let Err(Error::TimedOut { last: Some(last), .. }) = bench.result(ticket) else {
            panic!("it timed out")
        };
        assert_eq!(last.code, ErrorCode::StorageFull);
    }
}

#[test]
fn an_append_that_finds_another_offset_fails_alone_and_its_sequences_are_used_again() {
    let mut bench = bench();
    bench.publish("a");
    let events = ["b", "c"].map(Event::new);
    let (tickets, _) = bench.lane.push_expecting(&events, Offset(1), bench.now).unwrap();
    bench.tickets.extend(tickets);
    let sent = bench.send();
    assert_eq!(sequences(&sent), [(100, 0, "a"), (100, 1, "b")]);
    bench.store(sent[0].0, 0);
    let mismatch = AckOutcome::OffsetMismatch { next: Offset(7), message: String::new() };
    bench.answer(sent[1].0, mismatch);
    assert_eq!(bench.result(0).unwrap(), 0);
    for ticket in [1, 2] {
        let error = bench.result(ticket).unwrap_err();
        let Error::OffsetMismatch { partition, expected, found } = error else { panic!("{error}") };
        assert_eq!((partition, expected, found), (PartitionId(0), Offset(1), Offset(7)));
    }
    bench.publish("d");
    assert_eq!(sequences(&bench.send()), [(100, 1, "d")], "no identity is lost over it");
}

#[test]
fn an_append_that_was_sent_on_two_streams_and_fails_gives_its_sequences_to_nobody() {
    let mut bench = bench();
    let (tickets, _) = bench.lane.push_expecting(&[Event::new("a")], Offset(1), bench.now).unwrap();
    bench.tickets.extend(tickets);
    bench.send();
    bench.lane.disconnected();
    let sent = bench.send();
    assert_eq!(sequences(&sent), [(100, 0, "a")]);
    bench.answer(sent[0].0, AckOutcome::OffsetMismatch { next: Offset(0), message: String::new() });
    bench.publish("b");
    // The copy that was sent first may still be stored; what has its sequence would count as its repeat.
    let sent = bench.send();
    assert_eq!(sequences(&sent), [(100, 1, "b")]);
    bench.refuse(sent[0].0, ErrorCode::SequenceGap);
    assert_eq!(sequences(&bench.send()), [(101, 0, "b")]);
}

#[test]
fn what_was_numbered_behind_a_failed_append_goes_out_under_a_new_identity() {
    let mut bench = bench();
    let (tickets, _) = bench.lane.push_expecting(&[Event::new("a")], Offset(1), bench.now).unwrap();
    bench.tickets.extend(tickets);
    bench.publish("b");
    let sent = bench.send();
    bench.answer(sent[0].0, AckOutcome::OffsetMismatch { next: Offset(0), message: String::new() });
    bench.refuse(sent[1].0, ErrorCode::SequenceGap);
    assert_eq!(sequences(&bench.send()), [(101, 0, "b")]);
}

#[test]
fn events_that_fit_no_single_batch_are_refused_and_nothing_is_added() {
    let mut bench = bench();
    let refused = |bench: &mut Bench, events: &[Event]| {
        bench.lane.push_expecting(events, Offset(0), bench.now).unwrap_err().code()
    };
    let half = Event::new(vec![b'x'; BATCH_BODY_BYTES_MAX / 2]);
    assert_eq!(refused(&mut bench, &[half.clone(), half]), ErrorCode::FrameTooLarge);
    let many = vec![Event::new("x"); BATCH_EVENTS_MAX + 1];
    assert_eq!(refused(&mut bench, &many), ErrorCode::EventTooLarge);
    assert_eq!(refused(&mut bench, &[Event::new("x").with_header("lv-x", "")]), ErrorCode::HeaderReserved);
    assert!(bench.send().is_empty());
    let (tickets, _) = bench.lane.push_expecting(&many[1..], Offset(0), bench.now).unwrap();
    assert_eq!(tickets.len(), BATCH_EVENTS_MAX);
}

#[test]
fn each_event_of_a_batch_with_duplicates_has_its_own_receipt() {
    let mut bench = bench();
    bench.lane_options.batch_bytes = 10_000;
    ["a", "b", "c", "d"].into_iter().for_each(|payload| bench.publish(payload));
    let sent = bench.send();
    let mut found = None;
    for (index, first) in [(0, 7), (2, 3)] {
        Duplicates::note(&mut found, index, Offset(first));
    }
    let (base, duplicates) = (Some(Offset(20)), found.map(Arc::new));
    bench.answer(sent[0].0, AckOutcome::Appended { base, count: 2, duplicate: false, duplicates });
    let receipts: Vec<_> =
        bench.tickets.iter().map(|ticket| ticket.try_receipt().unwrap().unwrap()).collect();
    let read = receipts.iter().map(|receipt| (receipt.offset.unwrap().0, receipt.same_id, receipt.duplicate));
    let expected = [(7, true, true), (20, false, false), (3, true, true), (21, false, false)];
    assert_eq!(read.collect::<Vec<_>>(), expected);
}
