//! Which limit a workload is measured against, and the measuring of it.

use std::time::Duration;

use levada_client::PublisherOptions;
use levada_terminal::choices::DurabilityArg;

use super::{
    bare_path::{BarePath, Direction, Run},
    disk::{self, Durability},
    sender::Load,
};
use crate::{
    args::{BenchCommon, PluginKind, Workload},
    batching,
    clock::Clock,
    place,
    producer::Budget,
    publish::warm_up,
    publishing::Shape,
    report::Figure,
};

/// A limit takes as many events as its workload, but no more than these,
const EVENTS_MAX: u64 = 3_000_000;
/// and no longer than this.
const TIME_MAX: Duration = Duration::from_secs(10);
/// The same for a limit without a count of its own.
const STREAM_TIME: Duration = Duration::from_secs(2);

/// What the limit of a workload is of, for people.
///
/// The bare path is QUIC, a RocksDB batch write a frame and a sync. Of what is read back, the limit is a QUIC stream that
/// carries all stored events, also where a filter lets few pass.
pub(crate) fn path_of(workload: &Workload) -> &'static str {
    match workload {
        Workload::Publish(_)
        | Workload::Latency(_)
        | Workload::Dedup(_)
        | Workload::Delay(_)
        | Workload::Prepare(_) => "the bare path to an acknowledgement",
        Workload::FanOut(_) => "the bare path to as many connections",
        Workload::Plugin(args) if args.plugin == PluginKind::Route => "RocksDB alone, synced",
        Workload::CatchUp(_) | Workload::Delivery(_) | Workload::Plugin(_) => "one QUIC stream alone",
    }
}

/// Measures the limit of a workload.
pub(crate) async fn measure(workload: &Workload) -> anyhow::Result<Figure> {
    let common = workload.common();
    let (dir, clock) = (place::of(common.dir.as_deref()), Clock::start());
    if let Workload::Plugin(args) = workload
        && args.plugin == PluginKind::Route
    {
        let frame = (batching::record_bytes(common), batching::batch_events(common));
        let rate = disk::rocksdb(&dir, clock, STREAM_TIME, frame, Durability::Synced).await?;
        return Ok(Figure::EventsPerSecond(rate));
    }
    let bare = BarePath::start(&dir, common.path.mtu, clock).await?;
    let figure = match workload {
        Workload::Publish(args) => {
            let shape = match args.concurrency {
                Some(tasks) => Shape::OneInFlight { tasks, warm_up: 0 },
                None => Shape::Pipelined,
            };
            rate(&bare.publish(load(common, clock, args.events, shape), args.connections).await?)
        }
        Workload::Dedup(args) => {
            rate(&bare.publish(load(common, clock, args.events, Shape::Pipelined), 1).await?)
        }
        Workload::Delay(args) => {
            rate(&bare.publish(load(common, clock, args.events, Shape::Pipelined), 1).await?)
        }
        Workload::Latency(args) => one_at_a_time(&bare, common, clock, args.events).await?,
        Workload::Prepare(args) => one_at_a_time(&bare, common, clock, args.events).await?,
        Workload::FanOut(args) => {
            let shape = args.rate.map_or(Shape::Pipelined, Shape::Rate);
            let run = bare.fan_out(load(common, clock, args.events(), shape), args.subscribers).await?;
            if args.rate.is_some() { latency(&run)? } else { rate(&run) }
        }
        Workload::CatchUp(_) | Workload::Delivery(_) | Workload::Plugin(_) => {
            let (bytes, _mtu) = bare.stream(Direction::Down, STREAM_TIME).await?;
            #[expect(clippy::cast_precision_loss, reason = "bytes of one event")]
            let event_bytes = batching::record_bytes(common) as f64;
            Figure::EventsPerSecond(bytes / event_bytes)
        }
    };
    bare.stop().await?;
    Ok(figure)
}

async fn one_at_a_time(
    bare: &BarePath,
    common: &BenchCommon,
    clock: Clock,
    events: u64,
) -> anyhow::Result<Figure> {
    let shape = Shape::OneInFlight { tasks: 1, warm_up: warm_up(events) };
    latency(&bare.publish(load(common, clock, events, shape), 1).await?)
}

fn load(common: &BenchCommon, clock: Clock, events: u64, shape: Shape) -> Load {
    let PublisherOptions { in_flight, .. } = batching::publisher_options(common);
    Load {
        event_bytes: batching::record_bytes(common),
        frame_events: batching::batch_events(common),
        in_flight: u32::try_from(in_flight).unwrap_or(u32::MAX),
        shape,
        synced: common.durability == DurabilityArg::Sync,
        budget: Budget::bounded(events.min(EVENTS_MAX), TIME_MAX),
        clock,
    }
}

fn rate(run: &Run) -> Figure {
    Figure::EventsPerSecond(run.events_per_second)
}

fn latency(run: &Run) -> anyhow::Result<Figure> {
    let found = run.latency.ok_or_else(|| anyhow::anyhow!("the bare path answered nothing in time"))?;
    Ok(Figure::LatencyUs { p50: found.p50, p99: found.p99 })
}
