//! What can be typed: every command with its flags. Knows their form, not what they do.

mod admin;
mod bench;
mod chain;
mod values;

use std::{net::SocketAddr, path::PathBuf};

use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use levada_protocol::{
    ids::{SubscriptionName, TopicName},
    request::{Order, Start},
};

pub(crate) use admin::{
    DurabilityArg, PluginAction, PluginArgs, RouteAction, RouteArgs, SettingsArgs, SubscriptionAction,
    SubscriptionArgs, TopicAction, TopicArgs,
};
pub(crate) use bench::{
    BenchArgs, BenchCommon, CatchUp, ConsumerArgs, FanOut, Latency, PluginBench, PluginKind,
    Publish as PublishBench, Workload,
};
use chain::ChainArgs;
use values::{parse_any_topic, parse_header, parse_rate, parse_start};

/// Levada: durable events over QUIC, every subscriber through its own WebAssembly gate.
#[derive(Debug, Parser)]
#[command(name = "levada", version, max_term_width = 110)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Debug, clap::Args)]
pub(crate) struct CommonArgs {
    /// How results are printed; streams of events are one JSON object a line either way
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
    /// Print no remarks and no progress
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Log more to stderr; twice for every request
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// Which engine to talk to.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ClientArgs {
    /// The engine's address
    #[arg(
        long,
        global = true,
        env = "LEVADA_ADDR",
        default_value = "127.0.0.1:7600",
        value_name = "HOST:PORT"
    )]
    pub(crate) addr: String,
    /// The engine's CA certificate [default: ./levada-data/tls/ca.pem]
    #[arg(long, global = true, env = "LEVADA_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the engine
    Serve(ServeArgs),
    /// Show it all: an engine, plugins, an order service and three subscribers, and a table that proves the result
    Demo(DemoArgs),
    /// Make, show, change and delete topics
    Topic(TopicArgs),
    /// Publish events: NDJSON from a file or stdin
    Publish(PublishArgs),
    /// Consume a durable subscription, made on first use; prints and acknowledges each event
    Subscribe(SubscribeArgs),
    /// Read stored events without leaving a trace
    Read(ReadArgs),
    /// Show, resume and delete subscriptions
    Subscription(SubscriptionArgs),
    /// Deploy, list and remove WebAssembly plugins
    Plugin(PluginArgs),
    /// Lead events from topic to topic through plugins, exactly once
    Route(RouteArgs),
    /// Measure: rates, latencies, CPU and memory, with every event accounted for
    Bench(BenchArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// Configuration file; flags and LEVADA_ environment variables win over it
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where everything is kept [default: ./levada-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// UDP address for QUIC; port 0 takes a free one [default: 127.0.0.1:7600]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// TCP address for /healthz, /readyz and /metrics; port 0 takes a free one [default: 127.0.0.1:7601]
    #[arg(long, value_name = "ADDR")]
    pub(crate) http: Option<SocketAddr>,
    /// Form of the log on stderr
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) log_format: Format,
    /// Print the configuration in force and stop
    #[arg(long)]
    pub(crate) print_config: bool,
    /// Also shut down when stdin ends: for programs that run an engine and must not leave it behind
    #[arg(long, hide = true)]
    pub(crate) until_stdin_closes: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// Orders; each is created, paid, shipped, received and completed: five events
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    pub(crate) events: u32,
    /// Events that the order service publishes a second; 0 for as fast as it goes
    #[arg(long, value_name = "R", default_value_t = 5_000)]
    pub(crate) rate: u32,
    /// Keep the data in this directory, which must be empty or absent; `levada serve --data-dir` opens it
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PublishArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// The topic
    pub(crate) topic: TopicName,
    /// Key of every event that names none itself
    #[arg(long, value_name = "K")]
    pub(crate) key: Option<String>,
    /// Header of every event, before its own; repeatable
    #[arg(long = "header", value_name = "N=V", value_parser = parse_header)]
    pub(crate) headers: Vec<(String, String)>,
    /// Where the lines come from; - for stdin
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub(crate) file: PathBuf,
    /// Events a second at most
    #[arg(long, value_name = "R", value_parser = parse_rate)]
    pub(crate) rate: Option<f64>,
    /// Each line is a payload as it stands, not JSON
    #[arg(long)]
    pub(crate) raw: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OrderArg {
    /// Events of one key in order, one consumer at a time (in this version as partition)
    Key,
    /// One active consumer, the others stand by
    Partition,
    /// Whoever has credit
    None,
}

impl From<OrderArg> for Order {
    fn from(order: OrderArg) -> Self {
        match order {
            OrderArg::Key => Self::Key,
            OrderArg::Partition => Self::Partition,
            OrderArg::None => Self::None,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct SubscribeArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// The topic
    #[arg(value_parser = parse_any_topic)]
    pub(crate) topic: TopicName,
    /// The subscription's name
    #[arg(long, short, value_name = "S")]
    pub(crate) subscription: SubscriptionName,
    /// How several consumers share it, if it is made now [default: key]
    #[arg(long, value_enum)]
    pub(crate) order: Option<OrderArg>,
    /// Where it begins, if it is made now: earliest, latest, an offset, or a time as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "START", default_value = "latest", value_parser = parse_start)]
    pub(crate) from: Start,
    #[command(flatten)]
    pub(crate) chain: ChainArgs,
    /// Stop after this many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max: Option<u64>,
    /// Print without acknowledging: the events come again
    #[arg(long)]
    pub(crate) no_ack: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ReadArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// The topic
    #[arg(value_parser = parse_any_topic)]
    pub(crate) topic: TopicName,
    /// Only this partition; repeatable [default: all]
    #[arg(long = "partition", value_name = "P")]
    pub(crate) partitions: Vec<u16>,
    /// Where to begin: earliest, latest, an offset, or a time as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "START", default_value = "earliest", value_parser = parse_start)]
    pub(crate) from: Start,
    /// Stop after this many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max: Option<u64>,
    /// Go on with new events instead of stopping at the end
    #[arg(long)]
    pub(crate) follow: bool,
}

#[cfg(test)]
mod tests;
