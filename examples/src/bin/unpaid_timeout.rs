//! Cancels orders that nobody pays in time: each order schedules its own cancellation, and payment takes it back.
//!
//! Needs `levada serve`. Run from the directory that it was started in, or set LEVADA_CA. Orders, and the seconds that they
//! may stay unpaid: `cargo run --release -p levada-examples --bin unpaid_timeout -- 20 5`
#![expect(clippy::print_stdout, reason = "a program that talks to its user")]

use std::{collections::BTreeSet, env, process, time::Duration};

use anyhow::Context as _;
use levada_client::{
    Client, ClientConfig, ErrorCode, Event, PublisherOptions, Start, SubscribeOptions, SubscriptionOptions,
    TopicSettings,
};

const TOPIC: &str = "orders.unpaid";

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = env::args().skip(1);
    let orders: u32 = arguments
        .next()
        .map_or(Ok(20), |count| count.parse())
        .context("expected the number of orders, such as 20")?;
    let unpaid_for = Duration::from_secs(
        arguments
            .next()
            .map_or(Ok(5), |seconds| seconds.parse())
            .context("expected whole seconds that an order may stay unpaid, such as 5")?,
    );
    let client = connect().await?;
    client.ensure_topic(TOPIC, TopicSettings::default()).await?;
    let from_start = SubscribeOptions {
        options: Some(SubscriptionOptions::default()),
        from: Start::Earliest,
        ..SubscribeOptions::new(TOPIC, "canceller")
    };
    let mut timeouts = client.subscribe(from_start).await?;

    // An order is placed: its cancellation waits in the engine, on disk, whatever becomes of this process.
    let publisher = client.publisher(TOPIC, PublisherOptions::default()).await?;
    let mut placed = Vec::new();
    for number in 0..orders {
        let order = format!("order-{}-{number:04}", process::id());
        let cancellation = publisher.schedule(Event::new(order.clone()).with_key(order.clone()), unpaid_for);
        let id = cancellation.await?.await?.id;
        placed.push((order, id.ok_or_else(|| anyhow::anyhow!("it was scheduled just now"))?));
    }
    println!("placed {orders} orders, each to be cancelled in {} s", unpaid_for.as_secs());

    // Every other one is paid. The engine decides which comes first, payment or cancellation: never both.
    let (mut paid, mut late) = (BTreeSet::new(), BTreeSet::new());
    for (order, cancellation) in placed.iter().step_by(2) {
        match client.cancel_scheduled(TOPIC, *cancellation).await {
            Ok(()) => drop(paid.insert(order.clone())),
            Err(error) if error.code() == ErrorCode::AlreadyDue => drop(late.insert(order.clone())),
            Err(error) => return Err(error.into()),
        }
    }
    println!("{} paid in time, {} too late: their money goes back", paid.len(), late.len());

    let mut cancelled = BTreeSet::new();
    while paid.len() + cancelled.len() < placed.len() {
        let Some(timeout) = timeouts.next().await? else { break };
        let order = String::from_utf8_lossy(timeout.payload.as_deref().unwrap_or_default()).into_owned();
        // Those of an earlier run are done with, too.
        if placed.iter().any(|(placed, _)| *placed == order) {
            cancelled.insert(order);
        }
        timeout.ack();
    }
    timeouts.confirmed().await?;
    anyhow::ensure!(paid.is_disjoint(&cancelled), "an order was paid and cancelled");
    println!("{} cancelled unpaid, none of them paid", cancelled.len());
    Ok(())
}

async fn connect() -> Result<Client, levada_client::Error> {
    let addr = env::var("LEVADA_ADDR").unwrap_or_else(|_| "127.0.0.1:7600".to_owned());
    let ca = env::var("LEVADA_CA").unwrap_or_else(|_| "levada-data/tls/ca.pem".to_owned());
    Client::connect(ClientConfig::new(addr).ca_file(ca)).await
}
