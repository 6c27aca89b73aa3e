//! Reading stored events, also across losses.

use std::num::NonZeroU64;

use levada_client::{
    Client, ErrorCode, Event, Found, PartitionId, PublisherOptions, ReadOptions, Refusal, Search,
    SearchBound, SearchEnd, SearchOptions, Start,
};

use crate::support::Engine;

/// Ten batches of ten events in each partition.
async fn fill(client: &Client, partitions: u16) {
    let options = PublisherOptions { batch_bytes: 256, ..PublisherOptions::default() };
    let publisher = client.publisher("orders", options).await.unwrap();
    for number in 0..100 {
        for partition in 0..partitions {
            let event = Event::new(number.to_string());
            drop(publisher.publish_to(PartitionId(partition), event).await.unwrap());
        }
    }
    publisher.flush().await.unwrap();
}

/// Reads to the end and returns each partition's offsets.
async fn read_all(client: &Client, options: ReadOptions, partitions: u16) -> Vec<Vec<u64>> {
    let mut reader = client.read(options).await.unwrap();
    let mut offsets = vec![Vec::new(); usize::from(partitions)];
    while let Some(delivery) = reader.next().await.unwrap() {
        for (offset, _, event) in delivery.events() {
            assert_eq!(event.payload().unwrap(), offset.to_string().as_bytes());
            offsets[usize::from(delivery.partition().0)].push(offset.0);
        }
    }
    assert!(reader.next().await.unwrap().is_none(), "the end stays the end");
    offsets
}

#[tokio::test]
async fn reads_everything_once_and_ends() {
    let engine = Engine::start(2);
    let client = engine.client().await;
    fill(&client, 2).await;
    let options = ReadOptions { credit_events: 64, ..ReadOptions::new("orders") };
    let offsets = read_all(&client, options, 2).await;
    assert_eq!(offsets, vec![(0..100).collect::<Vec<u64>>(); 2]);
    assert_eq!(engine.inner.world().reads[0].from, Start::Earliest);
}

#[tokio::test]
async fn goes_on_where_it_was_after_a_loss() {
    let engine = Engine::start(2);
    let client = engine.client().await;
    fill(&client, 2).await;
    engine.inner.change(|world| world.cut_read_after = Some(3));
    let offsets = read_all(&client, ReadOptions::new("orders"), 2).await;
    assert_eq!(offsets, vec![(0..100).collect::<Vec<u64>>(); 2]);
    let world = engine.inner.world();
    assert_eq!(world.connections, 2);
    assert_eq!(world.reads.len(), 3, "one stream at first, then one for each partition");
    assert!(world.reads.iter().any(|read| matches!(read.from, Start::Offset(offset) if offset > 0)));
}

/// Searches to the end and returns each partition's offsets.
async fn search_all(search: &mut Search) -> Vec<Vec<u64>> {
    let mut offsets = vec![Vec::new(); 2];
    while let Some(found) = search.next().await.unwrap() {
        if let Found::Events(delivery) = found {
            let partition = usize::from(delivery.partition().0);
            offsets[partition].extend(delivery.events().map(|(offset, ..)| offset.0));
        }
    }
    offsets
}

fn number(number: u64) -> NonZeroU64 {
    NonZeroU64::new(number).unwrap()
}

#[tokio::test]
async fn a_search_goes_on_in_one_stream_after_a_loss_with_what_is_left_of_its_bounds() {
    let engine = Engine::start(2);
    let client = engine.client().await;
    fill(&client, 2).await;
    engine.inner.change(|world| world.cut_read_after = Some(3));
    let options = SearchOptions {
        bound: SearchBound::Bytes(number(10_000)),
        events_max: Some(number(1_000)),
        ..SearchOptions::by_key("orders", "k")
    };
    let mut search = client.search(options).await.unwrap();
    assert_eq!(search_all(&mut search).await, vec![(0..100).collect::<Vec<u64>>(); 2]);
    assert_eq!(search.ended(), Some(SearchEnd::Complete));
    assert_eq!(search.cursor().to_string(), "0:100,1:100");
    let world = engine.inner.world();
    let [first, second] = &world.reads[..] else { panic!("expected two streams, got {:?}", world.reads) };
    assert_eq!((first.positions.len(), second.positions.len()), (0, 2));
    let came: u64 = second.positions.iter().map(|position| position.offset).sum();
    assert!(came > 0);
    let (first, second) = (first.search.as_ref().unwrap(), second.search.as_ref().unwrap());
    assert_eq!((first.scan_bytes_max, first.events_max), (10_000, 1_000));
    assert_eq!(second.events_max, 1_000 - came, "what came counts");
    assert!(second.scan_bytes_max < 10_000, "what was scanned counts, as far as the engine has said");
    assert_eq!(second.key, first.key);
}

#[tokio::test]
async fn a_search_whose_bound_was_reached_before_a_loss_opens_no_other_stream() {
    let engine = Engine::start(2);
    let client = engine.client().await;
    fill(&client, 2).await;
    let first = engine.inner.change(|world| {
        world.cut_read_after = Some(1);
        u64::from(world.log[&0][0].1.count())
    });
    let options = SearchOptions { events_max: Some(number(first)), ..SearchOptions::by_key("orders", "k") };
    let mut search = client.search(options).await.unwrap();
    assert_eq!(search_all(&mut search).await, [(0..first).collect::<Vec<u64>>(), Vec::new()]);
    assert_eq!(search.ended(), Some(SearchEnd::Limited));
    assert_eq!(search.cursor().to_string(), format!("0:{first},1:0"));
    assert_eq!(engine.inner.world().reads.len(), 1);
}

#[tokio::test]
async fn a_refusal_surfaces_at_once_or_in_the_middle() {
    let engine = Engine::start(1);
    let client = engine.client().await;
    fill(&client, 1).await;
    let refusal = Refusal::new(ErrorCode::OffsetOutOfRange, "offset 7 is gone, the oldest is 9");
    engine.inner.change(|world| world.refuse_open.push_back(refusal.clone()));
    let error = client.read(ReadOptions::new("orders")).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::OffsetOutOfRange);
    engine.inner.change(|world| world.cut_read_after = Some(1));
    let mut reader = client.read(ReadOptions::new("orders")).await.unwrap();
    engine.inner.change(|world| world.refuse_open.push_back(refusal));
    assert_eq!(reader.next().await.unwrap().unwrap().first().0, 0);
    let error = loop {
        match reader.next().await {
            Ok(delivery) => assert!(delivery.is_some()),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), ErrorCode::OffsetOutOfRange);
}

#[tokio::test]
async fn a_reader_that_fell_behind_retention_is_told_where_the_oldest_event_is() {
    let engine = Engine::start(2);
    let client = engine.client().await;
    fill(&client, 2).await;
    let what = "offset 100 of partition 1 is gone, the oldest is 250";
    engine.inner.change(|world| world.end_reader = Some(Refusal::new(ErrorCode::OffsetOutOfRange, what)));
    let options = ReadOptions { follow: true, ..ReadOptions::new("orders") };
    let mut reader = client.read(options).await.unwrap();
    let mut events = 0;
    let error = loop {
        match reader.next().await {
            Ok(delivery) => events += delivery.expect("a refusal is no end").count(),
            Err(error) => break error,
        }
    };
    assert_eq!(events, 200, "what came before is handed out first");
    assert!(matches!(&error, levada_client::Error::Refused(refusal) if refusal.message == what), "{error}");
    assert_eq!(error.code(), ErrorCode::OffsetOutOfRange);
    assert!(!error.is_retryable() && error.has_no_side_effects());
    assert_eq!(reader.next().await.unwrap_err().code(), ErrorCode::OffsetOutOfRange, "and again");
    assert_eq!(engine.inner.world().reads.len(), 1, "nothing is read again");
}

#[tokio::test]
async fn a_refused_partition_shows_while_the_others_still_have_much_to_say() {
    let engine = Engine::start(2);
    let client = engine.client().await;
    fill(&client, 2).await;
    engine.inner.change(|world| world.cut_read_after = Some(1));
    let options = ReadOptions { credit_events: 40, ..ReadOptions::new("orders") };
    let mut reader = client.read(options).await.unwrap();
    let refusal = Refusal::new(ErrorCode::OffsetOutOfRange, "gone");
    engine.inner.change(|world| world.refuse_open.push_back(refusal));
    engine.inner.until(|world| world.refuse_open.is_empty().then_some(())).await;
    let mut events = 0;
    let error = loop {
        match reader.next().await {
            Ok(delivery) => events += delivery.expect("a refusal is no end").count(),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), ErrorCode::OffsetOutOfRange);
    assert!(events < 90, "the other partition was read to its end first: {events} events");
}
