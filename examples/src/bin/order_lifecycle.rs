//! Takes orders through their lives: created, paid, shipped, received, completed. Sixteen consumers share the work, fail now
//! and then and are killed in the middle of it, and a checker proves that each order still took its steps in order.
//!
//! Needs `levada serve`, which may be killed and started again meanwhile. Run from the directory that it was started in, or
//! set LEVADA_CA. Orders, the seed of failures and kills, and the subscription's order: `key` or, to see what the checker
//! finds without it, `none`. `cargo run --release -p levada-examples --bin order_lifecycle -- 10000 1 key`
#![expect(clippy::print_stdout, reason = "a program that talks to its user")]

use std::{
    collections::BTreeSet,
    env,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use anyhow::Context as _;
use levada_client::{
    Client, ClientConfig, DeleteOptions, Error, ErrorCode, Event, Order, PublisherOptions, Start,
    SubscribeOptions, SubscriptionOptions, TopicSettings,
};
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, task::JoinSet, time::sleep};

const TOPIC: &str = "lifecycle.orders";
const SUBSCRIPTION: &str = "fulfilment";
const STEPS: [&str; 5] = ["created", "paid", "shipped", "received", "completed"];
const CONSUMERS: u64 = 16;
/// What a consumer needs for one step.
const STEP_TAKES: Duration = Duration::from_millis(1);
/// One step in so many fails, and comes again after a while.
const FAILS_ONE_IN: u64 = 50;
const AGAIN_AFTER: Duration = Duration::from_millis(20);
/// One step in so many is the last of its consumer: before the work is done, or after it and before anybody is told.
const KILLED_ONE_IN: u64 = 400;

/// An event: which order takes which step, from 0.
#[derive(Serialize, Deserialize)]
struct Step {
    order: usize,
    step: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = env::args().skip(1);
    let orders: usize = arguments
        .next()
        .map_or(Ok(10_000), |count| count.parse())
        .context("expected the number of orders, such as 10000")?;
    let seed: u64 =
        arguments.next().map_or(Ok(1), |seed| seed.parse()).context("expected a seed, such as 1")?;
    let order = match arguments.next().as_deref() {
        None | Some("key") => Order::Key,
        Some("none") => Order::None,
        Some(other) => anyhow::bail!("expected key or none as the order, got {other}"),
    };
    let client = connect().await?;
    begin_afresh(&client, order).await?;

    let ledger = Arc::new(Mutex::new(Ledger::new(orders)));
    let (stop, stopped) = watch::channel(false);
    let mut consumers = JoinSet::new();
    for number in 0..CONSUMERS {
        let dice = Dice(seed.wrapping_mul(CONSUMERS) + number);
        consumers.spawn(consumer(ledger.clone(), dice, stopped.clone()));
    }
    tokio::select! {
        Some(ended) = consumers.join_next() => {
            ended??;
            anyhow::bail!("a consumer ended before it was stopped");
        }
        worked_off = async { publish(&client, orders).await?; all_settled(&client).await } => worked_off?,
    }
    stop.send_replace(true);
    while let Some(ended) = consumers.join_next().await {
        ended??;
    }
    look(&ledger).verdict()
}

/// Makes topic and subscription, without anything that an earlier run left.
async fn begin_afresh(client: &Client, order: Order) -> Result<(), Error> {
    match client.delete_topic(TOPIC, DeleteOptions { force: true, with_dead_letters: true }).await {
        Err(error) if error.code() != ErrorCode::TopicNotFound => return Err(error),
        _ => {}
    }
    client.create_topic(TOPIC, TopicSettings { partitions: 4, ..TopicSettings::default() }).await?;
    // A consumer has one step at a time, and so never the next one of an order whose step fails in its hands.
    let options =
        SubscriptionOptions { order: Some(order), max_in_flight: Some(1), ..SubscriptionOptions::default() };
    client.create_subscription(TOPIC, SUBSCRIPTION, options, Start::Earliest).await?;
    Ok(())
}

/// Publishes all steps of all orders. The key is what keeps an order's steps together.
async fn publish(client: &Client, orders: usize) -> anyhow::Result<()> {
    let publisher = client.publisher(TOPIC, PublisherOptions::default()).await?;
    for step in 0..STEPS.len() {
        for order in 0..orders {
            let payload = serde_json::to_vec(&Step { order, step })?;
            drop(publisher.publish(Event::new(payload).with_key(format!("order-{order:06}"))).await?);
        }
    }
    publisher.flush().await?;
    println!("published {} steps of {orders} orders", orders * STEPS.len());
    Ok(())
}

/// Waits until the engine says that nothing is left to deliver or to acknowledge.
async fn all_settled(client: &Client) -> anyhow::Result<()> {
    while client.describe_subscription(TOPIC, SUBSCRIPTION).await?.lag > 0 {
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// A consumer, and whoever starts it again when it was killed.
async fn consumer(
    ledger: Arc<Mutex<Ledger>>,
    mut dice: Dice,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), Error> {
    loop {
        match life(&ledger, &mut dice, &mut stopped).await {
            Ok(End::Stopped) => return Ok(()),
            Ok(End::Killed) => look(&ledger).kills += 1,
            // It was the engine that was killed. It comes back.
            Err(error) if error.is_retryable() => sleep(Duration::from_millis(100)).await,
            Err(error) => return Err(error),
        }
    }
}

enum End {
    Stopped,
    Killed,
}

/// One life of a consumer, with a connection of its own.
async fn life(
    ledger: &Mutex<Ledger>,
    dice: &mut Dice,
    stopped: &mut watch::Receiver<bool>,
) -> Result<End, Error> {
    let client = connect().await?;
    let mut steps = client.subscribe(SubscribeOptions::new(TOPIC, SUBSCRIPTION)).await?;
    loop {
        let event = tokio::select! {
            _stopped = stopped.wait_for(|stopped| *stopped) => None,
            event = steps.next() => event?,
        };
        let Some(event) = event else { return Ok(End::Stopped) };
        let step: Step = match serde_json::from_slice(event.payload.as_deref().unwrap_or_default()) {
            Ok(step) => step,
            Err(error) => {
                event.reject(&error.to_string());
                continue;
            }
        };
        look(ledger).delivered(&step);
        sleep(STEP_TAKES).await;
        if dice.one_in(FAILS_ONE_IN) {
            look(ledger).failures += 1;
            event.nack(Some(AGAIN_AFTER));
            continue;
        }
        let is_killed = dice.one_in(KILLED_ONE_IN);
        if !is_killed || dice.one_in(2) {
            look(ledger).done(&step);
        }
        if is_killed {
            // The connection is cut: everything that it held goes to the others.
            client.close().await;
            return Ok(End::Killed);
        }
        look(ledger).settled(&step);
        event.ack();
    }
}

/// How far a step has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Open,
    /// Its work is done. It comes again if its consumer is killed now, and must then not be done again.
    Done,
    /// A consumer has said so.
    Settled,
}

/// The database in which consumers note what they did, and the checker who looks at what is noted.
struct Ledger {
    orders: Vec<[Progress; STEPS.len()]>,
    /// Orders of which a step was delivered before those ahead of it were settled.
    disordered: BTreeSet<usize>,
    failures: u64,
    kills: u64,
    repeats: u64,
}

impl Ledger {
    fn new(orders: usize) -> Self {
        let orders = vec![[Progress::Open; STEPS.len()]; orders];
        Self { orders, disordered: BTreeSet::new(), failures: 0, kills: 0, repeats: 0 }
    }

    fn delivered(&mut self, &Step { order, step }: &Step) {
        if self.orders[order][..step].iter().any(|ahead| *ahead != Progress::Settled) {
            self.disordered.insert(order);
        }
    }

    fn done(&mut self, &Step { order, step }: &Step) {
        match &mut self.orders[order][step] {
            open @ Progress::Open => *open = Progress::Done,
            Progress::Done | Progress::Settled => self.repeats += 1,
        }
    }

    fn settled(&mut self, &Step { order, step }: &Step) {
        self.orders[order][step] = Progress::Settled;
    }

    fn verdict(&self) -> anyhow::Result<()> {
        println!(
            "{} steps failed and came again, {} consumers were killed at work, {} steps came again although they were done",
            self.failures, self.kills, self.repeats
        );
        let (orders, disordered) = (self.orders.len(), self.disordered.len());
        let lost = self.orders.iter().flatten().filter(|step| **step != Progress::Settled).count();
        println!(
            "{} of {orders} orders took their steps in order, {lost} steps are missing",
            orders - disordered
        );
        anyhow::ensure!(
            disordered == 0,
            "WRONG: {disordered} orders out of order, order {:?} among them",
            self.disordered.first()
        );
        anyhow::ensure!(lost == 0, "WRONG: {lost} steps are missing");
        println!("CORRECT: every order took its {} steps, {}, each once", STEPS.len(), STEPS.join(", "));
        Ok(())
    }
}

fn look(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().expect("nobody panics with the ledger open")
}

/// Chance that comes again with its seed.
struct Dice(u64);

impl Dice {
    fn one_in(&mut self, sides: u64) -> bool {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).is_multiple_of(sides)
    }
}

async fn connect() -> Result<Client, Error> {
    let addr = env::var("LEVADA_ADDR").unwrap_or_else(|_| "127.0.0.1:7600".to_owned());
    let ca = env::var("LEVADA_CA").unwrap_or_else(|_| "levada-data/tls/ca.pem".to_owned());
    Client::connect(ClientConfig::new(addr).ca_file(ca)).await
}
