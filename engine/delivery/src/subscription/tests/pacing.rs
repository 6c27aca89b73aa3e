//! Facts about the rate, about options that change, and about what a subscription waits for.

use super::{super::standstill::WaitsFor, *};

const ORDERS: [Order; 3] = [Order::Key, Order::Partition, Order::None];

fn paced(order: Order, rate: u64, end: u64) -> Subscription {
    subscription_with(Options { rate: Some(rate), ..options(order) }, end)
}

/// Everything that can be delivered at `now`, as ranges.
fn drain(subscription: &mut Subscription, now: u64) -> Vec<Got> {
    std::iter::from_fn(|| deliver(subscription, now, u64::MAX)).collect()
}

fn count(got: &[Got]) -> u64 {
    got.iter().map(|got| got.range.end - got.range.start).sum()
}

#[test]
fn a_rate_is_kept_and_time_wakes_for_more() {
    for order in ORDERS {
        let mut it = paced(order, 100, 60);
        attach(&mut it, A);
        assert_eq!(drain(&mut it, 0), [], "nothing is saved at the start");
        assert_eq!(it.waits_for(at(0)), WaitsFor::Rate { per_second: 100 });
        let mut now = 0;
        while now < 500 {
            now = it.next_deadline(at(now)).unwrap();
            drain(&mut it, now);
        }
        assert_eq!((now, it.stats().in_flight), (500, 50), "{order:?}");
    }
}

#[test]
fn redeliveries_count_against_the_rate() {
    let mut it = paced(Order::None, 10, 3);
    attach(&mut it, A);
    let first = drain(&mut it, 100).remove(0);
    say(&mut it, 100, &first, 0..1, VerbKind::Nack { delay_ms: Some(0) }).unwrap();
    assert_eq!(drain(&mut it, 150), []);
    let again = drain(&mut it, 200);
    assert_eq!((again[0].range.clone(), again[0].attempt, again.len()), (0..1, 2, 1));
}

#[test]
fn what_was_read_is_given_as_far_as_the_rate_allows() {
    for order in ORDERS {
        let mut it = paced(order, 1_000, 500);
        attach(&mut it, A);
        assert_eq!(count(&drain(&mut it, 60_000)), 100, "a tenth of a second may be saved");
        assert_eq!(drain(&mut it, 60_005), [], "{order:?}");
        assert_eq!(count(&drain(&mut it, 60_010)), 0, "as many are in flight as may be");
    }
}

#[test]
fn partitions_have_their_turns_under_a_rate() {
    for order in ORDERS {
        let progress = || {
            let mut progress = Progress::new(Offset(0), 1);
            progress.take_dirty();
            progress
        };
        let options = Options { rate: Some(10), ..options(order) };
        let mut it = Subscription::new(&options, vec![progress(), progress()], at(0));
        for partition in 0..2 {
            it.end(PartitionId(partition), Offset(50));
        }
        attach(&mut it, A);
        for now in 1..=20 {
            deliver(&mut it, now * 100, 50);
        }
        let in_flight = [0, 1].map(|partition| {
            let books = it.ledger.partitions.get(partition);
            books.open_parts(&(0..50)).into_iter().map(|part| part.end - part.start).sum::<u64>()
        });
        assert_eq!(in_flight, [10, 10], "{order:?}");
    }
}

#[test]
fn options_change_for_what_comes_and_not_for_what_is_in_flight() {
    let mut it = subscription(Order::None, 10);
    attach(&mut it, A);
    let first = deliver(&mut it, 0, 2).unwrap();
    let slow = Options { ack_timeout_ms: 5_000, max_in_flight: 3, max_attempts: 1, ..options(Order::None) };
    it.set_options(&slow, at(10));
    assert_eq!(it.next_deadline(at(10)), Some(TIMEOUT), "its deadline stays");
    assert_eq!(deliver(&mut it, 10, 5).unwrap().range, 2..3, "three may be in flight");
    assert_eq!(deliver(&mut it, 10, 5), None);
    say(&mut it, 10, &first, 0..2, VerbKind::Nack { delay_ms: None }).unwrap();
    let (settling, _) = commit(&mut it, true).unwrap();
    assert_eq!(settling.dead_letters.len(), 1, "one attempt is all there is now");
    it.set_options(&Options { rate: Some(10), ..slow.clone() }, at(20));
    assert_eq!(deliver(&mut it, 20, 5), None, "a new rate begins with nothing saved");
    it.set_options(&slow, at(21));
    assert_eq!(count(&drain(&mut it, 21)), 2, "without a rate all goes that there is room for");
}

#[test]
fn it_waits_for_events_a_consumer_or_credit() {
    let mut it = subscription(Order::Key, 0);
    assert_eq!(it.waits_for(at(0)), WaitsFor::Events);
    it.extend_end(5);
    assert_eq!(it.waits_for(at(0)), WaitsFor::Consumer);
    it.attach(A).unwrap();
    assert_eq!(it.waits_for(at(0)), WaitsFor::Credit);
    it.grant(A, 1, 100);
    assert_eq!(it.waits_for(at(0)), WaitsFor::Nothing);
    it.hold(A, true);
    assert_eq!(it.waits_for(at(0)), WaitsFor::Streams);
    it.hold(A, false);
    let got = deliver(&mut it, 0, 1).unwrap();
    let oldest = Some((P0, Offset(0), A));
    assert_eq!(it.waits_for(at(0)), WaitsFor::Acknowledgements { events: 1, oldest });
    say(&mut it, 0, &got, 0..1, VerbKind::Ack).unwrap();
    assert_eq!(it.waits_for(at(0)), WaitsFor::Credit);
}

#[test]
fn it_waits_for_the_next_attempt_of_what_failed() {
    for order in ORDERS {
        let mut it = subscription(order, 1);
        attach(&mut it, A);
        let got = deliver(&mut it, 0, 1).unwrap();
        say(&mut it, 5, &got, 0..1, VerbKind::Nack { delay_ms: Some(95) }).unwrap();
        commit(&mut it, true);
        assert_eq!(drain(&mut it, 40), [], "where keys matter, the event's is read");
        let retry = Retry { partition: P0, offset: Offset(0), attempts: 1, wait_ms: 60 };
        assert_eq!(it.waits_for(at(40)), WaitsFor::Retry(retry), "{order:?}");
        assert_eq!(it.waits_for(at(100)), WaitsFor::Nothing, "{order:?}");
    }
}

#[test]
fn it_waits_for_the_offset_that_keeps_the_window_full() {
    let end = crate::progress::WINDOW_OFFSETS + 10;
    let options = Options { max_in_flight: 2 * end, max_in_flight_bytes: u64::MAX, ..options(Order::None) };
    let mut it = subscription_with(options, end);
    it.attach(A).unwrap();
    it.grant(A, 2 * end, u64::MAX / 4);
    let first = deliver(&mut it, 0, 1).unwrap();
    for got in drain(&mut it, 0) {
        say(&mut it, 0, &got, got.range.clone(), VerbKind::Ack).unwrap();
    }
    commit(&mut it, true);
    let window = |retry| WaitsFor::Window { partition: P0, offset: Offset(0), retry };
    assert_eq!(it.waits_for(at(0)), window(None));
    say(&mut it, 0, &first, 0..1, VerbKind::Nack { delay_ms: Some(70) }).unwrap();
    let retry = Retry { partition: P0, offset: Offset(0), attempts: 1, wait_ms: 50 };
    assert_eq!(it.waits_for(at(20)), window(Some(retry)));
}
