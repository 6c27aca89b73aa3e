//! What the parts of this machine can do without the engine: disk, RocksDB, QUIC, and a bare path through all of them.
//!
//! The same two processes as with the engine: the bench and `levada bench counterpart` in the engine's place, with the
//! transport settings of client and engine, frames as long as batches, and RocksDB's options as the store has them. What
//! the engine adds is not there: no checks, no topics, no subscriptions.

mod matching;
mod parts;

mod bare_path;
mod counterpart;
mod disk;

mod receiver;
mod sender;
mod writer;

mod frame;

use std::{future::Future, path::Path, pin::pin, time::Duration};

use levada_client::PublisherOptions;
use levada_protocol::{batch::EVENT_HEADER_BYTES, limits::BATCH_BODY_BYTES_MAX};
use levada_rig::latencies::Percentiles;
use levada_terminal::{Failure, Output, interrupted};

use self::{
    bare_path::{BarePath, Direction},
    disk::Durability,
    parts::{DiskFigures, Parts, PathFigures, QuicFigures, StoreFigures},
    sender::Load,
};
pub(crate) use self::{
    counterpart::{run as run_counterpart, watch_stdin},
    matching::{measure, path_of},
};
use crate::{args::LimitsArgs, clock::Clock, place, producer::Budget, publishing::Shape};

/// Payload bytes of small and of larger events.
const SMALL: usize = 100;
const LARGE: usize = 1_024;
/// Events of a measurement of rates, and of latencies, at most.
const EVENTS_MAX: u64 = 20_000_000;
const LATENCIES_MAX: u64 = 100_000;

/// Measures all limits as often as asked for and prints them.
pub(crate) async fn run(output: &Output, args: &LimitsArgs) -> anyhow::Result<()> {
    let mut stop = pin!(interrupted());
    let mut runs = Vec::new();
    for number in 1..=args.runs {
        let parts = until_stopped(&mut stop, Box::pin(measure_all(output, args))).await?;
        if output.is_json() {
            output.json(&parts)?;
        } else if args.runs > 1 {
            output.remark(&format!("run {number:>3}: {}", parts.headline()));
        }
        runs.push(parts);
    }
    let Some(medians) = Parts::medians(&runs) else { return Ok(()) };
    if !output.is_json() {
        output.line(&medians.table())?;
    } else if args.runs > 1 {
        output.json(&medians)?;
    }
    Ok(())
}

/// Does `work` unless the user interrupts; dropping it leaves nothing behind.
pub(crate) async fn until_stopped<T>(
    stop: &mut (impl Future<Output = ()> + Unpin),
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::select! {
        biased;
        () = stop => Err(Failure::interrupted().into()),
        done = work => done,
    }
}

async fn measure_all(output: &Output, args: &LimitsArgs) -> anyhow::Result<Parts> {
    let dir = place::checked(output, args.dir.as_deref());
    let (clock, time) = (Clock::start(), Duration::from(args.time));
    let mut parts = Parts::new(args.subscribers, args.rate);
    parts.disk = disk_figures(&dir, clock, time).await?;
    parts.store = store_figures(&dir, clock, time, args.batch_bytes).await?;
    let bare = BarePath::start(&dir, args.path.mtu, clock).await?;
    (parts.quic, parts.mtu) = quic_figures(&bare, clock, time).await?;
    bare.stop().await?;
    parts.path = path_figures(&dir, clock, time, args).await?;
    Ok(parts)
}

async fn disk_figures(dir: &Path, clock: Clock, time: Duration) -> anyhow::Result<DiskFigures> {
    let append = disk::append(dir, clock, time).await?;
    let overwrite = disk::overwrite(dir, clock, time).await?;
    Ok(DiskFigures {
        append_sync_p50_us: append.p50,
        append_sync_p99_us: append.p99,
        overwrite_sync_p50_us: overwrite.p50,
        overwrite_sync_p99_us: overwrite.p99,
    })
}

async fn store_figures(
    dir: &Path,
    clock: Clock,
    time: Duration,
    batch_bytes: u64,
) -> anyhow::Result<StoreFigures> {
    let write = async |size, durability| {
        disk::rocksdb(dir, clock, time, frame_shape(size, batch_bytes), durability).await
    };
    Ok(StoreFigures {
        rocksdb_100_events_per_second: write(SMALL, Durability::Written).await?,
        rocksdb_100_synced_events_per_second: write(SMALL, Durability::Synced).await?,
        rocksdb_1024_events_per_second: write(LARGE, Durability::Written).await?,
        rocksdb_1024_synced_events_per_second: write(LARGE, Durability::Synced).await?,
    })
}

async fn quic_figures(bare: &BarePath, clock: Clock, time: Duration) -> anyhow::Result<(QuicFigures, u16)> {
    let (up, _) = bare.stream(Direction::Up, time).await?;
    let (down, mtu) = bare.stream(Direction::Down, time).await?;
    let budget = Budget::bounded(LATENCIES_MAX, time);
    let round_trip = bare.round_trip(load(clock, SMALL, 0, ONE, budget)).await?;
    let figures = QuicFigures {
        quic_up_mb_per_second: up / 1e6,
        quic_down_mb_per_second: down / 1e6,
        quic_round_trip_p50_us: round_trip.p50,
        quic_round_trip_p99_us: round_trip.p99,
    };
    Ok((figures, mtu))
}

/// Each on a counterpart of its own: what one has written is not flushed and compacted under the next.
async fn path_figures(
    dir: &Path,
    clock: Clock,
    time: Duration,
    args: &LimitsArgs,
) -> anyhow::Result<PathFigures> {
    let publish = async |size, shape, events| {
        let bare = BarePath::start(dir, args.path.mtu, clock).await?;
        let load = load(clock, size, args.batch_bytes, shape, Budget::bounded(events, time));
        let run = bare.publish(load, 1).await?;
        bare.stop().await?;
        anyhow::Ok(run)
    };
    let fan_out = async |shape| {
        let bare = BarePath::start(dir, args.path.mtu, clock).await?;
        let load = load(clock, SMALL, args.batch_bytes, shape, Budget::bounded(EVENTS_MAX, time));
        let run = bare.fan_out(load, args.subscribers).await?;
        bare.stop().await?;
        anyhow::Ok(run)
    };
    let one = percentiles(publish(SMALL, ONE, LATENCIES_MAX).await?.latency)?;
    let paced = percentiles(fan_out(Shape::Rate(args.rate)).await?.latency)?;
    Ok(PathFigures {
        publish_100_events_per_second: publish(SMALL, Shape::Pipelined, EVENTS_MAX).await?.events_per_second,
        publish_1024_events_per_second: publish(LARGE, Shape::Pipelined, EVENTS_MAX).await?.events_per_second,
        one_at_a_time_p50_us: one.p50,
        one_at_a_time_p99_us: one.p99,
        fanout_events_per_second: fan_out(Shape::Pipelined).await?.events_per_second,
        fanout_paced_p50_us: paced.p50,
        fanout_paced_p99_us: paced.p99,
    })
}

/// One event in flight.
const ONE: Shape = Shape::OneInFlight { tasks: 1, warm_up: 0 };

fn percentiles(found: Option<Percentiles>) -> anyhow::Result<Percentiles> {
    found.ok_or_else(|| anyhow::anyhow!("nothing came back on the bare path in time"))
}

fn load(clock: Clock, size: usize, batch_bytes: u64, shape: Shape, budget: std::sync::Arc<Budget>) -> Load {
    let (event_bytes, frame_events) = frame_shape(size, batch_bytes);
    let in_flight = u32::try_from(PublisherOptions::default().in_flight).unwrap_or(u32::MAX);
    Load { event_bytes, frame_events, in_flight, shape, synced: true, budget, clock }
}

/// Bytes of an event, and events of a frame of so many bytes.
fn frame_shape(size: usize, batch_bytes: u64) -> (usize, u32) {
    let event_bytes = EVENT_HEADER_BYTES + size;
    let bytes = usize::try_from(batch_bytes).unwrap_or(usize::MAX).min(BATCH_BODY_BYTES_MAX);
    let frame_events = u32::try_from(bytes / event_bytes).unwrap_or(u32::MAX).max(1);
    (event_bytes, frame_events)
}
