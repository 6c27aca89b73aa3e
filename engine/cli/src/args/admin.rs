//! What can be typed after `levada topic`, `subscription`, `plugin` and `route`. Knows the flags' form alone.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use levada_protocol::{
    ids::{PluginName, RouteName, TopicName},
    request::{OnFull, Retain, Start},
};
use levada_terminal::{
    choices::DurabilityArg,
    values::{DurationMs, parse_size},
};

use super::{
    ClientArgs,
    chain::{ChainArgs, OptionsArgs},
    path::SubscriptionPath,
    push::PushAction,
    start::{parse_since, parse_start},
    values::{
        parse_any_topic, parse_backlog_age, parse_dedup_header, parse_dedup_window, parse_free_topic,
        parse_json, parse_plugin,
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
    /// Create a topic; an existing one with the same settings is left as it is
    Create {
        /// Its name: up to 128 of a-z 0-9 . _ - beginning with a letter or digit; dlq.… is the engine's own
        #[arg(value_parser = parse_free_topic)]
        topic: TopicName,
        /// Number of partitions, 1 to 1024; cannot be changed later
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
        partitions: u16,
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// List all topics
    List,
    /// Describe one topic with its partitions
    Describe {
        /// Its name
        #[arg(value_parser = parse_any_topic)]
        topic: TopicName,
    },
    /// Change a topic's settings; those that are not given stay as they are
    #[command(
        override_usage = "levada topic set <TOPIC> [--durability ..] [--retain ..] [--retain-for ..] [--max-bytes ..] \
                          [--dedup-window [..]] [--dedup-header ..] [--backlog-max-events ..] [--backlog-max-bytes ..] \
                          [--backlog-max-age ..] [--on-full ..]"
    )]
    Set {
        /// Its name
        #[arg(value_parser = parse_any_topic)]
        topic: TopicName,
        #[command(flatten)]
        changes: Changes,
    },
    /// Drop events of a topic, the oldest first; asks first, or needs --force, if a subscription or route has yet to
    /// acknowledge them
    ///
    /// Delayed and prepared events stay. Events that were stored together go together, so a few before the bound may be left.
    /// Subscriptions are told what they lost. What is published while the question is asked stays.
    Purge {
        /// Its name; `levada dlq purge` is for dead letters
        #[arg(value_parser = parse_any_topic)]
        topic: TopicName,
        #[command(flatten)]
        purge: PurgeArgs,
    },
    /// Delete a topic with its events; asks first, or needs --force, if subscriptions or routes would be deleted with
    /// it or need it
    Delete {
        /// Its name, also of a dead-letter topic
        #[arg(value_parser = parse_any_topic)]
        topic: TopicName,
        #[command(flatten)]
        how: DeleteArgs,
    },
}

/// What a purge drops, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct PurgeArgs {
    #[command(flatten)]
    pub(crate) what: PurgeBound,
    /// Only this partition [default: all]
    #[arg(long, value_name = "P")]
    pub(crate) partition: Option<u16>,
    /// Purge without asking, also what has yet to be acknowledged
    #[arg(long)]
    pub(crate) force: bool,
}

/// How far a purge goes.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct PurgeBound {
    /// Those that were appended before: so long ago, such as 7d, or a time, such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    pub(crate) before: Option<Start>,
    /// Those before this offset; of a topic with several partitions --partition says of which
    #[arg(long, value_name = "OFFSET")]
    pub(crate) until: Option<u64>,
    /// All that are stored
    #[arg(long)]
    pub(crate) all: bool,
}

/// How something is deleted that others may depend on.
#[derive(Debug, clap::Args)]
pub(crate) struct DeleteArgs {
    /// Delete without asking, with everything that depends on it
    #[arg(long)]
    pub(crate) force: bool,
    /// Also delete the dead-letter topics of the deleted subscriptions and routes
    #[arg(long)]
    pub(crate) with_dead_letters: bool,
}

/// Settings of a topic that is created.
#[derive(Debug, clap::Args)]
pub(crate) struct SettingsArgs {
    /// What an acknowledgement means
    #[arg(long, value_enum, default_value_t = DurabilityArg::Sync)]
    pub(crate) durability: DurabilityArg,
    /// Which events retention may drop
    #[arg(long, value_enum, default_value_t = RetainArg::TimeAndAcked)]
    pub(crate) retain: RetainArg,
    /// How long events are kept at least, such as 90m, 72h or 7d [default: 3d]
    #[arg(long, value_name = "DURATION")]
    pub(crate) retain_for: Option<DurationMs>,
    /// Stored bytes over which --retain time-and-size drops the oldest events, such as 10GiB; 0 for no bound
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = parse_size)]
    pub(crate) max_bytes: u64,
    /// For how long after an event another one of the same id in its partition is a duplicate, which is not stored: off,
    /// or up to 7d; 2m if no duration is given
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_value = "off", default_missing_value = "2m", value_parser = parse_dedup_window)]
    pub(crate) dedup_window: u64,
    /// A header whose value belongs to the id, such as the source of CloudEvents: events are duplicates if both are equal
    /// [default: the id alone]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true, value_parser = parse_dedup_header)]
    pub(crate) dedup_header: String,
    /// Events that the slowest subscription or route may have yet to acknowledge, delayed and prepared ones included; 0 for no bound. Publishers that are connected learn of a change when they connect again
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) backlog_max_events: u64,
    /// Stored bytes of the same, such as 1GiB; 0 for no bound
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = parse_size)]
    pub(crate) backlog_max_bytes: u64,
    /// How old the oldest of them may be, such as 1h: off, or a duration
    #[arg(long, value_name = "DURATION", default_value = "off", value_parser = parse_backlog_age)]
    pub(crate) backlog_max_age: DurationMs,
    /// What becomes of a publish when one of these is reached
    #[arg(long, value_enum, default_value_t = OnFullArg::Reject)]
    pub(crate) on_full: OnFullArg,
}

/// Settings of a topic that are to change.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Changes {
    /// What an acknowledgement means from now on
    #[arg(long, value_enum)]
    pub(crate) durability: Option<DurabilityArg>,
    /// Which events retention may drop
    #[arg(long, value_enum)]
    pub(crate) retain: Option<RetainArg>,
    /// How long events are kept at least, such as 90m, 72h or 7d
    #[arg(long, value_name = "DURATION")]
    pub(crate) retain_for: Option<DurationMs>,
    /// Stored bytes over which --retain time-and-size drops the oldest events, such as 10GiB; 0 for no bound
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) max_bytes: Option<u64>,
    /// For how long after an event another one of the same id in its partition is a duplicate, which is not stored: up
    /// to 7d, 2m if no duration is given; off forgets all ids
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "2m", value_parser = parse_dedup_window)]
    pub(crate) dedup_window: Option<u64>,
    /// A header whose value belongs to the id, such as the source of CloudEvents; '' for none. Another one than before
    /// forgets all ids
    #[arg(long, value_name = "NAME", value_parser = parse_dedup_header)]
    pub(crate) dedup_header: Option<String>,
    /// Events that the slowest subscription or route may have yet to acknowledge, delayed and prepared ones included; 0 for no bound
    #[arg(long, value_name = "N")]
    pub(crate) backlog_max_events: Option<u64>,
    /// Stored bytes of the same, such as 1GiB; 0 for no bound
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) backlog_max_bytes: Option<u64>,
    /// How old the oldest of them may be, such as 1h: off, or a duration
    #[arg(long, value_name = "DURATION", value_parser = parse_backlog_age)]
    pub(crate) backlog_max_age: Option<DurationMs>,
    /// What becomes of a publish when one of these is reached
    #[arg(long, value_enum)]
    pub(crate) on_full: Option<OnFullArg>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnFullArg {
    /// It is refused with BACKLOG_FULL, and may be tried again
    Reject,
    /// It is taken, and the oldest events are dropped; subscriptions are told what they lost
    #[value(alias = "drop_oldest")]
    DropOldest,
}

impl From<OnFullArg> for OnFull {
    fn from(on_full: OnFullArg) -> Self {
        match on_full {
            OnFullArg::Reject => Self::Reject,
            OnFullArg::DropOldest => Self::DropOldest,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RetainArg {
    /// Older than --retain-for and acknowledged by every subscription and route
    #[value(alias = "time_and_acked")]
    TimeAndAcked,
    /// Older than --retain-for or over --max-bytes, acknowledged or not
    #[value(alias = "time_and_size")]
    TimeAndSize,
    /// Acknowledged by every subscription and route, however old; without any, older than --retain-for
    #[value(alias = "until_acked")]
    UntilAcked,
    /// Superseded by a later event of its key and acknowledged by every subscription and route; every event needs a key
    Compact,
}

impl From<RetainArg> for Retain {
    fn from(retain: RetainArg) -> Self {
        match retain {
            RetainArg::TimeAndAcked => Self::TimeAndAcked,
            RetainArg::TimeAndSize => Self::TimeAndSize,
            RetainArg::UntilAcked => Self::UntilAcked,
            RetainArg::Compact => Self::Compact,
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
    /// Create a subscription; `levada subscribe` creates one too, and consumes it
    Create {
        #[command(flatten)]
        subscription: SubscriptionPath,
        /// Where it begins: earliest, latest, an offset, or a time: 2026-01-31T12:00:00Z, 2026-01-31 (without a zone it
        /// is UTC), now, -1h, '2h ago', but none that is to come
        #[arg(long, alias = "start", value_name = "START", default_value = "latest", value_parser = parse_start)]
        from: Start,
        #[command(flatten)]
        options: OptionsArgs,
    },
    /// List the subscriptions of one topic or of all
    List {
        /// The topic [default: all]
        #[arg(value_parser = parse_any_topic)]
        topic: Option<TopicName>,
    },
    /// Describe one subscription: its options, its progress, what it waits for
    Describe {
        #[command(flatten)]
        subscription: SubscriptionPath,
    },
    /// Delete a subscription with its progress; asks first, or needs --force, while consumers are attached
    Delete {
        #[command(flatten)]
        subscription: SubscriptionPath,
        #[command(flatten)]
        how: DeleteArgs,
    },
    /// Change a subscription's options; those that are not given stay as they are
    ///
    /// What is in flight keeps its deadline. Another order, a shorter ack timeout and more in flight take every delivery back:
    /// consumers go on by themselves, and may get events again.
    Set {
        #[command(flatten)]
        subscription: SubscriptionPath,
        #[command(flatten)]
        options: OptionsArgs,
        /// Let events pass no plugin any more
        #[arg(long, conflicts_with = "plugins")]
        no_plugins: bool,
    },
    /// Move a subscription back or forward, while its consumers are attached
    ///
    /// What lies before its new position counts as acknowledged, what lies behind it is delivered, also if it was before.
    /// Deliveries are taken back and failed attempts are forgotten. Consumers go on by themselves.
    Seek {
        #[command(flatten)]
        subscription: SubscriptionPath,
        /// Where to: earliest, latest, an offset, or a time: 2026-01-31T12:00:00Z, 2026-01-31 (without a zone it is UTC), now,
        /// -1h, '2h ago', but none that is to come
        #[arg(long, value_name = "START", value_parser = parse_start)]
        to: Start,
        /// In this partition alone; repeatable [default: in all]
        #[arg(long = "partition", value_name = "N")]
        partitions: Vec<u16>,
    },
    /// Pause a subscription: nothing more is delivered until it is resumed, also after a restart of the engine
    Pause {
        #[command(flatten)]
        subscription: SubscriptionPath,
    },
    /// Resume a paused subscription, and check that it runs: it pauses again if the cause is still there
    Resume {
        #[command(flatten)]
        subscription: SubscriptionPath,
    },
    /// Have the engine push a subscription's events to a URL, as webhooks
    #[command(subcommand)]
    Push(PushAction),
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
    /// Store a plugin's next version; attachments that name the plugin without a version follow it
    ///
    /// The engine compiles the component, which may take a minute for one with a language runtime; the command waits up
    /// to 10 minutes and says so every 5 s.
    Deploy {
        /// Its name: up to 63 of a-z 0-9 _ - beginning with a letter or digit
        #[arg(required_unless_present = "bundled", requires = "file")]
        name: Option<PluginName>,
        /// The WebAssembly component, 64 MiB at most
        file: Option<PathBuf>,
        /// A configuration, as JSON text, that the plugin must accept before it is stored
        #[arg(long, value_name = "JSON", requires = "file", value_parser = parse_json)]
        config: Option<String>,
        /// Deploy the plugins that this binary carries, unless they are deployed already: json-filter, json-project,
        /// content-router, sample
        #[arg(long, conflicts_with_all = ["name", "file"])]
        bundled: bool,
    },
    /// List all versions of all plugins, with their attachments and cost
    ///
    /// NS/EVENT is processor time; where EVENTS/CALL is near 1 it is mostly the cost of a call.
    List,
    /// Remove a plugin, or one version of it; refused while it is attached
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
    /// Create a route; an existing one with the same chain is left as it is
    Create {
        /// Its name: up to 63 of a-z 0-9 _ - beginning with a letter or digit
        route: RouteName,
        /// The source topic
        #[arg(long, value_name = "T", value_parser = parse_any_topic)]
        from: TopicName,
        /// A target topic; repeatable: the last plugin may choose among them, else events go to the first
        #[arg(long, value_name = "T", required = true, value_parser = parse_free_topic)]
        to: Vec<TopicName>,
        #[command(flatten)]
        chain: ChainArgs,
        /// Where in the source it begins: earliest, latest, an offset, or a time: 2026-01-31T12:00:00Z, 2026-01-31
        /// (without a zone it is UTC), now, -1h, '2h ago', but none that is to come
        #[arg(long, value_name = "START", default_value = "latest", value_parser = parse_start)]
        start: Start,
    },
    /// List all routes
    List,
    /// Describe one route: its chain, its progress, why it is paused or blocked
    Describe {
        /// Its name
        route: RouteName,
    },
    /// Delete a route; the events that it has written stay
    Delete {
        /// Its name
        route: RouteName,
        #[command(flatten)]
        how: DeleteArgs,
    },
    /// Resume a paused route, and check that it runs: it pauses again if the cause is still there
    Resume {
        /// Its name
        route: RouteName,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct ScheduleArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    #[command(subcommand)]
    pub(crate) action: ScheduleAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ScheduleAction {
    /// List the delayed events of a topic in the order in which they are due
    List {
        /// The topic
        #[arg(value_parser = parse_any_topic)]
        topic: TopicName,
        /// At most this many
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        max: u32,
    },
    /// Show one delayed event: when it is due, its partition, key, id and size
    Show {
        /// The topic
        #[arg(value_parser = parse_any_topic)]
        topic: TopicName,
        /// Its schedule id, as `levada publish` and `levada schedule list` print it
        id: u64,
    },
    /// Cancel a delayed event; refused with ALREADY_DUE once its time has come and it was moved to the log
    Cancel {
        /// The topic
        #[arg(value_parser = parse_any_topic)]
        topic: TopicName,
        /// Its schedule id, as `levada publish` and `levada schedule list` print it
        id: u64,
    },
}

impl ScheduleAction {
    /// Whose schedule it is about.
    pub(crate) fn topic(&self) -> &TopicName {
        match self {
            Self::List { topic, .. } | Self::Show { topic, .. } | Self::Cancel { topic, .. } => topic,
        }
    }
}
