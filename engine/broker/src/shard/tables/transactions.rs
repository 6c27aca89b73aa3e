//! Transactions: what is prepared and who may prepare more, what was decided and when that is forgotten.
//!
//! The rows say it. In memory is what is undecided, a few bytes each and a bounded number; what was decided is looked up
//! when its id comes again.

use std::collections::{BTreeSet, HashMap};

use levada_delivery::backlog::Charge;
use levada_protocol::{
    batch::Batch,
    error::{ErrorCode, Refusal},
    ids::{GroupName, Timestamp, TopicId},
    limits::{PREPARED_BYTES_MAX, PREPARED_MAX},
};
use levada_store::Store;

use crate::{
    error::Error,
    rows::{
        self, PreparedBatch, Row, Share, Transaction, TransactionEnd, TransactionKey, Undecided, Verdict,
    },
    shard::{announcement::Announcement, draft::Draft},
    words::counted,
};

/// Undecided transactions of all groups together.
const UNDECIDED_MAX: usize = 100_000;

/// What is known of transactions.
#[derive(Debug, Default)]
pub(in crate::shard) struct Transactions {
    undecided: HashMap<TransactionKey, Undecided>,
    groups: HashMap<GroupName, Held>,
    /// What they hold for each topic.
    topics: HashMap<TopicId, Charge>,
    /// What the commit that is being made writes and forgets: the store does not show it yet.
    fresh: HashMap<TransactionKey, Option<Transaction>>,
}

/// What the undecided transactions of a group hold.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Held {
    transactions: usize,
    bytes: usize,
}

impl Transactions {
    /// Reads what is undecided. Blocks on the disk.
    pub(in crate::shard) fn load(store: &dyn Store) -> Result<Self, Error> {
        let (mut this, mut found) = (Self::default(), Vec::new());
        rows::for_each::<Undecided>(store, Undecided::all(), |key, undecided| found.push((key, undecided)))?;
        for (key, undecided) in found {
            let transaction: Option<Transaction> = rows::get(store, &key)?;
            this.hold(key, undecided, transaction.iter().flat_map(|it| &it.batches));
        }
        Ok(this)
    }

    /// Everything that is undecided.
    pub(in crate::shard) fn undecided(&self) -> impl Iterator<Item = (&TransactionKey, &Undecided)> {
        self.undecided.iter()
    }

    /// How a transaction waits; `None` if it is decided, or not known.
    pub(in crate::shard) fn undecided_of(&self, key: &TransactionKey) -> Option<Undecided> {
        self.undecided.get(key).copied()
    }

    /// What transactions that nobody has decided hold for a topic.
    pub(in crate::shard) fn prepared_for(&self, topic: TopicId) -> Charge {
        self.topics.get(&topic).copied().unwrap_or_default()
    }

    fn hold<'a>(
        &mut self,
        key: TransactionKey,
        undecided: Undecided,
        shares: impl IntoIterator<Item = &'a Share>,
    ) {
        for share in shares {
            let held = self.topics.entry(share.topic).or_default();
            *held = held.plus(charge_of(share));
        }
        let held = self.groups.entry(key.group.clone()).or_default();
        held.transactions += 1;
        held.bytes += undecided.bytes as usize;
        self.undecided.insert(key, undecided);
    }

    fn release(&mut self, key: &TransactionKey, shares: &[Share]) {
        let Some(undecided) = self.undecided.remove(key) else { return };
        for share in shares {
            let Some(held) = self.topics.get_mut(&share.topic) else { continue };
            *held = held.less(charge_of(share));
            if *held == Charge::default() {
                self.topics.remove(&share.topic);
            }
        }
        if let Some(held) = self.groups.get_mut(&key.group) {
            held.transactions -= 1;
            held.bytes -= undecided.bytes as usize;
            if held.transactions == 0 {
                self.groups.remove(&key.group);
            }
        }
    }

    /// Shows what is prepared for the topics of a transaction.
    fn announce_topics(&self, shares: &[Share], draft: &mut Draft) {
        let topics: BTreeSet<TopicId> = shares.iter().map(|share| share.topic).collect();
        for topic in topics {
            draft.announce(Announcement::Prepared { topic, prepared: self.prepared_for(topic) });
        }
    }

    /// The transaction of this name, if it is remembered.
    pub(in crate::shard) fn find(
        &self,
        store: &dyn Store,
        key: &TransactionKey,
    ) -> Result<Option<Transaction>, Error> {
        match self.fresh.get(key) {
            Some(fresh) => Ok(fresh.clone()),
            None => rows::get(store, key),
        }
    }

    /// Checks that a group may prepare a transaction of so many bytes.
    pub(in crate::shard) fn admit(&self, group: &GroupName, bytes: usize) -> Result<(), Refusal> {
        let held = self.groups.get(group).copied().unwrap_or_default();
        let full = |what: String| {
            let message = format!(
                "producer group {group} has {} of {}, {what}: commit or roll back some; `levada transaction list` shows them",
                counted(held.transactions as u64, "undecided transaction"),
                counted(held.bytes as u64, "byte")
            );
            Err(Refusal::new(ErrorCode::TooManyPrepared, message))
        };
        if held.transactions >= PREPARED_MAX {
            return full(format!("the limit is {PREPARED_MAX}"));
        }
        if held.bytes + bytes > PREPARED_BYTES_MAX {
            return full(format!("with {bytes} more the limit is {PREPARED_BYTES_MAX} bytes"));
        }
        if self.undecided.len() >= UNDECIDED_MAX {
            return full(format!("and all groups together {UNDECIDED_MAX}, which is the limit"));
        }
        Ok(())
    }

    /// Adds a transaction that waits for its decision, with the bytes of its batches.
    pub(in crate::shard) fn prepare<'a>(
        &mut self,
        key: &TransactionKey,
        transaction: Transaction,
        batches: impl Iterator<Item = &'a Batch>,
        undecided: Undecided,
        draft: &mut Draft,
    ) {
        draft.push(transaction.put(key));
        for (index, batch) in (0..).zip(batches) {
            draft.push(PreparedBatch(batch.bytes().clone()).put(&(key.clone(), index)));
        }
        draft.push(undecided.put(key));
        draft.announce(Announcement::Undecided { key: key.clone(), undecided: Some(undecided) });
        self.hold(key.clone(), undecided, &transaction.batches);
        self.announce_topics(&transaction.batches, draft);
        self.fresh.insert(key.clone(), Some(transaction));
    }

    /// Adds a decision, which ends the waiting of a transaction that was prepared.
    pub(in crate::shard) fn decide(
        &mut self,
        key: &TransactionKey,
        transaction: Transaction,
        draft: &mut Draft,
    ) {
        debug_assert!(transaction.verdict != Verdict::Prepared, "it is decided");
        if self.undecided.contains_key(key) {
            self.release(key, &transaction.batches);
            self.announce_topics(&transaction.batches, draft);
            for index in 0..transaction.batches.len() {
                let index = u16::try_from(index).expect("a transaction has few batches");
                draft.push(PreparedBatch::delete(&(key.clone(), index)));
            }
            draft.push(Undecided::delete(key));
            draft.announce(Announcement::Undecided { key: key.clone(), undecided: None });
        }
        draft.push(TransactionEnd.put(&(transaction.end(), key.clone())));
        draft.push(transaction.put(key));
        self.fresh.insert(key.clone(), Some(transaction));
    }

    /// Notes that a group is asked about a transaction now, and when it is the next time; after `checks_max` times it is
    /// parked. `None` if it is decided or parked, or not due.
    pub(in crate::shard) fn ask(
        &mut self,
        key: &TransactionKey,
        (now, next): (Timestamp, Timestamp),
        checks_max: u16,
        draft: &mut Draft,
    ) -> Option<Undecided> {
        let undecided = self.undecided.get_mut(key).filter(|it| it.is_due(now))?;
        undecided.checks = undecided.checks.saturating_add(1);
        undecided.next_check = (undecided.checks < checks_max).then_some(next);
        draft.push(undecided.put(key));
        draft.announce(Announcement::Undecided { key: key.clone(), undecided: Some(*undecided) });
        Some(*undecided)
    }

    /// Forgets a decided transaction whose time is over, unless its name is another's meanwhile.
    pub(in crate::shard) fn forget(
        &mut self,
        store: &dyn Store,
        end: &(Timestamp, TransactionKey),
        draft: &mut Draft,
    ) -> Result<(), Error> {
        let (time, key) = end;
        let is_it = |known: &Transaction| known.verdict != Verdict::Prepared && known.end() == *time;
        if self.find(store, key)?.is_some_and(|known| is_it(&known)) {
            draft.push(Transaction::delete(key));
            self.fresh.insert(key.clone(), None);
        }
        draft.push(TransactionEnd::delete(end));
        Ok(())
    }

    /// Ends the commit: from now on the store shows what it has written.
    pub(in crate::shard) fn flush(&mut self) {
        self.fresh.clear();
    }
}

/// What a batch adds to its topic's backlog.
fn charge_of(share: &Share) -> Charge {
    Charge { events: share.events.into(), bytes: share.bytes.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(number: usize) -> GroupName {
        format!("g{number}").parse().unwrap()
    }

    /// What holds so many transactions of so many bytes for each group.
    fn holding(groups: usize, transactions: usize, bytes: u32) -> Transactions {
        let mut all = Transactions::default();
        let undecided =
            Undecided { prepared: Timestamp(0), bytes, checks: 0, next_check: Some(Timestamp(0)) };
        for at in 0..groups {
            for number in 0..transactions {
                let id = number.to_string().parse().unwrap();
                all.hold(TransactionKey { group: group(at), id }, undecided, []);
            }
        }
        all
    }

    fn refused(held: &Transactions, bytes: usize) -> String {
        let refusal = held.admit(&group(0), bytes).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::TooManyPrepared);
        refusal.to_string()
    }

    #[test]
    fn a_group_may_prepare_up_to_its_number_and_its_bytes() {
        assert_eq!(holding(1, PREPARED_MAX - 1, 1).admit(&group(0), 1), Ok(()));
        let full = holding(1, PREPARED_MAX, 1);
        assert!(
            refused(&full, 1).contains("10000 undecided transactions of 10000 bytes, the limit is 10000")
        );
        assert_eq!(full.admit(&group(1), 1), Ok(()), "another group has its own limit");
        let heavy = holding(1, 4, 1_000_000);
        assert_eq!(heavy.admit(&group(0), PREPARED_BYTES_MAX - 4_000_000), Ok(()));
        assert!(refused(&heavy, PREPARED_BYTES_MAX - 3_999_999).contains("more the limit is 67108864 bytes"));
    }

    #[test]
    fn all_groups_together_may_prepare_up_to_a_number_and_again_once_one_is_decided() {
        const EACH: usize = 1_000;
        let mut held = holding(UNDECIDED_MAX / EACH, EACH, 1);
        assert!(refused(&held, 1).contains("and all groups together 100000, which is the limit"));
        let key = TransactionKey { group: group(1), id: "0".parse().unwrap() };
        held.release(&key, &[]);
        assert_eq!(held.undecided.len(), UNDECIDED_MAX - 1);
        assert_eq!(held.admit(&group(0), 1), Ok(()));
    }
}
