//! The types of `sdk/plugin/wit/plugin.wit` as the host lifts and lowers them, and the interfaces' names.
//!
//! Written by hand instead of generated: events are lowered from borrowed bytes, and nothing needs `unsafe`.

use wasmtime::component::{ComponentType, Lift, Lower};

/// The interface on batch bytes.
pub(crate) const BATCH: &str = "levada:plugin/batch@0.1.0";
/// The interface on typed events.
pub(crate) const EVENTS: &str = "levada:plugin/events@0.1.0";
/// Types that both use; nothing can be called there.
pub(crate) const TYPES: &str = "levada:plugin/types@0.1.0";
/// The log, which may be imported.
pub(crate) const LOG: &str = "levada:plugin/log@0.1.0";
/// The clock, which may be imported.
pub(crate) const CLOCK: &str = "levada:plugin/clock@0.1.0";

/// `types.setup`.
#[derive(Debug, ComponentType, Lower)]
#[component(record)]
pub(crate) struct Setup<'a> {
    pub(crate) config: &'a str,
    pub(crate) attributes: &'a [(&'a str, &'a str)],
}

/// `types.interest`.
#[derive(Debug, Clone, ComponentType, Lift)]
#[component(record)]
pub(crate) struct Interest {
    pub(crate) key: bool,
    pub(crate) headers: HeaderInterest,
    pub(crate) payload: bool,
    #[component(name = "tick-ms")]
    pub(crate) tick_ms: Option<u32>,
}

/// `types.header-interest`.
#[derive(Debug, Clone, ComponentType, Lift)]
#[component(variant)]
pub(crate) enum HeaderInterest {
    #[component(name = "all")]
    All,
    #[component(name = "none")]
    None,
    #[component(name = "named")]
    Named(Vec<String>),
}

/// `types.failure`.
#[derive(Debug, ComponentType, Lift)]
#[component(variant)]
pub(crate) enum Failure {
    #[component(name = "retry")]
    Retry(String),
    #[component(name = "reject")]
    Reject(String),
}

/// `log.level`.
#[expect(dead_code, reason = "lifting makes the variants from their numbers")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
pub(crate) enum Level {
    #[component(name = "error")]
    Error,
    #[component(name = "warn")]
    Warn,
    #[component(name = "info")]
    Info,
    #[component(name = "debug")]
    Debug,
}

/// `events.event`.
#[derive(Debug, ComponentType, Lower)]
#[component(record)]
pub(crate) struct Event<'a> {
    pub(crate) offset: u64,
    pub(crate) time: u64,
    pub(crate) id: Option<&'a str>,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) headers: Vec<(&'a str, &'a [u8])>,
    pub(crate) payload: Option<&'a [u8]>,
}

/// `events.change`.
#[derive(Debug, ComponentType, Lift)]
#[component(variant)]
pub(crate) enum Change {
    #[component(name = "keep")]
    Keep,
    #[component(name = "remove")]
    Remove,
    #[component(name = "set")]
    Set(Vec<u8>),
}

/// `events.patch`.
#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(crate) struct Patch {
    pub(crate) set: Vec<(String, Vec<u8>)>,
    pub(crate) remove: Vec<String>,
}

/// `events.headers-change`.
#[derive(Debug, ComponentType, Lift)]
#[component(variant)]
pub(crate) enum HeadersChange {
    #[component(name = "keep")]
    Keep,
    #[component(name = "replace")]
    Replace(Vec<(String, Vec<u8>)>),
    #[component(name = "patch")]
    Patch(Patch),
}

/// `events.output`.
#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(crate) struct Output {
    pub(crate) topic: Option<String>,
    pub(crate) key: Change,
    pub(crate) time: Option<u64>,
    pub(crate) id: Option<String>,
    pub(crate) headers: HeadersChange,
    pub(crate) payload: Change,
}

/// `events.verdict`.
#[derive(Debug, ComponentType, Lift)]
#[component(variant)]
pub(crate) enum Verdict {
    #[component(name = "drop")]
    Drop,
    #[component(name = "keep")]
    Keep,
    #[component(name = "emit")]
    Emit(Vec<Output>),
    #[component(name = "reject")]
    Reject(String),
}
