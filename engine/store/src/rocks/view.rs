//! A store that can only be read: what is there before anything is written.

use bytes::Bytes;
use levada_protocol::ids::{CommitIndex, TopicId};

use super::{handle::Rocks, space};
use crate::{Commit, Deleted, Error, Family, ScanLimit, Store, StoreStats, commit::AppliedRow};

/// What the owner of the rows has to say about a store before it is opened for writing.
pub trait Inspect {
    /// Why a store is refused.
    type Error: From<Error>;

    /// Reads whatever a start reads. The store takes no writes, and nothing of it was changed yet.
    ///
    /// # Errors
    /// If something of it is damaged or missing: then the store is not opened.
    fn inspect(&self, store: &dyn Store) -> Result<(), Self::Error>;

    /// What people call a topic, if that can still be read.
    fn topic_name(&self, store: &dyn Store, topic: TopicId) -> Option<String>;
}

/// Inspects nothing: for stores whose rows mean nothing to anybody.
#[derive(Debug, Clone, Copy)]
pub struct Uninspected;

impl Inspect for Uninspected {
    type Error = Error;

    fn inspect(&self, _store: &dyn Store) -> Result<(), Error> {
        Ok(())
    }

    fn topic_name(&self, _store: &dyn Store, _topic: TopicId) -> Option<String> {
        None
    }
}

/// A database that was opened for reading only.
pub(super) struct View {
    pub(super) rocks: Rocks,
    pub(super) last: AppliedRow,
}

impl Store for View {
    fn last(&self) -> AppliedRow {
        self.last
    }

    fn apply(&self, _commit: &Commit) -> Result<(), Error> {
        Err(Error::Closed)
    }

    fn sync(&self) -> Result<CommitIndex, Error> {
        Err(Error::Closed)
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.rocks.get(family, key)
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
        limit: ScanLimit,
    ) -> Result<Vec<(Bytes, Bytes)>, Error> {
        self.rocks.scan(family, from, to, limit)
    }

    fn last_before(
        &self,
        family: Family,
        from: &[u8],
        below: &[u8],
    ) -> Result<Option<(Bytes, Bytes)>, Error> {
        self.rocks.last_before(family, from, below)
    }

    fn compact(&self, _family: Family, _from: &[u8], _to: &[u8], _deleted: Deleted) -> Result<(), Error> {
        Err(Error::Closed)
    }

    fn flush(&self) -> Result<(), Error> {
        Err(Error::Closed)
    }

    fn reopen(&self) -> Result<(), Error> {
        Err(Error::Closed)
    }

    fn stats(&self) -> StoreStats {
        space::stats(&self.rocks, 0)
    }

    fn close(&self) -> Result<(), Error> {
        Err(Error::Closed)
    }
}
