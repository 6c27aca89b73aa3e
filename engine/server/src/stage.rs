//! The plugin host as the broker sees it: one type per trait, and the translation between their words.
//!
//! It owns where blocking work goes (looking for compiled plugins, compiling): tokio's blocking pool, of which it takes
//! few threads however many ask, as the disk is read there too. It must not know policies.

use std::{error::Error as _, sync::Arc};

use bytes::Bytes;
use levada_broker::stage as broker;
use levada_plugin_host as host;
use levada_protocol::error::ErrorCode;
use tokio::{sync::Semaphore, task};

/// Most threads that look for compiled plugins.
const LOOK_UPS_MAX: usize = 2;

/// The host behind the broker's [`broker::Plugins`].
pub(crate) struct HostPlugins {
    loader: Loader,
}

impl HostPlugins {
    pub(crate) fn new(host: host::Host) -> Self {
        let (look_ups, compilations) = (Semaphore::new(LOOK_UPS_MAX), Semaphore::new(1));
        Self { loader: Loader { host, look_ups: Arc::new(look_ups), compilations: Arc::new(compilations) } }
    }
}

impl broker::Plugins for HostPlugins {
    fn inspect(&self, artefact: Bytes) -> broker::BoxFuture<Result<broker::Inspected, broker::AttachError>> {
        let loader = self.loader.clone();
        Box::pin(async move {
            let inspected = loader.load(broker::Artefact::Bytes(artefact)).await?.inspected();
            let interface = match inspected.interface {
                host::Interface::Batch => broker::Interface::Batch,
                host::Interface::Events => broker::Interface::Events,
            };
            Ok(broker::Inspected { interface, sha256: inspected.sha256 })
        })
    }

    fn attach(
        &self,
        spec: broker::AttachSpec,
    ) -> broker::BoxFuture<Result<Arc<dyn broker::Stage>, broker::AttachError>> {
        let loader = self.loader.clone();
        Box::pin(async move {
            let plugin = loader.load(spec.artefact).await?;
            let place = match spec.place {
                broker::Place::Route => host::Place::Route,
                broker::Place::Subscription => host::Place::Subscription,
            };
            let spec = host::AttachSpec {
                plugin: spec.plugin,
                version: spec.version,
                config: spec.config,
                topic: spec.topic,
                place,
                place_id: spec.place_id,
                deadline: spec.deadline,
                memory_bytes_max: spec.memory_bytes_max,
            };
            let attached = loader.host.attach(plugin, spec).await;
            let attachment = attached.map_err(|error| attach_error(&error))?;
            Ok(Arc::new(HostStage { attachment }) as Arc<dyn broker::Stage>)
        })
    }
}

/// Gets components from the host, on few threads.
#[derive(Clone)]
struct Loader {
    host: host::Host,
    look_ups: Arc<Semaphore>,
    /// The host compiles one at a time.
    compilations: Arc<Semaphore>,
}

impl Loader {
    async fn load(&self, artefact: broker::Artefact) -> Result<host::Loaded, broker::AttachError> {
        let (host, looked_for) = (self.host.clone(), artefact.clone());
        let found = in_turn(&self.look_ups, move || host.look_up(borrowed(&looked_for))).await?;
        if let Some(loaded) = found {
            return Ok(loaded);
        }
        let host = self.host.clone();
        in_turn(&self.compilations, move || host.load(borrowed(&artefact))).await
    }
}

fn borrowed(artefact: &broker::Artefact) -> host::Artefact<'_> {
    match artefact {
        broker::Artefact::Bytes(bytes) => host::Artefact::Bytes(bytes),
        broker::Artefact::File { path, sha256 } => host::Artefact::File { path, sha256: *sha256 },
    }
}

/// An attachment behind the broker's [`broker::Stage`].
struct HostStage {
    attachment: host::Attachment,
}

impl broker::Stage for HostStage {
    fn call(&self, input: broker::CallInput) -> broker::BoxFuture<broker::Answered> {
        let broker::CallInput { runs, events, now, seed } = input;
        let call = self.attachment.call(host::CallInput { runs, events, now, seed });
        Box::pin(async move {
            let host::Answered { answer, spent } = call.await;
            broker::Answered { answer: answer.map_err(call_error), spent }
        })
    }

    fn figures(&self) -> broker::Figures {
        let figures = self.attachment.figures();
        broker::Figures {
            calls: figures.calls,
            events: figures.events,
            errors: figures.errors,
            last_error: None,
            memory_restarts: figures.memory_restarts,
            seconds: figures.busy.as_secs_f64(),
            memory_bytes_peak: figures.memory_bytes_high,
        }
    }
}

/// Runs work that may take seconds where it delays no packet. Who waits for a turn takes no thread; whoever gives up
/// later leaves the turn to the work until it ends.
async fn in_turn<T: Send + 'static>(
    turns: &Arc<Semaphore>,
    work: impl FnOnce() -> Result<T, host::Error> + Send + 'static,
) -> Result<T, broker::AttachError> {
    let turn = Arc::clone(turns).acquire_owned().await.expect("the semaphore is never closed");
    let working = task::spawn_blocking(move || {
        let _turn = turn;
        work()
    });
    match working.await {
        Ok(done) => done.map_err(|error| attach_error(&error)),
        // A panic of the host, which has already said why on its own.
        Err(error) => {
            Err(broker::AttachError::new(ErrorCode::Internal, format!("the plugin host failed: {error}")))
        }
    }
}

/// The broker passes one sentence on, so the causes go into it here.
fn attach_error(error: &host::Error) -> broker::AttachError {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        message.push_str(&format!(": {source}"));
        cause = source.source();
    }
    broker::AttachError::new(error.code(), message)
}

fn call_error(error: host::CallError) -> broker::CallError {
    match error {
        host::CallError::Deadline => broker::CallError::Deadline,
        host::CallError::Memory => broker::CallError::Memory,
        host::CallError::Stack => broker::CallError::Stack,
        host::CallError::Trap(message) => broker::CallError::Trap(message),
        host::CallError::Retry(message) => broker::CallError::Retry(message),
        host::CallError::Reject(message) => broker::CallError::Reject(message),
        host::CallError::Output(message) => broker::CallError::Output(message),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn who_waits_for_a_turn_leaves_the_threads_to_the_disk() {
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
    fn work_that_nobody_waits_for_any_more_keeps_its_turn() {
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
                _ = in_turn(&turns, work) => panic!("it ended untold"),
                began = begins => began.unwrap(),
            }
            assert_eq!(turns.available_permits(), 0);
            go_on.send(()).unwrap();
            assert!(turns.acquire().await.is_ok());
        });
    }

    #[test]
    fn the_cause_is_in_the_sentence() {
        let error = host::Error::InitFailed(host::CallError::Stack);
        let told = attach_error(&error);
        assert_eq!(told.code(), ErrorCode::PluginInitRefused);
        assert!(told.message.contains("did not start: the plugin's stack overflowed"), "{}", told.message);
    }
}
