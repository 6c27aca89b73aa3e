//! A thread with a runtime of its own: on few cores one single-threaded runtime per endpoint is the fastest shape.

use std::{future::Future, thread, time::Duration};

use anyhow::Context as _;
use levada_terminal::Failure;
use tokio::{runtime::Builder, sync::oneshot, time::sleep};

/// How long a runtime lives on after work that failed.
const FAREWELL: Duration = Duration::from_millis(50);

/// Work that runs on a thread of its own. Dropping it ends the work and waits for the thread.
#[derive(Debug)]
pub(crate) struct Endpoint<T> {
    result: oneshot::Receiver<anyhow::Result<T>>,
    _thread: Thread,
}

impl<T: Send + 'static> Endpoint<T> {
    /// Starts `work` on a new thread.
    pub(crate) fn spawn<F>(name: &str, work: impl FnOnce() -> F + Send + 'static) -> anyhow::Result<Self>
    where
        F: Future<Output = anyhow::Result<T>>,
    {
        let (done, result) = oneshot::channel();
        let (cancel, cancelled) = oneshot::channel::<()>();
        let body = move || {
            let outcome = match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(async {
                    let outcome = tokio::select! {
                        biased;
                        outcome = work() => outcome,
                        _dropped = cancelled => Err(Failure::interrupted().into()),
                    };
                    if outcome.is_err() {
                        // The connections that the work has dropped still have to tell the engine.
                        sleep(FAREWELL).await;
                    }
                    outcome
                }),
                Err(error) => Err(error.into()),
            };
            // Nobody waits any more if another endpoint failed first.
            let _unwanted = done.send(outcome);
        };
        let handle = thread::Builder::new().name(name.to_owned()).spawn(body)?;
        Ok(Self { result, _thread: Thread { cancel: Some(cancel), handle: Some(handle) } })
    }

    /// True once the work has ended, or failed.
    pub(crate) fn has_ended(&self) -> bool {
        !self.result.is_empty()
    }

    /// Waits for the end of the work.
    pub(crate) async fn finished(self) -> anyhow::Result<T> {
        self.result.await.context("an endpoint's thread ended without a result")?
    }
}

/// A thread that ends with its handle.
#[derive(Debug)]
struct Thread {
    cancel: Option<oneshot::Sender<()>>,
    handle: Option<thread::JoinHandle<()>>,
}

impl Drop for Thread {
    fn drop(&mut self) {
        drop(self.cancel.take());
        // A panic of the thread has left no result, which says so.
        drop(self.handle.take().map(thread::JoinHandle::join));
    }
}
