//! Dead letters that are redriven to their subscription alone: it gets each event once, at its place, whatever goes wrong
//! in between, and nobody else gets any.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU64, Ordering},
};

use levada_broker::{Consumer, Content, Principal};
use levada_protocol::{
    deliver::Run,
    error::ErrorCode,
    event::Event,
    ids::{DeliveryToken, Offset, PartitionId},
    limits::REDRIVES_MAX,
    request::{
        AckedDelivery, DeadLetterSelection, Order, Redrive, RedriveOutcome, Request, Response, StageSpec,
        Start, Subscribe, SubscriptionInfo, SubscriptionOptions, TopicSettings, TransactionAcks,
    },
    verbs::{RefusedVerb, Verb, VerbKind, Verbs},
};
use tokio::time::timeout;

use crate::{
    redrive::{
        DEAD, Kill, all, already, done, events, header, killed, publish, redrive, redrives, reject,
        side_rows, these, topic, try_step, until_dead, with_dead_letters,
    },
    support::{Engine, PLENTY, SOON},
};

/// All dead letters, back to the subscription.
fn back() -> Redrive {
    Redrive { to: None, ..all("orders") }
}

fn these_back(offsets: &[u64]) -> Redrive {
    Redrive { to: None, ..these("orders", offsets) }
}

/// An event that was delivered.
#[derive(Debug, Clone)]
struct Got {
    partition: PartitionId,
    offset: Offset,
    token: DeliveryToken,
    attempt: u8,
    event: Event,
}

impl Got {
    fn verb(&self, kind: VerbKind) -> Verb {
        Verb { kind, partition: self.partition, token: self.token, first: self.offset, last: self.offset }
    }
}

/// The next `count` events.
async fn get(consumer: &mut Consumer, count: usize) -> Vec<Got> {
    let mut got = Vec::new();
    while got.len() < count {
        let next = timeout(SOON, consumer.outgoing.recv()).await.expect("it is delivered").unwrap().unwrap();
        let Content::Delivery(delivery) = next.content() else { continue };
        let (partition, token) = (delivery.header.partition, delivery.header.token);
        let attempt = delivery.header.attempt;
        for (base, batch) in delivery.runs.iter().flat_map(Run::batches).map(Result::unwrap) {
            for event in batch.events() {
                let (offset, event) = (event.offset(base), event.to_event(&batch));
                got.push(Got { partition, offset, token, attempt, event });
            }
        }
    }
    assert_eq!(got.len(), count, "{got:?}");
    got
}

async fn say(consumer: &Consumer, verbs: Vec<Verb>) {
    static SEQUENCE: AtomicU64 = AtomicU64::new(1);
    let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed);
    consumer.control.verbs(Verbs { sequence, verbs }).await.unwrap();
}

async fn ack(consumer: &Consumer, got: &[Got]) {
    say(consumer, got.iter().map(|it| it.verb(VerbKind::Ack)).collect()).await;
}

/// The next verbs that are refused.
async fn refused(consumer: &mut Consumer) -> Vec<RefusedVerb> {
    loop {
        let next = timeout(SOON, consumer.outgoing.recv()).await.expect("it is answered").unwrap().unwrap();
        if let Content::Settled(settled) = next.content()
            && !settled.refused.is_empty()
        {
            return settled.refused.clone();
        }
    }
}

fn offsets(got: &[Got]) -> Vec<u64> {
    got.iter().map(|it| it.offset.0).collect()
}

/// A consumer of `orders/payment` with these options, which it has from then on.
async fn attach(engine: &Engine, options: SubscriptionOptions) -> Consumer {
    let exists = try_set(engine, options.clone()).await;
    let wanted = Engine::wanted(if exists { None } else { Some(options) });
    let subscribing = engine.broker.subscribe(&Principal::Local, wanted);
    let consumer = timeout(SOON, subscribing).await.unwrap().unwrap();
    consumer.control.credit(PLENTY).await.unwrap();
    consumer
}

/// Changes options of `orders/payment`; false if there is none.
async fn try_set(engine: &Engine, options: SubscriptionOptions) -> bool {
    let (topic, name) = (topic("orders"), "payment".parse().unwrap());
    let set = Request::SetSubscription { topic, name, options };
    let answered = timeout(SOON, engine.broker.request(&Principal::Local, set, None)).await.unwrap();
    match answered {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.code(), ErrorCode::SubscriptionNotFound);
            false
        }
    }
}

/// Another subscription of the same topic.
async fn inventory(engine: &Engine) -> Consumer {
    let (topic, name) = (topic("orders"), "inventory".parse().unwrap());
    let wanted = Subscribe { from: Start::Earliest, ..Subscribe::new(topic, name) };
    let wanted = Subscribe { options: Some(SubscriptionOptions::default()), ..wanted };
    let consumer = engine.broker.subscribe(&Principal::Local, wanted).await.unwrap();
    consumer.control.credit(PLENTY).await.unwrap();
    consumer
}

async fn info_of_inventory(engine: &Engine) -> SubscriptionInfo {
    let (topic, name) = (topic("orders"), "inventory".parse().unwrap());
    let Response::Subscription(info) = engine.ask(Request::DescribeSubscription { topic, name }).await else {
        panic!("no subscription")
    };
    *info
}

#[tokio::test]
async fn an_event_comes_back_as_it_was_to_its_subscription_alone() {
    let engine = with_dead_letters(12).await;
    let mut other = inventory(&engine).await;
    let all_of_it = get(&mut other, 12).await;
    ack(&other, &all_of_it).await;
    let outcomes = redrive(&engine, these_back(&[11, 3, 40])).await;
    assert_eq!(done(&outcomes), [3, 11]);
    for info in redrives(&engine).await {
        assert!(outcomes.contains(&RedriveOutcome::Redriven(info.clone())), "{info:?}");
        let place = (info.to.as_str(), info.to_partition, info.to_offset);
        assert_eq!((place, info.alone, info.times), (("orders", 0, info.offset), true, 1));
    }
    let info = engine.info().await;
    assert_eq!((info.redriven, info.lag), (2, 0));

    let mut payment = attach(&engine, SubscriptionOptions::default()).await;
    let got = get(&mut payment, 2).await;
    assert_eq!(offsets(&got), [3, 11]);
    let source = events(&engine, "orders").await;
    assert_eq!(source.len(), 12, "nothing was appended");
    for it in &got {
        let was = &source[&(it.partition.0, it.offset.0)];
        assert_eq!((&it.event.key, &it.event.id, &it.event.payload), (&was.key, &was.id, &was.payload));
        assert_eq!((it.attempt, header(&it.event, "own")), (1, header(was, "own")));
        assert_eq!(header(&it.event, "lv-redrives").as_deref(), Some("1"));
        assert_eq!(it.event.headers.len(), 2, "nothing of the dead letter is left: {:?}", it.event.headers);
    }
    ack(&payment, &got).await;
    engine.until_info(|info| info.redriven == 0 && info.in_flight == 0).await;
    assert_eq!(side_rows(&engine), 3, "what is noted of two dead letters, and the end of the queue");

    // What comes next, comes to both; before it the other one got nothing.
    publish(&engine, 12, 1).await;
    assert_eq!(offsets(&get(&mut other, 1).await), [12]);
    assert_eq!(offsets(&get(&mut payment, 1).await), [12]);
    let inventory = info_of_inventory(&engine).await;
    assert_eq!((inventory.redelivered, inventory.redriven), (0, 0));
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_redrive_to_the_subscription_that_is_killed_at_any_moment_gives_it_each_event_once() {
    for kill in [Kill::Commit, Kill::Sync, Kill::Answer] {
        let mut engine = with_dead_letters(1_500).await;
        let first = try_step(&engine, back()).await.unwrap();
        let next = first.stretch.next.expect("there is more than one step");
        let second = Redrive { from: next, until: Some(first.stretch.until), ..back() };
        engine = killed(engine, kill, second).await;
        let outcomes = redrive(&engine, back()).await;
        assert!(already(&outcomes).len() >= first.outcomes.len(), "{kill:?}: what was done stays done");
        assert_eq!(done(&outcomes).len() + already(&outcomes).len(), 1_500, "{kill:?}");
        assert_eq!(engine.info().await.redriven, 1_500, "{kill:?}");
        let options = SubscriptionOptions { max_in_flight: Some(100), ..SubscriptionOptions::default() };
        let mut consumer = attach(&engine, options).await;
        let mut counts = BTreeMap::<u64, usize>::new();
        for _ in 0..1_500 {
            let got = get(&mut consumer, 1).await;
            *counts.entry(got[0].offset.0).or_default() += 1;
            ack(&consumer, &got).await;
        }
        assert_eq!(counts, (0..1_500).map(|offset| (offset, 1)).collect(), "{kill:?}");
        engine.until_info(|info| (info.redriven, info.in_flight) == (0, 0)).await;
        assert_eq!(side_rows(&engine), 1_501, "{kill:?}: nothing of the queue is left but its end");
        engine.broker.shutdown().await;
    }
}

#[tokio::test]
async fn what_is_not_durable_yet_is_not_delivered() {
    let engine = with_dead_letters(5).await;
    let mut consumer = attach(&engine, SubscriptionOptions::default()).await;
    engine.store.hold(true);
    let step = try_step(&engine, back());
    let crash = async {
        timeout(SOON, engine.store.entered.notified()).await.unwrap();
        assert_eq!(engine.info().await.redriven, 0);
        engine.store.panic_at_sync.store(true, Ordering::Release);
        engine.store.hold(false);
    };
    assert!(tokio::join!(step, crash).0.is_err());
    assert!(
        !matches!(consumer.outgoing.try_recv(), Ok(Ok(next)) if matches!(next.content(), Content::Delivery(_)))
    );
    engine.store.inner.crash();
    let engine = engine.restart().await;
    assert_eq!((engine.info().await.redriven, side_rows(&engine)), (0, 0));
    assert_eq!(done(&redrive(&engine, back()).await).len(), 5);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_disk_that_fills_up_in_between_loses_and_doubles_nothing() {
    let engine = with_dead_letters(20).await;
    engine.store.fill_at_redrive.store(true, Ordering::Release);
    let failed = try_step(&engine, back()).await.unwrap_err();
    assert_eq!(failed.code(), ErrorCode::OutcomeUnknown);
    engine.store.inner.set_full(false);
    let mut outcomes = Err(failed);
    while outcomes.is_err() {
        tokio::task::yield_now().await;
        outcomes = try_step(&engine, back()).await;
    }
    assert_eq!(done(&outcomes.unwrap().outcomes).len(), 20, "none of it was kept");
    let mut consumer = attach(&engine, SubscriptionOptions::default()).await;
    let got = get(&mut consumer, 20).await;
    assert_eq!(offsets(&got), (0..20).collect::<Vec<_>>());
    ack(&consumer, &got).await;
    engine.until_info(|info| info.redriven == 0).await;
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn what_is_acknowledged_and_how_often_the_rest_failed_survives_a_crash() {
    let engine = with_dead_letters(5).await;
    assert_eq!(done(&redrive(&engine, back()).await).len(), 5);
    let options = SubscriptionOptions::default();
    let mut consumer = attach(&engine, options.clone()).await;
    let got = get(&mut consumer, 5).await;
    say(&consumer, vec![got[2].verb(VerbKind::Nack { delay_ms: Some(0) })]).await;
    let again = get(&mut consumer, 1).await;
    assert_eq!((again[0].offset, again[0].attempt), (got[2].offset, 2));
    ack(&consumer, &[got[1].clone(), got[4].clone()]).await;
    engine.until_info(|info| info.redriven == 3).await;
    let engine = engine.restart().await;
    engine.until_info(|info| info.redriven == 3).await;
    let mut consumer = attach(&engine, options).await;
    let rest = get(&mut consumer, 3).await;
    let attempts: BTreeMap<u64, u8> = rest.iter().map(|it| (it.offset.0, it.attempt)).collect();
    assert_eq!(attempts, BTreeMap::from([(0, 1), (2, 2), (3, 1)]));
    // A later redrive does not take the numbers of those that came to their end.
    let forced = Redrive { force: true, ..these_back(&[4]) };
    assert_eq!(done(&redrive(&engine, forced).await), [4]);
    assert_eq!(offsets(&get(&mut consumer, 1).await), [4]);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn an_event_that_fails_again_is_a_dead_letter_again_and_comes_back_so_often_and_no_more() {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    publish(&engine, 0, 1).await;
    let mut consumer = attach(&engine, SubscriptionOptions::default()).await;
    for failed in 0..u64::from(REDRIVES_MAX) {
        reject(&mut consumer, 1).await;
        until_dead(&engine, failed + 1).await;
        let outcomes = redrive(&engine, back()).await;
        assert_eq!((done(&outcomes), already(&outcomes).len() as u64), (vec![failed], failed));
    }
    reject(&mut consumer, 1).await;
    let last = u64::from(REDRIVES_MAX);
    until_dead(&engine, last + 1).await;
    let letter = events(&engine, DEAD).await[&(0, last)].clone();
    let said = ["lv-redrives", "lv-dlq-topic", "lv-dlq-partition", "lv-dlq-offset", "lv-dlq-attempts", "own"];
    let said = said.map(|name| header(&letter, name).unwrap_or_default());
    assert_eq!(said, ["8", "orders", "0", "0", "1", "0"]);
    engine.until_info(|info| info.redriven == 0).await;
    let outcomes = redrive(&engine, back()).await;
    assert_eq!(outcomes.last(), Some(&RedriveOutcome::OverLimit { offset: last, redrives: REDRIVES_MAX }));
    assert!(done(&outcomes).is_empty());
    let forced = Redrive { force: true, ..these_back(&[last]) };
    assert_eq!(done(&redrive(&engine, forced).await), [last]);
    assert_eq!(offsets(&get(&mut consumer, 1).await), [0]);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn an_event_that_is_tried_too_often_is_a_dead_letter_again() {
    let engine = with_dead_letters(1).await;
    redrive(&engine, back()).await;
    let options = SubscriptionOptions { max_attempts: Some(2), ..SubscriptionOptions::default() };
    let mut consumer = attach(&engine, options).await;
    for attempt in 1..=2 {
        let got = get(&mut consumer, 1).await;
        assert_eq!(got[0].attempt, attempt);
        say(&consumer, vec![got[0].verb(VerbKind::Nack { delay_ms: Some(0) })]).await;
    }
    until_dead(&engine, 2).await;
    let letter = events(&engine, DEAD).await[&(0, 1)].clone();
    assert_eq!(header(&letter, "lv-dlq-reason").as_deref(), Some("max_attempts"));
    assert_eq!(header(&letter, "lv-dlq-attempts").as_deref(), Some("2"));
    assert_eq!(header(&letter, "lv-redrives").as_deref(), Some("1"));
    engine.until_info(|info| info.redriven == 0).await;
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_verb_is_about_the_delivery_that_its_token_names_wherever_else_the_event_is() {
    let engine = with_dead_letters(3).await;
    redrive(&engine, back()).await;
    let twice = Redrive { force: true, ..these_back(&[1]) };
    assert_eq!(done(&redrive(&engine, twice).await), [1]);
    // Moved back, the subscription gets the log again, and what was redriven stays.
    let to = Start::Earliest;
    let (of, name) = (topic("orders"), "payment".parse().unwrap());
    engine.ask(Request::SeekSubscription { topic: of, name, to, partitions: Vec::new() }).await;
    engine.until_info(|info| (info.lag, info.redriven) == (3, 4)).await;
    let options = SubscriptionOptions { order: Some(Order::None), ..SubscriptionOptions::default() };
    let mut consumer = attach(&engine, options).await;
    let got = get(&mut consumer, 7).await;
    let (queued, log): (Vec<Got>, Vec<Got>) =
        got.into_iter().partition(|it| header(&it.event, "lv-redrives").is_some());
    assert_eq!((offsets(&log), queued.len()), (vec![0, 1, 2], 4));
    let tokens: BTreeSet<u64> = queued.iter().map(|it| it.token.0).collect();
    assert_eq!(tokens.len(), 4, "each is a delivery of its own");
    let ones: Vec<&Got> = queued.iter().filter(|it| it.offset.0 == 1).collect();
    assert_eq!(ones.len(), 2);
    ack(&consumer, &[ones[0].clone()]).await;
    engine.until_info(|info| (info.lag, info.redriven) == (3, 3)).await;
    ack(&consumer, &log).await;
    engine.until_info(|info| (info.lag, info.redriven) == (0, 3)).await;
    // Neither is there anything left to say of those, nor of an event by another's token, nor of its number in the queue.
    let stolen = Verb { token: queued[0].token, ..ones[1].verb(VerbKind::Ack) };
    let stolen =
        if queued[0].offset.0 == 1 { Verb { first: Offset(0), last: Offset(0), ..stolen } } else { stolen };
    let numbered = Verb { partition: PartitionId(1), ..queued[0].verb(VerbKind::Ack) };
    for verb in [ones[0].verb(VerbKind::Ack), log[1].verb(VerbKind::Ack), stolen, numbered] {
        say(&consumer, vec![verb.clone()]).await;
        let told = refused(&mut consumer).await;
        let expected = RefusedVerb {
            partition: verb.partition,
            first: verb.first,
            last: verb.last,
            code: ErrorCode::DeliveryExpired,
        };
        assert_eq!(told, [expected], "{verb:?}");
    }
    let rest: Vec<Got> = queued.iter().filter(|it| it.token != ones[0].token).cloned().collect();
    ack(&consumer, &rest).await;
    engine.until_info(|info| (info.lag, info.redriven) == (0, 0)).await;
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn an_event_that_waits_for_its_next_attempt_blocks_neither_the_log_nor_other_redriven_events() {
    for order in [Order::Key, Order::None] {
        let engine = with_dead_letters(3).await;
        redrive(&engine, back()).await;
        let options = SubscriptionOptions { order: Some(order), ..SubscriptionOptions::default() };
        let mut consumer = attach(&engine, options).await;
        let got = get(&mut consumer, 3).await;
        say(&consumer, vec![got[0].verb(VerbKind::Nack { delay_ms: Some(3_600_000) })]).await;
        ack(&consumer, &got[1..]).await;
        publish(&engine, 3, 10).await;
        let log = get(&mut consumer, 10).await;
        assert_eq!(offsets(&log), (3..13).collect::<Vec<_>>(), "{order:?}: also one of the key that waits");
        ack(&consumer, &log).await;
        engine.until_info(|info| (info.lag, info.redriven) == (0, 1)).await;
        engine.broker.shutdown().await;
    }
}

#[tokio::test]
async fn redriven_events_of_one_key_keep_their_order_among_each_other() {
    let engine = with_dead_letters(21).await;
    let mut one = attach(&engine, SubscriptionOptions::default()).await;
    redrive(&engine, these_back(&[0])).await;
    let first = get(&mut one, 1).await;
    let mut other = attach(&engine, SubscriptionOptions::default()).await;
    redrive(&engine, these_back(&[10, 20, 5])).await;
    assert_eq!(offsets(&get(&mut other, 1).await), [5], "it has more room, and another key");
    let behind = get(&mut one, 2).await;
    assert_eq!((offsets(&first), offsets(&behind)), (vec![0], vec![10, 20]), "to whoever holds their key");
    ack(&one, &first).await;
    ack(&one, &behind).await;
    engine.until_info(|info| info.redriven == 1).await;
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn another_owner_goes_on_with_what_was_redriven_and_what_came_meanwhile() {
    let engine = with_dead_letters(6).await;
    redrive(&engine, these_back(&[0, 1])).await;
    let mut consumer = attach(&engine, SubscriptionOptions::default()).await;
    assert_eq!(get(&mut consumer, 2).await.len(), 2);
    let options = SubscriptionOptions { ack_timeout_ms: Some(5_000), ..SubscriptionOptions::default() };
    let setting = try_set(&engine, options.clone());
    let (_, outcomes) = tokio::join!(setting, redrive(&engine, these_back(&[2, 3, 4, 5])));
    assert_eq!(done(&outcomes).len(), 4);
    let mut consumer = attach(&engine, options).await;
    let got = get(&mut consumer, 6).await;
    assert_eq!(offsets(&got).into_iter().collect::<BTreeSet<_>>(), (0..6).collect());
    ack(&consumer, &got).await;
    engine.until_info(|info| info.redriven == 0).await;
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn redriven_events_pass_the_chain_again_and_a_transaction_may_acknowledge_them() {
    let engine = with_dead_letters(4).await;
    engine.topic("payments", TopicSettings::default()).await;
    engine.deploy(b"a").await;
    let chain = Some(vec![StageSpec { plugin: "keep".to_owned(), ..StageSpec::default() }]);
    let options = SubscriptionOptions { chain, ..SubscriptionOptions::default() };
    redrive(&engine, back()).await;
    let mut consumer = attach(&engine, options).await;
    let got = get(&mut consumer, 4).await;
    assert_eq!(offsets(&got), [0, 1, 2, 3]);
    let deliveries = got[..2].iter().map(|it| AckedDelivery {
        token: it.token.0,
        partition: it.partition.0,
        first: it.offset.0,
        last: it.offset.0,
        events: 1,
    });
    let acks = TransactionAcks {
        topic: topic("orders"),
        subscription: "payment".parse().unwrap(),
        deliveries: deliveries.collect(),
    };
    let (transact, batches) = crate::transactions::paying("a", acks);
    engine.broker.transact(&Principal::Local, transact, batches).await.unwrap();
    engine.until_info(|info| info.redriven == 2).await;
    let engine = engine.restart().await;
    assert_eq!((engine.info().await.redriven, events(&engine, "payments").await.len()), (2, 1));
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_redrive_without_a_subscription_to_go_back_to_is_refused() {
    let engine = with_dead_letters(2).await;
    redrive(&engine, these_back(&[0])).await;
    let of_route = Redrive { topic: topic("dlq.orders.route-big"), ..back() };
    let code = |result: Result<_, levada_broker::Error>| result.map(|_| ()).unwrap_err();
    let route = code(try_step(&engine, of_route).await);
    assert_eq!(route.code(), ErrorCode::InvalidArgument);
    assert!(route.to_string().contains("orders/route-big names a route"), "{route}");
    let delete = |force| Request::DeleteSubscription {
        topic: topic("orders"),
        name: "payment".parse().unwrap(),
        force,
        with_dead_letters: false,
    };
    let refused = engine.broker.request(&Principal::Local, delete(false), None).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::SubscriptionInUse);
    assert!(refused.to_string().contains("1 event that was redriven to it"), "{refused}");
    engine.ask(delete(true)).await;
    assert_eq!(
        side_rows(&engine),
        1,
        "the queue went with the subscription, not what is known of the dead letter"
    );
    let gone = code(try_step(&engine, back()).await);
    assert_eq!(gone.code(), ErrorCode::SubscriptionNotFound);
    assert!(gone.to_string().contains("redrive them to a topic"), "{gone}");
    // Another one of its name may take them.
    let mut consumer = attach(&engine, SubscriptionOptions::default()).await;
    let log = get(&mut consumer, 2).await;
    ack(&consumer, &log).await;
    assert_eq!(done(&redrive(&engine, back()).await), [1]);
    let got = get(&mut consumer, 1).await;
    assert_eq!((offsets(&got), header(&got[0].event, "lv-redrives").as_deref()), (vec![1], Some("1")));
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn selections_steps_and_repeats_are_as_for_a_topic() {
    let engine = with_dead_letters(30).await;
    let condition = "n >= 10 and header.lv-dlq-error = \"reason 1\"".to_owned();
    let some = Redrive { select: DeadLetterSelection::Where { condition }, ..back() };
    let expected: Vec<u64> = (10..30).filter(|number| number % 3 == 1).collect();
    assert_eq!(done(&redrive(&engine, some.clone()).await), expected);
    // What went back to the subscription is left alone wherever the next redrive goes, and the other way round.
    let rest = redrive(&engine, all("repaired")).await;
    assert_eq!(already(&rest), expected);
    assert_eq!(done(&redrive(&engine, back()).await).len(), 0);
    let (one, other) = tokio::join!(
        redrive(&engine, Redrive { force: true, ..these_back(&[0]) }),
        redrive(&engine, Redrive { force: true, ..these("repaired", &[0]) })
    );
    assert_eq!((done(&one), done(&other)), (vec![0], vec![0]));
    assert_eq!(redrives(&engine).await[0].times, 3);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_queue_to_which_nothing_was_redriven_is_never_read() {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    let reads = engine.store.side_reads.load(Ordering::Acquire);
    let mut consumer =
        attach(&engine, SubscriptionOptions { order: Some(Order::None), ..SubscriptionOptions::default() })
            .await;
    publish(&engine, 0, 500).await;
    let got = get(&mut consumer, 500).await;
    say(&consumer, vec![got[7].verb(VerbKind::Nack { delay_ms: Some(0) })]).await;
    let again = get(&mut consumer, 1).await;
    let acked: Vec<Got> = got.into_iter().filter(|it| it.offset.0 != 7).chain(again).collect();
    ack(&consumer, &acked).await;
    engine.until_info(|info| info.lag == 0).await;
    assert_eq!((engine.store.side_reads.load(Ordering::Acquire), side_rows(&engine)), (reads, 0));
    engine.broker.shutdown().await;
}
