//! Named producers: who took a name over last publishes, and nobody before it, whatever happens to the engine.

use std::{pin::pin, sync::atomic::Ordering};

use levada_broker::{Broker, Error, Principal, PublishStream};
use levada_protocol::{
    batch::{BatchBuilder, Stamp},
    error::ErrorCode,
    event::Event,
    ids::{Epoch, Offset, PartitionId, ProducerId, Sequence, Timestamp},
    publish::{AckOutcome, PublishHeader},
    request::{OpenedProducer, Request, Response, TopicSettings},
    schedule::Due,
};
use levada_store::{Family, ScanLimit, Store};
use tokio::time::timeout;

use crate::support::{Engine, SOON, poll_once, until};

/// How long an engine of these tests remembers producers: as by default.
const IDLE_MS: u64 = 7 * 24 * 3_600_000;
const DAY_MS: u64 = 24 * 3_600_000;

/// Four partitions.
async fn orders(engine: &Engine) {
    engine.topic("orders", TopicSettings { partitions: 4, ..TopicSettings::default() }).await;
}

async fn open(broker: &Broker, name: &str) -> Result<OpenedProducer, Error> {
    let request = Request::OpenProducer { topic: "orders".parse().unwrap(), name: name.parse().unwrap() };
    match broker.request(&Principal::Local, request, None).await? {
        Response::Producer(opened) => Ok(*opened),
        other => panic!("{other:?}"),
    }
}

fn stream(engine: &Engine) -> PublishStream {
    engine.broker.open_publish(&Principal::Local, &"orders".parse().unwrap()).unwrap()
}

/// Sends one event under the id of this number.
async fn send(stream: &PublishStream, owner: OpenedProducer, number: u32, at: (u16, u64), due: Option<Due>) {
    send_event(stream, owner, number, at, due, &Event::new("x")).await;
}

async fn send_event(
    stream: &PublishStream,
    owner: OpenedProducer,
    number: u32,
    (partition, sequence): (u16, u64),
    due: Option<Due>,
    event: &Event,
) {
    let mut builder = BatchBuilder::new();
    builder.push(event).unwrap();
    let producer_id = ProducerId(owner.producer_id.0 | u128::from(number));
    let stamp = Stamp { producer_id, epoch: Epoch(owner.epoch), first_sequence: Sequence(sequence) };
    let partition = PartitionId(partition);
    let header = PublishHeader { correlation: 1, partition, durability: None, expect_offset: None, due };
    stream.submitter().submit(header, builder.finish(stamp)).await.unwrap();
}

async fn answer(stream: &mut PublishStream) -> AckOutcome {
    timeout(SOON, stream.acks.recv()).await.unwrap().unwrap().outcome
}

async fn publish(stream: &mut PublishStream, owner: OpenedProducer, at: (u16, u64)) -> AckOutcome {
    send(stream, owner, 0, at, None).await;
    answer(stream).await
}

fn appended(base: u64, duplicate: bool) -> AckOutcome {
    AckOutcome::Appended { base: Some(Offset(base)), count: 1, duplicate, duplicates: None }
}

fn code(outcome: &AckOutcome) -> ErrorCode {
    match outcome {
        AckOutcome::Refused(refusal) => refusal.code,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

/// When each name that the store holds was opened.
fn opened(engine: &Engine) -> Vec<u64> {
    let rows = engine.store.scan(Family::Side, &[4], &[5], ScanLimit::NONE).unwrap();
    rows.iter().map(|(_, row)| u64::from_le_bytes(row[21..29].try_into().unwrap())).collect()
}

/// The epoch of each of them.
fn epochs(engine: &Engine) -> Vec<u32> {
    let rows = engine.store.scan(Family::Side, &[4], &[5], ScanLimit::NONE).unwrap();
    rows.iter().map(|(_, row)| u32::from_le_bytes(row[17..21].try_into().unwrap())).collect()
}

/// How many names the store holds.
fn names(engine: &Engine) -> usize {
    opened(engine).len()
}

/// When the rows of producers say that they were last used.
fn last_used(engine: &Engine) -> Vec<u64> {
    let rows = engine.store.scan(Family::Producers, &[0], &[255], ScanLimit::NONE).unwrap();
    rows.iter().map(|(_, row)| u64::from_le_bytes(row[16..24].try_into().unwrap())).collect()
}

#[tokio::test]
async fn what_queued_before_a_takeover_is_stored_and_what_comes_behind_it_is_refused() {
    let engine = Engine::start();
    orders(&engine).await;
    let first = open(&engine.broker, "importer").await.unwrap();
    let mut acks = stream(&engine);
    assert_eq!(publish(&mut acks, first, (0, 0)).await, appended(0, false));
    engine.store.hold(true);
    // One that is too large for the writer to wait for it itself, and behind it what the writer decides meanwhile.
    send_event(&acks, first, 0, (0, 1), None, &Event::new(vec![b'x'; 64 * 1024])).await;
    engine.store.entered.notified().await;
    send(&acks, first, 0, (0, 2), None).await;
    let mut opening = Box::pin(open(&engine.broker, "importer"));
    assert!(!poll_once(&mut opening).await);
    send(&acks, first, 0, (0, 3), None).await;
    until(|| epochs(&engine) == [2]).await;
    assert!(!poll_once(&mut opening).await, "it is durable before it is answered");
    engine.store.hold(false);
    assert_eq!(answer(&mut acks).await, appended(1, false));
    assert_eq!(answer(&mut acks).await, appended(2, false));
    assert_eq!(code(&answer(&mut acks).await), ErrorCode::ProducerFenced);
    let second = timeout(SOON, opening).await.unwrap().unwrap();
    assert_eq!(second, OpenedProducer { epoch: first.epoch + 1, ..first });
    assert_eq!(publish(&mut acks, second, (0, 0)).await, appended(3, false));
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn an_owner_before_is_refused_whatever_it_publishes_and_after_a_crash() {
    let mut engine = Engine::start();
    orders(&engine).await;
    let first = open(&engine.broker, "importer").await.unwrap();
    let mut acks = stream(&engine);
    assert_eq!(publish(&mut acks, first, (0, 0)).await, appended(0, false));
    let second = open(&engine.broker, "importer").await.unwrap();
    for round in 0..2_u64 {
        let mut acks = stream(&engine);
        for partition in 0..4 {
            // Neither what was stored nor what is new, under whichever of its ids, also where the second never was.
            for (number, sequence) in [(0, 0), (0, 1), (9, 0), (u32::MAX, 0)] {
                for due in [None, Some(Due::After(60_000))] {
                    send(&acks, first, number, (partition, sequence), due).await;
                    assert_eq!(code(&answer(&mut acks).await), ErrorCode::ProducerFenced);
                }
            }
        }
        assert_eq!(publish(&mut acks, second, (1, round)).await, appended(round, false));
        let never = OpenedProducer { epoch: second.epoch + 1, ..second };
        assert_eq!(code(&publish(&mut acks, never, (2, 0)).await), ErrorCode::ProducerUnknown);
        engine = engine.restart().await;
    }
    let third = open(&engine.broker, "importer").await.unwrap();
    assert_eq!(third, OpenedProducer { epoch: 3, ..first });
    let other = open(&engine.broker, "other").await.unwrap();
    assert_eq!(other.epoch, 1);
    assert_ne!(other.producer_id.base(), first.producer_id.base());
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_batch_with_an_epoch_is_of_a_name_and_one_without_is_not() {
    let engine = Engine::start();
    orders(&engine).await;
    let mut acks = stream(&engine);
    for id in [0, 7, 7 << 32] {
        let made_up = OpenedProducer { producer_id: ProducerId(id), epoch: 1 };
        assert_eq!(code(&publish(&mut acks, made_up, (0, 0)).await), ErrorCode::ProducerUnknown);
    }
    let unnamed = OpenedProducer { producer_id: ProducerId(7), epoch: 0 };
    assert_eq!(publish(&mut acks, unnamed, (0, 0)).await, appended(0, false));
    assert_eq!(publish(&mut acks, unnamed, (0, 0)).await, appended(0, true));
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn what_an_owner_had_scheduled_comes_due_after_a_takeover() {
    let engine = Engine::start();
    orders(&engine).await;
    let first = open(&engine.broker, "importer").await.unwrap();
    let mut acks = stream(&engine);
    // Due at once, and moved by the engine itself.
    send(&acks, first, 0, (0, 0), Some(Due::At(Timestamp(1)))).await;
    let scheduled = answer(&mut acks).await;
    assert!(matches!(scheduled, AckOutcome::Scheduled { duplicate: false, .. }), "{scheduled:?}");
    open(&engine.broker, "importer").await.unwrap();
    engine.broker.move_due().await.unwrap();
    assert_eq!(engine.partition("orders").await.end, 1);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_takeover_that_was_not_stored_fences_nobody() {
    let engine = Engine::start();
    orders(&engine).await;
    let first = open(&engine.broker, "importer").await.unwrap();
    let mut acks = stream(&engine);
    engine.store.fill_at_redrive.store(true, Ordering::Release);
    let failed = open(&engine.broker, "importer").await.unwrap_err();
    assert_eq!(failed.code(), ErrorCode::OutcomeUnknown);
    engine.store.inner.set_full(false);
    let published = async {
        loop {
            match publish(&mut acks, first, (0, 0)).await {
                AckOutcome::Refused(refusal) if refusal.code.is_retryable() => {
                    tokio::task::yield_now().await;
                }
                other => return other,
            }
        }
    };
    let published = timeout(SOON, pin!(published)).await.expect("it opens again");
    assert_eq!(published, appended(0, false));
    let second = open(&engine.broker, "importer").await.unwrap();
    assert_eq!(second, OpenedProducer { epoch: 2, ..first });
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_topic_s_names_go_with_it() {
    let engine = Engine::start();
    orders(&engine).await;
    let first = open(&engine.broker, "importer").await.unwrap();
    let mut old = stream(&engine);
    let (topic, force, with_dead_letters) = ("orders".parse().unwrap(), false, false);
    engine.ask(Request::DeleteTopic { name: topic, force, with_dead_letters }).await;
    assert_eq!(names(&engine), 0);
    assert_eq!(code(&publish(&mut old, first, (0, 0)).await), ErrorCode::TopicNotFound);
    let absent = open(&engine.broker, "importer").await.unwrap_err();
    assert_eq!(absent.code(), ErrorCode::TopicNotFound);
    orders(&engine).await;
    let mut new = stream(&engine);
    assert_eq!(code(&publish(&mut new, first, (0, 0)).await), ErrorCode::ProducerUnknown);
    let again = open(&engine.broker, "importer").await.unwrap();
    assert_eq!(again.epoch, 1);
    assert_ne!(again.producer_id, first.producer_id);
    let own =
        Request::OpenProducer { topic: "dlq.orders.x".parse().unwrap(), name: "importer".parse().unwrap() };
    let refused = engine.broker.request(&Principal::Local, own, None).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::InvalidArgument, "a topic of the engine's own takes no publisher");
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_name_is_forgotten_once_it_was_idle_for_long_and_its_producers_are() {
    let mut engine = Engine::start();
    orders(&engine).await;
    let [idle, used] = ["idle", "used"];
    let first = open(&engine.broker, idle).await.unwrap();
    let second = open(&engine.broker, used).await.unwrap();
    let mut acks = stream(&engine);
    // In the last partition alone, under an id of its own choice, and later than either was opened.
    let mut sent = 0;
    let used_at = loop {
        send(&acks, second, 9, (3, sent), None).await;
        assert_eq!(answer(&mut acks).await, appended(sent, false));
        sent += 1;
        if let [used] = last_used(&engine)[..]
            && opened(&engine).iter().all(|opened| used > *opened)
        {
            break used;
        }
    };
    // After a start the row of the producer alone says that the name was used.
    engine = engine.restart().await;
    engine.broker.run_retention_at(Timestamp(used_at + IDLE_MS - DAY_MS)).await.unwrap();
    assert_eq!(names(&engine), 2, "neither is idle for long");
    // The search before was the first; the next one is due. The producer is idle a moment too short.
    engine.broker.run_retention_at(Timestamp(used_at + IDLE_MS)).await.unwrap();
    assert_eq!((names(&engine), last_used(&engine).len()), (1, 1));
    let mut acks = stream(&engine);
    assert_eq!(code(&publish(&mut acks, first, (0, 0)).await), ErrorCode::ProducerUnknown);
    send(&acks, second, 9, (3, 0), None).await;
    assert_eq!(answer(&mut acks).await, appended(0, true), "it is known still, with what it has published");
    engine = engine.restart().await;
    engine.broker.run_retention_at(Timestamp(used_at + IDLE_MS + DAY_MS)).await.unwrap();
    assert_eq!((names(&engine), last_used(&engine).len()), (0, 0));
    let mut acks = stream(&engine);
    assert_eq!(code(&publish(&mut acks, second, (3, sent)).await), ErrorCode::ProducerUnknown);
    let again = open(&engine.broker, used).await.unwrap();
    assert_eq!(again.epoch, 1);
    assert_ne!(again.producer_id, second.producer_id);
    engine.broker.shutdown().await;
}
