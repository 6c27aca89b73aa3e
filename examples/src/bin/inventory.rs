//! Packs: gets the items of every order and acknowledges them. Stop it and start it again: it goes on where it was.
//!
//! Needs `levada serve`, the topic `orders` (see `order_service`) and the bundled plugins:
//! `levada plugin deploy --bundled`, then `cargo run --release -p levada-examples --bin inventory`
#![expect(clippy::print_stdout, reason = "a program that talks to its user")]

use std::env;

use levada_client::{Client, ClientConfig, StageSpec, Start, SubscribeOptions, SubscriptionOptions};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let client = connect().await?;
    let items_alone = StageSpec {
        plugin: "json-project".to_owned(),
        config: r#"{"keep": ["order", "step", "items"]}"#.to_owned(),
        ..StageSpec::default()
    };
    let mut subscriber = client
        .subscribe(SubscribeOptions {
            options: Some(SubscriptionOptions {
                chain: Some(vec![items_alone]),
                ..SubscriptionOptions::default()
            }),
            from: Start::Earliest,
            ..SubscribeOptions::new("orders", "inventory")
        })
        .await?;
    let subscribed = subscriber.subscribed();
    println!("{} the subscription orders/inventory", if subscribed.created { "made" } else { "found" });

    loop {
        let event = tokio::select! {
            event = subscriber.next() => event?,
            _interrupted = tokio::signal::ctrl_c() => None,
        };
        let Some(event) = event else { break };
        let items = String::from_utf8_lossy(event.payload.as_deref().unwrap_or_default());
        println!("partition {} offset {}: {items}", event.partition(), event.offset());
        event.ack();
    }
    // What was acknowledged holds, even if the engine's machine loses power now.
    subscriber.confirmed().await?;
    Ok(())
}

async fn connect() -> Result<Client, levada_client::Error> {
    let addr = env::var("LEVADA_ADDR").unwrap_or_else(|_| "127.0.0.1:7600".to_owned());
    let ca = env::var("LEVADA_CA").unwrap_or_else(|_| "levada-data/tls/ca.pem".to_owned());
    Client::connect(ClientConfig::new(addr).ca_file(ca)).await
}
