//! Consumers that are slower than the acknowledgement timeout, and some that stand still.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use levada_client::{ErrorCode, Order, Prefetch, SubscribeOptions, SubscriptionOptions};

use crate::support::{
    engine::Engine,
    events::{self, code, earliest, numbered, publish_numbers},
    within,
};

const ACK_TIMEOUT: Duration = Duration::from_millis(300);

fn short(order: Order) -> SubscriptionOptions {
    let ack_timeout_ms = u32::try_from(ACK_TIMEOUT.as_millis()).unwrap();
    SubscriptionOptions {
        order: Some(order),
        ack_timeout_ms: Some(ack_timeout_ms),
        ..SubscriptionOptions::default()
    }
}

#[tokio::test]
async fn a_consumer_slower_than_the_timeout_gets_each_event_once() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    publish_numbers(&client, "orders", 0..8).await;
    let mut subscriber = client.subscribe(earliest("orders", "s", short(Order::Key))).await.unwrap();
    let mut handled = Vec::new();
    while handled.len() < 8 {
        let event = within("an event", subscriber.next()).await.unwrap().unwrap();
        assert_eq!(event.attempt(), 1);
        handled.push(event.offset().0);
        // What it does with an event takes longer than the timeout.
        tokio::time::sleep(ACK_TIMEOUT + ACK_TIMEOUT / 3).await;
        event.ack();
        within("the confirmation", subscriber.confirmed()).await.expect("the event was still its own");
    }
    assert!(handled.into_iter().eq(0..8));
    let described = client.describe_subscription("orders", "s").await.unwrap();
    assert_eq!((described.lag, described.redelivered), (0, 0));
}

#[tokio::test]
async fn slow_consumers_that_take_whole_deliveries_get_each_event_once() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    publish_numbers(&client, "orders", 0..30).await;
    let mut subscriber = client.subscribe(earliest("orders", "s", short(Order::Key))).await.unwrap();
    let (mut handled, begun) = (0, Instant::now());
    while handled < 30 {
        let delivery = events::next(&mut subscriber).await;
        assert_eq!(delivery.attempt(), 1);
        handled += delivery.count();
        tokio::time::sleep(Duration::from_millis(50) * delivery.count()).await;
        delivery.ack();
    }
    within("the confirmation", subscriber.confirmed()).await.unwrap();
    assert!(begun.elapsed() > ACK_TIMEOUT * 4);
    assert_eq!(client.describe_subscription("orders", "s").await.unwrap().redelivered, 0);
}

#[tokio::test]
async fn a_process_that_stands_still_loses_what_it_holds() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    publish_numbers(&client, "orders", 0..5).await;
    let options = || short(Order::None);
    // Its credit is spent, so nothing is given to it again.
    let few =
        SubscribeOptions { credit_events: 5, prefetch: Prefetch::All, ..earliest("orders", "s", options()) };
    let (took, taken) = mpsc::channel();
    let (wake, woken) = mpsc::channel::<()>();
    let config = engine.client_config();
    let frozen = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let client = levada_client::Client::connect(config).await.unwrap();
            let mut subscriber = client.subscribe(few).await.unwrap();
            let held = subscriber.next().await.unwrap().unwrap();
            took.send(held.offset().0).unwrap();
            // The whole runtime stands still with this thread.
            woken.recv().unwrap();
            held.ack();
            let late = subscriber.confirmed().await;
            let next = subscriber.next().await.unwrap().unwrap();
            let got = next.offset().0;
            next.ack();
            subscriber.confirmed().await.unwrap();
            (code(late), got)
        })
    });
    let taken = tokio::task::spawn_blocking(move || taken.recv().unwrap()).await.unwrap();
    assert_eq!(taken, 0);
    let mut other = client.subscribe(earliest("orders", "s", options())).await.unwrap();
    let mut got = events::consume(&mut other, 5).await;
    got.sort_by_key(|got| got.offset);
    assert!(got.iter().map(|got| got.offset).eq(0..5), "in time, all of them go to the other one");
    drop(other);
    wake.send(()).unwrap();
    events::publish(&client, "orders", [numbered(5)]).await;
    let (late, next) = tokio::task::spawn_blocking(move || frozen.join().unwrap()).await.unwrap();
    assert_eq!(late, ErrorCode::DeliveryExpired);
    assert_eq!(next, 5, "what waited in its queue is not handed out any more");
}

#[tokio::test]
async fn what_an_application_forgets_is_let_go_after_its_time() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    publish_numbers(&client, "orders", 0..1).await;
    let max_processing = ACK_TIMEOUT * 3;
    let ask = SubscribeOptions { max_processing, ..earliest("orders", "s", short(Order::Key)) };
    let mut subscriber = client.subscribe(ask).await.unwrap();
    let begun = Instant::now();
    let forgotten = within("an event", subscriber.next()).await.unwrap().unwrap();
    let again = within("the same event", subscriber.next()).await.unwrap().unwrap();
    assert_eq!((again.offset(), again.attempt()), (forgotten.offset(), 2));
    assert!(begun.elapsed() >= max_processing, "it was kept until then");
    again.ack();
    within("the confirmation", subscriber.confirmed()).await.unwrap();
}

#[tokio::test]
async fn slow_consumers_share_the_work() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    publish_numbers(&client, "orders", 0..200).await;
    let options = SubscriptionOptions { order: Some(Order::None), ..SubscriptionOptions::default() };
    let ask = || earliest("orders", "s", options.clone());
    let mut first = client.subscribe(ask()).await.unwrap();
    let mut second = client.subscribe(ask()).await.unwrap();
    let consume = async |subscriber: &mut levada_client::Subscriber| {
        let mut handled = 0_u32;
        // Whoever has nothing more to do has seen the end.
        while let Ok(event) = tokio::time::timeout(Duration::from_secs(2), subscriber.next()).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
            event.unwrap().unwrap().ack();
            handled += 1;
        }
        handled
    };
    let (one, other) = tokio::join!(consume(&mut first), consume(&mut second));
    assert_eq!(one + other, 200);
    assert!(one.abs_diff(other) <= 60, "{one} and {other}");
}
