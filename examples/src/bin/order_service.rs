//! Publishes the life of some orders: created, paid, shipped, received, completed, in order per order.
//!
//! Needs `levada serve`. Run from the directory that it was started in, or set LEVADA_CA:
//! `cargo run --release -p levada-examples --bin order_service -- 100`
#![expect(clippy::print_stdout, reason = "a program that talks to its user")]

use std::env;

use anyhow::Context as _;
use levada_client::{Client, ClientConfig, Event, PublisherOptions, TopicSettings};
use serde_json::json;

const STEPS: [&str; 5] = ["created", "paid", "shipped", "received", "completed"];

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let orders: u32 = env::args()
        .nth(1)
        .map_or(Ok(20), |count| count.parse())
        .context("expected the number of orders, such as 20")?;
    let client = connect().await?;
    client.ensure_topic("orders", TopicSettings { partitions: 4, ..TopicSettings::default() }).await?;

    let publisher = client.publisher("orders", PublisherOptions::default()).await?;
    for (step, name) in (1..).zip(STEPS) {
        for number in 0..orders {
            let order = format!("order-{number:06}");
            let payload = json!({
                "type": format!("order.{name}"),
                "order": order,
                "step": step,
                "amount": number * 37 % 1_000,
                "ships": number % 4 != 2,
                "items": [{ "sku": format!("sku-{}", number % 100), "quantity": 1 + number % 3 }],
                "customer": { "name": format!("Customer {number}"), "address": format!("{number} Canal Street") },
            });
            // The key keeps an order's events in order. The ticket can be awaited for partition and offset;
            // `flush` below waits for all of them at once.
            let event = Event::new(serde_json::to_vec(&payload)?).with_key(order);
            drop(publisher.publish(event).await?);
        }
    }
    publisher.flush().await?;
    println!("published {} events of {orders} orders, all stored", orders as usize * STEPS.len());
    Ok(())
}

async fn connect() -> Result<Client, levada_client::Error> {
    let addr = env::var("LEVADA_ADDR").unwrap_or_else(|_| "127.0.0.1:7600".to_owned());
    let ca = env::var("LEVADA_CA").unwrap_or_else(|_| "levada-data/tls/ca.pem".to_owned());
    Client::connect(ClientConfig::new(addr).ca_file(ca)).await
}
