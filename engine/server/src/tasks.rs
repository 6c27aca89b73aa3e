//! The one place that spawns: every task of the server is tracked, and ended at shutdown.

use std::future::Future;

use tokio::runtime::Handle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

/// Tasks and the signals that end them. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    draining: CancellationToken,
    cancelled: CancellationToken,
}

impl Tasks {
    /// Runs a task that sees to its own end: soon after [`Tasks::cancelled`].
    pub(crate) fn spawn(&self, span: tracing::Span, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(task.instrument(span));
    }

    /// Runs a task and drops it, wherever it is, when `until` is cancelled.
    pub(crate) fn spawn_until(
        &self,
        span: tracing::Span,
        until: CancellationToken,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.spawn_until_on(&Handle::current(), span, until, task);
    }

    /// The same on another runtime.
    pub(crate) fn spawn_until_on(
        &self,
        runtime: &Handle,
        span: tracing::Span,
        until: CancellationToken,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let task = async move {
            until.run_until_cancelled(task).await;
        };
        self.tracker.spawn_on(task.instrument(span), runtime);
    }

    /// Set when the server goes away: nothing new is begun.
    pub(crate) fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    /// Set when whatever is left must end at once.
    pub(crate) fn cancelled(&self) -> &CancellationToken {
        &self.cancelled
    }

    /// Completes when no task is left; only once nothing spawns any more.
    pub(crate) async fn finished(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}
