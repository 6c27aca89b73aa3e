//! What a plugin may import, one file per capability, and what the host keeps beside each instance for it.

pub(crate) mod clock;
pub(crate) mod log;

use std::sync::Arc;

use levada_protocol::ids::Timestamp;
use wasmtime::{Engine, Result, component::Linker};

use self::log::LogGate;
use crate::{bindings, engine::Budget, limits::MemoryCap};

/// The host's side of one instance.
#[derive(Debug)]
pub(crate) struct GuestState {
    pub(crate) memory: MemoryCap,
    pub(crate) budget: Budget,
    /// The time that `clock.now` returns.
    pub(crate) now: Timestamp,
    pub(crate) log: Arc<LogGate>,
    /// The last error line of the running call: what a panic said before it trapped.
    pub(crate) last_error: Option<String>,
    /// The last line of the running call that was no error line.
    pub(crate) last_line: Option<String>,
}

impl GuestState {
    pub(crate) fn new(memory_bytes_max: u64, log: Arc<LogGate>) -> Self {
        Self {
            memory: MemoryCap::new(memory_bytes_max),
            budget: Budget::spent(),
            now: Timestamp(0),
            log,
            last_error: None,
            last_line: None,
        }
    }
}

/// Everything that is granted.
pub(crate) fn linker(engine: &Engine) -> Result<Linker<GuestState>> {
    let mut linker = Linker::new(engine);
    linker.instance(bindings::TYPES)?;
    log::define(&mut linker.instance(bindings::LOG)?)?;
    clock::define(&mut linker.instance(bindings::CLOCK)?)?;
    Ok(linker)
}

/// True if an import of this name is granted.
pub(crate) fn is_granted(import: &str) -> bool {
    [bindings::TYPES, bindings::LOG, bindings::CLOCK].contains(&import)
}
