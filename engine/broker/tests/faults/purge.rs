//! Purges of topics: what goes, what stays, and who is asked.

use levada_broker::{Content, Delivery, Error, Principal};
use levada_protocol::{
    batch::{BatchBuilder, Stamp},
    error::ErrorCode,
    event::Event,
    ids::PartitionId,
    publish::PublishHeader,
    request::{
        Notice, Order, Position, PurgeTopic, PurgedTopic, Request, Response, RouteSpec, Start,
        SubscriptionOptions, TopicSettings,
    },
    schedule::Due,
    verbs::{Credit, Verb, VerbKind, Verbs},
};
use tokio::time::timeout;

use crate::support::{Engine, PLENTY, SOON, delivery};

fn all() -> PurgeTopic {
    PurgeTopic { topic: "orders".parse().unwrap(), until: Vec::new(), before_ms: None, force: false }
}

async fn purge(engine: &Engine, asked: PurgeTopic) -> Result<PurgedTopic, Error> {
    let asked = engine.broker.request(&Principal::Local, Request::PurgeTopic(asked), None);
    match asked.await? {
        Response::TopicPurged(purged) => Ok(purged),
        other => panic!("{other:?}"),
    }
}

fn at(partition: u16, offset: u64) -> Position {
    Position { partition, offset }
}

/// A topic with partitions that hold ten events each, in records of five.
async fn with_tens(partitions: u16) -> Engine {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings { partitions, ..TopicSettings::default() }).await;
    for number in 0..partitions {
        engine.publish_to("orders", PartitionId(number), 5).await;
        engine.publish_to("orders", PartitionId(number), 5).await;
    }
    engine
}

async fn starts(engine: &Engine) -> Vec<(u64, u64, u64)> {
    let request = Request::DescribeTopic { name: "orders".parse().unwrap() };
    let Response::Topic(info) = engine.ask(request).await else { panic!("no topic") };
    info.partitions.iter().map(|part| (part.start, part.end, part.bytes)).collect()
}

#[tokio::test]
async fn all_that_is_stored_goes_and_what_comes_later_stays_also_over_a_crash() {
    let engine = with_tens(2).await;
    let purged = purge(&engine, all()).await.unwrap();
    assert_eq!(purged, PurgedTopic { purged: 20, positions: vec![at(0, 10), at(1, 10)] });
    assert_eq!(starts(&engine).await, [(10, 10, 0), (10, 10, 0)]);
    assert_eq!(purge(&engine, all()).await.unwrap().purged, 0, "there is nothing more");
    engine.publish_to("orders", PartitionId(1), 1).await;
    let engine = engine.restart().await;
    let after = starts(&engine).await;
    assert_eq!((after[0], after[1].0, after[1].1), ((10, 10, 0), 10, 11), "offsets go on");
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn the_named_partition_is_cut_where_a_record_begins_and_no_other_is_touched() {
    let engine = with_tens(2).await;
    let until = |offset| PurgeTopic { until: vec![at(1, offset)], ..all() };
    let purged = async |offset| purge(&engine, until(offset)).await.unwrap();
    assert_eq!(purged(4).await, PurgedTopic { purged: 0, positions: vec![at(1, 0)] });
    assert_eq!(purged(7).await, PurgedTopic { purged: 5, positions: vec![at(1, 5)] });
    assert_eq!(purged(3).await, PurgedTopic { purged: 0, positions: vec![at(1, 5)] }, "never back");
    assert_eq!(purged(u64::MAX).await, PurgedTopic { purged: 5, positions: vec![at(1, 10)] });
    let starts: Vec<_> = starts(&engine).await.iter().map(|(start, end, _)| (*start, *end)).collect();
    assert_eq!(starts, [(0, 10), (10, 10)]);
    for (until, code) in [
        (vec![at(2, 1)], ErrorCode::PartitionNotFound),
        (vec![at(0, 1), at(0, 2)], ErrorCode::InvalidArgument),
    ] {
        let refused = purge(&engine, PurgeTopic { until, ..all() }).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
    }
    let absent = PurgeTopic { topic: "absent".parse().unwrap(), ..all() };
    assert_eq!(purge(&engine, absent).await.unwrap_err().code(), ErrorCode::TopicNotFound);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn what_a_subscription_has_yet_to_acknowledge_goes_by_force_alone_and_it_is_told() {
    let engine = with_tens(1).await;
    let options = SubscriptionOptions { order: Some(Order::None), ..SubscriptionOptions::default() };
    let mut consumer = engine.subscribe(options).await;
    consumer.control.credit(Credit { events: 5, ..PLENTY }).await.unwrap();
    let (token, offsets) = delivery(&mut consumer.outgoing).await;
    assert_eq!(offsets, [0, 1, 2, 3, 4]);
    engine.ack(&consumer, 1, token, 0..=4).await;
    engine.until_info(|info| info.lag == 5).await;
    let refused = purge(&engine, all()).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::TopicInUse);
    assert!(refused.to_string().contains("subscription orders/payment (5)"), "{refused}");
    let read = purge(&engine, PurgeTopic { until: vec![at(0, 5)], ..all() }).await.unwrap();
    assert_eq!(read.purged, 5, "what is acknowledged goes without");
    engine.publish("orders", 1).await;
    let purged = purge(&engine, PurgeTopic { force: true, ..all() }).await.unwrap();
    assert_eq!((purged.purged, purged.positions), (6, vec![at(0, 11)]));
    let told = timeout(SOON, consumer.notices.recv()).await.unwrap().unwrap();
    let (told, _) = told.into_parts();
    let Notice::EventsLost { first, last, .. } = told else { panic!("{told:?}") };
    assert_eq!((first, last), (5, 10));
    engine.until_info(|info| info.lag == 0 && info.events_lost == 6).await;
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn everybody_who_has_yet_to_come_so_far_is_named_over_all_partitions() {
    let engine = with_tens(2).await;
    for (name, positions) in [("ahead", [9, 10]), ("behind", [10, 2]), ("done", [10, 10])] {
        let (topic, from) = ("orders".parse().unwrap(), Start::Earliest);
        let name: levada_protocol::ids::SubscriptionName = name.parse().unwrap();
        let (options, of) = (SubscriptionOptions::default(), name.clone());
        engine.ask(Request::CreateSubscription { topic, name: of, options, from }).await;
        for (partition, offset) in (0..).zip(positions) {
            let (topic, name, to) = ("orders".parse().unwrap(), name.clone(), Start::Offset(offset));
            engine.ask(Request::SeekSubscription { topic, name, to, partitions: vec![partition] }).await;
        }
    }
    let refused = purge(&engine, all()).await.unwrap_err().to_string();
    assert!(
        refused.contains("purged: subscription orders/behind (8), subscription orders/ahead (1); let"),
        "{refused}"
    );
    assert_eq!(starts(&engine).await[0].0, 0, "nothing goes, in no partition");
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn dead_letters_and_what_waits_for_its_time_stay() {
    let engine = with_tens(1).await;
    let options = SubscriptionOptions { order: Some(Order::None), ..SubscriptionOptions::default() };
    let mut consumer = engine.subscribe(options).await;
    consumer.control.credit(PLENTY).await.unwrap();
    let (token, offsets) = delivery(&mut consumer.outgoing).await;
    let last = levada_protocol::ids::Offset(*offsets.last().unwrap());
    let kind = VerbKind::reject("no");
    let partition = PartitionId(0);
    let verb = Verb { kind, partition, token, first: levada_protocol::ids::Offset(0), last };
    consumer.control.verbs(Verbs { sequence: 1, verbs: vec![verb] }).await.unwrap();
    engine.until_info(|info| info.dead_lettered > 0).await;
    let dead = PurgeTopic { topic: "dlq.orders.payment".parse().unwrap(), ..all() };
    let refused = purge(&engine, dead).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::InvalidArgument, "{refused}");
    let mut builder = BatchBuilder::new();
    builder.push(&Event::new("later")).unwrap();
    let due = Some(Due::After(3_600_000));
    let header = PublishHeader { correlation: 1, partition, durability: None, expect_offset: None, due };
    let mut stream = engine.broker.open_publish(&Principal::Local, &"orders".parse().unwrap()).unwrap();
    stream.submitter().submit(header, builder.finish(Stamp::ENGINE)).await.unwrap();
    timeout(SOON, stream.acks.recv()).await.unwrap().unwrap();
    purge(&engine, PurgeTopic { force: true, ..all() }).await.unwrap();
    let Response::Topic(info) = engine.ask(Request::DescribeTopic { name: "orders".parse().unwrap() }).await
    else {
        panic!("no topic")
    };
    assert_eq!((info.scheduled, info.partitions[0].start), (1, 10));
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_full_backlog_has_room_again() {
    let engine = Engine::start();
    let settings = TopicSettings { backlog_max_events: 5, ..TopicSettings::default() };
    engine.topic("orders", settings).await;
    let _consumer = engine.subscribe(SubscriptionOptions::default()).await;
    for _ in 0..3 {
        engine.publish("orders", 5).await;
        purge(&engine, PurgeTopic { force: true, ..all() }).await.unwrap();
    }
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_route_that_has_yet_to_come_so_far_is_asked_for_too() {
    let engine = with_tens(1).await;
    engine.topic("copies", TopicSettings::default()).await;
    engine.deploy(b"keep").await;
    engine.plugins.gate.shut(true);
    let (name, from, to) = ("copy".parse().unwrap(), "orders".parse().unwrap(), "copies".parse().unwrap());
    let stage = levada_protocol::request::StageSpec { plugin: "keep".to_owned(), ..Default::default() };
    let spec = RouteSpec { start: Start::Earliest, chain: vec![stage], ..RouteSpec::new(name, from, [to]) };
    engine.ask(Request::CreateRoute(spec)).await;
    let refused = purge(&engine, all()).await.unwrap_err();
    assert!(refused.to_string().contains("route copy (10)"), "{refused}");
    engine.plugins.gate.shut(false);
    let routed = async {
        while purge(&engine, all()).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, routed).await.expect("the route comes there");
    assert_eq!(engine.partition("copies").await.end, 10);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_reader_in_the_middle_of_it_sees_no_hole_and_no_error() {
    let engine = with_tens(1).await;
    let mut reader = engine.reader("orders").await;
    purge(&engine, all()).await.unwrap();
    engine.publish("orders", 3).await;
    let mut last = 0;
    while last < 12 {
        let next = timeout(SOON, reader.outgoing.recv()).await.unwrap().unwrap().unwrap();
        let Content::Delivery(Delivery { runs, .. }) = next.content() else { continue };
        for (base, batch) in runs.iter().flat_map(|run| run.batches()).map(Result::unwrap) {
            last = batch.events().last().unwrap().offset(base).0;
        }
    }
    engine.broker.shutdown().await;
}
