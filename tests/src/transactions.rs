//! Transactions, end to end: over QUIC, through kills of the engine, with members of a group that are asked.

use std::{collections::BTreeSet, time::Duration};

use levada_client::{Client, ErrorCode, Event, Offset, PartitionId, TopicSettings, TransactionState};
use tempfile::TempDir;

use crate::support::{
    engine::Engine,
    events::{self, code, texts},
    own_address,
    process::Process,
    until, within,
};

async fn topics(client: &Client) {
    for topic in ["debits", "credits"] {
        events::topic(client, topic).await;
    }
}

async fn log(client: &Client, topic: &str) -> Vec<String> {
    texts(&events::read_all(client, topic).await, 0)
}

#[tokio::test]
async fn a_transaction_of_two_topics_is_stored_whole_with_a_receipt_for_each_event() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    client.create_topic("debits", events::partitions(4)).await.unwrap();
    events::topic(&client, "credits").await;
    let mut transaction = client.transaction().unwrap();
    for number in 0..100 {
        transaction
            .publish("debits", Event::new(format!("d{number}")).with_key(format!("k{number}")))
            .unwrap();
        transaction.publish("credits", Event::new(format!("c{number}"))).unwrap();
    }
    let receipts = transaction.commit().await.unwrap();
    assert_eq!(receipts.len(), 200);
    let debits = events::read_all(&client, "debits").await;
    let mut found = 0;
    for (index, receipt) in receipts.iter().enumerate() {
        assert!(!receipt.duplicate);
        let (kind, number) = (["d", "c"][index % 2], index / 2);
        let offset = receipt.offset.unwrap().0;
        if kind == "d" {
            let stored = texts(&debits, receipt.partition.0);
            assert_eq!(stored[usize::try_from(offset).unwrap()], format!("d{number}"));
            found += 1;
        } else {
            assert_eq!((receipt.partition, offset), (PartitionId(0), number as u64));
        }
    }
    assert_eq!(found, 100);
    assert!(debits.iter().filter(|(_, events)| !events.is_empty()).count() > 1, "over several partitions");
}

#[tokio::test]
async fn what_is_expected_of_an_offset_and_what_is_too_large_is_told_and_nothing_stored() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    topics(&client).await;
    let mut first = client.transaction().unwrap();
    first.publish("debits", Event::new("a")).unwrap();
    first.expect_offset("debits", PartitionId(0), Offset(0)).unwrap();
    first.commit().await.unwrap();
    let mut late = client.transaction().unwrap();
    late.publish("credits", Event::new("b")).unwrap();
    late.publish("debits", Event::new("c")).unwrap();
    late.expect_offset("debits", PartitionId(0), Offset(0)).unwrap();
    assert_eq!(code(late.commit().await), ErrorCode::OffsetMismatch);
    let mut large = client.transaction().unwrap();
    let megabyte = || Event::new(vec![b'x'; 1_000_000]);
    for _ in 0..4 {
        large.publish("credits", megabyte()).unwrap();
    }
    let refused = large.publish("credits", megabyte()).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::TransactionTooLarge);
    assert!(refused.to_string().contains("4194304"), "the limit is named: {refused}");
    assert_eq!(code(client.transaction().unwrap().commit().await), ErrorCode::ConfigInvalid, "it is empty");
    let mut absent = client.transaction().unwrap();
    absent.publish("absent", Event::new("x")).unwrap();
    absent.publish("credits", Event::new("x")).unwrap();
    assert_eq!(code(absent.commit().await), ErrorCode::TopicNotFound);
    let mut nowhere = client.transaction().unwrap();
    nowhere.publish_to("credits", PartitionId(7), Event::new("x")).unwrap();
    assert_eq!(code(nowhere.commit().await), ErrorCode::PartitionNotFound);
    assert_eq!((log(&client, "debits").await, log(&client, "credits").await), (vec!["a".into()], vec![]));
}

#[tokio::test]
async fn a_topic_that_was_made_anew_with_other_partitions_is_met_again() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    client.create_topic("debits", events::partitions(8)).await.unwrap();
    let publish = async |key: u32| {
        let mut transaction = client.transaction().unwrap();
        transaction.publish("debits", Event::new("x").with_key(key.to_string())).unwrap();
        transaction.commit().await.unwrap()
    };
    publish(1).await;
    client.delete_topic("debits", levada_client::DeleteOptions::forced()).await.unwrap();
    client.create_topic("debits", TopicSettings::default()).await.unwrap();
    for key in 0..20 {
        assert_eq!(publish(key).await[0].partition, PartitionId(0));
    }
}

#[tokio::test]
async fn a_prepared_transaction_is_decided_by_whoever_of_its_group_is_asked() {
    let engine = Engine::start().await;
    let (dead, alive) = (engine.connect().await, engine.connect().await);
    topics(&dead).await;
    let group = dead.producer_group("shop").unwrap();
    for id in ["paid", "unpaid", "unknown"] {
        let mut transaction = group.transaction(id).unwrap();
        transaction.publish("debits", Event::new(id)).unwrap();
        transaction.publish("credits", Event::new(id)).unwrap();
        let prepared = transaction.prepare_and_check_after(Duration::from_millis(1)).await.unwrap();
        assert_eq!(prepared.info().state, TransactionState::Prepared);
        drop(prepared);
    }
    dead.close().await;
    assert_eq!(log(&alive, "debits").await, Vec::<String>::new());
    let group = alive.producer_group("shop").unwrap();
    let mut checks = group.check_backs().await.unwrap();
    let mut seen = BTreeSet::new();
    while seen.len() < 3 {
        let check = within("a check", checks.next()).await.unwrap().unwrap();
        assert_eq!((check.number(), check.checks_max()), (1, 15));
        seen.insert(check.id().to_string());
        match check.id().as_str() {
            "paid" => drop(check.commit().await.unwrap()),
            "unpaid" => drop(check.rollback().await.unwrap()),
            _ => {}
        }
    }
    assert_eq!(
        (log(&alive, "debits").await, log(&alive, "credits").await),
        (vec!["paid".into()], vec!["paid".into()])
    );
    let (waiting, more) = alive.list_transactions(Some("shop"), false, 10).await.unwrap();
    assert!(!more);
    assert_eq!(waiting.iter().map(|info| info.id.as_str()).collect::<Vec<_>>(), ["unknown"]);
    assert_eq!(code(group.commit("unpaid").await), ErrorCode::AlreadyDecided);
    group.commit("unknown").await.unwrap();
    assert_eq!(log(&alive, "credits").await, ["paid", "unknown"]);
}

#[tokio::test]
async fn a_member_of_a_group_is_asked_again_after_the_engine_was_killed() {
    let dir = TempDir::new().unwrap();
    let engine = Process::start_at(dir.path(), &own_address().to_string()).await;
    let client = engine.connect().await;
    topics(&client).await;
    let group = client.producer_group("shop").unwrap();
    let mut checks = group.check_backs().await.unwrap();
    let listen = engine.quic.clone();
    let mut transaction = group.transaction("1").unwrap();
    transaction.publish("debits", Event::new("a")).unwrap();
    let prepared = transaction.prepare_and_check_after(Duration::from_secs(1)).await.unwrap();
    engine.kill().await;
    let engine = Process::start_at(dir.path(), &listen).await;
    let check = within("a check", checks.next()).await.unwrap().unwrap();
    assert_eq!(check.id().as_str(), "1");
    check.commit().await.unwrap();
    let receipts = prepared.commit().await.unwrap();
    assert!(receipts[0].duplicate, "the member was faster");
    assert_eq!(receipts[0].offset, Some(Offset(0)));
    engine.stop().await;
}

#[tokio::test]
async fn a_transaction_that_is_sent_again_after_a_lost_connection_is_stored_once() {
    let dir = TempDir::new().unwrap();
    let listen = own_address().to_string();
    let engine = Process::start_at(dir.path(), &listen).await;
    let client = engine.connect().await;
    topics(&client).await;
    let committing = async {
        let mut offsets = Vec::new();
        for number in 0..200 {
            let mut transaction = client.transaction().unwrap();
            transaction.publish("debits", Event::new(number.to_string())).unwrap();
            transaction.publish("credits", Event::new(number.to_string())).unwrap();
            offsets.push(transaction.commit().await.unwrap()[0].offset.unwrap().0);
        }
        offsets
    };
    let watching = engine.connect().await;
    let killing = async {
        until("some are stored", async || (log(&watching, "debits").await.len() > 20).then_some(())).await;
        engine.kill().await;
        Process::start_at(dir.path(), &listen).await
    };
    let both = Box::pin(async { tokio::join!(Box::pin(committing), Box::pin(killing)) });
    let (offsets, engine) = within("all of them", both).await;
    assert_eq!(offsets, (0..200).collect::<Vec<u64>>());
    assert_eq!(log(&client, "credits").await, (0..200).map(|it| it.to_string()).collect::<Vec<_>>());
    engine.stop().await;
}

#[tokio::test]
async fn a_consumer_s_outputs_and_acknowledgements_are_one_through_kills_of_the_engine() {
    let dir = TempDir::new().unwrap();
    let listen = own_address().to_string();
    let mut engine = Process::start_at(dir.path(), &listen).await;
    let client = engine.connect().await;
    topics(&client).await;
    events::publish_numbers(&client, "debits", 0..300).await;
    let mut consumer = events::subscribe(&client, "debits", "transfer").await;
    let mut done = 0;
    // A reader is of one connection: each reading has one of its own.
    while log(&engine.connect().await, "credits").await.len() < 300 {
        let transferring = async {
            loop {
                let event = consumer.next().await.unwrap().unwrap();
                let number = events::number_of(events::payload(&event));
                let mut transaction = client.transaction().unwrap();
                transaction.publish("credits", Event::new(number.to_string())).unwrap();
                if transaction.ack(event).is_err() {
                    continue;
                }
                if transaction.commit().await.is_ok() {
                    done += 1;
                }
                if done % 75 == 74 {
                    done += 1;
                    break;
                }
            }
        };
        // Also if the last ones are another's, who will not come: then the log tells.
        let _ = tokio::time::timeout(Duration::from_secs(20), transferring).await;
        engine.kill().await;
        engine = Process::start_at(dir.path(), &listen).await;
    }
    let credits = log(&engine.connect().await, "credits").await;
    let mut credits: Vec<u64> = credits.iter().map(|it| it.parse().unwrap()).collect();
    credits.sort_unstable();
    assert_eq!(credits, (0..300).collect::<Vec<_>>(), "none is missing, none is twice");
    let left = until("the subscription is read", async || {
        client.describe_subscription("debits", "transfer").await.ok()
    })
    .await;
    assert_eq!(left.lag, 0);
    engine.stop().await;
}

#[tokio::test]
async fn what_a_refused_transaction_would_have_acknowledged_is_delivered_again() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    topics(&client).await;
    events::publish_numbers(&client, "debits", 0..2).await;
    let options = levada_client::SubscriptionOptions { backoff_ms: Some(vec![1]), ..Default::default() };
    let mut consumer = client.subscribe(events::earliest("debits", "transfer", options)).await.unwrap();
    let first = within("an event", consumer.next()).await.unwrap().unwrap();
    let mut transaction = client.transaction().unwrap();
    transaction.publish("credits", Event::new("x")).unwrap();
    transaction.expect_offset("credits", PartitionId(0), Offset(9)).unwrap();
    transaction.ack(first).unwrap();
    assert_eq!(code(transaction.commit().await), ErrorCode::OffsetMismatch);
    assert_eq!(code(transaction.prepare().await.map(|_| ())), ErrorCode::ConfigInvalid);
    drop(transaction);
    let mut seen = BTreeSet::new();
    while seen.len() < 2 {
        let event = within("an event", consumer.next()).await.unwrap().unwrap();
        let number = events::number_of(events::payload(&event));
        assert!(number > 0 || event.attempt() == 2);
        seen.insert(number);
        let mut transaction = client.transaction().unwrap();
        transaction.publish("credits", Event::new(number.to_string())).unwrap();
        transaction.ack(event).unwrap();
        transaction.commit().await.unwrap();
    }
    assert_eq!(log(&client, "credits").await.len(), 2);
    assert_eq!(client.describe_subscription("debits", "transfer").await.unwrap().lag, 0);
}

#[tokio::test]
async fn a_program_that_begins_again_makes_the_same_transaction_under_its_id_and_no_other() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    client.create_topic("debits", events::partitions(8)).await.unwrap();
    let run = async |payload: &str| {
        let other = engine.connect().await;
        let mut transaction = other.producer_group("bank").unwrap().transaction("transfer-1").unwrap();
        transaction.publish("debits", Event::new(payload.to_owned()).with_header("a", "b")).unwrap();
        transaction.commit().await
    };
    let first = run("5").await.unwrap()[0];
    let again = run("5").await.unwrap()[0];
    assert_eq!((again.partition, again.offset, again.duplicate), (first.partition, first.offset, true));
    assert_eq!(code(run("6").await), ErrorCode::TransactionExists);
}
