//! Records that are gone from the middle of a log: the start says so, instead of serving what is left.

use std::sync::Arc;

use levada_broker::{Broker, BrokerConfig, Principal};
use levada_protocol::{
    batch::{BatchBuilder, Stamp},
    error::ErrorCode,
    event::Event,
    ids::{Offset, PartitionId, Timestamp, TopicId},
    publish::PublishHeader,
    request::{Request, TopicSettings},
};
use levada_store::{Commit, Family, MemoryStore, Op, ScanLimit, Store, record::LogKey};
use tokio::time::timeout;

use crate::support::{KeepAll, SOON};

fn start(store: &Arc<MemoryStore>, dir: &tempfile::TempDir) -> Result<Broker, levada_broker::Error> {
    let config = BrokerConfig { disk_reserve_bytes: 0, ..BrokerConfig::new(dir.path()) };
    Broker::start(config, Arc::clone(store) as _, Arc::new(KeepAll::default()))
}

#[tokio::test]
async fn a_start_names_the_place_where_a_record_is_missing() {
    let (store, dir) = (Arc::new(MemoryStore::new()), tempfile::tempdir().unwrap());
    let broker = start(&store, &dir).unwrap();
    let create = Request::CreateTopic { name: "orders".into(), settings: TopicSettings::default() };
    broker.request(&Principal::Local, create, None).await.unwrap();
    let mut stream = broker.open_publish(&Principal::Local, "orders").unwrap();
    for correlation in 0..3 {
        let mut builder = BatchBuilder::new();
        builder.push(&Event::new("x")).unwrap();
        let partition = PartitionId(0);
        let header = PublishHeader { correlation, partition, durability: None, expect_offset: None };
        stream.submitter().submit(header, builder.finish(Stamp::ENGINE)).await.unwrap();
        // One commit each, and so one record each.
        timeout(SOON, stream.acks.recv()).await.unwrap().unwrap();
    }
    drop(stream);
    broker.shutdown().await;
    store.crash();
    let rows = store.scan(Family::Log, &[0], &[0xff; 20], ScanLimit::NONE).unwrap();
    assert_eq!(rows.len(), 3);
    let key = LogKey { topic: TopicId(1), partition: PartitionId(0), base: Offset(1) }.encode();
    let gone = Op::Delete { family: Family::Log, key: key.to_vec().into() };
    let last = store.last();
    store.apply(&Commit::after(&last, last.term, Timestamp(1), vec![gone])).unwrap();
    let refused = start(&store, &dir).err().unwrap();
    assert_eq!(refused.code(), ErrorCode::StorageCorrupt);
    let said = "topic orders cannot be loaded: partition 0: offset 1 and";
    assert!(refused.to_string().contains(said), "{refused}");
}
