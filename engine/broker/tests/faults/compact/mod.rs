//! Topics that keep the last event of each key: what goes, what stays, and who reads across what is gone.

mod model;
mod passes;
mod scene;

use std::sync::atomic::Ordering;

use levada_broker::{Content, Delivery, Principal};
use levada_protocol::{
    error::ErrorCode,
    ids::TopicName,
    publish::AckOutcome,
    request::{
        BacklogInfo, OnFull, Order, Position, PurgeTopic, Read, Request, Response, Retain, RouteSpec,
        StageSpec, Start, SubscriptionOptions, TopicChanges, TopicSettings,
    },
    schedule::Due,
    verbs::Credit,
};
use tokio::time::timeout;

use self::scene::{DAY, MINUTE, Scene, compacted};
use crate::support::{Engine, PLENTY, SOON, delivery};

fn purge(until: u64) -> PurgeTopic {
    PurgeTopic {
        topic: "orders".parse().unwrap(),
        until: vec![Position { partition: 0, offset: until }],
        before_ms: None,
        force: false,
    }
}

fn keep() -> StageSpec {
    StageSpec { plugin: "keep".to_owned(), ..StageSpec::default() }
}

/// What a subscription is delivered until it has come to `end`: offsets, all acknowledged.
async fn consumed(scene: &Scene, options: SubscriptionOptions, end: u64) -> Vec<u64> {
    let mut consumer = scene.engine.subscribe(options).await;
    consumer.control.credit(PLENTY).await.unwrap();
    let (mut offsets, mut sequence) = (Vec::new(), 0);
    loop {
        let done = async {
            loop {
                let info = scene.engine.info().await;
                if info.lag == 0 && info.positions[0].offset == end {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        let next = timeout(SOON, async {
            tokio::select! {
                biased;
                next = consumer.outgoing.recv() => next,
                () = done => None,
            }
        });
        let Some(next) = next.await.expect("it goes on") else { return offsets };
        let Content::Delivery(Delivery { header, runs }) = next.unwrap().into_parts().0 else { continue };
        let before = offsets.len();
        for run in &runs {
            assert!(!run.batches.is_empty(), "no run is empty");
            for (base, batch) in run.batches().map(Result::unwrap) {
                offsets.extend(batch.events().map(|event| event.offset(base).0));
            }
        }
        sequence += 1;
        let acked = offsets[before]..=*offsets.last().unwrap();
        scene.engine.ack(&consumer, sequence, header.token, acked).await;
    }
}

#[tokio::test]
async fn after_a_pass_the_last_event_of_each_key_is_left_at_its_own_offset() {
    let scene = Scene::new().await;
    scene.publish(&[("a", Some("1")), ("b", Some("1")), ("a", Some("2"))]).await;
    scene.publish(&[("c", Some("1")), ("a", Some("3"))]).await;
    scene.next_segment();
    scene.publish(&[("b", Some("2"))]).await;
    assert_eq!(scene.read_log().await.len(), 6);
    scene.pass().await;
    let left = ["1 b=1", "3 c=1", "4 a=3", "5 b=2"];
    assert_eq!(scene.texts().await, left, "what superseded b is in the open segment");
    let scene = scene.restart().await;
    assert_eq!(scene.texts().await, left);
    scene.publish(&[("b", Some("3"))]).await;
    assert_eq!(scene.partition().await.end, 7, "offsets go on");
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn an_open_segment_and_a_young_one_are_left_alone() {
    let scene = Scene::new().await;
    scene.publish(&[("a", Some("1"))]).await;
    scene.publish(&[("a", Some("2"))]).await;
    scene.later(DAY);
    scene.round().await;
    assert_eq!(scene.read_log().await.len(), 2, "the segment is open");
    scene.publish(&[("b", Some("1"))]).await;
    scene.round().await;
    assert_eq!(scene.read_log().await.len(), 3, "it was closed just now");
    scene.later(10 * MINUTE - 1);
    scene.round().await;
    assert_eq!(scene.read_log().await.len(), 3, "less than ten minutes ago");
    scene.later(1);
    scene.round().await;
    assert_eq!(scene.texts().await, ["1 a=2", "2 b=1"]);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn what_somebody_has_yet_to_acknowledge_is_left_alone() {
    let scene = Scene::new().await;
    scene.publish(&[("a", Some("1"))]).await;
    scene.publish(&[("a", Some("2"))]).await;
    scene.next_segment();
    scene.publish(&[("a", Some("3"))]).await;
    scene.publish(&[("a", Some("4"))]).await;
    scene.next_segment();
    scene.publish(&[("a", Some("5"))]).await;
    scene.subscription(Start::Offset(1)).await;
    scene.pass().await;
    assert_eq!(scene.offsets().await, [0, 1, 2, 3, 4], "no whole segment is acknowledged");
    scene.subscription(Start::Offset(3)).await;
    scene.pass().await;
    assert_eq!(scene.offsets().await, [1, 2, 3, 4], "of the first one the last event stays");
    let (from, to) = ("orders".parse().unwrap(), "copies".parse().unwrap());
    scene.engine.topic("copies", TopicSettings::default()).await;
    scene.subscription(Start::Latest).await;
    let stage = keep();
    scene.engine.deploy(b"keep").await;
    scene.engine.plugins.gate.shut(true);
    let mut route = RouteSpec::new("split".parse().unwrap(), from, [to]);
    (route.chain, route.start) = (vec![stage], Start::Offset(2));
    scene.engine.ask(Request::CreateRoute(route)).await;
    scene.pass().await;
    assert_eq!(scene.offsets().await, [1, 2, 3, 4], "a route has yet to take the second");
    scene.engine.plugins.gate.shut(false);
    scene.until_routed(5).await;
    scene.pass().await;
    assert_eq!(scene.offsets().await, [3, 4]);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_tombstone_takes_what_it_deletes_with_it_and_goes_itself_after_a_day() {
    let scene = Scene::new().await;
    scene.publish(&[("a", Some("1")), ("b", Some("")), ("c", Some("1"))]).await;
    scene.publish(&[("a", None), ("b", Some(""))]).await;
    scene.next_segment();
    scene.publish(&[("d", Some("1"))]).await;
    scene.pass().await;
    assert_eq!(scene.offsets().await, [2, 3, 4, 5], "an empty payload is ordinary data");
    assert_eq!(scene.read_log().await[1].2, None);
    // There is nothing new to compact: a pass comes for its sake, a day after what it deletes has gone.
    scene.later(DAY - 11 * MINUTE);
    scene.pass().await;
    assert_eq!(scene.offsets().await, [2, 3, 4, 5]);
    let scene = scene.restart().await;
    scene.pass().await;
    assert_eq!(scene.offsets().await, [2, 4, 5]);
    let reads = || scene.engine.store.log_reads.load(Ordering::Acquire);
    let before = reads();
    scene.pass().await;
    assert_eq!(reads(), before, "there is nothing more to do, and nothing is read for it");
    // What deletes something new stays as long again.
    scene.publish(&[("c", None), ("e", Some("more than was compacted so far"))]).await;
    scene.next_segment();
    scene.publish(&[("f", Some("1"))]).await;
    scene.later(DAY - 21 * MINUTE);
    scene.pass().await;
    assert_eq!(scene.offsets().await, [4, 5, 6, 7, 8]);
    scene.later(DAY - 11 * MINUTE);
    scene.pass().await;
    assert_eq!(scene.offsets().await, [4, 5, 6, 7, 8]);
    scene.pass().await;
    assert_eq!(scene.offsets().await, [4, 5, 7, 8]);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn events_without_a_key_are_refused_and_those_from_before_stay() {
    let scene = Scene::with(TopicSettings::default()).await;
    scene.engine.publish("orders", 2).await;
    let set = |retain| {
        let changes = TopicChanges { retain: Some(retain), ..TopicChanges::default() };
        Request::SetTopic { name: "orders".parse().unwrap(), settings: changes }
    };
    scene.engine.ask(set(Retain::Compact)).await;
    for due in [None, Some(Due::After(1_000))] {
        let outcome = scene.try_publish(due, &[(Some("a"), "1"), (None, "2")]).await;
        let AckOutcome::Refused(refusal) = outcome else { panic!("{outcome:?}") };
        assert_eq!(refusal.code, ErrorCode::InvalidArgument);
        let said = &refusal.message;
        assert!(said.starts_with("event 1 of the batch has no key, expected one: topic orders"), "{said}");
        assert!(said.contains("levada topic set orders --retain"), "{said}");
    }
    scene.publish(&[("", Some("an empty key is a key")), ("", Some("2"))]).await;
    scene.next_segment();
    scene.publish(&[("a", Some("1"))]).await;
    scene.pass().await;
    assert_eq!(scene.offsets().await, [0, 1, 3, 4]);
    scene.engine.ask(set(Retain::TimeAndAcked)).await;
    scene.engine.publish("orders", 1).await;
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn settings_that_contradict_compaction_are_refused() {
    let engine = Engine::start();
    let create = async |name: &str, settings| {
        let request = Request::CreateTopic { name: TopicName::parse_any(name).unwrap(), settings };
        let asked = engine.broker.request(&Principal::Local, request, None).await;
        asked.unwrap_err().to_string()
    };
    let dropping = TopicSettings { backlog_max_events: 1, on_full: OnFull::DropOldest, ..compacted() };
    // Also while no limit is set, or a later one would be refused for it.
    for settings in [dropping.clone(), TopicSettings { backlog_max_events: 0, ..dropping }] {
        let said = create("orders", settings).await;
        assert!(said.contains("retain compact and on_full drop_oldest contradict each other"), "{said}");
    }
    engine.broker.shutdown().await;
}

/// Four segments of which one event is not superseded, a fifth that supersedes the others, and an open one.
async fn with_gaps() -> Scene {
    with_gaps_in_steps_of(512 << 10).await
}

async fn with_gaps_in_steps_of(bytes: usize) -> Scene {
    with_gaps_in(Scene::configured(compacted(), |config| config.step_bytes = bytes).await).await
}

async fn with_gaps_in(scene: Scene) -> Scene {
    for segment in 0..4 {
        for _ in 0..5 {
            let keys = ["a", "b", "c"].map(|key| (key, Some("old")));
            scene.publish(&keys).await;
        }
        if segment == 1 {
            scene.publish(&[("only", Some("here"))]).await;
        }
        scene.next_segment();
    }
    scene.publish(&["a", "b", "c"].map(|key| (key, Some("new")))).await;
    scene.next_segment();
    scene.publish(&[("z", Some("open"))]).await;
    scene
}

const LEFT: [u64; 5] = [30, 61, 62, 63, 64];

#[tokio::test]
async fn readers_and_subscriptions_pass_stretches_without_events() {
    for restarts in [false, true] {
        let scene = with_gaps().await;
        scene.pass().await;
        let scene = if restarts { scene.restart().await } else { scene };
        assert_eq!(scene.offsets().await, LEFT);
        assert_eq!(scene.keys_stored(), 7, "a segment keeps one record at least, and those with events");
        for from in [1, 29, 30, 31, 45, 60, 61, 64, 65] {
            let expected: Vec<u64> = LEFT.into_iter().filter(|offset| *offset >= from).collect();
            assert_eq!(scene.offsets_from(from, 1).await, expected, "from {from}, one at a time");
            assert_eq!(scene.offsets_from(from, u64::MAX).await, expected, "from {from}");
        }
        assert_eq!(scene.found("key = \"b\"").await, [62]);
        scene.engine.deploy(b"keep").await;
        for order in [Order::None, Order::Key, Order::Partition] {
            for chain in [Vec::new(), vec![keep()]] {
                scene
                    .subscription_with(
                        Start::Earliest,
                        SubscriptionOptions {
                            order: Some(order),
                            chain: Some(chain.clone()),
                            ..SubscriptionOptions::default()
                        },
                    )
                    .await;
                let options = SubscriptionOptions {
                    order: Some(order),
                    chain: Some(chain),
                    ..SubscriptionOptions::default()
                };
                assert_eq!(consumed(&scene, options, 65).await, LEFT, "{order:?}");
            }
        }
        scene.engine.topic("copies", compacted()).await;
        let mut route =
            RouteSpec::new("copy".parse().unwrap(), "orders".parse().unwrap(), ["copies".parse().unwrap()]);
        route.start = Start::Earliest;
        scene.engine.ask(Request::CreateRoute(route)).await;
        scene.until_end("copies", 5).await;
        scene.engine.broker.shutdown().await;
    }
}

#[tokio::test]
async fn a_reader_that_has_credit_for_no_more_than_there_is_comes_to_its_end() {
    let scene = Scene::new().await;
    scene.publish(&[("a", Some("1")), ("b", Some("1"))]).await;
    scene.publish(&["c", "d", "e"].map(|key| (key, Some("1")))).await;
    // It ends here, where no event will be left.
    let read = Read { from: Start::Earliest, follow: false, ..Read::new("orders".parse().unwrap()) };
    let mut reader = scene.engine.broker.read(&Principal::Local, read).await.unwrap();
    scene.next_segment();
    scene.publish(&[("e", Some("2"))]).await;
    scene.next_segment();
    scene.publish(&[("z", Some("1"))]).await;
    scene.pass().await;
    assert_eq!(scene.offsets().await, [0, 1, 2, 3, 5, 6]);
    let mut offsets = Vec::new();
    for _ in 0..4 {
        reader.credit.grant(Credit { events: 1, bytes: 1 << 20 }).await.unwrap();
        offsets.extend(delivery(&mut reader.outgoing).await.1);
    }
    assert_eq!(offsets, [0, 1, 2, 3]);
    let end = timeout(SOON, reader.outgoing.recv()).await.expect("it comes to its end").unwrap().unwrap();
    let Content::End(ends) = end.content() else { panic!("{end:?}") };
    assert_eq!(ends[0].next.0, 5);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_follower_in_the_middle_of_it_goes_on() {
    let scene = with_gaps().await;
    let mut reader = scene.engine.reader("orders").await;
    scene.pass().await;
    scene.publish(&[("last", Some("1"))]).await;
    let mut last = 0;
    while last < 65 {
        let next = timeout(SOON, reader.outgoing.recv()).await.unwrap().unwrap().unwrap();
        let Content::Delivery(Delivery { runs, .. }) = next.content() else { continue };
        for (base, batch) in runs.iter().flat_map(|run| run.batches()).map(Result::unwrap) {
            last = batch.events().last().unwrap().offset(base).0;
        }
    }
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn the_description_says_what_is_stored_also_after_a_restart_and_a_purge() {
    let scene = with_gaps().await;
    let before = scene.partition().await.bytes;
    scene.pass().await;
    let after = scene.partition().await.bytes;
    assert_eq!(after, scene.bytes_stored());
    assert!(after * 3 < before, "{after} of {before} bytes are left");
    assert_eq!(scene.compacted_bytes().await, Some((before - after) as f64));
    let scene = scene.restart().await;
    assert_eq!(scene.partition().await.bytes, after);
    let Response::TopicPurged(purged) = scene.engine.ask(Request::PurgeTopic(purge(31))).await else {
        panic!("it is purged")
    };
    let start = purged.positions[0].offset;
    assert!((15..=31).contains(&start), "{start}");
    let expected: Vec<u64> = LEFT.into_iter().filter(|offset| *offset >= start).collect();
    assert_eq!(scene.offsets().await, expected);
    assert!(scene.partition().await.bytes <= scene.bytes_stored());
    scene.engine.ask(Request::PurgeTopic(purge(64))).await;
    assert_eq!(scene.offsets().await, [64]);
    assert_eq!(scene.partition().await.bytes, scene.bytes_stored(), "nothing of what is compacted is left");
    let scene = scene.restart().await;
    assert_eq!(scene.partition().await.bytes, scene.bytes_stored());
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_backlog_counts_what_is_stored() {
    let settings = TopicSettings { backlog_max_bytes: 1 << 20, ..compacted() };
    let scene = Scene::with(settings).await;
    for _ in 0..50 {
        scene.publish(&[("a", Some(&"x".repeat(20_000)))]).await;
    }
    scene.next_segment();
    scene.publish(&[("b", Some("1"))]).await;
    scene.pass().await;
    let create = || scene.subscription(Start::Earliest);
    create().await;
    let backlog = async || -> BacklogInfo {
        let request = Request::DescribeTopic { name: "orders".parse().unwrap() };
        let Response::Topic(info) = scene.engine.ask(request).await else { panic!("no topic") };
        info.backlog.unwrap()
    };
    assert!(backlog().await.bytes < 30_000, "{:?}", backlog().await);
    for _ in 0..10 {
        scene.publish(&[("c", Some(&"x".repeat(20_000)))]).await;
    }
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_pass_ends_where_it_holds_as_many_keys_as_it_may_and_the_next_one_goes_on() {
    let scene = Scene::configured(compacted(), |config| config.keys_max = 2).await;
    for round in 0..4 {
        for key in ["a", "b", "c", "d"] {
            scene.publish(&[(key, Some(if round == 3 { "new" } else { "old" }))]).await;
        }
    }
    scene.next_segment();
    scene.publish(&[("z", Some("1"))]).await;
    scene.pass().await;
    assert_eq!(scene.offsets().await.len(), 17, "nothing of its first two records is superseded by them");
    for _ in 0..10 {
        scene.later(60 * MINUTE);
        scene.pass().await;
    }
    assert!(scene.offsets().await.len() <= 9, "{:?}", scene.offsets().await);
    let newest: Vec<_> = scene.texts().await.into_iter().filter(|text| text.ends_with("=new")).collect();
    assert_eq!(newest.len(), 4);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_pass_is_bounded_in_what_it_commits_and_a_deleted_topic_ends_it() {
    let scene = Scene::new().await;
    for number in 0..60 {
        let payload = "x".repeat(40_000);
        scene.publish(&[("a", Some(&payload)), (&format!("key-{number}"), Some(&payload))]).await;
    }
    scene.next_segment();
    scene.publish(&[("z", Some("1"))]).await;
    scene.engine.store.commits.lock().unwrap().clear();
    scene.pass().await;
    let expected: Vec<u64> = (0..59).map(|record| record * 2 + 1).chain(118..=120).collect();
    assert_eq!(scene.offsets().await, expected);
    let commits = scene.engine.store.commits.lock().unwrap().clone();
    assert!(commits.len() > 4 && commits.iter().all(|commit| *commit <= 512 << 10), "{commits:?}");
    scene
        .engine
        .ask(Request::DeleteTopic { name: "orders".parse().unwrap(), force: true, with_dead_letters: false })
        .await;
    scene.pass().await;
    assert_eq!(scene.keys_stored(), 0);
    assert_eq!(scene.rows_of_compaction(), 0);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_pass_that_was_cut_short_is_carried_out_after_a_crash() {
    for records in 0..8 {
        let scene = Scene::configured(compacted(), |config| config.step_bytes = 1).await;
        for round in 0..5 {
            for key in ["a", "b"] {
                scene.publish(&[(key, Some(if round == 4 { "new" } else { "old" })), ("c", None)]).await;
            }
        }
        scene.next_segment();
        scene.publish(&[("z", Some("1"))]).await;
        scene.cut_pass(records).await;
        let all = |texts: &[String]| {
            let last = ["16 a=new", "18 b=new", "19 c=", "20 z=1"];
            assert!(last.iter().all(|last| texts.iter().any(|text| text == last)), "{texts:?}");
        };
        all(&scene.texts().await);
        let scene = scene.restart().await;
        all(&scene.texts().await);
        scene.pass().await;
        assert_eq!(scene.offsets().await, [16, 18, 19, 20], "after {records} records");
        assert_eq!(scene.partition().await.bytes, scene.bytes_stored());
        scene.engine.broker.shutdown().await;
    }
}
