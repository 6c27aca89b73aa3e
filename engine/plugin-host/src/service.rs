//! The host itself: what it is made of, and the order in which it goes.

use std::{fmt, sync::Arc};

use levada_protocol::limits::PLUGIN_CONFIG_BYTES_MAX;
use levada_stage::{Artefact, AttachSpec};
use tokio::sync::oneshot;

use crate::{
    Attachment, Error, HostConfig, Loaded,
    attachment::{Limits, Shared},
    engine::{self, Ticker},
    host::log::LogGate,
    instance::Instance,
    plugins::Turns,
    pool::{Shares, Workers, answering},
    registry::{Registry, Sha256Hash},
};

/// Ticks of processor time after which a slice, which lasts for two, is far over its end.
const SLICE_MAX_TICKS: u32 = 10;

/// Runs plugins. Cheap to clone; with the last clone its threads end, and calls still queued end with
/// [`levada_stage::CallError::Retry`].
#[derive(Clone)]
pub struct Host(Arc<Parts>);

/// Dropped from top to bottom: workers first, and the ticker after them, as it ends the calls that they are in.
struct Parts {
    workers: Workers,
    ticker: Ticker,
    registry: Registry,
    shares: Shares,
    limits: Limits,
    turns: Turns,
}

impl Host {
    /// Starts the host's threads and opens its folder of compiled plugins.
    ///
    /// # Errors
    /// If the folder cannot be used, or the machine does not give threads or run compiled code.
    pub fn new(config: HostConfig) -> Result<Self, Error> {
        let limits =
            Limits { queue_calls_max: config.queue_calls_max.max(1), init_deadline: config.init_deadline };
        let engine = engine::new()?;
        let registry = Registry::new(&engine, &config.cache_dir)?;
        let ticker = Ticker::start(&engine, config.tick)?;
        let workers = Workers::start(config.workers.max(1), config.tick * SLICE_MAX_TICKS)?;
        Ok(Self(Arc::new(Parts {
            workers,
            ticker,
            registry,
            shares: Shares::default(),
            limits,
            turns: Turns::default(),
        })))
    }

    /// Finds the compiled form of an artefact, in use or on disk; `None` if it must be compiled: see [`Host::load`].
    ///
    /// Blocks for a short time, as it may read a file.
    ///
    /// # Errors
    /// If bytes that were not compiled before are too large, no component, export neither interface, or import what is
    /// not granted.
    pub fn look_up(&self, artefact: &Artefact) -> Result<Option<Loaded>, Error> {
        Ok(self.0.registry.look_up(artefact)?.map(Loaded))
    }

    /// Checks that an artefact is a plugin that can be attached, compiles it and keeps the compiled form.
    ///
    /// Blocks for as long as the compiler takes: milliseconds, or seconds for a component that carries a language
    /// runtime. One compiles at a time, and all others wait on their threads: callers who are many wait before.
    ///
    /// # Errors
    /// As [`Host::look_up`]; if the artefact's file is unreadable or not what its hash says.
    pub fn load(&self, artefact: &Artefact) -> Result<Loaded, Error> {
        self.0.registry.load(artefact).map(Loaded)
    }

    /// Attaches a plugin: makes one instance and calls its `init`, in the attachment point's turns on the workers.
    /// If the future is dropped, this ends at the end of a slice.
    ///
    /// # Errors
    /// If `init` refuses the configuration, traps, or breaks a limit.
    pub async fn attach_loaded(&self, plugin: Loaded, spec: AttachSpec) -> Result<Attachment, Error> {
        if spec.config.len() > PLUGIN_CONFIG_BYTES_MAX {
            return Err(Error::ConfigTooLarge { got: spec.config.len(), limit: PLUGIN_CONFIG_BYTES_MAX });
        }
        let Parts { workers, ticker, shares, limits, .. } = &*self.0;
        let Loaded(compiled) = plugin;
        let log = Arc::new(LogGate::new(&spec));
        let deadlines = ticker.deadlines();
        let share = shares.of(workers.pool(), spec.point, spec.point_id);
        let (answer, started) = oneshot::channel();
        let start = {
            let (compiled, spec, log) = (compiled.clone(), spec.clone(), log.clone());
            let (deadlines, init_deadline) = (deadlines.clone(), limits.init_deadline);
            async move { Instance::start(&compiled, &spec, log, &deadlines, init_deadline, None).await }
        };
        let panicked = || Err(Error::Unavailable("the plugin host failed".to_owned()));
        workers.pool().push(&share, answering(start, answer, panicked));
        let shut_down = |_| Err(Error::Unavailable("the plugin host shut down".to_owned()));
        let first = started.await.unwrap_or_else(shut_down)?;
        let shared = Shared::new(spec, compiled, log, deadlines, *limits, share, first);
        Ok(Attachment::new(Arc::new(shared), workers.pool().clone()))
    }

    pub(crate) fn turns(&self) -> &Turns {
        &self.0.turns
    }

    /// Removes the compiled form of a plugin that was removed; attachments go on.
    ///
    /// # Errors
    /// If its file cannot be removed.
    pub fn forget(&self, sha256: [u8; 32]) -> Result<(), Error> {
        let hash = Sha256Hash(sha256);
        self.0.registry.forget(hash).map_err(|source| Error::Io { path: hash.to_string().into(), source })
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("limits", &self.0.limits).finish_non_exhaustive()
    }
}
