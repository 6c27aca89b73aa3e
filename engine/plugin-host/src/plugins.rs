//! The host as the engine uses it: work that can take seconds is moved off the caller's thread.
//!
//! It owns how many threads of tokio's blocking pool look up compiled plugins and compile; the disk is read there
//! too, so they are few however many callers ask.

use std::sync::Arc;

use bytes::Bytes;
use levada_protocol::error::ErrorCode;
use levada_stage::{Artefact, AttachError, AttachSpec, BoxFuture, Inspected, Plugins, Stage};
use tokio::{sync::Semaphore, task};

use crate::{Error, Host, Loaded};

/// Threads that look up compiled plugins at once at most.
const LOOK_UPS_MAX: usize = 2;

impl Plugins for Host {
    fn inspect(&self, artefact: Bytes) -> BoxFuture<Result<Inspected, AttachError>> {
        let host = self.clone();
        Box::pin(async move { Ok(load(&host, Artefact::Bytes(artefact)).await?.inspected()) })
    }

    fn attach(&self, artefact: Artefact, spec: AttachSpec) -> BoxFuture<Result<Arc<dyn Stage>, AttachError>> {
        let host = self.clone();
        Box::pin(async move {
            let plugin = load(&host, artefact).await?;
            let attachment = host.attach_loaded(plugin, spec).await;
            Ok(Arc::new(attachment.map_err(|error| AttachError::from(&error))?) as Arc<dyn Stage>)
        })
    }
}

/// Turns for work that blocks.
#[derive(Debug, Clone)]
pub(crate) struct Turns {
    look_ups: Arc<Semaphore>,
    /// The host compiles one component at a time.
    compilations: Arc<Semaphore>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { look_ups: Arc::new(Semaphore::new(LOOK_UPS_MAX)), compilations: Arc::new(Semaphore::new(1)) }
    }
}

/// Finds or compiles an artefact, on few threads.
async fn load(host: &Host, artefact: Artefact) -> Result<Loaded, AttachError> {
    let (finder, wanted) = (host.clone(), artefact.clone());
    let found = in_turn(&host.turns().look_ups, move || finder.look_up(&wanted)).await?;
    if let Some(loaded) = found {
        return Ok(loaded);
    }
    let compiler = host.clone();
    in_turn(&host.turns().compilations, move || compiler.load(&artefact)).await
}

/// Runs work that may take seconds on the blocking pool, when it has its turn. A caller that waits for its turn uses
/// no thread. If the caller is dropped later, the work keeps its turn until it ends.
async fn in_turn<T: Send + 'static>(
    turns: &Arc<Semaphore>,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, AttachError> {
    let turn = Arc::clone(turns).acquire_owned().await.expect("the semaphore is never closed");
    let working = task::spawn_blocking(move || {
        let _turn = turn;
        work()
    });
    match working.await {
        Ok(done) => done.map_err(|error| AttachError::from(&error)),
        // A panic of the host, which has logged why.
        Err(error) => Err(AttachError::new(ErrorCode::Internal, format!("the plugin host failed: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn waiting_for_a_turn_uses_no_thread() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .max_blocking_threads(2)
            .build()
            .unwrap();
        runtime.block_on(async {
            let turns = Arc::new(Semaphore::new(1));
            let (go_on, told) = mpsc::channel::<()>();
            let compiling = turns.clone();
            let mut compilations = task::JoinSet::new();
            compilations.spawn(async move { in_turn(&compiling, move || Ok(told.recv().is_ok())).await });
            for _ in 0..100 {
                let waiting = turns.clone();
                compilations.spawn(async move { in_turn(&waiting, || Ok(true)).await });
            }
            task::yield_now().await;
            let read =
                tokio::time::timeout(std::time::Duration::from_secs(60), task::spawn_blocking(|| "read"))
                    .await;
            let _ended = go_on.send(());
            assert!(read.is_ok(), "compilations that wait took all threads");
            while let Some(ended) = compilations.join_next().await {
                assert!(ended.unwrap().unwrap());
            }
        });
    }

    #[test]
    fn abandoned_work_keeps_its_turn_until_it_ends() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let turns = Arc::new(Semaphore::new(1));
            let (go_on, told) = mpsc::channel::<()>();
            let (begun, begins) = tokio::sync::oneshot::channel();
            let work = move || {
                let _told = begun.send(());
                Ok(told.recv().is_ok())
            };
            tokio::select! {
                _ = in_turn(&turns, work) => panic!("it ended before it was released"),
                began = begins => began.unwrap(),
            }
            assert_eq!(turns.available_permits(), 0);
            go_on.send(()).unwrap();
            assert!(turns.acquire().await.is_ok());
        });
    }
}
