//! Gives a point for each sign-in, once, although the points service is down for a while and forgets to say what it did.
//!
//! Needs `levada serve`. Run from the directory that it was started in, or set LEVADA_CA:
//! `cargo run --release -p levada-examples --bin points_with_retry -- 200`
#![expect(clippy::print_stdout, reason = "a program that talks to its user")]

use std::{
    collections::{BTreeMap, BTreeSet},
    env, process,
    time::Duration,
};

use anyhow::Context as _;
use levada_client::{
    Client, ClientConfig, Event, PublisherOptions, Start, SubscribeOptions, SubscriptionOptions,
    TopicSettings,
};

const TOPIC: &str = "signins";
const USERS: u32 = 10;
/// Failures before the service is up again.
const DOWN_FOR: u32 = 20;

/// The service's database: points, and what was done already. A real one writes both in one transaction.
#[derive(Default)]
struct Database {
    points: BTreeMap<String, u32>,
    done: BTreeSet<String>,
}

impl Database {
    /// Adds a point, unless this delivery had its effect before. Returns whether it was added.
    fn add(&mut self, delivery: String, user: &str) -> bool {
        let is_new = self.done.insert(delivery);
        if is_new {
            *self.points.entry(user.to_owned()).or_default() += 1;
        }
        is_new
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let signins: u32 = env::args()
        .nth(1)
        .map_or(Ok(200), |count| count.parse())
        .context("expected the number of sign-ins, such as 200")?;
    let client = connect().await?;
    client.ensure_topic(TOPIC, TopicSettings::default()).await?;
    let from_now = SubscribeOptions {
        options: Some(SubscriptionOptions::default()),
        from: Start::Latest,
        ..SubscribeOptions::new(TOPIC, "points")
    };
    drop(client.subscribe(from_now.clone()).await?);

    // Sign-ins go on whether or not anybody counts points.
    let publisher = client.publisher(TOPIC, PublisherOptions::default()).await?;
    let (run, mut expected) = (format!("user-{}-", process::id()), BTreeMap::new());
    for number in 0..signins {
        let user = format!("{run}{}", number % USERS);
        *expected.entry(user.clone()).or_default() += 1;
        drop(publisher.publish(Event::new("signed in").with_key(user)).await?);
    }
    publisher.flush().await?;
    println!("{signins} sign-ins by {USERS} users, all stored; the points service is down");

    let (mut database, mut failures, mut repeats) = (Database::default(), 0, 0);
    while database.points != expected {
        let mut subscriber = client.subscribe(from_now.clone()).await?;
        while let Some(signin) = subscriber.next().await? {
            let user = String::from_utf8_lossy(signin.key.as_deref().unwrap_or_default()).into_owned();
            if !user.starts_with(&run) {
                // Of an earlier run.
                signin.ack();
                continue;
            }
            if failures < DOWN_FOR {
                failures += 1;
                // Again in a moment. Without a delay it would be after the subscription's backoff.
                signin.nack(Some(Duration::from_millis(20)));
                continue;
            }
            // What names this delivery, whichever attempt it is.
            let delivery = format!("{}/{}", signin.partition(), signin.offset());
            let is_new = database.add(delivery, &user);
            anyhow::ensure!(
                database.points.get(&user) <= expected.get(&user),
                "WRONG: {user} has too many points"
            );
            repeats += u32::from(!is_new);
            if is_new && database.done.len().is_multiple_of(50) && database.points != expected {
                // It crashes between its work and saying so: what it held is delivered again.
                break;
            }
            signin.ack();
            if database.points == expected {
                subscriber.confirmed().await?;
                break;
            }
        }
    }
    println!("{failures} deliveries failed and came again, {repeats} came again after a crash");
    println!("every user has a point for each sign-in: {}", database.points.values().sum::<u32>());
    Ok(())
}

async fn connect() -> Result<Client, levada_client::Error> {
    let addr = env::var("LEVADA_ADDR").unwrap_or_else(|_| "127.0.0.1:7600".to_owned());
    let ca = env::var("LEVADA_CA").unwrap_or_else(|_| "levada-data/tls/ca.pem".to_owned());
    Client::connect(ClientConfig::new(addr).ca_file(ca)).await
}
