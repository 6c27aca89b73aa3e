//! What can be typed after `levada demo`.

use std::path::PathBuf;

/// Flags of the demo.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Orders, 10 to 1000000; each is created, paid, shipped, received and completed: five events
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    pub(crate) events: u32,
    /// Events that the order service publishes a second; 0 means as fast as it goes
    #[arg(long, value_name = "R", default_value_t = 5_000)]
    pub(crate) rate: u32,
    /// Keep the data in this directory, which must be empty or absent; `levada serve --data-dir DIR` opens it. Without,
    /// a temporary directory is used and removed
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
}
