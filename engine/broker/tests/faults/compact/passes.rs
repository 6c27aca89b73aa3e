//! What ends a pass, how much it takes, and what it leaves for the next one.

use std::sync::atomic::Ordering;

use levada_protocol::{
    error::ErrorCode,
    ids::Timestamp,
    request::{Request, Retain, RouteSpec, Start, TopicSettings},
};
use levada_store::Deleted;

use super::{
    LEFT, purge,
    scene::{DAY, MINUTE, Scene, compacted},
    with_gaps, with_gaps_in_steps_of,
};

/// What happens while a pass is under way.
#[derive(Debug, Clone, Copy)]
enum Between {
    Purge,
    Move,
    Create,
    Delete,
    CreateRoute,
    Set,
    DirectoryGoes,
}

async fn do_between(scene: &Scene, between: Between) {
    match between {
        Between::Purge => drop(scene.engine.ask(Request::PurgeTopic(purge(15))).await),
        Between::Move => scene.seek(Start::Offset(0)).await,
        Between::Create => scene.subscription(Start::Offset(0)).await,
        Between::Delete => {
            let (topic, name) = ("orders".parse().unwrap(), "payment".parse().unwrap());
            let delete = Request::DeleteSubscription { topic, name, force: true, with_dead_letters: false };
            scene.engine.ask(delete).await;
        }
        Between::CreateRoute => {
            let (from, to) = ("orders".parse().unwrap(), "copies".parse().unwrap());
            let mut route = RouteSpec::new("copy".parse().unwrap(), from, [to]);
            route.start = Start::Earliest;
            scene.engine.ask(Request::CreateRoute(route)).await;
        }
        Between::Set => scene.set(Retain::TimeAndAcked).await,
        Between::DirectoryGoes => std::fs::remove_dir_all(scene.engine.dir.path()).unwrap(),
    }
}

#[tokio::test]
async fn a_pass_ends_where_what_it_was_planned_for_changes() {
    for between in [
        Between::Purge,
        Between::Move,
        Between::Create,
        Between::Delete,
        Between::CreateRoute,
        Between::Set,
        Between::DirectoryGoes,
    ] {
        let scene = with_gaps_in_steps_of(1).await;
        if !matches!(between, Between::Create) {
            scene.subscription(Start::Latest).await;
        }
        scene.engine.topic("copies", TopicSettings::default()).await;
        scene.pass_with(1, async |scene: &Scene| do_between(scene, between).await).await;
        let offsets = scene.offsets().await;
        let left: Vec<_> = offsets.iter().filter(|offset| **offset < 61).collect();
        assert!(left.len() > 20, "{between:?}, most of it waits: {offsets:?}");
        assert_eq!(scene.rows_of_compaction(), 0, "{between:?}");
        match between {
            Between::CreateRoute => {
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
async fn a_log_that_was_purged_and_compacted_at_once_is_whole_when_it_is_not_compacted_any_more() {
    for until in [4, 16, 20, 29, 33, 47] {
        let scene = with_gaps_in_steps_of(1).await;
        scene.later(10 * MINUTE);
        let pass = scene.engine.broker.run_retention_at(Timestamp(scene.now()));
        let (passed, _) = tokio::join!(pass, scene.engine.ask(Request::PurgeTopic(purge(until))));
        passed.unwrap();
        scene.set(Retain::TimeAndAcked).await;
        let offsets = scene.offsets().await;
        assert!(offsets.ends_with(&LEFT[1..]), "{offsets:?}");
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
async fn a_partition_rests_after_a_pass_that_held_too_few_keys_to_be_worth_it() {
    let scene = Scene::configured(compacted(), |config| config.keys_max = 2).await;
    for key in ["a", "b", "c", "d", "a", "b", "c", "d", "a", "b", "c", "d"] {
        scene.publish(&[(key, Some("1"))]).await;
    }
    scene.next_segment();
    scene.publish(&[("z", Some("1"))]).await;
    scene.pass().await;
    scene.pass().await;
    // Two keys over four that were compacted.
    scene.pass().await;
    assert_eq!(scene.offsets().await.len(), 11);
    let reads = || scene.engine.store.log_reads.load(Ordering::Acquire);
    let before = reads();
    scene.pass().await;
    assert_eq!(reads(), before, "it rests");
    scene.later(50 * MINUTE);
    scene.round().await;
    assert_eq!(scene.offsets().await.len(), 9);
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
    assert_eq!(offsets[..5], [30, 34, 35, 36, 37], "what is before it is compacted");
    assert!(offsets.contains(&40));
    scene.later(50 * MINUTE);
    scene.round().await;
    assert_eq!(scene.offsets().await, LEFT);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn how_long_events_would_be_kept_otherwise_does_not_shorten_segments() {
    for (retain, segments) in [(Retain::Compact, 1), (Retain::TimeAndAcked, 3)] {
        let scene =
            Scene::with(TopicSettings { retain, retain_for_ms: 8 * MINUTE, ..TopicSettings::default() })
                .await;
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

async fn with_gaps_configured(change: impl FnOnce(&mut levada_broker::CompactionConfig)) -> Scene {
    super::with_gaps_in(Scene::configured(compacted(), change).await).await
}
