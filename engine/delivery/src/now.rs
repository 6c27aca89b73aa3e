//! The readings of two clocks that the rules are given.
//!
//! Owns the pair and nothing else. It must not know where the readings come from.

use levada_protocol::ids::Timestamp;

/// One moment on both clocks. Timeouts, waits and leases count on the monotonic one, which no administrator and no time
/// server moves; the wall's is for what people see and for what must survive a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since some moment before the engine's start; never goes back or jumps.
    pub mono_ms: u64,
    /// The time of day.
    pub wall: Timestamp,
}

impl Now {
    /// The moment `ms` from now on the monotonic clock.
    pub fn after(self, ms: u64) -> u64 {
        self.mono_ms.saturating_add(ms)
    }
}
