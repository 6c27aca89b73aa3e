//! Producers that publish no more: their rows go, and what the engine remembers is what the store holds.

use std::{sync::Arc, time::Duration};

use levada_broker::{Broker, BrokerConfig, Principal, PublishStream};
use levada_protocol::{
    batch::{BatchBuilder, Stamp},
    error::ErrorCode,
    event::Event,
    ids::{Epoch, Offset, PartitionId, ProducerId, Sequence, Timestamp},
    publish::{AckOutcome, PublishHeader},
    request::{Request, TopicSettings},
};
use levada_store::{Family, MemoryStore, RocksOptions, RocksStore, ScanLimit, Store};
use tokio::time::timeout;

use crate::support::{KeepAll, SOON};

const IDLE: Duration = Duration::from_secs(7 * 24 * 3_600);
const DAY_MS: u64 = 24 * 3_600_000;

async fn publish(stream: &mut PublishStream, producer: u128, first: u64) -> AckOutcome {
    let mut builder = BatchBuilder::new();
    builder.push(&Event::new("x")).unwrap();
    let stamp = Stamp { producer_id: ProducerId(producer), epoch: Epoch(0), first_sequence: Sequence(first) };
    let partition = PartitionId(0);
    let header =
        PublishHeader { correlation: 1, partition, durability: None, expect_offset: None, due: None };
    stream.submitter().submit(header, builder.finish(stamp)).await.unwrap();
    timeout(SOON, stream.acks.recv()).await.unwrap().unwrap().outcome
}

fn appended(base: u64, duplicate: bool) -> AckOutcome {
    AckOutcome::Appended { base: Some(Offset(base)), count: 1, duplicate, duplicates: None }
}

/// When each producer that has a row was last used.
fn rows(store: &dyn Store) -> Vec<Timestamp> {
    let rows = store.scan(Family::Producers, &[0], &[255], ScanLimit::NONE).unwrap();
    // Bytes 16 to 24 of a producer's row.
    rows.iter().map(|(_, row)| Timestamp(u64::from_le_bytes(row[16..24].try_into().unwrap()))).collect()
}

/// A time at which what was last used at `used` has just been idle for long enough, and some days more.
fn idle_since(used: Timestamp, days: u64) -> Timestamp {
    Timestamp(used.0 + 1 + u64::try_from(IDLE.as_millis()).unwrap() + days * DAY_MS)
}

async fn forgets(store: Arc<dyn Store>, producers_max: usize) {
    let dir = tempfile::tempdir().unwrap();
    let config = BrokerConfig {
        disk_reserve_bytes: 0,
        producers_max,
        producers_idle: IDLE,
        ..BrokerConfig::new(dir.path())
    };
    let broker = Broker::start(config, Arc::clone(&store), Arc::new(KeepAll::default())).unwrap();
    let create = Request::CreateTopic { name: "orders".parse().unwrap(), settings: TopicSettings::default() };
    broker.request(&Principal::Local, create, None).await.unwrap();
    let mut stream = broker.open_publish(&Principal::Local, &"orders".parse().unwrap()).unwrap();
    assert_eq!(publish(&mut stream, 1, 0).await, appended(0, false));
    let first_used = rows(store.as_ref())[0];
    // The second is used a little later.
    let mut sent = 0;
    let second_used = loop {
        assert_eq!(publish(&mut stream, 2, sent).await, appended(1 + sent, false));
        sent += 1;
        if let [_, used] = rows(store.as_ref())[..]
            && used > first_used
        {
            break used;
        }
    };

    // The second was used a moment too late.
    broker.run_retention_at(idle_since(first_used, 0)).await.unwrap();
    assert_eq!(rows(store.as_ref()), [second_used]);
    assert_eq!(publish(&mut stream, 2, sent - 1).await, appended(sent, true));
    broker.run_retention_at(idle_since(second_used, 0)).await.unwrap();
    assert_eq!(rows(store.as_ref()), [second_used], "a search has just ended, the next one is not due");
    broker.run_retention_at(idle_since(second_used, 1)).await.unwrap();
    assert_eq!(rows(store.as_ref()), []);
    for producer in [1, 2] {
        let AckOutcome::Refused(refusal) = publish(&mut stream, producer, sent).await else {
            panic!("the producer is known")
        };
        assert_eq!(refusal.code, ErrorCode::ProducerUnknown);
    }
    assert_eq!(publish(&mut stream, 1, 0).await, appended(1 + sent, false));
    assert_eq!(publish(&mut stream, 1, 0).await, appended(1 + sent, true));
    assert_eq!(rows(store.as_ref()).len(), 1);
    broker.shutdown().await;
}

#[tokio::test]
async fn producers_that_were_idle_for_long_are_forgotten_in_memory_and_on_disk() {
    // All producers are in memory, or the newest alone.
    for producers_max in [1, 65_536] {
        forgets(Arc::new(MemoryStore::new()), producers_max).await;
        let dir = tempfile::tempdir().unwrap();
        let store = RocksStore::open(dir.path(), RocksOptions::default()).unwrap();
        forgets(Arc::new(store), producers_max).await;
    }
}
