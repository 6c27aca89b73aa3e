//! Where published events come from, and what those get that say nothing of it themselves.

use std::path::PathBuf;

use super::values::{parse_duration_u32, parse_header};

/// The flags of every command that publishes lines.
#[derive(Debug, clap::Args)]
pub(crate) struct InputArgs {
    /// Key of every event without a key of its own
    #[arg(long, value_name = "K")]
    pub(crate) key: Option<String>,
    /// A header of every event, before the event's own; repeatable
    #[arg(long = "header", value_name = "N=V", value_parser = parse_header)]
    pub(crate) headers: Vec<(String, String)>,
    /// How long after its append an event without a `ttl_ms` of its own is delivered, 1ms to 49d; then it is passed over, or
    /// becomes a dead letter if the subscription says so [default: for ever]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_u32)]
    pub(crate) ttl: Option<u32>,
    /// File to read the lines from; - for stdin
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub(crate) file: PathBuf,
}
