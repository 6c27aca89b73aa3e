//! What can be typed after `levada topic`, `subscription`, `plugin` and `route`. Knows the flags' form alone.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use levada_protocol::{
    ids::{PluginName, RouteName, TopicName},
    request::{Retain, Start},
};

use super::{
    ClientArgs,
    chain::ChainArgs,
    values::{
        DurationMs, SubscriptionPath, parse_any_topic, parse_json, parse_plugin, parse_size, parse_start,
    },
};

#[derive(Debug, clap::Args)]
pub(crate) struct TopicArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    #[command(subcommand)]
    pub(crate) action: TopicAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TopicAction {
    /// Make a topic
    Create {
        /// Its name: letters a-z, digits, and . _ - after the first
        topic: TopicName,
        /// How many partitions; fixed for ever [default: 1]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
        partitions: Option<u16>,
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// All topics
    List,
    /// One topic with its partitions
    Describe {
        /// Its name
        #[arg(value_parser = parse_any_topic)]
        topic: TopicName,
    },
    /// Change a topic's settings; what is not named stays
    Set {
        /// Its name
        topic: TopicName,
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// Delete a topic with its events, its subscriptions and the routes from it
    Delete {
        /// Its name
        topic: TopicName,
        /// Also if a route leads to it
        #[arg(long)]
        force: bool,
    },
}

/// Settings of a topic that can be changed.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct SettingsArgs {
    /// What an acknowledgement means: synced to disk (the default), or written to the operating system
    #[arg(long, value_enum)]
    pub(crate) durability: Option<DurabilityArg>,
    /// What retention may drop [default: time-and-acked]
    #[arg(long, value_enum)]
    pub(crate) retain: Option<RetainArg>,
    /// How long events are kept at least, as 72h or 7d [default: 72h]
    #[arg(long, value_name = "DURATION")]
    pub(crate) retain_for: Option<DurationMs>,
    /// Stored bytes over which time-and-size drops the oldest, as 10GiB; 0 for no bound [default: 0]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) max_bytes: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DurabilityArg {
    /// The write-ahead log was synced: survives a power cut
    Sync,
    /// Written to the operating system: survives a crash of the engine
    Os,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RetainArg {
    /// Older than --retain-for and acknowledged by every subscription and route
    TimeAndAcked,
    /// Older than --retain-for or over --max-bytes, acknowledged or not
    TimeAndSize,
    /// Acknowledged by every subscription and route
    UntilAcked,
}

impl From<RetainArg> for Retain {
    fn from(retain: RetainArg) -> Self {
        match retain {
            RetainArg::TimeAndAcked => Self::TimeAndAcked,
            RetainArg::TimeAndSize => Self::TimeAndSize,
            RetainArg::UntilAcked => Self::UntilAcked,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct SubscriptionArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    #[command(subcommand)]
    pub(crate) action: SubscriptionAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SubscriptionAction {
    /// The subscriptions of one topic or of all
    List {
        /// The topic
        #[arg(value_parser = parse_any_topic)]
        topic: Option<TopicName>,
    },
    /// One subscription
    Describe {
        /// TOPIC/SUBSCRIPTION
        subscription: SubscriptionPath,
    },
    /// Delete a subscription with its progress
    Delete {
        /// TOPIC/SUBSCRIPTION
        subscription: SubscriptionPath,
    },
    /// Let a paused subscription go on
    Resume {
        /// TOPIC/SUBSCRIPTION
        subscription: SubscriptionPath,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct PluginArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    #[command(subcommand)]
    pub(crate) action: PluginAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PluginAction {
    /// Store a plugin's next version
    Deploy {
        /// Its name
        #[arg(required_unless_present = "bundled", requires = "file")]
        name: Option<PluginName>,
        /// The WebAssembly component
        file: Option<PathBuf>,
        /// A configuration that the plugin must accept before it is stored
        #[arg(long, value_name = "JSON", requires = "file", value_parser = parse_json)]
        config: Option<String>,
        /// The plugins that this binary carries: json-filter, json-project, content-router, sample
        #[arg(long, conflicts_with_all = ["name", "file"])]
        bundled: bool,
    },
    /// All plugin versions
    List,
    /// Remove a plugin, or one version of it
    Remove {
        /// NAME for all versions, NAME@VERSION for one
        #[arg(value_name = "NAME[@VERSION]", value_parser = parse_plugin)]
        plugin: (PluginName, Option<u32>),
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct RouteArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    #[command(subcommand)]
    pub(crate) action: RouteAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RouteAction {
    /// Make a route
    Create {
        /// Its name
        route: RouteName,
        /// The source topic
        #[arg(long, value_name = "T", value_parser = parse_any_topic)]
        from: TopicName,
        /// A target topic; repeatable, the first takes what names no target
        #[arg(long, value_name = "T", required = true)]
        to: Vec<TopicName>,
        #[command(flatten)]
        chain: ChainArgs,
        /// Where in the source it begins: earliest, latest, an offset, or a time as 2026-01-31T12:00:00Z
        #[arg(long, value_name = "START", default_value = "latest", value_parser = parse_start)]
        start: Start,
    },
    /// All routes
    List,
    /// Delete a route
    Delete {
        /// Its name
        route: RouteName,
    },
    /// Let a paused route go on
    Resume {
        /// Its name
        route: RouteName,
    },
}
