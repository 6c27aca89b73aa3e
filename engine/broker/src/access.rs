//! Who asks, and what they may do. Every call into the broker names its principal and is checked at the entry, before
//! anything is read.
//!
//! What a call requires is derived in `levada_protocol::access`, in one place for all calls.

use std::sync::Arc;

use levada_protocol::{
    access::{Action, Requirement, Scope},
    error::ErrorCode,
};

use crate::error::Error;

/// On whose behalf a call is made.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Principal {
    /// A local caller, who may do everything. The only one while no identities can be configured; the
    /// listeners are then loopback only.
    Local,
    /// A caller who may do some actions, on any resource.
    Granted {
        /// The name that records and refusals show.
        name: Arc<str>,
        /// What they may do; empty: nothing.
        actions: Arc<[Action]>,
    },
}

impl Principal {
    /// The name that catalogue records keep as their principal.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Local => "local",
            Self::Granted { name, .. } => name,
        }
    }

    /// Checks everything that a call requires.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` for the first that is not allowed, naming it.
    pub(crate) fn check(&self, required: &[Requirement]) -> Result<(), Error> {
        required.iter().try_for_each(|(action, scope)| self.check_one(*action, scope))
    }

    fn check_one(&self, action: Action, scope: &Scope) -> Result<(), Error> {
        let is_allowed = match self {
            Self::Local => true,
            Self::Granted { actions, .. } => actions.contains(&action),
        };
        if is_allowed {
            return Ok(());
        }
        let message = format!("{} may not {action} {scope}", self.as_str());
        Err(Error::refused(ErrorCode::PermissionDenied, message))
    }
}
