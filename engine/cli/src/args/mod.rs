//! What can be typed: every command with its flags. Knows their form, not what they do.

mod admin;
mod ca;
mod chain;
mod client;
mod context;
mod dead_letters;
mod input;
mod minus;
mod named;
mod path;
mod principals;
mod push;
mod search;
mod start;
mod transactions;
mod values;
mod verb;

use std::{net::SocketAddr, num::NonZeroU64, path::PathBuf, time::Duration};

use clap::{ArgAction, Parser, Subcommand};
use clap_complete::Shell;
use levada_bench::BenchArgs;
use levada_demo::DemoArgs;
use levada_protocol::{
    ids::{ProducerName, Timestamp, TopicName},
    request::Start,
    schedule::Due,
};
use levada_server::config::TlsName;
use levada_terminal::{
    choices::{DurabilityArg, Format},
    values::{DurationMs, parse_length, parse_rate},
};

pub(crate) use admin::{
    Changes, DeleteArgs, PluginAction, PluginArgs, PurgeArgs, RouteAction, RouteArgs, ScheduleAction,
    ScheduleArgs, SettingsArgs, SubscriptionAction, SubscriptionArgs, TopicAction, TopicArgs,
};
pub(crate) use ca::{CaAction, CaArgs, CaFetchArgs};
pub(crate) use chain::OptionsArgs;
pub(crate) use client::{ClientArgs, DEFAULT_ADDR};
pub(crate) use context::{AddContextArgs, ContextAction, ContextArgs};
pub(crate) use dead_letters::{CountArgs, DlqAction, DlqArgs, UntilArgs, WhichArgs, Whose};
pub(crate) use input::InputArgs;
pub(crate) use named::Named;
pub(crate) use path::{SubscriptionPath, TransactionPath};
pub(crate) use principals::{PrincipalAction, PrincipalArgs, TokenAction, TokenArgs};
pub(crate) use push::PushAction;
pub(crate) use search::SearchArgs;
pub(crate) use start::{Beginning, now};
pub(crate) use transactions::{TransactionAction, TransactionArgs, TransactionPublishArgs};
pub(crate) use values::parse_free_topic;
pub(crate) use verb::{Verb, VerbArgs};

use search::parse_bound;
use start::{LAST_MAX, parse_beginning, parse_since, parse_start};
use values::{parse_any_topic, parse_check_after, parse_delay, parse_time, parse_timeout};

/// Levada: durable events over QUIC, every subscriber through its own WebAssembly gate.
#[derive(Debug, Parser)]
#[command(name = "levada", version, max_term_width = 110, after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What scripts go by.
const EXIT_CODES: &str = "Exit codes: 0 done; for serve, subscribe, and read --follow without --max, also interrupted and ended \
in order; 1 refused, failed, or wrong in a line of input, in the configuration or in the environment; 2 wrong in the \
command line, nothing was begun; 130 any other, interrupted before it was done";
/// Where the help shows the flags of every command.
const EVERYWHERE: &str = "Flags of every command";

/// Flags of every command.
#[derive(Debug, clap::Args)]
pub(crate) struct CommonArgs {
    /// How results and errors are printed: for people, or one JSON object a line; events are JSON either way, unless
    /// --payload says otherwise
    #[arg(long, global = true, value_enum, default_value_t = Format::Text, help_heading = EVERYWHERE)]
    pub(crate) output: Format,
    /// Print no remarks and no progress on stderr; errors are still printed
    #[arg(long, short, global = true, help_heading = EVERYWHERE)]
    pub(crate) quiet: bool,
    /// Log more to stderr; -vv more still
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = EVERYWHERE)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the engine
    Serve(ServeArgs),
    /// Run a demonstration: an engine, plugins, an order service, three subscribers, and a table that proves the result
    Demo(DemoArgs),
    /// Create, show, change and delete topics
    Topic(TopicArgs),
    /// Publish events: lines of JSON from stdin or a file
    #[command(after_help = PUBLISH_HELP)]
    Publish(PublishArgs),
    /// Consume a durable subscription, created on first use; prints and acknowledges each event
    #[command(after_help = SUBSCRIBE_HELP)]
    Subscribe(SubscribeArgs),
    /// Read stored events without leaving a trace
    #[command(after_help = READ_HELP)]
    Read(ReadArgs),
    /// Create, show, resume and delete subscriptions
    Subscription(SubscriptionArgs),
    /// List, show, redrive and purge dead letters: events that could not be delivered
    #[command(after_help = DLQ_HELP)]
    Dlq(DlqArgs),
    /// Deploy, list and remove WebAssembly plugins
    Plugin(PluginArgs),
    /// Lead events from topic to topic through plugins, exactly once
    Route(RouteArgs),
    /// List, show and cancel delayed events
    Schedule(ScheduleArgs),
    /// Publish to many topics as one, all or none; list, show, commit and roll back prepared transactions
    #[command(after_help = TRANSACTION_HELP)]
    Transaction(TransactionArgs),
    /// Create, list, describe, change and delete principals: who may use the engine, and for what
    Principal(PrincipalArgs),
    /// Create, list and revoke the tokens with which principals connect
    Token(TokenArgs),
    /// Get the CA certificate that a client of an engine on another machine needs
    Ca(CaArgs),
    /// Store engines by name, each with its address, CA and token, and choose the one that commands talk to
    #[command(after_help = CONTEXT_HELP)]
    Context(ContextArgs),
    /// Measure: rates, latencies, CPU and memory, with every event accounted for
    Bench(BenchArgs),
    /// Print the completion script of a shell
    #[command(after_help = COMPLETION_HELP)]
    Completion {
        /// Which shell
        shell: Shell,
    },
}

impl Command {
    /// Which engine the command talks to, if it talks to one that the usual flags name.
    pub(crate) fn client_mut(&mut self) -> Option<&mut ClientArgs> {
        match self {
            Self::Topic(args) => Some(&mut args.client),
            Self::Publish(args) => Some(&mut args.client),
            Self::Subscribe(args) => Some(&mut args.client),
            Self::Read(args) => Some(&mut args.client),
            Self::Subscription(args) => Some(&mut args.client),
            Self::Dlq(args) => Some(&mut args.client),
            Self::Plugin(args) => Some(&mut args.client),
            Self::Route(args) => Some(&mut args.client),
            Self::Schedule(args) => Some(&mut args.client),
            Self::Transaction(args) => Some(&mut args.client),
            Self::Principal(args) => Some(&mut args.client),
            Self::Token(args) => Some(&mut args.client),
            Self::Serve(_)
            | Self::Demo(_)
            | Self::Ca(_)
            | Self::Context(_)
            | Self::Bench(_)
            | Self::Completion { .. } => None,
        }
    }
}

const CONTEXT_HELP: &str = concat!(
    "Contexts are in contexts.toml in LEVADA_CONFIG_DIR, else in $XDG_CONFIG_HOME/levada, else in ~/.config/levada. The file \
     is its owner's alone: it is refused if others may read it.\n\n",
    "For each setting a flag wins over the environment, the environment over the context, the context over the default. \
     But --context says which engine: its address wins over LEVADA_ADDR. Without --context, an engine named by --addr or \
     LEVADA_ADDR gets nothing of any context, for a token is for one engine.\n\n",
    "  levada context add prod --addr events.example.com:7600 --ca ca.pem --token-file token --use\n",
    "  levada topic list --context prod"
);

const COMPLETION_HELP: &str = concat!(
    "  bash: source <(levada completion bash)    in ~/.bashrc\n",
    "  zsh:  source <(levada completion zsh)     in ~/.zshrc, after compinit\n",
    "  fish: levada completion fish | source     in ~/.config/fish/config.fish"
);

// Paragraphs are one line each: clap breaks them where the terminal ends.
const PUBLISH_HELP: &str = concat!(
    "A line is one event:\n",
    r#"  {"key": "..", "headers": {"name": ".."}, "id": "..", "time": "2026-01-31T12:00:00Z", "ttl_ms": 30000, "payload": ..}"#,
    "\n\n",
    "Only payload must be there. It is any JSON; instead of it there may be payload_text for other text, payload_base64 \
     for other bytes, or tombstone: true for none. ",
    "Events of one key go to one partition, in order. What `levada read` prints can be published as it is, and is the \
     same event again, but for the headers lv-dlq-… and lv-redrives, which are the engine's. ",
    "The command ends when every event is stored.\n\n",
    r#"  echo '{"key": "order-1", "payload": {"amount": 90}}' | levada publish orders"#,
    "\n  echo 'any text' | levada publish orders --raw",
    "\n  echo '{\"payload\": \"unpaid\"}' | levada publish orders --delay 30m"
);

/// How payloads that are not JSON are printed.
macro_rules! other_bytes {
    () => {
        "A payload that is JSON on one line is printed as it is under payload, other text as payload_text, other bytes \
         as payload_base64, and no payload as tombstone: true. --payload prints payloads alone."
    };
}

const READ_HELP: &str = concat!(
    other_bytes!(),
    "\n\n",
    "A search reads and tests the events in the engine, and prints those that match. At its end stderr has one line: how \
     much was scanned, how many events match, and the command to go on if there may be more.\n\n",
    r#"  levada read orders --where 'amount > 100 and header.region = "eu"' --since 1h"#
);

const DLQ_HELP: &str = concat!(
    "The dead letters of a subscription are in the topic dlq.TOPIC.SUBSCRIPTION, those of a route in \
     dlq.TOPIC.route-ROUTE, with the reason in headers lv-dlq-…; they are kept for 30 days.\n\n",
    "  levada dlq list orders/payment\n",
    "  levada dlq redrive orders/payment --all\n",
    r#"  levada dlq redrive orders/payment --where 'header.lv-dlq-plugin = "json-filter@2"' --to repaired"#
);

const TRANSACTION_HELP: &str = concat!(
    "Events of any topics are stored all or none, in one commit, with `levada transaction publish`.\n\n",
    "A producer prepares events, does its own work, such as a row in a database, and commits or rolls back. If it dies in \
     between, the members of its group that are connected are asked; if none of them knows, a person decides here.\n\n",
    "  echo '{\"payload\": \"paid\"}' | levada publish orders --prepare shop/order-42\n",
    "  levada transaction commit shop/order-42"
);

const SUBSCRIBE_HELP: &str = concat!(
    "The subscription and its position remain when this command ends. ",
    "Flags that say how it delivers count when it is made. If it exists, a flag that differs is refused, ",
    "and what no flag says is as it is.\n\n",
    "What is printed is acknowledged, whether anybody reads it or not: to take one event, say --max 1 instead of \
     piping into `head -1`. --nack and --reject try out what becomes of events that a consumer fails on. With --publish-to an \
     event is printed once it is published and acknowledged; if the command dies in between it is both or neither.\n\n",
    other_bytes!(),
    "\n\n",
    r#"  levada subscribe orders -s payment --from earliest --plugin 'json-filter:{"where":"amount > 0"}'"#,
    "\n  levada subscribe orders -s billing --from earliest --publish-to invoices"
);

#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// Configuration file, as --print-config prints it; the environment (LEVADA_HTTP_ADDRESS sets the address of
    /// section http) wins over it, and flags win over both
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The data directory [default: ./levada-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// UDP address for QUIC: ADDRESS:PORT, HOST:PORT, or a port alone on 127.0.0.1; port 0 takes a free one. Addresses that
    /// others can reach need a principal, and --tls-name for the names that they use [default: 127.0.0.1:7600]
    #[arg(long, value_name = "ADDR", value_parser = levada_server::config::parse_address)]
    pub(crate) listen: Option<SocketAddr>,
    /// TCP address for HTTP (/healthz, /readyz, /metrics), as --listen; with TLS where others can reach it [default:
    /// 127.0.0.1:7601]
    #[arg(long, value_name = "ADDR", value_parser = levada_server::config::parse_address)]
    pub(crate) http: Option<SocketAddr>,
    /// Create a token for the principal admin, an administrator, when the engine starts, and write it to this new file, which
    /// only you may read: for the first start, and if all administrators have lost theirs. A file that exists is left as it
    /// is, with a warning if it holds no valid token of an administrator; the first start refuses it
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_token: Option<PathBuf>,
    /// A DNS name or IP address by which clients reach the engine, such as engine.example.com or 192.0.2.1; repeatable. The
    /// engine's own certificate covers it beside localhost, 127.0.0.1 and ::1, and is made again if it does not. No
    /// wildcards [default: as tls.names in the configuration]
    #[arg(long = "tls-name", value_name = "NAME_OR_IP", value_parser = levada_server::config::parse_tls_name)]
    pub(crate) tls_names: Vec<TlsName>,
    /// A network that deliveries may be pushed to although its addresses are not public, such as 10.1.0.0/16; repeatable. One
    /// of loopback permits http to it as well [default: as push.allow in the configuration: none]
    #[arg(long = "push-allow", value_name = "NETWORK", value_parser = levada_server::config::parse_network)]
    pub(crate) push_allow: Vec<levada_server::config::Network>,
    /// Format of the log on stderr [default: text]
    #[arg(long, value_enum)]
    pub(crate) log_format: Option<Format>,
    /// Print every setting in force with its explanation, as a configuration file, and exit
    #[arg(long)]
    pub(crate) print_config: bool,
    /// Also shut down when stdin ends: for programs that run an engine and must not leave it behind
    #[arg(long, hide = true)]
    pub(crate) until_stdin_closes: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PublishArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// The topic, which must exist
    #[arg(value_parser = parse_free_topic)]
    pub(crate) topic: TopicName,
    // Taken only to say where events come from.
    #[arg(hide = true)]
    pub(crate) words: Vec<String>,
    #[command(flatten)]
    pub(crate) input: InputArgs,
    /// Events a second at most [default: as fast as it goes]
    #[arg(long, value_name = "R", value_parser = parse_rate)]
    pub(crate) rate: Option<f64>,
    /// The partition of every event [default: by its key, else by its id]
    #[arg(long, value_name = "P")]
    pub(crate) partition: Option<u16>,
    /// Append all lines as one batch, and only if the partition's next offset is this one: nothing was stored since it was
    /// looked at. Without --partition the topic must have one partition
    #[arg(long, value_name = "OFFSET", conflicts_with_all = ["rate", "delay", "deliver_at"])]
    pub(crate) expect_offset: Option<u64>,
    /// Deliver the events so long after the engine has taken them, up to 365d: by its clock, not by this machine's
    #[arg(long, value_name = "DURATION", value_parser = parse_delay, conflicts_with = "deliver_at")]
    delay: Option<DurationMs>,
    /// Deliver the events at this time, up to 365 days ahead: 2026-01-31T12:00:00Z; one that has passed is at once
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    deliver_at: Option<Timestamp>,
    /// Publish under this name, and take it over: nothing more is stored of what another publisher to the topic sends under it,
    /// so that only one publisher at a time can use it [default: no name, and any number of publishers]
    #[arg(long, value_name = "NAME", conflicts_with = "prepare")]
    pub(crate) producer: Option<ProducerName>,
    /// Store all lines as one transaction of a producer group, invisible until `levada transaction commit`, or a program of
    /// the group, commits it
    #[arg(long, value_name = "GROUP/ID", conflicts_with_all = ["rate", "delay", "deliver_at", "expect_offset", "no_wait"])]
    pub(crate) prepare: Option<TransactionPath>,
    /// How long after the prepare the group is first asked about the transaction, 1ms to 1d [default: as the engine is
    /// configured, 6s]
    #[arg(long, value_name = "DURATION", value_parser = parse_check_after, requires = "prepare")]
    check_after: Option<DurationMs>,
    /// What an acknowledgement means, if it is to be more than the topic says; a transaction is always synced [default: as the
    /// topic]
    #[arg(long, value_enum, conflicts_with = "prepare")]
    pub(crate) durability: Option<DurabilityArg>,
    /// Each line is a payload as it is, text or JSON, without its line end (LF or CR LF)
    #[arg(long)]
    pub(crate) raw: bool,
    /// Fail at once if the topic's backlog is full, with BACKLOG_FULL [default: wait for room]
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// How long to retry an event while the engine refuses it temporarily (a full disk or backlog) or the connection is
    /// lost; then it fails. 1ms to 6d. The first connection is tried once, for up to 5s. Not with --prepare, which tries
    /// for 30s
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = parse_timeout)]
    pub(crate) timeout: DurationMs,
}

impl PublishArgs {
    /// How long after the prepare the transaction's group is asked about it; `None`: as the engine is configured.
    pub(crate) fn check_after(&self) -> Option<Duration> {
        self.check_after.map(Duration::from)
    }

    /// When the events are due, if not at once.
    pub(crate) fn due(&self) -> Option<Due> {
        let delay = self.delay.map(|DurationMs(delay)| Due::After(delay));
        delay.or_else(|| self.deliver_at.map(Due::At))
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct SubscribeArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    #[command(flatten)]
    pub(crate) subscription: SubscriptionPath,
    /// Where the subscription begins, if it is created now: earliest, latest, an offset, or a time:
    /// 2026-01-31T12:00:00Z, 2026-01-31 (without a zone it is UTC), now, -1h, '2h ago', but none that is to come [default: latest]
    #[arg(long, alias = "start", value_name = "START", value_parser = parse_start)]
    pub(crate) from: Option<Start>,
    #[command(flatten)]
    pub(crate) options: OptionsArgs,
    /// Stop after this many events [default: until interrupted]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max: Option<u64>,
    /// Stop with the event that brings the payloads to so many bytes, such as 1MiB [default: until interrupted]
    #[arg(long, value_name = "SIZE", value_parser = parse_bound)]
    pub(crate) max_bytes: Option<NonZeroU64>,
    /// Stop after this long, whatever has come; with --max or --max-bytes as soon as the first of them is reached: a pull [default: until
    /// interrupted]
    #[arg(long, value_name = "DURATION", value_parser = parse_length)]
    pub(crate) wait: Option<DurationMs>,
    #[command(flatten)]
    pub(crate) verb: VerbArgs,
    /// Publish each event to this topic, too, in the commit that acknowledges it: it is there once, whatever dies when. It
    /// keeps its key, headers, id, time and what is left of its time to live; headers lv-…, which only the engine gives, stay
    /// behind. While the topic is full the command waits for room
    #[arg(long, value_name = "TOPIC", value_parser = parse_free_topic, conflicts_with_all = ["no_ack", "nack", "reject"])]
    pub(crate) publish_to: Option<TopicName>,
    /// Print each event's payload alone, as it is, followed by a line end
    #[arg(long)]
    pub(crate) payload: bool,
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
    /// Where to begin: earliest, latest, an offset, -N for the last N events, or a time: 2026-01-31T12:00:00Z,
    /// 2026-01-31 (without a zone it is UTC), now, -1h, '2h ago', but none that is to come
    #[arg(long, alias = "start", value_name = "START", default_value = "earliest", value_parser = parse_beginning)]
    from: Beginning,
    /// Only the last N events, 1 to 10000, of all partitions together, in the order in which they were stored; the
    /// same as --from -N
    #[arg(long, value_name = "N", conflicts_with = "from", value_parser = clap::value_parser!(u64).range(1..=LAST_MAX))]
    last: Option<u64>,
    /// Only what was stored since then: a duration back from now, such as 1h, or a time, such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", conflicts_with_all = ["from", "last"], value_parser = parse_since)]
    since: Option<Start>,
    /// Stop after this many events [default: all that are stored]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max: Option<u64>,
    /// Continue with new events instead of stopping at the end
    #[arg(long)]
    pub(crate) follow: bool,
    /// Print each event's payload alone, as it is, followed by a line end
    #[arg(long)]
    pub(crate) payload: bool,
    #[command(flatten)]
    pub(crate) search: SearchArgs,
}

impl ReadArgs {
    /// Where to begin, in whichever way it was said.
    pub(crate) fn beginning(&self) -> Beginning {
        let since = self.since.map(Beginning::At);
        self.last.map(Beginning::Last).or(since).unwrap_or(self.from)
    }
}

#[cfg(test)]
mod tests;
