//! Transactions as they are sent: again after a loss, with an outcome that is known or said to be in doubt.

use std::time::Duration;

use levada_client::{
    Client, Error, ErrorCode, Event, Offset, PartitionId, Refusal, TransactionBatch, TransactionDuplicate,
};

use crate::support::{Engine, Transacted};

fn stored(offset: u64, events: u32) -> TransactionBatch {
    TransactionBatch {
        topic: Some("orders".parse().unwrap()),
        events,
        offset: Some(offset),
        ..TransactionBatch::default()
    }
}

async fn publish(client: &Client) -> Result<Vec<levada_client::Receipt>, Error> {
    let mut transaction = client.transaction().unwrap();
    transaction.publish("orders", Event::new("a")).unwrap();
    transaction.publish("orders", Event::new("b")).unwrap();
    transaction.commit().await
}

#[tokio::test]
async fn a_transaction_is_sent_again_byte_for_byte_until_it_has_an_answer() {
    let engine = Engine::start(4);
    let later = Refusal::new(ErrorCode::StorageFull, "full").retry_after(1);
    engine.inner.change(|world| {
        world.transacts.extend([
            Transacted::Cut,
            Transacted::Refuse(later),
            Transacted::Cut,
            Transacted::Answer(vec![stored(7, 2)]),
        ]);
    });
    let client = engine.client().await;
    let receipts = publish(&client).await.unwrap();
    assert_eq!(receipts.iter().map(|it| it.offset).collect::<Vec<_>>(), [Some(Offset(7)), Some(Offset(8))]);
    let world = engine.inner.world();
    assert_eq!(world.transacted.len(), 4);
    assert!(world.transacted.iter().all(|batches| *batches == world.transacted[0]));
}

#[tokio::test]
async fn a_refusal_is_certain_unless_an_earlier_answer_was_lost() {
    let engine = Engine::start(4);
    let refused = || Transacted::Refuse(Refusal::new(ErrorCode::TopicNotFound, "gone"));
    engine.inner.change(|world| world.transacts.extend([refused(), refused(), Transacted::Cut, refused()]));
    let client = engine.client().await;
    // A topic that was not there is looked up again once.
    let error = publish(&client).await.unwrap_err();
    assert_eq!((error.code(), error.has_no_side_effects()), (ErrorCode::TopicNotFound, true));
    let error = publish(&client).await.unwrap_err();
    assert!(!error.has_no_side_effects(), "the first one may have been stored: {error}");
    assert_eq!(engine.inner.world().transacted.len(), 4);
}

#[tokio::test]
async fn a_group_with_too_much_undecided_is_told_at_once_and_not_sent_again() {
    let engine = Engine::start(4);
    let refusal = Refusal::new(ErrorCode::TooManyPrepared, "decide some first").retry_after(1);
    assert!(refusal.code.is_retryable(), "by those who can decide some meanwhile");
    engine.inner.change(|world| {
        world.transacts.extend([Transacted::Refuse(refusal), Transacted::Answer(vec![stored(7, 1)])]);
    });
    let client = engine.client().await;
    let mut transaction = client.producer_group("shop").unwrap().transaction("order-42").unwrap();
    transaction.publish("orders", Event::new("a")).unwrap();
    let error = transaction.prepare().await.unwrap_err();
    assert_eq!((error.code(), error.has_no_side_effects()), (ErrorCode::TooManyPrepared, true));
    assert!(error.to_string().contains("decide some first"), "{error}");
    assert_eq!(engine.inner.world().transacted.len(), 1);
}

#[tokio::test]
async fn an_engine_that_does_not_come_back_leaves_the_outcome_in_doubt() {
    let engine = Engine::start(1);
    let config = engine.config().request_timeout(Duration::from_millis(300));
    let client = Client::connect(config).await.unwrap();
    let mut transaction = client.transaction().unwrap();
    transaction.publish("orders", Event::new("a")).unwrap();
    let gone = async {
        engine.inner.until(|world| (!world.transacted.is_empty()).then_some(())).await;
        engine.shut_down().await;
    };
    let (error, ()) = tokio::join!(transaction.commit(), gone);
    let error = error.unwrap_err();
    assert!(!error.has_no_side_effects(), "{error:?}");
    let never = client.transaction().unwrap().commit().await.unwrap_err();
    assert_eq!((never.code(), never.has_no_side_effects()), (ErrorCode::ConfigInvalid, true), "it is empty");
    let mut unsent = client.transaction().unwrap();
    unsent.publish("orders", Event::new("b")).unwrap();
    let error = unsent.commit().await.unwrap_err();
    assert!(error.has_no_side_effects(), "nothing was sent: {error:?}");
}

#[tokio::test]
async fn each_event_has_the_receipt_of_its_place_also_behind_duplicates() {
    let engine = Engine::start(2);
    let duplicate = |index, offset| TransactionDuplicate { index, offset };
    let first =
        TransactionBatch { duplicates: vec![duplicate(0, Some(3)), duplicate(2, None)], ..stored(10, 4) };
    engine.inner.change(|world| {
        world.transacts.push_back(Transacted::Answer(vec![first, stored(20, 1)]));
    });
    let client = engine.client().await;
    let mut transaction = client.transaction().unwrap();
    for (partition, event) in [(1, "a"), (1, "b"), (0, "c"), (1, "d"), (1, "e")] {
        transaction.publish_to("orders", PartitionId(partition), Event::new(event)).unwrap();
    }
    let receipts = transaction.commit().await.unwrap();
    let places: Vec<_> =
        receipts.iter().map(|it| (it.partition.0, it.offset.map(|offset| offset.0), it.same_id)).collect();
    let expected = [
        (1, Some(3), true),
        (1, Some(10), false),
        (0, Some(20), false),
        (1, None, true),
        (1, Some(11), false),
    ];
    assert_eq!(places, expected);
}
