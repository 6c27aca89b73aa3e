//! The one place that spawns: a connection's supervisor, a publisher's driver, a subscriber's and a reader's.
//!
//! Each of them owns its state, ends by itself once its handles are gone, and needs no one to wait for it.

use tokio::task::JoinHandle;
use tracing::Instrument;

/// Runs `work` on the runtime of the caller.
#[expect(clippy::disallowed_methods, reason = "the client's own drivers run on the program's runtime")]
pub(crate) fn spawn(name: &'static str, work: impl Future<Output = ()> + Send + 'static) -> Background {
    Background(Some(tokio::spawn(work.instrument(tracing::debug_span!("levada_client", driver = name)))))
}

/// A running task that is stopped when this is dropped, unless it was detached.
#[derive(Debug)]
pub(crate) struct Background(Option<JoinHandle<()>>);

impl Background {
    /// Lets the task run on until it ends by itself.
    pub(crate) fn detach(mut self) {
        self.0 = None;
    }

    /// Waits until the task has ended. Cancel safe: the task is stopped if the wait is.
    pub(crate) async fn ended(mut self) {
        if let Some(handle) = &mut self.0 {
            // A driver that panicked has ended too; dropping its state fails what waits.
            let _ = handle.await;
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(handle) = &self.0 {
            handle.abort();
        }
    }
}
