//! Facts about a subscription, each in the smallest world that shows it.

use super::{store::Rows, *};
use crate::progress::{CHUNK_OFFSETS, RowChange, WINDOW_OFFSETS};

/// The offset above which the window of the first partition is full.
fn edge(it: &Subscription) -> Option<Offset> {
    it.ledger.partitions.get(0).stuck().map(Offset)
}

#[test]
fn a_consumer_receives_no_more_than_its_credit_and_window_allow() {
    let mut it = subscription(Order::Partition, 1_000);
    it.attach(A).unwrap();
    assert_eq!(deliver(&mut it, 0, 50), None);
    it.grant(A, 30, 1);
    let got = deliver(&mut it, 0, 50).unwrap();
    assert_eq!(got.range, 0..30);
    it.grant(A, 1_000, 0);
    assert_eq!(deliver(&mut it, 0, 50), None, "the first frame took 300 bytes of one");
    it.grant(A, 0, 10_000);
    assert_eq!(deliver(&mut it, 0, 1_000).unwrap().range, 30..100, "at most 100 are in flight");
    assert_eq!(deliver(&mut it, 0, 1), None);
    assert_eq!(say(&mut it, 0, &got, 0..30, VerbKind::Ack), Ok(30));
    assert_eq!(deliver(&mut it, 0, 1_000).unwrap().range, 100..130);
}

#[test]
fn bytes_in_flight_are_bounded() {
    let mut it = subscription_with(Options { max_in_flight_bytes: 25, ..options(Order::None) }, 1_000);
    attach(&mut it, A);
    let got = deliver(&mut it, 0, 2).unwrap();
    deliver(&mut it, 0, 1).unwrap();
    assert_eq!(deliver(&mut it, 0, 1), None);
    say(&mut it, 0, &got, 0..1, VerbKind::Ack).unwrap();
    assert!(deliver(&mut it, 0, 1).is_some(), "an event's share of its delivery goes with it");
    assert_eq!(deliver(&mut it, 0, 1), None);
    say(&mut it, 0, &got, 1..2, VerbKind::Ack).unwrap();
    assert!(deliver(&mut it, 0, 1).is_some());
}

#[test]
fn what_is_acknowledged_is_durable_after_the_commit_and_not_before() {
    let mut it = subscription(Order::Partition, 10);
    attach(&mut it, A);
    let got = deliver(&mut it, 0, 10).unwrap();
    let acked = it.verb(at(0), A, &verb(&got, 0..10, VerbKind::Ack)).unwrap();
    assert_eq!((it.partition(P0).floor, lag(&it)), (Offset(0), 10));
    let settling = it.take_settling().unwrap();
    assert_eq!(it.take_settling(), None, "one commit at a time");
    assert_eq!((it.partition(P0).floor, it.confirmed()), (Offset(0), 0));
    it.settled(settling.id, true, at(0));
    assert_eq!((it.partition(P0).floor, lag(&it)), (Offset(10), 0));
    assert!(it.confirmed() >= acked.ticket);
    assert_eq!(it.take_settling(), None);
}

#[test]
fn an_acknowledged_event_does_not_time_out_while_its_commit_is_under_way() {
    let mut it = subscription(Order::Partition, 10);
    attach(&mut it, A);
    let got = deliver(&mut it, 0, 10).unwrap();
    say(&mut it, 0, &got, 0..10, VerbKind::Ack).unwrap();
    let settling = it.take_settling().unwrap();
    assert_eq!(it.on_time(at(TIMEOUT * 5), |_| 0), 0);
    it.detach(at(TIMEOUT * 5), A);
    it.settled(settling.id, true, at(TIMEOUT * 5));
    attach(&mut it, B);
    assert_eq!(deliver(&mut it, TIMEOUT * 5, 10), None);
}

#[test]
fn a_failed_commit_gives_deliveries_back_with_a_new_deadline() {
    let mut it = subscription(Order::None, 10);
    attach(&mut it, A);
    let got = deliver(&mut it, 0, 10).unwrap();
    say(&mut it, 0, &got, 2..5, VerbKind::Ack).unwrap();
    let (_, back) = commit(&mut it, false).unwrap();
    assert_eq!(back, [CameBack { consumer: A, partition: P0, first: Offset(2), last: Offset(4) }]);
    assert_eq!((it.partition(P0).floor, it.stats().in_flight), (Offset(0), 10));
    assert_eq!(say(&mut it, 0, &got, 0..10, VerbKind::Ack), Ok(10));
    let (settling, back) = commit(&mut it, true).unwrap();
    assert!(back.is_empty());
    assert_eq!(settling.rows.len(), 1);
    assert_eq!(it.partition(P0).floor, Offset(10));
}

#[test]
fn redelivers_after_the_timeout_and_refuses_the_late_verb() {
    let mut it = subscription(Order::None, 10);
    attach(&mut it, A);
    let got = deliver(&mut it, 0, 10).unwrap();
    assert_eq!(it.next_deadline(at(0)), Some(TIMEOUT));
    assert_eq!(it.on_time(at(TIMEOUT - 1), |_| 0), 0);
    assert_eq!(it.on_time(at(TIMEOUT), |_| 0), 10);
    assert_eq!(say(&mut it, TIMEOUT, &got, 0..10, VerbKind::Ack), Err(ErrorCode::DeliveryExpired));
    let again = deliver(&mut it, TIMEOUT, 10).unwrap();
    assert_eq!((again.range.clone(), again.attempt), (0..10, 2));
    assert_ne!(again.token, got.token);
}

#[test]
fn in_progress_extends_the_part_that_it_names() {
    let mut it = subscription(Order::None, 10);
    attach(&mut it, A);
    let got = deliver(&mut it, 0, 10).unwrap();
    assert_eq!(say(&mut it, 600, &got, 4..6, VerbKind::InProgress), Ok(2));
    assert_eq!(it.on_time(at(TIMEOUT), |_| 0), 8);
    assert_eq!(it.next_deadline(at(TIMEOUT + 300)), Some(TIMEOUT + 600));
    assert_eq!(say(&mut it, TIMEOUT + 1, &got, 0..10, VerbKind::Ack), Ok(2));
}

#[test]
fn a_nack_waits_as_it_says_and_others_flow_past_where_order_does_not_matter() {
    let mut it = subscription(Order::None, 20);
    attach(&mut it, A);
    let got = deliver(&mut it, 0, 10).unwrap();
    assert_eq!(say(&mut it, 0, &got, 3..4, VerbKind::Nack { delay_ms: Some(300) }), Ok(1));
    assert_eq!(deliver(&mut it, 0, 5).unwrap().range, 10..15);
    assert_eq!(deliver(&mut it, 300, 5).unwrap().range, 3..4, "what is due goes before what is fresh");
    assert_eq!(say(&mut it, 300, &got, 4..10, VerbKind::Ack), Ok(6), "the rest of the delivery is untouched");
}

#[test]
fn where_order_matters_what_follows_a_failed_event_comes_back_after_it() {
    let mut it = subscription(Order::Partition, 30);
    attach(&mut it, A);
    let first = deliver(&mut it, 0, 10).unwrap();
    let second = deliver(&mut it, 0, 10).unwrap();
    say(&mut it, 0, &second, 15..16, VerbKind::Ack).unwrap();
    say(&mut it, 0, &first, 3..4, VerbKind::Nack { delay_ms: Some(300) }).unwrap();
    assert_eq!(say(&mut it, 0, &first, 4..10, VerbKind::Ack), Err(ErrorCode::DeliveryExpired));
    assert_eq!(say(&mut it, 0, &second, 10..20, VerbKind::Ack), Err(ErrorCode::DeliveryExpired));
    assert_eq!(say(&mut it, 0, &first, 0..3, VerbKind::Ack), Ok(3));
    assert_eq!(deliver(&mut it, 299, 30), None, "the partition waits for the failed event");
    let order: Vec<_> = std::iter::from_fn(|| deliver(&mut it, 300, 30)).collect();
    let shape: Vec<_> = order.iter().map(|got| (got.range.clone(), got.attempt)).collect();
    assert_eq!(shape, [(3..4, 2), (4..15, 1), (16..20, 1), (20..30, 1)]);
}

#[test]
fn one_consumer_is_active_where_order_matters_and_the_next_takes_over() {
    let mut it = subscription(Order::Partition, 30);
    attach(&mut it, A);
    attach(&mut it, B);
    let got = deliver(&mut it, 0, 10).unwrap();
    assert_eq!((got.consumer, deliver(&mut it, 0, 10).unwrap().consumer), (A, A));
    it.detach(at(5), A);
    let again = deliver(&mut it, 5, 10).unwrap();
    assert_eq!((again.consumer, again.range.clone(), again.attempt), (B, 0..10, 1));
    assert_eq!(say(&mut it, 5, &got, 0..10, VerbKind::Ack), Err(ErrorCode::DeliveryExpired));
    assert_eq!(say(&mut it, 5, &again, 0..10, VerbKind::Ack), Ok(10));
}

#[test]
fn consumers_take_turns_where_order_does_not_matter() {
    let mut it = subscription(Order::None, 40);
    attach(&mut it, A);
    attach(&mut it, B);
    let turns: Vec<_> = (0..4).map(|_| deliver(&mut it, 0, 10).unwrap().consumer).collect();
    assert_eq!(turns, [A, B, A, B]);
}

#[test]
fn an_event_that_is_returned_three_times_goes_alone_and_then_counts() {
    let mut it = subscription(Order::None, 3);
    for returned in 0..3 {
        let consumer = ConsumerId(10 + returned);
        attach(&mut it, consumer);
        let got = deliver(&mut it, 0, 3).unwrap();
        assert_eq!((got.range.clone(), got.attempt), (0..3, 1));
        it.detach(at(0), consumer);
    }
    it.end(P0, Offset(10));
    attach(&mut it, A);
    let alone = deliver(&mut it, 0, 10).unwrap();
    assert_eq!((alone.range.clone(), alone.attempt), (0..1, 1));
    assert_eq!(deliver(&mut it, 0, 10), None, "nothing beside it");
    it.detach(at(0), A);
    attach(&mut it, B);
    assert_eq!(deliver(&mut it, 0, 10).unwrap().range, 1..2, "the next one goes alone as well");
    it.detach(at(0), B);
    assert_eq!(it.stats().dead_lettered, 0);
    for attempt in 2..4 {
        let consumer = ConsumerId(20 + attempt);
        attach(&mut it, consumer);
        let alone = deliver(&mut it, 10_000 * attempt, 10).unwrap();
        it.detach(at(10_000 * attempt), consumer);
        assert_eq!(alone.range.end - alone.range.start, 1);
    }
}

#[test]
fn an_event_that_loses_its_consumer_too_often_is_a_dead_letter() {
    let mut it = subscription(Order::Partition, 1);
    for life in 0..5u64 {
        let consumer = ConsumerId(100 + life);
        attach(&mut it, consumer);
        assert!(deliver(&mut it, life * 10_000, 1).is_some());
        it.detach(at(life * 10_000), consumer);
        assert!(commit(&mut it, true).unwrap().0.dead_letters.is_empty());
    }
    attach(&mut it, A);
    assert_eq!(deliver(&mut it, 90_000, 1).unwrap().attempt, 3);
    it.detach(at(90_000), A);
    let (settling, _) = commit(&mut it, true).unwrap();
    let dead_letter = &settling.dead_letters[0];
    assert_eq!((dead_letter.attempts, dead_letter.reason.as_str()), (3, "consumer_lost"));
    assert_eq!((dead_letter.first_failure, dead_letter.last_failure), (Timestamp(30_000), Timestamp(90_000)));
    assert_eq!(it.partition(P0).floor, Offset(1));
}

#[test]
fn a_busy_consumer_is_drained_before_an_event_goes_alone() {
    let mut it = subscription(Order::None, 1);
    for life in 0..3 {
        attach(&mut it, ConsumerId(100 + life));
        deliver(&mut it, 0, 1).unwrap();
        it.detach(at(0), ConsumerId(100 + life));
    }
    it.end(P0, Offset(50));
    attach(&mut it, A);
    let alone = deliver(&mut it, 0, 1).unwrap();
    say(&mut it, 0, &alone, 0..1, VerbKind::Nack { delay_ms: Some(10) }).unwrap();
    let busy = deliver(&mut it, 0, 10).unwrap();
    assert_eq!(busy.range, 1..11);
    let got = deliver(&mut it, 10, 1).unwrap();
    assert_eq!(got.range, 0..1, "after a nack it is no longer given alone");
    it.detach(at(10), A);
    for life in 0..2 {
        attach(&mut it, ConsumerId(200 + life));
        while deliver(&mut it, 10, 50).is_some() {}
        it.detach(at(10), ConsumerId(200 + life));
    }
    it.end(P0, Offset(60));
    attach(&mut it, B);
    let alone = deliver(&mut it, 10, 50).unwrap();
    assert_eq!(alone.range.end - alone.range.start, 1);
    assert_eq!(deliver(&mut it, 10, 50), None);
    say(&mut it, 10, &alone, alone.range.clone(), VerbKind::Ack).unwrap();
    assert!(deliver(&mut it, 10, 50).is_some());
}

#[test]
fn a_reject_is_a_dead_letter_of_the_same_commit() {
    let mut it = subscription(Order::Partition, 10);
    attach(&mut it, A);
    let got = deliver(&mut it, 3, 10).unwrap();
    say(&mut it, 5, &got, 0..2, VerbKind::reject("no")).unwrap();
    assert_eq!(say(&mut it, 5, &got, 2..10, VerbKind::Ack), Ok(8), "what follows a reject goes on");
    let (settling, _) = commit(&mut it, true).unwrap();
    let dead_letter = DeadLetter {
        partition: P0,
        first: Offset(0),
        last: Offset(1),
        attempts: 1,
        reason: Reason::Rejected { reason: "no".to_owned() },
        first_failure: Timestamp(5),
        last_failure: Timestamp(5),
    };
    assert_eq!(settling.dead_letters, [dead_letter]);
    assert_eq!((it.partition(P0).floor, it.stats().dead_lettered), (Offset(10), 2));
}

#[test]
fn the_last_attempt_ends_in_a_dead_letter() {
    let mut it = subscription(Order::None, 1);
    attach(&mut it, A);
    for attempt in 1..=3 {
        let got = deliver(&mut it, attempt, 1).unwrap();
        assert_eq!(u64::from(got.attempt), attempt);
        say(&mut it, attempt, &got, 0..1, VerbKind::Nack { delay_ms: Some(0) }).unwrap();
    }
    assert_eq!(deliver(&mut it, 100_000, 1), None);
    let (settling, _) = commit(&mut it, true).unwrap();
    let dead_letter = &settling.dead_letters[0];
    assert_eq!((dead_letter.attempts, &dead_letter.reason), (3, &Reason::MaxAttempts));
    assert_eq!((dead_letter.first_failure, dead_letter.last_failure), (Timestamp(1), Timestamp(3)));
}

#[test]
fn dead_letters_of_one_commit_are_bounded_and_confirmed_when_all_are_durable() {
    let mut it = subscription_with(Options { dead_letters_max: 4, ..options(Order::None) }, 10);
    attach(&mut it, A);
    let got = deliver(&mut it, 0, 10).unwrap();
    let reject = verb(&got, 0..10, VerbKind::reject(""));
    let ticket = it.verb(at(0), A, &reject).unwrap().ticket;
    let sizes: Vec<_> = std::iter::from_fn(|| {
        assert!(it.confirmed() < ticket);
        let (settling, _) = commit(&mut it, true)?;
        let dead_letters = settling.dead_letters.iter().map(|it| it.last.0 + 1 - it.first.0);
        Some(dead_letters.sum::<u64>())
    })
    .take(3)
    .collect();
    assert_eq!(sizes, [4, 4, 2]);
    assert!(it.confirmed() >= ticket && commit(&mut it, true).is_none());
}

#[test]
fn filtered_offsets_take_no_credit_and_settle_with_what_is_around_them() {
    let mut it = subscription(Order::Partition, 20);
    it.attach(A).unwrap();
    it.grant(A, 3, 1_000);
    let fetch = it.fetch(at(0)).unwrap();
    assert_eq!((fetch.range.clone(), fetch.bytes_max), (Offset(0)..Offset(20), 1_000));
    let filtered = vec![Offset(0)..Offset(2), Offset(3)..Offset(9), Offset(10)..Offset(14)];
    let brought = Brought { filtered, failed: Vec::new() };
    let (until, given) = assign(&mut it, at(0), fetch, 20, &brought);
    let given = given.unwrap();
    assert_eq!((until, given.events, it.stats().in_flight, lag(&it)), (15, 3, 3, 8));
    let got = Got { consumer: A, range: 0..15, attempt: 1, token: given.token };
    assert_eq!(say(&mut it, 0, &got, 3..4, VerbKind::Ack), Err(ErrorCode::DeliveryExpired), "no event there");
    assert_eq!(say(&mut it, 0, &got, 2..3, VerbKind::Ack), Ok(1));
    assert_eq!(say(&mut it, 0, &got, 14..15, VerbKind::Ack), Ok(1));
    commit(&mut it, true).unwrap();
    assert_eq!((it.partition(P0).floor, lag(&it)), (Offset(9), 6));
    assert_eq!(say(&mut it, 0, &got, 0..15, VerbKind::Ack), Ok(1));
    commit(&mut it, true).unwrap();
    assert_eq!((it.partition(P0).floor, lag(&it)), (Offset(15), 5));
}

#[test]
fn filtered_offsets_are_never_left_in_flight_by_themselves() {
    let trap = Reason::PluginError { plugin: String::new(), error: String::new() };
    let failed = vec![Failed { first: Offset(3), last: Offset(3), reason: trap }];
    let filtered = vec![Offset(4)..Offset(6), Offset(8)..Offset(10)];
    let brought = Brought { filtered, failed };
    let delivery = || {
        let mut it = subscription(Order::Partition, 10);
        attach(&mut it, A);
        let fetch = it.fetch(at(0)).unwrap();
        let token = assign(&mut it, at(0), fetch, 10, &brought).1.unwrap().token;
        (it, Got { consumer: A, range: 0..10, attempt: 1, token })
    };
    // The verb names an event before the failed offset and filtered ones behind it.
    let (mut it, got) = delivery();
    assert_eq!(say(&mut it, 0, &got, 0..5, VerbKind::Nack { delay_ms: Some(0) }), Ok(3));
    let again: Vec<_> = std::iter::from_fn(|| deliver(&mut it, 0, 10)).map(|got| got.range).collect();
    assert_eq!(again, [0..3, 6..8]);
    // Retention passes the last event of a delivery, but not the filtered ones behind it.
    let (mut it, got) = delivery();
    say(&mut it, 0, &got, 0..6, VerbKind::Ack).unwrap();
    assert_eq!(it.lost(P0, Offset(9)).unwrap().events, 2);
    commit(&mut it, true).unwrap();
    assert_eq!((it.partition(P0).floor, lag(&it)), (Offset(10), 0));
}

#[test]
fn scanning_without_a_match_advances_by_itself() {
    let mut it = subscription(Order::Partition, 10_000);
    attach(&mut it, A);
    for start in (0..10_000).step_by(500) {
        let fetch = it.fetch(at(0)).unwrap();
        assert_eq!(fetch.range.start, Offset(start));
        let filtered = vec![Offset(start)..Offset(start + 500)];
        let brought = Brought { filtered, failed: Vec::new() };
        assert_eq!(assign(&mut it, at(0), fetch, start + 500, &brought), (start + 500, None));
    }
    assert_eq!((lag(&it), it.stats().in_flight), (0, 0));
    let (settling, _) = commit(&mut it, true).unwrap();
    assert_eq!(settling.rows[0].1.len(), 1, "the head row alone");
    assert_eq!(it.partition(P0).floor, Offset(10_000));
}

#[test]
fn what_the_chain_fails_on_is_a_dead_letter_and_the_rest_is_delivered() {
    let mut it = subscription(Order::Partition, 5);
    attach(&mut it, A);
    let fetch = it.fetch(at(9)).unwrap();
    let reason = Reason::PluginError { plugin: "p".to_owned(), error: "trap".to_owned() };
    let failed = vec![Failed { first: Offset(1), last: Offset(2), reason: reason.clone() }];
    let brought = Brought { filtered: Vec::new(), failed };
    let given = assign(&mut it, at(9), fetch, 5, &brought).1.unwrap();
    assert_eq!(given.events, 3);
    let got = Got { consumer: A, range: 0..5, attempt: 1, token: given.token };
    let (settling, _) = commit(&mut it, true).unwrap();
    assert_eq!((settling.dead_letters.len(), &settling.dead_letters[0].reason), (1, &reason));
    assert_eq!(say(&mut it, 9, &got, 0..5, VerbKind::Ack), Ok(3));
    commit(&mut it, true).unwrap();
    assert_eq!((it.partition(P0).floor, it.stats().dead_lettered), (Offset(5), 2));
}

#[test]
fn what_has_outlived_its_time_is_passed_over_or_becomes_a_dead_letter_as_the_options_say() {
    for dead_letter_expired in [false, true] {
        let mut it = subscription_with(Options { dead_letter_expired, ..options(Order::None) }, 6);
        attach(&mut it, A);
        let got = deliver(&mut it, 0, 2).unwrap();
        say(&mut it, 0, &got, 0..1, VerbKind::Nack { delay_ms: Some(7) }).unwrap();
        let expired = |range: Range<u64>| Failed {
            first: Offset(range.start),
            last: Offset(range.end - 1),
            reason: Reason::Expired,
        };
        // Before it was delivered.
        let fetch = it.fetch(at(5)).unwrap();
        let brought = Brought { failed: vec![expired(3..5)], ..Brought::default() };
        let (until, given) = assign(&mut it, at(5), fetch, 6, &brought);
        assert_eq!((until, given.unwrap().events), (6, 2), "2 and 5");
        // Before it was delivered again.
        let fetch = it.fetch(at(7)).unwrap();
        let brought = Brought { failed: vec![expired(0..1)], ..Brought::default() };
        assert_eq!(assign(&mut it, at(7), fetch, 1, &brought), (1, None));
        let (settling, _) = commit(&mut it, true).unwrap();
        let dead = settling.dead_letters.iter().map(|it| (it.first.0, it.last.0, it.attempts, &it.reason));
        let dead: Vec<_> = dead.collect();
        let expected = [(3, 4, 0, &Reason::Expired), (0, 0, 1, &Reason::Expired)];
        assert_eq!(
            dead,
            expected[..if dead_letter_expired { 2 } else { 0 }],
            "with the deliveries that failed"
        );
        let stats = it.stats();
        assert_eq!((stats.ttl_expired, stats.timed_out), (3, 0));
        assert_eq!(stats.dead_lettered, if dead_letter_expired { 3 } else { 0 });
        assert_eq!((it.partition(P0).floor, lag(&it)), (Offset(1), 3));
    }
}

#[test]
fn what_expires_in_great_numbers_does_not_hold_up_acknowledgements() {
    let many = 10_000;
    let mut it = subscription_with(Options { dead_letter_expired: true, ..options(Order::None) }, many);
    attach(&mut it, A);
    let got = deliver(&mut it, 0, 1).unwrap();
    let (mut first, mut commits) = (1, 0);
    while let Some(fetch) = it.fetch(at(5)) {
        let failed = Failed { first: Offset(first), last: Offset(first + 499), reason: Reason::Expired };
        first += 500;
        let brought = Brought { failed: vec![failed], ..Brought::default() };
        assert_eq!(assign(&mut it, at(5), fetch, first, &brought), (first, None));
    }
    let acked = it.verb(at(5), A, &verb(&got, 0..1, VerbKind::Ack)).unwrap();
    while it.confirmed() < acked.ticket {
        commit(&mut it, true).unwrap();
        commits += 1;
    }
    assert!(commits <= 25, "{commits} commits");
    assert!(it.fetch(at(5)).is_some(), "then it goes on");
}

#[test]
fn a_fetch_is_void_when_its_consumer_left_or_an_earlier_event_came_back() {
    let mut it = subscription(Order::Partition, 20);
    attach(&mut it, A);
    let got = deliver(&mut it, 0, 5).unwrap();
    let fresh = it.fetch(at(0)).unwrap();
    assert_eq!(fresh.range, Offset(5)..Offset(20));
    assert!(it.fetch(at(0)).is_none(), "the partition is being read");
    say(&mut it, 0, &got, 0..5, VerbKind::Nack { delay_ms: Some(0) }).unwrap();
    let again = it.fetch(at(0)).unwrap();
    assert_eq!(again.range, Offset(0)..Offset(5), "a redelivery does not wait for the read of fresh events");
    assert_eq!(assign(&mut it, at(0), fresh, 20, &Brought::default()), (5, None));
    it.detach(at(0), A);
    assert_eq!(assign(&mut it, at(0), again, 5, &Brought::default()), (0, None));
    attach(&mut it, B);
    let again = it.fetch(at(0)).unwrap();
    it.abandon(again);
    assert_eq!(deliver(&mut it, 0, 5).unwrap().range, 0..5);
}

#[test]
fn what_was_fetched_is_shared_by_all_who_have_room() {
    let mut it = subscription(Order::None, 100);
    for (consumer, events) in [(A, 10), (B, 20)] {
        it.attach(consumer).unwrap();
        it.grant(consumer, events, 10_000);
    }
    let fetch = it.fetch(at(0)).unwrap();
    let chunks = [chunk(0..25), chunk(25..100)];
    let fetched = Fetched { reached: Offset(100), chunks: &chunks, filtered: &[], failed: &[], keys: None };
    let assigned = it.assign(at(0), fetch, fetched, |_, wanted| Some(wanted.most));
    let shares: Vec<_> = assigned.assignments.iter().map(|it| (it.consumer, it.events)).collect();
    assert_eq!((assigned.until, shares), (Offset(30), vec![(A, 10), (B, 20)]));
}

#[test]
fn a_consumer_whose_stream_has_no_room_is_held_until_it_has() {
    let mut it = subscription(Order::None, 100);
    attach(&mut it, A);
    attach(&mut it, B);
    let fetch = it.fetch(at(0)).unwrap();
    let chunks = [chunk(0..50), chunk(50..100)];
    let fetched = Fetched { reached: Offset(100), chunks: &chunks, filtered: &[], failed: &[], keys: None };
    let mut wants = Vec::new();
    let assigned = it.assign(at(0), fetch, fetched, |consumer, wanted| {
        wants.push((consumer, wanted.least));
        (consumer == B).then_some(600)
    });
    assert_eq!(wants, [(A, 500), (B, 500), (B, 500)]);
    let parts: Vec<_> = assigned.assignments.iter().map(|it| (it.consumer, it.offsets.clone())).collect();
    let offsets = |range: Range<u64>| vec![Offset(range.start)..Offset(range.end)];
    assert_eq!(parts, [(B, offsets(0..50)), (B, offsets(50..100))]);
    it.end(P0, Offset(101));
    it.hold(B, true);
    assert!(it.fetch(at(0)).is_none());
    it.hold(A, false);
    assert_eq!(deliver(&mut it, 0, 1).unwrap().consumer, A);
}

#[test]
fn a_delivery_that_could_not_be_sent_counts_no_attempt() {
    let mut it = subscription(Order::Partition, 10);
    attach(&mut it, A);
    let fetch = it.fetch(at(0)).unwrap();
    let given = assign(&mut it, at(0), fetch, 4, &Brought::default()).1.unwrap();
    it.recall(at(0), given.token);
    assert_eq!(it.stats().in_flight, 0);
    let again = deliver(&mut it, 0, 10).unwrap();
    assert_eq!((again.range, again.attempt), (0..4, 1));
}

#[test]
fn what_could_not_be_sent_leaves_its_consumer_all_of_its_credit() {
    let mut it = subscription(Order::None, 10);
    it.attach(A).unwrap();
    it.grant(A, 4, 40);
    for _ in 0..3 {
        let fetch = it.fetch(at(0)).unwrap();
        let given = assign(&mut it, at(0), fetch, 4, &Brought::default()).1.unwrap();
        assert_eq!(given.events, 4);
        it.recall(at(0), given.token);
    }
    assert_eq!(deliver(&mut it, 0, 10).unwrap().range, 0..4);
}

#[test]
fn a_delivery_that_could_not_be_sent_is_none_of_those_that_its_stream_takes() {
    let mut it = subscription(Order::None, 2);
    attach(&mut it, A);
    let unsent = |it: &mut Subscription| {
        let fetch = it.fetch(at(0)).unwrap();
        let reached = fetch.range.start.0 + 1;
        assign(it, at(0), fetch, reached, &Brought::default()).1.unwrap().token
    };
    let first = unsent(&mut it);
    let second = unsent(&mut it);
    it.recall(at(0), first);
    it.taken(A, 1);
    it.on_time(at(TIMEOUT), |_| 1);
    assert_eq!(it.place_of(second), None);
    let mut attempts = [deliver(&mut it, TIMEOUT, 1).unwrap(), deliver(&mut it, TIMEOUT, 1).unwrap()];
    attempts.sort_by_key(|got| got.range.start);
    assert_eq!(attempts.map(|got| got.attempt), [1, 2], "the stream had taken the second one");
}

#[test]
fn a_shorter_time_holds_for_what_is_extended_and_for_what_comes_back_beside_what_has_longer() {
    let mut it = subscription(Order::None, 3);
    attach(&mut it, A);
    let got = deliver(&mut it, 0, 3).unwrap();
    say(&mut it, 0, &got, 1..2, VerbKind::Ack).unwrap();
    it.set_options(&Options { ack_timeout_ms: 100, ..options(Order::None) }, at(0));
    say(&mut it, 0, &got, 2..3, VerbKind::InProgress).unwrap();
    assert_eq!([99, 100].map(|now| it.on_time(at(now), |_| u64::MAX)), [0, 1]);
    let settling = it.take_settling().unwrap();
    it.settled(settling.id, false, at(200));
    let ended = [299, 300, TIMEOUT - 1, TIMEOUT].map(|now| it.on_time(at(now), |_| u64::MAX));
    assert_eq!(ended, [0, 1, 0, 1]);
}

#[test]
fn several_fetches_share_credit_and_what_goes_alone_is_kept_alone() {
    let progress = vec![Progress::new(Offset(0), 1), Progress::new(Offset(0), 1)];
    let wide = Options { max_in_flight_bytes: u64::MAX, ..options(Order::None) };
    let mut it = Subscription::new(&wide, progress, at(0));
    it.end(P0, Offset(1));
    for life in 0..3 {
        attach(&mut it, ConsumerId(100 + life));
        deliver(&mut it, 0, 1).unwrap();
        it.detach(at(0), ConsumerId(100 + life));
    }
    it.end(PartitionId(1), Offset(50));
    it.attach(A).unwrap();
    it.grant(A, 5, FETCH_BYTES_MAX * 10);
    let alone = it.fetch(at(0)).unwrap();
    assert_eq!(alone.range, Offset(0)..Offset(1));
    assert!(it.fetch(at(0)).is_none(), "nothing is read beside it");
    let given = assign(&mut it, at(0), alone, 1, &Brought::default()).1.unwrap();
    assert_eq!(given.attempt, 1);
    assert!(it.fetch(at(0)).is_none(), "nothing is in flight beside it");
    let got = Got { consumer: A, range: 0..1, attempt: 1, token: given.token };
    say(&mut it, 0, &got, 0..1, VerbKind::Ack).unwrap();
    it.end(P0, Offset(50));
    let (first, second) = (it.fetch(at(0)).unwrap(), it.fetch(at(0)).unwrap());
    assert_ne!(first.partition, second.partition);
    assert!(it.fetch(at(0)).is_none(), "both partitions are being read");
    let end = first.range.end.0;
    let (until, given) = assign(&mut it, at(0), first, end, &Brought::default());
    assert_eq!((until, given.unwrap().events), (end - 46, 4));
    let (begin, unsent) = (second.range.start.0, second.partition);
    assert_eq!(assign(&mut it, at(0), second, 50, &Brought::default()), (begin, None), "no credit is left");
    it.grant(A, 1, 1);
    let rest = it.fetch(at(0)).unwrap();
    assert_eq!(rest.partition, unsent, "it was read last");
}

#[test]
fn lost_offsets_are_reported_once_and_settle() {
    let mut it = subscription(Order::None, 100);
    attach(&mut it, A);
    let got = deliver(&mut it, 0, 10).unwrap();
    say(&mut it, 0, &got, 2..4, VerbKind::Ack).unwrap();
    say(&mut it, 0, &got, 6..7, VerbKind::Nack { delay_ms: Some(50) }).unwrap();
    commit(&mut it, true).unwrap();
    let lost = it.lost(P0, Offset(40)).unwrap();
    assert_eq!(lost, LostRange { partition: P0, first: Offset(0), last: Offset(39), events: 38 });
    assert_eq!(it.lost(P0, Offset(40)), None);
    assert_eq!(say(&mut it, 0, &got, 0..10, VerbKind::Ack), Err(ErrorCode::DeliveryExpired));
    assert_eq!(it.stats().in_flight, 0);
    // The commit that settles them says so; one that failed did not.
    for durable in [false, true] {
        assert_eq!(commit(&mut it, durable).unwrap().0.lost, [lost]);
    }
    it.touch(P0);
    let (empty, _) = commit(&mut it, true).unwrap();
    assert_eq!(
        (empty.lost, empty.rows),
        (Vec::new(), vec![(P0, Vec::new())]),
        "there is something else to store"
    );
    assert_eq!((it.partition(P0).floor, lag(&it)), (Offset(40), 60));
    assert_eq!(deliver(&mut it, 100, 5).unwrap().range, 40..45);
}

#[test]
fn the_window_stops_fresh_events_and_names_the_stuck_one() {
    let end = WINDOW_OFFSETS * 2;
    let wide = Options { max_in_flight: u64::MAX, max_in_flight_bytes: u64::MAX, ..options(Order::None) };
    let mut it = subscription_with(wide, end);
    it.attach(A).unwrap();
    it.grant(A, u64::MAX, u64::MAX);
    let stuck = deliver(&mut it, 0, 1).unwrap();
    say(&mut it, 0, &stuck, 0..1, VerbKind::InProgress).unwrap();
    while let Some(got) = deliver(&mut it, 0, u64::MAX) {
        assert_eq!(edge(&it), if got.range.end == WINDOW_OFFSETS { Some(Offset(0)) } else { None });
        say(&mut it, 0, &got, got.range.clone(), VerbKind::Ack).unwrap();
        commit(&mut it, true).unwrap();
    }
    assert_eq!(edge(&it), Some(Offset(0)));
    say(&mut it, 0, &stuck, 0..1, VerbKind::Nack { delay_ms: Some(0) }).unwrap();
    let again = deliver(&mut it, 0, 1).unwrap();
    assert_eq!(again.range, 0..1, "the stuck one is still given");
    say(&mut it, 0, &again, 0..1, VerbKind::Ack).unwrap();
    let (settling, _) = commit(&mut it, true).unwrap();
    assert_eq!(edge(&it), None);
    let dropped = settling.rows[0].1.iter().filter(|row| matches!(row, RowChange::DropChunk { .. })).count();
    assert_eq!(dropped as u64, WINDOW_OFFSETS / CHUNK_OFFSETS);
    assert_eq!(deliver(&mut it, 0, 1).unwrap().range, WINDOW_OFFSETS..WINDOW_OFFSETS + 1);
}

#[test]
fn a_hundred_thousand_events_that_failed_one_by_one_stop_no_others_and_too_many_do_until_one_ends() {
    let max = Bounds::default().failed_runs_max;
    let wide = Options { max_in_flight: u64::MAX, max_in_flight_bytes: u64::MAX, ..options(Order::None) };
    let mut it = subscription_with(wide, 500_000);
    it.attach(A).unwrap();
    it.grant(A, u64::MAX, u64::MAX);
    let later = || VerbKind::Nack { delay_ms: Some(3_600_000) };
    let mut failed = 0;
    while let Some(got) = deliver(&mut it, 0, 2) {
        let first = got.range.start..got.range.start + 1;
        say(&mut it, 0, &got, first.clone(), later()).unwrap();
        say(&mut it, 0, &got, first.end..got.range.end, VerbKind::Ack).unwrap();
        failed += 1;
    }
    commit(&mut it, true).unwrap();
    assert_eq!(failed, max);
    let waits = it.waits_for(at(0));
    let WaitsFor::Failures { runs, retry: Some(retry) } = waits else { panic!("{waits:?}") };
    assert_eq!((runs, retry.offset), (failed as u64, Offset(0)));
    let again = deliver(&mut it, 4_000_000, 1).unwrap();
    assert_eq!(again.range, 0..1);
    say(&mut it, 4_000_000, &again, again.range.clone(), VerbKind::Ack).unwrap();
    commit(&mut it, true).unwrap();
    assert_eq!(it.ledger.partitions.failed_runs(), max - 1);
}

#[test]
fn a_restart_keeps_what_was_committed_attempts_and_delays_included() {
    let mut it = subscription(Order::None, 20);
    let mut rows = Rows::default();
    rows.apply(&Progress::new(Offset(0), 1).take_dirty());
    attach(&mut it, A);
    let got = deliver(&mut it, 0, 10).unwrap();
    say(&mut it, 0, &got, 2..4, VerbKind::Ack).unwrap();
    say(&mut it, 0, &got, 7..8, VerbKind::Nack { delay_ms: Some(5_000) }).unwrap();
    let (settling, _) = commit(&mut it, true).unwrap();
    rows.apply(&settling.rows[0].1);
    say(&mut it, 0, &got, 0..1, VerbKind::Ack).unwrap();

    let mut it = Subscription::new(&options(Order::None), vec![rows.restore()], at(0));
    it.end(P0, Offset(20));
    assert_eq!(lag(&it), 18);
    attach(&mut it, A);
    let early: Vec<_> = std::iter::from_fn(|| deliver(&mut it, 10, 20)).map(|got| got.range).collect();
    assert_eq!(early, [0..2, 4..7, 8..20]);
    let late = deliver(&mut it, 5_000, 20).unwrap();
    assert_eq!((late.range.clone(), late.attempt), (7..8, 2));
}

#[test]
fn verbs_of_another_consumer_partition_or_life_are_refused() {
    let mut it = subscription(Order::None, 20);
    attach(&mut it, A);
    attach(&mut it, B);
    let got = deliver(&mut it, 0, 10).unwrap();
    let thief = Got { consumer: B, ..got.clone() };
    assert_eq!(say(&mut it, 0, &thief, 0..10, VerbKind::Ack), Err(ErrorCode::DeliveryExpired));
    let forged = Got { token: DeliveryToken(1), ..got.clone() };
    assert_eq!(say(&mut it, 0, &forged, 0..10, VerbKind::Ack), Err(ErrorCode::DeliveryExpired));
    let elsewhere = Verb { partition: PartitionId(9), ..verb(&got, 0..10, VerbKind::Ack) };
    assert_eq!(it.verb(at(0), A, &elsewhere), Err(ErrorCode::DeliveryExpired));
    assert_eq!(say(&mut it, 0, &got, 10..u64::MAX, VerbKind::Ack), Err(ErrorCode::DeliveryExpired));
    assert_eq!(say(&mut it, 0, &got, 5..u64::MAX, VerbKind::Ack), Ok(5));
    assert_eq!(say(&mut it, 0, &got, 5..10, VerbKind::Ack), Err(ErrorCode::DeliveryExpired));
}

#[test]
fn consumers_are_bounded() {
    let mut it = subscription(Order::None, 0);
    for id in 0..CONSUMERS_MAX as u64 {
        it.attach(ConsumerId(id)).unwrap();
    }
    assert_eq!(it.attach(ConsumerId(u64::MAX)), Err(ErrorCode::LimitExceeded));
    it.detach(at(0), ConsumerId(5));
    assert_eq!(it.attach(ConsumerId(u64::MAX)), Ok(()));
}
