//! Facts about who gets what next: redeliveries, consumers that say nothing, and the active place.

use super::{store::Rows, *};

#[test]
fn a_redelivery_goes_to_another_consumer() {
    let mut it = subscription(Order::None, 5);
    attach(&mut it, A);
    let got = deliver(&mut it, 0, 5).unwrap();
    attach(&mut it, B);
    assert_eq!(it.on_time(at(TIMEOUT), |_| 0), 5);
    let again = deliver(&mut it, TIMEOUT, 5).unwrap();
    assert_eq!((got.consumer, again.consumer, again.attempt), (A, B, 2));
    say(&mut it, TIMEOUT, &again, 0..5, VerbKind::Nack { delay_ms: Some(0) }).unwrap();
    assert_eq!(deliver(&mut it, TIMEOUT, 5).unwrap().consumer, A, "what B gave back goes to A");
}

#[test]
fn a_redelivery_goes_back_if_nobody_else_has_credit() {
    let mut it = subscription(Order::None, 5);
    attach(&mut it, A);
    it.attach(B).unwrap();
    deliver(&mut it, 0, 5).unwrap();
    it.on_time(at(TIMEOUT), |_| 0);
    assert_eq!(deliver(&mut it, TIMEOUT, 5).unwrap().consumer, A);
}

#[test]
fn a_consumer_that_lets_deliveries_time_out_is_passed_over_until_it_speaks() {
    let mut it = subscription(Order::None, 1_000);
    attach(&mut it, A);
    attach(&mut it, B);
    let mut late = None;
    for round in 0..2 {
        let now = round * TIMEOUT;
        it.on_time(at(now), |_| 0);
        assert_eq!(it.passed_over().next(), None, "one timeout may be bad luck");
        loop {
            let got = deliver(&mut it, now, 1).unwrap();
            if got.consumer == A {
                late = Some(got);
                break;
            }
            say(&mut it, now, &got, got.range.clone(), VerbKind::Ack).unwrap();
        }
    }
    let now = 2 * TIMEOUT;
    it.on_time(at(now), |_| 0);
    assert_eq!(it.passed_over().collect::<Vec<_>>(), [A]);
    for _ in 0..20 {
        let got = deliver(&mut it, now, 1).unwrap();
        assert_eq!(got.consumer, B);
        say(&mut it, now, &got, got.range.clone(), VerbKind::Ack).unwrap();
    }
    let late = late.unwrap();
    assert_eq!(say(&mut it, now, &late, late.range.clone(), VerbKind::Ack), Err(ErrorCode::DeliveryExpired));
    assert_eq!(it.passed_over().next(), None, "even a late word shows that it works again");
    let turns: Vec<_> = (0..2).map(|_| deliver(&mut it, now, 1).unwrap().consumer).collect();
    assert!(turns.contains(&A), "{turns:?}");
}

#[test]
fn a_silent_consumer_still_serves_where_nobody_else_takes_anything() {
    let mut it = subscription_with(Options { max_attempts: 100, ..options(Order::None) }, 1);
    attach(&mut it, A);
    it.attach(B).unwrap();
    for round in 0..10 {
        it.on_time(at(round * TIMEOUT), |_| 0);
        assert_eq!(deliver(&mut it, round * TIMEOUT, 1).unwrap().consumer, A);
    }
    assert_eq!(it.passed_over().next(), None, "it is not passed over while it is the only one");
}

#[test]
fn where_order_matters_a_timeout_hands_the_active_place_over() {
    let progress = vec![Progress::new(Offset(0), 1), Progress::new(Offset(0), 1)];
    let mut it = Subscription::new(&options(Order::Partition), progress, at(0));
    let p1 = PartitionId(1);
    attach(&mut it, A);
    attach(&mut it, B);
    it.end(P0, Offset(3));
    deliver(&mut it, 0, 3).unwrap();
    it.end(p1, Offset(4));
    let other = deliver(&mut it, 500, 3).unwrap();
    it.on_time(at(TIMEOUT), |_| 0);
    let again = deliver(&mut it, TIMEOUT, 3).unwrap();
    assert_eq!((again.consumer, again.range, again.attempt), (B, 0..3, 2));
    assert_eq!(deliver(&mut it, TIMEOUT, 3), None, "A is not done with partition 1");
    let acked = Verb { partition: p1, ..verb(&other, 0..3, VerbKind::Ack) };
    it.verb(at(TIMEOUT), A, &acked).unwrap();
    let next = deliver(&mut it, TIMEOUT, 3).unwrap();
    assert_eq!((next.consumer, next.range), (B, 3..4));
}

#[test]
fn an_active_consumer_that_takes_nothing_gives_its_place_up() {
    let mut it = subscription(Order::Partition, 10);
    it.attach(A).unwrap();
    attach(&mut it, B);
    assert_eq!(deliver(&mut it, 0, 10), None);
    assert_eq!(it.next_deadline(at(0)), Some(sharing::HANDOVER_AFTER_MS));
    assert_eq!(deliver(&mut it, sharing::HANDOVER_AFTER_MS - 1, 10), None, "it may be about to grant more");
    assert_eq!(deliver(&mut it, sharing::HANDOVER_AFTER_MS, 4).unwrap().consumer, B);
    it.grant(A, 100, 10_000);
    assert_eq!(deliver(&mut it, sharing::HANDOVER_AFTER_MS, 4).unwrap().consumer, B, "it has lost its place");
    assert_eq!(it.consumers().collect::<Vec<_>>(), [B, A]);
}

#[test]
fn an_active_consumer_that_grants_in_time_keeps_its_place() {
    let mut it = subscription(Order::Partition, 10);
    it.attach(A).unwrap();
    attach(&mut it, B);
    assert_eq!(deliver(&mut it, 0, 10), None);
    it.grant(A, 1, 1_000);
    let got = deliver(&mut it, 900, 10).unwrap();
    assert_eq!(got.consumer, A);
    assert_eq!(
        deliver(&mut it, 900 + sharing::HANDOVER_AFTER_MS * 5, 10),
        None,
        "what it holds is still in time"
    );
    say(&mut it, 5_900, &got, got.range.clone(), VerbKind::Ack).unwrap();
    assert_eq!(deliver(&mut it, 5_900, 10), None, "the wait begins anew");
    assert_eq!(deliver(&mut it, 5_900 + sharing::HANDOVER_AFTER_MS, 10).unwrap().consumer, B);
}

#[test]
fn what_a_stream_never_took_counts_no_attempt() {
    for order in [Order::None, Order::Partition] {
        let mut it = subscription(order, 4);
        it.attach(A).unwrap();
        it.grant(A, 1_000, 1_000_000);
        for round in 0..10 {
            it.on_time(at(round * TIMEOUT), |_| 0);
            let fetch = it.fetch(at(round * TIMEOUT)).unwrap();
            let given = assign(&mut it, at(round * TIMEOUT), fetch, 4, &Brought::default()).1.unwrap();
            assert_eq!((given.attempt, given.events), (1, 4));
        }
        // Nine were given up before the stream took anything; it takes the tenth as well.
        it.on_time(at(10 * TIMEOUT), |_| 10);
        attach(&mut it, B);
        assert_eq!(deliver(&mut it, 10 * TIMEOUT, 4).unwrap().attempt, 2);
    }
}

#[test]
fn what_a_lost_stream_never_took_is_not_returned_either() {
    let mut it = subscription(Order::None, 2);
    for life in 0..6 {
        let consumer = ConsumerId(100 + life);
        it.attach(consumer).unwrap();
        it.grant(consumer, 1_000, 1_000_000);
        let fetch = it.fetch(at(0)).unwrap();
        assert_eq!(fetch.again, life > 0);
        let given = assign(&mut it, at(0), fetch, 2, &Brought::default()).1.unwrap();
        assert_eq!((given.events, given.attempt), (2, 1), "it does not go alone");
        it.detach(at(0), consumer);
    }
}

#[test]
fn a_jump_of_the_wall_clock_moves_no_timeout_and_no_wait() {
    const HOUR: u64 = 3_600_000;
    let jumped = |mono_ms, wall| Now { mono_ms, wall: Timestamp(wall) };
    let mut it = subscription(Order::None, 2);
    attach(&mut it, A);
    let now = jumped(5, 2 * HOUR);
    let fetch = it.fetch(now).unwrap();
    let token = assign(&mut it, now, fetch, 2, &Brought::default()).1.unwrap().token;
    it.taken(A, u64::MAX);
    assert_eq!(it.on_time(jumped(5 + TIMEOUT - 1, 3 * HOUR), |_| 0), 0, "an hour forward");
    let got = Got { consumer: A, range: 0..2, attempt: 1, token };
    let nack = verb(&got, 0..1, VerbKind::Nack { delay_ms: Some(300) });
    it.verb(jumped(500, HOUR), A, &nack).unwrap();
    assert_eq!(it.next_deadline(jumped(500, HOUR)), Some(800), "an hour back");
    assert_eq!(it.fetch(jumped(800, HOUR)).unwrap().range.start, Offset(0));
}

#[test]
fn a_wait_that_outlives_a_restart_is_counted_from_there() {
    let stored = || {
        let mut it = subscription(Order::None, 1);
        let mut rows = Rows::default();
        rows.apply(&Progress::new(Offset(0), 1).take_dirty());
        attach(&mut it, A);
        let got = deliver(&mut it, 1_000_000, 1).unwrap();
        say(&mut it, 1_000_000, &got, 0..1, VerbKind::Nack { delay_ms: Some(5_000) }).unwrap();
        rows.apply(&commit(&mut it, true).unwrap().0.rows[0].1);
        rows.restore()
    };
    for (wall, waits) in [(1_002_000, Some(3_000)), (0, Some(5_000)), (9_000_000, None)] {
        let now = Now { mono_ms: 7, wall: Timestamp(wall) };
        let mut it = Subscription::new(&options(Order::None), vec![stored()], now);
        it.end(P0, Offset(1));
        attach(&mut it, A);
        assert_eq!(it.next_deadline(now), waits.map(|ms| now.after(ms)), "at {wall}");
        assert_eq!(it.fetch(now).is_some(), waits.is_none());
    }
}
