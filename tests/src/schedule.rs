//! Delayed events, end to end: published by the client, cancelled, and delivered when due, across a kill of the engine.

use std::time::Duration;

use levada_client::{ErrorCode, Event, PublisherOptions, Timestamp};
use tempfile::TempDir;

use crate::support::{
    engine::Engine,
    events::{self, code, texts},
    process::Process,
    until, within,
};

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn a_delayed_event_is_delivered_when_it_is_due_and_a_cancelled_one_never() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    let publisher = client.publisher("orders", PublisherOptions::default()).await.unwrap();
    let kept = publisher.schedule(Event::new("kept"), HOUR).await.unwrap().await.unwrap();
    let gone = publisher.schedule(Event::new("gone"), HOUR).await.unwrap().await.unwrap();
    let (kept, gone) = (kept.id.unwrap(), gone.id.unwrap());
    let soon = publisher.schedule(Event::new("soon"), Duration::from_millis(1)).await.unwrap().await.unwrap();
    let past = publisher.schedule(Event::new("past"), Timestamp(1)).await.unwrap().await.unwrap();
    client.cancel_scheduled("orders", gone).await.unwrap();
    client.cancel_scheduled("orders", gone).await.unwrap();

    let mut consumer = client.subscribe(events::earliest("orders", "s", Default::default())).await.unwrap();
    let got = within("both", events::consume(&mut consumer, 2)).await;
    assert_eq!(got.len(), 2);
    let log = events::read_all(&client, "orders").await;
    let mut delivered = texts(&log, 0);
    delivered.sort_unstable();
    assert_eq!(delivered, ["past", "soon"]);
    let late = client.cancel_scheduled("orders", soon.id.unwrap()).await;
    assert_eq!(code(late), ErrorCode::AlreadyDue);
    let never = client.cancel_scheduled("orders", past.id.unwrap() + 1).await;
    assert_eq!(code(never), ErrorCode::ScheduleNotFound);
    let waiting = client.list_scheduled("orders", 10).await.unwrap();
    assert_eq!(waiting.iter().map(|event| event.id).collect::<Vec<_>>(), [kept]);
    assert_eq!(client.describe_topic("orders").await.unwrap().scheduled, 1);
    assert_eq!(client.describe_scheduled("orders", kept).await.unwrap().payload_bytes, 4);
}

#[tokio::test]
async fn delayed_events_survive_a_kill_and_come_once_each() {
    let dir = TempDir::new().unwrap();
    let engine = Process::start(dir.path()).await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    let publisher = client.publisher("orders", PublisherOptions::default()).await.unwrap();
    let mut tickets = Vec::new();
    for number in 0..500 {
        let delay = if number < 100 { HOUR } else { Duration::from_millis(number % 7 * 100) };
        tickets.push(publisher.schedule(Event::new(number.to_string()), delay).await.unwrap());
    }
    for ticket in tickets {
        ticket.await.unwrap();
    }
    engine.kill().await;
    let engine = Process::start(dir.path()).await;
    let client = engine.connect().await;
    until("what was due meanwhile", async || {
        (client.describe_topic("orders").await.unwrap().scheduled == 100).then_some(())
    })
    .await;
    let mut log = texts(&events::read_all(&client, "orders").await, 0);
    log.sort_unstable();
    let mut expected: Vec<String> = (100..500).map(|number| number.to_string()).collect();
    expected.sort_unstable();
    assert_eq!(log, expected);
    engine.stop().await;
}
