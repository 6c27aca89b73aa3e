//! Transactions: events of any topics that are stored all or none, at once or when somebody decides.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{GroupName, SubscriptionName, TopicName, TransactionId};

/// Stores events of any topics in one commit.
///
/// Its batches follow on the stream, each in a `Publish` frame whose `correlation` is the index of its topic in `topics`.
/// A batch with `deliver_at`, and one with `expect_offset` behind another of its partition, are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transact {
    /// The producer group.
    pub group: GroupName,
    /// The transaction, unique in its group.
    pub id: TransactionId,
    /// The topics that its batches are for.
    pub topics: Vec<TopicName>,
    /// How many partitions the client takes each of these topics to have, as it chose by them; empty: it does not say.
    #[serde(default)]
    pub partitions: Vec<u16>,
    /// How many batches follow, from 1 on.
    pub batches: u32,
    /// How many bytes they have together.
    pub bytes: u64,
    /// Store the events invisible until it is decided; `None` means commit them at once.
    #[serde(default)]
    pub prepare: Option<Prepare>,
    /// Events that are acknowledged in the same commit; not with `prepare`.
    #[serde(default)]
    pub acks: Option<TransactionAcks>,
}

/// What a transaction acknowledges: events that a consumer of one subscription was delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionAcks {
    /// The subscription's topic.
    pub topic: TopicName,
    /// The subscription.
    pub subscription: SubscriptionName,
    /// The events, at most [`TRANSACTION_ACKS_MAX`](crate::limits::TRANSACTION_ACKS_MAX) entries.
    pub deliveries: Vec<AckedDelivery>,
}

/// Events of one delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AckedDelivery {
    /// The delivery's token.
    pub token: u64,
    /// Its partition.
    pub partition: u16,
    /// The first offset.
    pub first: u64,
    /// The last offset, included.
    pub last: u64,
    /// How many events of the delivery are between them: all of them must be in flight still.
    pub events: u64,
}

/// How a transaction waits for its decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Prepare {
    /// After how many milliseconds the group is asked about it for the first time; 0 means the engine's own time, 6 s by
    /// default. At most a day.
    pub check_after_ms: u64,
}

/// Decides a prepared transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecideTransaction {
    /// The producer group.
    pub group: GroupName,
    /// The transaction.
    pub id: TransactionId,
    /// True: its events are appended. False: they are dropped.
    pub commit: bool,
}

/// Asks for transactions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ListTransactions {
    /// The producer group; `None` means all.
    pub group: Option<GroupName>,
    /// Also those that were decided and are still remembered.
    pub decided: bool,
    /// Most entries of the answer; 0 means as many as fit.
    pub limit: u32,
    /// The answer begins behind this entry: a page's `next`. `None` means at the first.
    pub after: Option<String>,
}

/// Where a transaction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransactionState {
    /// Its events are stored and invisible; its producer group is asked about it.
    Prepared,
    /// The same, but the group was asked often enough: a person decides.
    Parked,
    /// Its events are in the log.
    Committed,
    /// Its events were dropped.
    RolledBack,
    /// One of a newer version.
    #[default]
    #[serde(other)]
    Unknown,
}

impl TransactionState {
    /// The word used on the wire and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Parked => "parked",
            Self::Committed => "committed",
            Self::RolledBack => "rolled_back",
            Self::Unknown => "unknown",
        }
    }

    /// The same as a part of a sentence.
    pub fn as_words(self) -> &'static str {
        match self {
            Self::RolledBack => "rolled back",
            Self::Unknown => "in a state of a newer version",
            other => other.as_str(),
        }
    }
}

impl fmt::Display for TransactionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A transaction, as it is described and listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionInfo {
    /// Its producer group.
    pub group: GroupName,
    /// Its id.
    pub id: TransactionId,
    /// Where it stands.
    #[serde(default)]
    pub state: TransactionState,
    /// True if the request did nothing because an earlier one had done it.
    #[serde(default)]
    pub repeat: bool,
    /// When it was prepared, in milliseconds since the Unix epoch; `None` if it was committed at once.
    #[serde(default)]
    pub prepared_ms: Option<u64>,
    /// When it was decided.
    #[serde(default)]
    pub decided_ms: Option<u64>,
    /// How often its group was asked about it. 0 once it is decided.
    #[serde(default)]
    pub checks: u32,
    /// When its group is asked next, if a member is connected.
    #[serde(default)]
    pub next_check_ms: Option<u64>,
    /// Its batches, in the order in which they were sent.
    #[serde(default)]
    pub batches: Vec<TransactionBatch>,
}

/// One batch of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TransactionBatch {
    /// Its topic; `None` if that was deleted.
    pub topic: Option<TopicName>,
    /// Its partition.
    pub partition: u16,
    /// How many events it has.
    pub events: u32,
    /// The first stored event's offset, once it is committed; `None` if none was stored.
    pub offset: Option<u64>,
    /// The events that were not stored because the topic's dedup window held their ids; the others follow on each other
    /// from `offset` on.
    pub duplicates: Vec<TransactionDuplicate>,
}

/// An event of a batch whose id the topic's dedup window held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TransactionDuplicate {
    /// Its index in the batch.
    pub index: u32,
    /// Where the first event of its id is; `None` if there was no room to keep that.
    pub offset: Option<u64>,
}

/// Asks a member of a producer group whether a prepared transaction is committed. The member answers with a
/// [`crate::request::Request::DecideTransaction`], or not at all if it does not know yet: then it is asked again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckBack {
    /// The transaction.
    pub id: TransactionId,
    /// When it was prepared, in milliseconds since the Unix epoch.
    #[serde(default)]
    pub prepared_ms: u64,
    /// How often the group was asked about it, this time included.
    #[serde(default)]
    pub check: u32,
    /// After so many checks it is parked until a person decides.
    #[serde(default)]
    pub checks_max: u32,
}
