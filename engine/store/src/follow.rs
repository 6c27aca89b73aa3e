//! Whether a commit follows on what was applied: the one rule of both stores.

use levada_protocol::ids::CommitIndex;

use crate::{
    Commit, Error, Op,
    commit::{AppliedRow, CommitHash},
};

/// Decides what to do with the commit where `last` was applied last: returns the row that it leaves behind if it is
/// to be applied, and `None` if it was applied before. `known` is the hash of the commit that was applied with an
/// index, if it is still known.
pub(crate) fn check(
    commit: &Commit,
    last: &AppliedRow,
    known: impl FnOnce(CommitIndex) -> Result<Option<CommitHash>, Error>,
) -> Result<Option<AppliedRow>, Error> {
    let diverged = |detail| Error::Diverged { index: commit.index, detail };
    if last.index.0 > 0 && commit.shard != last.shard {
        return Err(diverged(format!(
            "it is of shard {}, the store holds shard {}",
            commit.shard, last.shard
        )));
    }
    let row = commit.applied_row();
    if commit.index <= last.index {
        return match known(commit.index)? {
            Some(hash) if hash != row.hash && commit.term < last.term => {
                Err(Error::Fenced { index: commit.index, term: commit.term, newest: last.term })
            }
            Some(hash) if hash != row.hash => {
                Err(diverged(format!("its hash is {}, one of hash {hash} was applied", row.hash)))
            }
            _ => Ok(None),
        };
    }
    if commit.term < last.term {
        return Err(Error::Fenced { index: commit.index, term: commit.term, newest: last.term });
    }
    if commit.previous != last.index {
        return Err(Error::Gap { index: commit.index, previous: commit.previous, applied: last.index });
    }
    if commit.parent != last.hash {
        let hash = last.hash;
        return Err(diverged(format!(
            "its parent's hash is {}, that of the one applied last is {hash}",
            commit.parent
        )));
    }
    if commit.ops.iter().any(Op::touches_applied) {
        return Err(Error::Reserved { index: commit.index });
    }
    Ok(Some(row))
}
