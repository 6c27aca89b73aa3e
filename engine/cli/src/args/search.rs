//! What `levada read` looks for, as it is typed. Knows the flags, not what they do.

use std::num::NonZeroU64;

use levada_client::Cursor;
use levada_terminal::values::parse_size;

/// Where the help shows these flags.
const SEARCH: &str = "Search";

/// Which events, and how far to look for them.
#[derive(Debug, clap::Args)]
pub(crate) struct SearchArgs {
    /// Only events for which this holds, such as 'amount > 100 and header.region = "eu"': fields of JSON payloads,
    /// headers and key, in the language of the plugin json-filter, tested in the engine
    #[arg(long = "where", value_name = "CONDITION", conflicts_with = "last", allow_hyphen_values = true, help_heading = SEARCH)]
    pub(crate) condition: Option<String>,
    /// Only events of exactly this key
    #[arg(long, value_name = "K", conflicts_with = "last", allow_hyphen_values = true, help_heading = SEARCH)]
    pub(crate) key: Option<String>,
    /// Stop after scanning so much, such as 100MiB, give or take one read; the command to go on is printed [default:
    /// the engine's limit, 1 GiB unless configured]
    #[arg(long, value_name = "SIZE", conflicts_with_all = ["last", "follow"], value_parser = parse_bound, help_heading = SEARCH)]
    pub(crate) scan_max: Option<NonZeroU64>,
    /// Go on where a search has stopped: PARTITION:OFFSET,…, as it was printed
    #[arg(long, value_name = "CURSOR", conflicts_with_all = ["from", "last", "since", "partitions"], help_heading = SEARCH)]
    pub(crate) cursor: Option<Cursor>,
}

impl SearchArgs {
    /// True if any of them is given.
    pub(crate) fn is_given(&self) -> bool {
        self.condition.is_some() || self.key.is_some() || self.scan_max.is_some() || self.cursor.is_some()
    }
}

pub(super) fn parse_bound(text: &str) -> Result<NonZeroU64, String> {
    NonZeroU64::new(parse_size(text)?).ok_or_else(|| "expected a size of 1 byte or more".to_owned())
}
