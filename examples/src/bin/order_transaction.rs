//! Places orders: a row in a database and an event in Levada that agree, wherever the program dies.
//!
//! The event is prepared, the row is written, the event is committed. A program that dies in between is asked about the
//! transaction when it is back, and the row is the answer.
//!
//! Needs `levada serve`. Run from the directory that it was started in, or set LEVADA_CA. The directory for
//! `order_transaction.sqlite`, how many orders to place, and with `--crash SEED` where the program dies:
//! `cargo run --release -p levada-examples --bin order_transaction -- . 10 --crash 1`
#![expect(clippy::print_stdout, reason = "a program that talks to its user")]

use std::{collections::BTreeMap, env, path::Path, process, time::Duration};

use anyhow::Context as _;
use levada_client::{
    Check, Client, ClientConfig, ErrorCode, Event, ProducerGroup, ReadOptions, Start, TopicSettings,
};
use rusqlite::Connection;
use tokio::time::timeout;

const TOPIC: &str = "order-transaction.placed";
const GROUP: &str = "order-transaction";
/// The group is asked this soon: longer than an order takes.
const CHECK_AFTER: Duration = Duration::from_millis(300);
/// How a run ends that was to crash.
const CRASHED: i32 = 70;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let dir = arguments.first().map_or(".", String::as_str);
    let orders: u32 = arguments
        .get(1)
        .map_or(Ok(10), |count| count.parse())
        .context("expected the number of orders behind the directory, such as 10")?;
    let seed: Option<u64> = match arguments.get(2).map(String::as_str) {
        Some("--crash") => Some(
            arguments
                .get(3)
                .map_or(Ok(1), |seed| seed.parse())
                .context("expected a seed behind --crash, such as 1")?,
        ),
        Some(other) => anyhow::bail!("expected --crash SEED, got {other}"),
        None => None,
    };
    let database = open(&Path::new(dir).join("order_transaction.sqlite"))?;
    let client = connect().await?;
    client.ensure_topic(TOPIC, TopicSettings::default()).await?;
    let group = client.producer_group(GROUP)?;
    let mut crash = Crash::new(seed, orders);
    for _ in 0..orders {
        let id = next_order(&database)?;
        place(&group, &database, &id, &mut crash).await?;
    }
    let answered = settle(&client, &group, &database).await?;
    println!("placed {orders} orders; {answered} transactions of earlier runs were settled by the database");
    verdict(&client, &database).await
}

/// One order: event and row, or neither.
async fn place(
    group: &ProducerGroup,
    database: &Connection,
    id: &str,
    crash: &mut Crash,
) -> anyhow::Result<()> {
    crash.perhaps();
    let mut transaction = group.transaction(id)?;
    transaction.publish(TOPIC, Event::new(id.to_owned()).with_key(id.to_owned()))?;
    let prepared = match transaction.prepare_and_check_after(CHECK_AFTER).await {
        // An earlier run died with it, and it was decided since.
        Err(error) if error.code() == ErrorCode::AlreadyDecided => return Ok(()),
        prepared => prepared?,
    };
    crash.perhaps();
    if write(database, id, "placed")? {
        crash.perhaps();
        prepared.commit().await?;
    } else {
        prepared.rollback().await?;
    }
    crash.perhaps();
    Ok(())
}

/// Writes what becomes of an order; false if that was written before. The first word is final: once an order is written as
/// given up it cannot be placed any more, and so its transaction can be rolled back.
fn write(database: &Connection, id: &str, state: &str) -> rusqlite::Result<bool> {
    let rows = database.execute("INSERT OR IGNORE INTO orders (id, state) VALUES (?1, ?2)", [id, state])?;
    Ok(rows == 1)
}

/// Answers what the engine asks about transactions of runs that died, until none is left. Returns how many those were.
async fn settle(client: &Client, group: &ProducerGroup, database: &Connection) -> anyhow::Result<u32> {
    let (mut checks, mut answered) = (group.check_backs().await?, 0);
    loop {
        let (undecided, _) = client.list_transactions(Some(GROUP), false, 1).await?;
        if undecided.is_empty() {
            return Ok(answered);
        }
        let Ok(check) = timeout(CHECK_AFTER, checks.next()).await else { continue };
        let Some(check) = check? else { anyhow::bail!("the client was closed") };
        answer(check, database).await?;
        answered += 1;
    }
}

async fn answer(check: Check, database: &Connection) -> anyhow::Result<()> {
    let id = check.id().to_string();
    // Nobody works on it any more: this is the only instance of the program.
    let given_up = write(database, &id, "given up")?;
    if given_up || state(database, &id)? == "given up" {
        check.rollback().await?;
    } else {
        check.commit().await?;
    }
    Ok(())
}

fn open(file: &Path) -> rusqlite::Result<Connection> {
    let database = Connection::open(file)?;
    database.execute_batch("CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, state TEXT NOT NULL)")?;
    Ok(database)
}

fn next_order(database: &Connection) -> rusqlite::Result<String> {
    let count: u32 = database.query_row("SELECT COUNT(*) FROM orders", [], |row| row.get(0))?;
    Ok(format!("order-{}", count + 1))
}

fn state(database: &Connection, id: &str) -> rusqlite::Result<String> {
    database.query_row("SELECT state FROM orders WHERE id = ?1", [id], |row| row.get(0))
}

/// Every order that was placed has one event, and no other has any.
async fn verdict(client: &Client, database: &Connection) -> anyhow::Result<()> {
    let mut events = BTreeMap::new();
    let mut reader = client.read(ReadOptions { from: Start::Earliest, ..ReadOptions::new(TOPIC) }).await?;
    while let Some(delivery) = reader.next().await? {
        for (_, event) in delivery.to_events() {
            let id = String::from_utf8_lossy(event.payload.as_deref().unwrap_or_default()).into_owned();
            *events.entry(id).or_insert(0) += 1;
        }
    }
    let mut rows = database.prepare("SELECT id FROM orders WHERE state = 'placed'")?;
    let placed = rows.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    let expected: BTreeMap<String, i32> = placed.into_iter().map(|id| (id, 1)).collect();
    anyhow::ensure!(events == expected, "WRONG: rows {expected:?}, events {events:?}");
    println!("CORRECT: {} rows and {} events agree", expected.len(), events.len());
    Ok(())
}

/// Where the program dies, if it does.
struct Crash {
    steps_left: Option<u64>,
}

impl Crash {
    /// Somewhere within the work on so many orders, each of which can be left at four places.
    fn new(seed: Option<u64>, orders: u32) -> Self {
        let places = 4 * u64::from(orders.max(1));
        // Neighbouring seeds are to end at distant places.
        let at = |seed: u64| seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        Self { steps_left: seed.map(|seed| at(seed) % places) }
    }

    fn perhaps(&mut self) {
        match &mut self.steps_left {
            Some(0) => {
                println!("crashed");
                process::exit(CRASHED);
            }
            Some(left) => *left -= 1,
            None => {}
        }
    }
}

async fn connect() -> Result<Client, levada_client::Error> {
    let addr = env::var("LEVADA_ADDR").unwrap_or_else(|_| "127.0.0.1:7600".to_owned());
    let ca = env::var("LEVADA_CA").unwrap_or_else(|_| "levada-data/tls/ca.pem".to_owned());
    Client::connect(ClientConfig::new(addr).ca_file(ca)).await
}
