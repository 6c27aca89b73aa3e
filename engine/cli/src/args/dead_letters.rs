//! What can be typed after `levada dlq`. Knows the flags' form alone.

use std::{num::NonZeroU64, str::FromStr};

use clap::Subcommand;
use levada_client::DeadLettersOf;
use levada_protocol::{ids::TopicName, request::Start};

use super::{ClientArgs, search::parse_bound, start::parse_since, values::parse_any_topic};

#[derive(Debug, clap::Args)]
pub(crate) struct DlqArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    #[command(subcommand)]
    pub(crate) action: DlqAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DlqAction {
    /// List whose dead letters there are; of one subscription or route, count them by reason and plugin version
    List {
        /// Of this topic's subscriptions and routes, or of one of them: TOPIC, TOPIC/SUBSCRIPTION or TOPIC/route-ROUTE
        /// [default: all]
        #[arg(value_name = "TOPIC[/SUBSCRIPTION]")]
        of: Option<Whose>,
        #[command(flatten)]
        count: CountArgs,
    },
    /// Show dead letters: why, from where, whether they were redriven, and the event itself
    Show {
        #[command(flatten)]
        of: OfArgs,
        /// Only dead letters for which this holds, such as 'header.lv-dlq-reason = "rejected" and amount > 100'
        #[arg(long = "where", value_name = "CONDITION", allow_hyphen_values = true)]
        condition: Option<String>,
        /// Only the one at this offset
        #[arg(long, value_name = "N", conflicts_with_all = ["condition", "max", "from"])]
        offset: Option<u64>,
        /// Begin at this offset [default: with the oldest]
        #[arg(long, value_name = "N")]
        from: Option<u64>,
        /// Stop after this many
        #[arg(long, value_name = "N", default_value = "20")]
        max: NonZeroU64,
    },
    /// Give the events of dead letters back to their subscription alone, or append them to a topic, each once
    ///
    /// Without --to nobody but the subscription gets them: each is delivered again at its place in the topic, with as many
    /// attempts as at first, and newer events of its key may have come before it. With --to every subscription of that topic
    /// gets them. A dead letter knows that it was redriven and is left alone by the next redrive, wherever that goes, so that
    /// a command that was interrupted can be repeated. An event that was redriven 8 times and failed again is left alone, too.
    Redrive {
        #[command(flatten)]
        of: OfArgs,
        #[command(flatten)]
        which: WhichArgs,
        /// To this topic, none of the engine's own; dead letters of a route need one [default: back to the subscription alone]
        #[arg(long, value_name = "TOPIC", value_parser = parse_any_topic)]
        to: Option<TopicName>,
        /// Also dead letters that were redriven before, and events that were redriven 8 times
        #[arg(long)]
        force: bool,
        /// Begin at this offset, to go on with a forced redrive [default: with the oldest]
        #[arg(long, value_name = "N", conflicts_with = "offsets")]
        from: Option<u64>,
        /// End before this offset, to go on with a forced redrive [default: behind the newest]
        #[arg(long, value_name = "OFFSET", conflicts_with = "offsets")]
        until: Option<u64>,
    },
    /// Drop dead letters, the oldest first; asks first, or needs --force, if some were never redriven or not yet read
    ///
    /// Not yet read are those that a subscription to the dead-letter topic, or a route from it, has not come to. What becomes
    /// a dead letter while the question is asked stays.
    Purge {
        #[command(flatten)]
        of: OfArgs,
        #[command(flatten)]
        until: UntilArgs,
        /// Purge without asking, also what was never redriven, or not yet read
        #[arg(long)]
        force: bool,
    },
}

/// Whose dead letters.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct OfArgs {
    /// Whose dead letters: TOPIC/SUBSCRIPTION, of a route TOPIC/route-ROUTE
    #[arg(value_name = "TOPIC/SUBSCRIPTION", value_parser = parse_of)]
    pub(crate) of: DeadLettersOf,
}

/// Which dead letters are counted, and how far.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct CountArgs {
    /// Count only dead letters for which this holds, such as 'header.lv-dlq-plugin = "filter@2"'
    #[arg(long = "where", value_name = "CONDITION", allow_hyphen_values = true)]
    pub(crate) condition: Option<String>,
    /// Begin at this offset [default: with the oldest]
    #[arg(long, value_name = "N")]
    pub(crate) from: Option<u64>,
    /// Stop after scanning so much, give or take 8 MiB; the command to go on is printed
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = parse_bound)]
    pub(crate) scan_max: NonZeroU64,
}

impl CountArgs {
    /// True if something is given that only counting takes.
    pub(crate) fn is_given(&self) -> bool {
        self.condition.is_some() || self.from.is_some()
    }
}

/// Which dead letters are redriven.
#[derive(Debug, Clone, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct WhichArgs {
    /// The one at this offset; repeatable
    #[arg(long = "offset", value_name = "N")]
    pub(crate) offsets: Vec<u64>,
    /// Those for which this holds, such as 'header.lv-dlq-plugin = "filter@2"': fields of JSON payloads, headers and key
    #[arg(long = "where", value_name = "CONDITION", allow_hyphen_values = true)]
    pub(crate) condition: Option<String>,
    /// All
    #[arg(long)]
    pub(crate) all: bool,
}

/// How far a purge goes.
#[derive(Debug, Clone, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct UntilArgs {
    /// Those that became dead letters before: so long ago, such as 7d, or a time, such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    pub(crate) before: Option<Start>,
    /// All that are stored
    #[arg(long)]
    pub(crate) all: bool,
}

/// Whose dead letters are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Whose {
    Topic(TopicName),
    One(DeadLettersOf),
}

impl FromStr for Whose {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('/') || text.starts_with("dlq.") {
            return parse_of(text).map(Self::One);
        }
        parse_any_topic(text).map(Self::Topic)
    }
}

fn parse_of(text: &str) -> Result<DeadLettersOf, String> {
    text.parse().map_err(|error: levada_client::InvalidName| error.to_string())
}
