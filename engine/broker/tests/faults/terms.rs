//! Who may write: every start has a term of its own, and a store belongs to one shard.

use std::sync::Arc;

use levada_broker::{Broker, BrokerConfig, Principal};
use levada_protocol::{
    error::ErrorCode,
    ids::{CommitIndex, Timestamp},
    request::{Request, TopicSettings},
};
use levada_store::{Commit, MemoryStore, Store, commit::Term};

use crate::support::{KeepAll, until};

fn start(store: &Arc<MemoryStore>, dir: &tempfile::TempDir, shard: u16) -> Result<Broker, ErrorCode> {
    let config = BrokerConfig { disk_reserve_bytes: 0, shard, ..BrokerConfig::new(dir.path()) };
    Broker::start(config, Arc::clone(store) as _, Arc::new(KeepAll::default())).map_err(|error| error.code())
}

async fn create(broker: &Broker, name: &str) -> Result<(), ErrorCode> {
    let request = Request::CreateTopic { name: name.parse().unwrap(), settings: TopicSettings::default() };
    broker.request(&Principal::Local, request, None).await.map(drop).map_err(|error| error.code())
}

#[tokio::test]
async fn a_start_writes_with_a_higher_term_and_follows_on_what_was_there() {
    let (store, dir) = (Arc::new(MemoryStore::new()), tempfile::tempdir().unwrap());
    let mut engine_id = None;
    for term in 1..=3 {
        let before = store.last();
        let broker = start(&store, &dir, 7).unwrap();
        create(&broker, &format!("t{term}")).await.unwrap();
        let last = store.last();
        assert_eq!((last.term, last.shard), (Term(term), 7));
        assert!(last.index > before.index && last.previous.0 == last.index.0 - 1);
        let id = broker.ids().0.to_owned();
        assert_eq!(*engine_id.get_or_insert_with(|| id.clone()), id, "the first commit made it, for good");
        broker.shutdown().await;
        store.crash();
    }
}

#[tokio::test]
async fn a_store_of_another_shard_is_refused_and_unchanged() {
    let (store, dir) = (Arc::new(MemoryStore::new()), tempfile::tempdir().unwrap());
    let broker = start(&store, &dir, 1).unwrap();
    broker.shutdown().await;
    store.crash();
    let before = store.last();
    assert_eq!(before.index, CommitIndex(1));
    assert_eq!(start(&store, &dir, 2).err(), Some(ErrorCode::StorageDiverged));
    assert_eq!(store.last(), before);
    start(&store, &dir, 1).unwrap().shutdown().await;
}

#[tokio::test]
async fn a_writer_that_another_one_took_over_from_writes_nothing_more_and_says_so() {
    let (store, dir) = (Arc::new(MemoryStore::new()), tempfile::tempdir().unwrap());
    let broker = start(&store, &dir, 0).unwrap();
    create(&broker, "mine").await.unwrap();
    let taken_over = Commit::after(&store.last(), Term(9), Timestamp(1), vec![]);
    store.apply(&taken_over).unwrap();
    // It still believes that its last commit is the newest, so that it decides the same index anew.
    assert_eq!(create(&broker, "late").await, Err(ErrorCode::StorageFenced));
    until(|| !broker.health().ready).await;
    assert!(broker.health().reason.unwrap().starts_with("STORAGE_FENCED"));
    assert_eq!(create(&broker, "later").await, Err(ErrorCode::StorageFenced));
    assert_eq!(store.last(), taken_over.applied_row());
    broker.shutdown().await;
}
