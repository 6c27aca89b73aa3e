//! The broker on the memory store: publishing, reading, subscriptions and what a crash leaves.
//!
//! No sockets and no plugins here; those are tested where they are real.
#![expect(clippy::unwrap_used, reason = "a test's helper fails the test by panicking")]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use levada_broker::{Broker, BrokerConfig, Consumer, Content, Delivery, Outgoing, Principal, PublishStream};
use levada_protocol::{
    batch::{BatchBuilder, EventRef, Stamp},
    deliver::{DeliverHeader, Run},
    error::ErrorCode,
    event::Event,
    ids::{DeliveryToken, Epoch, Offset, PartitionId, ProducerId, Sequence},
    publish::{Ack, AckOutcome, PublishHeader},
    request::{
        Order, Read, Request, Response, Start, Subscribe, SubscriptionInfo, SubscriptionOptions,
        TopicSettings,
    },
    verbs::{Credit, Settled, Verb, VerbKind, Verbs},
};
use levada_stage::{Artefact, AttachError, AttachSpec, BoxFuture, Inspected, Plugins, Stage};
use levada_store::MemoryStore;
use tempfile::TempDir;

struct NoPlugins;

impl Plugins for NoPlugins {
    fn inspect(&self, _artefact: Bytes) -> BoxFuture<Result<Inspected, AttachError>> {
        Box::pin(async { Err(AttachError::new(ErrorCode::PluginInvalid, "no plugins here")) })
    }

    fn attach(
        &self,
        _artefact: Artefact,
        _spec: AttachSpec,
    ) -> BoxFuture<Result<Arc<dyn Stage>, AttachError>> {
        Box::pin(async { Err(AttachError::new(ErrorCode::PluginInvalid, "no plugins here")) })
    }
}

struct Engine {
    broker: Broker,
    store: Arc<MemoryStore>,
    dir: TempDir,
}

impl Engine {
    fn start() -> Self {
        Self::on(Arc::new(MemoryStore::new()), tempfile::tempdir().unwrap())
    }

    fn on(store: Arc<MemoryStore>, dir: TempDir) -> Self {
        let config = BrokerConfig { disk_reserve_bytes: 0, ..BrokerConfig::new(dir.path()) };
        let broker = Broker::start(config, Arc::clone(&store) as _, Arc::new(NoPlugins)).unwrap();
        Self { broker, store, dir }
    }

    async fn restart(self) -> Self {
        self.broker.shutdown().await;
        self.store.crash();
        Self::on(self.store, self.dir)
    }

    async fn topic(&self, partitions: u16) {
        let settings = TopicSettings { partitions, ..TopicSettings::default() };
        let request = Request::CreateTopic { name: "orders".parse().unwrap(), settings };
        self.broker.request(&Principal::Local, request, None).await.unwrap();
    }

    fn publisher(&self) -> PublishStream {
        self.broker.open_publish(&Principal::Local, &"orders".parse().unwrap()).unwrap()
    }

    async fn subscribe(&self, options: SubscriptionOptions) -> Consumer {
        let subscribe = Subscribe {
            consumer: "test".into(),
            options: Some(options),
            from: Start::Earliest,
            ..Subscribe::new("orders".parse().unwrap(), "payment".parse().unwrap())
        };
        self.broker.subscribe(&Principal::Local, subscribe).await.unwrap()
    }

    async fn info(&self) -> SubscriptionInfo {
        let request = Request::DescribeSubscription {
            topic: "orders".parse().unwrap(),
            name: "payment".parse().unwrap(),
        };
        match self.broker.request(&Principal::Local, request, None).await.unwrap() {
            Response::Subscription(info) => *info,
            other => panic!("{other:?}"),
        }
    }
}

fn batch(producer: u128, first: u64, count: u64) -> levada_protocol::batch::Batch {
    let mut builder = BatchBuilder::new();
    for sequence in first..first + count {
        builder.push(&Event::new(sequence.to_string())).unwrap();
    }
    let (producer_id, epoch) = (ProducerId(producer), Epoch(0));
    builder.finish(Stamp { producer_id, epoch, first_sequence: Sequence(first) })
}

async fn publish(stream: &mut PublishStream, producer: u128, first: u64, count: u64) -> Ack {
    let header = PublishHeader {
        correlation: 7,
        partition: PartitionId(0),
        durability: None,
        expect_offset: None,
        due: None,
    };
    stream.submitter().submit(header, batch(producer, first, count)).await.unwrap();
    stream.acks.recv().await.unwrap()
}

fn appended(base: u64, count: u32, duplicate: bool) -> AckOutcome {
    AckOutcome::Appended { base: Some(Offset(base)), count, duplicate, duplicates: None }
}

/// Events with their offsets and payloads as text.
fn delivery(outgoing: Outgoing) -> (DeliverHeader, Vec<(u64, String)>) {
    let (Content::Delivery(Delivery { header, runs }), _) = outgoing.into_parts() else { panic!("events") };
    let events = runs.iter().flat_map(Run::batches).map(Result::unwrap).flat_map(|(base, batch)| {
        let text = |event: EventRef<'_>| {
            let payload = String::from_utf8(event.payload().unwrap().to_vec()).unwrap();
            (event.offset(base).0, payload)
        };
        batch.events().map(text).collect::<Vec<_>>()
    });
    (header, events.collect())
}

async fn next(consumer: &mut Consumer) -> Outgoing {
    let wait = tokio::time::timeout(Duration::from_secs(20), consumer.outgoing.recv());
    wait.await.expect("something comes").expect("the subscription lives").expect("it works")
}

async fn ack(consumer: &mut Consumer, sequence: u64, token: DeliveryToken, first: u64, last: u64) -> Settled {
    let (first, last) = (Offset(first), Offset(last));
    let verb = Verb { kind: VerbKind::Ack, partition: PartitionId(0), token, first, last };
    consumer.control.verbs(Verbs { sequence, verbs: vec![verb] }).await.unwrap();
    loop {
        if let (Content::Settled(settled), _) = next(consumer).await.into_parts() {
            return settled;
        }
    }
}

const PLENTY: Credit = Credit { events: 1_000_000, bytes: 1 << 30 };

#[tokio::test]
async fn offsets_are_dense_and_a_resend_gets_its_first_offsets() {
    let engine = Engine::start();
    engine.topic(1).await;
    let mut stream = engine.publisher();
    assert_eq!(publish(&mut stream, 1, 0, 3).await.outcome, appended(0, 3, false));
    assert_eq!(publish(&mut stream, 1, 3, 2).await.outcome, appended(3, 2, false));
    assert_eq!(publish(&mut stream, 2, 0, 1).await.outcome, appended(5, 1, false));
    assert_eq!(publish(&mut stream, 1, 0, 3).await.outcome, appended(0, 3, true));
    let AckOutcome::Refused(refusal) = publish(&mut stream, 1, 9, 1).await.outcome else { panic!("a gap") };
    assert_eq!(refusal.code, ErrorCode::SequenceGap);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_crash_keeps_every_acknowledged_event_and_what_the_producer_sent() {
    let engine = Engine::start();
    engine.topic(1).await;
    let mut stream = engine.publisher();
    assert_eq!(publish(&mut stream, 1, 0, 100).await.outcome, appended(0, 100, false));
    drop(stream);
    let engine = engine.restart().await;
    let mut stream = engine.publisher();
    assert_eq!(publish(&mut stream, 1, 0, 100).await.outcome, appended(0, 100, true));
    assert_eq!(publish(&mut stream, 1, 100, 1).await.outcome, appended(100, 1, false));
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_reader_with_tiny_credit_sees_every_event_once() {
    let engine = Engine::start();
    engine.topic(1).await;
    let mut stream = engine.publisher();
    let mut sent = 0;
    for count in [1, 2, 700, 3, 1_000] {
        publish(&mut stream, 1, sent, count).await;
        sent += count;
    }
    for credit in [1, 7, 600, 5_000] {
        let read = Read { from: Start::Earliest, ..Read::new("orders".parse().unwrap()) };
        let mut reader = engine.broker.read(&Principal::Local, read).await.unwrap();
        let mut seen = Vec::new();
        reader.credit.grant(Credit { events: credit, bytes: 1 << 40 }).await.unwrap();
        let mut left = credit;
        while let Some(frame) = reader.outgoing.recv().await {
            let frame = frame.unwrap();
            if matches!(frame.content(), Content::End(_)) {
                break;
            }
            let (header, events) = delivery(frame);
            assert_eq!(header.count as usize, events.len());
            left = left.checked_sub(u64::from(header.count)).expect("no more than was granted");
            seen.extend(events);
            if left == 0 {
                // The reader may have sent its last event with the last of the credit.
                let _ = reader.credit.grant(Credit { events: credit, bytes: 0 }).await;
                left = credit;
            }
        }
        let expected: Vec<_> = (0..sent).map(|number| (number, number.to_string())).collect();
        assert_eq!(seen, expected, "credit {credit}");
    }
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn what_is_acknowledged_is_not_delivered_after_a_crash_and_the_rest_is() {
    let engine = Engine::start();
    engine.topic(1).await;
    let mut stream = engine.publisher();
    publish(&mut stream, 1, 0, 10).await;
    let mut consumer = engine.subscribe(SubscriptionOptions::default()).await;
    assert!(consumer.subscribed.created);
    consumer.control.credit(PLENTY).await.unwrap();
    let (header, events) = delivery(next(&mut consumer).await);
    assert_eq!((header.attempt, events.len()), (1, 10));
    let settled = ack(&mut consumer, 1, header.token, 2, 6).await;
    assert_eq!((settled.sequence, settled.refused.len()), (1, 0));
    let settled = ack(&mut consumer, 2, DeliveryToken(header.token.0 ^ 1), 0, 1).await;
    assert_eq!(settled.refused[0].code, ErrorCode::DeliveryExpired);
    assert_eq!(engine.info().await.lag, 5);
    drop((consumer, stream));
    let engine = engine.restart().await;
    let mut consumer = engine.subscribe(SubscriptionOptions::default()).await;
    assert!(!consumer.subscribed.created);
    consumer.control.credit(PLENTY).await.unwrap();
    let mut offsets = Vec::new();
    while offsets.len() < 5 {
        offsets.extend(delivery(next(&mut consumer).await).1.into_iter().map(|(offset, _)| offset));
    }
    assert_eq!(offsets, [0, 1, 7, 8, 9]);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_consumer_that_goes_gives_its_events_to_the_one_that_stands_by() {
    let engine = Engine::start();
    engine.topic(1).await;
    let mut stream = engine.publisher();
    publish(&mut stream, 1, 0, 4).await;
    let options = SubscriptionOptions { order: Some(Order::Partition), ..SubscriptionOptions::default() };
    let mut first = engine.subscribe(options.clone()).await;
    let mut second = engine.subscribe(options).await;
    assert!(second.subscribed.standby);
    first.control.credit(PLENTY).await.unwrap();
    second.control.credit(PLENTY).await.unwrap();
    assert_eq!(delivery(next(&mut first).await).1.len(), 4);
    drop(first);
    let (header, events) = delivery(next(&mut second).await);
    assert_eq!((header.attempt, events.len()), (1, 4));
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_rejected_event_is_in_the_dead_letter_topic_with_its_reason() {
    let engine = Engine::start();
    engine.topic(1).await;
    let mut stream = engine.publisher();
    publish(&mut stream, 1, 0, 3).await;
    let options = SubscriptionOptions { order: Some(Order::Partition), ..SubscriptionOptions::default() };
    let mut consumer = engine.subscribe(options).await;
    consumer.control.credit(PLENTY).await.unwrap();
    let (header, _) = delivery(next(&mut consumer).await);
    let kind = VerbKind::reject("no such account");
    let verb =
        Verb { kind, partition: PartitionId(0), token: header.token, first: Offset(1), last: Offset(1) };
    consumer.control.verbs(Verbs { sequence: 1, verbs: vec![verb] }).await.unwrap();
    assert!(matches!(next(&mut consumer).await.content(), Content::Settled(_)));
    let read = Read { from: Start::Earliest, ..Read::new("dlq.orders.payment".parse().unwrap()) };
    let mut reader = engine.broker.read(&Principal::Local, read).await.unwrap();
    reader.credit.grant(PLENTY).await.unwrap();
    let (content, _) = reader.outgoing.recv().await.unwrap().unwrap().into_parts();
    let Content::Delivery(Delivery { runs, .. }) = content else { panic!("events") };
    let (_, batch) = runs[0].batches().next().unwrap().unwrap();
    let dead_letter = batch.events().next().unwrap();
    assert_eq!(dead_letter.payload(), Some(&b"1"[..]));
    assert_eq!(dead_letter.header("lv-dlq-reason"), Some(&b"rejected"[..]));
    assert_eq!(dead_letter.header("lv-dlq-error"), Some(&b"no such account"[..]));
    assert_eq!(dead_letter.header("lv-dlq-offset"), Some(&b"1"[..]));
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_failed_sync_acknowledges_nothing_and_reading_goes_on() {
    let engine = Engine::start();
    engine.topic(1).await;
    let mut stream = engine.publisher();
    publish(&mut stream, 1, 0, 5).await;
    engine.store.fail_next_sync();
    let AckOutcome::Refused(refusal) = publish(&mut stream, 1, 5, 5).await.outcome else {
        panic!("unsynced")
    };
    assert_eq!(refusal.code, ErrorCode::OutcomeUnknown);
    let AckOutcome::Refused(refusal) = publish(&mut stream, 1, 5, 5).await.outcome else { panic!("closed") };
    assert_eq!(refusal.code, ErrorCode::StorageFailed);
    assert!(!engine.broker.health().ready);
    let read = Read { from: Start::Earliest, ..Read::new("orders".parse().unwrap()) };
    let mut reader = engine.broker.read(&Principal::Local, read).await.unwrap();
    reader.credit.grant(PLENTY).await.unwrap();
    assert_eq!(delivery(reader.outgoing.recv().await.unwrap().unwrap()).1.len(), 5);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_full_store_takes_publishes_again_once_there_is_room() {
    let engine = Engine::start();
    engine.topic(1).await;
    let mut stream = engine.publisher();
    publish(&mut stream, 1, 0, 5).await;
    engine.store.set_full(true);
    let AckOutcome::Refused(refusal) = publish(&mut stream, 1, 5, 5).await.outcome else { panic!("full") };
    assert_eq!(refusal.code, ErrorCode::StorageFull);
    engine.store.set_full(false);
    let outcome = loop {
        match publish(&mut stream, 1, 5, 5).await.outcome {
            AckOutcome::Refused(refusal) if refusal.code.is_retryable() => {}
            outcome => break outcome,
        }
    };
    assert_eq!(outcome, appended(5, 5, false));
    engine.broker.shutdown().await;
}
