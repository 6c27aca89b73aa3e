//! Verbs that come too late, in numbers: each is named before its frame counts as settled.

use std::pin::pin;

use levada_broker::{Consumer, Content, Error, Outgoing};
use levada_protocol::{
    error::ErrorCode,
    ids::{DeliveryToken, Offset, PartitionId},
    limits::VERBS_MAX,
    request::{SubscriptionOptions, TopicSettings},
    verbs::{Verb, VerbKind, Verbs},
};
use tokio::{sync::mpsc, time::timeout};

use crate::support::{Engine, SOON, poll_once};

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

/// Reads what is settled until `is_all` says so of the sequence and of how many verbs were named; returns their offsets.
async fn named(
    outgoing: &mut mpsc::Receiver<Result<Outgoing, Error>>,
    is_all: impl Fn(u64, usize) -> bool,
) -> Vec<u64> {
    let mut named = Vec::new();
    loop {
        let (content, unwritten) = outgoing.recv().await.unwrap().unwrap().into_parts();
        let Content::Settled(settled) = content else { panic!("expected what is settled, got {content:?}") };
        unwritten.written();
        assert!(settled.refused.iter().all(|refused| refused.code == ErrorCode::DeliveryExpired));
        named.extend(settled.refused.iter().map(|refused| refused.first.0));
        assert!(
            named.len() >= VERBS_MAX * usize::try_from(settled.sequence.min(1)).unwrap(),
            "frame 1 has unnamed verbs"
        );
        if is_all(settled.sequence, named.len()) {
            return named;
        }
    }
}

#[tokio::test]
async fn every_refused_verb_is_named_before_its_frame_is_settled() {
    let (engine, Consumer { control, mut outgoing, room, notices: _notices, .. }) = attached().await;
    let (first, all) = (VERBS_MAX as u64, VERBS_MAX as u64 + 1_000);
    control.verbs(late(1, 0..first)).await.unwrap();
    control.verbs(late(2, first..all)).await.unwrap();
    let told = async {
        tokio::select! {
            told = named(&mut outgoing, |sequence, _| sequence == 2) => told,
            never = room.run() => match never {},
        }
    };
    assert_eq!(timeout(SOON, told).await.expect("it is told"), (0..all).collect::<Vec<_>>());
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_consumer_that_does_not_read_which_verbs_are_refused_may_say_no_more_until_it_does_and_others_may()
{
    let (engine, Consumer { control, mut outgoing, room, notices: _notices, .. }) = attached().await;
    let other = engine.subscribe(SubscriptionOptions::default()).await;
    let (frames, each) = (65_536 / VERBS_MAX as u64, VERBS_MAX as u64);
    let frame = |sequence: u64| late(sequence, (sequence - 1) * each..sequence * each);
    let more = async {
        for sequence in 1..=3 * frames {
            control.verbs(frame(sequence)).await.unwrap();
        }
    };
    let mut more = pin!(more);
    // Of the first ones it is told before it reads anything.
    for _ in 0..100 {
        assert!(!poll_once(&mut more).await);
        tokio::task::yield_now().await;
    }
    other.control.verbs(late(1, 0..1)).await.unwrap();
    let all = usize::try_from(3 * frames * each).unwrap();
    let told = async {
        tokio::select! {
            (told, ()) = async { tokio::join!(named(&mut outgoing, |_, count| count == all), more) } => told,
            never = room.run() => match never {},
        }
    };
    let told = timeout(SOON, told).await.expect("once it reads, it is told of all");
    assert_eq!(told, (0..3 * frames * each).collect::<Vec<_>>());
    engine.broker.shutdown().await;
}
