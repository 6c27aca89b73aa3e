//! Records that are gone from the middle of a log: the start says so, instead of serving what is left.

use std::sync::Arc;

use levada_broker::{Broker, BrokerConfig, Principal};
use levada_protocol::{
    batch::{BatchBuilder, Stamp},
    error::ErrorCode,
    event::Event,
    ids::{Offset, PartitionId, Timestamp, TopicId},
    publish::{AckOutcome, PublishHeader},
    request::{Request, TopicSettings},
};
use levada_store::{
    Commit, Family, MemoryStore, Op, ScanLimit, Store,
    record::{self, LogKey, Prefix},
};
use tokio::time::timeout;

use crate::support::{KeepAll, SOON};

fn start(store: &Arc<MemoryStore>, dir: &tempfile::TempDir) -> Result<Broker, levada_broker::Error> {
    let config = BrokerConfig { disk_reserve_bytes: 0, ..BrokerConfig::new(dir.path()) };
    Broker::start(config, Arc::clone(store) as _, Arc::new(KeepAll::default()))
}

/// A store with three records of one event each at offsets 0 to 2, as an engine left it.
async fn three_records(dir: &tempfile::TempDir) -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::new());
    let broker = start(&store, dir).unwrap();
    let create = Request::CreateTopic { name: "orders".parse().unwrap(), settings: TopicSettings::default() };
    broker.request(&Principal::Local, create, None).await.unwrap();
    for _ in 0..3 {
        // One commit each, and so one record each.
        publish(&broker).await;
    }
    broker.shutdown().await;
    store.crash();
    assert_eq!(store.scan(Family::Log, &[0], &[0xff; 20], ScanLimit::NONE).unwrap().len(), 3);
    store
}

async fn publish(broker: &Broker) -> AckOutcome {
    let mut stream = broker.open_publish(&Principal::Local, &"orders".parse().unwrap()).unwrap();
    let mut builder = BatchBuilder::new();
    builder.push(&Event::new("x")).unwrap();
    let partition = PartitionId(0);
    let header =
        PublishHeader { correlation: 1, partition, durability: None, expect_offset: None, due: None };
    stream.submitter().submit(header, builder.finish(Stamp::ENGINE)).await.unwrap();
    timeout(SOON, stream.acks.recv()).await.unwrap().unwrap().outcome
}

fn key(offset: u64) -> LogKey {
    LogKey { topic: TopicId(1), partition: PartitionId(0), base: Offset(offset) }
}

fn change(store: &MemoryStore, ops: Vec<Op>) {
    let last = store.last();
    store.apply(&Commit::after(&last, last.term, Timestamp(1), ops)).unwrap();
    store.sync().unwrap();
}

fn refused(store: &Arc<MemoryStore>, dir: &tempfile::TempDir, said: &str) {
    let refused = start(store, dir).err().unwrap();
    assert_eq!(refused.code(), ErrorCode::StorageCorrupt);
    assert!(refused.to_string().contains(said), "{refused}");
}

#[tokio::test]
async fn a_start_names_the_place_where_a_record_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let store = three_records(&dir).await;
    change(&store, vec![Op::Delete { family: Family::Log, key: key(1).encode().to_vec().into() }]);
    let said = "topic orders cannot be loaded: partition 0: events are missing before offset 2: expected a record at offset 1";
    refused(&store, &dir, said);
}

#[tokio::test]
async fn a_start_notices_a_record_with_other_bytes_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = three_records(&dir).await;
    let row = key(2).encode();
    let record = record::check(&row, store.get(Family::Log, &row).unwrap().unwrap()).unwrap();
    let batches: Vec<_> = record.batches().map(|batch| batch.unwrap().1).collect();
    let prefix = Prefix {
        hops: record.hops,
        append_time: record.append_time,
        commit_index: record.commit_index,
        bytes_before: record.bytes_before + 1,
        span: record.span,
    };
    let value = record::encode(&record.key, &prefix, &batches.iter().collect::<Vec<_>>());
    change(&store, vec![Op::Put { family: Family::Log, key: row.to_vec().into(), value }]);
    refused(&store, &dir, "events are missing before offset 2: expected a record at offset 2 with");
}

#[tokio::test]
async fn a_log_start_whose_size_is_not_quite_right_is_put_right_and_not_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = three_records(&dir).await;
    // Retention counted the newest event's bytes with what it dropped, and the only segment went with them.
    let start_key = [&[0x10, 0, 0, 0, 1][..], &[0, 0]].concat();
    let value = [&[1][..], &2u64.to_le_bytes(), &999u64.to_le_bytes()].concat();
    let drop_all =
        |from: Vec<u8>, to: Vec<u8>, family| Op::DeleteRange { family, from: from.into(), to: to.into() };
    change(
        &store,
        vec![
            Op::Put { family: Family::Meta, key: start_key.into(), value: value.into() },
            drop_all(key(0).encode().to_vec(), key(2).encode().to_vec(), Family::Log),
            drop_all(vec![0x11], vec![0x12], Family::Meta),
        ],
    );
    for expected in 3..5 {
        let broker = start(&store, &dir).unwrap();
        let AckOutcome::Appended { base, .. } = publish(&broker).await else { panic!("it is refused") };
        assert_eq!(base, Some(Offset(expected)));
        broker.shutdown().await;
        store.crash();
    }
}
