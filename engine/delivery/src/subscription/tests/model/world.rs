//! The model's world: the subscription, what the model knows of it, and what happens to both.

use std::cell::LazyCell;

use super::{
    super::*,
    books,
    credits::Credits,
    disk::Disk,
    events::Events,
    operations::{Named, Op},
    rules::Rules,
    setting::{CHUNK, DEAD_COMMITS_MAX, EVENT_BYTES_MAX, LOG, PARTITIONS, QUEUE, bytes_of, key_of, takes},
    states::{At, Event, Past, Sent, Why, ranges_of},
    tickets::{Effect, Tickets},
    turns,
};

#[derive(Debug)]
pub(super) struct World {
    pub(super) it: Subscription,
    order: Order,
    now: u64,
    pub(super) events: Events,
    pub(super) tickets: Tickets,
    log_start: [u64; PARTITIONS],
    disk: Disk,
    rules: Rules,
    pub(super) fetches: Vec<Fetch>,
    pub(super) consumers: Vec<ConsumerId>,
    credits: Credits,
    /// Made in this step.
    handing: Vec<Sent>,
    pub(super) deliveries: Vec<Sent>,
    transactions: u64,
    next_consumer: u64,
    /// The rate, since when, and how many events were delivered since then.
    pub(super) rate: Option<(u64, u64, u64)>,
}

/// Every other one has failed in the chain, and the others are too old.
fn failed_at(offset: u64) -> Failed {
    let reason = match offset % 2 {
        0 => Reason::PluginError { plugin: String::new(), error: String::new() },
        _ => Reason::Expired,
    };
    Failed { first: Offset(offset), last: Offset(offset), reason }
}

/// What is read without an event to send, what failed in the chain or is too old, and what can be sent.
fn divide(range: Range<u64>, filter: u64, fail: bool) -> (Vec<Range<Offset>>, Vec<Failed>, Vec<u64>) {
    let (mut filtered, mut failed, mut sent) = (Vec::new(), Vec::new(), Vec::new());
    for offset in range {
        if filter >> (offset % 64) & 1 == 1 {
            filtered.push(Offset(offset)..Offset(offset + 1));
        } else if fail && offset % 3 == 0 {
            failed.push(failed_at(offset));
        } else {
            sent.push(offset);
        }
    }
    (filtered, failed, sent)
}

/// A stretch in chunks, cut where the stretch is.
fn chunks(partition: usize, range: Range<u64>) -> Vec<Chunk> {
    let starts = range.clone().filter(|at| *at == range.start || at.is_multiple_of(CHUNK));
    let chunk = |start: u64| {
        let end = (start / CHUNK + 1) * CHUNK;
        let end = end.min(range.end);
        Chunk { bytes: (end - start) * bytes_of(partition, start), range: Offset(start)..Offset(end) }
    };
    starts.map(chunk).collect()
}

/// What a chain let nobody have, or what was too old, and why.
fn ended(filtered: &[Range<Offset>], failed: &[Failed], dead_letter_expired: bool) -> Vec<(u64, Why)> {
    let dropped = filtered.iter().map(|range| (range.start.0, Why::Dropped));
    let passed_over = |it: &Failed| it.reason == Reason::Expired && !dead_letter_expired;
    let why = |it: &Failed| if passed_over(it) { Why::Dropped } else { Why::Dead };
    dropped.chain(failed.iter().map(|it| (it.first.0, why(it)))).collect()
}

impl World {
    pub(super) fn new(order: Order, rules: Rules) -> Self {
        let disk = Disk::new();
        let mut it = Subscription::new(&rules.options(order, 70), disk.progress(), at(1));
        it.set_queue(PartitionId(QUEUE as u16));
        Self {
            it,
            order,
            now: 1,
            events: Events::new(),
            tickets: Tickets::default(),
            log_start: [0; PARTITIONS],
            disk,
            rules,
            fetches: Vec::new(),
            consumers: Vec::new(),
            credits: Credits::default(),
            handing: Vec::new(),
            deliveries: Vec::new(),
            transactions: 0,
            next_consumer: 0,
            rate: None,
        }
    }

    pub(super) fn now(&self) -> Now {
        at(self.now)
    }

    /// False if there is nothing that the operation could be about.
    fn may(&self, op: &Op) -> bool {
        match op {
            Op::Attach => self.consumers.len() < 3,
            Op::Detach(at) => *at < self.consumers.len(),
            Op::Finish { read, .. } | Op::Abandon(read) => *read < self.fetches.len(),
            Op::Verb { named, .. } => named.delivery < self.deliveries.len(),
            Op::Settle(_) => self.disk.is_committing(),
            _ => true,
        }
    }

    pub(super) fn run(&mut self, op: Op) {
        if !self.may(&op) {
            return;
        }
        let start = (self.order == Order::Key).then(|| self.events.clone());
        match op {
            Op::Attach => self.attach(),
            Op::Detach(at) => self.detach(at),
            Op::Replace(at) => {
                self.detach(at);
                self.attach();
                self.run(Op::Grant { consumer: self.consumers.len() - 1, events: 30 });
            }
            Op::Grant { consumer, events } => {
                if let Some(id) = self.consumers.get(consumer).copied() {
                    self.grant(id, events, events * 15);
                }
            }
            Op::End { partition, more } => {
                let end = self.events[partition].len() + more as usize;
                self.events[partition].resize(end, Event::NEW);
                self.it.end(PartitionId(partition as u16), Offset(end as u64));
            }
            Op::Read => self.read(),
            Op::Finish { read, take, filter, fail, unsent } => {
                let fetch = self.fetches.remove(read);
                let needs_keys = fetch.needs_keys;
                self.finish(fetch, take, filter, fail);
                self.check_bytes(needs_keys);
                self.hand_out(unsent);
            }
            Op::Abandon(read) => self.it.abandon(self.fetches.remove(read)),
            Op::Verb { named, kind, thief } => self.verb(named, kind, thief),
            Op::Together { parts, wrong } => self.acknowledge_together(&parts, wrong),
            Op::Time(ms) => self.time(ms),
            Op::Submit => self.submit(),
            Op::Settle(ok) => self.settle(ok),
            Op::Lost { partition, more } => self.lose(partition, more),
            Op::Restart { applied } => self.restart(applied),
            Op::Seek { to, applied } => self.seek(to, applied),
            Op::Set(rules) => self.set(rules),
        }
        if let Some(start) = start {
            let partitions = &self.it.ledger.partitions;
            self.events.follow(&start, |partition, offset| partitions.get(partition).state_of(offset).waits);
        }
        books::check(&mut self.it, self.order, &self.events, &self.credits);
        self.check_confirmed();
    }

    fn attach(&mut self) {
        self.next_consumer += 1;
        let id = ConsumerId(self.next_consumer);
        self.it.attach(id).unwrap();
        self.consumers.push(id);
    }

    pub(super) fn grant(&mut self, consumer: ConsumerId, events: u64, bytes: u64) {
        self.it.grant(consumer, events, bytes);
        self.credits.grant(consumer, events, bytes);
    }

    /// What is read can be sent: it is open, and somebody has room.
    fn read(&mut self) {
        let Some(fetch) = self.it.fetch(self.now()) else { return };
        let partition = usize::from(fetch.partition.0);
        assert!(!fetch.needs_keys || self.order == Order::Key);
        assert!(fetch.bytes_max > 0);
        let dead = self.events.iter().filter(|event| event.at.is_to_be_dead()).count() as u64;
        assert!(dead < DEAD_COMMITS_MAX * self.rules.dead_letters_max, "{dead} dead letters are queued");
        assert!(!fetch.needs_keys || fetch.again || self.waiting_bytes() < self.rules.waiting_bytes_max);
        let failed_runs: usize = self.it.ledger.partitions.iter().map(Partition::failed_runs).sum();
        assert!(fetch.again || failed_runs < self.rules.failed_runs_max, "{failed_runs} runs have failed");
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
        others.filter(|it| self.order != Order::Partition || self.events.could_get(*it, self.now)).collect()
    }

    fn detach(&mut self, at: usize) {
        if at >= self.consumers.len() {
            return;
        }
        let id = self.consumers.remove(at);
        self.it.detach(self.now(), id);
        for event in self.events.iter_mut() {
            if !matches!(event.at, At::Flight { consumer, .. } if consumer == id) {
                continue;
            }
            event.lose_consumer(&self.rules, self.now, takes(id));
        }
    }

    /// Reads some offsets of a fetch, of which the chain filters some and fails on others, and some are too old, and assigns
    /// them.
    fn finish(&mut self, fetch: Fetch, take: u64, filter: u64, fail: bool) {
        let (partition, first) = (usize::from(fetch.partition.0), fetch.range.start.0);
        let reached = fetch.range.end.0.min(first + take);
        let (filtered, failed, mut sent) = divide(first..reached, filter, fail);
        let chunks = chunks(partition, first..reached);
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
            assert!(wanted.least <= EVENT_BYTES_MAX * CHUNK && wanted.most > 0);
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
        let ended = ended(&filtered, &failed, self.rules.dead_letter_expired);
        if needs_keys {
            self.finish_by_key(partition, again, first..assigned.until.0, &ended, &assigned.assignments);
            return;
        }
        if let Some(given) = assigned.assignments.first().filter(|_| !stingy && !self.events.alone_waits()) {
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
            self.send(partition, assignment, &own, &before);
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
        let (start, mut given) = (self.events[partition].clone(), Vec::new());
        for assignment in assignments {
            let own: Vec<u64> = assignment.offsets.iter().flat_map(|it| it.start.0..it.end.0).collect();
            assert!(own.iter().all(|offset| used.contains(offset)));
            self.send(partition, assignment, &own, &start);
            given.extend(own);
        }
        let count = given.len();
        given.sort_unstable();
        given.dedup();
        assert_eq!(given.len(), count, "each event is given once");
        let mut waits = false;
        for event in &mut self.events[partition][used.start as usize..used.end as usize] {
            if event.at == At::Fresh {
                assert!(!again);
                event.at = At::Waiting { not_before: self.now };
                waits = true;
            }
        }
        assert!(
            !waits || self.waiting_bytes() <= self.rules.waiting_bytes_max,
            "too much waits for its keys"
        );
    }

    /// What events that wait for their keys take at least.
    fn waiting_bytes(&mut self) -> usize {
        let sharing = &mut self.it.sharing;
        self.events.waiting_bytes(|partition| sharing.knows_keys(partition))
    }

    fn had_room(&self) -> Vec<ConsumerId> {
        let consumers = &self.it.ledger.consumers;
        let responding = consumers.with_room().map(|(place, _)| &consumers.list()[place]);
        responding.filter(|it| !it.is_silent()).map(|it| it.id()).collect()
    }

    /// Sends a delivery, of which this must hold: credit, room, order, and whether it goes alone.
    fn send(&mut self, partition: usize, given: &Assignment, sent: &[u64], start: &[Event]) {
        assert_eq!(given.events, sent.len() as u64, "{given:?} {sent:?}");
        let (consumer, token, deadline) = (given.consumer, given.token.0, self.now + self.rules.timeout_ms);
        let before = self.events[partition].clone();
        for offset in sent {
            turns::check_open(self.order, (partition, *offset), start, &before, self.now);
            let event = &mut self.events[partition][*offset as usize];
            assert_eq!(given.attempt, event.past.attempts + 1);
            event.at = At::Flight { token, consumer, deadline };
        }
        let (events, bytes) = (given.events, sent.iter().map(|offset| bytes_of(partition, *offset)).sum());
        self.it.sent(given.token, bytes);
        self.credits.charge(consumer, token, events, bytes);
        let held = self.events.held_by(consumer);
        // What came back for the sake of its key in the same step has not been followed yet.
        let in_flight = self.it.in_flight(consumer);
        assert!(in_flight <= self.rules.max_in_flight, "{in_flight} events in flight");
        if let Some((rate, since, delivered)) = &mut self.rate {
            *delivered += given.events;
            let allowed = (self.now - *since) * *rate / 1_000 + (*rate / 10).max(1) + 1;
            assert!(*delivered <= allowed, "{delivered} delivered, {allowed} allowed");
        }
        let alone = sent.iter().any(|offset| before[*offset as usize].past.is_alone());
        assert!(!alone || held == 1, "{held} events beside one that goes alone");
        let others = self.events.iter().filter(|event| event.at.holder() == Some(consumer));
        assert!(others.clone().count() == 1 || !others.clone().any(|event| event.past.is_alone()));
        let (first, last) = (sent[0], sent[sent.len() - 1]);
        turns::check(self.order, consumer, partition, sent, &before);
        if self.order == Order::Partition {
            assert_eq!(Some(consumer), self.it.consumers().next(), "only the active consumer gets something");
        }
        let (token, range) = (given.token, first..last + 1);
        self.handing.push(Sent { partition, consumer, token, range, events, bytes });
    }

    /// What one consumer may have in flight, and its credit, are exceeded by one event at most where each goes by its key, and
    /// else by the one chunk that a delivery begins with.
    fn check_bytes(&self, needs_keys: bool) {
        let most = self.rules.max_in_flight_bytes;
        for consumer in self.it.ledger.consumers.list() {
            let own = |sent: &&Sent| sent.consumer == consumer.id();
            let Some(last) = self.handing.iter().rfind(own) else { continue };
            let (in_flight, credit) = (consumer.in_flight_bytes(), self.credits.of(consumer.id()).bytes);
            let over = match needs_keys {
                true => EVENT_BYTES_MAX,
                false if last.events <= CHUNK => last.bytes,
                false => 1,
            };
            assert!(in_flight < most + over, "{in_flight} bytes in flight with {last:?}");
            assert!(credit + over as i64 > 0, "credit for {credit} bytes after {last:?}");
        }
    }

    /// What was assigned goes to its consumers' streams, except for one delivery.
    fn hand_out(&mut self, unsent: Option<usize>) {
        for (number, sent) in std::mem::take(&mut self.handing).into_iter().enumerate() {
            if Some(number) == unsent {
                self.take_back(&sent);
            } else {
                self.deliveries.push(sent);
            }
        }
        for consumer in self.consumers.iter().copied().filter(|it| takes(*it)) {
            self.it.taken(consumer, self.credits.of(consumer).streamed);
        }
    }

    /// A delivery could not be sent: it is as if it had not been made, but that its consumer counts as who had it last.
    fn take_back(&mut self, sent: &Sent) {
        let Sent { partition, consumer, token, range, events, bytes } = sent.clone();
        self.it.recall(self.now(), token);
        self.credits.restore(consumer, events, bytes);
        let mut back = Vec::new();
        for offset in range {
            let event = &mut self.events[partition][offset as usize];
            if event.at.token() == Some(token.0) {
                event.time_out(&self.rules, self.now, consumer, false);
                back.push(offset);
            }
        }
        self.events.rewind(self.order, partition, &back);
    }

    /// The delivery, the offsets that are named, and those of them that are in flight with it; `None` if there was none.
    fn named(&self, named: Named) -> Option<(Sent, Range<u64>, Vec<u64>)> {
        let Named { delivery, from, len } = named;
        let sent = self.deliveries[self.deliveries.len().checked_sub(delivery + 1)?].clone();
        let first = sent.range.start + from % (sent.range.end - sent.range.start);
        let events = &self.events[sent.partition];
        let own = |offset: &u64| events[*offset as usize].at.token() == Some(sent.token.0);
        let in_flight = (first..(first + len).min(sent.range.end)).filter(own).collect();
        Some((sent, first..first + len, in_flight))
    }

    fn verb(&mut self, named: Named, kind: u8, thief: bool) {
        let Some((sent, range, mut named)) = self.named(named) else { return };
        let Sent { partition: place, consumer: owner, token, .. } = sent;
        let kind = match kind {
            0..=3 => VerbKind::Ack,
            4 => VerbKind::Nack { delay_ms: None },
            5 => VerbKind::Nack { delay_ms: Some(30) },
            6 => VerbKind::InProgress,
            8 => VerbKind::Nack { delay_ms: Some(100_000_000) },
            _ => VerbKind::reject("r"),
        };
        let verb = Verb {
            kind: kind.clone(),
            partition: PartitionId(place as u16),
            token,
            first: Offset(range.start),
            last: Offset(range.end - 1),
        };
        let consumer = if thief { ConsumerId(owner.0 + 1) } else { owner };
        let result = self.it.verb(self.now(), consumer, &verb);
        named.retain(|_| !thief);
        if named.is_empty() {
            assert_eq!(result, Err(ErrorCode::DeliveryExpired));
            return;
        }
        let applied = result.expect("events of it are in flight");
        assert_eq!(applied.events, named.len() as u64);
        let said = |dead| At::Settling(Why::Said { token: token.0, consumer, dead, transaction: None });
        let deadline = self.now + self.rules.timeout_ms;
        for offset in &named {
            let event = &mut self.events[place][*offset as usize];
            match kind {
                VerbKind::Ack => event.at = said(false),
                VerbKind::Reject { .. } => event.at = said(true),
                VerbKind::InProgress => event.at = At::Flight { token: token.0, consumer, deadline },
                VerbKind::Nack { delay_ms } => event.give_back(&self.rules, self.now, consumer, delay_ms),
            }
        }
        if kind != VerbKind::InProgress {
            let effect = |offset: u64| match self.events[place][offset as usize] {
                Event { at: At::Waiting { .. }, past, .. } => Effect::Failed(past.attempts),
                _ => Effect::Settled,
            };
            let effects: Vec<_> = named.iter().map(|offset| (*offset, effect(*offset))).collect();
            self.tickets.accept(applied.ticket, place, &effects);
        }
        if let VerbKind::Nack { .. } = kind {
            self.events.rewind(self.order, place, &named);
        }
    }

    /// All of it is acknowledged, or nothing is.
    fn acknowledge_together(&mut self, parts: &[Named], wrong: bool) {
        let parts: Vec<_> = parts.iter().filter_map(|part| self.named(*part)).collect();
        let acked = parts.iter().map(|(sent, range, named)| Acked {
            token: sent.token,
            partition: PartitionId(sent.partition as u16),
            first: Offset(range.start),
            last: Offset(range.end - 1),
            events: named.len() as u64 + u64::from(wrong),
        });
        let acked: Vec<_> = acked.collect();
        self.transactions += 1;
        let result = self.it.acknowledge_all(self.transactions, &acked);
        if parts.iter().any(|(.., named)| named.is_empty() || wrong) {
            assert_eq!(result, Err(ErrorCode::DeliveryExpired));
            return;
        }
        assert_eq!(result, Ok(()));
        for (Sent { partition, consumer, token, .. }, _, named) in parts {
            let (token, transaction) = (token.0, Some(self.transactions));
            for offset in named {
                let why = Why::Said { token, consumer, dead: false, transaction };
                self.events[partition][offset as usize].at = At::Settling(why);
            }
        }
    }

    fn set(&mut self, rules: Rules) {
        if self.rules.rate != rules.rate {
            self.rate = rules.rate.map(|rate| (rate, self.now, 0));
        }
        let Rules { waiting_bytes_max, failed_runs_max, dead_letters_max, .. } = self.rules;
        self.rules = Rules { waiting_bytes_max, failed_runs_max, dead_letters_max, ..rules };
        self.it.set_options(&self.rules.options(self.order, 0), self.now());
    }

    fn time(&mut self, ms: u64) {
        self.now += ms;
        let expired = self.it.on_time(self.now(), |_| 0);
        let mut expected = 0;
        for partition in 0..PARTITIONS {
            let late = self.events.late(partition, self.now);
            expected += late.len() as u64;
            for offset in &late {
                let event = &mut self.events[partition][*offset as usize];
                let by = event.at.holder().expect("it is in flight");
                event.time_out(&self.rules, self.now, by, takes(by));
            }
            self.events.rewind(self.order, partition, &late);
        }
        assert_eq!(expired, expected);
    }

    fn submit(&mut self) {
        let under_way = self.disk.is_committing();
        let Some(settling) = self.it.take_settling() else { return };
        assert!(!under_way);
        let disk = self.disk.begin(settling.id, &settling.rows, &self.events);
        let (mut dead, mut dequeued, mut lost) = (Vec::new(), Vec::new(), Vec::new());
        let transaction = settling.transaction;
        for (partition, progress) in disk.iter().enumerate() {
            for (offset, event) in (0..).zip(&mut self.events[partition]) {
                match (progress.is_settled(Offset(offset)), event.at) {
                    (true, At::Done) => {}
                    (true, At::Settling(why)) => {
                        event.at = At::Submitted(why);
                        assert!(why.may_settle_with(transaction), "{why:?} settles with {transaction:?}");
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
                    (false, At::Settling(Why::Dropped | Why::Lost)) => {}
                    (false, _) => {
                        let history = progress.history_of(offset);
                        assert!(event.past.is(history), "{offset} of {partition}: {event:?}, {history:?}");
                    }
                }
            }
        }
        let is_left = |event: &Event| matches!(event.at, At::Settling(why) if why.is_part_of(transaction));
        let is_in = |event: &Event| matches!(event.at, At::Submitted(why) if why.is_part_of(transaction));
        assert!(transaction.is_none() || self.events.iter().any(is_in), "nothing of {transaction:?} settles");
        assert!(!self.events.iter().any(is_left), "not all of {transaction:?} settles at once");
        let dead_letters = settling.dead_letters.iter();
        for it in &settling.dead_letters {
            let events = &self.events[usize::from(it.partition.0)];
            let expected = |past: Past| past.attempts + u16::from(it.reason != Reason::Expired);
            assert!((it.first.0..=it.last.0).all(|at| expected(events[at as usize].past) == it.attempts));
        }
        assert!(
            dead.len() as u64 <= self.rules.dead_letters_max,
            "{} dead letters in one commit",
            dead.len()
        );
        let mut buried: Vec<_> = dead_letters
            .flat_map(|it| (it.first.0..=it.last.0).map(|offset| (usize::from(it.partition.0), offset)))
            .collect();
        buried.sort_unstable();
        assert_eq!(buried, dead);
        let mut told: Vec<u64> = settling.dequeued.iter().flat_map(|it| it.start.0..it.end.0).collect();
        told.sort_unstable();
        assert_eq!(told, dequeued, "what a commit settles of the queue");
        assert_eq!(ranges_of(&lost), settling.lost, "what a commit settles of what was lost");
    }

    fn settle(&mut self, ok: bool) {
        let Some(id) = self.disk.end(ok) else { return };
        let back = self.it.settled(id, ok, self.now());
        let mut returned = 0;
        let deadline = self.now + self.rules.timeout_ms;
        for (partition, events) in self.events.partitions_mut() {
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
        for it in back {
            self.tickets.take_back(usize::from(it.partition.0), &(it.first.0..it.last.0 + 1));
        }
        self.check_confirmed();
    }

    /// What is confirmed is durable: the event is settled, or its failure is stored.
    fn check_confirmed(&mut self) {
        let confirmed = self.it.confirmed();
        let stored = LazyCell::new(|| self.disk.progress());
        self.tickets.confirm(confirmed, |partition, offset, effect| {
            let stored = &stored[partition];
            let is_failed =
                matches!(effect, Effect::Failed(attempts) if stored.history_of(offset).attempts >= attempts);
            stored.is_settled(Offset(offset)) || is_failed
        });
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
        self.disk.end(applied);
        self.begin_anew();
    }

    /// The log's progress is given up for another place, and another owner begins there. The commit under way was durable
    /// before that, or is void.
    fn seek(&mut self, to: u64, applied: bool) {
        let events = &mut self.events[LOG];
        let to = to % (events.len() as u64 + 1);
        events.fill(Event::NEW);
        events[..to as usize].iter_mut().for_each(|event| event.at = At::Done);
        self.disk.end(applied);
        self.disk.seek(LOG, to);
        self.begin_anew();
    }

    /// An owner that knows what is durable, and nothing else.
    fn begin_anew(&mut self) {
        self.tickets = Tickets::default();
        self.disk.recall(&mut self.events);
        let seed = self.it.ledger.deliveries.next_token() + 1_000;
        if let Some((_, since, delivered)) = &mut self.rate {
            (*since, *delivered) = (self.now, 0);
        }
        let options = self.rules.options(self.order, seed);
        self.it = Subscription::new(&options, self.disk.progress(), self.now());
        self.it.set_queue(PartitionId(QUEUE as u16));
        (self.fetches, self.consumers) = (Vec::new(), Vec::new());
        for partition in 0..PARTITIONS {
            let id = PartitionId(partition as u16);
            self.it.end(id, Offset(self.events[partition].len() as u64));
            self.log_start[partition] = 0;
        }
    }
}
