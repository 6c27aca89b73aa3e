//! The plugin host as the broker sees it: one type per trait, and the translation between their words.
//!
//! It owns where blocking work goes (compiling, `init`): tokio's blocking pool. It must not know policies.

use std::{error::Error as _, sync::Arc};

use bytes::Bytes;
use levada_broker::stage as broker;
use levada_plugin_host as host;
use levada_protocol::error::ErrorCode;
use tokio::task;

/// The host behind the broker's [`broker::Plugins`].
pub(crate) struct HostPlugins {
    host: host::Host,
}

impl HostPlugins {
    pub(crate) fn new(host: host::Host) -> Self {
        Self { host }
    }
}

impl broker::Plugins for HostPlugins {
    fn inspect(&self, artefact: Bytes) -> broker::BoxFuture<Result<broker::Inspected, broker::AttachError>> {
        let host = self.host.clone();
        Box::pin(blocking(move || {
            let inspected = host.inspect(&artefact)?;
            let interface = match inspected.interface {
                host::Interface::Batch => broker::Interface::Batch,
                host::Interface::Events => broker::Interface::Events,
            };
            Ok(broker::Inspected { interface, sha256: inspected.sha256 })
        }))
    }

    fn attach(
        &self,
        spec: broker::AttachSpec,
    ) -> broker::BoxFuture<Result<Arc<dyn broker::Stage>, broker::AttachError>> {
        let host = self.host.clone();
        Box::pin(blocking(move || {
            let artefact = host::Artefact::File { path: &spec.path, sha256: spec.sha256 };
            let place = match spec.place {
                broker::Place::Route => host::Place::Route,
                broker::Place::Subscription => host::Place::Subscription,
            };
            let attachment = host.attach(
                artefact,
                host::AttachSpec {
                    plugin: spec.plugin,
                    version: spec.version,
                    config: spec.config,
                    topic: spec.topic,
                    place,
                    place_id: spec.place_id,
                    deadline: spec.deadline,
                    memory_bytes_max: spec.memory_bytes_max,
                },
            )?;
            Ok(Arc::new(HostStage { attachment }) as Arc<dyn broker::Stage>)
        }))
    }
}

/// An attachment behind the broker's [`broker::Stage`].
struct HostStage {
    attachment: host::Attachment,
}

impl broker::Stage for HostStage {
    fn call(&self, input: broker::CallInput) -> broker::BoxFuture<Result<Bytes, broker::CallError>> {
        let broker::CallInput { runs, events, now, seed } = input;
        let call = self.attachment.call(host::CallInput { runs, events, now, seed });
        Box::pin(async move { call.await.map_err(call_error) })
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

/// Runs work that may take seconds where it delays no packet.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, host::Error> + Send + 'static,
) -> Result<T, broker::AttachError> {
    match task::spawn_blocking(work).await {
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
    use super::*;

    #[test]
    fn the_cause_is_in_the_sentence() {
        let error = host::Error::InitFailed(host::CallError::Stack);
        let told = attach_error(&error);
        assert_eq!(told.code(), ErrorCode::PluginInitRefused);
        assert!(told.message.contains("did not start: the plugin's stack overflowed"), "{}", told.message);
    }
}
