//! Dead letters that are redriven and purged: each event once, whatever goes wrong in between.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use levada_broker::{Clock, Consumer, Content, Error, Principal};
use levada_protocol::{
    batch::{BatchBuilder, Stamp},
    deliver::Run,
    error::ErrorCode,
    event::Event,
    ids::{PartitionId, Timestamp, TopicName},
    limits::{DEAD_LETTER_GROUPS_MAX, REDRIVE_EVENTS_MAX, REDRIVES_MAX},
    partition::partition_of,
    publish::PublishHeader,
    request::{
        DeadLetterGroup, DeadLetterGroups, DeadLetterSelection, DeadLetterTopic, GroupDeadLetters,
        PurgeDeadLetters, Purged, Read, Redrive, RedriveInfo, RedriveOutcome, Redriven, Request, Response,
        Start, SubscriptionOptions, TopicSettings,
    },
    verbs::{Verb, VerbKind, Verbs},
};
use levada_store::{Family, ScanLimit, Store as _};
use proptest::{collection::vec, prelude::*, test_runner::Config};
use tokio::time::timeout;

use crate::support::{Engine, PLENTY, SOON};

pub(crate) const DEAD: &str = "dlq.orders.payment";

pub(crate) fn topic(name: &str) -> TopicName {
    name.parse().unwrap()
}

pub(crate) fn all(to: &str) -> Redrive {
    let (topic, to) = (topic(DEAD), Some(topic(to)));
    Redrive { topic, to, select: DeadLetterSelection::All, from: 0, until: None, force: false }
}

pub(crate) fn these(to: &str, offsets: &[u64]) -> Redrive {
    Redrive { select: DeadLetterSelection::Offsets { offsets: offsets.to_vec() }, ..all(to) }
}

pub(crate) async fn try_step(engine: &Engine, redrive: Redrive) -> Result<Redriven, Error> {
    let asked = engine.broker.request(&Principal::Local, Request::Redrive(redrive), None);
    timeout(SOON, asked).await.expect("it is answered").map(|response| match response {
        Response::Redriven(step) => step,
        other => panic!("{other:?}"),
    })
}

/// All steps of a redrive.
pub(crate) async fn redrive(engine: &Engine, mut redrive: Redrive) -> Vec<RedriveOutcome> {
    let mut outcomes = Vec::new();
    loop {
        let step = try_step(engine, redrive.clone()).await.unwrap();
        assert!(step.outcomes.len() <= REDRIVE_EVENTS_MAX);
        outcomes.extend(step.outcomes);
        match step.stretch.next {
            Some(next) => (redrive.from, redrive.until) = (next, Some(step.stretch.until)),
            None => return outcomes,
        }
    }
}

async fn purge(engine: &Engine, before_ms: Option<u64>, force: bool) -> Result<Purged, Error> {
    let purge = PurgeDeadLetters { topic: topic(DEAD), before_ms, until: None, force };
    try_purge(engine, purge).await
}

async fn try_purge(engine: &Engine, purge: PurgeDeadLetters) -> Result<Purged, Error> {
    let asked = engine.broker.request(&Principal::Local, Request::PurgeDeadLetters(purge), None);
    timeout(SOON, asked).await.expect("it is answered").map(|response| match response {
        Response::Purged(purged) => purged,
        other => panic!("{other:?}"),
    })
}

pub(crate) async fn redrives(engine: &Engine) -> Vec<RedriveInfo> {
    let (mut all, mut from) = (Vec::new(), 0);
    loop {
        let request = Request::ListRedrives { topic: topic(DEAD), from, until: None };
        let Response::Redrives { redrives, next } = engine.ask(request).await else { panic!("no redrives") };
        all.extend(redrives);
        match next {
            Some(next) => from = next,
            None => return all,
        }
    }
}

/// The offsets that were redriven now.
pub(crate) fn done(outcomes: &[RedriveOutcome]) -> Vec<u64> {
    let offset = |outcome: &RedriveOutcome| match outcome {
        RedriveOutcome::Redriven(info) => Some(info.offset),
        _ => None,
    };
    outcomes.iter().filter_map(offset).collect()
}

/// Those that had been before.
pub(crate) fn already(outcomes: &[RedriveOutcome]) -> Vec<u64> {
    let offset = |outcome: &RedriveOutcome| match outcome {
        RedriveOutcome::AlreadyRedriven(info) => Some(info.offset),
        _ => None,
    };
    outcomes.iter().filter_map(offset).collect()
}

/// Everything that a topic holds, with its place.
pub(crate) async fn events(engine: &Engine, name: &str) -> BTreeMap<(u16, u64), Event> {
    let read = Read { from: Start::Earliest, ..Read::new(topic(name)) };
    let mut reader = engine.broker.read(&Principal::Local, read).await.unwrap();
    // One that has nothing to read has ended.
    let _ended = reader.credit.grant(PLENTY).await;
    let mut events = BTreeMap::new();
    while let Some(outgoing) = timeout(SOON, reader.outgoing.recv()).await.unwrap() {
        let outgoing = outgoing.unwrap();
        let Content::Delivery(delivery) = outgoing.content() else { continue };
        for (base, batch) in delivery.runs.iter().flat_map(Run::batches).map(Result::unwrap) {
            for event in batch.events() {
                let place = (delivery.header.partition.0, event.offset(base).0);
                events.insert(place, event.to_event(&batch));
            }
        }
    }
    events
}

/// How often each payload is in a topic.
async fn counts(engine: &Engine, name: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for event in events(engine, name).await.into_values() {
        let payload = String::from_utf8(event.payload.unwrap().to_vec()).unwrap();
        *counts.entry(payload).or_default() += 1;
    }
    counts
}

pub(crate) fn header(event: &Event, name: &str) -> Option<String> {
    let found = event.headers.iter().find(|(has, _)| has == name);
    found.map(|(_, value)| String::from_utf8(value.to_vec()).unwrap())
}

/// Publishes events `from` to `from + count`, of keys `key-0` to `key-9`.
pub(crate) async fn publish(engine: &Engine, from: usize, count: usize) {
    let mut builder = BatchBuilder::new();
    for number in from..from + count {
        let event = Event::new(format!("{{\"n\":{number}}}")).with_key(format!("key-{}", number % 10));
        builder.push(&event.with_header("own", number.to_string())).unwrap();
    }
    let mut stream = engine.broker.open_publish(&Principal::Local, &topic("orders")).unwrap();
    let (partition, durability, expect_offset) = (PartitionId(0), None, None);
    let header = PublishHeader { correlation: 1, partition, durability, expect_offset, due: None };
    stream.submitter().submit(header, builder.finish(Stamp::ENGINE)).await.unwrap();
    timeout(SOON, stream.acks.recv()).await.unwrap().unwrap();
}

/// Rejects the next `count` events.
pub(crate) async fn reject(consumer: &mut Consumer, mut count: u64) {
    let mut sequence = 1;
    while count > 0 {
        let next = timeout(SOON, consumer.outgoing.recv()).await.expect("it is delivered").unwrap().unwrap();
        let Content::Delivery(delivery) = next.content() else { continue };
        let (partition, token) = (delivery.header.partition, delivery.header.token);
        let mut verbs = Vec::new();
        for (base, batch) in delivery.runs.iter().flat_map(Run::batches).map(Result::unwrap) {
            for event in batch.events() {
                let (first, number) = (event.offset(base), event.offset(base).0 % 3);
                let kind = VerbKind::reject(format!("reason {number}"));
                verbs.push(Verb { kind, partition, token, first, last: first });
            }
        }
        count -= verbs.len() as u64;
        consumer.control.verbs(Verbs { sequence, verbs }).await.unwrap();
        sequence += 1;
    }
}

/// Waits until the dead-letter topic ends there.
pub(crate) async fn until_dead(engine: &Engine, end: u64) {
    let waiting = async {
        loop {
            let request = Request::DescribeTopic { name: topic(DEAD) };
            let found = engine.broker.request(&Principal::Local, request, None).await;
            if let Ok(Response::Topic(info)) = found
                && info.partitions[0].end >= end
            {
                assert_eq!(info.partitions[0].end, end);
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, waiting).await.expect("they become dead letters");
}

/// An engine whose subscription `orders/payment` has so many dead letters, and an empty topic `repaired` of 4 partitions.
pub(crate) async fn with_dead_letters(count: usize) -> Engine {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    engine.topic("repaired", TopicSettings { partitions: 4, ..TopicSettings::default() }).await;
    more_dead_letters(&engine, 0, count).await;
    engine
}

async fn more_dead_letters(engine: &Engine, from: usize, count: usize) {
    publish(engine, from, count).await;
    let mut consumer = engine.subscribe(SubscriptionOptions::default()).await;
    consumer.control.credit(PLENTY).await.unwrap();
    reject(&mut consumer, count as u64).await;
    until_dead(engine, (from + count) as u64).await;
    engine.leave(consumer).await;
}

pub(crate) fn side_rows(engine: &Engine) -> usize {
    engine.store.scan(Family::Side, &[0], &[0xff; 32], ScanLimit::NONE).unwrap().len()
}

fn once(numbers: impl Iterator<Item = usize>) -> BTreeMap<String, usize> {
    numbers.map(|number| (format!("{{\"n\":{number}}}"), 1)).collect()
}

#[tokio::test]
async fn a_redriven_event_is_as_it_was_and_its_dead_letter_knows_where_it_went() {
    let engine = with_dead_letters(12).await;
    let outcomes = redrive(&engine, these("repaired", &[11, 3, 3, 40])).await;
    assert_eq!(done(&outcomes), [3, 11], "each once, in order");
    let RedriveOutcome::Refused { offset: 40, refusal } = &outcomes[2] else { panic!("{outcomes:?}") };
    assert_eq!(refusal.code, ErrorCode::OffsetOutOfRange);
    let noted = redrives(&engine).await;
    let told: Vec<_> = outcomes
        .iter()
        .filter_map(|outcome| match outcome {
            RedriveOutcome::Redriven(info) => Some(info.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(noted, told);
    let (source, target) = (events(&engine, "orders").await, events(&engine, "repaired").await);
    assert_eq!(target.len(), 2);
    for info in noted {
        assert_eq!((info.to.as_str(), info.times), ("repaired", 1));
        let (was, is) = (&source[&(0, info.offset)], &target[&(info.to_partition, info.to_offset)]);
        assert_eq!((&was.key, &was.payload, was.time), (&is.key, &is.payload, is.time));
        assert_eq!(info.to_partition, partition_of(was.key.as_deref().unwrap(), 4).0);
        assert_eq!(header(is, "own"), header(was, "own"));
        assert_eq!(header(is, "lv-redrives").as_deref(), Some("1"));
        assert_eq!(is.headers.len(), 2, "nothing of the dead letter is left: {:?}", is.headers);
    }
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_repeated_redrive_redrives_what_is_new_alone_unless_it_is_forced() {
    let engine = with_dead_letters(30).await;
    let condition = "n >= 10 and header.lv-dlq-error = \"reason 1\"".to_owned();
    let some = Redrive { select: DeadLetterSelection::Where { condition }, ..all("repaired") };
    let expected: Vec<u64> = (10..30).filter(|number| number % 3 == 1).collect();
    assert_eq!(done(&redrive(&engine, some.clone()).await), expected);
    let again = redrive(&engine, some).await;
    assert_eq!((done(&again).len(), already(&again)), (0, expected.clone()));
    let rest = redrive(&engine, all("repaired")).await;
    assert_eq!(already(&rest), expected);
    assert_eq!(done(&rest).len() + expected.len(), 30);
    assert_eq!(counts(&engine, "repaired").await, once(0..30));
    let forced = redrive(&engine, Redrive { force: true, ..these("repaired", &expected) }).await;
    assert_eq!(done(&forced), expected);
    let twice: Vec<u64> =
        redrives(&engine).await.iter().filter(|info| info.times == 2).map(|info| info.offset).collect();
    assert_eq!(twice, expected);
    engine.broker.shutdown().await;
}

/// Before what the engine is killed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kill {
    Commit,
    Sync,
    Answer,
}

pub(crate) async fn killed(engine: Engine, kill: Kill, step: Redrive) -> Engine {
    match kill {
        Kill::Commit => engine.store.panic_at_apply.store(true, Ordering::Release),
        Kill::Sync => engine.store.panic_at_sync.store(true, Ordering::Release),
        Kill::Answer => {}
    }
    let result = try_step(&engine, step).await;
    match kill {
        Kill::Answer => assert!(result.is_ok()),
        _ => {
            assert!(!result.unwrap_err().has_no_side_effects(), "it may have taken effect");
            // Closing it would still make durable what was written.
            engine.store.inner.crash();
        }
    }
    engine.restart().await
}

#[tokio::test]
async fn a_redrive_that_is_killed_at_any_moment_goes_on_and_redrives_each_event_once() {
    for kill in [Kill::Commit, Kill::Sync, Kill::Answer] {
        let mut engine = with_dead_letters(1_500).await;
        let first = try_step(&engine, all("repaired")).await.unwrap();
        let next = first.stretch.next.expect("there is more than one step");
        let second = Redrive { from: next, until: Some(first.stretch.until), ..all("repaired") };
        engine = killed(engine, kill, second).await;
        let outcomes = redrive(&engine, all("repaired")).await;
        assert!(already(&outcomes).len() >= first.outcomes.len(), "{kill:?}: what was done stays done");
        assert_eq!(done(&outcomes).len() + already(&outcomes).len(), 1_500, "{kill:?}");
        assert_eq!(counts(&engine, "repaired").await, once(0..1_500), "{kill:?}");
        let noted: BTreeSet<u64> = redrives(&engine).await.iter().map(|info| info.offset).collect();
        assert_eq!(noted, (0..1_500).collect(), "{kill:?}: every dead letter knows it");
        engine.broker.shutdown().await;
    }
}

#[tokio::test]
async fn a_disk_that_fills_up_in_between_costs_a_redrive_nothing_but_time() {
    let engine = with_dead_letters(20).await;
    engine.store.fill_at_redrive.store(true, Ordering::Release);
    let failed = try_step(&engine, all("repaired")).await.unwrap_err();
    assert_eq!(failed.code(), ErrorCode::OutcomeUnknown);
    engine.store.inner.set_full(false);
    let mut outcomes = Err(failed);
    while outcomes.is_err() {
        tokio::task::yield_now().await;
        outcomes = try_step(&engine, all("repaired")).await;
    }
    assert_eq!(done(&outcomes.unwrap().outcomes).len(), 20, "none of it was kept");
    assert_eq!(counts(&engine, "repaired").await, once(0..20));
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn two_redrives_at_once_never_append_an_event_twice() {
    let engine = with_dead_letters(1_200).await;
    let (one, other) = tokio::join!(redrive(&engine, all("repaired")), redrive(&engine, all("repaired")));
    let both: BTreeSet<u64> = done(&one).into_iter().chain(done(&other)).collect();
    assert_eq!(both.len(), done(&one).len() + done(&other).len(), "nobody claims the other's");
    assert_eq!((both.len(), counts(&engine, "repaired").await), (1_200, once(0..1_200)));
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn what_is_not_durable_yet_is_not_told_as_redriven() {
    let engine = with_dead_letters(5).await;
    engine.store.hold(true);
    let first = try_step(&engine, all("repaired"));
    let others = async {
        timeout(SOON, engine.store.entered.notified()).await.unwrap();
        let release = async {
            tokio::task::yield_now().await;
            engine.store.panic_at_sync.store(true, Ordering::Release);
            engine.store.hold(false);
        };
        tokio::join!(try_step(&engine, all("repaired")), release).0
    };
    let (first, second) = tokio::join!(first, others);
    assert!(first.is_err() && second.is_err(), "neither is known to have happened");
    engine.store.inner.crash();
    let engine = engine.restart().await;
    assert_eq!(done(&redrive(&engine, all("repaired")).await).len(), 5);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn an_event_that_fails_again_and_again_is_redriven_so_often_and_no_more() {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    publish(&engine, 0, 1).await;
    let mut consumer = engine.subscribe(SubscriptionOptions::default()).await;
    consumer.control.credit(PLENTY).await.unwrap();
    for failed in 0..u64::from(REDRIVES_MAX) {
        reject(&mut consumer, 1).await;
        until_dead(&engine, failed + 1).await;
        let outcomes = redrive(&engine, all("orders")).await;
        assert_eq!((done(&outcomes), already(&outcomes).len() as u64), (vec![failed], failed));
    }
    reject(&mut consumer, 1).await;
    let last = u64::from(REDRIVES_MAX);
    until_dead(&engine, last + 1).await;
    assert_eq!(header(&events(&engine, DEAD).await[&(0, last)], "lv-redrives").as_deref(), Some("8"));
    let outcomes = redrive(&engine, all("orders")).await;
    assert_eq!(outcomes.last(), Some(&RedriveOutcome::OverLimit { offset: last, redrives: REDRIVES_MAX }));
    assert!(done(&outcomes).is_empty());
    let forced = redrive(&engine, Redrive { force: true, ..these("orders", &[last]) }).await;
    assert_eq!(done(&forced), [last]);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_redrive_ends_with_what_was_dead_when_it_began() {
    let engine = with_dead_letters(1_500).await;
    let first = try_step(&engine, all("repaired")).await.unwrap();
    let Some(next) = first.stretch.next else { panic!("one step: {:?}", first.stretch) };
    more_dead_letters(&engine, 1_500, 5).await;
    let rest = Redrive { from: next, until: Some(first.stretch.until), ..all("repaired") };
    let rest = redrive(&engine, rest).await;
    assert_eq!(first.outcomes.len() + rest.len(), 1_500);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_step_redrives_as_many_as_it_may_and_the_next_one_goes_on_behind() {
    let engine = with_dead_letters(2_600).await;
    // Few in the first stretch that is read, and all of the next one.
    let condition = "n >= 700".to_owned();
    let mut asked = Redrive { select: DeadLetterSelection::Where { condition }, ..all("repaired") };
    let (mut sizes, mut scanned) = (Vec::new(), 0);
    loop {
        let step = try_step(&engine, asked.clone()).await.unwrap();
        scanned += step.stretch.scanned;
        sizes.push(step.outcomes.len());
        let Some(next) = step.stretch.next else { break };
        (asked.from, asked.until) = (next, Some(step.stretch.until));
    }
    assert_eq!(sizes.iter().max(), Some(&REDRIVE_EVENTS_MAX), "{sizes:?}");
    assert_eq!(scanned, 2_600, "what a step leaves to the next one is counted once");
    assert_eq!(counts(&engine, "repaired").await, once(700..2_600));
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn dead_letters_whose_topic_is_gone_are_still_listed() {
    let engine = with_dead_letters(2).await;
    engine.ask(Request::DeleteTopic { name: topic("orders"), force: true, with_dead_letters: false }).await;
    let Response::DeadLetterTopics { topics, .. } = listed(&engine, Some("orders")).await else { panic!() };
    assert_eq!(topics.len(), 1);
    assert_eq!(done(&redrive(&engine, all("repaired")).await), [0, 1]);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_redrive_that_cannot_be_is_refused_with_its_reason() {
    let engine = with_dead_letters(3).await;
    let refusal = async |redrive| try_step(&engine, redrive).await.unwrap_err();
    for itself in [DEAD, "dlq.orders.other", "_own"] {
        let refused = refusal(all(itself)).await;
        assert_eq!(refused.code(), ErrorCode::RedriveLoop);
        assert!(refused.to_string().contains(itself), "{refused}");
    }
    assert_eq!(refusal(all("absent")).await.code(), ErrorCode::TopicNotFound);
    let of = |name: &str| Redrive { topic: topic(name), ..all("repaired") };
    let refused = refusal(of("orders")).await;
    assert_eq!(refused.code(), ErrorCode::InvalidArgument);
    let refused = refusal(of("dlq.orders.absent")).await;
    assert_eq!(refused.code(), ErrorCode::TopicNotFound);
    assert!(refused.to_string().contains("orders/absent has no dead letters"), "{refused}");
    let select = DeadLetterSelection::Where { condition: "n >".to_owned() };
    let refused = refusal(Redrive { select, ..all("repaired") }).await;
    assert_eq!(refused.code(), ErrorCode::InvalidArgument);
    assert!(refused.to_string().contains("where: column 4"), "{refused}");
    let select = DeadLetterSelection::Unknown;
    assert_eq!(refusal(Redrive { select, ..all("repaired") }).await.code(), ErrorCode::Unsupported);
    let many: Vec<u64> = (0..=REDRIVE_EVENTS_MAX as u64).collect();
    assert_eq!(refusal(these("repaired", &many)).await.code(), ErrorCode::InvalidArgument);
    assert_eq!(refusal(these("repaired", &[])).await.code(), ErrorCode::InvalidArgument);
    let most = try_step(&engine, these("repaired", &many[1..])).await.unwrap();
    assert_eq!((most.outcomes.len(), done(&most.outcomes)), (REDRIVE_EVENTS_MAX, vec![1, 2]));
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_purge_takes_what_was_redriven_and_more_only_if_it_is_forced() {
    let engine = with_dead_letters(10).await;
    redrive(&engine, these("repaired", &[0, 1, 2])).await;
    assert_eq!(side_rows(&engine), 3);
    let refused = purge(&engine, None, false).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::NotRedriven);
    assert!(refused.to_string().contains("7 of the 10 dead letters of orders/payment"), "{refused}");
    assert_eq!(engine.partition(DEAD).await.start, 0);
    assert_eq!(purge(&engine, None, true).await.unwrap(), Purged { purged: 10, not_redriven: 7, start: 10 });
    assert_eq!((side_rows(&engine), events(&engine, DEAD).await.len()), (0, 0));
    assert_eq!(purge(&engine, None, false).await.unwrap(), Purged { purged: 0, not_redriven: 0, start: 10 });

    let engine = engine.restart().await;
    let partition = engine.partition(DEAD).await;
    assert_eq!((partition.start, partition.end, partition.bytes), (10, 10, 0));
    more_dead_letters(&engine, 10, 4).await;
    assert_eq!(done(&redrive(&engine, all("repaired")).await), [10, 11, 12, 13]);
    assert_eq!(purge(&engine, None, false).await.unwrap(), Purged { purged: 4, not_redriven: 0, start: 14 });
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_purge_by_time_takes_what_is_older_and_nothing_else() {
    let wall = Arc::new(AtomicU64::new(1_000_000));
    let told = Arc::clone(&wall);
    let clock = Clock::of(move || Timestamp(told.load(Ordering::Acquire)));
    let engine = Engine::with(|config| config.clock = clock);
    engine.topic("orders", TopicSettings::default()).await;
    more_dead_letters(&engine, 0, 5).await;
    wall.fetch_add(10_000, Ordering::AcqRel);
    more_dead_letters(&engine, 5, 3).await;
    let Response::DeadLetterTopics { topics, .. } = listed(&engine, None).await else { panic!() };
    assert_eq!((topics[0].oldest_ms, topics[0].newest_ms), (Some(1_000_000), Some(1_010_000)));
    let purged = async |before| purge(&engine, Some(before), true).await.unwrap();
    assert_eq!(purged(1_000_000).await, Purged { purged: 0, not_redriven: 0, start: 0 });
    assert_eq!(purged(1_000_001).await, Purged { purged: 5, not_redriven: 5, start: 5 });
    assert_eq!(purged(1_010_000).await, Purged { purged: 0, not_redriven: 0, start: 5 });
    assert_eq!(counts(&engine, DEAD).await, once(5..8));
    let engine = engine.restart().await;
    assert_eq!(counts(&engine, DEAD).await, once(5..8));
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn retention_and_deletion_drop_what_is_known_of_dead_letters_that_go() {
    let engine = with_dead_letters(6).await;
    redrive(&engine, all("repaired")).await;
    assert_eq!(side_rows(&engine), 6);
    engine.broker.run_retention().await.unwrap();
    assert_eq!(side_rows(&engine), 6, "they are young");
    let Response::DeadLetterTopics { topics, .. } = listed(&engine, None).await else { panic!() };
    let later = Timestamp(topics[0].newest_ms.unwrap() + 31 * 24 * 3_600_000);
    engine.broker.run_retention_at(later).await.unwrap();
    assert_eq!((side_rows(&engine), engine.partition(DEAD).await.start), (0, 6));
    let refused = try_step(&engine, these("repaired", &[2])).await.unwrap().outcomes;
    assert!(matches!(refused[..], [RedriveOutcome::Refused { offset: 2, .. }]), "{refused:?}");
    more_dead_letters(&engine, 6, 2).await;
    redrive(&engine, all("repaired")).await;
    assert_eq!(side_rows(&engine), 2);
    engine.ask(Request::DeleteTopic { name: topic(DEAD), force: true, with_dead_letters: false }).await;
    assert_eq!(side_rows(&engine), 0);
    engine.broker.shutdown().await;
}

async fn listed(engine: &Engine, of: Option<&str>) -> Response {
    engine.ask(Request::ListDeadLetters { topic: of.map(topic), limit: 0, after: None }).await
}

#[tokio::test]
async fn dead_letter_topics_are_listed_with_their_counts_in_pages() {
    let engine = with_dead_letters(4).await;
    engine.topic("orders.v1", TopicSettings::default()).await;
    let Response::DeadLetterTopics { topics, next } = listed(&engine, Some("orders")).await else { panic!() };
    let [DeadLetterTopic { name, count, bytes, oldest_ms, newest_ms }] = &topics[..] else { panic!() };
    assert_eq!((name.as_str(), *count, next), (DEAD, 4, None));
    assert!(*bytes > 0 && oldest_ms.is_some() && oldest_ms <= newest_ms);
    let Response::DeadLetterTopics { topics, .. } = listed(&engine, Some("orders.v1")).await else {
        panic!()
    };
    assert_eq!(topics, []);
    let absent = Request::ListDeadLetters { topic: Some(topic("absent")), limit: 0, after: None };
    let refused = engine.broker.request(&Principal::Local, absent, None).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::TopicNotFound);
    let after = Request::ListDeadLetters { topic: None, limit: 1, after: Some(DEAD.to_owned()) };
    let Response::DeadLetterTopics { topics, .. } = engine.ask(after).await else { panic!() };
    assert_eq!(topics, []);
    engine.broker.shutdown().await;
}

async fn groups(engine: &Engine, condition: Option<&str>) -> (Vec<DeadLetterGroup>, usize) {
    let condition = condition.map(str::to_owned);
    let mut asked = GroupDeadLetters { condition, ..GroupDeadLetters::new(topic(DEAD)) };
    let (mut all, mut steps) = (BTreeMap::<_, DeadLetterGroup>::new(), 0);
    loop {
        let Response::DeadLetterGroups(DeadLetterGroups { groups, stretch }) =
            engine.ask(Request::GroupDeadLetters(asked.clone())).await
        else {
            panic!("no groups")
        };
        steps += 1;
        assert!(groups.len() <= DEAD_LETTER_GROUPS_MAX);
        for group in groups {
            let key = (group.reason.clone(), group.plugin.clone());
            match all.get_mut(&key) {
                Some(known) => known.add(group),
                None => drop(all.insert(key, group)),
            }
        }
        match stretch.next {
            Some(next) => (asked.from, asked.until) = (next, Some(stretch.until)),
            None => return (all.into_values().collect(), steps),
        }
    }
}

#[tokio::test]
async fn dead_letters_are_grouped_by_reason_with_how_many_were_redriven() {
    let engine = with_dead_letters(30).await;
    redrive(&engine, these("repaired", &[4, 5, 29])).await;
    let (all, steps) = groups(&engine, None).await;
    let [group] = &all[..] else { panic!("{all:?}") };
    assert_eq!((group.reason.as_str(), &group.plugin, group.count), ("rejected", &None, 30));
    assert_eq!((group.redriven, group.first, group.last, steps), (3, 0, 29, 1));
    assert_eq!(group.error, "reason 2", "that of the newest");
    let (some, _) = groups(&engine, Some("n >= 10 and n < 29 and header.lv-dlq-error = \"reason 0\"")).await;
    assert_eq!((some[0].count, some[0].first, some[0].last, some[0].redriven), (6, 12, 27, 0));
    engine.broker.shutdown().await;
}

#[derive(Debug, Clone)]
enum Operation {
    Fail(usize),
    RedriveAll,
    Redrive(Vec<u64>),
    Force(u64),
    Purge,
    Kill(u8),
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        3 => (1..6_usize).prop_map(Operation::Fail),
        1 => Just(Operation::RedriveAll),
        3 => vec(0..20_u64, 1..4).prop_map(Operation::Redrive),
        1 => (0..20_u64).prop_map(Operation::Force),
        1 => Just(Operation::Purge),
        2 => (0..3_u8).prop_map(Operation::Kill),
    ]
}

/// What is to be so after any operations.
#[derive(Debug, Default)]
struct Model {
    /// How often each dead letter was redriven; those before `start` are purged.
    times: Vec<usize>,
    start: usize,
}

impl Model {
    fn redrive(&mut self, offset: usize, force: bool) {
        if let Some(times) = self.times.get_mut(offset)
            && offset >= self.start
            && (*times == 0 || force)
        {
            *times += 1;
        }
    }

    fn redrive_all(&mut self) {
        (0..self.times.len()).for_each(|offset| self.redrive(offset, false));
    }
}

async fn operate(mut engine: Engine, model: &mut Model, operation: Operation) -> Engine {
    match operation {
        Operation::Fail(count) => {
            more_dead_letters(&engine, model.times.len(), count).await;
            model.times.resize(model.times.len() + count, 0);
        }
        Operation::RedriveAll => {
            redrive(&engine, all("repaired")).await;
            model.redrive_all();
        }
        Operation::Redrive(offsets) => {
            redrive(&engine, these("repaired", &offsets)).await;
            offsets.iter().for_each(|offset| model.redrive(usize::try_from(*offset).unwrap(), false));
        }
        Operation::Force(offset) => {
            redrive(&engine, Redrive { force: true, ..these("repaired", &[offset]) }).await;
            model.redrive(usize::try_from(offset).unwrap(), true);
        }
        Operation::Purge => {
            let not_redriven = model.times[model.start..].iter().filter(|times| **times == 0).count();
            match purge(&engine, None, false).await {
                Ok(purged) => {
                    assert_eq!((purged.not_redriven, not_redriven), (0, 0));
                    assert_eq!(purged.purged as usize, model.times.len() - model.start);
                    model.start = model.times.len();
                }
                Err(refused) => {
                    assert_eq!(refused.code(), ErrorCode::NotRedriven);
                    assert!(not_redriven > 0);
                }
            }
        }
        Operation::Kill(when) => {
            let is_pending = model.times[model.start..].contains(&0);
            let kill = [Kill::Commit, Kill::Sync, Kill::Answer][usize::from(when)];
            // Without an event to redrive there is no commit that could fail.
            let kill = if is_pending { kill } else { Kill::Answer };
            engine = killed(engine, kill, all("repaired")).await;
            if matches!(kill, Kill::Answer) {
                model.redrive_all();
            }
        }
    }
    engine
}

proptest! {
    #![proptest_config(Config { cases: 24, ..Config::default() })]

    #[test]
    fn every_event_is_in_the_target_as_often_as_its_dead_letter_says(operations in vec(operation(), 1..12)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut engine, mut model) = (with_dead_letters(1).await, Model { times: vec![0], start: 0 });
            for operation in operations {
                engine = operate(engine, &mut model, operation).await;
                let expected: BTreeMap<String, usize> = (0..).zip(&model.times)
                    .filter(|(_, times)| **times > 0)
                    .map(|(number, times): (usize, _)| (format!("{{\"n\":{number}}}"), *times))
                    .collect();
                assert_eq!(counts(&engine, "repaired").await, expected);
                let noted = redrives(&engine).await.into_iter().map(|info| (info.offset as usize, info.times as usize));
                let said = (0..).zip(&model.times).skip(model.start).filter(|(_, times)| **times > 0);
                assert_eq!(noted.collect::<Vec<_>>(), said.map(|(offset, times)| (offset, *times)).collect::<Vec<_>>());
                let partition = engine.partition(DEAD).await;
                assert_eq!((partition.start, partition.end), (model.start as u64, model.times.len() as u64));
            }
            engine.broker.shutdown().await;
        });
    }
}

#[tokio::test]
async fn a_redrive_to_a_topic_that_is_deleted_before_its_commit_marks_nothing() {
    let engine = with_dead_letters(3).await;
    engine.store.hold(true);
    let name = topic("repaired");
    let delete = engine.ask(Request::DeleteTopic { name, force: true, with_dead_letters: false });
    let step = async {
        timeout(SOON, engine.store.entered.notified()).await.unwrap();
        let release = async {
            tokio::task::yield_now().await;
            engine.store.hold(false);
        };
        // It finds the target, which is deleted only now.
        tokio::join!(try_step(&engine, all("repaired")), release).0
    };
    let (_, refused) = tokio::join!(delete, step);
    let refused = refused.unwrap_err().to_string();
    assert!(refused.starts_with("TOPIC_NOT_FOUND: the target was deleted"), "{refused}");
    assert_eq!((redrives(&engine).await, side_rows(&engine)), (Vec::new(), 0));
    engine.topic("repaired", TopicSettings::default()).await;
    assert_eq!(done(&redrive(&engine, all("repaired")).await), [0, 1, 2]);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_forced_purge_leaves_what_became_a_dead_letter_after_the_question() {
    let engine = with_dead_letters(4).await;
    let asked = PurgeDeadLetters { topic: topic(DEAD), before_ms: None, until: Some(4), force: false };
    let refused = try_purge(&engine, asked.clone()).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::NotRedriven);
    more_dead_letters(&engine, 4, 3).await;
    let again = try_purge(&engine, asked.clone()).await.unwrap_err().to_string();
    assert_eq!(again, refused.to_string(), "the question stays the same");
    let forced = PurgeDeadLetters { force: true, ..asked };
    let purged = try_purge(&engine, forced.clone()).await.unwrap();
    assert_eq!(purged, Purged { purged: 4, not_redriven: 4, start: 4 });
    assert_eq!(counts(&engine, DEAD).await, once(4..7));
    let beyond = try_purge(&engine, PurgeDeadLetters { until: Some(100), ..forced }).await.unwrap();
    assert_eq!(beyond, Purged { purged: 3, not_redriven: 3, start: 7 });
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_purge_of_what_a_subscription_has_yet_to_read_is_refused_unless_it_is_forced() {
    let engine = with_dead_letters(5).await;
    redrive(&engine, all("repaired")).await;
    for (name, from) in [("late", Start::Latest), ("audit", Start::Earliest)] {
        let (topic, name, options) = (topic(DEAD), name.parse().unwrap(), SubscriptionOptions::default());
        engine.ask(Request::CreateSubscription { topic, name, options, from }).await;
    }
    let refused = purge(&engine, None, false).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::TopicInUse);
    let said = refused.to_string();
    assert!(said.contains("subscription dlq.orders.payment/audit has come to offset 0"), "{said}");
    assert_eq!(engine.partition(DEAD).await.start, 0);
    more_dead_letters(&engine, 5, 1).await;
    let both = purge(&engine, None, false).await.unwrap_err();
    assert_eq!(both.code(), ErrorCode::NotRedriven);
    let said = both.to_string();
    assert!(said.contains("1 of the 6 dead letters of orders/payment that would be purged was never"));
    assert!(said.contains("/audit"), "{said}");
    let name = "audit".parse().unwrap();
    let delete =
        Request::DeleteSubscription { topic: topic(DEAD), name, force: true, with_dead_letters: false };
    engine.ask(delete).await;
    let until = PurgeDeadLetters { topic: topic(DEAD), before_ms: None, until: Some(5), force: false };
    assert_eq!(try_purge(&engine, until).await.unwrap(), Purged { purged: 5, not_redriven: 0, start: 5 });
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_forced_redrive_that_goes_on_ends_where_the_one_before_would_have() {
    let engine = with_dead_letters(1_500).await;
    let forced = Redrive { force: true, ..all("repaired") };
    let first = try_step(&engine, forced.clone()).await.unwrap();
    let (from, until) = (first.stretch.next.expect("there is more"), Some(first.stretch.until));
    more_dead_letters(&engine, 1_500, 5).await;
    let rest = redrive(&engine, Redrive { from, until, ..forced }).await;
    assert_eq!(done(&rest).last(), Some(&1_499));
    assert_eq!(counts(&engine, "repaired").await, once(0..1_500));
    engine.broker.shutdown().await;
}
