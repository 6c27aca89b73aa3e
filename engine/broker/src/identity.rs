//! What an engine is known by: an id of its data directory, and one of this start.

use levada_protocol::{error::ErrorCode, ids::CommitIndex};
use levada_store::{Commit, Family, Op, Store};

use crate::{artefacts::hex, clock, error::Error, keys};

/// The data directory's id, made at its first start.
pub(crate) fn engine_id(store: &dyn Store) -> Result<String, Error> {
    match store.get(Family::Meta, &keys::engine_id())? {
        Some(value) => Ok(String::from_utf8_lossy(&value).into_owned()),
        None => {
            let id = random_id()?;
            let commit = Commit {
                shard: 0,
                index: CommitIndex(store.applied().0 + 1),
                previous: store.applied(),
                time: clock::now(),
                ops: vec![Op::Put { family: Family::Meta, key: keys::engine_id(), value: id.clone().into() }],
            };
            store.apply(&commit)?;
            store.sync()?;
            Ok(id)
        }
    }
}

/// A new random id.
pub(crate) fn random_id() -> Result<String, Error> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| {
        Error::refused(ErrorCode::Internal, format!("the system gives no random numbers: {error}"))
    })?;
    Ok(hex(&bytes))
}
