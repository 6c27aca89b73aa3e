//! Facts about a subscription, one by one; `model` checks them all together on random operations.

mod facts;
mod handing;
mod keys;
mod model;
mod pacing;
mod queue;
mod store;
mod together;

use std::ops::Range;

use levada_protocol::{
    error::ErrorCode,
    ids::{DeliveryToken, Offset, PartitionId, Timestamp},
    request::Order,
    verbs::{Verb, VerbKind},
};

use super::{partition::Partition, *};
use crate::{backoff::Backoff, now::Now, progress::Progress};

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
        rate: None,
        dead_letter_expired: false,
        waiting_bytes_max: 64_000,
        failed_runs_max: Bounds::default().failed_runs_max,
        dead_letters_max: 64,
        seed: 70,
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
    let mut subscription = Subscription::new(&options, vec![progress], at(0));
    subscription.end(P0, Offset(end));
    subscription
}

impl Subscription {
    /// The first partition ends here now.
    fn extend_end(&mut self, end: u64) {
        self.end(P0, Offset(end));
    }
}

fn attach(subscription: &mut Subscription, consumer: ConsumerId) {
    subscription.attach(consumer).unwrap();
    subscription.grant(consumer, 1_000, 1_000_000);
}

/// What one delivery was.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Got {
    consumer: ConsumerId,
    range: Range<u64>,
    attempt: u16,
    token: DeliveryToken,
}

/// What a read brings.
#[derive(Debug, Default)]
struct Brought {
    filtered: Vec<Range<Offset>>,
    failed: Vec<Failed>,
}

/// Events of ten bytes each, in one chunk.
fn chunk(range: Range<u64>) -> Chunk {
    Chunk { bytes: (range.end - range.start) * 10, range: Offset(range.start)..Offset(range.end) }
}

/// Assigns what a fetch brought up to `reached`, in one chunk; at most one delivery is made.
fn assign(
    subscription: &mut Subscription,
    now: Now,
    fetch: Fetch,
    reached: u64,
    brought: &Brought,
) -> (u64, Option<Assignment>) {
    let chunks = [chunk(fetch.range.start.0..reached)];
    let Brought { filtered, failed } = brought;
    let fetched = Fetched { reached: Offset(reached), chunks: &chunks, filtered, failed, keys: None };
    let (mut asked, mut held) = (false, Vec::new());
    let mut assigned = subscription.assign(now, fetch, fetched, |consumer, wanted| {
        if std::mem::replace(&mut asked, true) {
            held.push(consumer);
        }
        held.is_empty().then_some(wanted.most)
    });
    held.into_iter().for_each(|consumer| subscription.hold(consumer, false));
    assert!(assigned.assignments.len() <= 1);
    (assigned.until.0, assigned.assignments.pop())
}

/// Fetches what is next and assigns it, cut to `events`, without filtering.
fn deliver(subscription: &mut Subscription, now: u64, events: u64) -> Option<Got> {
    let fetch = subscription.fetch(at(now))?;
    let (first, end) = (fetch.range.start.0, fetch.range.end.0);
    let reached = end.min(first.saturating_add(events));
    let (until, given) = assign(subscription, at(now), fetch, reached, &Brought::default());
    let given = given?;
    assert_eq!(given.events, until - first);
    subscription.sent(given.token, given.events * 10);
    // Its stream takes it at once.
    subscription.taken(given.consumer, u64::MAX);
    Some(Got { consumer: given.consumer, range: first..until, attempt: given.attempt, token: given.token })
}

/// Events without a durable end, over all partitions.
fn lag(subscription: &Subscription) -> u64 {
    subscription.ledger.partitions.iter().map(Partition::lag).sum()
}

/// Events that wait to be delivered again.
fn waiting(subscription: &Subscription) -> u64 {
    subscription.ledger.partitions.iter().map(Partition::waiting_len).sum()
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
    subscription.verb(at(now), got.consumer, &verb).map(|applied| applied.events)
}

fn commit(subscription: &mut Subscription, ok: bool) -> Option<(Settling, Vec<CameBack>)> {
    let settling = subscription.take_settling()?;
    let back = subscription.settled(settling.id, ok, at(0));
    Some((settling, back))
}
