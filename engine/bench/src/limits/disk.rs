//! What the disk and RocksDB do by themselves, on a thread of this process.

use std::{
    fs::File,
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    path::Path,
    time::Duration,
};

use anyhow::Context as _;
use levada_rig::latencies::{Latencies, Percentiles};
use levada_store::{BareStore, RocksOptions};
use tokio::task::yield_now;

use super::frame::Framer;
use crate::{clock::Clock, endpoint::Endpoint};

/// What is written before each sync: a page.
const BLOCK: [u8; 4096] = [0xb5; 4096];
/// Blocks of the file that is written over.
const BLOCKS: u64 = 4_096;
/// Syncs at most.
const SYNCS_MAX: u64 = 10_000;
/// Frames that RocksDB takes at most.
const FRAMES_MAX: u64 = 100_000;
/// Bytes that one sync makes durable, as on the bare path.
const GROUP_BYTES_MAX: usize = 1 << 20;

/// How RocksDB is asked to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// To the operating system.
    Written,
    /// With a sync for every group of frames.
    Synced,
}

/// How long it takes to append a page to a file and sync it.
pub(super) async fn append(dir: &Path, clock: Clock, time: Duration) -> anyhow::Result<Percentiles> {
    on_thread(dir, async move |dir| {
        let mut file = File::create(dir.join("append"))?;
        let write = |_| {
            file.write_all(&BLOCK)?;
            file.sync_data()
        };
        timed(clock, time, write).await
    })
    .await
}

/// How long it takes to write over a page of a file and sync it.
pub(super) async fn overwrite(dir: &Path, clock: Clock, time: Duration) -> anyhow::Result<Percentiles> {
    on_thread(dir, async move |dir| {
        let mut file = File::create(dir.join("overwrite"))?;
        for _ in 0..BLOCKS {
            file.write_all(&BLOCK)?;
        }
        file.sync_all()?;
        let write = |turn| {
            file.write_all_at(&BLOCK, turn % BLOCKS * BLOCK.len() as u64)?;
            file.sync_data()
        };
        timed(clock, time, write).await
    })
    .await
}

async fn timed(
    clock: Clock,
    time: Duration,
    mut write: impl FnMut(u64) -> io::Result<()>,
) -> anyhow::Result<Percentiles> {
    let (begun, time) = (clock.now(), u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    let mut latencies = Latencies::default();
    for turn in 0..SYNCS_MAX {
        let now = clock.now();
        write(turn)?;
        let ended = clock.now();
        latencies.record(ended - now);
        if ended - begun >= time {
            break;
        }
        // Here it ends if nobody waits any more.
        yield_now().await;
    }
    latencies.percentiles().context("nothing was written")
}

/// Events a second that RocksDB takes, one batch write for a frame of so many.
pub(super) async fn rocksdb(
    dir: &Path,
    clock: Clock,
    time: Duration,
    (event_bytes, frame_events): (usize, u32),
    durability: Durability,
) -> anyhow::Result<f64> {
    on_thread(dir, async move |dir| {
        let store = BareStore::open(dir, &RocksOptions::default())?;
        let framer = Framer::new(event_bytes, frame_events);
        let (begun, time) = (clock.now(), u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        let (mut frames, mut unsynced) = (0, 0);
        while frames < FRAMES_MAX && clock.now() - begun < time {
            let frame = framer.frame(frame_events, frames);
            store.write(&frames.to_be_bytes(), &frame)?;
            frames += 1;
            unsynced += frame.len();
            if durability == Durability::Synced && unsynced >= GROUP_BYTES_MAX {
                store.sync()?;
                unsynced = 0;
            }
            yield_now().await;
        }
        if durability == Durability::Synced {
            store.sync()?;
        }
        #[expect(clippy::cast_precision_loss, reason = "counts and nanoseconds of a run fit 53 bits")]
        let rate = (frames * u64::from(frame_events)) as f64 * 1e9 / (clock.now() - begun).max(1) as f64;
        Ok(rate)
    })
    .await
}

/// Runs `work` with a directory of its own in `parent`, which the thread removes however the work ends.
async fn on_thread<T: Send + 'static>(
    parent: &Path,
    work: impl AsyncFnOnce(&Path) -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let dir = tempfile::Builder::new().prefix("levada-limits-").tempdir_in(parent)?;
    Endpoint::spawn("disk", move || async move { work(dir.path()).await })?.finished().await
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(5);

    #[tokio::test]
    async fn everything_is_measured_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::start();
        for found in [append(dir.path(), clock, SHORT).await, overwrite(dir.path(), clock, SHORT).await] {
            let found = found.unwrap();
            assert!(found.p50 > 0.0 && found.p99 >= found.p50, "{found:?}");
        }
        for durability in [Durability::Written, Durability::Synced] {
            let rate = rocksdb(dir.path(), clock, SHORT, (100, 10), durability).await.unwrap();
            assert!(rate > 0.0, "{durability:?}");
        }
        assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
    }
}
