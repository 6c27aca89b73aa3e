//! A partition that is a queue: whoever commits is told what to delete.

use super::*;

const QUEUE: PartitionId = PartitionId(1);

/// A log that ends at 3, and a queue that ends at 4.
fn with_queue() -> Subscription {
    let mut progress = Progress::new(Offset(0), 1);
    progress.take_dirty();
    let mut it = Subscription::new(&options(Order::None), vec![progress.clone(), progress], at(0));
    it.set_queue(QUEUE);
    it.end(P0, Offset(3));
    it.end(QUEUE, Offset(4));
    attach(&mut it, A);
    it
}

/// Delivers everything, the log and the queue.
fn deliver_all(it: &mut Subscription, now: u64) -> (Got, Got) {
    let (one, other) = (deliver(it, now, 10).unwrap(), deliver(it, now, 10).unwrap());
    let is_queue = it.place_of(one.token).unwrap().0 == QUEUE;
    if is_queue { (other, one) } else { (one, other) }
}

fn say_of_queue(it: &mut Subscription, got: &Got, range: Range<u64>, kind: VerbKind) {
    let verb = Verb { partition: QUEUE, ..verb(got, range, kind) };
    it.verb(at(0), A, &verb).unwrap();
}

#[test]
fn what_comes_to_its_end_in_the_queue_is_told_with_the_commit_and_of_a_log_nothing_is() {
    let mut it = with_queue();
    let (log, queue) = deliver_all(&mut it, 0);
    assert_eq!((log.range.clone(), queue.range.clone()), (0..3, 0..4));
    say(&mut it, 0, &log, 0..3, VerbKind::Ack).unwrap();
    let (settling, _) = commit(&mut it, true).unwrap();
    assert!(settling.dequeued.is_empty());
    say_of_queue(&mut it, &queue, 2..4, VerbKind::Ack);
    say_of_queue(&mut it, &queue, 0..1, VerbKind::reject("no"));
    let (failed, _) = commit(&mut it, false).unwrap();
    assert_eq!(failed.dequeued, [Offset(2)..Offset(4), Offset(0)..Offset(1)]);
    say_of_queue(&mut it, &queue, 0..4, VerbKind::Ack);
    let (settling, _) = commit(&mut it, true).unwrap();
    assert_eq!(settling.dequeued, [Offset(0)..Offset(4)], "and again after it failed");
    assert_eq!(it.take_settling(), None);
}

#[test]
fn a_delivery_is_found_by_its_token_until_it_is_over() {
    let mut it = with_queue();
    let (log, queue) = deliver_all(&mut it, 0);
    assert_eq!(it.place_of(log.token), Some((P0, Offset(0))));
    assert_eq!(it.place_of(queue.token), Some((QUEUE, Offset(0))));
    say_of_queue(&mut it, &queue, 0..4, VerbKind::Ack);
    commit(&mut it, true).unwrap();
    assert_eq!((it.place_of(queue.token), it.place_of(DeliveryToken(7))), (None, None));
}
