//! Why a transaction waits to be sent again, for whoever looks while it is sent.

use std::sync::{Arc, Mutex, PoisonError};

use levada_protocol::error::Refusal;

/// Shows, while a transaction is committed or prepared, why it waits to be sent again: [`crate::Transaction::last_refusal`].
#[derive(Debug, Clone, Default)]
pub struct LastRefusal(Arc<Mutex<Option<Refusal>>>);

impl LastRefusal {
    /// The engine's last refusal; `None` if it gave none since the connection was lost, and once the call has ended; what a call saw that was dropped
    /// before it ended stays.
    pub fn get(&self) -> Option<Refusal> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, refusal: Option<Refusal>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = refusal;
    }
}
