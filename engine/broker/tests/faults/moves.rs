//! Subscriptions that are moved, changed and paused while consumers are attached.

use levada_broker::{Consumer, Error, Principal};
use levada_protocol::{
    error::ErrorCode,
    ids::{Offset, PartitionId},
    request::{
        Order, PauseReason, Request, Response, RunState, StageSpec, Start, SubscriptionInfo,
        SubscriptionOptions, TopicSettings, WaitingFor,
    },
    verbs::{Credit, Verb, VerbKind, Verbs},
};
use tokio::time::timeout;

use crate::support::{Engine, PLENTY, SOON, delivery};

fn seek(to: Start, partitions: Vec<u16>) -> Request {
    Request::SeekSubscription {
        topic: "orders".parse().unwrap(),
        name: "payment".parse().unwrap(),
        to,
        partitions,
    }
}

fn set(options: SubscriptionOptions) -> Request {
    Request::SetSubscription { topic: "orders".parse().unwrap(), name: "payment".parse().unwrap(), options }
}

fn pause() -> Request {
    Request::PauseSubscription { topic: "orders".parse().unwrap(), name: "payment".parse().unwrap() }
}

fn resume() -> Request {
    Request::ResumeSubscription { topic: "orders".parse().unwrap(), name: "payment".parse().unwrap() }
}

async fn described(engine: &Engine, request: Request) -> SubscriptionInfo {
    match engine.ask(request).await {
        Response::Subscription(info) => *info,
        other => panic!("{other:?}"),
    }
}

async fn refused(engine: &Engine, request: Request) -> Error {
    engine.broker.request(&Principal::Local, request, None).await.unwrap_err()
}

/// Waits for the error with which a consumer's stream ends.
async fn end_of(consumer: &mut Consumer) -> Error {
    loop {
        match timeout(SOON, consumer.outgoing.recv()).await.unwrap().expect("it ends with a reason") {
            Ok(_) => {}
            Err(error) => return error,
        }
    }
}

async fn attach(engine: &Engine) -> Consumer {
    let consumer = engine.broker.subscribe(&Principal::Local, Engine::wanted(None)).await.unwrap();
    consumer.control.credit(PLENTY).await.unwrap();
    consumer
}

#[tokio::test]
async fn a_subscription_that_is_moved_back_delivers_again_and_late_verbs_change_nothing() {
    let engine = Engine::start();
    let (mut consumer, token) = engine.delivered_three().await;
    engine.ack(&consumer, 1, token, 0..=0).await;
    engine.until_info(|info| info.positions[0].offset == 1).await;
    engine.ack(&consumer, 2, token, 2..=2).await;
    engine.until_info(|info| info.lag == 1).await;
    let moved = described(&engine, seek(Start::Earliest, Vec::new())).await;
    assert_eq!((moved.positions[0].offset, moved.lag, moved.in_flight), (0, 3, 0));
    assert_eq!(end_of(&mut consumer).await.code(), ErrorCode::SubscriptionMoved);
    let verb =
        Verb { kind: VerbKind::Ack, partition: PartitionId(0), token, first: Offset(0), last: Offset(2) };
    // Its stream has ended; whether the verb is still taken does not matter.
    let _ = consumer.control.verbs(Verbs { sequence: 3, verbs: vec![verb] }).await;
    let mut again = attach(&engine).await;
    let (token, offsets) = delivery(&mut again.outgoing).await;
    assert_eq!((offsets, engine.info().await.lag), (vec![0, 1, 2], 3));
    // Acknowledgements above the floor were stored; a crash brings none of them back.
    engine.ack(&again, 1, token, 1..=1).await;
    engine.until_info(|info| info.lag == 2).await;
    let engine = engine.restart().await;
    let mut again = attach(&engine).await;
    let mut offsets = delivery(&mut again.outgoing).await.1;
    offsets.extend(delivery(&mut again.outgoing).await.1);
    assert_eq!(offsets, [0, 2]);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_move_forward_skips_and_one_partition_moves_alone() {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings { partitions: 2, ..TopicSettings::default() }).await;
    engine.publish_to("orders", PartitionId(0), 5).await;
    engine.publish_to("orders", PartitionId(1), 5).await;
    drop(engine.subscribe(SubscriptionOptions::default()).await);
    let positions =
        |info: &SubscriptionInfo| info.positions.iter().map(|position| position.offset).collect::<Vec<_>>();
    let moved = described(&engine, seek(Start::Offset(4), vec![1])).await;
    assert_eq!((positions(&moved), moved.lag), (vec![0, 4], 6));
    let moved = described(&engine, seek(Start::Latest, vec![0])).await;
    assert_eq!((positions(&moved), moved.lag), (vec![5, 4], 1));
    let engine = engine.restart().await;
    assert_eq!(positions(&engine.info().await), [5, 4]);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_move_to_where_nothing_is_changes_nothing_and_says_what_there_is() {
    let engine = Engine::start();
    let (consumer, token) = engine.delivered_three().await;
    let past = refused(&engine, seek(Start::Offset(4), Vec::new())).await;
    assert_eq!(past.code(), ErrorCode::OffsetOutOfRange);
    assert!(past.to_string().contains("0 to 3") && past.to_string().contains("got 4"), "{past}");
    assert_eq!(refused(&engine, seek(Start::Earliest, vec![1])).await.code(), ErrorCode::PartitionNotFound);
    let twice = refused(&engine, seek(Start::Earliest, vec![0, 0])).await;
    assert_eq!(twice.code(), ErrorCode::InvalidArgument);
    assert_eq!(described(&engine, seek(Start::Offset(3), Vec::new())).await.lag, 0, "the end is no error");
    drop((consumer, token));
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_commit_that_was_under_way_when_the_subscription_moved_is_not_made() {
    let engine = Engine::start();
    let (consumer, token) = engine.delivered_three().await;
    engine.store.hold(true);
    let moving = engine.broker.request(&Principal::Local, seek(Start::Earliest, Vec::new()), None);
    let mut moving = Box::pin(moving);
    // The move is decided and not durable; the acknowledgement is decided behind it.
    tokio::select! {
        _ = &mut moving => panic!("it is not durable yet"),
        () = engine.store.entered.notified() => {}
    }
    // A dead letter is proposed at once, and so decided before another owner takes over.
    let kind = VerbKind::reject("no");
    let verb = Verb { kind, partition: PartitionId(0), token, first: Offset(0), last: Offset(2) };
    consumer.control.verbs(Verbs { sequence: 1, verbs: vec![verb] }).await.unwrap();
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    engine.store.hold(false);
    assert!(timeout(SOON, moving).await.unwrap().is_ok());
    let info = engine.info().await;
    assert_eq!((info.positions[0].offset, info.lag), (0, 3), "all of it is delivered again");
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn options_change_while_consumers_stay_attached() {
    let engine = Engine::start();
    let (mut consumer, token) = engine.delivered_three().await;
    let changed = SubscriptionOptions {
        max_attempts: Some(1),
        rate: Some(1_000_000),
        ..SubscriptionOptions::default()
    };
    let info = described(&engine, set(changed)).await;
    let options = &info.options;
    assert_eq!(
        (options.max_attempts(), options.rate(), options.ack_timeout_ms()),
        (1, Some(1_000_000), 30_000)
    );
    assert_eq!((info.in_flight, info.consumers.len()), (3, 1), "nothing was taken back");
    let kind = VerbKind::Nack { delay_ms: None };
    let verb = Verb { kind, partition: PartitionId(0), token, first: Offset(0), last: Offset(0) };
    consumer.control.verbs(Verbs { sequence: 1, verbs: vec![verb] }).await.unwrap();
    engine.until_info(|info| info.dead_lettered == 1).await;
    // A chain takes effect for what is delivered from now on.
    engine.deploy(b"1").await;
    let stage = StageSpec { plugin: "keep".to_owned(), ..StageSpec::default() };
    described(
        &engine,
        set(SubscriptionOptions { chain: Some(vec![stage]), ..SubscriptionOptions::default() }),
    )
    .await;
    engine.publish("orders", 1).await;
    let passed = async {
        loop {
            let next = consumer.outgoing.recv().await.unwrap().unwrap();
            if matches!(next.content(), levada_broker::Content::Delivery(_)) {
                return;
            }
        }
    };
    timeout(SOON, passed).await.expect("it passes the chain");
    assert_eq!(engine.plugins.attached.load(std::sync::atomic::Ordering::Acquire), 1);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn another_order_a_shorter_timeout_or_more_in_flight_takes_every_delivery_back() {
    for options in [
        SubscriptionOptions { order: Some(Order::None), ..SubscriptionOptions::default() },
        SubscriptionOptions { ack_timeout_ms: Some(20_000), ..SubscriptionOptions::default() },
        SubscriptionOptions { max_in_flight: Some(1_001), ..SubscriptionOptions::default() },
    ] {
        let engine = Engine::start();
        let (mut consumer, _) = engine.delivered_three().await;
        let info = described(&engine, set(options.clone())).await;
        assert_eq!((info.options.order(), info.in_flight), (options.order(), 0));
        assert_eq!(end_of(&mut consumer).await.code(), ErrorCode::SubscriptionMoved);
        let mut again = attach(&engine).await;
        assert_eq!(delivery(&mut again.outgoing).await.1, [0, 1, 2]);
        engine.broker.shutdown().await;
    }
}

#[tokio::test]
async fn options_outside_their_range_are_refused_and_named() {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    drop(engine.subscribe(SubscriptionOptions::default()).await);
    let options = SubscriptionOptions::default;
    for (given, named) in [
        (
            SubscriptionOptions { rate: Some(10_000_001), ..options() },
            "rate is 10000001, expected 0 to 10000000",
        ),
        (SubscriptionOptions { backoff_ms: Some(vec![1; 65]), ..options() }, "backoff_ms is 65"),
        (SubscriptionOptions { backoff_ms: Some(vec![604_800_001]), ..options() }, "expected 0 to 604800000"),
        (SubscriptionOptions { ack_timeout_ms: Some(9), ..options() }, "ack_timeout_ms is 9"),
        (SubscriptionOptions { ack_timeout_ms: Some(86_400_001), ..options() }, "expected 10 to 86400000"),
        (SubscriptionOptions { max_attempts: Some(0), ..options() }, "max_attempts is 0"),
        (SubscriptionOptions { max_attempts: Some(10_001), ..options() }, "expected 1 to 10000"),
        (SubscriptionOptions { max_in_flight: Some(0), ..options() }, "max_in_flight is 0"),
        (SubscriptionOptions { max_in_flight: Some(1_048_577), ..options() }, "expected 1 to 1048576"),
    ] {
        let error = refused(&engine, set(given)).await;
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
        assert!(error.to_string().contains(named), "{error}");
    }
    let least = SubscriptionOptions {
        rate: Some(0),
        backoff_ms: Some(Vec::new()),
        ack_timeout_ms: Some(10),
        max_attempts: Some(1),
        max_in_flight: Some(1),
        ..options()
    };
    let most = SubscriptionOptions {
        rate: Some(10_000_000),
        backoff_ms: Some(vec![604_800_000; 64]),
        ack_timeout_ms: Some(86_400_000),
        max_attempts: Some(10_000),
        max_in_flight: Some(1_048_576),
        ..options()
    };
    for limits in [least, most] {
        let taken = described(&engine, set(limits.clone())).await.options;
        assert_eq!((taken.rate, &taken.backoff_ms), (limits.rate, &limits.backoff_ms));
        assert_eq!((taken.ack_timeout_ms, taken.max_attempts), (limits.ack_timeout_ms, limits.max_attempts));
        assert_eq!(taken.max_in_flight, limits.max_in_flight);
    }
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_paused_subscription_delivers_nothing_and_takes_acknowledgements_until_it_is_resumed() {
    let engine = Engine::start();
    let (consumer, token) = engine.delivered_three().await;
    engine.ask(pause()).await;
    engine.publish("orders", 2).await;
    engine.ack(&consumer, 1, token, 0..=2).await;
    engine.until_info(|info| info.lag == 2).await;
    let info = engine.info().await;
    assert_eq!(info.state, RunState::Paused { reason: PauseReason::Requested });
    assert_eq!((info.waiting_for, info.in_flight), (WaitingFor::Resume { why: String::new() }, 0));
    drop(consumer);
    let engine = engine.restart().await;
    let mut consumer = attach(&engine).await;
    assert!(!engine.info().await.state.is_running(), "a restart does not resume it");
    engine.ask(resume()).await;
    assert_eq!(delivery(&mut consumer.outgoing).await.1, [3, 4]);
    assert!(engine.info().await.state.is_running());
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_subscription_says_what_it_waits_for() {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    let wanted = Engine::wanted(Some(SubscriptionOptions::default()));
    drop(engine.broker.subscribe(&Principal::Local, wanted).await.unwrap());
    engine.until_info(|info| info.waiting_for == WaitingFor::Events).await;
    engine.publish("orders", 3).await;
    engine.until_info(|info| info.waiting_for == WaitingFor::Consumer).await;
    let mut consumer = engine.broker.subscribe(&Principal::Local, Engine::wanted(None)).await.unwrap();
    engine.until_info(|info| info.waiting_for == WaitingFor::Credit { consumers: 1 }).await;
    consumer.control.credit(Credit { events: 2, bytes: 1 << 20 }).await.unwrap();
    let (token, _) = delivery(&mut consumer.outgoing).await;
    engine
        .until_info(|info| {
            info.waiting_for.to_string()
                == "acknowledgements of 2 events, first of offset 0 of partition 0 by test"
        })
        .await;
    let kind = VerbKind::Nack { delay_ms: Some(3_600_000) };
    let verb = Verb { kind, partition: PartitionId(0), token, first: Offset(0), last: Offset(1) };
    consumer.control.verbs(Verbs { sequence: 1, verbs: vec![verb] }).await.unwrap();
    engine.until_info(|info| info.waiting_for == WaitingFor::Credit { consumers: 1 }).await;
    consumer.control.credit(PLENTY).await.unwrap();
    let (token, offsets) = loop {
        let next = timeout(SOON, consumer.outgoing.recv()).await.unwrap().unwrap().unwrap();
        if let levada_broker::Content::Delivery(it) = next.content() {
            break (it.header.token, it.runs[0].base.0);
        }
    };
    assert_eq!(offsets, 2);
    engine.ack(&consumer, 2, token, 2..=2).await;
    engine
        .until_info(|info| {
            let waiting = info.waiting_for.to_string();
            waiting == "the next attempt of offset 0 of partition 0, which failed once"
        })
        .await;
    engine.broker.shutdown().await;
}
