//! What can be typed after `levada transaction`, and which transaction is meant.

use std::{fmt, str::FromStr};

use clap::Subcommand;
use levada_protocol::{
    ids::{GroupName, TransactionId},
    limits::CHECK_AFTER_MS_MAX,
};
use levada_terminal::values::DurationMs;

use super::ClientArgs;

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

/// A transaction of a producer group: `GROUP/ID`. The id may hold a slash, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TransactionPath {
    pub(crate) group: GroupName,
    pub(crate) id: TransactionId,
}

impl FromStr for TransactionPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (group, id) = text
            .split_once('/')
            .ok_or_else(|| format!("expected GROUP/ID, such as shop/order-42, got {text:?}"))?;
        let group = group.parse().map_err(|error| format!("{error}"))?;
        Ok(Self { group, id: id.parse().map_err(|error| format!("{error}"))? })
    }
}

impl TransactionPath {
    /// As it is typed in a shell.
    pub(crate) fn typed(&self) -> String {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@+,=".contains(&byte);
        let text = self.to_string();
        if text.bytes().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
    }
}

impl fmt::Display for TransactionPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.group, self.id)
    }
}

/// After how long a group is asked about a transaction first: 1ms to a day.
pub(super) fn parse_check_after(text: &str) -> Result<DurationMs, String> {
    let after: DurationMs = text.parse()?;
    match after.0 {
        1..=CHECK_AFTER_MS_MAX => Ok(after),
        _ => Err(format!("expected a duration from 1ms to 1d, got {text:?}")),
    }
}
