//! What the writer is asked about transactions, and what it tells of them.

use std::{collections::HashSet, sync::Arc};

use levada_protocol::{
    batch::Batch,
    error::ErrorCode,
    ids::{Offset, PartitionId, Timestamp, TopicId},
};
use tokio::sync::oneshot;

use super::{
    proposal::{Condition, ProposalRefused, StateChange},
    tables,
};
use crate::{
    actor::Actor,
    error::Error,
    quotas::Admitted,
    rows::{Share, Transaction, TransactionKey, Undecided, Verdict},
    topic::Topic,
};

/// Events for any topics, to be stored all or none.
#[derive(Debug)]
pub(crate) struct Transact {
    pub(crate) key: TransactionKey,
    /// Of everything that was asked for.
    pub(crate) digest: u128,
    pub(crate) batches: Vec<TransactBatch>,
    /// How far a subscription comes with it, and that its owner still is its owner.
    pub(crate) acked: Option<(Condition, Vec<StateChange>)>,
    /// In how many milliseconds the group is asked about it first; `None`: it is committed at once.
    pub(crate) check_after_ms: Option<u64>,
    /// Its share of the bytes that may wait; given back once the commit is durable.
    pub(crate) admitted: Admitted,
    pub(crate) reply: oneshot::Sender<Result<Transacted, Error>>,
}

/// One batch of them.
#[derive(Debug)]
pub(crate) struct TransactBatch {
    pub(crate) topic: Arc<Topic>,
    pub(crate) partition: PartitionId,
    pub(crate) expected: Option<Offset>,
    pub(crate) batch: Batch,
}

/// A decision about a prepared transaction.
#[derive(Debug)]
pub(crate) struct Decide {
    pub(crate) key: TransactionKey,
    pub(crate) commit: bool,
    pub(crate) by: Actor,
    /// What was read of it. The name may be another transaction's by now.
    pub(crate) found: Found,
    /// Its share of the bytes that may wait; given back once the commit is durable.
    pub(crate) admitted: Admitted,
    pub(crate) reply: oneshot::Sender<Result<Transacted, Error>>,
}

/// A transaction as it was read from the store.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) digest: u128,
    /// How many batches it has.
    pub(crate) shares: usize,
    /// Their bytes; none if they are not to be appended, or were.
    pub(crate) batches: Vec<Batch>,
}

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transacted {
    pub(crate) transaction: Transaction,
    /// How it waits, if it is not decided.
    pub(crate) undecided: Option<Undecided>,
    /// True if an earlier request had done it.
    pub(crate) repeat: bool,
}

/// Notes that groups are asked about transactions.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) keys: Vec<TransactionKey>,
    /// How long after this they are asked again.
    pub(crate) interval_ms: u64,
    /// How often they are asked at most.
    pub(crate) checks_max: u16,
    /// Receives, for each, how it waits from now on; `None` if nobody needs to be asked.
    pub(crate) reply: oneshot::Sender<Result<Vec<Option<Undecided>>, Error>>,
}

/// Transactions that are to be forgotten, with the times at which that was due.
#[derive(Debug)]
pub(crate) struct ForgetTransactions {
    pub(crate) ends: Vec<(Timestamp, TransactionKey)>,
    pub(crate) reply: oneshot::Sender<Result<(), Error>>,
}

/// Bytes of a row's key and the fixed part of its value, at most: names and numbers.
const ROW_LEN_MAX: usize = 300;

impl Ask {
    /// How many bytes it adds to a commit, at most.
    pub(super) fn encoded_len_max(&self) -> usize {
        self.keys.len() * ROW_LEN_MAX
    }
}

impl ForgetTransactions {
    /// How many bytes it adds to a commit, at most.
    pub(super) fn encoded_len_max(&self) -> usize {
        2 * self.ends.len() * ROW_LEN_MAX
    }
}

impl Transact {
    /// How many bytes it adds to a commit, at most.
    pub(super) fn encoded_len_max(&self) -> usize {
        let of_batch = |it: &TransactBatch| match it.topic.has_dedup_window() {
            true => tables::append_transacted_len_max(&it.batch),
            false => tables::append_len_max(&it.batch),
        };
        let row = 2 * Transaction::len_of(&self.key, self.batches.len());
        let acked = self.acked.iter().flat_map(|(_, changes)| changes).map(StateChange::encoded_len_max);
        row + acked.sum::<usize>() + self.batches.iter().map(of_batch).sum::<usize>()
    }

    /// Bytes of its batches.
    pub(super) fn bytes(&self) -> usize {
        self.batches.iter().map(|it| it.batch.bytes().len()).sum()
    }

    /// What is known of this transaction is what is asked for.
    ///
    /// # Errors
    /// `TRANSACTION_EXISTS`.
    pub(super) fn check_repeat(&self, known: &Transaction) -> Result<(), Error> {
        if known.digest == self.digest {
            return Ok(());
        }
        Err(transaction_exists(&self.key))
    }

    /// The transaction before anything of it is in the log.
    pub(super) fn transaction(&self, prepared: Timestamp) -> Transaction {
        let share = |it: &TransactBatch| Share {
            topic: it.topic.id,
            partition: it.partition,
            events: it.batch.count(),
            bytes: u32::try_from(it.batch.bytes().len()).expect("a batch's bytes are bounded"),
            base: None,
            duplicates: None,
        };
        Transaction {
            digest: self.digest,
            prepared: self.check_after_ms.map(|_| prepared),
            verdict: Verdict::Prepared,
            decided: Timestamp(0),
            batches: self.batches.iter().map(share).collect(),
        }
    }

    /// The error of a condition that does not hold.
    pub(super) fn refused(&self, condition: &Condition, refused: ProposalRefused) -> Error {
        let named = match condition {
            Condition::End { topic, partition, .. } => {
                let batch = self.batches.iter().find(|it| it.topic.id == *topic);
                batch.map(|it| format!("topic {}, partition {partition}: {refused}", it.topic.name))
            }
            _ => None,
        };
        let error = refused.error();
        match named {
            Some(message) => Error::refused(error.code(), message),
            None => error,
        }
    }

    /// The partitions whose end is expected somewhere, each once, and where.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for one that is behind another batch of the partition: the transaction itself would move it.
    pub(super) fn expectations(&self) -> Result<Vec<(TopicId, PartitionId, Offset)>, Error> {
        let (mut seen, mut expected) = (HashSet::new(), Vec::new());
        for TransactBatch { topic, partition, expected: at, .. } in &self.batches {
            let is_first = seen.insert((topic.id, *partition));
            match at {
                Some(at) if is_first => expected.push((topic.id, *partition, *at)),
                Some(_) => {
                    let message = format!(
                        "expect_offset of a batch for partition {partition} of topic {}, behind another of the transaction \
                         for it: expect it of the first",
                        topic.name
                    );
                    return Err(Error::refused(ErrorCode::InvalidArgument, message));
                }
                None => {}
            }
        }
        Ok(expected)
    }
}

impl Decide {
    /// How many bytes it adds to a commit, at most.
    pub(super) fn encoded_len_max(&self) -> usize {
        let batches = self.found.batches.iter().map(tables::append_transacted_len_max).sum::<usize>();
        let row = 2 * Transaction::len_of(&self.key, self.found.shares);
        row + self.found.shares * ROW_LEN_MAX + batches
    }

    /// What a transaction that was decided before has to say to this; `None` if nobody has decided.
    pub(super) fn repeat(&self, known: &Transaction) -> Option<Result<Transacted, Error>> {
        let committed = match known.verdict {
            Verdict::Prepared => return None,
            Verdict::Committed => true,
            Verdict::RolledBack => false,
        };
        if committed == self.commit {
            return Some(Ok(Transacted { transaction: known.clone(), undecided: None, repeat: true }));
        }
        let (was, asked) = match committed {
            true => ("committed", "rolled back"),
            false => ("rolled back", "committed"),
        };
        let message = format!("transaction {} was {was}, and cannot be {asked} any more", self.key);
        Some(Err(Error::refused(ErrorCode::AlreadyDecided, message)))
    }
}

/// The refusal for a decision about a transaction that is not the one that was read: it can be read again.
pub(super) fn changed_since(key: &TransactionKey) -> Error {
    Error::refused(
        ErrorCode::OutcomeUnknown,
        format!("transaction {key} changed since it was read; try again"),
    )
}

/// The refusal for another transaction under an id that is taken.
pub(crate) fn transaction_exists(key: &TransactionKey) -> Error {
    let message = format!(
        "transaction {key} exists with other events, or was made in another way: `levada transaction describe {key}` shows it; \
         another transaction needs another id"
    );
    Error::refused(ErrorCode::TransactionExists, message)
}

/// The refusal for a transaction that is not known.
pub(crate) fn transaction_not_found(key: &TransactionKey) -> Error {
    let message = format!(
        "there is no transaction {key}, or it was decided long ago: decisions are remembered for 7 days, transactions that \
         were committed at once for 10 minutes"
    );
    Error::refused(ErrorCode::TransactionNotFound, message)
}
