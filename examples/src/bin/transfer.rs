//! Moves money between accounts of two banks, each with a database of its own and an event between them: whatever dies
//! meanwhile, no money is lost and none is made.
//!
//! The paying bank prepares the event, takes the money out of its account, and commits the event. The receiving bank puts it
//! into its account and notes the event in the same transaction of its database, so that an event that comes again has no
//! second effect.
//!
//! Needs `levada serve`. Run from the directory that it was started in, or set LEVADA_CA. The directory for the two
//! databases, how many transfers to make, and with `--crash SEED` where the program dies:
//! `cargo run --release -p levada-examples --bin transfer -- . 10 --crash 1`
#![expect(clippy::print_stdout, reason = "a program that talks to its user")]

use std::{env, path::Path, process, time::Duration};

use anyhow::Context as _;
use levada_client::{
    Check, Client, ClientConfig, DeliveredEvent, ErrorCode, Event, ProducerGroup, SubscribeOptions,
    SubscriptionOptions, TopicSettings,
};
use rusqlite::Connection;
use tokio::time::timeout;

const TOPIC: &str = "transfer.sent";
const SUBSCRIPTION: &str = "receiving-bank";
const GROUP: &str = "paying-bank";
/// What the paying bank's account has at the beginning; the receiving bank's has nothing.
const BEGINNING: i64 = 1_000_000;
/// The group is asked this soon: longer than a transfer takes.
const CHECK_AFTER: Duration = Duration::from_millis(300);
/// How a run ends that was to crash.
const CRASHED: i32 = 70;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let dir = Path::new(arguments.first().map_or(".", String::as_str));
    let transfers: u32 = arguments
        .get(1)
        .map_or(Ok(10), |count| count.parse())
        .context("expected the number of transfers behind the directory, such as 10")?;
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
    let paying = open(&dir.join("transfer_paying.sqlite"), BEGINNING)?;
    let receiving = open(&dir.join("transfer_receiving.sqlite"), 0)?;
    let client = connect().await?;
    client.ensure_topic(TOPIC, TopicSettings::default()).await?;
    let group = client.producer_group(GROUP)?;
    let mut crash = Crash::new(seed, transfers);
    let incoming = SubscribeOptions {
        options: Some(SubscriptionOptions::default()),
        from: levada_client::Start::Earliest,
        ..SubscribeOptions::new(TOPIC, SUBSCRIPTION)
    };
    let mut incoming = client.subscribe(incoming).await?;
    for _ in 0..transfers {
        send(&group, &paying, &mut crash).await?;
        // The other bank is a program of its own; here both take turns.
        while let Ok(event) = timeout(Duration::from_millis(20), incoming.next()).await {
            let Some(event) = event? else { anyhow::bail!("the client was closed") };
            receive(&receiving, event, &mut crash)?;
        }
    }
    // What earlier runs left behind: the paying bank answers for it, the receiving bank takes what comes.
    let mut checks = group.check_backs().await?;
    loop {
        let (undecided, _) = client.list_transactions(Some(GROUP), false, 1).await?;
        let left = client.describe_subscription(TOPIC, SUBSCRIPTION).await?.lag;
        if undecided.is_empty() && left == 0 {
            break;
        }
        tokio::select! {
            check = checks.next() => match check? {
                Some(check) => answer(check, &paying).await?,
                None => anyhow::bail!("the client was closed"),
            },
            event = incoming.next() => match event? {
                Some(event) => receive(&receiving, event, &mut crash)?,
                None => anyhow::bail!("the client was closed"),
            },
            () = tokio::time::sleep(CHECK_AFTER) => {}
        }
    }
    verdict(&paying, &receiving)
}

/// The paying bank: takes an amount out of the account and says so, or neither.
async fn send(group: &ProducerGroup, paying: &Connection, crash: &mut Crash) -> anyhow::Result<()> {
    let number: i64 = paying.query_row("SELECT COUNT(*) FROM transfers", [], |row| row.get(0))?;
    let (id, amount) = (format!("transfer-{}", number + 1), 1 + number * 7 % 100);
    crash.perhaps();
    let mut transaction = group.transaction(&id)?;
    transaction.publish(TOPIC, Event::new(amount.to_string()).with_key(id.clone()))?;
    let prepared = match transaction.prepare_and_check_after(CHECK_AFTER).await {
        // An earlier run died with it, and it was decided since.
        Err(error) if error.code() == ErrorCode::AlreadyDecided => return Ok(()),
        prepared => prepared?,
    };
    crash.perhaps();
    if book(paying, &id, -amount)? {
        crash.perhaps();
        prepared.commit().await?;
    } else {
        prepared.rollback().await?;
    }
    crash.perhaps();
    Ok(())
}

/// The receiving bank: puts what comes into the account, once.
fn receive(receiving: &Connection, event: DeliveredEvent, crash: &mut Crash) -> anyhow::Result<()> {
    let id = String::from_utf8_lossy(event.key.as_deref().unwrap_or_default()).into_owned();
    let amount: i64 = String::from_utf8_lossy(event.payload.as_deref().unwrap_or_default()).parse()?;
    book(receiving, &id, amount)?;
    crash.perhaps();
    event.ack();
    Ok(())
}

/// Adds an amount to the account and notes the transfer, in one transaction of the database; false if it was noted before.
fn book(bank: &Connection, id: &str, amount: i64) -> rusqlite::Result<bool> {
    let booking = bank.unchecked_transaction()?;
    let is_new =
        booking.execute("INSERT OR IGNORE INTO transfers (id, amount) VALUES (?1, ?2)", (id, amount))? == 1;
    if is_new {
        booking.execute("UPDATE account SET balance = balance + ?1", [amount])?;
    }
    booking.commit()?;
    Ok(is_new)
}

/// The paying bank is asked whether a transfer was made. One that was not is noted with no amount, so that it never is.
async fn answer(check: Check, paying: &Connection) -> anyhow::Result<()> {
    let id = check.id().to_string();
    book(paying, &id, 0)?;
    let amount: i64 =
        paying.query_row("SELECT amount FROM transfers WHERE id = ?1", [&id], |row| row.get(0))?;
    if amount == 0 {
        check.rollback().await?;
    } else {
        check.commit().await?;
    }
    Ok(())
}

fn open(file: &Path, beginning: i64) -> rusqlite::Result<Connection> {
    let bank = Connection::open(file)?;
    bank.execute_batch(
        "CREATE TABLE IF NOT EXISTS account (only INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
         CREATE TABLE IF NOT EXISTS transfers (id TEXT PRIMARY KEY, amount INTEGER NOT NULL);",
    )?;
    bank.execute("INSERT OR IGNORE INTO account (only, balance) VALUES (1, ?1)", [beginning])?;
    Ok(bank)
}

/// What one bank has paid the other has received, and the sum is that of the beginning.
fn verdict(paying: &Connection, receiving: &Connection) -> anyhow::Result<()> {
    let balance =
        |bank: &Connection| bank.query_row("SELECT balance FROM account", [], |row| row.get::<_, i64>(0));
    let made = |bank: &Connection| {
        let mut rows = bank.prepare("SELECT id, ABS(amount) FROM transfers WHERE amount <> 0 ORDER BY id")?;
        rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<Vec<(String, i64)>, _>>()
    };
    let (paid, received) = (made(paying)?, made(receiving)?);
    anyhow::ensure!(paid == received, "WRONG: paid {paid:?}, received {received:?}");
    let (here, there) = (balance(paying)?, balance(receiving)?);
    anyhow::ensure!(here + there == BEGINNING, "WRONG: {here} and {there} are not {BEGINNING}");
    println!("CORRECT: {} transfers, {here} and {there} make {BEGINNING}", paid.len());
    Ok(())
}

/// Where the program dies, if it does.
struct Crash {
    steps_left: Option<u64>,
}

impl Crash {
    /// Somewhere within the work on so many transfers, each of which can be left at five places.
    fn new(seed: Option<u64>, transfers: u32) -> Self {
        let places = 5 * u64::from(transfers.max(1));
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
