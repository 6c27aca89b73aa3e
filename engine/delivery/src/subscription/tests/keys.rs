//! Facts about key order, one by one.

use super::*;
use crate::progress::WINDOW_OFFSETS;

const C: ConsumerId = ConsumerId(3);

/// What one consumer got in one delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Dealt {
    consumer: ConsumerId,
    offsets: Vec<u64>,
    attempt: u16,
    token: DeliveryToken,
}

/// Fetches and assigns until nothing more can be sent. `key` says which key an event has.
fn deal(it: &mut Subscription, now: u64, key: impl Fn(u64) -> Option<u64>) -> Vec<Dealt> {
    deal_without(it, now, key, &[])
}

/// The same through a chain that drops these offsets.
fn deal_without(
    it: &mut Subscription,
    now: u64,
    key: impl Fn(u64) -> Option<u64>,
    dropped: &[u64],
) -> Vec<Dealt> {
    let mut dealt = Vec::new();
    while let Some(fetch) = it.fetch(at(now)) {
        let start = fetch.range.start.0;
        let range = start..fetch.range.end.0.min(start + 4_096);
        let chunks = [chunk(range.clone())];
        let event = |offset| EventKey { offset: Offset(offset), key: key(offset) };
        let keys: Option<Vec<_>> = fetch.needs_keys.then(|| range.clone().map(event).collect());
        let (reached, keys) = (Offset(range.end), keys.as_deref());
        let within = dropped.iter().filter(|offset| range.contains(offset));
        let filtered: Vec<_> = within.map(|offset| Offset(*offset)..Offset(offset + 1)).collect();
        let fetched = Fetched { reached, chunks: &chunks, filtered: &filtered, failed: &[], keys };
        let assigned = it.assign(at(now), fetch, fetched, |_, wanted| Some(wanted.most));
        for given in assigned.assignments {
            it.sent(given.token, given.events * 10);
            it.taken(given.consumer, u64::MAX);
            let offsets: Vec<u64> = given.offsets.iter().flat_map(|part| part.start.0..part.end.0).collect();
            let Assignment { consumer, attempt, token, .. } = given;
            dealt.push(Dealt { consumer, offsets, attempt, token });
        }
    }
    dealt
}

fn shape(dealt: &[Dealt]) -> Vec<(u64, Vec<u64>)> {
    dealt.iter().map(|it| (it.consumer.0, it.offsets.clone())).collect()
}

fn tell(it: &mut Subscription, now: u64, of: &Dealt, offset: u64, kind: VerbKind) -> Result<u64, ErrorCode> {
    let (first, last) = (Offset(offset), Offset(offset));
    let verb = Verb { kind, partition: P0, token: of.token, first, last };
    it.verb(at(now), of.consumer, &verb).map(|applied| applied.events)
}

/// Acknowledges all of a delivery, event by event.
fn acknowledge(it: &mut Subscription, now: u64, of: &Dealt) {
    for offset in &of.offsets {
        assert_eq!(tell(it, now, of, *offset, VerbKind::Ack), Ok(1));
    }
}

fn nack() -> VerbKind {
    VerbKind::Nack { delay_ms: Some(50) }
}

/// Even offsets have one key, odd ones the other.
fn two_keys(offset: u64) -> Option<u64> {
    Some(offset % 2)
}

/// Offsets have one of six keys by turns.
fn six_keys(offset: u64) -> Option<u64> {
    Some(offset % 6)
}

/// A has three keys and no more credit, B has the other three and credit for two events; 6 to 11 are new.
fn one_without_room() -> (Subscription, Vec<Dealt>) {
    let mut it = subscription(Order::Key, 6);
    for consumer in [A, B] {
        it.attach(consumer).unwrap();
    }
    it.grant(A, 3, 1_000);
    it.grant(B, 5, 1_000);
    let dealt = deal(&mut it, 0, six_keys);
    assert_eq!(shape(&dealt), [(1, vec![0, 1, 2]), (2, vec![3, 4, 5])]);
    it.extend_end(12);
    (it, dealt)
}

#[test]
fn one_consumer_gets_everything_as_it_is_stored_and_no_key_is_looked_at() {
    let mut it = subscription(Order::Key, 100);
    attach(&mut it, A);
    let fetch = it.fetch(at(0)).unwrap();
    assert!(!fetch.needs_keys);
    it.abandon(fetch);
    let dealt = deal(&mut it, 0, |_| unreachable!("keys are read when they matter"));
    assert_eq!(shape(&dealt), [(1, (0..100).collect())]);
}

#[test]
fn a_key_stays_with_the_consumer_that_holds_it_and_is_free_once_it_has_settled() {
    let mut it = subscription(Order::Key, 4);
    for consumer in [A, B] {
        it.attach(consumer).unwrap();
    }
    it.grant(A, 1, 1_000);
    it.grant(B, 1, 1_000);
    let dealt = deal(&mut it, 0, two_keys);
    assert_eq!(shape(&dealt), [(1, vec![0]), (2, vec![1])]);
    it.grant(A, 9, 1_000);
    it.extend_end(8);
    let more = deal(&mut it, 0, two_keys);
    assert_eq!(shape(&more), [(1, vec![2, 4, 6])], "3 waits until 1 has settled, and 5 and 7 behind it");
    assert_eq!(tell(&mut it, 0, &dealt[1], 1, VerbKind::Ack), Ok(1));
    assert_eq!(shape(&deal(&mut it, 0, two_keys)), [(1, vec![3, 5, 7])]);
}

#[test]
fn an_event_waits_as_long_as_it_was_to_behind_one_of_its_key_that_is_due() {
    let mut it = subscription(Order::Key, 4);
    for consumer in [A, B] {
        attach(&mut it, consumer);
    }
    let dealt = deal(&mut it, 0, |_| Some(7));
    assert_eq!(dealt.len(), 1, "one key");
    for (offset, delay) in [(2, 90), (1, 30)] {
        tell(&mut it, 0, &dealt[0], offset, VerbKind::Nack { delay_ms: Some(delay) }).unwrap();
    }
    tell(&mut it, 0, &dealt[0], 0, VerbKind::Ack).unwrap();
    let offsets = |dealt: Vec<Dealt>| dealt.into_iter().map(|it| it.offsets).collect::<Vec<_>>();
    assert_eq!(offsets(deal(&mut it, 30, |_| Some(7))), [[1]], "the others wait behind what is not due");
    assert_eq!(offsets(deal(&mut it, 89, |_| Some(7))), <[[u64; 1]; 0]>::default());
}

#[test]
fn new_events_pass_one_whose_consumer_has_no_room_only_where_another_needs_them() {
    let (mut it, dealt) = one_without_room();
    assert_eq!(shape(&deal(&mut it, 0, six_keys)), [], "6 is for A, which has no room, and B has enough");
    assert_eq!(waiting(&it), 0);
    let oldest = Some((P0, Offset(0), A));
    assert_eq!(it.waits_for(at(0)), WaitsFor::Acknowledgements { events: 6, oldest });
    assert_eq!(it.next_deadline(at(0)), Some(10));
    for offset in [3, 4] {
        tell(&mut it, 0, &dealt[1], offset, VerbKind::Ack).unwrap();
    }
    it.grant(B, 2, 1_000);
    assert_eq!(shape(&deal(&mut it, 0, six_keys)), [(2, vec![9, 10, 11])]);
    assert_eq!(waiting(&it), 3, "those for A");
    tell(&mut it, 0, &dealt[0], 1, VerbKind::Ack).unwrap();
    it.grant(A, 5, 1_000);
    assert_eq!(
        shape(&deal(&mut it, 0, six_keys)),
        [(1, vec![7])],
        "the others wait until A has settled theirs"
    );
}

#[test]
fn a_consumer_that_has_had_no_room_for_a_moment_holds_up_nobody() {
    let (mut it, dealt) = one_without_room();
    assert_eq!(shape(&deal(&mut it, 9, six_keys)), []);
    assert_eq!(shape(&deal(&mut it, 18, six_keys)), [], "the moment begins with the first event for it");
    assert_eq!(shape(&deal(&mut it, 19, six_keys)), [(2, vec![9, 10])]);
    it.grant(B, 5, 1_000);
    it.extend_end(20);
    assert_eq!(shape(&deal(&mut it, 20, six_keys)), [(2, vec![11, 15, 16, 17])], "and is not begun again");
    tell(&mut it, 20, &dealt[0], 0, VerbKind::Ack).unwrap();
    it.grant(A, 1, 1_000);
    assert_eq!(shape(&deal(&mut it, 20, six_keys)), [(1, vec![6])]);
}

/// A has sixteen keys and no more credit; of the events behind, as many wait as one read brings.
fn all_keys_held() -> (Subscription, Dealt) {
    let mut it = subscription_with(much_in_flight(), 16);
    for consumer in [A, B] {
        it.attach(consumer).unwrap();
    }
    it.grant(A, 16, 1_000_000);
    let dealt = deal(&mut it, 0, sixteen_keys).remove(0);
    assert_eq!((dealt.consumer, dealt.offsets.len()), (A, 16));
    it.grant(B, 100_000, 1_000_000);
    it.extend_end(20_000);
    assert_eq!(shape(&deal(&mut it, 0, sixteen_keys)), []);
    assert_eq!(waiting(&it), 4_096);
    (it, dealt)
}

/// Bounds that nothing comes to.
fn much_in_flight() -> Options {
    let waiting_bytes_max = Bounds::default().waiting_bytes_max;
    Options {
        max_in_flight: 100_000,
        max_in_flight_bytes: 10_000_000,
        waiting_bytes_max,
        ..options(Order::Key)
    }
}

/// Offsets have one of sixteen keys by turns.
fn sixteen_keys(offset: u64) -> Option<u64> {
    Some(offset % 16)
}

#[test]
fn while_most_keys_wait_for_a_consumer_nothing_new_is_read_for_a_while() {
    let (mut it, _) = all_keys_held();
    assert_eq!(it.next_deadline(at(0)), Some(32));
    deal(&mut it, 31, sixteen_keys);
    assert_eq!(waiting(&it), 4_096);
    deal(&mut it, 32, sixteen_keys);
    assert_eq!(
        waiting(&it),
        20_000 - 16,
        "other keys that may follow are not held up for longer, nor soon again"
    );
}

#[test]
fn a_slow_consumer_s_key_holds_up_no_event_of_another_key() {
    let mut it = subscription_with(much_in_flight(), 1);
    for consumer in [A, B] {
        it.attach(consumer).unwrap();
    }
    it.grant(A, 1, 1_000_000);
    // A holds the only event of its key, 2,000 wait behind it, and then come others.
    let slow_until = |offset: u64| Some(if offset <= 2_000 { 0 } else { offset });
    assert_eq!(shape(&deal(&mut it, 0, slow_until)), [(1, vec![0])]);
    it.extend_end(2_010);
    for next in 2_001..2_010 {
        it.grant(B, 1, 1_000_000);
        let dealt = deal(&mut it, 0, slow_until);
        assert_eq!(shape(&dealt), [(2, vec![next])]);
        acknowledge(&mut it, 0, &dealt[0]);
    }
}

#[test]
fn what_waits_is_given_before_anything_new_and_then_new_events_are() {
    let (mut it, held) = all_keys_held();
    acknowledge(&mut it, 1, &held);
    let again = deal(&mut it, 1, sixteen_keys);
    let first = again.iter().find(|dealt| dealt.offsets[0] == 16).unwrap();
    assert_eq!(first.offsets.last(), Some(&4_111), "all that waited: {:?}", first.offsets.len());
    let given: usize = again.iter().map(|dealt| dealt.offsets.len()).sum();
    assert_eq!((given, waiting(&it)), (20_000 - 16, 0));
}

#[test]
fn a_consumer_that_settles_quickly_gets_more_events_in_a_row() {
    let mut it = subscription_with(much_in_flight(), 10_000);
    for consumer in [A, B] {
        it.attach(consumer).unwrap();
        it.grant(consumer, 100_000, 10_000_000);
    }
    let first_run = |dealt: &[Dealt], consumer| {
        let offsets = &dealt.iter().find(|dealt| dealt.consumer == consumer).unwrap().offsets;
        offsets.windows(2).take_while(|pair| pair[0] + 1 == pair[1]).count() + 1
    };
    let dealt = deal(&mut it, 0, Some);
    assert_eq!([A, B].map(|consumer| first_run(&dealt, consumer)), [16, 16]);
    for one in &dealt {
        acknowledge(&mut it, if one.consumer == A { 5 } else { 10_000 }, one);
    }
    it.extend_end(20_000);
    let dealt = deal(&mut it, 10_000, Some);
    assert_eq!(first_run(&dealt, A), 256);
}

#[test]
fn a_failed_event_and_those_of_its_key_behind_it_come_back_in_order_and_other_keys_go_on() {
    let mut it = subscription(Order::Key, 6);
    attach(&mut it, A);
    let first = deal(&mut it, 0, two_keys).remove(0);
    assert_eq!(tell(&mut it, 0, &first, 2, nack()), Ok(1));
    it.extend_end(8);
    let more = deal(&mut it, 0, two_keys);
    assert_eq!(shape(&more), [(1, vec![7])], "6 waits behind 2");
    assert_eq!(tell(&mut it, 0, &first, 4, VerbKind::Ack), Err(ErrorCode::DeliveryExpired), "4 came back");
    for offset in [1, 3, 5, 0] {
        assert_eq!(tell(&mut it, 0, &first, offset, VerbKind::Ack), Ok(1));
    }
    assert_eq!(deal(&mut it, 49, two_keys), []);
    let again = deal(&mut it, 50, two_keys);
    let attempts: Vec<_> = again.iter().map(|it| (it.offsets.clone(), it.attempt)).collect();
    assert_eq!(attempts, [(vec![2], 2)], "4 and 6 follow it in another delivery, once it has settled");
    tell(&mut it, 50, &again[0], 2, VerbKind::Ack).unwrap();
    assert_eq!(shape(&deal(&mut it, 50, two_keys)), [(1, vec![4, 6])]);
}

#[test]
fn filtered_offsets_beside_an_event_that_comes_back_go_with_it() {
    // The key of each event; the last offset but one is filtered, the last one comes later.
    for keys in [&[0, 0, 1, 1][..], &[0, 1, 0, 2, 2], &[0, 1, 0, 0, 3]] {
        let key = |offset: u64| Some(keys[offset as usize]);
        let (end, filtered) = (keys.len() as u64 - 1, &[keys.len() as u64 - 2]);
        let mut it = subscription(Order::Key, end);
        attach(&mut it, A);
        let first = deal_without(&mut it, 0, key, filtered).remove(0);
        tell(&mut it, 0, &first, 0, nack()).unwrap();
        assert_eq!(deal_without(&mut it, 0, key, filtered), []);
        it.extend_end(end + 1);
        assert_eq!(shape(&deal_without(&mut it, 0, key, filtered)), [(1, vec![end])], "its key is free");
        // What its delivery still holds can be given back.
        it.detach(at(50), A);
        attach(&mut it, B);
        let mut settled = 0;
        while settled < end {
            let dealt = deal_without(&mut it, 50, key, filtered);
            for (one, offset) in dealt.iter().flat_map(|one| one.offsets.iter().map(move |it| (one, *it))) {
                tell(&mut it, 50, one, offset, VerbKind::Ack).unwrap();
                settled += 1;
            }
            assert!(!dealt.is_empty(), "{keys:?}: {settled} of {end}");
        }
        while commit(&mut it, true).is_some() {}
        assert_eq!((lag(&it), it.partition(P0).floor), (0, Offset(end + 1)), "{keys:?}");
    }
}

#[test]
fn what_one_consumer_let_fail_goes_to_another_that_has_room() {
    let mut it = subscription(Order::Key, 2);
    for consumer in [A, B] {
        attach(&mut it, consumer);
    }
    let dealt = deal(&mut it, 0, two_keys);
    let own = dealt.iter().find(|it| it.offsets.contains(&0)).unwrap();
    tell(&mut it, 0, own, 0, nack()).unwrap();
    let again = deal(&mut it, 50, two_keys);
    assert_eq!(again[0].offsets, [0]);
    assert_ne!(again[0].consumer, own.consumer);
}

#[test]
fn what_follows_an_event_that_timed_out_goes_to_a_consumer_that_responds() {
    let one_key = |_| Some(7);
    let mut it = subscription(Order::Key, 1);
    attach(&mut it, A);
    let first = deal(&mut it, 0, one_key).remove(0);
    it.extend_end(2);
    let second = deal(&mut it, 1_000, one_key).remove(0);
    assert_eq!((first.offsets, second.offsets), (vec![0], vec![1]));
    attach(&mut it, B);
    assert_eq!(deal(&mut it, 1_000, one_key), []);
    let due = it.next_deadline(at(1_000)).unwrap();
    it.on_time(at(due), |_| u64::MAX);
    let again = deal(&mut it, due, one_key);
    assert_eq!(shape(&again), [(2, vec![0])], "1 comes back and waits for it");
    tell(&mut it, due, &again[0], 0, VerbKind::Ack).unwrap();
    let next = deal(&mut it, due, one_key);
    assert_eq!(shape(&next), [(2, vec![1])], "A has done nothing since");
    tell(&mut it, due, &next[0], 1, VerbKind::Ack).unwrap();
    it.extend_end(18);
    let each = |offset| Some(offset);
    assert_eq!(
        shape(&deal(&mut it, due, each)),
        [(2, (2..18).collect::<Vec<_>>())],
        "nor gets any other key"
    );
    it.extend_end(19);
    assert_eq!(shape(&deal(&mut it, due + 30_000, each)), [(1, vec![18])], "it may have been one mistake");
}

#[test]
fn consumers_that_join_get_other_keys_while_the_first_keeps_what_it_holds() {
    let mut it = subscription(Order::Key, 4);
    attach(&mut it, A);
    let held = deal(&mut it, 0, two_keys);
    for consumer in [B, C] {
        attach(&mut it, consumer);
    }
    it.extend_end(8);
    let key = |offset: u64| Some(if offset < 6 { offset % 2 } else { offset });
    let dealt = deal(&mut it, 0, key);
    let of = |consumer: ConsumerId| {
        let own = dealt.iter().filter(move |it| it.consumer == consumer);
        own.flat_map(|it| it.offsets.clone()).collect::<Vec<_>>()
    };
    assert_eq!(of(A), [4, 5], "A holds both keys");
    assert_eq!([of(B), of(C)].concat().len(), 2);
    tell(&mut it, 0, &held[0], 0, VerbKind::Ack).unwrap();
}

#[test]
fn a_consumer_that_leaves_gives_its_keys_to_the_others_in_order() {
    let mut it = subscription(Order::Key, 6);
    for consumer in [A, B] {
        attach(&mut it, consumer);
    }
    deal(&mut it, 0, |_| Some(7));
    it.detach(at(0), A);
    assert_eq!(shape(&deal(&mut it, 0, |_| Some(7))), [(2, (0..6).collect())]);
}

#[test]
fn events_without_a_key_go_to_everybody_in_any_order() {
    let mut it = subscription(Order::Key, 64);
    for consumer in [A, B] {
        attach(&mut it, consumer);
    }
    let dealt = deal(&mut it, 0, |_| None);
    let counts: Vec<usize> = dealt.iter().map(|it| it.offsets.len()).collect();
    assert_eq!(counts, [32, 32]);
    tell(&mut it, 0, &dealt[0], 0, nack()).unwrap();
    assert_eq!(tell(&mut it, 0, &dealt[0], 1, VerbKind::Ack), Ok(1), "nothing else came back");
}

#[test]
fn after_a_restart_what_was_open_keeps_the_order_of_its_keys() {
    let mut progress = Progress::new(Offset(0), 1);
    progress.settle(&(4..5));
    progress.take_dirty();
    let mut it = Subscription::new(&options(Order::Key), vec![progress], at(0));
    it.end(P0, Offset(8));
    for consumer in [A, B] {
        it.attach(consumer).unwrap();
    }
    it.grant(A, 1, 1_000);
    let fetch = it.fetch(at(0)).unwrap();
    assert_eq!((fetch.range.clone(), fetch.needs_keys), (Offset(0)..Offset(4), true), "keys before all else");
    it.abandon(fetch);
    let dealt = deal(&mut it, 0, two_keys);
    assert_eq!(shape(&dealt), [(1, vec![0])]);
    it.grant(B, 9, 1_000);
    assert_eq!(shape(&deal(&mut it, 0, two_keys)), [(2, vec![1, 3]), (2, vec![5, 7])], "A has key 0");
}

#[test]
fn behind_a_key_that_is_stuck_others_go_on_until_too_much_waits() {
    let mut it = subscription(Order::Key, 0);
    for consumer in [A, B] {
        it.attach(consumer).unwrap();
    }
    for consumer in [A, B] {
        it.grant(consumer, u64::MAX, u64::MAX / 4);
    }
    // One of two events has the key of the first one, which nobody settles and which waits.
    let key = |offset: u64| Some(if offset.is_multiple_of(2) { 0 } else { offset });
    it.extend_end(1);
    let stuck = deal(&mut it, 0, key).remove(0);
    tell(&mut it, 0, &stuck, 0, VerbKind::Nack { delay_ms: Some(1_000_000) }).unwrap();
    it.extend_end(10_000);
    let mut reached = 0;
    loop {
        let dealt = deal(&mut it, 0, key);
        let Some(last) = dealt.iter().flat_map(|it| it.offsets.iter()).max() else { break };
        reached = *last;
        for one in &dealt {
            let (first, last) = (Offset(one.offsets[0]), Offset(one.offsets[one.offsets.len() - 1]));
            let verb = Verb { kind: VerbKind::Ack, partition: P0, token: one.token, first, last };
            it.verb(at(0), one.consumer, &verb).unwrap();
        }
        commit(&mut it, true);
    }
    // A run for each, and a page for each 32 of them.
    let bytes = |events: usize| events * Partition::WAITING_RUN_BYTES + events / 32 * 840;
    let waits = waiting(&it);
    let events = usize::try_from(waits).unwrap();
    let bytes_max = options(Order::Key).waiting_bytes_max;
    assert!(bytes(events) <= bytes_max && bytes(events + 32) > bytes_max - 2_000, "{events}");
    assert!(reached.abs_diff(2 * waits) <= 2, "{reached} for {waits}");
    let retry = Retry { partition: P0, offset: Offset(0), attempts: 1, wait_ms: 1_000_000 };
    assert_eq!(it.waits_for(at(0)), WaitsFor::Keys { events: waits, oldest: None, retry: Some(retry) });
}

#[test]
fn a_million_events_behind_a_key_that_is_stuck_fit_and_others_flow_past_to_the_edge_of_the_window() {
    let options = Options { waiting_bytes_max: Bounds::default().waiting_bytes_max, ..options(Order::Key) };
    let mut it = subscription_with(options, 1);
    for consumer in [A, B] {
        it.attach(consumer).unwrap();
        it.grant(consumer, u64::MAX, u64::MAX / 4);
    }
    let key = |offset: u64| Some(if offset > 0 && offset.is_multiple_of(100) { offset } else { 7 });
    let first = deal(&mut it, 0, key).remove(0);
    tell(&mut it, 0, &first, 0, VerbKind::Nack { delay_ms: Some(1_000_000) }).unwrap();
    it.extend_end(2 * WINDOW_OFFSETS);
    let mut others = 0;
    loop {
        let dealt = deal(&mut it, 0, key);
        if dealt.is_empty() {
            break;
        }
        for one in &dealt {
            assert!(one.offsets.iter().all(|offset| offset.is_multiple_of(100)), "{:?}", one.offsets);
            others += one.offsets.len() as u64;
            let (first, last) = (Offset(one.offsets[0]), Offset(one.offsets[one.offsets.len() - 1]));
            let verb = Verb { kind: VerbKind::Ack, partition: P0, token: one.token, first, last };
            it.verb(at(0), one.consumer, &verb).unwrap();
        }
        commit(&mut it, true);
    }
    assert_eq!(others, (WINDOW_OFFSETS - 1) / 100);
    assert_eq!(waiting(&it), WINDOW_OFFSETS - others);
    let retry = Some(Retry { partition: P0, offset: Offset(0), attempts: 1, wait_ms: 1_000_000 });
    assert_eq!(it.waits_for(at(0)), WaitsFor::Window { partition: P0, offset: Offset(0), retry });
}
