//! How the shard's threads end: one that panics closes the shard, so that nobody waits for it and `/readyz` says why.

use std::{sync::Arc, thread};

use levada_protocol::error::ErrorCode;

use super::{Shown, waiting::Waiting};

/// Held by a thread of the shard as long as it runs, and dropped before the channels that others wait on.
pub(super) struct Ending {
    shown: Arc<Shown>,
    thread: &'static str,
    /// What the thread takes fragments from, if it does.
    waiting: Option<Arc<Waiting>>,
}

impl Ending {
    pub(super) fn new(shown: &Arc<Shown>, thread: &'static str, waiting: Option<&Arc<Waiting>>) -> Self {
        Self { shown: Arc::clone(shown), thread, waiting: waiting.cloned() }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if thread::panicking() {
            let reason = format!("the {} thread panicked; the engine must be restarted", self.thread);
            tracing::error!(reason, "no writes are taken");
            self.shown.close(ErrorCode::StorageFailed, reason);
        }
        if let Some(waiting) = &self.waiting {
            waiting.end();
        }
    }
}
