//! The table against a simple model, over a store that forgets what was not synced.

use std::collections::{BTreeMap, BTreeSet};

use levada_protocol::{
    batch::{BatchBuilder, Stamp},
    event::Event,
    ids::CommitIndex,
    request::TopicSettings,
};
use levada_store::{Commit, MemoryStore, ScanLimit, commit::Term};
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{catalogue::Change, scheduler};

#[derive(Debug, Clone, Copy)]
enum Step {
    /// A batch of so many events that is due after so many milliseconds.
    Add(u32, u64),
    /// Cancels one of the ids that were given out.
    Cancel(u16),
    /// The clock moves, back too.
    Move(i64),
    /// The task reads what is due, unless it waits for a decision.
    Read,
    /// The writer decides about what was read.
    Decide,
    /// The group is written.
    Commit,
    /// What was written is durable.
    Sync,
    /// What was not synced is gone, and all is read again.
    Crash,
}

/// What should be: each event by its id, and what has become of it.
#[derive(Debug, Clone, Default)]
struct Model {
    events: BTreeMap<u64, (u64, Fate)>,
    /// Ids in the order of the log.
    log: Vec<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Waits,
    Cancelled,
    Moved,
}

struct Scene {
    store: MemoryStore,
    catalogue: Catalogue,
    topic: TopicId,
    schedule: Schedule,
    draft: Draft,
    now: u64,
    read: Option<DuePart>,
    /// Rows that a reading takes at most.
    rows: usize,
    /// Due time and id of what was moved last.
    last: (u64, u64),
    /// Ids from this one on are not durable yet: no head shows them.
    undurable_from: u64,
    /// Those that were not durable when something was read: what was read may come before them.
    overtaken: BTreeSet<u64>,
    /// A decision is not durable yet: nothing is read before that.
    undurable: bool,
    /// Where the task reads from: the head as far as it is durable.
    head: Option<Place>,
    model: Model,
    durable: Model,
}

fn draft(store: &MemoryStore) -> Draft {
    Draft::new(CommitIndex(store.last().index.0 + 1))
}

impl Scene {
    fn new() -> Self {
        Self::reading(1_000)
    }

    fn reading(rows: usize) -> Self {
        let change = Change::CreateTopic {
            name: "orders".parse().unwrap(),
            settings: TopicSettings::default(),
            owner: "test".into(),
        };
        let catalogue = change
            .decide(&Catalogue::default(), Timestamp(0), usize::MAX)
            .map(|decided| decided.next)
            .unwrap();
        let (store, topic) = (MemoryStore::new(), catalogue.topic(&"orders".parse().unwrap()).unwrap().id());
        let schedule = Schedule::load(&store, &catalogue, 0).unwrap();
        let draft = draft(&store);
        let (model, durable) = (Model::default(), Model::default());
        let (read, undurable, head) = (None, false, None);
        Self {
            store,
            catalogue,
            topic,
            schedule,
            draft,
            now: 1_000,
            read,
            rows,
            last: (0, 0),
            undurable_from: 0,
            overtaken: BTreeSet::new(),
            undurable,
            head,
            model,
            durable,
        }
    }

    fn add(&mut self, count: u32, delay: u64) {
        let first = self.schedule.topics.get(&self.topic).map_or(FIRST_ID, |topic| topic.summary.next);
        let mut builder = BatchBuilder::new();
        for id in first..first + u64::from(count) {
            builder.push(&Event::new(id.to_string())).unwrap();
        }
        let (due, batch) = (self.now + delay, builder.finish(Stamp::ENGINE));
        let given = self.schedule.add(self.topic, PartitionId(0), Timestamp(due), &batch, &mut self.draft);
        assert_eq!(given, first, "ids follow on each other");
        for id in first..first + u64::from(count) {
            self.model.events.insert(id, (due, Fate::Waits));
            if self.read.is_some() {
                self.overtaken.insert(id);
            }
        }
    }

    /// As a request does it: the place is looked up in the store, then the writer decides.
    fn cancel(&mut self, id: u64) {
        let fate = self.model.events[&id].1;
        let Some(place) = scheduler::place_of(&self.store, self.topic, id).unwrap() else {
            let is_written = self.schedule.changed.is_empty();
            let was = scheduler::was_cancelled(&self.store, self.topic, id, Timestamp(self.now)).unwrap();
            assert!(!is_written || was == (fate == Fate::Cancelled), "event {id} that is {fate:?}");
            return;
        };
        let index = u32::try_from(id - place.first).unwrap();
        let at = (self.topic, place);
        let said = self.schedule.cancel(&self.store, at, index, &mut self.draft).unwrap();
        let expected = if fate == Fate::Moved { Cancel::TooLate } else { Cancel::Done };
        assert_eq!(said, expected, "event {id} that is {fate:?}");
        if fate == Fate::Waits {
            self.model.events.get_mut(&id).unwrap().1 = Fate::Cancelled;
        }
    }

    fn read(&mut self) {
        if self.read.is_some() || self.undurable {
            return;
        }
        if let Some(from) = self.head.filter(|head| head.due.0 <= self.now) {
            let now = Timestamp(self.now);
            let limit = ScanLimit { rows: self.rows, bytes: 1 << 20 };
            let (part, _) = scheduler::read_due(&self.store, self.topic, from, now, limit).unwrap();
            self.read = Some(part);
            self.overtaken.extend(self.model.events.range(self.undurable_from..).map(|(id, _)| *id));
        }
    }

    fn decide(&mut self) {
        let Some(part) = self.read.take() else { return };
        let taken = self.schedule.take_due(vec![part], Timestamp(self.now), &mut self.draft);
        for event in taken.iter().flat_map(|(_, _, batch)| batch.events()) {
            let id: u64 = std::str::from_utf8(event.payload().unwrap()).unwrap().parse().unwrap();
            let (due, fate) = self.model.events.get_mut(&id).unwrap();
            assert_eq!(std::mem::replace(fate, Fate::Moved), Fate::Waits, "event {id} is moved once");
            assert!(*due <= self.now, "event {id} is not before its time");
            if !self.overtaken.contains(&id) {
                assert!((*due, id) > self.last, "in the order of due time and acceptance");
                self.last = (*due, id);
            }
            self.model.log.push(id);
        }
        self.undurable = true;
    }

    fn commit(&mut self) {
        let mut written = std::mem::replace(&mut self.draft, Draft::new(CommitIndex(0)));
        self.schedule.flush(&mut written);
        let expected = written.encoded_len();
        let ops = written.into_ops();
        if !ops.is_empty() {
            let commit = Commit::after(&self.store.last(), Term(1), Timestamp(0), ops);
            assert!(commit.encoded_len() <= expected, "what was counted is enough");
            self.store.apply(&commit).unwrap();
        }
        self.draft = draft(&self.store);
    }

    fn sync(&mut self) {
        self.commit();
        self.store.sync().unwrap();
        self.durable = self.model.clone();
        self.undurable_from = self.model.events.keys().next_back().map_or(0, |id| id + 1);
        let summary = self.schedule.topics.get(&self.topic).map(|topic| topic.summary);
        self.head = summary.and_then(|summary| summary.head);
        self.undurable = false;
        let waiting = self.model.events.values().filter(|(_, fate)| *fate == Fate::Waits).count();
        assert_eq!(summary.map_or(0, |summary| summary.pending), waiting as u64, "the count is exact");
        let (from, to) = rows::scheduled_of_topic(self.topic);
        let stored =
            self.store.scan(Family::Schedule, &from, &to, ScanLimit { rows: usize::MAX, bytes: usize::MAX });
        let batches = stored.unwrap().into_iter().filter_map(|(key, value)| {
            Scheduled::parse_key(&key)?;
            Some(Scheduled::decode(&value).unwrap().batch.len() as u64)
        });
        assert_eq!(self.schedule.pending(self.topic).bytes, batches.sum::<u64>(), "so are the bytes");
    }

    fn crash(&mut self) {
        self.store.reopen().unwrap();
        self.schedule = Schedule::load(&self.store, &self.catalogue, 0).unwrap();
        self.draft = draft(&self.store);
        (self.read, self.undurable, self.model, self.last) = (None, false, self.durable.clone(), (0, 0));
        self.undurable_from = self.model.events.keys().next_back().map_or(0, |id| id + 1);
        self.head = self.schedule.topics.get(&self.topic).and_then(|topic| topic.summary.head);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Add(count, delay) => self.add(count, delay),
            Step::Cancel(at) => {
                let at = usize::from(at) % self.model.events.len().max(1);
                if let Some(id) = self.model.events.keys().nth(at).copied() {
                    self.cancel(id);
                }
            }
            Step::Move(by) => {
                self.now = self.now.saturating_add_signed(by);
                if by < 0 {
                    // What is accepted now may be due before what was moved.
                    self.last = (0, 0);
                }
            }
            Step::Read => self.read(),
            Step::Decide => self.decide(),
            Step::Commit => self.commit(),
            Step::Sync => self.sync(),
            Step::Crash => self.crash(),
        }
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (1..4_u32, 0..60_u64).prop_map(|(count, delay)| Step::Add(count, delay)),
        4 => any::<u16>().prop_map(Step::Cancel),
        3 => (-40..80_i64).prop_map(Step::Move),
        4 => Just(Step::Read),
        4 => Just(Step::Decide),
        3 => Just(Step::Commit),
        4 => Just(Step::Sync),
        1 => Just(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_each_event_is_moved_once_or_cancelled_for_good(
        steps in vec(any_step(), 0..150),
        rows in 2..12_usize,
    ) {
        let mut scene = Scene::reading(rows);
        steps.into_iter().for_each(|step| scene.step(step));
        scene.decide();
        scene.sync();
        scene.now += 10_000;
        // Each round moves something or forgets that something was touched.
        for _ in 0..1_000 {
            scene.read();
            if scene.read.is_none() {
                break;
            }
            scene.decide();
            scene.sync();
        }
        prop_assert_eq!(scene.head, None, "nothing is left");
        prop_assert!(scene.model.events.values().all(|(_, fate)| *fate != Fate::Waits), "nothing is lost");
        let mut log = scene.model.log.clone();
        log.sort_unstable();
        let moved = scene.model.events.iter().filter(|(_, (_, fate))| *fate == Fate::Moved).map(|(id, _)| *id);
        prop_assert_eq!(log, moved.collect::<Vec<_>>(), "each once");
    }
}

#[test]
fn with_more_cancels_than_are_remembered_nothing_moves_until_it_is_read_again() {
    let mut scene = Scene::new();
    scene.add(1, 0);
    scene.sync();
    scene.read();
    for batch in 0..=TOUCHED_MAX as u64 {
        scene.schedule.touched.add((scene.topic, 1_000 + batch));
    }
    scene.decide();
    assert_eq!(scene.model.log, [0_u64; 0]);
    scene.sync();
    scene.read();
    scene.decide();
    assert_eq!(scene.model.log, [FIRST_ID]);
}

#[test]
fn a_topic_made_anew_gives_none_of_the_ids_of_the_one_before() {
    let mut scene = Scene::new();
    scene.add(3, 10);
    scene.sync();
    scene.schedule.forget_topic(scene.topic, &mut scene.draft);
    scene.model = Model::default();
    scene.sync();
    scene.crash();
    scene.add_after(FIRST_ID + 3);
}

impl Scene {
    fn add_after(&mut self, expected: u64) {
        let mut builder = BatchBuilder::new();
        builder.push(&Event::new("x")).unwrap();
        let batch = builder.finish(Stamp::ENGINE);
        let (topic, partition) = (self.topic, PartitionId(0));
        let given = self.schedule.add(topic, partition, Timestamp(self.now), &batch, &mut self.draft);
        assert_eq!(given, expected);
    }
}
