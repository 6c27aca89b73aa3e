//! Events that are acknowledged together, as a part of a transaction.

use super::*;

fn acked(got: &Got, range: Range<u64>, events: u64) -> Acked {
    Acked { token: got.token, partition: P0, first: Offset(range.start), last: Offset(range.end - 1), events }
}

#[test]
fn they_are_a_commit_of_their_own_between_those_of_verbs() {
    let mut it = subscription(Order::None, 100);
    attach(&mut it, A);
    let got = deliver(&mut it, 0, 30).unwrap();
    say(&mut it, 0, &got, 0..5, VerbKind::Ack).unwrap();
    it.acknowledge_all(7, &[acked(&got, 5..8, 3), acked(&got, 20..21, 1)]).unwrap();
    say(&mut it, 0, &got, 8..10, VerbKind::Ack).unwrap();
    let mut floors = Vec::new();
    while let Some((settling, back)) = commit(&mut it, true) {
        assert_eq!(back, []);
        floors.push((settling.transaction, it.partition(P0).floor.0));
    }
    assert_eq!(floors, [(None, 5), (Some(7), 8), (None, 10)]);
    assert_eq!(lag(&it), 100 - 11);
}

#[test]
fn all_of_them_or_none() {
    let mut it = subscription(Order::None, 100);
    attach(&mut it, A);
    let (one, two) = (deliver(&mut it, 0, 10).unwrap(), deliver(&mut it, 0, 10).unwrap());
    say(&mut it, 0, &two, 12..13, VerbKind::Nack { delay_ms: Some(0) }).unwrap();
    let stale = Got { token: DeliveryToken(one.token.0 + 1_000), ..one.clone() };
    for wrong in [
        vec![acked(&one, 0..10, 10), acked(&two, 10..20, 10)],
        vec![acked(&one, 0..10, 10), acked(&stale, 0..1, 1)],
        vec![acked(&one, 0..10, 9)],
        vec![acked(&one, 0..10, 11)],
        vec![acked(&one, 0..10, 10), acked(&one, 50..60, 10)],
        vec![acked(&one, 3..4, 0)],
    ] {
        assert_eq!(it.acknowledge_all(1, &wrong), Err(ErrorCode::DeliveryExpired), "{wrong:?}");
        assert_eq!(it.in_flight(A), 19, "nothing was taken");
    }
    it.acknowledge_all(1, &[acked(&one, 0..10, 10), acked(&two, 13..20, 7)]).unwrap();
    assert_eq!(it.in_flight(A), 2);
    it.on_time(at(TIMEOUT * 2), |_| u64::MAX);
    let (settling, _) = commit(&mut it, true).unwrap();
    assert_eq!((settling.transaction, it.partition(P0).floor), (Some(1), Offset(10)));
}

#[test]
fn a_refused_transaction_leaves_them_in_flight_and_they_can_be_acknowledged_again() {
    let mut it = subscription(Order::Partition, 10);
    attach(&mut it, A);
    let got = deliver(&mut it, 0, 10).unwrap();
    it.acknowledge_all(1, &[acked(&got, 0..10, 10)]).unwrap();
    assert_eq!(it.in_flight(A), 0);
    let settling = it.take_settling().unwrap();
    assert_eq!(it.on_time(at(TIMEOUT * 5), |_| u64::MAX), 0, "its time does not run while it is committed");
    it.settled(settling.id, false, at(TIMEOUT * 5));
    assert_eq!((it.in_flight(A), it.partition(P0).floor), (10, Offset(0)));
    it.acknowledge_all(2, &[acked(&got, 0..10, 10)]).unwrap();
    let (settling, _) = commit(&mut it, true).unwrap();
    assert_eq!((settling.transaction, it.partition(P0).floor), (Some(2), Offset(10)));
    assert_eq!(it.on_time(at(TIMEOUT * 20), |_| u64::MAX), 0);
}

#[test]
fn those_of_a_consumer_that_went_meanwhile_are_delivered_again_if_it_is_refused() {
    let mut it = subscription(Order::Key, 10);
    attach(&mut it, A);
    let got = deliver(&mut it, 0, 10).unwrap();
    it.acknowledge_all(1, &[acked(&got, 0..10, 10)]).unwrap();
    let settling = it.take_settling().unwrap();
    it.detach(at(1), A);
    attach(&mut it, B);
    assert_eq!(deliver(&mut it, 1, 10), None, "they may be acknowledged");
    it.settled(settling.id, false, at(2));
    let again = deliver(&mut it, 2, 10).unwrap();
    assert_eq!((again.consumer, again.range), (B, 0..10));
    assert_eq!(it.acknowledge_all(2, &[acked(&got, 0..10, 10)]), Err(ErrorCode::DeliveryExpired));
}
