//! How long commits get: below the limit, but for what cannot be cut.

use levada_broker::Principal;
use levada_protocol::{
    batch::{BatchBuilder, Stamp},
    event::Event,
    ids::PartitionId,
    publish::{AckOutcome, PublishHeader},
    request::TopicSettings,
};
use tokio::time::timeout;

use crate::support::{Engine, SOON};

const LIMIT: usize = 64 * 1024;

fn header(correlation: u32) -> PublishHeader {
    PublishHeader { correlation, partition: PartitionId(0), durability: None, expect_offset: None, due: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_queued_is_committed_in_commits_below_the_limit_and_a_longer_batch_in_its_own() {
    let engine = Engine::with(|config| config.commit_bytes_max = LIMIT);
    engine.topic("orders", TopicSettings::default()).await;
    let sizes: Vec<usize> =
        (0..120).map(|number| if number % 40 == 39 { 3 * LIMIT } else { 300 * (1 + number % 20) }).collect();
    engine.store.commits.lock().unwrap().clear();
    // While this sync is held up the rest queues.
    engine.store.hold(true);
    let mut stream = engine.broker.open_publish(&Principal::Local, &"orders".parse().unwrap()).unwrap();
    for (correlation, bytes) in (0..).zip(&sizes) {
        let mut builder = BatchBuilder::new();
        builder.push(&Event::new(vec![b'x'; *bytes])).unwrap();
        stream.submitter().submit(header(correlation), builder.finish(Stamp::ENGINE)).await.unwrap();
    }
    engine.store.hold(false);
    for expected in 0..sizes.len() {
        let ack = timeout(SOON, stream.acks.recv()).await.unwrap().unwrap();
        assert_eq!(ack.correlation as usize, expected, "acknowledgements come in order");
        assert!(matches!(ack.outcome, AckOutcome::Appended { .. }), "{ack:?}");
    }
    let commits = engine.store.commits.lock().unwrap().clone();
    let long: Vec<_> = commits.iter().filter(|len| **len > LIMIT).collect();
    assert_eq!(long.len(), 3, "only what is longer by itself: {commits:?}");
    assert!(commits.len() < sizes.len(), "others share a commit: {commits:?}");
    engine.broker.shutdown().await;
}
