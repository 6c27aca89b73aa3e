//! A durable subscription: what goes to which consumer, what became of it, and what of that to commit.
//!
//! Owns consumers with their credit, the cursors, deliveries in flight, redelivery, and the settle cycle. It must not
//! know events, bytes of batches, chains, connections or a store: its owner reads and sends what [`Subscription::next`]
//! asks for, and says what came of it. Every offset below a partition's end is in exactly one state:
//!
//! ```text
//!            delivered                verb: ack, reject              commit ok
//!   fresh ------------> in flight --------------------> settling ----------------> settled
//!                        |     ^     last attempt            |
//!       nack, timeout,   |     | delivered again             | commit failed
//!       consumer lost    v     |                             v
//!                       waiting              in flight again, or (filtered, lost, dead) settling again
//! ```
//!
//! Filtered offsets go from fresh to settling; those between the events of one delivery stay with it and settle along.
//! All bookkeeping is by runs of offsets: a whole delivery acknowledged costs a handful of map operations.
//!
//! With `order` key or partition one consumer is active, and when an event fails, it and everything in flight after it
//! in its partition come back in offset order; what lies behind waits until they are given again. With `none` a
//! failed event waits by itself.
//!
//! A delivery that failed goes to somebody else next, whenever there is somebody else with credit; where order matters
//! the active place changes hands for it. A consumer whose deliveries time out again and again gets nothing while others
//! take deliveries, until it says what became of one; where order matters, one that takes nothing gives its place up.

mod consumer;
mod deliver;
mod failing;
mod figures;
mod next;
mod partition;
mod settle;
#[cfg(test)]
mod tests;
mod verb;
mod waiting;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Range,
};

use levada_protocol::{
    error::ErrorCode,
    ids::{DeliveryToken, Offset, PartitionId},
    request::{Order, SubscriptionOptions},
};

use self::{
    consumer::Consumer,
    partition::{Flight, Partition},
    settle::{Outcome, Pending, Settle},
};
pub use self::{
    consumer::ConsumerId,
    deliver::{Delivered, Failed, Sent},
    figures::{Figures, PartitionFigures},
    next::{Wanted, WantedKind},
    settle::{CameBack, DeadLetter, Reason, Settling},
    verb::Applied,
};
use crate::{backoff::Backoff, now::Now, progress::Progress};

/// Most consumers of one subscription.
pub const CONSUMERS_MAX: usize = 1_024;
/// Most events that one [`Wanted`] asks for.
pub const DELIVERY_EVENTS_MAX: u64 = 16_384;
/// Most bytes that one [`Wanted`] asks for.
pub const DELIVERY_BYTES_MAX: u64 = 512 * 1024;

/// How a subscription delivers.
#[derive(Debug, Clone)]
pub struct Options {
    /// How several consumers share it. `Key` is as `Partition` in this version (decision 53).
    pub order: Order,
    /// Milliseconds after which an unacknowledged delivery is given again, without any further wait.
    pub ack_timeout_ms: u64,
    /// Failed deliveries after which an event becomes a dead letter; 0 is as 1.
    pub max_attempts: u16,
    /// Most unacknowledged events of one consumer.
    pub max_in_flight: u64,
    /// Most unacknowledged bytes of one consumer, exceeded by one delivery at most. Default 16 MiB (decision 45).
    pub max_in_flight_bytes: u64,
    /// How long an event waits that was given back without a delay or that lost its consumer while it was alone.
    pub backoff: Backoff,
    /// Most dead letters in one commit, so that a commit stays small. Default 64.
    pub dead_letters_max: u64,
    /// Where delivery tokens begin: random, so that a token of an earlier life means nothing in this one.
    pub token_seed: u64,
}

impl Options {
    /// What the subscription's catalogue record says, and defaults for the rest.
    pub fn new(options: &SubscriptionOptions, token_seed: u64) -> Self {
        Self {
            order: options.order(),
            ack_timeout_ms: u64::from(options.ack_timeout_ms()),
            max_attempts: options.max_attempts(),
            max_in_flight: u64::from(options.max_in_flight()),
            max_in_flight_bytes: 16 * 1024 * 1024,
            backoff: Backoff::default(),
            dead_letters_max: 64,
            token_seed,
        }
    }
}

/// The state of one subscription, over all partitions of its topic.
#[derive(Debug)]
pub struct Subscription {
    options: Options,
    partitions: Vec<Partition>,
    /// The first is the active one where order matters; it began in order of attachment.
    consumers: Vec<Consumer>,
    deliveries: BTreeMap<u64, Delivery>,
    /// When to look for timeouts, on the monotonic clock: deadline, token. A delivery's entry may be early, never late.
    timers: BTreeSet<(u64, u64)>,
    /// Partitions where something waits for redelivery.
    retrying: BTreeSet<usize>,
    /// Partitions whose cursor is not at their end.
    unread: BTreeSet<usize>,
    /// Partitions whose rows changed without anything settling.
    touched: BTreeSet<usize>,
    queue: VecDeque<Settle>,
    pending: Option<Pending>,
    /// Counts verbs that need a commit; `confirmed` is the last one that is durable.
    ticket: u64,
    confirmed: u64,
    commits: u64,
    reads: u64,
    next_token: u64,
    next_consumer: usize,
    next_partition: usize,
    /// Where order matters: since when the active consumer has taken nothing of what somebody else could have.
    starving_since: Option<u64>,
    totals: figures::Totals,
}

/// One delivery, until all its events are settled or given back.
#[derive(Debug)]
struct Delivery {
    consumer: ConsumerId,
    /// Which of its consumer's deliveries it is, from 1.
    number: u64,
    /// On the monotonic clock.
    sent_at: u64,
    partition: usize,
    range: Range<u64>,
    bytes: u64,
    /// Events in flight.
    events: u64,
    /// Parts in the settle queue or in the commit under way that would come back to flight.
    settling: usize,
    alone: bool,
    timer: u64,
}

/// Offsets that retention took before they were acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostRange {
    /// The partition.
    pub partition: PartitionId,
    /// The lowest lost offset.
    pub first: Offset,
    /// The highest lost offset; those between that were acknowledged or filtered are not lost.
    pub last: Offset,
    /// How many are lost.
    pub events: u64,
}

impl Subscription {
    /// A subscription at rest; `partitions` are all of the topic's, in order. Offsets below the highest one that is
    /// known to be settled or failed wait for delivery, those above it are fresh. What waits for its backoff goes on
    /// waiting, counted from `now`.
    pub fn new(options: Options, partitions: Vec<Progress>, now: Now) -> Self {
        let partitions = partitions.into_iter().map(|progress| Partition::new(progress, now));
        let partitions: Vec<Partition> = partitions.collect();
        let numbered = || partitions.iter().enumerate();
        Self {
            retrying: numbered().filter(|(_, it)| !it.waiting.is_empty()).map(|(at, _)| at).collect(),
            touched: numbered().filter(|(_, it)| it.progress.is_dirty()).map(|(at, _)| at).collect(),
            unread: BTreeSet::new(),
            next_token: options.token_seed,
            options,
            partitions,
            consumers: Vec::new(),
            deliveries: BTreeMap::new(),
            timers: BTreeSet::new(),
            queue: VecDeque::new(),
            pending: None,
            ticket: 0,
            confirmed: 0,
            commits: 0,
            reads: 0,
            next_consumer: 0,
            next_partition: 0,
            starving_since: None,
            totals: figures::Totals::default(),
        }
    }

    /// Adds a consumer without credit.
    ///
    /// # Errors
    /// `LimitExceeded` if there are [`CONSUMERS_MAX`].
    ///
    /// # Panics
    /// If a consumer of this id is attached: ids are the caller's, new for each.
    pub fn attach(&mut self, consumer: ConsumerId) -> Result<(), ErrorCode> {
        assert!(self.place_of(consumer).is_none(), "consumer {} is attached twice", consumer.0);
        if self.consumers.len() >= CONSUMERS_MAX {
            return Err(ErrorCode::LimitExceeded);
        }
        self.consumers.push(Consumer::new(consumer));
        Ok(())
    }

    /// Removes a consumer and takes its deliveries back at once. That counts no attempt but for an event that was
    /// delivered alone (decision 18); `seed` scatters the wait of such ones. What its stream had not taken does not even
    /// count as returned. What it acknowledged still settles.
    pub fn detach(&mut self, now: Now, consumer: ConsumerId, seed: u64) {
        let mut parts = Vec::new();
        for (token, delivery) in self.deliveries.iter().filter(|(_, delivery)| delivery.consumer == consumer)
        {
            let flights = &mut self.partitions[delivery.partition].flights;
            let taken = flights.take(&delivery.range, |flight| flight.token == *token);
            parts.extend(taken.into_iter().map(|(range, _)| (delivery.partition, range, *token)));
        }
        self.fail(now, parts, failing::Cause::ConsumerLost, seed);
        if let Some(place) = self.place_of(consumer) {
            self.consumers.remove(place);
        }
    }

    /// Lets a consumer receive this much more; what is left of earlier grants stays.
    pub fn grant(&mut self, consumer: ConsumerId, events: u64, bytes: u64) {
        if let Some(place) = self.place_of(consumer) {
            self.consumers[place].grant(events, bytes);
        }
    }

    /// Says how many of a consumer's deliveries its stream has taken, in the order in which they were made. One that it
    /// never took counts no attempt.
    pub fn taken(&mut self, consumer: ConsumerId, deliveries: u64) {
        if let Some(place) = self.place_of(consumer) {
            self.consumers[place].taken(deliveries);
        }
    }

    /// Keeps a consumer from getting anything while its stream takes nothing, or lets it have its turn again.
    pub fn hold(&mut self, consumer: ConsumerId, held: bool) {
        if let Some(place) = self.place_of(consumer) {
            self.consumers[place].held = held;
        }
    }

    /// How many events are in flight at a consumer.
    pub fn in_flight(&self, consumer: ConsumerId) -> u64 {
        self.place_of(consumer).map_or(0, |place| self.consumers[place].in_flight)
    }

    /// Attached consumers; the first is the active one where order matters.
    pub fn consumers(&self) -> impl Iterator<Item = ConsumerId> {
        self.consumers.iter().map(|consumer| consumer.id)
    }

    /// Reports a partition's durable end. One that lies below an earlier one changes nothing.
    pub fn end(&mut self, partition: PartitionId, end: Offset) {
        let part = &mut self.partitions[usize::from(partition.0)];
        part.end = part.end.max(end.0);
        self.note_fresh(usize::from(partition.0));
    }

    /// Reports where a partition's log begins. What lies before it and is neither settled nor settling is lost: it
    /// counts as settled and is answered here, once.
    pub fn lost(&mut self, partition: PartitionId, log_start: Offset) -> Option<LostRange> {
        let place = usize::from(partition.0);
        let before = 0..log_start.0;
        if log_start.0 <= self.partitions[place].log_start {
            return None;
        }
        self.partitions[place].log_start = log_start.0;
        let mut lost = Vec::new();
        // Filtered offsets that follow go along, for what stays in flight must hold an event.
        let flown = self.partitions[place].widen(&before, &(0..u64::MAX));
        for (range, flight) in self.partitions[place].flights.take(&flown, |_| true) {
            self.release(place, &range, flight.token);
            lost.extend(self.drop_filtered(place, &range));
        }
        let part = &mut self.partitions[place];
        lost.extend(part.waiting.take(&before));
        if part.cursor < log_start.0 {
            lost.push(part.cursor..log_start.0);
            part.cursor = log_start.0;
            part.end = part.end.max(log_start.0);
        }
        self.note_waiting(place);
        self.note_fresh(place);
        let (first, last) = (lost.iter().map(|it| it.start).min()?, lost.iter().map(|it| it.end - 1).max()?);
        let events = lost.iter().map(|range| range.end - range.start).sum();
        for range in lost {
            self.partitions[place].dropped.insert(range.clone());
            self.queue(place, range, Outcome::Dropped);
        }
        self.totals.lost += events;
        Some(LostRange { partition, first: Offset(first), last: Offset(last), events })
    }

    /// Takes back what is past its deadline, as a failed attempt unless its consumer's stream never took it; answers how
    /// many events. `taken` says how many of a consumer's deliveries its stream has taken, as [`Subscription::taken`].
    pub fn on_time(&mut self, now: Now, taken: impl Fn(ConsumerId) -> u64) -> u64 {
        let mut expired = Vec::new();
        while let Some((at, token)) = self.timers.first().copied().filter(|(at, _)| *at <= now.mono_ms) {
            self.timers.remove(&(at, token));
            let delivery = self.deliveries.get_mut(&token).expect("a timer's delivery has events in flight");
            let flights = &mut self.partitions[delivery.partition].flights;
            let due = |flight: &Flight| flight.token == token && flight.deadline <= now.mono_ms;
            for (range, _) in flights.take(&delivery.range, due) {
                expired.push((delivery.partition, range, token));
            }
            let left = flights.parts_in(&delivery.range).filter(|(_, flight)| flight.token == token);
            if let Some(deadline) = left.map(|(_, flight)| flight.deadline).min() {
                delivery.timer = deadline;
                self.timers.insert((deadline, token));
            }
        }
        for (_, _, token) in &expired {
            let delivery = &self.deliveries[token];
            if let Some(holder) = self.consumers.iter_mut().find(|it| it.id == delivery.consumer) {
                holder.lapse(delivery.sent_at, now.mono_ms);
                holder.taken(taken(holder.id));
            }
        }
        let events = self.fail(now, expired, failing::Cause::Timeout, 0);
        self.totals.expired += events;
        events
    }

    /// When something happens by itself after `now`, on the monotonic clock: a delivery times out, one that waits becomes
    /// due, or the active place changes hands.
    pub fn next_deadline(&self, now: Now) -> Option<u64> {
        let timeout = self.timers.first().map(|(at, _)| *at);
        let due = self
            .retrying
            .iter()
            .filter_map(|place| self.partitions[*place].waiting.next_due(now.mono_ms))
            .min();
        let handed = self.starving_since.map(|since| since.saturating_add(next::PATIENCE_MS));
        let handed = handed.filter(|at| *at > now.mono_ms);
        timeout.into_iter().chain(due).chain(handed).min()
    }

    fn place_of(&self, consumer: ConsumerId) -> Option<usize> {
        self.consumers.iter().position(|it| it.id == consumer)
    }

    fn is_ordered(&self) -> bool {
        match self.options.order {
            Order::Key | Order::Partition => true,
            Order::None => false,
        }
    }

    /// Books a part that was taken out of flight off its delivery and consumer; answers how many events it holds.
    fn release(&mut self, partition: usize, range: &Range<u64>, token: u64) -> u64 {
        let events = self.partitions[partition].events_in(range);
        if events == 0 {
            return 0;
        }
        let delivery = self.deliveries.get_mut(&token).expect("what is in flight has a delivery");
        delivery.events -= events;
        let ended = delivery.events == 0;
        let consumer = self.consumers.iter_mut().find(|it| it.id == delivery.consumer);
        let consumer = consumer.expect("a consumer's deliveries end before it does");
        consumer.in_flight -= events;
        if ended {
            consumer.in_flight_bytes -= delivery.bytes;
            consumer.alone &= !delivery.alone;
            self.timers.remove(&(delivery.timer, token));
            if delivery.settling == 0 {
                self.deliveries.remove(&token);
            }
        }
        events
    }

    fn token(&mut self) -> DeliveryToken {
        self.next_token = self.next_token.wrapping_add(1);
        DeliveryToken(self.next_token)
    }

    /// Keeps `unread` true after a partition's cursor or end moved.
    fn note_fresh(&mut self, partition: usize) {
        let part = &self.partitions[partition];
        if part.cursor < part.end {
            self.unread.insert(partition);
        } else {
            self.unread.remove(&partition);
        }
    }

    /// Keeps `retrying` true after a partition's waiting runs changed.
    fn note_waiting(&mut self, partition: usize) {
        if self.partitions[partition].waiting.is_empty() {
            self.retrying.remove(&partition);
        } else {
            self.retrying.insert(partition);
        }
    }
}
