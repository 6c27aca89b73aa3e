//! A full disk: a small file system, filled and freed under a running engine.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use levada_client::{
    Client, ErrorCode, Event, Offset, Publisher, PublisherOptions, SubscriptionOptions, Ticket,
};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::support::{
    events::{self, earliest, numbered, publish_numbers, take},
    process::Process,
    until, within,
};

const VOLUME_BYTES: usize = 128 << 20;

/// A file system in memory, unmounted with its handle.
pub(crate) struct Volume {
    dir: TempDir,
}

impl Volume {
    /// `None` where nobody may mount.
    fn mount() -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let size = format!("size={VOLUME_BYTES}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { dir }),
            Ok(_) | Err(_) => None,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Takes all room but so many bytes with one file; removing the file gives it back.
    pub(crate) fn fill(&self, left: u64) -> PathBuf {
        self.fill_with("filler", left)
    }

    pub(crate) fn fill_with(&self, name: &str, left: u64) -> PathBuf {
        let path = self.path().join(name);
        let mut file = std::fs::File::create(&path).unwrap();
        let block = vec![1; 1 << 16];
        while free(self.path()) > left {
            if std::io::Write::write_all(&mut file, &block).is_err() {
                break;
            }
        }
        path
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Lazily: an engine that is just ending may still hold a file.
        let _ = Command::new("umount").arg("--lazy").arg(self.dir.path()).output();
    }
}

/// Free bytes on a path's volume, as `df` says.
fn free(path: &Path) -> u64 {
    let output = Command::new("df").args(["--output=avail", "--block-size=1"]).arg(path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().nth(1).and_then(|line| line.trim().parse().ok()).unwrap()
}

pub(crate) fn volume() -> Option<Volume> {
    let volume = Volume::mount();
    if volume.is_none() {
        eprintln!("NOT TESTED: a full disk, for this user may not mount a file system");
    }
    volume
}

/// How a single publish ends, given little time; it is tried again if nobody answered in that.
pub(crate) async fn publish_one(client: &Client, number: u64) -> Result<(), ErrorCode> {
    let answered =
        async || Some(try_one(client, number).await).filter(|it| *it != Err(ErrorCode::DeadlineExceeded));
    until("an answer to a publish", answered).await
}

async fn try_one(client: &Client, number: u64) -> Result<(), ErrorCode> {
    let options =
        PublisherOptions { delivery_timeout: std::time::Duration::from_millis(300), ..Default::default() };
    let publisher = client.publisher("orders", options).await.map_err(|error| error.code())?;
    let ticket = publisher.publish(numbered(number)).await.map_err(|error| error.code())?;
    match within("a ticket", ticket).await {
        Ok(_) => Ok(()),
        Err(levada_client::Error::TimedOut { last: Some(refusal), .. }) => Err(refusal.code),
        Err(error) => Err(error.code()),
    }
}

async fn prepare(engine: &Process) -> Client {
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    publish_numbers(&client, "orders", 0..1_000).await;
    client
}

/// Reading, acknowledging and rejecting go on, publishing is refused, and says why.
async fn is_guarded(client: &Client) {
    assert_eq!(publish_one(client, 9).await, Err(ErrorCode::StorageFull));
    assert_eq!(events::read_all(client, "orders").await[&0].len(), 1_000);
    let options = SubscriptionOptions::default();
    let mut subscriber = client.subscribe(earliest("orders", "s", options)).await.unwrap();
    let got = take(&mut subscriber, 1_000, |delivery| {
        if delivery.first() == Offset(0) {
            delivery.reject(Offset(0)..=Offset(0), "no room in the warehouse");
        }
        delivery.ack();
    });
    assert_eq!(got.await.len(), 1_000);
    within("the confirmation", subscriber.confirmed()).await.unwrap();
    let dead_letters = events::read_all(client, "dlq.orders.s").await;
    assert_eq!(events::texts(&dead_letters, 0), ["0"], "a dead letter is stored all the same");
    let info = client.info().await.unwrap();
    assert!(info.read_only.is_some_and(|why| why.contains("STORAGE_FULL")));
}

async fn is_well_again(client: &Client) {
    until("room", async || client.info().await.unwrap().read_only.is_none().then_some(())).await;
    publish_numbers(client, "orders", 1_000..2_000).await;
    let log = events::read_all(client, "orders").await;
    events::assert_dense(&log[&0], 0);
    let texts = events::texts(&log, 0);
    assert!(texts.iter().map(|text| text.parse::<u64>().unwrap()).eq(0..2_000), "nothing refused was stored");
}

#[tokio::test]
async fn a_nearly_full_disk_refuses_publishes_and_serves_readers() {
    let Some(volume) = volume() else { return };
    let data = volume.path().join("data");
    let engine = Process::start_with(
        &data,
        &[("LEVADA_STORE_DISK_RESERVE", "16MiB"), ("LEVADA_STORE_DISK_CHECK_INTERVAL", "10ms")],
    )
    .await;
    let client = prepare(&engine).await;
    let filler = volume.fill(8 << 20);
    until("the guard", async || client.info().await.unwrap().read_only.map(drop)).await;
    is_guarded(&client).await;
    std::fs::remove_file(filler).unwrap();
    is_well_again(&client).await;
    client.close().await;
    engine.stop().await;
}

/// The guard does not look by itself and wants next to nothing: the store itself meets the end of the disk.
pub(crate) const BLIND: [(&str, &str); 2] =
    [("LEVADA_STORE_DISK_RESERVE", "1MiB"), ("LEVADA_STORE_DISK_CHECK_INTERVAL", "1h")];
/// Events of the flood: together about twice the volume.
const FLOOD: u64 = 13_000;

/// The number in the first bytes, and enough behind it to fill a disk.
fn heavy(number: u64) -> Event {
    let mut payload = format!("{number:06}").into_bytes();
    payload.resize(20_000, b'-');
    Event::new(payload)
}

fn weight(event: &Event) -> u64 {
    events::number_of(&events::payload(event)[..6])
}

/// Publishes heavy events in order until all are taken or it is told to stop; returns their tickets.
async fn flood(publisher: Publisher, stop: Arc<AtomicBool>) -> Vec<Ticket> {
    let mut tickets = Vec::new();
    for number in 0..FLOOD {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        // The publisher takes no more while too many wait for room.
        match publisher.publish(heavy(number)).await {
            Ok(ticket) => tickets.push(ticket),
            Err(_) => break,
        }
    }
    tickets
}

/// The tickets of a flood that was told to stop.
async fn ended(mut flood: JoinSet<Vec<Ticket>>) -> Vec<Ticket> {
    within("the flood's end", flood.join_next()).await.expect("there is one flood").unwrap()
}

/// A flooded engine whose disk is full to the last byte.
struct Flooded {
    engine: Process,
    client: Client,
    /// Gives room when it is removed.
    filler: PathBuf,
    flood: JoinSet<Vec<Ticket>>,
    stop: Arc<AtomicBool>,
}

impl Flooded {
    async fn new(volume: &Volume, data: &Path) -> Self {
        let engine = Process::start_with(data, &BLIND).await;
        let client = engine.connect().await;
        events::topic(&client, "orders").await;
        let filler = volume.fill(80 << 20);
        let publisher = client.publisher("orders", PublisherOptions::default()).await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let flood = JoinSet::from_iter([flood(publisher, Arc::clone(&stop))]);
        let flooded = Self { engine, client, filler, flood, stop };
        flooded.is_full().await;
        // Somebody else takes what the engine has left, and the flood goes on against that.
        volume.fill_with("more filler", 0);
        flooded.is_full().await;
        flooded
    }

    async fn is_full(&self) {
        let full = async || self.client.info().await.unwrap().read_only;
        let why = until("the end of the disk", full).await;
        assert!(why.contains("STORAGE_FULL"), "{why}");
    }

    /// Ends the flood with the engine; returns how many of its first events were acknowledged before.
    async fn end(self, kill: bool) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        if kill {
            self.engine.kill().await;
        } else {
            self.engine.stop().await;
        }
        self.client.close().await;
        let tickets = ended(self.flood).await;
        let stored = tickets.iter().take_while(|ticket| matches!(ticket.try_receipt(), Some(Ok(_))));
        stored.count() as u64
    }
}

/// Reads everything: the flood's events from the first on, each once and in order. Returns how many.
async fn read_flood(client: &Client) -> u64 {
    let log = events::read_all(client, "orders").await;
    let stored = log.get(&0).map_or(&[][..], Vec::as_slice);
    for (place, (offset, event)) in (0..).zip(stored) {
        assert_eq!((*offset, weight(event)), (place, place), "each once, in order");
    }
    stored.len() as u64
}

/// Takes what comes first and acknowledges it. What the store was just writing when it met the end of the disk is
/// refused: then it comes again.
async fn acknowledge(client: &Client) -> Option<()> {
    let options = earliest("orders", "s", SubscriptionOptions::default());
    let mut subscriber = client.subscribe(options).await.ok()?;
    let delivery = within("a delivery", subscriber.next_delivery()).await.ok()??;
    delivery.ack();
    within("the confirmation", subscriber.confirmed()).await.ok()
}

#[tokio::test]
async fn a_disk_full_to_the_last_byte_recovers_by_itself_and_loses_nothing() {
    let Some(volume) = volume() else { return };
    let data = volume.path().join("data");
    let flooded = Flooded::new(&volume, &data).await;
    let Flooded { engine, client, filler, flood, stop } = flooded;
    let before = read_flood(&client).await;
    assert!(before > 1_000, "{before} events were stored before the disk was full");
    until("an acknowledgement on the full disk", || acknowledge(&client)).await;
    stop.store(true, Ordering::Relaxed);
    std::fs::remove_file(filler).unwrap();
    let tickets = ended(flood).await;
    let count = tickets.len() as u64;
    assert!(count < FLOOD, "the disk was full before the flood ended");
    for (number, ticket) in (0..).zip(tickets) {
        let receipt = within("a ticket", ticket).await.expect("the publisher tries until there is room");
        assert_eq!(events::offset(&receipt), number, "once each, in order");
    }
    assert_eq!(read_flood(&client).await, count);
    client.close().await;
    engine.stop().await;
    let engine = Process::start_with(&data, &BLIND).await;
    let client = engine.connect().await;
    assert_eq!(read_flood(&client).await, count, "and all of it after a restart");
    client.close().await;
    engine.stop().await;
}

/// An engine that ends on a full disk starts again there, serves readers, and takes events once there is room.
async fn starts_again_on_a_full_disk(kill: bool) {
    let Some(volume) = volume() else { return };
    let data = volume.path().join("data");
    let flooded = Flooded::new(&volume, &data).await;
    let filler = flooded.filler.clone();
    let acknowledged = flooded.end(kill).await;
    assert!(acknowledged > 1_000, "{acknowledged} events were acknowledged before the disk was full");
    volume.fill_with("still more filler", 0);
    let engine = Process::start_with(&data, &BLIND).await;
    let client = engine.connect().await;
    let stored = read_flood(&client).await;
    assert!(stored >= acknowledged, "{acknowledged} events were acknowledged, {stored} are there");
    std::fs::remove_file(filler).unwrap();
    let publisher = client.publisher("orders", PublisherOptions::default()).await.unwrap();
    for number in stored..stored + 100 {
        let ticket = publisher.publish(heavy(number)).await.unwrap();
        assert_eq!(events::offset(&within("a ticket", ticket).await.unwrap()), number);
    }
    assert_eq!(read_flood(&client).await, stored + 100);
    client.close().await;
    engine.stop().await;
}

#[tokio::test]
async fn an_engine_stopped_on_a_full_disk_starts_again_there() {
    starts_again_on_a_full_disk(false).await;
}

#[tokio::test]
async fn an_engine_killed_on_a_full_disk_starts_again_there() {
    starts_again_on_a_full_disk(true).await;
}
