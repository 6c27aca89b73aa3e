//! What can be typed after `levada bench`. Knows the flags' form, not what a workload does.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Subcommand, ValueEnum};
use levada_terminal::{
    choices::{DurabilityArg, OrderArg},
    values::{DurationMs, parse_length, parse_rate, parse_share, parse_size},
};

/// What `levada bench` takes.
#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    pub(crate) measure: Measure,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Measure {
    #[command(flatten)]
    Workload(Workload),
    /// Measure what the parts of this machine do without the engine: disk, RocksDB, QUIC, and a bare path through them
    Limits(LimitsArgs),
    /// Measure what the network adds: HTTP beside an empty handler, server-sent events beside QUIC, pushes, what authentication costs, and
    /// what neighbours do to each other
    Network(NetworkArgs),
    /// The other process of `network`
    #[command(hide = true)]
    EmptyHandler(CounterpartArgs),
    /// The other process of `limits`
    #[command(hide = true)]
    Counterpart(CounterpartArgs),
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Workload {
    /// Publish and await every acknowledgement; then read everything back and count
    Publish(Publish),
    /// Publish one event at a time: how long until its acknowledgement
    Latency(Latency),
    /// Publish to durable subscriptions that acknowledge, until the last of them has the last event
    #[command(name = "fanout")]
    FanOut(FanOut),
    /// Store events, then deliver them to one durable subscription that acknowledges
    #[command(name = "catchup")]
    CatchUp(CatchUp),
    /// Store events, then deliver them to one consumer that acknowledges whole deliveries, and to consumers that settle each
    /// event by itself
    Delivery(DeliveryBench),
    /// Store events, then scan them through a WebAssembly plugin on a subscription or on a route
    Plugin(PluginBench),
    /// Publish events with unique ids to a topic with a dedup window that is full already, and to one without
    Dedup(DedupBench),
    /// Publish delayed events, each with a time of its own: what they cost while they wait, and how late they are delivered
    Delay(DelayBench),
    /// Publish one event, and prepare and commit one as a transaction, in turn: how much longer the latter takes
    Prepare(PrepareBench),
}

impl Workload {
    /// The flags that every workload has.
    pub(crate) fn common(&self) -> &BenchCommon {
        match self {
            Self::Publish(args) => &args.common,
            Self::Latency(args) => &args.common,
            Self::FanOut(args) => &args.common,
            Self::CatchUp(args) => &args.common,
            Self::Delivery(args) => &args.common,
            Self::Plugin(args) => &args.common,
            Self::Dedup(args) => &args.common,
            Self::Delay(args) => &args.common,
            Self::Prepare(args) => &args.common,
        }
    }
}

/// Flags of every workload.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct BenchCommon {
    /// Payload bytes of an event, 24 to 1000000
    #[arg(long, value_name = "B", default_value_t = 100, value_parser = clap::value_parser!(u32).range(24..=1_000_000))]
    pub(crate) size: u32,
    /// What an acknowledgement means
    #[arg(long, value_enum, default_value_t = DurabilityArg::Sync)]
    pub(crate) durability: DurabilityArg,
    /// Partitions of the topic, 1 to 1024
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) partitions: u16,
    /// Distinct keys, up to 1000000; 0 for events without key
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub(crate) keys: u32,
    /// Fill batches up to this size, 1MiB at most
    #[arg(long, value_name = "SIZE", default_value = "64KiB", value_parser = parse_size)]
    pub(crate) batch_bytes: u64,
    /// Fill batches with this many events instead, 10000 at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) batch: Option<u32>,
    /// Batches that a publisher has in flight at most, 1 to 64 [default: 32]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) in_flight: Option<u16>,
    /// Repeat this often, up to 1000, each time on a fresh topic (and engine), and print medians at the end
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) runs: u16,
    /// Measure the matching limit before and after each run, as `bench limits` does, and print the ratio: of a rate, or of
    /// a median latency where events go one at a time
    #[arg(long, conflicts_with = "addr")]
    pub(crate) limits: bool,
    #[command(flatten)]
    pub(crate) path: PathArgs,
    /// Use the engine at this address instead of starting one; the topic is deleted at the end
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) addr: Option<String>,
    /// With --addr: the engine's CA certificate [default: ./levada-data/tls/ca.pem]
    #[arg(long, env = "LEVADA_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// With --addr: a file that holds a bearer token, see `levada token create` [env: LEVADA_TOKEN_FILE, or the token
    /// itself in LEVADA_TOKEN]
    #[arg(long, value_name = "FILE", requires = "addr")]
    pub(crate) token_file: Option<PathBuf>,
    /// Where the started engine's data directory is made, and removed again [default: the system's]
    #[arg(long, value_name = "DIR", conflicts_with = "addr")]
    pub(crate) dir: Option<PathBuf>,
}

/// What the path between client and engine is like.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct PathArgs {
    /// Largest UDP payload either way in bytes, 1200 to 6500; 1452 is what most networks carry [default: as the path
    /// allows]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(1_200..=6_500))]
    pub(crate) mtu: Option<u16>,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LimitsArgs {
    /// Connections that the fan-out goes to, 1 to 64
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) subscribers: u16,
    /// Events a second of the paced fan-out
    #[arg(long, value_name = "R", default_value = "5000", value_parser = parse_rate)]
    pub(crate) rate: f64,
    /// Fill frames up to this size, 1MiB at most
    #[arg(long, value_name = "SIZE", default_value = "64KiB", value_parser = parse_size)]
    pub(crate) batch_bytes: u64,
    /// Measure each part for this long at most, up to 1m
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_part)]
    pub(crate) time: DurationMs,
    /// Repeat this often, up to 1000, and print medians at the end
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) runs: u16,
    /// Where files are made, and removed again [default: the system's place for temporary files]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) path: PathArgs,
}

/// How long one part is measured.
fn parse_part(text: &str) -> Result<DurationMs, String> {
    match parse_length(text)? {
        DurationMs(milliseconds) if milliseconds > 60_000 => {
            Err("expected a duration of 1m or less".to_owned())
        }
        length => Ok(length),
    }
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct NetworkArgs {
    /// Measure this alone; repeatable
    #[arg(long, value_enum, value_name = "MEASURE")]
    pub(crate) only: Vec<NetworkMeasure>,
    /// Repeat this often, up to 1000, each time on fresh engines, and print medians at the end
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) runs: u16,
    /// Do this share of the work, above 0 and at most 1: a look costs less than a figure
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, value_parser = parse_share)]
    pub(crate) share: f64,
    /// Where the engines' data directories are made, and removed again [default: the system's]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

impl NetworkArgs {
    /// This share of a count, at least 5: enough for every turn.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts far below 2^53"
    )]
    pub(crate) fn scaled(&self, count: u64) -> u64 {
        ((count as f64 * self.share) as u64).max(5)
    }
}

/// What `levada bench network` measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum NetworkMeasure {
    /// Publishing by HTTP, one event a request and in batches
    Http,
    /// Server-sent events to 100 clients
    Sse,
    /// Pushes to a receiver on this machine
    Push,
    /// Connections and publishes with a token and without
    Connect,
    /// One who publishes a little, beside others who do much; they give way to it (nice 10), as if they were on other machines
    Neighbours,
}

impl NetworkMeasure {
    /// What is shown while it is measured.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Sse => "sse",
            Self::Push => "push",
            Self::Connect => "connect",
            Self::Neighbours => "neighbours",
        }
    }
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct CounterpartArgs {
    /// Where its files are made
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// UDP address for QUIC
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: SocketAddr,
}

/// How a subscription is shared.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ConsumerArgs {
    /// How several consumers share a subscription
    #[arg(long, value_enum, default_value_t = OrderArg::Key)]
    pub(crate) order: OrderArg,
    /// Consumers of each subscription, 1 to 1024
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) consumers: u16,
    /// Unacknowledged events that a consumer may hold
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_in_flight: u32,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Publish {
    #[command(flatten)]
    pub(crate) common: BenchCommon,
    /// Events in total
    #[arg(long, value_name = "N", default_value_t = 3_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) events: u64,
    /// Publish for this long instead, as 60s
    #[arg(long, value_name = "DURATION", conflicts_with = "events", value_parser = parse_length)]
    pub(crate) duration: Option<DurationMs>,
    /// Publishers, each with its own stream, on every connection
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) producers: u16,
    /// Connections, 1 to 4096
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) connections: u16,
    /// Tasks on every connection that share its publishers, each with one event in flight, instead of full batches
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) concurrency: Option<u16>,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Latency {
    #[command(flatten)]
    pub(crate) common: BenchCommon,
    /// Events in total
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) events: u64,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct FanOut {
    #[command(flatten)]
    pub(crate) common: BenchCommon,
    #[command(flatten)]
    pub(crate) consumer: ConsumerArgs,
    /// Events in total [default: 3000000, or with --rate those of ten seconds]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) events: Option<u64>,
    /// Publish for this long instead, as 60s
    #[arg(long, value_name = "DURATION", conflicts_with = "events", value_parser = parse_length)]
    pub(crate) duration: Option<DurationMs>,
    /// Subscriptions, 1 to 1024
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) subscribers: u16,
    /// Events a second, one at a time [default: as fast as it goes, in full batches]
    #[arg(long, value_name = "R", value_parser = parse_rate)]
    pub(crate) rate: Option<f64>,
}

impl FanOut {
    /// How many events are published, unless a duration ends it.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate is positive, a count is whole"
    )]
    pub(crate) fn events(&self) -> u64 {
        let default = self.rate.map_or(3_000_000, |rate| (rate * 10.0).ceil() as u64);
        self.events.unwrap_or(default)
    }
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct CatchUp {
    #[command(flatten)]
    pub(crate) common: BenchCommon,
    #[command(flatten)]
    pub(crate) consumer: ConsumerArgs,
    /// Events in total
    #[arg(long, value_name = "N", default_value_t = 5_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) events: u64,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DeliveryBench {
    #[command(flatten)]
    pub(crate) common: BenchCommon,
    #[command(flatten)]
    pub(crate) consumer: ConsumerArgs,
    /// Events in total
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) events: u64,
    /// How often each event fails and is delivered again before it is acknowledged, up to 15
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=15))]
    pub(crate) failures: u8,
    /// Keys whose events are held and never acknowledged, fewer than --keys
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) stuck_keys: u32,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PluginBench {
    #[command(flatten)]
    pub(crate) common: BenchCommon,
    #[command(flatten)]
    pub(crate) consumer: ConsumerArgs,
    /// Events in total
    #[arg(long, value_name = "N", default_value_t = 3_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) events: u64,
    /// What the events pass
    #[arg(long, value_enum, default_value_t = PluginKind::Trivial)]
    pub(crate) plugin: PluginKind,
    /// Share of the events that the filter keeps, above 0 and at most 1; a route takes all
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, value_parser = parse_share)]
    pub(crate) pass: f64,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DedupBench {
    #[command(flatten)]
    pub(crate) common: BenchCommon,
    /// Events in total, to each of the two topics
    #[arg(long, value_name = "N", default_value_t = 3_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) events: u64,
    /// Events published before, so that the window holds their ids; the engine holds 8,000,000 unless it was told otherwise
    #[arg(long, value_name = "N", default_value_t = 8_000_000)]
    pub(crate) prefill: u64,
    /// The dedup window, up to 7d
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = parse_length)]
    pub(crate) window: DurationMs,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DelayBench {
    #[command(flatten)]
    pub(crate) common: BenchCommon,
    /// Delayed events in total
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) events: u64,
    /// When the first of them is due, from the beginning on; later than all are scheduled if all are to be pending at once
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = parse_length)]
    pub(crate) after: DurationMs,
    /// Within which time from then on all are due
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_length)]
    pub(crate) within: DurationMs,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PrepareBench {
    #[command(flatten)]
    pub(crate) common: BenchCommon,
    /// Transactions of one event, and as many events besides
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) events: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PluginKind {
    /// A filter that looks at one byte, on a subscription
    Trivial,
    /// The bundled json-filter, on a subscription
    JsonFilter,
    /// A transform that copies each event, on a route to another topic, exactly once
    Route,
    /// No plugin, for comparison
    None,
}

impl PluginKind {
    /// The word as it is typed and shown.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Trivial => "trivial",
            Self::JsonFilter => "json-filter",
            Self::Route => "route",
            Self::None => "none",
        }
    }
}
