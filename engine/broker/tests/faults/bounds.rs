//! What a subscription may hold before nothing new is delivered, from both sides, and what it says that it waits for then.

use levada_broker::{Bounds, Consumer, ConsumerControl, Content, Delivery, Error, Outgoing, Principal};
use levada_protocol::{
    batch::{BatchBuilder, Stamp},
    deliver::Run,
    event::Event,
    ids::{Offset, PartitionId},
    publish::PublishHeader,
    request::{Order, SubscriptionOptions, TopicSettings, WaitingFor},
    verbs::{Credit, Verb, VerbKind, Verbs},
};
use tokio::{sync::mpsc, time::timeout};

use crate::support::{Engine, PLENTY, SOON, publish_bytes, take};

const ENDLESS: Credit = Credit { events: u64::MAX, bytes: u64::MAX };
const HOUR_MS: u32 = 3_600_000;
/// Offsets above the oldest one that is not acknowledged, itself included, which may be delivered.
const WINDOW: usize = 1 << 20;

async fn with(bounds: Bounds) -> Engine {
    let engine = Engine::with(|config| config.delivery = bounds);
    engine.topic("orders", TopicSettings::default()).await;
    engine
}

/// As many in flight as there may be, for as long as it takes.
fn wide(order: Order) -> SubscriptionOptions {
    SubscriptionOptions {
        order: Some(order),
        max_in_flight: Some(1 << 20),
        ack_timeout_ms: Some(HOUR_MS),
        ..SubscriptionOptions::default()
    }
}

/// A consumer while something else waits for room on its behalf.
struct Receiving {
    outgoing: mpsc::Receiver<Result<Outgoing, Error>>,
    control: ConsumerControl,
}

async fn credit(consumer: &Consumer, events: u64) {
    consumer.control.credit(Credit { events, ..PLENTY }).await.unwrap();
}

async fn say(consumer: &Consumer, sequence: u64, verbs: Vec<Verb>) {
    consumer.control.verbs(Verbs { sequence, verbs }).await.unwrap();
}

fn nack(verb: &mut Verb, delay_ms: u32) {
    verb.kind = VerbKind::Nack { delay_ms: Some(delay_ms) };
}

/// The offsets of the next events, which are given back.
async fn offsets(consumer: &mut Consumer, count: usize) -> (Vec<u64>, Vec<Verb>) {
    let taken = take(&mut consumer.outgoing, count).await;
    (taken.iter().map(|verb| verb.first.0).collect(), taken)
}

/// What the subscription waits for, once it is of this kind.
async fn waits(engine: &Engine, kind: &str) -> WaitingFor {
    let waiting = async {
        while engine.info().await.waiting_for.as_str() != kind {
            tokio::task::yield_now().await;
        }
    };
    let came = timeout(SOON, waiting).await;
    let waiting_for = engine.info().await.waiting_for;
    assert!(came.is_ok(), "it waits for {waiting_for}");
    waiting_for
}

#[tokio::test]
async fn with_as_many_runs_of_failed_events_as_may_be_no_new_event_comes_until_one_ends() {
    let engine = with(Bounds { failed_runs_max: 1_024, ..Bounds::default() }).await;
    engine.publish("orders", 2_100).await;
    let mut consumer = engine.subscribe(wide(Order::None)).await;
    credit(&consumer, 2_046).await;
    let mut verbs = take(&mut consumer.outgoing, 2_046).await;
    verbs.iter_mut().step_by(2).for_each(|verb| nack(verb, HOUR_MS));
    say(&consumer, 1, verbs).await;
    credit(&consumer, 1).await;
    let (new, mut verbs) = offsets(&mut consumer, 1).await;
    assert_eq!(new, [2_046], "behind 1,023 failed runs");
    nack(&mut verbs[0], 0);
    say(&consumer, 2, verbs).await;
    // What failed is alone with its consumer; others have room for new ones.
    let mut retrying = engine.subscribe(wide(Order::None)).await;
    credit(&retrying, 1).await;
    let (again, verbs) = offsets(&mut retrying, 1).await;
    assert_eq!(again, [2_046], "1,024 failed runs let none but the failed ones by");
    credit(&consumer, 3).await;
    let waiting = waits(&engine, "failures").await;
    let said = "the next attempt of offset 0 of partition 0, which failed once, as 1024 runs of failed events are as many as \
                may be";
    assert_eq!(waiting.to_string(), said);
    say(&retrying, 1, verbs).await;
    let (new, _) = offsets(&mut consumer, 3).await;
    assert_eq!(new, [2_047, 2_048, 2_049], "one of them ended");
    engine.broker.shutdown().await;
}

/// Publishes events that have the key `held` and one that no other has in turn.
async fn publish_keys(engine: &Engine, count: usize) {
    let mut builder = BatchBuilder::new();
    for number in 0..count {
        let key = if number.is_multiple_of(2) { "held".to_owned() } else { number.to_string() };
        builder.push(&Event::new("x").with_key(key)).unwrap();
    }
    let mut stream = engine.broker.open_publish(&Principal::Local, &"orders".parse().unwrap()).unwrap();
    let (partition, durability, expect_offset) = (PartitionId(0), None, None);
    let header = PublishHeader { correlation: 1, partition, durability, expect_offset, due: None };
    stream.submitter().submit(header, builder.finish(Stamp::ENGINE)).await.unwrap();
    timeout(SOON, stream.acks.recv()).await.unwrap().unwrap();
}

const KEYED: usize = 4_000;

/// A consumer that has the first event of the key `held`, what acknowledges that, and one that may have all others.
async fn share_keys(engine: &Engine) -> (Consumer, Vec<Verb>, Consumer) {
    publish_keys(engine, KEYED).await;
    let mut first = engine.subscribe(wide(Order::Key)).await;
    let second = engine.subscribe(wide(Order::Key)).await;
    credit(&first, 1).await;
    let (held, verbs) = offsets(&mut first, 1).await;
    assert_eq!(held, [0]);
    credit(&second, KEYED as u64).await;
    (first, verbs, second)
}

#[tokio::test]
async fn with_as_much_waiting_for_its_key_as_may_be_no_new_event_comes_until_the_key_is_free() {
    let engine = with(Bounds { waiting_bytes_max: 64 << 10, ..Bounds::default() }).await;
    let (first, verbs, mut second) = share_keys(&engine).await;
    let waiting = waits(&engine, "keys").await;
    let WaitingFor::Keys { events, .. } = &waiting else { panic!("{waiting}") };
    assert!((100..KEYED as u64 / 2 - 1).contains(events), "{events}");
    let said = format!(
        "the acknowledgement of offset 0 of partition 0 by test, as {events} events wait for earlier ones of their keys"
    );
    assert_eq!(waiting.to_string(), said);
    let others = engine.info().await.in_flight - 1;
    assert!(others.abs_diff(*events) <= 1, "{others} were delivered before {events} waited");
    say(&first, 1, verbs).await;
    let (mut all, _) = offsets(&mut second, KEYED - 1).await;
    all.sort_unstable();
    assert!(all.into_iter().eq(1..KEYED as u64), "the key is free");
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn by_default_thousands_of_events_wait_for_their_key_and_all_others_are_delivered() {
    let engine = with(Bounds::default()).await;
    let (_first, _, mut second) = share_keys(&engine).await;
    let (others, _) = offsets(&mut second, KEYED / 2).await;
    assert!(others.into_iter().eq((1..KEYED as u64).step_by(2)));
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_consumer_with_as_many_bytes_in_flight_as_it_may_have_gets_more_once_it_acknowledged_some() {
    for (consumer_bytes_max, at_once) in [(30_000, 10), (Bounds::default().consumer_bytes_max, 20)] {
        let engine = with(Bounds { consumer_bytes_max, ..Bounds::default() }).await;
        publish_bytes(&engine, 20, 3_000).await;
        let mut consumer = engine.subscribe(wide(Order::None)).await;
        consumer.control.credit(PLENTY).await.unwrap();
        let verbs = take(&mut consumer.outgoing, at_once).await;
        let WaitingFor::Acknowledgements { events, .. } = waits(&engine, "acknowledgements").await else {
            panic!("no acknowledgements")
        };
        assert_eq!((events, consumer.outgoing.len()), (at_once as u64, 0), "with {consumer_bytes_max}");
        say(&consumer, 1, verbs).await;
        let (rest, _) = offsets(&mut consumer, 20 - at_once).await;
        assert!(rest.into_iter().eq(events..20), "there is room again");
        engine.broker.shutdown().await;
    }
}

/// Takes events in order, each once, and acknowledges all but the first until the next one is that of an offset; returns
/// what acknowledges the first.
async fn take_all_behind_the_first(consumer: &mut Receiving, next_offset: u64) -> Verb {
    let (mut next, mut first) = (0, None);
    while next < next_offset {
        let came = timeout(SOON, consumer.outgoing.recv()).await.expect("more comes").unwrap().unwrap();
        let Content::Delivery(Delivery { header, runs }) = came.content() else { continue };
        let partition = header.partition;
        for (base, batch) in runs.iter().flat_map(Run::batches).map(Result::unwrap) {
            let of = |first: u64, last: u64| Verb {
                kind: VerbKind::Ack,
                partition,
                token: header.token,
                first: Offset(first),
                last: Offset(last),
            };
            assert_eq!(base.0, next);
            next += u64::from(batch.count());
            first.get_or_insert_with(|| of(0, 0));
            let verbs = vec![of(base.0.max(1), next - 1)];
            consumer.control.verbs(Verbs { sequence: next, verbs }).await.unwrap();
        }
    }
    assert_eq!(next, next_offset);
    first.expect("there is one")
}

#[tokio::test]
async fn a_million_events_above_one_that_is_not_acknowledged_are_delivered_and_no_more() {
    let engine = with(Bounds::default()).await;
    for _ in 0..WINDOW / 8_192 {
        engine.publish("orders", 8_192).await;
    }
    engine.publish("orders", 1).await;
    let Consumer { outgoing, control, room, .. } = engine.subscribe(wide(Order::None)).await;
    let mut consumer = Receiving { outgoing, control };
    consumer.control.credit(ENDLESS).await.unwrap();
    let work = async {
        let first = take_all_behind_the_first(&mut consumer, WINDOW as u64).await;
        let said =
            "the acknowledgement of offset 0 of partition 0, above which too many events have been delivered";
        assert_eq!(waits(&engine, "window").await.to_string(), said);
        consumer.control.verbs(Verbs { sequence: u64::MAX, verbs: vec![first] }).await.unwrap();
        take(&mut consumer.outgoing, 1).await[0].first
    };
    let next = tokio::select! {
        next = work => next,
        never = room.run() => match never {},
    };
    assert_eq!(next, Offset(WINDOW as u64));
    engine.broker.shutdown().await;
}
