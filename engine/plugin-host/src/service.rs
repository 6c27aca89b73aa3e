//! The host itself: what it is made of, and the order in which it goes.

use std::{
    fmt,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use levada_protocol::limits::PLUGIN_CONFIG_BYTES_MAX;

use crate::{
    Artefact, AttachSpec, Attachment, Error, HostConfig, Inspected,
    attachment::{Limits, Shared},
    engine::{self, Ticker},
    host::log::LogGate,
    instance::Instance,
    pool::{Shares, Workers},
    registry::{Registry, Sha256Hash},
};

/// Runs plugins. Cheap to clone; with the last clone its threads end, and calls still queued answer
/// [`crate::CallError::Retry`].
#[derive(Clone)]
pub struct Host(Arc<Parts>);

/// Dropped from top to bottom: workers first, and the ticker after them, as it ends the calls that they are in.
struct Parts {
    workers: Workers,
    ticker: Ticker,
    registry: Registry,
    shares: Shares,
    limits: Limits,
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
        let workers = Workers::start(config.workers.max(1))?;
        Ok(Self(Arc::new(Parts { workers, ticker, registry, shares: Shares::default(), limits })))
    }

    /// Checks that `bytes` are a plugin that could be attached, compiles it and keeps the compiled form.
    ///
    /// Blocks for as long as the compiler takes: milliseconds, or seconds for a component that carries a language
    /// runtime.
    ///
    /// # Errors
    /// If it is too large, no component, exports neither interface, or imports what is not granted.
    pub fn inspect(&self, bytes: &[u8]) -> Result<Inspected, Error> {
        let compiled = self.0.registry.load(Artefact::Bytes(bytes))?;
        Ok(Inspected { interface: compiled.interface, sha256: compiled.sha256.0 })
    }

    /// Configures a plugin for a place: makes one instance and calls its `init`, here and now.
    ///
    /// Blocks, as [`Host::inspect`] does and for `init` besides: call it where blocking is allowed.
    ///
    /// # Errors
    /// As [`Host::inspect`]; if the artefact's file is unreadable or not what its hash says; if `init` refuses the
    /// configuration, traps, or breaks a limit.
    pub fn attach(&self, artefact: Artefact<'_>, spec: AttachSpec) -> Result<Attachment, Error> {
        if spec.config.len() > PLUGIN_CONFIG_BYTES_MAX {
            return Err(Error::ConfigTooLarge { got: spec.config.len(), limit: PLUGIN_CONFIG_BYTES_MAX });
        }
        let Parts { workers, ticker, registry, shares, limits } = &*self.0;
        let compiled = registry.load(artefact)?;
        let log = Arc::new(LogGate::new(&spec));
        let deadlines = ticker.deadlines();
        let first =
            run_here(Instance::start(&compiled, &spec, log.clone(), &deadlines, limits.init_deadline))?;
        let share = shares.of(spec.place, spec.place_id);
        let shared = Shared::new(spec, compiled, log, deadlines, *limits, share, first);
        Ok(Attachment::new(Arc::new(shared), workers.pool().clone()))
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

/// Runs what runs in slices, one after the other, on this thread.
fn run_here<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(done) = work.as_mut().poll(&mut context) {
            return done;
        }
        engine::begin_slice();
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("limits", &self.0.limits).finish_non_exhaustive()
    }
}
