//! Key order: the events of a key go to one consumer at a time.
//!
//! One consumer is active for all keys (decision 53), which keeps the promise and does not spread the load.

use super::{exclusive::Exclusive, policy::Policy};

/// Sharing by key.
#[derive(Debug, Default)]
pub(in crate::subscription) struct Keyed {
    all_keys: Exclusive,
}

impl Keyed {
    pub(super) fn policy(&self) -> &dyn Policy {
        &self.all_keys
    }

    pub(super) fn policy_mut(&mut self) -> &mut dyn Policy {
        &mut self.all_keys
    }
}
