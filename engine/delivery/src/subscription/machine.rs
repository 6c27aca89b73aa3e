//! The subscription itself: what happens to it and what follows, put together of its parts.
//!
//! Every step of an offset is the ledger's; who gets what is the policy's; when to give up is the retry policy's.

use std::{collections::BTreeSet, ops::Range};

use levada_protocol::{
    error::ErrorCode,
    ids::{DeliveryToken, Offset, PartitionId},
    verbs::{Verb, VerbKind},
};

use super::{
    consumer::{ConsumerId, Room},
    consumers::Consumers,
    dead_letter::Reason,
    deliveries::Deliveries,
    effects::{Acked, Applied, CameBack, LostRange, Settling},
    fetch::{Assigned, Assignment, Contents, FETCH_BYTES_MAX, Fetch, Fetched, Wanted},
    ledger::Ledger,
    options::Options,
    partition::Partition,
    partitions::{index, partition_id},
    retry::{Cause, Next, RetryPolicy},
    settlement::{Outcome, Settlement},
    sharing::{Choice, Sharing, Stretch},
    standstill::{self, WaitsFor},
    stats::{PartitionStats, Stats},
    waiting::Wait,
};
use crate::{now::Now, pace::Pace, progress::Progress};

/// The state of one subscription, over all partitions of its topic.
#[derive(Debug)]
pub struct Subscription {
    pub(super) sharing: Sharing,
    retry: RetryPolicy,
    pub(super) ledger: Ledger,
    fetches: u64,
    pace: Option<Pace>,
    /// Something could be delivered, if the pace allowed it.
    is_paced_out: bool,
}

impl Subscription {
    /// A subscription at rest; `partitions` are all of the topic's, in order. Offsets below the highest one that is
    /// known to be settled or failed wait for delivery, those above it are fresh. What waits for its backoff continues to
    /// wait, counted from `now`.
    pub fn new(options: &Options, partitions: Vec<Progress>, now: Now) -> Self {
        let partitions = partitions.into_iter().map(|progress| Partition::new(progress, now)).collect();
        let ledger = Ledger::new(
            partitions,
            Consumers::new(options.in_flight_max()),
            Deliveries::new(options.seed),
            Settlement::new(options.dead_letters_max),
            options,
        );
        let (sharing, retry) = (Sharing::new(options, &ledger), RetryPolicy::new(options));
        let pace = options.rate.map(|rate| Pace::new(rate, now.mono_ms));
        Self { sharing, retry, ledger, fetches: 0, pace, is_paced_out: false }
    }

    /// Applies other options from now on, except for the order and the seed, which stay as they were. What is in flight
    /// keeps its deadline, and what waits its time.
    pub fn set_options(&mut self, options: &Options, now: Now) {
        self.retry.set(options);
        self.ledger.set(options);
        if self.pace.as_ref().map(Pace::per_second) != options.rate {
            self.pace = options.rate.map(|rate| Pace::new(rate, now.mono_ms));
        }
    }

    /// One of the partitions is no log: its events are deleted when they come to their end, which
    /// [`Settling::dequeued`] says. Everything else is as for any partition.
    pub fn set_queue(&mut self, queue: PartitionId) {
        self.ledger.set_queue(index(queue));
    }

    /// Where a delivery is that is not over: its partition, and its first offset.
    pub fn place_of(&self, token: DeliveryToken) -> Option<(PartitionId, Offset)> {
        let delivery = self.ledger.deliveries.get(token.0)?;
        Some((partition_id(delivery.partition()), Offset(delivery.range().start)))
    }

    /// Adds a consumer without credit.
    ///
    /// # Errors
    /// `LimitExceeded` if there are [`super::CONSUMERS_MAX`].
    ///
    /// # Panics
    /// If a consumer of this id is attached: ids are the caller's, new for each.
    pub fn attach(&mut self, consumer: ConsumerId) -> Result<(), ErrorCode> {
        self.ledger.consumers.attach(consumer)
    }

    /// Removes a consumer and takes its deliveries back at once. That counts no attempt but for an event that was
    /// delivered alone (decision 18). What its stream had not taken does not even count as returned. What it
    /// acknowledged still settles.
    pub fn detach(&mut self, now: Now, consumer: ConsumerId) {
        let parts = self.ledger.deliveries.of(consumer).into_iter();
        let parts = parts.flat_map(|token| self.take_in_flight(token, u64::MAX)).collect();
        self.fail(now, parts, Cause::ConsumerLost);
        self.ledger.consumers.detach(consumer);
    }

    /// Lets a consumer receive this much more; what is left of earlier grants stays.
    pub fn grant(&mut self, consumer: ConsumerId, events: u64, bytes: u64) {
        if let Some(consumer) = self.ledger.consumers.find_mut(consumer) {
            consumer.grant(events, bytes);
        }
    }

    /// Says how many of a consumer's deliveries its stream has taken, in the order in which they were made. One that it
    /// never took counts no attempt.
    pub fn taken(&mut self, consumer: ConsumerId, deliveries: u64) {
        if let Some(consumer) = self.ledger.consumers.find_mut(consumer) {
            consumer.taken(deliveries);
        }
    }

    /// Keeps a consumer from getting anything while its stream takes nothing, or lets it have its turn again.
    pub fn hold(&mut self, consumer: ConsumerId, held: bool) {
        if let Some(consumer) = self.ledger.consumers.find_mut(consumer) {
            consumer.hold(held);
        }
    }

    /// Reports a partition's durable end. One that is below an earlier one changes nothing.
    pub fn end(&mut self, partition: PartitionId, end: Offset) {
        self.ledger.partitions.update(index(partition), |it| it.extend(end.0));
    }

    /// Reports where a partition's log begins. What is before it and is neither settled nor settling is lost: it
    /// counts as settled and is returned here, once. [`Settling::lost`] says of it when that is to be made durable.
    pub fn lost(&mut self, partition: PartitionId, log_start: Offset) -> Option<LostRange> {
        let lost = self.ledger.lose(partition, log_start);
        if lost.is_some() {
            self.sharing.left(&mut self.ledger, index(partition), &(0..log_start.0));
        }
        lost
    }

    /// What to read next; `None` until time passes (see [`Subscription::next_deadline`]), the end moves, a verb, a
    /// grant or a commit comes, or a fetch under way ends.
    ///
    /// Of one partition, fresh offsets and offsets to be delivered again may be under way at once.
    pub fn fetch(&mut self, now: Now) -> Option<Fetch> {
        self.is_paced_out = false;
        if self.ledger.settlement.has_many_dead_letters() {
            return None;
        }
        self.sharing.prepare(&mut self.ledger, now.mono_ms);
        let choice = self.sharing.policy().choose(&self.ledger, now.mono_ms);
        self.is_paced_out = choice.is_some() && self.allowance(now) == 0;
        let Choice { partition, run } = choice.filter(|_| !self.is_paced_out)?;
        let (again, needs_keys) = (run.again.is_some(), self.sharing.by_key().is_some());
        self.ledger.partitions.update(partition, |it| it.set_fetching(again, true));
        self.ledger.partitions.set_next(partition + 1);
        self.fetches += 1;
        let room = self.ledger.consumers.with_room().map(|(_, room)| room.bytes);
        // What was sent before is read for its keys as well, whatever there is room for.
        let for_keys = needs_keys && again;
        let bytes_max = if for_keys { u64::MAX } else { room.fold(0, u64::saturating_add) };
        let bytes_max = bytes_max.min(FETCH_BYTES_MAX);
        Some(Fetch {
            id: self.fetches,
            partition: partition_id(partition),
            range: Offset(run.range.start)..Offset(run.range.end),
            bytes_max,
            needs_keys,
            again,
        })
    }

    /// Assigns what was fetched to consumers, as things are now: that may be less than what was fetched, and nothing if
    /// an earlier event came back or retention took it. `room` says how many bytes a consumer's stream takes; `None` if
    /// none, which holds the consumer until [`Subscription::hold`] releases it.
    pub fn assign(
        &mut self,
        now: Now,
        fetch: Fetch,
        fetched: Fetched<'_>,
        mut room: impl FnMut(ConsumerId, Wanted) -> Option<u64>,
    ) -> Assigned {
        let (partition, mut at) = (index(fetch.partition), fetch.range.start.0);
        let (again, needs_keys) = (fetch.again, fetch.needs_keys);
        self.abandon(fetch);
        self.sharing.prepare(&mut self.ledger, now.mono_ms);
        let contents = Contents::new(fetched);
        let mut allowance = self.allowance(now);
        let by_key = self.sharing.by_key();
        if by_key.is_some() != needs_keys {
            // Whether keys matter has changed meanwhile: it is read again.
            return Assigned { until: Offset(at), assignments: Vec::new() };
        }
        if let Some(by_key) = by_key {
            let range = at..fetched.reached.0.max(at);
            let stretch = Stretch { partition, range: range.clone(), again, contents: &contents };
            let assigned = by_key.assign(&mut self.ledger, now, &stretch, allowance, &mut room);
            self.spend(&assigned.assignments);
            // Where it is the pace that ended it, others have their turn.
            let given: u64 = assigned.assignments.iter().map(|assignment| assignment.events).sum();
            let more = assigned.until.0 < range.end && given < allowance;
            self.ledger.partitions.set_next(if more { partition } else { partition + 1 });
            return assigned;
        }
        let mut assignments = Vec::new();
        while at < fetched.reached.0 {
            let Some(policy) = self.sharing.by_runs() else { break };
            let Some(mut run) = policy.run_at(&self.ledger, partition, at, now.mono_ms) else { break };
            run.range.end = run.range.end.min(fetched.reached.0);
            if contents.events_in(&run.range) == 0 {
                self.ledger.use_up(now, partition, &run.range, run.again.is_none(), &contents);
                at = run.range.end;
                continue;
            }
            let Some((slot, mut limit)) =
                policy.taker(&self.ledger, &run, now.mono_ms).filter(|_| allowance > 0)
            else {
                break;
            };
            let consumer = self.ledger.consumers.list()[slot].id();
            let least = contents.cut(&run.range, Room { bytes: 0, ..limit }).bytes;
            let Some(bytes) = room(consumer, Wanted { least, most: limit.bytes }) else {
                self.hold(consumer, true);
                continue;
            };
            limit = Room { events: limit.events.min(allowance), bytes: limit.bytes.min(bytes) };
            let cut = contents.cut(&run.range, limit);
            at = cut.end;
            allowance -= cut.events;
            assignments.push(self.ledger.deliver(now, partition, &run, cut, slot, &contents));
        }
        self.spend(&assignments);
        // What is left of a partition goes before others, for it has been read already; unless the pace ended it.
        let more = at < fetched.reached.0 && allowance > 0;
        self.ledger.partitions.set_next(if more { partition } else { partition + 1 });
        Assigned { until: Offset(at), assignments }
    }

    /// How many events the pace allows now.
    fn allowance(&mut self, now: Now) -> u64 {
        self.pace.as_mut().map_or(u64::MAX, |pace| pace.available(now.mono_ms))
    }

    /// Takes what was delivered off the pace.
    fn spend(&mut self, assignments: &[Assignment]) {
        if let Some(pace) = &mut self.pace {
            pace.take(assignments.iter().map(|assignment| assignment.events).sum());
        }
    }

    /// Ends a fetch that brought nothing. The same will be asked for again at once: find out why first.
    pub fn abandon(&mut self, fetch: Fetch) {
        self.ledger.partitions.update(index(fetch.partition), |it| it.set_fetching(fetch.again, false));
    }

    /// Reports the real size of a delivery that was sent.
    pub fn sent(&mut self, token: DeliveryToken, bytes: u64) {
        if let Some((consumer, resized)) = self.ledger.deliveries.resize(token.0, bytes)
            && let Some(consumer) = self.ledger.consumers.find_mut(consumer)
        {
            consumer.correct(resized);
        }
    }

    /// Takes back a delivery that could not be sent: its consumer has the credit for it again; the rate counts it. Of
    /// several, the last one is to be the first: what comes back behind another one is not known any more.
    pub fn recall(&mut self, now: Now, token: DeliveryToken) {
        if let Some((consumer, unsent)) = self.ledger.deliveries.unsend(token.0)
            && let Some(consumer) = self.ledger.consumers.find_mut(consumer)
        {
            consumer.unsend(unsent);
        }
        let parts = self.take_in_flight(token.0, u64::MAX);
        self.fail(now, parts, Cause::Untaken);
    }

    /// Applies a verb. Offsets of its range that are not in flight with its token do not matter, as long as one
    /// event is.
    ///
    /// # Errors
    /// `DeliveryExpired` if no event of the range is in flight with this token at this consumer: it timed out, was
    /// given back or was settled before. No delivery is changed.
    pub fn verb(&mut self, now: Now, consumer: ConsumerId, verb: &Verb) -> Result<Applied, ErrorCode> {
        // Late or not, a consumer that ends a delivery is alive and works.
        if verb.kind != VerbKind::InProgress
            && let Some(consumer) = self.ledger.consumers.find_mut(consumer)
        {
            consumer.respond();
        }
        let token = verb.token.0;
        let delivery = self.ledger.deliveries.get(token).filter(|it| it.consumer() == consumer);
        let delivery = delivery.filter(|it| it.partition() == index(verb.partition));
        let delivery = delivery.ok_or(ErrorCode::DeliveryExpired)?;
        let (partition, within) = (delivery.partition(), delivery.range().clone());
        let (sent, age) = (delivery.sent(), now.mono_ms.saturating_sub(delivery.sent_at()));
        let named = verb.first.0..verb.last.0.saturating_add(1);
        let range = self.part_of(partition, &named, &within).ok_or(ErrorCode::DeliveryExpired)?;
        let events = self.ledger.partitions.get(partition).events_in_flight(&range, token);
        if events == 0 {
            return Err(ErrorCode::DeliveryExpired);
        }
        let taken = self.ledger.partitions.update(partition, |it| it.take_in_flight(&range, token, u64::MAX));
        if verb.kind != VerbKind::InProgress {
            self.ledger.settlement.accept_verb();
        }
        let books = self.ledger.partitions.get(partition);
        let mut left = taken.clone();
        let (taken, filtered): (Vec<_>, Vec<_>) = taken.into_iter().partition(|it| books.events_in(it) > 0);
        if let VerbKind::Nack { .. } | VerbKind::InProgress = verb.kind {
            // Of what fails, the policy hears with the failure; what is extended stays.
            left.clone_from(&filtered);
        }
        filtered.into_iter().for_each(|it| self.ledger.settlement.push(partition, it, Outcome::Dropped));
        match &verb.kind {
            VerbKind::Ack => taken.into_iter().for_each(|it| self.ledger.acknowledge(partition, it, token)),
            VerbKind::Reject { reason, kind } => {
                let reason = Reason::rejected(reason.clone(), *kind);
                taken.iter().for_each(|it| self.ledger.reject(now, partition, it, token, &reason));
            }
            VerbKind::Nack { delay_ms } => {
                let parts = taken.into_iter().map(|range| (partition, range, token)).collect();
                self.fail(now, parts, Cause::Nack { delay_ms: *delay_ms });
                self.ledger.partitions.touch(partition);
            }
            VerbKind::InProgress => {
                let deadline = self.ledger.deadline(now);
                self.ledger.deliveries.keep_until(token, deadline);
                self.ledger.partitions.update(partition, |it| {
                    taken.into_iter().for_each(|range| it.put_in_flight(range, token, deadline));
                });
            }
        }
        left.iter().for_each(|part| self.sharing.left(&mut self.ledger, partition, part));
        if verb.kind == VerbKind::Ack
            && self.ledger.deliveries.get(token).is_none_or(|delivery| delivery.is_over())
            && let Some(consumer) = self.ledger.consumers.find_mut(consumer)
        {
            consumer.settled(sent, age);
        }
        Ok(Applied { events, ticket: self.ledger.settlement.ticket() })
    }

    /// The part of a delivery's range that a verb is about, with the filtered offsets beside it; `None` if it is empty.
    fn part_of(&self, partition: usize, named: &Range<u64>, within: &Range<u64>) -> Option<Range<u64>> {
        let range = named.start.max(within.start)..named.end.min(within.end);
        (!range.is_empty()).then(|| self.ledger.partitions.get(partition).widen(&range, within))
    }

    /// Acknowledges events of several deliveries as one transaction: their [`Settling`] has this number and holds nothing
    /// else. If it is refused they are in flight again, as after a verb that could not be committed.
    ///
    /// # Errors
    /// `DeliveryExpired` if not all of these events are in flight with their tokens. No delivery is changed.
    pub fn acknowledge_all(&mut self, transaction: u64, acked: &[Acked]) -> Result<(), ErrorCode> {
        let mut parts = Vec::with_capacity(acked.len());
        for ack in acked {
            let token = ack.token.0;
            let delivery = self.ledger.deliveries.get(token);
            let delivery = delivery.filter(|it| it.partition() == index(ack.partition));
            let delivery = delivery.ok_or(ErrorCode::DeliveryExpired)?;
            let (partition, within) = (delivery.partition(), delivery.range().clone());
            let named = ack.first.0..ack.last.0.saturating_add(1);
            let range = self.part_of(partition, &named, &within).ok_or(ErrorCode::DeliveryExpired)?;
            let books = self.ledger.partitions.get(partition);
            if ack.events == 0 || books.events_in_flight(&range, token) != ack.events {
                return Err(ErrorCode::DeliveryExpired);
            }
            parts.push((partition, range, token));
        }
        self.ledger.settlement.set_transaction(Some(transaction));
        for (partition, range, token) in parts {
            let taken =
                self.ledger.partitions.update(partition, |it| it.take_in_flight(&range, token, u64::MAX));
            if let Some(consumer) = self.ledger.deliveries.get(token).map(|it| it.consumer())
                && let Some(consumer) = self.ledger.consumers.find_mut(consumer)
            {
                consumer.respond();
            }
            for part in &taken {
                if self.ledger.partitions.get(partition).events_in(part) > 0 {
                    self.ledger.acknowledge(partition, part.clone(), token);
                } else {
                    self.ledger.settlement.push(partition, part.clone(), Outcome::Dropped);
                }
            }
            taken.iter().for_each(|part| self.sharing.left(&mut self.ledger, partition, part));
        }
        self.ledger.settlement.set_transaction(None);
        Ok(())
    }

    /// Every verb with a ticket up to this one has taken effect durably.
    pub fn confirmed(&self) -> u64 {
        self.ledger.settlement.confirmed()
    }

    /// Takes back what is past its deadline, as a failed attempt unless its consumer's stream never took it; returns how
    /// many events. `taken` says how many of a consumer's deliveries its stream has taken, as [`Subscription::taken`].
    pub fn on_time(&mut self, now: Now, taken: impl Fn(ConsumerId) -> u64) -> u64 {
        let mut expired = Vec::new();
        while let Some(token) = self.ledger.deliveries.pop_timer(now.mono_ms) {
            expired.extend(self.take_in_flight(token, now.mono_ms));
            let delivery =
                self.ledger.deliveries.get(token).expect("a timer's delivery has events in flight");
            let partition = self.ledger.partitions.get(delivery.partition());
            if let Some(deadline) = partition.next_deadline(delivery.range(), token) {
                self.ledger.deliveries.set_timer(token, deadline);
            }
        }
        for (_, _, token) in &expired {
            let delivery = self.ledger.deliveries.get(*token).expect("what is in flight has a delivery");
            if let Some(holder) = self.ledger.consumers.find_mut(delivery.consumer()) {
                holder.lapse(delivery.sent_at(), now.mono_ms);
                holder.taken(taken(holder.id()));
            }
        }
        let events = self.fail(now, expired, Cause::Timeout);
        self.ledger.totals.timed_out += events;
        events
    }

    /// When something happens by itself after `now`, on the monotonic clock: a delivery times out, one that waits becomes
    /// due, the active slot changes hands, or the rate allows more.
    pub fn next_deadline(&self, now: Now) -> Option<u64> {
        let due = self.ledger.partitions.retrying().filter_map(|(_, it)| it.next_due(now.mono_ms));
        let due = due.map(|(due, _)| due).min();
        let timers = self.ledger.deliveries.next_timer().into_iter();
        let paced = self.pace.as_ref().filter(|_| self.is_paced_out).map(Pace::ready_at);
        let paced = paced.filter(|ready| *ready > now.mono_ms);
        timers.chain(due).chain(self.sharing.policy().next_deadline(now.mono_ms)).chain(paced).min()
    }

    /// Everything for the next commit; `None` if there is nothing, or while a commit is under way.
    pub fn take_settling(&mut self) -> Option<Settling> {
        self.ledger.begin_commit()
    }

    /// Ends the commit `id`. If it was refused, what consumers settled is theirs again with a new deadline, and is
    /// returned; everything else is part of the next commit.
    ///
    /// # Panics
    /// If `id` is not the commit under way.
    pub fn settled(&mut self, id: u64, durable: bool, now: Now) -> Vec<CameBack> {
        if durable {
            self.ledger.commit(id);
            return Vec::new();
        }
        let mut back = Vec::new();
        let parts = self.ledger.undo_commit(id);
        let partitions: BTreeSet<usize> = parts.iter().map(|(partition, ..)| *partition).collect();
        for (partition, range, token) in parts {
            let Some(consumer) = self.ledger.deliveries.get(token).map(|it| it.consumer()) else { continue };
            let keeper = self.sharing.policy().keeps(&self.ledger, partition, &range, consumer, now.mono_ms);
            back.extend(self.ledger.put_back(now, partition, range.clone(), token, keeper));
            self.sharing.reopened(&self.ledger, partition, &range);
        }
        for partition in partitions {
            // Retention may have passed what came back; then it is lost after all.
            let log_start = self.ledger.partitions.update(partition, Partition::take_start);
            self.lost(partition_id(partition), Offset(log_start));
        }
        back
    }

    /// Has a commit come next, though nothing of this partition has changed: the caller has something to store with it.
    pub fn touch(&mut self, partition: PartitionId) {
        self.ledger.partitions.touch(index(partition));
    }

    /// How many events are in flight at a consumer.
    pub fn in_flight(&self, consumer: ConsumerId) -> u64 {
        self.ledger.consumers.find(consumer).map_or(0, |consumer| consumer.in_flight())
    }

    /// Attached consumers; the first is the active one where order matters.
    pub fn consumers(&self) -> impl Iterator<Item = ConsumerId> {
        self.ledger.consumers.list().iter().map(|consumer| consumer.id())
    }

    /// Changes whenever [`Subscription::consumers`] does.
    pub fn consumers_version(&self) -> u64 {
        self.ledger.consumers.version()
    }

    /// Consumers that get nothing for now: their deliveries timed out again and again, and others take deliveries.
    pub fn passed_over(&self) -> impl Iterator<Item = ConsumerId> {
        self.ledger.consumers.passed_over()
    }

    /// Statistics over all partitions.
    pub fn stats(&self) -> Stats {
        let totals = &self.ledger.totals;
        Stats {
            in_flight: self.ledger.consumers.in_flight(),
            redelivered: totals.redelivered,
            timed_out: totals.timed_out,
            dead_lettered: totals.dead_lettered,
            ttl_expired: totals.ttl_expired,
        }
    }

    /// Statistics of one partition.
    ///
    /// # Panics
    /// If there is no such partition.
    pub fn partition(&self, partition: PartitionId) -> PartitionStats {
        let it = self.ledger.partitions.get(index(partition));
        PartitionStats { floor: Offset(it.floor()), end: Offset(it.end()), lag: it.lag() }
    }

    /// What has to happen before more is delivered, as things are `now`. It looks at every partition and consumer.
    pub fn waits_for(&self, now: Now) -> WaitsFor {
        let rate = self.pace.as_ref().filter(|_| self.is_paced_out).map(Pace::per_second);
        standstill::find(&self.ledger, &self.sharing, rate, now)
    }

    /// Partitions whose statistics may have changed since the last call; at first all.
    pub fn take_changed(&mut self) -> impl Iterator<Item = PartitionId> + use<> {
        self.ledger.partitions.take_changed().into_iter().map(partition_id)
    }

    /// The durable floors of all partitions, in order: what retention must keep.
    pub fn floors(&self) -> impl Iterator<Item = Offset> {
        self.ledger.partitions.iter().map(|it| Offset(it.floor()))
    }

    /// True if an event of this range may still have to be sent.
    pub fn needs(&self, partition: PartitionId, range: &Range<Offset>) -> bool {
        self.ledger.partitions.get(index(partition)).needs(&(range.start.0..range.end.0))
    }

    /// Takes the parts of a delivery in flight whose deadline is not after `late`, with partition and token.
    fn take_in_flight(&mut self, token: u64, late: u64) -> Vec<(usize, Range<u64>, u64)> {
        let Some(delivery) = self.ledger.deliveries.get(token) else { return Vec::new() };
        let (partition, range) = (delivery.partition(), delivery.range());
        let parts = self.ledger.partitions.update(partition, |it| it.take_in_flight(range, token, late));
        parts.into_iter().map(|range| (partition, range, token)).collect()
    }

    /// Fails parts that were taken out of flight, each with its partition and token; returns how many events.
    fn fail(&mut self, now: Now, mut parts: Vec<(usize, Range<u64>, u64)>, cause: Cause) -> u64 {
        parts.sort_unstable_by_key(|(partition, range, _)| (*partition, range.start));
        let (mut events, mut back) = (0, Vec::new());
        for (partition, range, token) in &parts {
            let (partition, token) = (*partition, *token);
            let delivery = self.ledger.deliveries.get(token).expect("what is in flight has a delivery");
            let holder = self.ledger.consumers.find(delivery.consumer());
            let untaken = holder.is_some_and(|it| !it.has_taken(delivery.number()));
            let by = (cause != Cause::ConsumerLost).then_some(delivery.consumer());
            let cause = match cause {
                Cause::Timeout | Cause::ConsumerLost if untaken => Cause::Untaken,
                _ => cause,
            };
            events += self.ledger.release(partition, range, token);
            back.extend(self.fail_part(now, partition, range, cause, by));
        }
        // Only now does each of them stand where it stays.
        for (partition, range, due) in back {
            self.sharing.failed(&mut self.ledger, partition, &range, due);
        }
        for (partition, range, _) in parts {
            self.sharing.left(&mut self.ledger, partition, &range);
        }
        events
    }

    /// Gives the events of a part that has left flight another attempt, or up. Returns what waits now, from its first event
    /// on, and when that is due.
    fn fail_part(
        &mut self,
        now: Now,
        partition: usize,
        range: &Range<u64>,
        cause: Cause,
        by: Option<ConsumerId>,
    ) -> Option<(usize, Range<u64>, u64)> {
        let mut first_back = None;
        for events in self.ledger.settle_filtered(partition, range) {
            for (piece, history) in self.ledger.partitions.get(partition).histories(&events) {
                let (due, failed) = match self.retry.decide(now, history, cause) {
                    Next::GiveUp(reason) => {
                        self.ledger.bury(now, partition, &piece, history, reason, None);
                        continue;
                    }
                    Next::Attempt { due, history } => (due, history),
                };
                first_back.get_or_insert((piece.start, due));
                self.ledger.partitions.update(partition, |it| {
                    if let Some(failed) = failed {
                        it.set_history(&piece, failed);
                    }
                    it.wait(piece, Wait { due, by });
                });
                if failed.is_some() {
                    self.ledger.partitions.touch(partition);
                }
            }
        }
        first_back.map(|(from, due)| (partition, from..range.end, due))
    }
}
