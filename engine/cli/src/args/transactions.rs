//! What can be typed after `levada transaction`.

use clap::Subcommand;
use levada_protocol::ids::GroupName;

use super::{ClientArgs, path::TransactionPath};

#[derive(Debug, clap::Args)]
pub(crate) struct TransactionArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    #[command(subcommand)]
    pub(crate) action: TransactionAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TransactionAction {
    /// List the transactions that wait for a decision
    List {
        /// Of this producer group [default: all]
        #[arg(long, value_name = "GROUP")]
        group: Option<GroupName>,
        /// Also those that were decided: for 7 days, or 10 minutes if they were committed at once
        #[arg(long)]
        all: bool,
        /// At most this many
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        max: u32,
    },
    /// Show one transaction: its state, its batches, when its group is asked about it
    Describe {
        /// The transaction
        #[arg(value_name = "GROUP/ID")]
        transaction: TransactionPath,
    },
    /// Commit a prepared transaction: its events are appended
    Commit {
        /// The transaction
        #[arg(value_name = "GROUP/ID")]
        transaction: TransactionPath,
    },
    /// Roll a prepared transaction back: its events are dropped
    Rollback {
        /// The transaction
        #[arg(value_name = "GROUP/ID")]
        transaction: TransactionPath,
    },
}
