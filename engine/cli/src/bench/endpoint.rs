//! A thread with a runtime of its own: on few cores one single-threaded runtime per endpoint is the fastest shape.

use std::{future::Future, thread};

use anyhow::Context as _;
use tokio::{runtime::Builder, sync::oneshot};

/// Work that runs on a thread of its own.
#[derive(Debug)]
pub(super) struct Endpoint<T> {
    result: oneshot::Receiver<anyhow::Result<T>>,
}

impl<T: Send + 'static> Endpoint<T> {
    /// Starts `work` on a new thread. The thread ends with the work, or with the process.
    pub(super) fn spawn<F>(name: &str, work: impl FnOnce() -> F + Send + 'static) -> anyhow::Result<Self>
    where
        F: Future<Output = anyhow::Result<T>>,
    {
        let (done, result) = oneshot::channel();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            let outcome = match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(work()),
                Err(error) => Err(error.into()),
            };
            // Nobody waits any more if another endpoint failed first.
            let _unwanted = done.send(outcome);
        })?;
        Ok(Self { result })
    }

    /// True once the work has ended, or failed.
    pub(super) fn has_ended(&self) -> bool {
        !self.result.is_empty()
    }

    /// Waits for the end of the work.
    pub(super) async fn finished(self) -> anyhow::Result<T> {
        self.result.await.context("an endpoint's thread ended without a result")?
    }
}
