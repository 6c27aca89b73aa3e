//! Which subscriptions have no consumer, and since when. Their owners know it; the writer stores what they propose, and keeps it
//! to decide whether one expires.

use std::collections::HashMap;

use levada_protocol::ids::{SubscriptionId, Timestamp};
use levada_store::Store;

use crate::{
    error::Error,
    rows::{self, Row, UnattendedSince},
    shard::draft::Draft,
};

/// The subscriptions without consumers.
#[derive(Debug, Default)]
pub(in crate::shard) struct Unattended(HashMap<SubscriptionId, Timestamp>);

impl Unattended {
    /// Reads all of them. Blocks on the disk.
    pub(super) fn load(store: &dyn Store) -> Result<Self, Error> {
        let rows = rows::scan::<UnattendedSince>(store, UnattendedSince::all())?;
        Ok(Self(rows.into_iter().map(|(id, UnattendedSince(since))| (id, since)).collect()))
    }

    /// Since when a subscription has no consumer; `None` if it has one.
    pub(in crate::shard) fn since(&self, id: SubscriptionId) -> Option<Timestamp> {
        self.0.get(&id).copied()
    }

    /// Stores since when a subscription has no consumer, or that it has one.
    pub(in crate::shard) fn set(&mut self, id: SubscriptionId, since: Option<Timestamp>, draft: &mut Draft) {
        match since {
            Some(since) => {
                self.0.insert(id, since);
                draft.push(UnattendedSince(since).put(&id));
            }
            None => self.forget(id, draft),
        }
    }

    /// Drops what is stored of a subscription that is deleted, or has a consumer.
    pub(super) fn forget(&mut self, id: SubscriptionId, draft: &mut Draft) {
        if self.0.remove(&id).is_some() {
            draft.push(UnattendedSince::delete(&id));
        }
    }
}
