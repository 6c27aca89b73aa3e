//! The table against a simple model, with the tables that it follows, over a store.

use std::collections::BTreeSet;

use levada_delivery::progress::{Chunk, Head, RowChange};
use levada_protocol::{
    batch::{Batch, BatchBuilder, Stamp},
    event::Event,
    ids::{CommitIndex, RouteName, SubscriptionName},
    request::{OnFull, RouteSpec, SubscriptionOptions, TopicSettings},
};
use levada_store::{Commit, MemoryStore, commit::Term};
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    catalogue::{Change, Root},
    shard::{
        draft::Draft,
        tables::{NewBatch, TableLimits, Tables},
    },
};

const PARTITIONS: u16 = 2;
const LIMITS: TableLimits = TableLimits { producers_max: 10, dedup_ids_max: 10 };

#[derive(Debug, Clone)]
enum Step {
    /// A batch of so many events of so many bytes.
    Publish(u16, u32, usize),
    /// A delayed batch.
    Schedule(u32, usize),
    Subscribe(u16),
    Route,
    /// One of the subscriptions or routes is deleted.
    Delete(usize),
    /// Acknowledges some of what a subscription, or a route, has yet to acknowledge.
    Ack(usize, u16, u64, u64),
    Seek(usize, u16, u64),
    /// Drops what is before one of the records.
    Trim(u16, usize),
    /// The group is written, and then it is so many milliseconds later.
    Commit(u64),
    Restart,
    /// So much is to be added under a quota.
    Admit {
        events: u64,
        bytes: u64,
        age: u64,
        charge: Charge,
    },
}

/// A subscription or a route as it should be.
#[derive(Debug)]
struct Model {
    holder: Holder,
    name: String,
    /// Acknowledged offsets above where it began, and that place.
    partitions: Vec<(u64, BTreeSet<u64>)>,
}

#[derive(Debug, Default)]
struct ModelLog {
    start: u64,
    /// Each batch: its first offset, its events, its bytes, and when it was appended.
    batches: Vec<(u64, u64, u64, u64)>,
    end: u64,
    /// Ends of the records of earlier commits.
    ends: Vec<u64>,
}

struct Scene {
    store: MemoryStore,
    catalogue: Catalogue,
    topic: TopicId,
    tables: Tables,
    draft: Draft,
    now: u64,
    made: u32,
    holders: Vec<Model>,
    logs: Vec<ModelLog>,
    waiting: Charge,
}

fn batch(events: u32, bytes: usize) -> Batch {
    let mut builder = BatchBuilder::new();
    (0..events).for_each(|_| builder.push(&Event::new(vec![b'x'; bytes])).unwrap());
    builder.finish(Stamp::ENGINE)
}

fn draft(store: &MemoryStore) -> Draft {
    Draft::new(CommitIndex(store.last().index.0 + 1))
}

impl Scene {
    fn new() -> Self {
        let (store, catalogue) = (MemoryStore::new(), Catalogue::default());
        let (tables, _) = Tables::load(&store, &catalogue, LIMITS, 0).unwrap();
        let (draft, logs) = (draft(&store), (0..PARTITIONS).map(|_| ModelLog::default()).collect());
        let (holders, waiting) = (Vec::new(), Charge::default());
        let mut scene = Self {
            store,
            catalogue,
            topic: TopicId(0),
            tables,
            draft,
            now: 1_000,
            made: 0,
            holders,
            logs,
            waiting,
        };
        for name in ["t", "other"] {
            let settings = TopicSettings { partitions: PARTITIONS, ..TopicSettings::default() };
            let owner = String::new();
            scene.change(&Change::CreateTopic { name: name.parse().unwrap(), settings, owner });
        }
        scene.topic = scene.catalogue.topic(&"t".parse().unwrap()).unwrap().id();
        scene
    }

    fn change(&mut self, change: &Change) {
        let decided = change.decide(&self.catalogue, Timestamp(self.now), usize::MAX).unwrap();
        self.tables.partitions.flush(&mut self.draft);
        decided.ops.into_iter().for_each(|op| self.draft.push(op));
        self.catalogue = decided.next;
        decided.events.iter().for_each(|event| self.tables.follow(event, &mut self.draft));
    }

    fn commit(&mut self) {
        let mut written = std::mem::replace(&mut self.draft, Draft::new(CommitIndex(0)));
        self.tables.flush(Timestamp(self.now), &mut written);
        let ops = written.into_ops();
        if !ops.is_empty() {
            let commit = Commit::after(&self.store.last(), Term(1), Timestamp(self.now), ops);
            self.store.apply(&commit).unwrap();
        }
        self.draft = draft(&self.store);
        for log in &mut self.logs {
            if log.ends.last() != Some(&log.end) {
                log.ends.push(log.end);
            }
        }
    }

    fn restart(&mut self) {
        self.commit();
        self.store.sync().unwrap();
        self.store.reopen().unwrap();
        self.catalogue = Catalogue::load(&self.store).unwrap();
        (self.tables, _) = Tables::load(&self.store, &self.catalogue, LIMITS, 0).unwrap();
    }

    fn publish(&mut self, number: u16, events: u32, bytes: usize) {
        let new = NewBatch {
            topic: self.topic,
            partition: PartitionId(number),
            batch: batch(events, bytes),
            hops: 0,
            retain_for_ms: u64::MAX,
        };
        let len = new.batch.bytes().len() as u64;
        let base = self.tables.partitions.append(new, Timestamp(self.now), &mut self.draft).unwrap();
        let log = &mut self.logs[usize::from(number)];
        assert_eq!(base.0, log.end);
        log.batches.push((log.end, u64::from(events), len, self.now));
        log.end += u64::from(events);
    }

    fn begin(&mut self, begin: Vec<u64>, is_route: bool) {
        self.made += 1;
        let (name, owner) = (format!("n{}", self.made), String::new());
        let positions = begin.iter().copied().map(Offset).collect();
        let topic = "t".parse().unwrap();
        let holder = if is_route {
            let route: RouteName = name.parse().unwrap();
            let spec = RouteSpec::new(route.clone(), topic, ["other".parse().unwrap()]);
            self.change(&Change::CreateRoute { spec, name: route.clone(), positions, owner });
            Holder::Route(RouteId(self.catalogue.route(&route).unwrap().id))
        } else {
            let of: SubscriptionName = name.parse().unwrap();
            let options = SubscriptionOptions::default();
            self.change(&Change::CreateSubscription { topic, name: of.clone(), options, positions, owner });
            let record = self.catalogue.subscription(&"t".parse().unwrap(), &of).unwrap();
            Holder::Subscription(SubscriptionId(record.id))
        };
        let partitions = begin.into_iter().map(|begin| (begin, BTreeSet::new())).collect();
        self.holders.push(Model { holder, name, partitions });
    }

    fn delete(&mut self, at: usize) {
        let Model { holder, name, .. } = self.holders.remove(at);
        let root = match holder {
            Holder::Subscription(_) => Root::Subscription("t".parse().unwrap(), name.parse().unwrap()),
            Holder::Route(_) => Root::Route(name.parse().unwrap()),
        };
        self.change(&Change::Delete { root, force: true, with_dead_letters: false });
    }

    fn ack(&mut self, at: usize, number: u16, from: u64, len: u64) {
        let durable = *self.logs[usize::from(number)].ends.last().unwrap_or(&0);
        let Model { holder, partitions, .. } = &mut self.holders[at];
        let (begin, acked) = &mut partitions[usize::from(number)];
        let before = first(*begin, acked);
        let range = match holder {
            Holder::Route(_) => before..(before + len).min(durable),
            Holder::Subscription(_) => before + from..(before + from + len).min(durable),
        };
        if range.is_empty() {
            return;
        }
        acked.extend(range.clone());
        let (floor, number) = (first(*begin, acked), PartitionId(number));
        let id = match holder {
            Holder::Route(id) => {
                self.tables.advance_route(*id, number, Offset(floor), &mut self.draft);
                return;
            }
            Holder::Subscription(id) => *id,
        };
        let mut rows = vec![RowChange::Head(Head::new(floor, 0, Vec::new()).unwrap())];
        if range.start > before {
            // A floor that rises leaves the row of its chunk as it is.
            let runs = acked.iter().filter(|offset| **offset >= floor).map(|offset| *offset..offset + 1);
            rows.extend(Chunk::new(runs.collect()).map(|chunk| RowChange::Chunk { index: 0, chunk }));
        }
        self.tables.change_progress(id, number, rows, &mut self.draft);
    }

    fn seek(&mut self, at: usize, number: u16, to: u64) {
        let Model { holder: Holder::Subscription(_), name, partitions } = &mut self.holders[at] else {
            return;
        };
        let log = &self.logs[usize::from(number)];
        let to = to.clamp(log.start, *log.ends.last().unwrap_or(&0).max(&log.start));
        partitions[usize::from(number)] = (to, BTreeSet::new());
        let (topic, name, to) =
            ("t".parse().unwrap(), name.parse().unwrap(), vec![(PartitionId(number), Offset(to))]);
        self.change(&Change::MoveSubscription { topic, name, to });
    }

    fn trim(&mut self, number: u16, nth: usize) {
        let log = &mut self.logs[usize::from(number)];
        let Some(start) = log.ends.get(nth % log.ends.len().max(1)).copied() else { return };
        if start <= log.start {
            return;
        }
        log.start = start;
        let before = log.batches.iter().filter(|(base, ..)| *base < start);
        let (dropped, place) =
            (before.map(|(_, _, bytes, _)| bytes).sum(), (self.topic, PartitionId(number)));
        self.tables.advance_start(place, Offset(start), dropped, &mut self.draft);
    }

    /// What a subscription or a route has yet to acknowledge, and since when.
    fn expected(&self, model: &Model) -> (Charge, Option<u64>) {
        let (mut has, mut oldest) = (Charge::default(), None::<u64>);
        for (log, (begin, acked)) in self.logs.iter().zip(&model.partitions) {
            let done = |offset: u64| offset < log.start || offset < *begin || acked.contains(&offset);
            has.events += (0..log.end).filter(|offset| !done(*offset)).count() as u64;
            let Some(first) = (0..log.end).find(|offset| !done(*offset)) else { continue };
            let behind = log.batches.iter().filter(|(base, events, ..)| base + events > first);
            has.bytes += behind.clone().map(|(_, _, bytes, _)| bytes).sum::<u64>();
            let time = behind.map(|(.., time)| *time).next();
            oldest = oldest.into_iter().chain(time).min();
        }
        (has, oldest)
    }

    fn admit(&mut self, settings: &TopicSettings, charge: Charge) {
        let quota = Quota::new(settings).unwrap();
        let mut fits = true;
        for model in &self.holders {
            let (has, oldest) = self.expected(model);
            fits &= quota.check(has.plus(self.waiting), charge).is_ok();
            fits &=
                oldest.is_none_or(|oldest| quota.check_age(Timestamp(oldest), Timestamp(self.now)).is_ok());
        }
        // Twice: what the first has taken is not appended, and so is there for the second, too.
        for _ in 0..2 {
            let got = self.tables.admit(&self.store, (self.topic, quota), charge, Timestamp(self.now));
            assert_eq!(got.unwrap().is_ok(), fits, "{quota:?} {charge:?} {:?}", self.holders);
        }
    }

    /// The table counts what the model does.
    fn check(&mut self) {
        let expected: Vec<_> =
            self.holders.iter().map(|model| (model.holder, self.expected(model))).collect();
        let Tables { backlogs, partitions, .. } = &mut self.tables;
        let Backlog { starts, standings, .. } = backlogs.topics.get_mut(&self.topic).unwrap();
        let reaches = partitions.reaches(self.topic);
        let view = View { store: &self.store, partitions, topic: self.topic, starts, reaches };
        assert_eq!(standings.len(), expected.len());
        for (holder, (has, oldest)) in expected {
            let standing = standings.get_mut(&holder).unwrap();
            standing.count(view.starts);
            assert_eq!(standing.events(&view), has.events);
            assert_eq!(standing.bytes(&view, 0).unwrap(), has.bytes);
            let found = standing.oldest(&view, Timestamp(u64::MAX)).unwrap().map(|(_, time)| time.0);
            // What is not written yet has no time.
            assert_eq!(found, oldest.filter(|_| found.is_some()));
            assert!(found.is_some() || oldest.is_none_or(|oldest| oldest == self.now));
        }
    }

    fn step(&mut self, step: Step) {
        let of = |at: usize, holders: &[Model]| (!holders.is_empty()).then(|| at % holders.len());
        match step {
            Step::Publish(number, events, bytes) => self.publish(number, events, bytes),
            Step::Schedule(events, bytes) => {
                let batch = batch(events, bytes);
                let due = Timestamp(self.now + 1_000_000);
                self.tables.schedule.add(self.topic, PartitionId(0), due, &batch, &mut self.draft);
                let charge = Charge { events: events.into(), bytes: batch.bytes().len() as u64 };
                self.waiting = self.waiting.plus(charge);
                // It was admitted, which this model does not follow.
                self.tables.backlogs.change_topic(self.topic);
            }
            Step::Subscribe(_) | Step::Route if self.holders.len() >= 4 => {}
            Step::Subscribe(from) => {
                // At or before what is durable.
                let from = |log: &ModelLog| {
                    let durable = *log.ends.last().unwrap_or(&0);
                    (durable * u64::from(from) / 100).clamp(log.start, durable)
                };
                self.begin(self.logs.iter().map(from).collect(), false);
            }
            Step::Route => self.begin(self.logs.iter().map(|log| log.start).collect(), true),
            Step::Delete(at) => {
                if let Some(at) = of(at, &self.holders) {
                    self.delete(at);
                }
            }
            Step::Ack(at, number, from, len) => {
                if let Some(at) = of(at, &self.holders) {
                    self.ack(at, number, from, len);
                }
            }
            Step::Seek(at, number, to) => {
                if let Some(at) = of(at, &self.holders) {
                    self.seek(at, number, to);
                }
            }
            Step::Trim(number, nth) => self.trim(number, nth),
            Step::Commit(by) => {
                self.commit();
                self.now += by;
            }
            Step::Restart => self.restart(),
            Step::Admit { events, bytes, age, charge } => {
                let settings = TopicSettings {
                    backlog_max_events: events,
                    backlog_max_bytes: bytes,
                    backlog_max_age_ms: age,
                    on_full: OnFull::Reject,
                    ..TopicSettings::default()
                };
                if settings.has_backlog_quota() {
                    // Another quota than before.
                    self.tables.backlogs.change_topic(self.topic);
                    self.admit(&settings, charge);
                }
            }
        }
        self.check();
    }
}

fn first(begin: u64, acked: &BTreeSet<u64>) -> u64 {
    (begin..).find(|offset| !acked.contains(offset)).unwrap()
}

fn step() -> impl Strategy<Value = Step> {
    let number = 0..PARTITIONS;
    let limit = |max: u64| prop_oneof![Just(0), 1..max];
    let charge = (0..5u64, 0..600u64).prop_map(|(events, bytes)| Charge { events, bytes });
    prop_oneof![
        8 => (number.clone(), 1..4u32, 0..200usize).prop_map(|(number, events, bytes)| Step::Publish(number, events, bytes)),
        1 => (1..3u32, 0..100usize).prop_map(|(events, bytes)| Step::Schedule(events, bytes)),
        2 => (0..120u16).prop_map(Step::Subscribe),
        1 => Just(Step::Route),
        1 => any::<usize>().prop_map(Step::Delete),
        8 => (any::<usize>(), number.clone(), 0..6u64, 1..6u64).prop_map(|(at, number, from, len)| Step::Ack(at, number, from, len)),
        1 => (any::<usize>(), number.clone(), 0..40u64).prop_map(|(at, number, to)| Step::Seek(at, number, to)),
        1 => (number, any::<usize>()).prop_map(|(number, nth)| Step::Trim(number, nth)),
        5 => (0..50u64).prop_map(Step::Commit),
        1 => Just(Step::Restart),
        4 => (limit(30), limit(2_000), limit(120), charge)
            .prop_map(|(events, bytes, age, charge)| Step::Admit { events, bytes, age, charge }),
    ]
}

proptest! {
    #[test]
    fn the_table_is_what_a_simple_model_says(steps in vec(step(), 1..80)) {
        let mut scene = Scene::new();
        steps.into_iter().for_each(|step| scene.step(step));
        scene.restart();
        scene.check();
    }
}

/// A topic with one subscription that has acknowledged nothing, and a quota of events.
fn with_quota(events: u64) -> (Scene, Quota) {
    let mut scene = Scene::new();
    scene.begin(vec![0, 0], false);
    let settings = TopicSettings { backlog_max_events: events, ..TopicSettings::default() };
    (scene, Quota::new(&settings).unwrap())
}

#[test]
fn what_was_admitted_is_taken_from_the_room_that_is_left() {
    let (mut scene, quota) = with_quota(10);
    let one = Charge { events: 1, bytes: 100 };
    for _ in 0..10 {
        let admitted = scene.tables.admit(&scene.store, (scene.topic, quota), one, Timestamp(scene.now));
        assert_eq!(admitted.unwrap(), Ok(()));
        scene.publish(0, 1, 1);
    }
    let full = scene.tables.admit(&scene.store, (scene.topic, quota), one, Timestamp(scene.now)).unwrap();
    let holder = scene.holders[0].holder;
    assert_eq!(full, Err(Full { holder, reached: Reached::Events { has: 10, max: 10 } }));
    scene.commit();
    scene.ack(0, 0, 0, 1);
    let admitted = scene.tables.admit(&scene.store, (scene.topic, quota), one, Timestamp(scene.now));
    assert_eq!(admitted.unwrap(), Ok(()), "an acknowledgement makes room at once");
}

#[test]
fn a_row_of_a_deleted_or_unknown_holder_changes_nothing() {
    let (mut scene, _) = with_quota(10);
    scene.tables.backlogs.raise(Holder::Route(RouteId(77)), PartitionId(0), Offset(5));
    let Holder::Subscription(id) = scene.holders[0].holder else { panic!("it is a subscription") };
    scene.delete(0);
    let head = RowChange::Head(Head::new(5, 0, Vec::new()).unwrap());
    scene.tables.change_progress(id, PartitionId(0), vec![head], &mut scene.draft);
    scene.tables.backlogs.trimmed((TopicId(9_999), PartitionId(0)), Offset(1), 1);
    scene.check();
}
