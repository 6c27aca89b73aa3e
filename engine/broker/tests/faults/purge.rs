//! Purges of topics: what goes, what stays, and who is asked.

use levada_broker::{Content, Delivery, Error, Principal};
use levada_protocol::{
    error::ErrorCode,
    ids::PartitionId,
    request::{
        Notice, Order, Position, PurgeTopic, PurgedTopic, Request, Response, RouteSpec, Start,
        SubscriptionOptions, TopicSettings,
    },
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
    let dead = PurgeTopic { topic: "dlq.orders.s".parse().unwrap(), ..all() };
    engine.topic("other", TopicSettings::default()).await;
    assert!(purge(&engine, dead).await.is_err());
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn what_a_subscription_has_yet_to_acknowledge_goes_by_force_alone_and_it_is_told() {
    let engine = with_tens(1).await;
    let options = SubscriptionOptions { order: Some(Order::None), ..SubscriptionOptions::default() };
    let mut consumer = engine.subscribe(options).await;
    consumer.control.credit(PLENTY).await.unwrap();
    let mut token = None;
    let mut got = 0;
    while got < 10 {
        let (next, offsets) = delivery(&mut consumer.outgoing).await;
        got += offsets.len();
        token.get_or_insert((next, offsets));
    }
    let (token, offsets) = token.unwrap();
    engine.ack(&consumer, 1, token, 0..=*offsets.last().unwrap()).await;
    let acked = offsets.len() as u64;
    engine.until_info(|info| info.lag == 10 - acked).await;
    if acked < 10 {
        let refused = purge(&engine, all()).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::TopicInUse);
        let said = refused.to_string();
        assert!(said.contains("subscription orders/payment has come to offset 5"), "{said}");
    }
    let read = purge(&engine, PurgeTopic { until: vec![at(0, acked)], ..all() }).await.unwrap();
    assert_eq!(read.purged, acked, "what is acknowledged goes without");
    engine.publish("orders", 1).await;
    let purged = purge(&engine, PurgeTopic { force: true, ..all() }).await.unwrap();
    assert_eq!((purged.purged, purged.positions), (11 - acked, vec![at(0, 11)]));
    let told = timeout(SOON, consumer.notices.recv()).await.unwrap().unwrap();
    let Notice::EventsLost { first, last, .. } = told else { panic!("{told:?}") };
    assert_eq!((first, last), (acked, 10));
    engine.until_info(|info| info.lag == 0 && info.events_lost == 11 - acked).await;
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
    assert!(refused.to_string().contains("route copy has come to offset 0"), "{refused}");
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
