//! Publishers that are faster than the disk, or take no acknowledgements: they are made to wait, and memory is bounded.

use std::{pin::pin, time::Duration};

use levada_broker::{Principal, PublishStream};
use levada_protocol::{
    batch::{BatchBuilder, Stamp},
    error::ErrorCode,
    event::Event,
    ids::PartitionId,
    publish::{AckOutcome, PublishHeader},
    request::TopicSettings,
};
use tokio::time::timeout;

use crate::support::{Engine, SOON, poll_once, until};

async fn submit(stream: &PublishStream, bytes: usize) {
    let mut builder = BatchBuilder::new();
    builder.push(&Event::new(vec![b'x'; bytes])).unwrap();
    let partition = PartitionId(0);
    let header =
        PublishHeader { correlation: 1, partition, durability: None, expect_offset: None, due: None };
    stream.submitter().submit(header, builder.finish(Stamp::ENGINE)).await.unwrap();
}

#[tokio::test]
async fn a_stream_that_takes_no_acknowledgements_may_publish_no_more() {
    let engine = Engine::with(|config| config.stream_in_flight_max = 2);
    engine.topic("orders", TopicSettings::default()).await;
    let mut stream = engine.broker.open_publish(&Principal::Local, &"orders".parse().unwrap()).unwrap();
    let other = engine.broker.open_publish(&Principal::Local, &"orders".parse().unwrap()).unwrap();
    submit(&stream, 1).await;
    submit(&stream, 1).await;
    {
        let mut third = pin!(submit(&stream, 1));
        assert!(!poll_once(&mut third).await, "two are not taken yet");
        timeout(SOON, submit(&other, 1)).await.expect("others go on");
    }
    timeout(SOON, stream.acks.recv()).await.unwrap().unwrap();
    timeout(SOON, submit(&stream, 1)).await.expect("there is room for one again");
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn bytes_on_their_way_to_the_disk_are_bounded_over_all_streams() {
    let engine = Engine::with(|config| config.publish_bytes_max = 10_000);
    engine.topic("orders", TopicSettings::default()).await;
    let mut one = engine.broker.open_publish(&Principal::Local, &"orders".parse().unwrap()).unwrap();
    let other = engine.broker.open_publish(&Principal::Local, &"orders".parse().unwrap()).unwrap();
    engine.store.hold(true);
    submit(&one, 8_000).await;
    engine.store.entered.notified().await;
    {
        let mut second = pin!(submit(&other, 8_000));
        assert!(!poll_once(&mut second).await, "the disk has not taken the first");
        engine.store.hold(false);
        timeout(SOON, second).await.expect("there is room again");
    }
    timeout(SOON, one.acks.recv()).await.unwrap().unwrap();
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_data_directory_that_is_removed_or_replaced_takes_no_more_events() {
    let engine = Engine::with(|config| config.disk_check_interval = Duration::from_millis(1));
    engine.topic("orders", TopicSettings::default()).await;
    engine.publish("orders", 1).await;
    assert!(engine.broker.health().ready);
    let path = engine.dir.path();
    std::fs::rename(path, path.with_extension("aside")).unwrap();
    std::fs::create_dir(path).unwrap();
    until(|| !engine.broker.health().ready).await;
    let mut stream = engine.broker.open_publish(&Principal::Local, &"orders".parse().unwrap()).unwrap();
    submit(&stream, 1).await;
    let ack = timeout(SOON, stream.acks.recv()).await.unwrap().unwrap();
    assert!(matches!(ack.outcome, AckOutcome::Refused(refusal) if refusal.code == ErrorCode::StorageFailed));
    std::fs::remove_dir_all(path.with_extension("aside")).unwrap();
    engine.broker.shutdown().await;
}
