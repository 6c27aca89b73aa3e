//! Event ids within a dedup window, and appends at an expected offset, from the client over QUIC.

use levada_client::{
    Client, DEDUP_WINDOW_MS_USUAL, Error, ErrorCode, Event, Offset, PartitionId, Publisher, Receipt,
    TopicChanges, TopicSettings,
};

use crate::support::{
    engine::Engine,
    events::{self, code, numbered, offset},
    within,
};

fn event(id: &str) -> Event {
    Event { id: Some(id.into()), ..Event::new(format!("of {id}")) }
}

async fn windowed(client: &Client, partitions: u16) -> Publisher {
    let settings =
        TopicSettings { partitions, dedup_window_ms: DEDUP_WINDOW_MS_USUAL, ..TopicSettings::default() };
    client.create_topic("orders", settings).await.unwrap();
    events::publisher(client, "orders").await
}

/// Publishes events with these ids, all at once; their receipts.
async fn publish(publisher: &Publisher, ids: impl IntoIterator<Item = String>) -> Vec<Receipt> {
    let mut tickets = Vec::new();
    for id in ids {
        tickets.push(publisher.publish(event(&id)).await.unwrap());
    }
    let mut receipts = Vec::new();
    for ticket in tickets {
        receipts.push(within("a ticket", ticket).await.unwrap());
    }
    receipts
}

fn ids(numbers: std::ops::Range<u32>) -> impl Iterator<Item = String> {
    numbers.map(|number| format!("id-{number}"))
}

#[tokio::test]
async fn ids_that_come_again_are_stored_once_also_after_a_restart_and_from_another_publisher() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    let publisher = windowed(&client, 3).await;
    let first = publish(&publisher, ids(0..3_000)).await;
    assert!(first.iter().all(|receipt| !receipt.duplicate && !receipt.same_id));
    let engine = engine.restart().await;
    let client = engine.connect().await;
    let publisher = events::publisher(&client, "orders").await;
    // Half of them are known, and the second half twice in one go.
    let again = publish(&publisher, ids(1_500..4_500).chain(ids(3_000..4_500))).await;
    for (receipt, known) in again.iter().zip(&first[1_500..]) {
        assert_eq!((receipt.partition, receipt.offset), (known.partition, known.offset));
        assert!(receipt.same_id && receipt.duplicate);
    }
    let (fresh, repeated) = again[1_500..].split_at(1_500);
    for (repeated, fresh) in repeated.iter().zip(fresh) {
        assert_eq!((repeated.partition, offset(repeated)), (fresh.partition, offset(fresh)));
        assert!(repeated.same_id && !fresh.same_id);
    }
    let log = events::read_all(&client, "orders").await;
    let mut stored: Vec<String> = Vec::new();
    for events in log.values() {
        events::assert_dense(events, 0);
        stored.extend(events.iter().map(|(_, event)| event.id.clone().unwrap().into_string()));
    }
    stored.sort_unstable();
    let mut expected: Vec<String> = ids(0..4_500).collect();
    expected.sort_unstable();
    assert_eq!(stored, expected);
    let dedup = client.describe_topic("orders").await.unwrap().dedup;
    assert_eq!((dedup.ids, dedup.duplicates, dedup.window_ms), (4_500, 3_000, DEDUP_WINDOW_MS_USUAL));
    let (_, metrics) = engine.get("/metrics").await;
    for line in [
        "levada_dedup_ids{topic=\"orders\"} 4500",
        "levada_duplicate_events_total{topic=\"orders\"} 3000",
        "levada_dedup_forgotten_early_total{topic=\"orders\"} 0",
    ] {
        assert!(metrics.contains(line), "{line} is not among the metrics:\n{metrics}");
    }
}

#[tokio::test]
async fn a_window_is_switched_on_and_off_while_events_are_published() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    let publisher = events::publisher(&client, "orders").await;
    let one = || ["a".to_owned()];
    let is_stored = async |publisher: &Publisher| !publish(publisher, one()).await[0].same_id;
    assert!(is_stored(&publisher).await && is_stored(&publisher).await, "there is no window");
    let set = async |dedup_window_ms| {
        let changes = TopicChanges { dedup_window_ms: Some(dedup_window_ms), ..TopicChanges::default() };
        client.set_topic("orders", changes).await
    };
    set(60_000).await.unwrap();
    assert!(is_stored(&publisher).await, "what came before is not remembered");
    assert!(!is_stored(&publisher).await);
    set(0).await.unwrap();
    assert!(is_stored(&publisher).await, "nothing is remembered any more");
    let too_long = set(7 * 24 * 3_600_000 + 1).await;
    assert_eq!(code(too_long), ErrorCode::InvalidArgument);
    let dedup = client.describe_topic("orders").await.unwrap().dedup;
    assert_eq!((dedup.ids, dedup.window_ms), (0, 0));
}

#[tokio::test]
async fn beyond_the_bound_of_the_configuration_the_description_says_how_short_the_window_is() {
    let engine = Engine::with(|config| config.publish.dedup_ids_max = 100).await;
    let client = engine.connect().await;
    let publisher = windowed(&client, 1).await;
    for round in 0..4 {
        publish(&publisher, ids(round * 50..round * 50 + 50)).await;
    }
    let dedup = client.describe_topic("orders").await.unwrap().dedup;
    assert!(dedup.ids <= 100 && dedup.forgotten_early >= 100, "{dedup:?}");
    assert!(dedup.window_ms < DEDUP_WINDOW_MS_USUAL, "{dedup:?}");
    let last = publish(&publisher, ids(199..200)).await;
    assert!(last[0].same_id, "the newest are remembered");
}

#[tokio::test]
async fn an_append_at_an_expected_offset_is_all_or_nothing_among_several_writers() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    client.create_topic("orders", events::partitions(2)).await.unwrap();
    let partition = PartitionId(1);
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let publisher = events::publisher(&client, "orders").await;
        writers.spawn(async move {
            let (mut expected, mut met) = (Offset(0), 0);
            for round in 0..25 {
                loop {
                    let batch = vec![numbered(writer * 1_000 + round), numbered(writer * 1_000 + round)];
                    match publisher.append_at(partition, expected, batch).await {
                        Ok(receipts) => {
                            assert_eq!(receipts[0].offset, Some(expected));
                            expected = Offset(receipts[1].offset.unwrap().0 + 1);
                            break;
                        }
                        Err(Error::OffsetMismatch { partition: PartitionId(1), expected: asked, found }) => {
                            assert!(asked == expected && found > expected, "{found} is later than {asked}");
                            (expected, met) = (found, met + 1);
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
            }
            met
        });
    }
    let met: u64 = within("the writers", writers.join_all()).await.into_iter().sum();
    assert!(met > 0, "they met");
    let log = events::read_all(&client, "orders").await;
    assert_eq!(log[&1].len(), 200);
    for pair in log[&1].chunks(2) {
        assert_eq!(events::payload(&pair[0].1), events::payload(&pair[1].1), "nobody came in between");
    }
}
