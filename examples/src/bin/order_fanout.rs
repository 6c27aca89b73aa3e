//! Fans orders out to inventory and payment, and from payment to logistics. Some payments fail: for a moment, until somebody
//! repairs the bank's line, or for good. They are tried again, become dead letters and are redriven, and nobody else notices.
//!
//! Needs `levada serve`. Run from the directory that it was started in, or set LEVADA_CA. Its argument is how many orders:
//! `cargo run --release -p levada-examples --bin order_fanout -- 200`
#![expect(clippy::print_stdout, reason = "a program that talks to its user")]

use std::{
    env,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use levada_client::{
    Client, ClientConfig, DeadLettersOf, DeleteOptions, Error, ErrorCode, Event, Offset, Publisher,
    PublisherOptions, RedriveOptions, RedriveOutcome, RedriveTarget, Start, SubscribeOptions, Subscriber,
    SubscriptionOptions, TopicSettings,
};
use tokio::{task::JoinSet, time::sleep};

const ORDERS: &str = "fanout.orders";
const PAYMENTS: &str = "fanout.payments";

/// What becomes of an order's payment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Card {
    Good,
    /// The bank takes it at the third attempt.
    Slow,
    /// The bank is not reached before its line is repaired.
    Unreachable,
    Expired,
}

impl Card {
    fn of(order: u32) -> Self {
        match order % 50 {
            9 => Self::Expired,
            other if other % 10 == 3 => Self::Slow,
            other if other % 10 == 7 => Self::Unreachable,
            _ => Self::Good,
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let count: u32 = env::args()
        .nth(1)
        .map_or(Ok(200), |count| count.parse())
        .context("expected the number of orders, such as 200")?;
    let client = connect().await?;
    begin_afresh(&client).await?;

    let mut services = JoinSet::new();
    let (packed, shipped, bank) = (Notes::default(), Notes::default(), Arc::new(Bank::default()));
    services.spawn(keep(subscribe(&client, ORDERS, "inventory").await?, packed.clone()));
    services.spawn(keep(subscribe(&client, PAYMENTS, "logistics").await?, shipped.clone()));
    let payments = client.publisher(PAYMENTS, PublisherOptions::default()).await?;
    services.spawn(take_money(subscribe(&client, ORDERS, "payment").await?, payments, bank.clone()));
    tokio::select! {
        Some(ended) = services.join_next() => {
            ended??;
            anyhow::bail!("a service ended before its work was done");
        }
        played = play(&client, count, &bank) => played?,
    }

    let (all, payable): (Vec<u32>, Vec<u32>) =
        ((0..count).collect(), (0..count).filter(|order| Card::of(*order) != Card::Expired).collect());
    let (packed, shipped) = (sorted(&packed), sorted(&shipped));
    println!("inventory packed {} orders, logistics shipped {}", packed.len(), shipped.len());
    anyhow::ensure!(packed == all, "WRONG: inventory did not get each order once");
    anyhow::ensure!(shipped == payable, "WRONG: logistics did not get each paid order once");
    println!("CORRECT: each order packed once, each that could be paid shipped once");
    Ok(())
}

/// Publishes the orders, and repairs what payment could not do.
async fn play(client: &Client, count: u32, bank: &Bank) -> anyhow::Result<()> {
    let orders = client.publisher(ORDERS, PublisherOptions::default()).await?;
    for order in 0..count {
        drop(orders.publish(event_of(order)).await?);
    }
    orders.flush().await?;
    println!("published {count} orders");
    for service in ["inventory", "payment"] {
        all_settled(client, ORDERS, service).await?;
    }
    let paid = bank.paid.load(Ordering::Relaxed);
    println!(
        "payment took the money of {paid}, of {} at the third attempt",
        bank.late.load(Ordering::Relaxed)
    );

    let of: DeadLettersOf = format!("{ORDERS}/payment").parse()?;
    let mut grouping = client.group_dead_letters(&of, None, Offset(0));
    while grouping.step().await? {}
    for group in grouping.groups() {
        println!("dead letters of payment: {} {} ({})", group.count, group.reason, group.error);
    }

    bank.is_repaired.store(true, Ordering::Relaxed);
    // Those that were given up, and to payment alone; a card that has expired will not get better.
    let given_up = r#"header.lv-dlq-reason = "max_attempts""#;
    let again = RedriveOptions::matching(of, given_up, RedriveTarget::Subscription);
    let mut redriving = client.redrive(again)?;
    let mut redriven = 0;
    while let Some(outcomes) = redriving.next().await? {
        redriven += outcomes.iter().filter(|it| matches!(it, RedriveOutcome::Redriven(_))).count();
    }
    all_settled(client, ORDERS, "payment").await?;
    let paid = bank.paid.load(Ordering::Relaxed) - paid;
    println!("the bank's line is repaired: {redriven} redriven, {paid} of them paid");
    all_settled(client, PAYMENTS, "logistics").await?;
    // Inventory was told nothing of all that.
    let inventory = client.describe_subscription(ORDERS, "inventory").await?;
    anyhow::ensure!(
        inventory.redelivered == 0 && inventory.dead_lettered == 0,
        "WRONG: inventory was disturbed"
    );
    Ok(())
}

/// Makes the topics and subscriptions, without anything that an earlier run left.
async fn begin_afresh(client: &Client) -> Result<(), Error> {
    for topic in [ORDERS, PAYMENTS] {
        match client.delete_topic(topic, DeleteOptions { force: true, with_dead_letters: true }).await {
            Err(error) if error.code() != ErrorCode::TopicNotFound => return Err(error),
            _ => {}
        }
        client.create_topic(topic, TopicSettings { partitions: 4, ..TopicSettings::default() }).await?;
    }
    Ok(())
}

/// Attaches to a subscription, which gives an event up after four attempts.
async fn subscribe(client: &Client, topic: &str, name: &str) -> Result<Subscriber, Error> {
    let options = SubscriptionOptions {
        max_attempts: Some(4),
        backoff_ms: Some(vec![20, 40, 80]),
        ..SubscriptionOptions::default()
    };
    let from_start = SubscribeOptions {
        options: Some(options),
        from: Start::Earliest,
        ..SubscribeOptions::new(topic, name)
    };
    client.subscribe(from_start).await
}

/// Waits until a service has nothing left to do.
async fn all_settled(client: &Client, topic: &str, name: &str) -> anyhow::Result<()> {
    loop {
        let found = client.describe_subscription(topic, name).await?;
        if found.lag + found.redriven == 0 {
            return Ok(());
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// The orders that a service has got, as often as it got them.
type Notes = Arc<Mutex<Vec<u32>>>;

fn sorted(notes: &Notes) -> Vec<u32> {
    let mut orders = notes.lock().expect("nobody panics with the notes").clone();
    orders.sort_unstable();
    orders
}

/// Inventory and logistics: they only note what they get.
async fn keep(mut subscriber: Subscriber, notes: Notes) -> anyhow::Result<()> {
    while let Some(event) = subscriber.next().await? {
        notes.lock().expect("nobody panics with the notes").push(order_of(&event)?);
        event.ack();
    }
    Ok(())
}

#[derive(Default)]
struct Bank {
    is_repaired: AtomicBool,
    paid: AtomicU32,
    /// Those of them that it took at the third attempt.
    late: AtomicU32,
}

/// Payment: takes the money, and tells it.
async fn take_money(mut orders: Subscriber, payments: Publisher, bank: Arc<Bank>) -> anyhow::Result<()> {
    while let Some(event) = orders.next().await? {
        let order = order_of(&event)?;
        match Card::of(order) {
            Card::Expired => event.reject("the card has expired"),
            Card::Slow if event.attempt() < 3 => event.nack(None),
            Card::Unreachable if !bank.is_repaired.load(Ordering::Relaxed) => event.nack(None),
            card => {
                // What came is acknowledged once what it led to is stored.
                payments.publish(event_of(order)).await?.await?;
                bank.paid.fetch_add(1, Ordering::Relaxed);
                bank.late.fetch_add(u32::from(card == Card::Slow), Ordering::Relaxed);
                event.ack();
            }
        }
    }
    Ok(())
}

/// Each order has a key of its own: the others do not wait for one whose payment fails.
fn event_of(order: u32) -> Event {
    Event::new(order.to_string()).with_key(format!("order-{order:06}"))
}

fn order_of(event: &Event) -> anyhow::Result<u32> {
    Ok(std::str::from_utf8(event.payload.as_deref().unwrap_or_default())?.parse()?)
}

async fn connect() -> Result<Client, Error> {
    let addr = env::var("LEVADA_ADDR").unwrap_or_else(|_| "127.0.0.1:7600".to_owned());
    let ca = env::var("LEVADA_CA").unwrap_or_else(|_| "levada-data/tls/ca.pem".to_owned());
    Client::connect(ClientConfig::new(addr).ca_file(ca)).await
}
