//! A full disk: a small file system, filled and freed under a running engine.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use levada_client::{Client, ErrorCode, PublisherOptions, SubscriptionOptions};
use tempfile::TempDir;

use crate::support::{
    events::{self, consume, earliest, numbered, publish_numbers},
    process::Process,
    until, within,
};

const VOLUME_BYTES: usize = 128 << 20;

/// A file system in memory, unmounted with its handle.
struct Volume {
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

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Takes all room but so many bytes with one file; removing the file gives it back.
    fn fill(&self, left: u64) -> PathBuf {
        let path = self.path().join("ballast");
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

fn volume() -> Option<Volume> {
    let volume = Volume::mount();
    if volume.is_none() {
        eprintln!("NOT TESTED: a full disk, for this user may not mount a file system");
    }
    volume
}

/// How a single publish ends, given little time.
async fn publish_one(client: &Client, number: u64) -> Result<(), ErrorCode> {
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

/// Reading and acknowledging go on, publishing is refused, and says why.
async fn is_guarded(client: &Client) {
    assert_eq!(publish_one(client, 9).await, Err(ErrorCode::StorageFull));
    assert_eq!(events::read_all(client, "orders").await[&0].len(), 1_000);
    let options = SubscriptionOptions::default();
    let mut subscriber = client.subscribe(earliest("orders", "s", options)).await.unwrap();
    consume(&mut subscriber, 1_000).await;
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
        &[("LEVADA_DISK_RESERVE", "16MiB"), ("LEVADA_DISK_CHECK_INTERVAL", "10ms")],
    )
    .await;
    let client = prepare(&engine).await;
    let ballast = volume.fill(8 << 20);
    until("the guard", async || client.info().await.unwrap().read_only.map(drop)).await;
    is_guarded(&client).await;
    std::fs::remove_file(ballast).unwrap();
    is_well_again(&client).await;
    client.close().await;
    engine.stop().await;
}

#[tokio::test]
async fn a_disk_that_is_full_before_the_guard_looks_loses_nothing() {
    let Some(volume) = volume() else { return };
    let data = volume.path().join("data");
    // The guard looks too late and wants next to nothing: the store itself meets the end of the disk.
    let reserve = [("LEVADA_DISK_RESERVE", "1MiB"), ("LEVADA_DISK_CHECK_INTERVAL", "2s")];
    let engine = Process::start_with(&data, &reserve).await;
    let client = prepare(&engine).await;
    let ballast = volume.fill(0);
    let mut stored = 1_000;
    let publisher = client.publisher("orders", PublisherOptions::default()).await.unwrap();
    let mut tickets = Vec::new();
    for number in 0..2_000_u64 {
        let event = levada_client::Event::new(vec![b'0'; 20_000]).with_key(number.to_le_bytes().to_vec());
        tickets.push(publisher.publish(event).await.unwrap());
        if client.info().await.unwrap().read_only.is_some() {
            break;
        }
    }
    assert!(client.info().await.unwrap().read_only.is_some(), "the disk is full by now");
    assert_eq!(events::read_all(&client, "orders").await[&0][..1_000].len(), 1_000, "reading goes on");
    std::fs::remove_file(ballast).unwrap();
    for ticket in tickets {
        let receipt = within("a ticket", ticket).await.expect("the publisher tries until there is room");
        assert_eq!(events::offset(&receipt), stored, "once each, in order");
        stored += 1;
    }
    let log = events::read_all(&client, "orders").await;
    events::assert_dense(&log[&0], 0);
    assert_eq!(u64::try_from(log[&0].len()).unwrap(), stored);
    client.close().await;
    engine.stop().await;
    let engine = Process::start_with(&data, &reserve).await;
    let client = engine.connect().await;
    assert_eq!(events::read_all(&client, "orders").await, log, "and all of it after a restart");
    client.close().await;
    engine.stop().await;
}
