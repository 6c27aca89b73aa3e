//! Signs users up, twice: calling every slow service in turn, and publishing an event that they work off behind.
//!
//! Needs `levada serve`. Run from the directory that it was started in, or set LEVADA_CA:
//! `cargo run --release -p levada-examples --bin signup_email`
#![expect(clippy::print_stdout, reason = "a program that talks to its user")]

use std::{env, process, time::Duration};

use levada_client::{
    Client, ClientConfig, Event, Publisher, PublisherOptions, Start, SubscribeOptions, SubscriptionOptions,
    TopicSettings,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

const TOPIC: &str = "signups";
/// What the services take here: stand-ins for those of others, which nobody can make faster.
const ACCOUNT: Duration = Duration::from_millis(20);
const MAIL: Duration = Duration::from_millis(500);
const COUPON: Duration = Duration::from_millis(400);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = connect().await?;
    client.ensure_topic(TOPIC, TopicSettings::default()).await?;
    let user = format!("user-{}", process::id());
    let mut services = JoinSet::new();
    services.spawn(work_off(client.clone(), "mail", MAIL, user.clone()));
    services.spawn(work_off(client.clone(), "coupon", COUPON, user.clone()));
    let publisher = client.publisher(TOPIC, PublisherOptions::default()).await?;

    let calling = Instant::now();
    sleep(ACCOUNT).await;
    sleep(MAIL).await;
    sleep(COUPON).await;
    let calling = calling.elapsed();

    let publishing = Instant::now();
    sleep(ACCOUNT).await;
    sign_up(&publisher, &user).await?;
    let publishing = publishing.elapsed();

    println!("the user waits: {:>4} ms where every service is called", calling.as_millis());
    println!("                {:>4} ms where the sign-up is published, and stored", publishing.as_millis());
    while let Some(done) = services.join_next().await {
        done??;
    }
    println!("behind that, mail and coupon were sent");
    anyhow::ensure!(publishing < calling, "WRONG: the user waited for services");
    Ok(())
}

/// Returns once the event is on disk: nothing that is down or slow can lose it now.
async fn sign_up(publisher: &Publisher, user: &str) -> Result<(), levada_client::Error> {
    publisher.publish(Event::new(user.to_owned()).with_key(user.to_owned())).await?.await.map(drop)
}

/// A service of its own, with a subscription of its own: the other one being slow or down is nothing to it.
async fn work_off(client: Client, name: &str, takes: Duration, user: String) -> anyhow::Result<()> {
    let from_start = SubscribeOptions {
        options: Some(SubscriptionOptions::default()),
        from: Start::Earliest,
        ..SubscribeOptions::new(TOPIC, name)
    };
    let mut signups = client.subscribe(from_start).await?;
    while let Some(signup) = signups.next().await? {
        sleep(takes).await;
        let is_ours = signup.payload.as_deref() == Some(user.as_bytes());
        signup.ack();
        if is_ours {
            break;
        }
    }
    Ok(signups.confirmed().await?)
}

async fn connect() -> Result<Client, levada_client::Error> {
    let addr = env::var("LEVADA_ADDR").unwrap_or_else(|_| "127.0.0.1:7600".to_owned());
    let ca = env::var("LEVADA_CA").unwrap_or_else(|_| "levada-data/tls/ca.pem".to_owned());
    Client::connect(ClientConfig::new(addr).ca_file(ca)).await
}
