//! Transactions that acknowledge events.

use levada_protocol::{limits::TRANSACTION_ACKS_MAX, verbs::Verb};

use super::*;
use crate::support::take;

/// A transaction that publishes to `payments` and acknowledges events of `orders/payment`.
fn acking(
    id: &str,
    token: DeliveryToken,
    offsets: RangeInclusive<u64>,
) -> (Transact, Vec<(PublishHeader, Batch)>) {
    let (first, last) = (*offsets.start(), *offsets.end());
    let delivery = AckedDelivery { token: token.0, partition: 0, first, last, events: last - first + 1 };
    let (topic, subscription) = ("orders".parse().unwrap(), "payment".parse().unwrap());
    let acks = Some(TransactionAcks { topic, subscription, deliveries: vec![delivery] });
    let (transact, batches) = transact(id, &[part(1, &[id])], None);
    (Transact { acks, ..transact }, batches)
}

impl Scene {
    async fn acking(
        &self,
        id: &str,
        token: DeliveryToken,
        offsets: RangeInclusive<u64>,
    ) -> Result<TransactionInfo, Error> {
        let (transact, batches) = acking(id, token, offsets);
        self.engine.broker.transact(&Principal::Local, transact, batches).await.map(one)
    }

    /// Three events that are delivered to a consumer and not acknowledged.
    async fn delivered(&self) -> (Consumer, DeliveryToken) {
        self.engine.publish("orders", 3).await;
        self.deliver().await
    }

    async fn deliver(&self) -> (Consumer, DeliveryToken) {
        let mut consumer = self.engine.subscribe(SubscriptionOptions::default()).await;
        consumer.control.credit(PLENTY).await.unwrap();
        let (token, _) = delivery(&mut consumer.outgoing).await;
        (consumer, token)
    }
}

#[tokio::test]
async fn a_consumer_s_acknowledgement_and_its_output_are_one_commit() {
    let scene = Scene::new().await;
    let (consumer, token) = scene.delivered().await;
    let info = scene.acking("a", token, 0..=1).await.unwrap();
    assert_eq!((info.state, info.repeat), (TransactionState::Committed, false));
    assert_eq!(scene.engine.info().await.lag, 1);
    let again = scene.acking("a", token, 0..=1).await.unwrap();
    assert_eq!(again, TransactionInfo { repeat: true, ..info }, "though they are not in flight any more");
    let late = scene.acking("b", token, 1..=2).await.unwrap_err();
    assert_eq!(late.code(), ErrorCode::DeliveryExpired);
    assert!(late.has_no_side_effects());
    assert_eq!(
        code(scene.acking("a", token, 2..=2).await),
        ErrorCode::TransactionExists,
        "with other events"
    );
    drop(consumer);
    let scene = scene.restart(0).await;
    assert_eq!(scene.log("payments").await, ["a"]);
    assert_eq!(scene.engine.info().await.lag, 1, "the acknowledgement survived with it");
    let again = scene.acking("a", token, 0..=1).await.unwrap();
    assert!(again.repeat);
    let (_consumer, token) = scene.deliver().await;
    scene.acking("c", token, 2..=2).await.unwrap();
    assert_eq!(scene.log("payments").await, ["a", "c"]);
    scene.engine.until_info(|info| info.lag == 0).await;
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_refused_transaction_acknowledges_nothing_and_leaves_the_events_with_their_consumer() {
    let scene = Scene::new().await;
    let (consumer, token) = scene.delivered().await;
    let (asked, batches) = acking("a", token, 0..=2);
    let wrong = batches
        .iter()
        .map(|(header, batch)| (PublishHeader { expect_offset: Some(Offset(9)), ..*header }, batch.clone()));
    let refused = scene.engine.broker.transact(&Principal::Local, asked.clone(), wrong.collect()).await;
    assert_eq!(code(refused), ErrorCode::OffsetMismatch);
    assert_eq!(scene.engine.info().await.lag, 3);
    let waits = Transact { prepare: Some(Prepare::default()), ..asked.clone() };
    let refused = scene.engine.broker.transact(&Principal::Local, waits, batches.clone()).await;
    assert_eq!(code(refused), ErrorCode::InvalidArgument, "what waits cannot acknowledge");
    let mut nothing = asked.clone();
    nothing.acks.as_mut().unwrap().deliveries.clear();
    let refused = scene.engine.broker.transact(&Principal::Local, nothing, batches.clone()).await;
    assert_eq!(code(refused), ErrorCode::InvalidArgument);
    let mut absent = asked.clone();
    absent.acks.as_mut().unwrap().subscription = "absent".parse().unwrap();
    let refused = scene.engine.broker.transact(&Principal::Local, absent, batches.clone()).await;
    assert_eq!(code(refused), ErrorCode::SubscriptionNotFound);
    scene.engine.broker.transact(&Principal::Local, asked, batches).await.unwrap();
    assert_eq!((scene.log("payments").await, scene.engine.info().await.lag), (vec!["a".to_owned()], 0));
    drop(consumer);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_transaction_acknowledges_as_many_deliveries_as_it_may_and_no_more() {
    let scene = Scene::new().await;
    let count = TRANSACTION_ACKS_MAX + 1;
    scene.engine.publish("orders", count).await;
    let options = SubscriptionOptions { max_in_flight: Some(1 << 20), ..SubscriptionOptions::default() };
    let mut consumer = scene.engine.subscribe(options).await;
    consumer.control.credit(PLENTY).await.unwrap();
    let taken = take(&mut consumer.outgoing, count).await;
    let of = |verb: &Verb| AckedDelivery {
        token: verb.token.0,
        partition: 0,
        first: verb.first.0,
        last: verb.last.0,
        events: 1,
    };
    let (mut asked, batches) = acking("a", taken[0].token, 0..=0);
    let send = async |asked: &Transact| {
        scene.engine.broker.transact(&Principal::Local, asked.clone(), batches.clone()).await.map(one)
    };
    asked.acks.as_mut().unwrap().deliveries = taken.iter().map(of).collect();
    let refused = send(&asked).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::TransactionTooLarge);
    assert!(refused.to_string().contains("expected 1 to 2048 deliveries"), "{refused}");
    assert!(refused.to_string().contains("got 2049"), "{refused}");
    assert_eq!((scene.log("payments").await.len(), scene.engine.info().await.lag), (0, count as u64));
    asked.acks.as_mut().unwrap().deliveries.pop();
    assert_eq!(send(&asked).await.unwrap().state, TransactionState::Committed);
    assert_eq!((scene.log("payments").await.len(), scene.engine.info().await.lag), (1, 1));
    drop(consumer);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_crash_before_the_sync_takes_the_acknowledgement_back_with_the_output() {
    let scene = Scene::new().await;
    let (consumer, token) = scene.delivered().await;
    let (asked, batches) = acking("a", token, 0..=2);
    let broker = scene.engine.broker.clone();
    let step = async move {
        let _ = broker.transact(&Principal::Local, asked, batches).await;
    };
    let scene = crash_before_sync(scene, step).await;
    drop(consumer);
    assert_eq!((scene.log("payments").await, scene.engine.info().await.lag), (vec![], 3));
    assert_eq!(
        code(scene.acking("a", token, 0..=2).await),
        ErrorCode::DeliveryExpired,
        "of a consumer before"
    );
    let (_consumer, token) = scene.deliver().await;
    assert!(!scene.acking("a", token, 0..=2).await.unwrap().repeat, "the id is free");
    assert_eq!(scene.log("payments").await, ["a"]);
    scene.engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_move_of_the_subscription_voids_what_a_transaction_would_acknowledge() {
    let scene = Scene::new().await;
    let (consumer, token) = scene.delivered().await;
    scene.engine.store.hold(true);
    let broker = &scene.engine.broker;
    // Something whose sync is held up, so that the move and the transaction queue behind it.
    let (asked, batches) = transact("first", &[part(0, &["x"])], None);
    let first = broker.transact(&Principal::Local, asked, batches);
    let behind = async {
        scene.engine.store.entered.notified().await;
        let seek = Request::SeekSubscription {
            topic: "orders".parse().unwrap(),
            name: "payment".parse().unwrap(),
            to: Start::Earliest,
            partitions: Vec::new(),
        };
        let (asked, batches) = acking("a", token, 0..=2);
        let release = async {
            tokio::task::yield_now().await;
            scene.engine.store.hold(false);
        };
        let moved = broker.request(&Principal::Local, seek, None);
        let acked = broker.transact(&Principal::Local, asked, batches);
        let (moved, acked, ()) = tokio::join!(moved, acked, release);
        moved.unwrap();
        acked
    };
    let (first, acked) = timeout(SOON, Box::pin(async { tokio::join!(first, behind) })).await.unwrap();
    first.unwrap();
    // Whichever came first: either both or none of it.
    let outputs = scene.log("payments").await.len();
    assert_eq!(outputs, usize::from(acked.is_ok()), "{acked:?}");
    assert_eq!(scene.engine.info().await.lag, 4, "the move counts last, or the acknowledgement was void");
    drop(consumer);
    scene.engine.broker.shutdown().await;
}
