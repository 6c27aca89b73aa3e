//! The engine, as it is shown.

use serde::{Deserialize, Serialize};

/// The engine's state and statistics.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EngineInfo {
    /// Its version.
    pub version: String,
    /// Names the data directory.
    pub engine_id: String,
    /// Names this start.
    pub start_id: String,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
    /// Its process's CPU time, user and system.
    pub cpu_seconds: f64,
    /// Its process's memory now, in bytes.
    pub rss_bytes: u64,
    /// Its process's largest memory so far, in bytes.
    pub peak_rss_bytes: u64,
    /// Free bytes on the data directory's volume.
    pub disk_free_bytes: u64,
    /// Bytes that compaction has written.
    pub compaction_bytes: u64,
    /// Bytes that flushes of memtables have written.
    pub flush_bytes: u64,
    /// Seconds for which the store held writers back.
    pub stall_seconds: f64,
    /// Syncs of the write-ahead log.
    pub syncs: u64,
    /// Their duration in microseconds: median and 99th percentile.
    pub sync_p50_us: u64,
    /// See `sync_p50_us`.
    pub sync_p99_us: u64,
    /// The QUIC packet size in force on the asking connection, in bytes.
    pub mtu: u16,
    /// Why no writes are taken, if none are.
    pub read_only: Option<String>,
}
