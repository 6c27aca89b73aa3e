//! Flags of an attachment: its chain of plugins, what happens to an event that one fails on, and how a subscription
//! delivers.

use levada_protocol::request::{OnError, StageSpec, SubscriptionOptions};
use levada_terminal::{choices::OrderArg, values::parse_size};

use super::values::{
    Waits, parse_duration_u32, parse_expire_after, parse_limit_of_rate, parse_stage, parse_waits,
};

/// The flags that make up a chain.
#[derive(Debug, clap::Args)]
pub(crate) struct ChainArgs {
    /// A plugin that events pass: NAME (the newest version, also later) or NAME@VERSION, then :{JSON} to configure it;
    /// repeat it for a chain, for example --plugin 'json-filter:{"where":"amount > 0"}' --plugin
    /// 'json-project:{"keep":["id"]}'
    #[arg(long = "plugin", value_name = "P[@V][:CONFIG]", value_parser = parse_stage, help_heading = PLUGINS)]
    plugins: Vec<StageSpec>,
    /// What happens to an event that a plugin refuses or fails on [default: dead-letter]
    #[arg(long, value_enum, requires = "plugins", help_heading = PLUGINS)]
    on_error: Option<OnErrorArg>,
    /// How often an event that a plugin fails on is tried again before that, 0 to 255 [default: 3]
    #[arg(long, value_name = "N", requires = "plugins", help_heading = PLUGINS)]
    retries: Option<u8>,
    /// Time for one call of a plugin, which gets up to 512 events; 1ms to 60s [default: 100ms]
    #[arg(long, value_name = "DURATION", requires = "plugins", value_parser = parse_duration_u32, help_heading = PLUGINS)]
    deadline: Option<u32>,
    /// Memory of one instance of a plugin at most, up to 1GiB [default: 32MiB]
    #[arg(long, value_name = "SIZE", requires = "plugins", value_parser = parse_size, help_heading = PLUGINS)]
    memory: Option<u64>,
}

const PLUGINS: &str = "Plugins (the flags other than --plugin hold for each of them)";

/// [`OnError`] as it is typed.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum OnErrorArg {
    /// It goes to the dead-letter topic, dlq.TOPIC.SUBSCRIPTION or dlq.TOPIC.route-ROUTE, with the reason
    #[value(alias = "dead_letter")]
    DeadLetter,
    /// It is dropped and counted
    Skip,
    /// The subscription or route stops until it is resumed
    Pause,
    /// It goes on unchanged
    Pass,
}

impl From<OnErrorArg> for OnError {
    fn from(on_error: OnErrorArg) -> Self {
        match on_error {
            OnErrorArg::DeadLetter => Self::DeadLetter,
            OnErrorArg::Skip => Self::Skip,
            OnErrorArg::Pause => Self::Pause,
            OnErrorArg::Pass => Self::Pass,
        }
    }
}

impl ChainArgs {
    /// The names of the plugins, without their versions.
    pub(crate) fn plugins(&self) -> Vec<String> {
        let name = |stage: &StageSpec| stage.plugin.split('@').next().unwrap_or_default().to_owned();
        self.plugins.iter().map(name).collect()
    }

    /// The stages in order, each with the policy and the limits.
    pub(crate) fn stages(&self) -> Vec<StageSpec> {
        let stage = |stage: &StageSpec| StageSpec {
            on_error: self.on_error.map(Into::into),
            retries: self.retries,
            deadline_ms: self.deadline,
            memory_bytes_max: self.memory,
            ..stage.clone()
        };
        self.plugins.iter().map(stage).collect()
    }
}

/// The flags that say how a subscription delivers.
#[derive(Debug, clap::Args)]
pub(crate) struct OptionsArgs {
    /// How several consumers share the subscription [default: key]
    #[arg(long, value_enum)]
    order: Option<OrderArg>,
    /// Time in which a delivered event must be acknowledged, or it is delivered again; 10ms to 1d [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_u32)]
    ack_timeout: Option<u32>,
    /// Deliveries after which an event becomes a dead letter, 1 to 10000 [default: 16]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    max_attempts: Option<u16>,
    /// Events that one consumer may hold unacknowledged, 1 to 1048576 [default: 1000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    max_in_flight: Option<u32>,
    /// How long an event that was given back waits before its next delivery, after the first time, the second, and so on, such
    /// as 1s,5s,1m; the last one repeats, and none means no wait. One that timed out has waited [default: 1s,5s,10s,30s,1m,2m,5m,10m,30m,1h,2h]
    #[arg(long, value_name = "DURATION,..", value_parser = parse_waits)]
    backoff: Option<Waits>,
    /// Most events delivered in a second, over all consumers: 1 to 10000000, or none [default: none]
    #[arg(long, value_name = "N", value_parser = parse_limit_of_rate)]
    rate: Option<u32>,
    /// Whether an event becomes a dead letter if its time to live (--ttl of publish) is over before it is delivered; else it
    /// is passed over [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    dead_letter_expired: Option<bool>,
    /// Have the engine delete the subscription once it has had no consumer for so long, with all that it has yet to deliver;
    /// its dead-letter topic stays. 1m to 365d, or none [default: none]
    #[arg(long, value_name = "DURATION", value_parser = parse_expire_after)]
    expire_after: Option<u64>,
    #[command(flatten)]
    chain: ChainArgs,
}

impl OptionsArgs {
    /// The names of the plugins, without their versions.
    pub(crate) fn plugins(&self) -> Vec<String> {
        self.chain.plugins()
    }

    /// What was said; the rest is left to the engine.
    pub(crate) fn options(&self) -> SubscriptionOptions {
        let chain = self.chain.stages();
        SubscriptionOptions {
            order: self.order.map(Into::into),
            chain: (!chain.is_empty()).then_some(chain),
            ack_timeout_ms: self.ack_timeout,
            max_attempts: self.max_attempts,
            max_in_flight: self.max_in_flight,
            backoff_ms: self.backoff.clone().map(|Waits(waits)| waits),
            rate: self.rate,
            dead_letter_expired: self.dead_letter_expired,
            expire_after_ms: self.expire_after,
        }
    }
}
