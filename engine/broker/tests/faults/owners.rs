//! Owners of subscriptions and routes: callers that give up, syncs that hang, disks that fill up, plugins that change.

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use levada_broker::{Consumer, Principal};
use levada_protocol::{
    error::ErrorCode,
    ids::{Offset, PartitionId},
    request::{Request, RouteSpec, StageSpec, Start, SubscriptionOptions, TopicSettings},
    verbs::{Credit, Verb, VerbKind, Verbs},
};
use tokio::time::timeout;

use crate::support::{Engine, PLENTY, SOON, delivery, poll_once, until};

#[tokio::test]
async fn a_subscription_whose_creator_goes_before_the_sync_works() {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    engine.publish("orders", 3).await;
    engine.store.hold(true);
    {
        let wanted = Engine::wanted(Some(SubscriptionOptions::default()));
        let subscribing = engine.broker.subscribe(&Principal::Local, wanted);
        tokio::select! {
            _ = subscribing => panic!("it is not durable yet"),
            () = engine.store.entered.notified() => {}
        }
    }
    engine.store.hold(false);
    let mut consumer = engine.subscribe(SubscriptionOptions::default()).await;
    consumer.control.credit(PLENTY).await.unwrap();
    assert_eq!(delivery(&mut consumer.outgoing).await.1, [0, 1, 2]);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_consumer_that_gives_up_while_it_is_attached_holds_nothing() {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    engine.publish("orders", 3).await;
    drop(engine.subscribe(SubscriptionOptions::default()).await);
    for polls in 1..6 {
        let mut subscribing = Box::pin(engine.broker.subscribe(&Principal::Local, Engine::wanted(None)));
        for _ in 0..polls {
            if poll_once(&mut subscribing).await {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(subscribing);
    }
    let mut consumer = engine.subscribe(SubscriptionOptions::default()).await;
    consumer.control.credit(PLENTY).await.unwrap();
    assert_eq!(delivery(&mut consumer.outgoing).await.1, [0, 1, 2]);
    assert_eq!(engine.info().await.consumers.len(), 1);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_consumer_that_goes_while_its_owner_is_busy_is_detached() {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    engine.publish("orders", 3).await;
    let first = engine.subscribe(SubscriptionOptions::default()).await;
    let mut second = engine.subscribe(SubscriptionOptions::default()).await;
    second.control.credit(PLENTY).await.unwrap();
    // Without an await that waits, the owner's queue fills up.
    while poll_once(&mut Box::pin(second.control.credit(Credit { events: 0, bytes: 0 }))).await {}
    drop(first);
    assert_eq!(delivery(&mut second.outgoing).await.1, [0, 1, 2]);
    assert_eq!(engine.info().await.consumers.len(), 1);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_subscription_has_1024_consumers_and_one_more_once_another_left() {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    let mut consumers = Vec::new();
    for _ in 0..1_024 {
        consumers.push(engine.subscribe(SubscriptionOptions::default()).await);
    }
    let attach = async || engine.subscribe(SubscriptionOptions::default()).await;
    let is_refused = async |consumer: &mut Consumer| {
        let ended = timeout(SOON, consumer.outgoing.recv()).await.unwrap().unwrap().unwrap_err();
        assert!(ended.to_string().contains("the subscription has as many consumers as it may"), "{ended}");
        ended.code() == ErrorCode::LimitExceeded
    };
    assert!(is_refused(&mut attach().await).await);
    assert_eq!(engine.info().await.consumers.len(), 1_024);
    drop(consumers.swap_remove(7));
    engine.until_info(|info| info.consumers.len() == 1_023).await;
    consumers.push(attach().await);
    assert_eq!(engine.info().await.consumers.len(), 1_024);
    assert!(consumers.iter_mut().all(|consumer| consumer.outgoing.is_empty()), "all of them are attached");
    assert!(is_refused(&mut attach().await).await);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn an_owner_sleeps_while_its_commit_waits_for_the_disk() {
    let engine = Engine::start();
    let (mut consumer, token) = engine.delivered_three().await;
    engine.store.hold(true);
    let verb =
        Verb { kind: VerbKind::Ack, partition: PartitionId(0), token, first: Offset(0), last: Offset(2) };
    consumer.control.verbs(Verbs { sequence: 1, verbs: vec![verb] }).await.unwrap();
    engine.store.entered.notified().await;
    let busy = || tokio::runtime::Handle::current().metrics().worker_total_busy_duration(0);
    // The figure is brought up to date when the runtime goes to sleep; one that never does brings none.
    let parks = || tokio::runtime::Handle::current().metrics().worker_park_count(0);
    let (busy_before, parked_before) = (busy(), parks());
    // The time in which it would have spun: long against what the rest of the engine does in it.
    let waited = Duration::from_millis(300);
    assert!(timeout(waited, consumer.outgoing.recv()).await.is_err(), "nothing is confirmed yet");
    assert!(parks() > parked_before, "the runtime never slept");
    assert!(busy() - busy_before < waited / 2, "{:?} of {waited:?}", busy() - busy_before);
    engine.store.hold(false);
    assert!(timeout(SOON, consumer.outgoing.recv()).await.unwrap().unwrap().is_ok());
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn an_owner_sleeps_when_everything_is_acknowledged() {
    let engine = Engine::start();
    let (mut consumer, token) = engine.delivered_three().await;
    engine.ack(&consumer, 1, token, 0..=2).await;
    assert!(timeout(SOON, consumer.outgoing.recv()).await.unwrap().unwrap().is_ok(), "it is confirmed");
    let busy = || tokio::runtime::Handle::current().metrics().worker_total_busy_duration(0);
    let parks = || tokio::runtime::Handle::current().metrics().worker_park_count(0);
    let (busy_before, parked_before) = (busy(), parks());
    let waited = Duration::from_millis(300);
    assert!(timeout(waited, consumer.outgoing.recv()).await.is_err(), "there is nothing more");
    assert!(parks() > parked_before, "the runtime never slept");
    assert!(busy() - busy_before < waited / 2, "{:?} of {waited:?}", busy() - busy_before);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_route_whose_step_a_full_disk_took_back_makes_it_again_once() {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    engine.topic("copies", TopicSettings::default()).await;
    engine.publish("orders", 5).await;
    engine.store.fill_at_route_step.store(true, Ordering::Release);
    let topic = |name: &str| name.parse().unwrap();
    let spec = RouteSpec::new("copy".parse().unwrap(), topic("orders"), [topic("copies")]);
    let spec = RouteSpec { start: Start::Earliest, ..spec };
    engine.ask(Request::CreateRoute(spec)).await;
    let mut reader = engine.reader("copies").await;
    let refused = timeout(SOON, async {
        while engine.broker.health().ready {
            tokio::task::yield_now().await;
        }
    });
    refused.await.expect("the route's step finds the disk full");
    engine.store.inner.set_full(false);
    assert_eq!(delivery(&mut reader.outgoing).await.1, [0, 1, 2, 3, 4]);
    engine.publish("orders", 1).await;
    assert_eq!(delivery(&mut reader.outgoing).await.1, [5]);
    assert_eq!(engine.partition("copies").await.end, 6);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_busy_subscription_takes_the_newest_version_of_its_plugin() {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    let deploy = |artefact: &'static [u8]| {
        let size = artefact.len() as u64;
        let request = Request::DeployPlugin { name: "keep".parse().unwrap(), size, config: None };
        engine.broker.request(&Principal::Local, request, Some(Bytes::from_static(artefact)))
    };
    deploy(b"one").await.unwrap();
    let chain = vec![StageSpec { plugin: "keep".into(), ..StageSpec::default() }];
    let mut consumer =
        engine.subscribe(SubscriptionOptions { chain: Some(chain), ..SubscriptionOptions::default() }).await;
    consumer.control.credit(PLENTY).await.unwrap();
    engine.publish("orders", 1).await;
    assert_eq!(delivery(&mut consumer.outgoing).await.1, [0]);
    {
        let mut deploying = Box::pin(deploy(b"two"));
        // Its queue is full whenever the deployment goes on.
        while !poll_once(&mut deploying).await {
            while poll_once(&mut Box::pin(consumer.control.credit(Credit { events: 0, bytes: 0 }))).await {}
            tokio::task::yield_now().await;
        }
    }
    engine.publish("orders", 1).await;
    assert_eq!(delivery(&mut consumer.outgoing).await.1, [1]);
    assert_eq!(engine.plugins.attached.load(Ordering::Acquire), 2);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_deleted_subscription_tells_its_consumers_so() {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    let mut consumer = engine.subscribe(SubscriptionOptions::default()).await;
    engine
        .ask(Request::DeleteSubscription {
            topic: "orders".parse().unwrap(),
            name: "payment".parse().unwrap(),
            force: true,
            with_dead_letters: false,
        })
        .await;
    let ended = timeout(SOON, consumer.outgoing.recv()).await.unwrap().unwrap();
    assert_eq!(ended.unwrap_err().code(), ErrorCode::SubscriptionNotFound);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_topic_whose_deletion_found_no_room_goes_on_as_it_was() {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    let mut consumer = engine.subscribe(SubscriptionOptions::default()).await;
    consumer.control.credit(PLENTY).await.unwrap();
    engine.publish("orders", 3).await;
    assert_eq!(delivery(&mut consumer.outgoing).await.1, [0, 1, 2]);
    engine.store.inner.set_full(true);
    let delete =
        Request::DeleteTopic { name: "orders".parse().unwrap(), force: true, with_dead_letters: false };
    let refused = engine.broker.request(&Principal::Local, delete, None).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::StorageFull);
    engine.store.inner.set_full(false);
    until(|| engine.broker.health().ready).await;
    // The same consumer, not a new one on another topic of the name.
    engine.publish("orders", 2).await;
    assert_eq!(delivery(&mut consumer.outgoing).await.1, [3, 4]);
    engine.broker.shutdown().await;
}
