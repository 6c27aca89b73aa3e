//! Transactions: all or none, once, invisible until decided, and asked about, whatever fails meanwhile.

mod acks;
mod check_backs;
mod model;

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use levada_broker::{Broker, BrokerConfig, Clock, Consumer, Content, Delivery, Error, Principal};
use levada_protocol::{
    batch::{Batch, BatchBuilder, Stamp},
    error::ErrorCode,
    event::Event,
    ids::{DeliveryToken, Offset, PartitionId, Timestamp},
    limits::{
        CHECK_AFTER_MS_MAX, DECISION_REMEMBERED_MS, TRANSACTION_BATCHES_MAX, TRANSACTION_BYTES_MAX,
        TRANSACTION_EVENTS_MAX, TRANSACTION_REMEMBERED_MS,
    },
    publish::PublishHeader,
    request::{
        AckedDelivery, CheckBack, DecideTransaction, ListTransactions, Prepare, Read, Request, Response,
        Start, SubscriptionOptions, TopicChanges, TopicSettings, Transact, TransactionAcks,
        TransactionDuplicate, TransactionInfo, TransactionState,
    },
    schedule::Due,
};
use proptest::{collection::vec, prelude::*};
use tokio::time::timeout;

use crate::support::{Engine, PLENTY, SOON, delivery};

/// 2026-01-01T00:00:00Z.
const NOW: u64 = 1_767_225_600_000;
const TOPICS: [&str; 2] = ["orders", "payments"];

/// An engine whose clock says what it is told, with two topics.
struct Scene {
    engine: Engine,
    now: Arc<AtomicU64>,
}

/// A batch that a transaction is made of.
#[derive(Clone)]
struct Part {
    topic: usize,
    events: Vec<Event>,
    expect: Option<u64>,
    due: Option<Due>,
}

fn part(topic: usize, events: &[&str]) -> Part {
    let events = events.iter().map(|event| Event::new((*event).to_owned())).collect();
    Part { topic, events, expect: None, due: None }
}

/// A transaction that publishes its id to `payments` and acknowledges events.
pub(crate) fn paying(id: &str, acks: TransactionAcks) -> (Transact, Vec<(PublishHeader, Batch)>) {
    let (transact, batches) = transact(id, &[part(1, &[id])], None);
    (Transact { acks: Some(acks), ..transact }, batches)
}

fn with_id(id: &str) -> Event {
    Event { id: Some(id.into()), ..Event::new(id.to_owned()) }
}

impl Scene {
    async fn new() -> Self {
        Self::with(TopicSettings::default()).await
    }

    async fn with(settings: TopicSettings) -> Self {
        let now = Arc::new(AtomicU64::new(NOW));
        let clock = clock(&now);
        let engine = Engine::with(|config| config.clock = clock);
        for topic in TOPICS {
            engine.topic(topic, settings.clone()).await;
        }
        Self { engine, now }
    }

    /// After a crash, with so much of the disk kept free.
    async fn restart(self, disk_reserve_bytes: u64) -> Self {
        let Self { engine, now } = self;
        // What was answered and is not durable is gone; what is committed from here on is nobody's.
        engine.store.inner.crash();
        engine.broker.shutdown().await;
        engine.store.inner.crash();
        let clock = clock(&now);
        let config = BrokerConfig { disk_reserve_bytes, clock, ..BrokerConfig::new(engine.dir.path()) };
        let (store, plugins) = (Arc::clone(&engine.store), Arc::clone(&engine.plugins));
        let broker = Broker::start(config, store as _, plugins as _).unwrap();
        Self { engine: Engine { broker, ..engine }, now }
    }

    async fn send(
        &self,
        id: &str,
        parts: &[Part],
        prepare: Option<Prepare>,
    ) -> Result<TransactionInfo, Error> {
        let (transact, batches) = transact(id, parts, prepare);
        self.engine.broker.transact(&Principal::Local, transact, batches).await.map(one)
    }

    async fn commit_now(&self, id: &str, parts: &[Part]) -> Result<TransactionInfo, Error> {
        self.send(id, parts, None).await
    }

    async fn prepare(&self, id: &str, parts: &[Part]) -> Result<TransactionInfo, Error> {
        self.send(id, parts, Some(Prepare::default())).await
    }

    async fn request(&self, request: Request) -> Result<Response, Error> {
        self.engine.broker.request(&Principal::Local, request, None).await
    }

    async fn decide(&self, id: &str, commit: bool) -> Result<TransactionInfo, Error> {
        let (group, id) = (group(), id.parse().unwrap());
        self.request(Request::DecideTransaction(DecideTransaction { group, id, commit })).await.map(one)
    }

    async fn describe(&self, id: &str) -> Result<TransactionInfo, Error> {
        let (group, id) = (group(), id.parse().unwrap());
        self.request(Request::DescribeTransaction { group, id }).await.map(one)
    }

    async fn list(&self, list: ListTransactions) -> (Vec<String>, Option<String>) {
        match self.engine.ask(Request::ListTransactions(list)).await {
            Response::Transactions { transactions, next } => {
                (transactions.iter().map(|info| info.id.to_string()).collect(), next)
            }
            other => panic!("{other:?}"),
        }
    }

    /// The payloads of a topic's log.
    async fn log(&self, topic: &str) -> Vec<String> {
        let mut log = Vec::new();
        let end = usize::try_from(self.engine.partition(topic).await.end).unwrap();
        let read = Read { from: Start::Earliest, ..Read::new(topic.parse().unwrap()) };
        let mut reader = self.engine.broker.read(&Principal::Local, read).await.unwrap();
        // One that has nothing to read ends at once.
        let granted = reader.credit.grant(PLENTY).await;
        assert!(granted.is_ok() || end == 0, "{granted:?}");
        while log.len() < end {
            let (content, _) = reader.outgoing.recv().await.unwrap().unwrap().into_parts();
            let Content::Delivery(Delivery { runs, .. }) = content else { panic!("events") };
            for (_, batch) in runs.iter().flat_map(|run| run.batches()).map(Result::unwrap) {
                let text = |payload: &[u8]| String::from_utf8(payload.to_vec()).unwrap();
                log.extend(batch.events().map(|event| text(event.payload().unwrap())));
            }
        }
        log
    }

    async fn logs(&self) -> [Vec<String>; 2] {
        [self.log(TOPICS[0]).await, self.log(TOPICS[1]).await]
    }

    fn at(&self, after: u64) {
        self.now.store(NOW + after, Ordering::SeqCst);
    }
}

fn clock(now: &Arc<AtomicU64>) -> Clock {
    let now = Arc::clone(now);
    Clock::of(move || Timestamp(now.load(Ordering::SeqCst)))
}

fn group() -> levada_protocol::ids::GroupName {
    "shop".parse().unwrap()
}

fn one(response: Response) -> TransactionInfo {
    match response {
        Response::Transaction(info) => *info,
        other => panic!("{other:?}"),
    }
}

fn transact(id: &str, parts: &[Part], prepare: Option<Prepare>) -> (Transact, Vec<(PublishHeader, Batch)>) {
    let batches: Vec<_> = parts.iter().map(batch).collect();
    let topics = TOPICS.iter().map(|topic| topic.parse().unwrap()).collect();
    let count = u32::try_from(batches.len()).unwrap();
    let transact = Transact {
        group: group(),
        id: id.parse().unwrap(),
        topics,
        partitions: Vec::new(),
        batches: count,
        bytes: 0,
        prepare,
        acks: None,
    };
    (transact, batches)
}

fn batch(part: &Part) -> (PublishHeader, Batch) {
    let mut builder = BatchBuilder::new();
    part.events.iter().for_each(|event| builder.push(event).unwrap());
    let header = PublishHeader {
        correlation: u32::try_from(part.topic).unwrap(),
        partition: PartitionId(0),
        durability: None,
        expect_offset: part.expect.map(Offset),
        due: part.due,
    };
    (header, builder.finish(Stamp::ENGINE))
}

fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorCode {
    result.unwrap_err().code()
}

#[tokio::test]
async fn events_of_several_topics_are_stored_all_or_none() {
    let scene = Scene::new().await;
    let info =
        scene.commit_now("1", &[part(0, &["a", "b"]), part(1, &["c"]), part(0, &["d"])]).await.unwrap();
    assert_eq!((info.state, info.repeat), (TransactionState::Committed, false));
    let offsets: Vec<_> = info.batches.iter().map(|it| (it.topic.clone().unwrap(), it.offset)).collect();
    let expected =
        [("orders", 0), ("payments", 0), ("orders", 2)].map(|(name, at)| (name.parse().unwrap(), Some(at)));
    assert_eq!(offsets, expected);
    assert_eq!(scene.logs().await, [vec!["a", "b", "d"], vec!["c"]]);
    // The second part cannot be stored: neither is the first.
    let wrong = Part { expect: Some(7), ..part(1, &["f"]) };
    let refused = scene.commit_now("2", &[part(0, &["e"]), wrong]).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::OffsetMismatch);
    assert!(refused.has_no_side_effects() && refused.to_string().contains("next offset is 1"), "{refused}");
    let right = Part { expect: Some(1), ..part(1, &["f"]) };
    scene.commit_now("2", &[part(0, &["e"]), right]).await.unwrap();
    assert_eq!(scene.logs().await, [vec!["a", "b", "d", "e"], vec!["c", "f"]]);
    let scene = scene.restart(0).await;
    assert_eq!(scene.logs().await, [vec!["a", "b", "d", "e"], vec!["c", "f"]]);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn the_same_transaction_again_is_stored_once_and_told_the_same_also_after_a_crash() {
    let scene = Scene::new().await;
    let parts = [part(0, &["a", "b"]), part(1, &["c"])];
    let first = scene.commit_now("1", &parts).await.unwrap();
    let prepared = scene.prepare("2", &parts).await.unwrap();
    assert_eq!(code(scene.commit_now("1", &[part(0, &["x"])]).await), ErrorCode::TransactionExists);
    assert_eq!(
        code(scene.commit_now("2", &parts).await),
        ErrorCode::TransactionExists,
        "made in another way"
    );
    let scene = scene.restart(0).await;
    let again = scene.commit_now("1", &parts).await.unwrap();
    assert_eq!(again, TransactionInfo { repeat: true, ..first });
    let again = scene.prepare("2", &parts).await.unwrap();
    assert_eq!(again, TransactionInfo { repeat: true, ..prepared });
    assert_eq!(scene.logs().await, [vec!["a", "b"], vec!["c"]]);
    let committed = scene.decide("2", true).await.unwrap();
    let again = scene.prepare("2", &parts).await.unwrap();
    assert_eq!(again, TransactionInfo { repeat: true, ..committed }, "what became of it since");
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn prepared_events_are_invisible_until_they_are_committed_and_take_their_place_then() {
    let scene = Scene::new().await;
    let prepared = scene.prepare("1", &[part(0, &["a"]), part(1, &["b"])]).await.unwrap();
    assert_eq!((prepared.state, prepared.prepared_ms), (TransactionState::Prepared, Some(NOW)));
    assert_eq!(prepared.next_check_ms, Some(NOW + 6_000), "the engine's own time");
    scene.prepare("2", &[part(0, &["never"])]).await.unwrap();
    scene.engine.publish("orders", 2).await;
    assert_eq!(scene.logs().await, [vec!["0", "1"], vec![]]);
    let scene = scene.restart(0).await;
    assert_eq!(scene.logs().await, [vec!["0", "1"], vec![]]);
    assert_eq!(scene.list(ListTransactions::default()).await.0, ["1", "2"]);
    scene.at(5);
    let committed = scene.decide("1", true).await.unwrap();
    assert_eq!((committed.decided_ms, committed.batches[0].offset), (Some(NOW + 5), Some(2)));
    let rolled_back = scene.decide("2", false).await.unwrap();
    assert_eq!((rolled_back.state, rolled_back.batches[0].offset), (TransactionState::RolledBack, None));
    assert_eq!(scene.logs().await, [vec!["0", "1", "a"], vec!["b"]]);
    assert_eq!(scene.list(ListTransactions::default()).await.0, [""; 0], "nothing waits");
    let all = ListTransactions { decided: true, ..ListTransactions::default() };
    let scene = scene.restart(0).await;
    assert_eq!(scene.list(all).await.0, ["1", "2"]);
    assert_eq!(scene.logs().await, [vec!["0", "1", "a"], vec!["b"]]);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn the_first_decision_stays() {
    let scene = Scene::new().await;
    for (id, first) in [("yes", true), ("no", false)] {
        scene.prepare(id, &[part(0, &[id])]).await.unwrap();
        let decided = scene.decide(id, first).await.unwrap();
        let again = scene.decide(id, first).await.unwrap();
        assert_eq!(again, TransactionInfo { repeat: true, ..decided });
        let refused = scene.decide(id, !first).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::AlreadyDecided);
        assert!(refused.to_string().contains(if first { "was committed" } else { "was rolled back" }));
    }
    assert_eq!(scene.log("orders").await, ["yes"]);
    assert_eq!(code(scene.decide("absent", true).await), ErrorCode::TransactionNotFound);
    assert_eq!(code(scene.describe("absent").await), ErrorCode::TransactionNotFound);
    scene.commit_now("at-once", &[part(1, &["x"])]).await.unwrap();
    assert_eq!(code(scene.decide("at-once", false).await), ErrorCode::AlreadyDecided);
    assert!(scene.decide("at-once", true).await.unwrap().repeat);
    scene.engine.broker.shutdown().await;
}

/// Crashes while a sync is under way that was to make a step durable; returns the engine that follows.
async fn crash_before_sync(scene: Scene, step: impl Future<Output = ()>) -> Scene {
    scene.engine.store.hold(true);
    {
        let mut step = std::pin::pin!(step);
        tokio::select! {
            () = &mut step => panic!("it was answered before it was durable"),
            () = scene.engine.store.entered.notified() => {}
        }
    }
    // What the writer has applied and not synced is gone.
    scene.engine.store.inner.crash();
    scene.engine.store.hold(false);
    scene.restart(0).await
}

#[tokio::test]
async fn a_crash_before_the_sync_takes_all_of_it_back() {
    let scene = Scene::new().await;
    let parts = [part(0, &["a"]), part(1, &["b"])];
    let none: [Vec<String>; 2] = Default::default();
    let (asked, batches) = transact("1", &parts, None);
    let broker = scene.engine.broker.clone();
    let step = async move {
        let _ = broker.transact(&Principal::Local, asked, batches).await;
    };
    let scene = crash_before_sync(scene, step).await;
    assert_eq!(scene.logs().await, none);
    assert_eq!(code(scene.describe("1").await), ErrorCode::TransactionNotFound);
    assert!(!scene.commit_now("1", &parts).await.unwrap().repeat, "it is new");
    scene.prepare("2", &parts).await.unwrap();
    let broker = scene.engine.broker.clone();
    let decide = DecideTransaction { group: group(), id: "2".parse().unwrap(), commit: true };
    let step = async move {
        let _ = broker.request(&Principal::Local, Request::DecideTransaction(decide), None).await;
    };
    let scene = crash_before_sync(scene, step).await;
    assert_eq!(scene.logs().await, [vec!["a"], vec!["b"]], "the decision is void");
    assert_eq!(scene.describe("2").await.unwrap().state, TransactionState::Prepared);
    assert!(!scene.decide("2", true).await.unwrap().repeat);
    assert_eq!(scene.logs().await, [vec!["a", "a"], vec!["b", "b"]]);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_full_disk_refuses_new_transactions_and_not_the_decision_about_old_ones() {
    let scene = Scene::new().await;
    scene.prepare("1", &[part(0, &["a"])]).await.unwrap();
    scene.prepare("2", &[part(0, &["b"])]).await.unwrap();
    let scene = scene.restart(u64::MAX).await;
    assert_eq!(code(scene.commit_now("3", &[part(0, &["c"])]).await), ErrorCode::StorageFull);
    assert_eq!(code(scene.prepare("3", &[part(0, &["c"])]).await), ErrorCode::StorageFull);
    scene.decide("1", true).await.unwrap();
    scene.decide("2", false).await.unwrap();
    assert_eq!(scene.log("orders").await, ["a"]);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn events_for_a_topic_that_was_deleted_meanwhile_are_dropped_and_the_others_stored() {
    let scene = Scene::new().await;
    scene.prepare("1", &[part(0, &["a"]), part(1, &["b"])]).await.unwrap();
    let name = "payments".parse().unwrap();
    scene.engine.ask(Request::DeleteTopic { name, force: true, with_dead_letters: false }).await;
    scene.engine.topic("payments", TopicSettings::default()).await;
    let refused = scene.commit_now("2", &[part(0, &["x"]), Part { topic: 9, ..part(1, &["y"]) }]).await;
    assert_eq!(code(refused), ErrorCode::InvalidArgument);
    let info = scene.decide("1", true).await.unwrap();
    let topics: Vec<_> = info
        .batches
        .iter()
        .map(|batch| (batch.topic.as_ref().map(|topic| topic.as_str()), batch.offset))
        .collect();
    assert_eq!(topics, [(Some("orders"), Some(0)), (None, None)]);
    assert_eq!(scene.logs().await, [vec!["a"], vec![]], "a topic of the same name is another");
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_dedup_window_leaves_out_ids_that_it_holds_and_says_which() {
    let scene = Scene::with(TopicSettings { dedup_window_ms: 60_000, ..TopicSettings::default() }).await;
    let events = |ids: &[&str]| Part { events: ids.iter().map(|id| with_id(id)).collect(), ..part(0, &[]) };
    scene.prepare("prepared", &[events(&["b", "c"])]).await.unwrap();
    let first = scene.commit_now("1", &[events(&["a", "b"]), events(&["a", "d"])]).await.unwrap();
    let duplicate = |index, offset| TransactionDuplicate { index, offset: Some(offset) };
    assert_eq!(first.batches[1].duplicates, [duplicate(0, 0)], "of the same transaction");
    assert_eq!(first.batches[1].offset, Some(2));
    let scene = scene.restart(0).await;
    let again = scene.commit_now("1", &[events(&["a", "b"]), events(&["a", "d"])]).await.unwrap();
    assert_eq!(again, TransactionInfo { repeat: true, ..first }, "with what was left out");
    let committed = scene.decide("prepared", true).await.unwrap();
    assert_eq!(committed.batches[0].duplicates, [duplicate(0, 1)], "compared when it takes its place");
    assert_eq!(scene.log("orders").await, ["a", "b", "d", "c"]);
    let none = scene.commit_now("2", &[events(&["a"])]).await.unwrap();
    assert_eq!((none.state, none.batches[0].offset), (TransactionState::Committed, None));
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn every_limit_has_two_sides() {
    let scene = Scene::new().await;
    let many = |count: usize| Part { events: vec![Event::new("x"); count], ..part(0, &[]) };
    let half = TRANSACTION_EVENTS_MAX / 2;
    scene.commit_now("events", &[many(half), many(half)]).await.unwrap();
    let refused = scene.commit_now("events+1", &[many(half), many(half), many(1)]).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::TransactionTooLarge);
    assert!(refused.to_string().contains("10001 events, the limit is 10000"), "{refused}");
    let batches = vec![many(1); TRANSACTION_BATCHES_MAX];
    scene.commit_now("batches", &batches).await.unwrap();
    let batches = vec![many(1); TRANSACTION_BATCHES_MAX + 1];
    assert_eq!(code(scene.commit_now("batches+1", &batches).await), ErrorCode::TransactionTooLarge);
    let large = |bytes: usize| Part { events: vec![Event::new(vec![b'x'; bytes])], ..part(0, &[]) };
    let (_, probe) = batch(&large(1_000_000));
    let overhead = probe.bytes().len() - 1_000_000;
    let quarter = TRANSACTION_BYTES_MAX / 4 - overhead - 16;
    let full: Vec<Part> = vec![large(quarter); 4];
    scene.commit_now("bytes", &full).await.unwrap();
    let over = [&full[..], &[large(64 - overhead.min(63))]].concat();
    assert_eq!(code(scene.commit_now("bytes+1", &over).await), ErrorCode::TransactionTooLarge);
    // What a group may have undecided.
    let mut prepared = 0;
    let refused = loop {
        match scene.prepare(&format!("p{prepared}"), &full).await {
            Ok(_) => prepared += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!((prepared, refused.code()), (16, ErrorCode::TooManyPrepared), "64 MiB: {refused}");
    scene.prepare("small", &[part(0, &["x"])]).await.unwrap();
    scene.decide("p3", false).await.unwrap();
    scene.prepare("p16", &full).await.unwrap();
    let scene = scene.restart(0).await;
    assert_eq!(code(scene.prepare("p17", &full).await), ErrorCode::TooManyPrepared, "it is counted again");
    let after = |check_after_ms| Some(Prepare { check_after_ms });
    scene.send("day", &[part(0, &["x"])], after(CHECK_AFTER_MS_MAX)).await.unwrap();
    let late = scene.send("day+1", &[part(0, &["x"])], after(CHECK_AFTER_MS_MAX + 1)).await;
    assert_eq!(code(late), ErrorCode::InvalidArgument);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_part_of_a_transaction_is_refused_with_the_reason() {
    let scene = Scene::new().await;
    let first = || part(0, &["a"]);
    let expect = |part: Part, at| Part { expect: Some(at), ..part };
    for (parts, prepare, reason) in [
        (vec![], None, "at least 1, got 0"),
        (vec![Part { due: Some(Due::After(1)), ..first() }], None, "has a delay"),
        (vec![expect(first(), 0)], Some(Prepare::default()), "contradicts prepare"),
        (vec![first(), expect(first(), 1)], None, "behind another of the transaction"),
        (vec![Part { topic: 2, ..first() }], None, "is for topic 2 of the transaction, which has 2"),
    ] {
        let refused = scene.send("1", &parts, prepare).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::InvalidArgument, "{refused}");
        assert!(refused.to_string().contains(reason), "{refused}");
    }
    let (transact, batches) = transact("1", &[first()], None);
    for (topic, expected) in
        [("dlq.orders.x", ErrorCode::InvalidArgument), ("absent", ErrorCode::TopicNotFound)]
    {
        let transact = Transact { topics: vec![topic.parse().unwrap()], ..transact.clone() };
        let refused = scene.engine.broker.transact(&Principal::Local, transact, batches.clone()).await;
        assert_eq!(code(refused), expected);
    }
    let transact = Transact { batches: 2, ..transact };
    let refused = scene.engine.broker.transact(&Principal::Local, transact.clone(), batches).await;
    assert_eq!(code(refused), ErrorCode::InvalidArgument, "fewer than announced");
    assert_eq!(code(scene.request(Request::Transact(transact)).await), ErrorCode::InvalidArgument);
    assert_eq!(code(scene.describe("1").await), ErrorCode::TransactionNotFound, "nothing was stored");
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_list_has_pages_and_is_of_one_group_or_of_all() {
    let scene = Scene::new().await;
    for id in ["a", "b/c", "d"] {
        scene.prepare(id, &[part(0, &[id])]).await.unwrap();
    }
    let (other, batches) = transact("e", &[part(0, &["x"])], Some(Prepare::default()));
    let other = Transact { group: "zoo".parse().unwrap(), ..other };
    scene.engine.broker.transact(&Principal::Local, other, batches).await.unwrap();
    scene.decide("d", true).await.unwrap();
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let list = ListTransactions { limit: 1, after, ..ListTransactions::default() };
        let (ids, next) = scene.list(list).await;
        assert_eq!(ids.len(), 1);
        all.extend(ids);
        after = next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(all, ["a", "b/c", "e"]);
    let of = |group: &str, decided| ListTransactions {
        group: Some(group.parse().unwrap()),
        decided,
        ..ListTransactions::default()
    };
    assert_eq!(scene.list(of("shop", true)).await.0, ["a", "b/c", "d"]);
    assert_eq!(scene.list(of("zoo", false)).await.0, ["e"]);
    assert_eq!(scene.list(of("zo", true)).await.0, [""; 0]);
    let wrong = ListTransactions { after: Some("nothing".into()), ..ListTransactions::default() };
    assert_eq!(code(scene.request(Request::ListTransactions(wrong)).await), ErrorCode::InvalidArgument);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn prepared_events_count_in_the_backlog_until_they_are_decided_and_are_never_refused_then() {
    let quota = |max| TopicSettings { backlog_max_events: max, ..TopicSettings::default() };
    let scene = Scene::with(quota(3)).await;
    let (topic, name) = ("orders".parse().unwrap(), "payment".parse().unwrap());
    let options = SubscriptionOptions::default();
    let create = Request::CreateSubscription { topic, name, options, from: Start::Earliest };
    scene.request(create).await.unwrap();
    let one = [part(0, &["a"])];
    let has = async |scene: &Scene| match scene
        .request(Request::DescribeTopic { name: "orders".parse().unwrap() })
        .await
        .unwrap()
    {
        Response::Topic(topic) => topic.backlog.unwrap().events,
        other => panic!("{other:?}"),
    };
    scene.prepare("committed", &[part(0, &["a", "b"])]).await.unwrap();
    scene.prepare("dropped", &one).await.unwrap();
    assert_eq!(has(&scene).await, 3);
    assert_eq!(code(scene.prepare("more", &one).await), ErrorCode::BacklogFull);
    assert_eq!(code(scene.commit_now("now", &one).await), ErrorCode::BacklogFull);
    let scene = scene.restart(0).await;
    assert_eq!(has(&scene).await, 3);
    assert_eq!(code(scene.commit_now("now", &one).await), ErrorCode::BacklogFull);
    // The others have no subscription that is behind.
    scene.commit_now("elsewhere", &[part(1, &["a", "b", "c", "d"])]).await.unwrap();
    scene.decide("dropped", false).await.unwrap();
    assert_eq!(has(&scene).await, 2);
    scene.commit_now("now", &one).await.unwrap();
    // Another limit leaves no room at all for what was accepted before it.
    let settings = TopicChanges { backlog_max_events: Some(1), ..TopicChanges::default() };
    scene.request(Request::SetTopic { name: "orders".parse().unwrap(), settings }).await.unwrap();
    scene.decide("committed", true).await.unwrap();
    assert_eq!(scene.log("orders").await, ["a", "a", "b"]);
    assert_eq!(has(&scene).await, 3);
    assert_eq!(code(scene.commit_now("after", &one).await), ErrorCode::BacklogFull);
}

#[tokio::test]
async fn decisions_are_forgotten_after_their_time_and_what_waits_never_is() {
    let scene = Scene::new().await;
    let parts = |event: &str| [part(0, &[event])];
    scene.commit_now("at-once", &parts("a")).await.unwrap();
    scene.prepare("decided", &parts("b")).await.unwrap();
    scene.decide("decided", true).await.unwrap();
    scene.prepare("waits", &parts("c")).await.unwrap();
    let all = || ListTransactions { decided: true, ..ListTransactions::default() };
    for (after, left) in [
        (TRANSACTION_REMEMBERED_MS - 1, &["at-once", "decided", "waits"][..]),
        (TRANSACTION_REMEMBERED_MS, &["decided", "waits"]),
        (DECISION_REMEMBERED_MS - 1, &["decided", "waits"]),
        (DECISION_REMEMBERED_MS, &["waits"]),
        (100 * DECISION_REMEMBERED_MS, &["waits"]),
    ] {
        scene.engine.broker.run_retention_at(Timestamp(NOW + after)).await.unwrap();
        assert_eq!(scene.list(all()).await.0, left, "after {after} ms");
    }
    assert!(!scene.commit_now("at-once", &parts("again")).await.unwrap().repeat, "its id is free");
    scene.decide("waits", true).await.unwrap();
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn what_a_full_disk_made_void_is_not_there_once_the_store_is_open_again() {
    let scene = Scene::new().await;
    scene.prepare("kept", &[part(0, &["kept"])]).await.unwrap();
    scene.engine.store.fill_at_transaction.store(true, Ordering::Release);
    let void = scene.prepare("void", &[part(0, &["void"])]).await;
    assert_eq!(code(void), ErrorCode::OutcomeUnknown);
    scene.engine.store.inner.set_full(false);
    // Whatever is asked next finds the store open again, or makes it try.
    let open = async {
        while scene.engine.broker.check_transactions().await.is_err() || !scene.engine.broker.health().ready {
            let _ = scene.describe("kept").await;
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, open).await.expect("it opens again");
    assert_eq!(code(scene.describe("void").await), ErrorCode::TransactionNotFound);
    assert_eq!(scene.list(ListTransactions::default()).await.0, ["kept"]);
    assert_eq!(code(scene.decide("void", true).await), ErrorCode::TransactionNotFound);
    // The name is free for another.
    scene.prepare("void", &[part(0, &["other"])]).await.unwrap();
    scene.decide("void", true).await.unwrap();
    scene.decide("kept", true).await.unwrap();
    assert_eq!(scene.log("orders").await, ["other", "kept"]);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn what_was_stored_is_told_again_after_one_of_its_topics_was_deleted() {
    let scene = Scene::new().await;
    let parts = [part(0, &["a"]), part(1, &["b"])];
    let first = scene.commit_now("1", &parts).await.unwrap();
    let name = "payments".parse().unwrap();
    scene.engine.ask(Request::DeleteTopic { name, force: true, with_dead_letters: false }).await;
    let again = scene.commit_now("1", &parts).await.unwrap();
    assert!(again.repeat);
    assert_eq!((&again.batches[0], &again.batches[1].topic), (&first.batches[0], &None));
    assert_eq!(code(scene.commit_now("2", &parts).await), ErrorCode::TopicNotFound);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_transaction_made_for_another_number_of_partitions_is_refused() {
    let scene = Scene::new().await;
    let (asked, batches) = transact("1", &[part(0, &["a"])], None);
    let other = Transact { partitions: vec![2, 1], ..asked.clone() };
    let refused = scene.engine.broker.transact(&Principal::Local, other, batches.clone()).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::PartitionNotFound);
    assert!(refused.to_string().contains("is 1, the transaction was made for 2"), "{refused}");
    let right = Transact { partitions: vec![1, 1], ..asked };
    scene.engine.broker.transact(&Principal::Local, right, batches).await.unwrap();
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn times_do_not_make_another_transaction_and_everything_else_does() {
    let scene = Scene::new().await;
    let event = || Event::new("a").with_key("k").with_header("h", "v");
    let of = |event: Event| [Part { events: vec![event], ..part(0, &[]) }];
    scene.commit_now("1", &of(event().at(Timestamp(1)))).await.unwrap();
    assert!(scene.commit_now("1", &of(event().at(Timestamp(2)))).await.unwrap().repeat);
    for other in [
        Event::new("b").with_key("k").with_header("h", "v"),
        Event::new("a").with_header("h", "v"),
        event().with_header("h", "v"),
        Event { id: Some("i".into()), ..event() },
        Event { payload: None, ..event() },
    ] {
        assert_eq!(code(scene.commit_now("1", &of(other)).await), ErrorCode::TransactionExists);
    }
    let elsewhere = Part { topic: 1, ..of(event())[0].clone() };
    assert_eq!(code(scene.commit_now("1", &[elsewhere]).await), ErrorCode::TransactionExists);
    let twice = Part { events: vec![event(), event()], ..part(0, &[]) };
    assert_eq!(code(scene.commit_now("1", &[twice]).await), ErrorCode::TransactionExists);
    scene.engine.broker.shutdown().await;
}
