//! Facts about a subscription, one by one; `model` checks them all together on random operations.

mod facts;
mod handing;
mod model;
mod store;

use levada_protocol::{
    error::ErrorCode,
    ids::{DeliveryToken, Offset, PartitionId, Timestamp},
    request::Order,
    verbs::{Verb, VerbKind},
};

use super::*;

const P0: PartitionId = PartitionId(0);
const A: ConsumerId = ConsumerId(1);
const B: ConsumerId = ConsumerId(2);
const TIMEOUT: u64 = 1_000;

fn options(order: Order) -> Options {
    Options {
        order,
        ack_timeout_ms: TIMEOUT,
        max_attempts: 3,
        max_in_flight: 100,
        max_in_flight_bytes: 100_000,
        backoff: Backoff::new(vec![100, 500]),
        dead_letters_max: 64,
        token_seed: 70,
    }
}

/// This moment, on both clocks alike.
fn at(ms: u64) -> Now {
    Now { mono_ms: ms, wall: Timestamp(ms) }
}

/// One partition that ends at `end`, its head row written.
fn subscription(order: Order, end: u64) -> Subscription {
    subscription_with(options(order), end)
}

fn subscription_with(options: Options, end: u64) -> Subscription {
    let mut progress = Progress::new(Offset(0), 1);
    progress.take_dirty();
    let mut subscription = Subscription::new(options, vec![progress], at(0));
    subscription.end(P0, Offset(end));
    subscription
}

fn attach(subscription: &mut Subscription, consumer: ConsumerId) {
    subscription.attach(consumer).unwrap();
    subscription.grant(consumer, 1_000, 1_000_000);
}

/// What one delivery of up to `events` events was.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Got {
    consumer: ConsumerId,
    range: Range<u64>,
    attempt: u16,
    token: DeliveryToken,
}

/// Takes what is next, cut to `events`, without filtering.
fn deliver(subscription: &mut Subscription, now: u64, events: u64) -> Option<Got> {
    let wanted = subscription.next(at(now))?;
    let events = events.min(wanted.events_max).min(wanted.last.0 + 1 - wanted.first.0);
    let (consumer, first) = (wanted.consumer, wanted.first);
    let sent = Sent { last: Offset(first.0 + events - 1), bytes: events * 10, filtered: &[], failed: &[] };
    let delivered = subscription.delivered(at(now), wanted, sent).unwrap();
    assert_eq!(delivered.events, events);
    // Its stream takes it at once.
    subscription.taken(consumer, u64::MAX);
    let range = first.0..first.0 + events;
    Some(Got { consumer, range, attempt: delivered.attempt, token: delivered.token })
}

fn verb(got: &Got, range: Range<u64>, kind: VerbKind) -> Verb {
    let (first, last) = (Offset(range.start), Offset(range.end - 1));
    Verb { kind, partition: P0, token: got.token, first, last }
}

fn say(
    subscription: &mut Subscription,
    now: u64,
    got: &Got,
    range: Range<u64>,
    kind: VerbKind,
) -> Result<u64, ErrorCode> {
    let verb = verb(got, range, kind);
    subscription.verb(at(now), got.consumer, &verb, 7).map(|applied| applied.events)
}

fn commit(subscription: &mut Subscription, ok: bool) -> Option<(Settling, Vec<CameBack>)> {
    let settling = subscription.take_settling()?;
    let back = subscription.settled(settling.id, ok, at(0));
    Some((settling, back))
}
