//! The settle queue, the one commit under way, and which verbs are confirmed.
//!
//! It must not know what settling does to a partition or a delivery: the ledger does.

use std::{collections::VecDeque, ops::Range};

use super::dead_letter::DeadLetter;
use levada_protocol::ids::Offset;

/// Commits full of dead letters that may be queued before nothing more is read: it could bring more, which takes no credit.
const COMMITS_OF_DEAD_LETTERS_MAX: u64 = 16;

/// A run in the queue or in the commit under way.
#[derive(Debug)]
pub(super) struct Settle {
    /// How many verbs had been accepted when it was queued.
    ticket: u64,
    pub(super) partition: usize,
    pub(super) range: Range<u64>,
    pub(super) outcome: Outcome,
    /// The transaction that it is a part of: all of that is one commit, with nothing else.
    transaction: Option<u64>,
}

/// How the delivery of a run ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Its consumer acknowledged it.
    Acked { token: u64 },
    /// Its consumer rejected it: a dead letter.
    Rejected { token: u64, dead_letter: DeadLetter },
    /// A dead letter without its consumer's doing.
    Dead { dead_letter: DeadLetter },
    /// Filtered, or expired without becoming a dead letter.
    Dropped,
    /// Retention took it first.
    Lost,
}

impl Outcome {
    pub(super) fn dead_letter(&self) -> Option<&DeadLetter> {
        match self {
            Self::Rejected { dead_letter, .. } | Self::Dead { dead_letter } => Some(dead_letter),
            Self::Acked { .. } | Self::Dropped | Self::Lost => None,
        }
    }

    /// The delivery that it would return to if its commit failed.
    pub(super) fn token(&self) -> Option<u64> {
        match self {
            Self::Acked { token } | Self::Rejected { token, .. } => Some(*token),
            Self::Dead { .. } | Self::Dropped | Self::Lost => None,
        }
    }

    /// True if runs of both are settled as one.
    fn joins(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Dropped, Self::Dropped) | (Self::Lost, Self::Lost))
    }
}

/// The commit under way.
#[derive(Debug)]
pub(super) struct Pending {
    id: u64,
    /// Verbs up to this ticket are durable with it.
    through: u64,
    pub(super) runs: Vec<Settle>,
    /// In order, each once.
    pub(super) partitions: Vec<usize>,
}

/// What is to settle, in order.
///
/// Two numbers count here: a *ticket* counts verbs that need a commit, so that they can be confirmed; a commit's *id*
/// counts commits, so that an outcome is given to the right one.
#[derive(Debug)]
pub(super) struct Settlement {
    queue: VecDeque<Settle>,
    pending: Option<Pending>,
    ticket: u64,
    /// Verbs up to this ticket are durable.
    confirmed: u64,
    commits: u64,
    dead_letters_max: u64,
    /// Dead letters in the queue.
    dead_letters: u64,
    /// The transaction that what is queued now belongs to.
    transaction: Option<u64>,
}

impl Settlement {
    /// Nothing to settle; a commit holds at most so many dead letters, but at least one.
    pub(super) fn new(dead_letters_max: u64) -> Self {
        let dead_letters_max = dead_letters_max.max(1);
        Self {
            queue: VecDeque::new(),
            pending: None,
            ticket: 0,
            confirmed: 0,
            commits: 0,
            dead_letters_max,
            dead_letters: 0,
            transaction: None,
        }
    }

    /// Counts a verb that needs a commit.
    pub(super) fn accept_verb(&mut self) {
        self.ticket += 1;
    }

    pub(super) fn ticket(&self) -> u64 {
        self.ticket
    }

    pub(super) fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// What is queued from now on belongs to this transaction; `None`: to none.
    pub(super) fn set_transaction(&mut self, transaction: Option<u64>) {
        self.transaction = transaction;
    }

    /// Queues a run. Neighbouring dropped ones become one, and so do lost ones.
    pub(super) fn push(&mut self, partition: usize, range: Range<u64>, outcome: Outcome) {
        if let Some(last) = self.queue.back_mut()
            && last.outcome.joins(&outcome)
            && (last.partition, last.range.end, last.transaction)
                == (partition, range.start, self.transaction)
        {
            last.range.end = range.end;
            return;
        }
        self.dead_letters += outcome.dead_letter().map_or(0, DeadLetter::events);
        let (ticket, transaction) = (self.ticket, self.transaction);
        self.queue.push_back(Settle { ticket, partition, range, outcome, transaction });
    }

    /// True if so many dead letters are queued that what is acknowledged behind them would wait for long.
    pub(super) fn has_many_dead_letters(&self) -> bool {
        self.dead_letters >= COMMITS_OF_DEAD_LETTERS_MAX * self.dead_letters_max
    }

    /// Cuts dead letters into parts that fit into a commit.
    pub(super) fn parts(&self, dead_letter: DeadLetter) -> impl Iterator<Item = DeadLetter> + use<> {
        let (mut first, end, most) = (dead_letter.first.0, dead_letter.last.0 + 1, self.dead_letters_max);
        std::iter::from_fn(move || {
            let range = first..end.min(first.saturating_add(most));
            first = range.end;
            (!range.is_empty()).then(|| DeadLetter {
                first: Offset(range.start),
                last: Offset(range.end - 1),
                ..dead_letter.clone()
            })
        })
    }

    /// True if a commit can begin: there is something to settle, or other rows changed, and none is under way.
    pub(super) fn may_begin(&self, rows_changed: bool) -> bool {
        self.pending.is_none() && (rows_changed || !self.queue.is_empty())
    }

    /// Takes runs for the next commit, as far as the dead letters fit: those of one transaction, or of none.
    pub(super) fn take_runs(&mut self) -> (Option<u64>, Vec<Settle>) {
        let transaction = self.queue.front().and_then(|run| run.transaction);
        let mut dead_letters = 0;
        let fits = |run: &&Settle| {
            if run.transaction != transaction {
                return false;
            }
            dead_letters += run.outcome.dead_letter().map_or(0, DeadLetter::events);
            dead_letters <= self.dead_letters_max
        };
        let count = self.queue.iter().take_while(fits).count();
        let runs: Vec<Settle> = self.queue.drain(..count).collect();
        self.dead_letters -= dead_letters_in(&runs);
        (transaction, runs)
    }

    /// Begins a commit of what was taken; returns its id.
    pub(super) fn begin(&mut self, runs: Vec<Settle>, partitions: Vec<usize>) -> u64 {
        self.commits += 1;
        let through = self.queue.front().map_or(self.ticket, |next| next.ticket.saturating_sub(1));
        self.pending = Some(Pending { id: self.commits, through, runs, partitions });
        self.commits
    }

    /// Ends the commit `id`; what it was about is the caller's to settle or to take back.
    pub(super) fn end(&mut self, id: u64, durable: bool) -> Pending {
        let pending = self.pending.take().filter(|pending| pending.id == id);
        let pending = pending.expect("the commit under way is ended once");
        if durable {
            // What was queued since by itself has the ticket of the last verb, which may be durable.
            self.confirmed = self.confirmed.max(pending.through);
        }
        pending
    }

    /// Queues runs again, before everything else. They belong to no transaction any more.
    pub(super) fn requeue(&mut self, runs: Vec<Settle>) {
        self.dead_letters += dead_letters_in(&runs);
        let runs = runs.into_iter().rev().map(|run| Settle { transaction: None, ..run });
        runs.for_each(|run| self.queue.push_front(run));
    }
}

fn dead_letters_in(runs: &[Settle]) -> u64 {
    runs.iter().filter_map(|run| run.outcome.dead_letter()).map(DeadLetter::events).sum()
}

#[cfg(test)]
impl Settlement {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// How often an offset is in the queue.
    pub(super) fn queued(&self, partition: usize, offset: u64) -> usize {
        self.queue.iter().filter(|it| it.partition == partition && it.range.contains(&offset)).count()
    }
}

#[cfg(test)]
mod tests {
    use levada_protocol::ids::Timestamp;

    use super::{super::dead_letter::Reason, *};
    use crate::progress::History;

    fn dead(range: Range<u64>) -> DeadLetter {
        DeadLetter::new(Timestamp(0), 0, &range, History::default(), Reason::MaxAttempts)
    }

    #[test]
    fn a_verb_is_confirmed_when_everything_that_it_ended_is_durable() {
        let mut settlement = Settlement::new(4);
        settlement.accept_verb();
        for dead_letter in settlement.parts(dead(0..6)) {
            let range = dead_letter.first.0..dead_letter.last.0 + 1;
            settlement.push(0, range, Outcome::Dead { dead_letter });
        }
        for confirmed in [0, 1] {
            let (_, runs) = settlement.take_runs();
            assert_eq!(runs.len(), 1, "four dead letters, then two");
            let id = settlement.begin(runs, vec![0]);
            assert!(!settlement.may_begin(true), "one commit at a time");
            settlement.end(id, true);
            assert_eq!(settlement.confirmed(), confirmed);
        }
        assert!(!settlement.may_begin(false) && settlement.may_begin(true));
    }

    #[test]
    fn what_is_confirmed_stays_so_when_a_commit_leaves_some_of_what_was_queued_since() {
        let mut settlement = Settlement::new(1);
        settlement.accept_verb();
        settlement.push(0, 0..1, Outcome::Acked { token: 3 });
        let commit = |settlement: &mut Settlement| {
            let (_, runs) = settlement.take_runs();
            let id = settlement.begin(runs, vec![0]);
            settlement.end(id, true);
            settlement.confirmed()
        };
        assert_eq!(commit(&mut settlement), 1);
        for dead_letter in settlement.parts(dead(1..3)) {
            let range = dead_letter.first.0..dead_letter.last.0 + 1;
            settlement.push(0, range, Outcome::Dead { dead_letter });
        }
        assert_eq!(commit(&mut settlement), 1, "one of two dead letters that no verb asked for");
    }

    #[test]
    fn a_transaction_is_a_commit_of_its_own() {
        let mut settlement = Settlement::new(64);
        settlement.push(0, 0..1, Outcome::Dropped);
        settlement.set_transaction(Some(7));
        settlement.push(0, 1..2, Outcome::Dropped);
        settlement.push(1, 0..1, Outcome::Acked { token: 3 });
        settlement.set_transaction(None);
        settlement.push(1, 1..2, Outcome::Dropped);
        let mut taken = Vec::new();
        for id in 1..=3 {
            let (transaction, runs) = settlement.take_runs();
            taken.push((transaction, runs.len()));
            settlement.begin(runs, vec![0]);
            let pending = settlement.end(id, id != 2);
            if id == 2 {
                // What is left of it is nobody's.
                settlement.requeue(pending.runs);
            }
        }
        assert_eq!(taken, [(None, 1), (Some(7), 2), (None, 3)]);
    }

    #[test]
    fn what_comes_back_is_first_in_the_queue() {
        let mut settlement = Settlement::new(64);
        settlement.push(0, 0..1, Outcome::Dropped);
        settlement.push(0, 1..3, Outcome::Dropped);
        let (_, runs) = settlement.take_runs();
        assert_eq!((runs.len(), runs[0].range.clone()), (1, 0..3));
        let id = settlement.begin(runs, vec![0]);
        settlement.push(1, 5..6, Outcome::Dropped);
        let pending = settlement.end(id, false);
        settlement.requeue(pending.runs);
        let order: Vec<_> = settlement.take_runs().1.iter().map(|run| run.partition).collect();
        assert_eq!(order, [0, 1]);
    }
}
