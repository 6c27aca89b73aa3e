//! The whole subscription against a naive model: one state per offset, random operations, everything checked after
//! each, and at the end every event must come to its end.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, prelude::*};

use super::{
    operations::{Op, key_of, op, takes},
    states::{At, BACKOFF_MIN, Event, Why, ranges_of},
    store::Rows,
    *,
};
use crate::progress::RETURNS_MAX;

pub(super) const PARTITIONS: usize = 2;
/// The partition that is a queue.
const QUEUE: usize = 1;
pub(super) const IN_FLIGHT_MAX: u64 = 24;
#[derive(Debug)]
struct World {
    it: Subscription,
    order: Order,
    now: u64,
    events: Vec<Vec<Event>>,
    log_start: [u64; PARTITIONS],
    disk: Vec<Rows>,
    /// The commit under way: its id and what the disk holds if it succeeds.
    commit: Option<(u64, Vec<Rows>)>,
    fetches: Vec<Fetch>,
    consumers: Vec<ConsumerId>,
    credit: BTreeMap<ConsumerId, (u64, i64)>,
    deliveries: Vec<(PartitionId, ConsumerId, DeliveryToken, Range<u64>)>,
    next_consumer: u64,
    /// The rate, since when, and how many events were delivered since then.
    rate: Option<(u64, u64, u64)>,
    max_in_flight: u64,
    dead_letter_expired: bool,
}

/// Every other one has failed in the chain, and the others are too old.
fn failed_at(offset: u64) -> Failed {
    let reason = match offset % 2 {
        0 => Reason::PluginError { plugin: String::new(), error: String::new() },
        _ => Reason::Expired,
    };
    Failed { first: Offset(offset), last: Offset(offset), reason }
}

/// What a chain let nobody have, or what was too old, and why.
fn ended(filtered: &[Range<Offset>], failed: &[Failed], dead_letter_expired: bool) -> Vec<(u64, Why)> {
    let dropped = filtered.iter().map(|range| (range.start.0, Why::Dropped));
    let passed_over = |it: &Failed| it.reason == Reason::Expired && !dead_letter_expired;
    let why = |it: &Failed| if passed_over(it) { Why::Dropped } else { Why::Dead };
    dropped.chain(failed.iter().map(|it| (it.first.0, why(it)))).collect()
}

fn model_options(order: Order) -> Options {
    Options { max_in_flight: IN_FLIGHT_MAX, max_in_flight_bytes: 400, dead_letters_max: 3, ..options(order) }
}

impl World {
    fn new(order: Order) -> Self {
        let mut disk = vec![Rows::default(); PARTITIONS];
        disk.iter_mut().for_each(|rows| rows.apply(&Progress::new(Offset(0), 1).take_dirty()));
        let progress = disk.iter().map(Rows::restore).collect();
        let mut it = Subscription::new(&model_options(order), progress, at(1));
        it.set_queue(PartitionId(QUEUE as u16));
        Self {
            it,
            order,
            now: 1,
            events: vec![Vec::new(); PARTITIONS],
            log_start: [0; PARTITIONS],
            disk,
            commit: None,
            fetches: Vec::new(),
            consumers: Vec::new(),
            credit: BTreeMap::new(),
            deliveries: Vec::new(),
            next_consumer: 0,
            rate: None,
            max_in_flight: IN_FLIGHT_MAX,
            dead_letter_expired: false,
        }
    }

    fn now(&self) -> Now {
        at(self.now)
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Attach if self.consumers.len() < 3 => self.attach(),
            Op::Attach => {}
            Op::Detach(at) => self.detach(at),
            Op::Replace(at) => {
                self.detach(at);
                self.attach();
                self.run(Op::Grant { consumer: self.consumers.len() - 1, events: 30 });
            }
            Op::Grant { consumer, events } => {
                if let Some(id) = self.consumers.get(consumer) {
                    self.it.grant(*id, events, events * 10);
                    let credit = self.credit.entry(*id).or_default();
                    *credit = (credit.0 + events, credit.1 + events as i64 * 10);
                }
            }
            Op::End { partition, more } => {
                let event = Event { at: At::Fresh, attempts: 0, returned: 0, by: None };
                let end = self.events[partition].len() + more as usize;
                self.events[partition].resize(end, event);
                self.it.end(PartitionId(partition as u16), Offset(end as u64));
            }
            Op::Read => self.read(),
            Op::Finish { read, take, filter, fail } => {
                if read < self.fetches.len() {
                    let fetch = self.fetches.remove(read);
                    self.finish(fetch, take, filter, fail);
                }
            }
            Op::Verb { delivery, from, len, kind, thief } => self.verb(delivery, from, len, kind, thief),
            Op::Time(ms) => self.time(ms),
            Op::Submit => self.submit(),
            Op::Settle(ok) => self.settle(ok),
            Op::Lost { partition, more } => self.lose(partition, more),
            Op::Restart { applied } => self.restart(applied),
            Op::Set { rate, max_in_flight, dead_letter_expired } => {
                self.dead_letter_expired = dead_letter_expired;
                self.set(rate, max_in_flight);
            }
        }
        if self.order == Order::Key {
            self.follow();
        }
        self.check();
    }

    fn attach(&mut self) {
        self.next_consumer += 1;
        let id = ConsumerId(self.next_consumer);
        self.it.attach(id).unwrap();
        if takes(id) {
            self.it.taken(id, u64::MAX);
        }
        self.consumers.push(id);
        self.credit.insert(id, (0, 0));
    }

    /// What is read can be sent: it is open, and somebody has room.
    fn read(&mut self) {
        let Some(fetch) = self.it.fetch(self.now()) else { return };
        let partition = usize::from(fetch.partition.0);
        assert!(!fetch.needs_keys || self.order == Order::Key);
        assert!(fetch.bytes_max > 0);
        // To learn keys, what is in flight is read as well, whether anybody has room or not.
        if !(fetch.needs_keys && fetch.again) {
            for offset in fetch.range.start.0..fetch.range.end.0 {
                let event = self.events[partition][offset as usize];
                assert!(event.at.is_open(self.now), "offset {offset} is read, it is {:?}", event.at);
            }
            assert!(self.it.ledger.consumers.with_room().next().is_some());
        }
        let same = |it: &&Fetch| it.partition == fetch.partition && it.again == fetch.again;
        assert_eq!(self.fetches.iter().find(same).map(|it| it.id), None, "it is being read already");
        self.fetches.push(fetch);
    }

    /// Whom a consumer's deliveries could have gone to instead: no consumer gets again what it let fail itself, if
    /// another has room for something that it did not let fail.
    fn better_takers(
        &self,
        given: &Assignment,
        before: &[Event],
        had_room: &[ConsumerId],
    ) -> Vec<ConsumerId> {
        let first = given.offsets[0].start.0 as usize;
        if before[first].by != Some(given.consumer) {
            return Vec::new();
        }
        let others = had_room.iter().copied().filter(|it| *it != given.consumer);
        others.filter(|it| self.order != Order::Partition || self.could_get(*it)).collect()
    }

    /// True if an ordered subscription could give this consumer something again that it did not let fail.
    fn could_get(&self, consumer: ConsumerId) -> bool {
        (0..PARTITIONS).any(|partition| {
            let events = &self.events[partition];
            let others = events.iter().filter_map(|event| event.at.holder()).any(|it| it != consumer);
            let first = events.iter().find(|event| matches!(event.at, At::Waiting { .. }));
            !others && first.is_some_and(|it| it.at.is_open(self.now) && it.by != Some(consumer))
        })
    }

    fn detach(&mut self, at: usize) {
        if at >= self.consumers.len() {
            return;
        }
        let id = self.consumers.remove(at);
        self.it.detach(self.now(), id);
        for event in self.events.iter_mut().flatten() {
            if !matches!(event.at, At::Flight { consumer, .. } if consumer == id) {
                continue;
            }
            if !takes(id) {
                event.at = At::Waiting { not_before: self.now };
                event.by = Some(id);
                continue;
            }
            let counts = event.returned >= RETURNS_MAX;
            event.by = None;
            event.returned = (event.returned + 1).min(RETURNS_MAX);
            event.attempts += u16::from(counts);
            event.at = if counts && event.attempts >= 3 {
                At::Settling(Why::Dead)
            } else {
                At::Waiting { not_before: self.now + if counts { BACKOFF_MIN } else { 0 } }
            };
        }
    }

    /// Reads some offsets of a fetch, of which the chain filters some and fails on others, and some are too old, and assigns
    /// them.
    fn finish(&mut self, fetch: Fetch, take: u64, filter: u64, fail: bool) {
        let (partition, first) = (usize::from(fetch.partition.0), fetch.range.start.0);
        let reached = fetch.range.end.0.min(first + take);
        let (mut filtered, mut failed, mut sent) = (Vec::new(), Vec::new(), Vec::new());
        for offset in first..reached {
            if filter >> (offset % 64) & 1 == 1 {
                filtered.push(Offset(offset)..Offset(offset + 1));
            } else if fail && offset % 3 == 0 {
                failed.push(failed_at(offset));
            } else {
                sent.push(offset);
            }
        }
        let chunks: Vec<_> =
            (first..reached).step_by(4).map(|start| chunk(start..reached.min(start + 4))).collect();
        let keys: Vec<_> = (first..reached)
            .map(|offset| EventKey { offset: Offset(offset), key: key_of(partition, offset) })
            .collect();
        let (again, needs_keys) = (fetch.again, fetch.needs_keys);
        let fetched = Fetched {
            reached: Offset(reached),
            chunks: &chunks,
            filtered: &filtered,
            failed: &failed,
            keys: needs_keys.then_some(&keys[..]),
        };
        let before = self.events[partition].clone();
        let had_room = self.had_room();
        // Now and then the first stream that is asked has no room.
        let (stingy, mut without_room) = (take % 7 == 3, None);
        let assigned = self.it.assign(self.now(), fetch, fetched, |consumer, wanted| {
            assert!(wanted.least <= 40 && wanted.most > 0);
            if stingy && without_room.is_none_or(|it| it == consumer) {
                without_room = Some(consumer);
                return None;
            }
            Some(wanted.most)
        });
        if let Some(consumer) = without_room {
            self.it.hold(consumer, false);
            assert!(assigned.assignments.iter().all(|it| it.consumer != consumer));
        }
        let ended = ended(&filtered, &failed, self.dead_letter_expired);
        if needs_keys {
            self.finish_by_key(partition, again, first..assigned.until.0, &ended, &assigned.assignments);
            return;
        }
        if let Some(given) = assigned.assignments.first().filter(|_| !stingy && !self.alone_waits()) {
            let better = self.better_takers(given, &before, &had_room);
            assert_eq!(better, [], "{:?} let it fail, and these have room", given.consumer);
        }
        let until = assigned.until.0;
        for offset in first..until {
            let at = before[offset as usize].at;
            assert!(at.is_open(self.now), "offset {offset} was {at:?}");
        }
        let events = &mut self.events[partition];
        for (offset, why) in ended {
            if offset < until {
                events[offset as usize].at = At::Settling(why);
            }
        }
        sent.retain(|offset| *offset < until);
        let mut given = Vec::new();
        for assignment in &assigned.assignments {
            let own = |offset: &u64| assignment.offsets.iter().any(|it| it.contains(&Offset(*offset)));
            let own: Vec<u64> = sent.iter().copied().filter(own).collect();
            self.send(partition, assignment, &own);
            given.extend(own);
        }
        assert_eq!(given, sent, "each event is given once, in order");
    }

    /// What a read becomes where keys matter: new events that nobody gets wait, and so does what waited before.
    fn finish_by_key(
        &mut self,
        partition: usize,
        again: bool,
        used: Range<u64>,
        ended: &[(u64, Why)],
        assignments: &[Assignment],
    ) {
        for (offset, why) in ended.iter().filter(|(offset, _)| used.contains(offset)) {
            let state = self.it.ledger.partitions.get(partition).state_of(*offset);
            let event = &mut self.events[partition][*offset as usize];
            // It may have come back from flight first.
            let open = matches!(event.at, At::Waiting { .. } | At::Fresh | At::Flight { .. });
            if open && !state.waits && state.in_flight.is_none() {
                event.at = At::Settling(*why);
            }
        }
        let mut given = Vec::new();
        for assignment in assignments {
            let own: Vec<u64> = assignment.offsets.iter().flat_map(|it| it.start.0..it.end.0).collect();
            assert!(own.iter().all(|offset| used.contains(offset)));
            self.send(partition, assignment, &own);
            given.extend(own);
        }
        let count = given.len();
        given.sort_unstable();
        given.dedup();
        assert_eq!(given.len(), count, "each event is given once");
        for event in &mut self.events[partition][used.start as usize..used.end as usize] {
            if event.at == At::Fresh {
                assert!(!again);
                event.at = At::Waiting { not_before: self.now };
            }
        }
    }

    /// Takes over which events have come back from flight for the sake of an earlier one of their key.
    fn follow(&mut self) {
        for partition in 0..PARTITIONS {
            for offset in 0..self.events[partition].len() {
                let flies = matches!(self.events[partition][offset].at, At::Flight { .. });
                if !flies || !self.it.ledger.partitions.get(partition).state_of(offset as u64).waits {
                    continue;
                }
                let key = key_of(partition, offset as u64).expect("what has no key follows nothing");
                let earlier = (0..offset).filter(|at| key_of(partition, *at as u64) == Some(key));
                let mut earlier = earlier.map(|at| self.events[partition][at].at);
                // It may have been sent again by now.
                let is_open = |at| matches!(at, At::Waiting { .. } | At::Flight { .. });
                assert!(earlier.any(is_open), "{offset} came back for nothing");
                let event = &mut self.events[partition][offset];
                (event.at, event.by) = (At::Waiting { not_before: 0 }, None);
            }
        }
    }

    fn had_room(&self) -> Vec<ConsumerId> {
        let consumers = &self.it.ledger.consumers;
        let responding = consumers.with_room().map(|(place, _)| &consumers.list()[place]);
        responding.filter(|it| !it.is_silent()).map(|it| it.id()).collect()
    }

    /// True if an event waits to go alone: before that, its consumer is drained.
    fn alone_waits(&self) -> bool {
        let is_alone =
            |event: &Event| event.returned >= RETURNS_MAX && matches!(event.at, At::Waiting { .. });
        self.events.iter().flatten().any(is_alone)
    }

    /// Sends a delivery, of which this must hold: credit, room, order, and whether it goes alone.
    fn send(&mut self, partition: usize, given: &Assignment, sent: &[u64]) {
        assert_eq!(given.events, sent.len() as u64, "{given:?} {sent:?}");
        let (consumer, token, deadline) = (given.consumer, given.token.0, self.now + TIMEOUT);
        let before = self.events[partition].clone();
        for offset in sent {
            let event = &mut self.events[partition][*offset as usize];
            assert_eq!(given.attempt, event.attempts + 1);
            event.at = At::Flight { token, consumer, deadline };
        }
        let bytes = sent.len() as u64 * 10;
        self.it.sent(given.token, bytes);
        let credit = self.credit.get_mut(&consumer).expect("it is attached");
        assert!(credit.0 >= sent.len() as u64 && credit.1 > 0, "credit {credit:?} for {} events", sent.len());
        *credit = (credit.0 - sent.len() as u64, credit.1 - bytes as i64);
        let held = self.held_by(consumer);
        // What came back for the sake of its key in the same step has not been followed yet.
        let in_flight = self.it.in_flight(consumer);
        assert!(in_flight <= self.max_in_flight, "{in_flight} events in flight");
        if let Some((rate, since, delivered)) = &mut self.rate {
            *delivered += given.events;
            let allowed = (self.now - *since) * *rate / 1_000 + (*rate / 10).max(1) + 1;
            assert!(*delivered <= allowed, "{delivered} delivered, {allowed} allowed");
        }
        let alone = sent.iter().any(|offset| before[*offset as usize].returned >= RETURNS_MAX);
        assert!(!alone || held == 1, "{held} events beside one that goes alone");
        let others = self.events.iter().flatten().filter(|event| event.at.holder() == Some(consumer));
        assert!(others.clone().count() == 1 || !others.clone().any(|event| event.returned >= RETURNS_MAX));
        let (first, last) = (sent[0], sent[sent.len() - 1]);
        if self.order == Order::Key {
            for offset in sent.iter().filter(|offset| key_of(partition, **offset).is_some()) {
                let same = |at: &u64| key_of(partition, *at) == key_of(partition, *offset);
                for earlier in (0..*offset).filter(same).filter(|at| !sent.contains(at)) {
                    let at = before[earlier as usize].at;
                    assert!(
                        !matches!(at, At::Fresh | At::Waiting { .. }),
                        "{offset} overtakes {earlier}: {at:?}"
                    );
                    assert!(at.holder().is_none_or(|it| it == consumer), "{offset}: {earlier} is elsewhere");
                }
            }
        }
        if self.order == Order::Partition {
            assert_eq!(Some(consumer), self.it.consumers().next(), "only the active consumer gets something");
            let elsewhere = before.iter().filter_map(|event| event.at.holder()).find(|it| *it != consumer);
            assert_eq!(elsewhere, None, "somebody else is not done with partition {partition}");
            let open = |event: &Event| matches!(event.at, At::Fresh | At::Waiting { .. });
            let ahead = before[..first as usize].iter().position(open);
            assert_eq!(ahead, None, "sent from {first} on, in partition {partition}");
        }
        self.deliveries.push((PartitionId(partition as u16), consumer, given.token, first..last + 1));
    }

    fn held_by(&self, consumer: ConsumerId) -> usize {
        self.events.iter().flatten().filter(|event| event.at.holder() == Some(consumer)).count()
    }

    fn verb(&mut self, back: usize, from: u64, len: u64, kind: u8, thief: bool) {
        let Some(at) = self.deliveries.len().checked_sub(back + 1) else { return };
        let (partition, owner, token, range) = self.deliveries[at].clone();
        let first = range.start + from % (range.end - range.start);
        let kind = match kind {
            0..=3 => VerbKind::Ack,
            4 => VerbKind::Nack { delay_ms: None },
            5 => VerbKind::Nack { delay_ms: Some(30) },
            6 => VerbKind::InProgress,
            _ => VerbKind::Reject { reason: "r".to_owned() },
        };
        let verb = Verb {
            kind: kind.clone(),
            partition,
            token,
            first: Offset(first),
            last: Offset(first + len - 1),
        };
        let consumer = if thief { ConsumerId(owner.0 + 1) } else { owner };
        let result = self.it.verb(self.now(), consumer, &verb);
        let place = usize::from(partition.0);
        let named: Vec<u64> = (first..(first + len).min(range.end))
            .filter(|offset| {
                let at = self.events[place][*offset as usize].at;
                !thief && matches!(at, At::Flight { token: held, .. } if held == token.0)
            })
            .collect();
        if named.is_empty() {
            assert_eq!(result, Err(ErrorCode::DeliveryExpired));
            return;
        }
        assert_eq!(result.map(|applied| applied.events), Ok(named.len() as u64));
        let said = |dead| At::Settling(Why::Said { token: token.0, consumer, dead });
        let deadline = self.now + TIMEOUT;
        for offset in &named {
            let event = &mut self.events[place][*offset as usize];
            match kind {
                VerbKind::Ack => event.at = said(false),
                VerbKind::Reject { .. } => event.at = said(true),
                VerbKind::InProgress => event.at = At::Flight { token: token.0, consumer, deadline },
                VerbKind::Nack { delay_ms } => event.fail(self.now, Some(consumer), delay_ms),
            }
        }
        if let VerbKind::Nack { .. } = kind {
            self.rewind(place, &named);
        }
    }

    /// Where order matters, what is in flight behind an event that waits now comes back.
    fn rewind(&mut self, partition: usize, failed: &[u64]) {
        let waits =
            |offset: &&u64| matches!(self.events[partition][**offset as usize].at, At::Waiting { .. });
        let Some(from) = failed.iter().find(waits).copied() else { return };
        if self.order != Order::Partition {
            return;
        }
        for event in &mut self.events[partition][from as usize..] {
            if matches!(event.at, At::Flight { .. }) {
                event.at = At::Waiting { not_before: 0 };
                event.by = None;
            }
        }
    }

    fn options(&self) -> Options {
        Options {
            rate: self.rate.map(|(rate, ..)| rate),
            max_in_flight: self.max_in_flight,
            dead_letter_expired: self.dead_letter_expired,
            ..model_options(self.order)
        }
    }

    fn set(&mut self, rate: Option<u64>, max_in_flight: u64) {
        if self.rate.map(|(rate, ..)| rate) != rate {
            self.rate = rate.map(|rate| (rate, self.now, 0));
        }
        self.max_in_flight = max_in_flight;
        self.it.set_options(&self.options(), self.now());
    }

    fn time(&mut self, ms: u64) {
        self.now += ms;
        let expired = self.it.on_time(self.now(), |_| 0);
        let mut expected = 0;
        for partition in 0..PARTITIONS {
            let late: Vec<u64> = (0..self.events[partition].len() as u64)
                .filter(|offset| {
                    let at = self.events[partition][*offset as usize].at;
                    matches!(at, At::Flight { deadline, .. } if deadline <= self.now)
                })
                .collect();
            expected += late.len() as u64;
            for offset in &late {
                let event = &mut self.events[partition][*offset as usize];
                let by = event.at.holder();
                if by.is_some_and(takes) {
                    event.fail(self.now, by, Some(0));
                } else {
                    (event.at, event.by) = (At::Waiting { not_before: self.now }, by);
                }
            }
            self.rewind(partition, &late);
        }
        assert_eq!(expired, expected);
    }

    fn submit(&mut self) {
        let under_way = self.commit.is_some();
        let Some(settling) = self.it.take_settling() else { return };
        assert!(!under_way);
        let mut disk = self.disk.clone();
        for (partition, rows) in &settling.rows {
            disk[usize::from(partition.0)].apply(rows);
        }
        let (mut dead, mut dequeued, mut lost) = (Vec::new(), Vec::new(), Vec::new());
        for (partition, rows) in disk.iter().enumerate() {
            let progress = rows.restore();
            for (offset, event) in (0..).zip(&mut self.events[partition]) {
                match (progress.is_settled(Offset(offset)), event.at) {
                    (true, At::Done) => {}
                    (true, At::Settling(why)) => {
                        event.at = At::Submitted(why);
                        if partition == QUEUE {
                            dequeued.push(offset);
                        }
                        if why == Why::Lost {
                            lost.push((partition, offset));
                        }
                        if matches!(why, Why::Dead | Why::Said { dead: true, .. }) {
                            dead.push((partition, offset));
                        }
                    }
                    (true, at) => panic!("offset {offset} of partition {partition} settles from {at:?}"),
                    (false, At::Done) => panic!("offset {offset} of partition {partition} is undone"),
                    (false, _) => {}
                }
            }
        }
        let dead_letters = settling.dead_letters.iter();
        let mut buried: Vec<_> = dead_letters
            .flat_map(|it| (it.first.0..=it.last.0).map(|offset| (usize::from(it.partition.0), offset)))
            .collect();
        buried.sort_unstable();
        assert_eq!(buried, dead);
        let mut told: Vec<u64> = settling.dequeued.iter().flat_map(|it| it.start.0..it.end.0).collect();
        told.sort_unstable();
        assert_eq!(told, dequeued, "what a commit settles of the queue");
        assert_eq!(ranges_of(&lost), settling.lost, "what a commit settles of what was lost");
        self.commit = Some((settling.id, disk));
    }

    fn settle(&mut self, ok: bool) {
        let Some((id, disk)) = self.commit.take() else { return };
        let back = self.it.settled(id, ok, self.now());
        if ok {
            self.disk = disk;
        }
        let mut returned = 0;
        let deadline = self.now + TIMEOUT;
        for (partition, events) in self.events.iter_mut().enumerate() {
            for (offset, event) in (0..).zip(events) {
                let At::Submitted(why) = event.at else { continue };
                if ok {
                    event.at = At::Done;
                    continue;
                }
                let flies = self.it.ledger.partitions.get(partition).state_of(offset).in_flight.is_some();
                event.at = match why {
                    Why::Said { .. } if offset < self.log_start[partition] => At::Settling(Why::Lost),
                    Why::Said { token, consumer, .. } if flies => {
                        assert!(self.consumers.contains(&consumer));
                        At::Flight { token, consumer, deadline }
                    }
                    Why::Said { consumer, .. } => {
                        assert!(self.order != Order::None || !self.consumers.contains(&consumer));
                        event.by = None;
                        At::Waiting { not_before: 0 }
                    }
                    Why::Dead | Why::Dropped | Why::Lost => At::Settling(why),
                };
                returned += usize::from(matches!(why, Why::Said { .. }));
            }
        }
        let said = back.iter().map(|range| (range.last.0 + 1 - range.first.0) as usize).sum::<usize>();
        assert!(returned <= said, "{returned} offsets came back, {said} were reported");
        assert!(!ok || back.is_empty());
    }

    fn lose(&mut self, partition: usize, more: u64) {
        let log_start = (self.log_start[partition] + more).min(self.events[partition].len() as u64);
        self.log_start[partition] = log_start;
        let lost = self.it.lost(PartitionId(partition as u16), Offset(log_start));
        let mut expected = Vec::new();
        for (offset, event) in (0..log_start).zip(&mut self.events[partition]) {
            if matches!(event.at, At::Fresh | At::Waiting { .. } | At::Flight { .. }) {
                event.at = At::Settling(Why::Lost);
                expected.push(offset);
            }
        }
        let reported = lost.map(|lost| (lost.first.0, lost.last.0, lost.events));
        let ends = expected.first().zip(expected.last());
        assert_eq!(reported, ends.map(|(first, last)| (*first, *last, expected.len() as u64)));
    }

    /// The engine dies; the commit under way was made durable or was not.
    fn restart(&mut self, applied: bool) {
        if let Some((_, disk)) = self.commit.take().filter(|_| applied) {
            self.disk = disk;
        }
        let progress: Vec<_> = self.disk.iter().map(Rows::restore).collect();
        for (events, progress) in self.events.iter_mut().zip(&progress) {
            for (offset, event) in (0..).zip(events) {
                let done = progress.is_settled(Offset(offset));
                let history = progress.history_of(offset);
                assert!(done || event.at != At::Done, "offset {offset} was settled durably");
                assert!(history.attempts <= event.attempts);
                event.at = if done { At::Done } else { At::Waiting { not_before: 0 } };
                (event.attempts, event.returned) = (history.attempts, history.returned);
                event.by = None;
            }
        }
        let seed = self.it.ledger.deliveries.next_token() + 1_000;
        if let Some((_, since, delivered)) = &mut self.rate {
            (*since, *delivered) = (self.now, 0);
        }
        let options = Options { seed, ..self.options() };
        self.it = Subscription::new(&options, progress, self.now());
        self.it.set_queue(PartitionId(QUEUE as u16));
        (self.fetches, self.consumers) = (Vec::new(), Vec::new());
        for partition in 0..PARTITIONS {
            let id = PartitionId(partition as u16);
            self.it.end(id, Offset(self.events[partition].len() as u64));
            self.log_start[partition] = 0;
        }
    }

    /// The subscription's own books agree with each other and with the model.
    fn check(&mut self) {
        for partition in (0..PARTITIONS).filter(|_| self.order == Order::Key) {
            if !self.it.sharing.knows_keys(partition) {
                continue;
            }
            let mut blocked = BTreeSet::new();
            for (offset, event) in (0..).zip(&self.events[partition]) {
                let Some(key) = key_of(partition, offset) else { continue };
                match event.at {
                    At::Waiting { .. } => drop(blocked.insert(key)),
                    At::Flight { .. } => assert!(!blocked.contains(&key), "{offset} of {partition} is ahead"),
                    _ => {}
                }
            }
        }
        let mut open = 0;
        let (partitions, settlement) = (&self.it.ledger.partitions, &self.it.ledger.settlement);
        let has = |mut set: Box<dyn Iterator<Item = (usize, &Partition)> + '_>, partition: usize| {
            set.any(|(index, _)| index == partition)
        };
        for (partition, part) in partitions.iter().enumerate() {
            assert_eq!(has(Box::new(partitions.retrying()), partition), part.has_waiting());
            assert_eq!(has(Box::new(partitions.unread()), partition), part.is_behind());
            for (offset, event) in (0..).zip(&self.events[partition]) {
                let state = part.state_of(offset);
                let queued = settlement.queued(partition, offset);
                let states = [state.in_flight.is_some(), state.waits, state.settled, state.fresh];
                let count = states.iter().filter(|is_so| **is_so).count() + queued;
                assert_eq!(count, 1, "offset {offset} of {partition}: {state:?}, {queued} queued");
                if let Some((token, _)) = state.in_flight {
                    assert!(
                        self.it.ledger.deliveries.get(token).is_some(),
                        "{offset} of {partition}: {state:?}"
                    );
                }
                match event.at {
                    At::Fresh => assert!(state.fresh),
                    At::Waiting { .. } => assert!(state.waits || state.fresh, "{offset} of {partition}"),
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
                    At::Done
                        | At::Settling(Why::Dropped | Why::Lost)
                        | At::Submitted(Why::Dropped | Why::Lost)
                );
                open += u64::from(!gone);
            }
        }
        assert_eq!(lag(&self.it), open);
        let consumers = &self.it.ledger.consumers;
        for consumer in consumers.list() {
            assert_eq!(consumer.in_flight(), self.held_by(consumer.id()) as u64);
        }
        assert_eq!(consumers.in_flight(), consumers.list().iter().map(|it| it.in_flight()).sum::<u64>());
        let flying = self.events.iter().flatten().filter_map(|event| event.at.token()).collect();
        assert_eq!(self.it.ledger.deliveries.timed(), flying);
    }

    /// With a consumer that acknowledges everything, every event comes to its end.
    fn drain(&mut self) {
        for _ in 0..2_000 {
            if self.consumers.is_empty() {
                self.attach();
            }
            for id in self.consumers.clone() {
                self.it.grant(id, 50, 5_000);
                let credit = self.credit.entry(id).or_default();
                *credit = (credit.0 + 50, credit.1 + 5_000);
            }
            self.run(Op::Read);
            while !self.fetches.is_empty() {
                self.run(Op::Finish { read: 0, take: 30, filter: 0, fail: false });
            }
            for (partition, consumer, token, range) in std::mem::take(&mut self.deliveries) {
                if self.consumers.contains(&consumer) {
                    self.deliveries.push((partition, consumer, token, range.clone()));
                    let len = range.end - range.start;
                    self.run(Op::Verb { delivery: 0, from: 0, len, kind: 0, thief: false });
                    self.deliveries.clear();
                }
            }
            self.run(Op::Submit);
            self.run(Op::Settle(true));
            if self.events.iter().flatten().all(|event| event.at == At::Done) {
                assert_eq!((lag(&self.it), self.it.take_settling()), (0, None));
                assert!(self.it.ledger.deliveries.is_empty() && self.it.ledger.settlement.is_empty());
                return;
            }
            let waits = waiting(&self.it) > 0 || self.rate.is_some();
            if let Some(at) = self.it.next_deadline(self.now()).filter(|_| waits) {
                self.run(Op::Time(at.saturating_sub(self.now)));
            }
        }
        panic!("not every event came to its end: {:?}", self.events);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(1_000)))]

    #[test]
    fn every_event_comes_to_its_end_once_and_in_bounds(
        order in prop_oneof![Just(Order::None), Just(Order::Partition), Just(Order::Key)],
        ops in vec(op(), 1..250),
    ) {
        let mut world = World::new(order);
        for consumer in 0..2 {
            world.run(Op::Attach);
            world.run(Op::Grant { consumer, events: 60 });
            world.run(Op::End { partition: consumer, more: 20 });
        }
        ops.into_iter().for_each(|op| world.run(op));
        world.drain();
    }
}
