//! Quotas of principals: what is over them waits, and is refused after a second; nobody else notices.

use std::time::Duration;

use levada_broker::{Broker, Error, Principal};
use levada_protocol::{
    batch::{BatchBuilder, Stamp},
    error::ErrorCode,
    event::Event,
    ids::{PartitionId, Timestamp},
    publish::{AckOutcome, PublishHeader},
    request::{ChangePrincipal, QuotaChanges, Read, Request, Subscribe, TopicSettings},
};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    access::{CLERK, Office},
    support::Engine,
};

/// Publishes one batch; returns what became of it.
async fn publish(engine: &Engine, by: &Principal, events: usize, bytes: usize) -> AckOutcome {
    let mut stream = engine.broker.open_publish(by, &"orders".parse().unwrap()).unwrap();
    let mut builder = BatchBuilder::new();
    (0..events).for_each(|_| builder.push(&Event::new(vec![b'x'; bytes]).at(Timestamp(1))).unwrap());
    let header = PublishHeader {
        correlation: 1,
        partition: PartitionId(0),
        durability: None,
        expect_offset: None,
        due: None,
    };
    stream.submitter().submit(header, builder.finish(Stamp::ENGINE)).await.unwrap();
    stream.acks.recv().await.unwrap().outcome
}

async fn limit(office: &Office<'_>, quotas: QuotaChanges) {
    office
        .ask(Request::ChangePrincipal(ChangePrincipal {
            quotas,
            ..ChangePrincipal::new(CLERK.parse().unwrap())
        }))
        .await;
}

fn is_stored(outcome: &AckOutcome) -> bool {
    matches!(outcome, AckOutcome::Appended { .. })
}

fn refusal_of(error: &Error) -> (ErrorCode, Option<u32>) {
    let refusal = error.refusal();
    (refusal.code, refusal.retry_after_ms)
}

/// A call that is one request.
#[derive(Debug, Clone, Copy)]
enum Call {
    Describe,
    Read,
    Subscribe,
}

impl Call {
    async fn make(self, broker: &Broker, by: &Principal) -> Result<(), Error> {
        let topic = || "orders".parse().unwrap();
        match self {
            Self::Describe => {
                broker.request(by, Request::DescribeTopic { name: topic() }, None).await.map(drop)
            }
            Self::Read => broker.read(by, Read::new(topic())).await.map(drop),
            Self::Subscribe => {
                let wanted = Subscribe::new(topic(), "payment".parse().unwrap());
                broker.subscribe(by, wanted).await.map(drop)
            }
        }
    }
}

/// A topic, an administrator and a clerk who may do everything but administrate.
async fn open(engine: &Engine) -> (Office<'_>, Principal) {
    engine.topic("orders", TopicSettings::default()).await;
    let office = Office::open(engine).await;
    let clerk = office.clerk(&["publish **", "read **", "browse **", "subscribe **"]).await;
    (office, clerk)
}

#[tokio::test]
async fn what_is_over_a_rate_is_refused_with_when_to_try_again_and_others_do_not_notice() {
    let engine = Engine::start();
    let (office, clerk) = open(&engine).await;
    limit(&office, QuotaChanges { publish_events: Some(10), ..QuotaChanges::default() }).await;
    // More than a second's worth is taken, since nothing was before; what comes then has to wait for too long.
    assert!(is_stored(&publish(&engine, &clerk, 100, 1).await));
    let AckOutcome::Refused(refusal) = publish(&engine, &clerk, 1, 1).await else {
        panic!("expected a refusal")
    };
    assert_eq!(refusal.code, ErrorCode::Quota, "{refusal}");
    let after = refusal.retry_after_ms.unwrap();
    assert!((8_000..=9_100).contains(&after), "ninety are owed at ten a second: {after}");
    assert!(refusal.message.contains("10 events published per second"), "{refusal}");
    assert!(is_stored(&publish(&engine, &office.admin(), 100, 1).await), "others have quotas of their own");
    limit(&office, QuotaChanges { publish_events: Some(0), ..QuotaChanges::default() }).await;
    assert!(is_stored(&publish(&engine, &clerk, 100, 1).await), "a limit that is lifted is lifted at once");
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn what_is_a_little_over_a_rate_waits_and_is_stored() {
    let engine = Engine::start();
    let (office, clerk) = open(&engine).await;
    limit(&office, QuotaChanges { publish_bytes: Some(1 << 20), ..QuotaChanges::default() }).await;
    let began = Instant::now();
    // Two seconds' worth: the second half has to wait.
    for _ in 0..8 {
        assert!(is_stored(&publish(&engine, &clerk, 1, 1 << 18).await));
    }
    assert!(began.elapsed() >= Duration::from_millis(700), "{:?}", began.elapsed());
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn requests_streams_and_connections_are_limited() {
    let engine = Engine::start();
    let (office, clerk) = open(&engine).await;
    limit(&office, QuotaChanges { requests: Some(1), ..QuotaChanges::default() }).await;
    // Many at once: each second lets one through, and most have waited for too long.
    for call in [Call::Describe, Call::Read, Call::Subscribe] {
        let mut calls = JoinSet::new();
        for _ in 0..60 {
            let (broker, clerk) = (engine.broker.clone(), clerk.clone());
            calls
                .spawn(async move { call.make(&broker, &clerk).await.err().map(|error| refusal_of(&error)) });
        }
        let refused: Vec<_> = calls.join_all().await.into_iter().flatten().collect();
        let over: Vec<_> = refused.iter().filter(|(code, _)| *code == ErrorCode::Quota).collect();
        assert!(!over.is_empty(), "{call:?}");
        assert!(over.iter().all(|(_, after)| after.is_some_and(|ms| (1..=60_000).contains(&ms))), "{over:?}");
    }
    limit(&office, QuotaChanges { requests: Some(0), connections: Some(2), ..QuotaChanges::default() }).await;
    let (first, _second) = (engine.broker.connect(&clerk).unwrap(), engine.broker.connect(&clerk).unwrap());
    let third = engine.broker.connect(&clerk).unwrap_err();
    assert_eq!(refusal_of(&third), (ErrorCode::Quota, Some(1_000)));
    assert!(engine.broker.connect(&office.admin()).is_ok());
    drop(first);
    assert!(engine.broker.connect(&clerk).is_ok(), "one that has ended makes room");
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn bytes_in_flight_wait_for_those_before_them_and_come_back_with_the_commit() {
    let engine = Engine::start();
    let (office, clerk) = open(&engine).await;
    limit(&office, QuotaChanges { in_flight_bytes: Some(1_000), ..QuotaChanges::default() }).await;
    for _ in 0..20 {
        assert!(is_stored(&publish(&engine, &clerk, 1, 5_000).await), "one that is larger is taken alone");
    }
    engine.store.hold(true);
    let (held, refused) = tokio::join!(publish(&engine, &clerk, 1, 900), async {
        let refused = publish(&engine, &clerk, 1, 900).await;
        engine.store.hold(false);
        refused
    });
    assert!(is_stored(&held), "{held:?}");
    let AckOutcome::Refused(refusal) = refused else { panic!("{refused:?}") };
    assert!(
        refusal.code == ErrorCode::Quota && refusal.message.contains("1000 bytes in flight"),
        "{refusal}"
    );
    assert!(is_stored(&publish(&engine, &clerk, 1, 900).await));
    engine.broker.shutdown().await;
}
