//! Consuming by pulls.

use std::time::Duration;

use levada_client::{Delivery, Pull, SubscribeOptions};

use crate::support::{
    engine::Engine,
    events::{self, earliest, publish_numbers},
    within,
};

#[tokio::test]
async fn pulls_share_a_subscription_and_take_no_more_than_they_ask_for() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    publish_numbers(&client, "orders", 0..250).await;
    let options = earliest("orders", "s", Default::default());
    let mut first = client.subscribe_pull(options).await.unwrap();
    let mut second = client.subscribe_pull(SubscribeOptions::new("orders", "s")).await.unwrap();
    let pull = |max| Pull { max, wait: Duration::from_secs(3_600), ..Pull::default() };
    let count = |got: &[Delivery]| got.iter().map(Delivery::count).sum::<u32>();
    let got = within("a hundred", first.pull(pull(100))).await.unwrap();
    assert_eq!(count(&got), 100);
    let rest = within("the others", second.pull(pull(150))).await.unwrap();
    assert_eq!(count(&rest), 150, "the first took nothing ahead");
    let info = client.describe_subscription("orders", "s").await.unwrap();
    assert_eq!(info.in_flight, 250);
    let nothing =
        first.pull(Pull { max: 5, wait: Duration::from_millis(1), ..Pull::default() }).await.unwrap();
    assert_eq!(count(&nothing), 0, "its time is over, and there is nothing");
    got.iter().chain(&rest).for_each(Delivery::ack);
    within("its acknowledgements", first.confirmed()).await.unwrap();
    within("its acknowledgements", second.confirmed()).await.unwrap();
    assert_eq!(client.describe_subscription("orders", "s").await.unwrap().lag, 0);
}
