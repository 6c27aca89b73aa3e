//! The subscription's chain of plugins: attached, being attached, or not needed.

use levada_chain::Costs;
use levada_stage::BoxFuture;
use std::{
    fmt,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{chains::Attached, error::Error};

/// The chain of a subscription, once it is attached.
pub(super) struct ChainSlot {
    state: State,
    /// Set when the newest version of a plugin is another.
    stale: Arc<AtomicBool>,
    costs: Arc<Costs>,
}

enum State {
    /// There is none.
    NotNeeded,
    Detached,
    Attaching(BoxFuture<Result<Attached, Error>>),
    Attached(Arc<Attached>),
}

impl ChainSlot {
    pub(super) fn new(needed: bool, stale: Arc<AtomicBool>, costs: Arc<Costs>) -> Self {
        Self { state: if needed { State::Detached } else { State::NotNeeded }, stale, costs }
    }

    /// Detaches a chain whose plugins are no longer the newest; true if it was.
    pub(super) fn drop_stale(&mut self) -> bool {
        let stale = self.stale.swap(false, Ordering::AcqRel);
        if stale && !matches!(self.state, State::NotNeeded) {
            self.state = State::Detached;
        }
        stale
    }

    /// The chain is another from now on, or none.
    pub(super) fn replace(&mut self, needed: bool) {
        self.state = if needed { State::Detached } else { State::NotNeeded };
    }

    /// True if events can pass. If not, `attach` is begun unless it is under way.
    pub(super) fn is_ready(&mut self, attach: impl FnOnce() -> BoxFuture<Result<Attached, Error>>) -> bool {
        if matches!(self.state, State::Detached) {
            self.state = State::Attaching(attach());
        }
        matches!(self.state, State::NotNeeded | State::Attached(_))
    }

    /// Waits until the attaching under way ends; for ever if there is none. Cancel safe.
    pub(super) async fn attached(&mut self) -> Result<(), Error> {
        let State::Attaching(attaching) = &mut self.state else { return pending().await };
        match attaching.await {
            Ok(attached) => {
                self.costs.attach(0, attached.stages());
                self.state = State::Attached(Arc::new(attached));
                Ok(())
            }
            Err(error) => {
                self.state = State::Detached;
                Err(error)
            }
        }
    }

    /// The chain, if there is one.
    pub(super) fn current(&self) -> Option<&Arc<Attached>> {
        if let State::Attached(attached) = &self.state { Some(attached) } else { None }
    }

    /// Somebody resumed the subscription: what the chain counted against its plugins is forgotten.
    pub(super) fn resume(&self) {
        if let Some(attached) = self.current() {
            attached.chain.resume();
        }
    }
}

impl fmt::Debug for ChainSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::NotNeeded => "not needed",
            State::Detached => "detached",
            State::Attaching(_) => "attaching",
            State::Attached(_) => "attached",
        };
        f.debug_struct("ChainSlot").field("state", &state).finish_non_exhaustive()
    }
}
