//! Takes the money: gets each order with something to pay once, sees only what it may, and tells what it did.
//!
//! Needs `levada serve`, the topic `orders` (see `order_service`) and the bundled plugins:
//! `levada plugin deploy --bundled`, then `cargo run --release -p levada-examples --bin payment`
#![expect(clippy::print_stdout, reason = "a program that talks to its user")]

use std::env;

use levada_client::{
    Client, ClientConfig, Event, PublisherOptions, StageSpec, Start, SubscribeOptions, SubscriptionOptions,
    TopicSettings,
};
use serde::Deserialize;
use serde_json::json;

/// What the projection leaves of an order's event.
#[derive(Deserialize)]
struct Payable {
    order: String,
    amount: u32,
    ships: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let client = connect().await?;
    client.ensure_topic("payments", TopicSettings { partitions: 4, ..TopicSettings::default() }).await?;
    let payments = client.publisher("payments", PublisherOptions::default()).await?;

    // Made on first use. The plugins run in the engine: what they drop never travels.
    let chain = vec![
        stage("json-filter", r#"{"where": "type == \"order.created\" && amount > 0"}"#),
        stage("json-project", r#"{"keep": ["order", "amount", "ships"]}"#),
    ];
    let mut subscriber = client
        .subscribe(SubscribeOptions {
            options: Some(SubscriptionOptions { chain: Some(chain), ..SubscriptionOptions::default() }),
            from: Start::Earliest,
            ..SubscribeOptions::new("orders", "payment")
        })
        .await?;

    while let Some(order) = subscriber.next().await? {
        let seen: Payable = match serde_json::from_slice(order.payload.as_deref().unwrap_or_default()) {
            Ok(seen) => seen,
            Err(error) => {
                // To the dead-letter topic, with the reason; the others go on.
                order.reject(&error.to_string());
                continue;
            }
        };
        println!("{}: {} paid", seen.order, seen.amount);
        let payload =
            json!({ "order": seen.order, "paid": true, "amount": seen.amount, "ships": seen.ships });
        let event = Event::new(serde_json::to_vec(&payload)?).with_key(seen.order);
        // Acknowledge what came only once what it led to is stored. A crash in between makes it come again:
        // delivery is at least once, and a service keeps its own table of what it has done.
        payments.publish(event).await?.await?;
        order.ack();
    }
    Ok(())
}

fn stage(plugin: &str, config: &str) -> StageSpec {
    StageSpec { plugin: plugin.to_owned(), config: config.to_owned(), ..StageSpec::default() }
}

async fn connect() -> Result<Client, levada_client::Error> {
    let addr = env::var("LEVADA_ADDR").unwrap_or_else(|_| "127.0.0.1:7600".to_owned());
    let ca = env::var("LEVADA_CA").unwrap_or_else(|_| "levada-data/tls/ca.pem".to_owned());
    Client::connect(ClientConfig::new(addr).ca_file(ca)).await
}
