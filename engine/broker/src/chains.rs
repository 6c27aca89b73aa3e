//! Attaching the plugins of a chain: from the names in a record to stages that run.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use levada_chain::{Chain, ChainStage, Clock, Counted};
use levada_protocol::{
    error::ErrorCode,
    limits::{CHAIN_STAGES_MAX, INSTANCE_MEMORY_BYTES_MAX, PLUGIN_CONFIG_BYTES_MAX},
    request::StageSpec,
};
use levada_stage::{Artefact, AttachSpec, AttachmentPoint, Plugins};

use crate::{
    artefacts::{Artefacts, unhex},
    catalogue::Catalogue,
    error::Error,
};

/// What attaching needs.
#[derive(Clone)]
pub(crate) struct Chains {
    plugins: Arc<dyn Plugins>,
    artefacts: Artefacts,
    clock: Clock,
    /// Trials that were made.
    trials: Arc<AtomicU64>,
}

/// A chain, and its stages by the ids of their plugins' versions.
pub(crate) struct Attached {
    pub(crate) chain: Chain,
    stages: Vec<(u64, Arc<Counted>)>,
}

impl Attached {
    /// Each stage with the id of its plugin's version.
    pub(crate) fn stages(&self) -> impl Iterator<Item = (u64, Arc<Counted>)> + '_ {
        self.stages.iter().cloned()
    }
}

impl Chains {
    pub(crate) fn new(plugins: Arc<dyn Plugins>, artefacts: Artefacts) -> Self {
        let started = Instant::now();
        let clock: Clock = Arc::new(move || started.elapsed());
        Self { plugins, artefacts, clock, trials: Arc::default() }
    }

    pub(crate) fn plugins(&self) -> &Arc<dyn Plugins> {
        &self.plugins
    }

    pub(crate) fn artefacts(&self) -> &Artefacts {
        &self.artefacts
    }

    /// The identity of an attachment point that does not exist yet and may never: each trial has its own, so that none
    /// waits for another's turns. They are counted from the top; those in the catalogue are counted from the bottom.
    pub(crate) fn trial(&self) -> u64 {
        u64::MAX - self.trials.fetch_add(1, Ordering::Relaxed)
    }

    /// Attaches every stage of `specs` for events of `topic`, at the point of this kind and identity.
    ///
    /// # Errors
    /// If a setting is over its limit, a plugin is unknown or refuses its configuration, or a stage keeps state, which
    /// nothing commits.
    pub(crate) async fn attach(
        &self,
        catalogue: &Catalogue,
        specs: &[StageSpec],
        topic: &str,
        point: AttachmentPoint,
        point_id: u64,
    ) -> Result<Attached, Error> {
        check(specs)?;
        let mut stages = Vec::with_capacity(specs.len());
        let mut chain = Vec::with_capacity(specs.len());
        for spec in specs {
            let record = catalogue.plugins.resolve(&spec.plugin)?;
            let sha256 = unhex(&record.sha256).ok_or_else(|| {
                let message = format!("the hash of plugin {} in the catalogue is damaged", record.name);
                Error::Store { code: ErrorCode::StorageCorrupt, message }
            })?;
            let deadline = Duration::from_millis(u64::from(spec.deadline_ms()));
            let artefact = Artefact::File { path: self.artefacts.path(&record.sha256), sha256 };
            let attach = AttachSpec {
                plugin: record.name.to_string(),
                version: record.version,
                config: spec.config.clone(),
                topic: topic.to_owned(),
                point,
                point_id,
                deadline,
                memory_bytes_max: spec.memory_bytes_max(),
            };
            let stage = self.plugins.attach(artefact, attach).await.map_err(|error| {
                let message = format!("plugin {}@{}: {error}", record.name, record.version);
                Error::refused(error.code(), message)
            })?;
            if stage.is_stateful() {
                let message = format!(
                    "plugin {}@{} keeps state, and this engine stores none for plugins",
                    record.name, record.version
                );
                return Err(Error::refused(ErrorCode::PluginInitRefused, message));
            }
            let stage = Counted::new(stage);
            stages.push((record.id, Arc::clone(&stage)));
            chain.push(ChainStage {
                stage,
                plugin: record.name.to_string(),
                version: record.version,
                on_error: spec.on_error(),
                retries: spec.retries(),
                deadline,
            });
        }
        let chain = Chain::new(chain, point_id, Arc::clone(&self.clock));
        let chain = if point == AttachmentPoint::Read { chain.minding_time_alone() } else { chain };
        Ok(Attached { chain, stages })
    }
}

/// Refuses a chain that no plugin could make possible.
pub(crate) fn check(specs: &[StageSpec]) -> Result<(), Error> {
    let invalid = |message| Err(Error::refused(ErrorCode::InvalidArgument, message));
    if specs.len() > CHAIN_STAGES_MAX {
        return invalid(format!("the chain has {} stages, the limit is {CHAIN_STAGES_MAX}", specs.len()));
    }
    for spec in specs {
        if spec.config.len() > PLUGIN_CONFIG_BYTES_MAX {
            let got = spec.config.len();
            return invalid(format!(
                "the configuration of {} is {got} bytes, the limit is {PLUGIN_CONFIG_BYTES_MAX}",
                spec.plugin
            ));
        }
        if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&spec.config) {
            return invalid(format!("the configuration of {} is not JSON: {error}", spec.plugin));
        }
        let deadline_ms = spec.deadline_ms();
        if deadline_ms == 0 || deadline_ms > 60_000 {
            return invalid(format!(
                "the deadline of {} is {deadline_ms} ms, expected 1 to 60000",
                spec.plugin
            ));
        }
        let memory = spec.memory_bytes_max();
        if memory == 0 || memory > INSTANCE_MEMORY_BYTES_MAX {
            return invalid(format!(
                "the memory of {} is {memory} bytes, expected 1 to {INSTANCE_MEMORY_BYTES_MAX}",
                spec.plugin
            ));
        }
    }
    Ok(())
}
