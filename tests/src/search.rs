//! Searching over real QUIC: conditions tested in the engine, bounds, and going on from a cursor.

use std::num::NonZeroU64;

use levada_client::{
    Client, Delivery, ErrorCode, Event, Found, Search, SearchBound, SearchEnd, SearchOptions, SearchScope,
    Start, TopicSettings,
};

use crate::support::{
    engine::Engine,
    events::{self, code},
    within,
};

const CONDITION: &str = r#"amount > 100 and header.region = "eu""#;

/// A topic of 3 partitions with 900 orders, of which 100 match [`CONDITION`], and 3 events that are no JSON.
async fn orders(client: &Client) {
    let settings = TopicSettings { partitions: 3, ..TopicSettings::default() };
    client.create_topic("orders", settings).await.unwrap();
    let publisher = events::publisher(client, "orders").await;
    for number in 0..900_u64 {
        let payload =
            format!("{{\"number\":{number},\"amount\":{}}}", if number % 3 == 0 { 250 } else { 50 });
        let region = if number % 9 == 0 { "eu" } else { "us" };
        let order =
            Event::new(payload).with_key(format!("order-{}", number % 30)).with_header("region", region);
        publisher.publish(order).await.unwrap().await.unwrap();
    }
    for number in 0..3 {
        let text = Event::new("no JSON").with_key(format!("order-{number}")).with_header("region", "eu");
        publisher.publish(text).await.unwrap().await.unwrap();
    }
}

fn numbers(delivery: &Delivery) -> Vec<u64> {
    let number = |payload: &[u8]| {
        let order: serde_json::Value = serde_json::from_slice(payload).unwrap();
        order["number"].as_u64().unwrap()
    };
    delivery.events().map(|(_, _, event)| number(event.payload().unwrap())).collect()
}

async fn found(search: &mut Search) -> Vec<u64> {
    let mut all = Vec::new();
    while let Some(found) = within("what is found", search.next()).await.unwrap() {
        if let Found::Events(delivery) = found {
            all.extend(numbers(&delivery));
        }
    }
    all
}

fn expected() -> Vec<u64> {
    (0..900).filter(|number| number % 9 == 0).collect()
}

#[tokio::test]
async fn a_search_finds_in_the_engine_what_matches_and_goes_on_from_its_cursor() {
    let mut engine = Engine::start().await;
    let client = engine.connect().await;
    orders(&client).await;
    let mut search = client.search(SearchOptions::new("orders", CONDITION)).await.unwrap();
    let mut all = found(&mut search).await;
    all.sort_unstable();
    assert_eq!(all, expected());
    let scanned = search.scanned();
    assert_eq!((scanned.events, scanned.matched, scanned.undecodable), (903, 100, 3));
    assert_eq!(search.ended(), Some(SearchEnd::Complete));

    let (mut parts, mut all, mut scope) = (0, Vec::new(), SearchScope::All(Start::Earliest));
    loop {
        let bound = SearchBound::Bytes(NonZeroU64::new(20_000).unwrap());
        let options = SearchOptions { scope, bound, ..SearchOptions::new("orders", CONDITION) };
        let mut search = client.search(options).await.unwrap();
        all.extend(found(&mut search).await);
        parts += 1;
        if search.ended() == Some(SearchEnd::Complete) {
            break;
        }
        // As text, the way it goes through a shell.
        scope = SearchScope::Cursor(search.cursor().to_string().parse().unwrap());
    }
    assert!(parts > 2, "{parts} parts");
    all.sort_unstable();
    assert_eq!(all, expected());
    engine.stop().await.unwrap();
}

#[tokio::test]
async fn a_search_by_key_follows_and_ends_with_as_many_events_as_it_asked_for() {
    let mut engine = Engine::start().await;
    let client = engine.connect().await;
    orders(&client).await;
    let options = SearchOptions {
        condition: Some("amount > 0".to_owned()),
        bound: SearchBound::Follow,
        events_max: NonZeroU64::new(31),
        ..SearchOptions::by_key("orders", "order-7")
    };
    let mut search = client.search(options).await.unwrap();
    let late = Event::new(r#"{"number":1000,"amount":1}"#).with_key("order-7");
    let publishing = async {
        let publisher = events::publisher(&client, "orders").await;
        publisher.publish(late).await.unwrap().await.unwrap();
    };
    let (all, ()) = tokio::join!(found(&mut search), publishing);
    let stored = (0..900).filter(|number| number % 30 == 7);
    assert_eq!(all, stored.chain([1_000]).collect::<Vec<_>>(), "one key is in one partition, in order");
    assert_eq!(search.ended(), Some(SearchEnd::Limited));
    engine.stop().await.unwrap();
}

#[tokio::test]
async fn a_search_that_cannot_be_done_is_refused_with_the_reason() {
    let mut engine =
        Engine::with(|config| config.subscribe.scan_bytes_max = bytesize::ByteSize::kib(64)).await;
    let client = engine.connect().await;
    orders(&client).await;
    let error = client.search(SearchOptions::new("orders", "amount >")).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidArgument);
    assert!(error.to_string().contains("where: column 9: expected a field, a header or a value"), "{error}");
    let within_limit = |bytes| SearchOptions {
        bound: SearchBound::Bytes(NonZeroU64::new(bytes).unwrap()),
        ..SearchOptions::new("orders", CONDITION)
    };
    assert!(client.search(within_limit(64 << 10)).await.is_ok());
    assert_eq!(code(client.search(within_limit((64 << 10) + 1)).await), ErrorCode::InvalidArgument);
    assert_eq!(code(client.search(SearchOptions::new("absent", CONDITION)).await), ErrorCode::TopicNotFound);
    engine.stop().await.unwrap();
}
