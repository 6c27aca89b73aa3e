//! The subscription's own books: they agree with each other, and with the model.

use std::collections::BTreeSet;

use levada_protocol::request::Order;

use super::{
    super::{super::partition::Partition, Subscription, lag},
    credits::Credits,
    events::Events,
    setting::{PARTITIONS, key_of},
    states::{At, Why},
};

/// Checks all of them.
pub(super) fn check(it: &mut Subscription, order: Order, events: &Events, credits: &Credits) {
    if order == Order::Key {
        check_keys(it, events);
    }
    check_partitions(it, events);
    let consumers = &it.ledger.consumers;
    for consumer in consumers.list() {
        assert_eq!(consumer.in_flight(), events.held_by(consumer.id()) as u64);
        assert_eq!(consumer.in_flight_bytes(), credits.bytes_in_flight(events, consumer.id()));
        let credit = credits.of(consumer.id());
        assert_eq!(consumer.credit(), (credit.events, credit.bytes), "{:?}", consumer.id());
    }
    assert_eq!(consumers.in_flight(), consumers.list().iter().map(|it| it.in_flight()).sum::<u64>());
    let flying = events.iter().filter_map(|event| event.at.token()).collect();
    assert_eq!(it.ledger.deliveries.timed(), flying);
}

/// Nothing of a key is in flight behind an event of it that waits.
fn check_keys(it: &mut Subscription, events: &Events) {
    for partition in 0..PARTITIONS {
        if !it.sharing.knows_keys(partition) {
            continue;
        }
        let mut blocked = BTreeSet::new();
        for (offset, event) in (0..).zip(&events[partition]) {
            let Some(key) = key_of(partition, offset) else { continue };
            match event.at {
                At::Waiting { .. } => drop(blocked.insert(key)),
                At::Flight { .. } => assert!(!blocked.contains(&key), "{offset} of {partition} is ahead"),
                _ => {}
            }
        }
    }
}

/// Each offset is in one state, the model's.
fn check_partitions(it: &Subscription, events: &Events) {
    let mut open = 0;
    let (partitions, settlement) = (&it.ledger.partitions, &it.ledger.settlement);
    let has = |mut set: Box<dyn Iterator<Item = (usize, &Partition)> + '_>, partition: usize| {
        set.any(|(index, _)| index == partition)
    };
    for (partition, part) in partitions.iter().enumerate() {
        assert_eq!(has(Box::new(partitions.retrying()), partition), part.has_waiting());
        assert_eq!(has(Box::new(partitions.unread()), partition), part.is_behind());
        for (offset, event) in (0..).zip(&events[partition]) {
            let state = part.state_of(offset);
            let queued = settlement.queued(partition, offset);
            let states = [state.in_flight.is_some(), state.waits, state.settled, state.fresh];
            let count = states.iter().filter(|is_so| **is_so).count() + queued;
            assert_eq!(count, 1, "offset {offset} of {partition}: {state:?}, {queued} queued");
            if let Some((token, _)) = state.in_flight {
                assert!(it.ledger.deliveries.get(token).is_some(), "{offset} of {partition}: {state:?}");
            }
            match event.at {
                At::Fresh => assert!(state.fresh),
                At::Waiting { .. } => assert!(state.waits, "{offset} of {partition}"),
                At::Flight { token, deadline, .. } => {
                    assert_eq!(
                        state.in_flight,
                        Some((token, deadline)),
                        "{offset} of {partition}: {state:?}"
                    );
                    assert!(!state.dropped);
                }
                At::Settling(Why::Dropped | Why::Lost) => assert!(state.dropped),
                At::Settling(_) => assert_eq!(queued, 1),
                At::Submitted(_) | At::Done => assert!(state.settled),
            }
            let needed = matches!(event.at, At::Fresh | At::Waiting { .. } | At::Flight { .. });
            assert!(!needed || part.needs(&(offset..offset + 1)), "{offset} of {partition}");
            let gone = matches!(
                event.at,
                At::Done | At::Settling(Why::Dropped | Why::Lost) | At::Submitted(Why::Dropped | Why::Lost)
            );
            open += u64::from(!gone);
        }
    }
    assert_eq!(lag(it), open);
}
