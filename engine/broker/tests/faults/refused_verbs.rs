//! Verbs that come too late, in numbers: each is named before its frame counts as settled.

use levada_broker::{Consumer, Content};
use levada_protocol::{
    error::ErrorCode,
    ids::{DeliveryToken, Offset, PartitionId},
    limits::VERBS_MAX,
    request::{SubscriptionOptions, TopicSettings},
    verbs::{Verb, VerbKind, Verbs},
};
use tokio::time::timeout;

use crate::support::{Engine, SOON};

/// A frame of acknowledgements, each of one event that no delivery holds.
fn late(sequence: u64, offsets: std::ops::Range<u64>) -> Verbs {
    let (kind, partition, token) = (VerbKind::Ack, PartitionId(0), DeliveryToken(7));
    let verb =
        |offset| Verb { kind: kind.clone(), partition, token, first: Offset(offset), last: Offset(offset) };
    Verbs { sequence, verbs: offsets.map(verb).collect() }
}

async fn attached() -> (Engine, Consumer) {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    let consumer = engine.subscribe(SubscriptionOptions::default()).await;
    (engine, consumer)
}

#[tokio::test]
async fn every_refused_verb_is_named_before_its_frame_is_settled() {
    let (engine, mut consumer) = attached().await;
    let (first, all) = (VERBS_MAX as u64, VERBS_MAX as u64 + 1_000);
    consumer.control.verbs(late(1, 0..first)).await.unwrap();
    consumer.control.verbs(late(2, first..all)).await.unwrap();
    let mut named = Vec::new();
    loop {
        let next = timeout(SOON, consumer.outgoing.recv()).await.expect("it is told").unwrap().unwrap();
        let (content, unwritten) = next.into_parts();
        let Content::Settled(settled) = content else { panic!("expected what is settled, got {content:?}") };
        unwritten.written();
        assert!(settled.refused.iter().all(|refused| refused.code == ErrorCode::DeliveryExpired));
        named.extend(settled.refused.iter().map(|refused| refused.first.0));
        assert!(settled.sequence < 1 || named.len() as u64 >= first, "frame 1 has unnamed verbs");
        if settled.sequence == 2 {
            break;
        }
    }
    assert_eq!(named, (0..all).collect::<Vec<_>>());
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_consumer_that_never_reads_which_verbs_are_refused_is_sent_away_and_others_stay() {
    let (engine, mut silent) = attached().await;
    let mut other = engine.subscribe(SubscriptionOptions::default()).await;
    let frames = 2 + 65_536 / VERBS_MAX as u64;
    for sequence in 1..=frames {
        let from = sequence * VERBS_MAX as u64;
        silent.control.verbs(late(sequence, from..from + VERBS_MAX as u64)).await.unwrap();
    }
    let ended = async {
        loop {
            if let Err(error) = silent.outgoing.recv().await.expect("it is told why") {
                return error;
            }
        }
    };
    // What it reads before the end makes room, and is too late.
    while engine.info().await.consumers.len() > 1 {
        tokio::task::yield_now().await;
    }
    let error = timeout(SOON, ended).await.unwrap();
    assert_eq!(error.code(), ErrorCode::LimitExceeded, "{error}");
    other.control.verbs(late(1, 0..1)).await.unwrap();
    let told = timeout(SOON, other.outgoing.recv()).await.unwrap().unwrap().unwrap();
    assert!(matches!(told.content(), Content::Settled(_)));
    engine.broker.shutdown().await;
}
