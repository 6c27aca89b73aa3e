//! Consuming: deliveries, verbs, credit, losses.

use levada_client::{
    Delivery, Error, ErrorCode, Offset, PartitionId, Prefetch, Refusal, SubscribeOptions, Subscriber,
    SubscriptionOptions,
    protocol::verbs::{RefusedVerb, Rejection, VerbKind},
};

use crate::support::{
    Engine,
    streams::{numbered, scattered},
};

async fn attach(engine: &Engine, options: SubscribeOptions) -> Subscriber {
    engine.client().await.subscribe(options).await.unwrap()
}

fn payment() -> SubscribeOptions {
    SubscribeOptions { prefetch: Prefetch::All, ..SubscribeOptions::new("orders", "payment") }
}

fn offsets(delivery: &Delivery) -> Vec<u64> {
    for (offset, _, event) in delivery.events() {
        assert_eq!(event.payload().unwrap(), offset.to_string().as_bytes());
    }
    delivery.events().map(|(offset, _, _)| offset.0).collect()
}

#[tokio::test]
async fn deliveries_come_whole_and_in_order() {
    let engine = Engine::start(1);
    engine.inner.change(|world| world.deliveries.extend([numbered(0, 3, 1), numbered(3, 400, 2)]));
    let mut subscriber = attach(&engine, payment()).await;
    let first = subscriber.next_delivery().await.unwrap().unwrap();
    assert_eq!((first.partition(), first.attempt(), first.count()), (PartitionId(0), 1, 3));
    assert_eq!(offsets(&first), [0, 1, 2]);
    let second = subscriber.next_delivery().await.unwrap().unwrap();
    assert_eq!((second.first(), second.last()), (Offset(3), Offset(402)));
    assert_eq!(offsets(&second), (3..403).collect::<Vec<_>>());
    let (offset, event) = second.to_events().last().unwrap();
    assert_eq!((offset, event.payload.unwrap()), (Offset(402), "402".into()));
}

#[tokio::test]
async fn acks_of_single_events_travel_as_ranges_and_are_confirmed() {
    let engine = Engine::start(1);
    engine.inner.change(|world| world.deliveries.extend([numbered(0, 100, 1), numbered(100, 50, 2)]));
    let mut subscriber = attach(&engine, payment()).await;
    for _ in 0..2 {
        let delivery = subscriber.next_delivery().await.unwrap().unwrap();
        for offset in offsets(&delivery) {
            delivery.ack_range(Offset(offset)..=Offset(offset));
        }
    }
    subscriber.confirmed().await.unwrap();
    let world = engine.inner.world();
    let ranges: Vec<_> = world.verbs.iter().map(|verb| (verb.token.0, verb.first.0, verb.last.0)).collect();
    assert_eq!(ranges, [(1, 0, 99), (2, 100, 149)]);
    assert!(world.verbs.iter().all(|verb| verb.kind == VerbKind::Ack));
}

#[tokio::test]
async fn each_verb_says_what_was_meant() {
    let engine = Engine::start(1);
    engine.inner.change(|world| world.deliveries.push_back(numbered(10, 10, 9)));
    let mut subscriber = attach(&engine, payment()).await;
    let delivery = subscriber.next_delivery().await.unwrap().unwrap();
    delivery.in_progress();
    delivery.nack(Offset(12)..=Offset(13), Some(std::time::Duration::from_secs(2)));
    delivery.nack(Offset(14)..=Offset(14), None);
    delivery.reject(Offset(15)..=Offset(15), "no such order");
    delivery.reject_undecodable(Offset(16)..=Offset(16), "no JSON");
    delivery.ack();
    subscriber.confirmed().await.unwrap();
    let world = engine.inner.world();
    let said: Vec<_> =
        world.verbs.iter().map(|verb| (verb.kind.clone(), verb.first.0, verb.last.0)).collect();
    assert_eq!(
        said,
        [
            (VerbKind::InProgress, 10, 19),
            (VerbKind::Nack { delay_ms: Some(2_000) }, 12, 13),
            (VerbKind::Nack { delay_ms: None }, 14, 14),
            (VerbKind::reject("no such order"), 15, 15),
            (VerbKind::Reject { reason: "no JSON".to_owned(), kind: Rejection::Undecodable }, 16, 16),
            (VerbKind::Ack, 10, 11),
            (VerbKind::Ack, 17, 19),
        ],
        "an ack of the whole leaves out what was settled before"
    );
}

#[tokio::test]
async fn an_acknowledgement_until_an_offset_is_of_this_delivery_s_events_before_it_and_of_itself() {
    let engine = Engine::start(1);
    let deliveries = [numbered(0, 10, 1), numbered(10, 10, 2), scattered(&[20, 23, 25], 3)];
    engine.inner.change(|world| world.deliveries.extend(deliveries));
    let mut subscriber = attach(&engine, payment()).await;
    let mut next = async || subscriber.next_delivery().await.unwrap().unwrap();
    let (earlier, dense, sparse) = (next().await, next().await, next().await);
    earlier.ack_until(Offset(0));
    dense.ack_until(Offset(9));
    dense.ack_until(Offset(14));
    sparse.ack_until(Offset(24));
    dense.nack(Offset(10)..=Offset(19), None);
    sparse.ack_until(Offset(1_000));
    subscriber.confirmed().await.unwrap();
    let world = engine.inner.world();
    let said: Vec<_> = world
        .verbs
        .iter()
        .map(|verb| (verb.token.0, verb.kind == VerbKind::Ack, verb.first.0, verb.last.0))
        .collect();
    assert_eq!(
        said,
        [(1, true, 0, 0), (2, true, 10, 14), (3, true, 20, 24), (2, false, 15, 19), (3, true, 25, 25)]
    );
}

#[tokio::test]
async fn credit_comes_back_once_as_events_are_settled() {
    let engine = Engine::start(1);
    let options = SubscribeOptions { credit_events: 100, credit_bytes: 1 << 20, ..payment() };
    engine.inner.change(|world| world.deliveries.extend((0..10).map(|n| numbered(n * 50, 50, n))));
    let mut subscriber = attach(&engine, options).await;
    for _ in 0..10 {
        let delivery = subscriber.next_delivery().await.unwrap().unwrap();
        delivery.ack();
        delivery.ack();
    }
    subscriber.confirmed().await.unwrap();
    engine
        .inner
        .until(|world| {
            let events: u64 = world.credits.iter().map(|credit| credit.events).sum();
            (events == 100 + 500).then_some(())
        })
        .await;
    let world = engine.inner.world();
    assert_eq!((world.credits[0].events, world.credits[0].bytes), (100, 1 << 20));
}

#[tokio::test]
async fn a_consumer_holds_no_more_than_its_credit_until_it_speaks() {
    let engine = Engine::start(1);
    let options = SubscribeOptions { credit_events: 100, ..payment() };
    engine.inner.change(|world| world.deliveries.extend((0..4).map(|n| numbered(n * 50, 50, n))));
    let mut subscriber = attach(&engine, options).await;
    let first = subscriber.next_delivery().await.unwrap().unwrap();
    let second = subscriber.next_delivery().await.unwrap().unwrap();
    assert_eq!(engine.inner.world().deliveries.len(), 2);
    // Dropped without a word: its memory is free, and so is its credit.
    drop(first);
    let third = subscriber.next_delivery().await.unwrap().unwrap();
    assert_eq!(third.first(), Offset(100));
    second.nack(second.range(), None);
    let fourth = subscriber.next_delivery().await.unwrap().unwrap();
    assert_eq!(fourth.first(), Offset(150));
}

#[tokio::test]
async fn what_is_said_goes_out_without_another_call() {
    let engine = Engine::start(1);
    engine.inner.change(|world| world.deliveries.push_back(numbered(0, 5, 1)));
    let mut subscriber = attach(&engine, payment()).await;
    let delivery = subscriber.next_delivery().await.unwrap().unwrap();
    delivery.ack();
    engine.inner.until(|world| (world.verbs.len() == 1).then_some(())).await;
}

#[tokio::test]
async fn a_dropped_consumer_says_its_last_words_and_detaches() {
    let engine = Engine::start(1);
    engine.inner.change(|world| world.deliveries.push_back(numbered(0, 5, 1)));
    let client = engine.client().await;
    let mut subscriber = client.subscribe(payment()).await.unwrap();
    let delivery = subscriber.next_delivery().await.unwrap().unwrap();
    delivery.ack();
    drop(subscriber);
    engine.inner.until(|world| (world.detached == 1).then_some(())).await;
    assert_eq!(engine.inner.world().verbs.len(), 1);
}

#[tokio::test]
async fn attaches_again_after_a_loss_and_forgets_the_old_deliveries() {
    let authority = crate::support::Authority::new();
    let engine = Engine::start_at(1, &authority, "127.0.0.1:0".parse().unwrap());
    engine.inner.change(|world| world.deliveries.push_back(numbered(0, 5, 1)));
    let options = SubscribeOptions { options: Some(SubscriptionOptions::default()), ..payment() };
    let mut subscriber = attach(&engine, options).await;
    let old = subscriber.next_delivery().await.unwrap().unwrap();
    let addr = engine.addr;
    engine.shut_down().await;
    let engine = Engine::start_at(1, &authority, addr);
    engine.inner.change(|world| world.deliveries.push_back(numbered(0, 5, 2)));
    let again = subscriber.next_delivery().await.unwrap().unwrap();
    assert_eq!(again.range(), old.range());
    old.ack_range(Offset(0)..=Offset(0));
    let error = subscriber.confirmed().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ConnectionLost, "a word without effect is not confirmed");
    again.ack();
    subscriber.confirmed().await.unwrap();
    old.ack();
    assert_eq!(subscriber.confirmed().await.unwrap_err().code(), ErrorCode::ConnectionLost);
    let world = engine.inner.world();
    let tokens: Vec<u64> = world.verbs.iter().map(|verb| verb.token.0).collect();
    assert_eq!(tokens, [2], "a word about an old delivery is dropped");
    assert_eq!(world.subscribes[0].options, None, "attaching again makes no subscription");
}

#[tokio::test]
async fn a_consumer_that_rewinds_is_detached_and_its_old_deliveries_say_nothing_any_more() {
    let engine = Engine::start(1);
    engine.inner.change(|world| world.deliveries.extend([numbered(0, 5, 1), numbered(5, 5, 2)]));
    let mut subscriber = attach(&engine, payment()).await;
    let old = subscriber.next_delivery().await.unwrap().unwrap();
    engine.inner.until(|world| world.deliveries.is_empty().then_some(())).await;
    subscriber.rewind();
    old.nack(old.range(), None);
    engine.inner.until(|world| (world.detached == 1).then_some(())).await;
    engine.inner.change(|world| world.deliveries.push_back(numbered(0, 5, 3)));
    let again = subscriber.next_delivery().await.unwrap().unwrap();
    assert_eq!((again.token().0, again.range()), (3, old.range()), "what was queued is forgotten, too");
    again.ack();
    let error = subscriber.confirmed().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ConnectionLost, "the nack had no effect");
    subscriber.confirmed().await.unwrap();
    let world = engine.inner.world();
    let said: Vec<_> = world.verbs.iter().map(|verb| (verb.token.0, verb.kind.clone())).collect();
    assert_eq!((said, world.subscribes.len(), world.connections), (vec![(3, VerbKind::Ack)], 2, 1));
}

#[tokio::test]
async fn a_confirmation_that_was_lost_with_the_connection_says_so() {
    let engine = Engine::start(1);
    engine.inner.change(|world| world.deliveries.push_back(numbered(0, 5, 1)));
    let mut subscriber = attach(&engine, payment()).await;
    let delivery = subscriber.next_delivery().await.unwrap().unwrap();
    engine.stop();
    delivery.ack();
    let error = subscriber.confirmed().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ConnectionLost);
    assert!(!error.has_no_side_effects());
}

#[tokio::test]
async fn a_later_confirmation_does_not_hide_what_was_lost() {
    let authority = crate::support::Authority::new();
    let engine = Engine::start_at(1, &authority, "127.0.0.1:0".parse().unwrap());
    engine.inner.change(|world| world.deliveries.push_back(numbered(0, 5, 1)));
    let mut subscriber = attach(&engine, payment()).await;
    let lost = subscriber.next_delivery().await.unwrap().unwrap();
    let addr = engine.addr;
    engine.inner.change(|world| world.silent = true);
    lost.ack();
    engine.inner.until(|world| (world.verbs.len() == 1).then_some(())).await;
    engine.shut_down().await;
    let engine = Engine::start_at(1, &authority, addr);
    engine.inner.change(|world| world.deliveries.push_back(numbered(5, 5, 2)));
    subscriber.next_delivery().await.unwrap().unwrap().ack();
    let error = subscriber.confirmed().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ConnectionLost, "the first acknowledgement may not hold");
    subscriber.confirmed().await.unwrap();
}

#[tokio::test]
async fn what_is_said_during_an_outage_is_not_confirmed_and_says_so_at_once() {
    let engine = Engine::start(1);
    engine.inner.change(|world| world.deliveries.push_back(numbered(0, 5, 1)));
    let mut subscriber = attach(&engine, payment()).await;
    let delivery = subscriber.next_delivery().await.unwrap().unwrap();
    engine.shut_down().await;
    while subscriber.interruption().is_none() {
        tokio::task::yield_now().await;
    }
    delivery.ack();
    let said = tokio::time::timeout(std::time::Duration::from_secs(20), subscriber.confirmed()).await;
    assert_eq!(said.expect("it does not wait for the engine").unwrap_err().code(), ErrorCode::ConnectionLost);
}

#[tokio::test]
async fn an_engine_that_confirms_nothing_is_not_waited_for_for_ever() {
    let engine = Engine::start(1);
    engine.inner.change(|world| {
        world.deliveries.push_back(numbered(0, 5, 1));
        world.silent = true;
    });
    let config = engine.config().request_timeout(std::time::Duration::from_millis(300));
    let client = levada_client::Client::connect(config).await.unwrap();
    let mut subscriber = client.subscribe(payment()).await.unwrap();
    subscriber.next_delivery().await.unwrap().unwrap().ack();
    assert_eq!(subscriber.confirmed().await.unwrap_err().code(), ErrorCode::DeadlineExceeded);
}

#[tokio::test]
async fn events_are_acknowledged_one_by_one_and_filtered_ones_with_the_next() {
    let engine = Engine::start(1);
    engine.inner.change(|world| world.deliveries.push_back(numbered(10, 8, 1)));
    let mut subscriber = attach(&engine, payment()).await;
    for offset in 10..16 {
        let event = subscriber.next().await.unwrap().unwrap();
        assert_eq!((event.offset(), event.attempt(), event.partition()), (Offset(offset), 1, PartitionId(0)));
        assert_eq!(event.payload.as_deref().unwrap(), offset.to_string().as_bytes());
        match offset {
            12 => event.nack(None),
            13 => event.reject("no such order"),
            14 => drop(event),
            15 => event.reject_undecodable("no JSON"),
            _ => event.ack(),
        }
    }
    let rest = subscriber.next_delivery().await.unwrap().unwrap();
    assert_eq!((rest.count(), rest.first(), rest.last()), (2, Offset(16), Offset(17)));
    assert_eq!(offsets(&rest), [16, 17]);
    rest.ack();
    subscriber.confirmed().await.unwrap();
    let world = engine.inner.world();
    let said: Vec<_> =
        world.verbs.iter().map(|verb| (verb.kind.clone(), verb.first.0, verb.last.0)).collect();
    assert_eq!(
        said,
        [
            (VerbKind::Ack, 10, 11),
            (VerbKind::Nack { delay_ms: None }, 12, 12),
            (VerbKind::reject("no such order"), 13, 13),
            (VerbKind::Reject { reason: "no JSON".to_owned(), kind: Rejection::Undecodable }, 15, 15),
            (VerbKind::Ack, 16, 17),
        ]
    );
}

#[tokio::test]
async fn deliveries_with_events_of_others_in_between_are_settled_event_by_event_and_whole() {
    let engine = Engine::start(1);
    engine.inner.change(|world| {
        let tokens = [(1, &[10, 12, 13, 20][..]), (2, &[11, 14, 21]), (3, &[30, 32, 34]), (4, &[31, 33])];
        world.deliveries.extend(tokens.map(|(token, offsets)| scattered(offsets, token)));
    });
    let mut subscriber = attach(&engine, payment()).await;
    for offset in [10, 12, 13, 20] {
        let event = subscriber.next().await.unwrap().unwrap();
        assert_eq!(
            (event.offset(), event.payload.as_deref()),
            (Offset(offset), Some(offset.to_string().as_bytes()))
        );
        if offset == 12 { event.nack(None) } else { event.ack() }
    }
    let whole = subscriber.next_delivery().await.unwrap().unwrap();
    assert_eq!((whole.count(), whole.first(), whole.last()), (3, Offset(11), Offset(21)));
    assert_eq!(offsets(&whole), [11, 14, 21]);
    whole.ack();
    let parts = subscriber.next_delivery().await.unwrap().unwrap();
    for offset in [30, 32] {
        parts.ack_range(Offset(offset)..=Offset(offset));
    }
    parts.ack();
    drop(subscriber.next_delivery().await.unwrap().unwrap());
    subscriber.confirmed().await.unwrap();
    let world = engine.inner.world();
    let said: Vec<_> =
        world.verbs.iter().map(|verb| (verb.token.0, verb.kind.clone(), verb.first.0, verb.last.0)).collect();
    assert_eq!(
        said,
        [
            (1, VerbKind::Ack, 10, 10),
            (1, VerbKind::Nack { delay_ms: None }, 11, 12),
            (1, VerbKind::Ack, 13, 20),
            (2, VerbKind::Ack, 11, 21),
            (3, VerbKind::Ack, 30, 34),
        ],
        "verbs about events that follow on each other are one, whatever lies between"
    );
}

#[tokio::test]
async fn what_the_application_holds_is_extended_and_what_it_dropped_is_not() {
    let engine = Engine::start(1);
    engine.inner.change(|world| {
        world.deliveries.push_back(numbered(0, 6, 1));
        world.ack_timeout_ms = 300;
    });
    let mut subscriber = attach(&engine, payment()).await;
    subscriber.next().await.unwrap().unwrap().ack();
    drop(subscriber.next().await.unwrap().unwrap());
    let held = subscriber.next().await.unwrap().unwrap();
    let extended = |world: &mut crate::support::World| {
        let extensions = world.verbs.iter().filter(|verb| verb.kind == VerbKind::InProgress);
        let ranges: Vec<_> = extensions.map(|verb| (verb.first.0, verb.last.0)).collect();
        (ranges.len() >= 3).then_some(ranges)
    };
    // More than one timeout has passed by the time of the last of them.
    assert_eq!(engine.inner.until(extended).await, [(2, 5); 3]);
    held.ack();
    subscriber.confirmed().await.unwrap();
}

#[tokio::test]
async fn a_consumer_asks_for_a_few_events_first_and_for_more_with_every_acknowledgement() {
    let engine = Engine::start(1);
    let mut subscriber = attach(&engine, SubscribeOptions { prefetch: Prefetch::Paced, ..payment() }).await;
    let asked = |world: &crate::support::World| world.credits.iter().map(|credit| credit.events).sum::<u64>();
    assert_eq!(engine.inner.until(|world| (asked(world) > 0).then(|| asked(world))).await, 16);
    let mut sent = 0;
    for window in [16, 32, 64, 128, 256, 512, 1_000] {
        engine.inner.until(|world| (asked(world) == sent + window).then_some(())).await;
        engine.inner.change(|world| world.deliveries.push_back(numbered(sent, window, sent)));
        sent += window;
        subscriber.next_delivery().await.unwrap().unwrap().ack();
    }
}

#[tokio::test]
async fn a_refused_verb_shows_in_the_confirmation() {
    let engine = Engine::start(1);
    engine.inner.change(|world| {
        world.deliveries.push_back(numbered(0, 5, 1));
        world.refuse_verbs.push(RefusedVerb {
            partition: PartitionId(0),
            first: Offset(0),
            last: Offset(4),
            code: ErrorCode::DeliveryExpired,
        });
    });
    let mut subscriber = attach(&engine, payment()).await;
    subscriber.next_delivery().await.unwrap().unwrap().ack();
    let error = subscriber.confirmed().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::DeliveryExpired);
    subscriber.confirmed().await.unwrap();
}

#[tokio::test]
async fn a_mismatch_or_a_missing_subscription_surfaces() {
    let engine = Engine::start(1);
    let client = engine.client().await;
    for code in [ErrorCode::SubscriptionMismatch, ErrorCode::SubscriptionNotFound] {
        let refusal = Refusal::new(code, "order differs");
        engine.inner.change(|world| world.refuse_open.push_back(refusal));
        assert_eq!(client.subscribe(payment()).await.unwrap_err().code(), code);
    }
    let nothing = SubscribeOptions { credit_events: 0, ..payment() };
    assert_eq!(client.subscribe(nothing).await.unwrap_err().code(), ErrorCode::ConfigInvalid);
}

/// What `next` answers within a time in which it surely would.
async fn failure(subscriber: &mut Subscriber) -> Error {
    let next = tokio::time::timeout(std::time::Duration::from_secs(20), subscriber.next_delivery());
    next.await.expect("the caller is told").unwrap_err()
}

#[tokio::test]
async fn a_consumer_whose_subscription_is_deleted_gets_the_reason_after_its_deliveries() {
    let engine = Engine::start(1);
    let refusal = Refusal::new(ErrorCode::SubscriptionNotFound, "the subscription was deleted");
    engine.inner.change(|world| {
        world.deliveries.extend([numbered(0, 3, 1), numbered(3, 4, 2)]);
        world.end_consumers.push_back(refusal.clone());
    });
    let mut subscriber = attach(&engine, payment()).await;
    assert_eq!(subscriber.next_delivery().await.unwrap().unwrap().first(), Offset(0));
    let last = subscriber.next_delivery().await.unwrap().unwrap();
    assert_eq!(last.first(), Offset(3));
    let error = failure(&mut subscriber).await;
    assert!(matches!(&error, Error::Refused(got) if *got == refusal), "{error}");
    last.ack();
    assert_eq!(subscriber.confirmed().await.unwrap_err().code(), ErrorCode::SubscriptionNotFound);
    assert_eq!(engine.inner.world().subscribes.len(), 1);
}

#[tokio::test]
async fn the_reason_is_heard_although_the_engine_stopped_listening_before_it() {
    let engine = Engine::start(1);
    engine.inner.change(|world| world.deliveries.push_back(numbered(0, 3, 1)));
    let client = engine.client().await;
    let mut subscriber = client.subscribe(payment()).await.unwrap();
    let delivery = subscriber.next_delivery().await.unwrap().unwrap();
    engine.inner.change(|world| world.deaf = true);
    // Its answer comes behind the word that nobody listens any more.
    client.list_topics().await.unwrap();
    delivery.ack();
    client.list_topics().await.unwrap();
    let refusal = Refusal::new(ErrorCode::StorageCorrupt, "partition 0 is damaged at offset 3");
    engine.inner.change(|world| world.end_consumers.push_back(refusal.clone()));
    let error = failure(&mut subscriber).await;
    assert!(matches!(&error, Error::Refused(got) if *got == refusal), "{error}");
}

#[tokio::test]
async fn a_consumer_too_many_is_told_so_and_one_that_lost_its_place_tries_on() {
    let engine = Engine::start(1);
    let too_many = Refusal::new(ErrorCode::LimitExceeded, "as many consumers as it may");
    engine.inner.change(|world| world.end_consumers.push_back(too_many.clone()));
    let mut subscriber = attach(&engine, payment()).await;
    assert_eq!(failure(&mut subscriber).await.code(), ErrorCode::LimitExceeded);

    engine.inner.change(|world| world.deliveries.push_back(numbered(0, 3, 1)));
    let mut subscriber = attach(&engine, payment()).await;
    let delivery = subscriber.next_delivery().await.unwrap().unwrap();
    assert!(subscriber.interruption().is_none());
    engine.inner.change(|world| {
        world.refuse_open.extend(vec![too_many.clone(); 3]);
        world.end_consumers.push_back(too_many.clone());
    });
    while engine.inner.world().subscribes.len() < 3 {
        if let Some(error) = subscriber.interruption() {
            assert_eq!(error.code(), ErrorCode::LimitExceeded);
        }
        tokio::task::yield_now().await;
    }
    engine.inner.change(|world| world.deliveries.push_back(numbered(0, 3, 2)));
    assert_eq!(subscriber.next_delivery().await.unwrap().unwrap().range(), delivery.range());
    assert!(subscriber.interruption().is_none());
}

#[tokio::test]
async fn closing_the_client_ends_the_deliveries() {
    let engine = Engine::start(1);
    let client = engine.client().await;
    let mut subscriber = client.subscribe(payment()).await.unwrap();
    client.close().await;
    assert!(subscriber.next().await.unwrap().is_none());
}

#[tokio::test]
async fn a_damaged_delivery_is_an_error_and_the_next_one_comes() {
    let engine = Engine::start(1);
    let (count, good) = numbered(5, 5, 2);
    let (_, damaged) = numbered(0, 5, 1);
    let mut damaged = damaged.to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    engine.inner.change(|world| world.deliveries.extend([(count, damaged.into()), (count, good)]));
    let mut subscriber = attach(&engine, payment()).await;
    assert_eq!(subscriber.next_delivery().await.unwrap_err().code(), ErrorCode::BatchInvalid);
    assert_eq!(subscriber.next_delivery().await.unwrap().unwrap().first(), Offset(5));
}
