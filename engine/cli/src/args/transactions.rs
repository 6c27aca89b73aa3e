//! What can be typed after `levada transaction`.

use std::time::Duration;

use clap::Subcommand;
use levada_protocol::ids::GroupName;
use levada_terminal::values::DurationMs;

use super::{
    ClientArgs, InputArgs,
    path::TransactionPath,
    values::{parse_check_after, parse_transaction_timeout},
};

// Paragraphs are one line each: clap breaks them where the terminal ends.
const PUBLISH_HELP: &str = concat!(
    "A line is one event, as `levada publish` takes it, with the topic that it is for:\n",
    r#"  {"topic": "..", "key": "..", "headers": {"name": ".."}, "payload": ..}"#,
    "\n\n",
    "A field partition says which partition it is for, instead of its key or its id: what `levada read` prints goes to the \
     topic and the partition that it was in. ",
    "A transaction has at most 10,000 events, 4 MiB, and 1,000 batches: one at least for each partition that it has events \
     for. It is stored when the command ends, or nothing of it is.\n\n",
    "With GROUP/ID the same command again, with the same lines, stores nothing twice and says so: for 10 minutes, or with \
     --prepare until the transaction is decided; for 7 days after that it is refused as decided. The same GROUP/ID with other \
     lines is refused.\n\n",
    "  echo '{\"topic\": \"orders\", \"payload\": 1}' | levada transaction publish\n",
    "  levada transaction publish shop/order-42 --file events.ndjson\n",
    "  levada transaction publish shop/order-42 --file events.ndjson --prepare"
);

#[derive(Debug, clap::Args)]
pub(crate) struct TransactionArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    #[command(subcommand)]
    pub(crate) action: TransactionAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TransactionAction {
    /// Publish events to any topics, all of them or none: lines of JSON from stdin or a file
    #[command(after_help = PUBLISH_HELP)]
    Publish(TransactionPublishArgs),
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

#[derive(Debug, clap::Args)]
pub(crate) struct TransactionPublishArgs {
    /// The transaction's name: a producer group, and an id from which a repeat is known [default: one that nobody repeats]
    #[arg(value_name = "GROUP/ID")]
    pub(crate) transaction: Option<TransactionPath>,
    #[command(flatten)]
    pub(crate) input: InputArgs,
    /// Store the events invisibly, until `levada transaction commit`, or a program of the group, commits them
    #[arg(long, requires = "transaction")]
    pub(crate) prepare: bool,
    /// How long after the prepare the group is first asked about the transaction, 1ms to 1d [default: as the engine is
    /// configured, 6s]
    #[arg(long, value_name = "DURATION", value_parser = parse_check_after, requires = "prepare")]
    check_after: Option<DurationMs>,
    /// How long to try again while the engine refuses the transaction temporarily (a full disk or backlog) or the connection
    /// is lost; then it fails. 1ms to 5m. The first connection is tried once, for up to 5s
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_transaction_timeout)]
    pub(crate) timeout: DurationMs,
}

impl TransactionPublishArgs {
    /// How long after the prepare the transaction's group is asked about it; `None`: as the engine is configured.
    pub(crate) fn check_after(&self) -> Option<Duration> {
        self.check_after.map(Duration::from)
    }
}
