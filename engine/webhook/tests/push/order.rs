//! Order: the events of a key one after the other, and other keys beside them.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use levada_protocol::request::{Order, SetPush, SubscriptionOptions};

use crate::{
    receiver::{Got, Receiver, Reply, status},
    support::{Engine, again_after, to},
};

/// The numbers that a receiver took of each key, in order, without those that it let fail.
fn taken(all: &[(String, u64, bool)]) -> HashMap<String, Vec<u64>> {
    let mut keys: HashMap<String, Vec<u64>> = HashMap::new();
    for (key, number, _) in all.iter().filter(|(_, _, took)| *took) {
        keys.entry(key.clone()).or_default().push(*number);
    }
    keys
}

#[tokio::test]
async fn the_events_of_a_key_arrive_in_order_whatever_fails() {
    let engine = Engine::start(again_after(1)).await;
    let seen: Arc<Mutex<Vec<(String, u64, bool)>>> = Arc::default();
    let noted = Arc::clone(&seen);
    let mut receiver = Receiver::start(move |count, got: &Got| {
        // Every third request fails, whatever it is about.
        let takes = count % 3 != 1;
        let key = got.event()["partitionkey"].as_str().unwrap().to_owned();
        noted.lock().unwrap().push((key, got.number(), takes));
        status(if takes { 200 } else { 500 }, "")
    })
    .await;
    engine.push(receiver.url()).await;
    for round in 0..10 {
        let events: Vec<(Option<&str>, u64)> = ["a", "b", "c"]
            .into_iter()
            .flat_map(|key| [(Some(key), round * 2), (Some(key), round * 2 + 1)])
            .collect();
        engine.publish(&events).await;
    }
    engine.until_done().await;
    let mut requests = 0;
    while !receiver.is_quiet() {
        requests += 1;
    }
    assert!(requests >= 60, "{requests}");
    let keys = taken(&seen.lock().unwrap());
    for key in ["a", "b", "c"] {
        let mut numbers = keys[key].clone();
        // An event may come twice, but never after a later one was taken.
        numbers.dedup();
        assert_eq!(numbers, (0..20).collect::<Vec<u64>>(), "{key}");
    }
    engine.stop().await;
}

#[tokio::test]
async fn a_key_that_fails_holds_up_no_other_and_is_not_overtaken() {
    let engine = Engine::start(again_after(300)).await;
    let failed = Arc::new(AtomicUsize::new(0));
    let fails = Arc::clone(&failed);
    let mut receiver = Receiver::start(move |_, got: &Got| {
        let slow = got.number() == 1 && fails.fetch_add(1, Ordering::SeqCst) == 0;
        status(if slow { 500 } else { 200 }, "")
    })
    .await;
    engine.push(receiver.url()).await;
    engine.publish(&[(Some("a"), 1), (Some("a"), 2), (Some("b"), 10), (Some("b"), 11)]).await;
    let numbers: Vec<u64> = receiver.take(5).await.iter().map(Got::number).collect();
    let place = |number, nth| {
        let all = numbers.iter().enumerate().filter(|(_, it)| **it == number);
        all.map(|(place, _)| place).nth(nth).unwrap_or_else(|| panic!("{number} in {numbers:?}"))
    };
    assert!(place(1, 0) < place(1, 1) && place(1, 1) < place(2, 0), "{numbers:?}");
    assert!(place(11, 0) < place(1, 1), "{numbers:?}");
    engine.until_done().await;
    engine.stop().await;
}

#[tokio::test]
async fn by_partition_one_event_goes_at_a_time() {
    let options = SubscriptionOptions { order: Some(Order::Partition), ..again_after(0) };
    let engine = Engine::start(options).await;
    let mut receiver = Receiver::start(|count, _| status(if count == 2 { 500 } else { 200 }, "")).await;
    engine.push(receiver.url()).await;
    let events: Vec<(Option<&str>, u64)> = (0..6).map(|number| (None, number)).collect();
    engine.publish(&events).await;
    let numbers: Vec<u64> = receiver.take(7).await.iter().map(Got::number).collect();
    assert_eq!(numbers, [0, 1, 2, 2, 3, 4, 5]);
    engine.until_done().await;
    engine.stop().await;
}

#[tokio::test]
async fn a_receiver_has_at_most_so_many_events_at_a_time() {
    let engine = Engine::start(SubscriptionOptions { order: Some(Order::None), ..again_after(0) }).await;
    let mut receiver = Receiver::start(|_, _| Reply::Nothing).await;
    engine
        .set(SetPush { max_in_flight: Some(3), timeout_ms: Some(60_000), ..to(Some(receiver.url())) })
        .await;
    let events: Vec<(Option<&str>, u64)> = (0..10).map(|number| (None, number)).collect();
    engine.publish(&events).await;
    receiver.take(3).await;
    let info = engine.until(|info| info.in_flight == 3).await;
    assert_eq!((info.lag, receiver.is_quiet()), (10, true));
    engine.stop().await;
}
