//! What ends a pass, how much it takes, and what it leaves for the next one.

use std::{pin::pin, sync::atomic::Ordering};

use levada_broker::CompactionConfig;
use levada_protocol::{
    error::ErrorCode,
    ids::Timestamp,
    request::{Request, Retain, RouteSpec, Start, TopicChanges, TopicSettings},
};
use levada_store::Deleted;

use super::{
    LEFT, keep, purge,
    scene::{DAY, MINUTE, Scene, compacted, note_replaced},
    with_gaps, with_gaps_in_steps_of,
};
use crate::support::{Look, until};

/// What happens while a pass is under way.
#[derive(Debug, Clone, Copy)]
enum Between {
    Move,
    Create,
    CreateRoute,
    Set,
    DirectoryGoes,
}

async fn route(scene: &Scene, start: Start) {
    let (from, to) = ("orders".parse().unwrap(), "copies".parse().unwrap());
    let spec =
        RouteSpec { start, chain: vec![keep()], ..RouteSpec::new("copy".parse().unwrap(), from, [to]) };
    scene.engine.ask(Request::CreateRoute(spec)).await;
}

async fn do_between(scene: &Scene, between: Between) {
    match between {
        Between::Move => scene.seek(Start::Offset(0)).await,
        Between::Create => scene.subscription(Start::Offset(0)).await,
        Between::CreateRoute => {
            scene.engine.plugins.gate.shut(true);
            route(scene, Start::Earliest).await;
        }
        Between::Set => scene.set(Retain::TimeAndAcked).await,
        Between::DirectoryGoes => std::fs::remove_dir_all(scene.engine.dir.path()).unwrap(),
    }
}

#[tokio::test]
async fn a_pass_ends_where_what_it_was_planned_for_changes() {
    for between in
        [Between::Move, Between::Create, Between::CreateRoute, Between::Set, Between::DirectoryGoes]
    {
        let scene = with_gaps_in_steps_of(1).await;
        if !matches!(between, Between::Create) {
            scene.subscription(Start::Latest).await;
        }
        scene.engine.topic("copies", TopicSettings::default()).await;
        scene.engine.deploy(b"keep").await;
        scene.pass_with(1, async |scene: &Scene| do_between(scene, between).await).await;
        let offsets = scene.offsets().await;
        let left: Vec<_> = offsets.iter().filter(|offset| **offset < 61).collect();
        assert!(left.len() > 20, "{between:?}, most of it waits: {offsets:?}");
        assert_eq!(scene.compacted_until(), 0, "{between:?}");
        match between {
            Between::CreateRoute => {
                scene.engine.plugins.gate.shut(false);
                scene.until_routed(65).await;
                assert_eq!(scene.engine.partition("copies").await.end, offsets.len() as u64);
            }
            Between::Set => scene.set(Retain::Compact).await,
            Between::DirectoryGoes => {
                scene.pass().await;
                assert_eq!(scene.offsets().await, offsets, "nothing more is written there");
                continue;
            }
            _ => scene.subscription(Start::Latest).await,
        }
        scene.pass().await;
        assert_eq!(scene.offsets().await, LEFT, "{between:?}");
        scene.engine.broker.shutdown().await;
    }
}

#[tokio::test]
async fn a_pass_goes_on_when_those_come_move_and_go_who_need_nothing_of_what_it_takes() {
    let scene = with_gaps_in_steps_of(1).await;
    scene.engine.topic("copies", TopicSettings::default()).await;
    scene.engine.deploy(b"keep").await;
    scene
        .pass_with(1, async |scene: &Scene| {
            // It comes, goes and comes.
            scene.subscription(Start::Latest).await;
            scene.subscription(Start::Offset(64)).await;
            scene.seek(Start::Latest).await;
            route(scene, Start::Offset(64)).await;
        })
        .await;
    assert_eq!(scene.offsets().await, LEFT);
    assert_eq!(scene.compacted_until(), 64);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_log_that_is_purged_in_the_middle_of_a_pass_is_whole_also_when_it_is_not_compacted_any_more() {
    for (records, until) in [(5, 20), (5, 23), (5, 26), (9, 36), (9, 39), (13, 52), (13, 55)] {
        let scene = with_gaps_in_steps_of(1).await;
        scene.pass_purged(records, purge(until)).await;
        assert!((15..=until).contains(&scene.partition().await.start));
        assert_eq!(scene.compacted_until(), 0, "the pass has ended");
        scene.set(Retain::TimeAndAcked).await;
        let offsets = scene.offsets().await;
        assert!(offsets.ends_with(&LEFT[1..]), "{offsets:?}");
        scene.set(Retain::Compact).await;
        scene.pass().await;
        assert!(scene.offsets().await.ends_with(&LEFT[1..]));
        scene.engine.broker.shutdown().await;
    }
}

#[tokio::test]
async fn the_commit_that_ends_a_pass_notes_what_it_has_replaced_and_so_does_the_next_one_if_there_was_none() {
    let cut_at = |scene: &Scene, is_at_its_end| match is_at_its_end {
        true => scene.compacted_until() > 0,
        false => scene.keys_stored() == 7,
    };
    for is_at_its_end in [true, false] {
        let scene = with_gaps_in_steps_of(1).await;
        scene.cut_pass_when(|| cut_at(&scene, is_at_its_end)).await;
        assert_eq!(scene.compacted_until() > 0, is_at_its_end);
        if !is_at_its_end {
            scene.pass().await;
        }
        scene.until_reclaimed().await;
        let ranges = std::mem::take(&mut *scene.engine.store.compactions.lock().unwrap());
        let [(from, to, Deleted::Some)] = &ranges[..] else { panic!("{ranges:?}") };
        let offset = |key: &[u8]| u64::from_be_bytes(key[key.len() - 8..].try_into().unwrap());
        assert_eq!((offset(from), offset(to) >= 61), (0, true), "{ranges:?}");
        scene.engine.broker.shutdown().await;
    }
}

#[tokio::test]
async fn while_there_is_too_little_room_the_space_of_what_was_replaced_waits_and_that_of_what_was_purged_does_not()
 {
    let scene = Scene::new().await;
    for _ in 0..2 {
        scene.publish(&[("a", Some("1"))]).await;
        scene.next_segment();
    }
    let scene = scene
        .restart_with(|config, store| {
            config.disk_reserve_bytes = u64::MAX;
            note_replaced(store);
        })
        .await;
    scene.engine.ask(Request::PurgeTopic(purge(1))).await;
    until(|| scene.notes().1 == 0).await;
    assert_eq!(scene.notes().0, 1);
    let scene = scene.restart().await;
    scene.until_reclaimed().await;
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn what_a_pass_that_was_cut_short_has_dropped_is_not_counted_as_stored() {
    for records in [1, 5, 9, 13] {
        let scene = with_gaps_in_steps_of(1).await;
        scene.cut_pass(records).await;
        let scene = scene.restart().await;
        let (counted, stored) = (scene.partition().await.bytes, scene.bytes_stored());
        assert_eq!(counted, stored, "after {records} records");
        let (retain, max_bytes) = (Some(Retain::TimeAndSize), Some(stored));
        let settings = TopicChanges { retain, max_bytes, ..TopicChanges::default() };
        scene.engine.ask(Request::SetTopic { name: "orders".parse().unwrap(), settings }).await;
        scene.round().await;
        assert_eq!(scene.partition().await.start, 0, "nothing is too much");
        scene.engine.broker.shutdown().await;
    }
}

#[tokio::test]
async fn the_space_of_what_was_replaced_is_given_back_in_parts_and_live_events_are_never_taken_for_deleted() {
    for (reclaim_bytes, parts) in [(u64::MAX, 1), (1, 4)] {
        let scene =
            with_gaps_configured(|config| (config.step_bytes, config.reclaim_bytes) = (1, reclaim_bytes))
                .await;
        scene.pass().await;
        scene.until_reclaimed().await;
        let ranges = std::mem::take(&mut *scene.engine.store.compactions.lock().unwrap());
        assert!(ranges.len() >= parts && (parts > 1 || ranges.len() == 1), "{ranges:?}");
        assert!(
            ranges.iter().all(|(from, to, deleted)| from < to && *deleted == Deleted::Some),
            "{ranges:?}"
        );
        // What supersedes nothing is compacted without a word to the store.
        scene.publish(&[("new", Some(&"x".repeat(4_000)))]).await;
        scene.next_segment();
        scene.publish(&[("y", Some("open"))]).await;
        let until = scene.partition().await.end - 1;
        scene.pass().await;
        assert!(scene.offsets().await.contains(&(until - 1)));
        scene.until_reclaimed().await;
        assert_eq!(*scene.engine.store.compactions.lock().unwrap(), []);
        scene.engine.broker.shutdown().await;
    }
}

#[tokio::test]
async fn a_partition_rests_as_long_as_a_pass_took_that_held_too_few_keys_to_be_worth_it() {
    let change = |config: &mut CompactionConfig| (config.keys_max, config.step_bytes) = (2, 1);
    let scene = Scene::configured(compacted(), change).await;
    for key in ["a", "b", "c", "d", "a", "b", "c", "d", "a", "b", "c", "d"] {
        scene.publish(&[(key, Some("1"))]).await;
    }
    scene.next_segment();
    scene.publish(&[("z", Some("1"))]).await;
    scene.pass().await;
    scene.pass().await;
    // Two keys over four that were compacted.
    scene.pass_with(1, async |scene: &Scene| scene.later(30 * MINUTE)).await;
    assert_eq!(scene.offsets().await.len(), 11);
    let reads = || scene.engine.store.log_reads.load(Ordering::Acquire);
    let before = reads();
    scene.round().await;
    scene.later(30 * MINUTE - 1);
    scene.round().await;
    assert_eq!(reads(), before, "it rests");
    scene.later(1);
    scene.round().await;
    assert_eq!(scene.offsets().await.len(), 9);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_log_of_more_keys_than_a_pass_holds_does_not_grow() {
    let scene = Scene::configured(compacted(), |config| config.keys_max = 2).await;
    let keys = ["a", "b", "c", "d", "e", "f", "g", "h"];
    for _ in 0..20 {
        for key in keys {
            scene.publish(&[(key, Some("1"))]).await;
        }
        scene.next_segment();
        // As many rounds as tables of keys.
        for _ in 0..4 {
            scene.round().await;
        }
    }
    let left = scene.offsets().await.len();
    assert!(left <= 4 * keys.len(), "{left} events are left of {} keys", keys.len());
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_pass_ends_before_a_damaged_record_and_goes_on_once_it_is_whole() {
    let scene = with_gaps().await;
    scene.damage(Some(40));
    scene.later(10 * MINUTE);
    let ended = scene.engine.broker.run_retention_at(Timestamp(scene.now())).await.unwrap_err();
    assert_eq!(ended.code(), ErrorCode::StorageCorrupt, "{ended}");
    let before = scene.engine.store.log_reads.load(Ordering::Acquire);
    scene.pass().await;
    assert_eq!(scene.engine.store.log_reads.load(Ordering::Acquire), before, "it rests for an hour");
    scene.damage(None);
    let offsets = scene.offsets().await;
    assert_eq!(offsets[..5], [30, 37, 38, 39, 40], "what is before it is compacted");
    assert!(offsets.contains(&40));
    scene.later(50 * MINUTE);
    scene.round().await;
    assert_eq!(scene.offsets().await, LEFT);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn how_long_events_would_be_kept_otherwise_does_not_shorten_segments() {
    for (retain, segments) in [(Retain::Compact, 1), (Retain::TimeAndAcked, 3)] {
        // An age that was given before the topic was compacted stays, and has no effect.
        let aged = TopicSettings { retain_for_ms: 8 * MINUTE, ..TopicSettings::default() };
        let scene = Scene::with(aged).await;
        scene.set(retain).await;
        for _ in 0..3 {
            scene.publish(&[("a", Some("1"))]).await;
            scene.later(2 * MINUTE);
        }
        assert_eq!(scene.segments(), segments, "{retain:?}");
        scene.engine.broker.shutdown().await;
    }
}

#[tokio::test]
async fn what_retention_drops_of_a_log_that_was_compacted_is_counted_as_what_was_appended() {
    let scene = with_gaps().await;
    scene.pass().await;
    scene.set(Retain::TimeAndAcked).await;
    scene.later(4 * DAY);
    scene.round().await;
    let partition = scene.partition().await;
    assert_eq!((partition.start, partition.end, partition.bytes), (65, 65, 0));
    scene.publish(&[("a", Some("1"))]).await;
    let stored = scene.bytes_stored();
    assert_eq!(scene.partition().await.bytes, stored);
    let scene = scene.restart().await;
    assert_eq!(scene.partition().await.bytes, stored);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_reader_that_got_a_value_has_a_day_to_come_to_its_tombstone_however_old_that_is() {
    let scene = Scene::new().await;
    scene.publish(&[("a", Some("1"))]).await;
    scene.publish(&[("a", None)]).await;
    scene.next_segment();
    scene.publish(&[("d", Some("1"))]).await;
    scene.subscription(Start::Offset(0)).await;
    scene.later(3 * DAY);
    scene.pass().await;
    assert_eq!(scene.offsets().await, [0, 1, 2], "somebody has yet to acknowledge it");
    scene.subscription(Start::Latest).await;
    scene.pass().await;
    assert_eq!(
        scene.offsets().await,
        [1, 2],
        "the tombstone is days old, and just now took its value with it"
    );
    scene.later(DAY - 11 * MINUTE);
    scene.pass().await;
    assert_eq!(scene.offsets().await, [1, 2]);
    scene.pass().await;
    assert_eq!(scene.offsets().await, [2]);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn what_a_round_of_retention_decided_on_stays_if_the_topic_was_set_to_be_compacted_meanwhile() {
    let scene = Scene::with(TopicSettings::default()).await;
    scene.publish(&[("a", Some("1"))]).await;
    scene.next_segment();
    scene.publish(&[("b", Some("1"))]).await;
    scene.later(4 * DAY);
    let store = &scene.engine.store;
    store.hold_looks(Some(Look::Segments));
    let mut round = pin!(scene.engine.broker.run_retention_at(Timestamp(scene.now())));
    tokio::select! {
        biased;
        _ = round.as_mut() => panic!("it is held up"),
        () = store.looked.notified() => {}
    }
    // The change is decided, and not in force before it is durable.
    store.hold(true);
    let mut set = pin!(scene.set(Retain::Compact));
    tokio::select! {
        biased;
        () = set.as_mut() => panic!("it is not durable"),
        () = store.entered.notified() => {}
    }
    store.hold_looks(None);
    let release = async {
        // The round goes on meanwhile.
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        store.hold(false);
    };
    let (round, (), ()) = tokio::join!(round, set, release);
    round.unwrap();
    assert_eq!(scene.offsets().await, [0, 1], "all of it is as old as retention wants it");
    scene.set(Retain::TimeAndAcked).await;
    scene.round().await;
    assert_eq!(scene.partition().await.start, 2);
    scene.engine.broker.shutdown().await;
}

async fn with_gaps_configured(change: impl FnOnce(&mut CompactionConfig)) -> Scene {
    super::with_gaps_in(Scene::configured(compacted(), change).await).await
}
