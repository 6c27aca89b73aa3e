//! How the shard's threads end: one that panics closes the shard, so that nothing waits for it and `/readyz` says why.

use std::{sync::Arc, thread};

use levada_protocol::error::ErrorCode;

use super::{piggyback::PiggybackQueue, view::ShardView};

/// Closes the shard if the thread that holds it panics. To be dropped before the channels that others wait on.
pub(super) struct FailStopGuard {
    view: Arc<ShardView>,
    thread: &'static str,
    /// What the thread takes proposals from, if it does.
    piggyback: Option<Arc<PiggybackQueue>>,
}

impl FailStopGuard {
    pub(super) fn new(
        view: &Arc<ShardView>,
        thread: &'static str,
        piggyback: Option<&Arc<PiggybackQueue>>,
    ) -> Self {
        Self { view: Arc::clone(view), thread, piggyback: piggyback.cloned() }
    }
}

impl Drop for FailStopGuard {
    fn drop(&mut self) {
        if thread::panicking() {
            let reason = format!("the {} thread panicked; the engine must be restarted", self.thread);
            tracing::error!(reason, "no writes are taken");
            self.view.close(ErrorCode::StorageFailed, reason);
        }
        if let Some(piggyback) = &self.piggyback {
            piggyback.close();
        }
    }
}
