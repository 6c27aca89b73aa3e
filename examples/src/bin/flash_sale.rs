//! Sells a stock of 1,000 to a burst of 50,000 requests. The database behind takes 1,000 rows at a time, and never has to take
//! more: requests wait in the engine, and those that have no chance are told "sold out" at once.
//!
//! Needs `levada serve`. Run from the directory that it was started in, or set LEVADA_CA. Requests, stock, and the directory
//! for `flash_sale.sqlite` and the chart `flash_sale.svg`, which replace those of an earlier run:
//! `cargo run --release -p levada-examples --bin flash_sale -- 50000 1000 .`
#![expect(clippy::print_stdout, reason = "a program that talks to its user")]

use std::{
    env, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use anyhow::Context as _;
use levada_client::{
    Client, ClientConfig, DeleteOptions, Delivery, Error, ErrorCode, Event, Order, PublisherOptions, Pull,
    Start, SubscribeOptions, SubscriptionOptions, TopicSettings,
};
use rusqlite::Connection;
use tokio::{
    task::{JoinSet, block_in_place},
    time::{Instant, interval, sleep, sleep_until},
};

const TOPIC: &str = "flash-sale.requests";
const SUBSCRIPTION: &str = "database";
/// Rows that the database takes at a time, and how often.
const ROWS: usize = 1_000;
const PACE: Duration = Duration::from_millis(100);
/// Every user clicks so often, and may buy one.
const CLICKS: u32 = 3;
/// Requests that may wait for each piece that is left; whoever comes after them has no chance.
const CHANCES: usize = 10;
/// The writer crashes after its second write: what it wrote is stored, and nobody was told.
const CRASHES_AFTER: usize = 2;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = env::args().skip(1);
    let requests: u32 = arguments
        .next()
        .map_or(Ok(50_000), |count| count.parse())
        .context("expected the number of requests, such as 50000")?;
    let stock: usize = arguments
        .next()
        .map_or(Ok(1_000), |count| count.parse())
        .context("expected the stock, such as 1000")?;
    let dir = arguments.next().map_or_else(|| PathBuf::from("."), PathBuf::from);
    let file = dir.join("flash_sale.sqlite");
    begin_afresh(&file)?;
    let client = connect().await?;
    open_queue(&client).await?;

    let sale = Arc::new(Mutex::new(Sale::new(stock)));
    let mut writer = JoinSet::new();
    writer.spawn(write_on(file.clone(), stock, sale.clone()));
    tokio::select! {
        Some(ended) = writer.join_next() => {
            ended??;
            anyhow::bail!("the writer ended before its work was done");
        }
        sold = async { burst(&client, requests, &sale).await?; all_settled(&client).await } => sold?,
    }
    let sale = look(&sale);
    let slots = sale.slots();
    print_chart(&slots);
    fs::write(dir.join("flash_sale.svg"), svg(&slots))?;
    sale.verdict(&file, stock)
}

/// The front: answers each request at once, by "sold out" or by taking it into the queue.
async fn burst(client: &Client, requests: u32, sale: &Mutex<Sale>) -> anyhow::Result<()> {
    let queue = client.publisher(TOPIC, PublisherOptions::default()).await?;
    let mut ticks = interval(Duration::from_millis(10));
    // All of them within a second.
    let per_tick = requests.div_ceil(100).max(1);
    for number in 0..requests {
        if number.is_multiple_of(per_tick) {
            ticks.tick().await;
        }
        if look(sale).admits() {
            drop(queue.publish(Event::new(format!("user-{}", number / CLICKS))).await?);
        }
    }
    queue.flush().await?;
    Ok(())
}

/// The writer: takes requests at the database's pace. Whenever it has crashed it is started again.
async fn write_on(file: PathBuf, stock: usize, sale: Arc<Mutex<Sale>>) -> anyhow::Result<()> {
    let mut next_write = Instant::now();
    loop {
        let (client, mut database) = (connect().await?, Connection::open(&file)?);
        let mut queue = client.subscribe_pull(SubscribeOptions::new(TOPIC, SUBSCRIPTION)).await?;
        loop {
            let max = u64::try_from(ROWS)?;
            let deliveries = queue.pull(Pull { max, wait: PACE, ..Pull::default() }).await?;
            let rows = rows_of(&deliveries)?;
            if rows.is_empty() {
                continue;
            }
            sleep_until(next_write).await;
            let now = Instant::now();
            next_write = now + PACE;
            let wrote = block_in_place(|| write(&mut database, stock, &rows))?;
            let writes = look(&sale).wrote(now, rows.len(), wrote);
            if writes == CRASHES_AFTER {
                client.close().await;
                break;
            }
            deliveries.iter().for_each(Delivery::ack);
        }
    }
}

/// Requests by their offset, which names a request however often it is delivered.
fn rows_of(deliveries: &[Delivery]) -> anyhow::Result<Vec<(i64, String)>> {
    let events = deliveries.iter().flat_map(Delivery::to_events);
    let row = |(offset, event): (levada_client::Offset, Event)| {
        let user = event.payload.as_deref().unwrap_or_default().to_vec();
        Ok((i64::try_from(offset.0)?, String::from_utf8(user)?))
    };
    events.map(row).collect()
}

/// What one write did.
#[derive(Clone, Copy)]
struct Wrote {
    /// Requests that had no answer before.
    answered: usize,
    /// The stock that is left.
    left: usize,
}

/// Answers requests, in one transaction: all of them or none, and those that have their answer not again.
fn write(database: &mut Connection, stock: usize, rows: &[(i64, String)]) -> anyhow::Result<Wrote> {
    let transaction = database.transaction()?;
    let sold: u32 = transaction.query_row("SELECT count(*) FROM sales", [], |row| row.get(0))?;
    let mut wrote = Wrote { answered: 0, left: stock.saturating_sub(usize::try_from(sold)?) };
    {
        let mut is_answered = transaction.prepare("SELECT 1 FROM answers WHERE request = ?1")?;
        let mut sell = transaction.prepare("INSERT OR IGNORE INTO sales (user) VALUES (?1)")?;
        let mut note =
            transaction.prepare("INSERT INTO answers (request, user, answer) VALUES (?1, ?2, ?3)")?;
        for (request, user) in rows {
            if is_answered.exists([request])? {
                continue;
            }
            let answer = if wrote.left == 0 {
                "sold out"
            } else if sell.execute([user])? == 1 {
                wrote.left -= 1;
                "sold"
            } else {
                "one each"
            };
            note.execute((request, user, answer))?;
            wrote.answered += 1;
        }
    }
    transaction.commit()?;
    Ok(wrote)
}

/// Makes an empty database.
fn begin_afresh(file: &Path) -> anyhow::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    Connection::open(file)?.execute_batch(
        "CREATE TABLE sales (user TEXT PRIMARY KEY);
         CREATE TABLE answers (request INTEGER PRIMARY KEY, user TEXT NOT NULL, answer TEXT NOT NULL);",
    )?;
    Ok(())
}

/// Makes an empty queue: one partition in order, so that who came first is served first.
async fn open_queue(client: &Client) -> Result<(), Error> {
    match client.delete_topic(TOPIC, DeleteOptions { force: true, with_dead_letters: true }).await {
        Err(error) if error.code() != ErrorCode::TopicNotFound => return Err(error),
        _ => {}
    }
    client.create_topic(TOPIC, TopicSettings::default()).await?;
    let options = SubscriptionOptions { order: Some(Order::Partition), ..SubscriptionOptions::default() };
    client.create_subscription(TOPIC, SUBSCRIPTION, options, Start::Earliest).await?;
    Ok(())
}

/// Waits until every request in the queue has its answer.
async fn all_settled(client: &Client) -> anyhow::Result<()> {
    while client.describe_subscription(TOPIC, SUBSCRIPTION).await?.lag > 0 {
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// What the front knows, and what happened when.
struct Sale {
    begun: Instant,
    /// As the database said last.
    left: usize,
    waiting: usize,
    /// Each with whether it was taken into the queue.
    arrivals: Vec<(Instant, bool)>,
    /// Each with its rows.
    writes: Vec<(Instant, usize)>,
}

/// A tenth of a second.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    queued: usize,
    refused: usize,
    written: usize,
}

impl Sale {
    fn new(stock: usize) -> Self {
        let (arrivals, writes) = (Vec::new(), Vec::new());
        Self { begun: Instant::now(), left: stock, waiting: 0, arrivals, writes }
    }

    /// Whether a request that arrives now has a chance.
    fn admits(&mut self) -> bool {
        let admits = self.waiting < self.left * CHANCES;
        self.waiting += usize::from(admits);
        self.arrivals.push((Instant::now(), admits));
        admits
    }

    /// Notes a write, and returns how many there were.
    fn wrote(&mut self, at: Instant, rows: usize, wrote: Wrote) -> usize {
        (self.left, self.waiting) = (wrote.left, self.waiting - wrote.answered);
        self.writes.push((at, rows));
        self.writes.len()
    }

    fn slots(&self) -> Vec<Slot> {
        let mut slots: Vec<Slot> = Vec::new();
        let mut note = |at: Instant, queued, refused, written| {
            let index = (at - self.begun).as_millis() / PACE.as_millis();
            let index = usize::try_from(index).expect("a sale takes no ages");
            slots.resize(slots.len().max(index + 1), Slot::default());
            slots[index].queued += queued;
            slots[index].refused += refused;
            slots[index].written += written;
        };
        for (at, admitted) in &self.arrivals {
            note(*at, usize::from(*admitted), usize::from(!admitted), 0);
        }
        for (at, rows) in &self.writes {
            note(*at, 0, 0, *rows);
        }
        slots
    }

    /// Compares what the database holds with what happened.
    fn verdict(&self, file: &Path, stock: usize) -> anyhow::Result<()> {
        let database = Connection::open(file)?;
        let count = |what: &str| -> anyhow::Result<usize> {
            let count: u32 = database.query_row(&format!("SELECT {what}"), [], |row| row.get(0))?;
            Ok(usize::try_from(count)?)
        };
        let sold = count("count(*) FROM sales")?;
        let answers = count("count(*) FROM answers")?;
        let users = count("count(DISTINCT user) FROM answers")?;
        let told_sold = count("count(*) FROM answers WHERE answer = 'sold'")?;
        let queued = self.arrivals.iter().filter(|(_, admitted)| *admitted).count();
        let most = self.writes.iter().map(|(_, rows)| *rows).max().unwrap_or(0);
        println!(
            "{} requests: {} told \"sold out\" at once, {queued} queued and answered",
            self.arrivals.len(),
            self.arrivals.len() - queued
        );
        println!("{} writes of at most {most} rows; sold {sold} of {stock}", self.writes.len());
        anyhow::ensure!(sold == stock.min(users), "WRONG: sold {sold} of {stock} to {users} users");
        anyhow::ensure!(told_sold == sold, "WRONG: {told_sold} were told that they have one, {sold} have");
        anyhow::ensure!(answers == queued, "WRONG: {queued} requests were queued, {answers} have an answer");
        let is_too_soon = |pair: &[(Instant, usize)]| pair[1].0 - pair[0].0 < PACE;
        anyhow::ensure!(
            most <= ROWS && !self.writes.windows(2).any(is_too_soon),
            "WRONG: the database had to take more than {ROWS} rows in {PACE:?}"
        );
        println!("CORRECT: nothing oversold, nothing lost, never more than {ROWS} rows in {PACE:?}");
        Ok(())
    }
}

fn look(sale: &Mutex<Sale>) -> MutexGuard<'_, Sale> {
    sale.lock().expect("nobody panics with the sale open")
}

/// The most of anything in a slot.
fn highest(slots: &[Slot]) -> usize {
    slots.iter().map(|slot| (slot.queued + slot.refused).max(slot.written)).max().unwrap_or(0).max(1)
}

fn print_chart(slots: &[Slot]) {
    const WIDTH: usize = 40;
    let highest = highest(slots);
    let bar = |mark: &str, count: usize| mark.repeat((count * WIDTH + highest / 2) / highest);
    println!("  time  arrivals (█ queued, ░ told \"sold out\")               writes");
    for (number, slot) in slots.iter().enumerate() {
        let arrived = bar("█", slot.queued) + &bar("░", slot.refused);
        let (seconds, tenths) = (number / 10, number % 10);
        let arrivals = slot.queued + slot.refused;
        let written = format!("{:>6} {}", slot.written, bar("▒", slot.written));
        println!("{seconds:>2}.{tenths} s  {arrivals:>6} {arrived:<WIDTH$}  {}", written.trim_end());
    }
}

/// The same as a picture: of each slot a bar of arrivals, and beside it one of writes.
fn svg(slots: &[Slot]) -> String {
    const SLOT: usize = 40;
    const HEIGHT: usize = 240;
    let (highest, width) = (highest(slots), slots.len() * SLOT);
    let bar = |left: usize, bottom: usize, count: usize, colour: &str| {
        let height = count * HEIGHT / highest;
        let top = HEIGHT - bottom * HEIGHT / highest - height;
        format!(r#"<rect x="{left}" y="{top}" width="16" height="{height}" fill="{colour}"/>"#)
    };
    let mut picture = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="-10 -40 {} {}" font-family="sans-serif" font-size="12">
<text y="-20">in each tenth of a second: <tspan fill="#4477aa">queued</tspan>, <tspan fill="#999999">told "sold out"</tspan>, <tspan fill="#cc6677">written</tspan>; highest {highest}</text>
"##,
        width.max(480) + 20,
        HEIGHT + 70
    );
    for (number, slot) in slots.iter().enumerate() {
        let left = number * SLOT;
        picture += &bar(left, 0, slot.queued, "#4477aa");
        picture += &bar(left, slot.queued, slot.refused, "#999999");
        picture += &bar(left + 18, 0, slot.written, "#cc6677");
        picture +=
            &format!("<text x=\"{left}\" y=\"{}\">{}.{}</text>\n", HEIGHT + 16, number / 10, number % 10);
    }
    picture + "</svg>\n"
}

async fn connect() -> Result<Client, Error> {
    let addr = env::var("LEVADA_ADDR").unwrap_or_else(|_| "127.0.0.1:7600".to_owned());
    let ca = env::var("LEVADA_CA").unwrap_or_else(|_| "levada-data/tls/ca.pem".to_owned());
    Client::connect(ClientConfig::new(addr).ca_file(ca)).await
}
