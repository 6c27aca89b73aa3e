//! Dead letters over real QUIC and on real RocksDB: redriven while others do the same and while the engine is killed, and
//! each event once.

use std::{collections::BTreeMap, pin::pin};

use levada_client::{
    Client, DeadLettersOf, ErrorCode, Offset, Purge, RedriveOptions, RedriveOutcome, RedriveSelection,
    RedriveTarget, Redriving, SubscriptionOptions,
};
use tempfile::TempDir;

use crate::support::{
    engine::Engine,
    events::{self, code, earliest, header, next, number_of, numbered, payload, publish_numbers, read_all},
    process::Process,
    until, within,
};

fn payment() -> DeadLettersOf {
    "orders/payment".parse().unwrap()
}

/// Makes dead letters of the numbers from 0 on, and a topic `repaired`.
async fn with_dead_letters(client: &Client, count: u64) {
    client.create_topic("orders", events::partitions(1)).await.unwrap();
    client.create_topic("repaired", events::partitions(3)).await.unwrap();
    publish_numbers(client, "orders", 0..count).await;
    let options = earliest("orders", "payment", SubscriptionOptions::default());
    let mut subscriber = client.subscribe(options).await.unwrap();
    let mut rejected = 0;
    while rejected < count {
        let delivery = next(&mut subscriber).await;
        rejected += u64::from(delivery.count());
        delivery.reject(delivery.first()..=delivery.last(), "no stock");
    }
    within("the verbs", subscriber.confirmed()).await.unwrap();
    until("every dead letter", async || {
        let listed = client.list_dead_letters(Some("orders")).await.unwrap();
        listed.first().is_some_and(|topic| topic.count == count).then_some(())
    })
    .await;
}

/// How often each number is in a topic.
async fn counts(client: &Client, topic: &str) -> BTreeMap<u64, u64> {
    let mut counts = BTreeMap::new();
    for (_, event) in read_all(client, topic).await.into_values().flatten() {
        *counts.entry(number_of(payload(&event))).or_default() += 1;
    }
    counts
}

async fn to_the_end(mut redriving: Redriving) -> Vec<RedriveOutcome> {
    let mut all = Vec::new();
    while let Some(outcomes) = within("a step", redriving.next()).await.unwrap() {
        all.extend(outcomes);
    }
    all
}

fn done(outcomes: &[RedriveOutcome]) -> usize {
    outcomes.iter().filter(|outcome| matches!(outcome, RedriveOutcome::Redriven(_))).count()
}

#[tokio::test]
async fn dead_letters_are_counted_redriven_by_a_condition_and_purged() {
    let mut engine = Engine::start().await;
    let client = engine.connect().await;
    with_dead_letters(&client, 100).await;
    let mut counting = client.group_dead_letters(&payment(), None, Offset(0));
    while within("a step", counting.step()).await.unwrap() {}
    let groups: Vec<_> = counting.groups().cloned().collect();
    assert_eq!((groups.len(), groups[0].reason.as_str(), groups[0].count), (1, "rejected", 100));
    assert_eq!((counting.cursor(), counting.scanned(), groups[0].error.as_str()), (None, 100, "no stock"));

    let condition = "header.lv-dlq-offset = \"7\" or header.lv-dlq-offset = \"42\"";
    let some = || client.redrive(RedriveOptions::matching(payment(), condition, "repaired")).unwrap();
    assert_eq!(done(&to_the_end(some()).await), 2);
    assert_eq!(done(&to_the_end(some()).await), 0);
    let redrives = client.list_redrives(&payment(), Offset(0)..Offset(50)).await.unwrap();
    assert_eq!(redrives.iter().map(|info| info.offset).collect::<Vec<_>>(), [7, 42]);
    let offsets = RedriveSelection::Offsets((0..100).map(Offset).collect());
    let all = RedriveOptions { select: offsets, ..RedriveOptions::all(payment(), "repaired") };
    assert_eq!(done(&to_the_end(client.redrive(all).unwrap()).await), 98);
    assert_eq!(counts(&client, "repaired").await, (0..100).map(|number| (number, 1)).collect());
    let repaired = read_all(&client, "repaired").await;
    assert!(repaired.values().flatten().all(|(_, event)| header(event, "lv-dlq-reason").is_none()));

    let purged = client.purge_dead_letters(&payment(), Purge::All, None, false).await.unwrap();
    assert_eq!((purged.purged, purged.not_redriven, purged.start), (100, 0, 100));
    let itself = client.redrive(RedriveOptions::all(payment(), "dlq.orders.payment")).unwrap().next().await;
    assert_eq!(code(itself), ErrorCode::RedriveLoop);
    engine.stop().await.unwrap();
}

#[tokio::test]
async fn an_engine_that_is_killed_during_a_redrive_redrives_each_event_once_in_the_end() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let mut engine = Process::start(&data).await;
    let count = 4_000;
    {
        let client = engine.connect().await;
        with_dead_letters(&client, count).await;
        client.close().await;
    }
    let mut reported = 0;
    for kills in 0..4 {
        let client = engine.connect().await;
        let mut redriving = client.redrive(RedriveOptions::all(payment(), "repaired")).unwrap();
        let mut passed = 0;
        // A little further each time, and then in the middle of a step.
        while passed <= kills * 900 {
            let outcomes = within("a step", redriving.next()).await.unwrap().expect("there is more");
            (passed, reported) = (passed + outcomes.len(), reported + done(&outcomes));
        }
        let mut kill = pin!(engine.kill());
        tokio::select! {
            _ = redriving.next() => kill.await,
            () = &mut kill => {}
        }
        drop(client);
        engine = Process::start(&data).await;
    }
    let client = engine.connect().await;
    let last = to_the_end(client.redrive(RedriveOptions::all(payment(), "repaired")).unwrap()).await;
    assert_eq!(last.len() as u64, count);
    assert!(done(&last) + reported <= last.len(), "nothing that was told as done is done again");
    assert_eq!(counts(&client, "repaired").await, (0..count).map(|number| (number, 1)).collect());
    let redrives = client.list_redrives(&payment(), Offset(0)..Offset(count)).await.unwrap();
    assert!(redrives.len() as u64 == count && redrives.iter().all(|info| info.times == 1));
    client.close().await;
    engine.stop().await;
}

#[tokio::test]
async fn dead_letters_go_back_to_their_subscription_alone_though_the_engine_is_killed() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let mut engine = Process::start(&data).await;
    let count = 1_500;
    {
        let client = engine.connect().await;
        with_dead_letters(&client, count).await;
        let mut inventory = events::subscribe(&client, "orders", "inventory").await;
        assert_eq!(events::consume(&mut inventory, 1_500).await.len(), 1_500);
        let mut redriving =
            client.redrive(RedriveOptions::all(payment(), RedriveTarget::Subscription)).unwrap();
        assert!(done(&within("a step", redriving.next()).await.unwrap().unwrap()) > 0);
        let mut kill = pin!(engine.kill());
        tokio::select! {
            _ = redriving.next() => kill.await,
            () = &mut kill => {}
        }
    }
    engine = Process::start(&data).await;
    let mut acknowledged = BTreeMap::new();
    {
        let client = engine.connect().await;
        let redriving = client.redrive(RedriveOptions::all(payment(), RedriveTarget::Subscription)).unwrap();
        assert_eq!(to_the_end(redriving).await.len() as u64, count);
        let mut subscriber = events::subscribe_existing(&client, "orders", "payment").await;
        for got in events::consume(&mut subscriber, 600).await {
            assert_eq!((got.attempt, header(&got.event, "lv-redrives").as_deref()), (1, Some("1")));
            assert_eq!(acknowledged.insert(got.offset, number_of(payload(&got.event))), None);
        }
        engine.kill().await;
    }
    engine = Process::start(&data).await;
    let client = engine.connect().await;
    let mut subscriber = events::subscribe_existing(&client, "orders", "payment").await;
    for got in events::consume(&mut subscriber, 900).await {
        assert_eq!(
            acknowledged.insert(got.offset, number_of(payload(&got.event))),
            None,
            "it was acknowledged"
        );
    }
    assert_eq!(acknowledged, (0..count).map(|number| (number, number)).collect(), "each at its place");
    let described = async |name| client.describe_subscription("orders", name).await.unwrap();
    until("nothing waits", async || (described("payment").await.redriven == 0).then_some(())).await;
    let inventory = described("inventory").await;
    assert_eq!((inventory.lag, inventory.redriven, inventory.redelivered), (0, 0, 0));
    client.close().await;
    engine.stop().await;
}

#[tokio::test]
async fn clients_that_redrive_at_once_share_the_work() {
    let mut engine = Engine::start().await;
    let (client, other) = (engine.connect().await, engine.connect().await);
    with_dead_letters(&client, 2_000).await;
    let redrive =
        |client: &Client| to_the_end(client.redrive(RedriveOptions::all(payment(), "repaired")).unwrap());
    let (one, two) = tokio::join!(redrive(&client), redrive(&other));
    assert_eq!(done(&one) + done(&two), 2_000);
    assert_eq!(counts(&client, "repaired").await, (0..2_000).map(|number| (number, 1)).collect());
    // A subscription that takes them now gets each of them.
    let options = earliest("repaired", "s", SubscriptionOptions::default());
    let mut subscriber = client.subscribe(options).await.unwrap();
    events::publish(&client, "repaired", [numbered(2_000)]).await;
    assert_eq!(events::consume(&mut subscriber, 2_001).await.len(), 2_001);
    engine.stop().await.unwrap();
}
