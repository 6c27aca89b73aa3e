//! Topics, and publishing to them: tickets, offsets, repeats, expectations, limits.

use levada_client::{
    DeleteOptions, Durability, ErrorCode, Event, OnFull, PublisherOptions, Retain, RouteSpec, TopicChanges,
    TopicSettings,
    protocol::{limits, partition::partition_of},
};

use crate::support::{
    engine::Engine,
    events::{self, code, numbered, offset},
    raw::{self, Ask, PublishStream, batch, stored},
    rng::Rng,
    within,
};

#[tokio::test]
async fn topics_are_made_listed_described_changed_and_deleted() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    let settings = TopicSettings {
        partitions: 3,
        durability: Durability::Os,
        retain: Retain::TimeAndSize,
        retain_for_ms: 1_000_000,
        max_bytes: 1 << 30,
        dedup_window_ms: 60_000,
        dedup_header: "source".to_owned(),
        backlog_max_events: 1_000,
        backlog_max_bytes: 1 << 20,
        backlog_max_age_ms: 3_600_000,
        on_full: OnFull::DropOldest,
    };
    let made = client.create_topic("orders", settings.clone()).await.unwrap();
    assert_eq!((made.name.as_str(), &made.settings, made.partitions.len()), ("orders", &settings, 3));
    events::topic(&client, "bills").await;
    let names: Vec<String> =
        client.list_topics().await.unwrap().into_iter().map(|topic| topic.name.to_string()).collect();
    assert_eq!(names, ["bills", "orders"]);

    let changed = TopicSettings { retain_for_ms: 5, durability: Durability::Sync, ..settings.clone() };
    let changes = TopicChanges {
        retain_for_ms: Some(5),
        durability: Some(Durability::Sync),
        ..TopicChanges::default()
    };
    client.set_topic("orders", changes).await.unwrap();
    assert_eq!(client.describe_topic("orders").await.unwrap().settings, changed);
    let repartitioned = TopicChanges { partitions: Some(4), ..TopicChanges::default() };
    assert_eq!(code(client.set_topic("orders", repartitioned).await), ErrorCode::InvalidArgument);

    client.delete_topic("orders", DeleteOptions::default()).await.unwrap();
    assert_eq!(code(client.describe_topic("orders").await), ErrorCode::TopicNotFound);
    let again = client.create_topic("orders", TopicSettings::default()).await.unwrap();
    assert!(again.id > made.id, "ids are never given twice");
}

#[tokio::test]
async fn what_is_no_topic_is_refused_with_its_reason() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    for name in ["", "Orders", "_own", "dlq.orders.x", "a/b", &"x".repeat(129)] {
        let made = client.create_topic(name, TopicSettings::default()).await;
        assert_eq!(code(made), ErrorCode::InvalidName, "{name:?}");
    }
    let exists = client.create_topic("orders", TopicSettings::default()).await;
    assert_eq!(code(exists), ErrorCode::TopicExists);
    for settings in [
        events::partitions(0),
        events::partitions(limits::PARTITIONS_MAX + 1),
        TopicSettings { durability: Durability::Unknown, ..TopicSettings::default() },
    ] {
        let made = client.create_topic("other", settings.clone()).await;
        assert_eq!(code(made), ErrorCode::InvalidArgument, "{settings:?}");
    }
    client.create_topic("widest", events::partitions(limits::PARTITIONS_MAX)).await.unwrap();
    let absent = client.publisher("absent", PublisherOptions::default()).await;
    assert_eq!(code(absent), ErrorCode::TopicNotFound);
    assert_eq!(code(client.delete_topic("absent", DeleteOptions::default()).await), ErrorCode::TopicNotFound);
}

#[tokio::test]
async fn an_id_is_kept_but_finds_no_repeats_without_a_window() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    let named = Event { id: Some("one".into()), ..numbered(2) };
    events::publish(&client, "orders", [named.clone(), named]).await;
    assert_eq!(read_all_ids(&client).await, [Some("one".to_owned()), Some("one".to_owned())]);
}

/// The ids of all events of `orders`, of one partition.
async fn read_all_ids(client: &levada_client::Client) -> Vec<Option<String>> {
    let log = events::read_all(client, "orders").await;
    log.into_values().flatten().map(|(_, event)| event.id.map(String::from)).collect()
}

#[tokio::test]
async fn a_topic_that_a_route_leads_to_is_deleted_by_force_alone() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "from").await;
    events::topic(&client, "to").await;
    let spec = RouteSpec::new("r".parse().unwrap(), "from".parse().unwrap(), ["to".parse().unwrap()]);
    client.create_route(spec).await.unwrap();
    assert_eq!(code(client.delete_topic("to", DeleteOptions::default()).await), ErrorCode::TopicInUse);
    client.delete_topic("to", DeleteOptions::forced()).await.unwrap();
    assert_eq!(code(client.delete_topic("from", DeleteOptions::default()).await), ErrorCode::TopicInUse);
    let gone = client.delete_topic("from", DeleteOptions::forced()).await.unwrap();
    assert_eq!((gone.topics, gone.routes, gone.count), (vec!["from".to_owned()], vec!["r".to_owned()], 2));
    assert_eq!(client.list_routes().await.unwrap(), [], "routes go with their source");
}

#[tokio::test]
async fn tickets_resolve_to_dense_offsets_in_order() {
    let mut rng = Rng::for_test("tickets_resolve_to_dense_offsets_in_order");
    let engine = Engine::start().await;
    let client = engine.connect().await;
    client.create_topic("orders", events::partitions(4)).await.unwrap();
    let published: Vec<Event> = (0..5_000).map(|number| events::random_event(&mut rng, number)).collect();
    let receipts = events::publish(&client, "orders", published.clone()).await;
    let log = events::read_all(&client, "orders").await;
    let mut next = [0; 4];
    for (event, receipt) in published.iter().zip(&receipts) {
        let partition = receipt.partition.0;
        if let Some(key) = &event.key {
            assert_eq!(receipt.partition, partition_of(key, 4), "a key has its partition for ever");
        }
        let expected = &mut next[usize::from(partition)];
        assert_eq!((offset(receipt), receipt.duplicate), (*expected, false));
        let place = usize::try_from(*expected).unwrap();
        assert_eq!(log[&partition][place], (*expected, event.clone()));
        *expected += 1;
    }
    let described = client.describe_topic("orders").await.unwrap();
    for partition in described.partitions {
        assert_eq!((partition.start, partition.end), (0, next[usize::from(partition.partition)]));
    }
}

#[tokio::test]
async fn a_publish_may_ask_for_more_durability_than_its_topic() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    let settings = TopicSettings { durability: Durability::Os, ..TopicSettings::default() };
    client.create_topic("quick", settings).await.unwrap();
    events::topic(&client, "safe").await;
    for (topic, asked) in [
        ("quick", None),
        ("quick", Some(Durability::Sync)),
        ("safe", Some(Durability::Os)),
        ("safe", Some(Durability::Sync)),
    ] {
        let options = PublisherOptions { durability: asked, ..PublisherOptions::default() };
        let publisher = client.publisher(topic, options).await.unwrap();
        let ticket = publisher.publish(numbered(1)).await.unwrap();
        assert!(within("the ticket", ticket).await.unwrap().offset.is_some());
    }
    assert_eq!(events::texts(&events::read_all(&client, "safe").await, 0).len(), 2);
}

#[tokio::test]
async fn a_batch_sent_again_is_answered_as_a_duplicate_with_its_first_offset() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    let first = batch(77, 0, 0, &[numbered(0), numbered(1), numbered(2)]);
    let second = batch(77, 0, 3, &[numbered(3)]);
    let (connection, _control, _) = raw::greet(engine.started.quic, &engine.started.ca_pem_path).await;
    let mut stream = PublishStream::open(&connection, "orders").await;
    let none = Ask::default();
    assert_eq!(stream.publish(none, first.bytes()).await, stored(0, 3, false));
    assert_eq!(stream.publish(none, first.bytes()).await, stored(0, 3, true));
    assert_eq!(stream.publish(none, second.bytes()).await, stored(3, 1, false));

    // Whoever asks, and whether or not the engine was started anew in between.
    let (connection, _control, _) = raw::greet(engine.started.quic, &engine.started.ca_pem_path).await;
    let mut stream = PublishStream::open(&connection, "orders").await;
    assert_eq!(stream.publish(none, first.bytes()).await, stored(0, 3, true));
    let engine = engine.restart().await;
    let (connection, _control, _) = raw::greet(engine.started.quic, &engine.started.ca_pem_path).await;
    let mut stream = PublishStream::open(&connection, "orders").await;
    assert_eq!(stream.publish(none, second.bytes()).await, stored(3, 1, true));
    assert_eq!(stream.publish(none, first.bytes()).await, stored(0, 3, true));
    let third = batch(77, 0, 4, &[numbered(4)]);
    assert_eq!(stream.publish(none, third.bytes()).await, stored(4, 1, false));
    let client = engine.connect().await;
    assert_eq!(events::texts(&events::read_all(&client, "orders").await, 0), ["0", "1", "2", "3", "4"]);
}

#[tokio::test]
async fn a_sequence_is_taken_only_where_its_producer_stands() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    let (connection, _control, _) = raw::greet(engine.started.quic, &engine.started.ca_pem_path).await;
    let mut stream = PublishStream::open(&connection, "orders").await;
    let mut publish = async |epoch, sequence, count: u64| {
        let events: Vec<Event> = (0..count).map(numbered).collect();
        stream.publish(Ask::default(), batch(5, epoch, sequence, &events).bytes()).await
    };
    assert_eq!(raw::refused(&publish(0, 9, 1).await), ErrorCode::ProducerUnknown);
    assert_eq!(publish(0, 0, 2).await, stored(0, 2, false));
    assert_eq!(raw::refused(&publish(0, 3, 1).await), ErrorCode::SequenceGap);
    assert_eq!(raw::refused(&publish(0, 1, 2).await), ErrorCode::SequenceGap, "half of it was seen");
    assert_eq!(raw::refused(&publish(3, 0, 1).await), ErrorCode::ProducerUnknown, "an epoch is given");
    assert_eq!(publish(0, 2, 1).await, stored(2, 1, false));
    assert_eq!(events::texts(&events::read_all(&client, "orders").await, 0).len(), 3);
}

#[tokio::test]
async fn an_expected_offset_is_held_against_the_partition() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    client.create_topic("orders", events::partitions(2)).await.unwrap();
    let (connection, _control, _) = raw::greet(engine.started.quic, &engine.started.ca_pem_path).await;
    let mut stream = PublishStream::open(&connection, "orders").await;
    let at = |partition, offset| Ask { partition, expect_offset: Some(offset), ..Ask::default() };
    let one = batch(0, 0, 0, &[numbered(0)]);
    assert_eq!(stream.publish(at(1, 0), one.bytes()).await, stored(0, 1, false));
    assert_eq!(raw::refused(&stream.publish(at(1, 0), one.bytes()).await), ErrorCode::OffsetMismatch);
    assert_eq!(raw::refused(&stream.publish(at(1, 2), one.bytes()).await), ErrorCode::OffsetMismatch);
    assert_eq!(stream.publish(at(1, 1), one.bytes()).await, stored(1, 1, false));
    assert_eq!(stream.publish(at(0, 0), one.bytes()).await, stored(0, 1, false));
    assert_eq!(raw::refused(&stream.publish(at(2, 0), one.bytes()).await), ErrorCode::PartitionNotFound);
    assert_eq!(events::read_all(&client, "orders").await[&1].len(), 2, "what is refused is not stored");
}

#[tokio::test]
async fn the_largest_event_and_the_longest_batch_fit_and_one_more_does_not() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    let publisher = events::publisher(&client, "orders").await;
    let largest = Event::new(vec![7; limits::EVENT_BYTES_MAX - 12]);
    let ticket = publisher.publish(largest.clone()).await.unwrap();
    within("the largest event", ticket).await.unwrap();
    let larger = Event::new(vec![7; limits::EVENT_BYTES_MAX - 11]);
    assert_eq!(code(publisher.publish(larger).await), ErrorCode::EventTooLarge);

    let (connection, _control, _) = raw::greet(engine.started.quic, &engine.started.ca_pem_path).await;
    let mut stream = PublishStream::open(&connection, "orders").await;
    let many: Vec<Event> = (0..10_000).map(numbered).collect();
    let longest = batch(0, 0, 0, &many);
    assert_eq!(stream.publish(Ask::default(), longest.bytes()).await, stored(1, 10_000, false));
    let log = events::read_all(&client, "orders").await;
    assert_eq!(log[&0][0], (0, Event { time: log[&0][0].1.time, ..largest }));
    let stored: Vec<Event> = log[&0][1..].iter().map(|(_, event)| event.clone()).collect();
    assert_eq!(stored, many);
    events::assert_dense(&log[&0], 0);
}

#[tokio::test]
async fn a_publisher_goes_on_across_restarts_without_gap_or_repeat() {
    let mut engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    let options = PublisherOptions { batch_bytes: 2_000, ..PublisherOptions::default() };
    let publisher = client.publisher("orders", options).await.unwrap();
    let mut tickets = Vec::new();
    for number in 0..20_000 {
        tickets.push(publisher.publish(numbered(number)).await.unwrap());
        if number % 5_000 == 4_000 {
            // In the middle of what is under way.
            engine = engine.restart().await;
        }
    }
    for (number, ticket) in (0..).zip(tickets) {
        let receipt = within("a ticket", ticket).await.unwrap();
        assert_eq!(offset(&receipt), number);
    }
    let client = engine.connect().await;
    let log = events::read_all(&client, "orders").await;
    let numbers: Vec<u64> =
        log[&0].iter().map(|(_, event)| events::number_of(events::payload(event))).collect();
    assert!(numbers.into_iter().eq(0..20_000), "each once, in order");
}
