//! A transaction that is stored and invisible, and what its program decides.

use levada_protocol::{ids::TransactionId, request::TransactionInfo};

use super::{group::Group, layout::Layout};
use crate::{error::Error, publisher::Receipt};

/// A transaction whose events are stored and invisible. Dropping it decides nothing: the group is asked about it.
#[derive(Debug)]
#[must_use = "a prepared transaction waits until it is committed or rolled back"]
pub struct Prepared {
    group: Group,
    info: TransactionInfo,
    layout: Layout,
}

impl Prepared {
    pub(super) fn new(group: Group, info: TransactionInfo, layout: Layout) -> Self {
        Self { group, info, layout }
    }

    /// Its id.
    pub fn id(&self) -> &TransactionId {
        &self.info.id
    }

    /// What the engine knows of it.
    pub fn info(&self) -> &TransactionInfo {
        &self.info
    }

    /// Commits it: its events are appended. Returns a receipt for each, in the order in which they were added; an event whose
    /// topic was deleted meanwhile has no offset: it was dropped. After an error it can be called again.
    ///
    /// Not cancel safe: a call that is dropped may have committed it.
    ///
    /// # Errors
    /// As [`super::ProducerGroup::commit`].
    pub async fn commit(&self) -> Result<Vec<Receipt>, Error> {
        let info = self.group.decide(self.info.id.clone(), true).await?;
        Ok(self.layout.receipts(&info))
    }

    /// Rolls it back: its events are dropped. After an error it can be called again.
    ///
    /// Not cancel safe: a call that is dropped may have rolled it back.
    ///
    /// # Errors
    /// As [`super::ProducerGroup::rollback`].
    pub async fn rollback(&self) -> Result<(), Error> {
        self.group.decide(self.info.id.clone(), false).await.map(drop)
    }
}
