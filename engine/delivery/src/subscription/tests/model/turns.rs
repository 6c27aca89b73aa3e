//! Whose turn it is: what must hold of events when they are sent.

use levada_protocol::request::Order;

use super::{
    super::ConsumerId,
    setting::key_of,
    states::{At, Event},
};

/// An event that is sent was open and due, and nobody had it. In key order it may have come back from flight in this very
/// step, for the sake of an earlier one of its key that waited at the `start` of it.
pub(super) fn check_open(
    order: Order,
    (partition, offset): (usize, u64),
    start: &[Event],
    before: &[Event],
    now: u64,
) {
    let at = before[offset as usize].at;
    if at.is_open(now) {
        return;
    }
    let key = key_of(partition, offset).filter(|_| order == Order::Key);
    let waited = |earlier: u64| matches!(start[earlier as usize].at, At::Waiting { .. });
    let came_back = at.token().is_some() && at == start[offset as usize].at && key.is_some();
    let for_another = (0..offset).any(|it| key_of(partition, it) == key && waited(it));
    assert!(came_back && for_another, "{offset} of {partition} is sent at {now}, it was {at:?}");
}

/// Nothing that is sent overtakes what it has to follow.
pub(super) fn check(order: Order, consumer: ConsumerId, partition: usize, sent: &[u64], before: &[Event]) {
    match order {
        Order::None => {}
        Order::Key => check_keys(consumer, partition, sent, before),
        Order::Partition => {
            let elsewhere = before.iter().filter_map(|event| event.at.holder()).find(|it| *it != consumer);
            assert_eq!(elsewhere, None, "somebody else is not done with partition {partition}");
            let open = |event: &Event| matches!(event.at, At::Fresh | At::Waiting { .. });
            let ahead = before[..sent[0] as usize].iter().position(open);
            assert_eq!(ahead, None, "sent from {} on, in partition {partition}", sent[0]);
        }
    }
}

fn check_keys(consumer: ConsumerId, partition: usize, sent: &[u64], before: &[Event]) {
    for offset in sent.iter().filter(|offset| key_of(partition, **offset).is_some()) {
        let same = |at: &u64| key_of(partition, *at) == key_of(partition, *offset);
        for earlier in (0..*offset).filter(same).filter(|at| !sent.contains(at)) {
            let at = before[earlier as usize].at;
            let waits = matches!(at, At::Fresh | At::Waiting { .. });
            assert!(!waits, "{offset} overtakes {earlier}: {at:?}");
            assert!(at.holder().is_none_or(|it| it == consumer), "{offset}: {earlier} is elsewhere");
        }
    }
}
