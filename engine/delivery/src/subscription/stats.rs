//! What an operator wants to know about a subscription.
//!
//! It must not know metrics or their names.

use levada_protocol::ids::Offset;

/// Statistics over all partitions. Counts are since the engine started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Events delivered and not answered yet.
    pub in_flight: u64,
    /// Events delivered when they, or what stood before them, had been delivered before; after a restart, when they
    /// may have been.
    pub redelivered: u64,
    /// Events whose consumer did not respond in time.
    pub timed_out: u64,
    /// Events that became dead letters, durably.
    pub dead_lettered: u64,
    /// Events whose time to live ended before they were delivered, or delivered again.
    pub ttl_expired: u64,
}

/// Statistics of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionStats {
    /// The oldest offset that is not durably settled.
    pub floor: Offset,
    /// Behind the last durable offset.
    pub end: Offset,
    /// Events below the end that are not durably settled: neither acknowledged nor filtered nor lost nor dead letters.
    pub lag: u64,
}

/// Counts since the start.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) redelivered: u64,
    pub(super) timed_out: u64,
    pub(super) dead_lettered: u64,
    pub(super) ttl_expired: u64,
}
