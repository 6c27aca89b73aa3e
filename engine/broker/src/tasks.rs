//! The one place that spawns: every task of the broker is named, tracked and waited for at shutdown.

use std::{future::Future, sync::Arc};

use tokio::{sync::oneshot, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

use crate::error::Error;

/// Runs a task that ends with those who use it, on the runtime that this is called in.
pub(crate) fn spawn_here(task: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::runtime::Handle::current().spawn(task));
}

/// The broker's tasks and the signal that ends them.
#[derive(Debug, Clone)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    cancel: CancellationToken,
    runtime: Arc<tokio::runtime::Handle>,
}

impl Tasks {
    /// Tasks on the runtime that this is called in.
    pub(crate) fn new() -> Self {
        Self {
            tracker: TaskTracker::new(),
            cancel: CancellationToken::new(),
            runtime: Arc::new(tokio::runtime::Handle::current()),
        }
    }

    /// Runs `task` until it ends by itself; it must end soon after the token is cancelled.
    pub(crate) fn spawn(&self, span: tracing::Span, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn_on(task.instrument(span), &self.runtime);
    }

    /// Runs a task that others need to end, and so outlives them: [`Tasks::stop`] does not wait for it.
    pub(crate) fn spawn_last(&self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.runtime.spawn(task)
    }

    /// Runs `task` and returns its result. It runs to its end even if the caller gives up waiting.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        span: tracing::Span,
        task: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, result) = oneshot::channel();
        self.spawn(span, async move {
            // The caller may have given up.
            let _ = reply.send(task.await);
        });
        // A task that has no answer has panicked, perhaps in the middle of what it did.
        result.await.unwrap_or_else(|_| Err(Error::unanswered()))
    }

    /// The signal that ends every task.
    pub(crate) fn cancelled(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Tells every task to end and waits until all have.
    pub(crate) async fn stop(&self) {
        self.cancel.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}
