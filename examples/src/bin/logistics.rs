//! Ships: gets the paid orders that are to be sent, from a topic that a route fills with payment's own events.
//!
//! Needs `levada serve`, the topic `payments` (see `payment`) and the bundled plugins:
//! `levada plugin deploy --bundled`, then `cargo run --release -p levada-examples --bin logistics`
#![expect(clippy::print_stdout, reason = "a program that talks to its user")]

use std::env;

use levada_client::{
    Client, ClientConfig, Error, RouteSpec, StageSpec, Start, SubscribeOptions, SubscriptionOptions,
    TopicSettings,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let client = connect().await?;
    client.ensure_topic("shipments", TopicSettings { partitions: 4, ..TopicSettings::default() }).await?;
    // The route runs inside the engine, exactly once: its position and its outputs are one commit.
    let route = RouteSpec {
        chain: vec![
            stage("json-filter", r#"{"where": "paid == true"}"#),
            stage(
                "content-router",
                r#"{"field": "ships", "routes": {"true": "shipments"}, "default": null}"#,
            ),
        ],
        start: Start::Earliest,
        ..RouteSpec::new("paid-to-ship".parse()?, "payments".parse()?, ["shipments".parse()?])
    };
    client.ensure_route(route).await?;

    let mut subscriber = client
        .subscribe(SubscribeOptions {
            options: Some(SubscriptionOptions::default()),
            from: Start::Earliest,
            ..SubscribeOptions::new("shipments", "logistics")
        })
        .await?;
    while let Some(event) = subscriber.next().await? {
        let key = String::from_utf8_lossy(event.key.as_deref().unwrap_or_default());
        let payload = String::from_utf8_lossy(event.payload.as_deref().unwrap_or_default());
        println!("ship {key} (partition {} offset {}): {payload}", event.partition(), event.offset());
        event.ack();
    }
    Ok(())
}

fn stage(plugin: &str, config: &str) -> StageSpec {
    StageSpec { plugin: plugin.to_owned(), config: config.to_owned(), ..StageSpec::default() }
}

async fn connect() -> Result<Client, Error> {
    let addr = env::var("LEVADA_ADDR").unwrap_or_else(|_| "127.0.0.1:7600".to_owned());
    let ca = env::var("LEVADA_CA").unwrap_or_else(|_| "levada-data/tls/ca.pem".to_owned());
    Client::connect(ClientConfig::new(addr).ca_file(ca)).await
}
